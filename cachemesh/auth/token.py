"""`Token`: an access token with what is known of it. It is read here, and nowhere proved: no signature is checked."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from math import inf, isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import msgspec
from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError
from returns.result import Failure, Result, Success

from cachemesh.auth.errors import InvalidToken
from cachemesh.shell.options import Options
from cachemesh.shell.values import thawed

LONGEST_TEXT: Final = 1_048_576
"""Characters (or bytes) of a text that is read as a token. Identity providers stay below a hundredth of that."""

DEEPEST: Final = 32
"""How deep metadata may be nested."""

LARGEST_INT_BITS: Final = 1_024

COMPACT: Final = re.compile(r"[\w-]+\.([\w-]+)\.[\w-]*", re.ASCII)
"""A JWS in its compact form (RFC 7515, section 7.1)."""

Secret = Annotated[str, Field(pattern=r"^[\x20-\x7e]+\z")]
"""RFC 6749, appendices A.12 and A.17: visible ASCII. It goes into a header, where a line break would begin another."""


def _instant(value: object) -> object:
    """Seconds since the epoch, of an aware datetime too. A bool or a str is no number here."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            msg = "a datetime without a time zone is no instant"
            raise ValueError(msg)
        return value.timestamp()
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        msg = "an instant is a number of seconds since the epoch, or an aware datetime"
        raise ValueError(msg)
    return value


def _claims(value: object) -> Mapping[str, Any]:
    """A read-only copy of `value`, a mapping of JSON."""
    if not isinstance(value, Mapping):
        msg = "metadata is a mapping"
        raise ValueError(msg)  # noqa: TRY004 (pydantic turns a ValueError into its own)
    frozen: Mapping[str, Any] = _frozen_json(value, DEEPEST)
    return frozen


def _frozen_json(value: Any, depth: int) -> Any:  # noqa: ANN401 (any JSON)
    if depth < 0:
        msg = "metadata is nested too deeply"
        raise ValueError(msg)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and value.bit_length() <= LARGEST_INT_BITS:
        return int(value)
    if isinstance(value, float) and isfinite(value):
        return float(value)
    if isinstance(value, Mapping):
        return MappingProxyType({_text(key): _frozen_json(each, depth - 1) for key, each in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_frozen_json(each, depth - 1) for each in value)
    msg = "metadata is JSON: str, finite numbers, bool, None, and lists and mappings of them"
    raise ValueError(msg)


def _text(value: object) -> str:
    if not isinstance(value, str):
        msg = "the names in metadata are str"
        raise ValueError(msg)  # noqa: TRY004 (as above)
    try:
        value.encode()
    except UnicodeEncodeError:
        msg = "metadata has a lone surrogate"
        raise ValueError(msg) from None
    return str.__str__(value)


class Token(Options):
    """An access token, and what is known of it. It never changes; its repr shows no secret.

    `expires_at`: seconds since the epoch (an aware datetime is taken as well);
    None: it does not expire. `metadata`: all claims or fields that came along,
    read-only JSON; `sub` there is the `subject`. `access_token` and
    `refresh_token` are visible ASCII (RFC 6749, appendix A); anything else is a
    `ValidationError`, which quotes nothing.

    JSON and pickles of a token hold its secrets in clear: they are to be kept
    as it is kept itself.

    >>> token = Token(access_token="s3cret-s3cret", refresh_token="r3fresh", expires_at=100.0, metadata={"sub": "ada"})
    >>> token
    Token(access_token=***, refresh_token=***, expires_at=100.0, scopes=(), token_type='Bearer', metadata=<1>)
    >>> token.subject, token.is_expired(99.9), token.is_expired(100.0)
    ('ada', False, True)
    """

    model_config = ConfigDict(hide_input_in_errors=True, allow_inf_nan=False)

    access_token: Secret
    refresh_token: Secret | None = None
    expires_at: Annotated[float | None, BeforeValidator(_instant)] = None
    scopes: tuple[str, ...] = ()
    token_type: str = "Bearer"  # noqa: S105 (the name of a kind)
    metadata: Annotated[Mapping[str, Any], PlainValidator(_claims), PlainSerializer(thawed)] = Field(
        default_factory=lambda: MappingProxyType({})
    )

    if not TYPE_CHECKING:  # For type checkers its arguments are the fields.

        def __init__(self, **fields: Any) -> None:  # noqa: ANN401 (pydantic's own signature)
            try:
                super().__init__(**fields)
            except ValidationError as error:
                told = _quoting_nothing(error)
            else:
                return
            raise told  # Out here it has no context, which would quote.

    @classmethod
    def from_json(cls, text: str | bytes, now: float | None = None) -> Result[Token, InvalidToken]:
        """What `to_json` wrote, or a token endpoint answered (see `from_response`).

        >>> Token.from_json('{"access_token": "s3cret-s3cret", "expires_in": 3600}', now=100.0).unwrap().expires_at
        3700.0
        >>> Token.from_json('{"access_token": 12}')
        <Failure: InvalidToken('access_token: Input should be a valid string')>
        """
        if not isinstance(text, str | bytes):
            return Failure(InvalidToken("no text"))
        read = _json(text)
        return cls.from_response(read, now) if isinstance(read, Mapping) else Failure(InvalidToken("no JSON object"))

    @classmethod
    def from_response(cls, fields: Mapping[str, Any], now: float | None = None) -> Result[Token, InvalidToken]:
        """The answer of a token endpoint (RFC 6749, section 5.1). What it says beside the known fields is metadata.

        `now`: seconds since the epoch, from which `expires_in` counts.
        """
        rest = dict(fields)
        kept = rest.pop("metadata", None)
        known: dict[str, Any] = {}
        for name in ("access_token", "refresh_token", "expires_at", "token_type"):
            value = rest.pop(name, None)
            if value is not None:
                known[name] = value
        lifetime = rest.pop("expires_in", None)
        if lifetime is not None and "expires_at" not in known:
            seconds = _number(lifetime)
            if seconds is None:
                return Failure(InvalidToken("expires_in: no number"))
            if now is None:
                return Failure(InvalidToken("expires_in: counts from an instant that is not given"))
            known["expires_at"] = now + seconds
        scopes = _scopes(rest)
        if scopes is None:
            return Failure(InvalidToken("scope: neither a str nor a list of them"))
        rest.pop("scope", None), rest.pop("scopes", None)
        return _made(lambda: cls(**known, scopes=scopes, metadata={**(kept if _is_mapping(kept) else {}), **rest}))

    @classmethod
    def from_jwt(cls, text: str, *, refresh_token: str | None = None) -> Result[Token, InvalidToken]:
        """What a JSON Web Token says of itself (RFC 7519). ITS SIGNATURE IS NOT CHECKED: anybody can have written it.

        That is enough for who was given it by the authorization server itself,
        and sends it on. `exp` is the expiry, `scope`, `scp` or `scopes` the
        scopes; all claims are metadata.
        """
        claims = unverified_claims(text)
        if claims is None:
            return Failure(InvalidToken("no JSON Web Token"))
        expires_at = claims.get("exp")
        if expires_at is not None and (isinstance(expires_at, str) or _number(expires_at) is None):
            return Failure(InvalidToken("exp: no number"))
        scopes = _scopes(claims)
        if scopes is None:
            return Failure(InvalidToken("scope: neither a str nor a list of them"))
        return _made(
            lambda: cls(
                access_token=text,
                refresh_token=refresh_token,
                expires_at=expires_at,
                scopes=scopes,
                metadata=claims,
            )
        )

    def to_json(self) -> str:
        """JSON that `from_json` makes the same token of. It holds the secrets in clear."""
        return self.model_dump_json()

    @property
    def subject(self) -> str | None:
        """Whose token it is, where it says so: the claim `sub`."""
        sub = self.metadata.get("sub")
        if isinstance(sub, int) and not isinstance(sub, bool):
            return str(sub)
        return sub if isinstance(sub, str) and sub else None

    @property
    def masked_access_token(self) -> str:
        """The first four characters and the last four; of a short one none."""
        text = self.access_token
        return "***" if len(text) <= 8 else f"{text[:4]}…{text[-4:]}"  # noqa: PLR2004 (no more than it shows)

    def is_expired(self, now: float, leeway: float = 0.0) -> bool:
        """Whether it has expired by `now`, or will within `leeway` seconds; true at the very instant."""
        return self.expires_at is not None and now >= self.expires_at - leeway

    def is_valid(self, now: float, leeway: float = 0.0) -> bool:
        """Whether it has not expired."""
        return not self.is_expired(now, leeway)

    def remaining_lifetime(self, now: float) -> float:
        """Seconds until it expires: 0 where it has, `inf` where it never does."""
        return inf if self.expires_at is None else max(0.0, self.expires_at - now)

    def will_expire_within(self, seconds: float, now: float) -> bool:
        """Whether it expires within `seconds` from `now`, or has."""
        return self.is_expired(now, seconds)

    def requires_refresh(self, now: float, window: float = 300.0) -> bool:
        """Whether it is time to refresh it: there is a refresh token, and it expires within `window` seconds."""
        return self.refresh_token is not None and self.is_expired(now, window)

    def has_scope(self, scope: str) -> bool:
        """Whether it was granted `scope`."""
        return scope in self.scopes

    def has_all(self, *scopes: str) -> bool:
        """Whether it was granted each of `scopes`."""
        return all(scope in self.scopes for scope in scopes)

    def has_any(self, *scopes: str) -> bool:
        """Whether it was granted one of `scopes` at least."""
        return any(scope in self.scopes for scope in scopes)

    def __hash__(self) -> int:
        return hash((self.access_token, self.refresh_token, self.expires_at, self.scopes))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object = None) -> Self:
        del memo
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _unpickled, (type(self), self.model_dump())

    def __repr_args__(self) -> list[tuple[str, Any]]:
        hidden = _Shown("***")
        return [
            ("access_token", hidden),
            ("refresh_token", None if self.refresh_token is None else hidden),
            ("expires_at", self.expires_at),
            ("scopes", self.scopes),
            ("token_type", self.token_type),
            ("metadata", _Shown(f"<{len(self.metadata)}>")),
        ]

    def __str__(self) -> str:
        return repr(self)


def renewed(old: Token, new: Token) -> Token:
    """`new` with what it leaves out as it was: RFC 6749, sections 5.1 and 6, and whose it is."""
    kept: dict[str, Any] = {}
    if new.refresh_token is None and old.refresh_token is not None:
        kept["refresh_token"] = old.refresh_token
    if not new.scopes and old.scopes:
        kept["scopes"] = old.scopes
    if new.subject is None and old.subject is not None:
        kept["metadata"] = {**new.metadata, "sub": old.subject}
    return new.model_copy(update=kept) if kept else new


def unverified_claims(text: object) -> dict[str, Any] | None:
    """The claims of a JSON Web Token, whoever wrote it: ITS SIGNATURE IS NOT CHECKED. None where it is none."""
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        return None
    found = COMPACT.fullmatch(text)
    if found is None:
        return None
    payload = found[1]
    try:
        decoded = base64.b64decode(payload + "=" * (-len(payload) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    claims = _json(decoded)
    return claims if isinstance(claims, dict) else None


class _Shown(str):
    """A text that is its own repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _unpickled(kind: type[Token], fields: dict[str, Any]) -> Token:
    return kind(**fields)


def _json(text: str | bytes) -> object:
    """`text` read as JSON; None where it is none, or too long or too deep."""
    if len(text) > LONGEST_TEXT:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _made(make: Callable[[], Token]) -> Result[Token, InvalidToken]:
    try:
        return Success(make())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "token"
        return Failure(InvalidToken(f"{field}: {first['msg']}"))


def _quoting_nothing(error: ValidationError) -> ValidationError:
    """The same, without what was put in: `errors()` would hand it out."""
    lines: list[Any] = [each | {"input": None} for each in error.errors(include_input=False, include_url=False)]
    return ValidationError.from_exception_data(error.title, lines, hide_input=True)


def _number(value: object) -> float | None:
    """A finite number, also one in a str, as some servers write it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def _scopes(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What was granted. None where that is written in no way that is known."""
    given = next((fields[name] for name in ("scope", "scp", "scopes") if fields.get(name) is not None), ())
    if isinstance(given, str):
        return tuple(given.split())
    if isinstance(given, list | tuple) and all(isinstance(each, str) for each in given):
        return tuple(given)
    return None


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)
