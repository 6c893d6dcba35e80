"""The findings of a fit in sentences: what is known, what cannot be known, and how well held-out targets are met."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from ecosystem.fitting.identify import FEWEST
from ecosystem.fitting.results import FitResults
from ecosystem.formats import number, significant
from ecosystem.report.findings import bold, listed

UNKNOWN = 0.85  # posterior over prior standard deviation, above which targets say next to nothing
VAGUE = 0.5  # above which they say little
TIED = 0.8  # absolute posterior correlation of parameters that the targets cannot tell apart
_STRONG = 1.0  # shift in posterior standard deviations
_POOR = 0.5  # share of the variance that an emulator explains


def sentences(results: FitResults) -> list[str]:
    """Return the findings of a fit; text between double asterisks is bold."""
    return [
        *_known(results),
        *_unknown(results),
        *_tied(results),
        *_pulled(results),
        *_predicted(results),
        *_cautions(results),
    ]


def _known(results: FitResults) -> list[str]:
    found = []
    for row, ratio in zip(results.parameter_table.iter_rows(named=True), results.width_ratios, strict=True):
        if ratio <= UNKNOWN:
            unit = f" {row['unit']}" if row["unit"] else ""
            little = ", wide against its prior" if ratio > VAGUE else ""
            found.append(
                f"{bold(row['parameter'])} is {significant(row['mean'])}{unit} (90 % interval "
                f"{significant(row['low'])} to {significant(row['high'])}{little}; before the fit "
                f"{significant(row['prior_low'])} to {significant(row['prior_high'])})."
            )
    return found


def _unknown(results: FitResults) -> list[str]:
    names = [bold(n) for n, r in zip(results.fit.names, results.width_ratios, strict=True) if r > UNKNOWN]
    if not names:
        return []
    return [f"The targets say next to nothing of {listed(names)}: after the fit, no more is known than before."]


def _tied(results: FitResults) -> list[str]:
    pairs = results.correlations.filter((pl.col("value").abs() > TIED) & (pl.col("x") < pl.col("y")))
    return [
        f"The targets hardly tell {bold(x)} and {bold(y)} apart (posterior correlation {number(r)}): only a "
        "combination of the two is known."
        for x, y, r in pairs.iter_rows()
    ]


def _pulled(results: FitResults) -> list[str]:
    found = []
    groups = {target.part for target in results.targets}
    for pull in results.pulls:
        if pull.label not in groups or len(groups) < 2:
            continue
        if pull.effective < FEWEST:
            found.append(
                f"Without {pull.label} the posterior is so different that the shifts below are only roughly known "
                f"({pull.effective:.0f} effective points)."
            )
            continue
        for i, name in enumerate(results.fit.names):
            if abs(pull.shift[i]) > _STRONG:
                way = "up" if pull.shift[i] > 0 else "down"
                found.append(
                    f"{pull.label} pulls {bold(name)} {way} by {number(abs(float(pull.shift[i])), 1)} posterior "
                    "standard deviations."
                )
    return found


def _predicted(results: FitResults) -> list[str]:
    found = []
    met, count = results.coverage("fit")
    found.append(f"{met} of {count} fitted targets are within the 90 % interval of runs at posterior samples.")
    met, count = results.coverage("predict")
    if count:
        worst = results.target_table.filter(pl.col("use") == "predict").sort(pl.col("z").abs(), descending=True)
        row = worst.row(0, named=True)
        what = row["quantity"] if row["id"] is None else f"{row['id']}: {row['quantity']}"
        when = row["date"] or f"step {row['step']}"
        found.append(
            f"{met} of {count} held-out targets are within theirs; the largest deviation is that of {what} at {when} "
            f"(observed {row['observed']:.3g}, predicted {row['simulated']:.3g}, z = {number(row['z'], 1)})."
        )
    return found


def _cautions(results: FitResults) -> list[str]:
    found = []
    if not results.posterior.converged:
        ratio, effective = results.posterior.ratio.max(), results.posterior.effective.min()
        found.append(
            f"The sampler has not converged (R̂ up to {ratio:.3f}, at least {effective:.0f} effective samples): "
            "intervals are approximate."
        )
    used = [int(i) for i in results.likelihood.used]
    poor = [results.targets[i].label for i in used if results.emulator.explained[i] < _POOR]
    if poor:
        more = f" and {len(poor) - 3} more" if len(poor) > 3 else ""
        found.append(
            f"The parameters explain less than half of the differences between trials in {listed(poor[:3])}{more}: "
            "these are noise, or need more trials."
        )
    variance = results.likelihood.emulator.predict(results.posterior.u[:500])[1].mean(axis=0)
    share = float(np.mean(variance / (variance + results.likelihood.covariance.diagonal())))
    if share > 0.25:
        found.append(
            f"On average {100 * share:.0f} % of the variance at the targets is that of the emulator: more trials would "
            "make the intervals narrower."
        )
    failed = sum(trial.state == "failed" for trial in results.trials)
    if failed:
        found.append(f"{failed} of {len(results.trials)} trials failed and are left out.")
    return found


def summary(results: FitResults) -> dict[str, Any]:
    """Return a machine-readable summary of a fit."""
    states = [trial.state for trial in results.trials]
    return {
        "fitted": results.fitted,
        "parameters": results.parameter_table.to_dicts(),
        "converged": results.posterior.converged,
        "coverage": {use: results.coverage(use) for use in ("fit", "predict")},
        "trials": {state: states.count(state) for state in dict.fromkeys(states)},
        "findings": [sentence.replace("**", "") for sentence in sentences(results)],
    }
