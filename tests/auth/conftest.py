"""An authorization server for the tests of this folder: one for each file, as new for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.auth.servers import OAuthServer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def running() -> Iterator[OAuthServer]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: OAuthServer) -> OAuthServer:
    url = running.url
    running.__init__()  # type: ignore[misc]
    running.url = url
    return running
