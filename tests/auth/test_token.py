"""A token: what it says of itself, what is read as one, and that its secrets stay in it."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from datetime import UTC, datetime
from math import inf
from traceback import format_exception
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from returns.result import Failure, Success
from rich.console import Console
from rich.pretty import pretty_repr

from cachemesh.auth import InvalidToken, Token

CANARY = "c4n4ry-c4n4ry-c4n4ry"

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SECRETS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12)


def jwt(claims: object, **header: Any) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256', **header})}.{part(claims)}.c2lnbmF0dXJl"


def full() -> Token:
    return Token(
        access_token=CANARY,
        refresh_token=f"r{CANARY}",
        expires_at=100.5,
        scopes=("read", "write"),
        metadata={"sub": "ada", "id_token": CANARY, "nested": {"list": [1, {"deep": None}]}},
    )


# Lifetimes


@pytest.mark.parametrize(
    ("now", "leeway", "is_expired"),
    [(99.9, 0.0, False), (100.0, 0.0, True), (89.9, 10.0, False), (90.0, 10.0, True), (1e9, 0.0, True)],
)
def test_it_expires_at_the_very_instant(now: float, leeway: float, *, is_expired: bool) -> None:
    token = Token(access_token="a", expires_at=100)

    assert token.is_expired(now, leeway) is is_expired
    assert token.is_valid(now, leeway) is not is_expired


def test_without_an_expiry_it_never_expires() -> None:
    token = Token(access_token="a", refresh_token="r")

    assert not token.is_expired(1e12)
    assert token.remaining_lifetime(1e12) == inf
    assert not token.requires_refresh(1e12)


def test_lifetimes_never_go_below_nothing() -> None:
    token = Token(access_token="a", refresh_token="r", expires_at=1_000.0)

    assert [token.remaining_lifetime(now) for now in (0.0, 999.0, 1_001.0)] == [1_000.0, 1.0, 0.0]
    assert [token.will_expire_within(10, now) for now in (989.9, 990.0)] == [False, True]
    assert [token.requires_refresh(now) for now in (699.9, 700.0)] == [False, True]
    assert not token.model_copy(update={"refresh_token": None}).requires_refresh(700.0)


def test_an_expiry_may_be_an_aware_datetime() -> None:
    assert Token(access_token="a", expires_at=datetime(1970, 1, 2, tzinfo=UTC)).expires_at == 86_400.0  # type: ignore[arg-type]


@pytest.mark.parametrize("expires_at", [datetime(1970, 1, 2), True, "100", inf, float("nan"), [1]])  # noqa: DTZ001 (a naive one)
def test_an_expiry_is_nothing_else(expires_at: Any) -> None:
    with pytest.raises(ValidationError):
        Token(access_token="a", expires_at=expires_at)


# What it says


@pytest.mark.parametrize(
    ("sub", "subject"), [("ada", "ada"), (42, "42"), (True, None), ("", None), (None, None), ([], None)]
)
def test_b40_its_subject_is_kept(sub: object, subject: str | None) -> None:
    assert Token(access_token="a", metadata={"sub": sub}).subject == subject
    assert Token.from_jwt(jwt({"sub": sub})).unwrap().subject == subject


def test_scopes_are_asked_for_by_name() -> None:
    token = full()

    assert (token.has_scope("read"), token.has_scope("admin")) == (True, False)
    assert (token.has_all("read", "write"), token.has_all("read", "admin")) == (True, False)
    assert (token.has_any("read", "admin"), token.has_any("admin")) == (True, False)


@pytest.mark.parametrize(("text", "masked"), [("12345678", "***"), ("123456789", "1234…6789"), ("1", "***")])
def test_a_masked_token_shows_its_ends(text: str, masked: str) -> None:
    assert Token(access_token=text).masked_access_token == masked


def test_nobody_changes_it() -> None:
    given: dict[str, Any] = {"sub": "ada", "groups": ["a"]}
    token = Token(access_token="a", metadata=given)
    given["groups"].append("b")

    assert token.metadata["groups"] == ("a",)
    with pytest.raises(TypeError):
        token.metadata["sub"] = "bob"  # type: ignore[index]
    with pytest.raises(ValidationError):
        token.access_token = "b"


def test_tokens_are_equal_by_value() -> None:
    assert full() == full()
    assert hash(full()) == hash(full())
    assert full() != full().model_copy(update={"scopes": ()})
    assert copy.deepcopy(full()) == copy.copy(full()) == pickle.loads(pickle.dumps(full())) == full()  # noqa: S301 (our own)


# Reading


@settings(max_examples=100, deadline=None)
@given(
    SECRETS,
    st.none() | SECRETS,
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.text(), max_size=3),
    st.dictionaries(st.text(), JSON, max_size=4),
)
def test_json_brings_it_back(
    access: str, refresh: str | None, expires_at: float | None, scopes: list[str], metadata: dict[str, Any]
) -> None:
    token = Token(
        access_token=access, refresh_token=refresh, expires_at=expires_at, scopes=tuple(scopes), metadata=metadata
    )

    assert Token.from_json(token.to_json()) == Success(token)
    assert Token.from_json(token.to_json().encode()) == Success(token)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"expires_in": 60}, {"expires_at": 160.0}),
        ({"expires_in": "60"}, {"expires_at": 160.0}),
        ({"expires_in": 60.5}, {"expires_at": 160.5}),
        ({"expires_in": None}, {"expires_at": None}),
        ({"expires_in": 60, "expires_at": 7}, {"expires_at": 7.0}),
        ({"scope": "read write"}, {"scopes": ("read", "write")}),
        ({"scope": ["read"]}, {"scopes": ("read",)}),
        ({"scopes": ["read"]}, {"scopes": ("read",)}),
        ({"token_type": "DPoP"}, {"token_type": "DPoP"}),
        ({"token_type": None}, {"token_type": "Bearer"}),
        ({"refresh_token": "r"}, {"refresh_token": "r"}),
        ({"sub": "ada", "metadata": {"a": 1}}, {"subject": "ada", "metadata": {"a": 1, "sub": "ada"}}),
    ],
)
def test_the_answer_of_a_token_endpoint(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    token = Token.from_response({"access_token": "a", **fields}, now=100.0).unwrap()

    assert {name: getattr(token, name) for name in expected} == expected


def test_b40_a_lifetime_needs_an_instant() -> None:
    assert Token.from_response({"access_token": "a", "expires_in": 60}) == Failure(
        InvalidToken("expires_in: counts from an instant that is not given")
    )


@pytest.mark.parametrize("exp", [1_700_000_000, 1_700_000_000.25])
def test_b40_exp_counts_as_a_float_too(exp: float) -> None:
    token = Token.from_jwt(jwt({"exp": exp, "sub": "ada", "scp": ["read"]}), refresh_token="r").unwrap()

    assert token.expires_at == exp
    assert token.metadata == {"exp": exp, "sub": "ada", "scp": ("read",)}
    assert token.scopes == ("read",)
    assert token.refresh_token == "r"


NO_JWTS: list[Any] = [
    "",
    "a",
    "a.b",
    "a.b.c.d",
    "..",
    CANARY,
    f"{CANARY}.{CANARY}.{CANARY}",
    "a.!!!.c",
    jwt([]),
    jwt("text"),
    jwt(None),
    jwt({"exp": "1700000000"}),
    jwt({"exp": True}),
    jwt({"exp": 10**400}),
    jwt({"exp": [CANARY]}),
    jwt({"scope": 7}),
    jwt({"scope": [7]}),
    jwt({"a": "\ud800"}),
    jwt({"exp": 1}) + "\n",
    "é.é.é",
    "a." + base64.urlsafe_b64encode(b"[" * 100_000).decode().rstrip("=") + ".c",
    "a." + base64.urlsafe_b64encode(b'{"a":' * 40 + b"1" + b"}" * 40).decode().rstrip("=") + ".c",
    "a." + "A" * 2_000_000 + ".c",
    None,
    7,
    b"a.b.c",
]


@pytest.mark.parametrize("text", NO_JWTS, ids=range(len(NO_JWTS)))
def test_what_is_no_jwt_is_a_failure_that_quotes_nothing(text: Any) -> None:
    failure = Token.from_jwt(text).failure()

    assert isinstance(failure, InvalidToken)
    assert "c4n4ry" not in repr(failure) + str(failure.__cause__) + str(failure.__context__)


NO_JSON: list[Any] = [
    "",
    "nonsense",
    "[]",
    "null",
    CANARY,
    "{}",
    '{"access_token": null}',
    '{"access_token": ""}',
    f'{{"access_token": ["{CANARY}"]}}',
    f'{{"access_token": "{CANARY}\\n"}}',
    f'{{"access_token": "{CANARY}\\r\\nX-Admin: 1"}}',
    '{"access_token": "a", "refresh_token": 7}',
    '{"access_token": "a", "expires_in": "soon"}',
    '{"access_token": "a", "expires_in": true}',
    '{"access_token": "a", "expires_in": 1e999}',
    '{"access_token": "a", "expires_in": NaN}',
    '{"access_token": "a", "expires_at": "2030-01-01"}',
    '{"access_token": "a", "scope": 7}',
    '{"access_token": "a", "x": ' + "[" * 50 + "]" * 50 + "}",
    '{"access_token": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"access_token": "' + "a" * 2_000_000 + '"}',
    '{"access_token": "a", "x": ' + "9" * 5_000 + "}",
    b"\xff\xfe",
    None,
    7,
]


@pytest.mark.parametrize("text", NO_JSON, ids=range(len(NO_JSON)))
def test_what_is_no_token_in_json_is_a_failure_that_quotes_nothing(text: Any) -> None:
    failure = Token.from_json(text, now=0.0).failure()

    assert isinstance(failure, InvalidToken)
    assert "c4n4ry" not in repr(failure) + str(failure.__cause__) + str(failure.__context__)


@pytest.mark.parametrize(
    "metadata", [{"a": object()}, {1: 2}, {"a": inf}, {"a": {1, 2}}, {"\ud800": 1}, {"a": 1 << 2_000}, [], None]
)
def test_metadata_is_json(metadata: Any) -> None:
    with pytest.raises(ValidationError):
        Token(access_token="a", metadata=metadata)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.binary())
def test_whatever_is_read_nothing_is_raised(text: Any) -> None:
    assert isinstance(Token.from_json(text, 0.0), Failure | Success)
    assert isinstance(Token.from_jwt(text), Failure | Success)


# Secrets


def test_se6_it_is_shown_without_its_secrets() -> None:
    token, console = full(), Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(token, [token], {"token": token})
    console.file.close()
    shown = [repr(token), str(token), f"{token}", f"{token!r:>5}", pretty_repr(token), console.export_text()]

    assert not [text for text in shown if "c4n4ry" in text]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Token(access_token=f"{CANARY}\n"),
        lambda: Token(access_token=[CANARY]),  # type: ignore[arg-type]
        lambda: Token(access_token="a", metadata={"a": {CANARY}}),
        lambda: Token(access_token="a", scopes=CANARY),  # type: ignore[arg-type]
        lambda: Token(access_token=CANARY, expires_at=CANARY),  # type: ignore[arg-type]
        lambda: Token.model_validate({"access_token": CANARY, "expires_at": CANARY}),
        lambda: Token.model_validate_json(json.dumps({"access_token": CANARY, "expires_at": CANARY})),
        lambda: TypeAdapter(Token).validate_python({"access_token": CANARY, "refresh_token": 7}),
        lambda: full().model_copy(update={"refresh_token": f"{CANARY}\n"}),
    ],
)
def test_se6_an_invalid_one_is_told_without_its_secrets(make: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        make()

    error = raised.value
    assert "c4n4ry" not in f"{error} {error!r} {error.errors()} {error.json()} {''.join(format_exception(error))}"
    assert error.__context__ is None
