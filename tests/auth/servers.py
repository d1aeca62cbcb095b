"""An authorization server with the resources that it protects, on loopback: real HTTP, in a thread of its own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote_plus, urlencode

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT_ID: Final = "app"
CLIENT_SECRET: Final = "s3cret-of-the-app"
CODE: Final = "c0de-c0de"


class Family:
    """The tokens that came of one sign-in. A refresh token that is used twice revokes them all (RFC 9700, 4.14.2)."""

    def __init__(self) -> None:
        self.refresh_token = ""
        self.used: set[str] = set()
        self.access_tokens: dict[str, float] = {}
        """Until when each is taken."""
        self.is_revoked = False


class OAuthServer:
    """Its state may be read by tests at any time, and some of it set."""

    def __init__(self) -> None:
        self.url = ""
        self.lifetime_s = 3600.0
        self.grace_s = 0.0
        """So long after it has expired, a token is taken."""
        self.delay_s = 0.0
        self.rotates = True
        self.canned: list[tuple[int, dict[str, str], bytes]] = []
        """Answers of the token endpoint that come first."""
        self.late: list[str] = []
        """Paths whose first answer waits for `let_go`, though it is decided before."""
        self.let_go = threading.Event()
        self.challenge = ""
        self.refreshes = 0
        self.reuses = 0
        self.credentials = 0
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.families: list[Family] = []
        self._number = 0

    def sign_in(self, *, expires_in: float | None = None) -> dict[str, Any]:
        """A token as the endpoint would answer it."""
        family = Family()
        self.families.append(family)
        return self._answer(family, expires_in)

    def reject(self) -> None:
        """No access token is valid any more; refresh tokens are."""
        for family in self.families:
            family.access_tokens.clear()

    def calls(self, path: str) -> int:
        return sum(each[1] == path for each in self.requests)

    def _answer(self, family: Family, expires_in: float | None = None) -> dict[str, Any]:
        self._number += 1
        lifetime_s = self.lifetime_s if expires_in is None else expires_in
        access_token = f"access-canary-{self._number}"
        family.access_tokens[access_token] = time.time() + lifetime_s + self.grace_s
        answer = {"access_token": access_token, "token_type": "Bearer", "expires_in": lifetime_s}
        if self.rotates or not family.refresh_token:
            family.used.add(family.refresh_token)
            family.refresh_token = f"refresh-canary-{self._number}"
            answer["refresh_token"] = family.refresh_token
        return answer

    # HTTP

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode("latin1") for name, value in scope["headers"]}
        self.requests.append((scope["method"], scope["path"], headers, body))
        status, more, content = await self.respond(scope, headers, body)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode()) for name, value in more.items()],
            }
        )
        await send({"type": "http.response.body", "body": content})

    async def respond(self, scope: Any, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        path = scope["path"]
        if path == "/token":
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.canned:
                return self.canned.pop(0)
            return self.token(headers, {name: values[0] for name, values in parse_qs(body.decode()).items()})
        if path == "/authorize":
            query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
            self.challenge = query["code_challenge"]
            return (
                302,
                {"location": f"{query['redirect_uri']}?{urlencode({'code': CODE, 'state': query['state']})}"},
                b"",
            )
        if path == "/login":
            return 401, {}, b"wrong password"
        if path.startswith("/status/"):
            return int(path.removeprefix("/status/")), {}, b""
        if path in self.late:
            self.late.remove(path)
            is_valid = self.is_valid(headers.get("authorization", "").removeprefix("Bearer "))
            await asyncio.to_thread(self.let_go.wait, 10)
            return (200 if is_valid else 401), {}, b""
        if path == "/away":
            return 307, {"location": scope["query_string"].decode()}, b""
        if self.is_valid(headers.get("authorization", "").removeprefix("Bearer ")):
            return 200, {}, body or b"ok"
        return 401, {"www-authenticate": "Bearer"}, b"no"

    def is_valid(self, token: str) -> bool:
        now = time.time()
        return any(now < each.access_tokens.get(token, 0.0) and not each.is_revoked for each in self.families)

    def token(self, headers: dict[str, str], form: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if not self.is_client(headers, form):
            return told(401, {"error": "invalid_client"})
        grant = form.get("grant_type")
        if grant == "client_credentials":
            self.credentials += 1
            answer = self.sign_in()
            del answer["refresh_token"]
            return told(200, answer | {"scope": form.get("scope", "")})
        if grant == "refresh_token":
            return self.refresh(form.get("refresh_token", ""))
        if grant == "authorization_code":
            verifier = form.get("code_verifier", "")
            challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
            if form.get("code") == CODE and challenge == self.challenge:
                self.challenge = "used"
                return told(200, self.sign_in())
            return told(400, {"error": "invalid_grant"})
        return told(400, {"error": "unsupported_grant_type"})

    def refresh(self, refresh_token: str) -> tuple[int, dict[str, str], bytes]:
        for family in self.families:
            if refresh_token in family.used:
                self.reuses += 1
                family.is_revoked = True
            elif refresh_token == family.refresh_token and not family.is_revoked:
                self.refreshes += 1
                return told(200, self._answer(family))
        return told(400, {"error": "invalid_grant", "error_description": "The refresh token is invalid."})

    def is_client(self, headers: dict[str, str], form: dict[str, str]) -> bool:
        authorization = headers.get("authorization", "")
        if authorization.startswith("Basic "):
            name, _, secret = base64.b64decode(authorization[6:]).decode().partition(":")
            return (unquote_plus(name), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)
        if "client_assertion" in form:
            payload = form["client_assertion"].split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            return bool(claims["iss"] == CLIENT_ID and claims["aud"] == f"{self.url}/token" and claims["jti"])
        if form.get("client_id") != CLIENT_ID:
            return False
        return form.get("client_secret", CLIENT_SECRET) == CLIENT_SECRET


def told(status: int, fields: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    return status, {"content-type": "application/json", "cache-control": "no-store"}, json.dumps(fields).encode()


@contextmanager
def serving(server: OAuthServer | None = None) -> Iterator[OAuthServer]:
    """The server, until the end of the block."""
    oauth = OAuthServer() if server is None else server
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    oauth.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    runner = uvicorn.Server(
        uvicorn.Config(oauth, lifespan="off", log_level="critical", access_log=False, backlog=2_048, loop="asyncio")
    )
    thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not runner.started:
        time.sleep(0.005)
    try:
        yield oauth
    finally:
        runner.should_exit = True
        thread.join(10)
        listener.close()


@contextmanager
def answering(*chunks: bytes, pause_s: float = 0.0) -> Iterator[str]:
    """A socket that answers the same bytes to each connection, whatever it is asked: the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                try:
                    connection.recv(65_536)
                    for chunk in chunks:
                        connection.sendall(chunk)
                        if done.wait(pause_s):
                            return
                    # What is closed with something unread is reset, and what was sent last may be lost.
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass
                except OSError:
                    pass  # The client has gone, which is what some tests are about.

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        done.set()
        # Closing alone does not wake a thread that waits for a connection.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
