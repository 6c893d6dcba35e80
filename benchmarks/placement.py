"""What it costs to compute the models of a run in Ray workers: ``python -m benchmarks.placement``.

The same run is made in this process and by 2, 4 and 8 workers, one step of each in turn, and must write the same
numbers. The cores are shared by the workers, so the cost is given as processor time: that of the run's process and of
its workers, less that of the run in one process. A model of larger clusters follows from the time of an empty call.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ecosystem.families.base import build_cohort
from ecosystem.placement.cluster import connect
from ecosystem.placement.cohort import Placement
from ecosystem.placement.spec import PlacementSpec
from ecosystem.placement.workers import Workers
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario

TRAINERS = 8
WORLD = """
name = "placement"
steps = {steps}
[sources.docs]
kind = "python_docs"
held_out = 0.1
[web]
kind = "barabasi_albert"
sites = 40
degree = 2
initial = {{ source = "docs", documents = 1500 }}
[models.small]
preset = "{preset}"
[trainers.labs]
count = {trainers}
model = "small"
scrape = {{ docs = 400 }}
budget = {{ tokens = 16_000 }}
publish = 60
[measure]
held_out = 100
"""


CALLS = 6  # of every worker in a step: generate, fit, read, keep, write, and its share of the others
NETWORK = 1.25e9  # bytes per second of 10 Gbit/s, assumed
CLUSTERS = {"8 nano trainers each": (8, 0.7e6, 15.0), "one of 124 M each": (1, 498e6, 60.0)}
"""Trainers of each worker, bytes of the weights of each trainer, and seconds of work of a worker in a step."""


class Side:
    """One of the runs that are compared: in this process (``workers`` = 0) or by workers."""

    def __init__(self, scenario: Scenario, workers: int, out: Path, stack: ExitStack) -> None:
        self.folder, self.sent, self.shared, self.received = folder_of(scenario, out), 0, 0, 0
        self._workers = None
        builder = build_cohort
        if workers:
            self._workers = stack.enter_context(Workers(PlacementSpec(workers=workers), 1, 10**6, print))
            self._count_bytes(self._workers)
            builder = Placement(self._workers).cohort
        self._steps = begin(scenario, out=out, machine=Machine("cpu", 1), builder=builder)
        stack.callback(self._steps.close)

    def _count_bytes(self, workers: Any) -> None:
        from ray import cloudpickle

        submit, result, seen = workers._submit, workers._result, set[Any]()

        def counted_submit(call: Any) -> Any:
            if not isinstance(call.shared, workers.ray.ObjectRef):
                self.sent += len(cloudpickle.dumps(call.shared))
            elif call.shared not in seen:
                seen.add(call.shared)
                self.shared += len(cloudpickle.dumps(workers.ray.get(call.shared)))
            self.sent += len(cloudpickle.dumps((call.method, call.arguments, call.own)))
            return submit(call)

        def counted_result(task: Any) -> Any:
            value = result(task)
            self.received += len(cloudpickle.dumps(value))
            return value

        workers._submit, workers._result = counted_submit, counted_result

    def step(self) -> dict[str, float]:
        """Make one step; return its wall time, and the processor time here and in the workers."""
        own, theirs, began = time.process_time(), self._worker_seconds(), time.perf_counter()
        self.sent = self.shared = self.received = 0
        next(self._steps)
        wall, own = time.perf_counter() - began, time.process_time() - own
        theirs = self._worker_seconds() - theirs
        spent = {"wall": wall, "own": own, "theirs": theirs}
        return {**spent, "sent": self.sent, "shared": self.shared, "received": self.received}

    def _worker_seconds(self) -> float:
        if self._workers is None or not self._workers._actors:
            return 0.0
        asked = [actor.__ray_call__.remote(lambda self: time.process_time()) for actor in self._workers._actors]
        return float(sum(self._workers.ray.get(asked)))

    def files(self) -> dict[str, str]:
        """Return the hashes of all committed files, and of the last weights, which may be in several files."""
        store = Store(self.folder)
        files = {name: found["sha256"] for commit in store.commits() for name, found in commit.files.items()}
        files = {name: digest for name, digest in files.items() if not name.startswith("weights/")}
        for model, arrays in store.weights(store.last()).items():
            files |= {f"{model}/{name}": hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in arrays}
        return files


def steps(preset: str, counts: tuple[int, ...], rounds: int) -> dict[int, list[dict[str, float]]]:
    """Return the figures of the steps of each side after the first, whose processes import libraries."""
    scenario = Scenario.parse(tomllib.loads(WORLD.format(preset=preset, steps=rounds + 1, trainers=TRAINERS)))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = {count: Side(scenario, count, Path(folder) / str(count), stack) for count in (0, *counts)}
        figures: dict[int, list[dict[str, float]]] = {count: [] for count in sides}
        for number in range(rounds + 2):  # the opening and the first step are a warm-up
            for count, side in sides.items():
                found = side.step()
                if number > 1:
                    figures[count].append(found)
        alone = sides[0].files()
        assert all(side.files() == alone for side in sides.values()), "the runs differ"
    return figures


def empty_calls(ray: Any, actors: int, rounds: int = 30) -> float:
    """Return the seconds of one call to each of so many actors at the same time, and their answers."""

    class Idle:
        def answer(self, text: bytes) -> bytes:
            return text

    idle = [ray.remote(num_cpus=0)(Idle).remote() for _ in range(actors)]
    ray.get([actor.answer.remote(b"") for actor in idle])
    durations = []
    for _ in range(rounds):
        began = time.perf_counter()
        ray.get([actor.answer.remote(b"x" * 1000) for actor in idle])
        durations.append(time.perf_counter() - began)
    for actor in idle:
        ray.kill(actor)
    return statistics.median(durations)


def hash_rate() -> float:
    """Return the bytes per second of SHA-256."""
    data = os.urandom(1 << 26)
    began = time.perf_counter()
    hashlib.sha256(data).hexdigest()
    return len(data) / (time.perf_counter() - began)


@dataclass(frozen=True)
class Model:
    """Seconds of a step with many workers, from what was measured with few. Workers do not wait for each other."""

    trainer: float  # seconds of the run's process per trainer: gates, tables, answers
    call: float  # seconds per call of a worker
    hashed: float  # bytes per second of SHA-256
    sent: float  # bytes to each worker
    received: float  # bytes from each worker per trainer

    def parts(self, workers: int, trainers: int, weights: float) -> list[float]:
        """Return the seconds for trainers, calls, network and hash; ``weights`` are the bytes of each trainer's.

        Every worker hashes the weights of its own trainers.
        """
        total = workers * trainers
        network = (workers * self.sent + total * self.received) / NETWORK
        return [total * self.trainer, workers * CALLS * self.call, network, trainers * weights / self.hashed]

    def table(self) -> Iterator[str]:
        """Return a table of two clusters from 1 to 1,000 workers."""
        yield "| cluster | workers | trainers, s | calls, s | network, s | hash, s | share of useful time |"
        yield "|---" * 7 + "|"
        for name, (trainers, weights, work) in CLUSTERS.items():
            for workers in (1, 10, 30, 100, 300, 1000):
                parts = self.parts(workers, trainers, weights)
                shown = " | ".join(f"{seconds:.2f}" for seconds in parts)
                yield f"| {name} | {workers:,} | {shown} | {work / (work + sum(parts)):.0%} |"


def lines(preset: str, figures: dict[int, list[dict[str, float]]]) -> Iterator[str]:
    """Return the rows of a table of one preset."""

    def middle(values: list[float], form: str = ".2f") -> str:
        return f"{statistics.median(values):{form}} [{min(values):{form}} to {max(values):{form}}]"

    alone = figures[0]
    for count, found in figures.items():
        total = [step["own"] + step["theirs"] for step in found]
        overhead = [spent - one["own"] for spent, one in zip(total, alone, strict=True)]
        yield (
            "| "
            + " | ".join(
                [
                    preset,
                    str(count) if count else "none",
                    middle([step["wall"] for step in found]),
                    middle([step["own"] for step in found]),
                    middle(total),
                    middle(overhead) if count else "",
                    f"{statistics.median(step['shared'] for step in found) / 1e6:.2f}" if count else "",
                    f"{statistics.median(step['sent'] for step in found) / 1e6:.2f}" if count else "",
                    f"{statistics.median(step['received'] for step in found) / 1e6:.2f}" if count else "",
                ]
            )
            + " |"
        )


@click.command()
@click.option("--preset", "presets", multiple=True, default=("trigram", "gpt2-nano"), show_default=True)
@click.option("--workers", "counts", type=int, multiple=True, default=(2, 4, 8), show_default=True)
@click.option("--rounds", type=click.IntRange(min=2), default=4, show_default=True, help="Steps that are measured.")
def main(presets: tuple[str, ...], counts: tuple[int, ...], rounds: int) -> None:
    """Print the cost of a step by workers, of empty calls, and of hashing.

    Columns: wall time, processor time of the run's process, of all, and beyond that of the run without workers
    (seconds); bytes shared by all workers, sent to single ones, and sent back (MB).
    """
    ray, _ = connect(None, 2 * sum(counts) + 1)
    columns = ["preset", "workers", "wall", "run's", "all", "overhead", "shared", "sent", "back"]
    click.echo(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for preset in presets:
        figures = steps(preset, counts, rounds)
        for line in lines(preset, figures):
            click.echo(line)
    for actors in (1, 2, 4, 8, 16, 32):
        seconds = empty_calls(ray, actors)
        click.echo(f"empty calls to {actors} workers: {1000 * seconds:.2f} ms, {actors / seconds:,.0f} calls/s")
    few, many = figures[min(counts)], figures[max(counts)]
    model = Model(
        trainer=statistics.median(step["own"] for step in few) / TRAINERS,
        call=seconds / actors,
        hashed=hash_rate(),
        sent=statistics.median(step["sent"] for step in many) / max(counts),
        received=statistics.median(step["received"] for step in many) / TRAINERS,
    )
    click.echo(f"{model}\n" + "\n".join(model.table()))
    ray.shutdown()


if __name__ == "__main__":
    main()
