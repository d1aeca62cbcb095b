"""`NetworkFailure`: what each status, exception and header means; that it is a value, and quotes nothing."""

from __future__ import annotations

import asyncio
import copy
import pickle
import socket
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpcore2
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from returns.result import Failure, Success

from cachemesh import Cache, CacheScope, Lifetime
from cachemesh.shell.lifetime import retry_after
from cachemesh.shell.schema import Schema
from cachemesh.sources import FailureKind, NetworkFailure, parse_retry_after
from cachemesh.stores.sqlite import SqliteStore
from tests.sources.servers import raw_server, response

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sources.driving import Driver

NOW = 946_684_789.0
"""Ten seconds before the end of 1999."""
END_OF_1999 = "Fri, 31 Dec 1999 23:59:59 GMT"

KINDS = {
    400: FailureKind.BAD_RESPONSE,
    401: FailureKind.UNAUTHORIZED,
    403: FailureKind.FORBIDDEN,
    404: FailureKind.NOT_FOUND,
    408: FailureKind.TIMEOUT,
    409: FailureKind.CONFLICT,
    410: FailureKind.BAD_RESPONSE,
    422: FailureKind.BAD_RESPONSE,
    429: FailureKind.RATE_LIMIT,
}
RETRIED = {408, 429}
PHRASES = {each.value: each.phrase for each in HTTPStatus}


@pytest.mark.parametrize("status", range(300, 600))
def test_b33_what_a_status_means(status: int) -> None:
    failure = NetworkFailure.of_status(status)
    usual = FailureKind.SERVER_ERROR if status >= 500 else FailureKind.BAD_RESPONSE

    assert (failure.kind, failure.status) == (KINDS.get(status, usual), status)
    assert failure.is_retryable == (status >= 500 or status in RETRIED)
    assert failure.is_unauthorized == (status == 401)
    assert failure.message == (PHRASES.get(status, f"HTTP {status}"))


@pytest.mark.parametrize("status", [*KINDS, 302, 500, 503, 599])
def test_b33_a_source_and_a_status_say_the_same(driver: Driver, status: int) -> None:
    with raw_server(response(b"canary", f"{status} Canary")) as server:
        assert driver.open(server.url).get("/").failure() == NetworkFailure.of_status(status)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": END_OF_1999, "date": "Fri, 31 Dec 1999 23:59:49 GMT"}, 10.0),
        ({"retry_after": END_OF_1999, "date": "Sat, 01 Jan 2000 00:00:00 GMT"}, 0.0),
        ({"retry_after": END_OF_1999}, None),
        ({"retry_after": "soon"}, None),
        ({}, None),
    ],
)
def test_b30_a_source_tells_what_the_origin_asks_for(driver: Driver, status: int, headers: Any, seconds: Any) -> None:
    with raw_server(response(b"", f"{status} x", **headers)) as server:
        assert driver.open(server.url).get("/").failure() == NetworkFailure.of_status(status, retry_after=seconds)


@pytest.mark.parametrize(
    ("value", "now", "seconds"),
    [
        # RFC 9110, section 10.2.3: delay-seconds is 1*DIGIT.
        ("120", None, 120.0),
        (" 120 ", None, 120.0),
        ("0", None, 0.0),
        ("-1", None, None),
        ("+1", None, None),
        ("1.5", None, None),
        ("١٢", None, None),
        ("1e3", None, None),
        ("9" * 400, None, None),
        ("", None, None),
        ("soon", NOW, None),
        (None, NOW, None),
        # The other form is an HTTP-date, section 5.6.7: all three of its formats.
        (END_OF_1999, NOW, 10.0),
        ("Friday, 31-Dec-99 23:59:59 GMT", NOW, 10.0),
        ("Fri Dec 31 23:59:59 1999", NOW, 10.0),
        (END_OF_1999, NOW + 60, 0.0),
        (END_OF_1999, None, None),
        ("Fri, 31 Dec 1999 23:59:59 +0100", NOW, None),
        ("Fri, 32 Dec 1999 23:59:59 GMT", NOW, None),
        ("Fri, 31 Dec 99999999999 23:59:59 GMT", NOW, None),
    ],
)
def test_b30_what_retry_after_says(value: str | None, now: float | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now) == seconds


@given(value=st.text(max_size=40), now=st.one_of(st.none(), st.floats(0, 1e10)))
def test_retry_after_is_never_negative_and_never_raises(value: str, now: float | None) -> None:
    seconds = parse_retry_after(value, now)

    assert seconds is None or 0 <= seconds < float("inf")


REQUEST = httpx2.Request("GET", "http://example.org/canary", headers={"authorization": "canary"})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ConnectTimeout("canary", request=REQUEST), FailureKind.TIMEOUT),
        (httpx2.ReadTimeout("canary", request=REQUEST), FailureKind.TIMEOUT),
        (httpx2.WriteTimeout("canary"), FailureKind.TIMEOUT),
        (httpx2.PoolTimeout("canary"), FailureKind.TIMEOUT),
        (httpx2.ConnectError("canary", request=REQUEST), FailureKind.NETWORK),
        (httpx2.ReadError("canary"), FailureKind.NETWORK),
        (httpx2.WriteError("canary"), FailureKind.NETWORK),
        (httpx2.CloseError("canary"), FailureKind.NETWORK),
        (httpx2.ProxyError("canary"), FailureKind.NETWORK),
        (httpx2.UnsupportedProtocol("canary"), FailureKind.NETWORK),
        (httpx2.LocalProtocolError("canary"), FailureKind.NETWORK),
        (httpx2.RemoteProtocolError("canary", request=REQUEST), FailureKind.BAD_RESPONSE),
        (httpx2.DecodingError("canary"), FailureKind.BAD_RESPONSE),
        (httpx2.TooManyRedirects("canary"), FailureKind.BAD_RESPONSE),
        (httpx2.InvalidURL("canary"), FailureKind.UNKNOWN),
        (httpcore2.ReadTimeout("canary"), FailureKind.TIMEOUT),
        (httpcore2.RemoteProtocolError("canary"), FailureKind.BAD_RESPONSE),
        (TimeoutError("canary"), FailureKind.TIMEOUT),
        (asyncio.CancelledError("canary"), FailureKind.CANCELLED),
        (ConnectionResetError("canary"), FailureKind.NETWORK),
        (socket.gaierror("canary"), FailureKind.NETWORK),
        (ssl.SSLCertVerificationError("canary"), FailureKind.NETWORK),
        (ValueError("canary"), FailureKind.UNKNOWN),
        (RuntimeError("canary"), FailureKind.UNKNOWN),
    ],
)
def test_b31_what_an_exception_means(error: BaseException, kind: FailureKind) -> None:
    """A loss of the network is what is most worth a second try."""
    failure = NetworkFailure.of_exception(error)

    assert (failure.kind, failure.message, failure.cause) == (kind, type(error).__name__, error)
    assert failure.is_retryable == (kind in {FailureKind.TIMEOUT, FailureKind.NETWORK, FailureKind.BAD_RESPONSE})
    for shown in (repr(failure), str(failure), failure.model_dump_json(), repr(failure.model_dump())):
        assert "canary" not in shown


def test_an_exception_of_httpx_means_the_same() -> None:
    httpx = pytest.importorskip("httpx")

    assert NetworkFailure.of_exception(httpx.ReadTimeout("x")).kind is FailureKind.TIMEOUT
    assert NetworkFailure.of_exception(httpx.ConnectError("x")).kind is FailureKind.NETWORK
    assert NetworkFailure.of_exception(httpx.RemoteProtocolError("x")).kind is FailureKind.BAD_RESPONSE


def test_a_cause_lets_go_of_the_request_and_of_its_frames() -> None:
    with pytest.raises(httpx2.ConnectError) as raised:
        raise httpx2.ConnectError("x", request=REQUEST) from ValueError("canary")  # noqa: EM101 (as short as can be)

    cause: Any = NetworkFailure.of_exception(raised.value).cause

    assert (cause.__traceback__, cause.__cause__, cause.__context__, cause._request) == (None, None, None, None)


FAILURES = [
    NetworkFailure.of_status(503, retry_after=2.5),
    NetworkFailure.of_status(404, "no such user"),
    NetworkFailure.of_exception(httpx2.ReadTimeout("canary")),
    *(NetworkFailure(kind=kind, message="m") for kind in FailureKind),
]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_it_is_a_value(failure: NetworkFailure) -> None:
    unpickled = pickle.loads(pickle.dumps(failure))  # noqa: S301 (our own)
    for other in (unpickled, copy.copy(failure), copy.deepcopy(failure), failure.model_copy()):
        assert other == failure
        assert hash(other) == hash(failure)
        assert repr(other) == repr(failure)
    assert unpickled.cause is None
    assert b"canary" not in pickle.dumps(failure)
    assert NetworkFailure.model_validate_json(failure.model_dump_json()) == failure
    assert TypeAdapter(NetworkFailure).validate_json(failure.model_dump_json(), strict=True) == failure


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_it_comes_back_of_a_schema_as_it_went(failure: NetworkFailure) -> None:
    schema = Schema(NetworkFailure)

    assert schema.decode(schema.encode(failure)) == failure


def test_what_differs_is_not_equal() -> None:
    assert len(set(FAILURES)) == len(FAILURES)
    assert NetworkFailure.of_status(503) != NetworkFailure.of_status(503, retry_after=1.0)
    assert NetworkFailure.of_status(503) != "server_error"
    assert NetworkFailure(kind=FailureKind.TIMEOUT, cause=ValueError()) == NetworkFailure(kind=FailureKind.TIMEOUT)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "odd"},
        {},
        {"kind": "timeout", "retry_after": -1},
        {"kind": "timeout", "retry_after": float("nan")},
        {"kind": "timeout", "retry_after": float("inf")},
        {"kind": "timeout", "secret": 1},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NetworkFailure(**fields)


def test_it_never_changes() -> None:
    with pytest.raises(ValidationError):
        FAILURES[0].message = "canary"


def test_a_failure_outlives_the_process_that_met_it(tmp_path: Path) -> None:
    """Remembered for as long as the origin asks, and read from the file by the next cache."""
    failure = NetworkFailure.of_status(429, retry_after=30.0)
    options: Any = {
        "scope": CacheScope.GLOBAL,
        "schema": int,
        "error_schema": NetworkFailure,
        "ttl": Lifetime(ttl=60, failure_ttl=retry_after),
    }

    async def failing() -> Any:
        return Failure(failure)

    async def well() -> Any:
        return Success(1)

    async def one(fetch: Any) -> Any:
        store = SqliteStore(tmp_path / "cache.db")
        cache = Cache(store=store)
        answer = await cache.get("k", fetch, **options)
        await cache.flush()
        await store.aclose()
        return answer

    assert asyncio.run(one(failing)) == Failure(failure)
    assert asyncio.run(one(well)) == Failure(failure)
