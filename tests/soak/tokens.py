"""TK-2 for as long as it takes: two processes on rotating tokens, 1,000 refreshes and more, and nobody is signed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.auth.processes import rotated_for
from tests.auth.servers import serving

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 1_000


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_tk2_two_processes_on_rotating_tokens_sign_nobody_out_in_a_thousand_refreshes(
    kind: str, tmp_path: Path
) -> None:
    """The figure of scenario TK-2; spells of ten seconds, until there were enough refreshes."""
    total = 0
    for spell in range(100):
        folder = tmp_path / str(spell)
        folder.mkdir(mode=0o700)
        with serving() as server:
            refreshes, seen = rotated_for(server, kind, folder, seconds=10)
            assert set(seen) == {"ok"}, seen
            assert server.reuses == 0
        assert refreshes > 0
        total += refreshes
        if total >= ROUNDS:
            return
    pytest.fail(f"only {total} refreshes in 1,000 seconds")
