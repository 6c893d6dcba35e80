"""What the page shows of stored worlds: one step at a time, on the same scales side by side, and as an animation."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest

pytest.importorskip("solara", reason="the extra view is not installed")

from PIL import Image

from ecosystem.app.charts import world_charts
from ecosystem.app.charts.animation import animation, frames
from ecosystem.app.charts.live_charts import NOW, FrameData, LiveChart, on_common_scales
from ecosystem.app.charts.world_charts import ChartSet
from ecosystem.app.differences import differences
from ecosystem.app.worlds.run_view import RunView
from ecosystem.app.worlds.session_model import SessionConfig, SessionModel
from ecosystem.report import charts
from ecosystem.report.charts import DARK
from tests.invented_runs import invent, scenario


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """Two worlds, of four and of six steps, in the second of which everything is worse."""
    short = invent(tmp_path_factory.mktemp("short"), scenario(steps=4, sites=8))
    long = invent(tmp_path_factory.mktemp("long"), scenario(steps=6, sites=8), drift=dict.fromkeys(("naive",), 3.0))
    return RunView(short), RunView(long)


def _domains(chart: LiveChart, channel: str) -> set[tuple]:
    return {tuple(c["scale"]["domain"]) for c in charts.scaled(chart.spec, channel)}


@pytest.mark.slow
def test_only_data_change_from_step_to_step(views):
    chart_set = ChartSet(views[:1])
    chart = chart_set.charts(world_charts.quality, "cross_entropy")[0]
    assert chart is chart_set.charts(world_charts.quality, "cross_entropy")[0]
    assert [chart.at(step).columns[NOW]["step"] for step in (0, 3, 4)] == [[0], [3], []]
    rules = [layer for layer in chart.spec["layer"] if layer.get("data") == {"name": NOW}]
    assert len(rules) == 1 and rules[0]["mark"]["type"] == "rule"


def test_a_frame_of_the_web_counts_what_is_on_it_after_that_step(views):
    web = ChartSet(views[:1]).charts(world_charts.web)[0]
    for step in (0, 2, 4):
        (columns,) = web.at(step).columns.values()
        assert sum(columns["documents"]) == views[0].live(step).height
    kept = next(rows for rows in web.data.values() if rows and "site" in rows[0])
    assert len(kept) == len(columns["documents"]) == 8 and "documents" not in kept[0]


def test_two_worlds_share_their_scales(views):
    for draw, key in ((world_charts.quality, ("cross_entropy",)), (world_charts.web, ()), (world_charts.ledger, ())):
        alone = [ChartSet([view]).charts(draw, *key)[0] for view in views]
        both = ChartSet(views).charts(draw, *key)
        for channel in ("x", "y", "color", "size"):
            assert _domains(both[0], channel) == _domains(both[1], channel)
        wide = [next(iter(_domains(chart, "x"))) for chart in (*alone, both[0])]
        if draw is world_charts.quality:
            assert wide == [(0, 4), (0, 6), (0, 6)]
            ends = [next(iter(_domains(chart, "y"))) for chart in (*alone, both[0])]
            assert ends[0] != ends[1] and ends[2] == (min(ends[0][0], ends[1][0]), max(ends[0][1], ends[1][1]))


def test_a_population_has_the_same_colour_in_both_worlds():
    def chart(*populations: str) -> LiveChart:
        colour = {"field": "population", "scale": {"domain": list(populations)}}
        spec = {"layer": [{"mark": "line", "encoding": {"color": colour}}], "height": 100}
        return LiveChart("a", spec, {}, lambda step: FrameData("", ""))

    one, other = on_common_scales([chart("naive", "anchored"), chart("anchored", "paid")])
    assert _domains(one, "color") == _domains(other, "color") == {("naive", "anchored", "paid")}


def test_differences_are_dotted_paths_without_names_and_seeds(views):
    one = views[0].scenario
    other = one.override({"seed": 9, "steps": 7})
    assert differences(one, one) == []
    assert differences(one, other) == [("steps", "4", "7")]


def test_an_animation_has_a_frame_of_every_step_and_can_be_stopped(views):
    web = ChartSet(views[:1]).charts(world_charts.web)[0]
    told: list[int] = []
    made = animation(web, frames(1), DARK, lambda done: told.append(done) or True)
    assert made is not None and Image.open(io.BytesIO(made)).n_frames == 2 and told == [0, 1, 2]
    assert animation(web, frames(4), DARK, lambda done: False) is None


def test_frames_are_all_steps_or_a_hundred_from_first_to_last():
    assert frames(3) == [0, 1, 2, 3]
    many = frames(1000)
    assert len(many) == 100 and many[0] == 0 and many[-1] == 1000
    assert {b - a for a, b in pairwise(many)} == {10, 11}


def test_a_replay_begins_at_the_opening_and_can_be_played_again(views):
    config = SessionConfig(runs=(views[0].run.path,))
    session = type("Told", (SessionModel,), {"config": config, "news": staticmethod(lambda: None)})()
    assert (session.steps, session.running) == (0, True)
    for _ in range(9):  # Mesa may ask for several steps at once, also beyond the end
        session.step()
    assert (session.steps, session.running) == (4, False)
    session.rewind()
    assert session.running
    session.step()
    assert (session.steps, session.running) == (0, True)
    session.look(2)
    session.step()
    assert session.steps == 3
    session.close()
