"""Studies over worlds drawn from the posterior of a fit: pooled results, and effects with what is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
import polars as pl
from scipy import stats

from ecosystem.metrics.intervals import LEVEL
from ecosystem.studies.results import Results


@dataclass(frozen=True)
class PosteriorEffect:
    """The effect of an arm on a measure over worlds drawn from a posterior.

    ``low`` and ``high`` are the ends of the 95 % interval in which the effect in one more world of the posterior lies
    (Student's prediction interval over draws, each the mean over its seeds): they contain what is unknown of the
    parameters. ``mean_low`` and ``mean_high`` are those of the mean effect, which more draws narrow. ``better`` is the
    share of draws in which the arm is better than the base arm, ``best`` that in which it is the best of all arms.
    """

    measure: str
    arm: str
    draws: int
    base_mean: float
    effect: float
    low: float
    high: float
    mean_low: float
    mean_high: float
    unpaired_low: float
    unpaired_high: float
    better: float
    best: float


def pooled(results: Results) -> Results:
    """Return the results with draws in place of seeds and one world, values and costs as means over the seeds of each.

    Draws are independent, the seeds of one draw are not; so draws are the blocks of all comparisons.
    """
    draws = list(results.study.settings())
    number = pl.col("world").replace_strict(draws, range(len(draws)), return_dtype=pl.Int64)
    seeds = results.study.seeds
    replicate = pl.col("seed").replace_strict(seeds, range(len(seeds)), return_dtype=pl.Int64)

    def averaged(table: pl.DataFrame, value: str) -> pl.DataFrame:
        blocks = table.with_columns(seed=number, world=pl.lit(""))
        keys = [name for name in table.columns if name != value]
        return blocks.group_by(keys, maintain_order=True).agg(pl.col(value).mean()).select(table.columns)

    def renamed(table: pl.DataFrame) -> pl.DataFrame:
        return table.with_columns(seed=number * len(seeds) + replicate, world=pl.lit(""))

    return replace(
        results,
        study=results.study.model_copy(update={"worlds": {}, "seeds": list(range(len(draws)))}),
        values=averaged(results.values, "value"),
        series=averaged(results.series, "value"),
        costs=averaged(results.costs, "amount"),
        training=renamed(results.training),
        profile=renamed(results.profile),
        signals=renamed(results.signals),
    )


def posterior_effects(results: Results) -> list[PosteriorEffect]:
    """Return the effect of every arm on every measure; ``results`` are those before pooling.

    Only draws in which all arms have a finite value count; a measure with fewer than three has no rows.
    """
    blocks = pooled(results)
    study, found = blocks.study, []
    for measure in study.measures:
        table = blocks.values.filter((pl.col("measure") == measure.name) & pl.col("value").is_finite())
        wide = table.pivot("arm", index="seed", values="value", maintain_order=True).drop_nulls()
        arms = [arm for arm in study.levers() if arm in wide.columns]
        if wide.height < 3 or study.base_arm not in arms:
            continue
        sign = -1 if measure.lower_is_better else 1
        values = np.array([wide[arm].to_numpy() for arm in arms])
        best = (sign * values).argmax(axis=0)
        base = values[arms.index(study.base_arm)]
        for i, arm in enumerate(arms):
            if arm == study.base_arm:
                continue
            difference = values[i] - base
            mean, n = float(difference.mean()), difference.size
            half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * float(difference.std(ddof=1))
            apart = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * float(
                np.hypot(values[i].std(ddof=1), base.std(ddof=1))
            )
            wider, narrower = half * np.sqrt(1 + 1 / n), half / np.sqrt(n)
            found.append(
                PosteriorEffect(
                    measure=measure.name,
                    arm=arm,
                    draws=n,
                    base_mean=float(base.mean()),
                    effect=mean,
                    low=mean - wider,
                    high=mean + wider,
                    mean_low=mean - narrower,
                    mean_high=mean + narrower,
                    unpaired_low=mean - apart * np.sqrt(1 + 1 / n),
                    unpaired_high=mean + apart * np.sqrt(1 + 1 / n),
                    better=float((sign * difference > 0).mean()),
                    best=float((best == i).mean()),
                )
            )
    return found


def posterior_effect_table(rows: Sequence[PosteriorEffect]) -> pl.DataFrame:
    """Return the table of effects over a posterior: the fields of :class:`PosteriorEffect`."""
    kinds = {"str": pl.String, "int": pl.Int64, "float": pl.Float64}
    schema = {field.name: kinds[str(field.type)] for field in fields(PosteriorEffect)}
    return pl.DataFrame([astuple(row) for row in rows], schema=schema, orient="row")
