"""The HTTP client of the demo: fetchers that answer with a `Result` and never raise for a bad answer."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import httpx2
import msgspec
from returns.result import Failure, Result, Success

if TYPE_CHECKING:
    from types import TracebackType

    from cachemesh.demo.catalog import Resource

TIMEOUT_S: Final = 5.0
CONNECTIONS: Final = 256


@dataclass(frozen=True)
class OriginError:
    """The origin answered with `status`, or not at all (None). `retry_after` is in seconds."""

    status: int | None
    retry_after: float | None = None

    def __str__(self) -> str:
        return "no answer" if self.status is None else str(self.status)


class Stamped(msgspec.Struct, frozen=True):
    """A record of the origin, stamped with what it is, whose it is, and when it was served.

    `arrived_at` is the client's own stamp, on `time.perf_counter`: the cache counts lifetimes from about there.
    """

    path: str
    owner: str | None
    version: int
    served_at: float
    record: object
    arrived_at: float = math.nan


Fetch = Callable[[], Awaitable[Result[Stamped, OriginError]]]


class OriginClient:
    """Speaks to the origin at `url` over pooled connections, for as long as the `async with` block lasts."""

    def __init__(self, url: str) -> None:
        self._http = httpx2.AsyncClient(
            base_url=url,
            timeout=TIMEOUT_S,
            limits=httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            trust_env=False,  # Loopback is not reached through somebody's HTTP_PROXY.
        )

    async def read(self, resource: Resource, user: str | None) -> Result[Stamped, OriginError]:
        """One GET, as `user`."""
        try:
            response = await self._http.get(resource.path, headers={} if user is None else {"X-User": user})
        except httpx2.TransportError:
            return Failure(OriginError(None))
        if response.status_code != httpx2.codes.OK:
            return Failure(OriginError(response.status_code, _seconds(response.headers.get("Retry-After"))))
        stamped = msgspec.json.decode(response.content, type=Stamped)
        return Success(msgspec.structs.replace(stamped, arrived_at=time.perf_counter()))

    def fetcher(self, resource: Resource, user: str | None) -> Fetch:
        """What the cache calls when it wants the `resource` of `user`."""
        return lambda: self.read(resource, user)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._http.aclose()


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else None
