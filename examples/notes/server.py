"""The server: notes of each user, with all that an API does to its clients; and the thread that it runs in."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qsl, urlencode

import uvicorn
from accounts import Accounts
from note import Note, Notebook
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

MOST_REQUESTS: Final = 20
"""Of one user, within a second. Whoever sends more has to wait."""

CACHING: Final = "private, max-age=5, stale-while-revalidate=30, stale-if-error=86400"
"""Notes are their user's own. They may be shown for five seconds unasked, and for a day if there is nobody to ask."""

WRITE: Final = TypeAdapter(Notebook).dump_json


class NotesServer:
    """The API. What it knows outlives `stop`, which is for its clients as if the network were gone."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.accounts = Accounts(clock)
        self.answered: Counter[str] = Counter()
        """How often it has answered what to which request: `"GET /notes 304"`."""
        self._notes: dict[str, dict[str, Note]] = defaultdict(dict)
        self._pictures: dict[tuple[str, str], bytes] = {}
        self._listeners: dict[str, set[WebSocket]] = defaultdict(set)
        self._recent: dict[str, deque[float]] = defaultdict(deque)
        self._thread: threading.Thread | None = None
        self._port = 0
        self._app = Starlette(
            routes=[
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/notes", self.read),
                Route("/notes/{id}", self.write, methods=["PUT"]),
                Route("/notes/{id}/picture", self.draw, methods=["PUT"]),
                Route("/notes/{id}/picture", self.look, methods=["GET"]),
                WebSocketRoute("/live", self.live),
            ]
        )

    # Signing in

    async def authorize(self, request: Request) -> Response:
        """Where the browser of a user is sent. A real one would ask for a password here."""
        asked = request.query_params
        code = self.accounts.code(asked["login_hint"], asked["code_challenge"])
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

    async def token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        if form.get("grant_type") == "authorization_code":
            tokens = self.accounts.sign_in(form.get("code", ""), form.get("code_verifier", ""))
        else:
            tokens = self.accounts.refresh(form.get("refresh_token", ""))
        return JSONResponse({"error": "invalid_grant"}, 400) if tokens is None else JSONResponse(tokens)

    # Notes

    async def read(self, request: Request) -> Response:
        body = self._notebook(self._user(request))
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "Cache-Control": CACHING}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    async def write(self, request: Request) -> Response:
        user = self._user(request)
        try:
            note = Note.model_validate_json(await request.body())
        except ValidationError as error:
            raise HTTPException(422) from error
        self._notes[user][note.id] = note
        for listener in set(self._listeners[user]):
            with suppress(RuntimeError, WebSocketDisconnect):  # It has just hung up.
                await listener.send_bytes(self._notebook(user))
        return Response(note.model_dump_json(), media_type="application/json")

    async def draw(self, request: Request) -> Response:
        self._pictures[self._user(request), request.path_params["id"]] = await request.body()
        return Response(status_code=204)

    async def look(self, request: Request) -> Response:
        picture = self._pictures.get((self._user(request), request.path_params["id"]))
        if picture is None:
            raise HTTPException(404)
        return Response(picture, media_type="image/png")

    async def live(self, listener: WebSocket) -> None:
        """All notes of the user, as soon as they are connected and whenever one has changed."""
        user = self.accounts.user_of(listener.headers.get("authorization", ""))
        if user is None:
            await listener.send_denial_response(Response(status_code=401))
            return
        await listener.accept()
        self._listeners[user].add(listener)
        try:
            await listener.send_bytes(self._notebook(user))
            async for _ in listener.iter_bytes():
                pass  # It has nothing to say to us.
        finally:
            self._listeners[user].discard(listener)

    def _notebook(self, user: str) -> bytes:
        return WRITE(tuple(self._notes[user].values()))

    def _user(self, request: Request) -> str:
        """Who asks: 401 where we do not know, 429 where it is too often."""
        user = self.accounts.user_of(request.headers.get("authorization", ""))
        if user is None:
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
        recent, now = self._recent[user], time.monotonic()
        while recent and recent[0] <= now - 1:
            recent.popleft()
        if len(recent) >= MOST_REQUESTS:
            raise HTTPException(429, headers={"Retry-After": "1"})
        recent.append(now)
        return user

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, with its answers counted."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answered[f"{scope['method']} {scope['path']} {message['status']}"] += 1
            await send(message)

        await self._app(scope, receive, counted)

    # Its thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the same port each time."""
        if self._thread is None:
            listening = socket.create_server(("127.0.0.1", self._port))
            self._port = listening.getsockname()[1]
            config = uvicorn.Config(
                self, lifespan="off", log_level="critical", ws="wsproto", timeout_graceful_shutdown=1
            )
            self._uvicorn = uvicorn.Server(config)
            self._thread = threading.Thread(target=self._uvicorn.run, args=([listening],))
            self._thread.start()

    def stop(self) -> None:
        """Hang up on everybody, and answer nobody."""
        if self._thread is not None:
            self._uvicorn.should_exit = True
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
