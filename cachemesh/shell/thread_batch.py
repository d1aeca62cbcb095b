"""The fetches of one `get_many` of a `SyncCache`, made as one."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from returns.result import Failure

from cachemesh.errors import FetchRaised
from cachemesh.shell.batch import answers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cachemesh.shell.outcomes import Answer


class ThreadBatch:
    """The first of the expected keys that is fetched fetches all of them; any other one is fetched alone."""

    def __init__(self, fetch_many: Callable[[tuple[str, ...]], Any]) -> None:
        self._fetch_many = fetch_many
        self._expected: tuple[str, ...] = ()
        self._answers: Future[dict[str, Answer]] | None = None
        self._taken: set[str] = set()
        self._lock = Lock()

    def expect(self, keys: Iterable[str]) -> None:
        """These are going to be fetched."""
        self._expected = tuple(keys)

    def fetch(self, key: str) -> Callable[[], Answer]:
        """The fetcher of one key."""
        return partial(self._fetch, key)

    def _fetch(self, key: str) -> Answer:
        with self._lock:
            is_shared = key in self._expected and key not in self._taken
            self._taken.add(key)
            calls = is_shared and self._answers is None
            if calls:
                self._answers = Future()
        if not is_shared:
            return self._called((key,))[key]
        assert self._answers is not None
        if calls:
            answers: dict[str, Answer] = {}
            try:
                answers = self._called(self._expected)
            finally:
                self._answers.set_result(answers)
        found = self._answers.result()
        return found[key] if key in found else self._called((key,))[key]

    def _called(self, keys: tuple[str, ...]) -> dict[str, Answer]:
        try:
            return answers_of(self._fetch_many(keys), keys)
        except Exception as error:  # noqa: BLE001 (whatever a fetcher raises is a Failure)
            return {key: Failure(FetchRaised(key, error)) for key in keys}
