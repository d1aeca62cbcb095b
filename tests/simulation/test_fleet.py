"""The simulated fleet: it is deterministic, runs a thousand nodes, and finds nothing where nothing is wrong.

That it finds what is wrong is shown in `test_fleet_rules`. `make soak` has twenty
times as many seeds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest

from cachemesh.simulation.fleet import HEALTHY, Faults, Step, assert_sound, run_fleet, shrunk
from cachemesh.simulation.fleet.schedule import drawn


def test_fleet_a_healthy_one_fetches_each_key_once() -> None:
    for seed in range(40):
        assert_sound(run_fleet(seed, nodes=3, steps=20, faults=HEALTHY, ttl_s=3600.0))
        assert_sound(run_fleet(seed, nodes=2, steps=20, faults=HEALTHY))


def test_fleet_a_sound_run_is_as_short_as_it_gets() -> None:
    report = run_fleet(3, nodes=2, steps=10)
    assert shrunk(report) is report
    assert_sound(report)


def test_fleet_a_seed_is_a_run_to_the_last_message() -> None:
    for seed in range(10):
        first = run_fleet(seed)
        assert first == run_fleet(seed)
        assert first == run_fleet(seed, schedule=first.schedule)
    assert run_fleet(1).digest != run_fleet(2).digest


def test_fleet_a_seed_is_the_same_run_in_another_process() -> None:
    """Hashes of strings differ from one process to the next, and with them the order of sets."""
    program = "from cachemesh.simulation.fleet import run_fleet; print([run_fleet(s).digest for s in range(8)])"
    seen = {
        subprocess.run(  # noqa: S603 (our own program)
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": number},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in ("1", "2")
    }
    assert seen == {f"{[run_fleet(seed).digest for seed in range(8)]}\n"}


def test_fleet_of_a_thousand_nodes() -> None:
    began = time.monotonic()
    report = run_fleet(1, nodes=1_000, steps=40)
    took_s = time.monotonic() - began
    assert_sound(report)
    assert report.nodes == 1_000
    assert report.answered > 1_000
    assert report.messages > 10_000
    print(f"1,000 nodes: {took_s:.1f} s, {report.answered} answers, {report.messages} messages")  # noqa: T201 (the figure)


def test_fleet_what_a_claim_finds_is_not_believed_while_there_is_a_doubt() -> None:
    """A removal failed. A claim went out before it was made up for, and its answer arrived after that."""
    calm = Faults(lost=0.0, doubled=0.0, origin_fails=0.0)
    for seed in range(20):
        assert_sound(run_fleet(seed, nodes=1, faults=calm, schedule=DOUBTED))


DOUBTED = (
    Step(0.0, "ask", key="b"),
    Step(5.0, "cut", detail="requests"),
    Step(0.0, "invalidate", key="b"),
    Step(0.9, "ask", key="b"),
    Step(0.1, "mend"),
)


def test_fleet_every_kind_of_step_is_drawn() -> None:
    whats = {step.what for seed in range(100) for step in drawn(seed, 3, 40, Faults(), ["a", "b", "w0", "w1"])}
    changes = {"invalidate", "put", "tag", "clear", "switch"}
    faults = {"cut", "mend", "kill", "start", "stop_server", "start_server"}
    assert whats == {"ask", "ask_active"} | changes | faults
    whats = {step.what for seed in range(100) for step in drawn(seed, 3, 40, HEALTHY, ["a", "b", "w0", "w1"])}
    assert whats == {"ask", "ask_active"} | changes


def test_fleet_what_has_died_or_is_cut_off_is_there_again_at_the_end() -> None:
    """The last questions are answered by all, with what is true."""
    schedule = [
        Step(0.0, "ask", 0, "a"),
        Step(0.1, "cut", 1, detail="all"),
        Step(0.1, "kill", 0),
        Step(0.1, "stop_server"),
        Step(0.1, "invalidate", 2, "a"),
        Step(0.1, "ask", 2, "a"),
    ]
    report = run_fleet(5, nodes=3, faults=Faults(lost=0.0, origin_fails=0.0), schedule=schedule)
    assert_sound(report)
    assert report.answered >= 3 * 4 + 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nodes": 0}, "a fleet has at least one node"),
        ({"steps": -1}, "steps is a number from 0 on"),
        ({"ttl_s": float("nan")}, "ttl_s is a finite number of seconds above 0"),
        ({"ttl_s": 0.0}, "ttl_s is a finite number of seconds above 0"),
        ({"faults": Faults(lost=float("nan"))}, "lost is a share, from 0 to 1"),
        ({"faults": Faults(origin_fails=1.5)}, "origin_fails is a share, from 0 to 1"),
        ({"faults": Faults(skew=-1.0)}, "skew is a finite number of seconds from 0 on"),
        ({"schedule": [Step(0.0, "ask", 4, "a")]}, "node 4: ask a: there are nodes 0 to 3"),
        ({"schedule": [Step(0.0, "aks", 0, "a")]}, "node 0: aks a: no such step"),
        ({"schedule": [Step(0.0, "ask", 0, "c")]}, "node 0: ask c: keys are a, b, w0, w1"),
        ({"schedule": [Step(0.0, "cut", 0, detail="al")]}, "node 0: cut al: cuts are requests, replies, news, all"),
        ({"schedule": [Step(-1.0, "ask", 0, "a")]}, "node 0: ask a: time does not go back"),
        ({"schedule": [Step(0.0, "put", 0, "a")]}, "node 0: put a: values are put under keys with a w"),
    ],
)
def test_fleet_what_makes_no_sense_is_refused(options: dict[str, Any], says: str) -> None:
    """Rather than run without what was meant, and find nothing."""
    with pytest.raises(ValueError, match=says):
        run_fleet(1, **options)
