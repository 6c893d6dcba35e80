"""Read, validate and vary scenarios: a whole experiment as one frozen value.

All mistakes in a file are reported at once, each as a sentence with its dotted path. Timed changes are applied and
checked when the file is read, so that a run never fails at step 40 because of a mistake in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ecosystem.errors import ScenarioError, each_line, nearest, path_of, whole_number
from ecosystem.families.base import FAMILIES
from ecosystem.plugins import load_plugins
from ecosystem.policies.base import POLICIES
from ecosystem.registry import Registry
from ecosystem.scenario.changes import DEFINING, HOMELESS, WHOLE_RUN, check_changeable, check_exists, overlap, value_at
from ecosystem.scenario.consistency import inconsistencies
from ecosystem.scenario.extending import FileValues, read_file
from ecosystem.scenario.presets import located, require_kind, with_preset
from ecosystem.scenario.summary import line, scenario_card
from ecosystem.scenario.tables import ScenarioTables
from ecosystem.sources.base import SOURCES
from ecosystem.spec import Spec, checked_paths, explain, set_path
from ecosystem.times import time_context

RESERVED_NAMES = {
    "web": "the web itself",
    "initial": "the author of the initial documents",
    "writers": "the people who write",
    "human": "the human text that others are compared with",
}
"""Names that a population of trainers cannot have → what they mean in results."""


class Scenario(ScenarioTables):
    """A whole experiment. Read one with :meth:`load`, vary it with :meth:`override`."""

    def __repr__(self) -> str:
        return line(self)

    def _repr_html_(self) -> str:
        return scenario_card(self)

    @classmethod
    def load(cls, path: str | Path, *, plugins: Iterable[str | Path] = ()) -> Scenario:
        """Read, resolve and validate a scenario file, given by its path or the name of a bundled one.

        ``plugins`` are Python files with kinds of its own, loaded first (:func:`ecosystem.load_plugin`). Raises
        ScenarioError listing every problem.
        """
        load_plugins(plugins)
        file = located(path_of(path, "Scenario"))
        data = read_file(file)
        require_kind(data, file, "scenario")
        return cls.parse(data, where=str(file), base=file.parent, authored=True)

    @classmethod
    def parse(
        cls,
        data: Mapping[str, Any],
        *,
        where: str = "scenario",
        base: Path | None = None,
        authored: bool = False,
    ) -> Scenario:
        """Validate plain data; ``where`` names it in messages, presets are searched in ``base`` first.

        In an ``authored`` scenario both ends of every knob must be valid, and names of trainers unambiguous. Overrides
        may make an end invalid; it is then rejected only when the knob is set to it.
        """
        if isinstance(data, FileValues):
            try:
                return cls.parse(dict(data), where=where, base=base, authored=authored)
            except ScenarioError as error:
                raise data.explained(error, where) from None
        scenario = _parse(data, where, base)
        for name in RESERVED_NAMES.keys() & scenario.trainers.keys() if authored else ():
            raise ScenarioError(
                f"{where}: trainers.{name}: choose another name; in results, {name} means {RESERVED_NAMES[name]}."
            )
        if authored and (problem := _contradiction(scenario)):
            raise ScenarioError(f"{where}: {problem}")
        state = scenario
        for number, change in sorted(enumerate(scenario.changes), key=lambda c: c[1].at):
            for path in change.set:
                check_changeable(path, f"{where}: changes.{number}.set")
            try:
                state = state.override(change.set)
            except ScenarioError as error:
                raise ScenarioError(
                    each_line(f"{where}: changes.{number} (at {scenario.step_name(change.at)})", error)
                ) from None
        for number, knob in enumerate(scenario.knobs):
            check_changeable(knob.path, f"{where}: knobs.{number}.path")
            if authored and (problem := scenario.value_problem(knob.path, *knob.ends)):
                raise ScenarioError(each_line(f"{where}: knobs.{number}", problem))
        for name in scenario.variants:
            try:
                scenario.variant(name, base=base)
            except ScenarioError as error:
                raise ScenarioError(each_line(f"{where}: variants.{name}", error)) from None
        return scenario

    def value_problem(self, path: str, *values: Any) -> str:
        """Return why one of these values is not allowed at a path in this scenario; empty if all are."""
        for value in values:
            try:
                self.override({path: self.rounded_like(path, value)})
            except ScenarioError as error:
                return str(error)
        return ""

    def override(self, values: Mapping[str, Any], *, base: Path | None = None) -> Scenario:
        """Return the scenario with dotted paths set and validated like a file; raise ScenarioError if it is invalid.

        Changing ``models.<name>.preset``, or the ``kind`` of a model, source or policy, replaces the whole entry, since
        the fields of one kind have no meaning for another. Other fields of the entry in ``values``, in any order, are
        set on the new one. In the same way, ``site_type`` replaces ``sites``. A new entry is created only if its
        required field or the whole entry is set, so that a mistyped name is an error in every section.
        """
        data = self.plain()
        for path in checked_paths(values):
            check_exists(path, values, data)
        defining_first = sorted(values.items(), key=lambda item: not DEFINING.fullmatch(item[0]))
        for path, value in defining_first:
            entry, _, field = path.rpartition(".")
            if DEFINING.fullmatch(path) and value_at(data, path) != value:
                data = set_path(data, entry, {field: value})
            else:
                data = set_path(data, path, value)
            if HOMELESS.fullmatch(path) and f"{entry}.sites" not in values:
                section, name, _ = path.split(".")
                data[section][name].pop("sites", None)
        return _parse(data, "", base)

    def variant(self, name: str, *, base: Path | None = None) -> Scenario:
        """Return this scenario with the values of one of its variants; raise ScenarioError if it does not exist."""
        if str(name) not in self.variants:
            available = (
                f"available: {', '.join(self.variants)}" if self.variants else "the scenario defines no variants"
            )
            raise ScenarioError(f'{self.name}: no variant "{name}"{nearest(name, self.variants)}; {available}.')
        return self.model_copy(update={"variants": {}}).override(self.variants[name], base=base)

    def at(self, t: int) -> Scenario:
        """Return the scenario in force at step ``t``, with every change up to that step applied.

        Results are cached, since validating a scenario can take longer than a step.
        """
        t = whole_number(t, "step")
        changes = [change for change in sorted(self.changes, key=lambda c: c.at) if change.at <= t]
        if not changes:
            return self
        in_force: list[Scenario] = self.__dict__.setdefault("_in_force", [])  # after one change, after two, …
        for change in changes[len(in_force) :]:
            state = in_force[-1] if in_force else self
            in_force.append(state.override(change.set))
        return in_force[len(changes) - 1]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Scenario:
        """Copy as pydantic does, without the cache of :meth:`at`, which may not apply to the copy."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("_in_force", None)
        return copy

    def forked(
        self, step: int, values: Mapping[str, Any], *, base: Path | None = None, called: str | None = None
    ) -> Scenario:
        """Return the scenario of a run that branches off after ``step``, with ``values`` in force from the next step.

        It is this scenario with one more timed change, so that running it from step 0 reproduces this one's numbers up
        to ``step``. Values that later timed changes set at the same path, above or below it are dropped, so that
        ``values`` hold to the end. Name, description, steps, weights_every, weights_precision and theory are set for
        the whole run. Raises ScenarioError if a path cannot change inside a run or the result is invalid; its sentences
        begin with ``called``.
        """
        step = whole_number(step, "step")
        where = called or f"branch after step {step}"
        whole = {path: value for path, value in values.items() if path.split(".")[0] in WHOLE_RUN}
        timed = {path: value for path, value in values.items() if path not in whole}
        for path, value in timed.items():
            check_changeable(path, where, f" A branch may also set {', '.join(WHOLE_RUN)}.")
            if value is None:
                raise ScenarioError(f'{where}: "{path}" = None: a change needs a value.')
        try:
            data = self.override(whole, base=base).plain()
        except ScenarioError as error:
            raise ScenarioError(each_line(where, error)) from None
        changes = []
        for change in self.changes:
            remaining = {
                p: v for p, v in change.set.items() if change.at <= step or not any(overlap(p, q) for q in timed)
            }
            if remaining:
                changes.append({"at": change.at, "set": remaining})
        if timed:
            changes.append({"at": step + 1, "set": timed})
        return Scenario.parse({**data, "changes": changes}, where=where, base=base)


def _parse(data: Mapping[str, Any], where: str, base: Path | None) -> Scenario:
    if not isinstance(data, Mapping):
        raise ScenarioError(f"{where}: must be a table of keys and values, not {data!r}.")
    problems: list[str] = []
    values = dict(data)
    prefix = f"{where}: " if where else ""
    try:
        context = time_context({"steps": ScenarioTables.model_fields["steps"].default, **values})
    except ValueError as error:  # durations and dates have no meaning without it
        raise ScenarioError(f"{prefix}{error}.") from None
    kinds: list[tuple[str, Registry[Any]]] = [("sources", SOURCES), ("models", FAMILIES), ("policies", POLICIES)]
    for section, registry in kinds:
        table = values.get(section, {})
        if not isinstance(table, Mapping):
            problems.append(f"{section}: must be a table of named entries, such as [{section}.name], not {table!r}")
            values.pop(section)
            continue
        values[section] = {
            name: _parse_part(entry, registry, f"{section}.{name}", base, context, problems)
            for name, entry in table.items()
        }
    bad_parts = bool(problems)
    for section, _ in kinds:
        if section in values:
            values[section] = {name: part for name, part in values[section].items() if part is not None}
    scenario: Scenario | None = None
    try:
        scenario = Scenario.model_validate(values, context=context)
    except ValidationError as error:
        problems += explain(error, "", Scenario)
    if scenario is not None and not bad_parts:
        problems += inconsistencies(scenario)
    if problems or scenario is None:
        raise ScenarioError("\n".join(f"{prefix}{problem}." for problem in problems))
    return scenario


def _parse_part(
    entry: Any,
    registry: Registry[Any],
    path: str,
    base: Path | None,
    context: Mapping[str, Any],
    problems: list[str],
) -> Spec | None:
    """Parse one entry of a section whose kinds are registered; on a problem, append it and return None."""
    if isinstance(entry, Spec):
        return entry
    if not isinstance(entry, Mapping):
        problems.append(f"{path}: must be a table with a kind, not {entry!r}")
        return None
    try:
        fields = with_preset(entry, base) if registry is FAMILIES else dict(entry)
        kind = fields.pop("kind", None)
        if not isinstance(kind, str):
            hint = ' or a preset (preset = "gpt2-nano")' if registry is FAMILIES else ""
            problems.append(f"{path}: needs a kind{hint}; available kinds: {', '.join(registry.all())}")
            return None
        cls = registry.get(kind)
    except ScenarioError as error:
        problems += each_line(path, str(error).removesuffix(".")).splitlines()
        return None
    try:
        part: Spec = cls.model_validate(fields, context=dict(context))
    except ValidationError as error:
        problems.extend(explain(error, path, cls))
        return None
    return part


def _contradiction(scenario: Scenario) -> str:
    """Return a sentence if two timed changes give a path two values at one step; else an empty string."""
    values: dict[tuple[int, str], Any] = {}
    for number, change in enumerate(scenario.changes):
        for path, value in change.set.items():
            if values.setdefault((change.at, path), value) != value:
                other = values[change.at, path]
                when = scenario.step_name(change.at)
                return f"changes.{number}.set: {path} = {value!r} at {when}, but another change sets {other!r}."
    return ""
