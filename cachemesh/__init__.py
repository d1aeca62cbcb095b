"""cachemesh: a Result-first caching and data-orchestration layer.

Names are imported when they are first asked for: `import cachemesh.core` loads nothing of the shell.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.core.model import RefreshSource
    from cachemesh.core.policies import Action, AfterFailure, CachePolicy, Freshness
    from cachemesh.core.scopes import CacheScope
    from cachemesh.errors import (
        CacheClosed,
        CacheError,
        CacheExpired,
        CacheMiss,
        FetchCancelled,
        FetchRaised,
        FetchTimeout,
        InvalidFetchResult,
        InvalidKey,
        InvalidOption,
        InvalidTtl,
        NoActiveUser,
        NoTokenKeeper,
        ReentrantFetch,
        StoreFailed,
        UndecodableEntry,
    )
    from cachemesh.shell.async_watch import Updates, Watch
    from cachemesh.shell.cache import Cache
    from cachemesh.shell.decorator import cached
    from cachemesh.shell.inspection import CacheState
    from cachemesh.shell.logging import CacheLogger, LoggingLogger, PrintLogger
    from cachemesh.shell.options import RetryOptions
    from cachemesh.shell.ports import (
        DEFAULT,
        Clock,
        Fetcher,
        Store,
        StoredEntry,
        SyncFetcher,
        SyncTokenKeeperAdapter,
        TokenKeeperAdapter,
        Ttl,
    )
    from cachemesh.shell.sync_cache import SyncCache
    from cachemesh.shell.thread_watch import SyncUpdates, SyncWatch
    from cachemesh.shell.watch import Subscription
    from cachemesh.stores.memory import MemoryStore
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.core.model": "RefreshSource",
            "cachemesh.core.policies": "Action AfterFailure CachePolicy Freshness",
            "cachemesh.core.scopes": "CacheScope",
            "cachemesh.errors": (
                "CacheClosed CacheError CacheExpired CacheMiss FetchCancelled FetchRaised FetchTimeout "
                "InvalidFetchResult InvalidKey InvalidOption InvalidTtl NoActiveUser NoTokenKeeper "
                "ReentrantFetch StoreFailed UndecodableEntry"
            ),
            "cachemesh.shell.async_watch": "Updates Watch",
            "cachemesh.shell.cache": "Cache",
            "cachemesh.shell.decorator": "cached",
            "cachemesh.shell.inspection": "CacheState",
            "cachemesh.shell.logging": "CacheLogger LoggingLogger PrintLogger",
            "cachemesh.shell.options": "RetryOptions",
            "cachemesh.shell.ports": (
                "DEFAULT Clock Fetcher Store StoredEntry SyncFetcher SyncTokenKeeperAdapter TokenKeeperAdapter Ttl"
            ),
            "cachemesh.shell.sync_cache": "SyncCache",
            "cachemesh.shell.thread_watch": "SyncUpdates SyncWatch",
            "cachemesh.shell.watch": "Subscription",
            "cachemesh.stores.memory": "MemoryStore",
        },
    )

__all__ = [
    "DEFAULT",
    "Action",
    "AfterFailure",
    "Cache",
    "CacheClosed",
    "CacheError",
    "CacheExpired",
    "CacheLogger",
    "CacheMiss",
    "CachePolicy",
    "CacheScope",
    "CacheState",
    "Clock",
    "FetchCancelled",
    "FetchRaised",
    "FetchTimeout",
    "Fetcher",
    "Freshness",
    "InvalidFetchResult",
    "InvalidKey",
    "InvalidOption",
    "InvalidTtl",
    "LoggingLogger",
    "MemoryStore",
    "NoActiveUser",
    "NoTokenKeeper",
    "PrintLogger",
    "ReentrantFetch",
    "RefreshSource",
    "RetryOptions",
    "Store",
    "StoreFailed",
    "StoredEntry",
    "Subscription",
    "SyncCache",
    "SyncFetcher",
    "SyncTokenKeeperAdapter",
    "SyncUpdates",
    "SyncWatch",
    "TokenKeeperAdapter",
    "Ttl",
    "UndecodableEntry",
    "Updates",
    "Watch",
    "cached",
]
