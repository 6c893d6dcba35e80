"""How much each axis matters: Morris screening and Sobol indices, through SALib, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecosystem.errors import DataError
from ecosystem.types import Floats

if TYPE_CHECKING:
    from ecosystem.studies.design import Design

_ROUNDING = 1e-12  # of the size of the measure: below it an index is what rounding left, and 0
_LEVELS = 4  # of a Morris design, as is usual


@dataclass(frozen=True)
class Index:
    """What one axis does to a measure; ``half`` values are half the 95 % interval (bootstrap), NaN where there is none.

    Sobol (Saltelli et al. 2010, Jansen 1999): ``main`` is the share of the variance that the axis explains alone,
    ``total`` with all its interactions. Morris (1991; Campolongo et al. 2007): ``main`` is mu*, the mean size of its
    elementary effects, in the unit of the measure over the whole range; ``total`` is sigma, their spread, which says
    of interactions and curvature.
    """

    axis: str
    main: float
    main_half: float
    total: float
    total_half: float


def problem(axes: list[str]) -> dict[str, Any]:
    """Return what SALib calls a problem: the axes, each from 0 to 1."""
    return {"num_vars": len(axes), "names": axes, "bounds": [[0.0, 1.0]] * len(axes)}


def sample(k: int, design: Design) -> list[list[float]]:
    """Return the points of a Morris or Sobol design in the unit cube, shape [points, k]."""
    of = problem([str(i) for i in range(k)])
    if design.method == "morris":
        from SALib.sample import morris

        points: Floats = morris.sample(of, design.points, num_levels=_LEVELS, seed=design.seed)
    else:
        from SALib.sample import sobol

        points = sobol.sample(of, design.points, calc_second_order=False, seed=design.seed)
    rows: list[list[float]] = points.tolist()
    return rows


def indices(axes: list[str], design: Design, y: Floats) -> list[Index]:
    """Return the index of each axis from the measure at every point of the design, y [points], in their order.

    Raises DataError where a point has no finite value: neither method knows what to do without it.
    """
    missing = int((~np.isfinite(y)).sum())
    if missing:
        raise DataError(f"{missing} of {y.size} points have no value, and a {design.method} design needs all of them.")
    of = problem(axes)
    if np.ptp(y) == 0:
        return [Index(axis, 0.0, 0.0, 0.0, 0.0) for axis in axes]
    if design.method == "morris":
        from SALib.analyze import morris

        x = np.array(sample(len(axes), design))
        found = morris.analyze(of, x, y, num_levels=_LEVELS, seed=design.seed)
        columns = (found["mu_star"], found["mu_star_conf"], found["sigma"], np.full(len(axes), np.nan))
    else:
        from SALib.analyze import sobol

        found = sobol.analyze(of, y, calc_second_order=False, seed=design.seed)
        columns = (found["S1"], found["S1_conf"], found["ST"], found["ST_conf"])
    noise = _ROUNDING * (float(np.abs(y).max()) if design.method == "morris" else 1.0)
    exact = [np.where(np.abs(column) < noise, 0.0, column) for column in columns]
    return [Index(axis, *(float(c[i]) for c in exact)) for i, axis in enumerate(axes)]
