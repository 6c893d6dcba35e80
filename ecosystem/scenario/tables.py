"""The tables of a scenario as frozen values: the content of a scenario file, and values derived from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, Field, model_validator

from ecosystem.calendar import Calendar, step_name
from ecosystem.corpus.web import WebSpec
from ecosystem.families.base import Family
from ecosystem.placement.spec import PlacementSpec
from ecosystem.policies.base import Policy
from ecosystem.scenario.entries.changes import Change, Knob
from ecosystem.scenario.entries.instruments import InstrumentSpec
from ecosystem.scenario.entries.measure import MeasureSpec
from ecosystem.scenario.entries.people import CuratorSpec, WriterSpec
from ecosystem.scenario.entries.theory import TheorySpec
from ecosystem.scenario.entries.trainers import TrainerSpec
from ecosystem.sources.base import Source
from ecosystem.spec import Spec
from ecosystem.times import Day, StepLength, WholeSteps, WrittenFloat, WrittenInt, plain_number
from ecosystem.types import Count

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class ScenarioTables(Spec):
    """All tables and keys of a scenario file, each validated on its own."""

    name: str = Field(description="names the run folder; letters, digits, _ and -")
    description: str = Field("", description="purpose of the experiment, shown in listings and reports")
    seed: Count = Field(1, description="seed of all random streams")
    start: Day | None = Field(None, description="date of the opening (step 0); absent: steps have no dates")
    step: StepLength | None = Field(
        None, description="length of a step, such as 1 month or 2 weeks; required with `start`"
    )
    steps: WholeSteps = Field(10, description="number of steps after the opening of the web (step 0)")
    weights_every: WholeSteps = Field(
        1, description="keep model weights every this many steps (and those of the last step)"
    )
    weights_precision: Literal["bfloat16"] | None = Field(
        None, description="type in which weights of past steps are kept; absent: exactly, as the last step's always are"
    )
    sources: dict[str, Source] = Field(description="sources of documents by name, each of a kind")
    web: WebSpec = Field(description="the site graph, its initial documents and its gates")
    models: dict[str, Family] = Field(description="models by name, each of a kind or from a preset")
    policies: dict[str, Policy] = Field({}, description="policies by name, each of a kind; gates refer to them")
    writers: dict[str, WriterSpec] = Field({}, description="populations of people who write, by name")
    trainers: dict[str, TrainerSpec] = Field({}, description="populations of trainers, by name")
    curators: dict[str, CuratorSpec] = Field({}, description="populations of reviewers, by name")
    measure: MeasureSpec = Field(MeasureSpec(), description="measurements and their sample sizes")
    instruments: dict[str, InstrumentSpec] = Field({}, description="ways to observe the web, by name")
    changes: list[Change] = Field([], description="timed changes: values that take effect at a step")
    theory: list[TheorySpec] = Field([], description="closed forms that are drawn and checked beside the simulation")
    knobs: list[Knob] = Field([], description="controls of the interactive page (view); absent: a default set")
    placement: PlacementSpec | None = Field(None, description="where the models are computed; absent: in one process")
    variants: dict[str, dict[str, Any]] = Field(
        {}, description="other sizes of the experiment by name, each a table of dotted path = value (run --variant)"
    )

    @model_validator(mode="after")
    def _names(self) -> ScenarioTables:
        entries = (n for _, table in self.tables() for n in table)
        for name in (self.name, *self.variants, *(self.web.types or ()), *entries):
            if not NAME.fullmatch(name):
                raise ValueError(f'the name "{name}" may only have letters, digits, "_" and "-"')
        return self

    @property
    def modality(self) -> str:
        """The kind of all documents: text, vector or category (checked to be the same in sources and models)."""
        parts: list[Source | Family] = [*self.sources.values(), *self.models.values()]
        return parts[0].modality if parts else "text"

    @property
    def calendar(self) -> Calendar | None:
        """The dates of the steps; None without ``start`` and ``step``."""
        return None if self.start is None or self.step is None else Calendar.of(self.start, self.step)

    def step_name(self, t: int) -> str:
        """Return a step as sentences name it: ``step 12``, with a calendar ``step 12 (June 2023)``."""
        return step_name(t, self.calendar)

    def tables(self) -> list[tuple[str, Mapping[str, Spec]]]:
        """Return the sections of named entries, each with its entries."""
        names = ("sources", "models", "policies", "writers", "trainers", "curators", "instruments")
        return [(name, getattr(self, name)) for name in names]

    def plain(self) -> dict[str, Any]:
        """Return the resolved scenario as plain data: presets inlined, defaults written out, kinds named."""
        data = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        for section, table in self.tables():
            data[section] = {name: part.plain() for name, part in table.items()}
        return {key: value for key, value in data.items() if value not in ({}, [])}

    def to_toml(self) -> str:
        """Return the resolved scenario as the text of a runnable TOML file, without its variants and placement."""
        omitted = ("variants", "placement")
        return tomli_w.dumps({key: value for key, value in self.plain().items() if key not in omitted})

    def value(self, path: str) -> Any:
        """Return the value at a dotted path of the plain scenario, or None if it is not set."""
        node: Any = self.plain()
        for key in path.split("."):
            if isinstance(node, list):
                node = node[int(key)] if key.isdigit() and int(key) < len(node) else None
            else:
                node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def rounded_like(self, path: str, value: Any) -> Any:
        """Round a float if the path holds an integer; return any other value unchanged."""
        current = self.number(path)
        is_integer = isinstance(current, int) and not isinstance(current, bool)
        return round(value) if is_integer and isinstance(value, float) else value

    def number(self, path: str) -> Any:
        """Return :meth:`value`, with a duration, rate or date as its number in steps."""
        node: Any = self
        for key in path.split("."):
            if isinstance(node, BaseModel):
                names = {field.alias or name: name for name, field in type(node).model_fields.items()}
                node = getattr(node, names[key], None) if key in names else None
            elif isinstance(node, Sequence) and not isinstance(node, str):
                node = node[int(key)] if key.isdigit() and int(key) < len(node) else None
            else:
                node = node.get(key) if isinstance(node, Mapping) else None
        return plain_number(node) if isinstance(node, WrittenFloat | WrittenInt) else self.value(path)

    def heir(self, population: str, number: int) -> str:
        """Return the trainer that one has become part of, ``population/number``, through any number of mergers."""
        while (into := self.trainers[population].merged_into) is not None:
            population = into
        return f"{population}/{number}"

    @property
    def true_source(self) -> str | None:
        """Name of the source whose distribution is the truth; None if no documents were there at first."""
        return self.measure.truth or (None if self.web.initial is None else self.web.initial.source)

    @property
    def has_assisted_writers(self) -> bool:
        """Whether there are writers who may publish what models write."""
        choices = [writer.choice for writer in self.writers.values() if writer.choice is not None]
        return self.has_adoption or any(choice.uses is not None for choice in choices)

    @property
    def has_adoption(self) -> bool:
        """Whether there are writers who adopt AI at a given share."""
        return any(writer.adoption is not None for writer in self.writers.values())

    @property
    def measures_views(self) -> bool:
        """Whether the share of machine text in what readers see is measured; older scenarios lack it."""
        return bool(self.instruments) or self.has_adoption or self.web.types is not None

    def enforced_policies(self) -> list[str]:
        """Return the names of the policies at the gates of the web and of trainers, each once."""
        gates = [self.web.publish, self.web.retain]
        gates += [names for trainer in self.trainers.values() for names in (trainer.select, trainer.retain or [])]
        return list(dict.fromkeys(name for names in gates for name in names))

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that identify the experiment.

        Names, the seed, the number of steps, and what sources say about themselves do not count.
        """
        excluded = ("name", "description", "seed", "steps", "theory", "variants", "knobs", "placement")
        data = {k: v for k, v in self.plain().items() if k not in excluded}
        if self.sources:
            data["sources"] = {name: source.defining() for name, source in self.sources.items()}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
