"""Fixtures for pytest, which finds them by itself where cachemesh is installed. Nothing is loaded before a test asks.

- `virtual_clock`: a `VirtualClock` in 2026.
- `virtual_run`: runs a coroutine on that clock, where waiting takes no time; the same loop for the whole test.
- `scripted_origin`: a `ScriptedOrigin` on that clock.
- `cache`, `async_cache`: a `Cache` on that clock, closed after the test.
- `sync_cache`: a `SyncCache` on that clock, closed after the test.

`cache` is also the name of a fixture of pytest's own. A test is given the one
of cachemesh if it asks for another of these fixtures too, or if its module has
imported something of cachemesh; otherwise that of pytest, so that nobody's
tests change because cachemesh is installed. `async_cache` is never pytest's.

A fixture of one of these names in a conftest.py or in a file of tests is the
one that counts there, as always. `-p no:cachemesh.testing.plugin` does without
all of them.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Iterator

    from cachemesh import Cache, SyncCache
    from cachemesh.testing.clock import VirtualClock
    from cachemesh.testing.scripted_origin import ScriptedOrigin

EPOCH_S: Final = 1_767_225_600.0
"""The first instant of 2026, so that rounding is what it is in life."""

OURS: Final = frozenset({"virtual_clock", "virtual_run", "scripted_origin", "async_cache", "sync_cache"})


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that moves only when it is told to, or when somebody waits."""
    from cachemesh.testing.clock import VirtualClock  # noqa: PLC0415 (not before a test asks)

    return VirtualClock(now=EPOCH_S)


@pytest.fixture
def virtual_runner(virtual_clock: VirtualClock) -> Iterator[asyncio.Runner]:
    """The event loop of the test, in virtual time."""
    import asyncio  # noqa: PLC0415 (not before a test asks)

    from cachemesh.testing.loop import VirtualLoop  # noqa: PLC0415 (not before a test asks)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(virtual_clock)) as runner:
        yield runner


@pytest.fixture
def virtual_run(virtual_runner: asyncio.Runner) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end, and answers what it answers."""
    return virtual_runner.run


@pytest.fixture
def scripted_origin(virtual_clock: VirtualClock) -> ScriptedOrigin[Any, Any]:
    """An origin that counts; give it a script with `answers`."""
    from cachemesh.testing.scripted_origin import ScriptedOrigin  # noqa: PLC0415 (not before a test asks)

    return ScriptedOrigin(clock=virtual_clock)


@pytest.fixture
def async_cache(virtual_clock: VirtualClock, request: pytest.FixtureRequest) -> Iterator[Cache]:
    """A cache for asyncio, closed in the loop of `virtual_run`."""
    from cachemesh import Cache  # noqa: PLC0415 (not before a test asks)

    runner: asyncio.Runner = request.getfixturevalue("virtual_runner")
    made = Cache(clock=virtual_clock)
    yield made
    runner.run(made.aclose())


@pytest.fixture
def sync_cache(virtual_clock: VirtualClock) -> Iterator[SyncCache]:
    """A cache for threads."""
    from cachemesh import SyncCache  # noqa: PLC0415 (not before a test asks)

    with SyncCache(clock=virtual_clock) as made:
        yield made


@pytest.fixture
def cache(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401 (a Cache, or pytest's)
    """`async_cache`, for a test that knows of cachemesh; pytest's own fixture for any other."""
    builtin = getattr(request.config, "cache", None)
    if builtin is None or OURS & set(request.fixturenames) or _knows_cachemesh(request.node):
        return request.getfixturevalue("async_cache")
    return builtin


def _knows_cachemesh(node: Any) -> bool:  # noqa: ANN401 (a Node; only some have a module)
    """Whether the module of a test has imported something of cachemesh."""
    names = vars(getattr(node, "module", None) or node).items()
    return any(_home_of(value).partition(".")[0] == "cachemesh" for name, value in names if not name.startswith("_"))


def _home_of(value: object) -> str:
    """The name of the module that `value` is, or is from; "" where it does not say."""
    try:
        home = getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", None)
    except Exception:  # noqa: BLE001 (a proxy that has nothing behind it yet: others' tests are not to fail by it)
        return ""
    return home if isinstance(home, str) else ""
