"""Ten callers at once, one request to the origin. The fixtures come with cachemesh; no time passes for real."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from returns.result import Failure, Success

from cachemesh.testing import assert_one_flight

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh import Cache
    from cachemesh.testing import ScriptedOrigin


def test_ten_callers_share_one_request(
    cache: Cache, scripted_origin: ScriptedOrigin, virtual_run: Callable[..., Any]
) -> None:
    scripted_origin.takes = 30.0  # Virtual seconds: the test takes milliseconds.
    fetch = scripted_origin.fetcher("user:1")

    async def ten_at_once() -> list[Any]:
        answers: list[Any] = await asyncio.gather(*(cache.get("user:1", fetch) for _ in range(10)))
        return answers

    assert virtual_run(ten_at_once()) == [Success("user:1 #1")] * 10
    assert_one_flight(scripted_origin, "user:1")


def test_a_caller_who_gives_up_takes_nobody_along(
    cache: Cache, scripted_origin: ScriptedOrigin, virtual_run: Callable[..., Any]
) -> None:
    fetch = scripted_origin.fetcher("user:1")

    async def one_of_two_gives_up() -> Any:  # noqa: ANN401 (what the cache answers)
        scripted_origin.hold()  # The origin does not answer before it is released.
        patient, impatient = (asyncio.create_task(cache.get("user:1", fetch)) for _ in range(2))
        await scripted_origin.reached(1)
        impatient.cancel()
        scripted_origin.release()
        return await patient

    assert virtual_run(one_of_two_gives_up()) == Success("user:1 #1")


def test_a_failure_is_not_cached(
    cache: Cache, scripted_origin: ScriptedOrigin, virtual_run: Callable[..., Any]
) -> None:
    scripted_origin.answers(Failure("busy"), Success("news"))
    fetch = scripted_origin.fetcher("feed")

    assert virtual_run(cache.get("feed", fetch)) == Failure("busy")
    assert virtual_run(cache.get("feed", fetch)) == Success("news")
    assert_one_flight(scripted_origin, "feed", times=2)
