"""The environment of a run (``environment.json``): device, threads, versions, sources and foundations."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ecosystem.errors import EcosystemError, StoreError, nearest
from ecosystem.families.base import Cohort
from ecosystem.runs.files import relative_path
from ecosystem.runs.store import Store
from ecosystem.sources.base import Reservoir

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
        validate_device(device, threads)
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


def validate_device(device: str = "auto", threads: int | None = None) -> None:
    """Raise EcosystemError for a device that no machine has, or a number of threads that is none."""
    if device not in DEVICES:
        raise EcosystemError(
            f"--device {device}: there is no such thing{nearest(str(device), DEVICES)}; give {', '.join(DEVICES)}."
        )
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise EcosystemError(f"--threads {threads}: give a whole number from 1 on, or leave it out.")


def cores() -> int:
    """Return the cores this process may run on; all of the machine where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
