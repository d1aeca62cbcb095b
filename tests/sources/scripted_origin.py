"""An origin on loopback whose answers a test writes down, and which notes what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from typing import Self

PATIENCE_S: Final = 5.0
"""What takes longer than this hangs."""


class Asked(Struct, frozen=True):
    """A request as it arrived. Names of headers are in lower case."""

    path: str
    headers: Mapping[str, str]


class Reply(Struct, frozen=True):
    """An answer. `lines`: its header lines, such as "ETag: x"; `cut`: the connection ends so many bytes too early."""

    body: str = ""
    lines: tuple[str, ...] = ()
    status: int = 200
    cut: int = 0


Script: TypeAlias = Callable[[Asked], Reply]


def reply(body: str = '"v1"', *lines: str, status: int = 200, cut: int = 0) -> Reply:
    return Reply(body, lines, status, cut)


def not_modified(*lines: str) -> Reply:
    return Reply("", lines, 304)


class Origin:
    """Answers by `script`, once the `gate` is open; a thread a connection. `asked`: what came; `arrived`: it did."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.arrived = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        origin = self

        class Handler(BaseHTTPRequestHandler):
            timeout = PATIENCE_S

            def do_GET(self) -> None:
                asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()})
                origin.asked.append(asked)
                origin.arrived.set()
                said = origin.script(asked)
                origin.gate.wait(PATIENCE_S)
                body = said.body.encode()
                with suppress(OSError):
                    self.send_response(said.status)
                    self.send_header("Connection", "close")
                    if said.status != 304:
                        self.send_header("Content-Length", str(len(body)))
                    for line in said.lines:
                        name, _, value = line.partition(": ")
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body[: len(body) - said.cut])

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        return Handler
