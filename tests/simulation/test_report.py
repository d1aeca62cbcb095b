"""A study as a table, as an HTML file that loads nothing, and as JSON."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from rich.console import Console

from cachemesh.shell.lifetime import Lifetime
from cachemesh.simulation import figures, table
from cachemesh.simulation.configuration import Configuration
from cachemesh.simulation.engine import simulate
from cachemesh.simulation.goal import Goal
from cachemesh.simulation.measures import MEASURES, OF_UNKNOWN_CHANGES
from cachemesh.simulation.origin import Constant, LogNormal, OriginModel, Quantiles, Uniform
from cachemesh.simulation.report import MOST_BARS, staleness_and_load, to_page
from cachemesh.simulation.request import Request
from cachemesh.simulation.study import Study, StudyError
from cachemesh.simulation.survey import TraceSummary
from tests.simulation.outcomes import outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachemesh.simulation.outcome import Outcome

TRACE: Final = TraceSummary("access.log", 1_000, 40, 3, 0.96, 100.0, "combined", 2, "2 lines left out", 7, 1)
CHANGING: Final = OriginModel(LogNormal(0.05, 0.4), 0.01, ((10.0, 20.0),), 50.0, 600.0)
GOAL: Final = "p99 under 50 ms, staleness under 60 s, least origin load"

OUTCOMES: Final = [
    outcome(load=50, p99=0.2, staleness=10.0, configuration=Configuration.of(ttl="1m")),
    outcome(load=90, p99=0.04, staleness=30.0, configuration=Configuration.of("stale_while_revalidate", "1m")),
    outcome(load=99, p99=0.3, staleness=40.0, configuration=Configuration.of("network_first", "5m", capacity=1_000)),
    outcome(
        load=95,
        p99=0.04,
        staleness=20.0,
        configuration=Configuration.of("stale_while_revalidate", Lifetime(ttl="1m", serve_stale_for="30s")),
    ),
]


def studied(
    outcomes: Sequence[Outcome] = OUTCOMES,
    goal: str | None = GOAL,
    origin: OriginModel = CHANGING,
    trace: TraceSummary = TRACE,
) -> Study:
    parsed = None if goal is None else Goal.parse(goal)
    return Study.of(outcomes, parsed, trace=trace, origin=origin, seed=7, warm_up_s=5.0)


class Page(HTMLParser):
    """What a browser would make of a page, as far as the tests want to know."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.policy = ""
        self.scripts: dict[str, str] = {}
        self.cells: list[list[str]] = []
        self.chosen: list[str] = []
        self.words: list[str] = []
        self._in: list[str] = []
        self._script = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.loads += [f"{tag} {name}" for name in given if name in {"src", "href", "srcset", "data", "action"}]
        if tag == "link":
            self.loads.append("link")
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag == "script":
            self._script = given.get("id", str(len(self.scripts)))
            self.scripts[self._script] = ""
        if tag == "tr":
            self.cells.append([])
            if given.get("class") == "chosen":
                self.chosen.append(str(len(self.cells) - 2))
        if tag in {"td", "th"}:
            self.cells[-1].append("")
        self._in.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._in:
            self.scripts[self._script] += data
        elif "style" not in self._in:
            self.words.append(data)
            if ("td" in self._in or "th" in self._in) and self.cells:
                self.cells[-1][-1] += data


def test_the_page_loads_nothing_and_may_not() -> None:
    page = Page(to_page(studied()))

    assert page.loads == []
    assert "default-src 'none'" in page.policy
    assert "http" not in page.policy
    drawing = [text for text in page.scripts.values() if "Plotly.newPlot(" in text and len(text) < 200_000]
    assert len(drawing) == 3
    assert not any("http://" in text or "https://" in text for text in drawing)
    assert sum(len(text) > 1_000_000 for text in page.scripts.values()) == 1  # Plotly itself, once.


def test_the_page_shows_all_configurations_and_what_to_take() -> None:
    found = studied()
    page = Page(to_page(found))

    head, *rows = page.cells
    assert head[:4] == ["*", "configuration", "hit ratio", "origin load"]
    assert [row[1] for row in rows] == [row.name for row in found.rows]
    assert [row[3] for row in rows] == ["50", "90", "99", "95"]
    assert [row[0] for row in rows] == ["*", "*", "", "*"]
    assert page.chosen == ["1"]
    text = " ".join(page.words)
    for said in (
        "stale_while_revalidate, ttl 1m, stale for ever",
        "It has the least origin load (90; the next has 95)",
        "p99 under 50 ms, staleness under 60 s, least origin load",
        "access.log (combined)",
        "1,000 in 100 s",
        "40, of 3 users",
        "2 lines left out",
        "7, 1 of them moved to a later time",
        "median 50 ms, p99 400 ms (log-normal)",
        "from 10 s until 20 s after the first request",
        "50/s",
        "every 10 min",
        "seed 7, the first 5 s not counted",
    ):
        assert said in text


def test_the_charts_hold_the_figures() -> None:
    page = Page(to_page(studied()))
    bars, scatter, waits = (text for text in page.scripts.values() if "newPlot" in text and len(text) < 200_000)
    assert '"x":[50.0,90.0,99.0,95.0]' in bars
    assert '"name":"recommended"' in scatter
    assert '"x":[30.0]' in scatter
    assert '"y":[90.0]' in scatter
    assert '"x":[200.0,40.0,300.0,40.0]' in waits


def test_points_at_one_place_are_all_seen_and_who_only_fails_is_not_the_best() -> None:
    outcomes = [
        outcome(load=90, staleness=30.0, configuration=Configuration.of("cache_first")),
        outcome(load=90, staleness=30.0, configuration=Configuration.of("stale_while_revalidate")),
        outcome(load=0, staleness=0.0, failures=1_000, configuration=Configuration.of("cache_only")),
    ]
    edge, *points, star = staleness_and_load(studied(outcomes)).data
    sizes = [each.marker.size for each in points]

    assert (edge.x, edge.y) == ((30.0,), (90.0,))
    assert sizes == sorted(set(sizes), reverse=True), "the later ones are drawn over the earlier ones"
    assert star.marker.size > sizes[0]


def test_the_page_holds_the_study_itself() -> None:
    found = studied()
    page = Page(to_page(found))
    assert Study.from_json(page.scripts["study"].encode()) == found


def test_names_that_are_markup_stay_text() -> None:
    name = "</script><img src=x onerror=alert(1)>&'\".csv"
    page = Page(to_page(studied(trace=msgspec.structs.replace(TRACE, name=name))))
    assert page.loads == []
    assert f"Simulation of {name}" in "".join(page.words)
    assert Study.from_json(page.scripts["study"].encode()).trace.name == name


def test_many_configurations_are_all_in_the_table_and_the_front_is_in_the_charts() -> None:
    outcomes = [
        outcome(load=1_000 - each, p99=0.1 + 0.01 * each, configuration=Configuration.of(ttl=1.0 + each), staleness=1.0)
        for each in range(MOST_BARS * 2)
    ]
    page = Page(to_page(studied(outcomes, "least origin load")))
    assert len(page.cells) == 1 + MOST_BARS * 2
    bars = next(text for text in page.scripts.values() if "newPlot" in text and len(text) < 200_000)
    assert f"ttl {MOST_BARS * 2}s" in bars  # What is recommended is there, though it is the last one.
    assert "40 of 80 configurations" in " ".join(page.words)


def test_without_a_goal_nothing_is_recommended() -> None:
    found = studied(goal=None)
    assert found.advice is None
    assert "No goal was stated" in to_page(found)


def test_a_goal_that_nobody_meets_is_told_with_the_nearest() -> None:
    found = studied(goal="p99 under 30 ms")
    assert found.advice is not None
    assert (found.advice.is_met, found.advice.index, found.advice.misses) == (
        False,
        1,
        ("p99 is 40 ms, 10 ms too much for 'p99 under 30 ms'",),
    )
    assert "Nobody meets the goal" in to_page(found)


def test_where_changes_are_unknown_age_is_what_counts() -> None:
    origin = OriginModel()
    goal = Goal.parse("staleness under 60 s", OF_UNKNOWN_CHANGES)
    found = Study.of(OUTCOMES, goal, trace=TRACE, origin=origin)
    page = to_page(found)
    assert "least age" in found.front_of
    assert "least staleness" not in found.front_of
    assert "How often values change was not said" in page
    assert '"text":"age, seconds"' in page


@pytest.mark.parametrize(
    "latency", [Constant(0.05), Uniform(0.01, 0.2), LogNormal(0.05, 0.4), Quantiles(((0.0, 0.01), (1.0, 0.45)))]
)
def test_json_round_trip(latency: Constant | Uniform | LogNormal | Quantiles) -> None:
    found = studied(origin=OriginModel(latency, change_every_s=60.0))
    document = found.to_json()

    assert Study.from_json(document) == found
    plain = msgspec.json.decode(document)
    assert plain["version"] == 1
    assert plain["advice"]["index"] == 1
    assert plain["rows"][1]["figures"] == {measure.name: measure.of(OUTCOMES[1]) for measure in MEASURES}
    assert plain["rows"][3]["outcome"]["configuration"]["lifespan"]["serve_stale_s"] == 30.0


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"", "no study"),
        (b"[]", "no study"),
        (b"{}", "no study"),
        (b'{"version": 1}', "no study"),
        (b'{"version": 2}', "version 2; version 1 is read here"),
        (b"\xff\xfe", "no study"),
    ],
)
def test_what_is_no_study_is_told(document: bytes, error: str) -> None:
    with pytest.raises(StudyError, match=error):
        Study.from_json(document)


def test_outcomes_of_the_engine_are_told_as_well() -> None:
    load = [Request(each * 0.5, f"key-{each % 7}", size=100) for each in range(400)]
    origin = OriginModel(change_every_s=30.0)
    outcomes = [simulate(load, origin, Configuration(ttl_s=ttl_s)) for ttl_s in (5.0, 50.0)]
    found = Study.of(outcomes, Goal.parse("least origin load"), trace=TRACE, origin=origin)
    assert Study.from_json(found.to_json()) == found
    assert found.advice is not None
    assert found.advice.index == 1
    assert "memory" in Page(to_page(found)).cells[0]


def drawn(found: Study, width: int = 220) -> str:
    out = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    table.show(found, out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_the_table_marks_the_front_and_the_choice() -> None:
    text = drawn(studied())
    marks = {
        line[4:].split("  ")[0].strip(): line[:2].strip()
        for line in text.splitlines()
        if "ttl" in line and line[2:4] == "  "
    }
    assert marks == {
        "cache_first, ttl 1m": "*",
        "stale_while_revalidate, ttl 1m, stale for ever": ">*",
        "network_first, ttl 5m, 1000 entries (s3fifo)": "",
        "stale_while_revalidate, ttl 1m, stale 30s": "*",
    }
    assert "recommended: stale_while_revalidate, ttl 1m, stale for ever" in text
    assert "2 lines left out" in text


def test_a_file_name_does_not_reach_the_terminal_raw() -> None:
    text = drawn(studied(trace=msgspec.structs.replace(TRACE, name="\x1b[2J[bold]x[/]\u202e.csv")))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[2J[bold]x[/]\\u202e.csv" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 130, 220])
def test_a_narrow_terminal_shows_fewer_columns_and_no_figure_is_cut_off(width: int) -> None:
    text = drawn(studied(), width)
    left_out = re.findall(r"No room here for (.*?):", " ".join(text.split()))

    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert bool(left_out) == (width < 120)
    for value, column in (("200 ms", "p99"), ("99", "origin load")):
        assert (value in text) != any(column in names.split(", ") for names in left_out)


@pytest.mark.parametrize(
    ("said", "width"), [(None, 220), ("90", 90), ("", 220), ("0", 220), ("-5", 220), ("wide", 220), ("9" * 7, 220)]
)
def test_where_there_is_no_terminal_the_environment_may_say_how_wide(
    said: str | None, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if said is not None:
        monkeypatch.setenv("COLUMNS", said)

    assert table.console().width == width


def test_all_columns_can_be_left_out() -> None:
    """Every one of them has its place in the order, and the last to go is what a goal is mostly about."""
    assert sorted(table.LEFT_OUT_FIRST) == sorted(
        (*figures.ALWAYS, *figures.OF_CHANGES, *figures.AT_LAST, *figures.OF_SIZES)
    )
