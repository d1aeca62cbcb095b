"""How a lost connection is made again: what users set, and the rules that it comes to."""

from __future__ import annotations

import random
from collections.abc import Callable  # noqa: TC003 (pydantic reads the annotations)
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from cachemesh.shell.durations import Duration, duration_s
from cachemesh.shell.options import Options
from cachemesh.sources.backoff import checked, waits_of
from cachemesh.sources.websocket.link import Rules


class ReconnectOptions(Options):
    """When and how often a lost connection is made again. Durations are seconds, timedeltas or text such as "5s".

    `delay`, `factor`, `max_delay`, `jitter`, `rng`: the pauses, as for `Backoff`.
    Where the server asks for a longer one (`Retry-After`), it gets that.
    `max_attempts`: so many losses in a row are the end, a connection that could
    not be made and one that broke counting alike; 1 never reconnects, None goes
    on for ever. A row ends with a connection that stood for `steady_after`: a
    server that accepts, greets and hangs up is not called at the shortest
    pause for ever. `retry_when` sees the failure and says whether to go on; by
    default its `is_retryable` does, and where `headers` is a function, an
    `unauthorized` is tried again as well. Where it raises, that is the end.

    A bad option raises pydantic's `ValidationError`.

    >>> ReconnectOptions(max_attempts=5, delay="500ms").max_attempts
    5
    """

    max_attempts: Annotated[int, Field(ge=1, strict=True)] | None = None
    delay: Annotated[Duration, BeforeValidator(checked)] = 1.0
    factor: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = 2.0
    max_delay: Annotated[Duration | None, BeforeValidator(checked)] = 30.0
    jitter: Literal["full", "decorrelated", "none"] = "full"
    steady_after: Annotated[Duration, BeforeValidator(checked)] = 5.0
    retry_when: Callable[[Any], bool] | None = None
    rng: Callable[[], float] = random.random

    DEFAULTS: ClassVar[ReconnectOptions]

    @cached_property
    def rules(self) -> Rules:
        """What of this is data."""
        waits = waits_of(self.delay, self.factor, self.max_delay, self.jitter)
        return Rules(waits, self.max_attempts, duration_s(self.steady_after) or 0.0)


ReconnectOptions.DEFAULTS = ReconnectOptions()
