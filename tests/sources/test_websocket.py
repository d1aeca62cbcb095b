"""`WebSocketSource` against real servers on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import logging
import socket
import struct
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
import httpx2
import pytest
from pydantic import TypeAdapter
from returns.result import Failure, Result, Success

from cachemesh import auth
from cachemesh.sources import (
    FailureKind,
    Messages,
    NetworkFailure,
    Overflow,
    Phase,
    ReconnectOptions,
    WebSocketSource,
)
from cachemesh.sources.websocket import source
from cachemesh.sources.websocket.upgrade import Session
from cachemesh.testing.clock import VirtualClock
from cachemesh.testing.loop import VirtualLoop
from tests.sources.websockets_here import SOON, Price, RawServer, Server, run, unused_port

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response


T = TypeVar("T")

ONCE: Final = ReconnectOptions(max_attempts=1)


async def quiet(connection: ServerConnection) -> None:
    await connection.wait_closed()


def says(*messages: str | bytes) -> Callable[[ServerConnection], Awaitable[None]]:
    """A server that says so, and waits."""

    async def serve(connection: ServerConnection) -> None:
        for message in messages:
            await connection.send(message)
        await connection.wait_closed()

    return serve


async def heard(messages: Messages[T], count: int) -> list[Result[T, NetworkFailure]]:
    return [await anext(messages) for _ in range(count)]


def kinds(results: list[Result[Any, NetworkFailure]]) -> list[FailureKind | None]:
    return [result.failure().kind if isinstance(result, Failure) else None for result in results]


async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *more: bytes, key: str = "") -> None:
    """Accept an upgrade by hand, with `more` right behind it in the same segment."""
    request = await reader.readuntil(b"\r\n\r\n")
    asked = next(line for line in request.decode().split("\r\n") if line.lower().startswith("sec-websocket-key"))
    key = key or asked.partition(":")[2].strip()
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324 (RFC 6455)
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n\r\n"
    )
    writer.write(b"".join((head.encode(), *more)))
    await writer.drain()


def frame(data: bytes, opcode: int = 1) -> bytes:
    assert len(data) < 126
    return bytes([0x80 | opcode, len(data)]) + data


# Messages


def test_messages_are_what_the_parser_makes_of_them() -> None:
    async def main() -> None:
        text = '{"name": "tea", "cents": 3}'
        async with (
            Server(says(text, text.encode(), '{"name": "tea"}', "{", "")) as server,
            WebSocketSource(server.url, parser=Price).messages() as messages,
        ):
            assert await heard(messages, 5) == [
                Success(Price(name="tea", cents=3)),
                Success(Price(name="tea", cents=3)),
                Failure(NetworkFailure(kind=FailureKind.PARSING, message="missing at cents")),
                Failure(NetworkFailure(kind=FailureKind.PARSING, message="json_invalid")),
                Failure(NetworkFailure(kind=FailureKind.PARSING, message="the body is empty")),
            ]
            assert messages.phase is Phase.UP
            assert server.opened == 1

    run(main())


@pytest.mark.parametrize(
    ("parser", "sent", "got"),
    [
        (str, "é", Success("é")),
        (str, b"\xc3\xa9", Success("é")),
        (str, b"\xff", Failure(NetworkFailure(kind=FailureKind.PARSING, message="the body is no utf-8 text"))),
        (bytes, "é", Success(b"\xc3\xa9")),
        (bytes, b"\xff\x00", Success(b"\xff\x00")),
        (TypeAdapter(list[int]), "[1, 2]", Success([1, 2])),
        (dict[str, list[int]], '{"a": [1]}', Success({"a": [1]})),
    ],
)
def test_parsers(parser: Any, sent: str | bytes, got: Result[Any, NetworkFailure]) -> None:
    async def main() -> None:
        async with Server(says(sent)) as server, WebSocketSource(server.url, parser=parser).messages() as messages:
            assert await anext(messages) == got

    run(main())


def test_without_a_parser_messages_are_bytes() -> None:
    async def main() -> None:
        async with Server(says("x")) as server, WebSocketSource(server.url).messages() as messages:
            assert await anext(messages) == Success(b"x")

    run(main())


def test_the_url_may_be_that_of_an_api() -> None:
    async def main() -> None:
        async with Server(says("x")) as server:
            url = server.url.replace("ws://", "http://")
            async with WebSocketSource(url).messages() as messages:
                assert await anext(messages) == Success(b"x")

    run(main())


def test_a_message_in_pieces_is_one_message() -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.send(["a", "b", "c"])
        await connection.wait_closed()

    async def main() -> None:
        async with Server(serve) as server, WebSocketSource(server.url, parser=str).messages() as messages:
            assert await anext(messages) == Success("abc")

    run(main())


# Beginning


def test_b34_nothing_is_connected_before_somebody_listens_and_nothing_is_dropped_then() -> None:
    """What the server sends right behind its 101, in the same segment, is there for who listens."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted(reader, writer, frame(b"1"), frame(b"2"), frame(b"3"))
        await reader.read()

    async def main() -> None:
        async with RawServer(say) as server:
            source = WebSocketSource(server.url, parser=int)
            async with source.messages() as messages:
                await asyncio.sleep(0.05)
                assert server.opened == 0
                assert messages.phase is Phase.IDLE

                first = await anext(messages)
                await asyncio.sleep(0.05)

                assert [first, *await heard(messages, 2)] == [Success(1), Success(2), Success(3)]

    run(main())


def test_each_listener_has_a_connection_of_its_own() -> None:
    async def main() -> None:
        async with Server(says("x")) as server:
            source = WebSocketSource(server.url)
            async with source.messages() as one, source.messages() as other:
                assert await anext(one) == await anext(other) == Success(b"x")
                assert server.opened == 2

    run(main())


def test_a_block_that_nobody_listened_in_connects_nothing() -> None:
    async def main() -> None:
        async with Server(quiet) as server:
            async with WebSocketSource(server.url).messages():
                pass
            assert server.opened == 0

    run(main())


def test_messages_are_listened_to_inside_of_their_block_and_once() -> None:
    async def main() -> None:
        messages = WebSocketSource("ws://127.0.0.1:1/").messages()
        with pytest.raises(RuntimeError, match="async with"):
            await anext(messages)
        async with messages:
            with pytest.raises(RuntimeError, match="once"):
                await messages.__aenter__()
        with pytest.raises(RuntimeError, match="once"):
            await messages.__aenter__()
        assert [each async for each in messages] == []
        assert isinstance(await messages.send("x"), Failure)

    run(main())


# Losing the connection


def test_b34_one_loss_is_one_failure_and_the_connection_is_made_again() -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.send("x")
        await asyncio.sleep(0.01)
        connection.transport.abort()

    async def main() -> None:
        async with Server(serve) as server:
            source = WebSocketSource(server.url, parser=str, reconnect=SOON)
            async with source.messages() as messages:
                results = await heard(messages, 6)

        assert kinds(results) == [None, FailureKind.NETWORK] * 3
        assert [result.unwrap() for result in results[::2]] == ["x"] * 3

    run(main())


@pytest.mark.parametrize("library", [httpx2, httpx])
def test_b34_a_connection_that_is_reset_is_one_failure(library: Any) -> None:
    """For a client of httpx it comes out of httpx2's task group, as an ExceptionGroup."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted(reader, writer, frame(b"x"))
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def main() -> None:
        async with RawServer(say) as server, library.AsyncClient() as client:
            source = WebSocketSource(server.url, client=client, reconnect=SOON)
            async with source.messages() as messages:
                results = await heard(messages, 4)
            assert kinds(results) == [None, FailureKind.NETWORK] * 2
            assert results[1].failure().is_retryable

    run(main())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1000, FailureKind.NETWORK),
        (1001, FailureKind.NETWORK),
        (1002, FailureKind.BAD_RESPONSE),
        (1008, FailureKind.NETWORK),
        (1011, FailureKind.SERVER_ERROR),
        (1012, FailureKind.SERVER_ERROR),
        (1013, FailureKind.SERVER_ERROR),
        (3000, FailureKind.UNAUTHORIZED),
        (3003, FailureKind.FORBIDDEN),
        (4000, FailureKind.NETWORK),
    ],
)
def test_a_close_is_a_failure_that_names_its_code_and_not_its_reason(code: int, kind: FailureKind) -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.close(code, "s3cret reason")

    async def main() -> None:
        async with Server(serve) as server, WebSocketSource(server.url, reconnect=ONCE).messages() as messages:
            assert [each async for each in messages] == [
                Failure(NetworkFailure(kind=kind, message=f"closed with code {code}"))
            ]
            assert messages.phase is Phase.GIVEN_UP

    run(main())


def test_b34_a_dead_host_is_retried_with_growing_delays_and_given_up() -> None:
    """In virtual time: 1, 2, 4, 8, 16, 30 and 30 seconds, and the eighth failure is the last word."""
    clock = VirtualClock()
    source = WebSocketSource(
        f"ws://127.0.0.1:{unused_port()}/",
        reconnect=ReconnectOptions(max_attempts=8, jitter="none"),
        connect_timeout=None,
    )

    async def main() -> list[tuple[float, FailureKind]]:
        async with source.messages() as messages:
            told = [(clock(), result.failure().kind) async for result in messages]
            assert messages.phase is Phase.GIVEN_UP
            assert [each async for each in messages] == []
        return told

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        told = runner.run(main())

    pauses = [after[0] - before[0] for before, after in itertools.pairwise(told)]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30], abs=0.01)
    assert {kind for _, kind in told} == {FailureKind.NETWORK}


def test_b34_a_server_that_greets_and_hangs_up_is_not_hammered() -> None:
    """A first message proves nothing: the row of losses goes on, and `max_attempts` ends it."""

    async def serve(connection: ServerConnection) -> None:
        await connection.send("welcome")

    async def main() -> None:
        async with Server(serve) as server:
            source = WebSocketSource(server.url, reconnect=SOON.model_copy(update={"max_attempts": 3}))
            async with source.messages() as messages:
                results = [each async for each in messages]

            assert kinds(results) == [None, FailureKind.NETWORK] * 3
            assert server.opened == 3

    run(main())


def test_b34_a_connection_that_stood_begins_a_new_row() -> None:
    async def serve(connection: ServerConnection) -> None:
        await asyncio.sleep(0.03)
        await connection.send("x")

    async def main() -> None:
        async with Server(serve) as server:
            steady = SOON.model_copy(update={"max_attempts": 2, "steady_after": 0.02})
            async with WebSocketSource(server.url, reconnect=steady).messages() as messages:
                assert kinds(await heard(messages, 10)) == [None, FailureKind.NETWORK] * 5

    run(main())


def test_a_server_that_comes_back_is_found() -> None:
    async def main() -> None:
        async with Server(says("one")) as server:
            port, url = server.port, server.url
            messages = WebSocketSource(url, parser=str, reconnect=SOON).messages()
            await messages.__aenter__()
            assert await anext(messages) == Success("one")
        assert isinstance(await anext(messages), Failure)
        assert isinstance(await anext(messages), Failure)
        async with Server(says("two"), port=port):
            async for result in messages:
                if isinstance(result, Success):
                    assert result == Success("two")
                    break
            await messages.aclose()

    run(main())


# Upgrades that are refused


def answers(*statuses: int, **headers: str) -> Callable[[ServerConnection, Request], Response | None]:
    """A server that refuses with `statuses`, one after the other, and then accepts."""
    left = list(statuses)

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        del request
        if not left:
            return None
        response = connection.respond(HTTPStatus(left.pop(0)), "s3cret body")
        for name, value in headers.items():
            response.headers[name.replace("_", "-")] = value
        return response

    return answer


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, FailureKind.UNAUTHORIZED),
        (403, FailureKind.FORBIDDEN),
        (404, FailureKind.NOT_FOUND),
        (200, FailureKind.BAD_RESPONSE),
        (302, FailureKind.BAD_RESPONSE),
    ],
)
def test_another_try_after_such_a_status_would_be_of_no_use(status: int, kind: FailureKind) -> None:
    async def main() -> None:
        async with Server(quiet, answer=answers(status, Location="/elsewhere")) as server:
            async with WebSocketSource(server.url, reconnect=SOON).messages() as messages:
                results = [each async for each in messages]
            assert results == [Failure(NetworkFailure.of_status(status))]
            assert kinds(results) == [kind]
            assert len(server.requests) == 1

    run(main())


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_after_such_a_status_it_is_tried_again(status: int) -> None:
    async def main() -> None:
        async with (
            Server(says("x"), answer=answers(status, status)) as server,
            WebSocketSource(server.url, reconnect=SOON).messages() as messages,
        ):
            assert await heard(messages, 3) == [*[Failure(NetworkFailure.of_status(status))] * 2, Success(b"x")]

    run(main())


def test_retry_after_of_an_upgrade_is_honoured() -> None:
    async def main() -> None:
        async with (
            Server(says("x"), answer=answers(503, Retry_After="1")) as server,
            WebSocketSource(server.url, reconnect=SOON).messages() as messages,
        ):
            loop = asyncio.get_running_loop()
            assert await anext(messages) == Failure(NetworkFailure.of_status(503, retry_after=1.0))
            began = loop.time()
            assert await anext(messages) == Success(b"x")
            assert loop.time() - began >= 0.9

    run(main())


def test_retry_when_decides_where_it_is_given() -> None:
    def breaks(failure: NetworkFailure) -> bool:
        raise RuntimeError(failure.message)

    async def main() -> None:
        for retry_when, count in ((lambda failure: failure.status == 404, 2), (lambda _: False, 1), (breaks, 1)):
            async with Server(quiet, answer=answers(404, 403)) as server:
                options = SOON.model_copy(update={"retry_when": retry_when})
                async with WebSocketSource(server.url, reconnect=options).messages() as messages:
                    assert len([each async for each in messages]) == count

    run(main())


RIGHT = "Upgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ("no HTTP at all\r\n\r\n", NetworkFailure(kind=FailureKind.BAD_RESPONSE, message="RemoteProtocolError")),
        ("", NetworkFailure(kind=FailureKind.BAD_RESPONSE, message="RemoteProtocolError")),
        (
            f"HTTP/1.1 101 Switching Protocols\r\n{RIGHT}Sec-WebSocket-Accept: s3cret\r\n\r\n",
            NetworkFailure(
                kind=FailureKind.BAD_RESPONSE, message="a 101 without the right Sec-WebSocket-Accept", status=101
            ),
        ),
        (
            f"HTTP/1.1 101 Switching Protocols\r\n{RIGHT}\r\n",
            NetworkFailure(
                kind=FailureKind.BAD_RESPONSE, message="a 101 without the right Sec-WebSocket-Accept", status=101
            ),
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            NetworkFailure(kind=FailureKind.BAD_RESPONSE, message="a 101 that upgrades to something else", status=101),
        ),
    ],
)
def test_an_upgrade_that_is_none_is_a_bad_response(answer: str, failure: NetworkFailure) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.encode())
        await writer.drain()

    async def main() -> None:
        async with RawServer(say) as server, WebSocketSource(server.url, reconnect=ONCE).messages() as messages:
            assert [each async for each in messages] == [Failure(failure)]

    run(main())


def test_an_upgrade_that_takes_too_long_is_a_timeout() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:  # One byte at a time, for ever.
            writer.write(b"H")
            await asyncio.sleep(0.01)
            del reader
            reader = asyncio.StreamReader()

    async def main() -> None:
        async with RawServer(say) as server:
            source = WebSocketSource(server.url, reconnect=ONCE, connect_timeout=0.1)
            async with source.messages() as messages:
                assert [each async for each in messages] == [
                    Failure(NetworkFailure(kind=FailureKind.TIMEOUT, message="no connection in time"))
                ]

    run(main())


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (frame(b"\xff\xfe"), FailureKind.BAD_RESPONSE),  # Text that is no UTF-8 (RFC 6455, section 8.1).
        (b"\x81\x81mask!", FailureKind.BAD_RESPONSE),  # A server must not mask (5.1).
        (b"\xf1\x01x", FailureKind.BAD_RESPONSE),  # Reserved bits (5.2).
        (b"\x83\x01x", FailureKind.BAD_RESPONSE),  # A reserved opcode (5.2).
        (b"\x81\x7e", FailureKind.NETWORK),  # It ends in the middle of a frame.
        (b"", FailureKind.NETWORK),
    ],
)
def test_frames_that_are_none_cost_the_connection(sent: bytes, kind: FailureKind) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted(reader, writer, frame(b"fine"), sent)

    async def main() -> None:
        async with RawServer(say) as server, WebSocketSource(server.url, reconnect=ONCE).messages() as messages:
            results = [each async for each in messages]
            assert results[0] == Success(b"fine")
            assert kinds(results) == [None, kind]

    run(main())


def test_a_message_that_is_too_large_costs_the_connection() -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.send("x" * 100)
        await connection.send("x" * 101)
        await connection.send("never seen")
        await connection.wait_closed()

    async def main() -> None:
        async with (
            Server(serve) as server,
            WebSocketSource(server.url, reconnect=SOON, max_message_bytes=100).messages() as messages,
        ):
            results = await heard(messages, 4)
            assert results[:2] == results[2:]
            assert kinds(results) == [None, FailureKind.BAD_RESPONSE] * 2
            assert results[1].failure().is_retryable

    run(main())


def test_a_message_that_grows_for_ever_is_cut_off() -> None:
    """In frames of its own, none of which is too large."""
    sent = 0

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await accepted(reader, writer, b"\x01\x64" + b"x" * 100)
        while True:
            writer.write(b"\x00\x64" + b"x" * 100)
            sent += 100
            await writer.drain()
            await asyncio.sleep(0)

    async def main() -> None:
        async with (
            RawServer(say) as server,
            WebSocketSource(server.url, reconnect=ONCE, max_message_bytes=2_000).messages() as messages,
        ):
            assert kinds([each async for each in messages]) == [FailureKind.BAD_RESPONSE]

    run(main())
    assert sent < 10_000_000


# Whether it is there


def test_a_server_that_does_not_answer_a_ping_is_gone() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted(reader, writer, frame(b"x"))
        await reader.read()

    async def main() -> None:
        async with RawServer(say) as server:
            source = WebSocketSource(server.url, reconnect=ONCE, ping_interval=0.05, ping_timeout=0.05)
            async with source.messages() as messages:
                assert kinds([each async for each in messages]) == [None, FailureKind.TIMEOUT]

    run(main())


def test_a_server_that_is_silent_and_answers_pings_is_there() -> None:
    async def serve(connection: ServerConnection) -> None:
        await asyncio.sleep(0.3)
        await connection.send("at last")
        await connection.wait_closed()

    async def main() -> None:
        async with Server(serve) as server:
            source = WebSocketSource(server.url, reconnect=ONCE, ping_interval=0.02, ping_timeout=0.1)
            async with source.messages() as messages:
                assert await anext(messages) == Success(b"at last")

    run(main())


def test_pings_of_the_server_are_answered() -> None:
    async def serve(connection: ServerConnection) -> None:
        await (await connection.ping())
        await connection.send("pong came")
        await connection.wait_closed()

    async def main() -> None:
        async with Server(serve) as server, WebSocketSource(server.url).messages() as messages:
            assert await anext(messages) == Success(b"pong came")

    run(main())


# Slow consumers


def test_a_slow_consumer_gets_the_newest_and_knows_how_many_it_missed() -> None:
    async def main() -> None:
        async with (
            Server(says(*(str(number) for number in range(500)))) as server,
            WebSocketSource(server.url, parser=int, buffer=10).messages() as messages,
        ):
            first = await anext(messages)
            while messages.dropped + 11 < 500:  # noqa: ASYNC110 (there is no event for it)
                await asyncio.sleep(0.005)

            assert first == Success(0)
            assert await heard(messages, 10) == [Success(number) for number in range(490, 500)]
            assert messages.dropped == 489

    run(main())


def test_with_wait_the_server_waits_and_nothing_is_missed() -> None:
    """Nor is the server taken for gone while we do not listen, though its pongs are behind what waits."""
    sent = 0

    async def serve(connection: ServerConnection) -> None:
        nonlocal sent
        for number in range(200):
            await connection.send(f'"{number}{"." * 50_000}"')
            sent += 1
        await connection.wait_closed()

    async def main() -> None:
        async with Server(serve, write_limit=1024) as server:
            source = WebSocketSource(
                server.url,
                parser=str,
                buffer=3,
                overflow="wait",
                ping_interval=0.05,
                ping_timeout=0.05,
                reconnect=ONCE,
            )
            async with source.messages() as messages:
                results = [await anext(messages)]
                await asyncio.sleep(0.4)
                assert sent < 200
                results += await heard(messages, 199)

                assert [result.unwrap().strip('".') for result in results] == [str(number) for number in range(200)]
                assert messages.dropped == 0
                assert messages.phase is Phase.UP

    run(main())


# Sending


def test_sending() -> None:
    got: list[str | bytes] = []

    async def serve(connection: ServerConnection) -> None:
        async for message in connection:
            got.append(message)
            await connection.send("ok")

    async def main() -> None:
        async with Server(serve) as server, WebSocketSource(server.url, parser=str).messages() as messages:
            sent: list[object] = ["text", b"bytes", {"a": [1, None]}, Price(name="tea", cents=3)]
            for value in sent:
                assert await messages.send(value) == Success(None)
                assert await anext(messages) == Success("ok")
            assert got == ["text", b"bytes", '{"a":[1,null]}', '{"name":"tea","cents":3}']
            assert await messages.send(object()) == Failure(
                NetworkFailure(
                    kind=FailureKind.PARSING, message="there is no JSON for a object: PydanticSerializationError"
                )
            )

    run(main())


def test_sending_where_there_is_no_connection_is_a_failure() -> None:
    async def main() -> None:
        source = WebSocketSource(f"ws://127.0.0.1:{unused_port()}/", reconnect=ReconnectOptions(delay=60))
        async with source.messages() as messages:
            not_connected = Failure(NetworkFailure(kind=FailureKind.NETWORK, message="not connected"))
            assert await messages.send("x") == not_connected
            assert messages.phase is Phase.WAITING
            assert await messages.send("x") == not_connected
            assert kinds([await anext(messages)]) == [FailureKind.NETWORK]

    run(main())


def test_the_hello_comes_first_on_each_connection() -> None:
    got: list[list[str | bytes]] = []

    async def serve(connection: ServerConnection) -> None:
        got.append([await connection.recv()])
        await connection.send("x")
        got[-1].append(await connection.recv())

    async def main() -> None:
        numbers = itertools.count(1)
        for hello in ({"subscribe": "prices"}, lambda: {"subscribe": next(numbers)}):
            async with Server(serve) as server:
                source = WebSocketSource(server.url, hello=hello, reconnect=SOON)
                async with source.messages() as messages:
                    for _ in range(2):
                        assert await messages.send("then") == Success(None)
                        assert kinds(await heard(messages, 2)) == [None, FailureKind.NETWORK]
                        while messages.phase is not Phase.UP:  # noqa: ASYNC110 (there is no event for it)
                            await asyncio.sleep(0.005)
            assert [each[1] for each in got if len(each) == 2] == ["then", "then"]
            assert [each[0] for each in got][:2] == (
                ['{"subscribe":"prices"}'] * 2 if isinstance(hello, dict) else ['{"subscribe":1}', '{"subscribe":2}']
            )
            got.clear()

    run(main())


def test_a_hello_that_breaks_is_a_failure() -> None:
    def breaks() -> object:
        message = "s3cret"
        raise LookupError(message)

    async def main() -> None:
        for hello, kind in ((breaks, FailureKind.NETWORK), (object, FailureKind.PARSING)):
            async with Server(quiet) as server:
                source = WebSocketSource(server.url, hello=hello, reconnect=ONCE)
                async with source.messages() as messages:
                    results = [each async for each in messages]
            assert kinds(results) == [kind]
            assert "s3cret" not in repr(results)

    run(main())


# Credentials


def test_headers_may_be_made_for_each_connection() -> None:
    def answer(connection: ServerConnection, request: Request) -> Response | None:
        fits = request.headers.get("Authorization") == "Bearer 2"
        return None if fits else connection.respond(HTTPStatus.UNAUTHORIZED, "")

    async def main() -> None:
        def at_once() -> Any:
            return {"Authorization": f"Bearer {next(numbers)}"}

        async def later() -> Any:
            return at_once()

        def as_result() -> Any:
            return Success(at_once())

        async def as_later_result() -> Any:
            return Success(at_once())

        for headers in (at_once, later, as_result, as_later_result):
            numbers = itertools.count(1)
            async with (
                Server(says("x"), answer=answer) as server,
                WebSocketSource(server.url, headers=headers, reconnect=SOON).messages() as messages,
            ):
                assert await heard(messages, 2) == [Failure(NetworkFailure.of_status(401)), Success(b"x")]

    run(main())


def test_headers_that_cannot_be_made_are_a_failure() -> None:
    def raises() -> Any:
        message = "s3cret"
        raise LookupError(message)

    async def refuses() -> Any:
        return Failure(NetworkFailure.of_status(403))

    async def main() -> None:
        for headers, kind in ((raises, FailureKind.UNKNOWN), (refuses, FailureKind.FORBIDDEN)):
            async with Server(quiet) as server:
                async with WebSocketSource(server.url, headers=headers, reconnect=SOON).messages() as messages:
                    results = [each async for each in messages]
                assert kinds(results) == [kind]
                assert "s3cret" not in repr(results)
                assert server.requests == []

    run(main())


class Keeper:
    """Runs an action with a token, in a task of its own, and once more with another where that is unauthorized."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)

    async def with_valid_token(self, action: Callable[[str], Awaitable[Any]]) -> Any:
        answer = await asyncio.ensure_future(action(self.tokens[0]))
        if isinstance(answer, Failure) and answer.failure().is_unauthorized and len(self.tokens) > 1:
            self.tokens.pop(0)
            answer = await action(self.tokens[0])
        return answer


def test_a_token_keeper_gives_each_connection_its_token_and_may_refresh_it_once() -> None:
    def answer(connection: ServerConnection, request: Request) -> Response | None:
        fits = request.headers.get("Authorization") == "Bearer new"
        return None if fits else connection.respond(HTTPStatus.UNAUTHORIZED, "")

    async def main() -> None:
        async with Server(says("x"), answer=answer) as server:
            async with WebSocketSource(server.url, token_keeper=Keeper("old", "new")).messages() as messages:
                assert await anext(messages) == Success(b"x")
            assert len(server.requests) == 2
            async with WebSocketSource(server.url, token_keeper=Keeper("old"), reconnect=SOON).messages() as messages:
                assert [each async for each in messages] == [Failure(NetworkFailure.of_status(401))]

    run(main())


class NoToken(Exception):
    is_retryable = False


class NoTokenYet(Exception):
    is_retryable = True


@pytest.mark.parametrize(
    ("error", "kind", "is_retried"),
    [
        (NoToken("s3cret"), FailureKind.UNAUTHORIZED, False),
        ("signed out", FailureKind.UNAUTHORIZED, False),
        (NoTokenYet(), FailureKind.NETWORK, True),
        (auth.RefreshFailed(NetworkFailure.of_status(503)), FailureKind.SERVER_ERROR, True),
        (auth.RefreshFailed(NetworkFailure.of_status(401)), FailureKind.UNAUTHORIZED, False),
        (auth.RefreshFailed(ConnectionRefusedError()), FailureKind.NETWORK, True),
        (auth.RefreshFailed(ValueError()), FailureKind.UNKNOWN, False),
        (auth.NotSignedIn(), FailureKind.UNAUTHORIZED, False),
        (auth.RefreshTimedOut(1.0), FailureKind.TIMEOUT, True),
        (auth.TokenStorageFailed("read", TimeoutError()), FailureKind.NETWORK, True),
        (auth.TokenStorageFailed("read", RuntimeError("locked")), FailureKind.NETWORK, True),
    ],
)
def test_what_a_token_keeper_fails_with_decides_whether_it_is_asked_again(
    error: object, kind: FailureKind, *, is_retried: bool
) -> None:
    calls = 0

    class Fails:
        async def with_valid_token(self, action: Callable[[str], Awaitable[Any]]) -> Any:
            nonlocal calls
            calls += 1
            return await action("fine") if calls > 1 else Failure(error)

    async def main() -> None:
        async with (
            Server(says("x")) as server,
            WebSocketSource(server.url, token_keeper=Fails(), reconnect=SOON).messages() as messages,
        ):
            first = await anext(messages)
            assert kinds([first]) == [kind]
            assert "s3cret" not in repr(first)
            rest = [await anext(messages)] if is_retried else [each async for each in messages]
            assert rest == ([Success(b"x")] if is_retried else [])

    run(main())


def test_a_token_keeper_that_answers_nonsense_leaves_no_connection_open() -> None:
    class Odd:
        async def with_valid_token(self, action: Callable[[str], Awaitable[Any]]) -> Any:
            await action("fine")
            return Success("done")

    async def main() -> None:
        async with (
            Server(quiet) as server,
            WebSocketSource(server.url, token_keeper=Odd(), reconnect=SOON).messages() as messages,
        ):
            assert kinds([each async for each in messages]) == [FailureKind.UNKNOWN]
            async with asyncio.timeout(2):
                while server.live:  # noqa: ASYNC110 (there is no event for it)
                    await asyncio.sleep(0.01)

    run(main())


def test_subprotocols() -> None:
    async def main() -> None:
        async with Server(says("x"), subprotocols=["v2", "v1"]) as server:
            async with WebSocketSource(server.url, subprotocols=["v1"]).messages() as messages:
                assert await anext(messages) == Success(b"x")
            assert server.requests[-1].headers["Sec-WebSocket-Protocol"] == "v1"

    run(main())


@pytest.mark.parametrize("library", [httpx2, httpx])
def test_a_client_that_was_given_is_used_and_left_open(library: Any) -> None:
    async def main() -> None:
        async with library.AsyncClient(headers={"X-Mine": "yes"}, follow_redirects=True) as client:
            async with (
                Server(says("x")) as server,
                WebSocketSource(server.url, client=client, reconnect=SOON).messages() as messages,
            ):
                assert await anext(messages) == Success(b"x")
                assert server.requests[0].headers["X-Mine"] == "yes"
                for connection in list(server.live):
                    connection.transport.abort()
                assert kinds(await heard(messages, 2)) == [FailureKind.NETWORK, None]
            assert not client.is_closed

    run(main())


# Cancellation


def test_ca3_a_timeout_of_the_consumer_passes_through_and_nothing_is_lost_by_it() -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send("x")
        await connection.wait_closed()

    async def main() -> None:
        async with Server(serve) as server, WebSocketSource(server.url).messages() as messages:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(messages)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(messages), 0.05)
            assert await messages.send("go on") == Success(None)
            assert await anext(messages) == Success(b"x")
            assert server.opened == 1

    run(main())


@pytest.mark.parametrize("phase", [Phase.CONNECTING, Phase.UP, Phase.WAITING])
def test_ca3_a_timeout_around_the_block_closes_the_connection(phase: Phase) -> None:
    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.read()

    async def main() -> None:
        async with Server(quiet) as server, RawServer(stuck) as silent:
            url = {Phase.CONNECTING: silent.url, Phase.UP: server.url}.get(phase, f"ws://127.0.0.1:{unused_port()}")
            seen = Phase.IDLE
            began = asyncio.get_running_loop().time()
            with pytest.raises(TimeoutError):  # noqa: PT012 (a context manager is what raises)
                async with asyncio.timeout(0.2), WebSocketSource(url).messages() as messages:
                    try:
                        while True:
                            await anext(messages)
                    finally:
                        seen = messages.phase
            assert seen is phase
            assert asyncio.get_running_loop().time() - began < 1.0
            async with asyncio.timeout(2):
                while server.live:  # noqa: ASYNC110 (there is no event for it)
                    await asyncio.sleep(0.01)

    run(main())


def test_ca3_a_sibling_that_fails_cancels_the_consumer() -> None:
    async def fail() -> None:
        await asyncio.sleep(0.1)
        message = "sibling"
        raise LookupError(message)

    async def main() -> None:
        ended: list[BaseException] = []

        async def consume(url: str) -> None:
            try:
                async with WebSocketSource(url).messages() as messages:
                    await anext(messages)
            except BaseException as error:
                ended.append(error)
                raise

        async with Server(quiet) as server:
            with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 (a context manager is what raises)
                async with asyncio.TaskGroup() as group:
                    group.create_task(consume(server.url))
                    group.create_task(fail())
            assert [type(error) for error in caught.value.exceptions] == [LookupError]
            assert [type(error) for error in ended] == [asyncio.CancelledError]

    run(main())


def test_ca3_a_cancellation_is_not_lost_to_an_error_that_comes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task group that is cancelled and has an exception of its own raises that, and forgets the cancellation."""

    class Awkward(Session):
        @asynccontextmanager
        async def __asynccontextmanager__(self) -> AsyncGenerator[Session, None]:
            try:
                async with super().__asynccontextmanager__():
                    yield self
            except asyncio.CancelledError:
                message = "at the same time"
                raise ExceptionGroup(message, [OSError()]) from None

    async def main() -> None:
        async with (
            Server(says("x")) as server,
            WebSocketSource(server.url, reconnect=SOON).messages() as messages,
        ):
            assert await anext(messages) == Success(b"x")
            pump = next(task for task in asyncio.all_tasks() if task.get_name() == "cachemesh-websocket")
            pump.cancel()  # As `asyncio.run` does with all that is left.
            await asyncio.wait((pump,), timeout=2)
            assert pump.cancelled()
            assert server.opened == 1
            assert [each async for each in messages] == []

    monkeypatch.setattr(source, "Session", Awkward)
    run(main())


def test_what_the_block_raises_comes_out_as_it_is() -> None:
    async def main() -> None:
        async with Server(says("x")) as server:
            with pytest.raises(LookupError, match="mine"):  # noqa: PT012 (a context manager is what raises)
                async with WebSocketSource(server.url).messages() as messages:
                    await anext(messages)
                    message = "mine"
                    raise LookupError(message)

    run(main())


def test_a_server_that_reads_nothing_cannot_hold_up_the_end() -> None:
    """Not even with a message half sent, behind which the closing has to wait."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted(reader, writer)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def main() -> None:
        async with RawServer(say) as server:
            loop = asyncio.get_running_loop()
            async with WebSocketSource(server.url).messages() as messages:
                with pytest.raises(TimeoutError):  # noqa: PT012 (a context manager is what raises)
                    async with asyncio.timeout(0.3):
                        while True:
                            await messages.send(b"x" * 1_000_000)
                began = loop.time()
            assert loop.time() - began < 2.0

    run(main())


def test_cancelled_twice_it_still_leaves_nothing_behind() -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted(reader, writer)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def main() -> None:
        async def consume(url: str) -> None:
            async with WebSocketSource(url).messages() as messages:
                while True:
                    await messages.send(b"x" * 1_000_000)

        async with RawServer(say) as server:
            task = asyncio.create_task(consume(server.url))
            await asyncio.sleep(0.3)
            for _ in range(5):
                task.cancel()
                await asyncio.sleep(0.02)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() >= {asyncio.current_task()}
            assert not [each for each in asyncio.all_tasks() if each.get_name() == "cachemesh-websocket"]

    run(main())


# Secrets, settings


def test_secrets_appear_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Neither of the URL nor of headers nor of messages: in no repr, failure or log.

    All but httpcore2's own trace at DEBUG, which has the headers of answers.
    """
    caplog.set_level(logging.DEBUG)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # The server of the test may say what it wants.
    shown: list[object] = []

    async def main() -> None:
        answer = answers(401, 503, Set_Cookie="s3cret")
        async with Server(says('"s3cret"', "x", '"y"'), answer=answer) as server:
            source = WebSocketSource(
                server.url,
                parser=int,
                headers=lambda: {"Authorization": "Bearer s3cret"},
                hello="s3cret",
                reconnect=SOON,
            )
            shown.append(source)
            async with source.messages() as messages:
                shown.extend((messages, *await heard(messages, 5)))
        with pytest.raises(ValueError, match="absolute") as refused:
            WebSocketSource("ftp://s3cret:s3cret@h/?s3cret")
        shown.append(refused.value)

    run(main())
    assert "s3cret" not in repr(shown)
    assert "s3cret" not in str([str(each) for each in shown])
    lines = [record.getMessage() for record in caplog.records if not record.name.startswith("httpcore")]
    assert any("101" in line for line in lines)
    assert not [line for line in lines if "s3cret" in line]


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "/relative"},
        {"url": "ftp://host/"},
        {"url": "ws://"},
        {"url": "ws://host:port/"},
        {"url": None},
        {"buffer": 0},
        {"buffer": True},
        {"max_message_bytes": -1},
        {"overflow": "grow"},
        {"ping_interval": 0},
        {"ping_timeout": 0},
        {"ping_timeout": None},
        {"connect_timeout": -1},
        {"connect_timeout": "soon"},
        {"parser": object()},
        {"hello": object()},
    ],
)
def test_bad_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        WebSocketSource(**({"url": "ws://host/"} | wrong))


def test_overflow_may_be_written_either_way() -> None:
    assert Overflow("wait") is Overflow.WAIT
    assert repr(WebSocketSource("wss://user:pass@host:8443/a?b=c", overflow=Overflow.WAIT)) == (
        "<WebSocketSource wss://host:8443/a>"
    )


def test_frames_for_the_tests_are_frames() -> None:
    assert frame(b"abc") == struct.pack("!BB", 0x81, 3) + b"abc"
