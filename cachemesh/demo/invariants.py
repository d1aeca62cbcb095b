"""What must hold in every run, whatever the origin does. One broken, and the demo ends with exit code 1."""

from __future__ import annotations

from enum import StrEnum


class Invariant(StrEnum):
    """A promise of the cache that the demo watches."""

    ONE_FETCH = "at most one fetch at a time for a (user, key)"
    NO_EXCEPTION = "no exception comes out of the cache"
    OWN_VALUE = "nobody gets another user's value"
    OWN_KEY = "nobody gets another key's value"
    ANSWERED = "every call is answered"
