"""The parent of a fleet: starts processes, tells them what to do, and judges what they have seen.

with Fleet(8, folder) as fleet:
    seen = fleet.all("mix", store=server.url, requests=1_000)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from tests.stores.fleet_children import MEMORY_CAP_S, REQUESTS, TTL_S, Origin, some_places

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

ROOT: Final = Path(__file__).resolve().parent.parent.parent


class Process:
    """One of them, as its parent has it."""

    def __init__(self, number: int, origin: Path) -> None:
        command = [sys.executable, "-m", "tests.stores.fleet_children", str(number), str(origin)]
        self._stderr = origin.with_name(f"stderr-{number}")
        with self._stderr.open("ab") as file:
            self.popen = subprocess.Popen(  # noqa: S603 (our own program)
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
            )

    def begin(self, role: str, **options: Any) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps({"role": role, **options}) + "\n")
        self.popen.stdin.flush()

    def answer(self) -> Any:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, self.said()
        return json.loads(line)

    def said(self) -> str:
        """On stderr."""
        return self._stderr.read_text(errors="replace")

    def end(self) -> int | None:
        """Let it come to its end. What it ended with; None if it did not."""
        with suppress(subprocess.TimeoutExpired):
            self.popen.communicate(timeout=30)
        code = self.popen.returncode
        self.kill()
        return code

    def kill(self) -> None:
        if self.popen.returncode is None:
            self.popen.kill()
            self.popen.communicate()


class Fleet:
    """Processes that do what they are told, and the origin that they ask. A word on stderr fails."""

    def __init__(self, size: int, folder: Path) -> None:
        self.path = folder / "origin"
        self.origin = Origin(self.path)
        self.processes = [Process(number, self.path) for number in range(size)]

    def begin(self, role: str, **options: Any) -> None:
        for process in self.processes:
            process.begin(role, **options)

    def answers(self) -> list[Any]:
        try:
            return [process.answer() for process in self.processes]
        except BaseException:
            self.kill()
            sys.stderr.write("".join(process.said() for process in self.processes))
            raise

    def all(self, role: str, **options: Any) -> list[Any]:
        """What each of them answers."""
        self.begin(role, **options)
        return self.answers()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
            return
        ends = [(process.end(), process.said()) for process in self.processes]
        assert ends == [(0, "")] * len(ends)


# What must hold


def assert_kept_apart(seen: list[Any]) -> None:
    """No value of somebody else's, no exception, no failure, nothing but a `Result`."""
    for each in seen:
        assert (each["foreign"], each["strange"], each["failures"]) == ([], [], {})
        assert each["values"] > 0


def assert_none_too_old(seen: list[Any], told_s: float = MEMORY_CAP_S) -> None:
    """A value that was invalidated is served for `told_s` at the most, and any other for the cap and its ttl."""
    for each in seen:
        assert each["oldest_s"]["told"] <= told_s, each
        assert max(each["oldest_s"]["put"], each["oldest_s"]["ahead"]) <= MEMORY_CAP_S + TTL_S, each


def assert_healthy(seen: list[Any]) -> None:
    """No call of the store failed."""
    assert [each["store_failures"] for each in seen] == [{}] * len(seen)


def figures(seen: list[Any]) -> str:
    """In one line."""
    requests = sum(each["requests"] for each in seen)
    values = sum(each["values"] for each in seen)
    kinds = seen[0]["oldest_s"]
    oldest = ", ".join(f"{kind} {max(each['oldest_s'][kind] for each in seen):.2f} s" for kind in kinds)
    failed = sum(sum(each["store_failures"].values()) for each in seen)
    foreign = sum(len(each["foreign"]) for each in seen)
    return f"{requests} requests, {values} values, {foreign} foreign; oldest: {oldest}; {failed} store failures told"


def one_fetch_a_generation(fleet: Fleet, store: str, rounds: int, keys: int) -> None:
    """All ask for all keys; then all is changed and invalidated, and they ask again."""
    fleet.origin.forget()
    seen = fleet.all("generations", store=store, processes=len(fleet.processes), rounds=rounds, keys=keys)
    assert_kept_apart(seen)
    assert_healthy(seen)
    assert {place: fleet.origin.fetches(place) for place in some_places(keys)} == {
        place: [1] * rounds + [0] for place in some_places(keys)
    }


def one_fetch_a_round(fleet: Fleet, store: str, rounds: int) -> None:
    """All ask for one key at the same time."""
    fleet.origin.forget()
    seen = fleet.all("fetch_rounds", store=store, processes=len(fleet.processes), rounds=rounds)
    assert_kept_apart(seen)
    assert_healthy(seen)
    assert [fleet.origin.fetches(place) for place in some_places(rounds)] == [[1]] * rounds


def next_leader_after_a_kill(fleet: Fleet, store: str, number: int, lease_s: float = 0.5) -> None:
    """Process `number` is killed while it fetches; all others wait for its answer. The longest of them."""
    fleet.origin.forget()
    holder = Process(number, fleet.path)
    try:
        holder.begin("hold", store=store, number=number, lease=lease_s)
        assert holder.answer() == "it fetches"
        fleet.begin("follow", store=store, number=number, lease=lease_s)
        time.sleep(0.2)  # They are waiting.
    finally:
        holder.kill()
    seen = fleet.answers()
    assert_kept_apart([each["tally"] for each in seen])
    assert_healthy([each["tally"] for each in seen])
    assert max(each["took_s"] for each in seen) <= lease_s + 1.0, seen
    # Who has waited for a whole lease fetches beside the next leader: better twice than never. Afterwards nobody does.
    (fetches,) = fleet.origin.fetches(some_places(number + 1)[-1])
    assert 1 <= fetches <= len(fleet.processes)


def while_they_ask(fleet: Fleet, requests: int, act: Callable[[], None], times: int) -> None:
    """`act`, `times` times while `requests` are made by all of them together."""
    for number in range(times):
        due = requests * (number + 1) // (times + 2)
        deadline = time.monotonic() + 600.0
        while fleet.origin.counters[REQUESTS] < due:
            assert time.monotonic() < deadline, "they do not go on"
            time.sleep(0.01)
        act()
