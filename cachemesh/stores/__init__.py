"""Places behind the memory. Each proves itself with `cachemesh.testing.StoreContract`."""

from cachemesh.stores.memory import MemoryStore

__all__ = ["MemoryStore"]
