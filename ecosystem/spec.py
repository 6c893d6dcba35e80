"""Frozen values read from files: the base class of every part of a scenario, and overrides by dotted path.

One mechanism serves the command line's ``--set``, timed changes in a run, the axes of a study and sliders:
:func:`set_path` puts a value at a dotted path of the plain data, and the data is parsed again. So an override is
validated exactly like a file.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from ecosystem.errors import ScenarioError, nearest
from ecosystem.parsing import LimitError, parse_toml
from ecosystem.violations import merged_alternatives, sentence

_PATH = re.compile(r"[a-z]\w*(\.(\w[\w-]*|\"[^\"]+\"))*")


class ScenarioParts(Protocol):
    """The tables of a scenario that :meth:`Spec.problems` of its parts may look up."""

    @property
    def modality(self) -> str:
        """Sort of all documents: text, vector or category."""

    @property
    def web(self) -> Any:
        """The ``[web]`` table (a WebSpec)."""

    @property
    def sources(self) -> Mapping[str, Any]:
        """Sources by name."""

    @property
    def models(self) -> Mapping[str, Any]:
        """Families by the names of their models."""

    @property
    def measure(self) -> Any:
        """The ``[measure]`` table (a MeasureSpec)."""

    @property
    def policies(self) -> Mapping[str, Any]:
        """Policies by name."""

    @property
    def writers(self) -> Mapping[str, Any]:
        """Populations of writers (WriterSpec) by name."""

    @property
    def trainers(self) -> Mapping[str, Any]:
        """Populations of trainers (TrainerSpec) by name."""


class Spec(BaseModel):
    """A frozen value with named, typed fields; an unknown field raises an error that suggests the nearest name."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )

    kind: ClassVar[str] = ""

    def plain(self) -> dict[str, Any]:
        """Return the value as plain TOML data, without absent (None) fields and with defaults."""
        data = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        return {"kind": self.kind, **data} if self.kind else data

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Check a source, model or policy against the rest of the scenario; return one sentence per problem.

        A sentence begins with a dotted path, says what to do, and ends without a full stop. ``path`` is the path of
        this part (``policies.NAME``). All other parts are valid by themselves, but a name may refer to a missing entry.
        """
        return []


def checked_paths(values: Any) -> Mapping[str, Any]:
    """Return ``values`` if it maps dotted paths to values; raise ScenarioError otherwise."""
    if not isinstance(values, Mapping) or not all(isinstance(path, str) for path in values):
        raise ScenarioError(
            f'{values!r}: give a dict from dotted paths to values, such as {{"trainers.naive.publish": 0}}.'
        )
    return values


PLAIN = "<value>"  # the key of a value that a file holds in place of a table; paths in errors leave it out


def plain_or_table(description: str) -> Any:
    """Return the field ``value`` of a spec that a file may also give as the plain value, under the key ``PLAIN``."""
    return Field(
        None, validation_alias=AliasChoices("value", PLAIN), serialization_alias="value", description=description
    )


def set_path(data: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of nested ``data`` with ``value`` at the dotted ``path``, creating missing tables.

    Raises ScenarioError if the path leads through a value that is not a table, or to a position outside a list.
    """
    result = copy.deepcopy(dict(data))
    node: Any = result
    *parents, last = path.split(".")
    for depth, key in enumerate(parents):
        if isinstance(node, list):
            node = node[_index(node, key, path)]
            continue
        node = node.setdefault(key, {})
        if not isinstance(node, dict | list):
            raise ScenarioError(
                f'cannot set "{path}": "{".".join(parents[: depth + 1])}" is the value {node!r}, not a table.'
            )
    if isinstance(node, list):
        node[_index(node, last, path)] = value
    else:
        node[last] = value
    return result


def _index(items: list[Any], key: str, path: str) -> int:
    if not key.isdigit() or int(key) >= len(items):
        raise ScenarioError(
            f'cannot set "{path}": "{key}" is not a position in a list of {len(items)} (0 to {len(items) - 1}).'
        )
    return int(key)


def parse_value(text: str) -> Any:
    """Parse the value of ``--set path=value`` as TOML; text that is not valid TOML is a string.

    Raises ScenarioError for a value that is nested too deeply or has too many digits, and for one in braces or brackets
    that is no table or list.
    """
    try:
        table = parse_toml(f"v = {text}")
        if len(table) > 1:
            raise ScenarioError(f"{text[:40]!r}: is more than one value; give each with a --set of its own.")
        return table["v"]
    except LimitError as error:
        raise ScenarioError(f"{text[:40]}…: {error}; give a smaller value.") from None
    except ValueError as error:
        if text[:1] == "{" or (text[:1] == "[" and text[-1:] == "]"):
            raise ScenarioError(
                f"{text[:80]}: is no table or list as TOML has them ({error}); write texts in double quotes, and the "
                "whole option in single quotes, which keep them from the shell."
            ) from None
        return text


def explain(error: ValidationError, path: str, model: type[BaseModel]) -> list[str]:
    """Turn a pydantic error into one sentence per problem; each begins with its dotted path."""
    return [_sentence(problem, path, model) for problem in merged_alternatives(error.errors(include_url=False))]


def _sentence(problem: Any, prefix: str, model: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"] if not str(part).startswith("<")]  # <…>: an alternative, no key
    path = ".".join([prefix, *location] if prefix else location)
    if problem["type"] == "extra_forbidden":
        allowed = sorted(fields_at(model, location[:-1]))
        return f"{path}: unknown key{nearest(location[-1], allowed)}; allowed here: {', '.join(allowed)}"
    if location[-1:] == ["[key]"]:  # of a table from Python
        return f"{path.removesuffix('.[key]')}: the name of an entry must be text, not {problem['input']!r}"
    message = sentence(problem, path)
    if problem["type"] == "value_error":
        field, colon, rule = message.partition(": ")  # a rule about several fields names the invalid one
        if colon and _PATH.fullmatch(field):
            path, message = f"{path}.{field}" if path else field, rule
    return f"{path}: {message}" if path else message


def fields_at(model: Any, location: Iterable[str]) -> set[str]:
    """Return the names of the fields allowed at ``location`` in ``model``; empty if it is not a table."""
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            if part.isdigit():
                continue  # a position in a list of tables, which all have these fields
            if part not in model.model_fields:
                return set()
            spec = _spec_in(model.model_fields[part].annotation)
            # The path of a named entry, such as [trainers.naive], has one component more than that of a field.
            model = _Table(spec) if "dict[" in str(model.model_fields[part].annotation) else spec
        elif isinstance(model, _Table):
            model = model.entry
        else:
            return set()
    if isinstance(model, type) and issubclass(model, BaseModel):
        names = {field.alias or name for name, field in model.model_fields.items()}
        return names | ({"kind"} if getattr(model, "kind", "") else set())
    return set()


class _Table:
    """A table of named entries of one spec."""

    def __init__(self, entry: Any) -> None:
        self.entry = entry


def _spec_in(annotation: Any) -> Any:
    """Return the BaseModel in an annotation such as ``X | None``, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        spec = _spec_in(argument)
        if spec is not None:
            return spec
    return None
