"""Taking entries out of a store and into one."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from cachemesh.core.scopes import CacheScope
from cachemesh.store_cli.lines import NoEntryError, entry_of, line_of, lines
from cachemesh.store_cli.opening import TROUBLE
from cachemesh.stores.envelope import is_locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cachemesh.shell.ports import StoredEntry
    from cachemesh.store_cli.choice import Choice
    from cachemesh.stores.report import BrowsableStore

AT_ONCE: Final = 256
AT_ONCE_BYTES: Final = 8 * 2**20

NOT_NEWER: Final = "not newer than what is there"
ENCRYPTED: Final = "encrypted, and there is no key"
OVERTAKEN: Final = "written by somebody else meanwhile"
TOO_LONG: Final = "longer than --max-line-bytes"


class Exported(msgspec.Struct):
    """How many entries were written, and how many left out: somebody's, or encrypted."""

    exported: int = 0
    private: int = 0
    encrypted: int = 0


class Imported(msgspec.Struct):
    """How many entries were written; of how many not, and why; lines that are not taken, with their numbers."""

    imported: int = 0
    skipped: Counter[str] = msgspec.field(default_factory=Counter)
    failed: Counter[str] = msgspec.field(default_factory=Counter)
    invalid: int = 0


async def export(
    store: BrowsableStore, choice: Choice, write: Callable[[bytes], object], header: bytes, *, includes_users: bool
) -> Exported:
    """Write `header` and the chosen entries."""
    done = Exported()
    write(header)
    async for entry in store.scan():
        if not choice.takes(entry):
            continue
        if entry.owner[0] is not CacheScope.GLOBAL and not includes_users:
            done.private += 1
        elif is_locked(entry):
            done.encrypted += 1
        else:
            write(line_of(entry))
            done.exported += 1
    return done


async def take_in(
    store: BrowsableStore, file: BinaryIO, now: float, *, longest: int, complain: Callable[[int, str], None]
) -> Imported:
    """Write what is on the lines of `file`, after its header. `complain` is told of each line that is no entry."""
    done = Imported()
    batch: dict[tuple[object, str], StoredEntry] = {}
    size = 0
    for number, line in lines(file, longest, first=2):
        try:
            if line is None:
                raise NoEntryError(TOO_LONG)  # noqa: TRY301 (one reason among those of `entry_of`)
            entry = entry_of(line, now)
        except NoEntryError as error:
            done.invalid += 1
            complain(number, str(error))
            continue
        place = (entry.owner, entry.key)
        if place in batch or len(batch) >= AT_ONCE or size >= AT_ONCE_BYTES:
            await _take_all(store, list(batch.values()), done)
            batch.clear()
            size = 0
        batch[place] = entry
        size += len(line)
    await _take_all(store, list(batch.values()), done)
    await store.flush()
    return done


async def _take_all(store: BrowsableStore, entries: list[StoredEntry], done: Imported) -> None:
    """What goes wrong with all of them goes wrong with the store; with some, it is counted."""
    outcomes = await asyncio.gather(*(_take(store, entry) for entry in entries), return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in errors:
        if len(errors) == len(entries) or not isinstance(error, TROUBLE):
            raise error
        done.failed[type(error).__name__] += 1
    done.imported += outcomes.count(None)
    done.skipped.update(outcome for outcome in outcomes if isinstance(outcome, str))


async def _take(store: BrowsableStore, entry: StoredEntry) -> str | None:
    """Why `entry` was not taken; None where it was."""
    # What somebody writes between the claim and the commit is newer, and stays.
    claim = await store.claim(entry.owner, entry.key, waits=False)
    found = await store.read(entry.owner, entry.key)
    if found is not None and (is_locked(found) or found.created_at >= entry.created_at):
        await store.release(claim)
        return ENCRYPTED if is_locked(found) else NOT_NEWER
    return None if await store.commit(entry, claim) else OVERTAKEN


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file for nobody but us that takes the place of `path` when all is written; else it is removed."""
    descriptor, name = tempfile.mkstemp(prefix=".cachemesh-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
