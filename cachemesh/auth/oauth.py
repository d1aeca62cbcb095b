"""OAuth 2: refreshers for token keepers, and signing in. Authlib knows the protocol. It needs the extra `auth`.

What is asked and what an answer means is decided in `OAuthClient`, without I/O,
for both faces. A request for a token is never redirected and never goes through a
client's own `auth`, so a `KeeperAuth` of the same client does not wait for it.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

if find_spec("authlib") is None:
    message = "OAuth 2 needs the extra `auth`: pip install 'cachemesh[auth]'"
    raise ModuleNotFoundError(message, name="authlib")

import httpx2
import msgspec
from authlib.common.security import generate_token
from authlib.integrations.httpx_client import OAuth2ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7523 import ClientSecretJWT, PrivateKeyJWT
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from msgspec import Struct
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from cachemesh.auth.errors import NotSignedIn
from cachemesh.auth.oauth_failure import OAuthFailure
from cachemesh.auth.skip import SKIPPED
from cachemesh.auth.token import Token, renewed, unverified_claims
from cachemesh.sources.failure import FailureKind, NetworkFailure

if TYPE_CHECKING:
    from cachemesh.auth.errors import TokenError
    from cachemesh.auth.keeper import TokenKeeper
    from cachemesh.auth.sync_keeper import SyncTokenKeeper
    from cachemesh.sources.failure import Answered

ClientAuthMethod: TypeAlias = Literal[
    "client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"
]
"""How a program proves to be the client (RFC 6749, section 2.3; RFC 7523, section 2.2; OpenID Connect Core, 9)."""

CLIENT_AUTH_METHODS: Final = get_args(ClientAuthMethod)

GrantFailure: TypeAlias = NetworkFailure | OAuthFailure
"""Why there is no token: the server says so (`OAuthFailure`), or gave no answer that counts."""

MOST_BYTES: Final = 1 << 18
"""An answer that is longer is none. Tokens are a few thousand bytes."""

TIMEOUT_S: Final = 30.0

UNAUTHORIZED: Final = 401

BEARER: Final = "Bearer"
"""The one type of token that can be used (RFC 6750)."""

HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}

HOST: Final = re.compile(r"[\w.-]+|[0-9a-fA-F:.]+")
"""A name, or an address. That of a URL is not checked when it is parsed."""

ERROR: Final = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,100}")
DESCRIPTION: Final = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,500}")
"""What RFC 6749 allows (sections 5.2 and A.7, A.8), no longer than anybody reads."""


class Ask(Struct, frozen=True):
    """A request for a token: its form, and which parts of it no failure may quote."""

    form: Mapping[str, str]
    secrets: tuple[str, ...] = ()
    previous: Token | None = None
    """The token whose refresh it is."""


class OAuthClient:
    """A program as an authorization server knows it, and that server's token endpoint.

    `token_endpoint`: an https URL; http only on the loopback interface, or with
    `allow_http`, since secrets go there. `client_secret`: a password; for
    "private_key_jwt" the private key, as PEM or a key of joserfc. `auth_method`:
    "client_secret_basic" where there is a secret, else "none". `scopes`: what is
    asked for; nothing: what the server gives. `timeout`: seconds for a whole
    answer. ValueError where these do not fit.

    >>> OAuthClient("https://id.example.com/token", "app", "s3cret", scopes=["read"])
    OAuthClient('https://id.example.com/token', 'app')
    >>> OAuthClient("http://id.example.com/token", "app")
    Traceback (most recent call last):
    ...
    ValueError: the token endpoint is no https URL, and secrets go there
    """

    def __init__(  # noqa: PLR0913 (what RFC 6749 has, by name but for the first three)
        self,
        token_endpoint: str,
        client_id: str,
        client_secret: Any = None,  # noqa: ANN401 (a str or bytes, or a key of joserfc)
        *,
        auth_method: ClientAuthMethod | None = None,
        signing_algorithm: str | None = None,
        scopes: Sequence[str] = (),
        timeout: float = TIMEOUT_S,
        allow_http: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.token_endpoint: Final = checked_url(token_endpoint, "token", allows_http=allow_http)
        self.client_id: Final = client_id
        self.timeout: Final = timeout
        self.auth: Final = client_auth(self.token_endpoint, client_id, client_secret, auth_method, signing_algorithm)
        self._secrets: Final = (client_secret,) if isinstance(client_secret, str) else ()
        self._scopes: Final = _space_separated(scopes)
        self._clock: Final = clock
        self._allows_http: Final = allow_http

    def __repr__(self) -> str:
        return f"OAuthClient({self.token_endpoint!r}, {self.client_id!r})"

    def refresh(self, token: Token) -> Ask | OAuthFailure:
        """Another token for `token` (RFC 6749, section 6). No scope is asked for: it is that of the first one."""
        if token.refresh_token is None:
            return OAuthFailure(error="invalid_grant", description="there is no refresh token")
        return self._ask("refresh_token", (token.refresh_token,), token, refresh_token=token.refresh_token)

    def credentials(self) -> Ask:
        """A token for the program itself (RFC 6749, section 4.4)."""
        return self._ask("client_credentials", (), None, scope=self._scopes)

    def begin(self, authorization_endpoint: str, redirect_uri: str, **more: str) -> SignIn:
        """Where to send a user who is to sign in (RFC 6749, section 4.1.1; with PKCE, RFC 7636)."""
        checked_url(authorization_endpoint, "authorization", allows_http=self._allows_http)
        state, verifier = generate_token(43), generate_token(64)
        url = prepare_grant_uri(
            authorization_endpoint,
            self.client_id,
            "code",
            redirect_uri=redirect_uri,
            scope=self._scopes,
            state=state,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
            **more,
        )
        return SignIn(url, redirect_uri, state, verifier)

    def code(self, sign_in: SignIn, answer: str) -> Ask | OAuthFailure:
        """A token for the code in `answer`, the URL that the user came back with (sections 4.1.2 and 4.1.3)."""
        try:
            found = dict(httpx2.URL(answer).params.multi_items())
        except httpx2.InvalidURL:
            return OAuthFailure(error="invalid_request", description="the answer is no URL")
        if not hmac.compare_digest(found.get("state", "").encode(), sign_in.state.encode()):
            return OAuthFailure(error="invalid_request", description="the state is not the one that was sent")
        if "error" in found:
            refused = failure_of(found, (), None)
            return refused or OAuthFailure(error="invalid_request", description="there is no code, nor an error")
        code = found.get("code")
        if not code:
            return OAuthFailure(error="invalid_request", description="there is no code, nor an error")
        return self._ask(
            "authorization_code",
            (code, sign_in.verifier),
            None,
            code=code,
            redirect_uri=sign_in.redirect_uri,
            code_verifier=sign_in.verifier,
        )

    def answer(self, ask: Ask, response: Answered, body: bytes) -> Result[Token, GrantFailure]:
        """What a server's answer means. Of a body that is not as it should be, nothing is quoted."""
        status, now = response.status_code, self._clock()
        if status not in range(200, 300) and (status not in range(400, 500) or status in {408, 429}):
            return Failure(NetworkFailure.of_response(response, now=now))
        fields = _json_object(body)
        if fields is not None and "error" in fields:
            refused = failure_of(fields, ask.secrets, status)
            return Failure(refused or broken("error: no code of RFC 6749", status))
        if status == UNAUTHORIZED:
            # Of a proxy, or the like. It says nothing of the grant, and must not be taken for a rejection of it.
            return Failure(NetworkFailure(kind=FailureKind.BAD_RESPONSE, message="401 without an error of RFC 6749"))
        if status not in range(200, 300):
            return Failure(NetworkFailure.of_response(response, now=now))
        if fields is None:
            return Failure(broken("the token endpoint's answer is no JSON object", status))
        kind = fields.get("token_type", BEARER)
        if not isinstance(kind, str) or kind.lower() != BEARER.lower():
            # A type that is not understood must not be used (RFC 6749, section 7.1).
            return Failure(broken("token_type: not Bearer", status))
        read = Token.from_response({**fields, "token_type": BEARER}, now)
        if not is_successful(read):
            return Failure(broken(read.failure().reason, status))
        return Success(whole(read.unwrap(), ask.previous))

    def _ask(self, grant_type: str, secrets: tuple[str, ...], previous: Token | None, **more: str) -> Ask:
        form = dict(httpx2.QueryParams(prepare_token_request(grant_type, **more)).multi_items())
        return Ask(form, (*secrets, *self._secrets), previous)


class OAuthRefresher:
    """Refreshes tokens with their refresh tokens, for a `TokenKeeper` (RFC 6749, section 6).

    A refresh token that the server rotates is in the answer; where there is none,
    the old one stays, as the scopes and the subject do. `client`: asked
    through, and not closed; without one, one is opened for each call.
    Its failures are `OAuthFailure`, where the server says no, and else `NetworkFailure`.

    >>> OAuthRefresher(OAuthClient("https://id.example.com/token", "app"))
    OAuthRefresher(OAuthClient('https://id.example.com/token', 'app'))
    """

    def __init__(self, oauth: OAuthClient, *, client: httpx2.AsyncClient | None = None) -> None:
        self.oauth: Final = oauth
        self._client: Final = client

    def __repr__(self) -> str:
        return f"OAuthRefresher({self.oauth!r})"

    async def __call__(self, token: Token) -> Result[Token, GrantFailure]:
        return await asked(self.oauth, self.oauth.refresh(token), self._client)


class SyncOAuthRefresher:
    """The same for a `SyncTokenKeeper`."""

    def __init__(self, oauth: OAuthClient, *, client: httpx2.Client | None = None) -> None:
        self.oauth: Final = oauth
        self._client: Final = client

    def __repr__(self) -> str:
        return f"SyncOAuthRefresher({self.oauth!r})"

    def __call__(self, token: Token) -> Result[Token, GrantFailure]:
        return asked_sync(self.oauth, self.oauth.refresh(token), self._client)


class ClientCredentials:
    """Gets tokens for the program itself, for a `TokenKeeper` (RFC 6749, section 4.4).

    No refresh token is needed: what has expired is replaced. The first token is
    signed in with: `await credentials.sign_in(keeper)`. `client` and failures
    are as those of `OAuthRefresher`.

    >>> ClientCredentials(OAuthClient("https://id.example.com/token", "job", "s3cret"))
    ClientCredentials(OAuthClient('https://id.example.com/token', 'job'))
    """

    needs_refresh_token: Final = False

    def __init__(self, oauth: OAuthClient, *, client: httpx2.AsyncClient | None = None) -> None:
        self.oauth: Final = oauth
        self._client: Final = client

    def __repr__(self) -> str:
        return f"ClientCredentials({self.oauth!r})"

    async def __call__(self, token: Token | None = None) -> Result[Token, GrantFailure]:
        del token
        return await asked(self.oauth, self.oauth.credentials(), self._client)

    async def sign_in(self, keeper: TokenKeeper) -> Result[Token, GrantFailure | TokenError]:
        """The keeper's valid token; where it has none, a first one, which it keeps."""
        kept = await keeper.get_valid_token()
        if is_successful(kept) or not isinstance(kept.failure(), NotSignedIn):
            return kept
        got = await self()
        return await keeper.set_tokens(got.unwrap()) if is_successful(got) else got


class SyncClientCredentials:
    """The same for a `SyncTokenKeeper`."""

    needs_refresh_token: Final = False

    def __init__(self, oauth: OAuthClient, *, client: httpx2.Client | None = None) -> None:
        self.oauth: Final = oauth
        self._client: Final = client

    def __repr__(self) -> str:
        return f"SyncClientCredentials({self.oauth!r})"

    def __call__(self, token: Token | None = None) -> Result[Token, GrantFailure]:
        del token
        return asked_sync(self.oauth, self.oauth.credentials(), self._client)

    def sign_in(self, keeper: SyncTokenKeeper) -> Result[Token, GrantFailure | TokenError]:
        """The keeper's valid token; where it has none, a first one, which it keeps."""
        kept = keeper.get_valid_token()
        if is_successful(kept) or not isinstance(kept.failure(), NotSignedIn):
            return kept
        got = self()
        return keeper.set_tokens(got.unwrap()) if is_successful(got) else got


class SignIn(Struct, frozen=True):
    """A sign-in that has begun: the user is sent to `url`. The rest is for `finish_sign_in` alone."""

    url: str
    redirect_uri: str
    state: str
    verifier: str

    def __repr__(self) -> str:
        return f"SignIn(redirect_uri={self.redirect_uri!r})"


async def finish_sign_in(
    oauth: OAuthClient, sign_in: SignIn, answer: str, *, client: httpx2.AsyncClient | None = None
) -> Result[Token, GrantFailure]:
    """The token of a user who came back from `sign_in.url` with the URL `answer`. A code is taken once only."""
    return await asked(oauth, oauth.code(sign_in, answer), client)


def finish_sign_in_sync(
    oauth: OAuthClient, sign_in: SignIn, answer: str, *, client: httpx2.Client | None = None
) -> Result[Token, GrantFailure]:
    """The same without a loop."""
    return asked_sync(oauth, oauth.code(sign_in, answer), client)


# Asking

ERRORS: Final = (httpx2.HTTPError, OSError)
"""What comes of a connection. Anything else is a bug in the program, and passes."""


async def asked(
    oauth: OAuthClient, ask: Ask | OAuthFailure, client: httpx2.AsyncClient | None
) -> Result[Token, GrantFailure]:
    """What the server answers to `ask`."""
    if isinstance(ask, OAuthFailure):
        return Failure(ask)
    try:
        async with asyncio.timeout(oauth.timeout):
            if client is not None:
                return await _sent(oauth, ask, client)
            async with httpx2.AsyncClient() as own:
                return await _sent(oauth, ask, own)
    except ERRORS as error:
        return Failure(NetworkFailure.of_exception(error))


async def _sent(oauth: OAuthClient, ask: Ask, client: httpx2.AsyncClient) -> Result[Token, GrantFailure]:
    async with client.stream("POST", oauth.token_endpoint, data=ask.form, **_settings(oauth)) as response:
        body = Body(response)
        async for chunk in response.aiter_raw():
            if not body.takes(chunk):
                break
    return body.read(partial(oauth.answer, ask, response))


def asked_sync(
    oauth: OAuthClient, ask: Ask | OAuthFailure, client: httpx2.Client | None
) -> Result[Token, GrantFailure]:
    """The same without a loop. A server that trickles its headers is not given up before each of them is late."""
    if isinstance(ask, OAuthFailure):
        return Failure(ask)
    try:
        if client is not None:
            return _sent_sync(oauth, ask, client)
        with httpx2.Client() as own:
            return _sent_sync(oauth, ask, own)
    except ERRORS as error:
        return Failure(NetworkFailure.of_exception(error))


def _sent_sync(oauth: OAuthClient, ask: Ask, client: httpx2.Client) -> Result[Token, GrantFailure]:
    ends_at = time.monotonic() + oauth.timeout
    with client.stream("POST", oauth.token_endpoint, data=ask.form, **_settings(oauth)) as response:
        body = Body(response)
        for chunk in response.iter_raw():
            if not body.takes(chunk):
                break
            if time.monotonic() >= ends_at:
                raise TimeoutError
    return body.read(partial(oauth.answer, ask, response))


def _settings(oauth: OAuthClient) -> dict[str, Any]:
    """Redirects would take the secrets elsewhere; and the client's own `auth` is for others."""
    return {
        "headers": HEADERS,
        "auth": oauth.auth,
        "follow_redirects": False,
        "timeout": oauth.timeout,
        "extensions": {SKIPPED: True},
    }


class Body:
    """The body of an answer, as it comes. No more of it is kept than a token may have."""

    def __init__(self, response: Answered) -> None:
        self._status = response.status_code
        self._encoding = response.headers.get("content-encoding", "identity").strip().lower()
        self._chunks: list[bytes] = []
        self._size = 0

    def takes(self, chunk: bytes) -> bool:
        """Whether more of it may come."""
        self._size += len(chunk)
        self._chunks.append(chunk)
        return self._size <= MOST_BYTES

    def read(self, answer: Callable[[bytes], Result[Token, GrantFailure]]) -> Result[Token, GrantFailure]:
        """What `answer` makes of the whole body."""
        if self._size > MOST_BYTES:
            text = f"the token endpoint's answer is longer than {MOST_BYTES} bytes"
            return Failure(broken(text, self._status, FailureKind.BAD_RESPONSE))
        if self._encoding not in {"", "identity"}:
            return answer(b"")  # It was asked for as it is; nobody unpacks what nobody asked for.
        return answer(b"".join(self._chunks))


# Reading


def whole(token: Token, previous: Token | None) -> Token:
    """`token`, with what its answer left out (RFC 6749, sections 5.1 and 6).

    An ID token that came straight from the token endpoint says whose it is: there,
    TLS may stand in for its signature (OpenID Connect Core 1.0, section 3.1.3.7, 6).
    """
    claims = unverified_claims(token.metadata.get("id_token"))
    if "sub" not in token.metadata and claims is not None and "sub" in claims:
        token = token.model_copy(update={"metadata": {**token.metadata, "sub": claims["sub"]}})
    return token if previous is None else renewed(previous, token)


def failure_of(fields: Mapping[str, Any], secrets: tuple[str, ...], status: int | None) -> OAuthFailure | None:
    """The error that `fields` tell; None where it is no code. `secrets` are not quoted back."""
    error, description = fields.get("error"), fields.get("error_description")
    if not isinstance(error, str) or not ERROR.fullmatch(error) or _quotes(error, secrets):
        return None
    if not isinstance(description, str) or not DESCRIPTION.fullmatch(description) or _quotes(description, secrets):
        description = None
    return OAuthFailure(error=error, description=description, http_status=status)


def broken(text: str, status: int, kind: FailureKind = FailureKind.PARSING) -> NetworkFailure:
    """An answer that is none."""
    return NetworkFailure(kind=kind, message=text, status=status)


def _quotes(text: str, secrets: tuple[str, ...]) -> bool:
    return any(secret in text for secret in secrets)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        read = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


# Checking


def checked_url(url: str, whose: str, *, allows_http: bool) -> str:
    """ValueError where `url` is none for an endpoint (RFC 6749, sections 3.1 and 3.2)."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError):
        msg = f"the {whose} endpoint is no URL"
        raise ValueError(msg) from None
    if parsed.scheme not in {"https", "http"} or not HOST.fullmatch(parsed.host) or parsed.userinfo or parsed.fragment:
        msg = f"the {whose} endpoint is no https URL, or one with a user or a fragment in it"
        raise ValueError(msg)
    if parsed.scheme == "http" and not allows_http and not _is_loopback(parsed.host):
        msg = f"the {whose} endpoint is no https URL, and secrets go there"
        raise ValueError(msg)
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761, section 6.3.


def client_auth(
    url: str,
    client_id: str,
    secret: Any,  # noqa: ANN401 (as above)
    method: ClientAuthMethod | None,
    algorithm: str | None,
) -> httpx2.Auth:
    """What proves to the server at `url` that it is us who ask. ValueError where the secret is not of that kind."""
    if method is None:
        method = "none" if secret is None else "client_secret_basic"
    if method not in CLIENT_AUTH_METHODS:
        msg = f"auth_method is one of {', '.join(CLIENT_AUTH_METHODS)}"
        raise ValueError(msg)
    if (secret is None) != (method == "none"):
        msg = f"auth_method {method!r} goes {'with' if secret is None else 'without'} a client_secret"
        raise ValueError(msg)
    how: object = method
    if method == "client_secret_jwt":
        how = ClientSecretJWT(url, alg=algorithm)
    elif method == "private_key_jwt":
        how = PrivateKeyJWT(url, alg=algorithm)
    auth = OAuth2ClientAuth(client_id, secret, how)
    try:
        # A key that is none, or a password that no header takes, is told now, and not at the first refresh.
        auth.prepare("POST", url, httpx2.Headers(), b"")
    except Exception as error:  # noqa: BLE001 (joserfc's and others'; their texts may quote the key)
        told = ValueError(f"client_secret does not do for {method}: {type(error).__name__}")
    else:
        if method != "client_secret_basic" or ":" not in client_id:
            return auth  # type: ignore[no-any-return]
        told = ValueError("a client_id with a colon does not do for client_secret_basic (RFC 7617, section 2)")
    raise told


def _space_separated(scopes: Sequence[str]) -> str:
    """RFC 6749, section 3.3."""
    if isinstance(scopes, str) or not all(each and " " not in each for each in scopes):
        msg = "scopes is a sequence of str without blanks"
        raise ValueError(msg)
    return " ".join(scopes)
