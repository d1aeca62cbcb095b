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


LONGEST_CODE: Final = 24


def refused(code: str) -> ServerRefusedError:
    """The error of a server, without what it quotes."""
    is_code = code.isascii() and code.isalpha() and code.isupper() and len(code) <= LONGEST_CODE
    return ServerRefusedError(code if is_code else "an error")
