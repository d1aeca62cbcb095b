"""What tests of a cache assert most often, with messages that say what was seen instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from returns.result import Result, Success

from cachemesh.shell.provenance import Served
from cachemesh.testing.scripted_origin import ScriptedOrigin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachemesh.testing.scripted_origin import Asked, Seen


def assert_one_flight(origin: ScriptedOrigin[Any, Any], key: str | None = None, *, times: int = 1) -> None:
    """However many asked, the origin was asked `times` times for `key` (None: for each key that was asked for).

    And never for the same key twice at once.

    >>> origin = ScriptedOrigin()
    >>> _ = [origin.sync_fetcher("feed")() for _ in range(2)]
    >>> assert_one_flight(origin, "feed")
    Traceback (most recent call last):
    ...
    AssertionError: 'feed': 1 request was expected, and 2 came:
      #1 at 0.0 s
      #2 at 0.0 s
    """
    __tracebackhide__ = True
    keys = {asked.key: None for asked in origin.asked} if key is None else {key: None}
    if not keys and times:
        msg = "the origin was asked for nothing at all"
        raise AssertionError(msg)
    for each in keys:
        asked = [request for request in origin.asked if request.key == each]
        if len(asked) != times:
            msg = f"{each!r}: {_counted(times)} expected, and {len(asked)} came{_listed(asked)}"
            raise AssertionError(msg)
    _check_at_once(origin, key)


def assert_never_two_at_once(origin: ScriptedOrigin[Any, Any], key: str | None = None) -> None:
    """No two requests for the same key (`key`, or any) were ever under way at one time.

    So that it cannot pass by a slip of the pen, it fails where nobody asked for `key`.

    >>> origin = ScriptedOrigin(lambda asked: origin.sync_fetcher("feed")() if asked.number == 1 else Success(2))
    >>> origin.sync_fetcher("feed")()
    <Success: 2>
    >>> assert_never_two_at_once(origin)
    Traceback (most recent call last):
    ...
    AssertionError: 'feed': 2 requests were under way at once:
      #1 at 0.0 s
      #2 at 0.0 s
    """
    __tracebackhide__ = True
    if key is not None and not origin.times(key):
        msg = f"the origin was not asked for {key!r}"
        raise AssertionError(msg)
    _check_at_once(origin, key)


def _check_at_once(origin: ScriptedOrigin[Any, Any], key: str | None) -> None:
    __tracebackhide__ = True
    for each in {asked.key: None for asked in origin.asked}:
        most = origin.most_at_once(each)
        if (key is None or each == key) and most > 1:
            listed = _listed([request for request in origin.asked if request.key == each])
            msg = f"{each!r}: {most} requests were under way at once{listed}"
            raise AssertionError(msg)


def assert_never_stale_beyond(seconds: float, seen: ScriptedOrigin[Any, Any] | Iterable[Any]) -> None:
    """No value that a caller was given was older than `seconds`.

    `seen`: an origin whose `seen` has noted what callers were given (a value
    is as old as the last request that brought one equal to it, so let them
    differ), or what `get_served` has answered. Failures are of no age. So that
    it cannot pass for want of anything seen, it fails where no value was; and
    where the origin was given no clock, and its own one has not been moved.

    >>> from cachemesh import SyncCache
    >>> from cachemesh.testing import VirtualClock
    >>> clock = VirtualClock()
    >>> origin = ScriptedOrigin(clock=clock)
    >>> with SyncCache(clock=clock, default_ttl=60) as cache:
    ...     for _ in range(5):
    ...         _ = origin.seen(cache.get("feed", origin.sync_fetcher("feed")))
    ...         clock.advance(25)
    >>> assert_never_stale_beyond(60, origin)
    >>> assert_never_stale_beyond(30, origin)
    Traceback (most recent call last):
    ...
    AssertionError: a value of 50.0 s was given to a caller, and 30 s were allowed:
      at 50.0 s: 'feed #1', answered at 0.0 s by request #1 for 'feed'
    """
    __tracebackhide__ = True
    if not seconds >= 0:
        msg = f"an age is a number of seconds from 0 on, not {seconds}"
        raise ValueError(msg)
    ages = list(_ages_at(seen) if isinstance(seen, ScriptedOrigin) else _ages_of(seen))
    if not ages:
        msg = "no caller was given a value, so nothing can be said of its age"
        raise AssertionError(msg)
    if isinstance(seen, ScriptedOrigin) and not seen.knows_time:
        msg = "no time has passed for the origin: give it the clock of the cache, as in ScriptedOrigin(clock=clock)"
        raise AssertionError(msg)
    too_old = [(age_s, told) for age_s, told in ages if age_s > seconds]
    if too_old:
        oldest = max(age_s for age_s, _ in too_old)
        listed = "\n  ".join(told for _, told in too_old[:5])
        more = f"\n  and {len(too_old) - 5} more" if len(too_old) > 5 else ""  # noqa: PLR2004 (as many as are listed)
        msg = f"a value of {oldest} s was given to a caller, and {seconds} s were allowed:\n  {listed}{more}"
        raise AssertionError(msg)


def _ages_at(origin: ScriptedOrigin[Any, Any]) -> Iterable[tuple[float, str]]:
    for seen in origin.seen_so_far:
        if isinstance(seen.answer, Success):
            yield _age_at(origin, seen)


def _age_at(origin: ScriptedOrigin[Any, Any], seen: Seen) -> tuple[float, str]:
    for ended in reversed(origin.answered):
        if ended.at <= seen.at and ended.answer == seen.answer:
            told = f"answered at {ended.at} s by request #{ended.asked.number} for {ended.asked.key!r}"
            return seen.at - ended.at, f"at {seen.at} s: {seen.answer.unwrap()!r}, {told}"
    msg = f"at {seen.at} s a caller was given {seen.answer.unwrap()!r}, which the origin had never answered"
    raise AssertionError(msg)


def _ages_of(seen: Iterable[Any]) -> Iterable[tuple[float, str]]:
    for each in seen:
        if isinstance(each, Result):
            if not isinstance(each, Success):
                continue
            served: Served[Any] = each.unwrap()
        else:
            served = each
        if not isinstance(served, Served):
            msg = f"only what get_served answers tells its age, not {type(served).__name__}"
            raise TypeError(msg)
        yield served.age, repr(served)


def _counted(times: int) -> str:
    return "1 request was" if times == 1 else f"{times} requests were"


def _listed(asked: list[Asked]) -> str:
    return "".join((":" if asked else "", *(f"\n  #{each.number} at {each.at} s" for each in asked[:20])))
