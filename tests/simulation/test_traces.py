"""Traces: what is read, what is left out and counted, and what is no trace at all."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cachemesh.simulation import Request
from cachemesh.simulation.traces import Reading, TraceError, TraceFormat, Why, compression, read
from cachemesh.simulation.traces.order import HELD_BACK, Order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

REAL = Path(__file__).parents[3] / "shared" / "traces" / "cloudphysics-first-half.csv.gz"
SQUEEZED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "two_gzip_members": lambda data: gzip.compress(data[:20]) + gzip.compress(data[20:]) + bytes(512),
    "two_zstd_frames": lambda data: zstandard.compress(data[:20]) + zstandard.compress(data[20:]),
}
CSV = b"time_s,key,user,size\n0,a,ann,10\n0.5,b,,20\n1e1,a,bob,10\n"
OF_CSV = [Request(0.0, "a", "ann", 10), Request(0.5, "b", None, 20), Request(10.0, "a", "bob", 10)]
COMMON = '1.2.3.4 - ann [10/Oct/2000:13:55:36 -0700] "GET /a.gif?token=s3cret HTTP/1.0" 200 2326'
COMBINED = COMMON + ' "http://example.org/start" "Mozilla/4.08 [en] (Win98; \\"I\\")"'
COMMON_AT = 971_211_336.0


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces") / "trace"


def requests_of(file: Path, data: bytes | str, **said: Any) -> list[Request]:
    return list(reading_of(file, data, **said))


def reading_of(file: Path, data: bytes | str, **said: Any) -> Reading:
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return read(file, **said)


def refusal_of(file: Path, data: bytes | str, **said: Any) -> str:
    with pytest.raises(TraceError) as caught:
        requests_of(file, data, **said)
    message = str(caught.value)
    assert message.startswith("no trace: ")
    assert "\n" not in message
    return message.removeprefix("no trace: ")


# Formats


@pytest.mark.parametrize("squeeze", SQUEEZED.values(), ids=SQUEEZED)
def test_csv_plain_and_compressed(file: Path, squeeze: Callable[[bytes], bytes]) -> None:
    reading = reading_of(file, squeeze(CSV))
    assert list(reading) == OF_CSV
    assert (reading.format, reading.lines, reading.unreadable.total) == (TraceFormat.CSV, 4, 0)


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_delimiters_line_ends_and_byte_order_marks(file: Path, delimiter: str, end: str, mark: str) -> None:
    text = mark + end.join([delimiter.join(row) for row in (["Time", "KEY", "size"], ["1", "a", "5"], ["2", "b", "6"])])
    for whole in (text, text + end, text + end + end):
        assert requests_of(file, whole) == [Request(1.0, "a", size=5), Request(2.0, "b", size=6)]


def test_csv_quotes(file: Path) -> None:
    reading = reading_of(file, 'time,key,size\n1,"a,""b""",5\n2,"b,5\n3,c,5\n"4","d","5"\n')
    assert list(reading) == [Request(1.0, 'a,"b"', size=5), Request(3.0, "c", size=5), Request(4.0, "d", size=5)]
    assert reading.unreadable[Why.QUOTES].first == [3]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("timestamp,url,uid,bytes", None),
        ("@timestamp,cache_key,user_id,content_length", None),
        (" ts , Obj_ID , Tenant , OBJ_SIZE ", None),
        ("id,key,who,size", {"time": "id", "user": "who"}),
        ("when,what,who,how", {"time": "when", "key": "what", "user": "who", "size": "how"}),
    ],
)
def test_names_of_columns(file: Path, header: str, columns: dict[Any, Any] | None) -> None:
    assert requests_of(file, header + "\n1,a,ann,5\n", columns=columns) == [Request(1.0, "a", "ann", 5)]
    row = dict(zip(header.split(","), [1, "a", "ann", 5], strict=True))
    if " " not in header:
        found = requests_of(file, json.dumps(row), columns=columns)
        assert found == [Request(1.0, "a", "ann", 5)]


def test_the_first_alias_wins(file: Path) -> None:
    assert requests_of(file, "url,id,key,t,time\nu,i,k,1,2\n") == [Request(2.0, "k")]


def test_columns_by_place(file: Path) -> None:
    reading = reading_of(file, "x 1 a\n\ny 2 b\n", columns={"time": 1, "key": 2})
    assert list(reading) == [Request(1.0, "a"), Request(2.0, "b")]
    assert (reading.lines, reading.unreadable.total) == (3, 0)


def test_json_lines(file: Path) -> None:
    rows = [
        {"time": 1, "key": "a", "user": "ann", "size": 7, "more": {"token": [1]}},
        {"key": 5, "time": "2.5"},
        {"time": "1970-01-01T00:00:03Z", "key": "c", "user": None, "size": None},
        {"time": 4, "key": "d", "user": 9, "size": 3.0},
    ]
    reading = reading_of(file, "\n".join(map(json.dumps, rows)))
    assert reading.format is TraceFormat.JSON_LINES
    assert list(reading) == [
        Request(1.0, "a", "ann", 7),
        Request(2.5, "5"),
        Request(3.0, "c"),
        Request(4.0, "d", "9", 3),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", Why.NOT_JSON),
        ('{"time":1,"key":"a"', Why.NOT_JSON),
        ('{"a":' * 200_000, Why.NOT_JSON),
        ("[1]", Why.NOT_AN_OBJECT),
        ('{"key":"a"}', Why.FIELDS),
        ('{"time":1}', Why.FIELDS),
        ('{"time":true,"key":"a"}', Why.TIME),
        ('{"time":1e999,"key":"a"}', Why.NOT_JSON),
        ('{"time":' + "9" * 400 + ',"key":"a"}', Why.TIME),
        ('{"time":[1],"key":"a"}', Why.TIME),
        ('{"time":null,"key":"a"}', Why.TIME),
        ('{"time":1,"key":""}', Why.KEY),
        ('{"time":1,"key":null}', Why.KEY),
        ('{"time":1,"key":1.5}', Why.KEY),
        ('{"time":1,"key":true}', Why.KEY),
        ('{"time":1,"key":"a","user":[1]}', Why.USER),
        ('{"time":1,"key":"a","size":-1}', Why.SIZE),
        ('{"time":1,"key":"a","size":true}', Why.SIZE),
        ('{"time":1,"key":"a","size":"x"}', Why.SIZE),
        ('{"time":1,"key":"a","size":1e30}', Why.SIZE),
    ],
)
def test_json_lines_that_are_left_out(file: Path, line: str, why: Why) -> None:
    good = '{"time":1,"key":"a"}'
    reading = reading_of(file, f"{good}\n{line}\n{good}\n")
    assert list(reading) == [Request(1.0, "a")] * 2
    assert [(each, found.count, found.first) for each, found in reading.unreadable] == [(why, 1, [2])]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("1", Why.CELLS),
        ("1,a", Why.CELLS),
        ("x,a,,1", Why.TIME),
        (",a,,1", Why.TIME),
        ("nan,a,,1", Why.TIME),
        ("-inf,a,,1", Why.TIME),
        ("1e300,a,,1", Why.TIME),
        ("2026-13-01,a,,1", Why.TIME),
        ("1,,,1", Why.KEY),
        ("1,a,,x", Why.SIZE),
        ("1,a,,-1", Why.SIZE),
        ("1,a,,1e400", Why.SIZE),
        ("1,a,,nan", Why.SIZE),
        ("1,a,," + "9" * 5_000, Why.SIZE),
        ("1,a,," + "9" * 20, Why.SIZE),
        ('1,"a,,1', Why.QUOTES),
        ('1,"' + "a" * 200_000 + '",,1', Why.QUOTES),
        ("1,a\0b,,1", Why.BINARY),
        ("1," + "a" * (1 << 20) + ",,1", Why.TOO_LONG),
        ("1," + "é" * (3 << 20) + ",,1", Why.TOO_LONG),
    ],
)
def test_csv_lines_that_are_left_out(file: Path, row: str, why: Why) -> None:
    reading = reading_of(file, "time,key,user,size\n" + "1,a,,1\n" * 200 + f"{row}\n1,a,,1\n")
    assert list(reading) == [Request(1.0, "a")] * 201
    assert [(each, found.count, found.first) for each, found in reading.unreadable] == [(why, 1, [202])]
    assert reading.lines == 203


def test_a_line_in_no_utf_8_is_left_out_by_its_number(file: Path) -> None:
    reading = reading_of(file, b"time,key\r\n1,a\r\n2,\xff\r\n3,\xc3\xa9\r\n")
    assert list(reading) == [Request(1.0, "a"), Request(3.0, "é")]
    assert reading.unreadable[Why.NOT_UTF_8].first == [3]


def test_nuls_that_a_crash_left_behind_cost_one_line(file: Path) -> None:
    reading = reading_of(file, b"time,key\n1,a\n" + bytes(2_000) + b"\n2,b\n")
    assert list(reading) == [Request(1.0, "a"), Request(2.0, "b")]
    assert reading.unreadable[Why.BINARY].first == [3]


def test_a_size_that_is_not_told_is_one(file: Path) -> None:
    assert [each.size for each in reading_of(file, "time,key,size\n1,a,\n1,a\n1,a,512.0\n1,a, 7\n1,a,0\n")] == [
        *(1, 1, 512, 7, 0)
    ]


@pytest.mark.parametrize(("line", "kind"), [(COMMON, TraceFormat.COMMON_LOG), (COMBINED, TraceFormat.COMBINED_LOG)])
def test_web_logs(file: Path, line: str, kind: TraceFormat) -> None:
    reading = reading_of(file, f"{line}\n")
    assert list(reading) == [Request(COMMON_AT, "/a.gif", "ann", 2326)]
    assert reading.format is kind
    assert requests_of(file, line, query=True) == [Request(COMMON_AT, "/a.gif?token=s3cret", "ann", 2326)]


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ('::1 - - [10/Oct/2000:13:55:36 +0000] "HEAD / HTTP/1.1" 304 -', Request(971_186_136.0, "/", None, 0)),
        (
            'h - "" [29/Feb/2024:23:59:60 +0530] "GET http://h/x?a#b HTTP/1.1" 200 5',
            Request(datetime(2024, 2, 29, 18, 30, tzinfo=UTC).timestamp(), "http://h/x", None, 5),
        ),
        ('h - ann lee [1/Jan/1970:00:00:01 +0000] "GET /x" 200 5 extra', Request(1.0, "/x", "ann lee", 5)),
        ('h:80 1.1.1.1 - - [01/Jan/1970:00:00:01 +0000] "GET /x HTTP/1.1" 200 5', Request(1.0, "/x", None, 5)),
        ('h - - [01/Jan/1970:00:00:01 +0000] "GET /\\"x HTTP/1.1" 200 5', Request(1.0, '/\\"x', None, 5)),
    ],
)
def test_lines_of_web_logs(file: Path, line: str, request_: Request) -> None:
    assert requests_of(file, line) == [request_]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("h - -", Why.NOT_A_LOG_LINE),
        (COMMON.replace("-0700", "UTC"), Why.NOT_A_LOG_LINE),
        (COMMON.replace('1.0"', "1.0"), Why.NOT_A_LOG_LINE),
        (COMMON + "0" * 20, Why.NOT_A_LOG_LINE),
        (COMMON.replace("10/Oct", "31/Sep"), Why.TIME),
        (COMMON.replace("10/Oct", "10/Xxx"), Why.TIME),
        (COMMON.replace("13:55:36", "24:00:00"), Why.TIME),
        (COMMON.replace("13:55:36", "13:00:61"), Why.TIME),
        (COMMON.replace("-0700", "-9900"), Why.TIME),
        (COMMON.replace("/2000", "/0000"), Why.TIME),
        (COMMON.replace("GET /a.gif?token=s3cret HTTP/1.0", "-"), Why.NO_TARGET),
        (COMMON.replace("GET /a.gif", "GET "), Why.KEY),
        (COMMON.replace("GET", "POST"), Why.NO_READ),
    ],
)
def test_lines_of_web_logs_that_are_left_out(file: Path, line: str, why: Why) -> None:
    reading = reading_of(file, f"{COMMON}\n{line}\n")
    assert len(list(reading)) == 1
    assert [(each, found.first) for each, found in reading.unreadable] == [(why, [2])]


def test_a_web_log_line_of_a_mebibyte_takes_no_longer_than_its_length(file: Path) -> None:
    """No pattern goes back and forth over a line that somebody made for it."""
    nasty = ["h - " + "a " * 500_000, "h - u [" * 140_000, COMMON[:60] + '"' + "\\" * 1_000_000, ":" * 1_000_000]
    started = time.perf_counter()
    reading = reading_of(file, "\n".join([COMMON, *nasty]))
    assert len(list(reading)) == 1
    assert reading.unreadable[Why.NOT_A_LOG_LINE].count == 4
    assert time.perf_counter() - started < 5.0


def test_the_format_is_that_of_most_of_the_first_lines(file: Path) -> None:
    reading = reading_of(file, f"began\n{COMMON}\n\nrotated\n{COMBINED}\n{COMBINED}\n")
    assert len(list(reading)) == 3
    assert reading.format is TraceFormat.COMBINED_LOG
    assert reading.unreadable[Why.NOT_A_LOG_LINE].first == [1, 4]
    reading = reading_of(file, 'junk\n{"time":1,"key":"a"}\n')
    assert len(list(reading)) == 1
    assert reading.format is TraceFormat.JSON_LINES


def test_a_format_that_is_said_is_taken(file: Path) -> None:
    assert requests_of(file, f"time,key\n{COMMON}\n", format="common") == [Request(COMMON_AT, "/a.gif", "ann", 2326)]
    assert "no line could be read; 2 lines left out: 2 no JSON (lines 1, 2)" in refusal_of(
        file, "time,key\n1,a\n", format="jsonl"
    )
    assert "the key" in refusal_of(file, "time,size\n1,2\n", format="csv")
    assert requests_of(file, "time/key\n1/a\n", delimiter="/") == [Request(1.0, "a")]


# Times


@pytest.mark.parametrize(
    ("text", "unit", "seconds"),
    [
        ("0", None, 0.0),
        ("-1.5", None, -1.5),
        ("1767225600.25", None, 1_767_225_600.25),
        ("1767225600250", None, 1_767_225_600.25),
        ("1767225600250000", None, 1_767_225_600.25),
        ("1767225600250000000", None, 1_767_225_600.25),
        ("250", "ms", 0.25),
        ("250", "us", 0.000_25),
        ("250", "ns", 250e-9),
        ("1767225600250", "ns", 1_767.225_600_25),
        ("2026-01-01", None, 1_767_225_600.0),
        ("2026-01-01 00:00:00.25", None, 1_767_225_600.25),
        ("2026-01-01T01:00:00.25+01:00", "ms", 1_767_225_600.25),
        ("20260101T000000Z", None, 1_767_225_600.0),
    ],
)
def test_times(file: Path, text: str, unit: str | None, seconds: float) -> None:
    (found,) = requests_of(file, f"time,key\n{text},a\n", unit=unit)
    assert found.at == pytest.approx(seconds, rel=1e-15)
    (found,) = requests_of(file, json.dumps({"time": text, "key": "a"}), unit=unit)
    assert found.at == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize(("name", "seconds"), [("time_s", 2e12), ("ts_ms", 2.0), ("t_us", 0.002), ("epoch_ns", 2e-6)])
def test_the_name_of_a_column_may_say_the_unit(file: Path, name: str, seconds: float) -> None:
    value = 2_000 if seconds < 1e12 else 200_000_000_000
    expected = seconds if seconds < 1e12 else 2e11
    assert [each.at for each in reading_of(file, f"{name},key\n{value},a\n")] == [expected]
    assert [each.at for each in reading_of(file, json.dumps({name: value, "key": "a"}))] == [expected]


def test_the_first_time_decides_on_the_unit_of_all(file: Path) -> None:
    found = requests_of(file, "time,key\n1767225600000,a\n1767225601000,b\n")
    assert [each.at for each in found] == [1_767_225_600.0, 1_767_225_601.0]
    found = requests_of(file, "time,key\n5,a\n200000000000,b\n")
    assert [each.at for each in found] == [5.0, 2e11]


def test_small_disorder_is_put_right(file: Path) -> None:
    times = [*range(5_000)]
    for start in range(0, 5_000, 500):
        times[start : start + 500] = times[start : start + 500][::-1]
    reading = reading_of(file, "time,key\n" + "".join(f"{at},k{at}\n" for at in times))
    assert [(each.at, each.key) for each in reading] == [(float(at), f"k{at}") for at in range(5_000)]
    assert (reading.backwards, reading.clamped) == (4_990, 0)


def test_times_that_go_far_back_are_clamped_and_counted(file: Path) -> None:
    rows = [*((at, f"k{at}") for at in range(50_000)), (3, "late"), (4, "late"), (60_000, "end")]
    reading = reading_of(file, "time,key\n" + "".join(f"{at},{key}\n" for at, key in rows))
    found = list(reading)
    assert len(found) == len(rows)
    assert sorted(found, key=lambda each: each.at) == found
    late = [each.at for each in found if each.key == "late"]
    assert len(late) == 2
    assert min(late) > 3.0
    assert (reading.backwards, reading.clamped) == (1, 2)


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), max_size=20), max_size=200),
    st.integers(0, 2_000),
)
def test_order_is_always_an_order_and_loses_nothing(batches: list[list[float]], more: int) -> None:
    at = itertools.count()
    made = [[Request(each, str(next(at))) for each in batch] for batch in [*batches, [0.0] * more]]
    whole = list(itertools.chain.from_iterable(made))
    order = Order()
    found = list(itertools.chain.from_iterable(order.sorted(made)))
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert sorted(each.key for each in found) == sorted(each.key for each in whole)
    changed = {each.key: each.at for each in whole}
    assert sum(changed[each.key] != each.at for each in found) == order.clamped
    if len(whole) <= HELD_BACK:
        assert found == sorted(whole, key=lambda each: each.at)


# What is no trace


@pytest.mark.parametrize("squeeze", SQUEEZED.values(), ids=SQUEEZED)
def test_an_empty_trace(file: Path, squeeze: Callable[[bytes], bytes]) -> None:
    assert refusal_of(file, squeeze(b"")) == "it is empty"
    assert refusal_of(file, squeeze(b"\n \r\n\n")) == "there is no request in it"
    assert refusal_of(file, squeeze(b"time,key\n")) == "there is no request in it"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes(100), "binary data"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0", "binary data"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary data"),
        (b"\xff\xfe" + "time,key\n".encode("utf-16-le"), "UTF-16"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"PK\x03\x04abc", "zip"),
        (gzip.compress(b"\0" * 10_000_000), "binary data"),
        (b"\x1f\x8b\x08junk", "damaged"),
        (b"\x28\xb5\x2f\xfdjunkjunkjunk", "damaged"),
        (b"\xff" * 5_000, "not UTF-8"),
        (b"a" * (3 << 20), "longer than 1 MiB"),
        ("hello\nworld\n", "neither"),
        ('[\n{"time":1,"key":"a"}\n', "neither"),
        ("time,key\nx,a\n", "1 a time that cannot be read (line 2)"),
        ("time,key\n" + "x,a\n" * 1_000, "1,000 a time that cannot be read (lines 2, 3, 4, 5, 6, ...)"),
    ],
)
def test_no_trace(file: Path, data: bytes | str, reason: str) -> None:
    if data == '[\n{"time":1,"key":"a"}\n':
        assert requests_of(file, data) == [Request(1.0, "a")]  # One line of it can be read, and is.
    else:
        assert reason in refusal_of(file, data)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"format": "xml"}, "the format is one of csv, jsonl, common, combined"),
        ({"unit": "h"}, "one of s, ms, us, ns"),
        ({"delimiter": ""}, "one character"),
        ({"delimiter": '"'}, "one character"),
        ({"columns": {"tme": "x"}}, "time, key, user, size"),
        ({"columns": {"time": -1, "key": 1}}, "from 0 on"),
        ({"columns": {"time": None}}, "from 0 on"),
        ({"columns": {"time": 0, "key": "b"}}, "all by name or all by place"),
        ({"columns": {"time": 0}}, "both the time and the key"),
        ({"columns": {"time": 0, "key": 1}, "format": "common"}, "for CSV"),
        ({"columns": {"key": "nope"}}, "neither"),
        ({"columns": {"key": "nope"}, "format": "csv"}, "'nope'"),
        ({"columns": {"time": 0, "key": 9}, "format": "csv"}, "9"),
    ],
)
def test_settings_that_cannot_be(file: Path, said: dict[str, Any], reason: str) -> None:
    assert reason in refusal_of(file, CSV, **said)


def test_columns_by_place_are_for_csv(file: Path) -> None:
    assert "CSV" in refusal_of(file, '{"time":1,"key":"a"}', columns={"time": 0, "key": 1}, format="jsonl")


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, "a\0b"):
        with pytest.raises(TraceError, match=r"no trace: .* cannot be read: "):
            read(path)


def test_secrets_are_not_quoted(file: Path) -> None:
    secret = "s3cret"  # noqa: S105 (a word to look for)
    for data in (
        f"{secret}\n",
        f"time,key\n{secret},{secret}\n",
        f'{{"time":"{secret}","key":"a"}}\n',
        f'{{"time":1,"key":"{secret}\n',
        COMMON.replace("10/Oct", "31/Sep"),
        f'time,key\n1,"{secret}\n',
    ):
        with pytest.raises(TraceError) as caught:
            list(reading_of(file, data))
        seen: BaseException | None = caught.value
        while seen is not None:
            assert secret not in str(seen)
            seen = seen.__cause__


# Damage on the way


@pytest.mark.parametrize("squeeze", ["gzip", "zstd"])
def test_compressed_data_that_breaks_off_keeps_what_was_read(file: Path, squeeze: str) -> None:
    text = b"time,key\n" + b"".join(b"%d,key:%d\n" % (at, at * 7919 % 10_007) for at in range(100_000))
    whole = SQUEEZED[squeeze](text)
    reading = reading_of(file, whole[: len(whole) // 2])
    found = list(reading)
    assert 10_000 < len(found) < 90_000
    assert found == [Request(float(at), f"key:{at * 7919 % 10_007}") for at in range(len(found))]
    assert reading.unreadable[Why.DAMAGED].first == [len(found) + 2]


def test_a_file_that_unpacks_to_gigabytes_is_read_in_little_memory(file: Path) -> None:
    """A frame of 64 MiB of one byte, a few kB long: one line that is too long, in pieces."""
    import tracemalloc  # noqa: PLC0415 (it slows what it is imported for only when started, and only here)

    bombs = [gzip.compress(b"a" * (64 << 20)), zstandard.compress(b"a" * (64 << 20))]
    for bomb in bombs:
        file.write_bytes(bomb)
        tracemalloc.start()
        with pytest.raises(TraceError, match="longer than 1 MiB"):
            read(file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40 << 20


def test_zstd_without_its_package_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "pip install 'cachemesh[simulation]'" in refusal_of(file, SQUEEZED["zstd"](CSV))


def test_zstd_of_the_standard_library_is_preferred(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.14 has `compression.zstd`, whose `ZstdDecompressor` is what zstandard calls a decompressobj."""
    begun: list[int] = []

    class Module:
        ZstdError = zstandard.ZstdError

        @staticmethod
        def ZstdDecompressor() -> object:  # noqa: N802 (as the library has it)
            begun.append(1)
            return zstandard.ZstdDecompressor().decompressobj()

    monkeypatch.setattr(compression, "import_module", lambda name: {"compression.zstd": Module}[name])
    assert requests_of(file, SQUEEZED["zstd"](CSV)) == OF_CSV
    assert begun


# Streaming


class Stdin:
    def __init__(self, raw: Any) -> None:
        self.buffer = raw


@pytest.mark.parametrize("squeeze", SQUEEZED.values(), ids=SQUEEZED)
def test_the_standard_input_byte_by_byte(monkeypatch: pytest.MonkeyPatch, squeeze: Callable[[bytes], bytes]) -> None:
    class Trickle(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return super().read1(min(1, size or 1))

    stream = Trickle(squeeze(CSV))
    monkeypatch.setattr(sys, "stdin", Stdin(stream))
    seen: list[tuple[int, int | None]] = []
    assert list(read("-", progress=lambda done, total: seen.append((done, total)))) == OF_CSV
    assert seen == [(done, None) for done in range(1, len(stream.getvalue()) + 1)]
    assert not stream.closed


def test_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(TraceError, match=r"no trace: there is no standard input"):
        read("-")
    closed = io.BytesIO()
    closed.close()
    monkeypatch.setattr(sys, "stdin", Stdin(closed))
    with pytest.raises(TraceError, match=r"no trace: 'the standard input' cannot be read"):
        read("-")


def test_a_pipe_is_read_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    out, into = os.pipe()
    going = threading.Event()

    def write() -> None:
        with open(into, "wb", buffering=0) as pipe:  # noqa: PTH123 (a descriptor)
            pipe.write(b"time,key\n")
            pipe.writelines(b"%d,a\n" % at for at in range(3_000))
            going.wait(10.0)

    writer = threading.Thread(target=write)
    writer.start()
    with open(out, "rb") as stream:  # noqa: PTH123 (a descriptor)
        monkeypatch.setattr(sys, "stdin", Stdin(stream))
        reading = read("-")
        first = next(iter(reading))  # The writer has not closed its end yet.
        going.set()
        rest = list(reading)
    writer.join()
    assert [first, *rest] == [Request(float(at), "a") for at in range(3_000)]


def test_progress_counts_the_bytes_of_the_file(file: Path) -> None:
    data = gzip.compress(os.urandom(200_000).hex().encode(), 1)
    data = gzip.compress(b"time,key\n1,a\n" + b"x\n" * 5) + data
    seen: list[tuple[int, int | None]] = []
    list(reading_of(file, data, progress=lambda done, total: seen.append((done, total))))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (len(data), len(data))
    assert len(seen) > 2


def test_what_progress_raises_is_not_taken_for_a_bad_trace(file: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        del done, total
        raise OSError

    with pytest.raises(OSError, match=r"^$"):
        reading_of(file, CSV, progress=stop)


def test_a_reading_is_closed_early_or_by_itself(file: Path) -> None:
    rows = "time,key\n" + "1,a\n" * 100_000
    with reading_of(file, rows) as reading:
        assert next(reading) == Request(1.0, "a")
    assert list(reading) == []
    del reading
    with reading_of(file, rows) as reading:
        requests = iter(reading)
    assert set(requests) == {Request(1.0, "a")}  # Those that were read, and none of half a line.
    for _ in reading_of(file, rows):
        break  # Nobody closes this one; pytest would turn a ResourceWarning into a failure.


def test_equal_keys_and_users_are_one_string(file: Path) -> None:
    for data in (b"time,key,user\n" + b"1,aaa,bbb\n" * 2, b'{"time":1,"key":"aaa","user":"bbb"}\n' * 2):
        first, second = requests_of(file, data)
        assert first.key is second.key
        assert first.user is second.user


# For all bytes


def outcome_of(file: Path, data: bytes, **said: Any) -> list[Request] | None:
    file.write_bytes(data)
    try:
        with read(file, **said) as reading:
            found = list(reading)
    except TraceError as error:
        assert str(error).startswith("no trace: ")  # noqa: PT017 (either outcome is right)
        return None
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert all(each.key and each.size >= 0 for each in found)
    assert len(found) + reading.unreadable.total <= reading.lines
    return found


FORMATS = st.sampled_from([None, *TraceFormat])
LINES = st.sampled_from(
    [
        *(b"time,key,size\n", b"time\tkey\n", b"1,a,5\n", b"2,b\n", b'"\n', b",,,\n", b"\r", b"\0", b"\xff"),
        *(COMMON.encode() + b"\n", COMBINED.encode()[:-5], b'{"time":1,"key":"a"}\n', b'{"time":1e400', b"{}\n"),
        *(gzip.compress(CSV), gzip.compress(CSV)[:-3], zstandard.compress(CSV), b"\x1f\x8b", b"\x28\xb5\x2f\xfd"),
        *(b"\xef\xbb\xbf", b"-" * 30, b"9" * 30, b"nan", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x0c", b"\x85"),
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300) | st.lists(LINES | st.binary(max_size=20), max_size=20).map(b"".join), FORMATS)
@example(b'{"time": 1, "key": ' + b"1" * 5_000 + b"}", None)
@example(b'{"time":1,"key":"a","size":' + b"1" * 5_000 + b"}", None)
@example(b"time,key\n0001-01-01T00:00:00+14:00,a\n9999-12-31T23:59:59-14:00,a", None)
def test_any_bytes_are_a_trace_or_a_trace_error(file: Path, data: bytes, kind: str | None) -> None:
    outcome_of(file, data, format=kind)
    outcome_of(file, b"time,key\n1,a\n" + data)
    if kind == "csv":
        outcome_of(file, data, format=kind, columns={"time": 1, "key": 0, "size": 2})


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 200), st.sampled_from(["gzip", "zstd"]))
def test_any_damage_to_compressed_data(file: Path, junk: bytes, at: int, squeeze: str) -> None:
    whole = SQUEEZED[squeeze](CSV)
    at %= len(whole)
    found = outcome_of(file, whole[:at] + junk + whole[at + len(junk) :])
    assert found is None or len(found) <= 100


# RFC 4180: a bare CR stands in quotes only, which Python's writer does not always give it.
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=20)
REQUESTS = st.lists(
    st.builds(Request, st.floats(-1e9, 1e9), KEYS, st.none() | KEYS, st.integers(0, 2**62)), min_size=1, max_size=30
).map(lambda found: sorted(found, key=lambda each: each.at))


@settings(deadline=None)
@example([Request(0.0, '"', " \u2028\x85,;|\t")], ",", bytes)
@given(REQUESTS, st.sampled_from(",;\t|"), st.sampled_from([*SQUEEZED.values()]))
def test_csv_round_trip(file: Path, requests: list[Request], delimiter: str, squeeze: Callable[[bytes], bytes]) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["time_s", "key", "user", "size"])
    writer.writerows((repr(each.at), each.key, each.user or "", each.size) for each in requests)
    assert requests_of(file, squeeze(out.getvalue().encode())) == requests


@settings(deadline=None)
@given(REQUESTS, st.booleans(), st.sampled_from([*SQUEEZED.values()]))
def test_json_round_trip(
    file: Path, requests: list[Request], ascii_only: bool, squeeze: Callable[[bytes], bytes]
) -> None:
    rows: Iterable[dict[str, object]] = (
        {"time_s": each.at, "key": each.key, "user": each.user, "size": each.size} for each in requests
    )
    data = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows).encode()
    assert requests_of(file, squeeze(data)) == requests


# A real one


@pytest.mark.skipif(not REAL.exists(), reason="the real trace is beside the repository, not in it")
def test_the_real_trace() -> None:
    total = REAL.stat().st_size
    seen: list[tuple[int, int | None]] = []
    with read(REAL, progress=lambda done, whole: seen.append((done, whole))) as reading:
        found = list(reading)
    with gzip.open(REAL, "rt") as lines:
        expected = [Request(float(row["time_s"]), row["key"], size=int(row["size"])) for row in csv.DictReader(lines)]
    assert found == expected
    assert len(found) == 56_936
    assert (reading.lines, reading.unreadable.total, reading.backwards, reading.clamped) == (56_937, 0, 0, 0)
    assert seen[-1] == (total, total)
