"""From a scenario to a folder of committed steps (begin, resume, branch), and back to a world to look at."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ecosystem.corpus.schema import Snapshot
from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.families.base import Progress, SavesAssets, silent
from ecosystem.runs.branch import Branch
from ecosystem.runs.environment import Machine, check_inputs, new_environment, note_resume, write_environment
from ecosystem.runs.files import archive_existing
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World

Files = dict[str, dict[str, Any]]
"""Size and hash of files, by their path in the run folder."""


def machine_for(
    folder: Path,
    device: str = "auto",
    threads: int | None = None,
    branch: Branch | None = None,
    *,
    fresh: bool = False,
) -> Machine:
    """Return what a run is to be computed on: a resumed run keeps its device and threads, and a branch its parent's.

    A ``fresh`` run reads nothing of the folder that it archives, which may be damaged. Asking for another machine is an
    error, which :func:`begin` explains.
    """
    parent = None if branch is None else branch.parent
    begun_by = parent if fresh or Store(folder).last() < 0 else Run(folder)
    if begun_by is not None:
        begun = begun_by.machine
        device, threads = begun.device if device == "auto" else device, threads or begun.threads
    return Machine.choose(device, threads)


def begin(
    scenario: Scenario,
    *,
    out: str | Path = "outputs",
    machine: Machine | None = None,
    fresh: bool = False,
    base: Path = Path(),
    cache: str | Path | None = None,
    progress: Progress = silent,
    branch: Branch | None = None,
) -> Generator[Snapshot, Scenario | None, None]:
    """Run a scenario step by step, yielding each snapshot once it is committed; resume where a folder has steps.

    The first snapshot is step 0 (the web as it opens) unless the run is resumed; that of a ``branch``, whose scenario
    this is, is the one after the fork. An iterator that is dropped, or a process that is killed, loses at most the
    step in progress. A scenario that is sent in replaces this one: it may differ from it in steps to
    come and in nothing that was (:meth:`Scenario.forked`), and becomes that of the folder.
    """
    folder = folder_of(scenario, out) if branch is None else branch.folder(out)
    if fresh and folder.exists():
        with Store(folder).lock():  # never while another process is at work in it
            archive_existing(folder)
    store = Store(folder)
    with store.lock():
        last = store.last()
        if last >= scenario.steps:
            return
        store.sweep()
        started = time.monotonic()
        if last >= 0:
            world = _resume(store, scenario, machine, base, cache, progress)
        elif branch is not None:
            world = _branch_off(store, branch, machine, base, cache, progress)
        else:
            world, assets = _open(store, scenario, machine, base, cache, progress)
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


def _resume(
    store: Store,
    scenario: Scenario,
    machine: Machine | None,
    base: Path,
    cache: str | Path | None,
    progress: Progress,
) -> World:
    """Build the world of a run that was interrupted, as it was after its last committed step."""
    world = _world(scenario, _same_machine(store.folder, machine), base, cache, progress)
    store.verify(weights=False)
    same_inputs(Run(store.folder), world)
    world.restore(store.past())
    note_resume(store, store.last())
    return world


def _branch_off(
    store: Store, branch: Branch, machine: Machine | None, base: Path, cache: str | Path | None, progress: Progress
) -> World:
    """Build the world of a branch as its parent left it, and write what is beside its steps."""
    parent = branch.parent.store
    parent.require(branch.step)  # before anything is built
    chosen = _same_machine(branch.parent.path, machine)
    world = _world(branch.scenario, chosen, base, cache, progress)
    parent.verify(weights=False, through=branch.step)
    same_inputs(branch.parent, world)
    world.restore(parent.past(branch.step))
    _write_inputs(store, branch.scenario, chosen, world, base)
    store.branch_off(parent, branch.step)
    return world


def _open(
    store: Store,
    scenario: Scenario,
    machine: Machine | None,
    base: Path,
    cache: str | Path | None,
    progress: Progress,
) -> tuple[World, Files]:
    """Build the world of a new run; write what is beside its steps, and the assets that its checkpoints need."""
    chosen = machine or Machine.choose()
    world = _world(scenario, chosen, base, cache, progress)
    _write_inputs(store, scenario, chosen, world, base)
    assets: Files = {}
    for name, cohort in world.cohorts.items():
        if not isinstance(cohort, SavesAssets):
            continue
        with tempfile.TemporaryDirectory() as folder:
            cohort.save_assets(Path(folder))
            for path in sorted(Path(folder).iterdir()):
                file = f"models/{name}/{path.name}"
                assets[file] = store.write(file, path.read_bytes())
    return world, assets


def _write_inputs(store: Store, scenario: Scenario, machine: Machine, world: World, base: Path) -> None:
    """Write the scenario, the environment and the site graph; the graph is drawn again at the end."""
    _write_scenario(store, scenario)
    sources, models = world.state.reservoirs, world.cohorts
    write_environment(store, new_environment(scenario.seed, machine, base, store.folder, sources, models))
    _export_web(store, world)


def restored(
    run: Run,
    step: int,
    values: Mapping[str, Any] | None = None,
    *,
    cache: str | Path | None = None,
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
    scenario: Scenario,
    machine: Machine,
    base: Path,
    cache: str | Path | None,
    progress: Progress,
    *,
    models: bool = True,
) -> World:
    import torch

    torch.set_num_threads(machine.threads)
    device, threads = machine.device, machine.threads
    return World(scenario, base=base, cache=cache, device=device, threads=threads, progress=progress, models=models)


def _commit(store: Store, world: World, scenario: Scenario, started: float, beside: Files | None = None) -> Snapshot:
    snapshot = world.snapshot()
    kept = snapshot.t % scenario.weights_every == 0
    store.commit(snapshot, kept=kept, seconds=time.monotonic() - started, beside=beside)
    return snapshot


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
    check_inputs(run.path, run.environment, world.state.reservoirs, world.cohorts)
