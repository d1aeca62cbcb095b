"""The settings of `HttpSource` and `SyncHttpSource`, and what they make of a call and of its answer."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import structs
from returns.result import Failure, Result, Success

from cachemesh.shell.default import DEFAULT
from cachemesh.sources.backoff import Backoff
from cachemesh.sources.failure import FailureKind, NetworkFailure
from cachemesh.sources.http.body import ACCEPTED
from cachemesh.sources.http.exchange import (
    Exchange,
    Rules,
    Spec,
    bytes_of,
    checked_headers,
    is_method,
    seconds_of,
    url_reader,
)
from cachemesh.sources.http.refusals import RefusedError, refuse
from cachemesh.sources.own_clients import URL
from cachemesh.sources.parsing import UnfitError, reader_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachemesh.sources.clients import AnyClient

T = TypeVar("T")

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
TIMEOUT_S: Final = 30.0
MAX_REDIRECTS: Final = 10

CLOSED: Final = NetworkFailure(kind=FailureKind.CANCELLED, message="the source is closed")


def rules_of(
    base_url: str | None,
    client: AnyClient | None,
    headers: Mapping[str, str] | None,
    timeout: object,
    max_body_bytes: int | None,
    max_redirects: int,
    auth: Any,  # noqa: ANN401 (what httpx2 takes)
    retry: Backoff | None,
) -> Rules:
    """The settings of a source. ValueError where one makes no sense."""
    url_type = URL if client is None else type(client.base_url)
    if type(max_redirects) is not int or max_redirects < 0:
        msg = "max_redirects: a number from 0 on"
        raise ValueError(msg)
    if retry is not None and not isinstance(retry, Backoff):
        msg = "retry: a Backoff, or None"
        raise ValueError(msg)
    try:
        base = None if base_url is None else url_reader(None, url_type)(base_url)
        if base is None and client is not None and client.base_url.host:
            base = client.base_url
        rules = Rules(
            base,
            known_urls(base, url_type),
            {"accept-encoding": ACCEPTED, **checked_headers(headers or {})},
            auth,
            seconds_of(timeout),
            bytes_of(max_body_bytes),
            max_redirects,
            retry,
        )
    except RefusedError as error:
        raise ValueError(error.failure.message) from None
    return rules


def known_urls(base: Any, url_type: Any) -> Callable[[str], Any]:  # noqa: ANN401 (a URL of httpx2 or httpx, and its type)
    """`url_reader`, with a memory."""
    known = lru_cache(maxsize=1024)(url_reader(base, url_type))

    def url_of(text: str) -> Any:  # noqa: ANN401 (as above)
        try:
            return known(text)
        except TypeError:  # It is not even hashable.
            refuse("the URL is invalid")

    return url_of


def shown(url: Any) -> str:  # noqa: ANN401 (a URL of httpx2 or httpx)
    """A URL without what may be secret: who asks, and the query."""
    return "" if url is None else str(url.copy_with(userinfo=b"", query=None, fragment=None))


def backoff_of(rules: Rules, spec: Spec) -> Backoff | None:
    """How `spec` is tried again; None: it is not. Refused where that is said with something else."""
    backoff = rules.backoff if spec.retry is DEFAULT else spec.retry
    if backoff is None:
        return None
    if not isinstance(backoff, Backoff):
        refuse("retry: a Backoff, or None")
    return backoff if is_method(spec.method) and backoff.covers(spec.method) and spec.is_repeatable else None


def attempt_of(rules: Rules, spec: Spec, backoff: Backoff) -> Spec:
    """One attempt of `spec`: it has no more time than `attempt_timeout`."""
    most = backoff.attempt_timeout_s
    if most is None:
        return spec
    asked = rules.timeout_s if spec.timeout is DEFAULT else seconds_of(spec.timeout)
    return structs.replace(spec, timeout=most if asked is None else min(asked, most))


def value_of(
    answer: Result[Exchange, NetworkFailure], read: Callable[[bytes, str | None], T]
) -> Result[T, NetworkFailure]:
    """What `read` makes of the body; a 304 is a failure to those who did not ask for one."""
    if not isinstance(answer, Success):
        return answer  # type: ignore[return-value]  # A Failure has no value to be of another type.
    exchange = answer.unwrap()
    if exchange.status == 304:  # noqa: PLR2004 (Not Modified)
        return Failure(NetworkFailure.of_status(304))
    try:
        return Success(read(exchange.body, exchange.charset))
    except UnfitError as error:
        return Failure(error.failure)


def reading(parser: Any) -> Callable[[bytes, str | None], Any] | NetworkFailure:  # noqa: ANN401 (a type)
    """What reads a body as `parser`, or why nothing does."""
    try:
        return reader_of(parser)
    except UnfitError as error:
        return error.failure
