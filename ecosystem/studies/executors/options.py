"""Options for executing the runs of a study, and the engine that they select."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from ecosystem.errors import EcosystemError, nearest, path_argument, whole_number
from ecosystem.interpreter import cores, require_docstrings, require_threads
from ecosystem.placement.spec import ADDRESS
from ecosystem.runs.callbacks.base import made
from ecosystem.runs.environment import validate_device
from ecosystem.runs.planning.memory import memory_budget
from ecosystem.studies.executors.jobs import Engine
from ecosystem.studies.executors.local import Processes, Serial

EngineKind = Literal["serial", "processes", "ray"]


class ExecutionKeywords(TypedDict, total=False):
    """The fields of :class:`ExecutionOptions` as keywords, for type checkers."""

    engine: EngineKind
    jobs: int | None
    threads: int | None
    device: str
    address: str | None
    gpus: float
    cache: str | Path | None
    memory: str | int | None
    callbacks: Sequence[str]


@dataclass(frozen=True)
class ExecutionOptions:
    """Where runs are executed, how many in parallel, and the resources of each.

    Raises EcosystemError for invalid options, even if there is nothing to execute.
    """

    engine: EngineKind = "processes"
    jobs: int | None = None  # parallel runs; None: cores divided by threads (serial: one)
    threads: int | None = None  # of each run; None: as many as the run began with, or one for a new run
    device: str = "auto"
    address: str | None = None  # of a Ray cluster; "auto": find one; None: start one on this machine
    gpus: float = 0.0  # per run, on Ray; may be fractional
    cache: str | Path | None = None  # folder of foundations; None: ECOSYSTEM_CACHE, or the user's cache folder
    memory: str | int | None = None  # of each run, such as "4GB"; None: no limit
    callbacks: Sequence[str] = ()  # names of what follows each run, such as "tensorboard"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ExecutionOptions:
        """Return the options by name; raise EcosystemError for an unknown one."""
        names = [field.name for field in fields(cls)]
        for name in options:
            if name not in names:
                raise EcosystemError(f'unknown option "{name}"{nearest(name, names)}; allowed: {", ".join(names)}.')
        return cls(**options)

    def __post_init__(self) -> None:
        validate_engine(self.engine, self.jobs, self.address, self.gpus)
        validate_device(self.device, self.threads)
        memory_budget(self.memory)
        require_names(self.callbacks)
        if self.cache is not None:
            path_argument(self.cache, "cache")


def start_engine(options: ExecutionOptions, tick: Callable[[], None] = lambda: None) -> Engine:
    """Start the engine that the options select; the serial engine calls ``tick`` while it works."""
    require_docstrings()
    require_threads()
    threads = options.threads or 1
    if options.engine == "serial":
        return Serial(tick)
    if options.engine == "processes":
        return Processes(options.jobs or max(1, cores() // threads), threads)
    from ecosystem.studies.executors.ray import Ray

    return Ray(options.jobs, threads, options.address, options.gpus)


def require_names(callbacks: Sequence[str]) -> None:
    """Raise EcosystemError unless these are names of callbacks whose packages are there."""
    for callback in callbacks:
        if not isinstance(callback, str):
            raise EcosystemError(
                f"callbacks: {callback!r:.80} is no name; runs of studies are computed in other processes, which make "
                "their own callbacks: give names, such as tensorboard, or register one as an entry point."
            )
    made(callbacks)


def validate_engine(kind: str, jobs: int | None, address: str | None, gpus: float) -> None:
    """Raise EcosystemError for an unknown engine, and for options that the engine does not have."""
    kinds = get_args(EngineKind)
    if kind not in kinds:
        raise EcosystemError(f"--engine {kind}: unknown engine{nearest(kind, kinds)}; choose from {', '.join(kinds)}.")
    if jobs is not None:
        whole_number(jobs, "--jobs", 1)
    if not isinstance(gpus, int | float) or not 0 <= gpus < math.inf:
        raise EcosystemError(f"--gpus {gpus}: give a number of at least 0.")
    if kind != "ray" and (address is not None or gpus):
        raise EcosystemError(f"--address and --gpus belong to --engine ray, not to {kind}.")
    if address is not None and not address.strip():
        raise EcosystemError(f'--address "{address}": give {ADDRESS}.')
    if kind == "serial" and jobs not in (None, 1):
        raise EcosystemError(f"--engine serial executes one run at a time, not {jobs}; choose --engine processes.")
