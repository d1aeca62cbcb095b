"""`SyncCache`: the same cache for threads, without `await`.

The thread that starts a fetch runs it; the others that ask meanwhile wait for
it. A hit takes no lock.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from returns.result import Failure, Result, Success

from cachemesh import CachePolicy, CacheScope, FetchTimeout, RetryOptions, SyncCache
from cachemesh.testing import VirtualClock


class Origin:
    """Slow, and it counts how many ask at the same time."""

    def __init__(self) -> None:
        self.requests = 0
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def report(self) -> Result[str, str]:
        with self._lock:
            self.requests += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.05)
        with self._lock:
            self.at_once -= 1
        return Success("the report")


def share_a_fetch() -> None:
    """A hundred threads ask for one key: one request."""
    origin = Origin()
    with SyncCache() as cache, ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: cache.get("report", origin.report, ttl=60), range(100)))
    assert answers == [Success("the report")] * 100
    assert origin.requests == 1


def refresh_behind() -> None:
    """stale_while_revalidate answers at once, and refreshes in a thread of its own."""
    clock, origin = VirtualClock(), Origin()
    with SyncCache(clock=clock, default_ttl=60) as cache:
        cache.get("report", origin.report)
        clock.advance(60)
        refreshed = threading.Event()
        cache.watch("report").subscribe(lambda _: refreshed.set())
        with ThreadPoolExecutor(20) as pool:
            for answer in pool.map(lambda _: ask_stale(cache, origin), range(20)):
                assert answer == Success("the report")
        assert refreshed.wait(5)
    assert (origin.requests, origin.most_at_once) == (2, 1)


def ask_stale(cache: SyncCache, origin: Origin) -> Result[str, object]:
    return cache.get("report", origin.report, policy=CachePolicy.STALE_WHILE_REVALIDATE)


def retry_in_no_time() -> None:
    """A clock that can sleep is what retries wait with: two hours of back-off take none."""
    clock = VirtualClock()
    attempts: list[float] = []
    answers = iter([Failure("busy"), Failure("busy"), Failure("busy"), Success("at last")])

    def flaky() -> Result[str, str]:
        attempts.append(clock())
        return next(answers)

    patient = RetryOptions(max_attempts=5, delay=3600, backoff_factor=2, max_delay=7200)
    with SyncCache(clock=clock, retry=patient) as cache:
        assert cache.get("report", flaky) == Success("at last")
    assert attempts == [0.0, 3600.0, 10800.0, 18000.0]


def give_up_in_time() -> None:
    """A thread cannot be stopped, but nobody has to wait for it."""
    hurry = RetryOptions(max_attempts=1, attempt_timeout=0.02)
    hang = threading.Event()

    def hangs() -> Result[str, str]:
        hang.wait(5)
        return Success("too late")

    with SyncCache() as cache:
        assert cache.get("report", hangs, retry=hurry) == Failure(FetchTimeout("report", 0.02))
        hang.set()


def serve_many_users() -> None:
    """One view a user: the same key, a value each."""
    with SyncCache() as cache, ThreadPoolExecutor(8) as pool:

        def profile_of(user: str) -> Result[str, object]:
            return cache.for_user(user).get("me", lambda: Success(f"I am {user}"), scope=CacheScope.USER)

        users = ["ada", "bob", "eve"] * 20
        assert list(pool.map(profile_of, users)) == [Success(f"I am {user}") for user in users]
        assert cache.active_user_id is None


if __name__ == "__main__":
    share_a_fetch()
    refresh_behind()
    retry_in_no_time()
    give_up_in_time()
    serve_many_users()
    print("threads: shared, refreshed, retried, timed out, and kept apart")
