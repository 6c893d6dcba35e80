"""Check dotted paths: which may change inside a run, which entry a path creates, and which two paths overlap."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ecosystem.errors import ScenarioError, nearest
from ecosystem.scenario.tables import ScenarioTables
from ecosystem.spec import fields_at

DEFINING = re.compile(r"models\.[^.]+\.preset|(models|sources|policies)\.[^.]+\.kind")  # determines the other fields
HOMELESS = re.compile(r"(writers|trainers)\.[^.]+\.site_type")  # gives an agent other sites than home sites
_KINDS = ("sources", "models", "policies")  # the keys of their entries depend on the kind
# They affect no number of any step.
WHOLE_RUN = ("name", "description", "steps", "weights_every", "weights_precision", "theory")
_CHANGEABLE = re.compile(
    r"policies\.[^.]+(\..+)?|web\.(retain|publish)|measure\.(?!downstream\b).+"
    r"|web\.(types\.[^.]+\.(births|refuses)|links\.births)(\..+)?"
    r"|writers\.[^.]+\.(rate|activity(\..+)?|reaction|leaves_below|returns_above|pay|wage|rewrite(\..+)?)"
    r"|writers\.[^.]+\.choice\.(benefit|ai_benefit|collapse|shared|cost|ai_cost|speed)"
    r"|writers\.[^.]+\.adoption\.(share(\..+)?|ai_shares|weights)"
    r"|trainers\.[^.]+\.(scrape(\..+)?|select|retain|from|budget(\..+)?|learning_rate|recovery|decoding(\..+)?|publish|every|offset|lag)"
    r"|trainers\.[^.]+\.activity(\..+)?"
    r"|trainers\.[^.]+\.(active|split_from|merged_into|merged_weights)"
    r"|instruments\.[^.]+\.(sample|ai_share_above|false_positive_rate|false_negative_rate|bias|error)"
    r"|curators\.[^.]+\.(reviews|true_positive_rate|false_positive_rate|action|strength|quality_bias)"
)


def check_changeable(path: str, where: str, hint: str = "") -> None:
    """Raise ScenarioError if a path cannot change inside a run; ``hint`` is appended to the message."""
    keys = path.split(".")
    for depth, key in enumerate(keys if keys[0] not in _KINDS else keys[:1]):
        allowed = fields_at(ScenarioTables, keys[:depth])
        if allowed and key not in allowed:
            place = f" in {'.'.join(keys[:depth])}" if depth else ""
            raise ScenarioError(
                f'{where}: "{path}": unknown key "{key}"{place}{nearest(key, allowed)}; allowed here: '
                f"{', '.join(sorted(allowed))}."
            )
    if not _CHANGEABLE.fullmatch(path):
        raise ScenarioError(
            f'{where}: "{path}" cannot change inside a run. These can: policies; web.retain and web.publish; '
            "births and refuses of web.types; births of web.links; measure, except downstream; the rates, activity, "
            "pay, rewriting and adoption of writers, and the benefits, costs and speed of their choice; samples and "
            "errors of instruments; curators, except count, sites and judge; and trainers, except count, model, sites "
            f"and site_type.{hint}"
        )


_CREATED_BY = {  # setting one of these fields creates an entry
    "sources": ("kind",),
    "models": ("kind", "preset"),
    "policies": ("kind",),
    "writers": ("source",),
    "trainers": ("model",),
    "instruments": ("observes",),
    "curators": (),  # no field is required, so only a complete table creates one
}


def check_exists(path: str, values: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Raise ScenarioError if a path refers to an entry that neither exists nor is created by the other values."""
    section, _, rest = path.partition(".")
    name, dot, _ = rest.partition(".")
    table = data.get(section, {})
    if not dot or section not in _CREATED_BY or not isinstance(table, Mapping) or name in table:
        return
    entry = f"{section}.{name}"
    if {section, entry}.isdisjoint(values) and not any(f"{entry}.{field}" in values for field in _CREATED_BY[section]):
        defined = ", ".join(sorted(table)) or "none"
        hint = "" if _CREATED_BY[section] else f" To add one, set the complete table: {entry} = {{ … }}."
        raise ScenarioError(
            f"{path}: there is no [{entry}]{nearest(name, table)}; defined in [{section}]: {defined}.{hint}"
        )


def dropped_fields(authored: Mapping[str, Any], resolved: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Return a sentence for every entry that ``values`` replace by a preset or kind, if fields of its file are lost.

    ``authored`` are the tables of the file, and ``resolved`` those of its scenario.
    """
    notes = []
    for path, value in values.items():
        entry = path.rpartition(".")[0]
        if not DEFINING.fullmatch(path) or value_at(resolved, path) == value:
            continue
        section, name = entry.split(".")
        fields = authored.get(section, {}).get(name, {}).keys() - {"kind", "preset"}
        if lost := sorted(field for field in fields if f"{entry}.{field}" not in values):
            notes.append(f"{path} replaces the whole entry; what the file sets in it is dropped: {', '.join(lost)}")
    return notes


def overlap(path: str, other: str) -> bool:
    """Return whether setting one of two dotted paths changes all or part of the value at the other."""
    first, second = (f"{p.rpartition('.')[0] if DEFINING.fullmatch(p) else p}." for p in (path, other))
    return first.startswith(second) or second.startswith(first)


def value_at(data: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path of three keys, or None if it is not set."""
    section, name, field = path.split(".")
    entry = data.get(section, {}).get(name, {})
    return entry.get(field) if isinstance(entry, Mapping) else None
