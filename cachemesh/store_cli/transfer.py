"""Taking entries out of a store and into one."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from cachemesh.core.scopes import CacheScope
from cachemesh.store_cli.lines import NoEntryError, entry_of, header_line, line_of, lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachemesh.shell.ports import StoredEntry
    from cachemesh.store_cli.choice import Choice
    from cachemesh.stores.report import BrowsableStore

AT_ONCE: Final = 256
AT_ONCE_BYTES: Final = 8 * 2**20

OLDER: Final = "not newer than what is there"
OVERTAKEN: Final = "written by somebody else meanwhile"
TOO_LONG: Final = "longer than --max-line-bytes"


async def export(  # noqa: PLR0913 (what, where from and where to)
    store: BrowsableStore, choice: Choice, file: BinaryIO, namespace: str, now: float, *, includes_users: bool
) -> tuple[int, int]:
    """Write the chosen entries to `file`; how many, and how many were left out as they are somebody's."""
    written = private = 0
    file.write(header_line(namespace, now))
    async for entry in store.scan():
        if not choice.takes(entry):
            continue
        if entry.owner[0] is CacheScope.GLOBAL or includes_users:
            file.write(line_of(entry))
            written += 1
        else:
            private += 1
    return written, private


async def take_in(
    store: BrowsableStore, file: BinaryIO, now: float, *, longest: int, overwrites: bool
) -> tuple[int, Counter[str], int]:
    """Write what is on the lines of `file`, after its header; how many, what was skipped and why, invalid ones."""
    imported = invalid = size = 0
    skipped: Counter[str] = Counter()
    batch: dict[tuple[object, str], StoredEntry] = {}

    async def write() -> None:
        nonlocal imported
        outcomes = await asyncio.gather(*(_take(store, entry, overwrites=overwrites) for entry in batch.values()))
        imported += outcomes.count(None)
        skipped.update(reason for reason in outcomes if reason is not None)
        batch.clear()

    for line in lines(file, longest):
        try:
            if line is None:
                raise NoEntryError(TOO_LONG)  # noqa: TRY301 (one reason among those of `entry_of`)
            entry = entry_of(line, now)
        except NoEntryError as error:
            invalid += 1
            skipped[str(error)] += 1
            continue
        place = (entry.owner, entry.key)
        if place in batch:
            await write()
            size = 0
        batch[place] = entry
        size += len(line or b"")
        if len(batch) >= AT_ONCE or size >= AT_ONCE_BYTES:
            await write()
            size = 0
    await write()
    await store.flush()
    return imported, skipped, invalid


async def _take(store: BrowsableStore, entry: StoredEntry, *, overwrites: bool) -> str | None:
    """Why `entry` was not taken; None where it was."""
    if overwrites:
        await store.write(entry)
        return None
    # What somebody writes between the claim and the commit is newer, and stays.
    claim = await store.claim(entry.owner, entry.key, waits=False)
    found = await store.read(entry.owner, entry.key)
    if found is not None and found.created_at >= entry.created_at:
        await store.release(claim)
        return OLDER
    return None if await store.commit(entry, claim) else OVERTAKEN


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file for nobody but us that takes the place of `path` when all is written; else it is removed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:50]}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
