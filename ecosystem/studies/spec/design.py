"""Designs of experiments: a study's axes as listed values or ranges, and the points chosen on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from ecosystem.spec import Spec

Seed = Annotated[int, Field(ge=0, le=10**9)]
MORRIS_LEVELS = 4  # per axis, the usual choice


class Range(Spec):
    """The range of an axis, for designs that choose points uniformly on it or on its logarithm."""

    low: float = Field(description="the smallest value")
    high: float = Field(description="the largest value")
    scale: Literal["linear", "log"] = Field("linear", description="uniform in the value or in its logarithm")
    whole: bool = Field(False, description="round values to whole numbers")

    @model_validator(mode="after")
    def _check_ends(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f'low ({self.low:g}) must be above 0 for scale = "log"')
        return self

    def at(self, u: float) -> float | int:
        """Return the value at the fraction ``u`` (0 to 1) of the range."""
        if self.scale == "log":
            value = self.low * float((self.high / self.low) ** u)
        else:
            value = self.low + u * (self.high - self.low)
        return round(value) if self.whole else value


class Design(Spec):
    """The method that chooses points on the axes."""

    method: Literal["grid", "latin_hypercube", "sobol", "morris", "sensitivity"] = Field(
        "grid",
        description="grid: every combination of listed values; latin_hypercube, sobol: points spread over ranges; "
        "morris: screening by elementary effects; sensitivity: Sobol indices (both through SALib)",
    )
    points: Annotated[int, Field(ge=2, le=10**5)] | None = Field(
        None,
        description="number of points (not for a grid); for morris the number of trajectories, of k + 1 runs each for "
        "k axes; for sensitivity the number of base points, a power of two, of k + 2 runs each",
    )
    seed: Seed = Field(1, description="seed of the random choice of points")

    @model_validator(mode="after")
    def _check_points(self) -> Design:
        if self.method == "grid" and self.points is not None:
            raise ValueError("points: omit it; a grid has a point for every combination of values")
        if self.method != "grid" and self.points is None:
            raise ValueError(f"points: give the number of points of a {self.method} design")
        if self.method in ("sobol", "sensitivity") and self.points is not None and self.points & (self.points - 1):
            raise ValueError(f"points: {self.points} is not a power of two, which {self.method} designs require")
        return self


def _alternative(value: Any) -> str | None:
    return "<list>" if isinstance(value, list) else "<range>" if isinstance(value, dict | Range) else None


Axis = Annotated[
    Annotated[list[Any], Tag("<list>")] | Annotated[Range, Tag("<range>")],
    Discriminator(
        _alternative,
        custom_error_type="axis",
        custom_error_message="must be a list of values, or a range such as { low = 0.0, high = 1.0 }",
    ),
]
Axes = dict[str, Axis]


def check_axes(axes: Axes, design: Design, section: str, design_section: str) -> None:
    """Raise ValueError if axes do not fit their design.

    ``section`` and ``design_section`` are the tables of the file that define them, for the message.
    """
    if not axes:
        if design != Design():
            raise ValueError(f"{design_section}: there are no axes to choose points on; add {section}")
        return
    for path, values in axes.items():
        if isinstance(values, Range) == (design.method == "grid"):
            needs = "listed values, [ …, … ]" if design.method == "grid" else "a range, { low = …, high = … }"
            raise ValueError(f'{section}."{path}": a {design.method} design needs {needs}')
        if isinstance(values, list) and not values:
            raise ValueError(f'{section}."{path}": has no values')
        if isinstance(values, list) and any(value in values[:i] for i, value in enumerate(values)):
            raise ValueError(f'{section}."{path}": has a value twice')


def points(axes: Axes, design: Design) -> dict[str, dict[str, Any]]:
    """Return the points of a design: name → dotted path → value.

    A name lists the values by the last part of their paths, or by their full paths if the last parts are not unique.
    """
    named: dict[str, dict[str, Any]] = {}
    endings = [path.rsplit(".", 1)[-1] for path in axes]
    for values in _points(axes, design):
        parts = [
            f"{path if endings.count(ending) > 1 else ending}={_short(value)}"
            for (path, value), ending in zip(values.items(), endings, strict=True)
        ]
        name = ", ".join(parts)
        named[name if name not in named else f"{name} (point {len(named)})"] = values
    return named


def _points(axes: Axes, design: Design) -> Iterator[dict[str, Any]]:
    listed = {path: values for path, values in axes.items() if isinstance(values, list)}
    ranges = {path: values for path, values in axes.items() if isinstance(values, Range)}
    if listed:  # every axis of a grid is listed
        for row in itertools.product(*listed.values()):
            yield dict(zip(listed, row, strict=True))
        return
    for shares in unit_points(len(ranges), design):
        yield {path: r.at(u) for (path, r), u in zip(ranges.items(), shares, strict=True)}


def unit_points(k: int, design: Design) -> list[list[float]]:
    """Return the points of a design other than a grid in the unit cube of ``k`` axes, one row of length k each."""
    if design.method in ("morris", "sensitivity"):
        return _salib_points(k, design)
    import numpy as np
    from scipy.stats import qmc

    samplers = {"latin_hypercube": qmc.LatinHypercube, "sobol": qmc.Sobol}
    rows: list[list[float]] = (
        samplers[design.method](k, rng=np.random.default_rng(design.seed)).random(design.points or 0).tolist()
    )
    return rows


def _salib_points(k: int, design: Design) -> list[list[float]]:
    problem = salib_problem([str(i) for i in range(k)])
    if design.method == "morris":
        from SALib.sample import morris

        points = morris.sample(problem, design.points, num_levels=MORRIS_LEVELS, seed=design.seed)
    else:
        from SALib.sample import sobol

        points = sobol.sample(problem, design.points, calc_second_order=False, seed=design.seed)
    rows: list[list[float]] = points.tolist()
    return rows


def salib_problem(axes: list[str]) -> dict[str, Any]:
    """Return SALib's problem definition for axes that range from 0 to 1."""
    return {"num_vars": len(axes), "names": axes, "bounds": [[0.0, 1.0]] * len(axes)}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
