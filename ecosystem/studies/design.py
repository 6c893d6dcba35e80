"""How the points of a study's axes are chosen: listed values, ranges, and designs that spread points over them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ecosystem.spec import Spec

Seed = Annotated[int, Field(ge=0, le=10**9)]


class Range(Spec):
    """The values an axis may take, for designs that choose them: uniform, or uniform in the logarithm."""

    low: float = Field(description="the smallest value")
    high: float = Field(description="the largest value")
    scale: Literal["linear", "log"] = Field("linear", description="how the values are spread")
    whole: bool = Field(False, description="true: rounded to whole numbers")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.scale == "log" and self.low <= 0:
            raise ValueError('scale = "log" needs low above 0')
        return self

    def at(self, u: float) -> float | int:
        """Return the value at the share ``u`` of the way from low to high."""
        if self.scale == "log":
            value = self.low * float((self.high / self.low) ** u)
        else:
            value = self.low + u * (self.high - self.low)
        return round(value) if self.whole else value


class Design(Spec):
    """How the points of the axes are chosen."""

    method: Literal["grid", "latin_hypercube", "sobol", "morris", "sensitivity"] = Field(
        "grid",
        description="grid: every combination of listed values; latin_hypercube, sobol: points spread over ranges; "
        "morris: screening by elementary effects; sensitivity: Sobol indices (both through SALib)",
    )
    points: Annotated[int, Field(ge=2, le=10**5)] | None = Field(
        None,
        description="not for a grid: points; of morris trajectories (k + 1 runs each, k axes); of sensitivity base "
        "points, a power of two (k + 2 runs each)",
    )
    seed: Seed = Field(1, description="of the design's own randomisation")

    @model_validator(mode="after")
    def _counted(self) -> Design:
        if self.method == "grid" and self.points is not None:
            raise ValueError("points: a grid has as many as there are combinations; leave it out")
        if self.method != "grid" and self.points is None:
            raise ValueError(f"points: say how many a {self.method} design has")
        if self.method in ("sobol", "sensitivity") and self.points is not None and self.points & (self.points - 1):
            raise ValueError(f"points: {self.points} is no power of two, as {self.method} sequences need")
        return self


Axes = dict[str, list[Any] | Range]


def designed(axes: Axes, design: Design, section: str, how: str) -> None:
    """Raise ValueError if these axes and this design do not go together."""
    if not axes:
        if design != Design():
            raise ValueError(f"{how}: there is nothing to choose points of; give {section}")
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
    """Return the points of a design by name."""
    named: dict[str, dict[str, Any]] = {}
    endings = [path.rsplit(".", 1)[-1] for path in axes]
    for values in _chosen(axes, design):
        shown = [
            f"{path if endings.count(ending) > 1 else ending}={_short(value)}"
            for (path, value), ending in zip(values.items(), endings, strict=True)
        ]
        label = ", ".join(shown)
        named[label if label not in named else f"{label} (point {len(named)})"] = values
    return named


def _chosen(axes: Axes, design: Design) -> Iterator[dict[str, Any]]:
    listed = {path: values for path, values in axes.items() if isinstance(values, list)}
    ranges = {path: values for path, values in axes.items() if isinstance(values, Range)}
    if listed:  # a grid: all axes are
        for row in itertools.product(*listed.values()):
            yield dict(zip(listed, row, strict=True))
        return
    for shares in _shares(len(ranges), design):
        yield {path: r.at(u) for (path, r), u in zip(ranges.items(), shares, strict=True)}


def _shares(k: int, design: Design) -> list[list[float]]:
    """Return the points of a design in the unit cube of ``k`` axes."""
    import numpy as np

    n = design.points or 0
    if design.method in ("morris", "sensitivity"):
        from ecosystem.studies.sensitivity import sample

        return sample(k, design)
    from scipy.stats import qmc

    kinds = {"latin_hypercube": qmc.LatinHypercube, "sobol": qmc.Sobol}
    points = kinds[design.method](k, rng=np.random.default_rng(design.seed)).random(n)
    rows: list[list[float]] = points.tolist()
    return rows


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
