"""Notes that are there when the network is not: a client for a small REST API, which this program serves as well.

    python examples/notes            # in a terminal: `help` is on the screen
    python examples/notes --script   # a session that plays itself, and asserts what it shows

`client.py` is the part that uses cachemesh. `server.py` and `accounts.py` are
the API: OAuth 2, a limit of requests, ETags, a WebSocket. `view.py` and
`terminal.py` are the screen and the keyboard; `script.py` plays the session.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from script import play
from server import NotesServer
from terminal import Terminal


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if "--script" in sys.argv:
            asyncio.run(play(Path(folder)))
        else:
            with NotesServer() as server, suppress(KeyboardInterrupt):
                asyncio.run(Terminal(server, Path(folder), Console()).run())


if __name__ == "__main__":
    main()
