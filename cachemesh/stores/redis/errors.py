"""What calls raise when the server is of no use. They name no key, no value and no password."""

from __future__ import annotations

from typing import Final


class ServerUnreachableError(ConnectionError):
    """There is no connection to be had, or it broke."""


class StaleConnectionError(ServerUnreachableError):
    """It had been idle, and was closed meanwhile: that says nothing of a new one."""


class ServerTooSlowError(TimeoutError):
    """No answer within the time limit."""


class ServerRefusedError(RuntimeError):
    """The server answered with an error, of which this is the first word: the rest may quote."""


CODE_LENGTH: Final = 24


def refused(error: BaseException) -> ServerRefusedError:
    """`error` of a server, without what it quotes."""
    word = getattr(error, "status_code", None) or str(error).split(" ", 1)[0]
    return ServerRefusedError(code_of(word, type(error).__name__))


def code_of(word: object, otherwise: str) -> str:
    """`word`, where it is an error code."""
    text = str(word)
    return text if text.isascii() and text.isupper() and text.isalpha() and len(text) <= CODE_LENGTH else otherwise
