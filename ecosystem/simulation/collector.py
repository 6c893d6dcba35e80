"""The main series of a world, as Mesa's data collector and as a card: the web, mean over trainers, each trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import mesa

from ecosystem.cards import Grid, card
from ecosystem.formats import counted
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.agents import Trainer

SERIES = {  # main metrics by kind of document
    "text": ("cross_entropy", "distinct_2"),
    "vector": ("mean_error", "variance", "w2"),
    "category": ("gini_simpson", "support", "entropy"),
}


class Measured(Protocol):
    """A world whose last step has been measured."""

    @property
    def measured(self) -> dict[tuple[str, str, str], float]:
        """The measurements of the last step by scope, id and metric."""

    @property
    def t(self) -> int:
        """The number of the last step begun."""

    @property
    def trainers(self) -> list[Trainer]:
        """All trainers."""

    @property
    def current_scenario(self) -> Scenario:
        """The scenario in force."""


def collector(world: Measured) -> mesa.DataCollector:
    """Make the collector of a world; it gets a row for every step computed by this world object."""
    series = SERIES[world.current_scenario.modality]

    def of_web(metric: str) -> Callable[[Measured], float | None]:
        return lambda world: world.measured.get(("web", "web", metric))

    def on_average(metric: str) -> Callable[[Measured], float | None]:
        def mean(world: Measured) -> float | None:
            values = [world.measured.get(("trainer", trainer.name, metric)) for trainer in world.trainers]
            present = [value for value in values if value is not None]
            return sum(present) / len(present) if present else None

        return mean

    def of_one(scope: str, metric: str) -> Callable[[Any], float | None]:
        return lambda trainer: trainer.model.measured.get((scope, trainer.name, metric))

    each = {metric: of_one("trainer", metric) for metric in series}
    each |= {f"training_set_{metric}": of_one("training_set", metric) for metric in ("synthetic_share", "depth")}
    return mesa.DataCollector(
        model_reporters={
            "t": "t",
            **{f"web_{metric}": of_web(metric) for metric in ("documents", "synthetic_share", "depth")},
            **{metric: on_average(metric) for metric in series},
        },
        agenttype_reporters={Trainer: {"name": "name", **each}} if world.current_scenario.trainers else {},
    )


def world_line(world: Measured) -> str:
    """Return a world in one line: its scenario, its step and its agents."""
    scenario = world.current_scenario
    return f"<World {scenario.name}: step {world.t} of {scenario.steps}, {counted(len(world.trainers), 'trainer')}>"


def world_card(world: Measured) -> str:
    """Return the card of a world: the measurements of its last step, if there are any. Nothing is computed for it."""
    scenario, measured = world.current_scenario, world.measured
    series = [
        *(("trainer", metric, metric) for metric in SERIES[scenario.modality]),
        *(("training_set", metric, f"{metric} of training set") for metric in ("synthetic_share", "depth")),
    ]
    shown = [
        (scope, metric, title)
        for scope, metric, title in series
        if any((scope, trainer.name, metric) in measured for trainer in world.trainers)
    ]
    rows = [
        (trainer.name, *(measured.get((scope, trainer.name, metric)) for scope, metric, _ in shown))
        for trainer in world.trainers
    ]
    web = {metric: measured.get(("web", "web", metric)) for metric in ("documents", "synthetic_share", "depth")}
    facts: dict[str, str | None] = {"step": f"{scenario.step_name(world.t).removeprefix('step ')} of {scenario.steps}"}
    facts |= {metric.replace("_", " "): None if value is None else f"{value:,.4g}" for metric, value in web.items()}
    return card(
        f"World {scenario.name}",
        scenario.description,
        facts,
        Grid("Trainers", ["trainer", *(t for *_, t in shown)], rows),
    )
