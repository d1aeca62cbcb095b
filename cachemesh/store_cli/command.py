"""`cachemesh store`, as click sees it: looks into a store from outside."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import click
from msgspec import structs

from cachemesh.core.scopes import CacheScope
from cachemesh.store_cli import tables
from cachemesh.store_cli.choice import Choice
from cachemesh.store_cli.lines import NoExportError, header_line, read_header
from cachemesh.store_cli.opening import LONGEST_PATH, TROUBLE, CannotOpen, DamagedStore, opened
from cachemesh.store_cli.rows import Figures, document_of, row_of
from cachemesh.store_cli.shown import (
    ascii_json,
    escaped_json,
    plain,
    shown,
    shown_duration,
    shown_json,
    shown_size,
    value_of,
)
from cachemesh.store_cli.transfer import ENCRYPTED, Imported, export, take_in, whole_file
from cachemesh.stores.envelope import is_locked
from cachemesh.stores.report import Level
from cachemesh.stores.sqlite.errors import SqliteStoreError
from cachemesh.stores.sqlite.errors import shown as kind_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry
    from cachemesh.stores.report import BrowsableStore, Finding

F = TypeVar("F", bound="Callable[..., Any]")

OK: Final = 0
NOTHING: Final = 1
"""Nothing was found, or a doctor has found something."""

NOBODY_READS: Final = 141  # 128 + SIGPIPE, as shells have it.

MOST_ROWS: Final = 100
MOST_CHARACTERS: Final = 2_000
MOST_COMPLAINTS: Final = 20
MOST_LINE_BYTES: Final = 8 * 2**20


@click.group()
def store() -> None:
    """Look into a store.

    STORE is the file of a SqliteStore, or the URL of a server as RedisStore takes it (redis://, rediss://, valkey://,
    redis+cluster://, redis+sentinel://, ...). Looking makes no file that is not there.

    Keys, users and tags of the user and session scopes are shown as hashes, other ones in each run, unless --clear is
    given. Values are shown by show and export alone. An encrypted entry is listed by its key; its value is not read.

    The exit code is 0 if all went well, 1 if nothing was found (or the doctor found an error, or import met lines that
    it could not take), and 2 if the store could not be used or the arguments were wrong.
    """


def of_a_store(command: F) -> F:
    """The argument and the options of every command."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="JSON for machines, in ASCII."),
        click.option("--namespace", default="cachemesh", show_default=True, help="Of the store."),
        click.argument("target", metavar="STORE"),
    ):
        command = decorate(command)
    return command


def of_owners(command: F) -> F:
    scopes = click.Choice([scope.value for scope in CacheScope])
    command = click.option("--user", help="Entries of this user.")(command)
    return click.option("--scope", type=scopes, callback=_as_scope, help="Entries of this scope.")(command)


def _as_scope(context: click.Context, parameter: click.Parameter, value: str | None) -> CacheScope | None:
    del context, parameter
    return None if value is None else CacheScope(value)


with_prefix = click.option("--prefix", help="Entries whose keys begin so.")
with_clear = click.option("--clear", is_flag=True, help="Keys, users and tags of users as they are.")


@store.command("ls")
@of_a_store
@of_owners
@with_prefix
@with_clear
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"So many at most.  [default: {MOST_ROWS}; all with --json]",
)
def ls(  # noqa: PLR0913 (the options of the command)
    *,
    target: str,
    namespace: str,
    as_json: bool,
    scope: CacheScope | None,
    user: str | None,
    prefix: str | None,
    clear: bool,
    limit: int | None,
) -> int:
    """List entries, without their values.

    With --json: a line for each, with its key, scope, user, is_hashed, is_encrypted, is_failure, size_bytes,
    created_at, expires_at (seconds since the epoch), tags, schema and version. A text that is no Unicode is
    {"base64": ...}, here as elsewhere.
    """
    choice = Choice(scope, user, prefix)
    most = limit or (None if as_json else MOST_ROWS)

    async def act(found: BrowsableStore) -> int:
        rows = []
        total = 0
        async for entry in found.scan():
            if not choice.takes(entry):
                continue
            total += 1
            if most is not None and total > most:
                continue
            row = row_of(entry, clear=clear)
            if as_json:
                click.echo(ascii_json(document_of(row)))
            else:
                rows.append(row)
        if not as_json:
            rows.sort(key=lambda row: (row.scope, row.user or "", row.key))
            tables.entries(rows, total, time.time())
        return OK if total else NOTHING

    return carried_out(act, target, namespace)


@store.command("show")
@of_a_store
@click.argument("key")
@of_owners
@with_clear
@click.option("--full", is_flag=True, help=f"The whole value, however long.  [default: {MOST_CHARACTERS} characters]")
def show(  # noqa: PLR0913 (the options of the command)
    *,
    target: str,
    namespace: str,
    as_json: bool,
    key: str,
    scope: CacheScope | None,
    user: str | None,
    clear: bool,
    full: bool,
) -> int:
    """Show what is under KEY, with its value: of all, or with --user of a user, or with --scope session of nobody.

    With --json: a line for each entry found, as those of ls, with its value (a value that is no JSON is value_base64;
    of a long one, without --full, value_begins is the beginning of its text).
    """
    owners = sorted(Choice(scope, user).owners(), key=lambda owner: owner[0])
    if not owners:
        msg = "--scope user goes with --user, and --scope global with none"
        raise click.UsageError(msg)

    async def act(found: BrowsableStore) -> int:
        entries = [entry for entry in await found.read_many([(owner, key) for owner in owners]) if entry is not None]
        for number, entry in enumerate(entries):
            if as_json:
                click.echo(ascii_json(_document(entry, clear=clear, full=full)))
            else:
                click.echo("\n" * bool(number), nl=False)
                _show(entry, clear=clear, full=full)
        if not entries:
            complain("there is no such entry")
        return OK if entries else NOTHING

    return carried_out(act, target, namespace)


def _document(entry: StoredEntry, *, clear: bool, full: bool) -> dict[str, Any]:
    document = {
        **document_of(row_of(entry, clear=clear)),
        "serve_stale_s": entry.serve_stale_s,
        "stale_if_error_s": entry.stale_if_error_s,
    }
    if is_locked(entry):
        return document
    name, content = value_of(entry.value.payload)
    if full or len(entry.value.payload) <= MOST_CHARACTERS:
        document[name] = content
    else:
        document["value_begins"] = _text(entry)[:MOST_CHARACTERS]
    return document


def _text(entry: StoredEntry) -> str:
    """The value as it is shown."""
    text = shown_json(entry.value.payload)
    return f"base64: {value_of(entry.value.payload)[1]}" if text is None else text


def _show(entry: StoredEntry, *, clear: bool, full: bool) -> None:
    row = row_of(entry, clear=clear)
    now = time.time()
    pairs = {"key": shown(row.key, 500), "scope": row.scope.value}
    if row.user is not None:
        pairs["user"] = shown(row.user, 500)
    pairs["size"] = f"{shown_size(row.size_bytes)} ({row.size_bytes} bytes)"
    if row.created_at is not None:
        pairs["age"] = shown_duration(now - row.created_at)
        pairs["expires in"] = tables.shown_end(row.expires_at, now)
        windows = {"serves stale for": entry.serve_stale_s, "stale on errors for": entry.stale_if_error_s}
        pairs.update({name: shown_duration(window) for name, window in windows.items() if window is not None})
        pairs["tags"] = tables.shown_tags(row.tags) or "none"
        pairs["schema"] = f"{shown(row.schema) or 'plain JSON'}, version {row.version}"
    pairs["holds"] = "a failure" if row.is_failure else "a value"
    if row.is_encrypted:
        pairs["holds"] = ENCRYPTED
    tables.fields(pairs)
    if row.is_encrypted:
        return
    text = _text(entry)
    cut = text if full else text[:MOST_CHARACTERS]
    click.echo(cut.encode(sys.stdout.encoding or "utf-8", "backslashreplace").decode(sys.stdout.encoding or "utf-8"))
    if len(cut) < len(text):
        click.echo(f"... and {len(text) - len(cut)} more characters; --full shows them.")


@store.command("rm")
@of_a_store
@click.argument("key", required=False)
@of_owners
@with_prefix
@click.option("--all", "everything", is_flag=True, help="Everything in the namespace.")
def rm(  # noqa: PLR0913 (the options of the command)
    *,
    target: str,
    namespace: str,
    as_json: bool,
    key: str | None,
    scope: CacheScope | None,
    user: str | None,
    prefix: str | None,
    everything: bool,
) -> int:
    """Remove what is under KEY, or all entries that the options choose. It does not ask.

    KEY is one of all, or with --user of a user, or with --scope session of nobody, as in show. Without KEY, entries
    are what --scope, --user and --prefix say together. Everything is removed with --all, and with nothing else.

    Running caches on a server hear of it; fetches under way do not bring back what was removed. With --json: a
    document with removed, the number of entries.
    """
    chosen = (key, scope, user, prefix)
    if everything is any(each is not None for each in chosen):
        msg = "--all goes with no other choice" if everything else "say what: KEY, --scope, --user, --prefix, or --all"
        raise click.UsageError(msg)
    if key is not None and prefix is not None:
        msg = "either KEY or --prefix"
        raise click.UsageError(msg)
    choice = Choice(scope, user, prefix)
    if key is not None and not choice.owners():
        msg = "--scope user goes with --user, and --scope global with none"
        raise click.UsageError(msg)

    async def act(found: BrowsableStore) -> int:
        if key is not None:
            removed = await _rm_key(found, sorted(choice.owners(), key=lambda owner: owner[0]), key)
        else:
            removed = await _rm_chosen(found, choice, everything=everything)
        await found.flush()
        click.echo(ascii_json({"removed": removed}) if as_json else f"{removed} removed")
        return OK if removed else NOTHING

    return carried_out(act, target, namespace)


async def _rm_key(found: BrowsableStore, owners: Sequence[Owner], key: str) -> int:
    entries = await found.read_many([(owner, key) for owner in owners])
    for owner in owners:
        # Where nothing is, a fetch may be under way.
        await found.delete(owner, key)
    return sum(entry is not None for entry in entries)


async def _rm_chosen(found: BrowsableStore, choice: Choice, *, everything: bool) -> int:
    places = [(entry.owner, entry.key) async for entry in found.scan() if choice.takes(entry)]
    if everything:
        await found.clear()
    elif choice.prefix is None:
        seen = {owner for owner, _ in places}
        for owner in choice.owners(seen) if choice.scope or choice.user is not None else seen:
            await found.clear_partition(owner)
    else:
        for owner, key in places:
            await found.delete(owner, key)
    return len(places)


@store.command("stats")
@of_a_store
def stats(*, target: str, namespace: str, as_json: bool) -> int:
    """Count entries, their bytes and their ages.

    With --json: a document with scopes (for each: entries, failures, expired, encrypted, size_bytes of the values,
    oldest_at, newest_at), and of the store entries, failures, tombstones, size_bytes and details.
    """

    async def act(found: BrowsableStore) -> int:
        now = time.time()
        scopes = {scope: Figures() for scope in CacheScope}
        async for entry in found.scan():
            scopes[entry.owner[0]].add(entry, now)
        whole = await found.stats()
        if as_json:
            document = structs.asdict(whole)
            document.pop("by_scope")
            details = {name: plain(each) if isinstance(each, str) else each for name, each in whole.details.items()}
            document.update(details=details, scopes=scopes)
            click.echo(ascii_json(document))
        else:
            tables.stats(whole, scopes, now)
        return OK

    return carried_out(act, target, namespace)


@store.command("doctor")
@of_a_store
def doctor(*, target: str, namespace: str, as_json: bool) -> int:
    """Say what is well with the store, and what is not. The exit code is 1 if there is an error; not for warnings.

    With --json: a document with findings, of each its level (ok, note, warning, error), subject and text.
    """

    async def act(found: BrowsableStore) -> int:
        return _told(await found.doctor(), as_json=as_json)

    try:
        return carried_out(act, target, namespace, examines=True)
    except DamagedStore as error:
        return _told([error.finding], as_json=as_json)


def _told(findings: Sequence[Finding], *, as_json: bool) -> int:
    if as_json:
        click.echo(ascii_json({"findings": findings}))
    else:
        tables.findings(findings)
    return NOTHING if any(finding.level is Level.ERROR for finding in findings) else OK


@store.command("export")
@of_a_store
@click.argument("file", default="-")
@of_owners
@with_prefix
@click.option("--clear", is_flag=True, help="Entries of users and sessions too.")
@click.option("--force", is_flag=True, help="Replace FILE.")
def export_command(  # noqa: PLR0913 (the options of the command)
    *,
    target: str,
    namespace: str,
    as_json: bool,
    file: str,
    scope: CacheScope | None,
    user: str | None,
    prefix: str | None,
    clear: bool,
    force: bool,
) -> int:
    """Write entries as lines of JSON, for import: to FILE, which nobody else may read, or to the standard output.

    The first line names the format and the namespace; each line after it is an entry, with its value. What belongs to
    users and sessions is left out without --clear, and what is encrypted always. With --json: a document on the
    standard error with exported, private and encrypted, the numbers of entries.
    """
    choice = Choice(scope, user, prefix)

    async def act(found: BrowsableStore) -> int:
        header = header_line(namespace, time.time())
        with _written(file, target, force=force) as write, trouble("the store"):
            done = await export(found, choice, write, header, includes_users=clear)
        if as_json:
            click.echo(ascii_json(done), err=True)
        else:
            complain(f"{done.exported} exported")
            if done.private:
                complain(f"{done.private} of users and sessions left out; --clear takes them")
            if done.encrypted:
                complain(f"{done.encrypted} left out: {ENCRYPTED}")
        return OK if done.exported else NOTHING

    return carried_out(act, target, namespace)


@contextmanager
def _written(file: str, target: str, *, force: bool) -> Iterator[Callable[[bytes], object]]:
    """What writes to `file`, or to the standard output; there, what a terminal would act upon is escaped."""
    if file == "-":
        out = sys.stdout.buffer
        is_seen = sys.stdout.isatty()
        yield lambda line: out.write(escaped_json(line) if is_seen else line)
        out.flush()
        return
    path, name = Path(file), shown(file, LONGEST_PATH)
    with trouble(name):
        if path.exists():
            if "://" not in target and Path(target).exists() and path.samefile(target):
                msg = f"{name} is the store itself"
                raise CannotOpen(msg)
            if not force or not path.is_file():
                msg = f"{name} is there already; --force replaces a file"
                raise CannotOpen(msg)
        with whole_file(path) as writable:

            def write(line: bytes) -> None:
                with trouble(name):
                    writable.write(line)

            yield write


@store.command("import")
@of_a_store
@click.argument("file", default="-")
@click.option(
    "--max-line-bytes",
    type=click.IntRange(1),
    default=MOST_LINE_BYTES,
    show_default=True,
    help="Longer lines are not taken.",
)
def import_command(*, target: str, namespace: str, as_json: bool, file: str, max_line_bytes: int) -> int:
    """Take in what export has written: FILE, or the standard input. Entries go into --namespace, wherever they were.

    A store in a file is made where there is none. Each line is checked by itself; one that is no entry is told of by
    its number, and left out. What the store has stays, unless it is older. With --json: a document with imported,
    skipped and failed (reasons and their numbers), invalid (how many lines) and complaints (the first lines of them).
    """
    complaints: list[dict[str, Any]] = []

    def note(number: int, reason: str) -> None:
        if len(complaints) < MOST_COMPLAINTS:
            complaints.append({"line": number, "reason": reason})
            if not as_json:
                complain(f"line {number}: {reason}")

    with _readable(file) as lines:
        try:
            read_header(lines, max_line_bytes)
        except NoExportError as error:
            msg = f"{shown(file, LONGEST_PATH)}: {error}"
            raise CannotOpen(msg) from None

        async def act(found: BrowsableStore) -> int:
            if await _is_encrypted(found):
                msg = f"the store is {ENCRYPTED} to write with"
                raise CannotOpen(msg)
            done = await take_in(found, lines, time.time(), longest=max_line_bytes, complain=note)
            if as_json:
                click.echo(ascii_json({**structs.asdict(done), "complaints": complaints}))
            else:
                _tell(done)
            is_well = not done.failed and not done.invalid
            return OK if is_well and (done.imported or done.skipped) else NOTHING

        return carried_out(act, target, namespace, makes=True)


async def _is_encrypted(found: BrowsableStore) -> bool:
    """Whether the first entry is."""
    async for entry in found.scan():
        return is_locked(entry)
    return False


def _tell(done: Imported) -> None:
    if done.invalid > MOST_COMPLAINTS:
        complain(f"... and {done.invalid - MOST_COMPLAINTS} lines more")
    click.echo(f"{done.imported} imported")
    for reason, number in done.skipped.items():
        click.echo(f"{number} skipped: {reason}")
    for kind, number in done.failed.items():
        click.echo(f"{number} not taken by the store ({kind})")
    if done.invalid:
        click.echo(f"{done.invalid} lines are no entries")


@contextmanager
def _readable(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    name = shown(file, LONGEST_PATH)
    with trouble(name):
        readable = Path(file).open("rb")  # noqa: SIM115 (closed below; only opening it is this trouble)
    with readable:
        yield readable


# Running


def carried_out(
    act: Callable[[BrowsableStore], Awaitable[int]],
    target: str,
    namespace: str,
    *,
    makes: bool = False,
    examines: bool = False,
) -> int:
    """The exit code of `act`, with the store at `target`."""

    async def main() -> int:
        with trouble("the store"):
            async with opened(target, namespace, makes=makes, examines=examines) as found:
                return await act(found)

    try:
        code = asyncio.run(main())
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left to be written goes nowhere, at the interpreter's end as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    return code


@contextmanager
def trouble(name: str) -> Iterator[None]:
    """Ends the command with one line where `name` cannot be used."""
    try:
        yield
    except BrokenPipeError:
        raise
    except TROUBLE as error:
        text = str(error) if isinstance(error, SqliteStoreError) else kind_of(error)
        msg = f"{name} cannot be used ({text})"
        raise CannotOpen(msg) from None


def complain(text: str) -> None:
    click.echo(f"cachemesh: {text}", err=True)
