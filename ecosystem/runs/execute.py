"""Compute the steps of a run (begin, resume, branch), and restore the world of a stored one."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ecosystem.corpus.schema import Snapshot
from ecosystem.errors import EcosystemError, ScenarioError, StoreError
from ecosystem.families.base import CohortBuilder, Progress, SavesAssets, build_cohort, silent
from ecosystem.placement.spec import PlacementSpec
from ecosystem.runs.branch import Branch
from ecosystem.runs.environment import (
    Machine,
    check_inputs,
    new_environment,
    note_resume,
    validate_device,
    write_environment,
)
from ecosystem.runs.files import archive_existing, full_disk_errors
from ecosystem.runs.leftovers import discard, sweep
from ecosystem.runs.opening import OpeningBatches
from ecosystem.runs.records import OPENING, SCRATCH
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World

Files = dict[str, dict[str, Any]]
"""Size and hash of files, by path in the run folder."""
_Build = Callable[..., World]


def machine_for(
    folder: Path,
    device: str = "auto",
    threads: int | None = None,
    branch: Branch | None = None,
    *,
    fresh: bool = False,
    placement: PlacementSpec | None = None,
) -> Machine:
    """Return the device, threads and parts of a run; a resumed run keeps its own, and a branch its parent's.

    Workers of a ``placement`` compute with one thread each unless ``threads`` says otherwise, and on GPUs if they have
    any, whether this machine has one or not.

    A ``fresh`` run does not read the folder that it moves aside, which may be damaged. A device or number of threads
    that differs from that of the stored run is refused by :func:`begin`, not here.
    """
    parent = None if branch is None else branch.parent
    source = parent if fresh or Store(folder).last() < 0 else Run(folder)
    parts: tuple[tuple[str, int], ...] = ()
    if source is not None:
        stored = source.machine
        device, threads = stored.device if device == "auto" else device, threads or stored.threads
        parts = stored.parts
    if placement is not None:
        validate_device(device, threads)
        if device == "mps":
            raise EcosystemError("--device mps: workers of Ray compute on cpu or cuda; choose one, or --engine local.")
        device = ("cuda" if placement.gpus_per_worker else "cpu") if device == "auto" else device
        return Machine(device, threads or 1, parts)
    return replace(Machine.choose(device, threads), parts=parts)


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
    builder: CohortBuilder = build_cohort,
    remote: str = "",
) -> Generator[Snapshot, Scenario | None, None]:
    """Run or resume a scenario step by step; yield each snapshot once it is committed.

    The first snapshot is step 0 (the opening of the web), or the one after the last committed step of a resumed run.
    ``scenario`` is also the scenario of ``branch``, if given; its first snapshot is the one after the fork. Closing the
    generator or killing the process loses at most the step in progress. A scenario sent to the generator replaces this
    one and becomes that of the folder; it may differ in future steps only (:meth:`Scenario.forked`). ``base`` is the
    folder for relative paths of the scenario, and ``fresh`` moves an existing run folder aside; ``builder`` decides
    where models are computed. ``remote`` is the URL of the run if its folder mirrors an object store. If the opening
    fails, no folder is left. Raises EcosystemError for errors that the user can correct.
    """
    folder = folder_of(scenario, out) if branch is None else branch.folder(out)
    if fresh and folder.exists():
        with Store(folder).lock():  # never while another process works in it
            archive_existing(folder)
    store = Store(folder, remote)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    with (
        full_disk_errors(folder),
        _parents_removed(missing[1:]),
        store.lock(),
        _discarded_if_empty(store),
        _scratch_removed(folder),
    ):
        last = store.last()
        if last >= scenario.steps:
            return
        sweep(store)
        started = time.monotonic()
        build = partial(_build_world, base=base, cache=cache, progress=progress, builder=builder)
        if last >= 0:
            world = _resume(store, scenario, machine, base, build)
        elif branch is not None:
            world = _branch_off(store, branch, machine, base, build)
        else:
            world, assets = _start(store, scenario, machine, base, build)
            snapshot = _commit(store, world, scenario, started, assets)
            (folder / OPENING).unlink(missing_ok=True)
            scenario = (yield snapshot) or scenario
        while world.t < scenario.steps:
            _write_scenario(store, scenario)
            world.base_scenario = scenario
            before, started = world.t, time.monotonic()
            world.step()
            if world.t != before + 1 or not world.running:
                raise EcosystemError(f"{folder}: the world did not advance past step {before}.")
            scenario = (yield _commit(store, world, scenario, started)) or scenario
        _export_web(store, world)


@contextmanager
def _discarded_if_empty(store: Store) -> Iterator[None]:
    """Discard the folder of a run after an error if no step is committed; its lock is held.

    After an interruption, the batches of a large opening stay, and the next run goes on from there.
    """
    try:
        yield
    except BaseException as error:  # also an interruption, or a generator that is closed
        interrupted = not isinstance(error, Exception)
        with suppress(OSError, StoreError):  # the first error says more
            if not (interrupted and (store.folder / OPENING).exists()):
                discard(store)
        raise


@contextmanager
def _scratch_removed(folder: Path) -> Iterator[None]:
    """Remove the scratch folder of a run at the end."""
    try:
        yield
    finally:
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)


@contextmanager
def _parents_removed(folders: Sequence[Path]) -> Iterator[None]:
    """Remove, after an error, those of these folders that are empty, the innermost first."""
    try:
        yield
    except BaseException:
        for folder in folders:
            with suppress(OSError):  # not empty
                folder.rmdir()
        raise


def _resume(store: Store, scenario: Scenario, machine: Machine | None, base: Path, build: _Build) -> World:
    """Build the world of an interrupted run, as it was after the last committed step."""
    machine = _require_same_machine(store.folder, machine)
    world = build(scenario, machine, documents=False, scratch=store.folder / SCRATCH)
    store.verify(weights=False)
    verify_inputs(Run(store.folder), world, base)
    world.restore(store.past())
    note_resume(store, store.last())
    return world


def _branch_off(store: Store, branch: Branch, machine: Machine | None, base: Path, build: _Build) -> World:
    """Build the world of a branch from its parent's state, and write the files that belong to no step."""
    parent = branch.parent.store
    parent.require(branch.step)  # before anything is built
    machine = _require_same_machine(branch.parent.path, machine)
    world = build(branch.scenario, machine, documents=False, scratch=store.folder / SCRATCH)
    parent.verify(weights=False, through=branch.step)
    verify_inputs(branch.parent, world, base)
    world.restore(parent.past(branch.step))
    _write_inputs(store, branch.scenario, machine, world, base)
    store.branch_off(parent, branch.step)
    return world


def _start(store: Store, scenario: Scenario, machine: Machine | None, base: Path, build: _Build) -> tuple[World, Files]:
    """Build the world of a new run; write the files that belong to no step, and the assets of checkpoints.

    Return the world, and the files of step 0 that are written already.
    """
    machine = machine or Machine.choose()
    opening = OpeningBatches(store)
    world = build(scenario, machine, opening=opening, scratch=store.folder / SCRATCH)
    _write_inputs(store, scenario, machine, world, base)
    assets: Files = dict(opening.files)
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
    """Write the scenario, the environment and the site graph, which is updated at the end."""
    _write_scenario(store, scenario)
    sources, models = world.state.reservoirs, world.cohorts
    write_environment(store, new_environment(scenario, machine, base, store.folder, sources, models))
    _export_web(store, world)


def restore_world(
    run: Run,
    step: int,
    values: Mapping[str, Any] | None = None,
    *,
    cache: str | Path | None = None,
    progress: Progress = silent,
) -> World:
    """Return a world as it was after a committed step, for inspection; it must not be stepped.

    A model is built on first use, with the weights that its trainers began with; a step whose models were pruned is
    therefore allowed. ``values`` are dotted paths to set in the scenario in force at that step, such as additional
    policies. Raises StoreError if the step is not committed or a source has changed, ScenarioError for invalid values.
    """
    run.store.require(step, weights=False)
    scenario = run.scenario.at(step).model_copy(update={"changes": []}).override(values or {}, base=run.base)
    try:
        machine = replace(Machine.choose(run.machine.device, run.machine.threads), parts=run.machine.parts)
    except EcosystemError:  # the device is missing here; scores on a CPU differ only slightly
        machine = Machine.choose("cpu")
    world = _build_world(
        scenario, machine, base=run.base, cache=cache, progress=progress, models=False, documents=False
    )
    verify_inputs(run, world, run.base)
    world.restore(run.store.past(step, models=False))
    return world


def _build_world(
    scenario: Scenario,
    machine: Machine,
    *,
    base: Path,
    cache: str | Path | None,
    progress: Progress,
    builder: CohortBuilder = build_cohort,
    **options: Any,
) -> World:
    import torch

    torch.set_num_threads(machine.threads)
    return World(
        scenario,
        base=base,
        cache=cache,
        device=machine.device,
        threads=machine.threads,
        parts=dict(machine.parts),
        progress=progress,
        build_cohort=builder,
        **options,
    )


def _commit(store: Store, world: World, scenario: Scenario, started: float, extra: Files | None = None) -> Snapshot:
    snapshot = world.snapshot()
    world.state.progress("storing", 0, 0)
    kept = snapshot.t % scenario.weights_every == 0
    seconds, rounds = time.monotonic() - started, scenario.weights_precision == "bfloat16"
    store.commit(snapshot, kept=kept, seconds=seconds, extra=extra, rounds=rounds)
    return replace(snapshot, weights={})  # they are on disk, and may be large


def _export_web(store: Store, world: World) -> None:
    """Write the site graph as GraphML and GEXF, with the number and the synthetic share of each site's documents."""
    live = world.corpus.live().columns("site", "ai_share").group_by("site").agg(pl.len(), pl.col("ai_share").mean())
    documents, share = np.zeros(world.web.sites, np.int64), np.full(world.web.sites, 0.0)
    documents[live["site"]], share[live["site"]] = live["len"], live["ai_share"]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("web.graphml", "web.gexf"):
            world.web.export(Path(folder) / name, {"documents": documents, "synthetic_share": share})
            store.write(name, (Path(folder) / name).read_bytes())


def _write_scenario(store: Store, scenario: Scenario) -> None:
    text = scenario.to_toml()
    path = store.folder / "scenario.toml"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        store.write("scenario.toml", text.encode())


def _require_same_machine(folder: Path, requested: Machine | None) -> Machine:
    """Return where a run continues: on other threads only if its numbers do not depend on them.

    Raises ScenarioError for another device, and for other threads if they change numbers.
    """
    run = Run(folder)
    stored = run.machine
    requested = None if requested is None else replace(requested, parts=stored.parts)
    indifferent = not any(family.depends_on_threads for family in run.scenario.models.values())
    if requested is not None and requested.device == stored.device and indifferent:
        return requested
    if requested is not None and requested != stored:
        raise ScenarioError(
            f"{folder}: this run began on {stored.describe()} and continues bit for bit only there, not on "
            f"{requested.describe()}. Give --device {stored.device} --threads {stored.threads}, or start again with "
            "--fresh."
        )
    if requested is None:
        Machine.choose(stored.device, stored.threads)  # raises an error if this machine lacks the device
    return stored


def verify_inputs(run: Run, world: World, base: Path) -> None:
    """Raise StoreError if a source, the graph or a foundation built so far has changed since the run began."""
    check_inputs(run.path, run.environment, run.scenario, base, world.state.reservoirs, world.cohorts)
