"""Origins on loopback: one that answers properly, by uvicorn, and one that sends whatever bytes it is told to."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, MutableMapping

    Send: TypeAlias = Callable[[MutableMapping[str, Any]], Any]
    Receive: TypeAlias = Callable[[], Any]

PATIENCE_S: Final = 5.0
"""What takes longer than this hangs."""


class Request:
    """A request as it arrived at a `RawServer`: `head` is its first line and its headers, in bytes."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head = head
        self.body = body
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


Script: TypeAlias = "Callable[[Request], Iterable[bytes | float | None]]"
"""What is sent for a request: bytes, seconds to wait before the next, and None to close the connection."""


class RawServer:
    """Sends what `script` says. A thread a connection; `requests` are those that came."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.connections = 0
        self.closing = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as incoming:
            while (request := read_request(incoming)) is not None:
                self.requests.append(request)
                for step in self.script(request):
                    if step is None:
                        return
                    if isinstance(step, bytes):
                        connection.sendall(step)
                    elif self.closing.wait(step):
                        return

    def close(self) -> None:
        self.closing.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def read_request(incoming: Any) -> Request | None:
    """The next request of a connection; None: there is none."""
    lines = []
    while (line := incoming.readline()) not in {b"\r\n", b""}:
        lines.append(line)
    if not lines or line == b"":
        return None
    head = b"".join(lines).removesuffix(b"\r\n")
    request = Request(head, b"")
    if request.headers.get("transfer-encoding") == "chunked":
        while size := int(incoming.readline(), 16):
            request.body += incoming.read(size)
            incoming.readline()
        incoming.readline()
    else:
        request.body = incoming.read(int(request.headers.get("content-length", "0")))
    return request


def response(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """A proper response; an underscore in the name of a header is a hyphen."""
    fields = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body


@contextmanager
def raw_server(script: Script | bytes) -> Iterator[RawServer]:
    """A `RawServer`; of bytes, one that sends just those, for each request."""
    server = RawServer((lambda _: [script]) if isinstance(script, bytes) else script)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def uvicorn_server(app: Any) -> Iterator[str]:
    """The URL under which uvicorn serves `app`, in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(2 * PATIENCE_S)
        assert not thread.is_alive()
        listening.close()


async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """`/echo` tells what arrived, `/status/N` has that status, `/users/N` is a user; others are as they are called."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    name, _, number = scope["path"].removeprefix("/v1").lstrip("/").partition("/")
    status, headers, content = 200, {"content-type": "application/json"}, ANSWERS.get(name, b"")
    if name == "echo":
        content = echo_of(scope, body)
    elif name == "status":
        status = int(number)
    elif name == "users":
        content = json.dumps({"id": int(number), "name": "Ada"}).encode()
    elif name == "slow":
        await asyncio.sleep(PATIENCE_S)
    elif name == "gzip":
        headers["content-encoding"] = "gzip"
    elif name == "latin":
        headers["content-type"] = "text/plain; charset=iso-8859-1"
    if status not in {204, 304}:
        headers["content-length"] = str(len(content))
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})


ANSWERS: Final = {
    "gzip": gzip.compress(b'{"id":1,"name":"Ada"}'),
    "latin": "Zoë".encode("latin-1"),
    "bytes": bytes(range(256)) * 4096,
    "null": b"null",
    "empty": b"",
}


def echo_of(scope: MutableMapping[str, Any], body: bytes) -> bytes:
    """A request as JSON."""
    return json.dumps(
        {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
            "body": body.decode("latin-1"),
        }
    ).encode()
