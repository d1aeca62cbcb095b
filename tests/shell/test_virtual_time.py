"""The clock and the loop that the other tests stand on."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from cachemesh.testing.clock import VirtualClock
from cachemesh.testing.loop import Deadlock, VirtualLoop, run

EPOCH = 1_767_225_600.1


def test_a_clock_moves_only_when_told_to() -> None:
    clock = VirtualClock(now=5)
    assert clock() == clock() == 5.0

    clock.advance(1.5)
    clock.sleep(3600)
    assert clock() == 3606.5


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("inf")])
def test_a_clock_never_goes_back_nor_out_of_reach(seconds: float) -> None:
    clock = VirtualClock()
    for move in (clock.advance, clock.sleep):
        with pytest.raises(ValueError, match="finite"):
            move(seconds)

    assert clock() == 0.0


def test_a_clock_loses_no_second_between_threads() -> None:
    clock = VirtualClock()

    def tick() -> None:
        for _ in range(1000):
            clock.advance(1)

    threads = [threading.Thread(target=tick) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert clock() == 8000


@pytest.mark.parametrize("now", [0.0, EPOCH, 1e12])
def test_sleeping_takes_no_time_and_moves_the_clock_exactly(now: float) -> None:
    clock = VirtualClock(now)
    began = time.monotonic()
    run(asyncio.sleep(0.3), clock=clock)
    run(asyncio.sleep(86_400 * 3), clock=clock)

    assert clock() == now + 0.3 + 86_400 * 3
    assert time.monotonic() - began < 5


def test_timers_end_in_the_order_of_their_instants() -> None:
    ended: list[tuple[float, float]] = []

    async def main() -> None:
        async def nap(seconds: float) -> None:
            await asyncio.sleep(seconds)
            ended.append((seconds, clock()))

        await asyncio.gather(*(nap(seconds) for seconds in (3, 1, 2, 1)))

    clock = VirtualClock()
    run(main(), clock=clock)

    assert ended == [(1, 1.0), (1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_timeout_runs_in_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.sleep(60)
        return asyncio.get_running_loop().time()

    assert run(main(), clock=VirtualClock(EPOCH)) == EPOCH + 30


def test_no_time_passes_while_something_is_ready() -> None:
    async def main() -> float:
        timer = asyncio.get_running_loop().call_later(1, lambda: None)
        for _ in range(1000):
            await asyncio.sleep(0)
        timer.cancel()
        return asyncio.get_running_loop().time()

    assert run(main()) == 0.0


def test_a_clock_moved_by_hand_makes_timers_due() -> None:
    async def main() -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        loop.call_later(10, seen.append, "due")
        clock.advance(10)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return seen

    clock = VirtualClock(EPOCH)
    assert run(main(), clock=clock) == ["due"]


def test_settling_lets_a_chain_of_tasks_end_and_no_time_pass() -> None:
    async def main() -> tuple[bool, bool, float]:
        async def chain(links: int) -> None:
            if links:
                await asyncio.create_task(chain(links - 1))

        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        chained, sleeping = loop.create_task(chain(20)), loop.create_task(asyncio.sleep(1))
        await loop.settle()
        return chained.done(), sleeping.done(), loop.time()

    assert run(main()) == (True, False, 0.0)


def test_a_loop_that_would_wait_for_ever_says_who_waits() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"forgotten at .*test_virtual_time\.py:\d+") as caught:
        run(forgotten())
    assert len(caught.value.waiting) == 1


def test_a_thread_may_wake_a_loop_that_expects_it() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        threading.Thread(target=lambda: loop.call_soon_threadsafe(answer.set_result, "woken")).start()
        return await answer

    assert run(main(), threads=True) == "woken"


def test_virtual_time_stands_still_while_an_executor_works() -> None:
    going_on = threading.Event()

    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        loop.call_soon(going_on.set)
        async with asyncio.timeout(0.001):
            await asyncio.to_thread(going_on.wait, 5)
        return "done", loop.time()

    assert run(main()) == ("done", 0.0)


def test_an_executor_thread_that_waits_for_a_timer_does_not_hang_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachemesh.testing.loop.PATIENCE_S", 0.01)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(asyncio.sleep(60), loop).result(5))
        return loop.time()

    assert run(main()) == 60.0
