"""`OAuthFailure`: what an authorization server says against a request for a token."""

from __future__ import annotations

from typing import Final

from cachemesh.shell.options import Options

FINAL: Final = frozenset({"invalid_grant", "access_denied"})
"""The grant itself is worth nothing (any more): the user signs in again. All else is the program's or the server's."""


class OAuthFailure(Options):
    """An error of OAuth 2 (RFC 6749, sections 4.1.2.1 and 5.2), as a value.

    `error`: its code, as "invalid_grant" or "invalid_client". `description`: what
    the server says beside it, for developers; left out where it quotes what
    was sent, or is no visible ASCII. `http_status`: of the answer, if it came as
    one; a 401 there is about the program's own password, and not about a token.

    >>> OAuthFailure(error="invalid_grant", http_status=400)
    OAuthFailure('invalid_grant', 400)
    >>> OAuthFailure(error="invalid_grant").is_final, OAuthFailure(error="invalid_client").is_final
    (True, False)
    """

    error: str
    description: str | None = None
    http_status: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether no later try with the same grant can succeed, so that the user must sign in again."""
        return self.error in FINAL

    @property
    def is_unauthorized(self) -> bool:
        """Whether the grant was rejected: the same as `is_final`, under the name that a keeper asks for."""
        return self.is_final

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may well succeed later. What RFC 6749 knows of that comes as a `NetworkFailure`."""
        return False

    def __repr__(self) -> str:
        status = "" if self.http_status is None else f", {self.http_status}"
        description = "" if self.description is None else f", {self.description!r}"
        return f"OAuthFailure({self.error!r}{status}{description})"

    __str__ = __repr__
