"""What differs between the scenarios of two worlds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ecosystem.errors import ScenarioError
from ecosystem.scenario.scenario import Scenario

IGNORED = ("name", "description", "knobs", "seed")  # entries of a scenario in which worlds may differ anyway
LONGEST = 60  # characters of a value that are shown


def differences(one: Scenario, other: Scenario) -> list[tuple[str, str, str]]:
    """List the dotted paths at which two scenarios differ, with the value of each (– for none).

    The path of a timed change names the step from which it holds; the other scenario's value is that of the same step.
    """
    a, b = ({k: v for k, v in scenario.plain().items() if k not in IGNORED} for scenario in (one, other))
    for plain, scenario in ((a, one), (b, other)):
        plain.pop("changes", None)
        for at, path in sorted({(c.at, path) for s in (one, other) for c in s.changes for path in c.set}):
            try:
                plain[f"{path} from step {at} on"] = scenario.at(at).value(path)
            except ScenarioError:
                continue  # the other has nothing of that name
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
