"""Sensitivity indices of the axes, by Morris screening or Sobol's method (SALib), with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecosystem.errors import DataError
from ecosystem.studies.spec.design import MORRIS_LEVELS, Design, salib_problem, unit_points
from ecosystem.types import Floats

_ROUNDING = 1e-12  # smaller indices (relative to the measure) are rounding errors and set to 0


@dataclass(frozen=True)
class Index:
    """The indices of one axis for a measure; ``*_half`` is half of the 95 % bootstrap interval, or NaN.

    Sobol (Saltelli et al. 2010, Jansen 1999): ``main`` is the share of the variance that the axis explains alone,
    ``total`` the share that it explains with all its interactions. Morris (1991; Campolongo et al. 2007): ``main`` is
    mu*, the mean absolute elementary effect, in the unit of the measure over the whole range; ``total`` is sigma, the
    standard deviation of the elementary effects, which indicates interactions and curvature.
    """

    axis: str
    main: float
    main_half: float
    total: float
    total_half: float


def indices(axes: list[str], design: Design, y: Floats) -> list[Index]:
    """Return the indices of each axis from the measure at all points of the design in order, y [points].

    Raises DataError if a value is not finite, since neither method allows missing points.
    """
    missing = int((~np.isfinite(y)).sum())
    if missing:
        raise DataError(f"{missing} of {y.size} points have no value; a {design.method} design needs all of them.")
    if np.ptp(y) == 0:
        return [Index(axis, 0.0, 0.0, 0.0, 0.0) for axis in axes]
    problem = salib_problem(axes)
    if design.method == "morris":
        from SALib.analyze import morris

        x = np.array(unit_points(len(axes), design))
        estimates = morris.analyze(problem, x, y, num_levels=MORRIS_LEVELS, seed=design.seed)
        names = ("mu_star", "mu_star_conf", "sigma")
        columns = [*(estimates[name] for name in names), np.full(len(axes), np.nan)]
    else:
        from SALib.analyze import sobol

        estimates = sobol.analyze(problem, y, calc_second_order=False, seed=design.seed)
        columns = [estimates[name] for name in ("S1", "S1_conf", "ST", "ST_conf")]
    noise = _ROUNDING * (float(np.abs(y).max()) if design.method == "morris" else 1.0)
    cleaned = [np.where(np.abs(column) < noise, 0.0, column) for column in columns]
    return [Index(axis, *(float(c[i]) for c in cleaned)) for i, axis in enumerate(axes)]
