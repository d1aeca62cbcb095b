"""cachemesh: a Result-first caching and data-orchestration layer.

Names are imported when they are first asked for: `import cachemesh.core` loads nothing of the shell.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.core.explain import Ending, Explanation
    from cachemesh.core.model import RefreshSource
    from cachemesh.core.policies import Action, AfterFailure, CachePolicy, Freshness
    from cachemesh.core.scopes import CacheScope
    from cachemesh.errors import (
        CacheClosed,
        CacheError,
        CacheExpired,
        CacheMiss,
        CircuitOpen,
        FetchCancelled,
        FetchRaised,
        FetchTimeout,
        InvalidFetchResult,
        InvalidKey,
        InvalidOption,
        InvalidSnapshot,
        InvalidTtl,
        NoActiveUser,
        NoTokenKeeper,
        ReentrantFetch,
        StoreFailed,
        UndecodableEntry,
        UpdateRaised,
        ValueNotCopied,
    )
    from cachemesh.shell.async_watch import Updates, Watch
    from cachemesh.shell.batcher import Batcher, SyncBatcher
    from cachemesh.shell.cache import Cache
    from cachemesh.shell.call import FetchOptions, GetOptions
    from cachemesh.shell.decorator import cached
    from cachemesh.shell.default import DEFAULT
    from cachemesh.shell.directives import DoNotCache, Fresh, NotModified, Previous
    from cachemesh.shell.durations import Duration, Ttl
    from cachemesh.shell.hydration import Hydrated
    from cachemesh.shell.inspection import CacheState, Circuit, CircuitState
    from cachemesh.shell.lifetime import Lifetime, retry_after
    from cachemesh.shell.logging import CacheLogger, LoggingLogger, PrintLogger
    from cachemesh.shell.options import BreakerOptions, RetryOptions
    from cachemesh.shell.ports import (
        Clock,
        Directed,
        Fetcher,
        FetchMany,
        Store,
        StoredEntry,
        SyncFetcher,
        SyncFetchMany,
        SyncTokenKeeperAdapter,
        TokenKeeperAdapter,
    )
    from cachemesh.shell.provenance import Refused, Served, Source
    from cachemesh.shell.schema import Schema
    from cachemesh.shell.snapshot import Snapshot
    from cachemesh.shell.sync_cache import SyncCache
    from cachemesh.shell.thread_watch import SyncUpdates, SyncWatch
    from cachemesh.shell.values import frozen
    from cachemesh.shell.watch import Subscription
    from cachemesh.stores.memory import MemoryStore
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.core.explain": "Ending Explanation",
            "cachemesh.core.model": "RefreshSource",
            "cachemesh.core.policies": "Action AfterFailure CachePolicy Freshness",
            "cachemesh.core.scopes": "CacheScope",
            "cachemesh.errors": (
                "CacheClosed CacheError CacheExpired CacheMiss CircuitOpen FetchCancelled FetchRaised "
                "FetchTimeout InvalidFetchResult InvalidKey InvalidOption InvalidSnapshot InvalidTtl NoActiveUser "
                "NoTokenKeeper ReentrantFetch StoreFailed UndecodableEntry UpdateRaised ValueNotCopied"
            ),
            "cachemesh.shell.async_watch": "Updates Watch",
            "cachemesh.shell.batcher": "Batcher SyncBatcher",
            "cachemesh.shell.cache": "Cache",
            "cachemesh.shell.call": "FetchOptions GetOptions",
            "cachemesh.shell.decorator": "cached",
            "cachemesh.shell.default": "DEFAULT",
            "cachemesh.shell.directives": "DoNotCache Fresh NotModified Previous",
            "cachemesh.shell.hydration": "Hydrated",
            "cachemesh.shell.inspection": "CacheState Circuit CircuitState",
            "cachemesh.shell.durations": "Duration Ttl",
            "cachemesh.shell.lifetime": "Lifetime retry_after",
            "cachemesh.shell.logging": "CacheLogger LoggingLogger PrintLogger",
            "cachemesh.shell.options": "BreakerOptions RetryOptions",
            "cachemesh.shell.ports": (
                "Clock Directed FetchMany Fetcher Store StoredEntry "
                "SyncFetchMany SyncFetcher SyncTokenKeeperAdapter TokenKeeperAdapter"
            ),
            "cachemesh.shell.provenance": "Refused Served Source",
            "cachemesh.shell.schema": "Schema",
            "cachemesh.shell.snapshot": "Snapshot",
            "cachemesh.shell.sync_cache": "SyncCache",
            "cachemesh.shell.thread_watch": "SyncUpdates SyncWatch",
            "cachemesh.shell.values": "frozen",
            "cachemesh.shell.watch": "Subscription",
            "cachemesh.stores.memory": "MemoryStore",
        },
    )

__all__ = [
    "DEFAULT",
    "Action",
    "AfterFailure",
    "Batcher",
    "BreakerOptions",
    "Cache",
    "CacheClosed",
    "CacheError",
    "CacheExpired",
    "CacheLogger",
    "CacheMiss",
    "CachePolicy",
    "CacheScope",
    "CacheState",
    "Circuit",
    "CircuitOpen",
    "CircuitState",
    "Clock",
    "Directed",
    "DoNotCache",
    "Duration",
    "Ending",
    "Explanation",
    "FetchCancelled",
    "FetchMany",
    "FetchOptions",
    "FetchRaised",
    "FetchTimeout",
    "Fetcher",
    "Fresh",
    "Freshness",
    "GetOptions",
    "Hydrated",
    "InvalidFetchResult",
    "InvalidKey",
    "InvalidOption",
    "InvalidSnapshot",
    "InvalidTtl",
    "Lifetime",
    "LoggingLogger",
    "MemoryStore",
    "NoActiveUser",
    "NoTokenKeeper",
    "NotModified",
    "Previous",
    "PrintLogger",
    "ReentrantFetch",
    "RefreshSource",
    "Refused",
    "RetryOptions",
    "Schema",
    "Served",
    "Snapshot",
    "Source",
    "Store",
    "StoreFailed",
    "StoredEntry",
    "Subscription",
    "SyncBatcher",
    "SyncCache",
    "SyncFetchMany",
    "SyncFetcher",
    "SyncTokenKeeperAdapter",
    "SyncUpdates",
    "SyncWatch",
    "TokenKeeperAdapter",
    "Ttl",
    "UndecodableEntry",
    "UpdateRaised",
    "Updates",
    "ValueNotCopied",
    "Watch",
    "cached",
    "frozen",
    "retry_after",
]
