"""Scenarios of those who mean no good: what lies in a store, what a key may be, who may read, who may connect."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import pickle
import random
import ssl
import stat
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Success

from cachemesh import CacheScope, SyncCache
from cachemesh.core.scopes import GLOBAL_OWNER, SESSION_OWNER
from cachemesh.stores.redis import RedisStore, ServerRefusedError
from cachemesh.stores.redis.layout import Layout
from cachemesh.stores.redis.rights import RIGHTS
from cachemesh.stores.sqlite.places import Places
from tests.stores.proxy import Proxy
from tests.stores.servers import Server
from tests.stores.test_shared_stores import Heard, until
from tests.stores.worlds import OnDisk, OnServer, Process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry
    from cachemesh.stores.report import StoreStats
    from tests.stores.worlds import World

USER: Final = CacheScope.USER
ASKED: Final = Failure("asked")
EXECUTED: Final[list[str]] = []
FOUND: Final[list[str]] = []
"""What a pickle has looked up, in the whole process, since `_watch_pickle` was called."""


class Exploit:
    """What a pickle can do when it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return EXECUTED.append, ("executed",)


def _watch_pickle(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        FOUND.append(".".join(map(str, arguments)))


def test_se2_nothing_that_lies_in_a_store_is_unpickled(world: World) -> None:
    pickled = [pickle.dumps(os.getcwd, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    sys.addaudithook(_watch_pickle)
    pickle.loads(pickled[-1])  # noqa: S301 (the hook works)
    assert FOUND
    FOUND.clear()
    shell = b"cposix\nsystem\n(S'exit 1'\ntR."
    for data in (*pickled, shell):
        one = world.new()
        for number in range(3):
            one.get(f"k{number}", Success(number), ttl=60)
            one.user("alice").get(f"k{number}", Success(number), scope=USER, ttl=60)
        one.flush()
        assert world.plant(data) >= 6
        another = world.new()
        for number in range(3):
            assert another.get(f"k{number}", ASKED) == ASKED
            assert another.user("alice").get(f"k{number}", ASKED, scope=USER) == ASKED
        one.cache.clear()
        one.flush()
    assert FOUND == []


PIECES: Final = (
    *("'", '"', ";", "--", "\0", "\r\n", "*", "?", "[", "]", "\\", "{", "}", ":", "%", "/", "..", " "),
    *(
        "' OR 1=1 --",
        "DROP TABLE entries",
        "FLUSHALL\r\n",
        "redis.call('FLUSHALL')",
        "$6",
        "cm1:",
        "\ud800",
        "é",
        "\u202e",
    ),
)


def test_se4_hostile_keys_and_users_touch_nothing_that_is_not_theirs(world: World) -> None:
    rng = random.Random(4)
    texts = list({"".join(rng.choices(PIECES, k=rng.randrange(1, 6))) for _ in range(260)})[:200]
    assert len(texts) == 200
    one = world.new()
    one.user("victim").get("victim", Success("theirs"), scope=USER, ttl=60)
    one.get("victim", Success("everyone's"), ttl=60)
    for number, text in enumerate(texts):
        assert one.get(text, Success(number), ttl=60, tags=(text,)) == Success(number)
        if number % 8 == 0:
            assert one.user(text).get(text, Success(-number), scope=USER, ttl=60) == Success(-number)
    one.flush()
    another = world.new()
    for number, text in enumerate(texts):
        assert another.get(text, ASKED) == Success(number)
        if number % 8 == 0:
            assert another.user(text).get(text, ASKED, scope=USER) == Success(-number)
    gone = texts[::4]
    for text in gone[:25]:
        another.call("invalidate", text)
    for text in gone[25:]:
        another.call("invalidate_tag", text)
    another.flush()
    last = world.new()
    for number, text in enumerate(texts):
        assert last.get(text, ASKED) == (ASKED if text in gone else Success(number)), text
    assert last.user("victim").get("victim", ASKED, scope=USER) == Success("theirs")
    assert last.get("victim", ASKED) == Success("everyone's")


names: Final = st.text(max_size=8) | st.sampled_from(["", ":", "a:b", "a", "b", "{", "}", "\0", "user", "1:a"])
owners: Final = st.one_of(st.just(GLOBAL_OWNER), st.just(SESSION_OWNER), names.map(lambda name: (USER, name)))
places: Final = st.tuples(names, owners, names)


@given(places, places)
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_se5_two_places_share_no_name_on_either_store(
    one: tuple[str, Owner, str], other: tuple[str, Owner, str]
) -> None:
    """A place is (namespace, owner, key)."""
    on_server = [Layout(namespace).entry(owner, key) for namespace, owner, key in (one, other)]
    on_disk = [Places(namespace).number(owner, key) for namespace, owner, key in (one, other)]
    leases = [Layout(namespace).lease(name) for (namespace, _, _), name in zip((one, other), on_server, strict=True)]
    assert (on_server[0] == on_server[1]) is (one == other)
    assert (on_disk[0] == on_disk[1]) is (one == other)
    assert (leases[0] == leases[1]) is (one == other)
    assert not set(on_server) & set(leases)


# Files


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_se7_nobody_else_may_read_what_a_cache_writes(face_name: str, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    world = OnDisk(face_name, tmp_path / "made" / "anew" / "cache.db")
    try:
        one = world.new()
        one.get("k", Success("v"), ttl=60)
        one.flush()
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in world.path.parent.iterdir()}
        assert {f"cache.db{suffix}" for suffix in ("", "-wal", "-shm")} <= set(found)
        assert {name: mode for name, mode in found.items() if mode != 0o600} == {}
        one.close()
        # What is damaged is moved away, and that is as private.
        whole = world.path.read_bytes()
        world.path.write_bytes(whole[:100] + b"damaged" * (len(whole) // 7))
        another = world.new()
        another.get("k", Success("v"), ttl=60)
        another.flush()
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in world.path.parent.iterdir()}
        assert any("corrupt" in name for name in found), found
        assert {name: mode for name, mode in found.items() if mode != 0o600} == {}
        for folder in (world.path.parent, world.path.parent.parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)
        world.close()


@pytest.mark.parametrize("kind", ["link", "somebody else's"])
def test_se7_a_folder_that_somebody_else_controls_is_refused(
    face_name: str, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    if kind == "link":
        (tmp_path / "link").symlink_to(folder)
        folder = tmp_path / "link"
    elif os.geteuid() == 0:
        os.chown(folder, 12_345, -1)
    else:
        pytest.skip("only root can give a folder away")
    world = OnDisk(face_name, folder / "cache.db")
    try:
        one = world.new()
        assert one.get("k", Success("v"), ttl=60) == Success("v")
        assert one.get("k", ASKED) == Success("v")
        assert isinstance(one.flush(), Failure)
        assert list(folder.iterdir()) == []
        assert "the folder is" in caplog.text
    finally:
        world.close()


# Who may connect

ONE_NAMESPACE: Final = RIGHTS.replace(
    "~cm1:* &cm1:*", "~cm1:9:cachemesh:* ~cm1:{9:cachemesh}:* &cm1:{9:cachemesh}:news"
)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    with Server(unixsocket="valkey.sock") as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">secret", *RIGHTS.split())
            client.execute_command("ACL", "SETUSER", "tenant", "reset", "on", ">secret", *ONE_NAMESPACE.split())
            client.execute_command("ACL", "SETUSER", "default", "-@all", "+ping", "+acl")
        yield server


class Restricted(OnServer):
    """Somebody with few rights: `user`."""

    user = "app"

    def store(self, **settings: Any) -> RedisStore:
        settings = {"memory_cap": 0.2, "ping_interval": 0.5, **settings}
        return RedisStore(f"redis://{self.user}:secret@{self.server.host}:{self.server.port}", **settings)


def use_it_all(world: World, heard: Heard) -> None:
    """Read, write, remove, mark, claim, hear of others."""
    one, other = world.new(logger=heard), world.new(logger=heard)
    assert one.get("k", Success(1), ttl=60, tags=("t",)) == Success(1)
    one.flush()
    assert other.get("k", ASKED) == Success(1)
    one.call("put", "k", 2, ttl=60)
    one.flush()
    until(lambda: other.get("k", ASKED) == Success(2))
    for remove, arguments in (
        ("invalidate", ("k",)),
        ("invalidate_tag", ("t",)),
        ("expire_tag", ("t",)),
        ("invalidate_prefix", ("k",)),
        ("clear_scope", (CacheScope.GLOBAL,)),
        ("clear", ()),
    ):
        one.get("k", Success(1), ttl=60, tags=("t",))
        one.flush()
        until(lambda: other.get("k", ASKED) != ASKED)
        one.call(remove, *arguments)
        one.flush()
        until(lambda: other.get("k", ASKED) == ASKED)
    one.get("down", Failure("no"), cache_failures=True, ttl=60)
    one.flush()
    assert other.get("down", Success("up")) == Failure("no")
    assert one.flush() == Success(None)
    assert {type(error) for _, error in heard.errors} <= {str}  # Fetches that failed, and no store.


async def figures_of(store: RedisStore) -> StoreStats:
    try:
        return await store.stats()
    finally:
        await store.aclose()


async def read_of(store: RedisStore) -> StoredEntry | None:
    try:
        return await store.read(GLOBAL_OWNER, "k")
    finally:
        await store.aclose()


@pytest.mark.parametrize("user", ["app", "tenant"])
def test_se8_a_user_with_few_rights_can_do_all_that_a_cache_needs(guarded: Server, face_name: str, user: str) -> None:
    world, heard = Restricted(face_name, guarded), Heard()
    world.user = user
    world.new().cache.clear()
    try:
        use_it_all(world, heard)
        assert asyncio.run(figures_of(world.store())).details["mode"] == "single"
    finally:
        world.close()
    foreign = RedisStore(f"redis://tenant:secret@{guarded.host}:{guarded.port}", namespace="another")
    with pytest.raises(ServerRefusedError):
        asyncio.run(read_of(foreign))


def test_se8_a_wrong_password_costs_the_help_of_the_store_and_is_told(guarded: Server) -> None:
    heard = Heard()
    with SyncCache(store=RedisStore(f"redis://app:wrong-one@{guarded.host}:{guarded.port}"), logger=heard) as cache:
        assert cache.get("k", lambda: Success(1), ttl=60) == Success(1)
        assert cache.peek("k") == Success(1)
    assert heard.errors
    assert "wrong-one" not in repr(heard.errors)


def test_se8_a_socket_of_the_file_system(guarded: Server) -> None:
    url = f"unix://app:secret@{guarded.folder / 'valkey.sock'}"
    with SyncCache(store=RedisStore(url)) as one, SyncCache(store=RedisStore(url)) as other:
        one.get("socket", lambda: Success(1), ttl=60)
        assert one.flush() == Success(None)
        assert other.get("socket", lambda: Failure("asked")) == Success(1)


def certified(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate that signs itself, and what speaks TLS with it. The server of the wheel has no TLS: a proxy has."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path = folder / "key.pem"
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return path, context


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_se8_a_certificate_that_nobody_vouches_for_is_refused_unless_one_trusts_it(
    server: Server, tmp_path: Path, scheme: str
) -> None:
    certificate, context = certified(tmp_path)
    with Proxy(server.host, server.port, tls=context) as proxy:
        url, heard = f"{scheme}://{proxy.host}:{proxy.port}", Heard()
        with SyncCache(store=RedisStore(url), logger=heard) as cache:
            assert cache.get("k", lambda: Success(1), ttl=60) == Success(1)
            assert isinstance(cache.flush(), Failure)
        assert heard.errors
        with server.client() as client:
            assert client.dbsize() == 0
        trusting = f"{url}?ssl_ca_certs={certificate}"
        with (
            SyncCache(store=RedisStore(trusting, timeout=5.0)) as one,
            SyncCache(store=RedisStore(trusting, timeout=5.0)) as other,
        ):
            for each in (one, other):
                Process(each, None).listens()
            one.get("k", lambda: Success(1), ttl=60)
            assert one.flush() == Success(None)
            assert other.get("k", lambda: Failure("asked")) == Success(1)
            one.put("k", 2, ttl=60)
            one.flush()
            until(lambda: other.get("k", lambda: Failure("asked")) == Success(2))
