"""Writers who choose between writing, using AI and silence: the game, what they learn, and what they publish."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from ecosystem.app.worlds.run_view import RunView
from ecosystem.errors import ScenarioError
from ecosystem.metrics.estimates import hellinger
from ecosystem.runs.ancestry import Ancestry
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.entries.choices import ChoiceSpec
from ecosystem.scenario.entries.people import WriterSpec
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.choices.mixing import mixed
from ecosystem.simulation.choices.strategies import SILENT, USE_AI, WRITE, Choices, revise, types
from ecosystem.simulation.world import World
from ecosystem.simulation.writing.knowledge import _density
from ecosystem.sources.base import SOURCES
from ecosystem.sources.vectors import as_documents
from ecosystem.streams import Stream, Streams
from ecosystem.theory.adoption import adoption_share, adoption_welfare, replicator_share
from tests.conftest import MACHINE, ROOT
from tests.worlds import run_world

GAME = {"benefit": 3.5, "cost": 2.0, "ai_cost": 0.75, "collapse": 1.5, "shared": 0.5}
STRATEGIES = {"write": WRITE, "ai": USE_AI, "silent": SILENT}


def players(count: int, **choice) -> WriterSpec:
    return WriterSpec(source="s", rate=0.0, count=count, choice=ChoiceSpec(**{"speed": 1.0, **GAME, **choice}))


def web_of_numbers(choice: dict, *, people: dict | None = None, **tables) -> Scenario:
    """Numbers by people and by a normal fitted to all of them; the model's are 100 further to the right."""
    data = {
        "name": "assisted",
        "steps": 4,
        "sources": {"left": {"kind": "gaussian", "held_out": 0}},
        "web": {"kind": "complete", "sites": 4, "initial": {"source": "left", "documents": 60}},
        "models": {"normal": {"kind": "gaussian", "init": "foundation"}},
        "writers": {
            "people": {"count": 12, "source": "left", "rate": 2.0, "sites": 1, "choice": {**choice, "uses": "lab"}}
            | (people or {})
        },
        "trainers": {"lab": {"count": 2, "model": "normal", "sites": 1, "publish": 0, "scrape": {"docs": 50}}},
        "measure": {"synthetic": 0},
    }
    return Scenario.parse(data | tables)


MIXED = {"benefit": 1.0, "cost": 0.5, "ai_cost": 0.5, "ai_at_first": 0.5, "ai_share": 0.25, "mix": "blend"}


# The game.


def test_shares_follow_the_replicator_in_a_large_community():
    """After one round, every share is within five standard errors of x (1 + speed (payoff - mean payoff))."""
    settings = players(200_000, ai_at_first=0.3, silent_at_first=0.5)
    choices = Choices.at_first(settings, settings.choice)
    revise("people", settings, choices, np.nan, Streams(3), 1)
    [shares] = choices.shares(1)
    for name, place in STRATEGIES.items():
        expected = replicator_share(3.5, 2.0, 0.75, 1.5, 1.0, 0.3, 0.5, name, 1)
        assert abs(shares[place] - expected) < 5 * np.sqrt(0.25 / 200_000)
        unshared = replicator_share(3.5, 2.0, 0.75, 1.5, 1.0, 0.3, 0.5, name, 1, shared=0.2)
        assert abs(shares[place] - unshared) > 5 * np.sqrt(0.25 / 200_000)


def test_nobody_takes_over_a_strategy_that_pays_less():
    settings = players(3000, ai_at_first=0.3, silent_at_first=0.5)
    choices = Choices.at_first(settings, settings.choice)
    before = choices.strategy.copy()
    revise("people", settings, choices, np.nan, Streams(1), 1)
    # With 30 % users of AI, it pays 0.025; writing pays -0.25, silence 0.
    assert (choices.strategy[before == USE_AI] == USE_AI).all()
    assert set(choices.strategy[before == SILENT]) == {USE_AI, SILENT}


def test_communities_are_separate_and_begin_alike():
    settings = players(400, communities=4, ai_at_first=0.3, silent_at_first=0.5)
    choices = Choices.at_first(settings, settings.choice)
    assert choices.shares(4).tolist() == [[0.2, 0.3, 0.5]] * 4
    choices.strategy[:100] = SILENT  # in one community, there is nobody to learn from
    for t in range(1, 6):
        revise("people", settings, choices, np.nan, Streams(1), t)
    assert choices.shares(4)[0].tolist() == [0.0, 0.0, 1.0] and (choices.shares(4)[1:, 1] > 0).all()


@pytest.mark.parametrize(
    ("benefit", "collapse", "share", "welfare"),
    [(3.5, 0.4, 1.0, 1.6), (4.5, 1.5, 2 / 3, 4.5 - 2 - 0.5 * 2 / 3), (3.5, 1.5, 1 / 3, 0.5), (2.5, 1.0, 0.0, 0.0)],
)
def test_fixed_points_are_those_of_the_published_code(benefit, collapse, share, welfare):
    """All AI; AI beside writing; AI beside silence; all silent."""
    assert adoption_share(benefit, 2.0, 0.75, collapse, "ai", 1) == pytest.approx(share)
    assert adoption_welfare(benefit, 2.0, 0.75, collapse, 1) == pytest.approx(welfare)
    path = replicator_share(benefit, 2.0, 0.75, collapse, 0.8, 0.4, 0.3, "ai", 3000)
    assert path == pytest.approx(share, abs=1e-6)


def test_the_best_strategy_is_taken_by_type():
    """The dearest is worth it for those who value documents most; those who value them least are silent."""
    settings = players(2000, rule="best", types_sd=0.5, shared=0.0, benefit=2.0, ai_benefit=1.5, collapse=0.0)
    choices = Choices.at_first(settings, settings.choice)
    revise("people", settings, choices, np.nan, Streams(1), 1)
    factor = types("people", settings, Streams(1))
    assert factor.mean() == pytest.approx(1.0, abs=0.05) and factor.std() == pytest.approx(0.5, abs=0.05)
    # AI pays 1.5 f - 1.5 and writing 2 f - 2: both above 0 for f > 1, where writing pays more.
    assert ((choices.strategy == WRITE) == (factor > 1)).all() and not (choices.strategy == USE_AI).any()
    cheap = settings.model_copy(update={"choice": settings.choice.model_copy(update={"ai_cost": 0.5})})
    revise("people", cheap, choices, np.nan, Streams(1), 2)
    assert ((choices.strategy == WRITE) == (factor > 2)).all()
    assert ((choices.strategy == SILENT) == (factor <= 1 / 1.5)).all()


def test_choices_are_stored():
    choices = Choices(np.array([WRITE, SILENT, USE_AI], np.int8), np.array([0.25, np.nan]), spread=0.5)
    read = Choices.read(choices.plain())
    assert read.strategy.tolist() == choices.strategy.tolist() and read.spread == 0.5
    assert read.learnt[0] == 0.25 and np.isnan(read.learnt[1])


@pytest.mark.parametrize(
    ("people", "choice", "message"),
    [
        ({"reaction": 0.5}, {}, "remove reaction and leaves_below"),
        ({"count": 10}, {"communities": 3}, "make count a multiple"),
        ({}, {"novelty": {}}, "exactly one of benefit and novelty"),
        ({}, {"types_sd": 1.0}, 'of the rule "best"'),
        ({}, {"ai_at_first": 0.6, "silent_at_first": 0.6}, "more than 1"),
        ({}, {"falls_with": "crossentropy"}, "there is no metric"),
        ({}, {"uses": "labs"}, r"there is no \[trainers.labs\]"),
    ],
)
def test_what_makes_no_sense_is_refused(people, choice, message):
    data = web_of_numbers(MIXED).plain()
    data["writers"]["people"] |= people
    data["writers"]["people"]["choice"] |= choice
    with pytest.raises(ScenarioError, match=message):
        Scenario.parse(data)


# Mixed documents.


def test_a_text_has_a_span_of_each():
    ai, human = pl.Series(["a " * 40, "a", ""]), pl.Series(["h " * 40, "h " * 40, "h h"])
    texts, share = mixed(ai, human, np.full(3, 0.25), "draw", np.zeros(3))
    assert texts[0].split() == ["h"] * 40 + ["a"] * 13 and texts[1].split() == ["h"] * 3 + ["a"]
    assert texts[2] == "h h" and share[2] == 0.0
    assert share[:2] == pytest.approx([0.25, 0.25], abs=0.02)


def test_vectors_are_blended_or_drawn():
    ai, human = as_documents(np.full((400, 1), 100.0)), as_documents(np.zeros((400, 1)))
    quarter, noise = np.full(400, 0.25), Stream(1, "mix").uniform(np.arange(400))
    blended, share = mixed(ai, human, quarter, "blend", noise)
    assert set(blended.to_numpy()[:, 0]) == {25.0} and set(share) == {0.25}
    drawn, share = mixed(ai, human, quarter, "draw", noise)
    assert (drawn.to_numpy()[:, 0] == 100 * share).all() and share.mean() == pytest.approx(0.25, abs=0.07)


def test_a_share_of_ai_reaches_truth_depth_and_metrics():
    world = run_world(web_of_numbers(MIXED), 3)
    index = world.corpus.table(["t", "author", "synthetic", "ai_share", "assistant", "depth", "model", "source", "row"])
    assisted = index.filter(pl.col("ai_share") > 0)
    assert set(assisted["ai_share"]) == {0.25} and assisted["synthetic"].all()
    assert set(assisted["assistant"]) == {"lab/0", "lab/1"} and set(assisted["model"]) == {"normal"}
    assert assisted["source"].unique().to_list() == ["left"] and assisted["row"].null_count() == 0
    assert set(assisted.filter(pl.col("t") == 1)["depth"]) == {0.25}, "a quarter of one hop"
    human = index.filter(pl.col("ai_share") == 0)
    assert not human["synthetic"].any() and human["assistant"].null_count() == human.height
    assert 0 < assisted.height < index.height - 60
    measured = world.measured["web", "web", "synthetic_share"]
    assert measured == pytest.approx(0.25 * assisted.height / index.height)
    assert 0 < world.measured["training_set", "lab/0", "synthetic_share"] < 0.25
    assert world.measured["cost", "trainers/lab/0", "documents_generated"] > 0


def test_users_of_ai_publish_whole_documents_of_the_model():
    whole = {**MIXED, "ai_share": 1.0, "ai_at_first": 1.0}
    world = run_world(web_of_numbers(whole), 2)
    new = world.corpus.table(["t", "synthetic", "source", "depth", "author"]).filter(pl.col("t") > 0)
    assert new.height == 48 and new["synthetic"].all() and new["source"].null_count() == 48
    assert set(new["author"].str.split("/").list.first()) == {"writers"}
    assert world.state.drawn["left"] == 60, "people draw nothing"


def test_the_benefit_of_ai_falls_with_a_measured_quality():
    world = run_world(web_of_numbers({**MIXED, "collapse": 2.0, "falls_with": "mean_error"}), 2)
    before = np.mean([world.measured["trainer", f"lab/{i}", "mean_error"] for i in (0, 1)])
    assert world.measured["community", "people/0", "ai_benefit"] != 1 - 2 * before
    world.step()
    assert world.measured["community", "people/0", "ai_benefit"] == pytest.approx(1 - 2 * before)


def test_a_quality_that_is_not_measured_is_an_event():
    """Categories have a Gini-Simpson index, numbers have none."""
    world, said = World(web_of_numbers({**MIXED, "collapse": 2.0, "falls_with": "gini_simpson"})), []
    for _ in range(3):
        world.step()
        said += [(world.state.t, event) for event in world.snapshot().state["events"]]
    assert said == [
        (
            2,
            "writers.people.choice.falls_with: gini_simpson of lab was not measured at step 1, so the benefit of AI "
            "does not fall",
        )
    ]


def test_users_of_a_laboratory_that_has_closed_publish_nothing():
    changes = [{"at": 2, "set": {"trainers.lab.active": False}}]
    world = run_world(web_of_numbers(MIXED, changes=changes), 2)
    sentence = "the writers of people who use AI published nothing: lab is not there"
    assert sentence in world.snapshot().state["events"]


def test_the_numbers_of_scenarios_without_a_choice_have_no_new_columns():
    data = web_of_numbers(MIXED).plain()
    del data["writers"]["people"]["choice"]
    world = run_world(Scenario.parse(data), 1)
    assert "ai_share" not in world.snapshot().segment.columns and "choices" not in world.snapshot().state
    assert world.corpus.array("ai_share").dtype == np.bool_


@pytest.mark.slow
def test_choices_survive_a_resume_and_lineages_name_the_trainer(tmp_path):
    scenario = web_of_numbers({**MIXED, "collapse": 1.0, "falls_with": "mean_error", "speed": 1.0})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for _ in begin(scenario, out=whole, machine=MACHINE):
        pass
    steps = begin(scenario, out=cut, machine=MACHINE)
    for snapshot in steps:
        if snapshot.t == 2:
            break
    steps.close()
    for _ in begin(scenario, out=cut, machine=MACHINE):
        pass
    run, resumed = (Run.open(folder_of(scenario, folder)) for folder in (whole, cut))
    assert resumed.metrics.equals(run.metrics)
    documents = run.documents.collect()
    assert documents.equals(resumed.documents.collect())
    last = documents.filter((pl.col("ai_share") > 0) & (pl.col("t") == 4))
    row = last.row(0, named=True)
    lineage = run.lineage(row["doc"])
    assert lineage.fits and lineage.fits[0].population == "lab"
    assert (lineage.author, lineage.assistant, lineage.ai_share) == (row["author"], row["assistant"], 0.25)
    assert f"by {row['author']}, 25 % of it by the model of {row['assistant']}, published" in str(lineage).replace(
        "\xa0", " "
    )
    assert lineage.hops == pytest.approx(lineage.depth, abs=1e-5)  # walks end at the writers of mixed documents
    ends = {end.who: end.share for end in lineage.ends}
    assert sum(ends.values()) == pytest.approx(1) and ends["people"] > 0.75
    assert Ancestry(RunView(run)).lineage(row["doc"]).plain() == lineage.plain()  # as the page traces it


# Public knowledge.


def test_numbers_of_student_have_their_quantiles_and_density():
    reservoir = SOURCES.get("student_t")(degrees=5.0).open("t", Streams(1), ROOT)
    x = reservoir.rows(np.arange(20_000))
    assert stats.kstest(x.to_numpy()[:, 0], stats.t(5).cdf).pvalue > 1e-3
    assert reservoir.log_likelihood(x) == pytest.approx(stats.t(5).logpdf(x.to_numpy()[:, 0]))
    assert reservoir.truth.covariance[0, 0] == pytest.approx(5 / 3)
    assert reservoir.rows([7, 3]).to_list() == [x[7].to_list(), x[3].to_list()]


def test_hellinger_distances_of_normals_are_exact():
    """sqrt(1 - sqrt(2 s u / (s² + u²)) exp(-d² / (4 (s² + u²)))) for standard deviations s, u and means d apart."""
    x = np.linspace(-12, 12, 801)
    exact = np.sqrt(1 - np.sqrt(2 * 0.5 / 1.25) * np.exp(-1 / (4 * 1.25)))
    assert hellinger(stats.norm.pdf(x), stats.norm.pdf(x, 1, 0.5), x) == pytest.approx(exact, abs=1e-6)
    assert hellinger(stats.norm.pdf(x), stats.norm.pdf(x), x) == 0.0


def test_kernels_of_scaled_width_are_those_of_scipy():
    from ecosystem.families.statistical.kde import Kernels

    x, grid = 3 + 0.3 * np.random.default_rng(1).normal(size=80), np.linspace(2, 4, 30)
    kernels = Kernels("scott_scaled", 1)
    kernels.fit(as_documents(x[:, None]), weight=np.ones(80), stream=Stream(1, "fit"))
    assert np.exp(kernels.score(as_documents(grid[:, None]))) == pytest.approx(stats.gaussian_kde(x)(grid))
    assert _density(x, grid) == pytest.approx(stats.gaussian_kde(x)(grid))


def test_a_truncated_normal_draws_from_its_middle():
    world = run_world(
        web_of_numbers(MIXED).override({"trainers.lab.decoding.truncate": 0.5, "trainers.lab.publish": 4000}), 1
    )
    new = world.corpus.rows(np.arange(len(world.corpus)), ["t", "author"])
    own = world.corpus.contents(np.flatnonzero((new["t"] == 1) & (new["author"] == "lab/0"))).to_numpy()[:, 0]
    mean, sd = (
        world.corpus.contents(np.arange(60)).to_numpy().mean(),
        world.corpus.contents(np.arange(60)).to_numpy().std(ddof=1),
    )
    assert np.abs(own - mean).max() <= 0.5
    assert stats.kstest(own, stats.truncnorm(-0.5 / sd, 0.5 / sd, mean, sd).cdf).pvalue > 1e-3


@pytest.mark.slow
def test_people_learn_which_documents_are_new():
    """At first, public knowledge is off the mark, so that documents bring more than later."""
    scenario = Scenario.load(ROOT / "scenarios" / "papers" / "peterson_knowledge.toml")
    world = World(scenario)
    for _ in range(2):
        world.step()
    first = world.measured["community", "people/0", "human_benefit"]
    opening = world.measured["trainer", "public/0", "hellinger"]
    for _ in range(13):
        world.step()
    assert first > 0 and world.measured["trainer", "public/0", "hellinger"] < opening
    assert world.measured["community", "people/0", "human_benefit"] < first
