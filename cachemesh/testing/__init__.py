"""What tests of programs that use cachemesh need. It wants pytest and Hypothesis; the package itself does not."""

from cachemesh.testing import strategies
from cachemesh.testing.clock import VirtualClock
from cachemesh.testing.loop import Deadlock, VirtualLoop, run
from cachemesh.testing.store_contract import StoreContract

__all__ = ["Deadlock", "StoreContract", "VirtualClock", "VirtualLoop", "run", "strategies"]
