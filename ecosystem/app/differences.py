"""Compare the scenarios of two worlds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ecosystem.errors import ScenarioError
from ecosystem.scenario.scenario import Scenario

IGNORED = ("name", "description", "knobs", "seed")  # entries that are not compared
LONGEST = 60  # characters shown of a value


def differences(one: Scenario, other: Scenario) -> list[tuple[str, str, str]]:
    """List the dotted paths at which two scenarios differ, with both values (– for none).

    For a timed change, the path names its step and both values are those at that step.
    """
    a, b = ({k: v for k, v in scenario.plain().items() if k not in IGNORED} for scenario in (one, other))
    for plain, scenario in ((a, one), (b, other)):
        plain.pop("changes", None)
        for at, path in sorted({(c.at, path) for s in (one, other) for c in s.changes for path in c.set}):
            try:
                plain[f"{path} from {scenario.step_name(at)} on"] = scenario.at(at).value(path)
            except ScenarioError:
                continue  # this path exists only in the other scenario
    return [(path, _shown(here), _shown(there)) for path, here, there in _unequal_at(a, b, "")]


def _unequal_at(a: Any, b: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from _unequal_at(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
    elif a != b:
        yield path, a, b


def _shown(value: Any) -> str:
    text = "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
