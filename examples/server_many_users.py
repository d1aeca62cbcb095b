"""A server that answers many users at once from one cache, each out of a partition of its own.

A real server on a loopback socket, a line a request: `<user> <path>`. Each
request makes a view with `cache.for_user(user)`. The user's profile is cached in the user
scope, the news of the day in the global one; both handlers name the same key,
"page", and never meet.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from returns.result import Result, Success

from cachemesh import Cache, CacheScope

USERS = [f"user-{number}" for number in range(50)]
ROUNDS = 10


@dataclass
class Database:
    """The slow thing behind the server; it counts what it is asked."""

    queries: Counter[str] = field(default_factory=Counter)

    async def profile(self, user: str) -> Result[str, str]:
        self.queries[user] += 1
        await asyncio.sleep(0.01)
        return Success(f"the profile of {user}")

    async def news(self) -> Result[str, str]:
        self.queries["news"] += 1
        await asyncio.sleep(0.01)
        return Success("the news of the day")


@dataclass
class Server:
    """What is the same for everyone is in `cache`; what is one user's is in that user's view of it."""

    cache: Cache
    database: Database

    async def respond(self, user: str, path: str) -> str:
        view = self.cache.for_user(user)
        match path:
            case "profile":
                page = await view.get("page", lambda: self.database.profile(user), scope=CacheScope.USER, ttl=60)
            case "logout":
                view.end_session()
                return "bye"
            case _:
                page = await view.get("page", self.database.news, ttl=60)
        return page.value_or("sorry")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            user, path = line.decode().split()
            writer.write(f"{await self.respond(user, path)}\n".encode())
            await writer.drain()
        writer.close()


async def visit(port: int, user: str, paths: list[str]) -> list[str]:
    """What `user` is shown, one page after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    pages = []
    for path in paths:
        writer.write(f"{user} {path}\n".encode())
        pages.append((await reader.readline()).decode().strip())
    writer.write_eof()
    await reader.read()
    writer.close()
    return pages


async def main() -> None:
    database = Database()
    async with Cache() as cache:
        handlers = Server(cache, database)
        server = await asyncio.start_server(handlers.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            visits = [visit(port, user, ["profile", "news"] * ROUNDS) for user in USERS for _ in range(2)]
            shown = await asyncio.gather(*visits)

            for user, pages in zip([user for user in USERS for _ in range(2)], shown, strict=True):
                assert pages == [f"the profile of {user}", "the news of the day"] * ROUNDS, "nobody sees another's page"
            once = dict.fromkeys([*USERS, "news"], 1)
            assert database.queries == once, "one query a user, however many connections"

            assert await visit(port, "user-7", ["logout", "profile"]) == ["bye", "the profile of user-7"]
            await visit(port, "user-8", ["profile"])
            assert database.queries == once | {"user-7": 2}, "what was user-7's went with the session, and nothing else"

    requests = len(visits) * 2 * ROUNDS
    queries = database.queries.total()
    print(f"{requests} requests of {len(USERS)} users over {len(visits)} connections: {queries} queries")


if __name__ == "__main__":
    asyncio.run(main())
