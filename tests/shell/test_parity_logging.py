"""Counterparts of `cache_logger_test.dart`: exact sequences of events, and the exact lines that are printed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from returns.result import Failure, Success

from cachemesh import CachePolicy, CacheScope, LoggingLogger, PrintLogger, RetryOptions

if TYPE_CHECKING:
    import pytest

    from tests.shell.faces import Face


def test_cache_first_miss_then_hit(face: Face) -> None:
    fetch = face.fetcher(Success(1), Success(2))
    face.get("k", fetch)
    face.get("k", fetch)

    assert face.log.events == [
        ("miss", "k"),
        ("refresh", "k", "cache_miss"),
        ("write", "k", None),
        ("hit", "k"),
    ]


def test_network_first_refresh_and_write_on_success(face: Face) -> None:
    face.get("k", face.fetcher(Success(1)), policy=CachePolicy.NETWORK_FIRST, ttl=5)

    assert face.log.events == [("refresh", "k", "policy"), ("write", "k", 5.0)]


def test_stale_while_revalidate_hit_and_background_refresh(face: Face) -> None:
    face.fill("k", 1)
    face.get("k", face.fetcher(Success(2)), policy=CachePolicy.STALE_WHILE_REVALIDATE, always_revalidate=True)
    face.settle()

    assert face.log.events == [("hit", "k"), ("refresh", "k", "background"), ("write", "k", None)]


def test_a_failure_surfaces_an_error_event_but_no_write(face: Face) -> None:
    face.get("k", face.fetcher(Failure("boom")), policy=CachePolicy.NETWORK_FIRST)

    assert face.log.events == [("refresh", "k", "policy"), ("error", "k", "boom")]


def test_invalidate_and_clear_emit_events(face: Face) -> None:
    face.invalidate("k")
    face.clear()

    assert face.log.events == [("invalidate", "k"), ("clear",)]


def test_refresh_and_prefetch_carry_their_own_refresh_source(face: Face) -> None:
    face.refresh("k", face.fetcher(Success(1)))
    face.prefetch("k", face.fetcher(Success(2)))

    assert face.log.events == [
        ("refresh", "k", "refresh"),
        ("write", "k", None),
        ("refresh", "k", "prefetch"),
        ("write", "k", None),
    ]


def test_hits_in_a_scope_are_logged_with_their_key(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("k", 1, scope=CacheScope.USER)
    face.fill("k", 1, scope=CacheScope.SESSION)
    for scope in (CacheScope.USER, CacheScope.SESSION):
        face.get("k", face.fetcher(Success(2)), scope=scope)

    assert face.log.events == [("hit", "k"), ("hit", "k")]


# what is printed


def test_print_logger_prints_these_lines(face: Face, capsys: pytest.CaptureFixture[str]) -> None:
    face = face.new(logger=PrintLogger())
    fetch = face.fetcher(Success(1))
    face.get("user:42", fetch, ttl=300)
    face.get("user:42", fetch, ttl=300)

    assert capsys.readouterr().out == (
        "[cachemesh] miss user:42\n"
        "[cachemesh] refresh user:42 (cache_miss)\n"
        "[cachemesh] write user:42 ttl=300000ms\n"
        "[cachemesh] hit user:42\n"
    )


def test_print_logger_has_a_line_for_every_other_event(face: Face, capsys: pytest.CaptureFixture[str]) -> None:
    face = face.new(logger=PrintLogger(tag="feed"), max_entries=1)
    face.get("k", face.fetcher(Failure("secret"), Failure("secret")), retry=RetryOptions(max_attempts=2, delay=1.5))
    face.refresh("k", face.fetcher(Success(1)))
    face.invalidate("k")
    face.refresh("k", face.fetcher(Success(1)), scope=CacheScope.SESSION)
    face.end_session()
    face.clear()
    face.refresh("a", face.fetcher(Success(1)))
    face.refresh("b", face.fetcher(Success(1)))
    face.settle()

    assert capsys.readouterr().out == (
        "[feed] miss k\n"
        "[feed] refresh k (cache_miss)\n"
        "[feed] retry k attempt=1 delay=1500ms str\n"
        "[feed] error k str\n"
        "[feed] refresh k (refresh)\n"
        "[feed] write k\n"
        "[feed] invalidate k\n"
        "[feed] refresh k (refresh)\n"
        "[feed] write k\n"
        "[feed] invalidate k\n"
        "[feed] scope_cleared end_session keys=1\n"
        "[feed] clear\n"
        "[feed] refresh a (refresh)\n"
        "[feed] write a\n"
        "[feed] refresh b (refresh)\n"
        "[feed] write b\n"
        "[feed] evict a\n"
    )


def test_a_users_key_is_the_key_for_a_logger_and_a_hash_in_print(
    face: Face, capsys: pytest.CaptureFixture[str]
) -> None:
    face.set_active_user("alice")
    face.get("medical-record", face.fetcher(Success(1)), scope=CacheScope.USER)
    assert [event[1] for event in face.log.events] == ["medical-record"] * 3

    printing = face.new(logger=PrintLogger())
    printing.set_active_user("alice")
    printing.get("medical-record", face.fetcher(Success(1)), scope=CacheScope.USER)
    printing.end_session()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "medical" not in "".join(lines)
    assert len({line.split()[2] for line in lines[:4]}) == 1


def test_logging_logger_sends_the_same_lines_and_warns_of_errors(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    face = face.new(logger=LoggingLogger(logging.getLogger("feed")))
    with caplog.at_level(logging.DEBUG, logger="feed"):
        face.get("k", face.fetcher(Success(1)), ttl=2)
        face.get("down", face.fetcher(OSError("secret")), policy=CachePolicy.NETWORK_ONLY)

    assert [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "feed"] == [
        ("DEBUG", "miss k"),
        ("DEBUG", "refresh k (cache_miss)"),
        ("DEBUG", "write k ttl=2000ms"),
        ("DEBUG", "refresh down (policy)"),
        ("WARNING", "error down FetchRaised(OSError)"),
    ]
