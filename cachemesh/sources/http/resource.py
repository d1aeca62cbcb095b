"""A resource that is asked for by GET, and one asking for it: what is sent, what comes of it. For either face.

The rules are those of `caching.py`; here they meet requests and answers on the
one side, and on the other what a cache is told: `Fresh`, `DoNotCache`, `NotModified`.
"""

from __future__ import annotations

from copy import deepcopy
from hashlib import blake2b
from time import time
from typing import TYPE_CHECKING, Any, Final, TypedDict

from msgspec import structs
from pydantic import ConfigDict, TypeAdapter
from returns.result import Failure, Result, Success

from cachemesh.core.scopes import CacheScope
from cachemesh.shell.default import DEFAULT, Default
from cachemesh.shell.directives import DoNotCache, Fresh, NotModified, Previous
from cachemesh.shell.durations import Duration, duration_s
from cachemesh.shell.lifetime import Lifetime
from cachemesh.shell.schema import Schema
from cachemesh.sources.failure import FailureKind, NetworkFailure
from cachemesh.sources.http import caching
from cachemesh.sources.http.caching import Answered, Asked, Fields, Verdict, conditions, stored_in, strictest, verdict
from cachemesh.sources.http.exchange import Exchange, Passed, Rules, Spec, checked_headers
from cachemesh.sources.http.refusals import RefusedError, refuse
from cachemesh.sources.http.settings import reading, shown
from cachemesh.sources.parsing import UnfitError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachemesh.shell.call import FetchOptions
    from cachemesh.sources.clients import Headers

CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})
"""They are in no key: what they select is for the rules of Vary and of Authorization."""

OF_THE_CONNECTION: Final = frozenset({"host", "connection", "accept-encoding", "content-length"})
"""They select nothing that a parser gets to see."""

NOT_MODIFIED: Final = 304

BODY: Final = Schema(
    TypeAdapter(bytes, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")), name="bytes in base64"
)
"""What a body that nothing has read is stored as."""


class FetcherOptions(TypedDict, total=False):
    """The keywords of a fetcher, beside `parser`.

    `scope`: that of the calls that it is for, and so by which rules: `GLOBAL` is
    a shared cache of RFC 9111, a user's or a session's a private one.
    `default_ttl`: for answers that say nothing of their lifetime; a duration, or
    None for ever. `heuristic`: such an answer with a Last-Modified is taken to be fresh for
    a tenth of its age, a day at the most (RFC 9111, section 4.2.2). The others are those of a request.
    """

    scope: CacheScope
    default_ttl: Duration | Default | None
    heuristic: bool
    params: Any
    headers: Any
    timeout: Any
    max_body_bytes: int | None
    retry: Any


class Resource:
    """What is at a URL, for who asks with certain headers. `key`: what a cache may know it by.

    `options`: those of a call of the cache that asks for it. `refusal`: why it cannot be asked for, where it cannot.
    """

    __slots__ = (
        "_client",
        "_fields",
        "_headers",
        "_source",
        "caching",
        "id",
        "key",
        "options",
        "read",
        "refusal",
        "spec",
    )

    def __init__(
        self,
        source: Rules,
        client: Any,  # noqa: ANN401 (of httpx2 or httpx, or None)
        url: str,
        parser: Any,  # noqa: ANN401 (a type)
        *,
        scope: CacheScope = CacheScope.GLOBAL,
        default_ttl: Duration | Default | None = DEFAULT,
        heuristic: bool = False,
        params: Any = None,  # noqa: ANN401 (what httpx2 takes)
        headers: Any = None,  # noqa: ANN401 (as above)
        timeout: Any = DEFAULT,  # noqa: ANN401 (a duration, however it is written)
        max_body_bytes: int | Default | None = DEFAULT,
        retry: Any = DEFAULT,  # noqa: ANN401 (a Backoff)
    ) -> None:
        ttl_s: float | Default | None = default_ttl if isinstance(default_ttl, Default) else duration_s(default_ttl)
        self.caching = caching.Rules(CacheScope(scope) is CacheScope.GLOBAL, heuristic, ttl_s)
        self._source = source
        self._client = client
        self.spec = Spec("GET", url, timeout=timeout, max_body_bytes=max_body_bytes, retry=retry)
        self.refusal: NetworkFailure | None = None
        self.read: Any = reading(parser)
        self.options: FetchOptions = {
            "scope": CacheScope(scope),
            "conditional": True,
            "schema": BODY if parser is bytes else parser,
            "error_schema": NetworkFailure,
        }
        self._headers: Mapping[str, str] = {}
        self._fields: Fields = ()
        if isinstance(self.read, NetworkFailure):
            self.refusal = self.read
        try:
            self._headers = checked_headers(headers or {})
            self.spec = structs.replace(self.spec, params=copied(params), headers=self._headers or None)
            place, self._fields = self.described()
        except RefusedError as error:
            self.refusal = error.failure
            self.id = digest(repr(url))
            self.key = f"GET {self.id}"
            return
        whole = str(place.copy_with(userinfo=b"", fragment=None))
        self.id = digest(whole)
        selecting = sorted((name, value) for name, value in self._fields if name not in CREDENTIALS)
        self.key = f"GET {shown(place)}"
        if selecting or place.query:
            self.key += f" {digest(whole, *(part for field in selecting for part in field))}"

    def described(self, token: str | None = None) -> tuple[Any, Fields]:
        """The URL that is asked for now, and the fields of the request that count; what an `auth` adds is not there."""
        spec, headers = self.spec, {**self._source.headers, **self._sent(token)}
        url = self._source.url_of(spec.url)
        try:
            if self._client is not None:
                request = self._client.build_request("GET", url, params=spec.params, headers=headers)
                return request.url, counting(request.headers)
            url = url if spec.params is None else type(url)(url, params=spec.params)
        except Exception as error:  # noqa: BLE001 (whatever a client makes of what it is given)
            refuse(f"no request can be made of these arguments: {type(error).__name__}")
        return url, tuple((name, value) for name, value in headers.items() if counts(name, value))

    def unkeyed(self, fields: Fields) -> frozenset[str]:
        """The headers of a request that are not what the key was made of: credentials, and what was added since."""
        changed = set(fields) ^ set(self._fields)
        return CREDENTIALS | {name for name, _ in changed}

    def spec_with(self, token: str | None, conditional: Mapping[str, str]) -> Spec:
        """The request, with a token and conditions."""
        headers = {**self._sent(token), **conditional}
        return structs.replace(self.spec, headers=headers) if headers else self.spec

    def _sent(self, token: str | None) -> Mapping[str, str]:
        return self._headers if token is None else {**self._headers, "authorization": f"Bearer {token}"}


class Inquiry:
    """One asking for a resource. `answer`: what it came to; while there is none, `spec` is to be sent next."""

    __slots__ = ("_previous", "_resource", "_stored", "_token", "answer", "spec")

    def __init__(self, resource: Resource, previous: object, token: str | None = None) -> None:
        self._resource = resource
        self._previous = previous if isinstance(previous, Previous) else None
        self._token = token
        self._stored = None if self._previous is None else stored_in(self._previous.validator)
        self.answer: Result[Any, NetworkFailure] | None = None
        conditional: Mapping[str, str] = {}
        if resource.refusal is not None:
            self.answer = Failure(resource.refusal)
        elif self._stored is not None:
            conditional = self._conditions()
        self.spec = resource.spec_with(token, conditional)

    def _conditions(self) -> Mapping[str, str]:
        try:
            _, fields = self._resource.described(self._token)
        except RefusedError:
            fields = ()  # Sending it will say why.
        found = conditions(self._stored, Asked("GET", fields, 0.0, self._resource.id))
        if not found:
            self._stored = None
        return found

    def take(self, came: Result[Exchange, NetworkFailure]) -> None:
        """What came of `spec`."""
        if not isinstance(came, Success):
            self.answer = came
            return
        exchange = came.unwrap()
        if exchange.status == NOT_MODIFIED:
            self._renew(self._judged(exchange))
            return
        try:
            value = self._resource.read(exchange.body, exchange.charset)
        except UnfitError as error:
            self.answer = Failure(error.failure)
            return
        told = self._judged(exchange)
        if told.stores:
            self.answer = Success(Fresh(value, ttl=life_of(told), validator=told.validator, private=told.private))
        else:
            self.answer = Success(DoNotCache(value, private=told.private))

    def _renew(self, told: Verdict) -> None:
        previous = self._previous
        if told.renews and previous is not None:
            renewed: Any = NotModified(life_of(told), told.validator)
            self.answer = Success(renewed if told.stores else DoNotCache(previous.value, private=told.private))
        elif self._stored is not None:
            # It speaks of something else than what is stored (4.3.4), or is selected by other headers (4.1).
            self._stored = None
            self.spec = self._resource.spec_with(self._token, {})
        else:
            self.answer = Failure(NOTHING_TO_RENEW)

    def _judged(self, exchange: Exchange) -> Verdict:
        resource, now = self._resource, time()
        asked = self._asked(exchange)
        answered = Answered(exchange.status, fields_of(exchange.headers), exchange.answered_at)
        told = verdict(asked, answered, resource.caching, now, self._stored)
        if not exchange.passed:
            return told
        on_the_way = [
            verdict(
                self._asked(each),
                Answered(each.status, fields_of(each.headers), each.answered_at),
                resource.caching,
                now,
            )
            for each in exchange.passed
        ]
        return strictest([*on_the_way, told])

    def _asked(self, sent: Exchange | Passed) -> Asked:
        fields = counting(sent.request_headers)
        return Asked(sent.method, fields, sent.sent_at, self._resource.id, self._resource.unkeyed(fields))


NOTHING_TO_RENEW: Final = NetworkFailure(
    kind=FailureKind.BAD_RESPONSE,
    message="a 304 that speaks of nothing that is stored",
    status=NOT_MODIFIED,
)


def life_of(told: Verdict) -> float | Lifetime | Default | None:
    """The ttl that a cache is told. Where the origin says nothing of windows, those of the caller count."""
    if told.serve_stale_s is None or isinstance(told.ttl_s, Default):
        return told.ttl_s
    return Lifetime(ttl=told.ttl_s, serve_stale_for=told.serve_stale_s, stale_if_error_for=told.stale_if_error_s or 0.0)


def copied(params: Any) -> Any:  # noqa: ANN401 (what httpx2 takes)
    """`params` as they are now: what asks is to stay what the key was made of."""
    try:
        return deepcopy(params)
    except Exception:  # noqa: BLE001 (an iterator, or whatever cannot be copied)
        refuse("params: they cannot be copied")


def fields_of(headers: Headers) -> Fields:
    return tuple(headers.multi_items())


def counting(headers: Headers) -> Fields:
    """The fields of a request that may select an answer, by names in lower case."""
    named = ((name.lower(), value) for name, value in headers.multi_items())
    return tuple((name, value) for name, value in named if counts(name, value))


def counts(name: str, value: str) -> bool:
    """Whether a field of a request may select an answer: not what any client sends by itself."""
    if name in OF_THE_CONNECTION:
        return False
    return not (name == "accept" and value == "*/*") and not (name == "user-agent" and value.startswith("python-httpx"))


def digest(*parts: str) -> str:
    """The same for the same texts, and of no use to who wants to know them."""
    mixed = blake2b(digest_size=12, person=b"cachemesh-fetch")
    for part in parts:
        text = part.encode("utf-8", "surrogatepass")
        mixed.update(len(text).to_bytes(8, "big"))
        mixed.update(text)
    return mixed.hexdigest()
