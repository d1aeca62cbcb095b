"""What a cache is configured with, checked once. A bad setting raises pydantic's `ValidationError` at construction."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cachemesh.shell.durations import Duration, Ttl, duration_s, seconds
from cachemesh.shell.lifetime import Lifetime
from cachemesh.shell.options import BreakerOptions, RetryOptions
from cachemesh.shell.schema import Schemas

DEFAULT_BREAKERS: Final = BreakerOptions()


def _ttl(value: object) -> object:
    if not isinstance(value, Lifetime):
        seconds(value)
    return value


def _age(value: object) -> object:
    duration_s(value)
    return value


def _schemas(given: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        Schemas(given)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return given


class Settings(BaseModel):
    """What a cache is configured with, as far as it is data."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    default_ttl: Annotated[Ttl | Lifetime, BeforeValidator(_ttl)] = None
    retry: RetryOptions = RetryOptions.NO_RETRY
    cache_failures: Annotated[bool, Field(strict=True)] = False
    max_entries: Annotated[int, Field(ge=1, strict=True)] | None = 65_536
    max_flight_age: Annotated[Duration | None, BeforeValidator(_age)] = None
    breakers: BreakerOptions | Mapping[str, BreakerOptions] = DEFAULT_BREAKERS
    copy_on_read: Annotated[bool, Field(strict=True)] | Callable[[Any], Any] = False
    freeze: Callable[[Any], Any] | None = None
    rng: random.Random | None = None
    schemas: Annotated[tuple[Any, ...], AfterValidator(_schemas)] = ()
    warm_start: Annotated[bool, Field(strict=True)] = False
    is_browsable: bool = False
    """Whether the store can be looked through."""

    @model_validator(mode="after")
    def _starts_from_something(self) -> Self:
        if self.warm_start and not self.is_browsable:
            msg = "warm_start needs a store that can be looked through: one with a `scan`, such as SqliteStore"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _protects_in_one_way(self) -> Self:
        if self.copy_on_read is not False and self.freeze is not None:
            msg = "copy_on_read and freeze do the same in two ways: choose one"
            raise ValueError(msg)
        return self
