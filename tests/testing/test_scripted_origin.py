"""`ScriptedOrigin`: the same answers, counts and conditions for both faces."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Success

from cachemesh import CachePolicy, SyncCache
from cachemesh.testing import Deadlock, OriginDown, ScriptedOrigin, VirtualClock, assert_one_flight, run
from cachemesh.testing.gate import Gate

if TYPE_CHECKING:
    from tests.shell.faces import Face


def fetcher(face: Face, origin: ScriptedOrigin[Any, Any], key: str = "k") -> Any:
    """A fetcher of the kind that `face` takes."""
    return origin.fetcher(key) if face.name == "async" else origin.sync_fetcher(key)


def test_it_answers_by_its_script_and_the_last_outcome_repeats(face: Face) -> None:
    origin = ScriptedOrigin(Success(1), Failure("busy"), lambda asked: Success(asked.number * 10))
    answers = [face.get("k", fetcher(face, origin), policy=CachePolicy.NETWORK_ONLY) for _ in range(4)]

    assert answers == [Success(1), Failure("busy"), Success(30), Success(40)]
    assert [(asked.key, asked.number) for asked in origin.asked] == [("k", 1), ("k", 2), ("k", 3), ("k", 4)]


def test_without_a_script_each_answer_differs(face: Face) -> None:
    origin = ScriptedOrigin()

    assert face.get("a", fetcher(face, origin, "a")) == Success("a #1")
    assert face.refresh("a", fetcher(face, origin, "a")) == Success("a #2")
    assert face.get("b", fetcher(face, origin, "b")) == Success("b #1")


def test_what_it_raises_comes_as_a_failure_of_the_cache(face: Face) -> None:
    origin = ScriptedOrigin(KeyError("x"))

    answer = face.get("k", fetcher(face, origin))

    assert isinstance(answer, Failure)
    assert origin.answered[0].answer is None


def test_an_answer_takes_virtual_seconds(face: Face) -> None:
    origin = ScriptedOrigin(clock=face.clock, takes=lambda asked: asked.number * 60.0)
    begun_at = face.clock()

    face.get("k", fetcher(face, origin), ttl=None)
    face.refresh("k", fetcher(face, origin))

    assert face.clock() - begun_at == 180.0
    assert [ended.at - ended.asked.at for ended in origin.answered] == [60.0, 120.0]


def test_one_that_is_down_answers_so_and_goes_on_where_it_was_left(face: Face) -> None:
    origin = ScriptedOrigin(Success("first"), Success("second"))
    always = {"policy": CachePolicy.NETWORK_ONLY}

    first = face.get("k", fetcher(face, origin), **always)
    with origin.down():
        during = face.get("k", fetcher(face, origin), **always)
    with origin.down(Failure(503)):
        own = face.get("k", fetcher(face, origin), **always)
    after = face.get("k", fetcher(face, origin), **always)

    assert (first, during, own, after) == (
        Success("first"),
        Failure(OriginDown()),
        Failure(503),
        Success("second"),
    )
    assert origin.times() == 4, "an origin that is down is asked all the same"


def test_a_script_of_one_key_leaves_the_others_alone(face: Face) -> None:
    origin = ScriptedOrigin(Success("any"))
    origin.answers(Success("mine"), key="me")
    mine = face.get("me", fetcher(face, origin, "me"))
    other = face.get("k", fetcher(face, origin))
    origin.answers(Success("newer"))

    assert (mine, other) == (Success("mine"), Success("any"))
    assert face.refresh("k", fetcher(face, origin)) == Success("newer")
    assert face.refresh("me", fetcher(face, origin, "me")) == Success("mine")


def test_who_is_held_waits_and_all_the_others_join(face: Face) -> None:
    origin = ScriptedOrigin(held=True)
    fetch = fetcher(face, origin)

    answers = face.concurrently(5, lambda begin: begin.get("k", fetch), origin.release)

    assert answers == [Success("k #1")] * 5
    assert_one_flight(origin, "k")


def test_only_the_key_that_is_held_waits(face: Face) -> None:
    origin = ScriptedOrigin()
    origin.hold("slow")
    slow = face.begin.get("slow", fetcher(face, origin, "slow"))

    assert face.get("fast", fetcher(face, origin, "fast")) == Success("fast #1")
    assert (slow.is_done, origin.under_way(), origin.under_way("slow")) == (False, 1, 1)
    origin.release("slow")
    assert slow.result() == Success("slow #1")
    assert origin.under_way() == 0


def test_a_conditional_fetcher_is_handed_what_there_was(face: Face) -> None:
    origin = ScriptedOrigin()
    for _ in range(2):
        face.refresh("k", fetcher(face, origin), conditional=True)

    (first,), (second,) = (asked.arguments for asked in origin.asked)
    assert first is None
    assert second.value == "k #1"


def test_a_request_that_is_cancelled_is_over() -> None:
    async def main() -> None:
        origin = ScriptedOrigin(held=True)
        call = asyncio.create_task(origin.fetcher("k")())
        await origin.reached(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (origin.under_way(), origin.answered[0].answer) == (0, None)
        origin.release()

    run(main())


def test_who_waits_for_what_never_comes_is_told_so() -> None:
    origin = ScriptedOrigin(held=True)

    with pytest.raises(Deadlock, match="reached"):
        run(origin.reached(1))
    with pytest.raises(Deadlock, match="fetch"):
        run(origin.fetcher()())
    with pytest.raises(TimeoutError, match="asked 1 times, not 2, after 0"):
        origin.wait_until_reached(2, patience_s=0.0)
    with pytest.raises(TimeoutError, match="nobody opened the gate"):
        closed_gate().wait(0.0)


def test_a_gate_may_be_opened_after_a_loop_that_waited_is_gone() -> None:
    gate = closed_gate()
    with pytest.raises(Deadlock):
        run(gate.passed())

    gate.open()

    run(gate.passed())


def test_a_thread_waits_until_it_is_asked() -> None:
    origin = ScriptedOrigin(held=True)
    answers: list[Any] = []
    with SyncCache() as cache:
        caller = threading.Thread(target=lambda: answers.append(cache.get("k", origin.sync_fetcher("k"))))
        caller.start()
        origin.wait_until_reached(1)
        origin.release()
        caller.join(5.0)

    assert answers == [Success("k #1")]


def test_what_it_was_called_with_is_not_shown() -> None:
    origin = ScriptedOrigin(clock=VirtualClock(now=2.0))
    origin.sync_fetcher("k")("s3cret")

    assert repr(origin.asked) == "(Asked('k', number=1, at=2.0),)"
    assert origin.asked[0].arguments == ("s3cret",)
    assert repr(origin) == "ScriptedOrigin(up, asked 1 times, 0 under way)"
    origin.go_down()
    assert repr(origin) == "ScriptedOrigin(down, asked 1 times, 0 under way)"


def closed_gate() -> Gate:
    gate = Gate()
    gate.shut()
    return gate


@pytest.mark.parametrize("outcome", ["news", ValueError, [Success(1)], None])
def test_what_is_no_outcome_is_refused_at_once(outcome: Any) -> None:
    """A cache would take what goes wrong in a fetcher for a failure of the origin."""
    for say in (ScriptedOrigin, ScriptedOrigin().answers):
        with pytest.raises(TypeError, match="an outcome is a Result, an exception or a function"):
            say(outcome)
    if outcome is not None:
        with pytest.raises(TypeError, match="an outcome is a Result, an exception or a function"):
            ScriptedOrigin().go_down(outcome)


def test_counting_does_not_look_at_every_request() -> None:
    """Load tests make many: each one counts in the same time."""
    origin = ScriptedOrigin()
    fetch = origin.sync_fetcher("k")
    looks = 0

    class Watched(list[Any]):
        def __iter__(self) -> Any:
            nonlocal looks
            looks += 1
            return super().__iter__()

    origin._asked = Watched()
    for _ in range(5):
        fetch()

    assert (looks, origin.times("k"), origin.asked[-1].number) == (0, 5, 5)
