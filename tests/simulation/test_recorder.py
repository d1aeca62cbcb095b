"""What a recorder writes, and what it never writes; what becomes of it when the disk fails."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import TYPE_CHECKING, Any, get_args

import pytest
from msgspec import Struct
from returns.result import Failure, Success

from cachemesh import Cache, CacheLogger, CacheScope, Lifetime, MemoryStore, SyncCache
from cachemesh.core import commands
from cachemesh.core.model import Redacted
from cachemesh.shell import recording
from cachemesh.shell.recording import Beginning, CommandLog, Lost, Noted
from cachemesh.simulation import NoCommandLogError, Recorder, replay
from cachemesh.simulation.log.lines import Names, decoded, encoded
from cachemesh.simulation.log.reader import LogReader
from cachemesh.testing.loop import run

if TYPE_CHECKING:
    from pathlib import Path

CANARIES = {
    "value": "canary-value",
    "key": "canary-key",
    "error": "canary-error",
    "user": "canary-user",
    "tag": "canary-tag",
    "origin": "canary-origin",
    "validator": "canary-validator",
}


class CanaryError(Exception):
    pass


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def raising() -> Any:
    raise CanaryError(CANARIES["error"])


def live_through(cache: SyncCache) -> None:
    """Everything that could carry a secret into a command."""
    value, key, error, user = (CANARIES[name] for name in ("value", "key", "error", "user"))
    cache.set_active_user(user)
    tags = (CANARIES["tag"],)
    for scope in CacheScope:
        cache.get(key, lambda: Success({value: value}), scope=scope, tags=tags, origin=CANARIES["origin"], ttl=5)
        cache.get(f"{key}/failing", lambda: Failure(CanaryError(error)), scope=scope, cache_failures=True, ttl=5)
        cache.get(f"{key}/raising", raising, scope=scope, origin=CANARIES["origin"])
        cache.put(f"{key}/put", value, tags=tags, scope=scope, ttl=Lifetime(ttl=5, serve_stale_for=5))
        cache.update(f"{key}/put", lambda old: old + value, scope=scope)
        cache.touch(f"{key}/put", 9, scope=scope)
    cache.for_user(f"{user}/viewer").get(key, lambda: Success(value), scope=CacheScope.USER)
    cache.invalidate_tag(tags[0])
    cache.invalidate_prefix(f"{key}/p")
    cache.invalidate(key)
    cache.reset_circuit(CANARIES["origin"])
    snapshot = cache.dehydrate()
    cache.clear()
    cache.hydrate(snapshot)
    cache.end_session()


def test_no_value_key_error_or_user_is_in_the_log(tmp_path: Path) -> None:
    with SyncCache(recorder=Recorder(tmp_path / "log"), store=MemoryStore()) as cache:
        live_through(cache)
    text = written(tmp_path)
    assert text.count(b"\n") > 40
    assert b"canary" not in text
    assert b"CanaryError" in text  # The name of a type is all that is told of an error.
    assert replay(tmp_path / "log").differences == 0


def test_clear_keys_are_written_and_nothing_else(tmp_path: Path) -> None:
    with SyncCache(recorder=Recorder(tmp_path / "log", clear_keys=True), store=MemoryStore()) as cache:
        live_through(cache)
    text = written(tmp_path).decode()
    assert all(CANARIES[name] in text for name in ("key", "tag", "origin"))
    assert not any(CANARIES[name] in text for name in ("value", "error", "user", "validator"))


def test_hashes_differ_between_logs_and_between_kinds(tmp_path: Path) -> None:
    one, other = Recorder(tmp_path / "1"), Recorder(tmp_path / "2")
    assert one.hashed("k") == one.hashed("k") != other.hashed("k")
    names = Names(b"salt", clear_keys=False)
    assert names.key("ada") != names.user("ada")


def test_a_key_that_is_no_unicode_or_very_long_is_hashed_even_so() -> None:
    names = Names(b"salt", clear_keys=True)
    assert names.key("\ud800").startswith("#")
    assert names.key("k" * 1_001).startswith("#")
    assert names.key("k" * 1_000) == "k" * 1_000


def test_plain_hits_are_recorded_too(tmp_path: Path) -> None:
    """With a recorder every hit goes by the reducer, also those of @cached and of get_many."""
    with SyncCache(recorder=Recorder(tmp_path / "log")) as cache:
        assert not cache.plain
        cache.put("k", 1)
        for _ in range(3):
            cache.get("k", lambda: Success(2))
        cache.get_many(["k"], lambda keys: Success(dict.fromkeys(keys, Success(2))))
        cache.for_user("ada").get("k", lambda: Success(2))
    assert replay(tmp_path / "log").totals.hit == 5


def test_without_a_recorder_hits_stay_plain() -> None:
    with SyncCache() as cache:
        cache.put("k", 1)
        assert "k" in cache.plain


def test_an_async_cache_has_written_all_when_it_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with Cache(recorder=Recorder(tmp_path / "log")) as cache:
            await asyncio.gather(*(cache.get("k", fetch) for _ in range(10)))

    async def fetch() -> Any:
        await asyncio.sleep(1)
        return Success(1)

    run(main())
    told = replay(tmp_path / "log")
    assert (told.totals.fetched, told.totals.fetches, told.is_closed) == (10, 1, True)
    assert sum(answer.joined for answer in told.answers) == 9


def test_files_are_bounded_and_rotated(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "log", max_bytes=4_096, keep=2)
    with SyncCache(recorder=recorder) as cache:
        for number in range(400):
            cache.get(f"key {number % 50}", lambda: Success(1))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 4_096 for path in tmp_path.iterdir())
    told = replay(tmp_path / "log")
    assert told.missing > 0
    assert not told.is_whole
    assert told.unknown > 0
    assert told.totals.hit > 0
    assert told.differences == 0


def test_all_files_of_a_log_are_read_in_their_order(tmp_path: Path) -> None:
    with SyncCache(recorder=Recorder(tmp_path / "log", max_bytes=4_096, keep=100)) as cache:
        for number in range(400):
            cache.get(f"key {number % 50}", lambda: Success(1))
    assert len(list(tmp_path.iterdir())) > 10
    told = replay(tmp_path / "log")
    assert (told.totals.asks, told.totals.fetched, told.totals.hit) == (400, 50, 350)
    assert (told.is_whole, told.differences) == (True, 0)


def test_a_copy_of_an_older_file_is_read_once(tmp_path: Path) -> None:
    with SyncCache(recorder=Recorder(tmp_path / "log", max_bytes=4_096)) as cache:
        for number in range(50):
            cache.get(f"key {number}", lambda: Success(1))
    (tmp_path / "log.20260131").write_bytes((tmp_path / "log.1").read_bytes())
    told = replay(tmp_path / "log")
    assert (told.totals.asks, told.missing, told.is_whole, told.differences) == (50, 0, True, 0)


def test_a_log_that_is_rotated_while_it_is_read_says_so(tmp_path: Path) -> None:
    """Its files have other names by then, and would be read twice or not at all."""
    with SyncCache(recorder=Recorder(tmp_path / "log", max_bytes=4_096)) as cache:
        for number in range(50):
            cache.get(f"key {number}", lambda: Success(1))
    reader = LogReader(tmp_path / "log")
    assert len(list(reader)) > 50
    (tmp_path / "log").replace(tmp_path / "log.1")
    with pytest.raises(NoCommandLogError, match="was rotated while it was read"):
        list(reader)


def test_an_older_log_under_the_name_is_kept_apart(tmp_path: Path) -> None:
    for _ in range(2):
        with SyncCache(recorder=Recorder(tmp_path / "log")) as cache:
            cache.get("k", lambda: Success(1))
    told = replay(tmp_path / "log")
    assert (told.totals.asks, told.is_whole) == (1, True)
    assert replay(tmp_path / "log.1").totals.asks == 1


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    with SyncCache(recorder=Recorder(tmp_path / "log")):
        pass
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


class Errors(CacheLogger):
    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    def on_error(self, key: str, error: object) -> None:
        self.seen.append((key, error))


def test_a_recorder_that_cannot_write_costs_no_answer_and_is_told_once(tmp_path: Path) -> None:
    logger = Errors()
    recorder = Recorder(tmp_path / "nowhere" / "log")
    with SyncCache(recorder=recorder, logger=logger) as cache:
        answers = [cache.get(f"k{number}", lambda: Success(1)) for number in range(100)]
    assert answers == [Success(1)] * 100
    assert [(key, type(error)) for key, error in logger.seen] == [("recorder", FileNotFoundError)]
    assert isinstance(recorder.error, FileNotFoundError)


@pytest.mark.parametrize("name", ["log", "log.1"])
def test_what_is_no_file_stays_where_it_is(tmp_path: Path, name: str) -> None:
    """A folder, a pipe or a device under the name of a log is somebody's: it is not rotated away."""
    (tmp_path / "log").touch()
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious").touch()
    logger = Errors()
    with SyncCache(recorder=Recorder(tmp_path / "log"), logger=logger) as cache:
        assert cache.get("k", lambda: Success(1)) == Success(1)
    assert (tmp_path / name / "precious").exists()
    assert [(key, type(error)) for key, error in logger.seen] == [("recorder", FileExistsError)]


def test_a_relative_path_is_that_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that changes its folder leaves its log where it is, also when files are rotated."""
    (tmp_path / "then").mkdir()
    (tmp_path / "now").mkdir()
    monkeypatch.chdir(tmp_path / "then")
    recorder = Recorder("log", max_bytes=4_096)
    monkeypatch.chdir(tmp_path / "now")
    with SyncCache(recorder=recorder) as cache:
        for number in range(50):
            cache.get(f"k{number}", lambda: Success(1))
    assert list((tmp_path / "now").iterdir()) == []
    assert len(list((tmp_path / "then").iterdir())) > 1


def test_a_second_recorder_leaves_the_log_of_the_first_alone(tmp_path: Path) -> None:
    """Two that write under one name would rotate each other's files away; so it is with two processes."""
    logger = Errors()
    with SyncCache(recorder=Recorder(tmp_path / "log", max_bytes=4_096, keep=9)) as first:
        first.get("k", lambda: Success(1))
        begun_by(first)
        with SyncCache(recorder=Recorder(tmp_path / "log", keep=0), logger=logger) as second:
            assert second.get("k", lambda: Success(2)) == Success(2)
        for number in range(50):
            first.get(f"k{number}", lambda: Success(1))
    assert [(key, type(error)) for key, error in logger.seen] == [("recorder", BlockingIOError)]
    told = replay(tmp_path / "log")
    assert (told.totals.asks, told.is_whole, told.differences) == (51, True, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_a_child_that_lives_on_does_not_keep_the_log(tmp_path: Path) -> None:
    with SyncCache(recorder=Recorder(tmp_path / "log")) as cache:
        begun_by(cache)
        may_end, end = os.pipe()
        child = os.fork()
        if not child:
            os.read(may_end, 1)
            os._exit(0)
    again = Recorder(tmp_path / "log")
    with SyncCache(recorder=again):
        pass
    os.write(end, b".")
    os.waitpid(child, 0)
    assert again.error is None


def test_nor_does_one_that_has_not_let_go_of_it_yet(tmp_path: Path) -> None:
    """It has the file until it runs for the first time."""
    recorder = Recorder(tmp_path / "log")
    with SyncCache(recorder=recorder) as cache:
        begun_by(cache)
        file = recorder._files._file
        assert file is not None
        inherited = os.dup(file.fileno())
    again = Recorder(tmp_path / "log")
    with SyncCache(recorder=again):
        pass
    os.close(inherited)
    assert again.error is None


def begun_by(cache: SyncCache) -> None:
    """Wait until the recorder of `cache` has begun its first file."""
    for _ in range(5_000):
        if "recording" in repr(cache._recorder):
            return
        threading.Event().wait(0.001)
    msg = "the recorder has not begun"
    raise AssertionError(msg)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full")  # noqa: PTH110 (at import)
def test_a_full_disk_ends_the_log_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = Errors()
    monkeypatch.setattr(
        "cachemesh.simulation.log.recorder._for_the_owner", lambda *_: os.open("/dev/full", os.O_WRONLY)
    )
    monkeypatch.setattr("cachemesh.simulation.log.recorder.claim", lambda *_: None)
    recorder = Recorder(tmp_path / "log")
    with SyncCache(recorder=recorder, logger=logger) as cache:
        recorder._writer._thread.join(5.0)  # type: ignore[union-attr]  # it has begun
        assert cache.get("k", lambda: Success(1)) == Success(1)
        assert cache._runtime.log is not None
        assert cache._runtime.log.is_over
        assert cache._runtime.log.lines.empty()
    assert [(key, type(error)) for key, error in logger.seen] == [("recorder", OSError)]


def test_a_writer_that_is_too_slow_loses_lines_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_WAITING", 2)
    log = CommandLog(Beginning(has_store=False, max_entries=None, default_ttl_s=None, epoch_offset=0.0), lambda _: None)
    for _ in range(5):
        log.put(Noted(commands.Clear()))
    log.lines.get()
    log.put(Noted(commands.Clear()))
    assert [log.lines.get() for _ in range(3)] == [Noted(commands.Clear()), Lost(3), Noted(commands.Clear())]


def test_what_stops_a_recorder_is_the_end_of_its_cache(tmp_path: Path) -> None:
    cache = SyncCache(recorder=Recorder(tmp_path / "log"))
    cache.get("k", lambda: Success(1))
    threads = [each for each in threading.enumerate() if each.name == "cachemesh recorder"]
    assert threads
    del cache
    for thread in threads:
        thread.join(5.0)
    assert not any(thread.is_alive() for thread in threads)
    assert replay(tmp_path / "log").totals.fetched == 1


def test_closing_while_much_is_being_written_waits_no_longer_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What wakes the thread for the end may be read together with the lines before it."""
    is_writing, may_go_on = threading.Event(), threading.Event()
    recorder = Recorder(tmp_path / "log")
    add = recorder._files.add

    def slow_add(line: bytes) -> None:
        is_writing.set()
        assert may_go_on.wait(5.0)
        add(line)

    monkeypatch.setattr(recorder._files, "add", slow_add)
    cache = SyncCache(recorder=recorder)
    cache.put("k", 1)
    assert is_writing.wait(5.0)
    cache.put("k", 2)
    assert recorder._writer is not None
    recorder._writer.end()
    may_go_on.set()
    recorder._writer._thread.join(5.0)
    assert not recorder._writer._thread.is_alive()
    cache.close()
    assert replay(tmp_path / "log").totals.saves == 2


def test_a_recorder_records_one_cache(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "log")
    with SyncCache(recorder=recorder), pytest.raises(ValueError, match="a recorder records one cache"):
        SyncCache(recorder=recorder)


class HastyRecorder:
    """One of a user's own, that cannot be closed."""

    def begin(self, log: CommandLog) -> None:
        self.log = log

    def close(self) -> None:
        raise CanaryError


def test_a_recorder_that_raises_when_it_is_closed_is_told_to_the_logger() -> None:
    logger = Errors()
    with SyncCache(recorder=HastyRecorder(), logger=logger) as cache:
        assert cache.get("k", lambda: Success(1)) == Success(1)

    async def main() -> None:
        async with Cache(recorder=HastyRecorder(), logger=logger):
            pass

    run(main())
    assert [(key, type(error)) for key, error in logger.seen] == [("recorder", CanaryError)] * 2


@pytest.mark.parametrize(("option", "value"), [("max_bytes", 100), ("keep", -1)])
def test_bounds_that_make_no_sense_are_refused(tmp_path: Path, option: str, value: int) -> None:
    given: dict[str, Any] = {option: value}
    with pytest.raises(ValueError, match=option):
        Recorder(tmp_path / "log", **given)


def test_every_command_with_an_answer_is_scrubbed() -> None:
    kinds = [getattr(each, "__origin__", each) for each in get_args(commands.Command)]
    assert {kind for kind in kinds if issubclass(kind, Redacted)} == set(recording.SCRUBS)


def test_the_name_of_a_type_runs_no_code() -> None:
    class Loud(type):
        def __getattribute__(cls, name: str) -> Any:
            raise AssertionError(name)

    class Value(metaclass=Loud):
        pass

    assert recording.kept(Success(Value())).kind == "Value"


def test_every_line_comes_back_as_it_was(tmp_path: Path) -> None:
    with SyncCache(recorder=Recorder(tmp_path / "log", clear_keys=True), store=MemoryStore()) as cache:
        live_through(cache)
    names = Identity()
    lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)[1:]
    assert [encoded(decoded(line), names) for line in lines] == lines


class Identity(Names):
    """Users are hashed already."""

    def __init__(self) -> None:
        super().__init__(b"", clear_keys=True)

    def user(self, text: str) -> str:
        return text


class Case(Struct):
    content: bytes
    says: str


@pytest.mark.parametrize(
    "case",
    [
        Case(b"", "is empty"),
        Case(b"\x00\xff\n" * 99, "is no command log of cachemesh"),
        Case(b'{"cachemesh_log":1}\n', "is no command log of cachemesh"),
        Case(b"[" * 100_000, "is no command log of cachemesh"),
    ],
    ids=["empty", "junk", "half a header", "nested"],
)
def test_what_is_no_log_is_named(tmp_path: Path, case: Case) -> None:
    (tmp_path / "log").write_bytes(case.content)
    with pytest.raises(NoCommandLogError, match=case.says):
        replay(tmp_path / "log")


def test_a_log_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with SyncCache(recorder=Recorder(tmp_path / "log")):
        pass
    header = json.loads((tmp_path / "log").read_bytes().splitlines()[0])
    (tmp_path / "log").write_text(json.dumps({**header, "cachemesh_log": 2}) + "\n")
    with pytest.raises(NoCommandLogError, match="version 2: this cachemesh reads version 1"):
        replay(tmp_path / "log")
