"""Encryption at rest: what opens and what does not, whose keys are destroyed when, and what a ring survives."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import pickle
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from msgspec.structs import replace
from returns.result import Success

from cachemesh import Cache, CachePolicy, CacheScope, SyncCache
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.stores import encryption
from cachemesh.stores.encryption import (
    FileKeyRing,
    KeyRing,
    KeyRingError,
    MemoryKeyRing,
    PartitionCipher,
    UndecipherableError,
    WrappedKey,
    Xaes,
    digest,
)
from cachemesh.stores.envelope import (
    BODY_AT,
    MAGIC,
    DamagedEnvelopeError,
    Header,
    KeyUnavailableError,
    checksum,
    opened,
    opened_for,
    pack,
    sealed,
    unpack_body,
    unpack_header,
)
from cachemesh.stores.redis import RedisStore
from cachemesh.stores.sqlite import NotFlushedError, SqliteStore
from cachemesh.stores.sqlite.sweep import Sweeper
from cachemesh.testing import SharedStoreContract, StoreContract
from tests.stores.encryption_children import OWNERS, ROOT_KEY, a_cipher, answer, begin
from tests.stores.sizes import FEW_TEXTS, tries
from tests.stores.sqlite_files import ALICE, BOB, entry, payload, using, value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import SharedStore, Store
    from tests.stores.servers import Server

OTHER_ROOT: Final = bytes(32)
CANARY: Final = "canary-b3f1c8"
"""Stands in values and tags, and must be found nowhere."""


def in_memory(root_keys: bytes | Sequence[bytes] = ROOT_KEY, **settings: Any) -> PartitionCipher:
    return PartitionCipher(root_keys, keyring=MemoryKeyRing(), **settings)


# The algorithm


@pytest.mark.parametrize(
    ("key", "context", "expected"),
    [
        (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_it_is_xaes_256_gcm(key: bytes, context: bytes, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors of c2sp.org/XAES-256-GCM; the two keys take the two ways through the subkey of CMAC."""
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    monkeypatch.setattr(os, "urandom", lambda size: nonce[:size])
    xaes = Xaes(key)
    assert xaes.encrypt(b"XAES-256-GCM", context) == nonce + bytes.fromhex(expected)
    assert xaes.decrypt(nonce + bytes.fromhex(expected), context) == b"XAES-256-GCM"


def test_the_same_is_never_encrypted_to_the_same() -> None:
    cipher = in_memory()
    assert len({cipher.encrypt(b"", ALICE, b"") for _ in range(10_000)}) == 10_000


def test_one_key_may_be_used_by_many_threads() -> None:
    cipher = in_memory()
    wrong: list[object] = []

    def work(number: int) -> None:
        for each in range(500):
            said = b"%d %d" % (number, each)
            try:
                found = cipher.decrypt(cipher.encrypt(said, ALICE, b"c"), ALICE, b"c")
            except Exception as error:  # noqa: BLE001 (whatever it is, it is wrong)
                wrong.append(error)
            else:
                wrong.extend([] if found == said else [found])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_library_imports_without_cryptography() -> None:
    code = (
        "import sys, cachemesh, cachemesh.stores.sqlite, cachemesh.stores.keyring\n"
        "for name in cachemesh.__all__: getattr(cachemesh, name)\n"
        "assert 'cachemesh.stores.encryption' not in sys.modules\n"
        "assert not any(name.partition('.')[0] == 'cryptography' for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 (our own line)


def test_without_cryptography_it_says_what_is_missing() -> None:
    code = (
        "import sys\n"
        "sys.modules['cryptography'] = None\n"
        "try: import cachemesh.stores.encryption\n"
        "except ImportError as error: assert 'cachemesh[encryption]' in str(error)\n"
        "else: raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 (our own line)


@pytest.mark.parametrize("keys", [b"", b"x" * 31, b"x" * 33, [], [ROOT_KEY, b"short"], ["x" * 32], bytearray(32)])
def test_what_is_no_root_key_is_refused(keys: Any) -> None:
    with pytest.raises(ValueError, match="a root key is 32 bytes") as caught:
        in_memory(keys)
    assert "xxx" not in str(caught.value)


# SE-3: envelopes

SECRET: Final = entry("k", CANARY, owner=ALICE, tags=(CANARY,), generation=7)


def with_checksum(body: bytes) -> bytes:
    """What somebody makes of `body` who can write to the store: the checksum is no secret."""
    return MAGIC + checksum(body) + body


def is_rejected(envelope: bytes, cipher: PartitionCipher, **place: Any) -> bool:
    """Whether nothing is found in `envelope`, under the place of SECRET or another one."""
    namespace, owner, key = place.get("namespace", "n"), place.get("owner", ALICE), place.get("key", "k")
    try:
        found = opened_for(envelope, namespace, owner, key, cipher)
    except DamagedEnvelopeError:
        return True
    return bool(found.generation != place.get("generation", 7))


def test_se3_each_byte_that_is_tampered_with_is_noticed() -> None:
    """With the checksum as it was, and with one that fits."""
    cipher = in_memory()
    envelope = sealed(SECRET, "n", cipher)
    assert opened_for(envelope, "n", ALICE, "k", cipher) == SECRET
    chance = random.Random(3)
    accepted = []
    for at in range(len(envelope)):
        for flip in {1, 0x80, chance.randrange(1, 256), chance.randrange(1, 256)}:
            tampered = bytearray(envelope)
            tampered[at] ^= flip
            if not is_rejected(bytes(tampered), cipher):
                accepted.append((at, flip))
            if at >= BODY_AT and not is_rejected(with_checksum(bytes(tampered[BODY_AT:])), cipher):
                accepted.append((at, flip))
    assert accepted == []


def test_se3_what_is_shorter_or_longer_is_noticed() -> None:
    cipher = in_memory()
    body = unpack_body(sealed(SECRET, "n", cipher)[BODY_AT:])
    others = (*(body.content[:size] for size in range(len(body.content))), body.content + b"\0", b"")
    assert all(is_rejected(with_checksum(pack((body.header, other))), cipher) for other in others)


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"key": "l"},
        {"owner": BOB},
        {"owner": (CacheScope.SESSION, "alice")},
        {"owner": GLOBAL_OWNER},
        {"namespace": "m"},
        {"generation": 8},
    ],
    ids=str,
)
def test_se3_what_is_put_elsewhere_is_rejected(elsewhere: dict[str, Any]) -> None:
    """As it is; and with a header that says what the place wants, and a checksum that fits."""
    cipher = in_memory()
    others = [replace(SECRET, owner=owner) for owner in (BOB, (CacheScope.SESSION, "alice"), GLOBAL_OWNER)]
    for other in others:  # They have keys as well.
        sealed(other, "n", cipher)
    envelope = sealed(SECRET, "n", cipher)
    assert is_rejected(envelope, cipher, **elsewhere)
    body = unpack_body(envelope[BODY_AT:])
    place = replace(SECRET, **{name: each for name, each in elsewhere.items() if name != "namespace"})
    wanted = unpack_body(sealed(place, elsewhere.get("namespace", "n"), cipher)[BODY_AT:]).header
    forged = with_checksum(pack((wanted, body.content)))
    with pytest.raises(DamagedEnvelopeError, match="it cannot be decrypted"):
        opened_for(forged, elsewhere.get("namespace", "n"), place.owner, place.key, cipher)


def test_se3_there_is_no_way_down_to_plain_text() -> None:
    cipher = in_memory()
    plain = sealed(SECRET, "n")
    with pytest.raises(DamagedEnvelopeError, match="it is not encrypted"):
        opened_for(plain, "n", ALICE, "k", cipher)
    with pytest.raises(DamagedEnvelopeError, match="it is not encrypted"):
        opened(plain, "n", cipher)
    body = unpack_body(plain[BODY_AT:])
    header = unpack_header(body.header)
    assert header == Header(b"n", b"u:alice", b"k", 7, is_encrypted=False)
    claimed = pack(replace(header, is_encrypted=True))
    for content in (body.content, b"\x00" + body.content, b"\x01" + bytes(16) + body.content):
        assert is_rejected(with_checksum(pack((claimed, content))), cipher)
    # And what is encrypted is not taken for plain.
    encrypted = unpack_body(sealed(SECRET, "n", cipher)[BODY_AT:])
    with pytest.raises(DamagedEnvelopeError):
        opened_for(with_checksum(pack((body.header, encrypted.content))), "n", ALICE, "k")


def test_se3_no_other_algorithm_can_be_asked_for() -> None:
    cipher = in_memory()
    content = cipher.encrypt(b"said", ALICE, b"c")
    for first in range(256):
        if first != content[0]:
            with pytest.raises(UndecipherableError):
                cipher.decrypt(bytes([first]) + content[1:], ALICE, b"c")


def test_se3_an_unknown_key_id_is_a_miss() -> None:
    cipher = in_memory()
    content = cipher.encrypt(b"said", ALICE, b"c")
    with pytest.raises(UndecipherableError, match="its key is gone"):
        cipher.decrypt(content[:1] + os.urandom(16) + content[17:], ALICE, b"c")
    with pytest.raises(UndecipherableError, match="its key is gone"):
        cipher.decrypt(content, BOB, b"c")
    with pytest.raises(UndecipherableError, match="its key is gone"):
        in_memory().decrypt(content, ALICE, b"c")


def test_se3_a_key_of_one_owner_cannot_be_given_to_another_in_the_ring() -> None:
    """Who can write to the ring cannot read Alice's with the help of Bob's cipher."""
    ring = MemoryKeyRing()
    cipher = PartitionCipher(ROOT_KEY, keyring=ring)
    content = cipher.encrypt(b"said", ALICE, b"c")
    (key,) = ring.find([digest(ALICE)])[digest(ALICE)]
    ring.add({digest(BOB): key}, ())
    with pytest.raises(KeyUnavailableError):
        PartitionCipher(ROOT_KEY, keyring=ring).decrypt(content, BOB, b"c")


def test_se3_nothing_secret_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No plain text, no key and no tag, in logs, reprs, exceptions and their chains."""
    caplog.set_level(logging.DEBUG)
    ring = FileKeyRing(tmp_path / "keys.db")
    cipher = PartitionCipher([ROOT_KEY, OTHER_ROOT], keyring=ring)
    told: list[str] = []

    def tell(error: BaseException | None) -> None:
        while error is not None:
            told.extend((repr(error), str(error), repr(error.args), repr(vars(error))))
            error = error.__cause__ or error.__context__

    envelope = sealed(SECRET, "n", cipher)
    body = unpack_body(envelope[BODY_AT:])
    for content in (body.content[:-1] + bytes([body.content[-1] ^ 1]), b"\x09" + body.content[1:]):
        forged = with_checksum(pack((body.header, content)))
        with pytest.raises(DamagedEnvelopeError) as caught:
            opened_for(forged, "n", ALICE, "k", cipher)
        tell(caught.value)
        with pytest.raises(UndecipherableError) as undecipherable:
            cipher.decrypt(content, ALICE, body.header)
        tell(undecipherable.value)

    async def act(store: SqliteStore) -> None:
        await store.write(SECRET)
        await store.flush()
        connection = sqlite3.connect(store.path)
        connection.execute("UPDATE entries SET envelope = ?", (envelope[:-1] + b"\0",))
        connection.commit()
        connection.close()
        assert await value(store, owner=ALICE) is None

    using(tmp_path / "x.db", act, cipher=cipher)
    (key,) = cipher._look_up([ALICE])[ALICE].opened.values()
    (wrapped,) = ring.find([digest(ALICE)])[digest(ALICE)]
    told += [repr(each) for each in (cipher, cipher.at_hand, ring, key, wrapped, cipher._look_up([ALICE]))]
    told += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert any("a record is not to be believed" in each for each in told)
    secrets = (ROOT_KEY, OTHER_ROOT, key._key, wrapped.wrapped, body.content[-16:], CANARY.encode())
    for secret in secrets:
        for form in (secret.hex(), repr(secret)[2:-1]):
            assert not any(form in each for each in told), form
    with pytest.raises(TypeError):
        pickle.dumps(cipher)


# Crypto-shredding


def files_of(folder: Path) -> dict[str, bytes]:
    """As another process reads them: to open and close a file would take the locks of a store in this one."""
    copy = Path(tempfile.mkdtemp(dir=folder)) / "copy"
    code = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], ignore=lambda *_: [sys.argv[3]])"
    command = [sys.executable, "-c", code, str(folder), str(copy), copy.parent.name]
    subprocess.run(command, check=True)  # noqa: S603 (our own line)
    found = {each.name: each.read_bytes() for each in copy.iterdir() if each.is_file()}
    shutil.rmtree(copy.parent)
    return found


def test_se3_what_was_cleared_is_unreadable_in_every_copy(tmp_path: Path) -> None:
    """A backup of the whole file, and the file as it is: the root key and the ring as it is now read neither."""
    folder = tmp_path / "live"
    cipher = a_cipher(tmp_path)
    ring_before: dict[str, bytes] = {}
    backup: dict[str, bytes] = {}

    async def act(store: SqliteStore) -> None:
        for owner in (ALICE, BOB):
            await store.write(entry("k", CANARY, owner=owner))
        await store.flush()
        backup.update(files_of(folder))
        ring_before.update(files_of(tmp_path))
        assert await value(store, owner=ALICE) == repr(CANARY).encode()
        await store.clear_partition(ALICE)
        await store.flush()
        assert await value(store, owner=ALICE) is None

    using(folder / "x.db", act, cipher=cipher)

    def read_backup(name: str, opener: PartitionCipher) -> list[bytes | None]:
        copy = tmp_path / name
        copy.mkdir()
        for each, content in backup.items():
            (copy / each).write_bytes(content)

        async def look(store: SqliteStore) -> list[bytes | None]:
            return [await value(store, owner=owner) for owner in (ALICE, BOB)]

        return using(copy / "x.db", look, cipher=opener)

    assert read_backup("without the key", a_cipher(tmp_path)) == [None, repr(CANARY).encode()]
    # It is the key that makes the difference: with a copy of the ring from before, the backup is read.
    old = tmp_path / "ring"
    old.mkdir()
    (old / "keys.db").write_bytes(ring_before["keys.db"])
    assert read_backup("with the key", a_cipher(old)) == [repr(CANARY).encode()] * 2
    # Until the root key is another one: then old copies of the ring are worthless too.
    new_root = os.urandom(32)
    assert PartitionCipher([new_root, ROOT_KEY], keyring=FileKeyRing(tmp_path / "keys.db")).rewrap() == 0
    rotated = PartitionCipher(new_root, keyring=FileKeyRing(old / "keys.db"))
    assert read_backup("with an old ring and a new root key", rotated) == [None, None]


def test_se3_a_forgotten_key_is_overwritten_in_the_ring(tmp_path: Path) -> None:
    cipher = a_cipher(tmp_path)
    ring = FileKeyRing(tmp_path / "keys.db")
    owners = [*OWNERS, *((CacheScope.USER, f"more {number}") for number in range(500))]
    cipher.prepare(owners)
    keys = [ring.find([digest(owner)])[digest(owner)][0] for owner in owners]
    content = (tmp_path / "keys.db").read_bytes()
    assert all(key.wrapped in content for key in keys)
    cipher.forget(owners[3])
    content = (tmp_path / "keys.db").read_bytes()
    assert keys[3].wrapped not in content
    assert keys[4].wrapped in content
    cipher.forget(None)
    content = (tmp_path / "keys.db").read_bytes()
    assert not any(key.wrapped in content or key.id in content for key in keys)


REMOVALS: Final[Mapping[str, tuple[Callable[[Any], None], bool]]] = {
    "end_session": (lambda cache: cache.end_session(), True),
    "another user": (lambda cache: cache.set_active_user("bob"), True),
    "nobody": (lambda cache: cache.set_active_user(None), True),
    "clear_scope": (lambda cache: cache.clear_scope(CacheScope.USER), True),
    "clear": (lambda cache: cache.clear(), True),
    "the view's clear": (lambda cache: cache.for_user("alice").clear(), True),
    "the view's end_session": (lambda cache: cache.for_user("alice").end_session(), True),
    "invalidate": (lambda cache: cache.invalidate("k", scope=CacheScope.USER), False),
    "invalidate_tag": (lambda cache: cache.invalidate_tag("t"), False),
    "clear_scope of another": (lambda cache: cache.clear_scope(CacheScope.SESSION), False),
    "clear of another user": (lambda cache: cache.for_user("bob").clear(), False),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_whatever_clears_a_users_partition_destroys_the_key(tmp_path: Path, removal: str) -> None:
    remove, is_destroyed = REMOVALS[removal]
    ring = MemoryKeyRing()
    store = SqliteStore(tmp_path / "x.db", cipher=PartitionCipher(ROOT_KEY, keyring=ring))
    with SyncCache(store=store) as cache:
        cache.set_active_user("alice")
        assert cache.get("k", lambda: Success(1), scope=CacheScope.USER, tags=["t"]) == Success(1)
        cache.flush()
        assert ring.find([digest(ALICE)])
        remove(cache)
        cache.flush()
        assert bool(ring.find([digest(ALICE)])) is not is_destroyed


def test_who_comes_back_has_a_new_key(tmp_path: Path) -> None:
    """In one batch with the clearing: what is written after it is kept, and with another key."""
    ring = MemoryKeyRing()

    async def act(store: SqliteStore) -> None:
        heard: list[str] = []
        store.report = lambda error: heard.append(str(error))
        keys: set[bytes] = set()
        for number in range(20):
            await store.write(entry("a", number, owner=ALICE))
            await store.clear_partition(ALICE)
            await store.write(entry("b", number, owner=ALICE))
            await store.write(entry("b", number, owner=BOB))
            await store.flush()
            assert [await value(store, key, ALICE) for key in ("a", "b")] == [None, b"%d" % number]
            assert await value(store, "b", BOB) == b"%d" % number
            keys |= {key.id for key in ring.find([digest(ALICE)])[digest(ALICE)]}
        assert len(keys) == 20
        await store.clear()
        await store.write(entry("c", 1, owner=ALICE))
        await store.flush()
        assert await value(store, "c", ALICE) == b"1"
        assert len(list(ring.scan())) == 1
        assert heard == []

    using(tmp_path / "x.db", act, cipher=PartitionCipher(ROOT_KEY, keyring=ring))


class MoodyRing(MemoryKeyRing):
    """Fails while it `is_down`."""

    is_down = False

    def find(self, owners: Collection[bytes], /) -> Mapping[bytes, Sequence[WrappedKey]]:
        self.meet()
        return super().find(owners)

    def add(
        self, keys: Mapping[bytes, WrappedKey], beside: Collection[bytes], /
    ) -> Mapping[bytes, Sequence[WrappedKey]]:
        self.meet()
        return super().add(keys, beside)

    def forget(self, owner: bytes | None, /) -> None:
        self.meet()
        super().forget(owner)

    def meet(self) -> None:
        if self.is_down:
            msg = CANARY
            raise ZeroDivisionError(msg)


def test_a_key_that_cannot_be_destroyed_is_tried_again(tmp_path: Path) -> None:
    """What was to go is gone at once, for all processes; `flush` does not say that all is well before it is."""
    ring = MoodyRing()

    async def act(store: SqliteStore) -> None:
        heard: list[str] = []
        store.report = lambda error: heard.append(str(error))
        await store.write(entry(owner=ALICE))
        await store.flush()
        ring.is_down = True
        await store.clear_partition(ALICE)
        with pytest.raises(NotFlushedError):
            await store.flush()
        peer = SqliteStore(store.path, cipher=PartitionCipher(ROOT_KEY, keyring=MemoryKeyRing()))
        assert [await value(each, owner=ALICE) for each in (store, peer)] == [None, None]
        await peer.aclose()
        assert heard == ["a key could not be destroyed, and will be tried again: KeyUnavailableError"]
        ring.is_down = False
        ends_at = time.monotonic() + 10
        while list(ring.scan()):
            assert time.monotonic() < ends_at
            await asyncio.sleep(0.02)
        await store.flush()
        await store.write(entry(owner=ALICE))
        await store.flush()
        assert await value(store, owner=ALICE) == b"1"

    using(tmp_path / "x.db", act, cipher=PartitionCipher(ROOT_KEY, keyring=ring))


# Rotation


def test_se3_root_keys_are_rotated_without_a_loss(tmp_path: Path) -> None:
    old, new, path = os.urandom(32), os.urandom(32), tmp_path / "x.db"
    ring = FileKeyRing(tmp_path / "keys.db")
    owners = [*OWNERS, *((CacheScope.USER, f"more {number}") for number in range(1_200))]

    async def write(store: SqliteStore) -> None:
        for owner in OWNERS:
            await store.write(entry("k", str(owner[1]), owner=owner))

    async def read(store: SqliteStore) -> list[bytes | None]:
        return [await value(store, owner=owner) for owner in OWNERS]

    everything = [repr(owner[1]).encode() for owner in OWNERS]
    PartitionCipher(old, keyring=ring).prepare(owners)
    using(path, write, cipher=PartitionCipher(old, keyring=ring))
    # The new one encrypts, the old one still opens.
    both = PartitionCipher([new, old], keyring=ring)
    assert using(path, read, cipher=both) == everything
    # Without the old one: all misses, and nothing is lost by them.
    assert using(path, read, cipher=PartitionCipher(new, keyring=ring)) == [None] * len(OWNERS)
    assert PartitionCipher(new, keyring=ring).rewrap() == len(owners)
    assert using(path, read, cipher=PartitionCipher(old, keyring=ring)) == everything
    # Encrypted anew, the old one is superfluous, and opens nothing any more.
    assert both.rewrap() == 0
    assert using(path, read, cipher=PartitionCipher(new, keyring=ring)) == everything
    assert using(path, read, cipher=PartitionCipher(old, keyring=ring)) == [None] * len(OWNERS)
    assert len(list(ring.scan())) == len(owners)


def test_with_a_retired_root_key_a_user_is_cached_anew(tmp_path: Path) -> None:
    """The old key of the partition stays in the ring: with the old root key, what it encrypted is read again."""
    ring, path = MemoryKeyRing(), tmp_path / "x.db"
    old, new = PartitionCipher(OTHER_ROOT, keyring=ring), PartitionCipher(ROOT_KEY, keyring=ring)

    async def write(store: SqliteStore, key: str) -> None:
        await store.write(entry(key, owner=ALICE))
        await store.flush()
        assert await value(store, key, ALICE) == b"1"

    async def read(store: SqliteStore) -> list[bytes | None]:
        return [await value(store, key, ALICE) for key in ("a", "b")]

    using(path, lambda store: write(store, "a"), cipher=old)
    using(path, lambda store: write(store, "b"), cipher=new)
    using(path, lambda store: write(store, "b"), cipher=PartitionCipher(ROOT_KEY, keyring=ring))
    assert len(list(ring.scan())) == 2
    assert using(path, read, cipher=PartitionCipher([ROOT_KEY, OTHER_ROOT], keyring=ring)) == [b"1", b"1"]
    new.forget(ALICE)
    assert list(ring.scan()) == []


# Rings


@pytest.fixture(params=["memory", "file"])
def ring(request: pytest.FixtureRequest, tmp_path: Path) -> KeyRing:
    return MemoryKeyRing() if request.param == "memory" else FileKeyRing(tmp_path / "folder" / "keys.db")


def a_key(name: bytes, root: bytes = b"r", wrapped: bytes = b"w") -> WrappedKey:
    return WrappedKey(name, root, wrapped)


def test_a_ring_keeps_keys(ring: KeyRing) -> None:
    ring.forget(b"a")
    ring.forget(None)
    ring.replace([(b"a", a_key(b"1"))])
    assert (ring.find([b"a", b"b"]), list(ring.scan())) == ({}, [])
    assert ring.add({b"a": a_key(b"1"), b"b": a_key(b"2")}, ()) == {b"a": [a_key(b"1")], b"b": [a_key(b"2")]}
    # Who comes later gets the key of who came first; unless that one does not count.
    assert ring.add({b"a": a_key(b"3")}, ()) == {b"a": [a_key(b"1")]}
    assert ring.add({b"a": a_key(b"3")}, [b"1"]) == {b"a": [a_key(b"1"), a_key(b"3")]}
    assert ring.add({b"a": a_key(b"4")}, [b"1"]) == {b"a": [a_key(b"1"), a_key(b"3")]}
    ring.replace([(b"a", a_key(b"1", b"s", b"new")), (b"a", a_key(b"9")), (b"c", a_key(b"1"))])
    assert ring.find([b"a"]) == {b"a": [a_key(b"1", b"s", b"new"), a_key(b"3")]}
    assert sorted(ring.scan(), key=repr) == sorted(
        [(b"a", a_key(b"1", b"s", b"new")), (b"a", a_key(b"3")), (b"b", a_key(b"2"))], key=repr
    )
    ring.forget(b"a")
    assert ring.find([b"a", b"b"]) == {b"b": [a_key(b"2")]}
    ring.forget(None)
    assert list(ring.scan()) == []


def test_a_ring_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "keys.db"
    before = os.umask(0)
    try:
        FileKeyRing(path).add({b"a": a_key(b"1")}, ())
    finally:
        os.umask(before)
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    path.chmod(0o644)
    FileKeyRing(path).add({b"b": a_key(b"1")}, ())
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_reader_asks_makes_no_ring(tmp_path: Path) -> None:
    ring = FileKeyRing(tmp_path / "folder" / "keys.db")
    cipher = PartitionCipher(ROOT_KEY, keyring=ring)
    with pytest.raises(UndecipherableError):
        cipher.decrypt(in_memory().encrypt(b"", ALICE, b""), ALICE, b"")
    cipher.forget(None)
    assert cipher.rewrap() == 0
    assert not ring.path.parent.exists()


def other_program(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE keys (n INTEGER)")
    connection.commit()
    connection.close()


def later_version(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=2")
    connection.close()


def spoilt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[:] = random.Random(1).randbytes(len(content))
    path.write_bytes(content)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5_000])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: Final = (other_program, later_version, spoilt, torn, a_folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ring_costs_misses_only_and_is_left_alone(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Nothing is raised out of a `get`; the ring stays as it is, and so does what is stored until it is overwritten."""
    path = tmp_path / "keys.db"
    origin = itertools.count(1)

    def get(cipher: PartitionCipher) -> tuple[object, list[str]]:
        heard: list[str] = []
        store = SqliteStore(tmp_path / "x.db", cipher=cipher)
        store.report = lambda error: heard.append(str(error))
        with SyncCache(store=store) as cache:
            cache.set_active_user("alice")
            found = cache.get("k", lambda: Success(next(origin)), scope=CacheScope.USER)
            cache.flush()
            return found, heard

    assert get(a_cipher(tmp_path)) == (Success(1), [])
    assert get(a_cipher(tmp_path)) == (Success(1), [])
    damage(path)
    spoilt_as = path.read_bytes() if path.is_file() else None
    store_as = rows_of(tmp_path / "x.db")
    with pytest.raises(KeyRingError):
        FileKeyRing(path).find([b"a"])

    async def look(store: SqliteStore) -> None:
        heard: list[str] = []
        store.report = lambda error: heard.append(str(error))
        assert await value(store, owner=ALICE) is None
        assert heard == ["a record cannot be read, and is taken for missing: there is no key at hand for it"]

    using(tmp_path / "x.db", look, cipher=a_cipher(tmp_path))
    assert rows_of(tmp_path / "x.db") == store_as
    found, heard = get(a_cipher(tmp_path))
    assert found == Success(2)
    assert "a value could not be encrypted, and was not stored" in heard
    assert (path.read_bytes() if path.is_file() else None) == spoilt_as


def rows_of(path: Path) -> list[Any]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT owner, key, generation, envelope FROM entries").fetchall()
    connection.close()
    return rows


def test_once_a_damaged_ring_is_mended_all_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"

    async def act(store: SqliteStore) -> None:
        await store.write(entry(owner=ALICE))
        await store.flush()
        content = path.read_bytes()
        spoilt(path)
        assert await value(store, owner=ALICE) is None
        path.write_bytes(content)
        ends_at = time.monotonic() + 10
        while await value(store, owner=ALICE) is None:
            assert time.monotonic() < ends_at
            await asyncio.sleep(0.02)

    using(tmp_path / "x.db", act, cipher=a_cipher(tmp_path, recheck=0.0))


@pytest.mark.parametrize("column", ["id", "root", "wrapped"])
def test_a_damaged_key_concerns_its_owner_only_and_stays(tmp_path: Path, column: str) -> None:
    cipher = a_cipher(tmp_path)
    said = {owner: cipher.encrypt(b"said", owner, b"") for owner in (ALICE, BOB)}
    connection = sqlite3.connect(tmp_path / "keys.db")
    connection.execute(f"UPDATE keys SET {column} = 'text' WHERE owner = ?", (digest(ALICE),))  # noqa: S608 (our own name)
    connection.commit()
    connection.close()
    later = a_cipher(tmp_path)
    with pytest.raises(KeyUnavailableError):
        later.decrypt(said[ALICE], ALICE, b"")
    assert later.decrypt(said[BOB], BOB, b"") == b"said"
    assert later.decrypt(later.encrypt(b"new", ALICE, b""), ALICE, b"") == b"new"
    assert len(list(FileKeyRing(tmp_path / "keys.db").scan())) == 3
    assert later.rewrap() == 1


def test_the_sweep_takes_nothing_for_damaged_that_has_no_key_at_hand(tmp_path: Path) -> None:
    ring = MoodyRing()
    cipher = PartitionCipher(ROOT_KEY, keyring=ring, recheck=0.0)

    async def act(store: SqliteStore) -> None:
        for key, tag in (("a", "t"), ("b", "other")):
            await store.write(entry(key, owner=ALICE, tags=(tag,)))
        await store.mark_tag(None, "t", None)
        await store.flush()
        ring.is_down = True
        Sweeper(store._engine).a_pass()
        assert len(rows_of(store.path)) == 2
        ring.is_down = False
        await asyncio.sleep(encryption.RETRY_S)
        Sweeper(store._engine).a_pass()
        assert len(rows_of(store.path)) == 1
        assert await value(store, "b", ALICE) == b"1"
        # What has no key any more is of no use to anybody.
        ring.forget(None)
        await store.mark_tag(None, "t", None)
        await store.flush()
        Sweeper(store._engine).a_pass()
        assert rows_of(store.path) == []

    using(tmp_path / "x.db", act, cipher=cipher)


def test_a_ring_that_fails_is_not_asked_for_a_moment() -> None:
    ring = MoodyRing()
    cipher = PartitionCipher(ROOT_KEY, keyring=ring, recheck=0.0)
    content = cipher.encrypt(b"", ALICE, b"")
    ring.is_down = True
    with pytest.raises(KeyUnavailableError, match="raised ZeroDivisionError") as caught:
        cipher.decrypt(content, ALICE, b"")
    assert CANARY not in str(caught.value)
    ring.is_down = False
    with pytest.raises(KeyUnavailableError, match="a moment ago"):
        cipher.decrypt(content, ALICE, b"")
    cipher.forget(BOB)  # That does not wait.


# Several processes


def test_processes_that_share_a_ring_agree_on_the_keys(tmp_path: Path) -> None:
    """Four begin at the same instant, with no ring there yet, for the same users; each reads what each has written."""
    starts_at = time.time() + 1.0
    children = [begin("write_of_all", tmp_path, f"k{number}", starts_at) for number in range(4)]
    assert [answer(child) for child in children] == ["done"] * 4
    assert len(list(FileKeyRing(tmp_path / "keys.db").scan())) == len(OWNERS)

    async def read(store: SqliteStore) -> list[bytes | None]:
        return [await value(store, f"k{number}", owner) for number in range(4) for owner in OWNERS]

    expected = [repr(f"{owner[1]} k{number}").encode() for number in range(4) for owner in OWNERS]
    assert using(tmp_path / "cache.db", read, cipher=a_cipher(tmp_path)) == expected


def test_what_another_process_forgets_is_forgotten_here(tmp_path: Path) -> None:
    """Within `recheck`; and what is written then, both read."""

    async def act(store: SqliteStore) -> None:
        heard: list[str] = []
        store.report = lambda error: heard.append(str(error))
        owner = OWNERS[0]
        await store.write(entry("k", 1, owner=owner))
        await store.flush()
        assert await asyncio.to_thread(answer, begin("forget", tmp_path, owner[1], "")) == "done"
        assert await value(store, owner=owner) is None
        assert heard == []  # It was cleared, and there is nothing odd about that.
        await asyncio.sleep(0.2)
        await store.write(entry("k", 2, owner=owner))
        await store.flush()
        assert await asyncio.to_thread(answer, begin("read", tmp_path, "k", owner[1])) == "2"
        assert heard == []

    using(tmp_path / "cache.db", act, cipher=a_cipher(tmp_path, recheck=0.1))


def test_a_process_may_be_forked_while_a_ring_is_in_use(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    assert answer(begin("fork_often", tmp_path, 15, "")) == 0


# The contract


class TestSqliteStoreWithCipher(SharedStoreContract):
    examples = tries(15)
    steps = 30
    keeps_bytes = True
    numbers = itertools.count()

    @pytest.fixture(autouse=True)
    def _in(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.cipher = in_memory()

    def make_store(self) -> Store:
        return SqliteStore(self.folder / f"{next(self.numbers)}.db", cipher=self.cipher)

    def make_peer(self, store: SharedStore) -> SharedStore:
        assert isinstance(store, SqliteStore)
        return SqliteStore(store.path, cipher=self.cipher)

    async def close_store(self, store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await store.aclose()


class TestSqliteStoreWithRingInAFile(TestSqliteStoreWithCipher):
    """Each store has a cipher of its own, as another process would."""

    examples = tries(5)
    texts = FEW_TEXTS

    def make_store(self) -> Store:
        number = next(self.numbers)
        ring = FileKeyRing(self.folder / f"{number}.keys")
        return SqliteStore(self.folder / f"{number}.db", cipher=PartitionCipher(ROOT_KEY, keyring=ring, recheck=0.0))

    def make_peer(self, store: SharedStore) -> SharedStore:
        assert isinstance(store, SqliteStore)
        ring = FileKeyRing(store.path.with_suffix(".keys"))
        return SqliteStore(store.path, cipher=PartitionCipher(ROOT_KEY, keyring=ring, recheck=0.0))


class TestRedisStoreWithCipher(StoreContract):
    examples = tries(10)
    steps = 30
    keeps_bytes = True
    texts = FEW_TEXTS

    @pytest.fixture(autouse=True)
    def _on(self, server: Server, tmp_path: Path) -> None:
        self.server = server
        self.folder = tmp_path

    def make_store(self) -> Store:
        self.server.empty()
        return RedisStore(self.server.url, timeout=5.0, cipher=a_cipher(self.folder))

    async def close_store(self, store: Store) -> None:
        assert isinstance(store, RedisStore)
        await store.aclose()


# Files and servers


def test_se3_no_plain_text_is_in_any_file(tmp_path: Path) -> None:
    """Values, tags and failures; the folders with all that lies beside the file, while it is open and afterwards."""

    async def act(store: SqliteStore) -> None:
        for number in range(200):
            await store.write(entry(f"k{number}", CANARY * 20, owner=OWNERS[number % 8], tags=(CANARY,)))
            await store.write(entry(f"f{number}", CANARY, is_failure=True, validator=CANARY))
        await store.flush()
        seen.update(files_of(tmp_path))
        for owner in OWNERS[:4]:
            await store.clear_partition(owner)
        await store.flush()

    seen: dict[str, bytes] = {}
    using(tmp_path / "x.db", act, cipher=a_cipher(tmp_path))
    assert {"x.db", "x.db-wal", "keys.db"} <= set(seen)
    for content in (*seen.values(), *files_of(tmp_path).values()):
        assert CANARY.encode() not in content
        assert ROOT_KEY not in content
    # Without a cipher it is there: so it would have been found.
    using(tmp_path / "plain.db", act)
    assert any(CANARY.encode() in content for content in files_of(tmp_path).values())


def on_server(server: Server, cipher: PartitionCipher | None, act: Callable[[RedisStore], Awaitable[None]]) -> None:
    async def acting() -> None:
        store = RedisStore(server.url, timeout=5.0, cipher=cipher)
        try:
            await act(store)
        finally:
            await store.aclose()

    asyncio.run(acting())


async def found_by(store: RedisStore, key: str, owner: Owner) -> bytes | None:
    return payload(await store.read(owner, key))


def dump_of(server: Server) -> bytes:
    with server.client() as client:
        client.config_set("rdbcompression", "no")
        client.save()
    return (server.folder / "dump.rdb").read_bytes()


def test_se3_no_plain_text_is_on_the_server(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        for number in range(50):
            await store.write(entry(f"k{number}", CANARY, owner=OWNERS[number % 8], tags=(CANARY,)))
            claim = await store.claim(GLOBAL_OWNER, f"c{number}", waits=True)
            assert await store.commit(entry(f"c{number}", CANARY), claim)
        assert await found_by(store, "c3", GLOBAL_OWNER) == repr(CANARY).encode()
        await store.clear_partition(OWNERS[0])

    on_server(server, in_memory(), act)
    dump = dump_of(server)
    assert b"cachemesh" in dump
    assert CANARY.encode() not in dump
    on_server(server, None, act)
    assert CANARY.encode() in dump_of(server)


def test_se3_a_record_of_the_server_is_worthless_after_the_clearing(server: Server, tmp_path: Path) -> None:
    """Somebody has kept all the server had, counter and all, and plays it back."""

    async def act(store: RedisStore) -> None:
        for owner in (ALICE, BOB):
            await store.write(entry("k", CANARY, owner=owner))
        with server.client() as client:
            kept = {name: client.dump(name) for name in client.scan_iter()}
        await store.clear_partition(ALICE)
        with server.client() as client:
            client.flushall()
            for name, content in kept.items():
                assert content is not None
                client.restore(name, 0, content)
        for reader in (store, RedisStore(server.url, cipher=a_cipher(tmp_path))):
            found = [await found_by(reader, "k", owner) for owner in (ALICE, BOB)]
            assert found == [None, repr(CANARY).encode()]
            assert [payload(each) for each in await reader.read_many([(ALICE, "k"), (BOB, "k")])] == found
            await reader.aclose()
        control = RedisStore(server.url, cipher=old)
        assert await found_by(control, "k", ALICE) == repr(CANARY).encode()
        await control.aclose()

    ring = FileKeyRing(tmp_path / "keys.db")
    cipher = PartitionCipher(ROOT_KEY, keyring=ring)
    cipher.prepare([ALICE, BOB])
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "keys.db").write_bytes(ring.path.read_bytes())
    old = a_cipher(tmp_path / "old")
    on_server(server, cipher, act)


def test_se3_what_is_put_elsewhere_on_the_server_is_a_miss(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry("k", CANARY, owner=ALICE))
        await store.write(entry("k", "bob's", owner=BOB))
        layout = store._layout
        with server.client() as client:
            record = client.get(layout.entry(ALICE, "k"))
            assert isinstance(record, bytes)
            client.set(layout.entry(BOB, "k"), record)
            client.set(layout.entry(ALICE, "l"), record)
            client.set(layout.entry(ALICE, "m"), record[:-1] + bytes([record[-1] ^ 1]))
        places = [(BOB, "k"), (ALICE, "l"), (ALICE, "m"), (ALICE, "k")]
        found = [payload(each) for each in await store.read_many(places)]
        assert found == [None, None, None, repr(CANARY).encode()]

    on_server(server, in_memory(), act)
    assert "an entry of the store is not to be believed" in caplog.text
    assert CANARY not in caplog.text


class SlowRing(MemoryKeyRing):
    """Remembers which threads have asked it."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def find(self, owners: Collection[bytes], /) -> Mapping[bytes, Sequence[WrappedKey]]:
        self.threads.add(threading.get_ident())
        return super().find(owners)

    def add(
        self, keys: Mapping[bytes, WrappedKey], beside: Collection[bytes], /
    ) -> Mapping[bytes, Sequence[WrappedKey]]:
        self.threads.add(threading.get_ident())
        return super().add(keys, beside)

    def forget(self, owner: bytes | None, /) -> None:
        self.threads.add(threading.get_ident())
        super().forget(owner)


def test_the_event_loop_never_waits_for_a_ring(server: Server, tmp_path: Path) -> None:
    ring = SlowRing()

    async def act(store: RedisStore | SqliteStore) -> None:
        for owner in (ALICE, BOB):
            await store.write(entry(owner=owner))
            claim = await store.claim(owner, "l", waits=True)
            assert await store.commit(entry("l", owner=owner), claim)
        cipher._cached.clear()
        assert payload(await store.read(ALICE, "k")) == b"1"
        cipher._cached.clear()
        found = await store.read_many([(owner, key) for owner in (ALICE, BOB) for key in ("k", "l")])
        assert [payload(each) for each in found] == [b"1"] * 4
        cipher._cached.clear()
        assert [each.key async for each in store.scan() if each.owner == ALICE] != []
        await store.clear_partition(ALICE)
        await store.flush()
        assert await store.read(ALICE, "k") is None

    cipher = PartitionCipher(ROOT_KEY, keyring=ring)
    on_server(server, cipher, act)
    assert ring.threads
    using(tmp_path / "x.db", act, cipher=cipher)
    assert threading.get_ident() not in ring.threads


def test_on_a_server_a_ring_that_is_down_costs_misses_only(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    ring = MoodyRing()

    async def act() -> None:
        origin = itertools.count(1)

        async def fetch() -> Success[int]:
            return Success(next(origin))

        store = RedisStore(server.url, timeout=5.0, cipher=PartitionCipher(ROOT_KEY, keyring=ring, recheck=0.0))
        async with Cache(store=store) as cache:
            assert await cache.get("k", fetch, policy=CachePolicy.NETWORK_FIRST) == Success(1)
            assert await cache.get("l", fetch) == Success(2)
            await cache.flush()
        ring.is_down = True
        for expected in (3, 4):
            async with Cache(store=store) as cache:
                assert await cache.get("k", fetch) == Success(expected)
        assert await found_by(store, "l", GLOBAL_OWNER) is None
        ring.is_down = False
        await asyncio.sleep(encryption.RETRY_S)
        # What was fetched meanwhile could not be stored, and what was there before is not believed any more.
        assert await found_by(store, "k", GLOBAL_OWNER) is None
        assert await found_by(store, "l", GLOBAL_OWNER) == b"2"
        await store.aclose()

    asyncio.run(act())
    assert "an entry of the store cannot be read: there is no key at hand for it" in caplog.text
    assert CANARY not in caplog.text


def test_without_a_cipher_what_is_encrypted_is_left_alone(tmp_path: Path, server: Server) -> None:
    """A process that was started without the key takes nothing away from the others."""
    cipher = in_memory()

    async def write(store: SqliteStore | RedisStore) -> None:
        await store.write(entry(owner=ALICE))

    async def read(store: SqliteStore | RedisStore) -> bytes | None:
        return payload(await store.read(ALICE, "k"))

    async def miss(store: RedisStore) -> None:
        assert await read(store) is None

    async def hit(store: RedisStore) -> None:
        assert await read(store) == b"1"

    using(tmp_path / "x.db", write, cipher=cipher)
    assert using(tmp_path / "x.db", read) is None
    assert using(tmp_path / "x.db", read, cipher=cipher) == b"1"
    on_server(server, cipher, write)
    on_server(server, None, miss)
    on_server(server, cipher, hit)
