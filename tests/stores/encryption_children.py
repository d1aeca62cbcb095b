"""What the processes do that share a key ring: `python -m tests.stores.encryption_children ROLE FOLDER ...`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachemesh.core.scopes import CacheScope
from cachemesh.stores.encryption import FileKeyRing, PartitionCipher
from cachemesh.stores.sqlite import SqliteStore
from tests.stores.sqlite_files import ALICE, entry, payload

if TYPE_CHECKING:
    from cachemesh.core.scopes import Owner

ROOT: Final = Path(__file__).resolve().parent.parent.parent
ROOT_KEY: Final = bytes(range(32))
OWNERS: Final[tuple[Owner, ...]] = tuple((CacheScope.USER, f"u{number}") for number in range(8))


def a_cipher(folder: Path, **settings: Any) -> PartitionCipher:
    return PartitionCipher(ROOT_KEY, keyring=FileKeyRing(folder / "keys.db"), **settings)


# The children


async def write_of_all(folder: str, name: str, starts_at: str) -> None:
    """Write for all owners at the same instant as the others, who have no key for them yet either."""
    store = SqliteStore(Path(folder) / "cache.db", cipher=a_cipher(Path(folder)))
    await asyncio.sleep(max(0.0, float(starts_at) - time.time()))
    for owner in OWNERS:
        await store.write(entry(name, f"{owner[1]} {name}", owner=owner))
    await store.flush()
    await store.aclose()
    tell("done")


async def forget(folder: str, name: str, _: str) -> None:
    """Clear the partition of one owner."""
    store = SqliteStore(Path(folder) / "cache.db", cipher=a_cipher(Path(folder)))
    await store.clear_partition((CacheScope.USER, name))
    await store.flush()
    await store.aclose()
    tell("done")


async def read(folder: str, name: str, user: str) -> None:
    store = SqliteStore(Path(folder) / "cache.db", cipher=a_cipher(Path(folder)))
    found = payload(await store.read((CacheScope.USER, user), name))
    await store.aclose()
    tell(None if found is None else found.decode())


async def fork_often(folder: str, forks: str, _: str) -> None:
    """Fork while another thread opens the ring again and again; how many children could not use it."""
    ring = FileKeyRing(Path(folder) / "keys.db")
    cipher = PartitionCipher(ROOT_KEY, keyring=ring)
    cipher.prepare([ALICE])
    is_over = threading.Event()

    def work() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            cipher.prepare([(CacheScope.USER, f"{number}")])

    thread = threading.Thread(target=work)
    thread.start()
    failures = 0
    for _attempt in range(int(forks)):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                cipher.forget((CacheScope.USER, "nobody"))
                fresh = PartitionCipher(ROOT_KEY, keyring=ring)
                said = fresh.decrypt(cipher.encrypt(b"said", ALICE, b""), ALICE, b"")
                status = int(said != b"said")
            finally:
                os._exit(status)
        failures += (await asyncio.to_thread(os.waitpid, child, 0))[1] != 0
    is_over.set()
    thread.join()
    tell(failures)


ROLES: Final = {each.__name__: each for each in (write_of_all, forget, read, fork_often)}


def tell(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


# Their parents


def begin(role: str, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.stores.encryption_children"]
    command += [role, str(folder), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603 (our own program)


def answer(child: subprocess.Popen[str], wait_s: float = 60.0) -> Any:
    """What a child prints, without a word on stderr."""
    out, err = child.communicate(timeout=wait_s)
    assert (child.returncode, err) == (0, "")
    return json.loads(out)


if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](*sys.argv[2:5]))
