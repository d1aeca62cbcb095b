"""Origins that answer with a `Result`: HTTP and WebSocket. Those two need the extra `http`.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.sources.attempts import retrying
    from cachemesh.sources.backoff import Backoff
    from cachemesh.sources.exchange import Exchange
    from cachemesh.sources.failure import FailureKind, NetworkFailure, parse_retry_after
    from cachemesh.sources.http_source import HttpSource
    from cachemesh.sources.sync_http_source import SyncHttpSource
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.sources.backoff": "Backoff",
            "cachemesh.sources.exchange": "Exchange",
            "cachemesh.sources.failure": "FailureKind NetworkFailure parse_retry_after",
            "cachemesh.sources.http_source": "HttpSource",
            "cachemesh.sources.attempts": "retrying",
            "cachemesh.sources.sync_http_source": "SyncHttpSource",
        },
    )

__all__ = [
    "Backoff",
    "Exchange",
    "FailureKind",
    "HttpSource",
    "NetworkFailure",
    "SyncHttpSource",
    "parse_retry_after",
    "retrying",
]
