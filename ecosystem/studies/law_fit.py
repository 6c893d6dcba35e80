"""Fits of a scaling law to the models of a study: points read from its runs, parameters with intervals, residuals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from ecosystem.errors import DataError
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.spec.law_fit import LawFit
from ecosystem.theory.laws import QUANTITIES, ScalingLaw
from ecosystem.types import Floats, Ints

RESAMPLES = 199  # so that 2.5 % and 97.5 % are whole ranks
_STARTS = 24  # of the search, spread over the ranges of the parameters
_MOST = 150  # evaluations of a search
_TOLERANCE = 0.01  # relative residual above which a point counts less than with least squares
_VAGUE = 0.5  # share of the range of a parameter that its interval covers if the points do not determine it
_WORST = 50.0  # logarithmic residual of a prediction that is not a positive finite number

LOSS = "loss"  # column of points: the metric that the law describes
SYNTHETIC_LOSS = "synthetic_loss"  # on machine text, if it was measured
POINTS = {"of": pl.String, **dict.fromkeys([*QUANTITIES, LOSS, SYNTHETIC_LOSS], pl.Float64)}


def read_points(run: Run, scenario: Scenario, metric: str) -> list[tuple[Any, ...]]:
    """Return the points of a stored run: see :func:`points_of`."""
    last = scenario.steps
    ledger = run.store.table("ledger", range(last, last + 1))
    sizes = run.store.table("corpus", columns=("doc", "size"))
    return [*points_of(run.metrics, ledger, sizes, scenario, metric)]


def points_of(
    metrics: pl.DataFrame, ledger: pl.DataFrame, sizes: pl.DataFrame, scenario: Scenario, metric: str
) -> Iterator[tuple[Any, ...]]:
    """Yield the columns POINTS of each population that was trained from scratch in the last step of a run.

    ``ledger`` is that of the step, and ``sizes`` has the columns doc and size of every document. Tokens are divided
    among people and machines as bytes are. Values are means over the trainers of a population. Populations whose model
    has no parameters, that read no human text, or that keep an archive, are left out.
    """
    wanted = [metric, "cross_entropy_synthetic", "tokens_trained"]
    last = (pl.col("step") == scenario.steps) & (pl.col("scope") == "trainer") & pl.col("metric").is_in(wanted)
    rows = metrics.filter(last).with_columns(of=pl.col("id").str.split("/").list.first())
    means = rows.group_by("of", "metric", maintain_order=True).agg(pl.col("value").mean())
    values = {(of, name): value for of, name, value in means.iter_rows()}
    shares, scenario = _human_shares(ledger, sizes), scenario.at(scenario.steps)
    for of, trainer in scenario.trainers.items():
        loss, synthetic, tokens = (values.get((of, name)) for name in wanted)
        size = scenario.models[trainer.model].workload().parameters
        share = shares.get(of, 0.0)
        if trainer.start == "scratch" and trainer.retain is None and size and tokens and share > 0 and loss is not None:
            yield of, float(size), tokens * share, 1 / share - 1, loss, synthetic


def _human_shares(ledger: pl.DataFrame, sizes: pl.DataFrame) -> dict[str, float]:
    """Return population → human share of the bytes of its training sets, at one step.

    The sizes of injected documents are unknown; they count as much as the mean document of the web.
    """
    kept = ledger.filter(pl.col("verdict").is_null()).with_columns(
        doc=pl.when(pl.col("source").is_null()).then("document"), of=pl.col("reader").str.split("/").list.first()
    )
    sized = kept.join(sizes, on="doc", how="left").with_columns(pl.col("size").fill_null(pl.col("size").mean()))
    human = pl.col("size").filter(~pl.col("synthetic")).sum() / pl.col("size").sum()
    return dict(sized.group_by("of", maintain_order=True).agg(human).iter_rows())


@dataclass(frozen=True)
class FittedLaw:
    """A scaling law with fitted parameters: ``values`` of all, those of each bootstrap resample, and the points.

    ``errors`` are standard errors from the curvature at the optimum, as shares of the ranges of the parameters.
    ``points`` has the columns arm, world, seed, those of POINTS, and ``fitted``.
    """

    law: ScalingLaw
    fixed: Mapping[str, float]
    values: Mapping[str, float]
    errors: Mapping[str, float]
    resampled: list[dict[str, float]]
    points: pl.DataFrame

    def interval(self, name: str) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of a fitted parameter."""
        return percentiles([values[name] for values in self.resampled])

    def is_determined(self, name: str) -> bool:
        """Return whether the points determine a fitted parameter: its interval covers less than half of its range.

        Both the bootstrap interval and that of the curvature must, since a search does not move a parameter without
        effect.
        """
        low, high = _Scale(self.law, [name, name]).shares(np.array(self.interval(name)))
        return bool(max(high - low, 2 * 1.96 * self.errors[name]) < _VAGUE)

    def curve(self, inputs: Mapping[str, Floats]) -> tuple[Floats, Floats, Floats]:
        """Return the fitted law at inputs of one shape, and the ends of its 95 % bootstrap interval, pointwise."""
        drawn = np.array([predicted(self.law, inputs, values) for values in self.resampled])
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        return predicted(self.law, inputs, self.values), low, high

    @cached_property
    def residuals(self) -> Floats:
        """Measured minus fitted losses as shares of the fitted ones, shape [points]."""
        return np.asarray(self.points[LOSS].to_numpy() / self.points["fitted"].to_numpy() - 1)

    @cached_property
    def explained(self) -> float:
        """The share of the variance of the logarithms of losses that the law explains."""
        measured, fitted = (np.log(self.points[name].to_numpy()) for name in (LOSS, "fitted"))
        return 1 - float(((measured - fitted) ** 2).sum() / ((measured - measured.mean()) ** 2).sum())


def fit_law(fit: LawFit, points: pl.DataFrame, resamples: int = RESAMPLES) -> FittedLaw:
    """Fit a law to points (columns arm, world, seed and POINTS) by robust least squares on the logarithm of losses.

    The search starts from several places. Intervals come from a bootstrap over cells (arm, world and population), each
    with all its seeds, since the seeds of a cell have the same systematic deviation from the law. Raises DataError if
    there are no more cells than free parameters, if a loss is no positive number, and if the search finds no values of
    the free parameters with positive finite predictions.
    """
    losses = points[LOSS].to_numpy()
    if not _are_losses(losses):
        wrong = losses[~((losses > 0) & np.isfinite(losses))][0]
        raise DataError(
            f"fit: {fit.law} is a law of a positive loss, but {fit.metric} is {wrong:g} for a model; choose another "
            "metric."
        )
    cells = points.select("arm", "world", "of").unique(maintain_order=True).with_row_index("cell")
    if cells.height <= len(fit.free):
        raise DataError(
            f"fit: {fit.law} has {len(fit.free)} parameters to fit, and there are {cells.height} cells (populations of "
            "arms in worlds); add cells, or fix parameters (fixed)."
        )
    search = _Search(fit, {name: points[name].to_numpy() for name in fit.form.inputs}, losses)
    everything = np.arange(points.height)
    best = min((search.from_(start, everything) for start in search.starts()), key=lambda found: found.cost)
    values, errors = search.values(best.x), dict(zip(fit.free, _errors(best), strict=True))
    fitted = predicted(fit.form, search.inputs, values)
    if not _are_losses(fitted):
        raise DataError(
            f"fit: {fit.law} gives no finite positive loss for these models, whatever the parameters that are fitted; "
            "change the values in fixed, or leave some out."
        )
    rng = np.random.default_rng(1)
    cell = points.join(cells, on=["arm", "world", "of"], how="left", maintain_order="left")["cell"].to_numpy()
    rows = [np.flatnonzero(cell == number) for number in range(cells.height)]
    resampled = []
    for _ in range(resamples):
        drawn = np.concatenate([rows[number] for number in rng.integers(0, cells.height, cells.height)])
        resampled.append(search.values(search.from_(best.x, drawn).x))
    return FittedLaw(fit.form, fit.fixed, values, errors, resampled, points.with_columns(fitted=fitted))


def _are_losses(values: Floats) -> bool:
    return bool(((values > 0) & np.isfinite(values)).all())


def _errors(found: Any) -> list[float]:
    """Return the standard errors at an optimum of SciPy's, from the curvature there; infinite without any."""
    _, singular, directions = np.linalg.svd(found.jac, full_matrices=False)
    spread = math.sqrt(2 * found.cost / max(1, found.fun.size - found.x.size))
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.abs(directions.T) * (spread / singular)
    parts[np.isnan(parts)] = 0.0  # a direction that a parameter has no part in
    errors: list[float] = np.sqrt((parts**2).sum(axis=1)).tolist()
    return errors


def parameter_table(fitted: FittedLaw) -> pl.DataFrame:
    """Return a fitted law's parameters: parameter, value, low, high, fixed. Those that are fixed have no interval."""
    rows = [
        (name, value, *((None, None) if name in fitted.fixed else fitted.interval(name)), name in fitted.fixed)
        for name, value in fitted.values.items()
    ]
    kinds = {"parameter": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "fixed": pl.Boolean}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def predicted(law: ScalingLaw, inputs: Mapping[str, Floats], values: Mapping[str, float]) -> Floats:
    """Return the law's losses at inputs of one shape, for values of its parameters."""
    with np.errstate(all="ignore"):  # far from the optimum, a power may overflow
        return np.asarray(law.function(**{name: inputs[name] for name in law.inputs}, **values), dtype=np.float64)


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of resampled values that are not NaN; they may be infinite."""
    known = [value for value in values if value == value]
    if not known:
        return math.nan, math.nan
    low, high = np.quantile(known, [0.025, 0.975], method="inverted_cdf")  # no interpolation: inf - inf is NaN
    return float(low), float(high)


class _Scale:
    """The ranges of some parameters as the unit cube: on a logarithmic scale where only positive values are allowed."""

    def __init__(self, law: ScalingLaw, names: list[str]) -> None:
        unknowns = [law.unknowns[name] for name in names]
        self._log = np.array([unknown.is_scale for unknown in unknowns])
        self._low, self._high = (
            np.array([np.log(end) if unknown.is_scale else end for unknown, end in zip(unknowns, ends, strict=True)])
            for ends in ([u.low for u in unknowns], [u.high for u in unknowns])
        )

    def values(self, shares: Floats) -> Floats:
        """Return the parameters at shares of their ranges, both [parameters]."""
        places = self._low + shares * (self._high - self._low)
        return np.asarray(np.where(self._log, np.exp(np.where(self._log, places, 0.0)), places))

    def shares(self, values: Floats) -> Floats:
        """Return the places of parameters in their ranges, both [parameters]."""
        places = np.where(self._log, np.log(np.where(self._log, values, 1.0)), values)
        return np.asarray((places - self._low) / (self._high - self._low))


class _Search:
    """The search for the free parameters of a law, as shares of their ranges."""

    def __init__(self, fit: LawFit, inputs: Mapping[str, Floats], losses: Floats) -> None:
        self._fit, self.inputs, self._logs = fit, inputs, np.log(losses)
        self._scale = _Scale(fit.form, fit.free)

    def values(self, shares: Floats) -> dict[str, float]:
        """Return all parameters of the law, free and fixed."""
        free = dict(zip(self._fit.free, self._scale.values(shares).tolist(), strict=True))
        return {name: free.get(name, self._fit.fixed.get(name, np.nan)) for name in self._fit.form.unknowns}

    def starts(self) -> Floats:
        """Return the places that the search starts from, [starts, parameters]."""
        from scipy.stats import qmc

        places: Floats = qmc.LatinHypercube(len(self._fit.free), rng=np.random.default_rng(1)).random(_STARTS)
        return places

    def from_(self, start: Floats, rows: Ints) -> Any:
        """Return SciPy's result of a search from ``start`` for some points, by number."""
        from scipy.optimize import least_squares

        inputs, logs = {name: column[rows] for name, column in self.inputs.items()}, self._logs[rows]

        def residuals(shares: Floats) -> Floats:
            with np.errstate(all="ignore"):
                logarithm = np.log(predicted(self._fit.form, inputs, self.values(shares)))
            return np.asarray(np.clip(np.nan_to_num(logarithm - logs, nan=_WORST), -_WORST, _WORST))

        return least_squares(
            residuals, np.clip(start, 0, 1), bounds=(0, 1), loss="soft_l1", f_scale=_TOLERANCE, max_nfev=_MOST
        )
