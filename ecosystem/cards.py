"""Cards: short HTML summaries of a scenario, a run, a world or a study, which notebooks show in place of a ``repr``.

Colours and fonts are those of the notebook, light or dark. Names and texts come from files and models, so all of them
are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from ecosystem.formats import visible

ROWS = 12  # of a table
LETTERS = 240  # of a value

_CELL = "padding:.15em .7em;border:0;vertical-align:top;"
_TEXT, _NUMBER = _CELL + "text-align:left", _CELL + "text-align:right;font-variant-numeric:tabular-nums"


@dataclass(frozen=True)
class Grid:
    """A table of a card. Numbers are aligned to the right; None is shown as a dash."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    most: int = ROWS  # rows shown; the others are counted


def card(title: str, about: str, facts: Mapping[str, object], *grids: Grid) -> str:
    """Return a card as HTML: a title, a line about it, facts by label, and tables.

    Facts that are None and tables without rows are left out.
    """
    shown = [(label, value) for label, value in facts.items() if value is not None]
    parts = [Markup("<strong>{}</strong>").format(_plain(title))]
    if about:
        parts.append(Markup("<div style='max-width:60em;opacity:.8'>{}</div>").format(visible(about)))
    if shown:
        parts.append(_table([], shown, len(shown)))
    for grid in grids:
        if grid.rows:
            parts.append(Markup("<div style='margin-top:.5em;opacity:.8'>{}</div>").format(_plain(grid.title)))
            parts.append(_table(grid.head, grid.rows, grid.most))
    return str(Markup("<div class='ecosystem-card' style='overflow-x:auto'>{}</div>").format(Markup("").join(parts)))


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], most: int) -> Markup:
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(rows[0]))]
    styles = [_NUMBER if right else _TEXT for right in numeric]
    lines = [_line(row, styles) for row in rows[:most]]
    if head:
        cells = zip(head, styles, strict=True)
        top = Markup("").join(Markup("<th style='{}'>{}</th>").format(style, _plain(name)) for name, style in cells)
        lines.insert(0, Markup("<tr>{}</tr>").format(top))
    if len(rows) > most:
        more = Markup("<tr><td style='{}' colspan='{}'>and {} more</td></tr>")
        lines.append(more.format(_TEXT, len(styles), len(rows) - most))
    return Markup("<table style='border-collapse:collapse;margin:.2em 0'>{}</table>").format(Markup("").join(lines))


def _line(row: Sequence[object], styles: Sequence[str]) -> Markup:
    cells = (
        Markup("<td style='{}'>{}</td>").format(style, _plain(value)) for value, style in zip(row, styles, strict=True)
    )
    return Markup("<tr>{}</tr>").format(Markup("").join(cells))


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _plain(value: object) -> Markup:
    if value is None:
        return Markup("–")
    text = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if _is_number(value) else visible(value)
    return escape(text if len(text) <= LETTERS else text[:LETTERS] + "…")
