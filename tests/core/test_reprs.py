"""What is logged, printed or shown in a failing test never shows an answer."""

from __future__ import annotations

import io
from typing import Any

import pytest
import rich.console

from cachemesh.core import (
    GLOBAL_OWNER,
    Command,
    Effect,
    Entry,
    Failed,
    FetchFailed,
    FetchSucceeded,
    Get,
    Loaded,
    Remember,
    Reply,
    ReportFailure,
    Save,
    Settle,
    WaitUntil,
)
from cachemesh.core.model import OPAQUE, Redacted
from tests.core.rows import ALICE, entry, failed, members, state

SECRET = "what the user said"  # noqa: S105
ENTRY, FAILED = Entry(SECRET, 1.0, 2.0, 3.0), Failed(SECRET, 1.0, 2.0, 3.0)

SHOWN: list[tuple[Any, str]] = [
    (ENTRY, "Entry(answer=str, created_at=1.0, ttl_s=2.0, expires_at=3.0)"),
    (FAILED, "Failed(answer=str, failed_at=1.0, serve_until=2.0, refresh_after=3.0)"),
    (FetchSucceeded(1, SECRET, 2.0), "FetchSucceeded(flight_id=1, answer=str, now=2.0)"),
    (
        FetchFailed(1, SECRET, 2.0),
        "FetchFailed(flight_id=1, answer=str, now=2.0, retryable=True, cacheable=True, chance=0.0)",
    ),
    (Loaded(1, 2.0, ENTRY, FAILED), "Loaded(flight_id=1, now=2.0, entry=Entry, failed=Failed)"),
    (Loaded(1, 2.0), "Loaded(flight_id=1, now=2.0, entry=NoneType, failed=NoneType)"),
    (Reply(ALICE, "me", SECRET), f"Reply(owner={ALICE}, key='me', answer=str, hit=True)"),
    (
        WaitUntil(1, ALICE, "me", 2, SECRET, 3.0, 4.0),
        f"WaitUntil(flight_id=1, owner={ALICE}, key='me', attempt=2, answer=str, due_at=3.0, delay_s=4.0)",
    ),
    (
        Settle(1, ALICE, "me", SECRET, SECRET),
        f"Settle(flight_id=1, owner={ALICE}, key='me', answer=str, fallback=str)",
    ),
    (
        Save(1, ALICE, "me", ENTRY, is_new=True),
        f"Save(flight_id=1, owner={ALICE}, key='me', entry=Entry, is_new=True)",
    ),
    (
        Remember(1, ALICE, "me", FAILED, write=True, is_new=True),
        f"Remember(flight_id=1, owner={ALICE}, key='me', failed=Failed, write=True, is_new=True)",
    ),
    (
        ReportFailure(ALICE, "me", SECRET, notify=True),
        f"ReportFailure(owner={ALICE}, key='me', answer=str, notify=True)",
    ),
]
EVERYTHING = [
    *(each for each, _ in SHOWN),
    state(entries={"me": entry(SECRET)}, failures={"me": failed(SECRET)}),
    state(entries={"me": entry(SECRET)}).partitions.get(GLOBAL_OWNER),
]


@pytest.mark.parametrize(("shown", "text"), SHOWN, ids=lambda each: type(each).__name__)
def test_a_repr_shows_types_in_place_of_answers(shown: object, text: str) -> None:
    assert repr(shown) == str(shown) == f"{shown}" == text


@pytest.mark.parametrize("shown", EVERYTHING, ids=lambda each: type(each).__name__)
def test_no_text_shows_an_answer(shown: object) -> None:
    assert SECRET not in f"{shown!r} {shown} {[shown]} {(shown, {1: shown})}"


@pytest.mark.parametrize(
    "shown", [each for each, text in SHOWN if "NoneType" not in text], ids=lambda each: type(each).__name__
)
def test_rich_shows_no_answer_either(shown: object) -> None:
    out = io.StringIO()
    rich.console.Console(file=out, width=200).print(shown)

    assert SECRET not in out.getvalue()


def test_whatever_carries_an_answer_hides_it() -> None:
    """Also a command or an effect that is still to be written."""
    carriers = [each for each in (*members(Command), *members(Effect), Entry, Failed) if OPAQUE & fields_of(each)]

    assert all(issubclass(each, Redacted) for each in carriers)
    assert {type(each) for each, _ in SHOWN} == set(carriers)
    assert not issubclass(Get, Redacted)


def fields_of(each: Any) -> set[str]:
    return set(each.__struct_fields__)
