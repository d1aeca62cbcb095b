"""`Request`: one access of a trace."""

from __future__ import annotations

from msgspec import Struct


class Request(Struct, frozen=True, gc=False):
    """Somebody asks for `key` at the instant `at`, in seconds since any beginning.

    `user`: whose entry it is; None for everybody's. `size`: of the value, in
    whatever unit the trace has.

    >>> Request(0.5, "user:42").at
    0.5
    """

    at: float
    key: str
    user: str | None = None
    size: int = 1
