"""A note, as the server and the client write it."""

from __future__ import annotations

from pydantic import BaseModel


class Note(BaseModel, frozen=True):
    """Something to be done. Whoever writes it gives it its `id`, so that to write it twice is to write it once."""

    id: str
    text: str
    is_done: bool = False


Notebook = tuple[Note, ...]
"""One user's notes."""
