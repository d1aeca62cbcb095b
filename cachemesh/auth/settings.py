"""The settings of a token keeper, checked once. A bad one raises pydantic's `ValidationError`."""

from __future__ import annotations

import logging  # noqa: TC003 (pydantic reads the annotation)
from collections.abc import Callable  # noqa: TC003 (as above)
from typing import TYPE_CHECKING, Annotated, Any, Final, TypedDict

from pydantic import BeforeValidator, ConfigDict, Field, SkipValidation

from cachemesh.core.tokens import Rules
from cachemesh.shell.durations import duration_s
from cachemesh.shell.options import Options, RetryOptions

if TYPE_CHECKING:
    from cachemesh.auth.ports import TokenStorage, Unauthorized
    from cachemesh.shell.durations import Duration
    from cachemesh.shell.ports import Clock

LONGEST_BACKOFF_S: Final = 30.0

Seconds = Annotated[float, BeforeValidator(duration_s)]
Limit = Annotated[float, BeforeValidator(duration_s), Field(gt=0)]


class KeeperOptions(TypedDict, total=False):
    """What a keeper takes beside its refresher; `TokenKeeper` says what each means."""

    storage: TokenStorage | None
    proactive_window: Duration
    leeway: Duration
    refresh_timeout: Duration
    storage_timeout: Duration
    retry: RetryOptions
    clock: Clock | None
    unauthorized: Unauthorized | None
    logger: logging.Logger | None


class KeeperSettings(Options):
    """The same, checked."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    storage: SkipValidation[Any] = None
    proactive_window: Seconds = 0.0
    leeway: Seconds = 5.0
    refresh_timeout: Limit = 30.0
    storage_timeout: Limit = 5.0
    retry: RetryOptions = RetryOptions.NO_RETRY
    clock: Callable[[], float] | None = None
    unauthorized: Callable[[Any], bool] | None = None
    logger: logging.Logger | None = None

    @property
    def rules(self) -> Rules:
        """The reducer's part."""
        return Rules(self.leeway, self.proactive_window, min(LONGEST_BACKOFF_S, self.proactive_window / 4))

    @property
    def patience_s(self) -> float:
        """Longer than anything takes that is bounded itself: who waits for so long waits for nobody."""
        return self.refresh_timeout + 6 * self.storage_timeout + 1.0
