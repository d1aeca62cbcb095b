"""`WebSocketSource`: messages as `Result`s, over a connection that is made again when it is lost.

What follows from what is decided in `link.py`; here it is only carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, cast

if find_spec("httpx2") is None or find_spec("wsproto") is None:
    message = "WebSocketSource needs the extra `http`: pip install 'cachemesh[http]'"
    raise ModuleNotFoundError(message, name="httpx2")

import httpx2
from httpx2.websockets import WebSocketDisconnect
from pydantic import TypeAdapter
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success
from typing_extensions import TypeVar

from cachemesh.core.scopes import CacheScope
from cachemesh.shell.default import DEFAULT, Default
from cachemesh.shell.durations import duration_s
from cachemesh.sources.failure import FailureKind, NetworkFailure, kind_of, without_frames
from cachemesh.sources.own_clients import own_async_client
from cachemesh.sources.parsing import UnfitError, reader_of
from cachemesh.sources.websocket import link
from cachemesh.sources.websocket.feed import Feed, FeedTerms
from cachemesh.sources.websocket.inbox import Inbox, Overflow
from cachemesh.sources.websocket.link import Link, Phase, step
from cachemesh.sources.websocket.reconnect import ReconnectOptions
from cachemesh.sources.websocket.tasks import ended
from cachemesh.sources.websocket.upgrade import Door, Session, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from cachemesh.errors import CacheError
    from cachemesh.shell.cache import Cache
    from cachemesh.shell.durations import Duration, Ttl
    from cachemesh.shell.lifetime import Lifetime
    from cachemesh.shell.ports import TokenKeeperAdapter
    from cachemesh.shell.sync_cache import SyncCache
    from cachemesh.sources.clients import AsyncClient

T = TypeVar("T", default=bytes)

Headers: TypeAlias = Mapping[str, str] | Callable[[], Any]
"""Headers, or a function that makes them for each connection: as they are, as a `Result`, or an awaitable of these."""

MIB: Final = 1024 * 1024

ANYTHING: Final = TypeAdapter[Any](Any)

SCHEMES: Final = ("ws", "wss", "http", "https")

KIND_OF_CLOSE: Final[Mapping[int, FailureKind]] = {
    1002: FailureKind.BAD_RESPONSE,
    1003: FailureKind.BAD_RESPONSE,
    1007: FailureKind.BAD_RESPONSE,
    1009: FailureKind.BAD_RESPONSE,
    1010: FailureKind.BAD_RESPONSE,
    1011: FailureKind.SERVER_ERROR,
    1012: FailureKind.SERVER_ERROR,
    1013: FailureKind.SERVER_ERROR,
    1014: FailureKind.SERVER_ERROR,
    3000: FailureKind.UNAUTHORIZED,
    3003: FailureKind.FORBIDDEN,
    3008: FailureKind.TIMEOUT,
}
"""Why a connection ended (RFC 6455, section 7.4.1, and IANA's registry of close codes). Any other just broke it."""

NOT_CONNECTED: Final = NetworkFailure(kind=FailureKind.NETWORK, message="not connected")


@dataclass(frozen=True, slots=True)
class Terms:
    """All that a source was made with, checked."""

    url: str
    read: Callable[[bytes, str | None], Any]
    client: Any
    headers: Headers
    subprotocols: tuple[str, ...]
    keeper: TokenKeeperAdapter | None
    hello: Callable[[], object] | None
    reconnect: ReconnectOptions
    buffer: int
    overflow: Overflow
    max_message_bytes: int
    connect_timeout_s: float | None
    ping_interval_s: float | None
    ping_timeout_s: float

    def is_final(self, failure: NetworkFailure) -> bool:
        """Whether another try would be of no use after `failure`."""
        if self.reconnect.retry_when is None:
            return not (failure.is_retryable or (failure.is_unauthorized and callable(self.headers)))
        try:
            return not self.reconnect.retry_when(failure)
        except Exception:  # noqa: BLE001 (a predicate that breaks does not ask for another try)
            return True


class WebSocketSource(Generic[T]):
    """Messages of a WebSocket server, each a `Result`. Nothing is connected before somebody listens.

    `url`: absolute; ws or wss, or http or https, which mean the same. `parser`: what a message is read as: any type
    that pydantic takes, from JSON; `str` or `bytes` (default) as it is. `client`:
    a client of httpx2 (or httpx) to connect with, which is not closed; by default each
    `messages()` has one. `headers`: of the upgrade, or a function that is asked
    for them at each connection. `token_keeper`: gives the bearer token of each
    connection. `hello`: what is sent first on each connection, such as a
    subscription, or a function that makes it. `reconnect`: see
    `ReconnectOptions`. `buffer`: how many messages wait for a slow consumer;
    `overflow`: beyond that, "drop_oldest" (`Messages.dropped` counts them,
    failures included), or "wait", which lets the server wait too. `max_message_bytes`: a larger message
    costs the connection. `connect_timeout`: seconds until a connection is up,
    its headers and token included. `ping_interval`: after so many seconds of
    silence the server is asked whether it is there (None: never), and has
    `ping_timeout` seconds to answer.

    >>> source = WebSocketSource("wss://api.example/prices?token=s3cret", parser=dict[str, float])
    >>> source
    <WebSocketSource wss://api.example/prices>
    """

    def __init__(
        self,
        url: str,
        *,
        parser: type[T] | TypeAdapter[T] = cast("Any", bytes),  # noqa: B008 (it is `bytes`, which mypy takes for no T)
        client: AsyncClient | None = None,
        headers: Headers | None = None,
        token_keeper: TokenKeeperAdapter | None = None,
        subprotocols: Collection[str] = (),
        hello: object = None,
        reconnect: ReconnectOptions = ReconnectOptions.DEFAULTS,
        buffer: int = 256,
        overflow: Overflow | str = Overflow.DROP_OLDEST,
        max_message_bytes: int = MIB,
        connect_timeout: Duration | None = 30.0,
        ping_interval: Duration | None = 20.0,
        ping_timeout: Duration = 20.0,
    ) -> None:
        self._parser = parser
        self._shown = shown_url(url)
        self._terms = Terms(
            url=url,
            read=reading(parser),
            client=client,
            headers={} if headers is None else headers,
            subprotocols=(subprotocols,) if isinstance(subprotocols, str) else tuple(subprotocols),
            keeper=token_keeper,
            hello=hello_of(hello),
            reconnect=reconnect,
            buffer=at_least_one("buffer", buffer),
            overflow=Overflow(overflow),
            max_message_bytes=at_least_one("max_message_bytes", max_message_bytes),
            connect_timeout_s=duration_s(connect_timeout),
            ping_interval_s=None if ping_interval is None else more_than_none("ping_interval", ping_interval),
            ping_timeout_s=more_than_none("ping_timeout", ping_timeout),
        )

    def __repr__(self) -> str:
        return f"<WebSocketSource {self._shown}>"

    def messages(self) -> Messages[T]:
        """The messages of a connection of one's own: an asynchronous context manager, and an iterator in there."""
        return Messages(self._terms)

    def feed(
        self,
        cache: Cache | SyncCache,
        *,
        key: str | Callable[[T], str],
        scope: CacheScope = CacheScope.GLOBAL,
        ttl: Ttl | Lifetime | Default = DEFAULT,
        tags: Collection[str] = (),
        schema: Any = DEFAULT,  # noqa: ANN401 (a type)
        on_failure: Callable[[NetworkFailure | CacheError], object] | None = None,
    ) -> Feed[T]:
        """Write each message into `cache`, so that `cache.watch(key)` is a live view; see `Feed`.

        `key`: or a function that makes one of a message. `ttl`, `tags` and
        `schema` are those of `put`; the schema is the source's parser, unless
        said otherwise. `on_failure`: hears of each message that could not be
        read or written and of each lost connection; without it they are logged.
        """
        if schema is DEFAULT:
            schema = None if self._parser is bytes or isinstance(self._parser, TypeAdapter) else self._parser
        return Feed(self.messages, FeedTerms(cache, key, scope, ttl, tuple(tags), schema, on_failure))


class Messages(Generic[T]):
    """The messages of one listener: `async with source.messages() as messages`, then `async for result in messages`.

    The first one who asks for a message, or sends one, connects. Each message
    is a `Success`, or a `Failure(parsing)` where it is not what was asked for.
    Each loss of the connection is one `Failure`, and it is made again, as
    `ReconnectOptions` say; after the last failure the iterator ends. Leaving the
    block closes the connection.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._link = Link()
        self._inbox: Inbox[Result[T, NetworkFailure]] = Inbox(terms.buffer, terms.overflow)
        self._pump: asyncio.Task[None] | None = None
        self._client: Any = None
        self._response: Any = None
        self._session: Session | None = None
        self._is_decided = asyncio.Event()
        self._is_open = False

    async def __aenter__(self) -> Self:
        if self._is_open or self._link.phase is Phase.CLOSED:
            msg = "messages() are listened to once; call it again for another connection"
            raise RuntimeError(msg)
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Result[T, NetworkFailure]]:
        return self

    async def __anext__(self) -> Result[T, NetworkFailure]:
        self._begin()
        try:
            return await self._inbox.take()
        except StopAsyncIteration:
            self._raise_what_pump_raised()
            raise

    @property
    def phase(self) -> Phase:
        """Where the connection stands."""
        return self._link.phase

    @property
    def dropped(self) -> int:
        """How many messages made way for newer ones because they were not taken in time."""
        return self._inbox.dropped

    async def send(self, value: object) -> Result[None, NetworkFailure]:
        """Send text (a str), bytes, or anything else as JSON, as pydantic writes it.

        Where a connection is being made, it waits for that. `Failure(network)`
        where there is none, `Failure(parsing)` where there is no JSON or no UTF-8 for `value`.
        A message that was sent may still be lost with its connection.
        """
        try:
            data = written(value)
        except UnfitError as unfit:
            return Failure(unfit.failure)
        self._begin()
        await self._is_decided.wait()
        session = self._session
        if session is None:
            return Failure(NOT_CONNECTED)
        try:
            await say(session, data)
        except Exception as error:  # noqa: BLE001 (httpx2's, httpcore's, wsproto's: the connection is gone)
            return Failure(lost_by(error))
        return Success(None)

    async def aclose(self) -> None:
        """Close the connection. It takes a second at the most, whatever the server does."""
        self._is_open = False
        self._link, _ = step(self._link, link.Left(), self._terms.reconnect.rules)
        self._inbox.end()
        self._is_decided.set()
        pump, self._pump = self._pump, None
        if pump is not None:
            await ended(pump)

    def _begin(self) -> None:
        if self._pump is not None:
            return
        if self._link.phase is Phase.CLOSED:
            return
        if not self._is_open:
            msg = "listen inside of `async with source.messages() as messages`"
            raise RuntimeError(msg)
        self._pump = asyncio.create_task(self._run(), name="cachemesh-websocket")

    def _raise_what_pump_raised(self) -> None:
        pump = self._pump
        if pump is not None and pump.done() and not pump.cancelled():
            error = pump.exception()
            if error is not None:
                raise error

    async def _run(self) -> None:
        """Carry out what `step` orders, until it is over."""
        task = asyncio.current_task()
        assert task is not None
        try:
            async with await client_of(self._terms.client) as self._client:
                event: link.Event | None = link.Begun()
                while event is not None:
                    self._link, orders = step(self._link, event, self._terms.reconnect.rules)
                    event = None
                    for order in orders:
                        event = await PERFORMERS[type(order)](self, order)
                        if task.cancelling():  # A task group may have had another exception to raise.
                            raise asyncio.CancelledError
        finally:
            self._inbox.end()
            self._is_decided.set()
            if self._response is not None:
                await self._response.aclose()

    async def _connect(self, order: link.Connect) -> link.Event:
        del order
        self._is_decided.clear()
        terms = self._terms
        door = Door(self._client, terms.url, terms.headers, terms.subprotocols, terms.keeper, terms.connect_timeout_s)
        answer = await opened(door)
        if not is_successful(answer):
            return self._lost(answer.failure())
        self._response = answer.unwrap()
        return link.Opened(asyncio.get_running_loop().time())

    async def _listen(self, order: link.Listen) -> link.Event:
        del order
        response = self._response
        session = Session(
            response.extensions["network_stream"],
            max_message_size_bytes=self._terms.max_message_bytes,
            keepalive_ping_interval_seconds=None,
            response=response,
        )
        try:
            async with session:
                failure = await self._converse(session)
        except ExceptionGroup as group:  # What httpx2's background task raised.
            failure = lost_by(group)
        finally:
            self._session = self._response = None
            await response.aclose()
        return self._lost(failure)

    async def _tell(self, order: link.Tell) -> None:
        await self._inbox.add(Failure(order.failure))

    async def _rest(self, order: link.Rest) -> link.Event:
        self._is_decided.set()
        await asyncio.sleep(order.delay_s)
        return link.Rested()

    async def _finish(self, order: link.Finish) -> None:
        del order
        self._inbox.end()

    def _lost(self, failure: NetworkFailure) -> link.Lost:
        now = asyncio.get_running_loop().time()
        return link.Lost(failure, self._terms.is_final(failure), now, self._terms.reconnect.rng())

    async def _converse(self, session: Session) -> NetworkFailure:
        """Take what comes, until the connection is lost: why it is."""
        hello = self._terms.hello
        if hello is not None:
            try:
                await say(session, written(hello()))
            except UnfitError as unfit:
                return unfit.failure
            except Exception as error:  # noqa: BLE001 (a function of the user's, or the connection)
                return lost_by(error)
        self._session = session
        self._is_decided.set()
        while True:
            try:
                data = await self._next(session)
            except Exception as error:  # noqa: BLE001 (httpx2's, httpcore's, wsproto's: the connection is gone)
                return lost_by(error)
            await self._inbox.add(self._read(data))

    async def _next(self, session: Session) -> str | bytes:
        """The next message. TimeoutError: nothing came, and the server does not answer a ping either.

        This and not httpx2's own keepalive, which would count the time in which
        we ourselves do not listen because the consumer is slow.
        """
        terms = self._terms
        while True:
            try:
                return data_of(await session.receive(terms.ping_interval_s))
            except TimeoutError:
                async with asyncio.timeout(terms.ping_timeout_s):
                    pong = await session.ping()
            try:
                return data_of(await session.receive(terms.ping_timeout_s))
            except TimeoutError:
                if not pong.is_set():
                    raise

    def _read(self, data: str | bytes) -> Result[T, NetworkFailure]:
        """What the parser makes of a message."""
        try:
            return Success(self._terms.read(data.encode() if isinstance(data, str) else data, None))
        except UnfitError as unfit:
            return Failure(unfit.failure)


PERFORMERS: Final[Mapping[type, Callable[[Messages[Any], Any], Any]]] = {
    link.Connect: Messages._connect,  # noqa: SLF001 (the table of its own methods)
    link.Listen: Messages._listen,  # noqa: SLF001 (as above)
    link.Tell: Messages._tell,  # noqa: SLF001 (as above)
    link.Rest: Messages._rest,  # noqa: SLF001 (as above)
    link.Finish: Messages._finish,  # noqa: SLF001 (as above)
}
"""Who carries out which order; each answers with one event, or with none."""


def lost_by(error: Exception) -> NetworkFailure:
    """What an exception means on a connection that was up."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, WebSocketDisconnect):
        kind = KIND_OF_CLOSE.get(error.code, FailureKind.NETWORK)
        return NetworkFailure(kind=kind, message=f"closed with code {int(error.code)}")
    kind = kind_of(error)
    return NetworkFailure(
        kind=FailureKind.NETWORK if kind is FailureKind.UNKNOWN else kind,
        message=type(error).__name__,
        cause=without_frames(error),
    )


def data_of(event: Any) -> str | bytes:  # noqa: ANN401 (a message of wsproto's, which comes with httpx2)
    """What a message says, as text or as bytes."""
    return event.data if isinstance(event.data, str) else bytes(event.data)


def written(value: object) -> str | bytes:
    """What is sent for `value`. `UnfitError`: there is no JSON for it, or it is no text that can be sent."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            msg = "there is no UTF-8 for this text"
            raise UnfitError(msg) from None
        return value
    try:
        return ANYTHING.dump_json(value).decode()
    except Exception as error:  # noqa: BLE001 (a serializer of the user's may raise anything)
        msg = f"there is no JSON for a {type(value).__name__}: {type(error).__name__}"
        raise UnfitError(msg) from None


async def say(session: Session, data: str | bytes) -> None:
    if isinstance(data, str):
        await session.send_text(data)
    else:
        await session.send_bytes(data)


def hello_of(hello: object) -> Callable[[], object] | None:
    """What makes the first message of a connection. ValueError: there is no JSON for it."""
    if hello is None or callable(hello):
        return hello
    try:
        data = written(hello)
    except UnfitError as unfit:
        raise ValueError(str(unfit)) from None
    return lambda: data


async def client_of(given: AsyncClient | None) -> AbstractAsyncContextManager[AsyncClient]:
    """The client to connect with: the one that was given, or one of one's own, for which certificates are read."""
    return nullcontext(given) if given is not None else await asyncio.to_thread(own_async_client, None)


def reading(parser: Any) -> Callable[[bytes, str | None], Any]:  # noqa: ANN401 (a type)
    """What reads a message. ValueError: the parser is no type."""
    try:
        return reader_of(parser)
    except UnfitError as unfit:
        raise ValueError(str(unfit)) from None


def more_than_none(name: str, duration: object) -> float:
    """Seconds. ValueError: it is no duration, or takes no time."""
    length_s = duration_s(duration)
    if not length_s:
        msg = f"{name} takes some time"
        raise ValueError(msg)
    return length_s


def shown_url(url: str) -> str:
    """`url` without what may be secret in it. ValueError, which does not quote it: it is no absolute one."""
    try:
        parts = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError, UnicodeEncodeError):
        msg = "the URL of a WebSocket cannot be read"
        raise ValueError(msg) from None
    if parts.scheme not in SCHEMES or not parts.host:
        msg = f"the URL of a WebSocket is absolute and begins with one of {', '.join(SCHEMES)}"
        raise ValueError(msg)
    return f"{parts.scheme}://{parts.netloc.decode('ascii')}{parts.path}"


def at_least_one(name: str, number: int) -> int:
    if type(number) is not int or number < 1:
        msg = f"{name} is a whole number from 1 on"
        raise ValueError(msg)
    return number
