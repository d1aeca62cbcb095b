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

HEAD: Final = '{"format":"cachemesh-snapshot","version":1,"entries":['
ENTRY: Final = '{"scope":"global","key":"k","created_at":0,"value":'

BOMBS: Final = {
    "brackets": 'b"[" * 16_000_000',
    "braces": """b'{"a":' * 3_000_000""",
    "deep value": f"""('{HEAD}{ENTRY}' + "[" * 5_000_000 + "]" * 5_000_000 + "}}]}}").encode()""",
    "deep value behind brackets in a text": (
        f"""('{HEAD}{ENTRY}' + '"' + "]" * 5_000_000 + '",' + '"x":' + "[" * 5_000_000 + "]" * 5_000_000 + "}}]}}").encode()"""
    ),
    "just too deep": f"""('{HEAD}{ENTRY}' + "[" * 3_000 + "]" * 3_000 + "}}]}}").encode()""",
    "too many bytes": f"""b'{HEAD}"' + b"x" * 17_000_000 + b'"]}}'""",
    "a text of too many": f"""'{HEAD}"' + "x" * 17_000_000 + '"]}}'""",
    "a text that grows": f"""'{HEAD}"' + "\\u20ac" * 8_000_000 + '"]}}'""",
    "too many entries": f"""b'{HEAD}' + b"{{}}," * 4_000_000 + b"{{}}]}}\"""",
    "a little too many entries": f"""b'{HEAD}' + b"{{}}," * 100_001 + b"{{}}]}}\"""",
    "a value many times": f"""('{HEAD}{ENTRY}' + ',"value":'.join(["0"] * 1_500_000) + "}}]}}").encode()""",
    "a key": f"""('{HEAD}' + '{{"scope":"global","created_at":0,"value":0,"key":"' + "\u20ac" * 5_000_000 + '\U0001f600"}}]}}').encode()""",
    "a text": f"""('{HEAD}' + '{{"scope":"global","created_at":0,"key":"k","text":"' + "\u20ac" * 5_000_000 + '\U0001f600"}}]}}').encode()""",
    "a validator": f"""('{HEAD}{ENTRY}' + '0,"validator":"' + "\u20ac" * 5_000_000 + '\U0001f600"}}]}}').encode()""",
    "too many parts": f"""('{HEAD}{ENTRY}' + "[" + "[]," * 5_000_000 + "[]]}}]}}").encode()""",
    "a number": f"""('{HEAD}{ENTRY}' + "9" * 15_000_000 + "}}]}}").encode()""",
    "numbers": f"""('{HEAD}{ENTRY}' + "[" + "0," * 7_000_000 + "0]}}]}}").encode()""",
    "a tag a byte": f"""('{HEAD}' + '{{"tags":[' + '"",' * 5_000_000 + '""]}}]}}').encode()""",
    "keys": f"""('{HEAD}{{' + ",".join('"%x":0' % n for n in range(900_000)) + "}}]}}").encode()""",
    "gzip": "__import__('gzip').compress(b'[' * 10_000_000)",
    "no end": f"""b'{HEAD}' + b"{{}}," * 90_000""",
    "one that holds itself": "holding_itself()",
    "one that is doubled": "doubled()",
    "a deep dict": "deep()",
    "a wide dict": "wide()",
}

LOOK: Final = """
import sys, time, json
from pathlib import Path
from cachemesh import SyncCache

def holding_itself():
    parsed = {"format": "cachemesh-snapshot", "version": 1, "entries": []}
    parsed["entries"].append(parsed)
    return parsed

def doubled():
    value = [1]
    for _ in range(60):
        value = [value, value]
    return {"format": "cachemesh-snapshot", "version": 1, "entries": [{"value": value}]}

def deep():
    value = {}
    for _ in range(100_000):
        value = {"a": value}
    return {"format": "cachemesh-snapshot", "version": 1, "entries": [value]}

def wide():
    return {"format": "cachemesh-snapshot", "version": 1, "entries": [dict.fromkeys(range(2_000_000))]}

def most():
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024

cache = SyncCache()
cache.hydrate(b"{}")
cache.hydrate({"format": "cachemesh-snapshot", "version": 1, "entries": []})
bomb = eval(sys.stdin.read())
Path("/proc/self/clear_refs").write_text("5")
before = most()
began = time.process_time()
answer = cache.hydrate(bomb)
took = time.process_time() - began
grew = most() - before
is_bad = type(answer).__name__ == "Failure"
reason = answer.failure().reason if is_bad else repr(answer.unwrap())
taken = 0 if is_bad else answer.unwrap().admitted + answer.unwrap().staged
json.dump([reason, taken, took, grew], sys.stdout)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells how much memory a process took")
@pytest.mark.parametrize("name", BOMBS)
def test_hy2_a_bomb_is_turned_away(name: str) -> None:
    run = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, "-c", LOOK],
        input=BOMBS[name],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr

    reason, taken, took_s, grew = json.loads(run.stdout)

    assert taken == 0, reason
    assert took_s < MOST_CPU_S, f"{reason}: {took_s:.3f} s"
    assert grew < MOST_BYTES, f"{reason}: {grew / 2**20:.0f} MB"
