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

from pydantic import BaseModel, NonNegativeInt, PositiveInt, ValidationError

from ecosystem.errors import EcosystemError, StoreError, nearest
from ecosystem.families.base import Cohort
from ecosystem.parsing import parse_json
from ecosystem.runs.files import relative_path, unreadable
from ecosystem.runs.records import require_unaltered
from ecosystem.runs.store import Store
from ecosystem.sources.base import Reservoir
from ecosystem.violations import sentence

DEVICES = ("auto", "cpu", "cuda", "mps")
PACKAGES = ("ecosystem", "mesa", "networkx", "numpy", "polars", "tokenizers", "torch", "transformers")


_REMEDY = "Restore it from a copy, or start again with --fresh (nothing is deleted)."


class SourceRecord(BaseModel):
    """A source as it was when the run began."""

    digest: str
    size: int | None


class Environment(BaseModel):
    """What is read of ``environment.json``."""

    seed: NonNegativeInt
    device: str
    threads: PositiveInt
    sources: dict[str, SourceRecord]
    foundations: dict[str, str | None]
    base: str = ""
    packages: dict[str, str] = {}
    resumed: list[dict[str, Any]]


@dataclass(frozen=True)
class Machine:
    """The device and the number of compute threads: the numbers of a run depend on both."""

    device: str
    threads: int

    @classmethod
    def choose(cls, device: str = "auto", threads: int | None = None) -> Machine:
        """Resolve ``auto`` and check that the device exists; ``threads`` defaults to all cores of this process.

        Raises EcosystemError if the device is unknown or not available, or ``threads`` is not a positive integer.
        """
        validate_device(device, threads)
        import torch

        available = ["cpu"]
        if torch.cuda.is_available():
            available.append("cuda")
        if torch.backends.mps.is_available():
            available.append("mps")
        if device == "auto":
            device = available[-1]
        if device not in available:
            raise EcosystemError(f"--device {device}: not available on this machine, which has {', '.join(available)}.")
        return cls(device, threads or cores())

    def describe(self) -> str:
        """Return a description of the device, with the number of threads on a CPU."""
        if self.device == "cuda":
            import torch

            return f"{torch.cuda.get_device_name(0)} (CUDA)"
        return f"{self.device} with {self.threads} compute thread{'s' if self.threads > 1 else ''}"


def validate_device(device: str = "auto", threads: int | None = None) -> None:
    """Raise EcosystemError for an unknown device, or ``threads`` that is not a positive integer."""
    if device not in DEVICES:
        raise EcosystemError(
            f"--device {device}: unknown device{nearest(str(device), DEVICES)}; choose from {', '.join(DEVICES)}."
        )
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise EcosystemError(f"--threads {threads}: give a whole number of at least 1, or omit it.")


def cores() -> int:
    """Return the number of cores available to this process, or that of the machine if the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def new_environment(
    seed: int,
    machine: Machine,
    base: Path,
    folder: Path,
    sources: Mapping[str, Reservoir],
    models: Mapping[str, Cohort],
) -> dict[str, Any]:
    """Return the environment of a new run in ``folder``; relative paths of its scenario start from ``base``."""
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
        environment: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        Environment.model_validate(environment, strict=True)
    except FileNotFoundError:
        raise StoreError(f"{path}: is missing. {_REMEDY}") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(f"{path}: is damaged ({where or 'the file'}: {sentence(first, where)}). {_REMEDY}") from None
    except ValueError as error:
        raise StoreError(f"{path}: is damaged ({error}). {_REMEDY}") from None
    require_unaltered(folder, path.name)
    return environment


def write_environment(store: Store, environment: Mapping[str, Any]) -> None:
    """Write the environment of a run."""
    store.write("environment.json", json.dumps(environment, indent=1).encode())


def note_resume(store: Store, step: int) -> None:
    """Record in the environment that the run is resumed after ``step``, with the present versions."""
    environment = read_environment(store.folder)
    environment["resumed"].append({"after_step": step, "python": platform.python_version(), "packages": _versions()})
    write_environment(store, environment)


def check_inputs(
    folder: Path, environment: Mapping[str, Any], sources: Mapping[str, Reservoir], models: Mapping[str, Cohort]
) -> None:
    """Raise StoreError if a source, or the foundation of a model in ``models``, has changed since the run began."""
    for name, reservoir in sources.items():
        if reservoir.digest != environment["sources"][name]["digest"]:
            raise StoreError(
                f'{folder}: the source "{name}" has changed since this run began (another Python version, or '
                "changed files). Restore it, or start again with --fresh."
            )
    for name, cohort in models.items():
        if cohort.fingerprint != environment["foundations"][name]:
            raise StoreError(
                f'{folder}: the foundation of model "{name}" has changed since this run began (perhaps another '
                "version of torch). Restore the versions in environment.json, or start again with --fresh."
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
