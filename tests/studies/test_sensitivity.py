"""Sensitivity indices against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from ecosystem.errors import DataError
from ecosystem.studies.sensitivity import indices
from ecosystem.studies.spec.design import Design, unit_points


def test_sobol_indices_of_the_ishigami_function() -> None:
    """Closed forms with a = 7, b = 0.1: S1 = .3139, .4424, 0; ST = .5576, .4424, .2437 (Ishigami & Homma 1990)."""
    design = Design(method="sensitivity", points=1024)
    x = (2 * np.array(unit_points(3, design)) - 1) * np.pi
    y = np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])
    found = indices(["a", "b", "c"], design, y)
    for index, main, total in zip(found, (0.3139, 0.4424, 0.0), (0.5576, 0.4424, 0.2437), strict=True):
        assert abs(index.main - main) < 2 * index.main_half and abs(index.total - total) < 2 * index.total_half
        assert index.main_half < 0.15


def test_morris_screening_tells_the_axis_that_does_nothing() -> None:
    design = Design(method="morris", points=40)
    x = np.array(unit_points(3, design))
    linear, product, none = indices(["linear", "product", "none"], design, 2 * x[:, 0] + x[:, 0] * x[:, 1])
    assert none.main == 0 and none.total == 0
    assert linear.main > product.main > 0.3  # mean effects of 2.5 and 0.5
    assert product.total > 0.1  # the effect of one depends on the other


def test_a_design_with_a_hole_has_no_indices() -> None:
    with pytest.raises(DataError, match="1 of 16 points"):
        indices(["a", "b"], Design(method="sensitivity", points=4), np.array([np.nan, *np.ones(15)]))
