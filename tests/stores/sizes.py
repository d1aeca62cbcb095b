"""How much a store is tried here. The long runs are those of tests/soak."""

from __future__ import annotations

from typing import Final

from tests.core.rows import EXAMPLES

FEW_TEXTS: Final = ("", "k", "a:b", "\0", "\ud800", "x" * 10_000)
"""For variants of a store whose names another class tries with all the hostile texts."""


def tries(usual: int) -> int:
    """`usual` many, and of a hundred as many as CACHEMESH_EXAMPLES says where it is set."""
    return usual if EXAMPLES is None else min(usual, max(1, usual * int(EXAMPLES) // 100))
