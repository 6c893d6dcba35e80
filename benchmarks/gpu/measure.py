"""Measure and print training, writing and small trainers on a GPU, or the same code on a CPU at small sizes."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.engines import FULL_SIZE, Bench
from benchmarks.gpu import peers, trainers
from benchmarks.gpu.limits import Limits, limits, training_flops, writing_bytes

GOALS = {"mfu": 0.50, "mbu": 0.40, "writing": 3.0, "stacked": 20.0}
"""Share of the arithmetic (training) and of the memory roof (writing), and times as fast as the best of others."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of all measurements: the model's fields, and batch, rows and tokens of training and writing."""

    fields: dict[str, int]
    batch: int
    rows: int
    tokens: int
    trainers: int
    small: tuple[int, int, int]  # of the small trainers


SIZES = {
    "cuda": Sizes(FULL_SIZE | {"vocabulary": 50257}, 32, 192, 1 << 22, 64, (32, 8, 65_536)),
    "cpu": Sizes(
        {"n_layer": 1, "n_embd": 32, "n_head": 2, "vocabulary": 300, "context": 32}, 8, 8, 512, 3, (8, 8, 512)
    ),
}
Rates = dict[str, float | str]
"""Tokens per second by side, or why a side is not measured."""


def measure(device: str, rounds: int, sizes: Sizes | None = None, *, processes: bool = True) -> dict[str, Any]:
    """Return tokens/s, shares of the limits and ratios; a side that cannot run is a sentence instead of a figure."""
    sizes, roof = sizes or SIZES[device], limits(device)
    bench = Bench("gpt2", device, 1, sizes.batch, sizes.rows, sizes.tokens, fields=sizes.fields, members=1)
    trainers.on_gpu_paths(bench)
    shape, length = bench.cohort.shape, bench.context
    ours: dict[str, dict[str, Callable[[], peers.Job]]] = {
        "train": {"ours": lambda: lambda: bench.ours_train(1), **peers.training(bench)},
        "write": {"ours": lambda: bench.ours_generate, **peers.writing(bench)},
    }
    done = {"train": bench.blocks.numel(), "write": bench.rows * (length - 1)}
    rates = {
        what: {side: _rate(bench, job, done[what], rounds) for side, job in jobs.items()} for what, jobs in ours.items()
    }
    cost = {
        "train": training_flops(shape, length) / roof.flops,
        "write": writing_bytes(shape, bench.rows, length) / roof.bandwidth,
    }
    notes = bench.cohort.take_notes()
    return {
        "parameters": shape.count(),
        "limits": vars(roof),
        "rates": rates,
        "shares": {
            what: {side: rate * cost[what] for side, rate in sides.items() if isinstance(rate, float)}
            for what, sides in rates.items()
        },
        "trainers": _trainers(device, sizes, processes),
        "notes": notes,
    }


def _rate(bench: Bench, prepare: Callable[[], peers.Job], tokens: int, rounds: int) -> float | str:
    """Return the median of tokens per second over rounds after one that warms up, or why it cannot be measured."""
    try:
        job = prepare()
        times = [bench.seconds(job) for _ in range(rounds + 1)][1:]
    except Exception as error:  # the peers raise many types; a benchmark of several sides goes on without one
        lines = str(error).strip().splitlines() or [""]
        return f"not measured: {type(error).__name__}: {lines[0][:200]}"
    return tokens / statistics.median(times)


def _trainers(device: str, sizes: Sizes, processes: bool) -> dict[str, float | str]:
    """Return the seconds in which the small trainers train, by the way in which they do."""
    name, count = "gpt2-nano", sizes.trainers
    bench = Bench(name, device, 1, *sizes.small, members=count)
    trainers.on_gpu_paths(bench)
    seconds: dict[str, float | str] = {
        "one stack": trainers.seconds(bench, True),
        "one after the other": trainers.seconds(bench, False),
    }
    if processes:
        seconds["one process each"] = trainers.processes(name, device, sizes.small, count)
    return seconds


def report(figures: dict[str, Any]) -> str:
    """Return the figures as text, each beside its goal."""
    roof = Limits(**figures["limits"])
    lines = [
        f"gpt2: {figures['parameters']:,} parameters; {roof.flops / 1e12:,.3g} TFLOP/s, "
        f"{roof.bandwidth / 1e12:,.3g} TB/s ({roof.origin})"
    ]
    for what, share, goal in (("train", "MFU", "mfu"), ("write", "MBU", "mbu")):
        rates: Rates = figures["rates"][what]
        for side, rate in rates.items():
            if isinstance(rate, str):
                lines.append(f"  {what}: {side}: {rate}")
                continue
            aim = f"  (to reach: {GOALS[goal]:.0%})" if side == "ours" else ""
            lines.append(
                f"  {what}: {side:34} {rate:12,.0f} tokens/s {figures['shares'][what][side]:6.1%} {share}{aim}"
            )
        others = [rate for side, rate in rates.items() if side != "ours" and isinstance(rate, float)]
        if others and isinstance(rates["ours"], float):
            aim = f"  (to reach: {GOALS['writing']:g}x)" if what == "write" else ""
            lines.append(f"  {what}: ours against the best of the others {rates['ours'] / max(others):.2f}x{aim}")
    stack = figures["trainers"]["one stack"]
    for way, seconds in figures["trainers"].items():
        if isinstance(seconds, str):
            lines.append(f"  trainers: {seconds}")
        else:
            aim = "" if way == "one stack" else f", {seconds / stack:.2f}x  (to reach: {GOALS['stacked']:g}x)"
            lines.append(f"  trainers: {way:22} {seconds:8.2f} s{aim}")
    return "\n".join(lines + [f"  {note}" for note in figures["notes"]])
