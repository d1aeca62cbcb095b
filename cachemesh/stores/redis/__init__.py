"""A store on Valkey or Redis: one server, Sentinel or Cluster. It needs the extra `redis`."""

from importlib.util import find_spec

if find_spec("redis") is None:
    message = "RedisStore needs the extra `redis`: pip install 'cachemesh[redis]'"
    raise ModuleNotFoundError(message, name="redis")

from cachemesh.stores.redis.errors import ServerRefusedError, ServerTooSlowError, ServerUnreachableError
from cachemesh.stores.redis.store import RedisStore

__all__ = ["RedisStore", "ServerRefusedError", "ServerTooSlowError", "ServerUnreachableError"]
