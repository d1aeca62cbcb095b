"""The long variants of what several caches that share a store promise: `make soak`.

`CACHEMESH_SEEDS=100` makes them shorter.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any, Final

import pytest

from cachemesh.shell import health
from tests.stores.simulated import KEYS, swizzled
from tests.stores.test_scenarios_news import NODES, added_by_a_flapping_server, play

SEEDS: Final = int(os.environ.get("CACHEMESH_SEEDS", "100000"))


def some_steps(rng: random.Random) -> list[tuple[Any, ...]]:
    steps: list[tuple[Any, ...]] = []
    for _ in range(rng.randrange(40)):
        node, number = rng.randrange(NODES), rng.randrange(6)
        match rng.randrange(8):
            case 0 | 1 | 2:
                steps.append(("ask", node, rng.choice(KEYS)))
            case 3 | 4:
                steps.append(("reply", number, number))
            case 5:
                steps.append((rng.choice(["invalidate", "put", "tag", "clear"]), node, rng.choice(KEYS)))
            case 6:
                steps.append(("deliver", node, number))
            case _:
                steps.append((rng.choice(["lose", "double", "notice"]), node, number))
    return steps


def test_rd1_rd4_a_hundred_thousand_seeds() -> None:
    for seed in range(SEEDS):
        try:
            asyncio.run(play(some_steps(random.Random(seed))))
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


def test_rd12_ten_thousand_seeds_of_five_nodes_and_a_hundred_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COOL_DOWN_S", "LONGEST_REST_S"):
        monkeypatch.setattr(health, name, 0.02)
    for seed in range(SEEDS // 10):
        assert asyncio.run(swizzled(seed, nodes=5, keys=100)) <= 2.0, seed


@pytest.mark.parametrize("face_name", ["async", "sync"])
def test_rd13_an_open_breaker_adds_five_milliseconds_at_most(face_name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert added_by_a_flapping_server(face_name, caplog, 0.99) <= 0.005
