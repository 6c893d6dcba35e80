"""Designs of experiments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecosystem.errors import ScenarioError
from tests.studies.small_study import axes, load


@pytest.mark.parametrize("method", ["latin_hypercube", "sobol"])
def test_designs_spread_points_over_ranges(folder: Path, method: str) -> None:
    ranges = '"trainers.lab.publish" = { low = 10, high = 1000, scale = "log", whole = true }\n'
    ranges += '"policies.fresh.fraction" = { low = 0.0, high = 0.8 }'
    study = load(folder, axes(f'[design]\nmethod = "{method}"\npoints = 16', ranges))
    points = list(study.levers().values())
    counts = np.array([point["trainers.lab.publish"] for point in points])
    shares = np.array([point["policies.fresh.fraction"] for point in points])
    assert len(points) == 16 and counts.dtype.kind == "i" and 10 <= counts.min() < counts.max() <= 1000
    assert np.unique(np.floor(shares / 0.8 * 16)).size >= 15  # one in every sixteenth of the range (rounding aside)
    assert study.levers() == load(folder, axes(f'[design]\nmethod = "{method}"\npoints = 16', ranges)).levers()


def test_a_grid_of_a_range_and_a_spread_of_a_list_are_mistakes(folder: Path) -> None:
    with pytest.raises(ScenarioError, match="a grid design needs listed values"):
        load(folder, axes("", '"policies.fresh.fraction" = { low = 0.0, high = 0.8 }'))
    with pytest.raises(ScenarioError, match="a sobol design needs a range"):
        load(folder, axes('[design]\nmethod = "sobol"\npoints = 4', '"policies.fresh.fraction" = [0.1, 0.2]'))
    with pytest.raises(ScenarioError, match=r"design\.points: give the number of points"):
        load(folder, axes('[design]\nmethod = "sobol"', '"policies.fresh.fraction" = { low = 0.0, high = 0.8 }'))


def test_grids_have_an_end_and_no_value_twice(folder: Path) -> None:
    with pytest.raises(ScenarioError, match="has a value twice"):
        load(folder, axes("", '"trainers.lab.publish" = [20, 20]'))
    many = f'"trainers.lab.publish" = {list(range(1, 201))}\n"trainers.lab.scrape.docs" = {list(range(1, 201))}'
    with pytest.raises(ScenarioError, match="40,000 combinations of arms and worlds"):
        load(folder, axes("", many))
