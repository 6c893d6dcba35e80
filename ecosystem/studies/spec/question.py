"""The common parts of files that define many runs of one scenario, and of study and frontier files."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from ecosystem.calendar import Calendar
from ecosystem.errors import ScenarioError, each_line, path_argument, path_of, whole_number
from ecosystem.scenario.extending import read_file
from ecosystem.scenario.presets import STUDIES, FileKind, file_kind, located, named_file, require_kind
from ecosystem.scenario.scenario import Scenario
from ecosystem.scenario.tables import NAME
from ecosystem.spec import Spec, checked_paths, explain
from ecosystem.studies.spec.design import Seed
from ecosystem.times import time_context


class ManyRuns(Spec):
    """The common part of files that define many runs: a base scenario, and values set in every run."""

    file_kind: ClassVar[FileKind]
    folder: ClassVar[str] = STUDIES  # the subfolder of bundled scenarios that is searched first for files of this kind
    base_field: ClassVar[str] = "base"  # the key of the base scenario in files

    name: str = Field(description="name of the folder of the report; letters, digits, _ and -")
    description: str = Field("", description="the question, shown in listings and in the report")
    base: str = Field(
        description="the base scenario: a path relative to this file, or the name of a bundled scenario",
    )
    variant: str | None = Field(None, description="a variant of the base scenario; default: none")
    set: dict[str, Any] = Field({}, description="dotted path = value, set in every run (model preset, steps, …)")
    _file: str = PrivateAttr("")

    @property
    def where(self) -> str:
        """The start of error messages: the file, or the name of a question without a file."""
        return self._file or self.name

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        if not NAME.fullmatch(self.name):
            raise ValueError(f'name: "{self.name}" may contain only letters, digits, "_" and "-"')
        return self

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file; raise ScenarioError with all its errors.

        The scenarios of its runs are not checked here; see :meth:`check`.
        """
        file = located(path_of(path, cls.__name__), prefer=cls.folder)
        data = read_file(file)
        require_kind(data, file, cls.file_kind)
        try:
            return cls._validated(dict(data), str(file))
        except ScenarioError as error:
            raise data.explained(error, str(file)) from None

    @classmethod
    def _validated(cls, data: Mapping[str, Any], file: str) -> Self:
        try:
            based = {**data, "base": data.get(cls.base_field)}
            question = cls.model_validate(data, context={"calendar": _calendar(based, file)})
        except ValidationError as error:
            where = file or data["name"]
            raise ScenarioError("\n".join(f"{where}: {problem}." for problem in explain(error, "", cls))) from None
        question._file = file
        return question

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that identify this question, whatever its name and description."""
        data = {key: value for key, value in self.plain().items() if key not in ("name", "description")}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]

    def base_scenario(self, folder: Path) -> tuple[Scenario, Path]:
        """Return the base scenario and the folder that its relative paths start from.

        ``folder`` is the folder of this question's file. Raises ScenarioError if the scenario is missing or invalid.
        """
        field, folder = self.base_field, Path(path_argument(folder, "base"))
        try:
            file = named_file(self.base, folder)
            data = read_file(file)
            kind = file_kind(data)
            if kind != "scenario":
                raise ScenarioError(f"{file} is a {kind}; give a scenario.")
            base = Scenario.parse(data, where=str(file), base=file.parent)
            field = "variant"
            return base if self.variant is None else base.variant(self.variant, base=file.parent), file.parent
        except ScenarioError as error:
            raise self.error_at(field, error) from None

    def error_at(self, path: str, problem: object) -> ScenarioError:
        """Return a ScenarioError with the file and the dotted path before each line of ``problem``."""
        return ScenarioError(each_line(f"{self.where}: {path}", problem))

    @abstractmethod
    def check(self, folder: Path) -> tuple[str, list[Scenario], Path]:
        """Check the scenarios of this question; return a short summary, the scenarios, and the folder of their paths.

        ``folder`` is the folder of this question's file. Raises ScenarioError for the first invalid scenario.
        """


class Question(ManyRuns):
    """The common part of studies and frontiers: many runs with the same seeds in every arm."""

    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(description="the replicates, the same in every arm")

    @model_validator(mode="after")
    def _check_seeds(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is repeated; equal seeds give equal runs")
        return self

    def with_settings(self, values: Mapping[str, Any], seeds: int | None = None) -> Self:
        """Return this question with more values set in every run, and only the first ``seeds`` seeds if given.

        Raises ScenarioError if there are fewer seeds.
        """
        if seeds is not None and whole_number(seeds, "seeds", 1) > len(self.seeds):
            raise ScenarioError(
                f"{self.where}: seeds: --seeds {seeds}, but the file has {len(self.seeds)}; add seeds to the file."
            )
        data = self.plain() | {"set": {**self.set, **checked_paths(values)}, "seeds": self.seeds[:seeds]}
        return self._validated(data, self._file)


def _calendar(data: Mapping[str, Any], file: str) -> Calendar | None:
    """Return the calendar of the base scenario of a file with the values of ``set``; None if arms may differ in it.

    Files that cannot be read are refused later (:meth:`ManyRuns.base_scenario`).
    """
    own, levers = data.get("set"), [data.get(name) for name in ("arms", "worlds", "axes", "uncertain")]
    if any(isinstance(keys, Mapping) and {"start", "step"} & {*keys, *_keys(keys)} for keys in levers):
        return None
    try:
        scenario = read_file(named_file(str(data.get("base")), Path(file).parent))
        scenario |= scenario.get("variants", {}).get(data.get("variant"), {})
        values = {**scenario, **(own if isinstance(own, Mapping) else {})}
        calendar: Calendar | None = time_context({name: values.get(name) for name in ("start", "step")})["calendar"]
    except (ScenarioError, ValueError, AttributeError, TypeError):  # not yet validated
        return None
    return calendar


def _keys(tables: Mapping[str, Any]) -> list[str]:
    return [key for table in tables.values() if isinstance(table, Mapping) for key in table]


def with_values(scenario: Scenario, values: Mapping[str, Any], base: Path) -> Scenario:
    """Return a scenario with values set, and validate its timed changes again."""
    return Scenario.parse(scenario.override(values, base=base).plain(), where="", base=base) if values else scenario
