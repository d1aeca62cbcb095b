"""Origins that answer with a `Result`: HTTP and WebSocket. All but `NetworkFailure` needs the extra `http`.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.sources.failure import FailureKind, NetworkFailure, parse_retry_after
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.sources.failure": "FailureKind NetworkFailure parse_retry_after",
        },
    )

__all__ = [
    "FailureKind",
    "NetworkFailure",
    "parse_retry_after",
]
