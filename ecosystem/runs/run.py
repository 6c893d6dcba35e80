"""A run folder opened for reading: its scenario, tables, events and models."""

from __future__ import annotations

import os
import re
import tempfile
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl

from ecosystem.calendar import Calendar, step_at
from ecosystem.corpus.graph_files import read_graph
from ecosystem.errors import EcosystemError, ScenarioError, StoreError, nearest, path_argument, path_of, whole_number
from ecosystem.input_files import is_folder
from ecosystem.interpreter import require_threads
from ecosystem.metrics.tables import with_dates
from ecosystem.runs.ancestry import Ancestry, RunHistory
from ecosystem.runs.environment import Machine, read_environment, require_plugins
from ecosystem.runs.files import is_url_as_path, require_local_path
from ecosystem.runs.leftovers import other_files
from ecosystem.runs.lineage import Lineage
from ecosystem.runs.records import CHARTS, DIGESTS, DRAWN, is_altered, read_digests, require_unaltered
from ecosystem.runs.store import Store
from ecosystem.scenario.presets import read_toml
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import STATED

_LISTED = 5  # at most, of files that do not belong to a run


def require_run_folder(path: str | Path) -> None:
    """Raise StoreError with a way on unless a path is that of a run folder."""
    folder = path_of(path, "Run", "folder")
    if (folder / "scenario.toml").is_file():
        return
    found = is_folder(folder)
    inside = sorted(str(p.parent) for p in folder.glob("**/scenario.toml"))[:3] if found else []
    hint = f"Did you mean {' or '.join(inside)}?" if inside else "`ecosystem list runs` lists those below outputs."
    if is_url_as_path(path):
        hint = "Runs at a URL are read by check, report, show, lineage and audit only; copy it here first."
    what = "is not a run folder (it has no scenario.toml)" if found else "is not a run folder: there is no such folder"
    raise StoreError(f"{folder}: {what}. {hint}")


class Run:
    """A run folder opened for reading: its scenario, tables, events and models.

    ``metrics`` is a frame (columns of ``schema.METRICS``), ``documents`` and ``ledger`` are lazy frames over all
    committed steps. Files are checked against their recorded hashes when they are read eagerly.
    """

    def __init__(self, path: str | Path) -> None:
        require_threads()
        self.path = path_of(path, "Run", "folder")
        self._store = Store(self.path)
        self._ancestry: tuple[int, Ancestry] | None = None  # with the last step that it includes

    @property
    def store(self) -> Store:
        """The files of this run; raises StoreError if its folder is not there any more."""
        if not is_folder(self.path):
            raise StoreError(
                f"{self.path}: this run folder is gone: it was moved or deleted, or the current folder has changed "
                "since it was opened. Open it again where it is."
            )
        return self._store

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder; raise StoreError if it is not a run folder or no step is committed."""
        require_run_folder(path)
        run = cls(path)
        if run.last_step < 0:
            raise StoreError(f"{run.path}: no step is committed yet; run the scenario again to start it.")
        return run

    @property
    def last_step(self) -> int:
        """Number of the last committed step (0: the opening of the web; -1: none)."""
        return self.store.last()

    @property
    def steps(self) -> int:
        """Former name of :attr:`last_step`."""
        return self.last_step

    def step_number(self, when: int | str | date, called: str) -> int:
        """Return the step that a number or a date ("2024-03-01", "2024-03") means, which may not be committed.

        Errors are ScenarioErrors and begin with ``called``.
        """
        try:
            step = step_at(when, self.calendar) if isinstance(when, str | date) else whole_number(when, "step")
        except (ValueError, EcosystemError) as error:
            raise ScenarioError(f"{called}: {str(error).removesuffix('.')}.") from None
        if step < 0 and self.calendar is not None:
            raise ScenarioError(f"{called}: {when} is before the opening, {self.calendar.start}.")
        return step

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario that was run, with presets and defaults filled in."""
        file = self.path / "scenario.toml"
        require_unaltered(self.path, file.name)
        try:
            return Scenario.parse(read_toml(file), where=str(file), base=self.path)
        except ScenarioError:
            require_plugins(self.path, self.environment)
            raise

    def update_notes(self, scenario: Scenario) -> bool:
        """Store what no number depends on: closed forms, and licences and descriptions of sources.

        ``scenario`` has the new ones. Returns whether any differed.
        """
        sources = {
            name: source.model_copy(update={key: getattr(scenario.sources[name], key) for key in STATED})
            for name, source in self.scenario.sources.items()
        }
        updated = self.scenario.model_copy(update={"theory": scenario.theory, "sources": sources})
        if updated == self.scenario:
            return False
        with self.store.lock():
            self.store.write("scenario.toml", updated.to_toml().encode())
        self.__dict__.pop("scenario", None)
        return True

    def verify(self) -> int:
        """Check every file that is read again later; return how many of them the commit records name.

        Raises StoreError for the first damaged file.
        """
        self.verify_scenario()
        _ = self.environment
        require_unaltered(self.path, "web.graphml")
        read_graph(str(self.path.resolve() / "web.graphml"), self.path)
        return self.store.verify()

    def verify_tables(self) -> None:
        """Check every file except the models; raise StoreError for the first damaged one.

        A site graph that is missing is no damage, since it is only drawn.
        """
        _ = self.scenario, self.environment
        require_unaltered(self.path, "web.graphml")
        self.store.verify(weights=False)

    def notes(self) -> list[str]:
        """Return a sentence for drawn files that have been altered, and one for files that do not belong to a run."""
        records = dict.fromkeys(DRAWN, self.path / DIGESTS)
        records |= dict.fromkeys(read_digests(self.path / CHARTS), self.path / CHARTS)
        altered = [
            os.path.normpath(record.parent / name) for name, record in records.items() if is_altered(record, name)
        ]
        others = other_files(self.store)
        notes = []
        if altered:
            again = f"`ecosystem report {self.path}` draws the report and its charts anew; a resume, web.gexf"
            notes.append(f"altered, but only drawn: {', '.join(altered)} ({again})")
        if others:
            more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
            notes.append(f"not files of a run, and ignored: {', '.join(others[:_LISTED])}{more}")
        return notes

    def verify_scenario(self) -> None:
        """Raise StoreError if the stored scenario does not parse, or is not the one in the folder's name."""
        file = self.path / "scenario.toml"
        remedy = f"Restore it from a copy, or move {self.path} aside and run it again"
        try:
            fingerprint = self.scenario.fingerprint()
        except ScenarioError as problem:
            raise StoreError(f"{problem} The file is damaged. {remedy}.") from None
        name = re.fullmatch(r".+-([0-9a-f]{12})", self.path.resolve().parent.name)
        if name and name[1] != fingerprint:
            raise StoreError(f"{file}: has been altered (its fingerprint is not that in the folder name). {remedy}.")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Seed, device, threads, package versions, hashes of sources and fingerprints of foundations."""
        return read_environment(self.path)

    @property
    def seed(self) -> int:
        """Seed of this run."""
        return int(self.environment["seed"])

    @property
    def machine(self) -> Machine:
        """Device, number of threads and parts of batches with which this run began, and with which it is resumed."""
        parts: dict[str, int] = self.environment.get("parts", {})
        return Machine(self.environment["device"], self.environment["threads"], tuple(parts.items()))

    @property
    def base(self) -> Path:
        """Folder for relative paths of the scenario, searched after the current one."""
        return self.path / str(self.environment.get("base", ""))

    @property
    def metrics(self) -> pl.DataFrame:
        """Every measurement: step, scope, id, metric, value, error, and with a calendar the date of the step."""
        return with_dates(self.store.table("metrics"), self.scenario.calendar, self.last_step)

    @property
    def calendar(self) -> Calendar | None:
        """The dates of the steps (``date_of(t)``); None if the scenario has no calendar."""
        return self.scenario.calendar

    @property
    def seconds(self) -> float:
        """Wall time of all committed steps and of the opening, in seconds; not reproducible."""
        return sum(commit.seconds for commit in self.store.commits())

    def costs(self, *, total: bool = False) -> pl.DataFrame:
        """Return the costs of every step (step, id, metric, value), or with ``total`` their sums (id, metric, value).

        ``id`` is the agent or policy charged: ``trainers/naive/0``, ``writers/people/0``, ``curators/editors/0``,
        ``policies/archive``. With a calendar, costs of steps have a ``date``.
        """
        costs = self.metrics.filter(pl.col("scope") == "cost").drop("scope", "error")
        return costs.group_by("id", "metric", maintain_order=True).agg(pl.col("value").sum()) if total else costs

    def timings(self) -> pl.DataFrame:
        """Return the wall time of every step by phase and agent: step, phase, id, seconds, tokens.

        ``id`` is the agent that the time was spent on, as in :meth:`costs`, or "web" for work of no single agent.
        ``tokens`` are those that a trainer trained on (phase "fit") or generated (phase "generate"); else null. Times
        are not reproducible. Steps that an earlier release computed have none.
        """
        counted = {"tokens_trained": "fit", "tokens_generated": "generate"}
        costs = self.store.table("metrics").filter(pl.col("scope") == "cost", pl.col("metric").is_in(list(counted)))
        tokens = costs.select("step", "id", phase=pl.col("metric").replace_strict(counted), tokens="value")
        keys = ["step", "phase", "id"]
        return self.store.timings().join(tokens, on=keys, how="left", maintain_order="left")

    @property
    def documents(self) -> pl.LazyFrame:
        """Every document published, with its content and its state after the last step.

        In a run whose web has types of sites, ``left_by`` says why it left. With a calendar, ``date`` is that of
        publication (``t``).
        """
        segments = self.store.table("corpus").lazy()
        changes = self.store.table("index").unique("doc", keep="last", maintain_order=True)
        if "left_by" in changes.columns:
            segments = segments.with_columns(left_by=pl.lit(None, pl.String))
        documents = segments.update(changes.lazy(), on="doc", how="left")
        return with_dates(documents, self.scenario.calendar, self.last_step, "t")

    def lineage(self, document: int) -> Lineage:
        """Trace a document, given by id, back to people through the training sets of models.

        The result holds the document's depth, the fits of the models with the composition of their training sets, and
        the shares of the origins. Its method ``text()`` describes it, and ``plain()`` returns it as data for JSON.
        Raises EcosystemError if the run has no such document.
        """
        document = whole_number(document, "document")
        if self._ancestry is None or self._ancestry[0] != self.last_step:
            documents = self.store.table("corpus", columns=("doc", "t", "author", "synthetic", "depth"))
            history = RunHistory(self.store, self.scenario, self.metrics, documents)
            self._ancestry = self.last_step, Ancestry(history)
        return self._ancestry[1].lineage(document)

    @property
    def ledger(self) -> pl.LazyFrame:
        """Every candidate of every selection: reader, document, verdict, weight and step (and date) among others."""
        parts = [
            self.store.table("ledger", range(t, t + 1)).with_columns(step=pl.lit(t, pl.Int32))
            for t in range(self.last_step + 1)
        ]
        return with_dates(pl.concat(parts).lazy(), self.scenario.calendar, self.last_step)

    @property
    def events(self) -> list[tuple[int, str]]:
        """Notable events as (step, sentence)."""
        return [(t, event) for t in range(self.last_step + 1) for event in self.store.state(t)["events"]]

    def trainers(self) -> list[str]:
        """Return the names of all trainers, ``population/number``."""
        return [f"{name}/{i}" for name, settings in self.scenario.trainers.items() for i in range(settings.count)]

    def load_model(self, trainer: str, step: int | None = None) -> tuple[Any, Any]:
        """Load a trainer's model and tokenizer after ``step`` (default: the last) with ``transformers``.

        ``trainer`` is ``population/number``. Raises EcosystemError if there is no such trainer or its model is not a
        ``transformers`` one, StoreError if the model of that step was not kept.
        """
        from ecosystem.families.checkpoint import quietly

        with tempfile.TemporaryDirectory() as folder, quietly() as transformers:
            self.save_model(trainer, folder, step)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        return model, tokenizer

    def model(self, trainer: str, step: int | None = None) -> Any:
        """Return a trainer's model after ``step`` (default: the last) as a ``transformers`` model.

        ``trainer`` is ``population/number``. The tokenizer is the attribute ``model.tokenizer``; :meth:`load_model`
        returns both, and lists the errors raised.
        """
        model, tokenizer = self.load_model(trainer, step)
        model.tokenizer = tokenizer
        return model

    def save_model(self, trainer: str, folder: str | Path, step: int | None = None) -> Path:
        """Write a trainer's model and tokenizer as a folder that ``transformers`` opens; return the folder.

        The model is that after ``step`` (default: the last). Raises the errors of :meth:`load_model`.
        """
        names = self.trainers()
        if trainer not in names:
            raise EcosystemError(
                f'there is no trainer "{trainer}"{nearest(trainer, names)}; this run has {", ".join(names)}.'
            )
        population = trainer.rsplit("/", 1)[0]
        model = self.scenario.trainers[population].model
        members = [n for n in names if self.scenario.trainers[n.rsplit("/", 1)[0]].model == model]
        weights = self.store.weights(self.last_step if step is None else step)[model]
        target = Path(path_argument(folder, "folder"))
        target.mkdir(parents=True, exist_ok=True)
        for name, content in self.store.assets(f"models/{model}").items():
            (target / name).write_bytes(content)
        self.scenario.models[model].save_weights(target, weights, members.index(trainer))
        return target


def folder_of(scenario: Scenario, out: str | Path = "outputs") -> Path:
    """Return the folder of a scenario's run, ``<out>/<name>-<fingerprint>/<seed>``; raise EcosystemError for a URL."""
    return require_local_path(out) / f"{scenario.name}-{scenario.fingerprint()}" / str(scenario.seed)
