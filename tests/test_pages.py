"""Pages: whatever text models, files or errors hold, it is shown as text and changes nothing about a page."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from jinja2 import UndefinedError

from ecosystem.formats import visible
from ecosystem.report import charts, html, write_report
from ecosystem.report.html import Cell, Column, Figure, Table
from ecosystem.report.panels.documents import Document, Image
from ecosystem.runs.records import DIGESTS, note_digests
from ecosystem.runs.run import Run
from ecosystem.runs.store import Store
from ecosystem.studies import frontier as frontiers
from ecosystem.studies.report import write_study
from ecosystem.studies.report.pages import PAGES
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.threshold import Threshold
from ecosystem.validation import validate
from tests.invented_runs import ENVIRONMENT, invent, scenario
from tests.studies.small_study import FRONTIER, STUDY, load, results_of

HOSTILE = [
    "<script>alert(1)</script>",
    "</script></style></title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'',
    "' onmouseover='alert(1)' x=\"",
    "{{ 7*7 }}{% for x in range(9) %}y{% endfor %}{# gone #}",
    "{% endblock %}{{ self.__class__ }}",
    "&lt;b&gt; &#0; &amp;amp;",
    "**bold** <!-- --> ]]>",
    "\x00\x01\x08\x1b[31m\x7f\x85\x9f",
]
ALL = " ".join(HOSTILE)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Page(HTMLParser):
    """The elements of a page with the names of their attributes, and the text that it shows, attributes included."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, list[str]]] = []
        self.shown: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, [name for name, _ in attrs]))
        self.shown += [value or "" for _, value in attrs]

    def handle_endtag(self, tag):
        self.elements.append((f"/{tag}", []))

    def handle_data(self, data):
        self.shown.append(data)


def harmless(text: str) -> str:
    """Return text of the same length, lines and blanks in which nothing means anything."""
    return re.sub(r"[^ \n]", "x", text)


def alike(value, change):
    """Return a value with every string in it changed, down through dataclasses, tuples, lists and dictionaries."""
    if isinstance(value, str):
        return change(value)
    if is_dataclass(value):
        return replace(value, **{field.name: alike(getattr(value, field.name), change) for field in fields(value)})
    if isinstance(value, dict):
        return {alike(key, change): alike(item, change) for key, item in value.items()}
    return type(value)(alike(item, change) for item in value) if isinstance(value, list | tuple) else value


T = "text"
IMAGES = [Image("data:image/png;base64,AAAA", T)]
MACROS = {
    "header": [T, T, {T: T}],
    "navigation": [{T: T}, [Cell(T, "p1")] * 10],
    "footer": [T],
    "tinted": [Cell(T, T)],
    "table": [
        Table([T, Column(T, T)], [[T, Cell(T)], [Cell(T, "p0", T), Cell(T, bold=True)], [Cell(T, soft=True)] * 2])
    ],
    "figure": [Figure(T, T, T)],
    "grid": [[Figure(T, T, T, full=True)], T],
    "tabs": [{T: Figure(T, T, T), f"{T} 2": Figure(T, T, T)}, T],
    "document": [Document(T, T)],
    "documents that are long": [Document(T, T * 4000)],
    "documents that are images": [Document(T, images=IMAGES, width=8)],
}


@pytest.mark.parametrize("macro", MACROS)
def test_what_pages_consist_of_shows_text_as_text(macro):
    """Every string that a macro is given, wherever it stands: elements and attributes are those of harmless text."""
    made = html.PAGES.get_template("macros.html").module
    name = {"documents that are long": "document", "documents that are images": "document"}.get(macro, macro)
    for hostile in HOSTILE:
        given = alike(MACROS[macro], lambda text, hostile=hostile: text.replace(T, hostile))
        expected = alike(given, harmless)
        bad, good = (str(getattr(made, name)(*arguments)) for arguments in (given, expected))
        assert Page(bad).elements == Page(good).elements, hostile
        assert not CONTROL.search(bad)
        assert visible(hostile)[:50] in "".join(Page(bad).shown)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_sentence_has_bold_names_and_no_other_markup(hostile):
    prose = html.PAGES.get_template("macros.html").module.prose
    found = Page(str(prose(f"first **{hostile.replace('*', '')}** last")))
    assert found.elements == [("b", []), ("/b", [])]
    assert "".join(found.shown) == f"first {visible(hostile.replace('*', ''))} last"


@pytest.mark.parametrize("pages", [html.PAGES, PAGES], ids=["runs", "studies"])
def test_no_template_can_leave_text_as_it_is(pages):
    assert pages.autoescape is True
    with pytest.raises(UndefinedError):
        pages.from_string("{{ missing }}").render()
    for name in pages.list_templates():
        source = pages.loader.get_source(pages, name)[0]
        assert not re.search(r"\|\s*safe\b|autoescape|\bMarkup\b", source), name
        assert not re.search(r"=\s*\{\{", source), f"{name}: an attribute without quotes"
    shown = pages.from_string("{{ text }}|{{ text ~ 1 }}|{{ [text]|join(', ') }}|{{ '%s'|format(text) }}")
    assert not set("<>\"'") & set(shown.render(text="\"<b>'"))


@pytest.fixture
def unrendered(monkeypatch):
    monkeypatch.setattr(charts, "pictures", lambda spec: (b"<svg/>", b"png"))


def run_with(folder, text: str) -> Run:
    """A run with this text in every place that its report shows: documents, people, machine, versions, events …"""
    spec = scenario({"naive": ["quality"]}, members=1, steps=2, sites=4, description=text)
    columns = {
        "author": pl.when(pl.col("t") == 0).then(pl.lit(text)).otherwise("author"),
        "content": pl.when(pl.col("doc") % 10 == 0).then(pl.lit(text)).otherwise(pl.lit(text * 30)),
        "verdict": pl.when(pl.col("doc") % 10 == 1).then(pl.lit(text)),
    }
    events = {1: [text], 2: [text] * 3}
    invent(folder, spec, events=events, documents=lambda frame: frame.with_columns(**columns))
    environment = dict.fromkeys(("device", "device_name", "python", "platform"), text)
    environment |= {"packages": {text: text, "ecosystem": text}, "sources": {text: {"digest": text, "size": None}}}
    environment |= {"seed": 1, "threads": 1, "resumed": [{"after_step": text}]}
    content = json.dumps(ENVIRONMENT | environment)
    note_digests(folder / DIGESTS, {"environment.json": content.encode()})
    (folder / "environment.json").write_text(content)
    return Run.open(folder)


def study_with(folder, text: str):
    """The report of a study with this text for everything that a file of it and its runs can bring along."""
    spec = load(folder, STUDY).model_copy(update={"description": text, "base": text})
    spec = spec.model_copy(update={"arms": {name: {text: text} for name in spec.arms}})
    rows = [(arm, "", seed, seed + k / 7 + seed * k / 9) for k, arm in enumerate(spec.arms) for seed in (1, 2, 3)]
    results = results_of(spec, rows)
    runs = results.runs.with_columns(run=pl.lit(text), error=pl.when(pl.col("seed") == 3).then(pl.lit(text)))
    return write_study(replace(results, runs=runs), Store(folder / "s"))


def frontier_with(folder, text: str):
    """The report of a frontier with this text for what its file says and what its runs left out."""
    (folder / "where.toml").write_text(FRONTIER)
    spec = Frontier.load(folder / "where.toml").model_copy(update={"description": text, "path": text})
    tried = {5.0: np.array([0.1, 0.2, 0.3]), 200.0: np.array([1.0, 1.1, 1.3])}
    found = Threshold(20.0, 10.0, 40.0, True, 15.0, tried, {5.0: text})
    return frontiers._write_report(spec, found, Store(folder / "f"))


def validation_with(folder, text: str):
    """The page of checks whose names and sources are this text."""
    return validate.write([validate.Check(text, text, 1.0, 1.5, 0.1, 900)], folder / "v")


PAGES_WITH = {
    "a run": (lambda folder, text: write_report(run_with(folder / "run", text)), 100),
    "a study": (study_with, 18),
    "a frontier": (frontier_with, 5),
    "checks": (validation_with, 2),
}


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("page", PAGES_WITH)
def test_a_page_of_hostile_text_has_the_elements_of_any_other(tmp_path, page):
    write, places = PAGES_WITH[page]
    sources = []
    for name, text in (("bad", ALL), ("good", harmless(ALL))):
        (tmp_path / name).mkdir()
        sources.append(write(tmp_path / name, text).read_text(encoding="utf-8"))
    bad, good = map(Page, sources)
    assert bad.elements == good.elements
    assert not CONTROL.search(re.sub(r"<script.*?</script>", "", sources[0], flags=re.S))
    shown = "".join(bad.shown)
    for text in HOSTILE:
        assert shown.count(visible(text)) >= places, text
