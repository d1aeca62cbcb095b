"""Keepers in several processes, on one storage and against one authorization server: real ones, all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.auth.processes import begun, rotated_for, signed_in, together
from tests.auth.servers import OAuthServer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with serving() as running:
        yield running


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_tk1_four_processes_with_one_expired_token_are_one_refresh(
    kind: str, server: OAuthServer, tmp_path: Path
) -> None:
    """Two of each face, 25 requests each. The server takes its time, so that all of them meet."""
    server.delay_s = 0.3
    signed_in(server, kind, tmp_path, expires_in=0)
    faces = ("async", "sync", "async", "sync")
    seen = together(*(begun("use", face, kind, tmp_path, server.url, 25) for face in faces))

    assert seen == [{"ok": 25}] * 4
    assert server.refreshes == 1
    assert server.reuses == 0


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_tk2_two_processes_on_rotating_tokens_sign_nobody_out(kind: str, server: OAuthServer, tmp_path: Path) -> None:
    """For a second; `make soak` goes on for a thousand refreshes and more."""
    refreshes, seen = rotated_for(server, kind, tmp_path, seconds=1)

    assert set(seen) == {"ok"}, seen
    assert server.reuses == 0
    assert refreshes > 1
