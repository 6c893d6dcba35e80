"""Callbacks: objects that are called when a run begins, after every committed step, and when it ends.

No number of a run depends on its callbacks. Built-in ones have a name; third-party ones come through the entry point
group ``ecosystem.callbacks``, whose entries name a class or function that makes a callback without arguments.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import polars as pl

from ecosystem.corpus.schema import METRICS, TIMINGS, empty
from ecosystem.errors import EcosystemError, nearest

GROUP = "ecosystem.callbacks"
BUILT_IN = {
    "mlflow": "ecosystem.runs.callbacks.mlflow:MLflow",
    "tensorboard": "ecosystem.runs.callbacks.tensorboard:TensorBoard",
    "wandb": "ecosystem.runs.callbacks.wandb:WandB",
}
_NOT_DRAWN = ("site", "domain")  # scopes with a series per site, or per domain of every trainer


@dataclass(frozen=True)
class RunStart:
    """A run that begins or is resumed.

    ``place`` is its folder or URL, and ``folder`` its folder on this machine. ``scenario`` is the resolved scenario as
    plain values, ``fingerprint`` its identity, ``steps`` the number of steps planned. ``last`` is the last step that
    was committed before this call (-1: none), and ``metrics`` and ``timings`` hold the tables of all steps so far, so
    that a callback can draw what it has missed (columns of ``schema.METRICS``; ``step`` and ``schema.TIMINGS``).
    """

    place: str
    folder: Path
    name: str
    seed: int
    fingerprint: str
    scenario: Mapping[str, Any]
    steps: int
    last: int = -1
    metrics: pl.DataFrame = field(default_factory=lambda: empty(METRICS))
    timings: pl.DataFrame = field(default_factory=lambda: empty({"step": pl.Int32(), **TIMINGS}))

    def curves(self, after: int = -1) -> Iterator[tuple[int, str, float]]:
        """Yield (step, tag, value) of the steps after ``after``: measurements, then the seconds of phases."""
        later = pl.col("step") > after
        yield from metric_curves(self.metrics.filter(later))
        yield from time_curves(self.timings.filter(later))


@dataclass(frozen=True)
class StepReport:
    """A step that has been committed.

    ``t`` is its number (0: the opening of the web), ``metrics`` its measurements (columns of ``schema.METRICS``),
    ``timings`` the seconds of its phases by agent (columns of ``schema.TIMINGS``), and ``events`` its sentences.
    """

    t: int
    metrics: pl.DataFrame
    timings: pl.DataFrame = field(default_factory=lambda: empty(TIMINGS))
    events: tuple[str, ...] = ()

    def curves(self) -> Iterator[tuple[int, str, float]]:
        """Yield (step, tag, value) of this step: measurements, then the seconds of phases."""
        yield from metric_curves(self.metrics)
        yield from time_curves(self.timings.with_columns(step=pl.lit(self.t)))


Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class RunEnd:
    """The end of a call: ``last`` is the last committed step; ``message`` says what went wrong, if anything did."""

    status: Status
    last: int
    message: str = ""


@runtime_checkable
class Callback(Protocol):
    """An object that follows a run; it must not change anything that it is given."""

    def begin(self, run: RunStart) -> None:
        """Begin: called once, before the first step of this call is reported."""

    def step(self, step: StepReport) -> None:
        """Take note of a committed step."""

    def end(self, run: RunEnd) -> None:
        """End: called once, if ``begin`` was, also after an error or an interruption."""


def metric_curves(metrics: pl.DataFrame) -> Iterator[tuple[int, str, float]]:
    """Yield (step, tag, value) for the finite measurements that are drawn as curves, in the order of the table.

    A tag is ``SCOPE_METRIC/ID``, such as ``trainer_cross_entropy/naive/0``, so that viewers put one metric of several
    agents together. Series of single sites and domains are left out: there may be thousands.
    """
    for step, scope, who, metric, value, _ in metrics.iter_rows():
        if scope not in _NOT_DRAWN and value is not None and math.isfinite(value):
            yield step, f"{scope}_{metric}/{who}", value


def time_curves(timings: pl.DataFrame) -> Iterator[tuple[int, str, float]]:
    """Yield (step, ``seconds/PHASE``, seconds) for every phase of every step, from a table with the column ``step``."""
    yield from (
        timings.group_by("step", "phase", maintain_order=True)
        .agg(pl.col("seconds").sum())
        .select("step", pl.format("seconds/{}", "phase"), "seconds")
        .iter_rows()
    )


def names() -> list[str]:
    """Return the names of all callbacks, built-in and plugged in."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def made(callbacks: Iterable[str | Callback]) -> list[tuple[str, Callback]]:
    """Return callbacks with their names, made from names where they are named; a name counts once.

    Raises EcosystemError for an unknown name, one whose package is missing, and objects that are no callbacks.
    """
    if isinstance(callbacks, str) or not isinstance(callbacks, Iterable):
        raise EcosystemError(
            f'callbacks: give a list of names or objects, such as ["tensorboard"], not {callbacks!r:.80}.'
        )
    chosen: dict[str, Callback] = {}
    for callback in callbacks:
        if isinstance(callback, str):
            if callback not in chosen:
                chosen[callback] = _from_name(callback)
        elif isinstance(callback, Callback) and not isinstance(callback, type):
            chosen[f"{len(chosen) + 1} ({type(callback).__name__})"] = callback
        else:
            raise EcosystemError(
                f"callbacks: {callback!r:.80} is neither a name nor an object with the methods begin, step and end."
            )
    return list(chosen.items())


def _from_name(name: str) -> Callback:
    if name in BUILT_IN:
        module, _, maker = BUILT_IN[name].partition(":")
        made_one = getattr(import_module(module), maker)()
    else:
        made_one = _plugged_in(name).load()()
    if not isinstance(made_one, Callback):
        raise EcosystemError(
            f'--callback {name}: its entry point in "{GROUP}" makes {made_one!r:.80}, which lacks one of the methods '
            "begin, step and end."
        )
    return made_one


def _plugged_in(name: str) -> EntryPoint:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise EcosystemError(
            f"--callback {name}: there is no such callback{nearest(name, names())}; there are {', '.join(names())}. "
            f'A package adds one as an entry point of the group "{GROUP}".'
        )
    return points[name]
