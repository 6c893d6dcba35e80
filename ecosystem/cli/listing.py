"""Listings of kinds with their fields, JSON Schemas of files, and exported downstream tasks."""

from __future__ import annotations

import json
import textwrap
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ecosystem.app.teaching.story import Action, Scene, Story
from ecosystem.corpus.life.spec import AgeSpec, LifeSpec, LinkSpec, SiteType
from ecosystem.corpus.web import InitialSpec, WebSpec
from ecosystem.curves import Curve
from ecosystem.errors import EcosystemError
from ecosystem.families.base import FAMILIES
from ecosystem.families.requests import Budget, Decoding, Prompt, Rewriting
from ecosystem.fitting.spec.fit import Fit, Parameter
from ecosystem.fitting.spec.priors import Beta, LogNormal, LogUniform, Normal, Uniform
from ecosystem.fitting.spec.targets import Target
from ecosystem.input_files import is_folder
from ecosystem.metrics.catalogue import definitions
from ecosystem.metrics.definitions import Definition
from ecosystem.metrics.tasks import TASKS
from ecosystem.policies.base import POLICIES
from ecosystem.registry import Registry
from ecosystem.runs.run import Run
from ecosystem.scenario.entries.adoption import AdoptionSpec
from ecosystem.scenario.entries.changes import Change
from ecosystem.scenario.entries.choices import ChoiceSpec
from ecosystem.scenario.entries.instruments import InstrumentSpec
from ecosystem.scenario.entries.measure import DownstreamSpec, MeasureSpec, OverlapSpec
from ecosystem.scenario.entries.people import CuratorSpec, WriterSpec
from ecosystem.scenario.entries.theory import TheorySpec
from ecosystem.scenario.entries.trainers import ScrapeSpec, TrainerSpec
from ecosystem.scenario.presets import FITS, STORIES, STUDIES, FileKind, bundled, presets, read_toml
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.downstream import Downstream, write_harness
from ecosystem.sources.base import SOURCES
from ecosystem.streams import Streams
from ecosystem.studies.spec.design import Design, Range
from ecosystem.studies.spec.frontier import ClosedForm, Frontier
from ecosystem.studies.spec.law_fit import LawFit
from ecosystem.studies.spec.measure import Measure
from ecosystem.studies.spec.study import BranchPoint, EqualCost, Study
from ecosystem.theory.laws import ARGUMENTS, Source, laws, scaling_laws

_REGISTRIES: dict[str, Registry[Any]] = {"sources": SOURCES, "models": FAMILIES, "policies": POLICIES}


_PRIORS: dict[str, type[BaseModel]] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "normal": Normal,
    "lognormal": LogNormal,
    "beta": Beta,
}
_ENTRIES: dict[str, type[BaseModel]] = {
    "[web]": WebSpec,
    "[web] initial": InitialSpec,
    "[web] initial.age": AgeSpec,
    "[web.types.NAME]": SiteType,
    "[web.types.NAME] page_life and site_life": LifeSpec,
    "[web.links]": LinkSpec,
    "[writers.NAME]": WriterSpec,
    "[writers.NAME] rewrite": Rewriting,
    "[writers.NAME] choice": ChoiceSpec,
    "[writers.NAME] adoption": AdoptionSpec,
    "[trainers.NAME]": TrainerSpec,
    "[trainers.NAME] scrape": ScrapeSpec,
    "[trainers.NAME] budget": Budget,
    "[trainers.NAME] decoding": Decoding,
    "[trainers.NAME] decoding.prompt": Prompt,
    "[curators.NAME]": CuratorSpec,
    "a value that varies in time": Curve,
    "[instruments.NAME]": InstrumentSpec,
    "[measure]": MeasureSpec,
    "[measure.overlap]": OverlapSpec,
    "[measure.downstream]": DownstreamSpec,
    "[[changes]]": Change,
    "[[theory]]": TheorySpec,
    "a study file": Study,
    "a study's [design] and [draw]": Design,
    "a study's range of an axis": Range,
    "a study's [[measures]]": Measure,
    "a study's [branch]": BranchPoint,
    "a study's [equal_cost]": EqualCost,
    "a study's [fit]": LawFit,
    "a frontier file": Frontier,
    "a frontier's [closed_form]": ClosedForm,
    "a fit file": Fit,
    "a story file": Story,
    "a story's [[scenes]]": Scene,
    "a scene's instructions (do)": Action,
    "a fit's [parameters.NAME]": Parameter,
    **{f'a fit\'s prior, law = "{name}"': law for name, law in _PRIORS.items()},
    "a fit's [[targets]], and the columns of its file of targets": Target,
}


def listing(what: str, as_json: bool) -> str:
    """Return the entries of one sort (scenarios, studies, models, …, tasks) as text or JSON."""
    entries = {
        "scenarios": lambda: _files(None),
        "studies": lambda: _files(STUDIES),
        "fits": lambda: _files(FITS),
        "stories": lambda: _files(STORIES),
        "models": _models,
        "policies": lambda: _kinds("policies"),
        "sources": lambda: _kinds("sources"),
        "metrics": _metrics,
        "laws": _laws,
        "scaling_laws": _scaling_laws,
        "tasks": _tasks,
        "entries": _entries,
    }[what]()
    if as_json:
        return json.dumps(entries, indent=1)
    return "\n\n".join(_entry(entry) for entry in entries)


def _entry(entry: dict[str, Any]) -> str:
    lines = [entry["name"], *textwrap.wrap(entry.get("about", ""), 100, initial_indent="  ", subsequent_indent="  ")]
    for field in entry.get("fields", []):
        lines.append(f"    {field['name']}: {field['type']} = {field['default']}")
        lines += textwrap.wrap(field["about"], 92, initial_indent="        ", subsequent_indent="        ")
    return "\n".join(lines)


def _described(name: str, cls: type[BaseModel]) -> dict[str, Any]:
    fields = [
        {"name": field, "type": kind, "default": default, "about": about}
        for field, kind, default, about in fields_of(cls)
    ]
    return {"name": name, "about": _about(cls.__doc__), "fields": fields}


def _kinds(section: str) -> list[dict[str, Any]]:
    return [_described(name, cls) for name, cls in _REGISTRIES[section].all().items()]


def _entries() -> list[dict[str, Any]]:
    return [_described(name, cls) for name, cls in _ENTRIES.items()]


def _about(doc: str | None) -> str:
    return " ".join((doc or "").split())


def _files(kind: str | None) -> list[dict[str, Any]]:
    """Return the bundled files in the subfolder STUDIES, FITS or STORIES, or (None) in all others: scenarios."""
    entries: dict[str, dict[str, Any]] = {}
    for folder in bundled("scenarios"):
        for file in sorted(folder.rglob("*.toml")):
            if (file.parent.name if file.parent.name in (STUDIES, FITS, STORIES) else None) != kind:
                continue
            data = read_toml(file)
            about = data.get("description") or data.get("name", "")
            if data.get("variants"):
                about += f" Variants: {', '.join(data['variants'])}."
            shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
            entries.setdefault(file.name, {"name": str(shown), "about": about})
    return list(entries.values())


def _models() -> list[dict[str, Any]]:
    entries = []
    for name, file in presets().items():
        lines = file.read_text(encoding="utf-8").splitlines()
        comment = [line.removeprefix("#").strip() for line in lines if line.startswith("# ")]
        entries.append({"name": f'preset = "{name}"', "about": " ".join(comment)})
    return entries + [{**entry, "name": f'kind = "{entry["name"]}"'} for entry in _kinds("models")]


def _metrics() -> list[dict[str, Any]]:
    return [
        {"name": name, "about": _metric_line(entry), "better": entry.better, **entry._asdict()}
        for name, entry in definitions().items()
    ]


def _metric_line(entry: Definition) -> str:
    """Return a metric's description, unit, better direction, alias and source in one line."""
    parts = [entry.text]
    parts += [f"unit: {entry.unit}"] if entry.unit != "1" else []
    parts += [f"{entry.better} is better"] if entry.better else []
    parts += [f"alias: {entry.alias}"] if entry.alias else []
    parts += [entry.source] if entry.source else []
    return "; ".join(parts)


def _tasks() -> list[dict[str, Any]]:
    return [{"name": name, "about": _about(task.__doc__)} for name, task in TASKS.all().items()]


def _laws() -> list[dict[str, Any]]:
    entries = []
    for name, law in laws().items():
        fields = [
            {
                "name": p.name,
                "type": str(p.annotation).replace("ArrayLike", "list"),
                "default": "required" if p.default is p.empty else json.dumps(p.default),
                "about": ARGUMENTS.get(p.name, ""),
            }
            for p in law.parameters
        ]
        about = _about_law(law.function.__doc__, law.source)
        entries.append({"name": name, "about": about, "source": law.source, "fields": fields})
    return entries


def _scaling_laws() -> list[dict[str, Any]]:
    entries = []
    for name, law in scaling_laws().items():
        fields = [
            {"name": parameter, "type": "fitted", "default": f"{end.low:g} to {end.high:g}", "about": end.text}
            for parameter, end in law.unknowns.items()
        ]
        about = f"{_about_law(law.function.__doc__, law.source)} Depends on {', '.join(law.inputs)}."
        entries.append({"name": name, "about": about, "source": law.source, "fields": fields})
    return entries


def _about_law(docstring: str | None, source: Source) -> str:
    about = _about(docstring)
    if source == "digest":
        about += " The formula was taken from a summary of the paper or from memory, not from the paper itself."
    return about


def harness(place: Path, folder: Path, trainer: str | None, step: str | None, before: str) -> str:
    """Write downstream tasks for lm-evaluation-harness to ``folder``; return the command that runs them.

    ``place`` is a scenario file or a run folder. With ``trainer``, the model of a run's trainer after ``step`` is
    written to ``folder/model``. ``before`` precedes every text. Raises EcosystemError if there are no tasks, or no such
    model.
    """
    run = Run.open(place) if is_folder(place) else None
    scenario, base = (Scenario.load(place), place.parent) if run is None else (run.scenario, run.path)
    settings, initial = scenario.measure.downstream, scenario.web.initial
    if settings is None or initial is None:
        raise EcosystemError(f"{place}: has no downstream tasks; add a table [measure.downstream].")
    if trainer is not None and run is None:
        raise EcosystemError(f"--trainer {trainer}: {place} is not a run folder, and only runs have models.")
    streams = Streams(scenario.seed if run is None else run.seed)
    reservoir = scenario.sources[initial.source].open(initial.source, streams, base)
    examples = Downstream.of(settings, reservoir, streams).examples
    names = write_harness({kind: test for kind, (_, test) in examples.items()}, folder, before)
    model = "CHECKPOINT"
    if run is not None and trainer is not None:
        number = None if step is None else run.step_number(step, f"--step {step}")
        model = str(run.save_model(trainer, folder / "model", number))
    return f"lm_eval --model hf --model_args pretrained={model} --tasks {','.join(names)} --include_path {folder}"


def json_schema(what: FileKind = "scenario") -> dict[str, Any]:
    """Return the JSON Schema of a sort of files; that of scenarios includes every registered kind."""
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    if what != "scenario":
        kinds: dict[str, type[BaseModel]] = {"study": Study, "frontier": Frontier, "fit": Fit, "story": Story}
        return draft | kinds[what].model_json_schema(by_alias=True)
    schema = Scenario.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for section, registry in _REGISTRIES.items():
        options: list[dict[str, Any]] = []
        for kind, cls in registry.all().items():
            kind_schema = cls.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
            definitions.update(kind_schema.pop("$defs", {}))
            kind_schema["properties"] = {"kind": {"const": kind}, **kind_schema.get("properties", {})}
            kind_schema["required"] = ["kind", *kind_schema.get("required", [])]
            definitions[f"{section}_{kind}"] = kind_schema
            options.append({"$ref": f"#/$defs/{section}_{kind}"})
        if section == "models":
            preset = {"preset": {"enum": sorted(presets())}}
            options.append({"type": "object", "properties": preset, "required": ["preset"]})
        schema["properties"][section] = {"type": "object", "additionalProperties": {"anyOf": options}}
    return {**draft, **schema}


def fields_of(
    cls: type[BaseModel], prefix: str = "", given: BaseModel | None = None
) -> list[tuple[str, str, str, str]]:
    """Return (path, type, default or "required", description) of every field of a spec, nested ones included.

    Fields of the tables in a list are those of one of its entries.

    The values of an instance ``given`` replace the defaults of the class.
    """
    rows = []
    schema = cls.model_json_schema(by_alias=True)
    table = schema if "properties" in schema else schema["anyOf"][-1]  # a curve may be a number
    properties, definitions = table["properties"], schema.get("$defs", {})
    for name, field in cls.model_fields.items():
        path = prefix + (field.alias or name)
        required = field.is_required() and given is None
        class_default = None if field.is_required() else field.get_default(call_default_factory=True)
        default = class_default if given is None else getattr(given, name)
        if isinstance(default, BaseModel):
            rows += fields_of(type(default), f"{path}.", default)
            continue
        shown = "required" if required else "absent" if default is None else json.dumps(default)
        rows.append(
            (path, _type(_inlined(properties[field.alias or name], definitions)), shown, field.description or "")
        )
        if typing.get_origin(field.annotation) is list:
            [entry] = typing.get_args(field.annotation)
            rows += fields_of(entry, f"{path}.") if isinstance(entry, type) and issubclass(entry, BaseModel) else []
    return rows


def _inlined(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with definitions that are not only tables, such as those of curves, in place of references."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_inlined(part, definitions) for part in schema["anyOf"]]}
    definition = definitions.get(schema.get("$ref", "").rpartition("/")[2], {})
    return definition if "anyOf" in definition else schema


_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def _type(schema: dict[str, Any]) -> str:
    """Return a short form of a JSON Schema, such as ``integer > 0``, ``list of (string)`` or ``"fixed" | "fresh"``."""
    if "anyOf" in schema:
        parts = [_type(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " | ".join(dict.fromkeys(parts))
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if choices:
        return " | ".join(json.dumps(choice) for choice in choices)
    sort = schema.get("$comment") or schema.get("type", "object")
    if sort in ("array", "object"):
        return _container(schema, sort)
    return " ".join([sort, *(f"{sign} {schema[key]:g}" for key, sign in _LIMITS.items() if key in schema)])


def _container(schema: dict[str, Any], sort: str) -> str:
    """Return the type of a list or table, with the type and number of its items."""
    name, inside = ("list", "items") if sort == "array" else ("table", "additionalProperties")
    item = schema.get(inside)
    if isinstance(item, dict) and ("type" in item or "anyOf" in item):
        name += f" of ({_type(item)})"
    fewest, most = schema.get("minItems", 0), schema.get("maxItems")
    if most is not None:
        return f"{name}, {most} items" if fewest == most else f"{name}, {fewest} to {most} items"
    return f"{name}, {fewest} or more items" if fewest else name
