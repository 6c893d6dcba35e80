"""Files of a run folder that no commit record names: what a killed process left, and what is not of the run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from ecosystem.runs.records import (
    BRANCH,
    COVERED,
    DIGESTS,
    EVENTS_FOLDER,
    OPENING,
    SCRATCH,
    WANDB_FOLDER,
    read_opening,
    record_files,
)
from ecosystem.runs.store import TABLES, Store

# Records, marks of branches, and what a killed process leaves.
_STEP_FILE = r"\d{6,}(-\d{4,})?(-[0-9a-f]{32})?(-bfloat16)?\.(json|parquet|safetensors)"
# Files being written, some of them by workers (with a number of their own), and markers that workers look for.
_PARTIAL = rf"\.({_STEP_FILE}|[0-9a-f]{{32}})\.part"
_OWN_STEP = re.compile(rf"(pinned|deleted)/\d{{6,}}|[a-z]+/{_STEP_FILE}|(.*/)?\..*\.part")


def sweep(store: Store) -> list[str]:
    """Delete files of steps that no commit record names, left by a killed process; return their names.

    Files whose names are not those of such files, as those of programs that copy, are left alone, and so are the
    batches of an opening that goes on.
    """
    opened = store.last() >= 0
    if opened:
        (store.folder / OPENING).unlink(missing_ok=True)
    shutil.rmtree(store.folder / SCRATCH, ignore_errors=True)
    named = {name for commit in store.commits()[store.first_own_step() :] for name in commit.files}
    named |= set() if opened else set(read_opening(store.folder)[1])
    swept = []
    for table in (*TABLES, "weights", "state", "commits"):
        for path in sorted((store.folder / table).glob("*")):
            name = f"{table}/{path.name}"
            complete = re.fullmatch(_STEP_FILE, path.name) and table != "commits"
            partial = re.fullmatch(_PARTIAL, path.name)
            if name not in named and (complete or partial) and path.is_file():
                path.unlink()
                swept.append(name)
    return swept


def discard(store: Store) -> None:
    """Delete this folder if it has no step, not even a parent's, and no files that do not belong to a run."""
    has_steps = record_files(store.folder) or (store.folder / BRANCH).exists()
    if not has_steps and all(name.startswith("models/") for name in _others(store.folder, ())):
        shutil.rmtree(store.folder, ignore_errors=True)


def other_files(store: Store) -> list[str]:
    """Return the files in this folder that do not belong to a run, such as those of programs that copy files."""
    committed = {name for commit in store.commits()[store.first_own_step() :] for name in commit.files}
    return _others(store.folder, committed)


def _others(folder: Path, committed: Collection[str]) -> list[str]:
    own = {*COVERED, DIGESTS, BRANCH, OPENING, "report.html", ".lock", ".lock-owner", *committed}
    folders = ("charts/", f"{EVENTS_FOLDER}/", f"{WANDB_FOLDER}/", f"{SCRATCH}/")
    others = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        ours = name in own or name.startswith(folders) or _OWN_STEP.fullmatch(name)
        if path.is_file() and not ours:
            others.append(name)
    return others
