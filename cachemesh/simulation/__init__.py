"""Choose a policy on your own traffic: the reducers of the cache over a recorded or modelled load, in virtual time.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.simulation.configuration import Configuration, Eviction, grid
    from cachemesh.simulation.engine import OutOfOrder, simulate
    from cachemesh.simulation.origin import Constant, LogNormal, OriginModel, Quantiles, Uniform
    from cachemesh.simulation.outcome import Outcome, Spread
    from cachemesh.simulation.request import Request
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.simulation.configuration": "Configuration Eviction grid",
            "cachemesh.simulation.engine": "OutOfOrder simulate",
            "cachemesh.simulation.origin": "Constant LogNormal OriginModel Quantiles Uniform",
            "cachemesh.simulation.outcome": "Outcome Spread",
            "cachemesh.simulation.request": "Request",
        },
    )

__all__ = [
    "Configuration",
    "Constant",
    "Eviction",
    "LogNormal",
    "OriginModel",
    "OutOfOrder",
    "Outcome",
    "Quantiles",
    "Request",
    "Spread",
    "Uniform",
    "grid",
    "simulate",
]
