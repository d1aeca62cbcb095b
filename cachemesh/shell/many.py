"""What both faces' `get_many` do with the answers to its gets, and with those that are still to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from returns.result import Failure

from cachemesh.errors import InvalidOption
from cachemesh.shell.live import Boarding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachemesh.shell.outcomes import Answer


def sort_in(key: str, answer: Answer | Boarding, answers: dict[str, Answer], boarded: dict[str, Boarding]) -> None:
    """Put what a get of `key` came to among the answers, or among those who wait."""
    if type(answer) is Boarding:
        boarded[key] = answer
    else:
        answers[key] = answer


def loading(boarded: dict[str, Boarding]) -> list[str]:
    """The keys for which the store is asked."""
    return [key for key, boarding in boarded.items() if boarding.live.is_load]


def no_conditional(keys: Iterable[str]) -> dict[str, Answer]:
    """The answers to a call that is `conditional`: a `fetch_many` is handed keys, and no `Previous`."""
    return {key: Failure(InvalidOption("conditional", "get_many")) for key in keys}
