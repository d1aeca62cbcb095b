"""Whose token is used, when it is refreshed, and whose change wins: rows, and laws."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from cachemesh.core.tokens import (
    AGAIN,
    HANDLERS,
    Aborted,
    Announce,
    Announced,
    Ask,
    Call,
    Closed,
    Command,
    Emit,
    Flight,
    Forced,
    Found,
    Happened,
    Held,
    Incoming,
    Order,
    Ordered,
    Overtaken,
    Peek,
    Persist,
    Phase,
    Read,
    RefreshFailed,
    RefreshSucceeded,
    Refusal,
    Refuse,
    Rejected,
    Rules,
    Settle,
    State,
    StorageFailed,
    Stored,
    TimedOut,
    TimerDue,
    TokenWanted,
    Use,
    Wait,
    Write,
    WriteFailed,
    Written,
    is_same,
    may_follow,
    plain_of,
    plain_until,
    reduce,
    valid_until,
)
from tests.core.rows import law, members

if TYPE_CHECKING:
    from collections.abc import Iterable

RULES = Rules(leeway_s=5.0, window_s=20.0, backoff_s=10.0)
OLD = Held("old", expires_at=100.0, subject="ada", version=3)
NEW = Held("new", expires_at=200.0, subject="ada", version=4)
BOBS = Held("bob's", expires_at=200.0, subject="bob", version=4)
BROUGHT = replace(NEW, version=0)
VALID, AGEING, EXPIRED = 74.9, 75.0, 95.0
ME, NEXT = 7, 8


def there(held: Held | None = OLD, phase: Phase | None = None, **fields: Any) -> State:
    """The state with this token, announced, and a flight at `phase`."""
    flight = None if phase is None else Flight(ME, fields.get("version", 3), phase)
    settings = {"rules": RULES, "version": 3, "is_restored": True, "announced": held, "flight": flight}
    return State(held=held, **{**settings, **fields})


def expect(before: State, command: Command, after: State, *effects: object) -> None:
    """The row: `command` in `before` leads to `after` and orders `effects`; unchanged, it is the same."""
    reached, ordered = reduce(before, command)

    assert (reached, ordered) == (after, effects)
    assert reached is before or after != before


def run(before: State, *commands: Command) -> tuple[State, tuple[Any, ...]]:
    """The state after all `commands`, and what the last one ordered."""
    ordered: tuple[Any, ...] = ()
    for command in commands:
        before, ordered = reduce(before, command)
    return before, ordered


def test_every_command_has_its_handler() -> None:
    assert set(HANDLERS) == set(members(Command))


# A token is wanted


def test_a_valid_token_is_used() -> None:
    expect(there(), TokenWanted(VALID, NEXT), there(), Use(OLD))
    assert plain_until(OLD, RULES) == AGEING
    assert plain_until(replace(OLD, is_refreshable=False), RULES) == EXPIRED
    assert plain_until(Held("t"), RULES) == inf


def test_leeway_and_window_take_no_more_than_half_of_a_life() -> None:
    short = replace(OLD, lives_s=4.0)
    expect(there(short), TokenWanted(96.9, NEXT), there(short), Use(short))
    assert (plain_until(short, RULES), valid_until(short, RULES)) == (97.0, 98.0)
    assert plain_until(replace(short, is_refreshable=False), RULES) == 98.0
    assert plain_until(replace(OLD, lives_s=25.0), RULES) == 85.0
    assert plain_until(replace(OLD, lives_s=100.0), RULES) == AGEING
    assert plain_until(replace(OLD, lives_s=0.0), RULES) == 100.0


@pytest.mark.parametrize("now", [AGEING, 94.9])
def test_within_the_window_it_is_used_and_refreshed_behind(now: float) -> None:
    after = there(phase=Phase.READ, behind_after=now + 10.0)
    begun = replace(after, flight=Flight(NEXT, 3, Phase.READ))

    expect(there(), TokenWanted(now, NEXT), begun, Use(OLD), Read(NEXT, locks=True))
    expect(after, TokenWanted(now, NEXT), after, Use(OLD))


def test_a_refresh_behind_does_not_follow_the_last_at_once() -> None:
    for before in (there(behind_after=80.0), there(replace(OLD, is_refreshable=False))):
        expect(before, TokenWanted(79.9, NEXT), before, Use(before.held))  # type: ignore[arg-type]
    assert reduce(there(behind_after=80.0), TokenWanted(80.0, NEXT))[0].flight is not None


def test_an_expired_token_is_refreshed_once_for_all() -> None:
    begun = there(phase=Phase.READ)

    expect(
        there(),
        TokenWanted(EXPIRED, ME),
        begun,
        Wait(ME),
        Read(ME, locks=True),
    )
    expect(begun, TokenWanted(EXPIRED, NEXT), begun, Wait(ME))


def test_an_expired_token_that_cannot_be_refreshed_is_refused() -> None:
    before = there(replace(OLD, is_refreshable=False))
    for command in (TokenWanted(EXPIRED, NEXT), Rejected(3, 0.0, NEXT), Forced(0.0, NEXT)):
        expect(before, command, before, Refuse(Refusal.NOT_REFRESHABLE))


ASKS: list[Ask] = [
    TokenWanted(0.0, NEXT),
    Rejected(3, 0.0, NEXT),
    Forced(0.0, NEXT),
    Peek(NEXT),
    TimerDue(60.0, 0.0, NEXT),
]


@pytest.mark.parametrize("ask", ASKS)
def test_without_a_token_the_storage_is_read_once_for_all(ask: Ask) -> None:
    for before in (there(None), State(rules=RULES)):
        reading = replace(before, flight=Flight(NEXT, before.version, Phase.RESTORE))
        expect(before, ask, reading, Wait(NEXT), Read(NEXT, locks=False))
        expect(reading, ask, reading, Wait(NEXT))


@pytest.mark.parametrize("ask", ASKS)
def test_nobody_gets_a_token_while_somebody_signs_in_or_out(ask: Ask) -> None:
    before = there(orders=(Order(1, signs_out=True), Order(2, signs_out=False)))
    expect(before, ask, before, Wait(1))
    assert plain_of(before) is None


@pytest.mark.parametrize("ask", ASKS)
def test_nobody_gets_a_token_of_an_identity_that_is_not_announced(ask: Ask) -> None:
    before = there(None, announced=OLD, incoming=Incoming(5, BOBS, Happened.FOUND, AGAIN))
    expect(before, ask, before, Wait(5))
    assert plain_of(before) is None


@pytest.mark.parametrize("ask", ASKS)
def test_nobody_gets_a_token_of_a_closed_keeper(ask: Ask) -> None:
    before, ordered = reduce(there(), Closed())

    assert (before, ordered) == (there(is_closed=True), ())
    expect(before, ask, before, Refuse(Refusal.CLOSED))
    expect(before, Ordered(1, signs_out=True), before, Refuse(Refusal.CLOSED))
    expect(before, Closed(), before)
    assert plain_of(before) is None


def test_who_peeks_gets_what_there_is() -> None:
    for before in (there(), there(phase=Phase.CALL), there(pending=BROUGHT)):
        expect(before, Peek(NEXT), before, Use(OLD))


def test_who_forces_a_refresh_joins_the_one_under_way() -> None:
    expect(there(), Forced(0.0, ME), there(phase=Phase.READ), Wait(ME), Read(ME, locks=True))
    expect(there(phase=Phase.CALL), Forced(0.0, NEXT), there(phase=Phase.CALL), Wait(ME))


@pytest.mark.parametrize(("window_s", "now", "is_due"), [(60.0, 34.9, False), (60.0, 35.0, True), (0.0, 95.0, True)])
def test_a_timer_refreshes_what_expires_before_it_looks_again(window_s: float, now: float, *, is_due: bool) -> None:
    after = there(phase=Phase.READ) if is_due else there()
    effects = (Wait(ME), Read(ME, locks=True)) if is_due else (Use(OLD),)
    expect(there(), TimerDue(window_s, now, ME), after, *effects)

    fixed = there(replace(OLD, is_refreshable=False))
    expect(fixed, TimerDue(window_s, now, ME), fixed, Use(fixed.held))  # type: ignore[arg-type]


# A token is rejected


def test_b38_a_late_rejection_gets_the_token_that_has_replaced_it() -> None:
    expect(there(), Rejected(2, VALID, NEXT), there(), Use(OLD))
    assert reduce(there(), Rejected(2, EXPIRED, NEXT))[1] == (Wait(NEXT), Read(NEXT, locks=True))


def test_a_rejection_is_refreshed_once_for_all() -> None:
    begun = there(phase=Phase.READ)
    expect(there(), Rejected(3, VALID, ME), begun, Wait(ME), Read(ME, locks=True))
    expect(begun, Rejected(3, VALID, NEXT), begun, Wait(ME))


FOLLOWS = [
    (OLD, NEW, True),
    (OLD, OLD, False),
    (OLD, BOBS, False),
    (OLD, replace(NEW, session=9), True),
    (OLD, replace(NEW, subject=None), False),
    (replace(OLD, subject=None), replace(NEW, subject=None), True),
    (replace(OLD, subject=None), replace(NEW, subject=None, session=9), False),
]


@pytest.mark.parametrize(("used", "other", "may"), FOLLOWS)
def test_tk5_who_was_rejected_tries_again_with_another_token_of_the_same_identity(
    used: Held, other: Held, *, may: bool
) -> None:
    assert may_follow(used, other) is may


# The storage is read


def test_a_token_is_restored_once_its_identity_is_announced() -> None:
    reading = State(rules=RULES, flight=Flight(ME, 0, Phase.RESTORE))
    found = State(rules=RULES, version=3, is_restored=True, incoming=Incoming(ME, OLD, Happened.FOUND, AGAIN))

    expect(reading, Found(ME, 3, replace(OLD, version=0), 0.0), found, Announce(ME, "ada"))
    expect(found, Announced(ME), there(), Emit(Happened.FOUND, OLD, ME), Settle(ME, AGAIN))
    expect(found, Announced(NEXT), found)


def test_a_first_token_that_names_nobody_is_no_news_of_an_identity() -> None:
    nobodys = replace(OLD, subject=None)
    reading = State(rules=RULES, flight=Flight(ME, 0, Phase.RESTORE))
    found = there(nobodys, announced=nobodys)

    expect(
        reading,
        Found(ME, 3, replace(nobodys, version=0), 0.0),
        found,
        Emit(Happened.FOUND, nobodys, ME),
        Settle(ME, AGAIN),
    )
    another = replace(nobodys, subject=None, expires_at=300.0, version=0)
    signing_in = replace(found, orders=(Order(ME, signs_out=False),), session=1)
    assert reduce(signing_in, Written(ME, 4, another))[1] == (Announce(ME, None),)


def test_an_empty_storage_says_that_nobody_is_signed_in() -> None:
    for version in (0, 3):
        reading = State(rules=RULES, flight=Flight(ME, 0, Phase.RESTORE))
        empty = State(rules=RULES, version=version, is_restored=True)
        expect(reading, Found(ME, version, None, 0.0), empty, Settle(ME, Refusal.NOT_SIGNED_IN))


def test_what_somebody_has_signed_out_of_is_not_restored() -> None:
    """The storage may have failed to remove it."""
    reading = there(None, Phase.RESTORE)
    expect(reading, Found(ME, 3, OLD, 0.0), there(None), Settle(ME, Refusal.NOT_SIGNED_IN))
    assert reduce(reading, Found(ME, 4, NEW, 0.0))[1] == (Announce(ME, "ada"),)


def test_what_is_still_the_same_is_refreshed() -> None:
    found = Found(ME, 3, replace(OLD, version=0), EXPIRED)
    expect(there(phase=Phase.READ), found, there(phase=Phase.CALL), Call(ME, OLD))


@pytest.mark.parametrize("phase", [Phase.READ, Phase.VERIFY, Phase.REREAD])
def test_tk2_what_another_process_has_refreshed_is_used(phase: Phase) -> None:
    after = there(NEW, version=4, announced=OLD)
    expect(
        there(phase=phase),
        Found(ME, 4, replace(NEW, version=0), 0.0),
        after,
        Emit(Happened.FOUND, NEW, ME),
        Settle(ME, NEW),
    )
    expect(
        there(phase=phase),
        Found(ME, 4, NEW, 195.0),  # It has expired as well: whoever waits refreshes that.
        after,
        Emit(Happened.FOUND, NEW, ME),
        Settle(ME, AGAIN),
    )


@pytest.mark.parametrize("phase", [Phase.READ, Phase.VERIFY, Phase.REREAD])
def test_where_another_process_has_signed_out_nobody_is_signed_in(phase: Phase) -> None:
    gone = Incoming(ME, None, Happened.FOUND, Refusal.NOT_SIGNED_IN)
    out = there(None, announced=OLD, version=4, incoming=gone)

    expect(there(phase=phase), Found(ME, 4, None, 0.0), out, Announce(ME, None))
    expect(
        out,
        Announced(ME),
        there(None, version=4),
        Emit(Happened.FOUND, None, ME),
        Settle(ME, Refusal.NOT_SIGNED_IN),
    )
    assert reduce(there(phase=phase), Found(ME, 3, None, 0.0))[1] == (Announce(ME, None),)


def test_where_another_process_has_signed_in_that_is_announced() -> None:
    after, effects = reduce(there(phase=Phase.READ), Found(ME, 4, BOBS, 0.0))

    assert effects == (Announce(ME, "bob"),)
    assert after == there(None, version=4, announced=OLD, incoming=Incoming(ME, BOBS, Happened.FOUND, BOBS))


# A refresh


def test_tk6_a_new_token_is_used_when_it_is_stored() -> None:
    storing = there(phase=Phase.STORE, pending=BROUGHT)

    expect(there(phase=Phase.CALL), RefreshSucceeded(ME, 3, BROUGHT), storing, Persist(ME, 3, BROUGHT))
    expect(
        storing,
        Stored(ME, 4),
        there(NEW, version=4, announced=OLD),
        Emit(Happened.REFRESHED, NEW, ME),
        Settle(ME, NEW),
    )


def test_a_refreshed_token_is_of_the_session_in_which_it_came() -> None:
    """Without a subject that tells whether a rejected call may be tried again with it."""
    mine = replace(OLD, subject=None, session=2)
    got = replace(NEW, subject=None, session=2)
    storing = there(mine, Phase.STORE, pending=replace(BROUGHT, subject=None), session=2)

    expect(
        storing,
        Stored(ME, 4),
        there(got, version=4, announced=mine, session=2),
        Emit(Happened.REFRESHED, got, ME),
        Settle(ME, got),
    )


def test_a_refresh_that_changes_the_identity_announces_it() -> None:
    storing = there(phase=Phase.STORE, pending=replace(BOBS, version=0))
    landing = there(None, version=4, announced=OLD, incoming=Incoming(ME, BOBS, Happened.REFRESHED, BOBS))

    expect(storing, Stored(ME, 4), landing, Announce(ME, "bob"))
    expect(
        landing,
        Announced(ME),
        there(BOBS, version=4),
        Emit(Happened.REFRESHED, BOBS, ME),
        Settle(ME, BOBS),
    )


def test_tk6_what_could_not_be_stored_is_stored_by_the_next_who_asks() -> None:
    storing = there(phase=Phase.STORE, pending=BROUGHT)
    kept = there(pending=BROUGHT, behind_after=60.0)

    expect(
        storing,
        StorageFailed(ME, 50.0),
        kept,
        Emit(Happened.REFRESH_FAILED, OLD, ME),
        Settle(ME, Refusal.STORAGE),
    )
    for ask in (TokenWanted(50.0, NEXT), Rejected(3, 50.0, NEXT), Forced(50.0, NEXT)):
        after = replace(kept, flight=Flight(NEXT, 3, Phase.STORE))
        expect(kept, ask, after, Wait(NEXT), Persist(NEXT, 3, BROUGHT))
    fixed = there(replace(OLD, is_refreshable=False), pending=BROUGHT)
    assert reduce(fixed, TokenWanted(0.0, NEXT))[1] == (Wait(NEXT), Persist(NEXT, 3, BROUGHT))
    assert plain_of(kept) is None


@pytest.mark.parametrize("phase", [Phase.STORE, Phase.REMOVE])
def test_whoever_wrote_at_the_same_time_was_first(phase: Phase) -> None:
    pending = BROUGHT if phase is Phase.STORE else None
    reading = there(phase=Phase.REREAD, pending=pending)

    expect(there(phase=phase, pending=pending), Overtaken(ME), reading, Read(ME, locks=False))
    assert reduce(reading, Found(ME, 4, NEW, 0.0))[0].pending is None


def test_a_storage_that_takes_nothing_and_does_not_say_why_has_failed() -> None:
    expect(
        there(phase=Phase.REREAD, pending=BROUGHT),
        Found(ME, 3, OLD, 50.0),
        there(pending=BROUGHT, behind_after=60.0),
        Emit(Happened.REFRESH_FAILED, OLD, ME),
        Settle(ME, Refusal.STORAGE),
    )


def test_a_refresh_that_failed_leaves_the_token() -> None:
    expect(
        there(phase=Phase.CALL),
        RefreshFailed(ME, is_final=False, now=50.0),
        there(behind_after=60.0),
        Emit(Happened.REFRESH_FAILED, OLD, ME),
        Settle(ME, Refusal.FAILED),
    )


def test_tk2_a_token_that_was_refused_for_good_is_removed_if_it_is_still_there() -> None:
    gone = Incoming(ME, None, Happened.EXPELLED, Refusal.FAILED)

    expect(
        there(phase=Phase.CALL),
        RefreshFailed(ME, is_final=True, now=0.0),
        there(phase=Phase.VERIFY),
        Read(ME, locks=False),
    )
    expect(there(phase=Phase.VERIFY), Found(ME, 3, OLD, 0.0), there(phase=Phase.REMOVE), Persist(ME, 3, None))
    expect(
        there(phase=Phase.REMOVE),
        Stored(ME, 4),
        there(None, announced=OLD, version=4, incoming=gone),
        Announce(ME, None),
    )
    expect(
        there(phase=Phase.REMOVE),
        StorageFailed(ME, 0.0),
        there(None, announced=OLD, incoming=gone),
        Announce(ME, None),
    )


def test_a_token_is_not_removed_where_the_storage_does_not_say_that_it_is_still_there() -> None:
    expect(
        there(phase=Phase.VERIFY),
        StorageFailed(ME, 50.0),
        there(behind_after=60.0),
        Emit(Happened.REFRESH_FAILED, OLD, ME),
        Settle(ME, Refusal.FAILED),
    )


@pytest.mark.parametrize("phase", [Phase.READ, Phase.REREAD, Phase.RESTORE])
def test_a_storage_that_cannot_be_read_fails_the_flight(phase: Phase) -> None:
    told = () if phase is Phase.RESTORE else (Emit(Happened.REFRESH_FAILED, OLD, ME),)
    expect(
        there(phase=phase),
        StorageFailed(ME, 50.0),
        there(behind_after=60.0),
        *told,
        Settle(ME, Refusal.STORAGE),
    )


def test_tk4_what_takes_too_long_fails_for_all_who_wait() -> None:
    expect(
        there(phase=Phase.CALL),
        TimedOut(ME, 50.0),
        there(behind_after=60.0),
        Emit(Happened.REFRESH_FAILED, OLD, ME),
        Settle(ME, Refusal.TIMED_OUT),
    )


def test_a_flight_that_was_stopped_is_begun_anew_by_those_who_wait() -> None:
    expect(there(phase=Phase.CALL), Aborted(ME), there(), Settle(ME, AGAIN))


def test_a_token_that_came_too_late_is_not_wasted() -> None:
    """The refresh token that it was got with may have been used up."""
    expect(
        there(),
        RefreshSucceeded(NEXT, 3, BROUGHT),
        replace(there(pending=BROUGHT), flight=Flight(NEXT, 3, Phase.STORE)),
        Persist(NEXT, 3, BROUGHT),
    )
    for before in (
        there(NEW, version=4),
        there(None),
        there(is_closed=True),
        there(pending=BROUGHT),
        there(orders=(Order(1, signs_out=True),)),
        there(phase=Phase.CALL),
        there(phase=Phase.READ),
    ):
        expect(before, RefreshSucceeded(NEXT, 3, BROUGHT), before)


REPORTS: list[Command] = [
    Found(NEXT, 4, NEW, 0.0),
    RefreshSucceeded(NEXT, 2, BROUGHT),
    RefreshFailed(NEXT, is_final=True, now=0.0),
    Stored(NEXT, 4),
    Overtaken(NEXT),
    StorageFailed(NEXT, 0.0),
    TimedOut(NEXT, 0.0),
    Aborted(NEXT),
    Announced(NEXT),
    Written(NEXT, 4, NEW),
    WriteFailed(NEXT),
]


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("phase", [None, *Phase])
def test_a_report_of_what_was_struck_changes_nothing(report: Command, phase: Phase | None) -> None:
    before = there(phase=phase)
    expect(before, report, before)


@pytest.mark.parametrize(
    ("report", "phases"),
    [
        (RefreshSucceeded(ME, 3, BROUGHT), set(Phase) - {Phase.CALL}),
        (RefreshFailed(ME, is_final=True, now=0.0), set(Phase) - {Phase.CALL}),
        (Stored(ME, 4), set(Phase) - {Phase.REMOVE}),
        (Overtaken(ME), set(Phase) - {Phase.STORE, Phase.REMOVE}),
    ],
)
def test_a_report_that_was_not_asked_for_changes_nothing(report: Command, phases: Iterable[Phase]) -> None:
    for phase in phases:
        before = there(phase=phase)
        expect(before, report, before)


# Signing in and out


@pytest.mark.parametrize("signs_out", [True, False])
def test_b35_who_signs_in_or_out_strikes_the_refresh(*, signs_out: bool) -> None:
    ordered = (Order(NEXT, signs_out),)
    for before in (there(phase=Phase.CALL), there(phase=Phase.STORE, pending=BROUGHT)):
        expect(before, Ordered(NEXT, signs_out), there(orders=ordered), Settle(ME, AGAIN), Write(NEXT))
    expect(there(), Ordered(NEXT, signs_out), there(orders=ordered), Write(NEXT))


def test_orders_come_one_after_the_other() -> None:
    one, two = Order(1, signs_out=False), Order(2, signs_out=True)
    both = there(orders=(one, two))

    expect(there(orders=(one,)), Ordered(2, signs_out=True), both)
    expect(both, Written(2, 9, None), both)
    expect(
        both,
        Written(1, 4, NEW),
        there(replace(NEW, session=1), version=4, announced=OLD, orders=(two,), session=1),
        Emit(Happened.SIGNED_IN, replace(NEW, session=1), 1),
        Settle(1, AGAIN),
        Write(2),
    )


def test_an_order_waits_for_an_announcement() -> None:
    before = there(None, announced=OLD, incoming=Incoming(5, BOBS, Happened.REFRESHED, BOBS))
    waiting = replace(before, orders=(Order(1, signs_out=True),))

    expect(before, Ordered(1, signs_out=True), waiting)
    expect(waiting, Written(1, 9, None), waiting)
    expect(
        waiting,
        Announced(5),
        there(BOBS, orders=(Order(1, signs_out=True),)),
        Emit(Happened.REFRESHED, BOBS, 5),
        Settle(5, AGAIN),
        Write(1),
    )


def test_who_signs_in_is_announced_first() -> None:
    mine = replace(BOBS, session=1)
    landing = there(None, announced=OLD, version=4, session=1, incoming=Incoming(1, mine, Happened.SIGNED_IN, AGAIN))

    expect(there(orders=(Order(1, signs_out=False),)), Written(1, 4, BOBS), landing, Announce(1, "bob"))
    expect(
        landing,
        Announced(1),
        there(mine, version=4, session=1),
        Emit(Happened.SIGNED_IN, mine, 1),
        Settle(1, AGAIN),
    )


def test_who_signs_in_without_a_subject_is_somebody_else() -> None:
    nobody = replace(OLD, subject=None)
    after, effects = reduce(there(nobody, orders=(Order(1, signs_out=False),)), Written(1, 4, nobody))

    assert effects == (Announce(1, None),)
    assert after.incoming is not None


def test_a_token_without_a_subject_makes_nobody_known() -> None:
    """Whoever tells the cache by hand who its user is may do so before."""
    nobody = replace(OLD, subject=None)
    expect(
        there(None, Phase.RESTORE, is_restored=False),
        Found(ME, 3, nobody, 0.0),
        there(nobody),
        Emit(Happened.FOUND, nobody, ME),
        Settle(ME, AGAIN),
    )
    assert reduce(there(nobody, orders=(Order(1, signs_out=True),)), Written(1, 4, None))[1] == (Announce(1, None),)


def test_who_signs_out_is_announced_first() -> None:
    leaving = there(orders=(Order(1, signs_out=True),))
    gone = Incoming(1, None, Happened.SIGNED_OUT, AGAIN)

    expect(leaving, Written(1, 4, None), there(None, announced=OLD, version=4, incoming=gone), Announce(1, None))
    expect(leaving, WriteFailed(1), there(None, announced=OLD, incoming=gone, is_blind=True), Announce(1, None))
    expect(leaving, WriteFailed(1, 9), there(None, announced=OLD, version=9, incoming=gone), Announce(1, None))
    expect(
        there(None, orders=(Order(1, signs_out=True),)),
        Written(1, 4, None),
        there(None, version=4),
        Emit(Happened.SIGNED_OUT, None, 1),
        Settle(1, AGAIN),
    )


def test_what_is_found_after_a_sign_out_that_could_not_look_is_of_who_signed_out() -> None:
    blind = there(None, Phase.RESTORE, is_blind=True)
    told = Settle(ME, Refusal.NOT_SIGNED_IN)
    expect(blind, Found(ME, 9, BOBS, VALID), there(None, version=9), told)
    expect(blind, Found(ME, 3, OLD, VALID), there(None), told)
    signing_in = there(None, is_blind=True, announced=BOBS, orders=(Order(1, signs_out=False),))
    state, _ = run(signing_in, Written(1, 9, BOBS))
    assert not state.is_blind


def test_who_could_not_sign_in_changes_nothing() -> None:
    one, two = Order(1, signs_out=False), Order(2, signs_out=True)
    expect(there(orders=(one,)), WriteFailed(1), there(), Settle(1, AGAIN))
    expect(there(orders=(one, two)), WriteFailed(1), there(orders=(two,)), Settle(1, AGAIN), Write(2))


# Laws

NOW = st.sampled_from([0.0, 80.0, 100.0, 180.0, 300.0])
VERSION = st.integers(0, 3)
HELD = st.builds(
    Held,
    st.sampled_from("abc"),
    st.sampled_from([100.0, 200.0, inf]),
    st.booleans(),
    st.sampled_from([None, "ada", "bob"]),
)
MAYBE = st.none() | HELD
RECENT = st.integers(1, 3)
"""Which of the ids, counted from the newest on."""

MOVES = st.one_of(
    st.builds(TokenWanted, NOW, st.just(0)),
    st.builds(Rejected, VERSION, NOW, st.just(0)),
    st.builds(Forced, NOW, st.just(0)),
    st.builds(Peek, st.just(0)),
    st.builds(TimerDue, st.sampled_from([0.0, 60.0]), NOW, st.just(0)),
    st.builds(Ordered, st.just(0), st.booleans()),
    st.builds(RefreshSucceeded, st.just(0), VERSION, HELD),
    st.just(Closed()),
    st.builds(Written, RECENT, VERSION, MAYBE),
    st.builds(WriteFailed, RECENT),
    st.builds(Found, RECENT, VERSION, MAYBE, NOW),
    st.builds(Found, RECENT, VERSION, MAYBE, NOW),
    st.builds(RefreshSucceeded, RECENT, VERSION, HELD),
    st.builds(RefreshSucceeded, RECENT, VERSION, HELD),
    st.builds(RefreshFailed, RECENT, st.booleans(), NOW),
    st.builds(Stored, RECENT, VERSION),
    st.builds(Overtaken, RECENT),
    st.builds(StorageFailed, RECENT, NOW),
    st.builds(TimedOut, RECENT, NOW),
    st.builds(Aborted, RECENT),
    st.builds(Announced, RECENT),
    st.builds(Announced, RECENT),
)


def told(moves: Iterable[Any]) -> Iterable[Command]:
    """The commands, each new id greater than all before it."""
    newest = 0
    for move in moves:
        name = next((field for field in move.__struct_fields__ if field.endswith("_id")), None)
        if name is None:
            yield move
        elif getattr(move, name) == 0:
            newest += 1
            yield replace(move, **{name: newest})
        else:
            yield replace(move, **{name: max(1, newest + 1 - getattr(move, name))})


def under_way(state: State) -> set[int]:
    ids = {order.order_id for order in state.orders}
    if state.flight is not None:
        ids.add(state.flight.flight_id)
    if state.incoming is not None:
        ids.add(state.incoming.source_id)
    return ids


def check(state: State, effect: Any) -> None:
    """What holds of `effect`, ordered together with `state`."""
    if isinstance(effect, Wait):
        assert effect.source_id in under_way(state), "nobody waits for nothing"
    if isinstance(effect, Use):
        assert effect.held == state.held
        assert not state.orders, "nobody gets what is being changed"
        assert not state.is_closed
        assert state.announced is not None
        assert is_same(effect.held, state.announced), "nobody gets what is not announced"
    if isinstance(effect, Settle) and isinstance(effect.outcome, Held):
        assert effect.outcome == state.held
        assert not state.orders
    if isinstance(effect, Persist | Call | Read):
        assert state.flight is not None
        assert effect.flight_id == state.flight.flight_id
    if isinstance(effect, Write):
        assert state.incoming is None
        assert effect.order_id == state.orders[0].order_id


@law(st.lists(MOVES, max_size=40))
def test_whatever_happens_the_laws_hold(moves: list[Any]) -> None:
    state = State(rules=RULES)
    for command in told(moves):
        before, (state, effects) = state, reduce(state, command)
        kinds = [type(effect) for effect in effects]

        assert (state, effects) == reduce(before, command), "it is deterministic"
        assert state is before or state != before, "unchanged, it is the same"
        answers = sum(kinds.count(kind) for kind in (Use, Refuse, Wait))
        if isinstance(command, Ask):
            assert answers == 1, "who asks is answered once"
        else:
            assert answers == (isinstance(command, Ordered) and before.is_closed), "and nobody else is"

        settled = [effect.source_id for effect in effects if isinstance(effect, Settle)]
        assert sorted(settled) == sorted(under_way(before) - under_way(state)), "what ends is settled, once"
        assert not (state.flight is not None and (state.orders or state.incoming)), "one thing at a time"
        assert state.pending is None or state.held is not None

        for effect in effects:
            check(state, effect)
        if isinstance(command, RefreshSucceeded):
            assert state.held is before.held, "nothing is used before it is stored"
        if before.is_closed:
            assert state.is_closed


@law(st.lists(MOVES, max_size=30), st.booleans())
def test_b35_nothing_that_was_got_before_an_order_lands_after_it(moves: list[Any], signs_out: bool) -> None:
    order_id = 99
    state, _ = run(State(rules=RULES), *(each for each in told(moves) if not isinstance(each, Closed)))
    state, _ = run(state, Ordered(order_id, signs_out))
    for _ in range(len(moves) + 1):  # Those that were there before come first.
        waits = [each.order_id for each in state.orders if each.order_id != order_id]
        first = WriteFailed(waits[0]) if waits else Written(order_id, 9, None if signs_out else BOBS)
        done = () if state.incoming is None else (Announced(state.incoming.source_id),)
        state, _ = run(state, *done, first)
    after, _ = run(state, *(Announced(source_id) for source_id in range(order_id + 1)))

    assert after.held is None if signs_out else after.held == replace(BOBS, version=9, session=after.session)
    for flight_id in range(order_id):
        for version in range(4):
            for late in (RefreshSucceeded(flight_id, version, BROUGHT), Stored(flight_id, version)):
                assert reduce(after, late) == (after, ())


class Process:
    """One of several that share a storage and an origin; `todo`: what the reducer has ordered, and is not done."""

    def __init__(self) -> None:
        self.state = State(rules=RULES)
        self.todo: list[Any] = []
        self.told: list[Any] = []
        self.newest = 0

    def hear(self, command: Command) -> None:
        self.state, effects = reduce(self.state, command)
        self.todo += [each for each in effects if isinstance(each, Read | Call | Persist | Announce)]
        self.told += [each for each in effects if isinstance(each, Settle | Refuse | Emit)]

    def ask(self, now: float) -> None:
        self.newest += 1
        self.hear(TokenWanted(now, self.newest))


class World:
    """A storage with one right to refresh, and an origin that takes each refresh token once. Tokens live 100 s."""

    def __init__(self, count: int) -> None:
        self.processes = [Process() for _ in range(count)]
        self.now = 0.0
        self.stored, self.version = Held(0, 100.0), 1
        self.holder: Process | None = None
        self.refreshes = 0

    def step(self, number: int) -> bool:
        """Do one of the things that are to be done. False: there is nothing, or it has to wait."""
        ready = [
            (process, effect) for process in self.processes for effect in process.todo if self.may(process, effect)
        ]
        if not ready:
            return False
        process, effect = ready[number % len(ready)]
        process.todo.remove(effect)
        process.hear(self.done(process, effect))
        if self.holder is process and process.state.flight is None:
            self.holder = None
        return True

    def may(self, process: Process, effect: Any) -> bool:
        return not (isinstance(effect, Read) and effect.locks) or self.holder in {None, process}

    def done(self, process: Process, effect: Any) -> Command:
        if isinstance(effect, Announce):
            return Announced(effect.source_id)
        if isinstance(effect, Read):
            self.holder = process if effect.locks else self.holder
            return Found(effect.flight_id, self.version, self.stored, self.now)
        if isinstance(effect, Call):
            if effect.held.token != self.refreshes:
                return RefreshFailed(effect.flight_id, is_final=True, now=self.now)
            self.refreshes += 1
            got = Held(self.refreshes, self.now + 100.0)
            return RefreshSucceeded(effect.flight_id, effect.held.version, got)
        if effect.expected != self.version:
            return Overtaken(effect.flight_id)
        assert effect.held is not None, "nobody is signed out"
        self.version, self.stored = self.version + 1, effect.held
        return Stored(effect.flight_id, self.version)


@law(st.integers(1, 4), st.lists(st.integers(0, 40), max_size=120))
def test_tk1_processes_that_share_a_storage_refresh_once_a_lifetime(count: int, choices: list[int]) -> None:
    """In whatever order their reads, refreshes and writes come; and nobody is ever refused."""
    world, lifetimes = World(count), 1
    for choice in choices:
        if choice == 0:
            world.now += 100.0
            lifetimes += 1
        elif choice <= 2 * count:
            world.processes[choice // 2 % count].ask(world.now)
        else:
            world.step(choice)
    while world.step(0):
        pass

    for process in world.processes:
        assert process.todo == []
        assert process.state.flight is None
        assert not [each for each in process.told if isinstance(each, Refuse)]
        settled = [each.outcome for each in process.told if isinstance(each, Settle)]
        assert not [each for each in settled if isinstance(each, Refusal)]
        emitted = {each.happened for each in process.told if isinstance(each, Emit)}
        assert emitted <= {Happened.FOUND, Happened.REFRESHED}
    assert world.refreshes < lifetimes


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(there(Held("secret"), pending=Held("secret")))
    assert repr(Held("secret", 1.0)) == (
        "Held(token=str, expires_at=1.0, is_refreshable=True, subject=None, version=0, session=0, lives_s=inf)"
    )
