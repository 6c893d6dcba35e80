"""Runs: from a scenario to a folder of committed steps, and from the folder back to tables and models."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ecosystem.corpus.graph_files import read_graph
from ecosystem.corpus.schema import Snapshot
from ecosystem.errors import EcosystemError, ScenarioError, StoreError, nearest
from ecosystem.families.base import Progress, SavesAssets, silent
from ecosystem.runs.cores import cores
from ecosystem.runs.store import Store, set_aside
from ecosystem.scenario.presets import read_toml
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import CACHE
from ecosystem.spec import checked_paths

if TYPE_CHECKING:
    from ecosystem.simulation.world import World

DEVICES = ("auto", "cpu", "cuda", "mps")
PACKAGES = ("ecosystem", "mesa", "networkx", "numpy", "polars", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class Machine:
    """What a run's numbers depend on besides the scenario: the device and the number of compute threads."""

    device: str
    threads: int

    @classmethod
    def choose(cls, device: str = "auto", threads: int | None = None) -> Machine:
        """Resolve ``auto`` and check that the device exists; ``threads`` None means all cores this process may use."""
        possible(device, threads)
        import torch

        there = ["cpu"]
        if torch.cuda.is_available():
            there.append("cuda")
        if torch.backends.mps.is_available():
            there.append("mps")
        if device == "auto":
            device = there[-1]
        if device not in there:
            raise EcosystemError(f"--device {device}: this machine has none; it has {', '.join(there)}.")
        return cls(device, threads or cores())

    def describe(self) -> str:
        """Return the device in words."""
        if self.device == "cuda":
            import torch

            return f"{torch.cuda.get_device_name(0)} (CUDA)"
        return f"{self.device} with {self.threads} compute thread{'s' if self.threads > 1 else ''}"


def possible(device: str = "auto", threads: int | None = None) -> None:
    """Raise EcosystemError for a device that no machine has, or a number of threads that is none."""
    if device not in DEVICES:
        raise EcosystemError(
            f"--device {device}: there is no such thing{nearest(str(device), DEVICES)}; give {', '.join(DEVICES)}."
        )
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise EcosystemError(f"--threads {threads}: give a whole number from 1 on, or leave it out.")


def machine_for(
    folder: Path, device: str = "auto", threads: int | None = None, branch: Branch | None = None
) -> Machine:
    """Return what a run is to be computed on: a resumed run keeps its device and threads, and a branch its parent's.

    Asking for others is an error, which :func:`begin` explains.
    """
    parent = None if branch is None else branch.parent
    begun_by = Run(folder) if Store(folder).last() >= 0 else parent
    if begun_by is not None:
        begun = begun_by.machine
        device, threads = begun.device if device == "auto" else device, threads or begun.threads
    return Machine.choose(device, threads)


def here(out: str | Path) -> Path:
    """Return a place on this machine; raise EcosystemError for a URL, also one that became a path."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(out)):
        raise EcosystemError(
            f"{out}: is a URL, and this goes into a folder of this machine; only studies and frontiers take a URL. "
            "Give a folder (--out)."
        )
    return Path(out)


def folder_of(scenario: Scenario, out: str | Path = "outputs") -> Path:
    """Return where the run of this scenario lives: ``<out>/<name>-<fingerprint>/<seed>``; ``out`` is no URL."""
    return here(out) / f"{scenario.name}-{scenario.fingerprint()}" / str(scenario.seed)


@dataclass(frozen=True)
class Branch:
    """A run that is to leave another one's history after a step: the parent opened, the step, and its scenario."""

    parent: Run
    step: int
    scenario: Scenario

    @classmethod
    def of(
        cls,
        parent: Run,
        step: int,
        values: Mapping[str, Any],
        *,
        steps: int | None = None,
        name: str | None = None,
    ) -> Branch:
        """Fork ``parent`` after a committed ``step``, with these dotted paths set from the next one on.

        Raises StoreError where the step is not committed, ScenarioError where a path cannot differ at a fork or no step
        would follow.
        """
        if not isinstance(step, int):
            raise ScenarioError(f"{parent.path}@{step}: a step is a whole number, not {step!r}.")
        asked = {key: value for key, value in (("steps", steps), ("name", name)) if value is not None}
        values = checked_paths(values)
        parent.store.require(step, weights=False)
        scenario = parent.scenario.forked(step, {**values, **asked}, base=parent.base)
        if scenario.steps <= step:
            raise ScenarioError(
                f"{parent.path}@{step}: no step would follow, since the run is to have {scenario.steps} steps; give "
                f"--steps {step + 1} or more."
            )
        return cls(parent, step, scenario)

    def left_out(self) -> list[str]:
        """Return a sentence for every timed change of the parent that does not hold here."""
        left = {(change.at, path) for change in self.scenario.changes for path in change.set}
        why = f"the branch says what holds from step {self.step + 1} on"
        return [
            f"The parent's change of {path} at step {change.at} is left out: {why}."
            for change in self.parent.scenario.changes
            for path in change.set
            if (change.at, path) not in left
        ]

    def folder(self, out: str | Path) -> Path:
        """Return where this branch lives; raise ScenarioError if that is the parent's own folder, or its parent's."""
        folder = folder_of(self.scenario, out)
        if folder.resolve() in [above.resolve() for above in self.parent.store.ancestry()]:
            raise ScenarioError(
                f"{folder}: a branch that changes no number is the run {self.parent.path} itself; change something "
                "(--set; in Python: values), or give it a place of its own (--name or --out; in Python: name or out)."
            )
        return folder


class Run:
    """A run folder opened for reading: its scenario, tables, events and models.

    ``metrics`` is a frame (columns of ``schema.METRICS``), ``documents`` and ``ledger`` are lazy frames over all
    committed steps. Files are checked against their recorded hashes when they are read eagerly.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.store = Store(self.path)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run folder; raise StoreError if there is none or nothing has been committed in it."""
        folder = Path(path)
        if not (folder / "scenario.toml").is_file():
            inside = sorted(str(p.parent) for p in folder.glob("**/scenario.toml"))[:3] if folder.is_dir() else []
            hint = f" Did you mean {' or '.join(inside)}?" if inside else ""
            raise StoreError(f"{folder}: is not a run folder (it has no scenario.toml).{hint}")
        run = cls(folder)
        if run.steps < 0:
            raise StoreError(f"{folder}: no step has been committed yet; run the scenario again to begin it.")
        return run

    @property
    def steps(self) -> int:
        """The number of the last committed step (0: the web's opening; -1: nothing yet)."""
        return self.store.last()

    @cached_property
    def scenario(self) -> Scenario:
        """The resolved scenario that was run."""
        file = self.path / "scenario.toml"
        return Scenario.parse(read_toml(file), where=str(file), base=self.path)

    def redraw(self, scenario: Scenario) -> bool:
        """Take over the closed forms of this scenario, which no number depends on; return whether they were others."""
        if scenario.theory == self.scenario.theory:
            return False
        mine = self.scenario.model_copy(update={"theory": scenario.theory})
        self.store.write("scenario.toml", mine.to_toml().encode())
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
        return _read_environment(self.path)

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

    @property
    def ledger(self) -> pl.LazyFrame:
        """Every (reader, document) of every selection, with verdict and weight, and the step."""
        parts = [
            self.store.table("ledger", range(t, t + 1)).with_columns(step=pl.lit(t, pl.Int32))
            for t in range(self.steps + 1)
        ]
        return pl.concat(parts).lazy()

    @property
    def events(self) -> list[tuple[int, str]]:
        """What was worth telling: (step, sentence)."""
        return [(t, event) for t in range(self.steps + 1) for event in self.store.state(t)["events"]]

    def trainers(self) -> list[str]:
        """Return the names of all trainers, ``population/number``."""
        return [f"{name}/{i}" for name, recipe in self.scenario.trainers.items() for i in range(recipe.count)]

    def model(self, trainer: str, step: int | None = None) -> Any:
        """Return a trainer's model after ``step`` (default: the last) as a ``transformers`` model.

        ``trainer`` is ``population/number``. The tokenizer is on the model as ``model.tokenizer``.
        """
        from ecosystem.families.language.huggingface.modules import quietly

        with tempfile.TemporaryDirectory() as folder, quietly() as transformers:
            self.save_model(trainer, folder, step)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder)
            model.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
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
        weights = self.store.weights(self.steps if step is None else step)[model]
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name, content in self.store.assets(f"models/{model}").items():
            (target / name).write_bytes(content)
        self.scenario.models[model].save_weights(target, weights, sharing.index(trainer))
        return target


def begin(
    scenario: Scenario,
    *,
    out: str | Path = "outputs",
    machine: Machine | None = None,
    fresh: bool = False,
    base: Path = Path(),
    cache: Path = CACHE,
    progress: Progress = silent,
    branch: Branch | None = None,
) -> Generator[Snapshot, Scenario | None, None]:
    """Run a scenario step by step, yielding each snapshot once it is committed; resume where a folder has steps.

    The first snapshot is step 0 (the web as it opens) unless the run is resumed; that of a ``branch``, whose scenario
    this is, is the one after the fork. An iterator that is dropped, or a process that is killed, loses at most the
    step in progress. A scenario that is sent in goes on in the place of this one: it may differ from it in steps to
    come and in nothing that was (:meth:`Scenario.forked`), and becomes that of the folder.
    """
    folder = folder_of(scenario, out) if branch is None else branch.folder(out)
    if fresh and folder.exists():
        with Store(folder).lock():  # never while another process is at work in it
            set_aside(folder)
    store = Store(folder)
    with store.lock():
        last = store.last()
        if last >= scenario.steps:
            return
        store.sweep()
        chosen = machine or Machine.choose()
        if last >= 0:
            chosen = _same_machine(folder, machine)
        elif branch is not None:
            branch.parent.store.require(branch.step)  # before anything is built
            chosen = _same_machine(branch.parent.path, machine)
        started = time.monotonic()
        world = _world(scenario, chosen, base, cache, progress)
        if last >= 0:
            store.verify(weights=False)
            same_inputs(Run(folder), world)
            world.restore(store.past())
            _note_resume(store, last)
        elif branch is not None:
            parent = branch.parent.store
            parent.verify(weights=False, through=branch.step)
            same_inputs(branch.parent, world)
            world.restore(parent.past(branch.step))
            _open(store, scenario, chosen, world, base, assets=False)
            store.branch_off(parent, branch.step)
        else:
            assets = _open(store, scenario, chosen, world, base)
            scenario = (yield _commit(store, world, scenario, started, assets)) or scenario
        while world.t < scenario.steps:
            _write_scenario(store, scenario)
            world.base_scenario = scenario
            before, started = world.t, time.monotonic()
            world.step()
            if world.t != before + 1 or not world.running:
                raise EcosystemError(f"{folder}: the world did not move past step {before}.")
            scenario = (yield _commit(store, world, scenario, started)) or scenario
        _export_web(store, world)


def restored(
    run: Run,
    step: int,
    values: Mapping[str, Any] | None = None,
    *,
    cache: Path = CACHE,
    progress: Progress = silent,
) -> World:
    """Return the web and its agents as they stood after a committed step, to be looked at; it is not to be stepped.

    Models are built only when something asks for one, with the weights that its trainers began with, so that a step
    whose models were pruned will do. ``values`` are dotted paths set in the scenario in force at that step, such as
    further policies. Raises StoreError where the step is not committed or a source is not what it was, ScenarioError
    for values that are wrong.
    """
    run.store.require(step, weights=False)
    scenario = run.scenario.at(step).model_copy(update={"changes": []}).override(values or {}, base=run.base)
    try:
        machine = Machine.choose(run.machine.device, run.machine.threads)
    except EcosystemError:  # scores differ a little on another device, which is better than none
        machine = Machine.choose("cpu")
    world = _world(scenario, machine, run.base, cache, progress, models=False)
    same_inputs(run, world)
    world.restore(run.store.past(step, models=False))
    return world


def _world(
    scenario: Scenario, machine: Machine, base: Path, cache: Path, progress: Progress, *, models: bool = True
) -> World:
    import torch

    from ecosystem.simulation.world import World

    torch.set_num_threads(machine.threads)
    device, threads = machine.device, machine.threads
    return World(scenario, base=base, cache=cache, device=device, threads=threads, progress=progress, models=models)


def _commit(
    store: Store, world: World, scenario: Scenario, started: float, beside: Mapping[str, dict[str, Any]] | None = None
) -> Snapshot:
    snapshot = world.snapshot()
    kept = snapshot.t % scenario.weights_every == 0
    store.commit(snapshot, kept=kept, seconds=time.monotonic() - started, beside=beside)
    return snapshot


def _open(
    store: Store, scenario: Scenario, machine: Machine, world: World, base: Path, *, assets: bool = True
) -> dict[str, dict[str, Any]]:
    """Write what stands beside the steps; return size and hash of the files that never change again.

    They are what checkpoints need besides weights (``assets`` False: a branch has them from its parent). The
    environment notes every resume, the site graph is drawn again at the end.
    """
    environment = {
        "seed": scenario.seed,
        "device": machine.device,
        "device_name": machine.describe(),
        "threads": machine.threads,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "sources": {name: {"digest": r.digest, "size": r.size} for name, r in world.state.reservoirs.items()},
        "foundations": {name: cohort.fingerprint for name, cohort in world.state.cohorts.items()},
        "base": os.path.relpath(base.resolve(), store.folder.resolve()),
        "resumed": [],
    }
    _write_scenario(store, scenario)
    store.write("environment.json", json.dumps(environment, indent=1).encode())
    written = {}
    for name, cohort in world.state.cohorts.items() if assets else ():
        if not isinstance(cohort, SavesAssets):
            continue
        with tempfile.TemporaryDirectory() as folder:
            cohort.save_assets(Path(folder))
            for path in sorted(Path(folder).iterdir()):
                file = f"models/{name}/{path.name}"
                written[file] = store.write(file, path.read_bytes())
    _export_web(store, world)
    return written


def _export_web(store: Store, world: World) -> None:
    """Write the site graph as GraphML and GEXF, with every site's documents and their synthetic share."""
    live = world.corpus.live().group_by("site").agg(pl.len(), pl.col("synthetic").mean())
    documents, share = np.zeros(world.web.sites, np.int64), np.full(world.web.sites, 0.0)
    documents[live["site"]], share[live["site"]] = live["len"], live["synthetic"]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("web.graphml", "web.gexf"):
            world.web.export(Path(folder) / name, {"documents": documents, "synthetic_share": share})
            store.write(name, (Path(folder) / name).read_bytes())


def _write_scenario(store: Store, scenario: Scenario) -> None:
    text = scenario.to_toml()
    path = store.folder / "scenario.toml"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        store.write("scenario.toml", text.encode())


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _read_environment(folder: Path) -> dict[str, Any]:
    path = folder / "environment.json"
    try:
        environment: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"seed", "device", "threads", "sources", "foundations", "resumed"} - set(environment)
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}). Start afresh with --fresh (nothing is deleted).") from None
    return environment


def _same_machine(folder: Path, asked: Machine | None) -> Machine:
    """Return the device and threads that the run began with; refuse others, since numbers would change."""
    begun = Run(folder).machine
    if asked is not None and asked != begun:
        raise ScenarioError(
            f"{folder}: this run began on {begun.describe()} and goes on bit for bit only there, not on "
            f"{asked.describe()}. Give --device {begun.device} --threads {begun.threads}, or begin anew with --fresh."
        )
    Machine.choose(begun.device, begun.threads)
    return begun


def same_inputs(run: Run, world: World) -> None:
    """Raise StoreError if a source, or the foundation of a model that is built, is not what it was for this run."""
    folder, known = run.path, run.environment
    for name, reservoir in world.state.reservoirs.items():
        if reservoir.digest != known["sources"][name]["digest"]:
            raise StoreError(
                f'{folder}: the source "{name}" is no longer what it was when this run began (another Python '
                "version, or changed files). Restore it, or begin anew with --fresh."
            )
    for name, cohort in world.state.cohorts.items():
        if cohort.fingerprint != known["foundations"][name]:
            raise StoreError(
                f'{folder}: the foundation of model "{name}" is no longer the one this run began with (another '
                "version of torch, perhaps). Restore the versions in environment.json, or begin anew with --fresh."
            )


def _note_resume(store: Store, step: int) -> None:
    environment = _read_environment(store.folder)
    environment["resumed"].append({"after_step": step, "python": platform.python_version(), "packages": _versions()})
    store.write("environment.json", json.dumps(environment, indent=1).encode())
