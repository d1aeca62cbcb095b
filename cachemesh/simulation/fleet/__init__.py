"""A fleet in one process: many caches, a modelled Valkey and a modelled network, in virtual time, driven by a seed.

Names are imported when they are first asked for. Needs the extra `redis`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.simulation.fleet.ledger import STATED_CAP_S, Violation
    from cachemesh.simulation.fleet.run import FleetReport, run_fleet
    from cachemesh.simulation.fleet.schedule import HEALTHY, Faults, Step
    from cachemesh.simulation.fleet.shrink import assert_sound, shrunk
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.simulation.fleet.ledger": "STATED_CAP_S Violation",
            "cachemesh.simulation.fleet.run": "FleetReport run_fleet",
            "cachemesh.simulation.fleet.schedule": "HEALTHY Faults Step",
            "cachemesh.simulation.fleet.shrink": "assert_sound shrunk",
        },
    )

__all__ = [
    "HEALTHY",
    "STATED_CAP_S",
    "Faults",
    "FleetReport",
    "Step",
    "Violation",
    "assert_sound",
    "run_fleet",
    "shrunk",
]
