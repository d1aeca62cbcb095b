"""Who is signed in: OAuth 2 with PKCE, short-lived access tokens, and refresh tokens that are good for once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LIFETIME_S: Final = 15
"""Of an access token. So short that you see it renewed; an hour is usual."""


@dataclass
class Session:
    """What came of one sign-in. A refresh token that comes twice was stolen, and ends it (RFC 9700, 4.14.2)."""

    user: str
    refresh_token: str = ""
    access_tokens: dict[str, float] = field(default_factory=dict)
    """Until when each is taken."""


class Accounts:
    """Anybody may sign in, under any name: there are no passwords here. `clock`: seconds since the epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._codes: dict[str, tuple[str, str]] = {}
        self._sessions: dict[str, Session] = {}
        """By each refresh token that was ever given out."""

    def code(self, user: str, challenge: str) -> str:
        """What the user's browser takes back to the program, which can show that it knows what `challenge` is of."""
        code = secrets.token_urlsafe()
        self._codes[code] = user, challenge
        return code

    def sign_in(self, code: str, verifier: str) -> dict[str, Any] | None:
        """The first tokens (RFC 6749, section 4.1.4, and RFC 7636, section 4.6). A code is good for once."""
        user, challenge = self._codes.pop(code, ("", ""))
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
        return self._tokens(Session(user)) if hmac.compare_digest(digest, challenge.encode()) else None

    def refresh(self, refresh_token: str) -> dict[str, Any] | None:
        """The next tokens (RFC 6749, section 6)."""
        session = self._sessions.get(refresh_token)
        if session is None:
            return None
        if session.refresh_token != refresh_token:
            session.refresh_token = ""
            session.access_tokens.clear()
            return None
        return self._tokens(session)

    def user_of(self, authorization: str) -> str | None:
        """Who sends this header; None: somebody whose token has expired, or who never had one."""
        access_token, now = authorization.removeprefix("Bearer "), self._clock()
        sessions = self._sessions.values()
        return next((each.user for each in sessions if now < each.access_tokens.get(access_token, 0.0)), None)

    def _tokens(self, session: Session) -> dict[str, Any]:
        access_token, session.refresh_token = secrets.token_urlsafe(), secrets.token_urlsafe()
        session.access_tokens[access_token] = self._clock() + LIFETIME_S
        self._sessions[session.refresh_token] = session
        return {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": LIFETIME_S,
            "refresh_token": session.refresh_token,
            "sub": session.user,
        }
