"""What went wrong when sources were attacked: odd input, hostile origins, clients with habits, closing in between."""

from __future__ import annotations

import asyncio
import bz2
import functools
import gzip
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import httpx
import httpx2
import pytest
from pydantic import BaseModel
from returns.result import Success

from cachemesh.sources import Backoff, FailureKind, HttpSource, NetworkFailure, SyncHttpSource, WebSocketSource
from cachemesh.sources.backoff import Attempts
from cachemesh.sources.http.redirects import Place, hop_of
from tests.sources.servers import PATIENCE_S, RawServer, Request, raw_server, response
from tests.sources.websockets_here import Server as WebSocketServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.asyncio.server import ServerConnection

    from tests.sources.driving import Driver

CLOSED: Final = NetworkFailure(kind=FailureKind.CANCELLED, message="the source is closed")


@pytest.fixture
def echo() -> Iterator[RawServer]:
    """An origin that answers with what it was asked for."""
    with raw_server(lambda request: [response(request.target.encode(), cache_control="max-age=60")]) as server:
        yield server


def message_of(answer: Any) -> str:
    return f"{answer.failure().kind}: {answer.failure().message}"


# Odd input


@pytest.mark.parametrize("url", [[], {}, bytearray(b"/x")], ids=repr)
def test_a_url_that_is_not_even_hashable_is_a_failure(driver: Driver, echo: RawServer, url: Any) -> None:
    source = driver.open(echo.url)

    assert message_of(source.get(url)) == "unknown: the URL is invalid"
    assert driver.run(source.target.fetcher(url)()).failure().message == "the URL is invalid"


@pytest.mark.parametrize("retry", [None, Backoff(delay=0)], ids=["once", "again"])
@pytest.mark.parametrize("method", [None, b"GET", 5, []], ids=repr)
def test_a_method_that_is_no_text_is_a_failure(driver: Driver, echo: RawServer, method: Any, retry: Any) -> None:
    answer = driver.open(echo.url).request(method, "/", retry=retry)

    assert message_of(answer) == "unknown: the method is none that a request can have"
    assert not echo.requests


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("../v2", None),
        ("/a/../../../v2", None),
        ("..", None),
        ("a/../b", "/api/v1/b"),
        ("?q=../..", "/api/v1/?q=../.."),
    ],
)
def test_a_relative_url_stays_behind_the_path_of_the_base(
    driver: Driver, echo: RawServer, url: str, target: str | None
) -> None:
    answer = driver.open(f"{echo.url}/api/v1").get(url, parser=str)

    if target is not None:
        assert answer == Success(target)
    else:
        assert message_of(answer) == "unknown: a relative URL that leads out of the base_url"
        assert not echo.requests


@pytest.mark.parametrize("headers", [{"X-A": "1", "x-a": "2"}, [("x-a", "1"), ("x-a", "2")]], ids=["dict", "list"])
def test_a_header_that_is_there_twice_is_not_dropped_in_silence(driver: Driver, echo: RawServer, headers: Any) -> None:
    answer = driver.open(echo.url).get("/", headers=headers)

    assert message_of(answer) == "unknown: headers: a name is there twice"
    with pytest.raises(ValueError, match="twice"):
        driver.open(echo.url, headers=headers)


class User(BaseModel):
    id: int

    @classmethod
    def called(cls, *args: Any, **kwargs: Any) -> Any:
        pytest.fail(f"what an origin sent was called with: {args!r} {kwargs!r}")


@pytest.mark.parametrize("parser", [User.called, functools.partial(User.called)], ids=["method", "partial"])
@pytest.mark.parametrize("body", [b'{"id": 1}', b"[1]"])
def test_a_parser_that_can_be_called_is_not_called_with_what_an_origin_sends(
    driver: Driver, parser: Any, body: bytes
) -> None:
    with raw_server(response(body)) as server:
        answer = driver.open(server.url).get("/", parser=parser)

    assert message_of(answer) == "parsing: the parser is no type that pydantic knows"


def test_a_download_may_have_any_name_that_a_file_may_have(driver: Driver, echo: RawServer, tmp_path: Path) -> None:
    for name in ("a" * 255, "\N{GREEK SMALL LETTER ALPHA}" * 127):
        assert driver.open(echo.url).download("/x", tmp_path / name) == Success(2)
        assert (tmp_path / name).read_bytes() == b"/x"


# Fetchers


def test_a_fetcher_asks_for_what_its_key_says_though_its_options_change(driver: Driver, echo: RawServer) -> None:
    source = driver.open(echo.url).target
    params, headers = {"page": [1]}, {"x-a": "1"}
    fetcher = source.fetcher("/", params=params, headers=headers, parser=str)
    bare_headers: dict[str, str] = {}
    bare = source.fetcher("/", headers=bare_headers, parser=str)

    params["page"].append(2)
    headers["x-a"] = bare_headers["x-a"] = "2"

    assert driver.run(fetcher()).unwrap().value == "/?page=1"
    assert echo.requests[-1].headers["x-a"] == "1"
    assert driver.run(bare()).unwrap().value == "/"
    assert "x-a" not in echo.requests[-1].headers


@pytest.mark.parametrize("option", ["json", "content", "data", "files"])
def test_a_fetcher_takes_no_body_that_its_key_would_not_know(driver: Driver, echo: RawServer, option: str) -> None:
    source = driver.open(echo.url).target
    with pytest.raises(TypeError):
        source.fetcher("/", **{option: b"{}"})


# Hostile origins


@pytest.mark.parametrize(
    "charset", ["bz2_codec", "zlib", "hex", "rot13", "punycode", "unicode-escape", "idna", "undefined"]
)
def test_ht4_a_charset_that_is_none_unpacks_nothing(driver: Driver, charset: str) -> None:
    body = bz2.compress(b"a" * 50_000_000) if charset == "bz2_codec" else b"a" * 300_000 + b"-" + b"b" * 300_000
    with raw_server(response(body, content_type=f"text/plain; charset={charset}")) as server:
        began = time.monotonic()
        answer = driver.open(server.url).get("/", parser=str)

    assert time.monotonic() - began < PATIENCE_S
    if charset == "bz2_codec":
        assert message_of(answer) == "parsing: the body is no utf-8 text"
    else:
        assert answer == Success(body.decode())


@pytest.mark.parametrize("asked", ["3155760001", "1" + "0" * 30, "1" + "0" * 300])
def test_b30_a_longer_retry_after_than_a_century_is_not_taken_for_none(driver: Driver, asked: str) -> None:
    with raw_server(response(status="503 Service Unavailable", retry_after=asked)) as server:
        answer = driver.open(server.url, retry=Backoff(delay=0)).get("/")

        assert answer.failure().retry_after == float(asked)
        assert len(server.requests) == 1


def test_b30_no_wait_is_too_long_to_be_slept() -> None:
    forever = NetworkFailure.of_status(503, retry_after=1e300)
    wait = Attempts(Backoff(max_retry_after=None)).wait_after(forever)

    assert wait is not None
    assert 86_400 < wait < threading.TIMEOUT_MAX


@pytest.mark.parametrize(
    "host",
    ["64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "::ffff:0:a9fe:a9fe", "64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1"],
)
def test_ht3_what_a_translator_makes_of_an_address_is_looked_at(host: str) -> None:
    outside = Place("https", "origin.example")

    assert isinstance(hop_of(302, "GET", outside, Place("https", host)), str)
    assert not isinstance(hop_of(302, "GET", outside, Place("https", "64:ff9b::8.8.8.8")), str)


# Clients with habits


def reads_it(driver: Driver) -> Any:
    """A hook that wants to see the body."""

    async def aread(answer: Any) -> None:
        await answer.aread()

    return aread if driver.is_async else lambda answer: answer.read()


@pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
@pytest.mark.parametrize("limit", [1_000, 999])
def test_a_body_that_a_hook_has_read_is_not_unpacked_twice(driver: Driver, library: Any, limit: int) -> None:
    with raw_server(response(gzip.compress(b"x" * 1_000), content_encoding="gzip")) as server:
        client = driver.client(library, event_hooks={"response": [reads_it(driver)]})
        answer = driver.open(server.url, client=client).get("/", max_body_bytes=limit)

    if limit == 1_000:
        assert answer == Success(b"x" * 1_000)
    else:
        assert answer.failure().message == "the body is larger than is wanted"


@pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
def test_a_mocked_transport_may_answer_with_gzip(driver: Driver, library: Any) -> None:
    def answers(_: Any) -> Any:
        return library.Response(200, content=gzip.compress(b"{}"), headers={"content-encoding": "gzip"})

    client = driver.client(library, transport=library.MockTransport(answers))

    assert driver.open("http://origin.example", client=client).get("/", parser=dict) == Success({})


@pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
def test_b33_a_client_that_raises_for_a_status_changes_nothing_of_the_failure(driver: Driver, library: Any) -> None:
    async def araises(answer: Any) -> None:
        answer.raise_for_status()

    def raises(answer: Any) -> None:
        answer.raise_for_status()

    with raw_server(response(b"secret", "429 Too Many Requests", retry_after="7")) as server:
        client = driver.client(library, event_hooks={"response": [araises if driver.is_async else raises]})
        failure = driver.open(server.url, client=client).get("/").failure()

    assert failure == NetworkFailure.of_status(429, retry_after=7.0)
    assert failure.is_retryable
    assert failure.cause.response is None  # It would keep the body, and the request with its credentials.


@pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])
@pytest.mark.parametrize("timeout", [PATIENCE_S, None])
def test_the_time_limits_of_a_client_that_was_given_hold(driver: Driver, library: Any, timeout: float | None) -> None:
    with raw_server(lambda _: [PATIENCE_S]) as server:
        client = driver.client(library, timeout=0.2)
        began = time.monotonic()
        answer = driver.open(server.url, client=client).get("/", timeout=timeout)

    assert message_of(answer) == "timeout: ReadTimeout"
    assert time.monotonic() - began < PATIENCE_S / 2


# Closing in between


def until_asked(server: RawServer, times: int = 1) -> None:
    while len(server.requests) < times:
        time.sleep(0.01)


async def given_up(task: asyncio.Task[Any]) -> Any:
    return await asyncio.wait_for(task, PATIENCE_S)


@pytest.mark.parametrize("ticks", [0, 1, 2, 3, 5, 8, 12])
def test_ca7_what_is_connecting_ends_where_the_source_is_closed(ticks: int) -> None:
    async def main(url: str) -> Any:
        source = HttpSource(url, timeout=None)
        task = asyncio.create_task(source.get("/"))
        for _ in range(ticks):
            await asyncio.sleep(0)
        await source.aclose()
        return await given_up(task)

    with raw_server(lambda _: [PATIENCE_S * 2]) as server:
        assert asyncio.run(main(server.url)).failure() == CLOSED


def test_ca7_what_waits_for_a_connection_ends_where_the_source_is_closed() -> None:
    async def main(server: RawServer) -> Any:
        source = HttpSource(server.url, timeout=None)
        tasks = [asyncio.create_task(source.get("/")) for _ in range(110)]
        await asyncio.to_thread(until_asked, server, 100)
        await source.aclose()
        return [await given_up(task) for task in tasks]

    with raw_server(lambda _: [PATIENCE_S * 2]) as server:
        answers = asyncio.run(main(server))
        assert [answer.failure() for answer in answers] == [CLOSED] * 110
        assert len(server.requests) == 100


def test_ca7_what_threads_are_doing_ends_where_the_source_is_closed() -> None:
    answers: list[Any] = []
    with raw_server(lambda _: [PATIENCE_S * 2]) as server:
        source = SyncHttpSource(server.url, timeout=None)
        threads = [threading.Thread(target=lambda: answers.append(source.get("/")), daemon=True) for _ in range(110)]
        for thread in threads:
            thread.start()
        until_asked(server, 100)
        source.close()
        for thread in threads:
            thread.join(PATIENCE_S)

        assert [answer.failure() for answer in answers] == [CLOSED] * 110
        assert len(server.requests) == 100


def test_ca7_what_is_under_way_in_another_loop_ends_where_the_source_is_closed() -> None:
    answers: list[Any] = []
    with raw_server(lambda _: [PATIENCE_S * 2]) as server:
        source = HttpSource(server.url, timeout=None)

        async def ask() -> None:
            answers.append(await source.get("/"))

        other = threading.Thread(target=lambda: asyncio.run(ask()), daemon=True)
        other.start()
        until_asked(server)
        asyncio.run(source.aclose())
        other.join(PATIENCE_S)

    assert [answer.failure() for answer in answers] == [CLOSED]


def test_a_client_that_was_given_goes_on_where_its_source_is_closed() -> None:
    def late(_: Request) -> Iterator[bytes | float | None]:
        yield 0.2
        yield response(b"late")

    async def main(server: RawServer) -> Any:
        async with httpx2.AsyncClient() as client:
            source = HttpSource(server.url, client=client)
            task = asyncio.create_task(source.get("/"))
            await asyncio.to_thread(until_asked, server)
            await source.aclose()
            return await given_up(task)

    with raw_server(late) as server:
        assert asyncio.run(main(server)) == Success(b"late")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:unclosed", "ignore:.*multi-threaded")  # The child lets go of the connections.
def test_ca10_a_child_does_not_speak_on_the_connections_of_its_parent(echo: RawServer) -> None:
    with SyncHttpSource(echo.url) as source:
        assert source.get("/warm") == Success(b"/warm")
        child = os.fork()
        if child == 0:
            is_right = source.get("/child") == Success(b"/child")
            source.close()
            os._exit(0 if is_right else 1)
        _, status = os.waitpid(child, 0)

        assert status == 0
        assert source.get("/parent") == Success(b"/parent")
        assert echo.connections == 2


# WebSockets


async def echoes(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


def test_text_that_cannot_be_sent_is_no_fault_of_the_network() -> None:
    async def main() -> Any:
        async with WebSocketServer(echoes) as server:
            source = WebSocketSource(server.url, parser=str)
            async with source.messages() as messages:
                return await messages.send("a\ud800"), await messages.send("b"), await anext(messages)

    refused, sent, came = asyncio.run(main())

    assert message_of(refused) == "parsing: there is no UTF-8 for this text"
    assert (sent, came) == (Success(None), Success("b"))


def test_a_hello_that_cannot_be_sent_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="there is no UTF-8 for this text"):
        WebSocketSource("ws://origin.example", hello="\ud800")


def test_se6_a_url_that_cannot_be_encoded_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="cannot be read") as caught:
        WebSocketSource("ws://origin.example/\ud800?token=s3cret")

    assert not isinstance(caught.value, UnicodeError)  # Its `object` is the whole URL.
