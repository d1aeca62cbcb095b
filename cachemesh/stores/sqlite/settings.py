"""The settings of a `SqliteStore`, checked."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

LONGEST_S: Final = 100 * 366 * 86_400.0

SMALLEST_BYTES: Final = 65_536
"""A file without entries is nearly as large."""


def _as_path(value: Any) -> Path:  # noqa: ANN401 (whatever the user gives)
    """What names a file. Whether it can be opened is not asked before it is."""
    if not isinstance(value, str | os.PathLike):
        msg = "a path is a str or an os.PathLike"
        raise ValueError(msg)  # noqa: TRY004 (pydantic makes a ValidationError of it)
    name = os.fspath(value)
    if not isinstance(name, str):
        msg = "a path is text"
        raise ValueError(msg)  # noqa: TRY004 (as above)
    if name in {"", ":memory:"}:
        msg = "a store on the disk has a file; for one in memory there is MemoryStore"
        raise ValueError(msg)
    if not Path(name).name:
        msg = "a folder is no file"
        raise ValueError(msg)
    with contextlib.suppress(OSError):  # The current folder has been removed: then it is what it says.
        return Path(name).absolute()
    return Path(name)


Seconds = Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)]


class Settings(BaseModel):
    """Durations in seconds. None is without bound; a `lease` of None is none."""

    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)

    path: Annotated[Path, BeforeValidator(_as_path)]
    namespace: str
    max_entries: Annotated[int, Field(ge=1)] | None
    max_bytes: Annotated[int, Field(ge=SMALLEST_BYTES)] | None
    max_age: Seconds | None
    lease: Seconds | None
    queue_size: Annotated[int, Field(ge=1)]
    queue_bytes: Annotated[int, Field(ge=1)]
