"""Traces: files of requests that somebody recorded. zstd needs the extra `simulation` before Python 3.14.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.simulation.traces.columns import Columns
    from cachemesh.simulation.traces.instants import Unit
    from cachemesh.simulation.traces.reading import Reading, TraceFormat, read
    from cachemesh.simulation.traces.source import Progress
    from cachemesh.simulation.traces.trouble import LeftOut, TraceError, Unreadable, Why
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.simulation.traces.columns": "Columns",
            "cachemesh.simulation.traces.instants": "Unit",
            "cachemesh.simulation.traces.reading": "Reading TraceFormat read",
            "cachemesh.simulation.traces.source": "Progress",
            "cachemesh.simulation.traces.trouble": "LeftOut TraceError Unreadable Why",
        },
    )

__all__ = [
    "Columns",
    "LeftOut",
    "Progress",
    "Reading",
    "TraceError",
    "TraceFormat",
    "Unit",
    "Unreadable",
    "Why",
    "read",
]
