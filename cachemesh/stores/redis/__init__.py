"""A store on Valkey or Redis: one server, Sentinel or Cluster. It needs the extra `redis`."""

from cachemesh.stores.redis.errors import ServerRefusedError, ServerTooSlowError, ServerUnreachableError
from cachemesh.stores.redis.store import RedisStore

__all__ = ["RedisStore", "ServerRefusedError", "ServerTooSlowError", "ServerUnreachableError"]
