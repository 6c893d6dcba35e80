"""People who react: curators that mistake fluency for humanity, writers that leave for want of readers."""

import numpy as np
import polars as pl
import pytest

from ecosystem.errors import ScenarioError
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.agents import shifted
from ecosystem.simulation.world import World
from tests.conftest import MACHINE

REVIEWER = {"sites": 12, "reviews": 60, "count": 2, "true_positive_rate": 0.5, "false_positive_rate": 0.2}


def web_of_text(curator: dict | None, steps: int = 4) -> Scenario:
    """People and machines write equally much, the machines more fluently than people: at a low temperature."""
    data = {
        "name": "reviewed",
        "steps": steps,
        "sources": {"language": {"kind": "process", "held_out": 60}},
        "web": {"kind": "complete", "sites": 12, "initial": {"source": "language", "documents": 150}},
        "models": {"small": {"preset": "trigram", "vocabulary": 400, "context": 64}},
        "writers": {"people": {"count": 2, "source": "language", "rate": 30.0}},
        "trainers": {
            "labs": {
                "count": 2,
                "model": "small",
                "publish": 30,
                "scrape": {"docs": 100},
                "decoding": {"temperature": 0.4, "max_tokens": 40},
            }
        },
        "curators": {} if curator is None else {"editors": REVIEWER | curator},
        "measure": {"synthetic": 0, "sites": False, "texts": ["distinct"], "words": 200, "initial_perplexity": 0},
    }
    return Scenario.parse(data)


def world_of(scenario: Scenario, cache, steps: int = 0) -> World:
    world = World(scenario, cache=cache, threads=MACHINE.threads)
    for _ in range(steps):
        world.step()
    return world


def test_log_odds_are_shifted_and_certainty_stays():
    rates, by = np.array([0.0, 0.2, 0.5, 0.999, 1.0]), np.array([5.0, 0.0, 2.0, -1e6, -5.0])
    expected = [0.0, 0.2, 1 / (1 + np.exp(-2.0)), 0.0, 1.0]
    assert shifted(rates, by) == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_without_a_bias_the_judge_changes_nothing(cache):
    curators = {}, {"quality_bias": 0.0, "judge": "small"}
    plain, level = (world_of(web_of_text(curator), cache, 2) for curator in curators)
    assert plain.corpus.index.equals(level.corpus.index)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [1.5, -1.5])
def test_errors_follow_fluency_at_the_rates_that_it_says(cache, bias):
    """Of every origin: the number of suspects within 4 standard errors of the sum of the chances, and their fluency."""
    curator = {"quality_bias": bias, "judge": "small", "reviews": 10**6, "strength": 1.0, "action": "down_weight"}
    world = world_of(web_of_text(curator), cache, 3)
    live = world.corpus.live().columns("doc", "site", "synthetic")
    known = {}
    for editor in world.curators:
        reviewed = editor.review(live)
        assert reviewed.height == live.height, "all sites are watched"
        z, suspect = world.fluency("small", reviewed["doc"]), reviewed["suspect"].to_numpy()
        for synthetic, rate in ((True, 0.5), (False, 0.2)):
            mine = reviewed["synthetic"].to_numpy() == synthetic
            known.setdefault(synthetic, []).append((rate, z[mine], suspect[mine]))
    for parts in known.values():
        rate = parts[0][0]
        z, suspect = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        chance = 1 / (1 + (1 - rate) / rate * np.exp(bias * z))
        error = np.sqrt((chance * (1 - chance)).sum())
        assert abs(suspect.sum() - chance.sum()) < 4 * error
        assert abs(suspect.sum() - rate * len(z)) > 4 * error, "the bias moves the rates of these documents"
        if rate == 0.2:  # machine texts are all about equally fluent, people's are not
            correlation = np.corrcoef(z, suspect)[0, 1]
            assert -np.sign(bias) * correlation > 4 / np.sqrt(len(z))
    fluent = {synthetic: np.mean([part[1].mean() for part in parts]) for synthetic, parts in known.items()}
    assert fluent[True] > fluent[False], "machines at a low temperature are the more fluent"


@pytest.mark.slow
def test_a_web_can_become_more_synthetic_by_curation(cache):
    """The curators see more of machine text than of people's, and yet drive out people, if they like it fluent."""

    def share(curator) -> float:
        return float(world_of(web_of_text(curator), cache, 4).corpus.live().array("synthetic").mean())

    alone, honest, biased = share(None), share({}), share({"quality_bias": 3.0, "judge": "small"})
    # About 100 of some 600 documents are removed: the standard error of a share is 0.02 at the most.
    assert honest < alone - 0.02 < alone + 0.02 < biased


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        ("curators.editors", {"quality_bias": 1.0}, "set both quality_bias and judge"),
        ("curators.editors", {"quality_bias": 1.0, "judge": "smal"}, "did you mean"),
        ("writers.people", {"returns_above": 0.5}, "set leaves_below too"),
        ("writers.people", {"wage": 0.5}, "set leaves_below too"),
        ("writers.people", {"leaves_below": 0.5, "returns_above": 0.4}, "is below leaves_below"),
    ],
)
def test_what_makes_no_sense_is_said(section, values, told):
    with pytest.raises(ScenarioError, match=told):
        web_of_text({}).override({f"{section}.{field}": value for field, value in values.items()})
    with pytest.raises(ScenarioError, match="never published"):
        web_of_text({"quality_bias": 1.0, "judge": "small"}).override({"sources.language.held_out": 0})


def web_of_symbols(changes: dict[int, dict] | None = None, **writer) -> Scenario:
    """Two writers and a laboratory on a web that forgets: what people wrote first is gone after two steps."""
    data = {
        "name": "left",
        "steps": 8,
        "sources": {"world": {"kind": "categorical", "types": 10, "held_out": 20}},
        "web": {
            "kind": "complete",
            "sites": 2,
            "initial": {"source": "world", "documents": 60},
            "retain": ["recent"],
        },
        "models": {"one": {"kind": "categorical", "types": 10}},
        "policies": {"recent": {"kind": "window", "steps": 2}},
        "writers": {"people": {"count": 2, "source": "world", "rate": 10.0, "sites": 2} | writer},
        "trainers": {"labs": {"model": "one", "publish": 40, "scrape": {"docs": 30}}},
        "changes": [{"at": at, "set": values} for at, values in (changes or {}).items()],
    }
    return Scenario.parse(data)


def told(world_or_metrics, metric: str) -> list[float]:
    """Return a metric of the first writer, or what all of them wrote, step by step."""
    found = world_or_metrics.filter(pl.col("metric") == metric)
    if metric == "human_documents":
        return found.group_by("step", maintain_order=True).agg(pl.col("value").sum())["value"].to_list()
    return found.filter(pl.col("id").str.ends_with("people/0"))["value"].to_list()


def metrics_of(scenario: Scenario, steps: int) -> pl.DataFrame:
    world = World(scenario)
    rows = [world.snapshot().metrics]
    for _ in range(steps):
        world.step()
        rows.append(world.snapshot().metrics)
    return pl.concat(rows)


def test_a_writer_that_never_leaves_is_as_before():
    plain, never = metrics_of(web_of_symbols(), 4), metrics_of(web_of_symbols(leaves_below=0.0), 4)
    assert plain.equals(never.filter(pl.col("scope") != "writer"))
    assert told(never, "writing") == [1.0] * 4


def test_writers_leave_a_contaminated_web_and_come_back_for_pay():
    """At the opening all is human; later a third of what is new, since the model writes 40 documents and people 20."""
    left = metrics_of(web_of_symbols(leaves_below=0.5), 6)
    audience, writing = told(left, "audience"), told(left, "writing")
    assert audience[0] == 1.0 and writing[0] == 1.0
    assert writing == [float(share >= 0.5) for share in audience], "nobody comes back: the web gets no better"
    assert writing[-1] == 0.0 and told(left, "human_documents")[-1] == 0.0
    assert audience[-1] == 0.0, "once they have left, the web forgets them"
    assert not left.filter(pl.col("metric") == "spent").height

    wanted = {"leaves_below": 0.5, "wage": 2.0, "pay": 1.0}
    paid = metrics_of(web_of_symbols({5: {"writers.people.pay": 2.5}, 6: {"writers.people.pay": 0.0}}, **wanted), 6)
    writing, wrote, spent = (told(paid, metric) for metric in ("writing", "human_documents", "spent"))
    assert writing[3] == 0.0 and writing[4] == 1.0 and writing[5] == 0.0, "paid at step 5 alone"
    assert wrote[3] == 0.0 and wrote[4] == 20.0 and wrote[5] == 0.0
    assert spent[:1] == [10.0] and spent[3:] == [0.0, 25.0, 0.0], "pay below the wage is paid to those who write"


@pytest.mark.slow
def test_who_has_left_survives_a_resume(tmp_path):
    """Where the audience is between leaving and returning, only the past tells who is gone."""
    # The laboratory falls silent after step 4, so that the readers come back: half-way at step 5, all at step 6.
    quiet = {4: {"trainers.labs.publish": 4}}
    scenario = web_of_symbols(quiet, leaves_below=0.4, returns_above=0.9, count=1).override(
        {"writers.regulars": {"count": 1, "source": "world", "rate": 12.0, "sites": 2}}
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for _ in begin(scenario, out=whole, machine=MACHINE):
        pass
    run = Run.open(folder_of(scenario, whole))
    audience, writing = told(run.metrics, "audience"), told(run.metrics, "writing")
    undecided = [t for t, (a, w) in enumerate(zip(audience, writing, strict=True), 1) if 0.4 < a < 0.9 and w == 0.0]
    assert undecided, "a step whose audience alone would not keep the writer away"
    steps = begin(scenario, out=cut, machine=MACHINE)
    for snapshot in steps:
        if snapshot.t == undecided[0] - 1:
            break
    steps.close()
    for _ in begin(scenario, out=cut, machine=MACHINE):
        pass
    resumed = Run.open(folder_of(scenario, cut))
    assert resumed.metrics.equals(run.metrics) and resumed.events == run.events
    assert any("writers of people left" in event for _, event in run.events)
