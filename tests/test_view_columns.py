"""Columns of documents and of the ledger against each other; addresses and panels of the page, without a browser."""

import polars as pl
import pytest

pytest.importorskip("solara", reason="the extra view is not installed")

from ecosystem.app.address import Address, turned
from ecosystem.app.chart_panels import choices_of, chosen_metrics, panels_of, wrong_measures
from ecosystem.app.charts import world_charts
from ecosystem.app.charts.columns import MARKS, NONE, POINTS, Choice, drawn, marks_for
from ecosystem.app.charts.tables import DOCUMENTS, LEDGER, Tables
from ecosystem.app.explorer import wrong_columns
from ecosystem.app.knobs import has_effect, knobs_of
from ecosystem.app.worlds.run_view import RunView
from ecosystem.app.worlds.session_model import SessionConfig, SessionModel
from tests.conftest import MACHINE
from tests.test_branch import ran
from tests.test_session_model import STEPS, scenario


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of n-grams in which a policy refuses candidates and documents leave the web."""
    return ran(scenario(), tmp_path_factory.mktemp("columns"))


@pytest.fixture(scope="module")
def tables(run):
    return Tables(RunView(run))


def values(tables, choice, step=STEPS):
    """Return what a chart draws, as a table."""
    return pl.DataFrame(drawn(tables, choice, step).at(step).columns["rows"])


def test_every_column_is_drawn_against_every_other(tables):
    for table in (DOCUMENTS, LEDGER):
        offered = [*tables.offered(table)]
        for x, y in zip(offered, [*offered[3:], *offered[:3]], strict=True):
            for mark in marks_for(tables, table, x, y):
                chart = drawn(tables, Choice(table, x, y, "depth", mark), STEPS)
                assert chart is None or chart.texts  # JSON


def test_rows_are_those_of_the_run_as_they_were_after_the_step(run, tables):
    documents, ledger = run.documents.collect(), run.ledger.collect()
    for step in (1, STEPS):
        counted = values(tables, Choice(DOCUMENTS, "status", "origin", NONE, "heat map"), step)
        there = documents.filter(pl.col("t") <= step)
        refused, gone = pl.col("verdict").is_not_null(), (pl.col("retired_at") <= step).fill_null(value=False)
        status = (
            pl.when(refused).then(pl.lit("refused")).when(gone).then(pl.lit("gone")).otherwise(pl.lit("on the web"))
        )
        expected = there.group_by(status.alias("x"), pl.col("synthetic").alias("y")).len()
        found = counted.select("x", (pl.col("y") == "synthetic").alias("y"), pl.col("n").alias("len"))
        assert sorted(found.rows()) == sorted(expected.rows())
    counted = values(tables, Choice(LEDGER, "verdict", "reader", NONE, "heat map"))
    expected = ledger.group_by(pl.col("verdict").fill_null("kept"), "reader").len()
    assert sorted(counted.select("x", "y", "n").rows()) == sorted(expected.rows())


def test_boxes_have_the_quantiles_of_the_documents_of_candidates(run, tables):
    boxes = values(tables, Choice(LEDGER, "verdict", "words", NONE, "boxes"))
    words = run.documents.select(document="doc", words="words")
    web = run.ledger.filter(pl.col("source").is_null()).join(words, on="document").collect()
    expected = web.group_by(pl.col("verdict").fill_null("kept")).agg(pl.col("words").median(), pl.len())
    assert sorted(boxes.select("x", "middle", "n").rows()) == sorted(expected.rows())


def test_a_heat_map_counts_every_row_once_and_points_are_a_stated_sample(tables):
    rows = tables.rows(DOCUMENTS, ["words"], STEPS).height
    counted = values(tables, Choice(DOCUMENTS, "words", "mean_word_length", NONE, "heat map"))
    assert counted["n"].sum() == rows
    many = Tables(tables.view)
    many.rows = lambda table, names, step: pl.DataFrame({name: range(3 * POINTS) for name in names})
    chart = drawn(many, Choice(DOCUMENTS, "words", "size", NONE, "points"), STEPS)
    frame = chart.at(STEPS)
    assert len(frame.columns["rows"]["x"]) == POINTS
    assert frame.below == f"{POINTS:,} of {3 * POINTS:,} documents, drawn at random"


def test_marks_suit_their_columns(tables):
    assert marks_for(tables, DOCUMENTS, "words", "depth") == list(MARKS)
    assert "boxes" not in marks_for(tables, DOCUMENTS, "origin", "population")
    assert marks_for(tables, LEDGER, "verdict", "depth")[0] == "boxes"


@pytest.fixture
def session(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(cache))
    config = SessionConfig((), scenario(), tmp_path, MACHINE, tmp_path)
    made = type("Linked", (SessionModel,), {"config": config, "news": staticmethod(lambda: None)})()
    yield made
    made.close()


def test_an_address_sets_the_step_the_seed_and_knobs_and_nothing_else(session):
    number = next(n for n, knob in session.knobs.items() if knob.path == "trainers.naive.publish").removeprefix("knob_")
    address = Address.read(f"step=2&turn=2:{number}:3&turn=9:{number}:3&turn=1:{number}:999&turn=x&panel=web&models=x")
    address.enter(session)
    live_run = session.live_runs[0]
    assert live_run.target == 2 and live_run.scenario.at(2).value("trainers.naive.publish") == 3
    assert turned(session) == [f"2:{number}:3"]
    query = address.query(session)
    assert query == f"step=2&turn=2:{number}:3"
    assert len(address.problems) == 4  # of which one names the unknown key
    for told in ("9:", "1:", "(x)", '"models"'):
        assert any(told in problem for problem in address.problems)


def test_an_address_may_hold_anything():
    for text in (
        "step=²",
        "step=-1&step=1e9",
        "%00=%ff&=&&&",
        "scene=x&story=<b>",
        "a=1&" * 9000,
        "colour=" + "x" * 999,
    ):
        address = Address.read(text)
        assert all(len(value) <= 200 for value in address.values.value.values()) and len(address.problems) <= 5
    assert Address.read("story=mine", {"mine": 1})["story"] == "mine"


def test_a_scene_that_a_story_does_not_have_is_reported():
    for scene in ("0000019", "99", "-1", "0", "²"):
        address = Address.read(f"scene={scene}", {"mine": 3, "other": 20})
        assert address.values.value == {}
        assert address.problems == [f'The address names scene "{scene}"; the story mine has scenes 1 to 3.']
    assert Address.read("scene=003&story=mine", {"other": 1, "mine": 3})["scene"] == "3"
    assert "this page has no stories" in Address.read("scene=1").problems[0]
    assert Address.read("a=1&b=2&c=3&d=4").problems[0].startswith('The address has "a", "b", "c" and 1 more, which are')


def test_what_an_address_names_wrongly_is_reported(run):
    view = RunView(run)
    told = list(wrong_columns(view, Address.read("table=x&x=word&y=words&colour=zz&mark=heat")))
    assert [sentence.split('"')[1] for sentence in told] == ["x", "word", "zz", "heat"]
    assert 'did you mean "words"' in told[1]
    assert not list(wrong_columns(view, Address.read("table=ledger&x=verdict&colour=nothing&mark=boxes")))
    choices = choices_of([view])
    assert not list(wrong_measures(choices, {"quality": "cross_entropy"}, growing=False))
    (sentence,) = wrong_measures(choices, {"quality": "cross_entrop"}, growing=True)
    assert '"cross_entrop", which is not shown here (did you mean "cross_entropy"?)' in sentence
    assert len(list(wrong_measures(choices, {"quality": "variance"}, growing=False))) == 1


def test_knobs_of_policies_that_no_gate_has_are_hidden():
    spec = scenario()
    knobs = [
        {"path": "policies.short.min_words", "low": 0, "high": 9},
        {"path": "trainers.naive.publish", "low": 0, "high": 9},
    ]
    spec = spec.override({"knobs": knobs})
    without = spec.override({"trainers.careful.select": ["neardup"]})
    for each, expected in ((spec, [True, True]), (without, [False, True])):
        assert [has_effect(knob, each) for knob in knobs_of(each).values()] == expected


def test_panels_of_a_world_are_those_that_it_can_fill(run):
    view = RunView(run)

    def names(**changes):
        view.scenario = run.scenario.override(changes) if changes else run.scenario
        return [name for name, *_ in panels_of([view], chosen_metrics(choices_of([view]), {}))]

    assert names() == ["web", "contamination", "quality", "diversity", "ledger"]
    observed = {"observes": "flagged_share", "of": "live", "sample": 20}
    assert names(**{"instruments.detector": observed})[-1] == "instruments"


def test_an_instrument_is_drawn_beside_the_truth(tmp_path):
    observed = {"observes": "flagged_share", "of": "live", "sample": 20, "false_positive_rate": 0.1}
    view = RunView(ran(scenario().override({"instruments.detector": observed, "steps": 2}), tmp_path))
    chart = world_charts.ChartSet([view]).charts(world_charts.instrument, "detector")[0]
    assert chart.at(2).title == "detector: share flagged as machine text"
    assert "false positives 0.1" in chart.at(2).below and "true value" in chart.texts[1]
