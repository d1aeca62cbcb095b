"""What every test may ask for: a clock that it moves itself, and a cache of either face."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cachemesh import Cache, SyncCache
from cachemesh.testing.clock import VirtualClock
from cachemesh.testing.loop import VirtualLoop
from tests.shell.faces import AsyncFace, Face, Recorder, SyncFace

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def clock() -> VirtualClock:
    """A clock at a date in 2026, so that rounding is what it is in life."""
    return VirtualClock(now=1_767_225_600.0)


@pytest.fixture(params=["async", "sync"])
def face(request: pytest.FixtureRequest, clock: VirtualClock) -> Iterator[Face]:
    """A cache with a recording logger, as `Cache` and as `SyncCache`."""
    yield from (async_worlds if request.param == "async" else sync_worlds)(clock)


@pytest.fixture
def async_face(clock: VirtualClock) -> Iterator[AsyncFace]:
    """`Cache` alone, for what threads cannot do."""
    yield from async_worlds(clock)


@pytest.fixture
def sync_face(clock: VirtualClock) -> Iterator[SyncFace]:
    """`SyncCache` alone."""
    yield from sync_worlds(clock)


def async_worlds(clock: VirtualClock) -> Iterator[AsyncFace]:
    log = Recorder()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        face = AsyncFace(Cache(clock=clock, logger=log), clock, log, runner)
        yield face
        face.close()


def sync_worlds(clock: VirtualClock) -> Iterator[SyncFace]:
    log = Recorder()
    face = SyncFace(SyncCache(clock=clock, logger=log), clock, log)
    yield face
    face.close()
