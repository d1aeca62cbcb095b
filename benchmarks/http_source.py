"""`HttpSource.get` beside `AsyncClient.get`, and the same for threads: what a `Result` costs on a kept connection.

The origin is a process of its own on loopback that does as little as can be, so that what is measured is
the client. All ask for the same 100 bytes of JSON, as bytes; the last row has them parsed as well. A source of its own
keeps no cookies, and URLs that it has parsed, which is where it gets back what it costs.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx2
from pydantic import BaseModel

from benchmarks.harness import Contender, async_sample, race, sync_sample
from benchmarks.table import Table
from cachemesh.sources import HttpSource, SyncHttpSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

ROUNDS: Final = 61
COUNT: Final = 60
SHARE: Final = 1.05
MOST_US: Final = 60.0

BODY: Final = (
    b'{"id": 1, "name": "Ada Lovelace", "mail": "ada@example.org", "text": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}'
)
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b'date: Thu, 01 Jan 2026 00:00:00 GMT\r\netag: "v1"\r\ncache-control: max-age=60\r\n\r\n' % len(BODY)
) + BODY


class User(BaseModel):
    id: int
    name: str
    mail: str
    text: str


def tables() -> list[Table]:
    with origin() as url:
        return [async_table(url), sync_table(url)]


def async_table(url: str) -> Table:
    with asyncio.Runner() as runner:

        async def opened() -> tuple[httpx2.AsyncClient, HttpSource]:
            return httpx2.AsyncClient(), HttpSource(url)

        client, source = runner.run(opened())
        over_client = HttpSource(url, client=client)

        async def bare(n: int) -> None:
            for _ in range(n):
                (await client.get(f"{url}/users/1")).content  # noqa: B018 (what a caller wants of it)

        async def ours(n: int) -> None:
            for _ in range(n):
                (await source.get("/users/1")).unwrap()

        async def given(n: int) -> None:
            for _ in range(n):
                (await over_client.get("/users/1")).unwrap()

        async def parsed(n: int) -> None:
            for _ in range(n):
                (await source.get("/users/1", parser=User)).unwrap()

        rows = [
            Contender("AsyncClient.get", async_sample(runner, bare)),
            Contender("HttpSource.get", async_sample(runner, ours)),
            Contender("HttpSource(client=...).get", async_sample(runner, given)),
            Contender("HttpSource.get, parser=User", async_sample(runner, parsed)),
        ]
        race(rows, rounds=ROUNDS, count=COUNT)
        runner.run(client.aclose())
        runner.run(source.aclose())
    return table_of("HTTP on loopback, async", rows)


def sync_table(url: str) -> Table:
    with httpx2.Client() as client, SyncHttpSource(url) as source, SyncHttpSource(url, client=client) as over_client:

        def bare(n: int) -> None:
            for _ in range(n):
                client.get(f"{url}/users/1").content  # noqa: B018 (as above)

        def ours(n: int) -> None:
            for _ in range(n):
                source.get("/users/1").unwrap()

        def given(n: int) -> None:
            for _ in range(n):
                over_client.get("/users/1").unwrap()

        def parsed(n: int) -> None:
            for _ in range(n):
                source.get("/users/1", parser=User).unwrap()

        rows = [
            Contender("Client.get", sync_sample(bare)),
            Contender("SyncHttpSource.get", sync_sample(ours)),
            Contender("SyncHttpSource(client=...).get", sync_sample(given)),
            Contender("SyncHttpSource.get, parser=User", sync_sample(parsed)),
        ]
        race(rows, rounds=ROUNDS, count=COUNT)
    return table_of("HTTP on loopback, threaded", rows)


def table_of(title: str, rows: list[Contender]) -> Table:
    bare, ours, *others = rows
    table = Table(title, ("what", "us", "best us", "x client", "us more"))
    table.add(bare.name, bare.median / 1e3, bare.best / 1e3, 1.0, 0.0)
    over, more = ours.over(bare), (ours.median - bare.median) / 1e3
    table.add(
        ours.name,
        ours.median / 1e3,
        ours.best / 1e3,
        over,
        more,
        target=f"<= {SHARE} x client and <= {MOST_US:.0f} us more",
        reached=over <= SHARE and more <= MOST_US,
    )
    for row in others:
        table.add(row.name, row.median / 1e3, row.best / 1e3, row.over(bare), (row.median - bare.median) / 1e3)
    return table


@contextmanager
def origin() -> Iterator[str]:
    """The URL of an origin in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def serve(tell: Connection) -> None:
    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            if data.endswith(b"\r\n\r\n"):
                self.transport.write(ANSWER)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
        tell.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())
