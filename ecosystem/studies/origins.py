"""Human and machine text apart: what machine text does to losses on either, and which origin filters prefer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
import polars as pl

from ecosystem.metrics.estimates import mean_and_error
from ecosystem.metrics.intervals import Interval, mean_interval
from ecosystem.policies.base import Filter
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.law_fit import LOSS, SYNTHETIC_LOSS, FittedLaw, percentiles
from ecosystem.theory.wild import compute_gain
from ecosystem.types import Floats

SURVIVAL = {
    "of": pl.String,  # a population of trainers, or web
    "policy": pl.String,
    "human": pl.Float64,  # documents that reached the filter
    "human_kept": pl.Float64,
    "synthetic": pl.Float64,
    "synthetic_kept": pl.Float64,
}
_NEEDED = {"e", "alpha", "beta"}  # parameters of a law of human text alone that a gain is computed from
_SAME_AMOUNT = math.log(1.15)  # most by which the human tokens of a cell and of its reference may differ


@dataclass(frozen=True)
class MixedCell:
    """What machine text in a training set does, compared with the same model on the human part of it alone.

    Changes are means over the seeds of both, with standard errors (NaN for one seed): of the loss on human text, and of
    that on a validation set that is mixed as the training set (NaN if losses on machine text were not measured).
    ``gain`` is the compute-equivalent gain, with its 95 % bootstrap interval.
    """

    arm: str
    world: str
    of: str
    parameters: float
    human_tokens: float
    synthetic_ratio: float
    change: float
    error: float
    mixed_change: float
    mixed_error: float
    gain: float
    low: float
    high: float

    @property
    def harmful(self) -> bool:
        """Whether the loss on human text is higher than without machine text."""
        return self.change > 0

    @property
    def hidden(self) -> bool:
        """Whether the cell is harmful, but looks harmless on the mixed validation set."""
        return self.harmful and self.mixed_change <= 0


@dataclass(frozen=True)
class Survival:
    """The shares of documents of either origin that a filter keeps in an arm and world, and their ratio.

    ``ratio`` is that of machine text to human text, with Student's interval of its logarithm over seeds; the interval
    is None for fewer than two seeds with a finite positive ratio.
    """

    arm: str
    world: str
    of: str
    policy: str
    human: float
    synthetic: float
    ratio: float
    interval: Interval | None


def mixed_cells(fitted: FittedLaw) -> list[MixedCell]:
    """Compare every cell with machine text with the cell of equal models and about equally many human tokens without.

    Empty if the law has no exponents of compute. A cell without such a reference, or no seed in common, is left out.
    """
    if not fitted.law.unknowns.keys() >= _NEEDED:
        return []
    cells = [part.sort("seed") for part in fitted.points.partition_by("arm", "world", "of", maintain_order=True)]
    pure = [cell for cell in cells if cell["synthetic_ratio"].max() == 0]
    mixed = [cell for cell in cells if cell["synthetic_ratio"].min() > 0]  # type: ignore[operator]
    pairs = [(cell, reference) for cell in mixed if (reference := _reference(cell, pure)) is not None]
    compared = [_mixed_cell(cell.join(reference, on="seed", suffix="_pure"), fitted) for cell, reference in pairs]
    return [cell for cell in compared if cell is not None]


def _reference(cell: pl.DataFrame, pure: Sequence[pl.DataFrame]) -> pl.DataFrame | None:
    """Return the cell without machine text that is nearest in human tokens, of the same model size and world."""
    alike = [c for c in pure if c["world"][0] == cell["world"][0] and c["parameters"][0] == cell["parameters"][0]]
    distances = [abs(math.log(_mean(c, "human_tokens") / _mean(cell, "human_tokens"))) for c in alike]
    nearest = min(range(len(alike)), key=distances.__getitem__, default=None)
    return alike[nearest] if nearest is not None and distances[nearest] < _SAME_AMOUNT else None


def _mean(cell: pl.DataFrame, column: str) -> float:
    return float(cell[column].to_numpy().mean())


def _mixed_cell(pairs: pl.DataFrame, fitted: FittedLaw) -> MixedCell | None:
    """Compare a cell with its reference; ``pairs`` has a row per seed, columns of the reference end in ``_pure``."""
    if pairs.is_empty():
        return None
    losses, pure = pairs[LOSS].to_numpy(), pairs[f"{LOSS}_pure"].to_numpy()
    ratio = pairs["synthetic_ratio"].to_numpy()
    on_machine = (pairs[SYNTHETIC_LOSS] - pairs[f"{SYNTHETIC_LOSS}_pure"]).cast(pl.Float64).to_numpy()
    change, error = mean_and_error(losses - pure)
    mixed_change, mixed_error = mean_and_error((losses - pure + ratio * on_machine) / (1 + ratio))
    gain = compute_gain(losses.mean(), pure.mean(), *(fitted.values[name] for name in ("e", "alpha", "beta")))
    low, high = percentiles([*_resampled_gains(losses, pure, fitted)])
    first = pairs.row(0, named=True)
    return MixedCell(
        arm=first["arm"],
        world=first["world"],
        of=first["of"],
        parameters=first["parameters"],
        human_tokens=_mean(pairs, "human_tokens"),
        synthetic_ratio=float(ratio.mean()),
        change=change,
        error=error,
        mixed_change=mixed_change,
        mixed_error=mixed_error,
        gain=float(gain),
        low=low,
        high=high,
    )


def _resampled_gains(losses: Floats, pure: Floats, fitted: FittedLaw) -> Iterator[float]:
    """Yield the gain for every bootstrap resample of the law, each with a resample of the seeds."""
    rng = np.random.default_rng(1)
    for values in fitted.resampled:
        seeds = rng.integers(0, losses.size, losses.size)
        yield float(
            compute_gain(losses[seeds].mean(), pure[seeds].mean(), *(values[n] for n in ("e", "alpha", "beta")))
        )


def cell_table(cells: Sequence[MixedCell]) -> pl.DataFrame:
    """Return the table of cells: the fields of :class:`MixedCell`."""
    schema = {f.name: pl.String if str(f.type) == "str" else pl.Float64 for f in fields(MixedCell)}
    return pl.DataFrame([astuple(cell) for cell in cells], schema=schema, orient="row")


def survival_of(metrics: pl.DataFrame, scenario: Scenario) -> Iterator[tuple[str, str, float, float, float, float]]:
    """Yield the columns SURVIVAL of every filter of a run, summed over trainers and steps."""
    rows = metrics.filter((pl.col("scope") == "policy") & pl.col("metric").str.contains("^(kept|refused)_"))
    parts = rows.with_columns(
        of=pl.col("id").str.split("/").list.first(), policy=pl.col("id").str.split("/").list.last()
    )
    sums = parts.group_by("of", "policy", "metric", maintain_order=True).agg(pl.col("value").sum())
    counts: dict[tuple[str, str], dict[str, float]] = {}
    for of, policy, metric, value in sums.iter_rows():
        if isinstance(scenario.policies.get(policy), Filter):
            counts.setdefault((of, policy), {})[metric] = value
    for (of, policy), count in counts.items():
        kept = [count.get(f"kept_{origin}", 0.0) for origin in ("human", "synthetic")]
        refused = [count.get(f"refused_{origin}", 0.0) for origin in ("human", "synthetic")]
        yield of, policy, kept[0] + refused[0], kept[0], kept[1] + refused[1], kept[1]


def survivals(table: pl.DataFrame) -> list[Survival]:
    """Return the survival of either origin at every filter that both reached; ``table``: arm, world, seed, SURVIVAL."""
    rows = table.filter((pl.col("human") > 0) & (pl.col("synthetic") > 0))
    return [_survival(seeds) for seeds in rows.partition_by("arm", "world", "of", "policy", maintain_order=True)]


def _survival(seeds: pl.DataFrame) -> Survival:
    """Return the survival at one filter; ``seeds`` has a row for each seed."""
    arm, world, of, policy = seeds.select("arm", "world", "of", "policy").row(0)
    shares = [(seeds[f"{origin}_kept"] / seeds[origin]).to_numpy() for origin in ("human", "synthetic")]
    human, synthetic = (float(share.mean()) for share in shares)
    both = (shares[0] > 0) & (shares[1] > 0)
    logs = np.log(shares[1][both] / shares[0][both])
    interval = None
    if logs.size > 1:
        log = mean_interval(logs)
        interval = Interval(math.exp(log.mean), math.exp(log.low), math.exp(log.high))
    ratio = synthetic / human if human > 0 else math.inf if synthetic > 0 else math.nan
    return Survival(arm, world, of, policy, human, synthetic, interval.mean if interval else ratio, interval)
