"""Snapshots: what a cache held comes back in another one: as old as it is, whose it is, and over nothing newer."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from dataclasses import dataclass
from math import inf, nan
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from returns.result import Failure, Success

from cachemesh import (
    CacheClosed,
    CacheMiss,
    CachePolicy,
    CacheScope,
    FetchTimeout,
    Fresh,
    InvalidOption,
    Lifetime,
    NotModified,
    SyncCache,
    UndecodableEntry,
    frozen,
)
from cachemesh.core.lifetimes import CLOCK_SKEW_S
from cachemesh.errors import InvalidSnapshot
from cachemesh.shell import intake
from cachemesh.shell.hydration import Hydrated
from cachemesh.shell.ports import Encoded, StoredEntry
from cachemesh.shell.schema import Schema
from cachemesh.shell.snapshot import Snapshot
from tests.shell.faces import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.faces import Face

GLOBAL, SESSION, USER = CacheScope.GLOBAL, CacheScope.SESSION, CacheScope.USER
EVERYTHING = tuple(CacheScope)
NOW = 1_767_225_600.0
DOWN = {"down": True}


class User(BaseModel):
    name: str


class Other(BaseModel):
    name: str


@dataclass
class Point:
    x: int


def snapshot_of(face: Face, **options: Any) -> Snapshot:
    taken: Snapshot = face.at_once("dehydrate", **options)
    return taken


def hydrate(face: Face, snapshot: Any, **options: Any) -> Hydrated:
    counts: Hydrated = face.at_once("hydrate", snapshot, **options).unwrap()
    return counts


def carried(face: Face, snapshot: Any = None, *, scopes: Any = GLOBAL, **options: Any) -> Face:
    """Another cache, filled with all of that."""
    new = face.new(**options)
    hydrate(new, snapshot_of(face, scopes=scopes).to_json() if snapshot is None else snapshot)
    return new


def wire(**fields: Any) -> dict[str, Any]:
    return {"scope": "global", "key": "k", "created_at": NOW, "value": 1, **fields}


def document(*entries: Any, **fields: Any) -> dict[str, Any]:
    return {"format": "cachemesh-snapshot", "version": 1, "taken_at": NOW, "entries": list(entries), **fields}


# There and back


@pytest.mark.parametrize(
    "form", [lambda it: it, Snapshot.to_json, Snapshot.to_builtins, lambda it: it.to_json().decode()]
)
def test_what_a_cache_held_comes_back(face: Face, form: Callable[[Snapshot], Any]) -> None:
    face.fill("user:42", {"name": "Ada", "scores": [1, 2.5, None, True]}, ttl=60)

    new = carried(face, form(snapshot_of(face)))

    fetch = new.fetcher(Failure("not asked"))
    assert new.get("user:42", fetch) == Success({"name": "Ada", "scores": [1, 2.5, None, True]})
    assert fetch.calls == 0


def test_a_snapshot_is_frozen_and_ready_for_json(face: Face) -> None:
    face.fill("k", {"a": [1]})
    taken = snapshot_of(face)
    face.fill("k", {"a": [2]})

    said = taken.to_builtins()

    assert json.loads(taken.to_json()) == said == json.loads(json.dumps(said))
    assert said["entries"] == [wire(value={"a": [1]})]
    assert (len(taken), repr(taken)) == (1, "Snapshot(1 entries, 0 failures, 0 left out)")
    with pytest.raises(AttributeError):
        taken.records = ()  # type: ignore[misc]


def test_tt4_ages_go_on_while_no_cache_is_there(face: Face) -> None:
    face.fill("k", 1, ttl=60)
    face.clock.advance(10.0)
    taken = snapshot_of(face).to_json()
    face.clock.advance(49.0)

    new = carried(face, taken)

    assert new.inspect("k").age is not None
    assert new.inspect("k").age.total_seconds() == 59.0  # type: ignore[union-attr]
    assert new.peek("k") == Success(1)
    face.clock.advance(1.0)
    fetch = new.fetcher(Success(2))
    assert new.get("k", fetch) == Success(2)
    assert fetch.calls == 1


def test_tt4_what_is_older_than_its_windows_is_dropped(face: Face) -> None:
    lifetime = Lifetime(ttl=60, serve_stale_for=30, stale_if_error_for=40)
    face.fill("plain", 1, ttl=60)
    face.fill("windows", 2, ttl=lifetime)
    face.fill("forever", 3)
    taken = snapshot_of(face)

    face.clock.advance(99.0)
    assert hydrate(face.new(), taken) == Hydrated(admitted=2, expired=1)
    face.clock.advance(1.0)
    assert hydrate(face.new(), taken) == Hydrated(admitted=1, expired=2)
    assert len(snapshot_of(face)) == 1


def test_windows_go_on(face: Face) -> None:
    face.fill("k", 1, ttl=Lifetime(ttl=60, serve_stale_for=30, stale_if_error_for=40))
    new = carried(face)

    face.clock.advance(70.0)
    assert new.get("k", new.fetcher(Success(2)), policy=CachePolicy.STALE_WHILE_REVALIDATE) == Success(1)


def test_tt3_an_entry_from_the_future_is_dropped(face: Face) -> None:
    ahead = document(
        wire(key="skewed", created_at=NOW + CLOCK_SKEW_S, ttl=10.0),
        wire(key="future", created_at=NOW + CLOCK_SKEW_S + 1.0, ttl=10.0),
        wire(key="immortal", created_at=NOW + 1e8),
        wire(key="failure", created_at=NOW + 1e8, is_failure=True, expires_at=NOW + 1e9, value="no"),
    )

    assert hydrate(face, ahead) == Hydrated(admitted=1, future=3)
    assert face.inspect("skewed").age is not None
    assert face.inspect("skewed").age.total_seconds() >= 0.0  # type: ignore[union-attr]


def test_tt3_a_clock_that_is_moved_back_makes_nothing_immortal(face: Face) -> None:
    face.fill("k", 1, ttl=60)
    taken = snapshot_of(face)
    back = face.new(clock=lambda: NOW - 3600.0)

    assert hydrate(back, taken) == Hydrated(future=1)
    assert back.peek("k") == Failure(CacheMiss("k"))


def test_an_expiry_is_no_later_than_the_ttl_says(face: Face) -> None:
    hydrate(face, document(wire(ttl=60.0, expires_at=NOW + 1e9)))
    face.clock.advance(60.0)

    assert isinstance(face.peek("k"), Failure)


def test_remembered_failures_survive(face: Face) -> None:
    fetch = face.fetcher(Failure(DOWN))
    face.get("k", fetch, cache_failures=True, ttl=60)
    face.clock.advance(5.0)

    new = carried(face)

    assert new.has_cached_failure("k")
    assert new.get("k", new.fetcher(Success(1)), cache_failures=True) == Failure(DOWN)
    face.clock.advance(56.0)
    assert not new.has_cached_failure("k")


def test_a_remembered_timeout_survives(face: Face) -> None:
    options: dict[str, Any] = {"ttl": 60, "cache_failures": True}
    face.get("k", face.fetcher(Failure(FetchTimeout("k", 1.5))), **options)

    new = carried(face)

    error = new.get("k", new.fetcher(Success(2)), **options).failure()
    assert type(error) is FetchTimeout
    assert (error.key, error.after) == ("k", 1.5)


def test_tags_survive(face: Face) -> None:
    face.at_once("put", "k", 1, tags=("users",))
    new = carried(face)
    assert new.peek("k") == Success(1)

    new.at_once("invalidate_tag", "users")

    assert new.peek("k") == Failure(CacheMiss("k"))


def test_what_a_tag_has_invalidated_is_in_no_snapshot(face: Face) -> None:
    face.at_once("put", "gone", 1, tags=("users",))
    face.at_once("put", "stale", 2, tags=("teams",), ttl=Lifetime(ttl=60, serve_stale_for=30))
    face.at_once("put", "good", 3, tags=("rooms",))
    face.clock.advance(1.0)
    face.at_once("invalidate_tag", "users")
    face.at_once("expire_tag", "teams")

    new = carried(face)

    assert new.peek("gone") == Failure(CacheMiss("gone"))
    assert isinstance(new.peek("stale"), Failure)
    assert new.peek("stale", allow_expired=True) == Success(2)
    assert new.peek("good") == Success(3)


def test_what_was_made_before_its_tag_was_invalidated_stays_out(face: Face) -> None:
    face.at_once("put", "k", 1, tags=("users",))
    taken = snapshot_of(face)
    face.clock.advance(1.0)
    face.at_once("invalidate_tag", "users")

    assert hydrate(face, taken) == Hydrated(invalidated=1)


def test_validators_survive(face: Face) -> None:
    face.get("k", face.fetcher(Success(Fresh(1, validator="v7"))), ttl=60)
    new = carried(face)
    face.clock.advance(30.0)
    seen: list[Any] = []

    def unchanged(previous: Any) -> Any:
        seen.append((previous.value, previous.validator))
        return Success(NotModified())

    assert new.refresh("k", new.fetcher(unchanged), conditional=True) == Success(1)
    assert seen == [(1, "v7")]


@pytest.mark.parametrize("validator", [("a", "tuple"), nan, 2**70, "\ud800", object()])
def test_a_validator_that_json_cannot_say_is_left_out(face: Face, validator: object) -> None:
    face.get("k", face.fetcher(Success(Fresh(1, validator=validator))), ttl=60)

    [entry] = snapshot_of(face).to_builtins()["entries"]

    assert "validator" not in entry


@pytest.mark.parametrize("validator", ["v", 7, 0.5, True])
def test_a_validator_that_json_can_say_is_written(face: Face, validator: object) -> None:
    face.get("k", face.fetcher(Success(Fresh(1, validator=validator))), ttl=60)

    [entry] = snapshot_of(face).to_builtins()["entries"]

    assert entry["validator"] == validator


def never(constant: str) -> None:
    raise AssertionError(constant)


@pytest.mark.parametrize("value", [nan, inf, [-inf, {"x": nan}]])
def test_values_that_strict_json_does_not_know_come_back(face: Face, value: object) -> None:
    face.at_once("put", "k", value)

    taken = snapshot_of(face)

    with pytest.raises(AssertionError):
        json.loads(json.dumps(value), parse_constant=never)
    assert json.loads(taken.to_json(), parse_constant=never) == taken.to_builtins()
    assert repr(carried(face, taken.to_json()).peek("k").unwrap()) == repr(value)


def test_frozen_values_come_back(face: Face) -> None:
    cold = face.new(freeze=frozen)
    cold.at_once("put", "k", {"a": [1, 2]})

    assert carried(cold).peek("k") == Success({"a": [1, 2]})
    assert carried(cold, freeze=frozen).peek("k").unwrap()["a"] == (1, 2)


def test_what_has_no_json_is_left_out_and_counted(face: Face) -> None:
    face.fill("object", object())
    face.fill("model", User(name="Ada"))
    face.fill("half a pair \ud800", 1)
    face.fill("text", "half a pair \ud800")
    face.fill("good", 1)

    taken = snapshot_of(face)

    assert [each.key for each in taken.records] == ["good"]
    assert taken.left_out == 4
    assert Snapshot.from_json(taken.to_json()).unwrap().left_out == 4


# Filters


def test_by_scope_and_prefix(face: Face) -> None:
    face.set_active_user("ada")
    face.fill("user:1", 1)
    face.fill("team:1", 2)
    face.fill("user:2", 3, scope=SESSION)
    face.fill("user:3", 4, scope=USER)

    def keys(**options: Any) -> list[str]:
        return sorted(each.key for each in snapshot_of(face, **options).records)

    assert keys() == ["team:1", "user:1"]
    assert keys(prefix="user:") == ["user:1"]
    assert keys(scopes=USER) == ["user:3"]
    assert keys(scopes=[SESSION]) == ["user:2"]
    assert keys(scopes=EVERYTHING, prefix="user:") == ["user:1", "user:2", "user:3"]
    assert keys(scopes=()) == []


@pytest.mark.parametrize("options", [{"scopes": "user"}, {"scopes": 1}, {"scopes": ["user"]}, {"prefix": 1}])
def test_a_filter_of_the_wrong_type_is_a_mistake(face: Face, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        snapshot_of(face, **options)


def test_hydrating_by_scope(face: Face) -> None:
    face.set_active_user("ada")
    face.fill("a", 1)
    face.fill("a", 2, scope=USER)
    new = face.new()
    new.set_active_user("ada")

    assert hydrate(new, snapshot_of(face, scopes=EVERYTHING), scopes=USER) == Hydrated(admitted=1, foreign=1)
    assert (new.peek("a", scope=USER), new.peek("a", scope=GLOBAL)) == (Success(2), Failure(CacheMiss("a")))


# Whose


def filled_for_ada(face: Face) -> bytes:
    """The snapshot of a cache that Ada used, and a view of hers."""
    face.set_active_user("ada")
    face.fill("k", "ada's", scope=USER)
    face.fill("s", "ada's session", scope=SESSION)
    face.get("f", face.fetcher(Failure("ada's failure")), cache_failures=True, scope=USER)
    view = face.for_user("ada")
    view.fill("v", "ada's view", scope=SESSION)
    return snapshot_of(face, scopes=EVERYTHING).to_json()


def everything_seen(face: Face) -> list[Any]:
    answers = [face.peek(key, allow_expired=True, scope=scope) for key in "ksfv" for scope in (None, *CacheScope)]
    failures = [face.has_cached_failure(key, scope=scope) for key in "ksfv" for scope in (None, *CacheScope)]
    asked = [face.get(key, face.fetcher(Failure("mine")), scope=scope) for key in "ksfv" for scope in CacheScope]
    return [each for each in (*answers, *failures, *asked) if "ada" in repr(each) or each is True]


@pytest.mark.parametrize("who", [None, "bob", "ad", "ada ", ""])
def test_hy1_sc7_what_is_one_users_is_never_seen_by_another(face: Face, who: str | None) -> None:
    taken = filled_for_ada(face)
    new = face.new()
    new.set_active_user(who)

    counts = hydrate(new, taken)

    assert (counts.admitted, counts.foreign) == (3, 1)
    assert everything_seen(new) == []
    assert everything_seen(new.for_user("bob")) == []


def test_hy1_sc7_users_find_their_own(face: Face) -> None:
    taken = filled_for_ada(face)
    new = face.new()
    new.set_active_user("ada")

    assert hydrate(new, taken) == Hydrated(admitted=4)
    assert new.peek("k") == Success("ada's")
    assert new.peek("s") == Success("ada's session")
    assert new.has_cached_failure("f", scope=USER)
    assert new.for_user("ada").peek("v") == Success("ada's view")


def test_hy1_sc7_a_view_takes_in_what_its_user_sees(face: Face) -> None:
    taken = filled_for_ada(face)
    bob, ada = face.new().for_user("bob"), face.new().for_user("ada")

    assert hydrate(bob, taken) == Hydrated(foreign=4)
    assert hydrate(ada, taken) == Hydrated(admitted=3, foreign=1)
    assert ada.peek("s") == Failure(CacheMiss("s"))


def test_sc7_the_snapshot_of_a_view_is_its_users(face: Face) -> None:
    face.set_active_user("bob")
    face.fill("k", "bob's", scope=USER)
    face.fill("k", "bob's session", scope=SESSION)
    face.fill("k", "everyone's")
    ada = face.for_user("ada")
    ada.fill("k", "ada's", scope=USER)
    ada.fill("k", "ada's session", scope=SESSION)

    taken = snapshot_of(ada, scopes=EVERYTHING)

    assert sorted(json.loads(each.value.payload) for each in taken.records) == ["ada's", "ada's session", "everyone's"]
    assert taken.session_of is None


def test_sc7_what_waits_for_its_schema_is_one_users_too(face: Face) -> None:
    hydrate(face, document(wire(scope="user", user="ada", value={"name": "Ada"}, schema="u")))
    schema = Schema(User, name="u")
    bob = face.for_user("bob")

    assert bob.get("k", bob.fetcher(Failure("mine")), scope=USER, schema=schema) == Failure("mine")
    assert face.get("k", face.fetcher(Failure("mine")), schema=schema) == Failure("mine")
    assert len(snapshot_of(bob, scopes=EVERYTHING)) == 0
    ada = face.for_user("ada")
    assert ada.get("k", ada.fetcher(Failure("mine")), scope=USER, schema=schema) == Success(User(name="Ada"))


# What is newer


def test_hy1_what_is_newer_is_never_overwritten(face: Face) -> None:
    face.fill("k", "old", ttl=60)
    taken = snapshot_of(face)
    face.clock.advance(1.0)
    face.fill("k", "new", ttl=60)

    assert hydrate(face, taken) == Hydrated(newer=1)
    assert face.peek("k") == Success("new")


def test_hy1_a_snapshot_that_claims_to_be_newer_does_not_overwrite_what_is_good(face: Face) -> None:
    face.fill("k", "live", ttl=60)

    assert hydrate(face, document(wire(created_at=NOW + 59.0, value="forged"))) == Hydrated(newer=1)
    assert face.peek("k") == Success("live")


def test_what_is_stale_gives_way_to_what_is_newer(face: Face) -> None:
    face.fill("k", "stale", ttl=1)
    face.clock.advance(10.0)

    assert hydrate(face, document(wire(created_at=NOW + 5.0, value="newer"))) == Hydrated(admitted=1)
    assert face.peek("k") == Success("newer")


def test_a_fetch_under_way_stores_over_it(face: Face) -> None:
    fetch = face.fetcher(Success("fetched"), held=True)
    fetching = face.begin.get("k", fetch, ttl=60)
    face.settle()

    assert hydrate(face, document(wire(value="hydrated", ttl=60.0))) == Hydrated(admitted=1)
    assert face.get("k", face.fetcher(Failure("not asked"))) == Success("hydrated")
    fetch.release()
    assert fetching.result() == Success("fetched")
    assert face.peek("k") == Success("fetched")


def test_what_is_removed_or_written_meanwhile_does_not_come_back(face: Face) -> None:
    """A validator stands for whoever does something while the values are being read."""
    acts: dict[str, Callable[[], None]] = {
        "key": lambda: face.cache.invalidate("key"),
        "written": lambda: face.cache.put("written", "new"),
        "prefixed": lambda: face.cache.invalidate_prefix("pre"),
        "user": lambda: face.cache.clear_scope(USER),
        "all": face.cache.clear,
    }

    class Acting(BaseModel):
        what: str

        def model_post_init(self, context: Any) -> None:
            del context
            acts.get(self.what, lambda: None)()

    schema = Schema(Acting, name="acting")
    face.at_once("put", "met", Acting(what=""), schema=schema)
    for what in acts:
        owned = {"scope": "user", "user": "ada"} if what == "user" else {}
        counts = hydrate(face, document(wire(key=what, value={"what": what}, schema="acting", **owned)))
        assert counts == Hydrated(removed=1), what
    assert len(snapshot_of(face, scopes=EVERYTHING)) == 0


def test_so_many_removals_that_they_are_not_noted_one_by_one(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_REMOVALS", 2)

    class Acting(BaseModel):
        def model_post_init(self, context: Any) -> None:
            del context
            for number in range(4):
                face.cache.invalidate(f"{number}")

    face.at_once("put", "met", Acting(), schema=Schema(Acting, name="acting"))

    assert hydrate(face, document(wire(value={}, schema="acting"))) == Hydrated(removed=1)


# Schemas


def test_a_value_of_a_schema_that_was_met_is_decoded(face: Face) -> None:
    face.at_once("put", "k", User(name="Ada"), schema=User)
    taken = snapshot_of(face)
    new = face.new(schemas=(User,))

    assert hydrate(new, taken.to_json()) == Hydrated(admitted=1)
    assert new.peek("k") == Success(User(name="Ada"))
    assert new.get("k", new.fetcher(Failure("not asked")), schema=User) == Success(User(name="Ada"))


@pytest.mark.parametrize("of", [User, Point])
def test_a_value_of_a_schema_that_was_not_met_waits_for_it(face: Face, of: Any) -> None:
    value = User(name="Ada") if of is User else Point(1)
    face.at_once("put", "k", value, schema=of, ttl=60)
    taken = snapshot_of(face)
    new = face.new()

    assert hydrate(new, taken.to_json()) == Hydrated(staged=1)
    assert new.peek("k") == Failure(CacheMiss("k"))
    assert new.get("k", new.fetcher(Failure("not asked")), schema=of) == Success(value)
    assert new.peek("k") == Success(value)
    assert new.get("k", new.fetcher(Failure("not asked")), schema=of) == Success(value)


def test_what_waits_is_in_the_next_snapshot(face: Face) -> None:
    face.at_once("put", "k", User(name="Ada"), schema=User, ttl=60)
    face.at_once("put", "tagged", User(name="Ada"), schema=User, tags=("users",))
    middle = carried(face)
    assert len(snapshot_of(middle, prefix="k")) == 1

    face.clock.advance(1.0)
    middle.at_once("invalidate_tag", "users")

    assert [each.key for each in snapshot_of(middle).records] == ["k"]
    assert carried(middle, schemas=(User,)).peek("k") == Success(User(name="Ada"))
    face.clock.advance(60.0)
    assert len(snapshot_of(middle)) == 0


def test_errors_wait_for_their_schema_too(face: Face) -> None:
    options: dict[str, Any] = {"cache_failures": True, "error_schema": User, "ttl": 60}
    face.get("k", face.fetcher(Failure(User(name="down"))), **options)
    taken = snapshot_of(face)
    new = face.new()

    assert hydrate(new, taken.to_json()) == Hydrated(staged=1)
    assert len(snapshot_of(new)) == 1
    assert new.get("k", new.fetcher(Success(1)), **options) == Failure(User(name="down"))
    known = face.new(schemas=(User,))
    assert hydrate(known, taken) == Hydrated(admitted=1)
    assert known.get("k", known.fetcher(Success(1)), **options) == Failure(User(name="down"))


@pytest.mark.parametrize("stored", [{"schema": "other", "value": {"name": "x"}}, {"value": {"name": "x"}}])
def test_what_turns_out_to_be_of_another_schema_is_a_miss(face: Face, stored: dict[str, Any]) -> None:
    new = face.new(schemas=(Schema(Other, name="other"),))
    hydrate(new, document(wire(**stored)))
    schema = Schema(User, name="user")

    assert new.get("k", new.fetcher(Success(User(name="fetched"))), schema=schema) == Success(User(name="fetched"))
    assert [type(event[2]) for event in new.log.named("error")] == [UndecodableEntry]
    assert new.peek("k") == Success(User(name="fetched"))


def test_an_error_of_another_schema_is_a_miss(face: Face) -> None:
    failure = wire(is_failure=True, expires_at=NOW + 60.0, value="plain")
    options: dict[str, Any] = {"cache_failures": True, "error_schema": User}
    hydrate(face, document(failure))

    assert face.get("k", face.fetcher(Success(1)), **options) == Success(1)
    assert [type(event[2]) for event in face.log.named("error")] == [UndecodableEntry]


def test_who_names_no_schema_gets_what_there_is_and_the_next_one_is_told_apart(face: Face) -> None:
    new = face.new(schemas=(Schema(Other, name="other"),))
    hydrate(new, document(wire(schema="other", value={"name": "x"})))

    assert new.get("k", new.fetcher(Failure("not asked"))) == Success(Other(name="x"))
    assert new.get("k", new.fetcher(Failure("fetched")), schema=User) == Failure("fetched")


@pytest.mark.parametrize("flaw", [{"value": {"name": 1}}, {"version": 3}])
def test_what_waits_and_does_not_fit_is_a_miss(face: Face, flaw: dict[str, Any]) -> None:
    hydrate(face, document(wire(**{"schema": "user", "value": {"name": "Ada"}, **flaw})))

    assert face.get("k", face.fetcher(Failure("fetched")), schema=Schema(User, name="user")) == Failure("fetched")
    assert [type(event[2]) for event in face.log.named("error")] == [UndecodableEntry, str]
    assert len(snapshot_of(face)) == 0


def test_what_waits_stays_for_who_names_its_schema(face: Face) -> None:
    hydrate(face, document(wire(schema="user", value={"name": "Ada"})))

    assert face.get("k", face.fetcher(Failure("fetched")), schema=Other) == Failure("fetched")
    got = face.get("k", face.fetcher(Failure("fetched")), schema=Schema(User, name="user"))
    assert got == Success(User(name="Ada"))


@pytest.mark.parametrize(
    "act",
    [
        lambda cache: cache.invalidate("k"),
        lambda cache: cache.invalidate_prefix("k"),
        lambda cache: cache.put("k", 1),
        lambda cache: cache.clear(),
        lambda cache: cache.clear_scope(GLOBAL),
        lambda cache: cache.invalidate_tag("users"),
    ],
)
@pytest.mark.parametrize("schema", ["user", ""])
def test_what_is_removed_or_written_no_longer_waits(face: Face, act: Callable[[Any], None], schema: str) -> None:
    hydrate(face, document(wire(schema=schema, value={"name": "Ada"}, tags=["users"])))
    face.clock.advance(1.0)

    face.inside(lambda: act(face.cache))

    got = face.get("k", face.fetcher(Success(User(name="new"))), schema=Schema(User, name="user"))
    assert got in (Success(User(name="new")), Success(1))


def test_of_two_that_wait_the_newer_one_stays(face: Face) -> None:
    older, newer = (wire(schema="u", value={"name": str(at)}, created_at=NOW - at) for at in (9.0, 3.0))
    schema = Schema(User, name="u")
    for entries in ([older, newer], [newer, older]):
        new = face.new()
        assert hydrate(new, document(*entries)) == Hydrated(staged=2)
        assert new.get("k", new.fetcher(Failure("")), schema=schema) == Success(User(name="3.0"))


def test_an_end_of_the_session_takes_what_waits(face: Face) -> None:
    face.set_active_user("ada")
    waiting = wire(scope="user", user="ada", schema="u", value={"name": "Ada"})
    hydrate(face, document(waiting))
    face.end_session()
    face.set_active_user("ada")

    got = face.get("k", face.fetcher(Failure("fetched")), schema=Schema(User, name="u"), scope=USER)
    assert got == Failure("fetched")


def test_what_waits_is_bounded(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_ASIDE", 3)
    waiting = [wire(key=f"{number}", schema="u") for number in range(5)]
    assert hydrate(face, document(*waiting)) == Hydrated(staged=3, full=2)

    monkeypatch.setattr(intake, "MOST_BYTES_ASIDE", 2_000)
    large = [wire(key="large", schema="u", value="x" * 2_000), wire(key="small", schema="u")]
    assert hydrate(face.new(), document(*large)) == Hydrated(staged=1, full=1)


# Room


def test_nothing_is_driven_out(face: Face) -> None:
    small = face.new(max_entries=3)
    small.fill("mine", "live")

    counts = hydrate(small, document(*(wire(key=f"{number}") for number in range(5)), wire(key="mine")))

    assert counts == Hydrated(admitted=2, full=3, newer=1)
    assert small.peek("mine") == Success("live")
    assert small.log.named("evict") == []
    assert counts.left_out == 4


def test_neither_watchers_nor_logger_nor_store_hear_of_it(face: Face) -> None:
    heard = face.listen("k")

    hydrate(face, document(wire()))

    face.settle()
    assert heard.take() == []
    assert face.log.take() == []


# Bad ones


GOOD = wire()
NOT_SNAPSHOTS: list[tuple[Any, str]] = [
    (None, "no snapshot but NoneType"),
    (object(), "no snapshot but object"),
    (["entries"], "no snapshot but list"),
    (b"", "no JSON"),
    (b"\x80\x04\x95", "no JSON"),
    (b"\x1f\x8b\x08\x00", "no JSON"),
    ("{", "no JSON"),
    ("\ud800", "no JSON"),
    ("[]", "no snapshot"),
    ("{}", "no snapshot"),
    ({}, "no snapshot"),
    ({"entries": ()}, "no snapshot"),
    (document(GOOD, format="other"), "no snapshot"),
    (document(GOOD, version=2), "of another version"),
    (document(GOOD, version="1"), "no snapshot"),
    (document(1), "no snapshot"),
    (document(GOOD, taken_at="x"), "no snapshot"),
    (document({**GOOD, 1: 2}), "no JSON"),
    (document({**GOOD, "value": object()}), "no JSON"),
    (document({**GOOD, "value": "\ud800"}), "no JSON"),
    (Snapshot(NOW, [], 0), "no snapshot"),  # type: ignore[arg-type]
    (Snapshot(NOW, (), 0, None), "no snapshot"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("source", "reason"), NOT_SNAPSHOTS, ids=lambda each: repr(each)[:40])
def test_hy1_what_is_no_snapshot_is_a_failure(face: Face, source: Any, reason: str) -> None:
    face.fill("k", "live")

    answer = face.at_once("hydrate", source)

    assert type(answer.failure()) is InvalidSnapshot
    assert answer.failure().reason == reason
    assert face.peek("k") == Success("live")
    assert len(snapshot_of(face)) == 1


DAMAGED: list[dict[str, Any]] = [
    {"scope": "galaxy"},
    {"scope": "user"},
    {"scope": "user", "user": 1},
    {"user": "ada"},
    {"key": 1},
    {"key": None},
    {"created_at": "now"},
    {"created_at": 1e300},
    {"ttl": -1.0},
    {"expires_at": 1e300},
    {"ageing_at": -1e300},
    {"serve_stale": 1.0},
    {"serve_stale": -1.0, "stale_if_error": 0.0},
    {"tags": "users"},
    {"tags": [1]},
    {"validator": [1]},
    {"is_failure": 1},
    {"is_failure": True},
    {"schema": 1},
    {"version": "x"},
    {"text": "1"},
    {"text": "{"},
    {"value": [0] * 300_000},
]


@pytest.mark.parametrize("flaw", DAMAGED, ids=lambda each: repr(each)[:40])
def test_hy1_a_damaged_entry_costs_only_itself(face: Face, flaw: dict[str, Any]) -> None:
    entry = wire(**flaw)
    if flaw == {"text": "{"}:
        del entry["value"]
    text = json.dumps(document(entry, wire(key="good")))

    assert hydrate(face, text) == Hydrated(admitted=1, damaged=1)
    assert face.peek("good") == Success(1)
    assert face.peek("k") == Failure(CacheMiss("k"))


@pytest.mark.parametrize("left_out", ["scope", "key", "created_at", "value"])
def test_hy1_an_entry_of_which_something_is_missing_is_damaged(face: Face, left_out: str) -> None:
    entry = {name: each for name, each in wire().items() if name != left_out}

    assert hydrate(face, document(entry)) == Hydrated(damaged=1)


class Odd:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


STORED = StoredEntry((GLOBAL, None), "k", Encoded(b"1"), is_failure=False, created_at=NOW, ttl_s=None, expires_at=None)


@pytest.mark.parametrize(
    "record",
    [
        None,
        msgspec.structs.replace(STORED, value=1),
        msgspec.structs.replace(STORED, value=Encoded("1")),  # type: ignore[arg-type]
        msgspec.structs.replace(STORED, value=Encoded(b"1", 1)),  # type: ignore[arg-type]
        msgspec.structs.replace(STORED, value=Encoded(b"1", "", None)),  # type: ignore[arg-type]
        msgspec.structs.replace(STORED, value=Encoded(b'"' + b"x" * 9_000_000 + b'"')),
        msgspec.structs.replace(STORED, value=Encoded(b"{")),
        msgspec.structs.replace(STORED, owner=1),
        msgspec.structs.replace(STORED, owner=("global", None)),
        msgspec.structs.replace(STORED, owner=(GLOBAL, 1)),
        msgspec.structs.replace(STORED, owner=(USER, None)),
        msgspec.structs.replace(STORED, key=Odd()),
        msgspec.structs.replace(STORED, validator=Odd()),
        msgspec.structs.replace(STORED, created_at=None),
        msgspec.structs.replace(STORED, created_at=nan),
        msgspec.structs.replace(STORED, ttl_s=inf),
        msgspec.structs.replace(STORED, tags=["a"]),
    ],
    ids=repr,
)
def test_hy1_a_snapshot_that_was_put_together_by_hand_is_looked_at_too(face: Face, record: Any) -> None:
    assert hydrate(face, Snapshot(NOW, (record, STORED))) == Hydrated(admitted=1, damaged=1)


def test_a_snapshot_that_is_too_large(face: Face) -> None:
    face.fill("k", "x" * 1000)
    face.fill("l", 1)
    taken = snapshot_of(face)
    for form in (taken, taken.to_json(), taken.to_json().decode(), taken.to_builtins()):
        for limits in ({"max_bytes": 999}, {"max_entries": 1}):
            answer = face.new().at_once("hydrate", form, **limits)
            assert type(answer.failure()) is InvalidSnapshot, (type(form), limits)
        assert hydrate(face.new(), form, max_bytes=10_000, max_entries=2) == Hydrated(admitted=2)


@pytest.mark.parametrize("options", [{"scopes": "user"}, {"max_bytes": "1"}, {"max_bytes": -1}, {"max_entries": True}])
def test_an_option_that_makes_no_sense(face: Face, options: dict[str, Any]) -> None:
    assert type(face.at_once("hydrate", document(), **options).failure()) is InvalidOption


def test_a_cache_that_was_closed(face: Face) -> None:
    face.fill("k", 1)
    taken = snapshot_of(face)
    face.close()

    assert type(face.at_once("hydrate", taken).failure()) is CacheClosed
    assert len(snapshot_of(face)) == 0


def test_a_cache_that_is_closed_meanwhile(sync_face: Face) -> None:
    class Closing(BaseModel):
        def model_post_init(self, context: Any) -> None:
            del context
            sync_face.cache.close()

    sync_face.cache.expect(Schema(Closing, name="closing"))

    assert hydrate(sync_face, document(wire(schema="closing", value={}))) == Hydrated(removed=1)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.binary() | st.text() | JSON_VALUES | st.builds(document, JSON_VALUES, JSON_VALUES))
def test_hy1_nothing_is_ever_raised(source: Any) -> None:
    cache = SyncCache()

    answer = cache.hydrate(source)

    assert isinstance(answer, Success) or type(answer.failure()) is InvalidSnapshot


FIELDS = sorted({*wire(), "user", "schema", "ttl", "expires_at", "serve_stale", "stale_if_error", "tags", "is_failure"})
FORGED = st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES | st.sampled_from(["global", "user", "session", NOW]))


@given(st.lists(st.builds(lambda forged: wire(**forged), FORGED), max_size=4))
def test_hy1_forged_entries_are_taken_in_or_counted(entries: list[dict[str, Any]]) -> None:
    cache = SyncCache(clock=lambda: NOW)

    answer = cache.hydrate(document(*entries))

    if isinstance(answer, Success):
        counts = answer.unwrap()
        assert counts.admitted + counts.staged + counts.left_out == len(entries)


@given(st.data())
@settings(max_examples=50)
def test_hy1_each_byte_may_be_another_one(data: st.DataObject) -> None:
    cache = SyncCache(clock=lambda: NOW)
    cache.put("k", {"name": "Ada"}, ttl=60, tags=("a",))
    text = bytearray(cache.dehydrate().to_json())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))

    answer = SyncCache().hydrate(bytes(text))

    assert isinstance(answer, Success) or type(answer.failure()) is InvalidSnapshot


@given(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=5))
def test_there_and_back_for_all_plain_values(values: dict[str, Any]) -> None:
    cache, other = SyncCache(), SyncCache()
    for key, value in values.items():
        cache.put(key, value, ttl=60)

    taken = cache.dehydrate()

    counts = other.hydrate(taken.to_json()).unwrap()
    assert counts.admitted + taken.left_out == len(values)
    for key, value in values.items():
        back = other.peek(key)
        assert isinstance(back, Failure) or repr(back.unwrap()) == repr(value)


# At the same time


def test_a_snapshot_is_of_one_instant(sync_face: Face) -> None:
    """Two keys that are always written one after the other: the second is never ahead."""
    cache: SyncCache = sync_face.cache
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            cache.put("first", number)
            cache.put("second", number)
            time.sleep(0)  # Who only ever lets go of a lock to take it again leaves it to nobody.

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    writer = threading.Thread(target=write)
    writer.start()
    seen: set[int] = set()
    deadline = time.monotonic() + PATIENCE_S
    try:
        while len(seen) < 50 and time.monotonic() < deadline:
            held = {each.key: json.loads(each.value.payload) for each in cache.dehydrate().records}
            assert 0 <= held.get("first", 0) - held.get("second", 0) <= 1
            seen.add(held.get("first", 0))
    finally:
        over.set()
        writer.join()
        sys.setswitchinterval(before)
    assert len(seen) > 1


def test_a_coroutine_may_have_a_thread_do_it(async_face: Face) -> None:
    async_face.fill("k", 1)
    cache, new = async_face.cache, async_face.new().cache

    async def main() -> Any:
        taken = await asyncio.to_thread(cache.dehydrate)
        return await asyncio.to_thread(new.hydrate, taken.to_json())

    with asyncio.Runner() as runner:
        assert runner.run(main()) == Success(Hydrated(admitted=1))
    assert new.peek("k") == Success(1)
