"""Scenario files: the whole experiment as one frozen value, validated completely when it is read.

Every mistake in a file is reported at once, each as a sentence with its dotted path; every timed change is
applied and checked here too, so that a run never fails at step 40 for something that stood in the file.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationError, model_validator

from ecosystem.corpus.sources import SOURCES, Source
from ecosystem.corpus.web import WebSpec
from ecosystem.errors import ScenarioError, nearest
from ecosystem.families.base import FAMILIES, Budget, Decoding, Family, Start
from ecosystem.metrics.base import METRICS
from ecosystem.metrics.definitions import DEFINITIONS
from ecosystem.metrics.laws import wrong_law
from ecosystem.policies.base import POLICIES, Adder, Filter, Policy, Weigher
from ecosystem.registry import Registry
from ecosystem.spec import Spec, explain, set_path

Count = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[int, Field(gt=0, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]
_PRESET = re.compile(r"models\.[^.]+\.preset")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class WriterSpec(Spec):
    """A population of people who write documents."""

    count: Positive = 1
    source: str = Field(description="the source their documents are drawn from, without replacement")
    rate: Annotated[float, Field(ge=0, le=1e9)] = Field(5.0, description="documents a step, each writer, on average")
    sites: Positive = Field(3, description="home sites of each writer")
    reaction: Share = Field(
        0.0, description="0: writes regardless; 1: stops writing when all it reads around its home sites is synthetic"
    )


class ScrapeSpec(Spec):
    """How a trainer collects candidates from the web."""

    docs: Positive = Field(1000, description="candidates a step, without replacement")
    strategy: Literal["uniform", "recent", "reach", "popularity"] = Field(
        "uniform",
        description="uniform: all alike; recent: newer ones more often; reach: only sites within `links` of its "
        "home sites; popularity: in proportion to the PageRank of their site",
    )
    links: Count = Field(2, description="for reach: how many links away from the home sites")
    half_life: Annotated[float, Field(gt=0)] = Field(
        2.0, description="for recent: steps after which a document is half as likely to be scraped"
    )


class TrainerSpec(Spec):
    """A population of trainers that share one recipe; each has its own model, home sites and luck."""

    count: Positive = 1
    model: str = Field(description="name of an entry in [models]")
    sites: Positive = Field(3, description="home sites, where it publishes and from where reach is counted")
    scrape: ScrapeSpec = ScrapeSpec()
    select: list[str] = Field([], description="policies applied to the candidates, in this order")
    retain: list[str] | None = Field(
        None,
        description="absent: train on this step's selection alone; a list: keep an archive of everything selected "
        "so far, thinned by these retention policies ([] keeps all)",
    )
    start: Start = Field(
        "previous",
        alias="from",
        description="the weights each fit starts from: foundation, previous (its own last model) or scratch",
    )
    budget: Budget = Budget(tokens=50_000)
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="absent: the model's own")
    decoding: Decoding = Decoding()
    publish: Count = Field(100, description="documents published a step, each trainer")
    every: Positive = Field(1, description="fit at every so many steps")
    offset: Count = Field(0, description="first step at which it may fit is 1 + offset")
    lag: Count = Field(0, description="scrape only what was published at least so many steps ago")


class CuratorSpec(Spec):
    """A population of fallible reviewers who look for machine text on some sites."""

    count: Positive = 1
    sites: Positive = Field(10, description="sites each curator watches")
    reviews: Count = Field(40, description="documents reviewed a step, each curator")
    true_positive_rate: Share = Field(0.8, description="chance of recognising a synthetic document")
    false_positive_rate: Share = Field(0.05, description="chance of taking a human document for synthetic")
    action: Literal["remove", "down_weight", "endorse"] = Field(
        "remove",
        description="remove: take suspects off the web; down_weight: multiply their prominence by `strength`; "
        "endorse: strengthen links to the sites of documents taken for human by `strength`",
    )
    strength: Annotated[float, Field(gt=0)] = 0.25


class MeasureSpec(Spec):
    """How much is measured, and how finely."""

    held_out: Positive = Field(200, description="human documents, at most, on which every trainer is scored")
    synthetic: Count = Field(10, description="extra documents each trainer writes per step for scoring, unpublished")
    texts: list[str] | None = Field(None, description="text metrics to compute; absent: all of them")
    words: Positive = Field(1000, description="words in each equal-size sample on which text metrics are computed")
    groups: Annotated[int, Field(ge=2)] = Field(8, description="how many such samples, at most")
    sites: bool = Field(True, description="record the synthetic share of every site")
    initial_perplexity: Count = Field(
        100,
        description="published texts of each trainer, at most, whose perplexity under the weights that trainers start "
        "from is taken at every step; 0: none",
    )
    initial_tokens: Positive = Field(
        32, description="tokens of each of them, its first ones without a prompt; shorter texts are left out"
    )


class Change(Spec):
    """A timed policy: from step ``at`` on, these dotted paths have these values."""

    at: Positive
    set: dict[str, Any]


class TheorySpec(Spec):
    """A closed form beside the simulation: a curve in the report, and checks for ``ecosystem validate``."""

    metric: str = Field(description="what it predicts, averaged over the trainers of a population")
    population: str = Field(description="name of an entry in [trainers]")
    law: str = Field(description="name of a function of the generation (ecosystem list laws)")
    parameters: dict[str, Any] = Field(default_factory=dict, description="its other arguments")
    first: int = Field(0, description="generation at step 0; the law is drawn from generation 1 on")
    check: list[Positive] = Field([], description="steps at which `ecosystem validate` compares")
    source: str = Field("", description="where the law comes from")


class Scenario(Spec):
    """A whole experiment. Read one with :meth:`load`, vary it with :meth:`override`."""

    name: str
    description: str = ""
    seed: Count = 1
    steps: Positive = 10
    weights_every: Positive = Field(1, description="keep the models of every so many steps (and of the last)")
    sources: dict[str, Source]
    web: WebSpec
    models: dict[str, Family]
    policies: dict[str, Policy] = {}
    writers: dict[str, WriterSpec] = {}
    trainers: dict[str, TrainerSpec] = {}
    curators: dict[str, CuratorSpec] = {}
    measure: MeasureSpec = MeasureSpec()
    changes: list[Change] = []
    theory: list[TheorySpec] = []

    @model_validator(mode="after")
    def _names(self) -> Scenario:
        for name in (self.name, *(n for _, table in self._tables() for n in table)):
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
        return cls.parse(read_toml(file), where=str(file), base=file.parent)

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, where: str = "scenario", base: Path | None = None) -> Scenario:
        """Validate plain data; ``where`` names it in messages, ``base`` is the folder presets are sought beside."""
        scenario = _parse(data, where, base)
        state = scenario
        for number, change in sorted(enumerate(scenario.changes), key=lambda c: c[1].at):
            for path in change.set:
                _check_changeable(path, f"{where}: changes.{number}.set")
            try:
                state = state.override(change.set)
            except ScenarioError as error:
                raise ScenarioError(f"{where}: changes.{number} (at step {change.at}): {error}") from None
        return scenario

    def plain(self) -> dict[str, Any]:
        """Return the resolved scenario as plain data: presets inlined, defaults written out, kinds named."""
        data = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        for section, table in self._tables():
            data[section] = {name: part.plain() for name, part in table.items()}
        return {key: value for key, value in data.items() if value not in ({}, [])}

    def to_toml(self) -> str:
        """Return the resolved scenario as a TOML file that can itself be run."""
        return tomli_w.dumps(self.plain())

    def override(self, values: Mapping[str, Any], *, base: Path | None = None) -> Scenario:
        """Return the scenario with dotted paths set, validated like a file; raise ScenarioError if it is not.

        Setting ``models.<name>.preset`` replaces that whole model, since fields of one family mean nothing to another;
        other fields of it that are set beside it, before or after, are set on the new one.
        """
        data = self.plain()
        presets_first = sorted(values.items(), key=lambda item: not _PRESET.fullmatch(item[0]))
        for path, value in presets_first:
            if _PRESET.fullmatch(path):
                data = set_path(data, path.removesuffix(".preset"), {"preset": value})
            else:
                data = set_path(data, path, value)
        return _parse(data, "", base)

    def at(self, t: int) -> Scenario:
        """Return the scenario in force at step ``t``: this one with every change up to then applied."""
        state = self
        for change in sorted(self.changes, key=lambda c: c.at):
            if change.at <= t:
                state = state.override(change.set)
        return state

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that name this experiment (not its name, seed or number of steps)."""
        data = {k: v for k, v in self.plain().items() if k not in ("name", "description", "seed", "steps", "theory")}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


_CHANGEABLE = re.compile(
    r"policies\.[^.]+\..+|web\.(retain|publish)|measure\..+"
    r"|writers\.[^.]+\.(rate|reaction)"
    r"|trainers\.[^.]+\.(scrape(\..+)?|select|retain|from|budget(\..+)?|learning_rate|decoding(\..+)?|publish|every|offset|lag)"
    r"|curators\.[^.]+\.(reviews|true_positive_rate|false_positive_rate|action|strength)"
)


def _check_changeable(path: str, where: str) -> None:
    if not _CHANGEABLE.fullmatch(path):
        raise ScenarioError(
            f'{where}: "{path}" cannot change inside a run; what can: fields of policies, web.retain, web.publish, '
            "measure, the rates of writers and curators, and of trainers all but count, model and sites."
        )


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file; raise ScenarioError that names the file, and the place of a syntax error."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ScenarioError(f"{file}: there is no such file{_scenarios_beside(file)}.") from None
    except IsADirectoryError:
        raise ScenarioError(f"{file}: is a folder, not a scenario file.") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{file}: is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{file}: is not valid TOML: {error}.") from None
    except OSError as error:
        raise ScenarioError(f"{file}: cannot be read: {error.strerror}.") from None


def _scenarios_beside(file: Path) -> str:
    names = [p.stem for p in file.parent.glob("*.toml")] if file.parent.is_dir() else []
    return nearest(file.stem, names).replace('"?', '.toml"?')  # the endings are all alike and would decide


def bundled(folder: Literal["models", "scenarios"], base: Path | None = None) -> list[Path]:
    """Return the folders in which presets or scenarios are sought, nearest first."""
    package = Path(__file__).parent
    places = [Path.cwd() / folder, package.parent / folder, package / "_bundled" / folder]
    if base is not None:
        places[1:1] = [base / folder, base.parent / folder]
    return [place for place in dict.fromkeys(p.resolve() for p in places) if place.is_dir()]


def presets(base: Path | None = None) -> dict[str, Path]:
    """Return every model preset by name; of two with one name the nearer wins."""
    found: dict[str, Path] = {}
    for place in bundled("models", base):
        for file in sorted(place.glob("*.toml")):
            if file.is_file():
                found.setdefault(file.stem, file)
    return found


def _with_preset(data: Mapping[str, Any], base: Path | None, chain: tuple[str, ...] = ()) -> dict[str, Any]:
    """Replace ``preset = "name"`` by what that file says, overridden by the other keys of ``data``."""
    if "preset" not in data:
        return dict(data)
    name = str(data["preset"])
    known = presets(base)
    if name in chain:
        raise ScenarioError(f"presets refer to one another in a circle: {' -> '.join([*chain, name])}")
    if name not in known:
        raise ScenarioError(
            f'preset: there is no model preset "{name}"{nearest(name, known)}; there are {", ".join(sorted(known))}'
        )
    below = _with_preset(read_toml(known[name]), base, (*chain, name))
    own = {key: value for key, value in data.items() if key != "preset"}
    if own.get("kind", below.get("kind")) != below.get("kind"):
        raise ScenarioError(
            f'preset "{name}" is of kind {below.get("kind")}, but kind = "{own["kind"]}" stands beside it'
        )
    return _merge(below, own)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged


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
        problems += _broken_references(scenario)
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
        fields = _with_preset(entry, base) if registry is FAMILIES else dict(entry)
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


def _broken_references(s: Scenario) -> list[str]:
    """Return a sentence for every name that refers to nothing or to the wrong sort of thing."""
    problems: list[str] = []

    def refer(path: str, name: str, table: Mapping[str, Any], section: str) -> None:
        if name not in table:
            there = ", ".join(sorted(table)) or "none"
            problems.append(
                f"{path}: there is no [{section}.{name}]{nearest(name, table)}; defined in [{section}]: {there}"
            )

    def gate(path: str, names: Sequence[str], allowed: tuple[type[Policy], ...], what: str) -> None:
        for name in names:
            refer(path, name, s.policies, "policies")
            policy = s.policies.get(name)
            if policy is not None and not isinstance(policy, allowed):
                problems.append(f'{path}: the policy "{name}" ({policy.kind}) cannot stand here; {what}')
        if len(set(names)) < len(names):
            problems.append(f"{path}: names a policy twice; each may stand once at a gate")

    if s.web.initial is not None:
        refer("web.initial.source", s.web.initial.source, s.sources, "sources")
    gate("web.publish", s.web.publish, (Filter,), "only filters can stand at the publish gate")
    gate("web.retain", s.web.retain, (Filter, Weigher), "only filters and weighers can stand at the retain gate")
    for name, writer in s.writers.items():
        refer(f"writers.{name}.source", writer.source, s.sources, "sources")
    for name, trainer in s.trainers.items():
        path = f"trainers.{name}"
        refer(f"{path}.model", trainer.model, s.models, "models")
        gate(f"{path}.select", trainer.select, (Filter, Weigher, Adder), "")
        problems += [
            f'{path}.retain: the policy "{name}" ({s.policies[name].kind}) cannot thin an archive, which knows only '
            "when a document was acquired; replace, accumulate, accumulate_subsample, window and decay can"
            for name in trainer.retain or []
            if name in s.policies and s.policies[name].needs_content
        ]
        gate(f"{path}.retain", trainer.retain or [], (Policy,), "")
        prompt, context = trainer.decoding.prompt, getattr(s.models.get(trainer.model), "context", None)
        if prompt is not None and context is not None and prompt.tokens + 1 >= context:
            problems.append(
                f"{path}.decoding.prompt.tokens: a prompt of {prompt.tokens} tokens leaves no room to write in the "
                f"model's context of {context}; at most {context - 2}"
            )
    for name, policy in s.policies.items():
        source, model = getattr(policy, "source", None), getattr(policy, "model", None)
        if source is not None:
            refer(f"policies.{name}.source", source, s.sources, "sources")
        if model is not None:
            refer(f"policies.{name}.model", model, s.models, "models")
    problems += _mixed(s)
    for number, theory in enumerate(s.theory):
        refer(f"theory.{number}.population", theory.population, s.trainers, "trainers")
        wrong = wrong_law(theory.law, theory.parameters, s.modality)
        if wrong:
            problems.append(f"theory.{number}.{wrong}")
        if theory.metric not in DEFINITIONS:
            problems.append(
                f'theory.{number}.metric: there is no metric "{theory.metric}"{nearest(theory.metric, DEFINITIONS)}; '
                "see `ecosystem list metrics`"
            )
    known = METRICS.all()
    problems += [
        f'measure.texts: there is no text metric "{m}"{nearest(m, known)}; there are {", ".join(known)}'
        for m in s.measure.texts or []
        if m not in known
    ]
    return problems


def _sizes(s: Scenario) -> list[str]:
    """Return a sentence for what has no documents to begin from, or documents of another length than others."""
    problems = []
    if s.web.initial is None and s.models:
        problems.append(
            f"web.initial: is missing, but models of {s.modality} documents learn from what the web begins with what a "
            "document is, and are measured against it; give it a source and a number of documents"
        )
    widths = {name: source.width for name, source in s.sources.items() if source.width is not None}
    if s.modality == "vector" and len(set(widths.values())) > 1:
        told = ", ".join(f"{name} {width}" for name, width in widths.items())
        problems.append(
            f"sources: their documents must be vectors of one length, but the lengths are {told}; make them equal, or "
            "leave out a source"
        )
    for name, model in s.models.items():
        types = getattr(model, "types", None)
        wide = next((source for source, width in widths.items() if types is not None and width > types), None)
        if wide is not None:
            problems.append(
                f'models.{name}.types: {types} symbols are too few for the source "{wide}", which has {widths[wide]}; '
                f"give at least {widths[wide]}"
            )
    return problems


def _mixed(s: Scenario) -> list[str]:
    """Return a sentence for every part that cannot work with the others' kind of documents."""
    problems = []
    for section in ("sources", "models"):
        for name, part in getattr(s, section).items():
            if part.modality != s.modality:
                problems.append(
                    f"{section}.{name}: is for {part.modality} documents, but this scenario's are {s.modality}; "
                    "sources and models must be of one sort"
                )
    if s.web.graph == "isolated" and s.web.sites is not None:
        agents: list[WriterSpec | CuratorSpec | TrainerSpec] = [
            *s.writers.values(),
            *s.curators.values(),
            *s.trainers.values(),
        ]
        needed = sum(agent.count * agent.sites for agent in agents)
        if needed > s.web.sites:
            problems.append(f"web.sites: {s.web.sites} sites are too few for agents that need {needed} of their own")
    if s.modality == "text":
        return problems
    problems += _sizes(s)
    for name, policy in s.policies.items():
        if policy.reads_text:
            problems.append(f"policies.{name}: {policy.kind} reads words, but documents here are of sort {s.modality}")
    for name, trainer in s.trainers.items():
        decoding = trainer.decoding
        unused = {"prompt": decoding.prompt is not None, "repetition_penalty": decoding.repetition_penalty != 1.0}
        if s.modality == "vector":
            unused |= {"top_k": decoding.top_k is not None, "top_p": decoding.top_p is not None}
        problems += [
            f"trainers.{name}.decoding.{field}: has no meaning for {s.modality} documents; leave it out"
            for field, given in unused.items()
            if given
        ]
    return problems
