"""HT-4: answers that are broken, too short, too long or too large, byte by byte from a socket, to both faces."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from returns.result import Success

from cachemesh.sources import Backoff, FailureKind
from cachemesh.sources.http.body import Body, BrokenBodyError, TooLargeError
from tests.sources.servers import Request, raw_server, response

if TYPE_CHECKING:
    from tests.sources.driving import Driver

JSON = b'{"a": [1, 2, 3]}'
ZIPPED = gzip.compress(JSON * 100)
RAW_DEFLATED = zlib.compressobj(wbits=-15)
RAW = RAW_DEFLATED.compress(JSON) + RAW_DEFLATED.flush()


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *lines, "", ""]).encode("latin-1")


BROKEN = {
    "nothing": b"",
    "garbage": b"\x00\xff\x16\x03 garbage\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/0.9": b"<html>",
    "half a status line": b"HTTP/1.1 20",
    "a status that is no number": head(status="HTTP/1.1 abc OK"),
    "a status of two digits": head(status="HTTP/1.1 20 OK"),
    "no version": head(status="200 OK"),
    "headers without an end": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n",
    "a header without a colon": head("canary") + b"x",
    "a header with a control character": head("x: a\x00b"),
    "a name with a blank": head("content length: 1") + b"x",
    "headers without end": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000,
    "cut short": head("content-length: 100") + JSON,
    "cut short by one": head(f"content-length: {len(JSON) + 1}") + JSON,
    "two lengths": head("content-length: 5", "content-length: 6") + b"hello!",
    "a negative length": head("content-length: -1") + b"x",
    "a length that is no number": head("content-length: 0x10") + b"x" * 16,
    "a length with a sign": head("content-length: +5") + b"hello",
    "chunks without an end": head("transfer-encoding: chunked") + b"5\r\nhello\r\n",
    "half a chunk": head("transfer-encoding: chunked") + b"ff\r\nhello",
    "a size that is no number": head("transfer-encoding: chunked") + b"xyz\r\nhello\r\n0\r\n\r\n",
    "a negative size": head("transfer-encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk larger than it says": head("transfer-encoding: chunked") + b"3\r\nhello\r\n0\r\n\r\n",
    "a huge size": head("transfer-encoding: chunked") + b"f" * 40 + b"\r\nhello",
    "an odd transfer coding": head("transfer-encoding: gzip, chunked") + b"0\r\n\r\n",
    "gzip cut short": response(ZIPPED[:-9], content_encoding="gzip"),
    "gzip cut short after its head": response(ZIPPED[:12], content_encoding="gzip"),
    "gzip with a wrong checksum": response(ZIPPED[:-8] + b"\0" * 8, content_encoding="gzip"),
    "gzip that is none": response(JSON, content_encoding="gzip"),
    "gzip with something behind": response(ZIPPED + b"canary", content_encoding="gzip"),
    "deflate cut short": response(zlib.compress(JSON)[:-1], content_encoding="deflate"),
    "deflate without a wrapper cut short": response(RAW[:-3], content_encoding="deflate"),
    "deflate of one byte": response(b"x", content_encoding="deflate"),
    "deflate that is none": response(b"\xff\xff\xff", content_encoding="deflate"),
    "deflate with something behind": response(zlib.compress(JSON) + b"canary", content_encoding="deflate"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("parser", [bytes, None, Any])
def test_ht4_a_broken_answer_is_a_failure(driver: Driver, name: str, parser: Any) -> None:
    with raw_server(lambda _: [BROKEN[name], None]) as server:
        failure = driver.open(server.url, timeout=5).get("/", parser=parser).failure()

    assert failure.kind in {FailureKind.BAD_RESPONSE, FailureKind.NETWORK}
    assert (failure.status, failure.is_retryable) == (None, True)
    assert "canary" not in repr(failure)


def saying(answer: list[Any], _: Request) -> list[Any]:
    return answer


@pytest.mark.parametrize(
    "rest",
    [(b"x", None), (b"x", 60.0), (b"x" * 1_000_000, 60.0)],
    ids=["cut short", "standing still", "larger than it says"],
)
def test_a_status_that_refuses_counts_whatever_becomes_of_the_body(driver: Driver, rest: tuple[Any, ...]) -> None:
    """Nobody wants that body. It is read to keep the connection."""
    for status, kind in (("404 Not Found", FailureKind.NOT_FOUND), ("503 Busy", FailureKind.SERVER_ERROR)):
        refused = f"HTTP/1.1 {status}\r\ncontent-length: 100\r\nretry-after: 7\r\n\r\n".encode()
        answer = [refused, *rest]
        with raw_server(partial(saying, answer)) as server:
            failure = driver.open(server.url, timeout=0.3).get("/").failure()
        assert (failure.kind, failure.status, failure.retry_after) == (kind, int(status[:3]), 7.0)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", b"x"),
        ("zstd", b"x"),
        ("bzip2", bz2.compress(JSON)),
        ("gzip, gzip", gzip.compress(ZIPPED)),
        ("canary", JSON),
    ],
)
def test_ht4_a_coding_that_nobody_asked_for_is_a_failure(driver: Driver, coding: str, body: bytes) -> None:
    with raw_server(response(body, content_encoding=coding)) as server:
        failure = driver.open(server.url).get("/").failure()

    assert (failure.kind, failure.status) == (FailureKind.BAD_RESPONSE, 200)
    assert failure.message == "the content coding is none that was asked for"


@pytest.mark.parametrize(
    ("coding", "body", "value"),
    [
        ("gzip", gzip.compress(JSON), JSON),
        ("x-gzip", gzip.compress(JSON), JSON),
        (" GZIP ", gzip.compress(JSON), JSON),
        ("gzip", gzip.compress(b"12") + gzip.compress(b"34"), b"1234"),
        ("gzip", gzip.compress(b"12") + bytes(9), b"12"),
        ("gzip", b"", b""),
        ("gzip", gzip.compress(b""), b""),
        ("deflate", zlib.compress(JSON), JSON),
        ("deflate", RAW, JSON),
        ("deflate", b"", b""),
        ("identity", JSON, JSON),
    ],
)
def test_codings_are_undone(driver: Driver, coding: str, body: bytes, value: bytes) -> None:
    with raw_server(response(body, content_encoding=coding)) as server:
        assert driver.open(server.url).get("/") == Success(value)


def chunked(_: Request) -> Any:
    yield head("transfer-encoding: chunked")
    for each in (b"2\r\n12\r\n", b"1;x=y\r\n3\r\n", b"0\r\ntrailer: x\r\n\r\n"):
        yield each
        yield 0.01


def until_closed(_: Request) -> Any:
    yield head() + b"123"
    yield None


def after_hints(_: Request) -> Any:
    yield head("link: x", status="HTTP/1.1 103 Early Hints")
    yield head(status="HTTP/1.1 100 Continue")
    yield response(b"123")


@pytest.mark.parametrize("script", [chunked, until_closed, after_hints])
def test_what_is_odd_and_right_is_taken(driver: Driver, script: Any) -> None:
    with raw_server(script) as server:
        assert driver.open(server.url).get("/", parser=int) == Success(123)


@pytest.mark.parametrize("behind", [response(b"canary"), b"garbage"])
def test_ht4_what_comes_after_the_end_is_no_answer_to_the_next(driver: Driver, behind: bytes) -> None:
    """More than the length says is no other response (RFC 9112, section 6.3); taken for one, it would be cached."""
    with raw_server(response(b"one") + behind) as server:
        source = driver.open(server.url)
        assert source.get("/1") == Success(b"one")
        failure = source.get("/2").failure()
        assert (failure.kind, failure.is_retryable) == (FailureKind.BAD_RESPONSE, True)
        assert source.get("/3") == Success(b"one")


BOMB = response(gzip.compress(bytes(50_000_000)), content_encoding="gzip")
"""50 MB of zeros, in 50 KB."""


def test_ht4_a_bomb_stops_early(driver: Driver) -> None:
    with raw_server(BOMB) as server:
        source = driver.open(server.url, max_body_bytes=1_000_000)
        source.get("/")
        tracemalloc.start()
        failure = source.get("/").failure()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert (failure.kind, failure.message) == (FailureKind.BAD_RESPONSE, "the body is larger than is wanted")
    assert peak < 3_000_000


def test_ht4_a_length_that_is_too_large_is_refused_at_once(driver: Driver) -> None:
    def script(_: Request) -> Any:
        yield head("content-length: 100000000000")
        yield 5.0

    with raw_server(script) as server:
        failure = driver.open(server.url, timeout=4).get("/").failure()

    assert failure.message == "the body is larger than is wanted"


def test_ht4_chunks_without_end_are_refused(driver: Driver) -> None:
    def script(_: Request) -> Any:
        yield head("transfer-encoding: chunked")
        while True:
            yield b"10000\r\n" + bytes(65536) + b"\r\n"

    with raw_server(script) as server:
        failure = driver.open(server.url, max_body_bytes=1_000_000).get("/").failure()

    assert (failure.message, failure.status) == ("the body is larger than is wanted", 200)


def test_ht4_an_endless_body_of_an_error_is_not_read(driver: Driver) -> None:
    def script(_: Request) -> Any:
        yield head("transfer-encoding: chunked", status="HTTP/1.1 503 Down")
        while True:
            yield b"10000\r\n" + bytes(65536) + b"\r\n"

    with raw_server(script) as server:
        failure = driver.open(server.url, timeout=4).get("/").failure()

    assert (failure.kind, failure.status) == (FailureKind.SERVER_ERROR, 503)


def test_ht4_the_next_request_is_answered_after_a_broken_one(driver: Driver) -> None:
    broken = iter(BROKEN.values())

    def script(request: Request) -> Any:
        if request.target == "/broken":
            yield next(broken)
            yield None
        yield response(b"1")

    with raw_server(script) as server:
        source = driver.open(server.url, timeout=5)
        for _ in BROKEN:
            assert source.get("/broken").failure().kind in {FailureKind.BAD_RESPONSE, FailureKind.NETWORK}
            # Where the framing was right, the connection is kept, and may be closed just as it is used again.
            assert source.get("/", parser=int, retry=Backoff(delay=0)) == Success(1)


def test_no_connection_is_a_failure_of_the_network(driver: Driver) -> None:
    with raw_server(b"") as server:
        pass

    failure = driver.open(server.url).get("/").failure()

    assert (failure.kind, failure.is_retryable) == (FailureKind.NETWORK, True)


def test_a_host_that_does_not_exist_is_a_failure_of_the_network(driver: Driver) -> None:
    source = driver.open(timeout=5)

    assert source.get("http://cachemesh.invalid/").failure().kind in {FailureKind.NETWORK, FailureKind.TIMEOUT}
    assert source.get(f"http://{'a' * 64}.invalid/").failure().kind in {FailureKind.NETWORK, FailureKind.UNKNOWN}


# The body itself


@given(
    content=st.binary(max_size=5000),
    coding=st.sampled_from(["", "gzip", "deflate", "raw"]),
    cuts=st.lists(st.integers(0, 200), max_size=20),
)
def test_ht4_a_body_is_whole_however_it_comes(content: bytes, coding: str, cuts: list[int]) -> None:
    wire = encoded(content, coding)
    body = Body("deflate" if coding == "raw" else coding, None)
    for cut in cuts:
        body.feed(wire[:cut])
        wire = wire[cut:]
    body.feed(wire)

    assert body.end() == content


@given(content=st.binary(min_size=1, max_size=500), coding=st.sampled_from(["gzip", "deflate"]), data=st.data())
def test_ht4_a_body_that_lacks_its_end_is_never_handed_out(content: bytes, coding: str, data: st.DataObject) -> None:
    wire = encoded(content, coding)
    body = Body(coding, None)

    end = data.draw(st.integers(1, len(wire) - 1))

    with pytest.raises(BrokenBodyError):
        fed(body, wire[:end])


@given(content=st.binary(max_size=500), coding=st.sampled_from(["", "gzip", "deflate", "raw"]), data=st.data())
def test_ht4_no_more_than_the_limit_is_kept(content: bytes, coding: str, data: st.DataObject) -> None:
    limit = data.draw(st.integers(0, 600))
    body = Body("deflate" if coding == "raw" else coding, limit)

    if len(content) <= limit:
        body.feed(encoded(content, coding))
        assert body.end() == content
    else:
        with pytest.raises(TooLargeError):
            body.feed(encoded(content, coding))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wire=st.binary(max_size=300), coding=st.sampled_from(["gzip", "deflate"]))
def test_ht4_garbage_is_said_to_be_broken(wire: bytes, coding: str) -> None:
    body = Body(coding, 100_000)
    try:
        fed(body, wire)
    except (BrokenBodyError, TooLargeError) as error:
        assert error.__cause__ is None  # noqa: PT017 (either is fine)


def fed(body: Body, wire: bytes) -> bytes:
    body.feed(wire)
    return body.end()


def encoded(content: bytes, coding: str) -> bytes:
    if coding == "raw":
        packer = zlib.compressobj(wbits=-15)
        return packer.compress(content) + packer.flush()
    if coding == "gzip":
        return gzip.compress(content)
    return zlib.compress(content) if coding == "deflate" else content
