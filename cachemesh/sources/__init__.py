"""Origins that answer with a `Result`: HTTP and WebSocket. Those two need the extra `http`.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.sources.attempts import retrying
    from cachemesh.sources.backoff import Backoff
    from cachemesh.sources.failure import FailureKind, NetworkFailure, parse_retry_after
    from cachemesh.sources.http.exchange import Exchange
    from cachemesh.sources.http.fetcher import HttpFetcher, HttpTokenFetcher, SyncHttpFetcher, SyncHttpTokenFetcher
    from cachemesh.sources.http.source import HttpSource
    from cachemesh.sources.http.sync_source import SyncHttpSource
    from cachemesh.sources.websocket.feed import Feed
    from cachemesh.sources.websocket.inbox import Overflow
    from cachemesh.sources.websocket.link import Phase
    from cachemesh.sources.websocket.reconnect import ReconnectOptions
    from cachemesh.sources.websocket.source import Messages, WebSocketSource
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.sources.attempts": "retrying",
            "cachemesh.sources.backoff": "Backoff",
            "cachemesh.sources.http.exchange": "Exchange",
            "cachemesh.sources.failure": "FailureKind NetworkFailure parse_retry_after",
            "cachemesh.sources.websocket.feed": "Feed",
            "cachemesh.sources.http.fetcher": "HttpFetcher HttpTokenFetcher SyncHttpFetcher SyncHttpTokenFetcher",
            "cachemesh.sources.http.source": "HttpSource",
            "cachemesh.sources.websocket.inbox": "Overflow",
            "cachemesh.sources.websocket.link": "Phase",
            "cachemesh.sources.websocket.reconnect": "ReconnectOptions",
            "cachemesh.sources.http.sync_source": "SyncHttpSource",
            "cachemesh.sources.websocket.source": "Messages WebSocketSource",
        },
    )

__all__ = [
    "Backoff",
    "Exchange",
    "FailureKind",
    "Feed",
    "HttpFetcher",
    "HttpSource",
    "HttpTokenFetcher",
    "Messages",
    "NetworkFailure",
    "Overflow",
    "Phase",
    "ReconnectOptions",
    "SyncHttpFetcher",
    "SyncHttpSource",
    "SyncHttpTokenFetcher",
    "WebSocketSource",
    "parse_retry_after",
    "retrying",
]
