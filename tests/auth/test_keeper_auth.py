"""`KeeperAuth` against real servers on loopback: the same cases for `AsyncClient` and `Client`."""

from __future__ import annotations

import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

import httpx2
import pytest
from returns.result import Failure, Result, Success

from cachemesh.auth import NotSignedIn, RefreshFailed, SyncTokenKeeper, Token, TokenKeeper
from cachemesh.auth.errors import (
    InvalidRefreshResult,
    KeeperClosed,
    RefreshTimedOut,
    TokenNotRefreshable,
    TokenStorageFailed,
)
from cachemesh.auth.http import KeeperAuth, TokenUnavailable, is_repeatable
from cachemesh.auth.oauth import OAuthClient, OAuthRefresher, SyncOAuthRefresher
from cachemesh.auth.oauth_failure import OAuthFailure
from cachemesh.auth.skip import SKIPPED
from cachemesh.sources import FailureKind, HttpSource, NetworkFailure, SyncHttpSource
from tests.auth.servers import CLIENT_ID, CLIENT_SECRET, OAuthServer, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG_S = 60.0


class AsyncWorld:
    """A keeper, and a client with its auth, in a loop."""

    is_async = True

    def __init__(self, server: OAuthServer, token: Token | None, refresher: Any = None, **settings: Any) -> None:
        self.server = server
        self.runner = asyncio.Runner()
        oauth = OAuthClient(f"{server.url}/token", CLIENT_ID, CLIENT_SECRET)
        self.keeper = TokenKeeper(OAuthRefresher(oauth) if refresher is None else self.refresher(refresher), **settings)
        self.client = self.runner.run(self._made())
        if token is not None:
            self.runner.run(self.keeper.set_tokens(token)).unwrap()

    async def _made(self) -> httpx2.AsyncClient:
        auth = KeeperAuth(self.keeper, self.server.url)
        return httpx2.AsyncClient(auth=auth, base_url=self.server.url, timeout=LONG_S, follow_redirects=True)

    def refresher(self, asks: Callable[[Any], Any]) -> Any:
        """One that sends a form through the same client, and hands the answer to `asks`."""

        async def refresh(token: Token) -> Any:
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token, "client_id": CLIENT_ID}
            return asks(await self.client.post("/token", data=form))

        return refresh

    def send(self, method: str, url: str, **settings: Any) -> httpx2.Response:
        return self.runner.run(self.client.request(method, url, **settings))

    def send_many(self, url: str, times: int) -> list[int]:
        async def main() -> list[int]:
            answers = await asyncio.gather(*(self.client.get(url) for _ in range(times)))
            return [each.status_code for each in answers]

        return self.runner.run(main())

    def once(self, *chunks: bytes) -> Any:
        async def body() -> Any:
            for chunk in chunks:
                yield chunk

        return body()

    def is_signed_in(self) -> bool:
        return isinstance(self.runner.run(self.keeper.peek()), Success)

    def close(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.run(self.keeper.aclose())
        self.runner.close()


class SyncWorld:
    is_async = False

    def __init__(self, server: OAuthServer, token: Token | None, refresher: Any = None, **settings: Any) -> None:
        self.server = server
        oauth = OAuthClient(f"{server.url}/token", CLIENT_ID, CLIENT_SECRET)
        self.keeper = SyncTokenKeeper(
            SyncOAuthRefresher(oauth) if refresher is None else self.refresher(refresher), **settings
        )
        auth = KeeperAuth(self.keeper, self.server.url)
        self.client = httpx2.Client(auth=auth, base_url=self.server.url, timeout=LONG_S, follow_redirects=True)
        if token is not None:
            self.keeper.set_tokens(token).unwrap()

    def refresher(self, asks: Callable[[Any], Any]) -> Any:
        def refresh(token: Token) -> Any:
            form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token, "client_id": CLIENT_ID}
            return asks(self.client.post("/token", data=form))

        return refresh

    def send(self, method: str, url: str, **settings: Any) -> httpx2.Response:
        return self.client.request(method, url, **settings)

    def send_many(self, url: str, times: int) -> list[int]:
        with ThreadPoolExecutor(50) as threads:
            return list(threads.map(lambda _: self.client.get(url).status_code, range(times)))

    def once(self, *chunks: bytes) -> Any:
        yield from chunks

    def is_signed_in(self) -> bool:
        return isinstance(self.keeper.peek(), Success)

    def close(self) -> None:
        self.client.close()
        self.keeper.close()


World = AsyncWorld | SyncWorld


@pytest.fixture(params=[AsyncWorld, SyncWorld], ids=["async", "sync"])
def world_of(request: pytest.FixtureRequest, server: OAuthServer) -> Iterator[Callable[..., World]]:
    with ExitStack() as stack:

        def make(token: Token | None = None, refresher: Any = None, **settings: Any) -> World:
            world: World = request.param(server, token, refresher, **settings)
            stack.callback(world.close)
            return world

        yield make


def signed_in(server: OAuthServer, **settings: Any) -> Token:
    return Token.from_response(server.sign_in(**settings), time.time()).unwrap()


def rejected(server: OAuthServer) -> Token:
    """A token that looks valid, and is refused by the server."""
    token = signed_in(server)
    server.reject()
    return token


# One refresh


def test_a_token_is_attached(world_of: Callable[..., World], server: OAuthServer) -> None:
    world = world_of(signed_in(server))

    assert world.send("GET", "/resource").status_code == 200
    assert len(server.requests) == 1
    assert server.requests[0][2]["authorization"].startswith("Bearer access-canary-")


def test_an_expired_token_is_refreshed_before_anything_is_sent(
    world_of: Callable[..., World], server: OAuthServer
) -> None:
    world = world_of(signed_in(server, expires_in=0))

    assert world.send("GET", "/resource").status_code == 200
    assert [path for _, path, _, _ in server.requests] == ["/token", "/resource"]


def test_tk1_a_thousand_concurrent_401s_are_one_refresh(world_of: Callable[..., World], server: OAuthServer) -> None:
    world = world_of(rejected(server))

    assert world.send_many("/resource", 1_000) == [200] * 1_000
    assert server.refreshes == 1
    assert server.reuses == 0
    assert server.calls("/resource") > 1_000


def test_b38_a_late_401_does_not_refresh_again(world_of: Callable[..., World], server: OAuthServer) -> None:
    """It is about the token before; with the one that there is now, it is sent again."""
    world = world_of(rejected(server))
    server.late.append("/late")
    if isinstance(world, AsyncWorld):

        async def main() -> list[int]:
            late = asyncio.create_task(world.client.get("/late"))
            while not server.calls("/late"):  # noqa: ASYNC110 (the server is in another thread)
                await asyncio.sleep(0.005)
            early = await world.client.get("/resource")
            server.let_go.set()
            return [early.status_code, (await late).status_code]

        statuses = world.runner.run(main())
    else:
        with ThreadPoolExecutor(1) as threads:
            late = threads.submit(world.client.get, "/late")
            while not server.calls("/late"):
                time.sleep(0.005)
            early = world.client.get("/resource")
            server.let_go.set()
            statuses = [early.status_code, late.result().status_code]

    assert statuses == [200, 200]
    assert server.refreshes == 1
    assert server.calls("/late") == 2


def test_tk5_an_endless_401_is_one_refresh_and_one_retry(world_of: Callable[..., World], server: OAuthServer) -> None:
    world = world_of(signed_in(server))

    assert world.send("GET", "/login").status_code == 401
    assert server.refreshes == 1
    assert server.calls("/login") == 2


def test_other_answers_are_nobodys_business(world_of: Callable[..., World], server: OAuthServer) -> None:
    world = world_of(signed_in(server))
    for status in (400, 403, 404, 500):
        assert world.send("GET", f"/status/{status}").status_code == status
    assert len(server.requests) == 4


# Requests that no token belongs to


def test_b37_a_refresher_on_the_same_client_does_not_wait_for_itself(
    world_of: Callable[..., World], server: OAuthServer
) -> None:
    """Neither where the token has expired, nor after a 401."""

    def asks(response: httpx2.Response) -> Result[Token, Any]:
        assert response.status_code == 200
        return Success(Token.from_response(response.json(), time.time()).unwrap())

    for token in (signed_in(server, expires_in=0), rejected(server)):
        world = world_of(token, asks, refresh_timeout=10)
        assert world.send("GET", "/resource").status_code == 200
    asked = [headers for _, path, headers, _ in server.requests if path == "/token"]
    assert len(asked) == 2
    assert all("authorization" not in headers for headers in asked)


def test_b37_what_a_refresher_has_begun_has_a_token_once_it_is_over(server: OAuthServer) -> None:
    """A task that goes on behind it, for example."""

    async def main() -> tuple[int, int]:
        again = asyncio.Event()
        tasks: list[asyncio.Task[tuple[int, int]]] = []

        async def behind() -> tuple[int, int]:
            during = await client.get("/resource")
            await again.wait()
            return during.status_code, (await client.get("/resource")).status_code

        async def refresh(token: Token) -> Result[Token, str]:
            tasks.append(asyncio.create_task(behind()))
            while not server.calls("/resource"):  # noqa: ASYNC110 (the server is in another thread)
                await asyncio.sleep(0.005)
            return await OAuthRefresher(OAuthClient(f"{server.url}/token", CLIENT_ID, CLIENT_SECRET))(token)  # type: ignore[return-value]

        keeper = TokenKeeper(refresh)
        async with keeper, httpx2.AsyncClient(auth=KeeperAuth(keeper, server.url), base_url=server.url) as client:
            (await keeper.set_tokens(signed_in(server, expires_in=0))).unwrap()
            (await keeper.get_valid_token()).unwrap()
            again.set()
            return await tasks[0]

    assert asyncio.run(main()) == (401, 200)


def test_b37_a_refresh_that_is_answered_with_401_ends(world_of: Callable[..., World], server: OAuthServer) -> None:
    """It is not met with a refresh, for which it would wait."""
    server.canned = [(401, {}, b"no")]
    world = world_of(
        signed_in(server, expires_in=0), lambda response: Failure(response.status_code), refresh_timeout=10
    )
    with pytest.raises(TokenUnavailable) as caught:
        world.send("GET", "/resource")

    assert caught.value.error == RefreshFailed(401)
    assert len(server.requests) == 1


def test_b37_a_login_with_a_wrong_password_refreshes_nothing(
    world_of: Callable[..., World], server: OAuthServer
) -> None:
    """Whether somebody is signed in already or not."""
    for token in (None, signed_in(server)):
        world = world_of(token)
        response = world.send("POST", "/login", json={"password": "wrong"}, extensions={SKIPPED: True})
        assert response.status_code == 401
    assert server.refreshes == 0
    assert server.calls("/login") == 2
    assert all("authorization" not in headers for _, _, headers, _ in server.requests)


def test_a_header_of_ones_own_is_left_alone(world_of: Callable[..., World], server: OAuthServer) -> None:
    world = world_of(signed_in(server))
    response = world.send("GET", "/resource", headers={"Authorization": "Basic eDp5"})

    assert response.status_code == 401
    assert server.requests[0][2]["authorization"] == "Basic eDp5"
    assert len(server.requests) == 1


# Where a token goes


def test_a_token_goes_to_no_other_origin(world_of: Callable[..., World], server: OAuthServer) -> None:
    """Not if it is asked for itself, and not through a redirect; and what it answers refreshes nothing."""
    with serving() as other:
        world = world_of(signed_in(server))
        for url in (
            f"{other.url}/resource",
            f"/away?{other.url}/resource",
            server.url.replace("127.0.0.1", "localhost"),
        ):
            assert world.send("GET", url).status_code == 401

        assert [headers.get("authorization") for _, _, headers, _ in other.requests] == [None, None]
    assert server.refreshes == 0
    assert world.send("GET", f"/away?{server.url}/resource").status_code == 200


@pytest.mark.parametrize(
    "bad", ["api.example.com", "https://", "ftp://a.example", "https://a.example/path", "https://u:p@a.example"]
)
def test_an_origin_that_is_none_is_told_at_once(bad: str) -> None:
    keeper = SyncTokenKeeper(Success)
    with pytest.raises(ValueError, match="an origin is"):
        KeeperAuth(keeper, ["https://a.example", bad])
    assert "a.example" in repr(KeeperAuth(keeper, ["https://a.example"]))


def test_a_copy_of_a_request_is_refreshed_like_it(world_of: Callable[..., World], server: OAuthServer) -> None:
    """Whoever follows redirects itself copies the headers: ours is not taken for one of the caller's own."""
    world = world_of(signed_in(server))
    first = world.send("GET", "/resource").request
    server.reject()
    copy = httpx2.Request("GET", first.url, headers=first.headers, extensions=first.extensions)
    response = world.runner.run(world.client.send(copy)) if isinstance(world, AsyncWorld) else world.client.send(copy)

    assert response.status_code == 200
    assert server.refreshes == 1


# Bodies


class Pipe(io.RawIOBase):
    """A file that cannot be rewound."""

    def __init__(self, content: bytes) -> None:
        self.content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.content.read(size)


def test_b40_a_body_that_can_be_read_once_is_not_sent_again(
    world_of: Callable[..., World], server: OAuthServer
) -> None:
    """Its 401 is the answer. The next one has a new token."""
    for is_form in (False, True):
        world = world_of(rejected(server))
        before = server.calls("/resource"), server.refreshes
        settings = {"files": {"f": ("f", Pipe(b"ab"))}} if is_form else {"content": world.once(b"a", b"b")}

        assert world.send("POST", "/resource", **settings).status_code == 401
        assert (server.calls("/resource"), server.refreshes) == (before[0] + 1, before[1] + 1)
        assert world.send("POST", "/resource", content=b"ab").content == b"ab"
        assert server.refreshes == before[1] + 1


def test_b40_any_other_body_is_sent_again_whole(world_of: Callable[..., World], server: OAuthServer) -> None:
    for settings, wanted in (
        ({"content": b"bytes"}, b"bytes"),
        ({"json": {"a": 1}}, b'{"a":1}'),
        ({"data": {"a": "1"}}, b"a=1"),
        ({"files": {"f": ("f", io.BytesIO(b"of a file")), "g": ("g", b"in memory")}}, b"of a file"),
        ({"files": {"f": ("f", b"in memory")}, "data": {"a": "1"}}, b"in memory"),
    ):
        server.requests.clear()
        world = world_of(rejected(server))
        response = world.send("POST", "/resource", **settings)

        assert response.status_code == 200
        assert wanted in response.content
        first, second = (body for _, path, _, body in server.requests if path == "/resource")
        assert first == second


def test_a_stream_may_say_that_it_can_be_read_again() -> None:
    class Mine(httpx2.SyncByteStream):
        is_repeatable = True

    assert is_repeatable(httpx2.Request("POST", "https://a.example", stream=Mine()))
    assert not is_repeatable(
        httpx2.Request("POST", "https://a.example", content=io.BytesIO(b"at its end after one read"))
    )


# No token


def test_without_a_token_nothing_is_sent(world_of: Callable[..., World], server: OAuthServer) -> None:
    world = world_of()
    with pytest.raises(httpx2.RequestError) as caught:
        world.send("GET", "/resource")

    assert isinstance(caught.value, TokenUnavailable)
    assert caught.value.error == NotSignedIn()
    assert server.requests == []
    failure = NetworkFailure.of_exception(caught.value)
    assert failure.kind is FailureKind.UNAUTHORIZED
    assert failure.message == "NotSignedIn()"


def test_a_token_that_cannot_be_refreshed_leaves_the_401_as_it_is(
    world_of: Callable[..., World], server: OAuthServer
) -> None:
    world = world_of(rejected(server).model_copy(update={"refresh_token": None}))

    assert world.send("GET", "/resource").status_code == 401
    assert [path for _, path, _, _ in server.requests] == ["/resource"]


def test_a_final_refusal_leaves_the_401_as_it_is_and_signs_out(
    world_of: Callable[..., World], server: OAuthServer
) -> None:
    token = rejected(server)
    server.families[0].is_revoked = True
    world = world_of(token)

    assert world.send("GET", "/resource").status_code == 401
    assert not world.is_signed_in()


def test_a_refresh_that_finds_no_server_is_told_as_that(world_of: Callable[..., World], server: OAuthServer) -> None:
    """Nobody is signed out by it: not by a failure at the token endpoint, nor by one of the program's own account."""
    world = world_of(rejected(server))
    for canned, kind in (
        ((503, {"retry-after": "7"}, b""), FailureKind.SERVER_ERROR),
        ((401, {}, b"<html>"), FailureKind.BAD_RESPONSE),
        ((200, {}, b"<html>"), FailureKind.PARSING),
    ):
        server.canned = [canned]
        with pytest.raises(TokenUnavailable) as caught:
            world.send("GET", "/resource")
        failure = NetworkFailure.of_exception(caught.value)
        assert failure.kind is kind
        assert failure.retry_after == (7.0 if kind is FailureKind.SERVER_ERROR else None)
        assert "canary" not in f"{caught.value!r} {caught.value} {failure!r}"
    server.canned = [(401, {}, b'{"error":"invalid_client"}')]
    assert world.send("GET", "/resource").status_code == 401

    assert world.is_signed_in()
    assert world.send("GET", "/resource").status_code == 200


def test_each_failure_of_a_keeper_has_its_kind() -> None:
    unavailable = NetworkFailure(kind=FailureKind.SERVER_ERROR, status=503)
    for error, kind in (
        (NotSignedIn(), FailureKind.UNAUTHORIZED),
        (TokenNotRefreshable(), FailureKind.UNAUTHORIZED),
        (RefreshFailed(OAuthFailure(error="invalid_grant")), FailureKind.UNAUTHORIZED),
        (RefreshFailed(unavailable), FailureKind.SERVER_ERROR),
        (RefreshFailed(ConnectionError()), FailureKind.NETWORK),
        (RefreshFailed("anything"), FailureKind.UNKNOWN),
        (RefreshTimedOut(30), FailureKind.TIMEOUT),
        (TokenStorageFailed("read", OSError()), FailureKind.NETWORK),
        (InvalidRefreshResult("int"), FailureKind.UNKNOWN),
        (KeeperClosed(), FailureKind.CANCELLED),
    ):
        assert error.failure.kind is kind
        told = TokenUnavailable(error, httpx2.Request("GET", "https://a.example"))
        assert NetworkFailure.of_exception(told).kind is kind


def test_a_cancelled_request_leaves_the_keeper_well(server: OAuthServer) -> None:
    """While it waits for a refresh, which goes on for the others."""
    world = AsyncWorld(server, signed_in(server, expires_in=0))
    server.delay_s = 0.2

    async def main() -> int:
        first, second = (asyncio.create_task(world.client.get("/resource")) for _ in range(2))
        while not server.calls("/token"):  # noqa: ASYNC110 (the server is in another thread)
            await asyncio.sleep(0.005)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return (await second).status_code

    try:
        assert world.runner.run(main()) == 200
        assert server.refreshes == 1
    finally:
        world.close()


# Through an HttpSource


def test_a_source_answers_what_its_keeper_fails_with(server: OAuthServer) -> None:
    """Both faces: a value with a token, a typed failure without one."""
    unauthorized = NetworkFailure(kind=FailureKind.UNAUTHORIZED, message="NotSignedIn()")
    oauth = OAuthClient(f"{server.url}/token", CLIENT_ID, CLIENT_SECRET)

    async def main() -> None:
        keeper = TokenKeeper(OAuthRefresher(oauth))
        async with keeper, HttpSource(server.url, auth=KeeperAuth(keeper, server.url)) as source:
            assert await source.get("/resource") == Failure(unauthorized)
            assert server.requests == []
            (await keeper.set_tokens(rejected(server))).unwrap()
            assert await source.get("/resource") == Success(b"ok")

    asyncio.run(main())
    server.requests.clear()
    keeper = SyncTokenKeeper(SyncOAuthRefresher(oauth))
    with keeper, SyncHttpSource(server.url, auth=KeeperAuth(keeper, server.url)) as source:
        assert source.get("/resource") == Failure(unauthorized)
        assert server.requests == []
        keeper.set_tokens(rejected(server)).unwrap()
        assert source.get("/resource") == Success(b"ok")
    assert server.refreshes == 2


def test_b40_an_upload_that_meets_a_401_is_sent_again_where_it_can_be(server: OAuthServer, tmp_path: Path) -> None:
    """From a path, and from a file that can be rewound; from a pipe the 401 is the answer."""
    path = tmp_path / "file"
    path.write_bytes(b"of a file")
    oauth = OAuthClient(f"{server.url}/token", CLIENT_ID, CLIENT_SECRET)

    pipe: Any = Pipe
    files: list[Callable[[], Path | IO[bytes]]] = [lambda: path, lambda: io.BytesIO(b"of a file")]

    def failure(answer: Result[Any, NetworkFailure]) -> FailureKind:
        return answer.failure().kind

    async def main() -> None:
        keeper = TokenKeeper(OAuthRefresher(oauth))
        async with keeper, HttpSource(server.url, auth=KeeperAuth(keeper, server.url)) as source:
            for file in files:
                (await keeper.set_tokens(rejected(server))).unwrap()
                assert await source.upload("/resource", file()) == Success(b"of a file")
            (await keeper.set_tokens(rejected(server))).unwrap()
            assert failure(await source.upload("/resource", pipe(b"of a pipe"))) is FailureKind.UNAUTHORIZED

    asyncio.run(main())
    keeper = SyncTokenKeeper(SyncOAuthRefresher(oauth))
    with keeper, SyncHttpSource(server.url, auth=KeeperAuth(keeper, server.url)) as source:
        for file in files:
            keeper.set_tokens(rejected(server)).unwrap()
            assert source.upload("/resource", file()) == Success(b"of a file")
        keeper.set_tokens(rejected(server)).unwrap()
        assert failure(source.upload("/resource", pipe(b"of a pipe"))) is FailureKind.UNAUTHORIZED
    assert server.refreshes == 6
