"""The long variants of what several caches that share a store promise: `make soak`. See `simulated_fleet` as well."""

from __future__ import annotations

import pytest

from tests.stores.test_scenarios_news import added_by_a_flapping_server


@pytest.mark.parametrize("face_name", ["async", "sync"])
def test_rd13_an_open_breaker_adds_five_milliseconds_at_most(face_name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert added_by_a_flapping_server(face_name, caplog, 0.99) <= 0.005
