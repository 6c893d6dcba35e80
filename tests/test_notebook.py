"""What notebooks show: cards that escape everything, the charts of the report as Altair objects, tables for pandas."""

from __future__ import annotations

import json
import shutil

import altair as alt
import pandas as pd
import polars as pl
import pytest

import ecosystem
from ecosystem.cards import ROWS, Grid, card
from ecosystem.errors import EcosystemError
from ecosystem.report import charts, run_charts, summaries
from ecosystem.report.data import RunReportData
from ecosystem.report.sections import sections
from tests.invented_runs import invent, scenario

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> ecosystem.Run:
    spec = scenario(steps=6, description=EVIL)
    return ecosystem.Run.open(invent(tmp_path_factory.mktemp("run"), spec, events={2: [EVIL]}).path)


def without_config(chart) -> dict:
    with alt.data_transformers.disable_max_rows():
        return {key: value for key, value in chart.to_dict(validate=False).items() if key not in ("config", "$schema")}


def test_a_card_escapes_all_and_counts_the_rows_that_it_leaves_out():
    html = card(EVIL, EVIL, {EVIL: EVIL, "absent": None}, Grid(EVIL, [EVIL, "n"], [(EVIL, 1.23456)] * (ROWS + 3)))
    assert "<script" not in html and html.count("&lt;script&gt;") == 4 + 2 + ROWS and "absent" not in html
    assert "and 3 more" in html and html.count("1.235") == ROWS


def test_missing_numbers_are_dashes_in_a_column_of_numbers():
    html = card("t", "", {}, Grid("g", ["name", "n"], [("a", 2000), ("b", None)]), Grid("empty", ["x"], []))
    assert html.count("text-align:right") == 3 and "2,000" in html and "–" in html and "empty" not in html


def test_cards_of_a_scenario_and_a_run(run):
    page = run.scenario._repr_html_()
    assert "<script" not in page
    for part in ("naive", "neardup → quality → archive", "minhash_dedup", "barabasi_albert", "3,000 documents of docs"):
        assert part in page
    assert repr(run.scenario) == "<Scenario invented: 6 steps, seed 1, 6 trainers in 3 populations>"
    page = run._repr_html_()
    naive = summaries.means(summaries.members(run.metrics, "cross_entropy")).filter(pl.col("population") == "naive")
    assert "<script" not in page and "&lt;script&gt;" in page and f"{naive['value'][-1]:.4g}" in page
    assert repr(run) == f"<Run {run.path}: step 6 of 6>"


def test_every_chart_of_the_report_is_there_by_name(run):
    data = RunReportData.of(run)
    for section in sections(data).values():
        section(data)
    assert run.plot.names() == list(data.specs) == list(run.plot) and len(run.plot) == len(data.specs) > 15
    for name in ("quality_cross_entropy", "refusals", "vocabulary_kept"):
        spec = {key: value for key, value in data.specs[name].items() if key != "$schema"}
        assert without_config(run.plot[name]) == json.loads(json.dumps(spec))
        assert run.plot[name].to_dict(validate=False)["config"]["background"] == charts.LIGHT.paper
    assert "Refusals by policy and true origin" in run.plot._repr_html_()


@pytest.mark.parametrize(
    ("method", "argument", "name"),
    [
        ("quality", None, "quality_cross_entropy"),
        ("quality", "perplexity", "quality_perplexity"),
        ("quality_change", None, "quality_change"),
        ("contamination", None, "contamination_synthetic_share"),
        ("contamination", "depth", "contamination_depth"),
        ("diversity", None, "text_distinct_2"),
        ("diversity", "self_bleu", "text_self_bleu"),
        ("vocabulary", None, "vocabulary_kept"),
        ("tails", "cross_entropy_synthetic", "cross_entropy_synthetic"),
        ("web", None, "web_000006"),
        ("web", 3, "web_000003"),
    ],
)
def test_methods_draw_the_charts_of_the_report(run, method, argument, name):
    drawn = getattr(run.plot, method)(*([] if argument is None else [argument]))
    assert isinstance(drawn, alt.LayerChart) and without_config(drawn) == without_config(run.plot[name])


def test_dark_charts_have_the_dark_theme_and_light_ones_keep_theirs(run):
    dark = run.plot.dark.quality().to_dict(validate=False)["config"]
    assert dark["background"] == charts.DARK.paper and dark["range"]["category"] == list(charts.DARK.populations)
    assert run.plot.quality().to_dict(validate=False)["config"]["background"] == charts.LIGHT.paper


def test_a_chart_is_drawn_as_a_picture_by_altair(run, tmp_path):
    run.plot.quality().save(tmp_path / "quality.svg")
    picture = (tmp_path / "quality.svg").read_text()
    assert "naive" in picture and charts.LIGHT.populations[0] in picture  # the colour of the first population


def test_any_metric_of_trainers_training_sets_and_the_web(run):
    def ends(chart, dataset):
        rows = chart.to_dict(validate=False)["datasets"][dataset]
        return {row.get("population", row.get("label")): row["value"] for row in rows}

    last = run.metrics.filter((pl.col("step") == 6) & (pl.col("metric") == "mean_words"))
    means = last.group_by(pl.col("id").str.split("/").list.first()).agg(pl.col("value").mean())
    assert ends(run.plot.metric("mean_words"), "means") == pytest.approx(dict(means.iter_rows()))
    web = run.metrics.filter((pl.col("scope") == "web") & (pl.col("metric") == "documents"))["value"]
    assert ends(run.plot.metric("documents", "web"), "web") == {"web": web[-1]}
    assert set(ends(run.plot.metric("depth", "training_set"), "means")) == {"naive", "filtered", "anchored"}


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda plot: plot["refusal"], 'there is no chart "refusal" (did you mean "refusals"?); this report has'),
        (lambda plot: plot.quality("perplexty"), '"perplexty" here (did you mean "perplexity"?); choose from cross'),
        (lambda plot: plot.quality("excess_nats"), "excess_nats was not measured, so there is no chart of it"),
        (lambda plot: plot.metric("no_such"), 'there is no metric "no_such" here'),
        (lambda plot: plot.metric("depth", "site"), 'there is no scope "site" here'),
        (lambda plot: plot.metric("radioactivity_z"), "radioactivity_z of scope trainer was not measured"),
        (lambda plot: plot.web(2), "step 2: the web is drawn after steps 0, 3, 6 only"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_there_is(run, draw, words):
    with pytest.raises(EcosystemError) as refused:
        draw(run.plot)
    assert words in str(refused.value)


def test_charts_follow_a_run_that_grows(tmp_path):
    spec = scenario(steps=6)
    run = ecosystem.Run.open(invent(tmp_path, spec, last=2).path)
    before = run.plot.names()
    assert run_charts.quality(run.plot._data, "cross_entropy").tables["means"]["step"].max() == 2
    shutil.rmtree(tmp_path)
    invent(tmp_path, spec, last=5)
    assert run_charts.quality(run.plot._data, "cross_entropy").tables["means"]["step"].max() == 5
    assert "web_000005" in run.plot.names() and "web_000005" not in before


def test_tables_for_pandas(run):
    metrics = run.to_pandas()
    assert isinstance(metrics, pd.DataFrame) and len(metrics) == run.metrics.height
    assert list(metrics.columns) == run.metrics.columns
    assert metrics["value"].sum() == pytest.approx(run.metrics["value"].sum())
    documents = run.to_pandas("documents")
    assert documents["content"].tolist() == run.documents.collect()["content"].to_list()
    assert run.to_pandas("events").to_dict("records") == [{"step": 2, "event": EVIL}]
    assert len(run.to_pandas("ledger")) == 0 and "verdict" in run.to_pandas("ledger").columns
    with pytest.raises(
        EcosystemError, match=r'no table "document" \(did you mean "documents"\?\); choose from metrics'
    ):
        run.to_pandas("document")


@pytest.mark.slow
def test_a_card_of_a_world_computes_nothing(cache):
    spec = ecosystem.Scenario.load("scenarios/policy_web.toml").override({"web.initial.documents": 200, "steps": 2})
    world = ecosystem.World(spec, cache=cache)
    assert "cross_entropy" not in world._repr_html_() and not world.measured  # the opening is not measured for it
    world.step()
    page = world._repr_html_()
    assert f"{world.measured['trainer', 'labs/0', 'cross_entropy']:.4g}" in page and "1 of 2" in page
    assert repr(world) == "<World policy-web: step 1 of 2, 4 trainers>"
