"""Reports for every reader: data, code and description of every chart; ranges of axes; keyboard and paper."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import ecosystem
from ecosystem.errors import EcosystemError
from ecosystem.report import charts, html, write_report
from ecosystem.report.charts import ChartLabels, ChartTheme
from ecosystem.runs.run import Run
from tests.invented_runs import POPULATIONS, invent, scenario

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
PAPER = 688  # pixels: A4 less the margins of the page's style
CONTROLS = 'a[href], button, input, summary, [tabindex="0"]'
BROKEN = r"""[...document.querySelectorAll("thead th, td:not(.left)")].flatMap((cell) => {
  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), broken = []
  while (texts.nextNode()) for (const word of texts.currentNode.data.matchAll(/[^\s-]+/g)) {
    const range = document.createRange()
    range.setStart(texts.currentNode, word.index)
    range.setEnd(texts.currentNode, word.index + word[0].length)
    if (new Set([...range.getClientRects()].map((one) => one.top)).size > 1) broken.push(word[0])
  }
  return broken
})"""  # words and numbers of cells that continue on another line
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run with every sort of measurement, and its report; pictures are tested elsewhere."""
    folder = tmp_path_factory.mktemp("pages") / "invented-0123" / "1"
    spec = scenario(changes=[{"at": 6, "set": {"policies.archive.fraction": 0.5}}])
    made = invent(folder, spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(charts, "pictures", lambda spec: (b"<svg/>", b"png"))
        write_report(made)
    return made


@pytest.fixture(scope="module")
def source(run) -> str:
    return (run.path / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def specs(source) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="specs">(.*?)</script>', source, re.DOTALL)
    return json.loads(found[1])


def last_of(code: str, namespaces: dict[str, dict[str, Any]]) -> Any:
    """Run code and return the value of its last line; equal beginnings are run once."""
    beginning, last = code.rsplit("\n", 1)
    if beginning not in namespaces:
        namespaces[beginning] = {}
        exec(beginning, namespaces[beginning])
    return eval(last, namespaces[beginning])


def plain(chart: Any) -> dict[str, Any]:
    spec = chart.to_dict(validate=False)
    return {key: value for key, value in spec.items() if key not in ("config", "$schema")}


def codes(source: str) -> dict[str, str]:
    """The code of every chart of a page, by the chart's name."""
    texts = re.findall(r'id="about-([\w-]+)">.*?<pre tabindex="0">(.*?)</pre>', source, re.DOTALL)
    return {name: text.replace("&#34;", '"') for name, text in texts}


def test_the_code_of_every_chart_draws_it_again(run, source, specs, monkeypatch):
    monkeypatch.chdir(run.path.parent.parent)
    found, namespaces = codes(source), {}
    assert found.keys() == specs.keys() and len(found) > 20
    assert 'run = ecosystem.Run("invented-0123/1")' in found["refusals"]
    assert "in the folder that contains <b>invented-0123</b>" in source
    for name, code in found.items():
        assert plain(last_of(code, namespaces)) == {k: v for k, v in specs[name].items() if k != "$schema"}, name


def test_any_report_gives_its_charts_by_name(run, specs, tmp_path):
    report = ecosystem.Report(run.path)
    assert report.names() == list(specs) and f"{len(specs)} charts" in repr(report)
    assert plain(report["refusals"]) == {k: v for k, v in specs["refusals"].items() if k != "$schema"}
    with pytest.raises(
        EcosystemError, match=r"report.html cannot be read \(No such file .*; name the folder of a report"
    ):
        ecosystem.Report(tmp_path)
    (tmp_path / "report.html").write_text("<p>of another tool</p>")
    with pytest.raises(EcosystemError, match="no report of this version"):
        ecosystem.Report(tmp_path)
    assert 'ecosystem.Report("study-1")\nreport["a"]' in html.Source("study-1").code("a")


# Data


def rows_of(text: str) -> list[list[str | float]]:
    def value(cell: str) -> str | float:
        try:
            return float(cell)
        except ValueError:
            return cell

    return [[value(cell) for cell in row] for row in csv.reader(io.StringIO(text))]


def test_every_chart_has_its_data_as_a_file(run, specs):
    for name, spec in specs.items():
        head, *rows = rows_of((run.path / f"charts/{name}.csv").read_text(encoding="utf-8"))
        tables = {part: table for part, table in spec["datasets"].items() if not part.startswith("_")}
        assert len(rows) == sum(map(len, tables.values())) > 0 and head[0] == "part", name
        assert not [column for column in head if str(column).startswith("_")]
    table = pl.read_csv(run.path / "charts/quality_cross_entropy.csv").filter(pl.col("part") == "means")
    measured = run.metrics.filter((pl.col("metric") == "cross_entropy") & (pl.col("id") == "naive/0"))
    naive = table.filter(pl.col("population") == "naive")
    assert naive["members"].to_list() == [2] * naive.height and naive.height >= measured["step"].n_unique()


ODD_DATA = {
    "means": [{"date": 1_654_041_600_000, "label": 'a "b", c', "_place": 3, "on": True, "value": None}],
    "_names of level": [{"place": 1}],
}


def test_data_keep_commas_quotes_and_dates():
    text = charts.csv_of({"datasets": ODD_DATA})
    assert text == 'part,date,label,on,value\nmeans,2022-06-01,"a ""b"", c",true,\n'


# Descriptions


def test_descriptions_have_title_axes_and_the_main_figures(run, specs):
    for name, spec in specs.items():
        text = charts.describe(spec)
        assert spec["title"]["text"] in text and len(text) < 2500 and not re.search(r"\b(None|nan)\b", text), name
    text = charts.describe(specs["quality_cross_entropy"])
    means = pl.DataFrame(specs["quality_cross_entropy"]["datasets"]["means"])
    assert text.startswith("Line chart: Cross-entropy on held-out human text.")
    assert "Horizontal axis: step; vertical axis: nats per token." in text
    for population in POPULATIONS:
        own = means.filter(pl.col("population") == population).sort("step")
        first, last = own.row(0, named=True), own.row(-1, named=True)
        ends = [f"{row['value']:.4g} at step {row['step']}" for row in (first, last)]
        assert f"{population}: {ends[0]} to {ends[1]}" in text
    assert "policies.archive.fraction = 0.5 from step 6" in text
    bars = charts.describe(specs["refusals"])
    row = next(row for row in specs["refusals"]["datasets"]["bars"] if row["origin"] == "synthetic")
    assert bars.startswith("Bar chart") and f"{row['row']}, synthetic: {100 * row['rate']:.3g} %" in bars
    assert re.search(r"Map: .* 60 sites, synthetic share \S+ % to \S+ %", charts.describe(specs["web_000010"]))


def test_a_file_of_a_chart_has_its_description():
    frame = pl.DataFrame({"population": ["a"], "step": [0], "value": [2.0], "error": [0.1], "members": [1]})
    chart = charts.over_steps(frame, ChartTheme(["a"], 0), ChartLabels('"One" & <two>', "point", "nats"))
    svg, _ = charts.pictures(charts.specification(chart))
    label = 'aria-label=\'Line chart: "One" &amp; &lt;two&gt;.'
    assert svg.decode().startswith("<svg role=") and label in svg.decode()


# Axes


def values_of(spec: dict[str, Any], channel: str) -> Iterator[tuple[str, list[float], list[float]]]:
    """Mark, domain and values of each layer whose channel has a domain of numbers and which is not clipped."""
    for layer in spec["layer"]:
        one = layer["encoding"].get(channel, {})
        domain = (one.get("scale") or {}).get("domain")
        if not domain or isinstance(domain[0], str | dict) or "field" not in one or layer["mark"].get("clip"):
            continue
        rows = spec["datasets"][layer.get("data", spec.get("data"))["name"]]
        rows = [row for row in rows if row.get("_shown", True)]
        fields = [one["field"], layer["encoding"].get(f"{channel}2", {}).get("field")]
        yield layer["mark"]["type"], domain, [r[f] for r in rows for f in fields if f and r.get(f) is not None]


def test_nothing_is_drawn_beyond_an_axis_and_bars_begin_at_zero(specs):
    checked = 0
    for name, spec in specs.items():
        for channel in ("x", "y"):
            for mark, (low, high), values in values_of(spec, channel):
                checked += 1
                slack = 1e-9 * (high - low)
                assert not values or low - slack <= min(values) <= max(values) <= high + slack, (name, channel)
                assert mark != "bar" or low == 0, name
    assert checked > 100


def test_the_axis_of_quality_has_the_range_of_the_curves_and_references_are_a_choice(run, specs):
    def span_of(spec):
        domain = next(charts.scaled(spec, "y"))["scale"]["domain"]
        drawn = [row[end] for row in spec["datasets"]["means"] for end in ("low", "high")]
        return (max(drawn) - min(drawn)) / (domain[1] - domain[0]), domain

    alone, wide = specs["quality_cross_entropy"], specs["quality_cross_entropy_references"]
    assert span_of(alone)[0] > 0.8 > 0.4 > span_of(wide)[0]
    levels = {row["label"]: row["value"] for row in wide["datasets"]["levels"]}
    assert all(span_of(wide)[1][0] < value < span_of(wide)[1][1] for value in levels.values())
    beyond = {label: value for label, value in levels.items() if value > span_of(alone)[1][1]}
    assert beyond and all(f"{label} {value:.4g}" in alone["title"]["subtitle"] for label, value in beyond.items())
    named = [row["population"] for row in alone["datasets"].get("_names of level", [])]
    assert not set(named) & set(beyond)
    assert plain(run_plot(run).quality()) == {k: v for k, v in alone.items() if k != "$schema"}
    assert plain(run_plot(run).quality(references=True)) == {k: v for k, v in wide.items() if k != "$schema"}


def run_plot(run: Run) -> Any:
    return ecosystem.Run(run.path).plot


def test_populations_beyond_the_colours_differ_in_dashes():
    names = [f"p{i}" for i in range(10)]
    frame = pl.DataFrame({"population": names * 2, "step": [0] * 10 + [1] * 10, "value": [float(i) for i in range(20)]})
    frame = frame.with_columns(error=pl.lit(0.1), members=pl.lit(1))
    spec = charts.specification(charts.over_steps(frame, ChartTheme(names, 1), ChartLabels("", "", "")))
    dashes = [layer["encoding"]["strokeDash"] for layer in spec["layer"] if "strokeDash" in layer["encoding"]]
    looks = [(i % 8, tuple(dash)) for i, dash in enumerate(dashes[0]["scale"]["range"])]
    assert len(set(looks)) == 10
    few = charts.specification(charts.over_steps(frame, ChartTheme(names[:8], 1), ChartLabels("", "", "")))
    assert not [layer for layer in few["layer"] if "strokeDash" in layer["encoding"]]


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (set CHROMIUM, or install the package)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, run):
    """Open the report, and check at the end that the browser had nothing to complain about."""
    pages, complaints = [], []

    def page(**options: Any) -> Any:
        pages.append(browser.new_page(**options))
        pages[-1].on("console", lambda message: complaints.append(message.text))
        pages[-1].on("pageerror", lambda error: complaints.append(str(error)))
        pages[-1].goto(f"file://{run.path}/report.html")
        pages[-1].wait_for_selector("html[data-ready=yes]", timeout=60_000)
        return pages[-1]

    yield page
    for one in pages:
        one.close()
    assert not complaints


def test_tab_reaches_every_control_in_order_with_a_visible_focus(opened):
    page = opened(viewport={"width": 1200, "height": 900})
    page.evaluate(
        """(selector) => [...document.querySelectorAll(selector)]
           .filter((one) => one.checkVisibility({ contentVisibilityAuto: true, visibilityProperty: true }))
           .forEach((one, number) => { one.dataset.number = number; })""",
        CONTROLS,
    )
    count = page.evaluate("document.querySelectorAll('[data-number]').length")
    reached = []
    for _ in range(count):
        page.keyboard.press("Tab")
        number, style, outline = page.evaluate(
            """(() => { const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
               return [document.activeElement.dataset.number, outlineStyle, parseFloat(outlineWidth)]; })()"""
        )
        reached.append(number)
        assert style == "solid" and outline >= 2, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
    assert reached == [str(i) for i in range(count)] and count > 80


def test_controls_work_with_the_keyboard(opened, specs):
    page = opened(viewport={"width": 1200, "height": 900})
    shown = "[data-chart]:not([hidden] *)"
    before = page.locator(shown).count()
    page.get_by_role("tab", name="Cross-entropy").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("[data-chart=quality_perplexity][data-drawn=yes] svg")
    assert page.get_by_role("tab", name="Perplexity").get_attribute("aria-selected") == "true"
    box = page.get_by_label("Show all references").locator("visible=true")
    box.focus()
    page.keyboard.press("Space")
    page.wait_for_selector("[data-chart=quality_perplexity_references][data-drawn=yes] svg")
    assert page.locator(shown).count() == before
    assert not page.locator("[data-chart=quality_perplexity]").is_visible()
    summary = page.locator("figure:has([data-chart=refusals]) summary")
    summary.focus()
    page.keyboard.press("Enter")
    button = page.locator("figure:has([data-chart=refusals]) button")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("figure:has([data-chart=refusals]) [role=status]:text-matches('Copied|Selected')")
    assert page.evaluate("getSelection().toString()").endswith('run.plot["refusals"]')
    page.keyboard.press("Control+Home")
    page.locator("a.skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_screen_reader_finds_charts_tables_and_headings(opened, specs):
    page = opened(viewport={"width": 1200, "height": 900})
    for name in ("refusals", "text_distinct_2"):
        text = charts.describe(specs[name])
        assert page.get_by_role("img", name=text, exact=True).count() == 1
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    tables = page.evaluate(
        """[...document.querySelectorAll("table")].map((one) => [one.caption?.textContent ?? "",
           one.querySelectorAll("th:not([scope])").length, one.querySelectorAll("th[scope=row]").length])"""
    )
    assert tables and all(caption not in ("", "Table") and not bare and rows for caption, bare, rows in tables)
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_the_page_gives_the_data_without_its_folder(opened, run, specs, tmp_path):
    page = opened(viewport={"width": 1200, "height": 900})
    for name, spec in specs.items():
        assert rows_of(page.evaluate("(name) => csv(specs[name].datasets)", name)) == rows_of(charts.csv_of(spec)), name
    assert rows_of(page.evaluate("csv", ODD_DATA)) == rows_of(charts.csv_of({"datasets": ODD_DATA}))
    with page.expect_download() as download:
        page.locator("[data-csv=refusals]").click()
    assert download.value.suggested_filename == "refusals.csv"
    download.value.save_as(tmp_path / "refusals.csv")
    assert rows_of((tmp_path / "refusals.csv").read_text()) == rows_of(charts.csv_of(specs["refusals"]))


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_paper_shows_whole_light_charts_and_what_is_folded(opened, mode, tmp_path):
    page = opened(viewport={"width": PAPER, "height": 1000}, color_scheme=mode)
    page.emulate_media(media="print", color_scheme=mode)
    unfolded = page.evaluate("document.querySelectorAll('details.block[open]').length")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-as]')].every((one) => one.dataset.as.startsWith('light ')"
        " && !one.dataset.as.endsWith('container'))"
    )
    page.wait_for_timeout(500)  # the last chart is drawn
    boxes = page.evaluate(
        "[...document.querySelectorAll('.chart svg')].map((one) => one.getBoundingClientRect())"
        ".filter((one) => one.width).map((one) => [one.left, one.right])"
    )
    assert len(boxes) > 15 and all(left >= 0 and right <= PAPER for left, right in boxes)
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER
    cut = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth).length"
    assert page.evaluate(cut) == 0
    assert page.evaluate(BROKEN) == []
    drawn = page.evaluate("[...document.querySelectorAll('.chart svg')].map((one) => one.outerHTML).join('')")
    assert charts.LIGHT.populations[0] in drawn and charts.DARK.populations[0] not in drawn
    assert page.evaluate("getComputedStyle(document.querySelector('figure')).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.querySelectorAll('details.block:not([open])').length") == 0
    assert not page.locator("button, nav, .about").locator("visible=true").count()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelectorAll('details.block[open]').length") == unfolded
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert Path(tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("width", [1400, 500])
def test_no_page_is_wider_than_its_window(opened, width):
    page = opened(viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
