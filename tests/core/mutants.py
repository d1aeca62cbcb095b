"""The verdict of `make mutants`: who survived, and whether those who did not are enough.

Reads what `mutmut run` has left behind. Why each survivor may live is written
in MUTANTS.md, beside this file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

ENOUGH: Final = 0.95
"""The share of mutants that the tests must notice."""


def main() -> int:
    """0 where the tests notice enough of what is changed, else 1."""
    mutmut("export-cicd-stats")
    counts: dict[str, int] = json.loads(Path("mutants/mutmut-cicd-stats.json").read_text(encoding="utf-8"))
    for line in mutmut("results").splitlines():
        name, _, fate = line.strip().partition(": ")
        if fate == "timeout":
            say(f"{name} ran out of time, and was noticed by that")
        elif fate:
            say(f"{name} {fate}\n{changed_lines(mutmut('show', name))}")
    noticed = counts["killed"] + counts["timeout"]
    score = noticed / max(counts["total"], 1)
    say(f"{noticed} of {counts['total']} mutants noticed: {score:.1%}, {ENOUGH:.0%} are enough")
    return 0 if score >= ENOUGH else 1


def say(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")


def mutmut(*arguments: str) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 (its own arguments)


def changed_lines(diff: str) -> str:
    """The lines of `diff` that were taken out or put in."""
    return "\n".join(line for line in diff.splitlines() if line.startswith(("+ ", "- ")))


if __name__ == "__main__":
    sys.exit(main())
