"""`read`: the requests of a trace file, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol, Self

from msgspec import Struct

from cachemesh.simulation.traces.columns import Field, by_place, checked
from cachemesh.simulation.traces.command_log import CommandLog, content_of, files_of, is_header
from cachemesh.simulation.traces.csv_lines import CsvLines
from cachemesh.simulation.traces.csv_lines import sniffed as sniffed_csv
from cachemesh.simulation.traces.instants import IN_A_SECOND, Instants, Unit
from cachemesh.simulation.traces.json_lines import JsonLines, decoded
from cachemesh.simulation.traces.lines import blocks
from cachemesh.simulation.traces.order import Order
from cachemesh.simulation.traces.source import content
from cachemesh.simulation.traces.trouble import TraceError, Unread, Unreadable
from cachemesh.simulation.traces.web_log import LINE, WebLog

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterable, Iterator
    from types import TracebackType

    from cachemesh.simulation.request import Request
    from cachemesh.simulation.traces.columns import Columns
    from cachemesh.simulation.traces.source import Progress

SAMPLE: Final = 20


class TraceFormat(StrEnum):
    """What a trace is written in."""

    CSV = "csv"
    JSON_LINES = "jsonl"
    COMMON_LOG = "common"
    COMBINED_LOG = "combined"
    COMMAND_LOG = "cachemesh"


def read(  # noqa: PLR0913 (what may have to be said of a file, by keyword)
    path: str | os.PathLike[str],
    *,
    format: TraceFormat | str | None = None,  # noqa: A002 (what users call it)
    columns: Columns | None = None,
    delimiter: str | None = None,
    unit: Unit | None = None,
    query: bool = False,
    progress: Progress | None = None,
) -> Reading:
    r"""The requests of the trace in `path`, `-` for the standard input, in the order of their times.

    CSV with a header, JSON lines, the Common and Combined Log Format, and what
    a `Recorder` wrote are told apart by the first lines, unless `format` says
    it ("csv", "jsonl", "common", "combined", "cachemesh"); each may be
    compressed by gzip or zstd. zstd needs the extra `simulation` before Python
    3.14. Of a `Recorder`'s log that is not compressed, `path` is the newest
    file; older ones beside it (`path.1`, ...) are read before it.

    `columns`: what the columns for time, key, user and size are called, such
    as `{"key": "object"}`, where they have none of the usual names; or all by
    place, from 0, for a CSV file without a header. `delimiter`: of CSV, found
    by itself otherwise. `unit`: "s", "ms", "us" or "ns", of numbers for the
    time; otherwise by the name (`time_ms`), or by the magnitude of the first
    one (below 1e11 seconds, 1e14 milliseconds, 1e17 microseconds, else
    nanoseconds). ISO 8601 is read as well. `query`: whether the keys of a web
    log have the query of the target; without it a token there is forgotten.
    `progress`: is called with the bytes of the file that were read, and all
    of them, None where nobody knows.

    Lines that cannot be read are counted in `unreadable` and left out. A
    `TraceError` says, here or on the way, why there is no trace at all. The
    memory that it takes is that of the distinct keys and users.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "trace.csv")
    ...     _ = file.write_text("time_s,key,size\n0.5,a,100\n1.5,b,oops\n2.0,a,100\n")
    ...     with read(file) as reading:
    ...         requests = list(reading)
    >>> requests[1]
    Request(at=2.0, key='a', user=None, size=100)
    >>> str(reading.unreadable)
    '1 line left out: 1 a size that cannot be read (line 3)'
    """
    said = _said(format, checked(columns), delimiter, unit, query=query)
    files = files_of(path) if said.format in {None, TraceFormat.COMMAND_LOG} else ()
    reading = Reading(content_of(files, progress) if len(files) > 1 else content(path, progress))
    try:
        reading.begin(said)
    except BaseException:
        reading.close()
        raise
    return reading


class Said(Struct, frozen=True):
    """What the caller said of the file."""

    format: TraceFormat | None
    columns: Mapping[Field, str | int]
    delimiter: str | None
    unit: Unit | None
    query: bool


def _said(
    given: str | None, columns: Mapping[Field, str | int], delimiter: str | None, unit: Unit | None, *, query: bool
) -> Said:
    try:
        forced = None if given is None else TraceFormat(given)
    except ValueError:
        reason = f"the format is one of {', '.join(TraceFormat)}"
        raise TraceError(reason) from None
    if unit is not None and unit not in IN_A_SECOND:
        reason = f"the unit of its times is one of {', '.join(IN_A_SECOND)}"
        raise TraceError(reason)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        reason = "a delimiter is one character, and neither a quote nor the end of a line"
        raise TraceError(reason)
    if by_place(columns):
        if forced not in {None, TraceFormat.CSV}:
            reason = "columns by place are for CSV"
            raise TraceError(reason)
        forced = TraceFormat.CSV
    return Said(forced, columns, delimiter, unit, query)


class Reading:
    """The requests of a trace, to be iterated once.

    `format`: what the file is written in. `lines`: how many were read so far,
    with the header and what could not be read; ahead of the requests by what
    is held back. `unreadable`: the lines that were left out. `backwards`: how
    often a time was before that of the line above; requests are put right
    where they come up to 1,024 requests too late, and those that come even
    later, `clamped` in number, get the time of the request before them.
    """

    def __init__(self, chunks: Generator[bytes]) -> None:
        self.format = TraceFormat.CSV
        self.lines = 0
        self.unreadable = Unreadable()
        self._order = Order()
        self._chunks = chunks
        self._lines = blocks(chunks, self.unreadable)
        self._requests: Iterator[Request] = iter(())

    @property
    def backwards(self) -> int:
        return self._order.backwards

    @property
    def clamped(self) -> int:
        return self._order.clamped

    def __iter__(self) -> Iterator[Request]:
        return self._requests  # Not self: a `__next__` in Python would double the price of a request.

    def __next__(self) -> Request:
        return next(self._requests)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. It closes by itself at its end."""
        self._requests = iter(())
        self._lines.close()  # First: it would take the end of the bytes for that of a line.
        self._chunks.close()

    def begin(self, said: Said) -> None:
        """Find the format, and the first requests. It is called once, by `read`."""
        skipped = 0
        for block in self._lines:
            sample = [line for line in block if line and not line.isspace()][:SAMPLE]
            if sample:
                break
            skipped += len(block)
        else:
            raise self._nothing(skipped)
        self.lines = skipped
        self.format = said.format or _sniffed(sample, said)
        parser = _parser(self.format, sample[0], said, self.unreadable)
        batches = self._order.sorted(self._batches(chain([block], self._lines), parser))
        first = next(batches, None)
        if first is None:
            raise self._nothing(self.lines)
        self._requests = chain(first, chain.from_iterable(batches))

    def _batches(self, lines: Iterable[list[str]], parser: Parser) -> Iterator[list[Request]]:
        for block in lines:
            number = self.lines + 1
            self.lines += len(block)
            yield parser.read(block, number)

    def _nothing(self, lines: int) -> TraceError:
        if self.unreadable.total:
            return TraceError(f"no line could be read; {self.unreadable}")
        return TraceError("there is no request in it" if lines else "it is empty")


class Parser(Protocol):
    """Makes requests of lines."""

    def read(self, lines: list[str], number: int) -> list[Request]: ...


def _sniffed(sample: list[str], said: Said) -> TraceFormat:
    """What most of the first lines are; CSV where the first one is its header."""
    first = sample[0]
    if is_header(first):
        return TraceFormat.COMMAND_LOG
    if not first.lstrip().startswith("{") and sniffed_csv(first, said.columns, said.delimiter) is not None:
        return TraceFormat.CSV
    matches = [found for found in map(LINE.match, sample) if found]
    objects = sum(map(_is_object, sample))
    if objects > len(matches):
        return TraceFormat.JSON_LINES
    if matches:
        combined = sum(found["combined"] is not None for found in matches)
        return TraceFormat.COMBINED_LOG if combined * 2 > len(matches) else TraceFormat.COMMON_LOG
    reason = (
        "it is neither JSON lines nor a web log, nor CSV with a time and a key in its header, nor a command log; "
        "say the columns, or the format"
    )
    raise TraceError(reason)


def _is_object(line: str) -> bool:
    try:
        decoded(line)
    except Unread:
        return False
    return True


def _parser(chosen: TraceFormat, first: str, said: Said, unreadable: Unreadable) -> Parser:
    match chosen:
        case TraceFormat.CSV:
            return CsvLines(first, said.columns, said.delimiter, Instants(said.unit), unreadable)
        case TraceFormat.JSON_LINES:
            return JsonLines(said.columns, Instants(said.unit), unreadable)
        case TraceFormat.COMMON_LOG | TraceFormat.COMBINED_LOG:
            return WebLog(unreadable, query=said.query)
        case TraceFormat.COMMAND_LOG:
            is_header(first)  # Of another version, it is none.
            return CommandLog(unreadable)
