"""``python -m benchmarks``: measure everything in one run and print the ratios (``--json`` for machines)."""

from __future__ import annotations

import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ecosystem.interpreter import cores

if TYPE_CHECKING:
    from benchmarks.engines import Bench

# Silence the logger of transformers, so that only the table is printed.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TARGETS = {
    "gpt2-nano": {
        "generate": 3.5,
        "generate/ctranslate2": 1.3,
        "train/plain": 1.2,
        "train/compiled": 1.0,
        "train/trainer": 1.5,
        "recursion": 2.5,
    },
    "gpt2-micro": {
        "generate": 3.0,
        "generate/ctranslate2": 1.3,
        "train/plain": 1.2,
        "train/compiled": 1.0,
        "train/trainer": 1.5,
        "recursion": 2.5,
    },
}

_MODES: dict[str, tuple[str, ...]] = {
    "": ("names", "device", "threads", "rounds", "generations"),
    "recursions": ("rounds",),
    "scale": ("sizes", "near_duplicates", "chart"),
    "memory": (),
    "view": ("rounds",),
    "gpu": ("device", "threads", "rounds"),
}
"""The options that choose what is measured ("": none of them), and the other options that each reads."""


def _require_one_mode(context: click.Context) -> None:
    """Raise UsageError for two modes, or for options that the chosen one does not read."""
    given = [
        option
        for option in context.command.params
        if context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE and option.name != "as_json"
    ]
    modes = [option for option in given if option.name in _MODES]
    if len(modes) > 1:
        raise click.UsageError(f"{_joined(modes)} are measured one at a time; give one of them.")
    mode = str(modes[0].name) if modes else "gpu" if context.params["device"] == "cuda" else ""
    chosen = f"--{mode}" if modes else "--device cuda" if mode else "the comparison with transformers"
    needless = [option for option in given if option.name not in (mode, *_MODES[mode])]
    if needless:
        raise click.UsageError(f"{_joined(needless)}: not read by {chosen}; omit {'them' if needless[1:] else 'it'}.")


def _joined(options: list[click.Parameter]) -> str:
    return " and ".join(option.opts[0] for option in options)


@click.command()
@click.option("--preset", "names", multiple=True, type=click.Choice(["gpt2-nano", "gpt2-micro", "gpt2"]))
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=int, default=cores(), show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Repetitions, in turn.")
@click.option("--generations", type=click.IntRange(min=0), default=5, show_default=True, help="0: no recursion.")
@click.option("--recursions", is_flag=True, help="Only closed-form recursions against a NumPy loop.")
@click.option("--view", is_flag=True, help="Only the interactive page, in a browser (playwright, Chromium).")
@click.option("--scale", is_flag=True, help="Only webs of 10,000 to 10 million documents (five minutes).")
@click.option("--documents", "sizes", type=click.IntRange(min=1000), multiple=True, help="Size of --scale; repeatable.")
@click.option("--near-duplicates", is_flag=True, help="With --scale: remove near-duplicates at the publish gate.")
@click.option("--chart", type=click.Path(dir_okay=False), help="With --scale: also draw the figures (SVG).")
@click.option("--memory", is_flag=True, help="Only peak memory of models of real size (the extras smollm and lora).")
@click.option("--gpu", is_flag=True, help="Only what --device cuda measures, on a CPU at small sizes.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def main(
    context: click.Context,
    names: tuple[str, ...],
    device: str,
    threads: int,
    rounds: int,
    generations: int,
    recursions: bool,
    view: bool,
    scale: bool,
    sizes: tuple[int, ...],
    near_duplicates: bool,
    chart: str | None,
    memory: bool,
    gpu: bool,
    as_json: bool,
) -> None:
    """Measure tokens per second of the cohort engine and of transformers on the same weights and documents."""
    if not scale and (sizes or near_duplicates or chart is not None):
        raise click.UsageError("--documents, --near-duplicates and --chart belong to --scale; add it, or omit them.")
    _require_one_mode(context)
    if recursions:
        from benchmarks.recursions import measure as measure_recursions

        figures = measure_recursions(rounds)
        click.echo(json.dumps(figures, indent=1) if as_json else _recursions(figures))
        return
    if scale:
        from benchmarks import scale as scaling

        rows = scaling.measure(sizes or scaling.SIZES, near_duplicates=near_duplicates)
        click.echo(json.dumps(rows, indent=1) if as_json else scaling.table(rows))
        if chart is not None:
            Path(chart).write_bytes(scaling.chart(rows))
        return
    if memory:
        from benchmarks.memory import measure as measure_memory
        from benchmarks.memory import table as memory_table

        rows = measure_memory(say=lambda row: click.echo(row, err=True))
        click.echo(json.dumps(rows, indent=1) if as_json else memory_table(rows))
        return
    if view:
        from benchmarks.view import measure as measure_view
        from benchmarks.view import summary

        figures = measure_view(rounds)
        click.echo(json.dumps(figures, indent=1) if as_json else summary(figures))
        return
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if gpu or device == "cuda":
        from benchmarks.gpu.measure import measure as measure_gpu
        from benchmarks.gpu.measure import report

        figures = measure_gpu(device, rounds)
        click.echo(json.dumps(figures, indent=1) if as_json else f"{report(figures)}\n{_machine(device, threads)}")
        return
    names = names or ("gpt2-nano", "gpt2-micro")
    results = {"machine": _machine(device, threads), "presets": {}}
    for name in names:
        results["presets"][name] = measure(name, device, threads, rounds, generations)
        if not as_json:
            _print(name, results["presets"][name])
    if as_json:
        click.echo(json.dumps(results, indent=1))
    else:
        click.echo(results["machine"])


def measure(name: str, device: str, threads: int, rounds: int, generations: int) -> dict[str, Any]:
    """Return medians over rounds in which all sides take turns, so that a drifting machine drifts for all."""
    from benchmarks.engines import Bench, matrix_rate

    large = name == "gpt2"
    bench = Bench(name, device, threads, batch=8 if large else 32, rows=64 if large else 256, tokens=65_536)
    matrix = matrix_rate(device, 8192 if device == "cuda" else 2048)
    model = bench.model()
    work, notes = _work(bench, model)
    times = _times(bench, model, work, rounds)
    rate = {key: work[key][0] / statistics.median(values) for key, values in times.items()}
    ratios = {label: _ratio(times, *sides) for label, sides in _PAIRS.items() if sides[1] in times}
    if generations:
        times |= _recursion_times(bench, rounds, generations)
        ratios["recursion"] = _ratio(times, "ours/recursion", "theirs/recursion")
    flops = bench.cohort.flops_per_token(bench.cohort.context)
    # Forward and backward cost three forwards; generation is one, with attention over half the context.
    writing = ("ours/generate", "theirs/generate", "theirs/ctranslate2")
    share = {key: (1 if key in writing else 3) * flops * per_second / matrix for key, per_second in rate.items()}
    return {
        "parameters": bench.cohort.parameters,
        "context": bench.context,
        "notes": notes,
        "tokens_per_second": rate,
        "seconds": {key: statistics.median(values) for key, values in times.items()},
        "ratios": ratios,
        "matrix_flop_per_second": matrix,
        "share_of_matrix_rate": share,
        "peak_memory_mib": {side: peak_memory(name, device, threads, side) for side in ("ours", "theirs")},
    }


Work = dict[str, tuple[int, Callable[[], Any]]]
"""Tokens and the call that writes or trains on them, by side."""
_PAIRS = {
    "generate": ("ours/generate", "theirs/generate"),
    "generate/ctranslate2": ("ours/generate", "theirs/ctranslate2"),
    "train/plain": ("ours/train", "theirs/plain"),
    "train/compiled": ("ours/train", "theirs/compiled"),
    "train/trainer": ("ours/train", "theirs/trainer"),
}


def _work(bench: Bench, model: Any) -> tuple[Work, list[str]]:
    """Return the work of every side, and sentences on settings and on sides that are left out."""
    from benchmarks.peers import compiled_train, ctranslate2

    written = bench.rows * (bench.context - 1)
    trained = 4 * bench.blocks.numel()
    work: Work = {
        "ours/generate": (written, bench.ours_generate),
        "theirs/generate": (written, lambda: bench.theirs_generate(model)),
        "ours/train": (trained, lambda: bench.ours_train(4)),
        "theirs/plain": (trained, lambda: [bench.plain_train(model) for _ in range(4)]),
        "theirs/trainer": (trained, lambda: [bench.trainer_train(model) for _ in range(4)]),
    }
    notes = []
    writer, trainer = ctranslate2(bench), compiled_train(bench, model)
    if isinstance(writer, str):
        notes.append(writer)
    else:
        work["theirs/ctranslate2"] = (written, writer.generate)
        notes.append(f"CTranslate2: {writer.setting}.")
    if isinstance(trainer, str):
        notes.append(trainer)
    else:
        work["theirs/compiled"] = (trained, lambda: [trainer() for _ in range(4)])
    return work, notes


def _times(bench: Bench, model: Any, work: Work, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every round but the first, which warms up."""
    times: dict[str, list[float]] = {key: [] for key in work}
    for one_round in range(rounds + 1):
        for key, (_, job) in work.items():
            bench.cohort.load(bench.state)
            model.load_state_dict(bench.model().state_dict())
            elapsed = bench.seconds(job)
            if one_round:
                times[key].append(elapsed)
    return times


def _recursion_times(bench: Bench, rounds: int, generations: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"ours/recursion": [], "theirs/recursion": []}
    for _ in range(rounds):
        bench.cohort.load(bench.state)
        times["ours/recursion"].append(bench.seconds(bench.ours_recursion, generations))
        times["theirs/recursion"].append(bench.seconds(bench.theirs_recursion, generations, bench.model()))
    return times


def _ratio(times: dict[str, list[float]], ours: str, theirs: str) -> dict[str, float]:
    """Return the median of their time over ours in the same round, and the extremes."""
    pairs = [b / a for a, b in zip(times[ours], times[theirs], strict=True)]
    return {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}


def peak_memory(name: str, device: str, threads: int, side: str) -> float:
    """Return the peak memory (MiB, resident) of a fresh process that does one round of one side's recursion."""
    size = "8, 64" if name == "gpt2" else "32, 256"
    code = (
        "from benchmarks.engines import Bench, peak\n"
        f"b = Bench({name!r}, {device!r}, {threads}, {size}, 65536)\n"
        + ("b.ours_recursion(1)\n" if side == "ours" else "b.theirs_recursion(1, b.model())\n")
        + "print(peak())\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _recursions(figures: dict[str, dict[str, Any]]) -> str:
    lines = ["1,000 replicates, 100 generations, 100 samples each"]
    for name, result in figures.items():
        ratio = result["ratio"]
        lines.append(
            f"  {name:12} {result['ours_seconds'] * 1e3:8.1f} ms against {result['numpy_seconds']:6.2f} s: "
            f"{ratio['median']:.0f}x  [{ratio['min']:.0f} to {ratio['max']:.0f}]  (to reach: 100x)"
        )
    return "\n".join(lines)


def _machine(device: str, threads: int) -> str:
    import torch
    import transformers

    name = torch.cuda.get_device_name(0) if device == "cuda" else f"{threads} CPU threads, {platform.machine()}"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{name}; Python {platform.python_version()}, {versions}"


def _print(name: str, figures: dict[str, Any]) -> None:
    click.echo(f"\n{name}: {figures['parameters']:,} parameters, context {figures['context']}")
    for note in figures["notes"]:
        click.echo(f"  {note}")
    for key, rate in figures["tokens_per_second"].items():
        share = figures["share_of_matrix_rate"].get(key)
        click.echo(f"  {key:20} {rate:10,.0f} tokens/s" + (f"  {share:5.1%} of the matrix rate" if share else ""))
    click.echo(f"  {'matrix product':20} {figures['matrix_flop_per_second'] / 1e9:10,.0f} GFLOP/s")
    for key, ratio in figures["ratios"].items():
        target = TARGETS.get(name, {}).get(key)
        aim = f"  (to reach: {target}x)" if target else ""
        click.echo(f"  {key:20} {ratio['median']:9.2f}x  [{ratio['min']:.2f} to {ratio['max']:.2f}]{aim}")
    for side, peak in figures["peak_memory_mib"].items():
        click.echo(f"  peak memory {side:6} {peak:10,.0f} MiB")


if __name__ == "__main__":
    main()
