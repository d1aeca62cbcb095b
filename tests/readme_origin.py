"""The origin of the README's programs on loopback: an API, its live prices, and the server that gives tokens for it."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

ADA: Final = {"id": 42, "name": "Ada"}
CACHING: Final = {"ETag": '"v1"', "Cache-Control": "max-age=60, stale-if-error=3600"}


async def user(request: Request) -> Response:
    if request.path_params["id"] != ADA["id"]:
        return Response(status_code=404)
    if request.headers.get("if-none-match") == CACHING["ETag"]:
        return Response(status_code=304, headers=CACHING)
    return JSONResponse(ADA, headers=CACHING)


async def me(request: Request) -> Response:
    """Whoever has the second token."""
    if request.headers.get("authorization") != "Bearer access-2":
        return Response(status_code=401)
    return JSONResponse(ADA, headers={"Cache-Control": "private, max-age=60"})


async def token(request: Request) -> Response:
    """One that rotates its refresh tokens."""
    fields = (await request.body()).decode()
    if "grant_type=refresh_token" not in fields or "refresh_token=refresh-1" not in fields:
        return JSONResponse({"error": "invalid_grant"}, status_code=400)
    return JSONResponse(
        {
            "access_token": "access-2",
            "refresh_token": "refresh-2",
            "token_type": "Bearer",
            "expires_in": 300,
            "sub": "42",
        }
    )


async def prices(socket: WebSocket) -> None:
    await socket.accept()
    for price in (99.0, 101.5):
        await socket.send_text(json.dumps({"tea": price}))
    await socket.receive()


@contextmanager
def origin() -> Iterator[str]:
    """Its URL, for as long as the block lasts."""
    routes = [
        Route("/users/{id:int}", user),
        Route("/me", me),
        Route("/token", token, methods=["POST"]),
        WebSocketRoute("/prices", prices),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, log_level="error", ws="websockets-sansio"))
    listening = server.config.bind_socket()
    listening.listen()  # Who comes before the server is up waits.
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
