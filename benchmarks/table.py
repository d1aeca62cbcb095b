"""A table of figures: built row by row, printed as markdown so that README.md can take it as it is."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """Rows under a title; the last two columns are always the target and whether it was reached."""

    title: str
    columns: tuple[str, ...]
    notes: list[str] = field(default_factory=list)
    _rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: object, target: str = "", reached: bool | None = None) -> None:
        """One row: a cell a column (missing ones stay empty), then the target and yes or no."""
        shown = [_shown(cell) for cell in cells]
        shown += [""] * (len(self.columns) - len(shown))
        verdict = "" if reached is None else ("yes" if reached else "**no**")
        self._rows.append((*shown, target, verdict))

    def markdown(self) -> str:
        """The table with its notes, columns padded to line up in a terminal as well."""
        head = (*self.columns, "must reach", "reached")
        widths = [max(map(len, column)) for column in zip(head, *self._rows, strict=True)]
        rule = tuple("-" * width for width in widths)
        lines = [f"### {self.title}", ""]
        lines += [_line(row, widths) for row in (head, rule, *self._rows)]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _shown(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.2f}"  # noqa: PLR2004  (three digits are enough)
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
