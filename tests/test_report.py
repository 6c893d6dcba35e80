"""The report: true sentences, whole charts, and no way for text to become code or to reach the network."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import polars as pl
import pytest

from ecosystem.corpus.schema import METRICS
from ecosystem.report import charts, findings, html, summaries, tables, write_report
from ecosystem.report.charts import ChartLabels, ChartTheme
from ecosystem.report.closed_forms import Agreement
from ecosystem.report.panels import site_map
from ecosystem.runs.run import Run
from tests.invented_runs import POPULATIONS, invent, scenario

NASTY = [
    "<script>document.title = 'stolen'</script>",
    "</script><script>document.title = 'stolen'</script>",
    "<img src=http://evil.example/x.png onerror=\"document.title='stolen'\">",
    "{{7*7}} ${x} $title **bold** [link](http://evil.example/) <!-- ",
    "</pre></div></main><style>*{display:none}</style>",
    "x" * 10_000,
    "\x00\x01\x1b[31m\x7f\x85 bell \x07",
    "مرحبا \u202eevil\u202c בדיקה",
    "😀 漢字 \U0001f469\u200d\U0001f467",
    "",
    "  \n \n",
    "line\n" * 60,
]


def nasty(author: str, step: int, number: int) -> str:
    """Every nasty text at some place where the report shows one: steps 1, 5 and 10."""
    authors = ["initial", *(f"{population}/{i}" for population in POPULATIONS for i in range(2))]
    return NASTY[(authors.index(author) + {1: 0, 5: 6, 10: 12}.get(step, 0) + number) % len(NASTY)]


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, scripts, and the text that can be read."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)
            if tag == "script":
                self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data):
        if self.inside and self.inside[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif not self.inside:
            self.text += data

    def json(self, name: str):
        return json.loads(next(body for attrs, body in self.scripts if attrs.get("id") == name))


def read(run: Run) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def svg_of(found: Page, name: str) -> str:
    """Render a chart as the page has it, at a fixed width."""
    import vl_convert

    return vl_convert.vegalite_to_svg(found.json("specs")[name] | {"width": 600, "autosize": "pad"})


@pytest.fixture
def unrendered(monkeypatch):
    """Charts as specifications only: rendering is most of a report's time, and tested elsewhere."""
    monkeypatch.setattr(charts, "pictures", lambda spec: (b"<svg/>", b"png"))


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> tuple[Run, Page]:
    """A run with every sort of measurement and nasty texts, and its report."""
    spec = scenario(changes=[{"at": 6, "set": {"policies.archive.fraction": 0.5}}])
    events = {3: ["the source docs has run dry"], 4: ["naive/0 wrote <b>nothing</b>"]}
    run = invent(tmp_path_factory.mktemp("report"), spec, text=nasty, events=events)
    return run, read(run)


# Safety


@pytest.mark.slow
def test_no_text_becomes_markup(told):
    """Everything the page consists of comes from us: no element, attribute or script stems from a document."""
    _, found = told
    tags = {tag for tag, _ in found.elements}
    assert "img" not in tags and "iframe" not in tags and "link" not in tags
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert len(found.scripts) == 4
    assert sum(tag == "style" for tag, _ in found.elements) == 1


@pytest.mark.slow
def test_texts_are_shown_as_they_are(told):
    _, found = told
    assert "<script>document.title = 'stolen'</script>" in found.text
    assert "{{7*7}} ${x} $title **bold** [link](http://evil.example/) <!-- " in found.text
    assert "naive/0 wrote <b>nothing</b>" in found.text
    assert "␀␁␛[31m␡\ufffd bell ␇" in found.text
    assert "An empty document." in found.text
    assert "4,000 more characters" in found.text  # of 10,000


@pytest.mark.slow
def test_nothing_is_loaded_from_anywhere(told):
    run, found = told
    for tag, attributes in found.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset", "background"):
            target = attributes.get(name) or ""
            assert re.fullmatch(r"(#[a-z]+|charts/[\w-]*\.?(svg|png|csv)?)?", target), (tag, name, target)
            if target.startswith("charts/") and target != "charts/":
                assert (run.path / target).is_file()
    style = re.search(r"<style>(.*?)</style>", (run.path / "report.html").read_text(), re.S).group(1)
    assert "url(" not in style and "@import" not in style
    specs = json.dumps(found.json("specs"))
    assert "http" not in re.sub(r"https://vega\.github\.io/schema/[\w./-]+", "", specs)
    assert '"url"' not in specs


@pytest.mark.slow
def test_the_policy_forbids_the_network_and_foreign_scripts(told):
    _, found = told
    policy = next(a["content"] for _, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = policy.split("script-src")[1].split(";")[0]
    assert "unsafe" not in scripts and "http" not in policy
    ours = [body for attributes, body in found.scripts if "type" not in attributes]
    assert [html._hash(body) in scripts for body in ours] == [True, True]


@pytest.mark.parametrize("text", NASTY)
def test_embedded_data_cannot_close_its_script(text):
    data = {"text": text, text[:20]: [text, 1.5]}
    embedded = html.embed(data)
    assert not set("<>&\u2028\u2029") & set(embedded)
    assert json.loads(embedded) == data


def test_escaping_leaves_no_markup():
    template = html.PAGES.from_string("{{ text }}")
    for text in NASTY:
        assert not set('<>"') & set(template.render(text=text))
    macros = html.PAGES.get_template("macros.html").module
    assert macros.prose("**naive** <b>") == "<b>naive</b> &lt;b&gt;"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed: apt-get install chromium")
def test_a_browser_draws_every_chart_and_asks_for_nothing(told, tmp_path):
    run, found = told
    quiet = "--no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-gpu"
    command = ["chromium", "--headless", "--no-sandbox", *quiet.split(), f"--user-data-dir={tmp_path}"]
    command += [
        "--virtual-time-budget=20000",
        "--enable-logging=stderr",
        "--dump-dom",
        f"file://{run.path}/report.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "violates the following Content Security Policy" not in done.stderr
    assert 'data-ready="yes"' in done.stdout and 'data-drawn="failed"' not in done.stdout
    drawn = set(re.findall(r'data-chart="([\w-]+)"[^>]*data-drawn="yes"', done.stdout))
    hidden = {"quality_perplexity", "quality_bits_per_byte"}  # drawn when their tab is opened
    chosen = {name for name in found.json("specs") if name.endswith("_references")}  # drawn when their box is ticked
    assert drawn == set(found.json("specs")) - hidden - chosen
    assert "<title>invented, seed 1</title>" in done.stdout
    assert "evil.example" not in "".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


# Charts


def test_every_chart_is_written_as_svg_and_png(told):
    run, found = told
    names = set(found.json("specs"))
    expected = "quality_cross_entropy quality_perplexity quality_bits_per_byte quality_change contamination_depth "
    expected += "contamination_synthetic_share text_distinct_2 text_self_bleu text_entropy text_compression_ratio "
    expected += "text_zipf_exponent vocabulary_kept cross_entropy_rare cross_entropy_frequent refusals detections "
    expected += "web_000000 web_000005 web_000010"
    assert names >= set(expected.split())
    for name in names:
        assert (run.path / f"charts/{name}.svg").read_bytes().startswith(b"<svg")
        assert (run.path / f"charts/{name}.png").read_bytes().startswith(b"\x89PNG")
    svg = (run.path / "charts/quality_cross_entropy.svg").read_text()
    assert all(word in svg for word in ("naive", "filtered", "anchored", "randomly initialised", "unigram model"))
    assert "policies.archive.fraction = 0.5" in svg  # the timed change


def test_a_population_has_one_colour_everywhere(told):
    run, _ = told
    colours = charts.LIGHT.populations
    for name in ("quality_cross_entropy", "text_distinct_2", "contamination_depth", "vocabulary_kept"):
        svg = (run.path / f"charts/{name}.svg").read_text()
        for population, colour in zip(POPULATIONS, colours, strict=False):
            assert re.search(rf'<text[^>]*fill="{colour}"[^>]*>{population}</text>', svg), (name, population)
    style = (run.path / "report.html").read_text()
    assert f".p0{{--hue:{colours[0]}}}.p1{{--hue:{colours[1]}}}" in style


def test_names_beside_lines_do_not_lie_on_one_another():
    from ecosystem.report.charts.axes import spread

    placed = spread([1.0, 1.01, 0.99, 5.0, 1.0], [0.0, 6.0], 230, log=False)
    assert all(b - a >= 14 * 6 / 230 * 0.999 for a, b in pairwise(sorted(placed)))
    assert placed[2] < placed[0] < placed[1] < placed[3]
    assert placed[3] == pytest.approx(5.0)
    assert spread([10.0, 1000.0], [1.0, 1e4], 100, log=True) == pytest.approx([10.0, 1000.0])


@pytest.mark.parametrize("scheme", [charts.LIGHT, charts.DARK])
def test_a_chart_of_one_point_renders_in_both_modes(scheme):
    frame = pl.DataFrame({"population": ["a"], "step": [0], "value": [2.0], "error": [None], "members": [1]})
    frame = frame.with_columns(pl.col("error").cast(pl.Float64))
    chart = charts.over_steps(frame, ChartTheme(["a"], 0), ChartLabels("One", "point", "nats"))
    svg, png = charts.pictures(charts.specification(chart), scheme)
    assert scheme.populations[0] in svg.decode() and len(png) > 1000


def test_the_layout_is_legible_and_repeatable():
    import networkx as nx
    import numpy as np

    for graph in (nx.barabasi_albert_graph(20, 2, seed=3), nx.empty_graph(30), nx.complete_graph(2), nx.path_graph(1)):
        places = site_map.layout(graph)
        assert places.shape == (graph.number_of_nodes(), 2) and np.isfinite(places).all()
        assert (places == site_map.layout(graph)).all()
        assert places.min() >= -0.03 and places.max() <= 1.03
        apart = np.linalg.norm(places[:, None] - places, axis=2) + np.eye(len(places))
        assert apart.min() > 0.005


# Odd runs


def unknown_errors(metrics: pl.DataFrame) -> pl.DataFrame:
    return metrics.with_columns(error=pl.lit(None, pl.Float64))


def infinite_perplexity(metrics: pl.DataFrame) -> pl.DataFrame:
    return metrics.with_columns(value=pl.when(pl.col("metric") == "perplexity").then(math.inf).otherwise("value"))


ODD = {
    "unfinished": ({}, {"last": 2}),
    "only the opening": ({}, {"last": 0}),
    "one step": ({"steps": 1}, {}),
    "one trainer, no curators": ({"populations": {"solo": []}, "members": 1, "curators": False}, {}),
    "nobody": ({"populations": {}, "curators": False}, {}),
    "nothing measured, no graph": ({}, {"metrics": pl.DataFrame.clear, "graph": False}),
    "no standard errors": ({}, {"metrics": unknown_errors}),
    "infinite": ({}, {"metrics": infinite_perplexity}),
    "no values": ({}, {"metrics": lambda metrics: metrics.with_columns(value=pl.lit(None, pl.Float64))}),
    "few sites": ({"sites": 3}, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ODD)
def test_an_odd_run_has_a_report_too(tmp_path, case, unrendered):
    spec, made = ODD[case]
    run = invent(tmp_path, scenario(**{"steps": 3, "sites": 8, **spec}), **made)
    found = read(run)
    assert all(title in found.text for title in ("Findings", "Ledger", "How to reproduce it"))
    assert "nan" not in re.findall(r"[a-z]+", found.text.lower())
    if case in ("unfinished", "only the opening"):
        assert ("2 of 3 steps are committed" if case == "unfinished" else "Only step 0") in found.text
    if case == "nothing measured, no graph":
        assert "Not measured in this run: quality on held-out human text" in found.text
        assert found.json("specs") == {}
    if case == "no standard errors":
        assert "its standard error is unknown" not in found.text  # members differ, which is an error too
    if case == "infinite":
        assert "quality_perplexity" not in found.json("specs") and "quality_cross_entropy" in found.json("specs")


@pytest.mark.slow
def test_many_populations_stay_legible(tmp_path, unrendered):
    crowd = {f"p{i:02d}": ["quality"] for i in range(50)}
    drift = {name: i / 50 for i, name in enumerate(crowd)}
    found = read(invent(tmp_path, scenario(crowd, members=1, steps=2, sites=8), drift=drift))
    labels = re.findall(r">(p\d\d)</text>", svg_of(found, "quality_cross_entropy"))
    assert sorted(set(labels)) == ["p00", "p01", "p02", "p47", "p48", "p49"]
    assert "and 42 more" in found.text and "42 more populations" in found.text
    assert found.text.count("nats per token on held-out human text (") <= 4


def test_a_report_can_be_written_again(told, unrendered, tmp_path):
    run = Run.open(shutil.copytree(told[0].path, tmp_path.joinpath(*told[0].path.parts[-2:])))
    before = (run.path / "report.html").read_bytes()
    assert write_report(run).read_bytes() == before


def test_how_to_reproduce(told):
    run, found = told
    assert "ecosystem run scenario.toml --device cpu --threads 2" in found.text
    assert run.scenario.to_toml().splitlines()[0] in found.text
    assert re.search(r"torch\s*2\.13\.0", found.text) and "Step 3: the source docs has run dry" in found.text


# Findings


def table(*rows: tuple[int, str, str, str, float, float | None]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=METRICS, orient="row")


def quality(population: str, first: float, last: float, error: float = 0.02) -> list:
    return [
        (1, "trainer", f"{population}/0", "cross_entropy", first, error),
        (5, "trainer", f"{population}/0", "cross_entropy", last, error),
    ]


RANDOM = (0, "reference", "m/random", "cross_entropy", 7.0, 0.01)


def sentences(*rows) -> list[str]:
    found = summaries.outcomes(table(*rows), {"up": "m", "down": "m", "flat": "m"}, {})
    return findings.quality(found)


def test_degraded_improved_and_unchanged_are_told_apart():
    told = sentences(RANDOM, *quality("up", 4.0, 4.6), *quality("down", 4.0, 3.7), *quality("flat", 4.0, 4.05))
    nbsp = "\u00a0"
    assert told == [
        f"Population **up** degraded by 0.60{nbsp}±{nbsp}0.03 nats per token on held-out human text (4.00 → 4.60), "
        f"20{nbsp}% of the way to the randomly initialised model.",
        f"Population **flat** shows no measurable change (+0.05{nbsp}±{nbsp}0.03 nats per token, 4.00 → 4.05).",
        f"Population **down** improved by 0.30{nbsp}±{nbsp}0.03 nats per token on held-out human text (4.00 → 3.70).",
    ]


def test_a_trainer_starts_from_the_weights_it_was_given():
    rows = [RANDOM, (0, "reference", "m/initial", "cross_entropy", 3.0, 0.02), *quality("up", 4.0, 5.0)]
    [given] = summaries.outcomes(table(*rows), {"up": "m"}, {"up": "m"})
    [anew] = summaries.outcomes(table(*rows), {"up": "m"}, {})
    assert (given.first_step, given.before, given.change) == (0, 3.0, 2.0)
    assert given.towards_random == pytest.approx(0.5)
    assert (anew.first_step, anew.before, anew.change) == (1, 4.0, 1.0)
    at_random = [r if r[2] != "m/initial" else (*r[:4], 6.99, 0.02) for r in rows]
    [born] = summaries.outcomes(table(*at_random), {"up": "m"}, {"up": "m"})
    assert (born.first_step, born.change) == (1, 1.0)  # random weights are no start to degrade from


def test_a_paired_difference_is_preferred():
    rows = [RANDOM, (0, "reference", "m/initial", "cross_entropy", 4.0, 0.05), *quality("up", 4.02, 4.04, 0.05)]
    rows += [(5, "trainer", "up/0", "cross_entropy_change", 0.04, 0.004)]
    [outcome] = summaries.outcomes(table(*rows), {"up": "m"}, {"up": "m"})
    assert (outcome.change, outcome.error, outcome.verdict) == (0.04, 0.004, "degraded")
    assert "by 0.040\u00a0±\u00a00.004 nats" in findings.quality([outcome])[0]
    [anew] = summaries.outcomes(table(*rows), {"up": "m"}, {})  # it never had those weights
    assert anew.change == pytest.approx(0.02)


def test_a_population_is_the_mean_of_its_members_with_the_larger_error():
    rows = [(1, "trainer", f"a/{i}", "cross_entropy", v, 0.01) for i, v in enumerate((4.0, 4.4))]
    rows += [(1, "trainer", f"b/{i}", "cross_entropy", 5.0, 0.3) for i in range(3)]
    means = summaries.means(summaries.members(table(*rows), "cross_entropy"))
    assert means.rows() == [("a", 1, pytest.approx(4.2), pytest.approx(0.2), 2), ("b", 1, 5.0, pytest.approx(0.3), 3)]


def test_one_measurement_is_no_change():
    told = sentences(RANDOM, *quality("up", 4.0, 4.6), (1, "trainer", "down/0", "cross_entropy", 4.0, 0.1))
    assert "**down** is unknown" in told[-1] and "one step" in told[-1]
    unknown = sentences(*[(*row[:5], None) for row in quality("up", 4.0, 4.6)])
    assert unknown == [
        "Population **up** changed by +0.60 nats per token (4.00 → 4.60); its standard error is unknown."
    ]


def test_contamination_is_told_with_its_direction():
    def web(first: float, last: float) -> pl.DataFrame:
        rows = [(0, "web", "web", "synthetic_share", first, None), (4, "web", "web", "synthetic_share", last, None)]
        rows += [(4, "web", "web", "depth", 2.5, None), (4, "training_set", "a/0", "synthetic_share", 0.25, None)]
        return table(*rows, (4, "training_set", "b/0", "synthetic_share", 0.75, None))

    nbsp = "\u00a0"
    of_web, of_sets = findings.contamination(web(0, 0.8), ["a", "b"])
    assert of_web.startswith("Between steps 0 and 4") and f"rose from 0{nbsp}% to 80{nbsp}%" in of_web
    assert "2.5 model hops from human data" in of_web
    assert of_sets.endswith(f": 25{nbsp}% for population **a** and 75{nbsp}% for population **b**.")
    assert f"fell from 80{nbsp}% to 12{nbsp}%" in findings.contamination(web(0.8, 0.12), [])[0]
    assert f"stayed at 50{nbsp}%" in findings.contamination(web(0.5, 0.5), [])[0]


def test_refusals_keep_human_and_synthetic_apart():
    counts = {"kept_human": 90, "refused_human": 10, "kept_synthetic": 20, "refused_synthetic": 60}
    rows = [
        (t, "policy", f"a/{i}/quality", m, float(n), None) for t in (1, 2) for i in (0, 1) for m, n in counts.items()
    ]
    rows += [(1, "curator", "editors/0", m, n, None) for m, n in (("reviewed_human", 20.0), ("suspect_human", 1.0))]
    rows += [
        (1, "curator", "editors/0", m, n, None) for m, n in (("reviewed_synthetic", 50.0), ("suspect_synthetic", 40.0))
    ]
    nbsp = "\u00a0"
    refused, suspected = findings.refusals(table(*rows))
    assert "**quality** refused" in refused and "**editors** suspected" in suspected
    assert refused.endswith(f"10{nbsp}% of the 400 human documents and 75{nbsp}% of the 320 synthetic documents.")
    assert suspected.endswith(f"5.0{nbsp}% of the 20 human documents and 80{nbsp}% of the 50 synthetic documents.")
    rates = summaries.refusals(table(*rows))
    assert rates.filter(pl.col("origin") == "human").row(0) == (
        "a",
        "quality",
        "human",
        40,
        400,
        0.1,
        pytest.approx(0.015),
    )


def test_diversity_is_told_against_human_text():
    rows = [(0, "reference", "human", "distinct_2", 0.8, 0.01)]
    rows += [(t, "trainer", "a/0", "distinct_2", v, 0.01) for t, v in ((1, 0.7), (5, 0.4))]
    rows += [(t, "trainer", "b/0", "distinct_2", v, 0.01) for t, v in ((1, 0.7), (5, 0.71))]
    [told] = findings.diversity(table(*rows), ["a", "b"])
    nbsp = "\u00a0"
    assert "(human text: 0.80)" in told
    assert f"**a** fell from 0.70 to 0.40{nbsp}±{nbsp}0.01" in told
    assert f"**b** did not change measurably (0.71{nbsp}±{nbsp}0.01)" in told


def test_a_level_has_the_digits_of_what_it_became():
    rows = [(t, "trainer", "a/0", "distinct_2", v, 0.002) for t, v in ((1, 0.7), (5, 0.4))]
    nbsp = "\u00a0"
    assert f"fell from 0.700 to 0.400{nbsp}±{nbsp}0.002" in findings.diversity(table(*rows), ["a"])[0]


def test_a_share_of_none_or_all_has_no_error():
    """The spread of a sample without any refusal is 0, which does not mean that the rate is known exactly."""
    counts = {"kept_human": 9, "refused_human": 0, "kept_synthetic": 1, "refused_synthetic": 0}
    rows = [(1, "policy", "a/0/idle", m, float(n), None) for m, n in counts.items()]
    rates = summaries.refusals(table(*rows)).with_columns(row="what")
    nbsp = "\u00a0"
    body = tables.counts_table(rates, ("policy", "refused", "evaluated")).rows
    assert body == [["idle", "0", "9", f"0{nbsp}%", "0", "1", f"0{nbsp}%"]]
    assert findings.share(0.033, 0.011) == f"3.3{nbsp}% ± 1.1"
    assert findings.share(0.00012, 0.00003) == f"0.012{nbsp}% ± 0.003"
    assert findings.share(1.0, 0.0) == f"100{nbsp}%" and findings.share(0.5, None) == f"50{nbsp}%"
    suspected = [("reviewed_human", 1.0), ("suspect_human", 1.0)]
    [sentence] = findings.refusals(table(*[(1, "curator", "editors/0", m, n, None) for m, n in suspected]))
    assert sentence.endswith(f"100{nbsp}% of the 1 human document.")


def test_agreement_with_closed_forms_is_told_in_the_right_number():
    def told(*simulated: float) -> str:
        return findings.agreement([Agreement("a", "variance", 4, value, 0.1, 1.0) for value in simulated])[0]

    assert told(1.1).startswith("At the last step, the closed form lies within two standard errors")
    assert told(2.0).startswith("At the last step, the closed form does not lie within two standard errors")
    assert "1 of 2 closed forms lies within" in told(1.1, 2.0) and "; outside: variance of **a**" in told(1.1, 2.0)
    assert "2 of 2 closed forms lie within" in told(1.1, 0.9) and "0 of 2 closed forms lie" in told(9.0, 9.0)


def test_numbers_are_written_for_readers():
    assert [findings.percent(v) for v in (0, 0.004, 0.1, 0.5, 0.999, 1)] == [
        f"{n}\u00a0%" for n in ("0", "0.4", "10", "50", "99.9", "100")
    ]
    assert findings.signed(-0.5) == "−0.50" and findings.number(-1234.5, 1) == "−1,234.5"
    assert findings.listed(["a", "b", "c"]) == "a, b and c" and findings.listed([]) == ""
