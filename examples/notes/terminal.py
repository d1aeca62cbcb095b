"""The program in a terminal: it shows the notes whenever they have changed, and does what it is told."""

from __future__ import annotations

import asyncio
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import view
from client import NotesClient
from note import Note
from returns.pipeline import is_successful

if TYPE_CHECKING:
    from returns.result import Result
    from rich.console import Console
    from server import NotesServer


class Terminal:
    """A session of somebody with a keyboard. `folder`: where the client keeps what is to outlive it."""

    def __init__(self, server: NotesServer, folder: Path, console: Console) -> None:
        self._server = server
        self._folder = folder
        self._console = console
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._said = "Hello."

    async def run(self) -> None:
        """Until `quit`, or the end of what is typed."""
        threading.Thread(target=self._type, args=(asyncio.get_running_loop(),), daemon=True).start()
        while await self._session() == "restart":
            self._said = "This is another process, as far as the client can tell."

    async def _session(self) -> str:
        """One life of the client; the command that ended it."""
        async with NotesClient(self._server.url, self._folder) as client:
            following = asyncio.create_task(self._follow(client))
            try:
                while (line := await self._lines.get()) not in {"quit", "restart"}:
                    self._said = await self._done(client, line.split(maxsplit=2))
                    if following.done():
                        following = asyncio.create_task(self._follow(client))
                    await self._show(client)
                return line
            finally:
                following.cancel()
                await asyncio.wait([following])

    async def _follow(self, client: NotesClient) -> None:
        """Show what changes, until the user leaves."""
        await self._show(client)
        async with client.live(self._lost), client.watch() as news:
            async for _ in news:
                await self._show(client)

    def _lost(self, failure: object) -> None:
        self._said = f"The server has hung up: {failure!r}"

    async def _show(self, client: NotesClient) -> None:
        notes = await client.notes()
        self._console.clear()
        self._console.print(view.screen(client.user, notes, self._said))

    async def _done(self, client: NotesClient, words: list[str]) -> str:
        """Do what was typed; what there is to say of it."""
        match words:
            case ["login", name]:
                return told(await client.sign_in(name), f"Welcome, {name}.")
            case ["logout"]:
                return told(await client.sign_out(), "Good bye. Nothing of yours is left here.")
            case ["add", *text]:
                return told(await client.write(Note(id=secrets.token_hex(8), text=" ".join(text))), "Added.")
            case ["done", number] if note := await numbered(client, number):
                return told(await client.write(note.model_copy(update={"is_done": True})), "Well done.")
            case ["draw", number, file] if note := await numbered(client, number):
                with view.bar(self._console) as progress:
                    return told(await client.draw(note, Path(file), progress), "The server has it.")
            case ["look", number, file] if note := await numbered(client, number):
                with view.bar(self._console) as progress:
                    return told(await client.look(note, Path(file), progress), f"It is in {file}.")
            case ["offline"]:
                await asyncio.to_thread(self._server.stop)
                return "The server is gone."
            case ["online"]:
                self._server.start()
                return "The server is there again."
        return ""

    def _type(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass on what is typed. That may be waited for forever, so this thread is nobody's to join."""
        line = ""
        while line != "quit":
            try:
                line = input().strip()
            except EOFError:
                line = "quit"
            with suppress(RuntimeError):  # The program has ended.
                loop.call_soon_threadsafe(self._lines.put_nowait, line)


def told(answer: Result[object, object], done: str) -> str:
    """What there is to say of an answer."""
    return done if is_successful(answer) else f"That did not work: {answer.failure()!r}"


async def numbered(client: NotesClient, number: str) -> Note | None:
    """The note that is shown with that number."""
    notes = await client.notes()
    shown = notes.unwrap().value if is_successful(notes) else ()
    return shown[int(number) - 1] if number.isdecimal() and 1 <= int(number) <= len(shown) else None
