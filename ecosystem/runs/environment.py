"""The environment of a run (``environment.json``): device, threads, versions, sources and foundations."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ecosystem.errors import StoreError
from ecosystem.families.base import Cohort
from ecosystem.runs.files import relative_path
from ecosystem.runs.machine import Machine
from ecosystem.runs.store import Store
from ecosystem.sources.base import Reservoir

PACKAGES = ("ecosystem", "mesa", "networkx", "numpy", "polars", "tokenizers", "torch", "transformers")


def new_environment(
    seed: int,
    machine: Machine,
    base: Path,
    folder: Path,
    sources: Mapping[str, Reservoir],
    models: Mapping[str, Cohort],
) -> dict[str, Any]:
    """Return the environment of a run that begins now in ``folder``; ``base``: where its relative paths begin."""
    return {
        "seed": seed,
        "device": machine.device,
        "device_name": machine.describe(),
        "threads": machine.threads,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "sources": {name: {"digest": r.digest, "size": r.size} for name, r in sources.items()},
        "foundations": {name: cohort.fingerprint for name, cohort in models.items()},
        "base": relative_path(base, folder),
        "resumed": [],
    }


def read_environment(folder: Path) -> dict[str, Any]:
    """Read the environment of a run folder; raise StoreError if it is missing or damaged."""
    path = folder / "environment.json"
    try:
        environment: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"seed", "device", "threads", "sources", "foundations", "resumed"} - set(environment)
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}). Start afresh with --fresh (nothing is deleted).") from None
    return environment


def write_environment(store: Store, environment: Mapping[str, Any]) -> None:
    """Write the environment of a run."""
    store.write("environment.json", json.dumps(environment, indent=1).encode())


def note_resume(store: Store, step: int) -> None:
    """Record in the environment that the run is resumed after ``step``, and with which versions."""
    environment = read_environment(store.folder)
    environment["resumed"].append({"after_step": step, "python": platform.python_version(), "packages": _versions()})
    write_environment(store, environment)


def check_inputs(
    folder: Path, environment: Mapping[str, Any], sources: Mapping[str, Reservoir], models: Mapping[str, Cohort]
) -> None:
    """Raise StoreError if a source, or the foundation of a model that is built, is not what it was for this run."""
    for name, reservoir in sources.items():
        if reservoir.digest != environment["sources"][name]["digest"]:
            raise StoreError(
                f'{folder}: the source "{name}" is no longer what it was when this run began (another Python '
                "version, or changed files). Restore it, or begin anew with --fresh."
            )
    for name, cohort in models.items():
        if cohort.fingerprint != environment["foundations"][name]:
            raise StoreError(
                f'{folder}: the foundation of model "{name}" is no longer the one this run began with (another '
                "version of torch, perhaps). Restore the versions in environment.json, or begin anew with --fresh."
            )


@cache
def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
