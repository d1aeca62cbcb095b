"""How a request says that no token belongs to it."""

from __future__ import annotations

from typing import Final

SKIPPED: Final = "cachemesh_skip_auth"
"""A request of httpx2 with this extension, and a true value, goes through `KeeperAuth` as it is.

For signing in, and for whatever a refresher asks for by itself.
"""
