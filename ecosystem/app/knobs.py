"""What can be turned on the page: the knobs of a scenario file or, where it names none, the most useful paths."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from ecosystem.scenario.entries import Knob
from ecosystem.scenario.scenario import Scenario

MOST = 8  # knobs that are chosen where a scenario names none
SHARES = ("fraction", "true_positive_rate", "false_positive_rate", "compliance", "liars", "lost", "keep", "threshold")
AMOUNTS = ("count", "words", "steps", "cap")  # of policies, in whole numbers


def knobs_of(scenario: Scenario) -> dict[str, Knob]:
    """Return the knobs of a page by a name that may be that of an argument: those of the file, or chosen ones."""
    chosen = scenario.knobs or _chosen(scenario)
    return {f"knob_{number}": knob for number, knob in enumerate(chosen)}


def label(knob: Knob) -> str:
    """Return what a knob is called."""
    return knob.label or knob.path


def spacing(knob: Knob, value: Any) -> float:
    """Return the step of a slider; ``value`` is the one at its path.

    Where that lies between two places of the slider, the step is a fraction of the knob's, so that it is one of them: a
    slider moves to its nearest place without being turned.
    """
    assert knob.low is not None and knob.high is not None
    every = knob.step if knob.step is not None else 1 if isinstance(value, int) else (knob.high - knob.low) / 50
    if value is None:
        return every
    whole, off = Fraction(str(round(every, 12))), Fraction(str(value)) - Fraction(str(knob.low))
    common = Fraction(
        math.gcd(whole.numerator * off.denominator, off.numerator * whole.denominator),
        whole.denominator * off.denominator,
    )
    return float(common)


def _chosen(scenario: Scenario) -> list[Knob]:
    """Choose paths that decide most about a web: what its policies let pass, and who writes how much."""
    found = [knob for name in scenario.standing() for knob in _of_policy(scenario, name)]
    for name, trainer in scenario.trainers.items():
        found += [_amount(f"trainers.{name}.publish", f"{name}: documents published", trainer.publish)]
    for name, writer in scenario.writers.items():
        found += [_amount(f"writers.{name}.rate", f"{name}: documents written", writer.rate)]
    for name, curator in scenario.curators.items():
        found += [_amount(f"curators.{name}.reviews", f"{name}: reviews", curator.reviews)]
    if scenario.modality == "text":
        for name in scenario.trainers:
            path = f"trainers.{name}.decoding.temperature"
            found.append(Knob(path=path, label=f"{name}: temperature", low=0.2, high=1.6, step=0.05))
    return found[:MOST]


def _of_policy(scenario: Scenario, name: str) -> list[Knob]:
    fields, found = scenario.policies[name].plain(), []
    for field in SHARES:
        value = fields.get(field)
        if isinstance(value, float) and 0 <= value <= 1:
            path = f"policies.{name}.{field}"
            low, high = (abs(x - 0.05) if scenario.refused(path, x) else x for x in (0.0, 1.0))
            found.append(Knob(path=path, label=f"{name}: {field.replace('_', ' ')}", low=low, high=high, step=0.05))
    amounts = [field for field in AMOUNTS if isinstance(fields.get(field), int)]
    return found + [_amount(f"policies.{name}.{field}", f"{name}: {field}", fields[field], 1) for field in amounts]


def _amount(path: str, called: str, value: float, least: int = 0) -> Knob:
    """Return a slider from (nearly) nothing to three times the value, which is one of its places."""
    if isinstance(value, int):
        every = value // 20 if value >= 100 and value % 20 == 0 else 1
        return Knob(path=path, label=called, low=least * every, high=3 * value or 10, step=every)
    high = 3 * value or 10.0
    return Knob(path=path, label=called, low=float(least), high=high, step=high / 60)
