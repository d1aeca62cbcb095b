"""Choose a policy on your own traffic: the reducers of the cache over a recorded or modelled load, in virtual time.

`simulate` models what a `Configuration` names: a policy; a ttl with its windows and its jitter, whose chance comes
from the seed; a memory of so many entries; retries; failures that are remembered. There is one cache, and all that
happens to it are requests. So it does not model stores and other processes (see `cachemesh.simulation.fleet`); what
programs do beside asking: writes, invalidations, tags, sign-outs, `refresh`; soft and hard timeouts, and callers who
leave; circuit breakers; fetches that ask the cache themselves; and answers that say how long they last.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.simulation.choice import Recommendation, front, recommend
    from cachemesh.simulation.configuration import Configuration, Eviction, grid
    from cachemesh.simulation.engine import OutOfOrder, simulate
    from cachemesh.simulation.goal import Goal, GoalError, Limit, Relation, Target
    from cachemesh.simulation.log.callers import Answered, AnswerKind, Totals
    from cachemesh.simulation.log.fold import Replay, replay
    from cachemesh.simulation.log.reader import NoCommandLogError
    from cachemesh.simulation.log.recorder import Recorder
    from cachemesh.simulation.log.what_if import WhatIf
    from cachemesh.simulation.origin import Constant, LogNormal, OriginModel, Quantiles, Uniform
    from cachemesh.simulation.outcome import Outcome, Spread
    from cachemesh.simulation.request import Request
    from cachemesh.simulation.study import Study, StudyError
    from cachemesh.simulation.survey import Survey, TraceSummary
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.simulation.choice": "Recommendation front recommend",
            "cachemesh.simulation.configuration": "Configuration Eviction grid",
            "cachemesh.simulation.engine": "OutOfOrder simulate",
            "cachemesh.simulation.goal": "Goal GoalError Limit Relation Target",
            "cachemesh.simulation.origin": "Constant LogNormal OriginModel Quantiles Uniform",
            "cachemesh.simulation.outcome": "Outcome Spread",
            "cachemesh.simulation.request": "Request",
            "cachemesh.simulation.study": "Study StudyError",
            "cachemesh.simulation.survey": "Survey TraceSummary",
            "cachemesh.simulation.log.callers": "AnswerKind Answered Totals",
            "cachemesh.simulation.log.reader": "NoCommandLogError",
            "cachemesh.simulation.log.recorder": "Recorder",
            "cachemesh.simulation.log.fold": "Replay replay",
            "cachemesh.simulation.log.what_if": "WhatIf",
        },
    )

__all__ = [
    "AnswerKind",
    "Answered",
    "Configuration",
    "Constant",
    "Eviction",
    "Goal",
    "GoalError",
    "Limit",
    "LogNormal",
    "NoCommandLogError",
    "OriginModel",
    "OutOfOrder",
    "Outcome",
    "Quantiles",
    "Recommendation",
    "Recorder",
    "Relation",
    "Replay",
    "Request",
    "Spread",
    "Study",
    "StudyError",
    "Survey",
    "Target",
    "Totals",
    "TraceSummary",
    "Uniform",
    "WhatIf",
    "front",
    "grid",
    "recommend",
    "replay",
    "simulate",
]
