"""How much memory a process holds. Measurements of it run in a process of their own, which answers with JSON."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def resident_bytes() -> int:
    """The resident set of this process, after a collection. Linux only."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def in_child(module: str, *arguments: object, timeout_s: float) -> dict[str, Any] | str:
    """What `python -m module arguments...` printed, or why there is nothing."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    try:
        done = subprocess.run(  # noqa: S603  (our own module)
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"more than {timeout_s:.0f} s"
    last = done.stdout.strip().rpartition("\n")[2]
    try:
        answer: dict[str, Any] = json.loads(last)
    except ValueError:
        return (done.stderr.strip().rpartition("\n")[2] or "no answer")[:80]
    return answer


def answer(**figures: object) -> None:
    """Print what the parent waits for, and leave without the long farewell of a million objects."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
    os._exit(0)
