"""Origins that answer with a `Result`: HTTP and WebSocket. Those two need the extra `http`.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.sources.attempts import retrying
    from cachemesh.sources.backoff import Backoff
    from cachemesh.sources.exchange import Exchange
    from cachemesh.sources.failure import FailureKind, NetworkFailure, parse_retry_after
    from cachemesh.sources.feed import Feed
    from cachemesh.sources.fetcher import HttpFetcher, HttpTokenFetcher, SyncHttpFetcher, SyncHttpTokenFetcher
    from cachemesh.sources.http_source import HttpSource
    from cachemesh.sources.inbox import Overflow
    from cachemesh.sources.link import Phase
    from cachemesh.sources.reconnect import ReconnectOptions
    from cachemesh.sources.sync_http_source import SyncHttpSource
    from cachemesh.sources.websocket import Messages, WebSocketSource
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.sources.attempts": "retrying",
            "cachemesh.sources.backoff": "Backoff",
            "cachemesh.sources.exchange": "Exchange",
            "cachemesh.sources.failure": "FailureKind NetworkFailure parse_retry_after",
            "cachemesh.sources.feed": "Feed",
            "cachemesh.sources.fetcher": "HttpFetcher HttpTokenFetcher SyncHttpFetcher SyncHttpTokenFetcher",
            "cachemesh.sources.http_source": "HttpSource",
            "cachemesh.sources.inbox": "Overflow",
            "cachemesh.sources.link": "Phase",
            "cachemesh.sources.reconnect": "ReconnectOptions",
            "cachemesh.sources.sync_http_source": "SyncHttpSource",
            "cachemesh.sources.websocket": "Messages WebSocketSource",
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
