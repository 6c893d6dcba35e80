"""Memory and disk of a run, estimated before it starts, and the parts of batches that fit the memory."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecosystem.errors import EcosystemError
from ecosystem.families.footprint import LARGE, PART_TOKENS, Footprint
from ecosystem.formats import format_bytes
from ecosystem.interpreter import memory_size
from ecosystem.runs.planning.growth import Growth
from ecosystem.scenario.scenario import Scenario

Parts = tuple[tuple[str, int], ...]
_PROGRAM = 620_000_000  # interpreter, libraries, measurements, and what they keep
_REPORT = 250_000_000  # libraries that draw the report
_PER_DOCUMENT = 90  # bytes in memory; see docs/performance.md, Size of the web
_FIRST_DOCUMENTS, _PER_FIRST = 100_000, 2_300  # those whose texts and features stay in memory
_STORED, _CANDIDATE, _SCRATCH = 250, 30, 400  # bytes on disk per document and candidate, and while a run is computed
_STEP = 50_000  # bytes of the other files of a step


@dataclass(frozen=True)
class Resources:
    """Bytes that a run needs at its peak, by what needs them, and the ``budget``.

    ``parts`` are pairs of a model and the tokens of a batch that it computes at once, if these are fewer than usual.
    """

    budget: int | None  # None: unknown
    asked: bool  # whether the user gave the budget
    program: int
    web: int
    weights: int
    optimiser: int
    activations: int  # or what writing and scoring need, if that is more
    parts: Parts
    per_step: int  # on disk, with weights
    disk: int
    free: int | None  # None: unknown
    fits_anew: bool  # whether a new run, which may choose smaller parts than those of steps that exist, would fit

    @property
    def memory(self) -> int:
        """The peak of the process that computes the models."""
        return self.program + self.web + self.weights + self.optimiser + self.activations + self.report

    @property
    def report(self) -> int:
        """What drawing the report adds to the peak: it takes the place of large models, but small ones stay."""
        models = self.weights + self.optimiser + self.activations
        return max(0, _REPORT + min(models, _REPORT) - models)

    def lines(self) -> list[str]:
        """Return the lines of the plan, without their first words."""
        named = {
            "weights": self.weights,
            "gradients and optimiser": self.optimiser,
            "activations": self.activations,
            "program and web": self.program + self.web,
            "report": self.report,
        }
        listed = ", ".join(f"{format_bytes(size)} {name}" for name, size in named.items() if size)
        of = "" if self.budget is None else f" of {format_bytes(self.budget)}"
        free = "" if self.free is None else f" of {format_bytes(self.free)} that are free"
        lines = [
            f"memory     about {format_bytes(self.memory)}{of}: {listed}",
            f"disk       about {format_bytes(self.disk)}{free}, {format_bytes(self.per_step)} for the files of a step",
        ]
        smaller = [f"models.{name} computes {tokens:,} tokens of a batch at once" for name, tokens in self.parts]
        if smaller:
            lines.append(f"parts      {', '.join(smaller)} instead of {PART_TOKENS:,}, to fit the memory")
        return lines

    def plain(self) -> dict[str, Any]:
        """Return the estimate as plain data."""
        return asdict(self) | {"memory": self.memory, "parts": dict(self.parts)}

    def problem(self) -> str:
        """Return a sentence if the run cannot fit; else an empty string."""
        if self.budget is not None and self.memory > self.budget:
            whose = "--memory allows" if self.asked else "this machine has"
            remedy = "choose smaller or fewer models, a shorter context or a smaller batch"
            if self.fits_anew:
                remedy = "it keeps the parts of batches that it began with, so start again with --fresh"
            again = ", or give more memory" if self.asked else ""
            return (
                f"this run needs about {format_bytes(self.memory)} of memory, but {whose} {format_bytes(self.budget)}; "
                f"{remedy}{again}."
            )
        if self.free is not None and self.disk > self.free:
            return (
                f"this run needs about {format_bytes(self.disk)} of disk, but {format_bytes(self.free)} are free; "
                "free some space, choose another --out, raise weights_every (kept steps have their weights), or set "
                'weights_precision = "bfloat16".'
            )
        return ""

    def require(self) -> None:
        """Raise EcosystemError with the sentence of :meth:`problem`, if there is one."""
        if problem := self.problem():
            raise EcosystemError(problem[:1].upper() + problem[1:])


def memory_budget(size: str | int | None) -> int | None:
    """Return a size such as "4GB", "512 MiB" or a number of bytes in bytes; raise EcosystemError for anything else."""
    if size is None or (type(size) is int and size > 0):
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b\s*", str(size), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise EcosystemError(f"--memory {size}: give a number with a unit, such as 4GB, 512MB or 7.5GiB.")
    power = " kmgt".index(found[2].lower() or " ")
    return round(float(found[1]) * float(1024 if found[3] else 1000) ** power)


def require_cpu(device: str) -> None:
    """Raise EcosystemError on a device whose memory is not estimated."""
    if device != "cpu":
        raise EcosystemError(f"--memory: is known on CPUs only, but the models are on {device}; omit it.")


def resources(
    scenario: Scenario,
    folder: Path,
    *,
    threads: int,
    base: Path = Path(),
    budget: int | None = None,
    done: int = -1,
    parts: Parts | None = None,
    workers: int | None = None,
) -> Resources:
    """Estimate what a run needs; choose parts of batches that fit the ``budget`` (default: this machine's memory).

    ``done`` is the last step that exists already. ``parts`` are those of a resumed run, whose numbers depend on them.
    With ``workers``, the memory is that of each, and unlimited unless a budget is given.
    """
    models = _models(scenario, base, workers or 1)
    web = _web(scenario)
    weights = sum(footprint.weights(members) for footprint, members in models.values())
    if scenario.measure.downstream is not None and scenario.measure.downstream.tasks:  # members return to theirs
        weights += sum(footprint.stored(members) for footprint, members in models.values())
    program = _PROGRAM + max((footprint.libraries for footprint, _ in models.values()), default=0)
    limit = budget if budget is not None or workers else memory_size()
    room = None if limit is None else limit - program - web - weights
    smaller = {} if room is None else _parts(models, threads, room)
    chosen = smaller if parts is None else dict(parts)
    (optimiser, activations), anew = (_peak(scenario, models, threads, each) for each in (chosen, smaller))
    per_step, disk = _disk(scenario, models, done)
    return Resources(
        budget=limit,
        asked=budget is not None,
        program=program,
        web=web,
        weights=weights,
        optimiser=optimiser,
        activations=activations,
        parts=tuple(chosen.items()),
        per_step=per_step,
        disk=disk,
        free=_free(folder),
        fits_anew=room is not None and sum(anew) <= room,
    )


def _models(scenario: Scenario, base: Path, workers: int) -> dict[str, tuple[Footprint, int]]:
    """Return the models that memory depends on, each with its members in one process."""
    members = dict.fromkeys(scenario.models, 0)
    for trainer in scenario.trainers.values():
        members[trainer.model] += trainer.count
    sizes = {name: scenario.models[name].beside(base).footprint() for name, count in members.items() if count}
    return {name: (size, -(-members[name] // workers)) for name, size in sizes.items() if size.own}


def _parts(models: Mapping[str, tuple[Footprint, int]], threads: int, room: int) -> dict[str, int]:
    """Return the tokens that models compute at once, for those that do not fit with ``PART_TOKENS``."""
    parts = {}
    for name, (footprint, members) in models.items():
        tokens = PART_TOKENS
        fixed = footprint.optimiser(members, threads)
        while tokens > footprint.context and fixed + footprint.activation_bytes(threads, tokens) > room:
            tokens //= 2
        if tokens < PART_TOKENS:
            parts[name] = tokens
    return parts


def _peak(
    scenario: Scenario, models: Mapping[str, tuple[Footprint, int]], threads: int, parts: Mapping[str, int]
) -> tuple[int, int]:
    """Return the memory of the optimiser, and of activations, at the peak of a step."""
    peaks = [(0, 0)]
    for name, (footprint, members) in models.items():
        trainers = [trainer for trainer in scenario.trainers.values() if trainer.model == name]
        written = max(max(trainer.publish, scenario.measure.synthetic) for trainer in trainers)
        longest = max(trainer.decoding.max_tokens for trainer in trainers)
        activations = footprint.activation_bytes(threads, parts.get(name, PART_TOKENS))
        peaks.append((footprint.optimiser(members, threads), activations))
        peaks.append((0, max(footprint.writing(threads, written, longest), footprint.scoring())))
    return max(peaks, key=sum)


def _web(scenario: Scenario) -> int:
    documents = _documents(scenario, 0)
    growth = Growth.of(scenario, 0)
    return round(_PER_DOCUMENT * documents + _PER_FIRST * min(_FIRST_DOCUMENTS, documents)) + growth.memory


def _documents(scenario: Scenario, done: int) -> float:
    """Return how many documents are published after step ``done``; -1: those of the opening too."""
    initial = scenario.web.initial.documents if scenario.web.initial and done < 0 else 0
    people = sum(w.count * w.rate * w.mean_activity(scenario.steps) for w in scenario.writers.values())
    machines = sum(t.count * t.publish * t.mean_activity(scenario.steps) for t in scenario.trainers.values())
    return initial + (people + machines) * (scenario.steps - max(0, done))


def _disk(scenario: Scenario, models: Mapping[str, tuple[Footprint, int]], done: int) -> tuple[int, int]:
    """Return the bytes on disk of a step with weights, and of all steps after ``done`` with scratch files."""
    members = {name: sum(t.count for t in scenario.trainers.values() if t.model == name) for name in models}
    exact = sum(footprint.stored(members[name]) for name, (footprint, _) in models.items())
    kept = exact // 2 if scenario.weights_precision == "bfloat16" else exact
    steps = range(done + 1, scenario.steps + 1)
    keeping = sum(t % scenario.weights_every == 0 for t in steps)
    candidates = sum(trainer.count * trainer.scrape.docs for trainer in scenario.trainers.values())
    documents = _documents(scenario, done)
    passing = 2 * exact if kept < exact or scenario.weights_every > 1 else 0  # until the next step is committed
    trained = sum(
        size.stored(members[name]) for name, (size, _) in models.items() if size.own >= LARGE
    )  # a scratch file
    weights = keeping * kept + passing + trained
    tables = documents * _STORED + len(steps) * (candidates * _CANDIDATE + _STEP)
    scratch = _documents(scenario, -1) * _SCRATCH
    published = documents / max(1, len(steps)) * _STORED
    graph = Growth.of(scenario, 0).disk
    return round(exact + published + candidates * _CANDIDATE + _STEP), round(weights + tables + scratch + graph)


def _free(folder: Path) -> int | None:
    """Return the free bytes of the disk of a folder that may not exist yet; None if the system does not say."""
    place = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path())
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return None
    return usage.free if usage.total else None  # such as /proc
