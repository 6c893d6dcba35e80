"""Any column of the documents, or of the ledger, against any other: the reader chooses columns, colour and mark."""

from __future__ import annotations

from collections.abc import Iterator

import solara
import solara.lab

from ecosystem.app.address import Address
from ecosystem.app.chart_panels import Chart
from ecosystem.app.charts.columns import MARKS, NONE, Choice, drawn, marks_for
from ecosystem.app.charts.tables import DOCUMENTS, KINDS, LEDGER, Tables
from ecosystem.app.collapsible import Collapsible
from ecosystem.app.elements import framed
from ecosystem.app.worlds.run_view import RunView
from ecosystem.errors import nearest

FIRST = {DOCUMENTS: ("t", "words", "origin"), LEDGER: ("verdict", "origin", NONE)}  # x, y and colour at first
WITHOUT_TEXT = "depth"  # in place of words
COLUMNS = "columns"  # the panel's name in an address


@solara.component
def Explorer(view: RunView, address: Address, step: int, last: int) -> None:
    """Offer the columns of a run; nothing is read before the panel is opened. ``last`` is the run's last step."""
    with framed(COLUMNS):
        opened = address["panel"] == COLUMNS
        Collapsible("Columns: anything against anything", lambda: Columns(view, address, step, last), opened)


def chosen(tables: Tables, address: Address, *, candidates: bool) -> Choice:
    """Return what an address asks for, with the first choice in place of what the run does not have.

    ``candidates``: whether there is a ledger with rows.
    """
    table = address["table"] if address["table"] in KINDS and candidates else DOCUMENTS
    offered = tables.offered(table)
    first = [name if name in offered or name == NONE else WITHOUT_TEXT for name in FIRST[table]]
    x, y, colour = (
        address[key] if address[key] in offered or (key == "colour" and address[key] == NONE) else default
        for key, default in zip(("x", "y", "colour"), first, strict=True)
    )
    suited = marks_for(tables, table, x, y)
    mark = address["mark"] if address["mark"] in suited else suited[0]
    return Choice(table, x, y, colour, mark)


def wrong_columns(view: RunView, address: Address) -> Iterator[str]:
    """Yield a sentence for each choice of an address that this run does not have."""
    tables, table = Tables(view), address["table"] or DOCUMENTS
    kinds = [DOCUMENTS, *([LEDGER] if view.scenario.trainers else [])]
    if table not in kinds:
        yield f'The address names table "{table}"; choose from {", ".join(kinds)}.'
        table = DOCUMENTS
    names = list(tables.offered(table))
    for key, allowed in (("x", names), ("y", names), ("colour", [NONE, *names]), ("mark", list(MARKS))):
        if (value := address[key]) and value not in allowed:
            yield f'The address names {key} "{value}"{nearest(value, allowed)}; choose from {", ".join(allowed)}.'


@solara.component
def Columns(view: RunView, address: Address, step: int, last: int) -> None:
    """Show the chosen columns of the rows up to a step."""
    tables = solara.use_memo(lambda: Tables(view), [view])
    selections = solara.use_memo(lambda: bool(view.scenario.trainers), [view.scenario])
    choice = chosen(tables, address, candidates=selections)
    dependencies = [view, choice, step, last]
    task = solara.lab.use_task(
        lambda: (step, drawn(tables, choice, step)), dependencies=dependencies, raise_error=False
    )
    _selectors(tables, choice, address, selections)
    if task.exception is not None:
        solara.Error(str(task.exception))
        return
    if task.latest is None:
        solara.Text("Reading the columns")
        solara.ProgressLinear(value=True)
        return
    at, chart = task.latest
    missing = f"No row up to {view.scenario.step_name(step)} has a value in both columns."
    Chart(chart, at, f"{at}/{last}", called="Columns", missing=missing, canvas=choice.mark == "points")


def _selectors(tables: Tables, choice: Choice, address: Address, selections: bool) -> None:
    """Show the choices in one row."""
    titles = {name: tables.title(choice.table, name) for name in tables.offered(choice.table)}
    named = {title: name for name, title in titles.items()}
    with solara.Div(classes=["eco-bar", "eco-choices"]):
        if selections:
            solara.Select(
                "rows",
                list(KINDS),
                choice.table,
                lambda table: address.set(table=table, x="", y="", colour="", mark=""),
                dense=True,
            )
        for key, name in (("x", choice.x), ("y", choice.y)):
            solara.Select(
                key, list(named), titles[name], lambda title, key=key: address.set(**{key: named[title]}), dense=True
            )
        if choice.mark != "boxes":  # which have one colour
            colours = {NONE: NONE, **named}
            shown = titles.get(choice.colour, NONE)
            solara.Select("colour", list(colours), shown, lambda title: address.set(colour=colours[title]), dense=True)
        suited = marks_for(tables, choice.table, choice.x, choice.y)
        marks = [mark for mark in MARKS if mark in suited]
        solara.Select("mark", marks, choice.mark, lambda mark: address.set(mark=mark), dense=True)
