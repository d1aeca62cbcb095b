"""A real HTTP origin on loopback: real sockets, one thread a connection, slow and flaky by plan.

It answers 200 with a record and its stamp, 503 during an outage, 429 with
Retry-After beyond a rate limit, 401 where X-User is missing, 404 for the rest.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Self

from cachemesh.demo.catalog import Catalog
from cachemesh.demo.plan import Plan, Trouble
from cachemesh.demo.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

HOST: Final = "127.0.0.1"
IDLE_S: Final = 10.0


@dataclass(frozen=True)
class Response:
    """An HTTP answer, before it becomes bytes."""

    status: HTTPStatus
    body: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=dict)


class Origin:
    """An HTTP server on a free port of 127.0.0.1, for as long as the `with` block lasts."""

    def __init__(self, catalog: Catalog | None = None) -> None:
        self._catalog = catalog or Catalog()
        self._run = _Run(Plan())
        self._server = _Server(self)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), name="demo-origin", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://{HOST}:{self._server.server_port}"

    @property
    def tally(self) -> Tally:
        """What it saw in the present run."""
        return self._run.tally

    @property
    def trouble(self) -> Trouble:
        """What is wrong with it right now."""
        run = self._run
        return run.plan.trouble_at(run.elapsed_s())

    def begin(self, plan: Plan) -> Tally:
        """Start a run: play `plan` from here on and count from zero."""
        self._run = _Run(plan)
        return self._run.tally

    def answer(self, path: str, user: str | None) -> Response:
        """What a request gets, after its latency. Counts it for the run in which it came."""
        run = self._run
        came_s = run.elapsed_s()
        # The request stops counting as "being served" here, before its bytes go out. So a client that has
        # its answer and asks again never overlaps with itself.
        with run.tally.request(user, path) as number:
            time.sleep(run.plan.latency_s(user, path, number))
            response = self._refusal(run, came_s) or self._record(path, user, number)
        run.tally.answered(response.status)
        return response

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _refusal(self, run: _Run, elapsed_s: float) -> Response | None:
        trouble = run.plan.trouble_at(elapsed_s)
        if trouble is Trouble.OUTAGE:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the origin is down"})
        if trouble is Trouble.RATE_LIMIT:
            slot = run.plan.slot_at(elapsed_s)
            if run.tally.take_slot(slot) > run.plan.requests_per_slot:
                # Whole seconds, as RFC 9110, section 10.2.3 has it.
                seconds = math.ceil(run.plan.retry_after_s(elapsed_s))
                return Response(HTTPStatus.TOO_MANY_REQUESTS, {"error": "slow down"}, {"Retry-After": str(seconds)})
        return None

    def _record(self, path: str, user: str | None, number: int) -> Response:
        is_private = self._catalog.is_private(path)
        if is_private and user is None:
            return Response(HTTPStatus.UNAUTHORIZED, {"error": "X-User is missing"})
        record = self._catalog.find(path, user)
        if record is None:
            return Response(HTTPStatus.NOT_FOUND, {"error": "no such record"})
        stamp = {"path": path, "owner": user if is_private else None, "version": number, "served_at": time.time()}
        return Response(HTTPStatus.OK, {**stamp, "record": record})


class _Run:
    """One run: its plan, its start, and what was seen in it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally()
        self._started_at = time.perf_counter()

    def elapsed_s(self) -> float:
        return time.perf_counter() - self._started_at


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # All clients connect at once; the default of 5 would refuse some.

    def __init__(self, origin: Origin) -> None:
        super().__init__((HOST, 0), _Handler)
        self.origin = origin

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as the base class has it
        """A client that hangs up, as one does whose fetch is cancelled, is nothing to report."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Keep-alive.
    server_version = "cachemesh-demo"
    server: _Server
    timeout = IDLE_S
    wbufsize = -1  # Head and body leave in one segment.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        response = self.server.origin.answer(self.path, self.headers.get("X-User"))
        body = json.dumps(response.body).encode()
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the base class's
        """Say nothing: the terminal belongs to the report."""
