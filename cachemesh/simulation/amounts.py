"""Amounts as people write and read them: times, shares, counts, rates and bytes."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import Final

from cachemesh.shell.durations import UNITS


class Unit(StrEnum):
    """What an amount is an amount of. All are kept as one float: seconds, parts of one, numbers, numbers a second."""

    TIME = "time"
    SHARE = "share"
    COUNT = "count"
    RATE = "rate"
    BYTES = "bytes"


EXAMPLES: Final = {
    Unit.TIME: "50 ms, 60 s or 1h30m",
    Unit.SHARE: "0.8 or 80 %",
    Unit.COUNT: "500, 10k or 2 million",
    Unit.RATE: "50/s or 50 a second",
    Unit.BYTES: "64 MB or 2 GiB",
}

TIMES: Final = {
    "millisecond": "ms",
    "msec": "ms",
    "second": "s",
    "sec": "s",
    "minute": "m",
    "min": "m",
    "hour": "h",
    "day": "d",
    "week": "w",
}
COUNTS: Final = {"": 1.0, "k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6}
BYTES: Final = {
    **dict.fromkeys(("b", "byte", "bytes"), 1.0),
    **{f"{prefix}b": 1e3**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024.0**power for power, prefix in enumerate("kmgt", 1)},
}

PICOSECONDS: Final = 12
"""Decimal places: 9 ms are 0.009 s then, though 9 times 0.001 is a little more."""

NUMBER: Final = r"(\d{1,3}(?:,\d{3})+|\d[\d_]{0,30}(?:\.\d{1,30})?|\.\d{1,30})"
TIME_PART: Final = re.compile(rf"{NUMBER}\s*([a-z]+)\s*", re.ASCII)
PLAIN: Final = re.compile(rf"{NUMBER}\s*([a-z%]*)\s*(?:requests|answers|entries|keys|values)?", re.ASCII)
PER_SECOND: Final = re.compile(r"\s*(?:requests\s*)?(?:(?:/\s*|per\s+|a\s+)s(?:ec|econd)?|second|rps)$", re.ASCII)


def amount(text: str, unit: Unit) -> float:
    """What `text` says, in lower case. ValueError where it is no amount of that unit.

    >>> amount("1h30m", Unit.TIME), amount("80 %", Unit.SHARE), amount("10k", Unit.COUNT), amount("50/s", Unit.RATE)
    (5400.0, 0.8, 10000.0, 50.0)
    """
    value = _time(text) if unit is Unit.TIME else _number(text, unit)
    if value is None or not math.isfinite(value) or (unit is Unit.SHARE and value > 1.0):
        msg = f"{text[:40]!r} is no {unit}; one reads like {EXAMPLES[unit]}"
        raise ValueError(msg)
    return value


def _time(text: str) -> float | None:
    if text == "0":
        return 0.0
    total, end = 0.0, 0
    while end < len(text):
        part = TIME_PART.match(text, end)
        if part is None:
            return None
        word = part[2] if part[2] in UNITS else part[2].removesuffix("s")
        name = word if word in UNITS else TIMES.get(word)
        if name is None:
            return None
        total += _float(part[1]) * UNITS[name]
        end = part.end()
    return round(total, PICOSECONDS) if end else None


def _number(text: str, unit: Unit) -> float | None:
    if unit is Unit.RATE:
        text = PER_SECOND.sub("", text)
    found = PLAIN.fullmatch(text)
    if found is None:
        return None
    number, word = _float(found[1]), found[2]
    if unit is Unit.SHARE:
        return number / 100.0 if word in {"%", "percent"} else number if not word else None
    if word in {"requests", "answers", "entries", "keys", "values"}:
        word = ""
    if unit is Unit.BYTES:
        factor = BYTES.get(word)
        return 0.0 if not word and not number else None if factor is None else number * factor
    factor = COUNTS.get(word)
    return None if factor is None else number * factor


def _float(digits: str) -> float:
    return float(digits.replace(",", "").replace("_", ""))


def shown(value: float, unit: Unit) -> str:
    """`value` for people, to three figures.

    >>> shown(0.05, Unit.TIME), shown(5400, Unit.TIME), shown(0.8125, Unit.SHARE), shown(12345, Unit.COUNT)
    ('50 ms', '1.5 h', '81.25 %', '12,345')
    """
    if not math.isfinite(value):
        return "unbounded" if value > 0 else "unknown"
    if unit is Unit.TIME:
        return _shown_time(value)
    if unit is Unit.SHARE:
        return f"{round(value * 100, 2):g} %"
    if unit is Unit.BYTES:
        return _shown_bytes(value)
    text = f"{value:,.0f}" if value == int(value) or value >= 1_000 else f"{value:.3g}"  # noqa: PLR2004 (four figures tell enough)
    return f"{text}/s" if unit is Unit.RATE else text


def _shown_time(value: float) -> str:
    # From two days, two hours and two minutes on; below, the smaller unit reads better.
    for name, size, least in (("d", 86_400.0, 2.0), ("h", 3_600.0, 1.0), ("min", 60.0, 2.0), ("s", 1.0, 1.0)):
        if value >= size * least:
            return f"{_three(value / size)} {name}"
    return f"{_three(value * 1_000)} ms" if value else "0 s"


def _shown_bytes(value: float) -> str:
    for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{_three(value / size)} {name}"
    return f"{value:.0f} B"


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 (three figures)
