"""What is logged, printed or shown in a failing test never shows an answer."""

from __future__ import annotations

import io
from typing import Any

import pytest
import rich.console

from cachemesh.core import (
    GLOBAL_OWNER,
    Command,
    Directives,
    Effect,
    Entry,
    Failed,
    FetchFailed,
    FetchSucceeded,
    FoundElsewhere,
    Get,
    Hydrate,
    Loaded,
    Overdue,
    Persist,
    Put,
    Remember,
    Reply,
    ReportFailure,
    Save,
    Settle,
    Terms,
    Update,
    WaitUntil,
)
from cachemesh.core.model import OPAQUE, Redacted
from tests.core.rows import ALICE, entry, failed, members, state

SECRET = "what the user said"  # noqa: S105
ENTRY, FAILED = Entry(SECRET, 1.0, 2.0, 3.0), Failed(SECRET, 1.0, 2.0, 3.0)
TERMS = Terms(5.0, 6.0, 7.0, ("feed",), SECRET, 8)
DIRECTIVES = Directives(sets_ttl=True, ttl_s=1.0, tags=("feed",), validator=SECRET, renews=True, stores=False)

SHOWN: list[tuple[Any, str]] = [
    (ENTRY, "Entry(answer=str, created_at=1.0, ttl_s=2.0, expires_at=3.0, terms=None)"),
    (
        Entry(SECRET, 1.0, 2.0, 3.0, TERMS),
        f"Entry(answer=str, created_at=1.0, ttl_s=2.0, expires_at=3.0, terms={TERMS})",
    ),
    (
        TERMS,
        "Terms(serve_stale_s=5.0, stale_if_error_s=6.0, ageing_at=7.0, tags=('feed',), validator=str, stamp=8)",
    ),
    (
        Failed(SECRET, 1.0, 2.0, 3.0, int),
        "Failed(answer=str, failed_at=1.0, serve_until=2.0, refresh_after=3.0, schema=type)",
    ),
    (
        DIRECTIVES,
        (
            "Directives(sets_ttl=True, ttl_s=1.0, lifespan=None, tags=('feed',), validator=str, renews=True, "
            "stores=False, private=False)"
        ),
    ),
    (FAILED, "Failed(answer=str, failed_at=1.0, serve_until=2.0, refresh_after=3.0)"),
    (
        FetchSucceeded(1, SECRET, 2.0, 0.5, DIRECTIVES),
        f"FetchSucceeded(flight_id=1, answer=str, now=2.0, chance=0.5, directives={DIRECTIVES})",
    ),
    (
        FetchFailed(1, SECRET, 2.0),
        (
            "FetchFailed(flight_id=1, answer=str, now=2.0, retryable=True, cacheable=True, chance=0.0, "
            "failure_ttl_s=None, counts=True)"
        ),
    ),
    (Overdue(1, SECRET, 2.0), "Overdue(flight_id=1, answer=str, now=2.0)"),
    (
        Put("me", SECRET, 1.0, 2, tags=("feed",)),
        (
            "Put(key='me', answer=str, now=1.0, stamp=2, scope=<CacheScope.GLOBAL: 'global'>, viewer=None, ttl_s=None, "
            "lifespan=None, tags=('feed',), chance=0.0)"
        ),
    ),
    (
        Update("me", SECRET, SECRET, 1.0, 2),
        (
            "Update(key='me', expected=str, answer=str, now=1.0, stamp=2, scope=<CacheScope.GLOBAL: 'global'>, "
            "viewer=None)"
        ),
    ),
    (Loaded(1, 2.0, ENTRY, FAILED), "Loaded(flight_id=1, now=2.0, entry=Entry, failed=Failed)"),
    (Loaded(1, 2.0), "Loaded(flight_id=1, now=2.0, entry=NoneType, failed=NoneType)"),
    (FoundElsewhere(1, 2.0, ENTRY), "FoundElsewhere(flight_id=1, now=2.0, entry=Entry)"),
    (
        Hydrate(ALICE, "me", ENTRY, 1.0, 2),
        f"Hydrate(owner={ALICE}, key='me', found=Entry, now=1.0, stamp=2)",
    ),
    (Reply(ALICE, "me", SECRET), f"Reply(owner={ALICE}, key='me', answer=str, hit=True)"),
    (
        WaitUntil(1, ALICE, "me", 2, SECRET, 3.0, 4.0),
        f"WaitUntil(flight_id=1, owner={ALICE}, key='me', attempt=2, answer=str, due_at=3.0, delay_s=4.0)",
    ),
    (
        Settle(1, ALICE, "me", SECRET, SECRET, SECRET, 2),
        f"Settle(flight_id=1, owner={ALICE}, key='me', answer=str, fallback=str, rescue=str, asks_again_after=2)",
    ),
    (
        Save(1, ALICE, "me", ENTRY, is_new=True),
        f"Save(flight_id=1, owner={ALICE}, key='me', entry=Entry, is_new=True, is_news=True, is_stored=False)",
    ),
    (Persist(1, ALICE, "me", ENTRY), f"Persist(flight_id=1, owner={ALICE}, key='me', entry=Entry)"),
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
    state(entries={"me": Entry(SECRET, 1.0, 2.0, 3.0, TERMS)}),
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
    said = (*members(Command), *members(Effect), Entry, Failed, Terms, Directives)
    carriers = [each for each in said if OPAQUE & fields_of(each)]

    assert all(issubclass(each, Redacted) for each in carriers)
    assert {type(each) for each, _ in SHOWN} == set(carriers)
    assert not issubclass(Get, Redacted)


def fields_of(each: Any) -> set[str]:
    return set(each.__struct_fields__)
