"""What tests of programs that use cachemesh need.

Names are imported when they are first asked for: `StoreContract` wants pytest
and Hypothesis, `strategies` and `policy_machine` Hypothesis, `plugin` (the
fixtures) pytest, the rest neither.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.testing import strategies
    from cachemesh.testing.assertions import assert_never_stale_beyond, assert_never_two_at_once, assert_one_flight
    from cachemesh.testing.chaos_store import ChaosStore
    from cachemesh.testing.clock import VirtualClock
    from cachemesh.testing.flaky_store import FlakyStore
    from cachemesh.testing.loop import Deadlock, VirtualLoop, run
    from cachemesh.testing.machine import policy_machine
    from cachemesh.testing.scripted_origin import OriginDown, ScriptedOrigin
    from cachemesh.testing.store_around import Fault, StoreFault
    from cachemesh.testing.store_contract import SharedStoreContract, StoreContract
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.testing.assertions": "assert_never_stale_beyond assert_never_two_at_once assert_one_flight",
            "cachemesh.testing.chaos_store": "ChaosStore",
            "cachemesh.testing.clock": "VirtualClock",
            "cachemesh.testing.flaky_store": "FlakyStore",
            "cachemesh.testing.loop": "Deadlock VirtualLoop run",
            "cachemesh.testing.machine": "policy_machine",
            "cachemesh.testing.scripted_origin": "OriginDown ScriptedOrigin",
            "cachemesh.testing.store_around": "Fault StoreFault",
            "cachemesh.testing.store_contract": "SharedStoreContract StoreContract",
            "cachemesh.testing.strategies": "strategies",
        },
    )

__all__ = [
    "ChaosStore",
    "Deadlock",
    "Fault",
    "FlakyStore",
    "OriginDown",
    "ScriptedOrigin",
    "SharedStoreContract",
    "StoreContract",
    "StoreFault",
    "VirtualClock",
    "VirtualLoop",
    "assert_never_stale_beyond",
    "assert_never_two_at_once",
    "assert_one_flight",
    "policy_machine",
    "run",
    "strategies",
]
