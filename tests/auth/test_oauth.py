"""OAuth 2 against a real server on loopback, and against one that answers anything: the same cases on both faces."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import time
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from returns.result import Result, Success

from cachemesh.auth import Token
from cachemesh.auth.oauth import (
    MOST_BYTES,
    ClientCredentials,
    GrantFailure,
    OAuthClient,
    OAuthRefresher,
    SignIn,
    SyncClientCredentials,
    SyncOAuthRefresher,
    finish_sign_in,
    finish_sign_in_sync,
)
from cachemesh.auth.oauth_failure import OAuthFailure
from cachemesh.sources import FailureKind, NetworkFailure
from tests.auth.servers import CLIENT_ID, CLIENT_SECRET, OAuthServer, answering

SECRETS = ("canary", CLIENT_SECRET)


class Async:
    def refresh(self, oauth: OAuthClient, token: Token) -> Result[Token, GrantFailure]:
        return asyncio.run(OAuthRefresher(oauth)(token))

    def credentials(self, oauth: OAuthClient) -> Result[Token, GrantFailure]:
        return asyncio.run(ClientCredentials(oauth)())

    def finish(self, oauth: OAuthClient, sign_in: SignIn, answer: str) -> Result[Token, GrantFailure]:
        return asyncio.run(finish_sign_in(oauth, sign_in, answer))


class Sync:
    def refresh(self, oauth: OAuthClient, token: Token) -> Result[Token, GrantFailure]:
        return SyncOAuthRefresher(oauth)(token)

    def credentials(self, oauth: OAuthClient) -> Result[Token, GrantFailure]:
        return SyncClientCredentials(oauth)()

    def finish(self, oauth: OAuthClient, sign_in: SignIn, answer: str) -> Result[Token, GrantFailure]:
        return finish_sign_in_sync(oauth, sign_in, answer)


@pytest.fixture(params=[Async, Sync], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Async | Sync:
    made: Async | Sync = request.param()
    return made


@pytest.fixture
def oauth(server: OAuthServer) -> OAuthClient:
    return OAuthClient(f"{server.url}/token", CLIENT_ID, CLIENT_SECRET, timeout=5)


def signed_in(server: OAuthServer, **fields: Any) -> Token:
    return Token.from_response(server.sign_in() | fields, time.time()).unwrap()


def failed(result: Result[Token, GrantFailure]) -> GrantFailure:
    """The failure, which quotes no secret wherever it is shown."""
    failure = result.failure()
    for shown in (repr(failure), str(failure), failure.model_dump_json()):
        assert not any(secret in shown for secret in SECRETS)
    assert pickle.loads(pickle.dumps(failure)) == failure  # noqa: S301 (our own)
    return failure


# Refreshing


def test_a_rotated_refresh_token_is_kept(face: Async | Sync, server: OAuthServer, oauth: OAuthClient) -> None:
    token = signed_in(server)
    for number in range(1, 4):
        before, token = token, face.refresh(oauth, token).unwrap()

        assert token.refresh_token != before.refresh_token
        assert server.is_valid(token.access_token)
        assert server.refreshes == number
        assert token.remaining_lifetime(time.time()) == pytest.approx(3600, abs=5)
    assert server.reuses == 0


def test_what_an_answer_leaves_out_stays(face: Async | Sync, server: OAuthServer, oauth: OAuthClient) -> None:
    """The refresh token, the scopes, and what was known beside them (RFC 6749, section 6)."""
    server.rotates = False
    token = signed_in(server, scope="read write", sub="ada")
    other = face.refresh(oauth, token).unwrap()

    assert other.access_token != token.access_token
    assert other.refresh_token == token.refresh_token
    assert other.scopes == ("read", "write")
    assert other.subject == "ada"
    assert face.refresh(oauth, other).unwrap().subject == "ada"


def test_an_id_token_says_whose_it_is(face: Async | Sync, server: OAuthServer, oauth: OAuthClient) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "ada"}).encode()).rstrip(b"=").decode()
    answer = {"access_token": "new", "token_type": "bearer", "id_token": f"e30.{claims}.x"}
    server.canned = [(200, {}, json.dumps(answer).encode())]

    assert face.refresh(oauth, signed_in(server)).unwrap().subject == "ada"


def test_a_used_refresh_token_is_final(face: Async | Sync, server: OAuthServer, oauth: OAuthClient) -> None:
    token = signed_in(server)
    face.refresh(oauth, token).unwrap()
    failure = failed(face.refresh(oauth, token))

    assert failure == OAuthFailure(error="invalid_grant", description="The refresh token is invalid.", http_status=400)
    assert isinstance(failure, OAuthFailure)
    assert failure.is_final
    assert failure.is_unauthorized
    assert not failure.is_retryable


def test_without_a_refresh_token_nobody_is_asked(face: Async | Sync, server: OAuthServer, oauth: OAuthClient) -> None:
    failure = failed(face.refresh(oauth, Token(access_token="canary")))

    assert isinstance(failure, OAuthFailure)
    assert failure.is_final
    assert server.requests == []


def test_a_wrong_secret_is_not_the_users_fault(face: Async | Sync, server: OAuthServer) -> None:
    oauth = OAuthClient(f"{server.url}/token", CLIENT_ID, "canary")
    failure = failed(face.refresh(oauth, signed_in(server)))

    assert failure == OAuthFailure(error="invalid_client", http_status=401)
    assert not failure.is_unauthorized


# Who asks


def rsa_key() -> str:
    key = rsa.generate_private_key(65_537, 2_048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "client_secret_jwt", "none", None])
def test_the_client_proves_itself_in_each_way(face: Async | Sync, server: OAuthServer, method: Any) -> None:
    secret = None if method == "none" else CLIENT_SECRET
    oauth = OAuthClient(f"{server.url}/token", CLIENT_ID, secret, auth_method=method)

    token = face.refresh(oauth, signed_in(server)).unwrap()
    assert server.is_valid(token.access_token)
    _, _, headers, body = server.requests[-1]
    assert (CLIENT_SECRET in body.decode()) == (method == "client_secret_post")
    assert headers.get("authorization", "").startswith("Basic ") == (method in {"client_secret_basic", None})


def test_the_client_signs_with_its_private_key(face: Async | Sync, server: OAuthServer) -> None:
    oauth = OAuthClient(f"{server.url}/token", CLIENT_ID, rsa_key(), auth_method="private_key_jwt")

    for _ in range(2):
        face.refresh(oauth, signed_in(server)).unwrap()
    first, second = (body for _, _, _, body in server.requests)
    assert b"PRIVATE" not in first + second
    assert first.split(b"client_assertion=")[1] != second.split(b"client_assertion=")[1], "an assertion is used once"


def test_a_program_gets_tokens_for_itself(face: Async | Sync, server: OAuthServer) -> None:
    oauth = OAuthClient(f"{server.url}/token", CLIENT_ID, CLIENT_SECRET, scopes=["read", "write"])
    token = face.credentials(oauth).unwrap()

    assert server.is_valid(token.access_token)
    assert token.scopes == ("read", "write")
    assert token.refresh_token is None
    assert (server.credentials, server.refreshes) == (1, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"token_endpoint": "http://id.example.com/token"},
        {"token_endpoint": "http://127.0.0.1.example.com/token"},
        {"token_endpoint": "http://[::2]/token"},
        {"token_endpoint": "ftp://localhost/token"},
        {"token_endpoint": "/token"},
        {"token_endpoint": "https://"},
        {"token_endpoint": "https://user:canary@id.example.com/token"},
        {"token_endpoint": "https://id.example.com/token#x"},
        {"token_endpoint": "https://["},
        {"token_endpoint": "https://a b/"},
        {"token_endpoint": "https://id.example.com:port/"},
        {"token_endpoint": 5},
        {"auth_method": "none"},
        {"auth_method": "canary"},
        {"client_secret": None, "auth_method": "client_secret_basic"},
        {"auth_method": "private_key_jwt"},
        {"client_secret": "ключ-canary"},
        {"client_id": "a:b"},
        {"scopes": "read"},
        {"scopes": ["read write"]},
        {"scopes": [""]},
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_told_at_once(settings: dict[str, Any]) -> None:
    whole = {"token_endpoint": "https://id.example.com/token", "client_id": "app", "client_secret": "canary"}
    with pytest.raises(ValueError, match=r"^[^\n]+\Z") as caught:
        OAuthClient(**(whole | settings))
    assert not any(secret in str(caught.value) for secret in SECRETS)


def test_plain_http_is_for_loopback_unless_it_is_allowed() -> None:
    for host in ("localhost", "127.0.0.1", "127.8.8.8", "[::1]", "id.localhost"):
        OAuthClient(f"http://{host}/token", "app")
    OAuthClient("http://id.internal/token", "app", allow_http=True)


def test_no_repr_has_a_secret(oauth: OAuthClient) -> None:
    for each in (oauth, OAuthRefresher(oauth), SyncOAuthRefresher(oauth), oauth.begin("https://a.example", "x:y")):
        assert CLIENT_SECRET not in repr(each)
    sign_in = oauth.begin("https://a.example", "x:y")
    assert sign_in.verifier not in repr(sign_in)


# Answers that are none


HTML = b"<html><body>canary</body></html>"

ODD: list[tuple[int, bytes, FailureKind]] = [
    (200, HTML, FailureKind.PARSING),
    (200, b"", FailureKind.PARSING),
    (200, b"null", FailureKind.PARSING),
    (200, b'["canary"]', FailureKind.PARSING),
    (200, b'{"access_token":"canary"', FailureKind.PARSING),
    (200, b"{}", FailureKind.PARSING),
    (200, b'{"access_token":null,"token_type":"Bearer"}', FailureKind.PARSING),
    (200, b'{"access_token":"","token_type":"Bearer"}', FailureKind.PARSING),
    (200, b'{"access_token":["canary"],"token_type":"Bearer"}', FailureKind.PARSING),
    (200, b'{"access_token":"canary\\r\\nX: y","token_type":"Bearer"}', FailureKind.PARSING),
    (200, b'{"access_token":"canary","token_type":"mac"}', FailureKind.PARSING),
    (200, b'{"access_token":"canary","token_type":{}}', FailureKind.PARSING),
    (200, b'{"access_token":"canary","token_type":"Bearer","expires_in":"canary"}', FailureKind.PARSING),
    (200, b'{"access_token":"canary","token_type":"Bearer","expires_in":NaN}', FailureKind.PARSING),
    (200, b'{"access_token":"canary","token_type":"Bearer","refresh_token":{"canary":1}}', FailureKind.PARSING),
    (200, b'{"access_token":"canary","token_type":"Bearer","scope":5}', FailureKind.PARSING),
    (200, b'{"a":' * 10_000, FailureKind.PARSING),
    (200, b"\xff\xfe\x00canary", FailureKind.PARSING),
    (400, b'{"error":5}', FailureKind.PARSING),
    (400, b'{"error":"can\\"ary"}', FailureKind.PARSING),
    (400, b'{"error":"refresh-canary-1"}', FailureKind.PARSING),
    (400, HTML, FailureKind.BAD_RESPONSE),
    (400, b"{}", FailureKind.BAD_RESPONSE),
    (403, HTML, FailureKind.FORBIDDEN),
    (404, HTML, FailureKind.NOT_FOUND),
    (301, HTML, FailureKind.BAD_RESPONSE),
    (307, b'{"access_token":"canary","token_type":"Bearer"}', FailureKind.BAD_RESPONSE),
    (408, b"", FailureKind.TIMEOUT),
    (500, b'{"error":"invalid_grant"}', FailureKind.SERVER_ERROR),
    (503, HTML, FailureKind.SERVER_ERROR),
    (429, b'{"error":"invalid_grant"}', FailureKind.RATE_LIMIT),
]


@pytest.mark.parametrize(("status", "body", "kind"), ODD, ids=[f"{status} {body[:50]!r}" for status, body, _ in ODD])
def test_an_answer_that_is_none_is_a_failure_that_quotes_nothing(
    face: Async | Sync, server: OAuthServer, oauth: OAuthClient, status: int, body: bytes, kind: FailureKind
) -> None:
    """And no redirect is followed: the secrets would go along."""
    token = signed_in(server)
    server.canned = [(status, {"location": f"{server.url}/elsewhere"}, body)]
    failure = failed(face.refresh(oauth, token))

    assert isinstance(failure, NetworkFailure)
    assert (failure.kind, failure.status) == (kind, status)
    assert server.calls("/elsewhere") == 0


def test_a_401_of_who_knows_nothing_of_oauth_signs_nobody_out(
    face: Async | Sync, server: OAuthServer, oauth: OAuthClient
) -> None:
    """It is a proxy's, or a captive portal's."""
    server.canned = [(401, {}, HTML)]
    failure = failed(face.refresh(oauth, signed_in(server)))

    assert isinstance(failure, NetworkFailure)
    assert (failure.kind, failure.status) == (FailureKind.BAD_RESPONSE, None)
    assert not failure.is_unauthorized


def test_when_to_come_again_is_told(face: Async | Sync, server: OAuthServer, oauth: OAuthClient) -> None:
    for status in (429, 503):
        server.canned = [(status, {"retry-after": "7"}, b"")]
        failure = failed(face.refresh(oauth, signed_in(server)))

        assert isinstance(failure, NetworkFailure)
        assert failure.retry_after == 7.0
        assert failure.is_retryable


def test_what_a_server_says_for_developers_is_told_unless_it_quotes_us(
    face: Async | Sync, server: OAuthServer, oauth: OAuthClient
) -> None:
    token = signed_in(server)
    for description, told in (
        ("No such token.", "No such token."),
        (f"No such token: {token.refresh_token}", None),
        (f"Bad secret {CLIENT_SECRET}!", None),
        ("new\nline", None),
        ("x" * 501, None),
        (5, None),
    ):
        answer = {"error": "invalid_grant", "error_description": description}
        server.canned = [(400, {}, json.dumps(answer).encode())]
        failure = failed(face.refresh(oauth, token))
        assert failure == OAuthFailure(error="invalid_grant", description=told, http_status=400)


def test_an_error_with_status_200_is_one(face: Async | Sync, server: OAuthServer, oauth: OAuthClient) -> None:
    """Some large servers answer so."""
    server.canned = [(200, {}, b'{"error":"bad_verification_code"}')]

    assert failed(face.refresh(oauth, signed_in(server))) == OAuthFailure(
        error="bad_verification_code", http_status=200
    )


def test_a_huge_body_is_not_read(face: Async | Sync) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    with answering(head, *([b"x" * 65_536] * 2_000)) as url:
        failure = failed(face.refresh(OAuthClient(url, "app"), Token(access_token="a", refresh_token="canary")))
    assert isinstance(failure, NetworkFailure)
    assert failure.kind is FailureKind.BAD_RESPONSE
    assert str(MOST_BYTES) in failure.message


def test_a_packed_body_is_not_unpacked(face: Async | Sync, server: OAuthServer, oauth: OAuthClient) -> None:
    server.canned = [(200, {"content-encoding": "gzip"}, b"\x1f\x8b canary")]

    failure = failed(face.refresh(oauth, signed_in(server)))
    assert isinstance(failure, NetworkFailure)
    assert failure.kind is FailureKind.PARSING


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        ([], FailureKind.BAD_RESPONSE),
        ([b"garbage\r\n\r\n"], FailureKind.BAD_RESPONSE),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"], FailureKind.BAD_RESPONSE),
    ],
)
def test_a_broken_connection_is_a_failure(face: Async | Sync, chunks: list[bytes], kind: FailureKind) -> None:
    with answering(*chunks) as url:
        failure = failed(face.refresh(OAuthClient(url, "app"), Token(access_token="a", refresh_token="canary")))
    assert isinstance(failure, NetworkFailure)
    assert failure.kind is kind
    assert failure.is_retryable


def test_nobody_at_home_is_a_failure(face: Async | Sync) -> None:
    with answering() as url:
        pass
    failure = failed(face.refresh(OAuthClient(url, "app"), Token(access_token="a", refresh_token="canary")))
    assert isinstance(failure, NetworkFailure)
    assert failure.kind is FailureKind.NETWORK


def test_a_trickle_is_given_up_in_time(face: Async | Sync) -> None:
    """Each chunk comes in time, the whole does not."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    with answering(head, *([b" "] * 100), pause_s=0.1) as url:
        began = time.monotonic()
        oauth = OAuthClient(url, "app", timeout=0.4)
        failure = failed(face.refresh(oauth, Token(access_token="a", refresh_token="canary")))
        took = time.monotonic() - began
    assert isinstance(failure, NetworkFailure)
    assert failure.kind is FailureKind.TIMEOUT
    assert took < 5


# Signing in


def test_a_user_signs_in_with_pkce(face: Async | Sync, server: OAuthServer, oauth: OAuthClient) -> None:
    sign_in = oauth.begin(f"{server.url}/authorize", "http://127.0.0.1:9/back", login_hint="ada")
    came_back = httpx2.get(sign_in.url).headers["location"]
    token = face.finish(oauth, sign_in, came_back).unwrap()

    assert server.is_valid(token.access_token)
    assert token.refresh_token is not None
    assert failed(face.finish(oauth, sign_in, came_back)) == OAuthFailure(error="invalid_grant", http_status=400)
    asked = httpx2.URL(sign_in.url).params
    assert asked["code_challenge_method"] == "S256"
    assert asked["login_hint"] == "ada"
    assert sign_in.verifier not in sign_in.url


def test_what_did_not_come_of_this_sign_in_is_not_taken(
    face: Async | Sync, server: OAuthServer, oauth: OAuthClient
) -> None:
    """Nobody is asked for a token then."""
    sign_in = oauth.begin(f"{server.url}/authorize", "http://127.0.0.1:9/back")
    other = oauth.begin(f"{server.url}/authorize", "http://127.0.0.1:9/back")
    assert sign_in.state != other.state
    for query, error in (
        (f"code=x&state={other.state}", "invalid_request"),
        ("code=x", "invalid_request"),
        ("code=x&state=%FF", "invalid_request"),
        (f"state={sign_in.state}", "invalid_request"),
        (f"code=&state={sign_in.state}", "invalid_request"),
        (f"error=access_denied&state={sign_in.state}", "access_denied"),
        (f"error=%00&state={sign_in.state}", "invalid_request"),
    ):
        failure = failed(face.finish(oauth, sign_in, f"http://127.0.0.1:9/back?{query}"))
        assert isinstance(failure, OAuthFailure)
        assert failure.error == error
    assert failed(face.finish(oauth, sign_in, "http://[")) is not None
    assert server.calls("/token") == 0


# Clients that are given


def test_a_client_that_is_given_is_used_and_left_open(server: OAuthServer, oauth: OAuthClient) -> None:
    """Its own auth, headers and redirects have no say."""

    async def main() -> Result[Token, GrantFailure]:
        async with httpx2.AsyncClient(auth=("no", "body"), follow_redirects=True) as client:
            result = await OAuthRefresher(oauth, client=client)(signed_in(server))
            assert not client.is_closed
            return result

    assert isinstance(asyncio.run(main()), Success)
    with httpx2.Client(auth=("no", "body"), follow_redirects=True) as client:
        assert isinstance(SyncOAuthRefresher(oauth, client=client)(signed_in(server)), Success)
        assert not client.is_closed


def test_a_cancelled_refresh_is_cancelled(server: OAuthServer, oauth: OAuthClient) -> None:
    server.delay_s = 0.5

    async def main() -> None:
        task = asyncio.create_task(OAuthRefresher(oauth)(signed_in(server)))
        while not server.requests:  # noqa: ASYNC110 (the server is in another thread)
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
