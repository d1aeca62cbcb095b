"""HY-2: what is made to exhaust its reader is turned away in 100 ms of processor time, and takes less than 50 MB.

Each bomb goes off in a process of its own, which looks at how far its resident
memory grew at the most (Linux tells).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent.parent
MOST_CPU_S: Final = 0.1
MOST_BYTES: Final = 50 * 2**20

BOMBS: Final = {
    "brackets": 'b"[" * 16_000_000',
    "braces": """b'{"a":' * 3_000_000""",
    "deep value": 'value("[" * 5_000_000 + "]" * 5_000_000)',
    "brackets in a text first": """value('"' + "]" * 5_000_000 + '","x":' + "[" * 5_000_000)""",
    "just too deep": 'value("[" * 3_000 + "]" * 3_000)',
    "too many bytes": """entries('"' + "x" * 17_000_000 + '"')""",
    "a text of too many": """entries('"' + "x" * 17_000_000 + '"').decode()""",
    "a text that grows": """entries('"' + "\\u20ac" * 8_000_000 + '"').decode()""",
    "too many entries": 'entries("{}," * 4_000_000 + "{}")',
    "a little too many entries": 'entries("{}," * 100_000 + "{}")',
    "a value many times": """value(',"value":'.join(["0"] * 1_500_000))""",
    "a key": """entries('{"scope":"global","created_at":0,"value":0,"key":' + LARGE + "}")""",
    "a value as a text": """entries('{"scope":"global","created_at":0,"key":"k","text":' + LARGE + "}")""",
    "a validator": """value('0,"validator":' + LARGE)""",
    "too many parts": 'value("[" + "[]," * 5_000_000 + "[]]")',
    "a number": 'value("9" * 15_000_000)',
    "numbers": 'value("[" + "0," * 7_000_000 + "0]")',
    "too many tags": """value('0,"tags":[' + '"",' * 5_000_000 + '""]')""",
    "tags": """value('0,"tags":[' + '"a",' * 240_000 + '""]')""",
    "keys": """entries("{" + ",".join('"%x":0' % n for n in range(900_000)) + "}")""",
    "gzip": 'gzip.compress(b"[" * 10_000_000)',
    "no end": 'entries("{}," * 90_000)[:-2]',
    "one that holds itself": "parsed(itself)",
    "one that is doubled": "parsed(doubled)",
    "a deep dict": "parsed(deep)",
    "a wide dict": "parsed(dict.fromkeys(range(2_000_000)))",
}

SCRIPT: Final = r"""
import gzip, json, sys, time
from pathlib import Path
from cachemesh import SyncCache

LARGE = '"' + "\u20ac" * 5_000_000 + '\U0001f600"'

def entries(text):
    return ('{"format":"cachemesh-snapshot","version":1,"entries":[' + text + "]}").encode()

def value(text):
    return entries('{"scope":"global","key":"k","created_at":0,"value":' + text + "}")

def parsed(*entries):
    return {"format": "cachemesh-snapshot", "version": 1, "entries": [*entries]}

itself = []
itself.append(itself)
doubled = [1]
for _ in range(60):
    doubled = [doubled, doubled]
deep = {}
for _ in range(100_000):
    deep = {"a": deep}

def most():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

cache = SyncCache()
cache.hydrate(parsed())  # What is made once is made now.
bomb = BOMB
Path("/proc/self/clear_refs").write_text("5")
before = most()
took = []
for _ in range(3):  # Another process may have got between.
    began = time.process_time()
    answer = cache.hydrate(bomb)
    took.append(time.process_time() - began)
counts = answer.value_or(None)
taken = 0 if counts is None else counts.admitted + counts.staged
json.dump([repr(answer), taken, min(took), most() - before], sys.stdout)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells how much memory a process took")
@pytest.mark.parametrize("name", BOMBS)
def test_hy2_a_bomb_is_turned_away(name: str) -> None:
    run = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, "-c", SCRIPT.replace("BOMB", BOMBS[name])],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr

    answer, taken, took_s, grew = json.loads(run.stdout)

    assert taken == 0, answer
    assert took_s < MOST_CPU_S, f"{answer}: {took_s:.3f} s"
    assert grew < MOST_BYTES, f"{answer}: {grew / 2**20:.0f} MB"
