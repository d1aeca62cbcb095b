"""The same faces as everywhere, with a guard: a call that hangs fails its test and does not hold up the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from cachemesh import SyncCache
from tests.conftest import async_worlds
from tests.scenarios.helpers import guarded
from tests.shell.faces import Face, Recorder, SyncFace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cachemesh.testing.clock import VirtualClock

T = TypeVar("T")

PATIENCE_S = 4.0


class GuardedSyncFace(SyncFace):
    """A `SyncFace` on which nothing runs in the thread of the test."""

    def inside(self, act: Callable[[], T]) -> T:
        return guarded(act, PATIENCE_S)

    def new(self, **options: Any) -> SyncFace:
        plain = super().new(**options)
        return GuardedSyncFace(plain.cache, plain.clock, plain.log)

    def for_user(self, user_id: str) -> SyncFace:
        return GuardedSyncFace(self.cache.for_user(user_id), self.clock, self.log)

    def close(self) -> None:
        guarded(super().close, PATIENCE_S)


@pytest.fixture(params=["async", "sync"])
def face(request: pytest.FixtureRequest, clock: VirtualClock) -> Iterator[Face]:
    yield from (async_worlds if request.param == "async" else sync_worlds)(clock)


@pytest.fixture
def sync_face(clock: VirtualClock) -> Iterator[SyncFace]:
    yield from sync_worlds(clock)


def sync_worlds(clock: VirtualClock) -> Iterator[SyncFace]:
    log = Recorder()
    face = GuardedSyncFace(SyncCache(clock=clock, logger=log), clock, log)
    yield face
    face.close()
