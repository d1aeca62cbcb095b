"""What tests of programs that use cachemesh need.

Names are imported when they are first asked for: `StoreContract` wants pytest
and Hypothesis, `strategies` Hypothesis, the clock and the loop nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.testing import strategies
    from cachemesh.testing.clock import VirtualClock
    from cachemesh.testing.loop import Deadlock, VirtualLoop, run
    from cachemesh.testing.store_contract import SharedStoreContract, StoreContract
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.testing.clock": "VirtualClock",
            "cachemesh.testing.loop": "Deadlock VirtualLoop run",
            "cachemesh.testing.store_contract": "SharedStoreContract StoreContract",
            "cachemesh.testing.strategies": "strategies",
        },
    )

__all__ = ["Deadlock", "SharedStoreContract", "StoreContract", "VirtualClock", "VirtualLoop", "run", "strategies"]
