"""A FastAPI app for many users: each request gets a view of the one cache, and nobody sees what is another's.

A dependency makes the view with `cache.for_user(...)`. Profiles are cached in
the user scope, the news in the global one, both under the key "page" and in one
file. The app is asked here by Starlette's TestClient, without a server; then
it is started anew on the same file.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel
from returns.result import Result, Success

from cachemesh import Cache, CacheScope
from cachemesh.stores import SqliteStore

try:
    from fastapi import Depends, FastAPI, Header, HTTPException, Request
    from fastapi.testclient import TestClient
except ImportError:
    print("skipped: this example wants `pip install fastapi httpx2`")
    sys.exit()

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")

QUERIES: Counter[str] = Counter()
"""What the slow thing behind the app has been asked."""


class Profile(BaseModel):
    """One user's page."""

    user: str
    greeting: str


async def profile_of(user: str) -> Result[Profile, str]:
    QUERIES[user] += 1
    return Success(Profile(user=user, greeting=f"hello {user}"))


async def news_of_the_day() -> Result[list[str], str]:
    QUERIES["news"] += 1
    return Success(["no news"])


# The app


def user_of(authorization: Annotated[str, Header()]) -> str:
    """Whoever the token belongs to; here it says so itself."""
    return authorization.removeprefix("Bearer ")


def view_of(request: Request, user: Annotated[str, Depends(user_of)]) -> Cache:
    """The cache as this user sees it. It is cheap: one for each request."""
    cache: Cache = request.app.state.cache
    return cache.for_user(user)


User = Annotated[str, Depends(user_of)]
View = Annotated[Cache, Depends(view_of)]


def app_on(path: Path) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Cache(store=SqliteStore(path), default_ttl=300) as app.state.cache:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/me")
    async def me(user: User, view: View) -> Profile:
        page = await view.get("page", lambda: profile_of(user), scope=CacheScope.USER, schema=Profile)
        return or_503(page)

    @app.get("/news")
    async def news(view: View) -> list[str]:
        return or_503(await view.get("page", news_of_the_day))

    @app.post("/logout")
    async def logout(view: View) -> str:
        view.end_session()
        return "bye"

    return app


def or_503(answer: Result[T, object]) -> T:
    """The end of the railway: what there is no value for is the client's to hear."""
    if isinstance(answer, Success):
        value: T = answer.unwrap()
        return value
    raise HTTPException(503)


# A day of it


def ask(client: TestClient, user: str, path: str) -> object:
    answer = client.request("POST" if path == "/logout" else "GET", path, headers={"Authorization": f"Bearer {user}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def visit(client: TestClient, users: list[str]) -> None:
    for user in users * 3:
        assert ask(client, user, "/me") == {"user": user, "greeting": f"hello {user}"}
        assert ask(client, user, "/news") == ["no news"]


if __name__ == "__main__":
    users = [f"user-{number}" for number in range(20)]
    once = dict.fromkeys([*users, "news"], 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache.db"
        with TestClient(app_on(path)) as client:
            visit(client, users)
            assert once == QUERIES, "one query a user, and one for all"
            ask(client, "user-7", "/logout")

        with TestClient(app_on(path)) as client:  # After a restart, all is there but what went with the session.
            visit(client, users)
            assert once | {"user-7": 2} == QUERIES

    print(f"{len(users) * 12} requests of {len(users)} users before and after a restart: {QUERIES.total()} queries")
