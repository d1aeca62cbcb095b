"""`DEFAULT`: what stands for an option that is left out, where None means something of its own."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "as the cache was configured"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""As the cache was configured. None is a value of its own: `ttl=None` never expires."""
