"""The one door: it knows every command, and opens for nothing else."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest
from msgspec import Struct

import cachemesh.core
from cachemesh.core import (
    Abandoned,
    Clear,
    Command,
    Directives,
    Effect,
    Evict,
    Forget,
    Get,
    Invalidate,
    State,
    commands,
    effects,
    reduce,
)
from cachemesh.core.reducer import HANDLERS
from tests.core.rows import members


def structs_in(module: Any) -> set[type]:
    """The classes that `module` defines."""
    own = (each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Struct))
    return {each for each in own if each.__module__ == module.__name__}


SAID = sorted(structs_in(commands) | structs_in(effects), key=attrgetter("__name__"))


def test_every_command_has_its_handler() -> None:
    assert set(HANDLERS) == set(members(Command)) == structs_in(commands) - {Directives}


def test_every_effect_is_in_the_union() -> None:
    assert set(members(Effect)) == structs_in(effects)


@pytest.mark.parametrize("each", SAID)
def test_whoever_embeds_the_core_finds_it_at_the_door(each: type) -> None:
    assert getattr(cachemesh.core, each.__name__) is each
    assert each.__name__ in cachemesh.core.__all__


@pytest.mark.parametrize("each", SAID)
def test_what_is_said_stays_said(each: type) -> None:
    """No command and no effect can be changed."""
    assert each.__struct_config__.frozen  # type: ignore[attr-defined]  # of every Struct


def test_the_door_names_nothing_that_is_not_there() -> None:
    assert sorted(set(cachemesh.core.__all__)) == sorted(cachemesh.core.__all__)
    assert all(hasattr(cachemesh.core, name) for name in cachemesh.core.__all__)


def test_alike_is_not_the_same() -> None:
    """A command is equal to its like only: not to another of the same fields."""
    owner = cachemesh.core.GLOBAL_OWNER
    forgotten: Any = Forget(owner, "feed")
    invalidated: Any = Invalidate("feed")

    assert Evict(owner, "feed") == Evict(owner, "feed")
    assert Evict(owner, "feed") != forgotten
    assert Get("feed", 0.0, 1) != Get("feed", 0.0, 2)
    assert Clear() != invalidated


def test_what_is_no_command_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        reduce(State(), "get feed")  # type: ignore[arg-type]  # on purpose


def test_nothing_comes_of_nothing() -> None:
    here: State[str] = State()

    assert reduce(here, Abandoned(1)) == (here, ())
