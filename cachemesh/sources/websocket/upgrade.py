"""From an URL to a WebSocket: the upgrade request, and whether its answer is one (RFC 6455, section 4.1).

httpx2's own `websocket()` takes any 101 for a yes, and opens the connection in
the task that asks, inside a task group. A token keeper wants to run the request
by itself, once more with another token where that helps; so the request is
made here, and the connection is httpx2's from there on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from dataclasses import dataclass
from functools import cache
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from httpx2 import Headers
from httpx2.websockets import AsyncWebSocketSession
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from cachemesh.shell.outcomes import without_io
from cachemesh.sources.failure import FailureKind, NetworkFailure
from cachemesh.sources.own_clients import NO_TIMEOUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachemesh.shell.ports import TokenKeeperAdapter

ACCEPT_SALT: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, section 1.3."""

SWITCHING: Final = 101

CLOSE_S: Final = 1.0
"""Seconds in which a server may take the word that a connection is closed; one that reads nothing does not."""


class Session(AsyncWebSocketSession):
    """A WebSocket that is closed in a second, whether or not the other side listens."""

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await super().close(code, reason)
        except Exception:  # noqa: BLE001, S110 (it could not be said that it is closed, and it is closed all the same)
            pass
        finally:
            await self.stream.aclose()


@dataclass(frozen=True, slots=True)
class Door:
    """Where a connection is made, and with what. `headers`: or what makes them, for each connection anew."""

    client: Any
    url: str
    headers: Mapping[str, str] | Callable[[], Any]
    subprotocols: tuple[str, ...]
    keeper: TokenKeeperAdapter | None
    timeout_s: float | None


async def opened(door: Door) -> Result[Any, NetworkFailure]:
    """The answer to an upgrade that was accepted, its connection open; or why there is none."""
    responses: list[Any] = []
    answer: Result[Any, NetworkFailure] | None = None
    try:
        async with asyncio.timeout(door.timeout_s):
            answer = await _asked(door, responses)
    except TimeoutError as error:
        answer = Failure(NetworkFailure.of_exception(error, "no connection in time"))
    except Exception as error:  # noqa: BLE001 (of the client, of a hook, of a keeper: whatever it is, there is no connection)
        answer = Failure(NetworkFailure.of_exception(error))
    finally:
        kept = answer.unwrap() if answer is not None and is_successful(answer) else None
        for response in responses:
            if response is not kept:
                await response.aclose()
    return answer


async def _asked(door: Door, responses: list[Any]) -> Result[Any, NetworkFailure]:
    made = await _headers(door.headers)
    if not is_successful(made):
        return Failure(made.failure())
    headers = made.unwrap()
    if door.keeper is None:
        return await _sent(door, headers, responses)

    def with_token(token: str) -> Any:  # noqa: ANN401 (an awaitable Result)
        mine = headers.copy()
        mine["Authorization"] = f"Bearer {token}"
        return _sent(door, mine, responses)

    answer: Any = without_io(await door.keeper.with_valid_token(with_token))
    if isinstance(answer, Failure):
        return Failure(failure_of(answer.failure()))
    if isinstance(answer, Success) and answer.unwrap() in responses:
        return answer
    message = f"the token keeper answered with {type(answer).__name__}"
    return Failure(NetworkFailure(kind=FailureKind.UNKNOWN, message=message))


async def _headers(headers: Mapping[str, str] | Callable[[], Any]) -> Result[Headers, NetworkFailure]:
    """The headers to send; of a function, which may be asynchronous and may answer with a `Result`."""
    made: Any = headers
    if callable(headers):
        made = headers()
        made = without_io(await made if isawaitable(made) else made)
        if isinstance(made, Failure):
            return Failure(failure_of(made.failure()))
        if isinstance(made, Success):
            made = made.unwrap()
    return Success(Headers(made))


def failure_of(error: object) -> NetworkFailure:
    """What a token keeper, or a function for headers, failed with: its `failure`, which those of `cachemesh.auth` have.

    Any other error is an `unauthorized`, unless it says that it `is_retryable`.
    """
    if isinstance(error, NetworkFailure):
        return error
    told = getattr(error, "failure", None)
    if isinstance(told, NetworkFailure):
        return told
    cause = error if isinstance(error, Exception) else None
    kind = FailureKind.NETWORK if getattr(error, "is_retryable", False) is True else FailureKind.UNAUTHORIZED
    return NetworkFailure(kind=kind, message=type(error).__name__, cause=cause)


async def _sent(door: Door, headers: Headers, responses: list[Any]) -> Result[Any, NetworkFailure]:
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    headers = Headers(
        {
            **headers,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
            **({"Sec-WebSocket-Protocol": ", ".join(door.subprotocols)} if door.subprotocols else {}),
        }
    )
    request = door.client.build_request("GET", door.url, headers=dict(headers), extensions=NO_TIMEOUTS)
    url_type: Any = type(request.url)
    request.url = _quiet(url_type)(request.url)
    try:
        response = await door.client.send(request, stream=True, follow_redirects=False)
    except Exception as error:  # noqa: BLE001 (whatever a client raises, a keeper is to see it as a Failure)
        return Failure(NetworkFailure.of_exception(error))
    responses.append(response)
    if response.status_code != SWITCHING:
        return Failure(NetworkFailure.of_response(response, now=time.time()))
    fault = fault_of(response.headers, key, door.subprotocols)
    if fault is not None:
        return Failure(NetworkFailure(kind=FailureKind.BAD_RESPONSE, message=fault, status=SWITCHING))
    return Success(response)


def fault_of(headers: Mapping[str, str], key: str, subprotocols: tuple[str, ...]) -> str | None:
    """Why a 101 is no WebSocket: the client must fail the connection then (RFC 6455, section 4.1)."""
    if headers.get("upgrade", "").strip().lower() != "websocket":
        return "a 101 that upgrades to something else"
    digest = hashlib.sha1((key + ACCEPT_SALT).encode(), usedforsecurity=False).digest()
    if headers.get("sec-websocket-accept", "").strip() != base64.b64encode(digest).decode():
        return "a 101 without the right Sec-WebSocket-Accept"
    if headers.get("sec-websocket-extensions", "").strip():
        return "an extension that nobody asked for"
    chosen = headers.get("sec-websocket-protocol")
    if chosen is not None and chosen.strip() not in subprotocols:
        return "a subprotocol that nobody asked for"
    return None


@cache
def _quiet(url_type: Any) -> Any:  # noqa: ANN401 (a type, and one that is made here)
    """An URL that prints without its query: the client logs it, and tokens stand in there."""

    def shown(self: Any) -> str:  # noqa: ANN401 (httpx2's or httpx's URL)
        return f"{self.scheme}://{self.netloc.decode('ascii')}{self.path}"

    return type("QuietURL", (url_type,), {"__str__": shown, "__slots__": ()})
