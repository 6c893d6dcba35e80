"""Scenario files: the whole experiment as one frozen value, validated completely when it is read.

Every mistake in a file is reported at once, each as a sentence with its dotted path; every timed change is
applied and checked here too, so that a run never fails at step 40 for something that stood in the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import Field, ValidationError, model_validator

from ecosystem.corpus.web import WebSpec
from ecosystem.errors import ScenarioError, nearest
from ecosystem.families.base import FAMILIES, Family
from ecosystem.policies.base import POLICIES, Policy
from ecosystem.registry import Registry
from ecosystem.scenario.consistency import incoherent
from ecosystem.scenario.entries import (
    Change,
    Count,
    CuratorSpec,
    Knob,
    MeasureSpec,
    Positive,
    TheorySpec,
    TrainerSpec,
    WriterSpec,
)
from ecosystem.scenario.presets import read_toml, with_preset
from ecosystem.sources.base import SOURCES, Source
from ecosystem.spec import Spec, checked_paths, explain, set_path

_WHOLE = re.compile(r"models\.[^.]+\.preset|(models|sources|policies)\.[^.]+\.kind")  # decides what the others mean
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Scenario(Spec):
    """A whole experiment. Read one with :meth:`load`, vary it with :meth:`override`."""

    name: str = Field(description="names the run folder; letters, digits, _ and -")
    description: str = Field("", description="what the experiment is about, shown in listings and reports")
    seed: Count = Field(1, description="seed of all chance")
    steps: Positive = Field(10, description="number of steps after the opening of the web (step 0)")
    weights_every: Positive = Field(1, description="keep the models of every so many steps (and of the last)")
    sources: dict[str, Source] = Field(description="sources of documents by name, each of a kind")
    web: WebSpec = Field(description="the site graph, its initial documents and its gates")
    models: dict[str, Family] = Field(description="models by name, each of a kind or from a preset")
    policies: dict[str, Policy] = Field({}, description="policies by name, each of a kind; gates refer to them")
    writers: dict[str, WriterSpec] = Field({}, description="populations of people who write, by name")
    trainers: dict[str, TrainerSpec] = Field({}, description="populations of trainers, by name")
    curators: dict[str, CuratorSpec] = Field({}, description="populations of reviewers, by name")
    measure: MeasureSpec = Field(MeasureSpec(), description="how much is measured, and how finely")
    changes: list[Change] = Field([], description="timed changes: values in force from a step on")
    theory: list[TheorySpec] = Field([], description="closed forms that are drawn and checked beside the simulation")
    knobs: list[Knob] = Field([], description="what the interactive page (view) lets people turn; absent: it chooses")
    variants: dict[str, dict[str, Any]] = Field(
        {}, description="other sizes of the experiment by name, each a table of dotted path = value (run --variant)"
    )

    @model_validator(mode="after")
    def _names(self) -> Scenario:
        for name in (self.name, *self.variants, *(n for _, table in self._tables() for n in table)):
            if not NAME.fullmatch(name):
                raise ValueError(f'the name "{name}" may only have letters, digits, "_" and "-"')
        return self

    @property
    def modality(self) -> str:
        """What all documents are: text, vector or category (checked to be the same in sources and models)."""
        parts: list[Source | Family] = [*self.sources.values(), *self.models.values()]
        return parts[0].modality if parts else "text"

    def _tables(self) -> list[tuple[str, Mapping[str, Spec]]]:
        names = ("sources", "models", "policies", "writers", "trainers", "curators")
        return [(name, getattr(self, name)) for name in names]

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """Read, resolve and validate a scenario file; raise ScenarioError listing every problem."""
        file = Path(path)
        return cls.parse(read_toml(file), where=str(file), base=file.parent, authored=True)

    @classmethod
    def parse(
        cls,
        data: Mapping[str, Any],
        *,
        where: str = "scenario",
        base: Path | None = None,
        authored: bool = False,
    ) -> Scenario:
        """Validate plain data; ``where`` names it in messages, ``base`` is the folder presets are sought beside.

        In a scenario that is ``authored`` every end of a knob has to be allowed; where values have been changed since,
        an end may no longer go with them, and is refused when somebody turns the knob so far.
        """
        scenario = _parse(data, where, base)
        state = scenario
        for number, change in sorted(enumerate(scenario.changes), key=lambda c: c[1].at):
            for path in change.set:
                _check_changeable(path, f"{where}: changes.{number}.set")
            try:
                state = state.override(change.set)
            except ScenarioError as error:
                raise ScenarioError(f"{where}: changes.{number} (at step {change.at}): {error}") from None
        for number, knob in enumerate(scenario.knobs):
            _check_changeable(knob.path, f"{where}: knobs.{number}.path")
            if authored and (wrong := scenario.refused(knob.path, *knob.ends)):
                raise ScenarioError(f"{where}: knobs.{number}: {wrong}")
        for name in scenario.variants:
            try:
                scenario.variant(name, base=base)
            except ScenarioError as error:
                raise ScenarioError(f"{where}: variants.{name}: {error}") from None
        return scenario

    def refused(self, path: str, *values: Any) -> str:
        """Return why one of these values is not allowed at a path as things stand; empty where all are."""
        for value in values:
            try:
                self.override({path: self.like(path, value)})
            except ScenarioError as error:
                return str(error)
        return ""

    def plain(self) -> dict[str, Any]:
        """Return the resolved scenario as plain data: presets inlined, defaults written out, kinds named."""
        data = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        for section, table in self._tables():
            data[section] = {name: part.plain() for name, part in table.items()}
        return {key: value for key, value in data.items() if value not in ({}, [])}

    def to_toml(self) -> str:
        """Return the resolved scenario as a TOML file that can itself be run; it is one variant and has no others."""
        return tomli_w.dumps({key: value for key, value in self.plain().items() if key != "variants"})

    def override(self, values: Mapping[str, Any], *, base: Path | None = None) -> Scenario:
        """Return the scenario with dotted paths set, validated like a file; raise ScenarioError if it is not.

        Setting ``models.<name>.preset``, or another ``kind`` of a model, source or policy, replaces all of it, since
        fields of one kind mean nothing to another; fields of it that are set beside that, before or after, are set on
        the new one. An entry that is not there is made if what it cannot do without, or all of it, is set; a mistyped
        name is thus an error in every section.
        """
        data = self.plain()
        for path in checked_paths(values):
            _check_there(path, values, data)
        whole_first = sorted(values.items(), key=lambda item: not _WHOLE.fullmatch(item[0]))
        for path, value in whole_first:
            part, _, field = path.rpartition(".")
            if _WHOLE.fullmatch(path) and _at(data, path) != value:
                data = set_path(data, part, {field: value})
            else:
                data = set_path(data, path, value)
        return _parse(data, "", base)

    def variant(self, name: str, *, base: Path | None = None) -> Scenario:
        """Return this scenario with the paths of one of its variants set; raise ScenarioError if it has no such one."""
        if name not in self.variants:
            there = f"there are {', '.join(self.variants)}" if self.variants else "it has none"
            raise ScenarioError(f'{self.name}: no variant "{name}"{nearest(name, self.variants)}; {there}')
        return self.model_copy(update={"variants": {}}).override(self.variants[name], base=base)

    def at(self, t: int) -> Scenario:
        """Return the scenario in force at step ``t``: this one with every change up to then applied."""
        state = self
        for change in sorted(self.changes, key=lambda c: c.at):
            if change.at <= t:
                state = state.override(change.set)
        return state

    def value(self, path: str) -> Any:
        """Return what stands at a dotted path of the plain scenario, None where nothing does."""
        node: Any = self.plain()
        for key in path.split("."):
            if isinstance(node, list):
                node = node[int(key)] if key.isdigit() and int(key) < len(node) else None
            else:
                node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def like(self, path: str, value: Any) -> Any:
        """Return a number as a whole one where a whole number stands at the path; anything else as it is."""
        whole = isinstance(self.value(path), int) and not isinstance(self.value(path), bool)
        return round(value) if whole and isinstance(value, float) else value

    def forked(
        self, step: int, values: Mapping[str, Any], *, base: Path | None = None, called: str | None = None
    ) -> Scenario:
        """Return the scenario of a run that leaves this one's after ``step``: these paths hold from the next step on.

        It is this scenario with one more timed change, so that running it from step 0 gives this one's numbers up to
        ``step``. What a later timed change would have set at the same path, above or below it is left out: the
        values hold to the end. Name, description, steps, weights_every and theory are set for the whole.
        Raises ScenarioError for what cannot change inside a run, and for what is wrong in any scenario; its sentences
        begin with what this is ``called``.
        """
        where = called or f"branch after step {step}"
        whole = {path: value for path, value in values.items() if path.split(".")[0] in _WHOLE_RUN}
        timed = {path: value for path, value in values.items() if path not in whole}
        for path, value in timed.items():
            _check_changeable(path, where, f" A branch may also set {', '.join(_WHOLE_RUN)}.")
            if value is None:
                raise ScenarioError(f'{where}: "{path}" = None: a change needs a value.')
        data = self.override(whole, base=base).plain()
        changes = []
        for change in self.changes:
            left = {p: v for p, v in change.set.items() if change.at <= step or not any(_overlap(p, q) for q in timed)}
            if left:
                changes.append({"at": change.at, "set": left})
        if timed:
            changes.append({"at": step + 1, "set": timed})
        return Scenario.parse({**data, "changes": changes}, where=where, base=base)

    def standing(self) -> list[str]:
        """Return the names of the policies that stand at a gate of the web or of a trainer, each once."""
        gates = [self.web.publish, self.web.retain]
        gates += [names for trainer in self.trainers.values() for names in (trainer.select, trainer.retain or [])]
        return list(dict.fromkeys(name for names in gates for name in names))

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that name this experiment (not its name, seed or number of steps)."""
        told = ("name", "description", "seed", "steps", "theory", "variants", "knobs")
        data = {k: v for k, v in self.plain().items() if k not in told}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


_WHOLE_RUN = ("name", "description", "steps", "weights_every", "theory")  # no number of any step depends on them
_CHANGEABLE = re.compile(
    r"policies\.[^.]+(\..+)?|web\.(retain|publish)|measure\.(?!downstream\b).+"
    r"|writers\.[^.]+\.(rate|reaction|leaves_below|returns_above|pay|wage)"
    r"|trainers\.[^.]+\.(scrape(\..+)?|select|retain|from|budget(\..+)?|learning_rate|decoding(\..+)?|publish|every|offset|lag)"
    r"|curators\.[^.]+\.(reviews|true_positive_rate|false_positive_rate|action|strength|quality_bias)"
)


def _check_changeable(path: str, where: str, besides: str = "") -> None:
    if not _CHANGEABLE.fullmatch(path):
        raise ScenarioError(
            f'{where}: "{path}" cannot change inside a run; what can: policies, web.retain, web.publish, measure but '
            "downstream, the rates and pay of writers, what curators do, and of trainers all but count, model and "
            f"sites.{besides}"
        )


_MADE_BY = {  # without one of these there is no entry
    "sources": ("kind",),
    "models": ("kind", "preset"),
    "policies": ("kind",),
    "writers": ("source",),
    "trainers": ("model",),
    "curators": (),  # has no field that it cannot do without, so that only the whole table makes one
}


def _check_there(path: str, values: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Raise ScenarioError for a path into an entry that is not there and that the other values do not make."""
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


def _overlap(path: str, other: str) -> bool:
    """Return whether setting one of two dotted paths decides, wholly or in part, what stands at the other."""
    whole = [p.rpartition(".")[0] if _WHOLE.fullmatch(p) else p for p in (path, other)]
    one, two = (f"{p}." for p in whole)
    return one.startswith(two) or two.startswith(one)


def _at(data: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path of three, None where there is none."""
    section, name, field = path.split(".")
    part = data.get(section, {}).get(name, {})
    return part.get(field) if isinstance(part, Mapping) else None


def _parse(data: Mapping[str, Any], where: str, base: Path | None) -> Scenario:
    if not isinstance(data, Mapping):
        raise ScenarioError(f"{where}: must be a table of keys and values, not {data!r}.")
    problems: list[str] = []
    values = dict(data)
    kinds: list[tuple[str, Registry[Any]]] = [("sources", SOURCES), ("models", FAMILIES), ("policies", POLICIES)]
    for section, registry in kinds:
        table = values.get(section, {})
        if not isinstance(table, Mapping):
            problems.append(f"{section}: must be a table of named entries, such as [{section}.name], not {table!r}")
            values.pop(section)
            continue
        values[section] = {
            name: _parse_part(entry, registry, f"{section}.{name}", base, problems) for name, entry in table.items()
        }
    bad_parts = bool(problems)
    for section, _ in kinds:
        if section in values:
            values[section] = {name: part for name, part in values[section].items() if part is not None}
    scenario: Scenario | None = None
    try:
        scenario = Scenario.model_validate(values)
    except ValidationError as error:
        problems += explain(error, "", Scenario)
    if scenario is not None and not bad_parts:
        problems += incoherent(scenario)
    if problems or scenario is None:
        at = f"{where}: " if where else ""
        raise ScenarioError("\n".join(f"{at}{problem}." for problem in problems))
    return scenario


def _parse_part(entry: Any, registry: Registry[Any], path: str, base: Path | None, problems: list[str]) -> Spec | None:
    """Parse one entry of a section whose kinds live in a registry; note what is wrong and return None."""
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
            problems.append(f"{path}: needs a kind{hint}; the kinds are {', '.join(registry.all())}")
            return None
        cls = registry.get(kind)
    except ScenarioError as error:
        problems.append(f"{path}: {error}".removesuffix("."))
        return None
    try:
        part: Spec = cls.model_validate(fields)
    except ValidationError as error:
        problems.extend(explain(error, path, cls))
        return None
    return part
