"""The settings of a scenario that differ from the defaults of its format, as dotted paths with both values.

A file with these settings alone is the same scenario: tests rebuild every shipped scenario from its list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from ecosystem.errors import ScenarioError
from ecosystem.families.base import FAMILIES, Family
from ecosystem.scenario.presets import presets, with_preset
from ecosystem.scenario.tables import ScenarioTables
from ecosystem.spec import Spec

NOT_LISTED = ("name", "description", "knobs", "variants", "placement")
"""Keys of a scenario on which no number depends."""


class Setting(NamedTuple):
    """A setting that was chosen: its dotted path, its value, and its default (None: it has none, or is absent)."""

    path: str
    value: Any
    default: Any


def departures(scenario: ScenarioTables) -> list[Setting]:
    """Return the settings of a scenario that differ from their defaults, in the order of the format.

    Settings of entries (sources, models, policies, populations) are those that differ from the defaults of their kind.
    A model that equals a bundled preset in more settings than the defaults of its kind is listed as that preset
    (``models.NAME.preset``), with the settings that differ from it.
    """
    data = scenario.plain()
    found: list[Setting] = []
    for key, value, field, plain in _fields(scenario, data):
        if key == "models":
            for name, family in scenario.models.items():
                found += _model(family, f"models.{name}")
        elif key not in NOT_LISTED:
            found += _of_field(value, field, plain, key)
    return found


def _fields(spec: BaseModel, data: Mapping[str, Any]) -> Iterator[tuple[str, Any, FieldInfo, Any]]:
    """Yield key, value, field and plain value of every field that is present in the plain ``data`` of a spec."""
    for name, field in type(spec).model_fields.items():
        key = field.alias or name
        if key in data:
            yield key, getattr(spec, name), field, data[key]


def _of_field(value: Any, field: FieldInfo, plain: Any, path: str) -> list[Setting]:
    """Return the settings at and below the path of a field; none if it has its default."""
    default = None
    if not field.is_required():
        default = to_jsonable_python(field.get_default(call_default_factory=True), by_alias=True, exclude_none=True)
        if plain == default:
            return []
    return _below(value, plain, path) or [Setting(path, plain, default)]


def _below(value: Any, plain: Any, path: str) -> list[Setting]:
    """Return the settings of a table, of named tables or of a list of tables; none for any other value."""
    if isinstance(value, BaseModel) and isinstance(plain, Mapping):
        return _table(value, plain, path)
    parts: list[tuple[str, Any, Any]] = []
    if isinstance(value, Mapping) and isinstance(plain, Mapping):
        parts = [(name, value[name], plain[name]) for name in plain if name in value]
    elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(plain, list):
        parts = [(str(i), *pair) for i, pair in enumerate(zip(value, plain, strict=True))]
    if not parts or not all(isinstance(part, BaseModel) and isinstance(data, Mapping) for _, part, data in parts):
        return []
    found: list[Setting] = []
    for name, part, data in parts:
        found += _table(part, data, f"{path}.{name}") or [Setting(f"{path}.{name}", {}, None)]
    return found


def _table(spec: BaseModel, data: Mapping[str, Any], path: str) -> list[Setting]:
    found = [Setting(f"{path}.kind", spec.kind, None)] if isinstance(spec, Spec) and spec.kind else []
    for key, value, field, plain in _fields(spec, data):
        found += _of_field(value, field, plain, f"{path}.{key}")
    return found


def _model(family: Family, path: str) -> list[Setting]:
    """Return the settings of a model, as a preset and what differs from it if that is shorter."""
    shortest = _table(family, family.plain(), path)
    for name in presets():
        try:
            fields = with_preset({"preset": name}, None)
            if fields.pop("kind", None) != family.kind:
                continue
            preset = FAMILIES.get(family.kind).model_validate(fields)
        except (ScenarioError, ValidationError):  # a broken preset in the current folder
            continue
        listed = [Setting(f"{path}.preset", name, None), *_unlike(family.plain(), preset.plain(), f"{path}.")]
        if len(listed) < len(shortest) and all(setting.value is not None for setting in listed):
            shortest = listed
    return shortest


def _unlike(data: Mapping[str, Any], other: Mapping[str, Any], path: str) -> list[Setting]:
    """Return the values of ``data`` that differ from those of ``other``, by table; None: only ``other`` has one."""
    found: list[Setting] = []
    for key in dict.fromkeys([*data, *other]):
        mine, theirs = data.get(key), other.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found += _unlike(mine, theirs, f"{path}{key}.")
        elif mine != theirs:
            found.append(Setting(f"{path}{key}", mine, theirs))
    return found
