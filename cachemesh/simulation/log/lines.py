"""A line of a command log as JSON, and back.

The first line of a file is a `Header`. Each line after it is an object: `do`
names what happened, the other members are its fields, less those that have
their defaults. Keys, tags and the names of origins are hashed unless they are
wanted as they are; ids of users are hashed always; answers are the names of
types.
"""

from __future__ import annotations

import hashlib
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import fields, replace

from cachemesh.core import commands
from cachemesh.core.model import Ancestor, Entry, Failed, Origin
from cachemesh.core.policies import BUILT_IN, CachePolicy
from cachemesh.core.scopes import Owner
from cachemesh.shell.recording import Ended, Follows, Kept, Line, Lost, Noted, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VERSION: Final = 1

LONGEST_TEXT: Final = 1_000
"""Characters of a key that is written as it is; a longer one is hashed."""

HASHED: Final = "#"
"""What a hash begins with."""


class Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The first line of every file of a log.

    `log`: the same in all files of one log. `segment`: which of them this is,
    from 0. `keys`: "hashed" or "clear".
    """

    cachemesh_log: int
    log: str
    segment: int
    keys: str
    has_store: bool
    max_entries: int | None
    default_ttl_s: float | None
    epoch_offset: float


class UnreadableLineError(ValueError):
    """A line is none of a command log's."""


class Names:
    """Keys, tags and users as a log has them. `salt`: of the log; it is written nowhere."""

    def __init__(self, salt: bytes, *, clear_keys: bool) -> None:
        self._salt = salt
        self._is_clear = clear_keys

    def key(self, text: str) -> str:
        """A key, a tag, or the name of an origin."""
        if self._is_clear and len(text) <= LONGEST_TEXT and is_unicode(text):
            return text
        return self.hashed(text, b"key")

    def user(self, text: str) -> str:
        """The id of a user."""
        return self.hashed(text, b"user")

    def owner(self, owner: Owner) -> Owner:
        """Whose it is."""
        return owner[0], None if owner[1] is None else self.user(owner[1])

    def hashed(self, text: str, kind: bytes) -> str:
        """A keyed hash (RFC 7693): the same text has the same one in this log, and another one in the next."""
        data = text.encode("utf-8", "surrogatepass")
        return HASHED + hashlib.blake2b(data, digest_size=10, key=self._salt, person=kind).hexdigest()

    @property
    def takes_prefixes(self) -> bool:
        """Whether the beginning of a key says anything."""
        return self._is_clear


def is_unicode(text: str) -> bool:
    """Whether `text` has a UTF-8 form: Python allows half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def encoded(line: Line, names: Names) -> bytes:
    """`line`, with its end."""
    document: dict[str, Any]
    if isinstance(line, Noted):
        command = line.command
        if isinstance(command, commands.InvalidatePrefix) and not names.takes_prefixes:
            command = replace(command, prefix="")
        document = {"do": type(command).__name__, **told(command, names)}
        if line.was is not None:
            document["was"] = line.was
        if line.keys is not None:
            document["keys"] = [names.key(key) for key in line.keys]
    else:
        document = {"do": type(line).__name__, **plain(line)}
    return msgspec.json.encode(document) + b"\n"


def told(command: Struct, names: Names) -> dict[str, Any]:
    """The fields of a command, less those that have their defaults."""
    document = {}
    for name, default in defaults_of(type(command)):
        value = getattr(command, name)
        if value is default or value == default:
            continue
        tell = TELLING.get(name)
        document[name] = number(value) if tell is None else tell(value, names)
    return document


@cache
def defaults_of(kind: type[Struct]) -> tuple[tuple[str, Any], ...]:
    """The fields of a struct with their defaults; msgspec looks at its annotations each time that it is asked."""
    return tuple((field.name, field.default) for field in fields(kind))


def number(value: Any) -> Any:  # noqa: ANN401 (a field of any kind)
    """JSON has no infinity."""
    if isinstance(value, float) and value in {inf, -inf}:
        return str(value)
    return plain(value) if isinstance(value, Struct) else value


def plain(struct: Struct) -> dict[str, Any]:
    """The fields of a struct of numbers, less those that have their defaults."""
    return {
        name: number(value)
        for name, default in defaults_of(type(struct))
        if (value := getattr(struct, name)) is not default and value != default
    }


def _tell_text(text: str, names: Names) -> str:
    return names.key(text)


def _tell_user(text: str | None, names: Names) -> str | None:
    return None if text is None else names.user(text)


def _tell_tags(tags: tuple[str, ...], names: Names) -> list[str]:
    return [names.key(tag) for tag in tags]


def _tell_origin(origin: str | Origin, names: Names) -> object:
    if isinstance(origin, Origin):
        return plain(replace(origin, name=names.key(origin.name)))
    return names.key(origin)


def _tell_within(within: tuple[Ancestor, ...], names: Names) -> list[dict[str, Any]]:
    return [plain(replace(each, owner=names.owner(each.owner), key=names.key(each.key))) for each in within]


def _tell_policy(policy: CachePolicy, names: Names) -> object:
    del names
    return policy.name if policy in BUILT_IN else policy


def _tell_kept(answer: Kept, names: Names) -> str:
    del names
    return f"{'success' if answer.is_success else 'failure'}:{answer.kind}"


def _tell_kept_in(found: Struct, names: Names) -> dict[str, Any]:
    """An entry, its terms, a failure, or directives."""
    return told(found, names)


def _tell_found(found: Entry[Any] | Failed[Any], names: Names) -> dict[str, Any]:
    return {"failed" if isinstance(found, Failed) else "entry": told(found, names)}


TELLING: Final[Mapping[str, Callable[[Any, Names], object]]] = {
    "key": _tell_text,
    "tag": _tell_text,
    "prefix": _tell_text,
    "viewer": _tell_user,
    "user_id": _tell_user,
    "owner": lambda owner, names: names.owner(owner),
    "tags": _tell_tags,
    "origin": _tell_origin,
    "within": _tell_within,
    "policy": _tell_policy,
    "answer": _tell_kept,
    "entry": _tell_kept_in,
    "failed": _tell_kept_in,
    "terms": _tell_kept_in,
    "directives": _tell_kept_in,
    "found": _tell_found,
}
"""The fields of commands that are not written as they are."""


class _HydrateLine(Struct):
    """`Hydrate` as it is written: a union of two structs has no decoder."""

    owner: Owner
    key: str
    now: float
    stamp: int


COMMANDS: Final[Mapping[str, type[Struct]]] = {
    kind.__name__: kind for kind in (getattr(each, "__origin__", each) for each in get_args(commands.Command))
}
OTHERS: Final[Mapping[str, type[Struct]]] = {kind.__name__: kind for kind in (Follows, Told, Lost, Ended)}
POLICIES: Final = {policy.name: policy for policy in BUILT_IN}

decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode
decode_header: Final = msgspec.json.Decoder(Header).decode


def header_of(line: bytes) -> Header:
    """What the first line of a file says. UnreadableLineError where it is no log, or one of a later version."""
    try:
        header = decode_header(line)
    except (ValueError, RecursionError):
        msg = "no command log of cachemesh"
        raise UnreadableLineError(msg) from None
    if header.cachemesh_log != VERSION:
        msg = f"a command log of version {header.cachemesh_log}: this cachemesh reads version {VERSION}"
        raise UnreadableLineError(msg)
    return header


def decoded(line: bytes) -> Line:
    """What `encoded` made the line of. UnreadableLineError where it made none."""
    try:
        document = decode_object(line)
        kind = document.pop("do")
        if kind in OTHERS:
            found: Any = msgspec.convert(document, OTHERS[kind])
            line_of_it: Line = found
            return line_of_it
        was, keys = document.pop("was", None), document.pop("keys", None)
        command = _hydrate(document) if kind == "Hydrate" else _command(COMMANDS[kind], document)
        return Noted(command, msgspec.convert(was, str | int | None), msgspec.convert(keys, tuple[str, ...] | None))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"no line of a command log ({type(error).__name__})"
        raise UnreadableLineError(msg) from None


def _command(kind: type[Struct], document: dict[str, Any]) -> Any:  # noqa: ANN401 (a command)
    policy = document.get("policy")
    if isinstance(policy, str):
        document["policy"] = {"name": policy}  # A row of its own has all its cells; this one is put in below.
    if kind is commands.Update:
        document["expected"] = None
    # Not strict: an infinity is a text.
    command = msgspec.convert(document, kind, strict=False)
    if isinstance(policy, str):
        command = replace(command, policy=POLICIES[policy])
    if hasattr(command, "answer"):
        command = replace(command, answer=_kept(command.answer))
    if isinstance(command, commands.Loaded):
        return replace(
            command,
            entry=None if command.entry is None else with_kept(command.entry),
            failed=None if command.failed is None else with_kept(command.failed),
        )
    if isinstance(command, commands.FoundElsewhere):
        return replace(command, entry=with_kept(command.entry))
    return command


def _hydrate(document: dict[str, Any]) -> commands.Hydrate[Kept]:
    (name, fields_of_found), *others = document.pop("found").items()
    if others:
        raise ValueError(name)
    kind: Any = {"entry": Entry, "failed": Failed}[name]
    found = with_kept(msgspec.convert(fields_of_found, kind, strict=False))
    line = msgspec.convert(document, _HydrateLine, strict=False)
    return commands.Hydrate(line.owner, line.key, found, line.now, line.stamp)


def with_kept(found: Any) -> Any:  # noqa: ANN401 (an entry or a failure)
    """The same with what stands for its answer."""
    return replace(found, answer=_kept(found.answer))


def _kept(text: str) -> Kept:
    outcome, _, kind = text.partition(":")
    if outcome not in {"success", "failure"}:
        raise ValueError(outcome)
    return Kept(outcome == "success", kind)
