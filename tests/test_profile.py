"""The collapse profile: each definition holds where it should and nowhere else, and signals are told in their order."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from ecosystem.corpus.schema import METRICS
from ecosystem.metrics.definitions import QUANTILES
from ecosystem.metrics.intervals import standardised_interval
from ecosystem.report.data import RunReportData
from ecosystem.report.panels.profile import in_words
from ecosystem.report.profile import DEFINITIONS, profile, signals, size_groups, useless
from ecosystem.report.sections import sections
from ecosystem.scenario.entries.trainers import ScrapeSpec, TrainerSpec
from ecosystem.sources.base import Truth
from ecosystem.studies.report.profile import left
from tests.invented_runs import invent, scenario

STEPS = range(1, 13)


def table(values, error=0.01, trainers=1, scope="trainer", spread=0.0):
    """Return metrics of populations: population → metric → value by step; a spread makes trainers differ."""
    rows = [
        (step, scope, f"{name}/{i}", metric, float(value) + spread * (i - (trainers - 1) / 2), error)
        for name, metrics in values.items()
        for metric, by_step in metrics.items()
        for step, value in zip(STEPS, by_step, strict=False)
        for i in range(trainers)
    ]
    return pl.DataFrame(rows, schema=METRICS, orient="row")


def verdict(metrics, definition, population="a", levels=None, groups=(), models=None):
    models = models or dict.fromkeys(metrics["id"].str.split("/").list.first().unique(), "m")
    found = profile(metrics, models, {}, levels or {}, groups)
    return found.filter((pl.col("population") == population) & (pl.col("definition") == definition)).row(0, named=True)


def test_a_risk_has_increased_if_it_stays_beyond_two_errors():
    risk = [5, 5.1, 5.0, 5.2, 5.3, 5.4]  # back at its start at step 3
    found = verdict(table({"a": {"cross_entropy": risk}}), "increase")
    assert found["holds"] and found["step"] == 4 and found["statistic"] == pytest.approx(0.4)
    assert found["error"] == pytest.approx(0.01 * math.sqrt(2))
    assert not verdict(table({"a": {"cross_entropy": risk}}, error=0.2), "increase")["holds"]
    gone = verdict(table({"a": {"cross_entropy": [5, 6, 7, 5]}}), "increase")
    assert gone["holds"] is False and gone["step"] is None


def test_a_catastrophe_is_half_of_the_way_to_a_useless_model():
    metrics = table({"a": {"cross_entropy": [5, 5.9, 6.1]}})
    random = pl.DataFrame([(0, "reference", "m/random", "cross_entropy", 7.0, 0.0)], schema=METRICS, orient="row")
    found = verdict(pl.concat([metrics, random]), "catastrophic")
    assert found["holds"] and found["step"] == 3 and found["statistic"] == pytest.approx(0.55)
    assert verdict(metrics, "catastrophic")["holds"] is None  # without a reference
    levels = useless(Truth(covariance=np.eye(2)))
    assert levels == {"w2": 2.0}
    moved = table({"a": {"w2": [0.1, 1.0, 1.2]}})
    assert verdict(moved, "catastrophic", levels=levels)["statistic"] == pytest.approx(1.1 / 1.9)
    assert useless(Truth(probabilities=np.array([0.5, 0.5])))["l1"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("course", "holds"),
    [
        (list(STEPS), True),
        ([math.sqrt(t) for t in STEPS], True),
        ([sum(1 / i**2 for i in range(1, t + 1)) for t in STEPS], False),  # accumulated data: at most pi^2 / 6
        ([1 - math.exp(-t) for t in STEPS], False),
        ([max(0.0, t - 6) for t in STEPS], True),
        ([5.0 for _ in STEPS], False),
    ],
)
def test_a_risk_diverges_unless_it_levels_off(course, holds):
    metrics = table({"a": {"test_error": course}}, error=0.001)
    found = verdict(metrics, "diverging")
    assert found["holds"] is holds
    assert verdict(metrics.filter(pl.col("step") <= 5), "diverging")["holds"] is None
    assert verdict(table({"a": {"l1": course}}), "diverging")["holds"] is None  # at most 2


def test_a_risk_that_has_fallen_and_rises_again_diverges_since_a_step():
    middle = len(STEPS) // 2  # it falls to a third of the first value, then rises, and is below that value at the end
    course = [max(30.0 - 20 * i / middle, 10.0) + max(0.0, i - middle) for i in range(len(STEPS))]
    metrics = table({"a": {"test_error": course}}, error=0.001)
    assert verdict(metrics, "increase")["holds"] is False
    found = verdict(metrics, "diverging")
    assert found["holds"] is True and found["step"] in STEPS


def test_losses_are_shares_of_the_first_measurement():
    metrics = table(
        {
            "a": {"log_variance": [0, -0.5, -1.0], "tail_types": [20, 9, 8], "support": [25, 14, 10]},
            "b": {"log_variance": [0, -0.1, 0.1], "tail_types": [20, 20, 15], "support": [25, 25, 20]},
        }
    )
    variance = verdict(metrics, "variance")
    assert variance["holds"] and variance["step"] == 3 and variance["statistic"] == pytest.approx(1 - math.exp(-1))
    assert verdict(metrics, "tails")["statistic"] == pytest.approx(0.6)
    assert verdict(metrics, "modes")["statistic"] == pytest.approx(0.6)  # 5 frequent types, 2 of them left
    assert not any(verdict(metrics, definition, "b")["holds"] for definition in ("variance", "tails", "modes"))


def test_words_are_lost_from_the_rarer_half():
    kept = {f"vocabulary_kept_{k}": [0.4, 0.4, 0.1 if k > 5 else 0.4] for k in range(1, 11)}
    metrics = table({"a": {"entropy": [5, 5, 4]} | kept})
    assert verdict(metrics, "tails")["statistic"] == pytest.approx(0.75) and verdict(metrics, "tails")["holds"]
    assert verdict(metrics, "modes")["statistic"] == pytest.approx(0)
    assert verdict(metrics, "variance")["statistic"] == pytest.approx(1 - math.exp(-1))
    levels = {"entropy": 6.0, "vocabulary_kept_1": 0.8} | {f"vocabulary_kept_{k}": 0.6 for k in range(6, 11)}
    rows = [(0, "reference", "human", name, value, None) for name, value in levels.items()]
    known = pl.concat([metrics, pl.DataFrame(rows, schema=METRICS, orient="row")])
    assert verdict(known, "variance")["step"] == 1  # lost with the first model already, compared with human text
    assert verdict(known, "modes")["statistic"] == pytest.approx(0.5)
    assert verdict(known, "tails")["statistic"] == pytest.approx(0.5 / 0.6)


def test_a_scaling_law_changes_if_its_slope_does():
    sizes = {"s": 20, "m": 80, "l": 320}
    metrics = table(
        {
            name: {"test_error": [n**-1.0, n**-1.0, n**-0.5], "documents_trained": [n, n, n]}
            for name, n in sizes.items()
        },
        error=1e-5,
    )
    found = verdict(metrics, "scaling", "m", groups=[list(sizes)])
    assert found["holds"] and found["step"] == 3 and found["statistic"] == pytest.approx(0.5)
    assert verdict(metrics, "scaling", "m")["holds"] is None
    growing = table(
        {name: {"test_error": [1, 1, 1], "documents_trained": [n, 2 * n, 3 * n]} for name, n in sizes.items()}
    )
    assert verdict(growing, "scaling", "m", groups=[list(sizes)])["holds"] is None
    trainers = {name: TrainerSpec(model="m", publish=n, scrape=ScrapeSpec(docs=n)) for name, n in sizes.items()}
    assert size_groups(trainers) == [["s", "m", "l"]]
    assert size_groups(trainers | {"l": trainers["l"].model_copy(update={"lag": 1})}) == []


def test_hallucinations_are_texts_beyond_human_text():
    normal = [0.0 if q == 50 else math.log(q / (100 - q)) for q in QUANTILES]  # logistic, in logarithms
    rows = {
        f"initial_perplexity_q{q:02d}": [100 * math.exp(x), 100 * math.exp(x + 2)]
        for q, x in zip(QUANTILES, normal, strict=True)
    }
    limit = 100 * math.exp(normal[-1])
    human = pl.DataFrame(
        [(0, "reference", "a/human", "initial_perplexity_q99", limit, None)], schema=METRICS, orient="row"
    )
    found = verdict(pl.concat([table({"a": rows}, error=1.0), human]), "hallucinated")
    assert found["holds"] and found["step"] == 2
    assert found["statistic"] == pytest.approx(1 / (1 + math.exp(normal[-1] - 2)), abs=0.01)


def test_every_population_has_every_definition_and_a_sentence():
    metrics = table({"a": {"cross_entropy": [5, 6]}, "b": {"cross_entropy": [5, 5]}})
    found = profile(metrics, {"a": "m", "b": "m"}, {}, {})
    assert found.group_by("population").len()["len"].to_list() == [len(DEFINITIONS)] * 2 and len(DEFINITIONS) == 8
    sentences = [in_words(row) for row in found.iter_rows(named=True)]
    assert sentences[1] == "Cross-entropy has changed by +1.000\u00a0±\u00a00.014."
    assert sum(sentence.startswith("Not measured: ") for sentence in sentences) == 14
    entropy = {"definition": "variance", "holds": False, "metric": "entropy", "statistic": -0.61, "error": 0.18}
    assert in_words(entropy) == "Entropy: 61\u00a0% ± 18.0 is gained."


@pytest.mark.parametrize("populations", [("naive",), tuple("abcdefg")])
def test_a_report_has_a_row_for_every_definition(tmp_path, populations):
    """Few populations leave room for when a definition holds; of many, that is in a table of its own."""
    data = RunReportData.of(invent(tmp_path, scenario({name: [] for name in populations}, sites=4, steps=3)))
    shown = str(sections(data)["profile"](data))
    first = shown.split("</table>")[0]
    assert all(f"<b>{definition.name}</b>" in first for definition in DEFINITIONS.values())
    assert ("holds if" in first) == (len(populations) == 1) and shown.count(DEFINITIONS["tails"].holds) == 1
    assert shown.count("Statistics: ") == len(populations)


def test_signals_are_told_in_the_order_in_which_they_leave():
    metrics = table(
        {"a": {"entropy": [5, 5, 4, 3], "distinct_2": [0.9, 0.5, 0.4, 0.3], "self_bleu": [0.1, 0.1, 0.1, 0.13]}}
    )
    found = signals.departures(signals.changes(metrics))
    assert found.select("signal", "step").rows() == [("distinct_2", 2), ("entropy", 3), ("self_bleu", None)]


def test_signals_of_unchanged_worlds_rarely_leave():
    """Independent noise of the stated size: one false alarm in twenty worlds, and not one in every signal."""
    noise, alarms = np.random.default_rng(1), 0
    for _ in range(60):
        course = {name: noise.normal(0, 1, 12) for name in ("entropy", "distinct_2", "self_bleu", "l1")}
        found = signals.departures(signals.changes(table({"a": course}, error=1.0)))
        alarms += bool(found["step"].drop_nulls().len())
    assert alarms <= 9  # probability of more: 1e-3


def test_signals_over_seeds_need_a_large_effect_and_significance():
    draws = np.random.default_rng(3)
    rows = [
        (seed, signal, step, size * (step - 1) + draws.normal(0, 0.1))
        for seed in range(8)
        for signal, size in (("entropy", -0.5), ("l1", 0.15), ("w2", 0.0))
        for step in range(2, 8)
    ]
    changes = pl.DataFrame(rows, schema=["seed", "signal", "step", "change"], orient="row")
    found = left(changes)
    steps = dict(found.select("signal", "step").iter_rows())
    assert steps["entropy"] == 2 and 2 < steps["l1"] < 7 and steps["w2"] is None
    assert found["signal"].to_list() == ["entropy", "l1", "w2"]
    assert left(changes.filter(pl.col("seed") < 2)).is_empty()


def test_the_interval_of_a_standardised_effect_covers_it():
    draws = np.random.default_rng(5)
    intervals = [standardised_interval(draws.normal(1.5, 1, 6)) for _ in range(400)]
    assert 0.92 < np.mean([i.low <= 1.5 <= i.high for i in intervals]) < 0.99
