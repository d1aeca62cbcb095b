"""A study as one HTML file that loads nothing. Needs plotly, of the extra `simulation`.

Recommendation first, then the charts, the table of all configurations, and what
was simulated. The study itself is in it as JSON (`script#study`), so that nothing
that it shows is lost to machines.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

import msgspec
import plotly.graph_objects as go
from plotly.io import to_html
from plotly.subplots import make_subplots

from cachemesh.simulation.amounts import Unit, shown
from cachemesh.simulation.figures import columns, origin_in_words, trace_in_words
from cachemesh.simulation.measures import FAILURES, HIT_RATIO, ORIGIN_LOAD, P99, WORDS
from cachemesh.simulation.page import PAGE, SCRIPT, STYLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cachemesh.simulation.measures import Measure
    from cachemesh.simulation.study import Row, Study

MOST_BARS: Final = 40
"""Configurations in the charts that have a line for each. The table has them all."""

COLOURS: Final = {
    "cache_first": "#0072b2",
    "stale_while_revalidate": "#e69f00",
    "network_first": "#009e73",
    "network_only": "#999999",
    "cache_only": "#cc79a7",
}
"""Apart for the colour-blind as well (Okabe and Ito, Color Universal Design, 2008)."""
OTHER_COLOUR: Final = "#56b4e9"
CHOSEN_COLOUR: Final = "#d55e00"

LAYOUT: Final[dict[str, Any]] = {
    "template": "none",
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#222"},
    "paper_bgcolor": "white",
    "plot_bgcolor": "white",
    "hovermode": "closest",
    "margin": {"l": 10, "r": 20, "t": 70, "b": 55},
}
GRID: Final[dict[str, Any]] = {"gridcolor": "#e4e4e4", "zerolinecolor": "#bbb", "automargin": True}
PX_A_ROW: Final = 24
MOST_FAILURES: Final = 0.5
"""Who fails more often than this beats nobody: it asks the origin for little because it answers little."""
OFF_THE_AXIS: Final = {"ticks": "outside", "ticklen": 9, "tickcolor": "rgba(0, 0, 0, 0)"}
"""Labels keep clear of the marks that stand on the axis."""


def to_page(study: Study) -> str:
    """The whole file."""
    charts = [hits_and_load(study), staleness_and_load(study), waits(study)]
    titles = ("Hit ratio and origin load", f"{_title(study.staleness)} against origin load", "What callers wait")
    sections = []
    for number, (title, figure) in enumerate(zip(titles, charts, strict=True)):
        drawn = to_html(
            figure,
            include_plotlyjs=number == 0,  # Once for all of them, in the file itself.
            full_html=False,
            config={"displaylogo": False, "responsive": True},
            default_height=f"{figure.layout.height}px",
            div_id=f"chart-{number + 1}",
        )
        sections.append(f"<section><h2>{escape(title)}</h2>{_note(study, number)}{drawn}</section>")
    document = msgspec.json.encode(study).decode().replace("<", "\\u003c")
    return PAGE.format(
        title=escape(f"Simulation of {study.trace.name}"),
        style=STYLE,
        script=SCRIPT,
        advice=_advice(study),
        charts="\n".join(sections),
        table=_table(study),
        facts=_facts("Trace", trace_in_words(study.trace, study.warm_up_s))
        + _facts("Origin", origin_in_words(study.origin)),
        made=escape(_made(study)),
        document=document,
    )


# Charts


def hits_and_load(study: Study) -> go.Figure:
    """Two bars for each configuration, side by side."""
    rows = _drawn(study)
    names = _labels(study, rows)
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    colours = [_colour(row) for row in rows]
    for at, measure in enumerate((HIT_RATIO, ORIGIN_LOAD), 1):
        values = [row.figures[measure.name] for row in rows]
        figure.add_bar(
            x=values,
            y=names,
            orientation="h",
            marker={"color": colours},
            text=[shown(value, measure.unit) for value in values],
            textposition="auto",
            hovertemplate="%{y}<br>" + measure.name + " %{text}<extra></extra>",
            showlegend=False,
            row=1,
            col=at,
        )
    _policies_in_legend(figure, rows, symbol="square")
    figure.update_layout(**LAYOUT, height=_height(rows), bargap=0.25, legend=LEGEND)
    figure.update_yaxes(**GRID, **_lines(rows))
    figure.update_xaxes(**GRID, rangemode="tozero")
    figure.update_xaxes(title="hit ratio", tickformat=".0%", range=[0, 1.02], col=1)
    figure.update_xaxes(title="origin load, requests", col=2)
    return figure


def staleness_and_load(study: Study) -> go.Figure:
    """A point for each configuration; a line through those that no other which answers beats in both."""
    figure = go.Figure()
    measure = study.staleness
    points = [(row.figures[measure.name], row.figures[ORIGIN_LOAD.name]) for row in study.rows]
    edge = _edge(points[at] for at, row in enumerate(study.rows) if row.figures[FAILURES.name] < MOST_FAILURES)
    figure.add_scatter(
        x=[x for x, _ in edge],
        y=[y for _, y in edge],
        mode="lines",
        line={"shape": "hv", "dash": "dot", "color": "#888"},
        name="no other that answers has less of both",
        hoverinfo="skip",
    )
    policies = list(dict.fromkeys(_policy(row) for row in study.rows))
    for number, policy in enumerate(policies, 1):
        larger = 3 * (len(policies) - number)  # The later ones are drawn over the earlier ones.
        told = False
        for is_on_front in (True, False):
            rows = [row for row in study.rows if _policy(row) == policy and row.is_on_front is is_on_front]
            if rows:
                _add_points(figure, rows, measure, (11 if is_on_front else 8) + larger, in_legend=not told)
                told = True
    if study.advice is not None:
        x, y = points[study.advice.index]
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers",
            marker={
                "symbol": "star-open",
                "size": 24 + 3 * (len(policies) - 1),
                "color": CHOSEN_COLOUR,
                "line": {"width": 2.5},
            },
            name="recommended" if study.advice.is_met else "nearest to the goal",
            hoverinfo="skip",
        )
    figure.update_traces(cliponaxis=False)
    figure.update_layout(**LAYOUT, height=580, legend=LEGEND_BELOW)
    figure.update_xaxes(**GRID, **OFF_THE_AXIS, title=f"{measure.name}, seconds", rangemode="tozero")
    figure.update_yaxes(**GRID, **OFF_THE_AXIS, title="origin load, requests", rangemode="tozero")
    return figure


def _add_points(figure: go.Figure, rows: Sequence[Row], measure: Measure, size: int, *, in_legend: bool) -> None:
    """Points of one policy, which all are on the front, or all are not."""
    colour = _colour(rows[0])
    figure.add_scatter(
        x=[row.figures[measure.name] for row in rows],
        y=[row.figures[ORIGIN_LOAD.name] for row in rows],
        mode="markers",
        marker={
            "size": size,
            "symbol": "circle" if rows[0].is_on_front else "circle-open",
            "color": colour,
            "line": {"width": 1.5, "color": colour},
        },
        name=_policy(rows[0]),
        legendgroup=_policy(rows[0]),
        showlegend=in_legend,
        text=[_hover(row, measure) for row in rows],
        hovertemplate="%{text}<extra></extra>",
    )


def waits(study: Study) -> go.Figure:
    """Three marks on a line for each configuration."""
    rows = _drawn(study)
    names = _labels(study, rows)
    figure = go.Figure()
    spans: tuple[list[float | None], list[str | None]] = ([], [])
    for row, name in zip(rows, names, strict=True):
        spans[0].extend((row.figures["p50"] * 1e3, row.figures["p99"] * 1e3, None))
        spans[1].extend((name, name, None))
    figure.add_scatter(
        x=spans[0], y=spans[1], mode="lines", line={"color": "#ccc", "width": 3}, hoverinfo="skip", showlegend=False
    )
    # The later ones are drawn over the earlier ones: where all are the same, the least is seen in the largest.
    for name, colour, size in (("p99", "#d55e00", 15), ("p95", "#e69f00", 11), ("p50", "#0072b2", 7)):
        values = [row.figures[name] for row in rows]
        figure.add_scatter(
            x=[value * 1e3 for value in values],
            y=names,
            mode="markers",
            marker={"color": colour, "size": size},
            name=f"{name}: {WORDS[name].about}",
            text=[shown(value, Unit.TIME) for value in values],
            hovertemplate="%{y}<br>" + name + " %{text}<extra></extra>",
        )
    figure.update_traces(cliponaxis=False)
    figure.update_layout(**LAYOUT, height=_height(rows), legend={**LEGEND, "traceorder": "reversed"})
    figure.update_yaxes(**GRID, **_lines(rows))
    figure.update_xaxes(**GRID, title="milliseconds", rangemode="tozero")
    return figure


LEGEND: Final[dict[str, Any]] = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0}
LEGEND_BELOW: Final[dict[str, Any]] = {**LEGEND, "y": -0.16, "yanchor": "top"}
"""It may have two lines, which above would run into the buttons."""


def _drawn(study: Study) -> list[Row]:
    """The rows that have a line in the charts: the recommended one, the front, and others as far as there is room."""
    chosen = None if study.advice is None else study.advice.index
    order = sorted(range(len(study.rows)), key=lambda at: (at != chosen, not study.rows[at].is_on_front, at))
    return [study.rows[at] for at in sorted(order[:MOST_BARS])]


def _labels(study: Study, rows: Sequence[Row]) -> list[str]:
    """Names; the recommended one in bold, those on the front with a star. Plotly reads a little HTML."""
    chosen = None if study.advice is None else study.rows[study.advice.index]
    labels = []
    for row in rows:
        label = escape(row.name) + (" *" if row.is_on_front else "")
        labels.append(f"<b>{label}</b>" if row is chosen else label)
    return labels


def _policies_in_legend(figure: go.Figure, rows: Sequence[Row], symbol: str) -> None:
    for policy in dict.fromkeys(map(_policy, rows)):
        marker = {"color": COLOURS.get(policy, OTHER_COLOUR), "size": 11, "symbol": symbol}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=policy)


def _edge(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that none beats in both coordinates, from left to right."""
    edge: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not edge or point[1] < edge[-1][1]:
            edge.append(point)
    return edge


def _lines(rows: Sequence[Row]) -> dict[str, Any]:
    """An axis with a line for each row, the first one at the top."""
    return {"type": "category", "range": [len(rows) - 0.5, -0.5], "tickfont": {"size": 11}, **OFF_THE_AXIS}


def _height(rows: Sequence[Row]) -> int:
    return 190 + PX_A_ROW * len(rows)


def _policy(row: Row) -> str:
    return row.outcome.configuration.policy.name


def _colour(row: Row) -> str:
    return COLOURS.get(_policy(row), OTHER_COLOUR)


def _hover(row: Row, measure: Measure) -> str:
    told = [escape(row.name)]
    told += [
        f"{each.name} {shown(row.figures[each.name], each.unit)}" for each in (measure, ORIGIN_LOAD, HIT_RATIO, P99)
    ]
    return "<br>".join(told)


# Text


def _title(measure: Measure) -> str:
    return measure.name.capitalize()


def _note(study: Study, number: int) -> str:
    texts = []
    if number == 1:
        texts.append(f"{_title(study.staleness)}: {study.staleness.about}. Filled marks are on the Pareto front.")
        if not study.knows_changes:
            texts.append("How often values change was not said, so what counts is how old they are.")
    elif len(study.rows) > MOST_BARS:
        texts.append(f"{MOST_BARS} of {len(study.rows)} configurations, the front first; the table has them all.")
    return f"<p>{escape(' '.join(texts))}</p>" if texts else ""


def _advice(study: Study) -> str:
    given = study.advice
    if given is None:
        return "<p class='advice'>No goal was stated, so nothing is recommended. Stars mark the Pareto front.</p>"
    head = "Recommended" if given.is_met else "Nobody meets the goal; nearest comes"
    kind = "met" if given.is_met else "unmet"
    chosen = study.rows[given.index]
    figures = "".join(
        f"<div><b>{escape(shown(chosen.figures[each.name], each.unit))}</b>{escape(each.name)}</div>"
        for each in (HIT_RATIO, ORIGIN_LOAD, P99, study.staleness, FAILURES)
    )
    return (
        f"<div class='advice {kind}'><small>Goal: {escape(given.goal)}</small>"
        f"<p>{head}: <strong>{escape(given.name)}</strong></p><p>{escape(given.reason)}</p>"
        f"<div class='figures'>{figures}</div></div>"
    )


def _table(study: Study) -> str:
    measures = columns(study)
    chosen = None if study.advice is None else study.advice.index
    head = "".join(
        f"<th title='{escape(each.about, quote=True)}'><button>{escape(each.name)}</button></th>" for each in measures
    )
    lines = []
    for index, row in enumerate(study.rows):
        kind = "chosen" if index == chosen else "front" if row.is_on_front else ""
        cells = "".join(
            f"<td data-value='{row.figures[each.name]!r}'>{escape(shown(row.figures[each.name], each.unit))}</td>"
            for each in measures
        )
        mark = "*" if row.is_on_front else ""
        lines.append(
            f"<tr class='{kind}'><td data-value='{int(not row.is_on_front)}'>{mark}</td>"
            f"<td>{escape(row.name)}</td>{cells}</tr>"
        )
    body = "\n".join(lines)
    return (
        "<table id='configurations'><thead><tr><th title='on the Pareto front'><button>*</button></th>"
        f"<th><button>configuration</button></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>* on the Pareto front: no other has it better in one of {escape(', '.join(study.front_of))}, "
        "and in none of them worse. A click on a heading sorts.</p>"
    )


def _facts(title: str, told: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in told)
    return f"<div><h2>{title}</h2><dl>{lines}</dl></div>"


def _made(study: Study) -> str:
    warm_up = f", the first {shown(study.warm_up_s, Unit.TIME)} not counted" if study.warm_up_s else ""
    return f"{study.made_by}, seed {study.seed}{warm_up}"
