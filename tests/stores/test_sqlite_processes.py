"""`SqliteStore` shared by real processes, which come together, meet, and are killed."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import pytest

from cachemesh.core.scopes import GLOBAL_OWNER
from tests.stores.sqlite_children import Kills, answers, begin, clean, integrity
from tests.stores.sqlite_files import entry, using, value

if TYPE_CHECKING:
    from pathlib import Path

    from cachemesh.stores.sqlite import SqliteStore


def test_st2_no_kill_loses_what_was_flushed_or_damages_the_file(tmp_path: Path) -> None:
    """12 of them here, 200 in the soak."""
    kills = Kills()
    for seed in range(6):
        kills.add(tmp_path / "x.db", seed)
    assert kills.kills == 12
    assert kills.acknowledged > 100
    assert (kills.corrupt, kills.torn, kills.lost) == (0, 0, 0), kills
    assert list(clean(tmp_path / "x.db")) == []


def test_st8_b41_processes_that_do_everything_at_once_see_no_error(tmp_path: Path) -> None:
    """4 of 400 operations here, 8 of 10,000 in the soak; the first of them open the file at the same time."""
    path = tmp_path / "x.db"
    children = [begin("mix", path, seed, 400) for seed in range(4)]
    assert answers(children) == [{"wrong": 0, "reports": 0}] * 4
    assert integrity(path) == "ok"


def test_st8_b41_many_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    """10 here, 32 in the soak."""
    path = tmp_path / "folder" / "x.db"
    children = [begin("open_first", path, time.time() + 3.0) for _ in range(10)]
    assert answers(children) == [0] * 10
    assert integrity(path) == "ok"
    assert len(using(path, lambda store: store.keys(GLOBAL_OWNER))) == 10


def test_sf14_of_several_processes_one_fetches(tmp_path: Path) -> None:
    """4 processes and 20 keys here, 8 and 200 in the soak."""
    path = tmp_path / "x.db"
    starts_at = time.time() + 2.0
    children = [begin("fetch_rounds", path, 20, starts_at) for _ in range(4)]
    fetches = answers(children)
    assert [sum(each) for each in zip(*fetches, strict=True)] == [1] * 20


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
def test_sf14_after_a_holder_is_gone_the_next_one_leads_within_a_lease_and_a_second(
    tmp_path: Path, signal_number: signal.Signals
) -> None:
    path = tmp_path / "x.db"
    lease_s = 1.0

    async def act(store: SqliteStore) -> None:
        child = begin("hold", path, lease_s)
        try:
            assert child.stdout is not None
            assert await asyncio.to_thread(child.stdout.readline) == "true\n"
            child.send_signal(signal_number)
            began = time.monotonic()
            claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
            assert time.monotonic() - began <= lease_s + 1.0
            assert claim.token
            assert await store.commit(entry(), claim)
            assert await value(store) == b"1"
        finally:
            child.kill()
            await asyncio.to_thread(child.communicate)

    using(path, act)
