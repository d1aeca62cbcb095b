"""Forks: a child has one thread. What others of its parent were doing, and the locks they had, nobody ends there."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class Forked(Protocol):
    """What has something to do in the child."""

    def after_fork(self) -> None:
        """No other thread runs; locks may be held by some that are not there any more."""


_watched: Final[weakref.WeakSet[Forked]] = weakref.WeakSet()


def watch(each: Forked) -> None:
    """Have its `after_fork` called in the children of this process, as long as it lives."""
    _watched.add(each)


def _after_fork() -> None:
    for each in list(_watched):
        each.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
