"""The disk space of stored runs: what they use, what may go, and its deletion.

Nothing goes that a resume, a branch or a reader of the last step needs: the weights of the last step of every run and
of steps that branches start from stay, and so do runs that are not finished, are at work, or are the parent of a
branch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecosystem.errors import EcosystemError, StoreError
from ecosystem.formats import counted
from ecosystem.runs.files import io_errors
from ecosystem.runs.records import Fork
from ecosystem.runs.run import Run
from ecosystem.runs.store import Store

WEIGHTS = "weights"


@dataclass(frozen=True)
class StoredRun:
    """A run folder, its sizes in bytes, and what is known of its state; ``problem`` says why it cannot be read."""

    folder: Path
    name: str
    steps: int  # of the scenario; 0 if unknown
    last: int  # committed step
    size: int
    weights: int  # bytes of models, of ``size``
    changed: float  # time of the last commit, in seconds since 1970
    problem: str = ""

    @property
    def finished(self) -> bool:
        """Whether all steps are committed."""
        return not self.problem and self.last >= self.steps

    @property
    def state(self) -> str:
        """A word for listings."""
        return "damaged" if self.problem else ("finished" if self.finished else f"step {self.last} of {self.steps}")


@dataclass(frozen=True)
class Pruned:
    """What may be deleted of a run: the weights of some ``steps``, or (None) the whole folder; and its bytes."""

    folder: Path
    steps: tuple[int, ...] | None
    size: int

    @property
    def what(self) -> str:
        """A phrase for listings."""
        if self.steps is None:
            return "the whole run"
        return f"models of {counted(len(self.steps), 'past step')}"


def stored_runs(out: Path) -> list[StoredRun]:
    """Return the runs below a folder, by path."""
    return [_stored(file.parent) for file in sorted(out.rglob("scenario.toml")) if (file.parent / "commits").is_dir()]


def _stored(folder: Path) -> StoredRun:
    size, changed = _size(folder), folder.stat().st_mtime
    try:
        run = Run.open(folder)
        records = sorted((folder / "commits").glob("*.json"))
        changed = records[-1].stat().st_mtime if records else changed
        scenario = run.scenario
        return StoredRun(folder, scenario.name, scenario.steps, run.last_step, size, _size(folder / WEIGHTS), changed)
    except EcosystemError as error:
        problem = str(error).splitlines()[0]
        return StoredRun(folder, folder.parent.name, 0, -1, size, _size(folder / WEIGHTS), changed, problem)


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_size
            except OSError:  # deleted meanwhile, by a run that goes on
                continue
    return total


def prunable(runs: Sequence[StoredRun], *, whole: bool, before: float | None = None) -> tuple[list[Pruned], list[str]]:
    """Return what may be deleted of runs, and a sentence for every run that stays although it was asked for.

    By default, these are the weights of past steps, which only branches from these steps and their models would need.
    With ``whole``, they are finished runs. ``before`` is a time: runs with a later commit are left alone.
    """
    needed = _needed(run.folder for run in runs)
    pruned, kept = [], []
    for run in runs:
        if before is not None and run.changed >= before:
            continue
        place = run.folder.resolve()
        if run.problem:
            kept.append(f"{run.folder}: cannot be read, so it is left alone ({run.problem.rstrip('.')}).")
        elif not run.finished:
            kept.append(f"{run.folder}: has {run.last} of {run.steps} steps and can be resumed, so it stays.")
        elif whole and place in needed:
            kept.append(f"{run.folder}: a branch reads its steps, so it stays.")
        elif whole and Store(run.folder).pinned():
            kept.append(
                f"{run.folder}: a branch was made from it, perhaps in another folder, so it stays; delete its folder "
                "pinned if no branch needs it."
            )
        elif whole:
            pruned.append(Pruned(run.folder, None, run.size))
        elif sizes := _past_weights(Store(run.folder), needed.get(place, set())):
            pruned.append(Pruned(run.folder, tuple(sizes), sum(sizes.values())))
    return pruned, kept


def _needed(folders: Iterable[Path]) -> dict[Path, set[int]]:
    """Return the runs that branches read, each with the steps that branches start from."""
    needed: dict[Path, set[int]] = {}
    for folder in folders:
        try:
            fork = Fork.read(folder)
        except StoreError:  # it names a run that cannot be told: nothing that it may need is known
            continue
        if fork is not None:
            needed.setdefault(fork.parent, set()).add(fork.step)
    return needed


def _past_weights(store: Store, forks: set[int]) -> dict[int, int]:
    """Return the past steps with stored weights, except those that branches begin from, each with its bytes."""
    kept = {*forks, *store.pinned(), store.last()}
    sizes = {}
    for commit in store.commits()[store.first_own_step() :]:
        files = [store.folder / name for name in commit.table_files(WEIGHTS)]
        size = sum(file.stat().st_size for file in files if file.exists())
        if size and commit.step not in kept:
            sizes[commit.step] = size
    return sizes


def delete(part: Pruned) -> None:
    """Delete what :func:`prunable` found of a run; raise StoreError if a process works on it."""
    store = Store(part.folder)
    with store.lock():
        for step in part.steps or ():
            store.delete_weights(step)
    if part.steps is None:
        with io_errors(part.folder):
            shutil.rmtree(part.folder)
            if not any(part.folder.parent.iterdir()):
                part.folder.parent.rmdir()
