"""Places behind the memory. Each proves itself with `StoreContract` or `SharedStoreContract` of `cachemesh.testing`.

Names are imported when they are first asked for: only `RedisStore` needs redis-py (extra `redis`).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.stores.memory import MemoryStore
    from cachemesh.stores.redis import RedisStore
    from cachemesh.stores.sqlite import SqliteStore
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.stores.memory": "MemoryStore",
            "cachemesh.stores.redis": "RedisStore",
            "cachemesh.stores.sqlite": "SqliteStore",
        },
    )

__all__ = ["MemoryStore", "RedisStore", "SqliteStore"]
