"""A transport for the threaded face whose sockets keep a deadline.

The time limits of httpx2 are for one read each, so an origin that sends a byte
now and then holds a thread for ever. Here, whatever a thread reads, writes or
connects within a `Deadline` ends at its instant. Only the resolver of the
system takes the time that it takes.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import httpcore2
import httpx2

from cachemesh.sources.clients import POOL, STEPS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

PIECE: Final = 16 * 1024
"""Bytes that are written under one look at the clock."""


class _Until(threading.local):
    at: float | None = None


_until: Final = _Until()


class Deadline:
    """Within it, what this thread does on its sockets ends `seconds` from now; None is never.

    `timeouts`: those of the request, for a client whose sockets do not know of it; kept at what is left,
    where that is less than they are.
    """

    __slots__ = ("_at", "_before", "_most", "_timeouts")

    def __init__(self, seconds: float | None, timeouts: dict[str, float | None]) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds
        self._before: float | None = None
        self._timeouts = timeouts
        self._most = [(step, timeouts.get(step)) for step in STEPS]

    @property
    def is_over(self) -> bool:
        return self._at is not None and time.monotonic() >= self._at

    def look(self) -> None:
        """Raises TimeoutError where the time is over."""
        if self._at is None:
            return
        seconds = self._at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        for step, most in self._most:
            self._timeouts[step] = seconds if most is None else min(seconds, most)

    def __enter__(self) -> None:
        self._before, _until.at = _until.at, self._at

    def __exit__(self, *_: object) -> None:
        _until.at = self._before


def left(timeout: float | None, late: type[Exception]) -> float | None:
    """Seconds for the next step: `timeout`, or what is left until the deadline. Raises `late` where nothing is."""
    deadline = _until.at
    if deadline is None:
        return timeout
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise late
    return seconds if timeout is None else min(timeout, seconds)


class DeadlineStream(httpcore2.NetworkStream):
    """A socket's stream that keeps the deadline. `is_answered`: as `WatchedStream` has it."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        self.is_answered = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.is_answered = True
        return self._stream.read(max_bytes, left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.is_answered = False
        for start in range(0, len(buffer), PIECE):
            self._stream.write(buffer[start : start + PIECE], left(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        with suppress(OSError):  # Whoever reads from it in another thread is to hear of it.
            self._stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        seconds = left(timeout, httpcore2.ConnectTimeout)
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, seconds))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 (as httpcore2 has it)
        return self._stream.get_extra_info(info)


class DeadlineBackend(httpcore2.NetworkBackend):
    """Connects to one address of a host after the other, as long as there is time, and until it `is_closed`."""

    def __init__(self) -> None:
        self._sockets = httpcore2.SyncBackend()
        self.is_closed = False

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError from error
        failed: Exception = httpcore2.ConnectError()
        for *_, address in found:
            if self.is_closed:
                break
            seconds = left(timeout, httpcore2.ConnectTimeout)
            try:
                stream = self._sockets.connect_tcp(str(address[0]), port, seconds, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
            else:
                if not self.is_closed:
                    return DeadlineStream(stream)
                stream.close()
        raise failed

    def sleep(self, seconds: float) -> None:
        time.sleep(left(seconds, httpcore2.ConnectTimeout) or 0.0)


class DeadlineTransport(httpx2.HTTPTransport):
    """`httpx2.HTTPTransport`, on a pool of connections that keep the deadline."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        super().__init__(verify=verify, trust_env=False)
        self._backend = DeadlineBackend()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=verify,
            network_backend=self._backend,
            **POOL,
        )

    def close(self) -> None:
        """Close what is open, and connect no more: who waits for a connection would else get one."""
        self._backend.is_closed = True
        super().close()
