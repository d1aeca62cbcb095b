"""`HttpSource` and `SyncHttpSource`, against an origin that mostly answers properly: what is sent, what comes of it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
import time
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import httpx2
import pytest
from annotated_types import Gt
from pydantic import BaseModel, TypeAdapter, field_validator
from returns.result import Failure, Success

from cachemesh.sources import FailureKind, HttpSource, NetworkFailure, SyncHttpSource
from tests.sources.servers import RawServer, Request, raw_server, response

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sources.driving import Driver


class User(BaseModel):
    id: int
    name: str


@dataclass
class Dated:
    on: date


def message_of(answer: Any) -> str:
    failure = answer.failure()
    assert isinstance(failure, NetworkFailure)
    return f"{failure.kind}: {failure.message}"


# Verbs and what they send


@pytest.mark.parametrize("verb", ["get", "options", "post", "put", "patch", "delete"])
def test_each_verb_sends_its_method(driver: Driver, origin: str, verb: str) -> None:
    echo = getattr(driver.open(origin), verb)("/echo", parser=dict[str, Any]).unwrap()

    assert echo["method"] == verb.upper()


def test_head_has_headers_and_no_body(driver: Driver, origin: str) -> None:
    source = driver.open(origin, max_body_bytes=10)

    assert source.head("/bytes") == Success(b"")
    exchange = source.exchange("HEAD", "/bytes").unwrap()
    assert (exchange.status, exchange.headers["content-length"], exchange.body) == (200, str(2**20), b"")


def test_any_method_can_be_requested(driver: Driver, origin: str) -> None:
    assert driver.open(origin).request("REPORT", "/echo", parser=dict[str, Any]).unwrap()["method"] == "REPORT"


def test_a_request_is_made_of_its_options(driver: Driver, origin: str) -> None:
    source = driver.open(f"{origin}/v1", headers={"X-Of": "source", "Accept": "text/plain"})

    echo = source.post("/echo", parser=dict[str, Any], params={"q": "a b"}, headers={"x-of": "call"}, json=[1]).unwrap()
    form = source.post("echo", parser=dict[str, Any], data={"a": "1"}).unwrap()
    files = source.post("echo", parser=dict[str, Any], files={"f": ("name.txt", b"text")}).unwrap()

    assert (echo["path"], echo["query"], echo["body"]) == ("/v1/echo", "q=a+b", "[1]")
    assert (echo["headers"]["x-of"], echo["headers"]["accept"]) == ("call", "text/plain")
    assert (form["path"], form["body"]) == ("/v1/echo", "a=1")
    assert 'filename="name.txt"' in files["body"]


def test_json_is_whatever_pydantic_can_write(driver: Driver, origin: str) -> None:
    sent = {"who": Strict(id=42, name="Ada"), "on": date(2026, 1, 2)}
    echo = driver.open(origin).post("/echo", parser=dict[str, Any], json=sent).unwrap()

    assert json.loads(echo["body"]) == {"who": {"id": 42, "name": "Ada"}, "on": "2026-01-02"}
    assert echo["headers"]["content-type"] == "application/json"


def test_content_is_sent_as_it_comes(driver: Driver, origin: str) -> None:
    async def numbers() -> Any:
        for each in (b"1", b"2"):
            yield each

    content = numbers() if driver.is_async else iter([b"1", b"2"])

    assert driver.open(origin).post("/echo", parser=dict[str, Any], content=content).unwrap()["body"] == "12"


def test_an_exchange_has_the_headers_that_were_really_sent(driver: Driver, origin: str) -> None:
    source = driver.open(origin, auth=("ada", "secret"))

    exchange = source.exchange("GET", "/users/1").unwrap()

    assert (exchange.status, exchange.url) == (200, f"{origin}/users/1")
    assert exchange.request_headers["authorization"].startswith("Basic ")
    assert exchange.headers.get_list("content-type") == ["application/json"]
    assert repr(exchange) == "Exchange(GET, 200, <24 bytes>)"


def test_a_304_is_an_exchange_and_no_value(driver: Driver, origin: str) -> None:
    source = driver.open(origin)

    assert source.exchange("GET", "/status/304").unwrap().status == 304
    assert source.get("/status/304").failure().status == 304


# Parsers


@pytest.mark.parametrize(
    ("path", "parser", "value"),
    [
        ("/users/1", bytes, b'{"id": 1, "name": "Ada"}'),
        ("/users/1", str, '{"id": 1, "name": "Ada"}'),
        ("/users/1", None, None),
        ("/users/1", User, User(id=1, name="Ada")),
        ("/users/1", dict[str, int | str], {"id": 1, "name": "Ada"}),
        ("/users/1", User | None, User(id=1, name="Ada")),
        ("/users/1", TypeAdapter(User | int), User(id=1, name="Ada")),
        ("/users/1", Annotated[User, "unhashable", []], User(id=1, name="Ada")),
        ("/gzip", User, User(id=1, name="Ada")),
        ("/latin", str, "Zoë"),
        ("/empty", bytes, b""),
        ("/empty", str, ""),
        ("/empty", User | None, None),
        ("/null", User | None, None),
        ("/status/204", None, None),
    ],
)
def test_a_body_is_what_the_parser_says(driver: Driver, origin: str, path: str, parser: Any, value: Any) -> None:
    assert driver.open(origin).get(path, parser=parser) == Success(value)


def test_a_union_is_tried_in_its_own_order(driver: Driver, origin: str) -> None:
    """`A | B == B | A`, yet pydantic takes the left one where both fit."""

    class Other(BaseModel):
        id: int
        name: str

    source = driver.open(origin)

    assert isinstance(source.get("/users/1", parser=User | Other).unwrap(), User)
    assert isinstance(source.get("/users/1", parser=Other | User).unwrap(), Other)


class Strict(BaseModel):
    id: Annotated[int, Gt(10)]
    name: str


class Nested(BaseModel):
    users: list[Strict]
    by_key: dict[str, Strict] = {}


class Raising(BaseModel):
    id: int

    @field_validator("id")
    @classmethod
    def refuse(cls, value: int) -> int:
        raise KeyError(value)


@pytest.mark.parametrize(
    ("body", "parser", "message"),
    [
        (b'{"id": 1, "name": "canary"}', Strict, "greater_than at id"),
        (b'{"users": [{"id": 11, "name": "a"}, {"id": 12}]}', Nested, "missing at users.1.name"),
        (b'{"users": [], "by_key": {"canary": {"id": 12}}}', Nested, "missing at by_key.*.name"),
        (b'{"canary": 1}', Nested, "missing at users"),
        (b"canary", Strict, "json_invalid"),
        (b"", Strict, "the body is empty"),
        (b'{"id": 1}', Raising, "the parser raised KeyError"),
        (b"\xff\xfe", str, "the body is no utf-8 text"),
        (b"1", "a name", "the parser is no type that pydantic knows"),
        (b"1", lambda: 1, "the parser is no type that pydantic knows"),
        (b'"soon"', date, "date_from_datetime_parsing"),
    ],
)
def test_what_does_not_fit_names_the_field_and_quotes_nothing(
    driver: Driver, body: bytes, parser: Any, message: str
) -> None:
    with raw_server(response(body)) as server:
        failure = driver.open(server.url).get("/", parser=parser).failure()

    assert (failure.kind, failure.message, failure.cause) == (FailureKind.PARSING, message, None)
    assert "canary" not in repr(failure)
    assert not failure.is_retryable


# Bad input: nothing is sent


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/relative", "a relative URL needs a base_url"),
        ("", "a relative URL needs a base_url"),
        ("httpfoo", "a relative URL needs a base_url"),
        ("//host/path", "a URL with a host has a scheme as well"),
        ("httpfoo://host", "the URL has another scheme than http and https"),
        ("file:///etc/passwd", "the URL has another scheme than http and https"),
        ("mailto:canary@example.org", "the URL has another scheme than http and https"),
        ("http://", "the URL has no host"),
        ("http:///path", "the URL has no host"),
        ("http://[::1/canary", "the URL is invalid"),
        ("http://host:canary/", "the URL is invalid"),
        ("http://ho\x00st/canary", "the URL is invalid"),
        (None, "the URL is invalid"),
        (5, "the URL is invalid"),
    ],
)
def test_b33_a_url_that_cannot_be_asked_is_a_failure(driver: Driver, url: Any, message: str) -> None:
    answer = driver.open().get(url)

    assert message_of(answer) == f"unknown: {message}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headers": {"x": "a\r\ncanary: b"}}, "headers: the value of x is illegal"),
        ({"headers": {"x": "Zoë"}}, "headers: the value of x is illegal"),
        ({"headers": {"x": 5}}, "headers: the value of x is illegal"),
        ({"headers": {"a b": "canary"}}, "headers: a name is illegal"),
        ({"headers": {"": "canary"}}, "headers: a name is illegal"),
        ({"headers": 5}, "headers: no mapping of names to values"),
        ({"json": object()}, "no request can be made of these arguments: PydanticSerializationError"),
        ({"json": float("nan")}, "no request can be made of these arguments: ValueError"),
        ({"content": 5}, "no request can be made of these arguments: TypeError"),
        ({"timeout": 0}, "timeout: it is more than 0, or None for none"),
        ({"timeout": -1}, "timeout: no duration"),
        ({"timeout": "soon"}, "timeout: no duration"),
        ({"timeout": float("nan")}, "timeout: no duration"),
        ({"timeout": True}, "timeout: no duration"),
        ({"max_body_bytes": -1}, "max_body_bytes: a number of bytes, or None for no limit"),
        ({"max_body_bytes": 1.5}, "max_body_bytes: a number of bytes, or None for no limit"),
        ({"retry": 3}, "retry: a Backoff, or None"),
    ],
)
def test_options_that_make_no_sense_are_a_failure_and_nothing_is_sent(
    driver: Driver, options: Any, message: str
) -> None:
    with raw_server(response()) as server:
        answer = driver.open(server.url).post("/", **options)

        assert message_of(answer) == f"unknown: {message}"
        assert server.connections == 0


@pytest.mark.parametrize("method", ["CONNECT", "G ET", "", "GET\r\n"])
def test_a_method_that_is_none_is_a_failure(driver: Driver, origin: str, method: str) -> None:
    assert message_of(driver.open(origin).request(method, "/echo")) == (
        "unknown: the method is none that a request can have"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "/relative"},
        {"base_url": "ftp://example.org"},
        {"timeout": "soon"},
        {"max_body_bytes": "all"},
        {"max_redirects": -1},
        {"headers": {"x": "a\nb"}},
        {"retry": 3},
    ],
)
def test_bad_settings_raise_where_a_source_is_made(driver: Driver, settings: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        driver.open(**settings)


# Time


@pytest.mark.parametrize("timeout", [0.2, "200ms", timedelta(seconds=0.2)])
def test_b33_a_timeout_is_for_the_whole_exchange(driver: Driver, origin: str, timeout: Any) -> None:
    started = time.monotonic()

    assert message_of(driver.open(origin).get("/slow", timeout=timeout)) == "timeout: no whole answer within 0.2 s"
    assert time.monotonic() - started < 2


def drip(piece: bytes, before: bytes = b"") -> Any:
    """Sends a byte now and then, without end."""

    def script(_: Request) -> Any:
        yield before
        while True:
            yield piece
            yield 0.05

    return script


SLOW = {
    "headers": drip(b"x", b"HTTP/1.1 200 OK\r\nx-slow: "),
    "status line": drip(b"1", b"HTTP/1."),
    "body": drip(b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"),
    "chunks": drip(b"1\r\nx\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    "informational": drip(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "an error's body": drip(b"x", b"HTTP/1.1 404 Not Found\r\ncontent-length: 100000\r\n\r\n"),
}


@pytest.mark.parametrize("where", SLOW)
def test_ht4_a_slow_loris_ends_near_the_deadline(driver: Driver, where: str) -> None:
    with raw_server(SLOW[where]) as server:
        started = time.monotonic()
        answer = driver.open(server.url, timeout=0.4).get("/")
        took = time.monotonic() - started

    is_refused = where == "an error's body"
    assert message_of(answer) == ("not_found: Not Found" if is_refused else "timeout: no whole answer within 0.4 s")
    assert 0.35 < took < 1.5


def test_ht4_a_slow_body_ends_near_the_deadline_with_a_client_that_was_given(driver: Driver) -> None:
    with raw_server(SLOW["body"]) as server:
        started = time.monotonic()
        answer = driver.open(server.url, timeout=0.4, client=driver.client(httpx2)).get("/")
        took = time.monotonic() - started

    assert answer.failure().kind is FailureKind.TIMEOUT
    assert 0.35 < took < 1.5


def test_redirects_share_the_time(driver: Driver) -> None:
    def script(_: Request) -> Any:
        yield 0.15
        yield response(status="302 Found", location="/again")

    with raw_server(script) as server:
        answer = driver.open(server.url, timeout=0.4).get("/")

    assert message_of(answer) == "timeout: no whole answer within 0.4 s"
    assert len(server.requests) <= 4


def test_the_pool_is_whole_after_timeouts(driver: Driver) -> None:
    """A connection of an exchange that ended too late is not used again."""
    with raw_server(lambda request: [0.6 if request.target == "/slow" else 0.0, response(b"1")]) as server:
        source = driver.open(server.url)
        assert [source.get("/slow", timeout=0.05).failure().kind for _ in range(3)] == [FailureKind.TIMEOUT] * 3
        assert source.get("/", parser=int) == Success(1)


# Cancellation


async def hanging(server: RawServer) -> None:
    while not server.requests:  # noqa: ASYNC110 (it is another thread that hears of them)
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("where", ["nothing", "headers", "body"])
def test_ca3_cancellation_passes_through(where: str) -> None:
    async def main(server: RawServer) -> None:
        async with HttpSource(server.url) as source:
            task = asyncio.create_task(source.get("/"))
            await hanging(server)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await source.get("/")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(source.get("/"), 0.05)

            async def failing() -> None:
                await asyncio.sleep(0.05)
                msg = "a sibling"
                raise LookupError(msg)

            with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012 (the group is what raises)
                async with asyncio.TaskGroup() as group:
                    asked = group.create_task(source.get("/"))
                    group.create_task(failing())
            assert asked.cancelled()
            assert raised.group_contains(LookupError)

    with raw_server((lambda _: [PATIENT]) if where == "nothing" else SLOW[where]) as server:
        asyncio.run(main(server))


PATIENT = 5.0


def test_ca3_a_timeout_around_it_is_no_failure_of_it() -> None:
    """Both are due at the same time: whoever set the outer one hears of it."""

    async def main(server: RawServer) -> None:
        async with HttpSource(server.url, timeout=10) as source:
            for delay in (0.0, 0.01, 0.02):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(delay):
                        await source.get("/")
            assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    with raw_server(lambda _: [PATIENT]) as server:
        asyncio.run(main(server))


# Clients, loops, closing


def test_a_closed_source_answers_with_cancelled(driver: Driver, origin: str) -> None:
    source = driver.open(origin)
    assert source.get("/users/1", parser=User).unwrap().id == 1
    source.aclose() if driver.is_async else source.close()

    assert source.get("/users/1").failure() == NetworkFailure(
        kind=FailureKind.CANCELLED, message="the source is closed"
    )
    assert source.target.is_closed


def test_a_source_is_a_context_manager(origin: str) -> None:
    async def main() -> Any:
        async with HttpSource(origin) as source:
            assert not source.is_closed
        return source.is_closed, await source.get("/users/1")

    with SyncHttpSource(origin) as source:
        assert source.get("/users/1", parser=User).unwrap().name == "Ada"

    is_closed, answer = asyncio.run(main())
    assert is_closed
    assert answer.failure().kind is FailureKind.CANCELLED
    assert source.get("/users/1").failure().kind is FailureKind.CANCELLED


def test_what_is_under_way_ends_as_cancelled_where_the_source_is_closed() -> None:
    async def main(server: RawServer) -> Any:
        source = HttpSource(server.url)
        task = asyncio.create_task(source.get("/"))
        await hanging(server)
        await source.aclose()
        return await asyncio.wait_for(task, PATIENT)

    with raw_server(drip(b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")) as server:
        assert asyncio.run(main(server)).failure().kind is FailureKind.CANCELLED


def test_a_client_that_was_given_stays_open_and_keeps_its_own(driver: Driver, origin: str) -> None:
    client = driver.client(httpx2, base_url=f"{origin}/v1/", headers={"x-client": "yes"}, cookies={"c": "1"})
    source = driver.open(client=client)

    echo = source.get("/echo", parser=dict[str, Any]).unwrap()
    source.aclose() if driver.is_async else source.close()

    assert (echo["path"], echo["headers"]["x-client"], echo["headers"]["cookie"]) == ("/v1/echo", "yes", "c=1")
    assert not client.is_closed


def test_a_client_that_somebody_closed_is_cancelled(driver: Driver, origin: str) -> None:
    client = driver.client(httpx2)
    driver.run(client.aclose() if driver.is_async else client.close())

    assert driver.open(origin, client=client).get("/users/1").failure().kind is FailureKind.CANCELLED


def test_a_client_of_httpx_is_taken(driver: Driver, origin: str) -> None:
    httpx = pytest.importorskip("httpx")
    source = driver.open(origin, client=driver.client(httpx, headers={"x-client": "httpx"}), auth=("a", "b"))

    assert source.get("/users/1", parser=User) == Success(User(id=1, name="Ada"))
    assert source.get("/gzip", parser=User) == Success(User(id=1, name="Ada"))
    assert source.get("/status/404").failure() == NetworkFailure.of_status(404)
    assert source.post("/echo", parser=dict[str, Any], json={}).unwrap()["headers"]["x-client"] == "httpx"
    assert source.get("/slow", timeout=0.1).failure().kind is FailureKind.TIMEOUT
    assert message_of(source.get("http://[::1/")) == "unknown: the URL is invalid"
    with raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc") as server:
        server.script = lambda _: [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", None]
        assert source.get(server.url).failure().kind is FailureKind.BAD_RESPONSE


def test_a_source_may_be_used_in_one_event_loop_after_the_other(origin: str) -> None:
    source = HttpSource(origin)

    async def one() -> Any:
        return await source.get("/users/1", parser=User)

    async def last() -> Any:
        async with source:
            return await one()

    assert asyncio.run(last_of(one, source)) == Success(User(id=1, name="Ada"))
    assert asyncio.run(last()) == Success(User(id=1, name="Ada"))


async def last_of(one: Any, source: Any) -> Any:
    """A loop that ends with its connections closed: what is left open warns, as it should."""
    answer = await one()
    for client in source._clients.values():
        await client.aclose()
    source._clients.clear()
    return answer


def test_a_source_may_be_used_in_two_event_loops_at_once(origin: str) -> None:
    source = HttpSource(origin)
    meet = threading.Barrier(2, timeout=PATIENT)
    answers: list[Any] = []

    async def main(*, closes: bool) -> None:
        answers.append(await source.get("/users/1", parser=User))
        await asyncio.to_thread(meet.wait)
        if closes:
            await source.aclose()
        await asyncio.to_thread(meet.wait)
        await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        answers.append((await source.get("/users/1")).failure().kind)

    other = threading.Thread(target=lambda: asyncio.run(main(closes=False)))
    other.start()
    asyncio.run(main(closes=True))
    other.join(PATIENT)

    assert answers[:2] == [Success(User(id=1, name="Ada"))] * 2
    assert answers[2:] == [FailureKind.CANCELLED] * 2


def test_threads_share_a_source(origin: str) -> None:
    answers: list[Any] = []
    with SyncHttpSource(origin) as source:
        threads = [
            threading.Thread(target=lambda: answers.append(source.get("/users/1", parser=User))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENT)

    assert answers == [Success(User(id=1, name="Ada"))] * 8


def test_a_source_of_its_own_knows_nothing_of_the_environment(
    driver: Driver, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert driver.open(origin).get("/users/1", parser=User).unwrap().id == 1


def test_a_source_of_its_own_keeps_no_cookies(driver: Driver) -> None:
    with raw_server(response(b"1", set_cookie="session=canary")) as server:
        source = driver.open(server.url)
        source.get("/")
        source.get("/")

    assert "cookie" not in server.requests[1].headers


def test_connections_are_kept(driver: Driver) -> None:
    def script(request: Request) -> Any:
        yield response(b"no", "404 Not Found") if request.target == "/none" else response(b"1")

    with raw_server(script) as server:
        source = driver.open(server.url)
        for target in ("/", "/none", "/", "/none", "/"):
            source.get(target)

    assert (len(server.requests), server.connections) == (5, 1)


def test_what_an_auth_or_a_hook_raises_is_a_failure(driver: Driver, origin: str) -> None:
    def auth(request: Any) -> Any:
        msg = f"canary {request.url}"
        raise LookupError(msg)

    failure = driver.open(origin, auth=auth).get("/users/1?token=canary").failure()

    assert (failure.kind, failure.message) == (FailureKind.UNKNOWN, "LookupError")


def test_a_body_that_an_auth_has_read_is_read_once(driver: Driver, origin: str) -> None:
    class Reading(httpx2.Auth):
        requires_response_body = True

        def auth_flow(self, request: Any) -> Any:
            seen = yield request
            assert seen.content

    assert driver.open(origin, auth=Reading()).get("/users/1", parser=User).unwrap().id == 1


# Limits


@pytest.mark.parametrize("size", [2**20 - 1, 0])
def test_a_body_larger_than_wanted_is_refused(driver: Driver, origin: str, size: int) -> None:
    failure = driver.open(origin).get("/bytes", max_body_bytes=size).failure()

    assert (failure.kind, failure.status, failure.is_retryable) == (FailureKind.BAD_RESPONSE, 200, False)
    assert failure.message == "the body is larger than is wanted"


def test_a_body_just_as_large_as_wanted_is_taken(driver: Driver, origin: str) -> None:
    assert len(driver.open(origin, max_body_bytes=2**20).get("/bytes").unwrap()) == 2**20
    assert len(driver.open(origin, max_body_bytes=None).get("/bytes").unwrap()) == 2**20


# Files


def test_a_download_is_there_whole(driver: Driver, origin: str, tmp_path: Path) -> None:
    to = tmp_path / "file"
    to.write_bytes(b"old")
    told: list[Any] = []

    answer = driver.open(origin).download("/bytes", to, progress=lambda *args: told.append(args))

    assert answer == Success(2**20)
    assert to.read_bytes() == bytes(range(256)) * 4096
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert told[-1] == (2**20, 2**20)
    assert sorted(told) == told
    assert oct(to.stat().st_mode & 0o777) == oct(mode_of_a_new_file(tmp_path))


def mode_of_a_new_file(folder: Path) -> int:
    (folder / "new").write_bytes(b"")
    return (folder / "new").stat().st_mode & 0o777


@pytest.mark.parametrize("path", ["/empty", "/status/204"])
def test_a_download_of_nothing_is_an_empty_file(driver: Driver, origin: str, tmp_path: Path, path: str) -> None:
    assert driver.open(origin).download(path, tmp_path / "file") == Success(0)
    assert (tmp_path / "file").read_bytes() == b""


def test_a_download_into_an_open_file(driver: Driver, origin: str) -> None:
    to = io.BytesIO(b"before")
    to.seek(0, io.SEEK_END)

    assert driver.open(origin).download("/users/1", to) == Success(24)
    assert to.getvalue() == b'before{"id": 1, "name": "Ada"}'


def test_a_download_is_unpacked_and_its_total_unknown(driver: Driver, origin: str, tmp_path: Path) -> None:
    told: list[Any] = []

    assert driver.open(origin).download("/gzip", tmp_path / "file", progress=lambda *a: told.append(a)) == Success(21)
    assert told == [(21, None)]


def stop(*_: object) -> None:
    msg = "canary"
    raise LookupError(msg)


@pytest.mark.parametrize(
    ("path", "options", "kind"),
    [
        ("/status/503", {}, FailureKind.SERVER_ERROR),
        ("/bytes", {"max_bytes": 1000}, FailureKind.BAD_RESPONSE),
        ("/bytes", {"progress": stop}, FailureKind.CANCELLED),
        ("/slow", {"timeout": 0.05}, FailureKind.TIMEOUT),
    ],
)
def test_ht4_a_download_that_fails_leaves_nothing_behind(
    driver: Driver, origin: str, tmp_path: Path, path: str, options: Any, kind: FailureKind
) -> None:
    to = tmp_path / "file"
    to.write_bytes(b"old")
    open_one = io.BytesIO(b"old")
    open_one.seek(3)

    failure = driver.open(origin).download(path, to, **options).failure()
    driver.open(origin).download(path, open_one, **options)

    assert failure.kind is kind
    assert "canary" not in repr(failure)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"old")]
    assert open_one.getvalue() == b"old"


def test_ht4_a_download_that_is_cut_short_leaves_nothing_behind(driver: Driver, tmp_path: Path) -> None:
    def script(_: Request) -> Any:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + bytes(900_000)
        yield None

    with raw_server(script) as server:
        failure = driver.open(server.url).download("/", tmp_path / "file").failure()

    assert failure.kind is FailureKind.BAD_RESPONSE
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_no_trouble_of_the_network(
    driver: Driver, origin: str, tmp_path: Path
) -> None:
    source = driver.open(origin)

    missing = source.download("/users/1", tmp_path / "none" / "file").failure()
    closed = source.download("/users/1", io.TextIOWrapper(io.BytesIO())).failure()

    assert (missing.kind, missing.message) == (FailureKind.UNKNOWN, "the file cannot be written: FileNotFoundError")
    assert (closed.kind, closed.message) == (FailureKind.UNKNOWN, "the file cannot be written: TypeError")
    assert message_of(source.download("/users/1", "file")) == (
        "unknown: to: a Path, or a file that is open for writing bytes"
    )


def test_a_cancelled_download_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main(server: RawServer) -> None:
        async with HttpSource(server.url) as source:
            began = asyncio.Event()
            task = asyncio.create_task(source.download("/", tmp_path / "file", progress=lambda *_: began.set()))
            await began.wait()
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with raw_server(drip(bytes(300_000), b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")) as server:
        asyncio.run(main(server))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_exception_passes_through(driver: Driver, origin: str, tmp_path: Path) -> None:
    def leave(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.open(origin).download("/bytes", tmp_path / "file", progress=leave)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["bytes", "path", "file", "unseekable"])
def test_an_upload_is_read_as_it_is_sent(driver: Driver, tmp_path: Path, kind: str) -> None:
    data = bytes(range(256)) * 4096
    (tmp_path / "file").write_bytes(data)
    told: list[Any] = []
    with raw_server(lambda request: [response(str(len(request.body)).encode())]) as server:
        source = driver.open(server.url)
        with (tmp_path / "file").open("rb") as file:
            what = {"bytes": data, "path": tmp_path / "file", "file": file, "unseekable": Unseekable(data)}[kind]
            answer = source.upload("/", what, method="PUT", parser=int, progress=lambda *args: told.append(args))

    assert answer == Success(2**20)
    [request] = server.requests
    assert (request.method, request.body) == ("PUT", data)
    total = None if kind == "unseekable" else 2**20
    assert request.headers.get("content-length") == (None if total is None else str(total))
    assert told == [(each * 2**18, total) for each in (1, 2, 3, 4)]


class Unseekable(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)


class Bad:
    def seekable(self) -> bool:
        return False

    def read(self, _: int) -> Any:
        return "text"


def test_an_upload_that_cannot_be_read_is_a_failure(driver: Driver, origin: str, tmp_path: Path) -> None:
    source = driver.open(origin)

    assert message_of(source.upload("/echo", tmp_path / "none")) == (
        "unknown: the file cannot be read: FileNotFoundError"
    )
    assert message_of(source.upload("/echo", Bad())) == "unknown: source: the file does not read bytes"
    assert message_of(source.upload("/echo", 5)) == (
        "unknown: source: bytes, a Path, or a file that is open for reading bytes"
    )
    assert message_of(source.upload("/echo", b"12", progress=stop)) == "cancelled: progress raised LookupError"
    assert message_of(source.upload("/echo", b"1", parser="x")).startswith("parsing: ")


# Secrets


def test_se6_secrets_are_nowhere_to_be_seen(
    driver: Driver, origin: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ("canary-token", "canary-query", "canary-user", "canary-pass", "canary-header", "canary-body")
    at = origin.replace("http://", "http://canary-user:canary-pass@")
    source = driver.open(at, headers={"authorization": "Bearer canary-token", "x-key": "canary-header"})
    query = {"params": {"key": "canary-query"}, "json": {"a": "canary-body"}}
    answers = [
        source.post("/users/1", **query),
        source.post("/users/1", parser=Strict, **query),
        source.post("/status/401", **query),
        source.post("/slow", timeout=0.05, **query),
        source.post("http://127.0.0.1:1/?canary-query", **query),
        source.post("http://[canary-query", **query),
        source.post("/echo", headers={"x": "canary-header\n"}, **query),
        source.download("/status/404?canary-query", tmp_path / "file"),
        source.exchange("POST", "/users/1", **query),
        driver.open(at, auth=stop).get("/users/1?canary-query"),
    ]
    shown = [repr(source.target), str(source.target), *(text for each in answers for text in (repr(each), str(each)))]
    shown += [each.failure().model_dump_json() for each in answers if isinstance(each, Failure)]
    shown += [record.getMessage() for record in caplog.records if record.name.startswith("cachemesh")]

    for secret in secrets:
        assert not [text for text in shown if secret in text]
    assert repr(source.target).endswith(f"HttpSource({origin})")
