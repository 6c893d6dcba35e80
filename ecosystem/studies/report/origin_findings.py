"""Sentences on a fitted law, on what machine text does to losses, and on which origin filters prefer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecosystem.formats import counted, number, percent
from ecosystem.report.findings import listed
from ecosystem.studies.law_fit import FittedLaw
from ecosystem.studies.origins import MixedCell, Survival
from ecosystem.studies.spec.law_fit import LawFit

_LISTED = 6  # filters, at most, in a sentence


def fit_findings(fit: LawFit, fitted: FittedLaw) -> list[str]:
    """State how well the law describes the points, and which parameters they do not determine."""
    cells = fitted.points.select("arm", "world", "of").n_unique()
    spread = float(np.sqrt((fitted.residuals**2).mean()))
    sentences = [
        f"**{fit.law}**, fitted to {counted(fitted.points.height, 'model')} in {counted(cells, 'cell')}, explains "
        f"{percent(fitted.explained)} of the variance of log {fit.metric}; root mean square residual {percent(spread)}."
    ]
    undetermined = [name for name in fit.free if not fitted.is_determined(name)]
    if undetermined:
        sentences.append(
            f"These points do not determine {listed(undetermined)} of {fit.law}: the interval covers more than half of "
            "the range. Add cells, or fix some parameters (fixed)."
        )
    if fitted.fixed:
        given = listed([f"{name} = {value:g}" for name, value in fitted.fixed.items()])
        sentences.append(f"Not fitted, but set by the study: {given}.")
    return sentences


def mixture_findings(cells: Sequence[MixedCell]) -> list[str]:
    """State in how many cells machine text does harm, and how often a mixed validation set hides that."""
    if not cells:
        return []
    harmful = [cell for cell in cells if cell.harmful]
    gains = sorted(cell.gain for cell in cells)
    sentences = [
        f"Machine text lowers the loss on human text in {len(cells) - len(harmful)} of {counted(len(cells), 'cell')} "
        f"and raises it in {len(harmful)}; its compute-equivalent gain is from {_factor(gains[0])} to "
        f"{_factor(gains[-1])}."
    ]
    measured = [cell for cell in harmful if np.isfinite(cell.mixed_change)]
    if measured:
        hidden = sum(cell.hidden for cell in measured)
        sentences.append(
            f"On a validation set that is mixed as the training set, {hidden} of the {len(measured)} harmful cells "
            f"({percent(hidden / len(measured))}) look harmless."
        )
    return sentences


def survival_findings(rows: Sequence[Survival]) -> list[str]:
    """State which filters keep a larger share of machine text than of human text, or a smaller one, significantly."""
    sentences = []
    for kind in ("machine", "human"):
        group = [r for r in rows if r.interval and (r.interval.low > 1 if kind == "machine" else r.interval.high < 1)]
        if group:
            names = listed([f"**{r.policy}** of {r.of} in {r.arm} ({_factor(r.ratio)})" for r in group[:_LISTED]])
            more = f" and {len(group) - _LISTED} more" if len(group) > _LISTED else ""
            sentences.append(f"Filters that prefer {kind} text (share kept, machine over human): {names}{more}.")
    return sentences


def _factor(value: float) -> str:
    return f"{number(value, 2 if value < 10 else 0)} ×" if np.isfinite(value) else "∞"
