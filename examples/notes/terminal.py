"""The program in a terminal: it shows the notes whenever they have changed, and does what it is told."""

from __future__ import annotations

import asyncio
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import view
from client import NotesClient
from note import Note
from returns.pipeline import is_successful

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from returns.result import Result
    from rich.console import Console
    from server import NotesServer


class Terminal:
    """A session of somebody with a keyboard. `folder`: where the client keeps what is to outlive it."""

    def __init__(self, server: NotesServer, folder: Path, console: Console) -> None:
        self._server = server
        self._folder = folder
        self._console = console
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._said = "Hello. Begin with: login NAME"

    async def run(self) -> None:
        """Until `quit`, or the end of what is typed."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._type, args=(loop,), daemon=True).start()
        while await self._session():
            self._said = "Here are your notes again, out of the file."

    async def _session(self) -> bool:
        """One life of the client; whether there is to be another."""
        async with NotesClient(self._server.url, self._folder) as self._client:
            following = asyncio.create_task(self._follow())
            try:
                while (line := await self._lines.get()) not in {None, "quit"}:
                    if line == "restart":
                        return True
                    await self._do(str(line))
                    if following.done() and self._client.user is not None:
                        following = asyncio.create_task(self._follow())
                    await self._show()
                return False
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following

    async def _follow(self) -> None:
        """Show what changes, until the user leaves."""
        await self._show()
        async with self._client.live(self._lost), self._client.watch() as news:
            async for _ in news:
                await self._show()

    def _lost(self, failure: object) -> None:
        self._say(f"The server has hung up: {failure!r}")

    async def _show(self) -> None:
        notes = await self._client.notes()
        self._console.clear()
        self._console.print(view.screen(self._client.user, notes, self._said))
        self._console.print("> ", end="")

    def _say(self, text: str) -> None:
        self._said = text

    def _tell(self, answer: Result[object, object], done: str) -> None:
        self._say(done if is_successful(answer) else f"That did not work: {answer.failure()!r}")

    # Commands

    async def _do(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        command = COMMANDS.get(name)
        self._say("")
        if command is None:
            self._say(f"What is {name!r}?" if name else "")
        else:
            await command(self, rest.strip())

    async def _login(self, name: str) -> None:
        self._tell(await self._client.sign_in(name), f"Welcome, {name}.")

    async def _logout(self, _: str) -> None:
        self._tell(await self._client.sign_out(), "Good bye. Nothing of yours is left here.")

    async def _add(self, text: str) -> None:
        self._tell(await self._client.write(Note(id=secrets.token_hex(8), text=text)), "Added.")

    async def _done(self, number: str) -> None:
        note = await self._note(number)
        if note is not None:
            self._tell(await self._client.write(note.model_copy(update={"is_done": True})), "Well done.")

    async def _draw(self, rest: str) -> None:
        number, _, file = rest.partition(" ")
        note = await self._note(number)
        if note is not None:
            with view.bar(self._console) as bar:
                task = bar.add_task("up", total=None)
                self._tell(
                    await self._client.draw(
                        note, Path(file), lambda done, total: bar.update(task, completed=done, total=total)
                    ),
                    "It is there.",
                )

    async def _look(self, rest: str) -> None:
        number, _, file = rest.partition(" ")
        note = await self._note(number)
        if note is not None:
            with view.bar(self._console) as bar:
                task = bar.add_task("down", total=None)
                self._tell(
                    await self._client.look(
                        note, Path(file), lambda done, total: bar.update(task, completed=done, total=total)
                    ),
                    f"It is in {file}.",
                )

    async def _offline(self, _: str) -> None:
        await asyncio.to_thread(self._server.stop)
        self._say("The server is gone.")

    async def _online(self, _: str) -> None:
        self._server.start()
        self._say("The server is there again.")

    async def _note(self, number: str) -> Note | None:
        """The note that is shown with that number."""
        notes = await self._client.notes()
        shown = notes.unwrap().value if is_successful(notes) else ()
        if not number.isdecimal() or not 1 <= int(number) <= len(shown):
            self._say(f"There is no note {number!r}.")
            return None
        return shown[int(number) - 1]

    def _type(self, loop: asyncio.AbstractEventLoop) -> None:
        """What is typed. It may be waited for forever, so this thread is nobody's to join."""
        line: str | None = ""
        while line is not None:
            try:
                line = input()
            except EOFError:
                line = None
            with suppress(RuntimeError):  # The program has ended.
                loop.call_soon_threadsafe(self._lines.put_nowait, line)


COMMANDS: Final[Mapping[str, Callable[[Terminal, str], Awaitable[None]]]] = {
    "login": Terminal._login,  # noqa: SLF001 (the table of its own methods)
    "logout": Terminal._logout,  # noqa: SLF001 (as above)
    "add": Terminal._add,  # noqa: SLF001 (as above)
    "done": Terminal._done,  # noqa: SLF001 (as above)
    "draw": Terminal._draw,  # noqa: SLF001 (as above)
    "look": Terminal._look,  # noqa: SLF001 (as above)
    "offline": Terminal._offline,  # noqa: SLF001 (as above)
    "online": Terminal._online,  # noqa: SLF001 (as above)
}
