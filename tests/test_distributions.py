"""Distributions over the generations: perplexities under the first model, and densities of vectors, in the report."""

import numpy as np
import polars as pl
import pytest

from ecosystem.corpus.schema import METRICS
from ecosystem.families.requests import ScoreRequest
from ecosystem.metrics.catalogue import definitions
from ecosystem.metrics.definitions import QUANTILES
from ecosystem.metrics.quality import perplexity_quantiles
from ecosystem.report import summaries
from ecosystem.report.data import RunReportData
from ecosystem.report.panels import distributions
from ecosystem.report.sections import sections
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from tests.conftest import MACHINE, tiny

PREFIX = "initial_perplexity"


def quantiles_of(metrics, identity, step):
    here = (pl.col("id") == identity) & (pl.col("step") == step) & pl.col("metric").str.starts_with(PREFIX)
    return dict(metrics.filter(here).select("metric", "value").iter_rows())


def test_quantiles_of_perplexities_and_their_errors():
    """Half of many samples must lie within 0.674 errors of the median of a lognormal; binomial, four deviations."""
    luck, inside, samples = np.random.default_rng(2), 0, 600
    for _ in range(samples):
        value, error = perplexity_quantiles(luck.normal(3.0, 0.5, 200) * 16, np.full(200, 16))[f"{PREFIX}_q50"]
        inside += abs(value - np.exp(3)) < 0.674 * error
    assert abs(inside / samples - 0.5) < 4 * np.sqrt(0.25 / samples) + 0.02, "0.02: the normal approximation"
    tokens = np.array([4, 2, 8])
    found = perplexity_quantiles(np.log([3.0, 5.0, 9.0]) * tokens, tokens)
    assert set(found) == {f"{PREFIX}_q{q:02d}" for q in QUANTILES} <= set(definitions())
    assert found[f"{PREFIX}_q50"][0] == pytest.approx(5) and found[f"{PREFIX}_q10"][0] == pytest.approx(3.4)
    assert np.isnan(found[f"{PREFIX}_q01"][1]), "three texts say nothing of the first percent"
    assert perplexity_quantiles(np.zeros(0), np.zeros(0, dtype=np.int64)) == {}


@pytest.fixture(scope="module")
def prompted(cache) -> World:
    """A step in which each text continues the first five tokens of a real one, with and without these."""
    prompt = {"tokens": 5, "origin": "real", "keep": False}
    changes = {f"trainers.{name}.decoding.prompt": prompt for name in ("naive", "careful")}
    changes |= {"trainers.careful.decoding.prompt": prompt | {"keep": True}}
    changes |= {"measure.initial_tokens": 6, "measure.initial_perplexity": 7}
    world = World(tiny().override(changes), cache=cache, threads=MACHINE.threads)
    world.opening = world.snapshot().metrics
    world.step()
    return world


@pytest.mark.slow
def test_every_text_is_scored_on_equally_many_tokens_behind_its_prompt(prompted):
    """By hand: the nats of the first six tokens under the foundation, of the first seven texts that have so many."""
    cohort, segment = prompted.cohorts["tiny"], prompted.snapshot().segment

    def by_hand(texts, begun):
        ids = [ids[begun : begun + 6] for ids in cohort.tokenizer.encode(texts) if len(ids) >= begun + 6][:7]
        cut = pl.Series(cohort.tokenizer.decode([row.tolist() for row in ids]), dtype=pl.String)
        [score] = cohort.score([ScoreRequest("initial", cut)])
        parts = [score.nll[a : b - 1] for a, b in zip(score.offsets[:-1], score.offsets[1:], strict=True)]
        return np.median([np.exp(part.mean()) for part in parts])

    metrics = prompted.snapshot().metrics
    for trainer, begun in (("naive/0", 0), ("careful/0", 5)):
        kept = segment.filter((pl.col("author") == trainer) & pl.col("verdict").is_null())["content"]
        found = quantiles_of(metrics, trainer, 1)
        assert len(found) == len(QUANTILES)
        assert found[f"{PREFIX}_q50"] == pytest.approx(by_hand(kept, begun)), trainer
        people = quantiles_of(prompted.opening, f"{trainer.partition('/')[0]}/human", 0)
        assert people[f"{PREFIX}_q50"] == pytest.approx(by_hand(prompted.state.references.held_out, 5))


def test_it_can_be_left_out_and_means_nothing_for_random_weights(cache):
    for changes in ({"measure.initial_perplexity": 0}, {"models.tiny.init": "random"}):
        world = World(tiny().override(changes), cache=cache, threads=MACHINE.threads)
        assert not world.snapshot().metrics["metric"].str.starts_with(PREFIX).any()
    assert not world.spec.models["tiny"].starts_pretrained


def test_a_density_between_quantiles_holds_the_share_between_them():
    rows = pl.DataFrame({"percent": [1, 50, 90, 99], "value": [1.0, np.e, np.e, np.e**3]})
    found = summaries.between_quantiles(rows)
    assert found["x"].to_list() == [1.0, np.e, np.e**3], "equal quantiles are one edge, with the larger percentage"
    assert found["density"].to_list() == pytest.approx([0.89, 0.045, 0.0])


@pytest.mark.slow
def test_the_report_shows_fans_and_histograms(finished):
    book = RunReportData.of(finished)
    frame = summaries.quantiles(finished.metrics, PREFIX, QUANTILES)
    own = frame.filter((pl.col("population") == "naive") & (pl.col("step") == 3) & (pl.col("percent") == 50))
    mean = finished.metrics.filter(
        pl.col("id").str.starts_with("naive/") & (pl.col("step") == 3) & (pl.col("metric") == f"{PREFIX}_q50")
    )["value"].mean()
    assert own["value"].to_list() == [pytest.approx(mean)]
    assert frame.filter(pl.col("step").is_null())["population"].unique().sort().to_list() == ["careful", "naive"]
    page = sections(book)["diversity"](book)
    for population in ("naive", "careful"):
        for name in (f"initial_perplexity_{population}", f"initial_perplexity_histogram_{population}"):
            assert f'data-chart="{name}"' in page and name in book.specs
    points = rows_of(book.specs["initial_perplexity_naive"], "population", "step", "percent", "value")
    assert points.filter((pl.col("step") == 3) & (pl.col("percent") == 50))["value"].to_list() == own["value"].to_list()


# Densities of vectors.


def vectors(out, source, steps=3, **more) -> Run:
    trainer = {"count": 2, "model": "m", "sites": 1, "publish": 40, "scrape": {"docs": 40, "strategy": "reach"}}
    data = {
        "name": "vectors",
        "steps": steps,
        "sources": {"s": source},
        "web": {"kind": "isolated", "sites": 2, "initial": {"source": "s", "documents": 100}},
        "models": {"m": {"kind": "linear" if source["kind"] == "regression" else "gaussian"}},
        "trainers": {"loop": trainer},
        "measure": {"sites": False},
    }
    scenario = Scenario.parse(data | more)
    for _ in begin(scenario, out=out, machine=Machine("cpu", 1)):
        pass
    return Run.open(folder_of(scenario, out))


def drawn(run) -> dict:
    book = RunReportData.of(run)
    page = sections(book)["parameters"](book)
    found = {
        spec["title"]["text"]: spec for spec in book.specs.values() if spec["title"]["text"].startswith("Documents of ")
    }
    assert page.count('data-chart="documents_') == len(found)
    return found


def rows_of(spec, *columns):
    tables = [rows for rows in spec["datasets"].values() if rows and set(columns) <= set(rows[0])]
    return pl.concat([pl.DataFrame(rows).select(columns) for rows in tables], how="vertical_relaxed")


def test_one_number_is_drawn_as_densities_before_the_truth(tmp_path):
    run = vectors(tmp_path, {"kind": "gaussian", "mean": 4.0, "variance": 9.0})
    found = drawn(run)
    spec = found["Documents of loop/0"]
    curves = rows_of(spec, "x", "density", "step")
    assert curves["step"].unique().sort().to_list() == [2, 3], "untrained, it publishes from step 2 on"
    for (step,), curve in curves.group_by("step"):
        docs = run.documents.filter((pl.col("author") == "loop/0") & (pl.col("t") == step)).collect()["content"]
        x, y = curve["x"].to_numpy(), curve["density"].to_numpy()
        assert np.trapezoid(y, x) == pytest.approx(1, abs=0.05)
        assert np.trapezoid(x * y, x) == pytest.approx(docs.to_numpy().mean(), abs=0.3)
    truths = [rows for rows in spec["datasets"].values() if rows and set(rows[0]) == {"x", "density"}]
    [truth] = [pl.DataFrame(rows) for rows in truths]
    peak = truth.sort("density").row(-1, named=True)
    assert peak["x"] == pytest.approx(4, abs=0.2) and peak["density"] == pytest.approx(
        1 / np.sqrt(18 * np.pi), rel=0.01
    )


@pytest.mark.slow
def test_two_numbers_are_drawn_as_points_and_three_by_the_first_two(tmp_path):
    for source, said in (({"kind": "toy", "shape": "moons"}, ""), ({"kind": "gaussian", "dim": 3}, "first two of 3")):
        run = vectors(tmp_path, source)
        found = drawn(run)
        spec = found["Documents of loop/0 at step 3"]
        points = rows_of(spec, "x", "y", "population")
        docs = run.documents.filter((pl.col("author") == "loop/0") & (pl.col("t") == 3)).collect()["content"]
        assert np.allclose(points.select("x", "y").to_numpy(), docs.to_numpy()[:, :2])
        assert said in spec["title"]["subtitle"] and len(found) == 2


@pytest.mark.slow
def test_designs_and_images_are_not_drawn_as_points(tmp_path):
    for source in ({"kind": "regression", "dim": 3}, {"kind": "digits"}):
        assert not drawn(vectors(tmp_path, source, steps=2))


def test_kernel_densities():
    """Of 40,000 normal numbers within 0.02 of the density, four standard errors of its peak."""
    at = np.linspace(-4, 4, 161)
    x = np.random.default_rng(3).standard_normal(40_000)
    assert np.abs(distributions.kernel_density(x, at) - np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi)).max() < 0.02
    point = distributions.kernel_density(np.full(50, 1.0), at)
    assert at[point.argmax()] == pytest.approx(1) and np.trapezoid(point, at) == pytest.approx(1, abs=1e-3)


def test_a_run_without_texts_to_score_has_no_such_charts():
    empty = pl.DataFrame(schema=METRICS)
    assert summaries.quantiles(empty, PREFIX, QUANTILES).is_empty()
    assert distributions.spread([4, 5, 6, 7, 8], 3) == [4, 6, 8] and distributions.spread([], 3) == []
