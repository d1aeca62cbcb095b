"""What the tests of sources may ask for: an origin that answers properly, and a driver for either face."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sources.driving import Driver
from tests.sources.servers import app, uvicorn_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The URL of an origin that answers properly."""
    with uvicorn_server(app) as url:
        yield url


@pytest.fixture(params=["async", "sync"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Opens sources of either face."""
    driver = Driver(is_async=request.param == "async")
    yield driver
    driver.close()
