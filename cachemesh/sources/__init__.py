"""Origins that answer with a `Result`: HTTP and WebSocket. All but `NetworkFailure` needs the extra `http`.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.sources.failure import FailureKind, NetworkFailure, parse_retry_after
    from cachemesh.sources.feed import Feed
    from cachemesh.sources.inbox import Overflow
    from cachemesh.sources.link import Phase
    from cachemesh.sources.reconnect import ReconnectOptions
    from cachemesh.sources.websocket import Messages, WebSocketSource
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.sources.failure": "FailureKind NetworkFailure parse_retry_after",
            "cachemesh.sources.feed": "Feed",
            "cachemesh.sources.inbox": "Overflow",
            "cachemesh.sources.link": "Phase",
            "cachemesh.sources.reconnect": "ReconnectOptions",
            "cachemesh.sources.websocket": "Messages WebSocketSource",
        },
    )

__all__ = [
    "FailureKind",
    "Feed",
    "Messages",
    "NetworkFailure",
    "Overflow",
    "Phase",
    "ReconnectOptions",
    "WebSocketSource",
    "parse_retry_after",
]
