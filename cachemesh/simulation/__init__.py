"""Choose a policy on your own traffic: the reducers of the cache over a recorded or modelled load, in virtual time.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.simulation.callers import Answered, AnswerKind, Totals
    from cachemesh.simulation.log_reader import NoCommandLogError
    from cachemesh.simulation.log_replay import Replay, replay
    from cachemesh.simulation.recorder import Recorder
    from cachemesh.simulation.request import Request
    from cachemesh.simulation.what_if import WhatIf
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.simulation.callers": "AnswerKind Answered Totals",
            "cachemesh.simulation.log_reader": "NoCommandLogError",
            "cachemesh.simulation.recorder": "Recorder",
            "cachemesh.simulation.log_replay": "Replay replay",
            "cachemesh.simulation.request": "Request",
            "cachemesh.simulation.what_if": "WhatIf",
        },
    )

__all__ = [
    "AnswerKind",
    "Answered",
    "NoCommandLogError",
    "Recorder",
    "Replay",
    "Request",
    "Totals",
    "WhatIf",
    "replay",
]
