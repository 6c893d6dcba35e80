"""Fits of a scaling law to the runs of a study, and human and machine text apart."""

from __future__ import annotations

import re
import tomllib
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ecosystem.corpus.schema import LEDGER, METRICS
from ecosystem.errors import DataError, ScenarioError
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies import law_fit
from ecosystem.studies.law_fit import FittedLaw, fit_law, points_of
from ecosystem.studies.origins import cell_table, mixed_cells, survival_of, survivals
from ecosystem.studies.report import write_study
from ecosystem.studies.report.data import StudyReportData, findings
from ecosystem.studies.results import CELL
from ecosystem.studies.spec.law_fit import LawFit
from ecosystem.theory.wild import wildai
from tests.studies.small_study import STUDY, load, results_of

TRUE = {
    "e": 1.5,
    "a": 12.0,
    "alpha": 0.4,
    "b": 60.0,
    "beta": 0.35,
    "eta": 0.5,
    "k": 3.0,
    "rho": 0.0,
    "gamma": 0.2,
    "u": 0.4,
    "v": 0.0,
}
FIT = LawFit(law="wildai", fixed={"rho": 0.0, "v": 0.0})


def invented(noise: float, values: dict[str, float] = TRUE, seeds: int = 3) -> pl.DataFrame:
    """Points of a grid of sizes, human tokens and ratios, with relative noise, and losses on machine text that fall."""
    rng, rows = np.random.default_rng(5), []
    grid = product((4e3, 1.6e4, 6.4e4), (1e4, 8e4, 6.4e5), (0.0, 1.0, 4.0, 16.0), range(1, seeds + 1))
    for size, human, ratio, seed in grid:
        loss = float(wildai(size, human, ratio, **values)) * float(np.exp(noise * rng.normal()))
        row = ("alone", "", seed, f"{size:g} {human:g} {ratio:g}", size, human * 1.01**seed, ratio, loss)
        rows.append((*row, 4.0 - 0.2 * np.log1p(ratio)))
    columns = ["of", "parameters", "human_tokens", "synthetic_ratio", "loss", "synthetic_loss"]
    return pl.DataFrame(rows, schema=[*CELL, *columns], orient="row")


@pytest.mark.slow
def test_a_fit_without_noise_finds_the_parameters():
    fitted = fit_law(FIT, invented(0.0).with_columns(human_tokens=pl.col("human_tokens") / 1.01 ** pl.col("seed")), 2)
    for name in FIT.free:
        assert fitted.values[name] == pytest.approx(TRUE[name], rel=2e-3, abs=2e-3)
    assert fitted.explained > 0.999999 and np.abs(fitted.residuals).max() < 1e-4
    assert fitted.values["rho"] == 0


@pytest.fixture(scope="module")
def noisy() -> FittedLaw:
    return fit_law(FIT, invented(0.004), 39)


@pytest.mark.slow
def test_intervals_hold_the_parameters(noisy):
    inside = [noisy.interval(name)[0] <= TRUE[name] <= noisy.interval(name)[1] for name in FIT.free]
    assert sum(inside) >= len(inside) - 1
    value, low, high = noisy.curve({"parameters": np.full(1, 1e4), "human_tokens": np.full(1, 1e5),
                                    "synthetic_ratio": np.full(1, 2.0)})  # fmt: skip
    assert low <= value <= high and high - low < 0.1


def test_losses_and_predictions_must_be_positive_numbers():
    zero = invented(0.0).with_columns(loss=pl.when(pl.col("loss") < 3).then(0.0).otherwise("loss"))
    with pytest.raises(DataError, match="a law of a positive loss, but cross_entropy is 0 for a model"):
        fit_law(FIT, zero)
    huge = LawFit(law="wildai", fixed={**{name: TRUE[name] for name in TRUE if name != "b"}, "v": -1e6})
    with pytest.raises(DataError, match=r"gives no finite positive loss .* change the values in fixed"):
        fit_law(huge, invented(0.0), 2)


@pytest.mark.slow
def test_a_parameter_without_effect_is_not_determined():
    """The worth of machine text, on a grid without any."""
    pure = invented(0.004).filter(pl.col("synthetic_ratio") == 0)
    fixed = {"k": 1.0, "rho": 0.0, "gamma": 0.0, "u": 0.0, "v": 0.0}
    fitted = fit_law(LawFit(law="wildai", fixed=fixed), pure, 3)
    assert not fitted.is_determined("eta") and fitted.is_determined("alpha") and fitted.is_determined("e")


def test_a_grid_with_fewer_cells_than_parameters_is_refused():
    few = invented(0.0).filter(pl.col("parameters") == 4e3, pl.col("human_tokens") < 2e4)
    with pytest.raises(DataError, match="9 parameters to fit, and there are 4 cells"):
        fit_law(FIT, few)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"law": "wildly"}, 'no scaling law "wildly" (did you mean "wildai"?)'),
        ({"law": "wildai", "fixed": {"aplha": 1.0}}, 'no parameter "aplha" (did you mean "alpha"?)'),
        ({"law": "wildai", "fixed": {"eta": -1.0}}, "fixed.eta: -1 is negative"),
        ({"law": "wildai", "metric": "cross_entropi"}, 'no metric "cross_entropi"'),
        ({"law": "wildai", "fixed": dict.fromkeys(TRUE, 1.0)}, "all parameters of the law are fixed"),
    ],
)
def test_a_wrong_fit_is_refused(fields, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        LawFit.model_validate(fields)


@pytest.mark.slow
def test_cells_are_compared_with_equal_models_on_the_same_human_text(noisy):
    cells = mixed_cells(noisy)
    assert len(cells) == 27 and {cell.synthetic_ratio for cell in cells} == {1, 4, 16}
    for cell in cells:
        losses = [wildai(cell.parameters, cell.human_tokens, ratio, **TRUE) for ratio in (cell.synthetic_ratio, 0)]
        assert cell.change == pytest.approx(float(losses[0] - losses[1]), abs=5 * cell.error + 0.02)
        on_machine = -0.2 * np.log1p(cell.synthetic_ratio)
        share = cell.synthetic_ratio / (1 + cell.synthetic_ratio)
        assert cell.mixed_change == pytest.approx((1 - share) * cell.change + share * on_machine)
        assert (cell.gain < 1) == cell.harmful and cell.low <= cell.gain <= cell.high
    assert any(cell.harmful for cell in cells) and not all(cell.harmful for cell in cells)
    assert all(cell.hidden for cell in cells if cell.harmful)
    assert cell_table(cells).height == 27


POLICIES = """
[policies.short]
kind = "length"
[policies.real]
kind = "inject_real"
source = "docs"
count = 5
"""
GRID = (
    """
name = "grid"
steps = 2
[sources.docs]
kind = "process"
[web]
kind = "complete"
sites = 1
initial = { source = "docs", documents = 50 }
[models.small]
kind = "gpt2"
init = "random"
n_layer = 1
n_embd = 8
n_head = 2
vocabulary = 300
context = 32
[trainers.new]
model = "small"
from = "scratch"
sites = 1
[trainers.old]
model = "small"
sites = 1
"""
    + POLICIES
)


def metric_rows(rows: list[tuple[int, str, str, str, float]]) -> pl.DataFrame:
    return pl.DataFrame([(*row, None) for row in rows], schema=METRICS, orient="row")


def test_points_are_models_trained_from_scratch_in_the_last_step():
    """Tokens are divided as bytes are; the size of an injected document is unknown."""
    scenario, rows = _parsed(GRID), []
    for step, name, member in product((1, 2), ("new", "old"), (0, 1)):
        rows.append((step, "trainer", f"{name}/{member}", "cross_entropy", 3.0 + step + member))
        rows.append((step, "trainer", f"{name}/{member}", "tokens_trained", 500.0 * step))
    kept = [(0, None, None, False), (1, None, None, False), (2, None, None, True), (3, None, None, True)]
    kept += [(9, "docs", None, False), (0, None, "short", False)]  # injected, and refused
    ledger = [(reader, *row) for reader in ("new/0", "old/0") for row in kept]
    columns = ["reader", "document", "source", "verdict", "synthetic"]
    schema = {name: LEDGER[name] for name in columns}
    sizes = pl.DataFrame({"doc": [0, 1, 2, 3], "size": [100, 100, 350, 400]}, schema_overrides={"size": pl.Int32})
    frames = metric_rows(rows), pl.DataFrame(ledger, schema=schema, orient="row"), sizes
    [point] = points_of(*frames, scenario, "cross_entropy")
    parameters = 300 * 8 + 32 * 8 + 12 * 8 * 8 + 13 * 8 + 2 * 8
    human = (200 + 237.5) / (950 + 237.5)  # the injected one counts as the mean of the others
    assert point == ("new", parameters, *map(pytest.approx, (1000 * human, 1 / human - 1, 5.5)), None)


def _parsed(text: str) -> Scenario:
    return Scenario.parse(tomllib.loads(text), where="", base=Path())


def test_survival_counts_what_filters_keep_of_either_origin():
    scenario, rows = _parsed(GRID), []
    for seed_step, kept in ((1, 10.0), (2, 30.0)):
        for policy in ("short", "real"):
            for name, value in (("kept_human", kept), ("refused_human", 90.0), ("kept_synthetic", 40.0),
                                ("refused_synthetic", 10.0)):  # fmt: skip
                rows.append((seed_step, "policy", f"new/0/{policy}", name, value))
    found = [*survival_of(metric_rows(rows), scenario)]
    assert found == [("new", "short", 220.0, 40.0, 100.0, 80.0)]  # an adder is no filter
    table = pl.DataFrame(
        [("a", "", seed, "new", "short", 100.0, human, 100.0, 60.0) for seed, human in ((1, 20.0), (2, 30.0))],
        schema=["arm", "world", "seed", "of", "policy", "human", "human_kept", "synthetic", "synthetic_kept"],
        orient="row",
    )
    [survival] = survivals(table)
    assert survival.ratio == pytest.approx(np.sqrt(3.0 * 2.0)) and survival.interval.low < survival.ratio
    assert (survival.human, survival.synthetic) == (pytest.approx(0.25), pytest.approx(0.6))


FITTED = STUDY + '[fit]\nlaw = "wildai"\nfixed = { rho = 0.0, v = 0.0 }\n'


def test_a_study_names_the_law_and_old_studies_keep_their_fingerprint(folder: Path):
    assert load(folder, FITTED).fit.free == FIT.free
    assert "fit" not in load(folder, STUDY).plain()
    with pytest.raises(ScenarioError, match=r'fit\.law: there is no scaling law "wild"'):
        load(folder, STUDY + '[fit]\nlaw = "wild"\n')


@pytest.mark.slow
def test_the_report_shows_the_fit_and_the_mixtures(folder: Path, monkeypatch):
    monkeypatch.setattr(law_fit, "_STARTS", 4)
    study = load(folder, FITTED)
    plain = results_of(study, [(arm, "", seed, 1.0 + seed) for arm in study.arms for seed in (1, 2, 3)])
    results = type(plain)(study, plain.runs, plain.values, plain.series, plain.costs, points=invented(0.004))
    store = Store(folder / "s")
    page = write_study(results, store).read_text()
    for part in ("The fitted law", "Machine text in training sets", "taken from a summary of its paper", "fixed"):
        assert part in page
    assert 'data-chart="law"' in page and 'data-chart="law_residuals"' in page
    parameters = pl.read_csv(folder / "s" / "fit.csv")
    assert parameters.filter(pl.col("fixed"))["parameter"].to_list() == ["rho", "v"]
    told = " ".join(findings(StudyReportData(results)))
    harmful = sum(cell.harmful for cell in StudyReportData(results).mixed)
    assert f"raises it in {harmful}" in told and f"{harmful} of the {harmful} harmful cells (100" in told


@pytest.mark.slow
def test_a_study_without_points_says_why_there_is_no_fit(folder: Path):
    study = load(folder, FITTED)
    empty = results_of(study, [("alone", "", 1, 2.0)])
    page = write_study(empty, Store(folder / "s")).read_text()
    assert page.count("9 parameters to fit, and there are 0 cells") == 2  # a finding, and in its section
