"""A session that plays itself: two people, three programs, and a server that is not always there.

Each chapter asserts what it shows. Nothing is slept through: the programs and the
server share a clock that is told to jump.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import view
from client import KEY, NotesClient
from note import Note
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success
from rich.console import Console
from server import MOST_REQUESTS, NotesServer

from cachemesh import CacheMiss, CachePolicy, CacheScope, NoActiveUser, Source
from cachemesh.auth import NotSignedIn, OAuthClient, OAuthRefresher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from note import Notebook

    from cachemesh import Served

PICTURE: Final = bytes(range(256)) * 4_096
"""A megabyte."""

MILK: Final = Note(id="1", text="buy milk")
BREAD: Final = Note(id="2", text="bake bread")
SALT: Final = Note(id="3", text="find the salt")

TOO_LONG_S: Final = 20.0
"""What takes longer than this does not come any more."""


class Clock:
    """The time, which can be told to jump."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead_s

    def jump(self, seconds: float) -> None:
        self._ahead_s += seconds


class Session:
    """The server, alice's laptop and alice's phone."""

    def __init__(self, server: NotesServer, clock: Clock, folder: Path) -> None:
        self.server = server
        self.clock = clock
        self.folder = folder
        self.console = Console()

    def client(self, device: str) -> NotesClient:
        """The program on a device, as it is started there."""
        return NotesClient(self.server.url, self.folder / device, clock=self.clock)

    async def shown(self, client: NotesClient) -> Served[Notebook]:
        """What its screen shows."""
        notes = await client.notes()
        self.console.print(view.table(str(client.user), notes))
        return notes.unwrap()

    def asked(self, request: str) -> int:
        """How often the server has answered so."""
        return self.server.answered[request]


async def play(folder: Path) -> None:
    """From signing in to signing out."""
    clock = Clock()
    with NotesServer(clock) as server:
        session = Session(server, clock, folder)
        async with session.client("laptop") as laptop:
            (await laptop.sign_in("alice")).unwrap()
            assert laptop.user == "alice"
            (await laptop.write(MILK)).unwrap()
            await read_and_read_again(session, laptop)
            await be_offline(session, laptop)
            await be_limited(session, laptop)
            await be_told(session, laptop)
            await send_a_picture(session, laptop)
        async with session.client("laptop") as laptop:
            await start_without_a_server(session, laptop)
            await sign_out(session, laptop)
            await be_robbed(session, laptop)
    session.console.print("read, renewed, kept through an outage and a restart, pushed, and taken away")


async def read_and_read_again(session: Session, laptop: NotesClient) -> None:
    first, again = await session.shown(laptop), await session.shown(laptop)
    assert first.value == again.value == (MILK,)
    assert (first.source, again.source) == (Source.ORIGIN, Source.MEMORY)
    assert session.asked("GET /notes 200") == 1, "the second time, nobody was asked"

    session.clock.jump(60)  # They are not fresh any more, nor is the token.
    tokens = session.asked("POST /token 200")
    renewed = await session.shown(laptop)
    assert renewed.value == (MILK,)
    assert (session.asked("GET /notes 200"), session.asked("GET /notes 304")) == (1, 1), "nothing has changed"
    assert session.asked("POST /token 200") == tokens + 1


async def be_offline(session: Session, laptop: NotesClient) -> None:
    await asyncio.to_thread(session.server.stop)
    session.clock.jump(3_600)
    old = await session.shown(laptop)
    assert (old.value, old.source) == ((MILK,), Source.STAND_IN)
    assert old.age >= 3_600
    assert not is_successful(await laptop.write(BREAD)), "what cannot be sent is not pretended to be"

    session.server.start()
    tokens = session.asked("POST /token 200")
    several = await asyncio.gather(laptop.notes(), laptop.write(BREAD), laptop.notes())
    assert all(is_successful(each) for each in several)
    assert session.asked("POST /token 200") == tokens + 1, "the token has expired meanwhile, and was renewed for all"
    fresh = await session.shown(laptop)
    assert fresh.value == (MILK, BREAD)
    assert fresh.age < TOO_LONG_S


async def be_limited(session: Session, laptop: NotesClient) -> None:
    many = await asyncio.gather(*[laptop.write(MILK) for _ in range(MOST_REQUESTS + 1)])
    assert all(is_successful(each) for each in many), "who was sent away came again, when they were told to"
    assert session.asked(f"PUT /notes/{MILK.id} 429") >= 1


async def be_told(session: Session, laptop: NotesClient) -> None:
    """Alice's phone changes something; her laptop shows it without asking."""
    baked = BREAD.model_copy(update={"is_done": True})
    losses: list[object] = []
    async with (
        session.client("phone") as phone,
        laptop.live(losses.append),
        laptop.watch() as news,
        asyncio.timeout(TOO_LONG_S),
    ):
        await told(news, (MILK, BREAD))  # As soon as it is connected.
        asked = session.asked("GET /notes 200")
        (await phone.sign_in("alice")).unwrap()
        (await phone.write(baked)).unwrap()
        await told(news, (MILK, baked))

        await asyncio.to_thread(session.server.stop)
        session.clock.jump(60)  # The token expires as well; nobody has to sign in again for that.
        session.server.start()
        (await phone.write(SALT)).unwrap()
        await told(news, (MILK, baked, SALT))
        assert losses, "the connection came back by itself"

        shown = await session.shown(laptop)
        assert (shown.value, shown.source) == ((MILK, baked, SALT), Source.MEMORY)
        assert session.asked("GET /notes 200") == asked


async def told(news: AsyncIterator[Result[Notebook, object]], notes: Notebook) -> None:
    """Wait until the news are `notes`."""
    async for each in news:
        if each == Success(notes):
            return


async def send_a_picture(session: Session, laptop: NotesClient) -> None:
    there, back = session.folder / "there.png", session.folder / "back.png"
    there.write_bytes(PICTURE)
    seen: list[tuple[int, int | None]] = []
    with view.bar(session.console) as move:

        def progress(done: int, total: int | None) -> None:
            seen.append((done, total))
            move(done, total)

        (await laptop.draw(MILK, there, progress)).unwrap()
        assert seen[-1] == (len(PICTURE), len(PICTURE))
        seen.clear()
        assert (await laptop.look(MILK, back, progress)).unwrap() == len(PICTURE)

    assert back.read_bytes() == PICTURE
    assert len(seen) > 1
    assert seen[-1] == (len(PICTURE), len(PICTURE))


async def start_without_a_server(session: Session, laptop: NotesClient) -> None:
    """It is another cache, and another keeper; what they know is out of the files."""
    await asyncio.to_thread(session.server.stop)
    session.clock.jump(7_200)
    assert laptop.user == "alice"
    old = await session.shown(laptop)
    assert (len(old.value), old.source) == (3, Source.STAND_IN)
    assert old.age >= 7_200


async def sign_out(session: Session, laptop: NotesClient) -> None:
    (await laptop.sign_out()).unwrap()
    assert isinstance((await laptop.notes()).failure().error, NotSignedIn | NoActiveUser)

    session.server.start()
    (await laptop.sign_in("bob")).unwrap()
    bobs = await session.shown(laptop)
    assert (bobs.value, bobs.source) == ((), Source.ORIGIN), "nothing of alice's"

    (await laptop.sign_in("alice")).unwrap()
    left = await laptop.cache.get(KEY, no_fetch, policy=CachePolicy.CACHE_ONLY, scope=CacheScope.USER)
    assert left == Failure(CacheMiss(KEY)), "nothing of hers was left, neither in memory nor in the file"
    assert len((await session.shown(laptop)).value) == 3


async def be_robbed(session: Session, laptop: NotesClient) -> None:
    """Somebody has a refresh token that was used already: the server ends what came of that sign-in."""
    old = (await laptop.keeper.peek()).unwrap()
    session.clock.jump(60)
    assert (await session.shown(laptop)).source is Source.ORIGIN, "with a new token"

    thief = OAuthRefresher(OAuthClient(f"{session.server.url}/token", "notes"))
    assert not is_successful(await thief(old))
    session.clock.jump(60)
    assert not is_successful(await laptop.notes())
    assert laptop.user is None, "alice has to sign in again, and meanwhile nothing of hers is on the laptop"


async def no_fetch() -> Result[Notebook, str]:
    return Failure("nobody is asked")
