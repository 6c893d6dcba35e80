"""A run folder opened for reading: its scenario, tables, events and models."""

from __future__ import annotations

import re
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ecosystem.corpus.graph_files import read_graph
from ecosystem.errors import EcosystemError, ScenarioError, StoreError, nearest
from ecosystem.runs.ancestry import Ancestry, RunHistory
from ecosystem.runs.environment import Machine, read_environment
from ecosystem.runs.files import require_local_path
from ecosystem.runs.lineage import Lineage
from ecosystem.runs.store import Store
from ecosystem.scenario.presets import read_toml
from ecosystem.scenario.scenario import Scenario


class Run:
    """A run folder opened for reading: its scenario, tables, events and models.

    ``metrics`` is a frame (columns of ``schema.METRICS``), ``documents`` and ``ledger`` are lazy frames over all
    committed steps. Files are checked against their recorded hashes when they are read eagerly.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.store = Store(self.path)
        self._ancestry: tuple[int, Ancestry] | None = None  # and the last step that it was read through

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run folder; raise StoreError if there is none or nothing has been committed in it."""
        folder = Path(path)
        if not (folder / "scenario.toml").is_file():
            inside = sorted(str(p.parent) for p in folder.glob("**/scenario.toml"))[:3] if folder.is_dir() else []
            hint = f" Did you mean {' or '.join(inside)}?" if inside else ""
            raise StoreError(f"{folder}: is not a run folder (it has no scenario.toml).{hint}")
        run = cls(folder)
        if run.last_step < 0:
            raise StoreError(f"{folder}: no step has been committed yet; run the scenario again to begin it.")
        return run

    @property
    def last_step(self) -> int:
        """The number of the last committed step (0: the web's opening; -1: nothing yet)."""
        return self.store.last()

    @property
    def steps(self) -> int:
        """The same as :attr:`last_step`, under its former name."""
        return self.last_step

    @cached_property
    def scenario(self) -> Scenario:
        """The resolved scenario that was run."""
        file = self.path / "scenario.toml"
        return Scenario.parse(read_toml(file), where=str(file), base=self.path)

    def update_theory(self, scenario: Scenario) -> bool:
        """Take over the closed forms of this scenario, which no number depends on; return whether they differed."""
        if scenario.theory == self.scenario.theory:
            return False
        updated = self.scenario.model_copy(update={"theory": scenario.theory})
        self.store.write("scenario.toml", updated.to_toml().encode())
        self.__dict__.pop("scenario", None)
        return True

    def verify(self) -> int:
        """Check every file of the folder that is ever read again; return how many the commit records name.

        Raises StoreError naming the first that is damaged.
        """
        self.verify_scenario()
        _ = self.environment
        read_graph("web.graphml", self.path)
        return self.store.verify()

    def verify_scenario(self) -> None:
        """Raise StoreError for a scenario that is not the one that the folder is named after, or does not parse."""
        file = self.path / "scenario.toml"
        remedy = f"Restore it from a copy, or move {self.path} away and run it again"
        try:
            fingerprint = self.scenario.fingerprint()
        except ScenarioError as problem:
            raise StoreError(f"{problem} It is damaged. {remedy}.") from None
        named = re.fullmatch(r".+-([0-9a-f]{12})", self.path.resolve().parent.name)
        if named and named[1] != fingerprint:
            raise StoreError(f"{file}: has been altered (it is not the one this run is named after). {remedy}.")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Seed, device, threads, package versions, hashes of sources and fingerprints of foundations."""
        return read_environment(self.path)

    @property
    def seed(self) -> int:
        """The seed of this run."""
        return int(self.environment["seed"])

    @property
    def machine(self) -> Machine:
        """The device and threads this run began on, and keeps."""
        return Machine(self.environment["device"], self.environment["threads"])

    @property
    def base(self) -> Path:
        """The folder that relative paths of the scenario are sought in (after the current one)."""
        return self.path / str(self.environment.get("base", ""))

    @property
    def metrics(self) -> pl.DataFrame:
        """Every measurement: step, scope, id, metric, value, error."""
        return self.store.table("metrics")

    @property
    def seconds(self) -> float:
        """Wall time of all committed steps and of the opening, in seconds; it differs from run to run."""
        return sum(commit.seconds for commit in self.store.commits())

    def costs(self, *, total: bool = False) -> pl.DataFrame:
        """Return what every step cost (step, id, metric, value), or with ``total`` the sums (id, metric, value).

        ``id`` is who: ``trainers/naive/0``, ``writers/people/0``, ``curators/editors/0`` or ``policies/archive``.
        """
        spent = self.metrics.filter(pl.col("scope") == "cost").select("step", "id", "metric", "value")
        return spent.group_by("id", "metric", maintain_order=True).agg(pl.col("value").sum()) if total else spent

    @property
    def documents(self) -> pl.LazyFrame:
        """Every document ever published, with its text and with its state after the last step."""
        segments = self.store.table("corpus").lazy()
        changes = self.store.table("index").unique("doc", keep="last", maintain_order=True).lazy()
        return segments.update(changes, on="doc", how="left")

    def lineage(self, document: int) -> Lineage:
        """Trace a document (by id) back to people, through the training sets of the models on the way.

        The value holds the document's depth, the fits on the way with the shares of their training sets by origin, and
        the shares in which the ways end; ``text()`` describes it, ``plain()`` gives it for JSON. Raises EcosystemError
        where the run has no document of this number.
        """
        if self._ancestry is None or self._ancestry[0] != self.last_step:
            documents = self.store.table("corpus", columns=("doc", "t", "author", "synthetic", "depth"))
            history = RunHistory(self.store, self.scenario, self.metrics, documents)
            self._ancestry = self.last_step, Ancestry(history)
        return self._ancestry[1].lineage(document)

    @property
    def ledger(self) -> pl.LazyFrame:
        """Every (reader, document) of every selection, with verdict and weight, and the step."""
        parts = [
            self.store.table("ledger", range(t, t + 1)).with_columns(step=pl.lit(t, pl.Int32))
            for t in range(self.last_step + 1)
        ]
        return pl.concat(parts).lazy()

    @property
    def events(self) -> list[tuple[int, str]]:
        """What was worth telling: (step, sentence)."""
        return [(t, event) for t in range(self.last_step + 1) for event in self.store.state(t)["events"]]

    def trainers(self) -> list[str]:
        """Return the names of all trainers, ``population/number``."""
        return [f"{name}/{i}" for name, recipe in self.scenario.trainers.items() for i in range(recipe.count)]

    def load_model(self, trainer: str, step: int | None = None) -> tuple[Any, Any]:
        """Load a trainer's model and tokenizer after ``step`` (default: the last) with ``transformers``.

        ``trainer`` is ``population/number``. Raises EcosystemError where there is no such trainer or its model is not a
        ``transformers`` one, StoreError where the model of that step was not kept.
        """
        from ecosystem.families.language.huggingface.modules import quietly

        with tempfile.TemporaryDirectory() as folder, quietly() as transformers:
            self.save_model(trainer, folder, step)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        return model, tokenizer

    def model(self, trainer: str, step: int | None = None) -> Any:
        """Return a trainer's model after ``step`` (default: the last) as a ``transformers`` model.

        ``trainer`` is ``population/number``. The tokenizer is on the model as ``model.tokenizer``; :meth:`load_model`
        returns both.
        """
        model, tokenizer = self.load_model(trainer, step)
        model.tokenizer = tokenizer
        return model

    def save_model(self, trainer: str, folder: str | Path, step: int | None = None) -> Path:
        """Write a trainer's model and tokenizer as a folder that ``transformers`` opens; return the folder."""
        names = self.trainers()
        if trainer not in names:
            raise EcosystemError(
                f'there is no trainer "{trainer}"{nearest(trainer, names)}; there are {", ".join(names)}.'
            )
        population = trainer.rsplit("/", 1)[0]
        model = self.scenario.trainers[population].model
        sharing = [n for n in names if self.scenario.trainers[n.rsplit("/", 1)[0]].model == model]
        weights = self.store.weights(self.last_step if step is None else step)[model]
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name, content in self.store.assets(f"models/{model}").items():
            (target / name).write_bytes(content)
        self.scenario.models[model].save_weights(target, weights, sharing.index(trainer))
        return target


def folder_of(scenario: Scenario, out: str | Path = "outputs") -> Path:
    """Return where the run of this scenario lives: ``<out>/<name>-<fingerprint>/<seed>``; ``out`` is no URL."""
    return require_local_path(out) / f"{scenario.name}-{scenario.fingerprint()}" / str(scenario.seed)
