"""The fetches of one `get_many` of a `SyncCache`, made as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from returns.result import Failure

from cachemesh.errors import FetchRaised
from cachemesh.shell.batch import Together, answers_of
from cachemesh.shell.live import WITHIN, Inside, inside_all
from cachemesh.shell.outcomes import judged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachemesh.shell.live import LiveFlight
    from cachemesh.shell.outcomes import Answer


class ThreadBatch(Together):
    """Calls `fetch_many` for the flights of one `get_many`."""

    def __init__(self, fetch_many: Callable[[tuple[str, ...]], Any]) -> None:
        self._fetch_many = fetch_many
        self.behind: list[LiveFlight] = []
        """The refreshes that nobody waits for."""

    def fetch(self) -> Answer:
        """The fetcher of one key, for a flight that is flown by itself."""
        inside = WITHIN.get()
        assert inside is not None
        return judged(fetched_together(self._fetch_many, [inside])[inside.key], inside.key)

    def attempt(self, flights: Sequence[Inside]) -> dict[str, Answer]:
        """Ask for the keys of all these flights at once."""
        return {key: judged(answer, key) for key, answer in fetched_together(self._fetch_many, flights).items()}


def fetched_together(fetch_many: Callable[[tuple[str, ...]], Any], flights: Sequence[Inside]) -> dict[str, Any]:
    """What one call brings for the keys of `flights`, made inside of all of them: none is asked for again."""
    keys = tuple(dict.fromkeys(each.key for each in flights))
    token = WITHIN.set(inside_all(flights))
    try:
        return answers_of(fetch_many(keys), keys)
    except Exception as error:  # noqa: BLE001 (whatever a fetcher raises is a Failure)
        return {key: Failure(FetchRaised(key, error)) for key in keys}
    finally:
        WITHIN.reset(token)
