"""The environment of a run (``environment.json``): device, threads, versions, sources and foundations."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, NonNegativeInt, PositiveInt, ValidationError

from ecosystem.corpus.graph_files import find_graph
from ecosystem.errors import EcosystemError, StoreError, nearest
from ecosystem.families.base import Cohort
from ecosystem.families.checkpoint import fingerprint
from ecosystem.interpreter import cores
from ecosystem.metrics.base import DOCUMENT_METRICS, TEXT_METRICS
from ecosystem.parsing import parse_json
from ecosystem.plugins import loaded, used
from ecosystem.runs.files import relative_path, unreadable
from ecosystem.runs.records import require_unaltered
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import EndlessSource, Reservoir
from ecosystem.streams import Streams
from ecosystem.version import __version__
from ecosystem.violations import sentence

DEVICES = ("auto", "cpu", "cuda", "mps")
MOST_THREADS = 1024  # systems refuse to start some thousands, in the middle of a library
PACKAGES = ("mesa", "networkx", "numpy", "polars", "tokenizers", "torch", "transformers")


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
    parts: dict[str, PositiveInt] = {}
    sources: dict[str, SourceRecord]
    foundations: dict[str, str | None]
    graph: str = ""
    base: str = ""
    packages: dict[str, str] = {}
    plugins: dict[str, str] = {}
    resumed: list[dict[str, Any]]


@dataclass(frozen=True)
class Machine:
    """The device, the number of compute threads, and parts of batches: the numbers of a run depend on them.

    ``parts`` are pairs of a model and the tokens of a batch that it computes at once, if memory demands fewer than is
    fastest.
    """

    device: str
    threads: int
    parts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def choose(cls, device: str = "auto", threads: int | None = None) -> Machine:
        """Resolve ``auto`` and check that the device exists; ``threads`` defaults to all cores of this process.

        Raises EcosystemError if the device is unknown or not available, or ``threads`` is not a whole number from 1
        to ``MOST_THREADS``.
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
        return cls(device, threads or min(cores(), MOST_THREADS))

    def describe(self) -> str:
        """Return a description of the device, with the number of threads on a CPU."""
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():  # other machines compute
                return "cuda"
            return f"{torch.cuda.get_device_name(0)} (CUDA)"
        return f"{self.device} with {self.threads} compute thread{'s' if self.threads > 1 else ''}"


def validate_device(device: str = "auto", threads: int | None = None) -> None:
    """Raise EcosystemError for an unknown device, or ``threads`` that is no whole number from 1 to ``MOST_THREADS``."""
    if device not in DEVICES:
        raise EcosystemError(
            f"--device {device}: unknown device{nearest(str(device), DEVICES)}; choose from {', '.join(DEVICES)}."
        )
    whole = isinstance(threads, int) and not isinstance(threads, bool)
    if threads is not None and not (whole and 1 <= threads <= MOST_THREADS):
        raise EcosystemError(f"--threads {threads}: give a whole number from 1 to {MOST_THREADS}, or omit it.")


def new_environment(
    scenario: Scenario,
    machine: Machine,
    base: Path,
    folder: Path,
    sources: Mapping[str, Reservoir],
    models: Mapping[str, Cohort],
) -> dict[str, Any]:
    """Return the environment of a new run in ``folder``; relative paths of its scenario start from ``base``."""
    return {
        "seed": scenario.seed,
        "device": machine.device,
        "device_name": machine.describe(),
        "threads": machine.threads,
        **({"parts": dict(machine.parts)} if machine.parts else {}),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "sources": {name: {"digest": r.digest, "size": r.size} for name, r in sources.items()},
        "foundations": {name: cohort.fingerprint for name, cohort in models.items()},
        "graph": _graph_digest(scenario, base),
        "base": relative_path(base, folder),
        **({"plugins": plugins} if (plugins := _plugins(scenario)) else {}),
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
    folder: Path,
    environment: Mapping[str, Any],
    scenario: Scenario,
    base: Path,
    sources: Mapping[str, Reservoir],
    models: Mapping[str, Cohort],
) -> None:
    """Raise StoreError if a source, the graph or the foundation of one of ``models`` has changed since the start."""
    if what := _changed(environment, scenario, base, {name: source.digest for name, source in sources.items()}):
        raise changed_error(folder, what)
    require_plugins(folder, environment)
    for name, cohort in models.items():
        if cohort.fingerprint != environment["foundations"][name]:
            raise StoreError(
                f'{folder}: the foundation of model "{name}" has changed since this run began (perhaps another '
                "version of torch). Restore the versions in environment.json, or start again with --fresh."
            )


def changed_input(
    environment: Mapping[str, Any],
    scenario: Scenario,
    base: Path,
    digests: dict[tuple[str, int], str] | None = None,
) -> str:
    """Name a source, graph or checkpoint whose files have changed since a run began; "" if there is none.

    Nothing is built. Files that are missing are not compared. ``digests`` keeps those of sources for further runs.
    """
    digests = {} if digests is None else digests
    streams, current = Streams(environment["seed"]), {}
    for name, source in scenario.sources.items():
        if isinstance(source, EndlessSource) or name not in environment["sources"]:
            continue
        key = json.dumps([name, str(base), source.defining()], sort_keys=True), streams.seed
        with contextlib.suppress(EcosystemError):
            if key not in digests:
                digests[key] = source.open(name, streams, base).digest
            current[name] = digests[key]
    if what := _changed(environment, scenario, base, current):
        return what
    for name, family in scenario.models.items():
        place = family.checkpoint_folder
        if place is not None and fingerprint(place) != environment["foundations"][name]:
            return f'checkpoint of model "{name}"'
    return ""


def _changed(environment: Mapping[str, Any], scenario: Scenario, base: Path, digests: Mapping[str, str]) -> str:
    """Name a source of ``digests``, a plug-in or the graph that differs from that at the start; "" if there is none.

    Runs that did not record their graph, and graphs and plug-ins that are missing, are not compared.
    """
    for name, digest in digests.items():
        if digest != environment["sources"][name]["digest"]:
            return f'source "{name}"'
    present = {plugin.name: plugin.digest for plugin in loaded()}
    for name, digest in environment.get("plugins", {}).items():
        if present.get(name, digest) != digest:
            return f"plug-in {name}"
    recorded = environment.get("graph")
    return "graph in web.path" if recorded and _graph_digest(scenario, base) not in ("", recorded) else ""


def changed_error(folder: Path, what: str) -> StoreError:
    """Return the error of a run whose source, graph or checkpoint has changed."""
    return StoreError(
        f"{folder}: the {what} has changed since this run began (another Python version, or changed files). Restore "
        "it, or start again with --fresh."
    )


def require_plugins(folder: Path, environment: Mapping[str, Any]) -> None:
    """Raise StoreError if a run used a plug-in from a file that this process has not loaded."""
    present = {plugin.name for plugin in loaded()}
    missing = [name for name in environment.get("plugins", {}) if name not in present]
    if missing:
        options = " ".join(f"--plugin {name}" for name in missing)
        raise StoreError(
            f"{folder}: this run uses the plug-in {', '.join(missing)}, which is not loaded. Add {options}, with the "
            "path of the file (from Python: ecosystem.load_plugin)."
        )


def _plugins(scenario: Scenario) -> dict[str, str]:
    """Return the plug-ins that a scenario uses, now or after a timed change: name of the file → SHA-256.

    Metrics are measured without being named, unless the scenario selects some.
    """
    unnamed = list(TEXT_METRICS.all() if scenario.modality == "text" else DOCUMENT_METRICS.all())
    if scenario.modality == "text" and scenario.measure.texts is not None:
        unnamed = []
    return {plugin.name: plugin.digest for plugin in used(json.dumps([scenario.plain(), *unnamed]))}


def _graph_digest(scenario: Scenario, base: Path) -> str:
    """Return the SHA-256 of the file in web.path, "" if there is none or it cannot be read."""
    if scenario.web.path is None:
        return ""
    try:
        return hashlib.sha256(find_graph(scenario.web.path, base).read_bytes()).hexdigest()
    except (EcosystemError, OSError):
        return ""


@cache
def _versions() -> dict[str, str]:
    versions = {"ecosystem": __version__}  # of this code: the metadata of an editable installation may be older
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
