"""Check dotted paths: which may change inside a run, which entry a path creates, and which two paths overlap."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ecosystem.errors import ScenarioError, nearest

WHOLE = re.compile(r"models\.[^.]+\.preset|(models|sources|policies)\.[^.]+\.kind")  # decides what the others mean
WHOLE_RUN = ("name", "description", "steps", "weights_every", "theory")  # no number of any step depends on them
_CHANGEABLE = re.compile(
    r"policies\.[^.]+(\..+)?|web\.(retain|publish)|measure\.(?!downstream\b).+"
    r"|writers\.[^.]+\.(rate|reaction|leaves_below|returns_above|pay|wage)"
    r"|trainers\.[^.]+\.(scrape(\..+)?|select|retain|from|budget(\..+)?|learning_rate|decoding(\..+)?|publish|every|offset|lag)"
    r"|curators\.[^.]+\.(reviews|true_positive_rate|false_positive_rate|action|strength|quality_bias)"
)


def check_changeable(path: str, where: str, besides: str = "") -> None:
    """Raise ScenarioError for a path that cannot change inside a run; ``besides`` is a sentence on what else may."""
    if not _CHANGEABLE.fullmatch(path):
        raise ScenarioError(
            f'{where}: "{path}" cannot change inside a run; what can: policies, web.retain, web.publish, measure but '
            "downstream, the rates and pay of writers, what curators do, and of trainers all but count, model and "
            f"sites.{besides}"
        )


_MADE_BY = {  # one of these creates an entry
    "sources": ("kind",),
    "models": ("kind", "preset"),
    "policies": ("kind",),
    "writers": ("source",),
    "trainers": ("model",),
    "curators": (),  # has no required field, so only the whole table creates one
}


def check_exists(path: str, values: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Raise ScenarioError for a path into an entry that neither exists nor is created by the other values."""
    section, _, rest = path.partition(".")
    name, dot, _ = rest.partition(".")
    table = data.get(section, {})
    if not dot or section not in _MADE_BY or not isinstance(table, Mapping) or name in table:
        return
    entry = f"{section}.{name}"
    if {section, entry}.isdisjoint(values) and not any(f"{entry}.{field}" in values for field in _MADE_BY[section]):
        there = ", ".join(sorted(table)) or "none"
        whole = "" if _MADE_BY[section] else f" A new one is given whole: {entry} = {{ … }}."
        raise ScenarioError(
            f"{path}: there is no [{entry}]{nearest(name, table)}; defined in [{section}]: {there}.{whole}"
        )


def overlap(path: str, other: str) -> bool:
    """Return whether setting one of two dotted paths determines, wholly or in part, the value at the other."""
    whole = [p.rpartition(".")[0] if WHOLE.fullmatch(p) else p for p in (path, other)]
    one, two = (f"{p}." for p in whole)
    return one.startswith(two) or two.startswith(one)


def value_at(data: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path of three, None where there is none."""
    section, name, field = path.split(".")
    part = data.get(section, {}).get(name, {})
    return part.get(field) if isinstance(part, Mapping) else None
