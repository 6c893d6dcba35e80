"""Show the documents of a run, and trace one through its author's training sets back to people.

Everything comes from stored tables. Documents are data: they reach the page as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import solara
import solara.lab

from ecosystem.app.collapsible import Collapsible
from ecosystem.app.elements import framed, text_element
from ecosystem.app.worlds.run_view import RunView
from ecosystem.calendar import Calendar, step_name
from ecosystem.formats import number, percent, visible
from ecosystem.report.charts.theme import HUMAN, SYNTHETIC
from ecosystem.report.panels.documents import CLIP, LONGEST, image_shape, picture, readable
from ecosystem.runs.ancestry import Ancestry
from ecosystem.runs.lineage import INITIAL, Origin, in_words, origin_name, summary_of

TEXTS, PICTURES = 3, 6  # documents in a column
FITS = 6  # of a lineage, shown at first
SHOWN_STEP = "the step shown"


@dataclass(frozen=True)
class Entry:
    """A document for display: a ``picture``, or ``text`` (at most LONGEST characters), and facts about it."""

    doc: int
    synthetic: bool
    text: str
    picture: str | None
    facts: tuple[str, ...]
    characters: int = 0  # of the whole document

    @property
    def long(self) -> bool:
        """Whether only the beginning is shown until the reader opens the document."""
        return self.picture is None and (len(self.text) > CLIP or self.text.count("\n") >= 10)


def authors(view: RunView) -> dict[str, str]:
    """Return the names of all who have published: trainers, populations of writers, the initial web.

    Keys are a trainer's name, ``writers/<population>`` or ``initial``.
    """
    present = set(view.documents["author"].unique())
    trainers = [f"{name}/{i}" for name, spec in view.scenario.trainers.items() for i in range(spec.count)]
    names = {name: name for name in trainers if name in present}
    writers = {author.rsplit("/", 1)[0] for author in present if author.startswith("writers/")}
    names |= {f"writers/{name}": f"{name} (writers)" for name in view.scenario.writers if f"writers/{name}" in writers}
    return names | ({INITIAL: origin_name("people", INITIAL)} if INITIAL in present else {})


def published(view: RunView, author: str) -> pl.DataFrame:
    """Return the rows of ``view.documents`` for a key of :func:`authors`, in order of publication."""
    member = pl.col("author").str.starts_with(f"{author}/") if author.startswith("writers/") else pl.lit(value=False)
    return view.documents.filter((pl.col("author") == author) | member)


def entries(view: RunView, documents: pl.DataFrame, first: int = 0) -> list[Entry]:
    """Read some of these documents, all of one step, from number ``first`` on.

    They come in order of publication, without selection: at most TEXTS, or PICTURES if they are images. Raises
    StoreError if the step is damaged.
    """
    if documents.is_empty():
        return []
    step = documents["t"][0]
    segment = view.run.store.table("corpus", range(step, step + 1), ("doc", "words", "reason", "content"))
    shape = image_shape(view.run.scenario, segment["content"].dtype)
    page = documents.slice(first, TEXTS if shape is None else PICTURES)
    names = view.places["name"]
    rows = page.join(segment, on="doc", how="left", maintain_order="left")
    return [_entry(row, names[row["site"]], shape, view.scenario.calendar) for row in rows.iter_rows(named=True)]


def _entry(row: dict[str, Any], site: str, shape: tuple[int, int] | None, calendar: Calendar | None = None) -> Entry:
    content = row["content"]
    full = "" if shape else visible(readable(content))
    text = full if len(full) <= LONGEST else f"{full[:LONGEST]}…"
    facts = [f"{row['author']}, {step_name(row['t'], calendar)}", f"document {row['doc']}", f"site {site}"]
    facts += [f"{row['words']:,} word{'s' if row['words'] != 1 else ''}"] if isinstance(content, str) else []
    human = "written by people" + (f", {percent(row['depth'])} of it by a model" if row["depth"] else "")
    facts += [f"depth {number(row['depth'])}" if row["synthetic"] else human]
    if row["verdict"]:
        facts += [f"refused by {row['verdict']}" + (f": {row['reason']}" if row["reason"] else "")]
    if row["retired_at"] is not None:
        why = row.get("left_by")
        facts += [f"left the web at {step_name(row['retired_at'], calendar)}" + ("" if why is None else f": {why}")]
    shown = None if shape is None else picture(content, shape)
    return Entry(row["doc"], row["synthetic"], text, shown, tuple(visible(fact) for fact in facts), len(full))


# Components

TINTS = {"people": HUMAN, "injected": "#4f9d8f", "start": "#c79a3a", "model": SYNTHETIC}


@solara.component
def Reading(view: RunView, step: int, last: int, at_first: bool = False) -> None:
    """Offer the documents of a run; nothing is read before the panel is opened. ``last`` is the run's last step.

    ``at_first``: whether the panel is open.
    """
    with framed("reading", "eco-reading"):
        title = "Reading: what was written, and where it comes from"
        Collapsible(title, lambda: Reader(view, step, last), at_first)


@dataclass(frozen=True)
class Selection:
    """Documents of one author: those of a ``step``, shown from number ``first`` on, and the earliest ones."""

    step: int
    first: int
    current: pl.DataFrame
    earliest: pl.DataFrame

    @classmethod
    def of(cls, documents: pl.DataFrame, step: int, first: int) -> Selection:
        """Select from all documents of the author; the earliest ones are from before ``step``."""
        current = documents.filter(pl.col("t") == step)
        earliest = documents.filter((pl.col("t") == pl.col("t").min()) & (pl.col("t") < step))
        return cls(step, first if first < current.height else 0, current, earliest)

    def read(self, view: RunView) -> tuple[list[Entry], list[Entry]]:
        """Read the current and the earliest documents that are shown."""
        return entries(view, self.current, self.first), entries(view, self.earliest)


@solara.component
def Reader(view: RunView, step: int, last: int) -> None:
    """Show an author's documents of a step beside its earliest ones."""
    ancestry = solara.use_memo(lambda: Ancestry(view), [view])
    author, set_author = solara.use_state("")
    fixed_step, set_step = solara.use_state(SHOWN_STEP)
    first, set_first = solara.use_state(0)
    traced, trace = solara.use_state(-1)
    names = solara.use_memo(lambda: authors(view), [view, last])
    default = solara.use_memo(lambda: _default_author(view, names, step), [view, last, step])
    chosen = author if author in names else default
    documents = solara.use_memo(lambda: published(view, chosen), [view, last, chosen])
    steps = [str(t) for t in documents["t"].unique(maintain_order=True)]
    selection = Selection.of(documents, int(fixed_step) if fixed_step in steps else step, first)
    dependencies = [view, last, chosen, selection.step, selection.first]
    task = solara.lab.use_task(lambda: selection.read(view), dependencies=dependencies, raise_error=False)

    def choose(setter: Callable[[str], None], value: str) -> None:
        setter(value)
        set_first(0)

    keys = {name: key for key, name in names.items()}
    options = [SHOWN_STEP, *steps]
    shown_step = fixed_step if fixed_step in options else SHOWN_STEP
    with solara.Div(classes=["eco-bar"]):
        solara.Select("author", list(keys), names.get(chosen), lambda name: choose(set_author, keys[name]), dense=True)
        solara.Select("step", options, shown_step, lambda value: choose(set_step, value), dense=True)
    if task.exception is not None:
        solara.Error(str(task.exception))
        return
    current, earliest = task.latest or ([], [])
    with solara.Div(classes=["eco-columns"]):
        with solara.Div():
            _current_heading(view, selection, len(current), names.get(chosen, ""), set_first)
            Documents(current, ancestry, traced, trace, last)
        with solara.Div():
            _earliest_heading(view, selection, len(earliest))
            Documents(earliest, ancestry, traced, trace, last)


def _default_author(view: RunView, names: Collection[str], step: int) -> str:
    """Return the first author that published at a step, else the first of all; empty if there is none."""
    writing = view.documents.filter(pl.col("t") == step)["author"].unique()
    present = [key for key in names if any(who == key or who.startswith(f"{key}/") for who in writing)]
    return next(iter(present or names), "")


def _current_heading(
    view: RunView, selection: Selection, shown: int, author: str, set_first: Callable[[int], None]
) -> None:
    """Head the documents that an author published at the step."""
    text_element("h4", f"Published at {view.scenario.step_name(selection.step)}")
    if selection.current.is_empty():
        text_element("p", f"{author} published nothing at this step." if author else "Nothing has been published yet.")
    elif shown:
        _pages(selection.first, shown, selection.current.height, set_first)


def _earliest_heading(view: RunView, selection: Selection, shown: int) -> None:
    """Head the earliest documents of an author."""
    earliest = selection.earliest
    text_element(
        "h4", "Its first documents" + (f", {view.scenario.step_name(earliest['t'][0])}" if earliest.height else "")
    )
    if earliest.is_empty():
        text_element("p", "No earlier documents." if selection.current.height else "")
    elif shown:
        _pages(0, shown, earliest.height, None)


def _pages(first: int, shown: int, height: int, turn: Callable[[int], None] | None) -> None:
    """Show which of ``height`` documents are on the page, with a button that turns to the next ones."""
    end = min(first + shown, height)
    with solara.Div(classes=["eco-turn"]):
        text_element("span", f"{first + 1:,} to {end:,} of {height:,}")
        if turn is not None and (end < height or first):
            label, place = ("next", end) if end < height else ("back to the first", 0)
            solara.Button(label, on_click=lambda: turn(place), text=True, small=True)


@solara.component
def Documents(shown: Sequence[Entry], ancestry: Ancestry, traced: int, trace: Callable[[int], None], last: int) -> None:
    """Show documents one below the other; synthetic ones offer their lineage."""
    with solara.Div():
        for entry in shown:
            classes = ["eco-doc", "eco-machine" if entry.synthetic else "eco-people"]
            with solara.Div(classes=classes).key(f"d{entry.doc}"):
                _content(entry)
                text_element("div", " · ".join(entry.facts), "eco-facts")
                if entry.synthetic:
                    _lineage_button(entry.doc, entry.doc == traced, trace)
                if entry.synthetic and entry.doc == traced:
                    Descent(ancestry, entry.doc, last)


def _content(entry: Entry) -> None:
    """Show a document's picture or text; a long text can be expanded."""
    if entry.picture is not None:
        solara.v.Html(tag="img", attributes={"src": entry.picture, "alt": f"document {entry.doc}"})
    elif not entry.text.strip():
        text_element("p", "Empty document.")
    elif entry.long:
        extent = "all" if entry.characters <= LONGEST else f"the first {LONGEST:,} of"
        summary = [
            text_element("div", f"{entry.text[:CLIP]}…", "eco-words", "eco-clip", dir="auto"),
            text_element("span", f"{extent} {entry.characters:,} characters", "eco-more"),
        ]
        full = text_element("div", entry.text, "eco-words", dir="auto")
        solara.v.Html(tag="details", children=[solara.v.Html(tag="summary", children=summary), full])
    else:
        text_element("div", entry.text, "eco-words", dir="auto")


def _lineage_button(doc: int, is_open: bool, trace: Callable[[int], None]) -> None:
    """Offer to open or close the lineage of a document."""
    label = "Close the lineage" if is_open else "Lineage"
    solara.Button(label, on_click=lambda: trace(-1 if is_open else doc), text=True, x_small=True)


@solara.component
def Descent(ancestry: Ancestry, doc: int, last: int) -> None:
    """Show the lineage of a document, fit by fit, latest first."""
    expanded, expand = solara.use_state(False)
    task = solara.lab.use_task(lambda: ancestry.lineage(doc), dependencies=[ancestry, doc], raise_error=False)
    if task.exception is not None:
        solara.Error(str(task.exception))
        return
    if task.value is None:
        text_element("p", "Tracing the ledgers …")
        return
    lineage, calendar = task.value, ancestry.history.scenario.calendar
    with solara.Div(classes=["eco-descent"]):
        text_element("p", summary_of(lineage, calendar))
        Bar(lineage.ends)
        for fit in lineage.fits if expanded else lineage.fits[:FITS]:
            with solara.Div(classes=["eco-fit"]):
                text_element("strong", fit.heading_in(calendar))
                text_element("span", f" · {fit.frequency}" + ("" if fit.exact else " · approximate"))
                Bar(fit.origins)
        if len(lineage.fits) > FITS:
            amount = "fewer" if expanded else f"all {len(lineage.fits)}"
            solara.Button(f"Show {amount}", on_click=lambda: expand(not expanded), text=True, x_small=True)
        for caveat in lineage.caveats:
            text_element("p", caveat)


@solara.component
def Bar(origins: Sequence[Origin]) -> None:
    """Show shares as a bar, with words below it."""
    with solara.Div():
        with solara.Div(classes=["eco-shares"]):
            for origin in origins:
                style = f"width:{100 * origin.share:.3f}%;background:{TINTS[origin.kind]}"
                solara.v.Html(tag="span", style_=style, attributes={"title": origin.text})
        text_element("div", in_words(origins), "eco-facts")
