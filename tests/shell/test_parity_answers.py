"""Counterparts of the original's `result_test.dart`: what the cache answers is a `returns` Result, hit or miss.

The type itself is tested by its own project; here, that our answers are of it
and that a hit is as good as a fetch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from returns.pipeline import is_successful
from returns.result import Failure, Success

if TYPE_CHECKING:
    from tests.shell.faces import Answer, Face


@pytest.fixture(params=["fetched", "cached"])
def answers(request: pytest.FixtureRequest, face: Face) -> tuple[Answer, Answer]:
    """A success and a failure: straight from the fetch, and from the cache."""
    good, bad = face.fetcher(Success(42)), face.fetcher(Failure("boom"))
    for _ in range(1 if request.param == "fetched" else 2):
        pair = face.get("good", good), face.get("bad", bad, cache_failures=True)
    assert (good.calls, bad.calls) == (1, 1)
    return pair


def test_success_exposes_its_value_and_is_recognized(answers: tuple[Answer, Answer]) -> None:
    success, _ = answers

    assert is_successful(success)
    assert success.unwrap() == 42


def test_failure_exposes_its_error_and_is_recognized(answers: tuple[Answer, Answer]) -> None:
    _, failure = answers

    assert not is_successful(failure)
    assert failure.failure() == "boom"
    assert failure.value_or(None) is None


def test_a_fold_dispatches_to_the_right_branch(answers: tuple[Answer, Answer]) -> None:
    shown = [answer.map(lambda value: f"v={value}").lash(lambda error: Success(f"err={error}")) for answer in answers]

    assert shown == [Success("v=42"), Success("err=boom")]


def test_map_transforms_a_success_and_passes_a_failure_through(answers: tuple[Answer, Answer]) -> None:
    assert [answer.map(lambda value: value * 10) for answer in answers] == [Success(420), Failure("boom")]


def test_answers_are_equal_by_value_and_by_error(answers: tuple[Answer, Answer]) -> None:
    assert answers == (Success(42), Failure("boom"))
    assert answers[0] != Success(43)
    assert answers[1] != Failure("crash")
