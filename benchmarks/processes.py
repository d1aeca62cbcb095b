"""Measurements in a process of their own, so that what one contender leaves behind does not weigh on the next.

Some peers leave threads, timers and tens of thousands of objects behind; in one process the floor itself became three
times as slow over a dozen rounds.
"""

import gc
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parent.parent


def forked(measure: Callable[[int], T]) -> Callable[[int], T]:
    """`measure`, each call in a fork of this process as it is now, on a heap that was just collected. Unix only."""
    context = multiprocessing.get_context("fork")

    def measured_apart(n: int) -> T:
        receiver, sender = context.Pipe(duplex=False)

        def report() -> None:
            gc.collect()
            sender.send(measure(n))
            os._exit(0)  # Without waiting for threads that a peer forgot.

        child = context.Process(target=report)
        child.start()
        sender.close()  # So that a child that dies is an EOFError here, not silence.
        answered: T = receiver.recv()
        child.join()
        return answered

    return measured_apart


def in_child(module: str, *arguments: object, timeout_s: float) -> dict[str, Any] | str:
    """What `python -m module arguments...` answered, or in a word why there is nothing."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    try:
        done = subprocess.run(  # noqa: S603  (our own module)
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"more than {timeout_s:.0f} s"
    last = done.stdout.strip().rpartition("\n")[2]
    try:
        figures: dict[str, Any] = json.loads(last)
    except ValueError:
        return (done.stderr.strip().rpartition("\n")[2] or "no answer")[:80]
    return figures


def answer(**figures: object) -> None:
    """Tell the parent, and leave without the long farewell of a million objects."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
    os._exit(0)


def resident_bytes() -> int:
    """The resident set of this process, after a collection. Linux only."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
