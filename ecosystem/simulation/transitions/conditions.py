"""Which policies with a condition are in force: decided before every step, on the metrics of the step before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import polars as pl

from ecosystem.metrics.conditions import Comparison, Condition, measured
from ecosystem.policies.base import Policy
from ecosystem.simulation.state import State

_parse = lru_cache(maxsize=256)(Condition.parse)


def apply_conditions(state: State, metrics: pl.DataFrame, before: int) -> None:
    """Decide which policies are in force, given the metrics of step ``before``; record an event for each switch.

    A policy is not in force while a metric of its conditions is missing, which is recorded once, and again whenever
    that ends its force.
    """
    conditional = {name: policy for name, policy in state.scenario.policies.items() if policy.when is not None}
    state.in_force &= conditional.keys()
    for name, policy in conditional.items():
        when, ends = _conditions(policy)
        named = [*when.comparisons(), *(ends.comparisons() if ends is not None else ())]
        found = {comparison: measured(metrics, comparison) for comparison in named}
        values = {comparison: value for comparison, value in found.items() if value is not None}
        missing = [comparison.name for comparison in named if comparison not in values]
        was = name in state.in_force
        now = not missing and _holds(when, ends, values, was)
        (state.in_force.add if now else state.in_force.discard)(name)
        if missing and (was or name not in state.unmeasured):
            state.unmeasured.add(name)
            state.note(
                f"policies.{name} is {'no longer' if was else 'not'} in force: its condition needs {missing[0]}, which "
                f"was not measured at step {before}"
            )
        elif now != was and not missing:
            verb, reason = ("comes into force", policy.when) if now else _ended(policy)
            shown = ", ".join({f"{comparison.name} was {value:.4g}": None for comparison, value in values.items()})
            state.note(f"policies.{name} {verb} ({reason}): {shown} at step {before}")


def _conditions(policy: Policy) -> tuple[Condition, Condition | None]:
    assert policy.when is not None
    return _parse(policy.when), None if policy.ends_when is None else _parse(policy.ends_when)


def _holds(when: Condition, ends: Condition | None, values: Mapping[Comparison, float], was: bool) -> bool:
    if ends is None:
        return when.holds(values)
    return not ends.holds(values) and (was or when.holds(values))


def _ended(policy: Policy) -> tuple[str, str]:
    return "is no longer in force", f"not {policy.when}" if policy.ends_when is None else policy.ends_when


def plain_conditions(state: State) -> dict[str, Any]:
    """Return what a resume needs to know of conditions as JSON; empty if there is nothing to store."""
    lists = {"in_force": sorted(state.in_force), "unmeasured": sorted(state.unmeasured)}
    return {"conditions": lists} if any(lists.values()) else {}


def restore_conditions(state: State, stored: Mapping[str, Any]) -> None:
    """Restore what :func:`plain_conditions` returned."""
    lists = stored.get("conditions", {})
    state.in_force, state.unmeasured = set(lists.get("in_force", [])), set(lists.get("unmeasured", []))
