"""Where tokens are kept.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.auth.storages.memory import MemoryTokenStorage
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(globals(), {"cachemesh.auth.storages.memory": "MemoryTokenStorage"})

__all__ = ["MemoryTokenStorage"]
