"""The settings of a `RedisStore`, checked."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LONGEST_S = 10 * 366 * 86_400.0
"""Ten years: a server counts milliseconds, and not without end."""

Seconds = Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)]


class Settings(BaseModel):
    """Durations in seconds."""

    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)

    namespace: str
    timeout: Seconds
    lease: Seconds | None
    max_age: Seconds
    memory_cap: Seconds
    ping_interval: Seconds
