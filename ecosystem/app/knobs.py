"""The knobs of the page: those of the scenario file or, if it names none, the most useful paths."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from ecosystem.scenario.entries.changes import Knob
from ecosystem.scenario.scenario import Scenario

MOST = 8  # knobs chosen for a scenario that names none
SHARES = ("fraction", "true_positive_rate", "false_positive_rate", "compliance", "liars", "lost", "keep", "threshold")
AMOUNTS = ("count", "words", "steps", "cap")  # of policies, in whole numbers


def knobs_of(scenario: Scenario) -> dict[str, Knob]:
    """Return the knobs of a page by name; names are valid Python arguments, as SolaraViz needs."""
    chosen = scenario.knobs or _chosen(scenario)
    return {f"knob_{number}": knob for number, knob in enumerate(chosen)}


def has_effect(knob: Knob, scenario: Scenario | None) -> bool:
    """Return whether a knob changes anything in a scenario: a setting of a policy does only where a gate has it."""
    parts = knob.path.split(".")
    return scenario is None or parts[0] != "policies" or parts[1] in scenario.enforced_policies()


def label(knob: Knob) -> str:
    """Return the label of a knob."""
    return knob.label or knob.path


def spacing(knob: Knob, value: Any) -> float:
    """Return the step of a slider whose path has this ``value``.

    If the value falls between two positions, the step is a fraction of the knob's, so that the value is a position too:
    a slider otherwise moves to the nearest one without being turned.
    """
    assert knob.low is not None and knob.high is not None
    every = knob.step if knob.step is not None else 1 if isinstance(value, int) else (knob.high - knob.low) / 50
    if value is None:
        return every
    step, offset = Fraction(str(round(every, 12))), Fraction(str(value)) - Fraction(str(knob.low))
    common = Fraction(
        math.gcd(step.numerator * offset.denominator, offset.numerator * step.denominator),
        step.denominator * offset.denominator,
    )
    return float(common)


def _chosen(scenario: Scenario) -> list[Knob]:
    """Choose the paths that matter most to a web: policy settings, and how much each population writes."""
    knobs = [knob for name in scenario.enforced_policies() for knob in _policy_knobs(scenario, name)]
    for name, trainer in scenario.trainers.items():
        knobs += [_amount(f"trainers.{name}.publish", f"{name}: documents published", trainer.publish)]
    for name, writer in scenario.writers.items():
        knobs += [_amount(f"writers.{name}.rate", f"{name}: documents written", writer.rate)]
    for name, curator in scenario.curators.items():
        knobs += [_amount(f"curators.{name}.reviews", f"{name}: reviews", curator.reviews)]
    if scenario.modality == "text":
        for name in scenario.trainers:
            path = f"trainers.{name}.decoding.temperature"
            knobs.append(Knob(path=path, label=f"{name}: temperature", low=0.2, high=1.6, step=0.05))
    return knobs[:MOST]


def _policy_knobs(scenario: Scenario, name: str) -> list[Knob]:
    knobs: list[Knob] = []
    fields: dict[str, Any] = {field: getattr(scenario.policies[name], field, None) for field in (*SHARES, *AMOUNTS)}
    for field in SHARES:
        value = fields.get(field)
        if isinstance(value, float) and 0 <= value <= 1:
            path = f"policies.{name}.{field}"
            low, high = (abs(x - 0.05) if scenario.value_problem(path, x) else x for x in (0.0, 1.0))
            knobs.append(Knob(path=path, label=f"{name}: {field.replace('_', ' ')}", low=low, high=high, step=0.05))
    amounts = [field for field in AMOUNTS if isinstance(fields.get(field), int)]
    return knobs + [_amount(f"policies.{name}.{field}", f"{name}: {field}", fields[field], 1) for field in amounts]


def _amount(path: str, label: str, value: float, least: int = 0) -> Knob:
    """Return a slider from about ``least`` to three times the value, which is one of its positions."""
    if isinstance(value, int):
        every = value // 20 if value >= 100 and value % 20 == 0 else 1
        return Knob(path=path, label=label, low=least * every, high=3 * value or 10, step=every)
    high = 3 * value or 10.0
    return Knob(path=path, label=label, low=float(least), high=high, step=high / 60)
