"""One exchange with an origin, for either face: what is sent, and what is made of each answer. Nothing here waits.

A face asks its client to send `Course.request`, feeds what comes to the `Body`
that `on_answer` gives it, and hands that back to `on_body`: there is an
`Exchange` then, or another request to send, or a `RefusedError` with the failure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import time
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from pydantic_core import to_jsonable_python

from cachemesh.shell.default import DEFAULT
from cachemesh.shell.durations import duration_s
from cachemesh.sources.clients import REPEATABLE, Headers
from cachemesh.sources.failure import FailureKind, NetworkFailure
from cachemesh.sources.http.body import ACCEPTED, Body, BrokenBodyError
from cachemesh.sources.http.redirects import GOES_ANYWHERE, OF_THE_BODY, REDIRECTS, SCHEMES, Hop, Place, hop_of
from cachemesh.sources.http.refusals import RefusedError, refuse

if TYPE_CHECKING:
    from cachemesh.sources.clients import Response
    from cachemesh.sources.http.transfers import Download

NOT_MODIFIED: Final = 304
BODILESS: Final = frozenset({204, 304})
DISCARDED_BYTES: Final = 64 * 1024
"""So much of a body that nobody wants is read, to keep the connection; one with more of it is closed."""

ENCODING: Final[Mapping[str, str]] = {"accept-encoding": ACCEPTED}
METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
"""Those that need no second look. A CONNECT opens a tunnel, and ends with no body."""
UNASKED: Final = "there was an answer before there was a request"
TOO_LARGE: Final = "the body is larger than is wanted"

NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
"""A token (RFC 9110, section 5.6.2)."""
VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
"""What may be in a field value: no control characters but the tab (RFC 9110, section 5.5)."""


class Spec(Struct, frozen=True):
    """A request as a caller describes it. `DEFAULT` is whatever the source says."""

    method: str
    url: str
    params: Any = None
    headers: Any = None
    json: Any = None
    content: Any = None
    data: Any = None
    files: Any = None
    timeout: Any = DEFAULT
    max_body_bytes: Any = DEFAULT
    retry: Any = DEFAULT
    download: Any = None

    def __repr__(self) -> str:
        return f"Spec({self.method})"

    @property
    def is_repeatable(self) -> bool:
        """Whether the body can be sent once more: it is bytes or text, and no stream that is read by then."""
        if self.files:
            return False
        content = self.content
        return content is None or isinstance(content, bytes | str) or getattr(content, "is_repeatable", False) is True


class Passed(Struct, frozen=True):
    """A redirect that was followed: the request, and the answer that led on. Instants are as in `Exchange`."""

    method: str
    status: int
    headers: Headers
    request_headers: Headers
    sent_at: float
    answered_at: float

    def __repr__(self) -> str:
        return f"Passed({self.method}, {self.status})"


class Exchange(Struct, frozen=True):
    """A request as it was sent last, with its answer: 2xx or 304.

    `url`: of that last request. `request_headers`: those that really went out,
    an `Authorization` of the `auth=` among them. Both kinds of headers are those of the
    client: `get(name)` joins the values with commas, `get_list(name)` has them one by one.
    `sent_at`, `answered_at`: when the request was sent and its headers came, in
    seconds since the epoch. `passed`: the redirects on the way, in their order.
    """

    method: str
    url: str
    status: int
    headers: Headers
    body: bytes
    request_headers: Headers
    charset: str | None = None
    sent_at: float = 0.0
    answered_at: float = 0.0
    passed: tuple[Passed, ...] = ()

    def __repr__(self) -> str:
        return f"Exchange({self.method}, {self.status}, <{len(self.body)} bytes>)"


class Rules(Struct, frozen=True):
    """What a source says for all its requests."""

    base: Any
    url_of: Callable[[str], Any]
    headers: Mapping[str, str]
    auth: Any
    timeout_s: float | None
    max_body_bytes: int | None
    max_redirects: int
    backoff: Any = None

    def __repr__(self) -> str:
        return "Rules()"


class Course:
    """An exchange on its way. `request` is what is to be sent next, with the keywords `sending`."""

    __slots__ = (
        "_answered_at",
        "_client",
        "_is_home",
        "_limit",
        "_passed",
        "_refusal",
        "_rules",
        "_sent_at",
        "_spec",
        "download",
        "request",
        "sending",
        "timeout_s",
    )

    def __init__(
        self,
        rules: Rules,
        client: Any,  # noqa: ANN401 (of httpx2 or httpx)
        spec: Spec,
        timeouts: Any = None,  # noqa: ANN401 (extensions of the library)
        *,
        is_own: bool = False,
    ) -> None:
        self._rules = rules
        self._client = client
        self._spec = spec
        self._passed: tuple[Passed, ...] = ()
        self._is_home = True
        self._refusal: NetworkFailure | None = None
        self.download: Download | None = spec.download
        self.timeout_s = rules.timeout_s if spec.timeout is DEFAULT else seconds_of(spec.timeout)
        self._limit = rules.max_body_bytes if spec.max_body_bytes is DEFAULT else bytes_of(spec.max_body_bytes)
        if not is_method(spec.method):
            refuse("the method is none that a request can have")
        url = rules.url_of(spec.url)
        # A client of the source's own has them already; to merge headers is half of what a request costs.
        headers: Any = None if is_own else rules.headers
        if spec.headers is not None:
            headers = {**(headers or {}), **checked_headers(spec.headers)}
        if spec.content is not None:
            headers = {**getattr(spec.content, "headers", {}), **(headers or {})}
        try:
            self.request = client.build_request(
                spec.method,
                url,
                params=spec.params,
                headers=headers,
                json=None if spec.json is None else to_jsonable_python(spec.json, by_alias=True),
                content=spec.content,
                data=spec.data,
                files=spec.files,
                extensions=timeouts,
            )
        except Exception as error:  # noqa: BLE001 (whatever a client makes of what it is given)
            refuse(f"no request can be made of these arguments: {type(error).__name__}")
        if getattr(spec.content, "is_repeatable", False) is True:
            self.request.extensions = {**self.request.extensions, REPEATABLE: True}
        self.sending: Mapping[str, Any] = {} if rules.auth is None else {"auth": rules.auth}
        self._sent_at = self._answered_at = time()

    def on_answer(self, response: Response) -> Body:
        """What takes the body of `response`; it is wanted, or read for the sake of the connection."""
        self._answered_at = time()
        if getattr(response.extensions.get("network_stream"), "is_answered", True) is False:
            raise BrokenBodyError(UNASKED)
        status = response.status_code
        headers = response.headers
        if not 200 <= status < 300 and status != NOT_MODIFIED:  # noqa: PLR2004 (2xx)
            self._refusal = None if self._leads_on(response) else NetworkFailure.of_response(response)
            return Body("", DISCARDED_BYTES, len)
        coding = headers.get("content-encoding", "")
        download = self.download
        if download is not None:
            length = headers.get("content-length", "")
            download.begin(int(length) if not coding and length.isascii() and length.isdigit() else None)
        if self.request.method == "HEAD" or status in BODILESS:
            return Body("", 0)
        limit = self._limit
        if limit is not None:
            with suppress(ValueError):
                if int(headers.get("content-length", "0")) > limit:
                    refuse(TOO_LARGE, response)
        try:
            return Body(coding, limit, None if download is None else download.take)
        except BrokenBodyError as error:
            refuse(str(error), response)

    def on_body(self, response: Response, body: Body) -> Exchange | None:
        """The exchange that `response` ends; None: there is another request to be sent."""
        status = response.status_code
        if 200 <= status < 300 or status == NOT_MODIFIED:  # noqa: PLR2004 (2xx)
            request = response.request
            return Exchange(
                request.method,
                str(request.url),
                status,
                response.headers,
                body.end(),
                request.headers,
                response.charset_encoding,
                self._sent_at,
                self._answered_at,
                self._passed,
            )
        if self._refusal is not None:
            raise RefusedError(self._refusal)
        self._follow(response)
        return None

    def _leads_on(self, response: Response) -> bool:
        """Whether it is a redirect that may be followed."""
        is_redirect = response.status_code in REDIRECTS and response.headers.get("location") is not None
        return is_redirect and self._rules.max_redirects > 0

    def _follow(self, response: Response) -> None:
        request, location = self.request, response.headers["location"]
        if len(self._passed) >= self._rules.max_redirects:
            refuse("too many redirects", response)
        try:
            url = request.url.join(location)
            hop = hop_of(response.status_code, request.method, place_of(request.url), place_of(url))
        except Exception:  # noqa: BLE001 (whatever a URL parser makes of what it was sent)
            refuse("a redirect to no URL", response)
        if isinstance(hop, str):
            refuse(hop, response)
        content = self._body_again(request) if hop.keeps_body else b""
        if content is None:
            refuse("a redirect of a request whose body cannot be sent again", response)
        if hop.leaves_origin:
            self._is_home = False
            url = url.copy_with(userinfo=b"")
        sent = response.request
        passed = Passed(
            sent.method, response.status_code, response.headers, sent.headers, self._sent_at, self._answered_at
        )
        self._passed = (*self._passed, passed)
        self._send_on(url, hop, content)
        self._sent_at = time()

    def _body_again(self, request: Any) -> Any:  # noqa: ANN401 (of httpx2 or httpx; bytes, a stream, or None)
        """The body, where it can be sent again."""
        try:
            return request.content
        except Exception:  # noqa: BLE001 (RequestNotRead, of either library: it is a stream)
            return self._spec.content if self._spec.is_repeatable else None

    def _send_on(self, url: Any, hop: Hop, content: Any) -> None:  # noqa: ANN401 (a URL of httpx2 or httpx)
        """The request that a redirect leads to. Away from home it bears nothing that could be secret."""
        request = self.request
        kept = {name: value for name, value in request.headers.multi_items() if self._goes_along(name.lower(), hop)}
        if self._is_home and "cookie" in request.headers and has_cookie(self._rules.headers, self._spec.headers):
            kept["cookie"] = request.headers["cookie"]
        self.request = type(request)(
            hop.method,
            url,
            headers=kept,
            cookies=self._client.cookies,
            content=content or None,
            extensions=request.extensions,
        )
        if not self._is_home:
            self.sending = {"auth": None}

    def _goes_along(self, name: str, hop: Hop) -> bool:
        if name in OF_THE_BODY:
            return hop.keeps_body
        if name in {"host", "cookie"}:
            return False
        return self._is_home or name in GOES_ANYWHERE

    def failure_of(self, error: Exception) -> NetworkFailure:
        """What an exception on the way comes to. Once a status has refused the request, that is it."""
        if self._refusal is not None:
            return self._refusal
        if isinstance(error, RefusedError):
            return error.failure
        if isinstance(error, BrokenBodyError):
            return NetworkFailure(kind=FailureKind.BAD_RESPONSE, message=str(error))
        return NetworkFailure.of_exception(error)

    def on_too_large(self, response: Response) -> None:
        """What came is refused where it was wanted; what was not is just not read on."""
        if 200 <= response.status_code < 300:  # noqa: PLR2004 (2xx)
            refuse(TOO_LARGE, response)

    @property
    def timed_out(self) -> NetworkFailure:
        """There was no whole answer in time; or its status has said all that there is to say."""
        late = f"no whole answer within {self.timeout_s:g} s"
        return self._refusal or NetworkFailure(kind=FailureKind.TIMEOUT, message=late)


def is_method(method: object) -> bool:
    """Whether a request can have it."""
    if not isinstance(method, str):
        return False
    return method in METHODS or (NAME.fullmatch(method) is not None and method.upper() != "CONNECT")


def url_reader(base: Any, url_type: Any) -> Callable[[str], Any]:  # noqa: ANN401 (a URL of httpx2 or httpx, and its type)
    """What makes the URL to be asked of what a caller writes: relative ones go behind the path of `base`."""

    def url_of(text: str) -> Any:  # noqa: ANN401 (as above)
        try:
            url = url_type(text)
        except Exception:  # noqa: BLE001 (InvalidURL quotes the URL; a TypeError comes of what is no str)
            refuse("the URL is invalid")
        if url.scheme:
            if url.scheme not in SCHEMES:
                refuse("the URL has another scheme than http and https")
            if not url.host:
                refuse("the URL has no host")
            return url
        if url.host:
            refuse("a URL with a host has a scheme as well")
        if base is None:
            refuse("a relative URL needs a base_url")
        above = base.raw_path.partition(b"?")[0].rstrip(b"/") + b"/"
        url = base.copy_with(raw_path=above + url.raw_path.lstrip(b"/"))
        if not url.raw_path.startswith(above):
            refuse("a relative URL that leads out of the base_url")
        return url

    return url_of


def seconds_of(timeout: object) -> float | None:
    """`timeout` as seconds; refused where it is none."""
    try:
        seconds = duration_s(timeout)
    except ValueError:
        refuse("timeout: no duration")
    if seconds == 0:
        refuse("timeout: it is more than 0, or None for none")
    return seconds


def bytes_of(limit: object) -> int | None:
    """A limit in bytes; refused where it is none."""
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        refuse("max_body_bytes: a number of bytes, or None for no limit")
    return limit


def checked_headers(headers: Any) -> Mapping[str, str]:  # noqa: ANN401 (what a caller passes)
    """Headers as a mapping. Refused where one could not be sent, or would be more than one."""
    try:
        given = dict(headers) if isinstance(headers, Mapping) else list(headers)
        pairs = dict(given).items()
    except (TypeError, ValueError):
        refuse("headers: no mapping of names to values")
    for name, value in pairs:
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            refuse("headers: a name is illegal")
        if not isinstance(value, str) or VALUE.fullmatch(value) is None or not value.isascii():
            refuse(f"headers: the value of {name} is illegal")
    checked = {name.lower(): value for name, value in pairs}
    if len(checked) != len(given):
        refuse("headers: a name is there twice")
    return checked


def has_cookie(*headers: Any) -> bool:  # noqa: ANN401 (as above)
    """Whether the source or the call names a Cookie itself; others are of the client's jar."""
    return any(name.lower() == "cookie" for each in headers if each for name in dict(each))


def place_of(url: Any) -> Place:  # noqa: ANN401 (of httpx2 or httpx)
    return Place(url.scheme, url.host, url.port)
