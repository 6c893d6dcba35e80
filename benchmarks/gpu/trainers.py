"""Many small trainers on one GPU: in one stack, one after the other, and in a process each that share it under MPS.

The Multi-Process Service of CUDA (``nvidia-cuda-mps-control``) lets kernels of several processes run at the same time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.engines import Bench
from ecosystem.families.language.gpt2.gpu.engine import Engine

CONTROL = "nvidia-cuda-mps-control"


def on_gpu_paths(bench: Bench) -> None:
    """Make a cohort on a CPU compute as on a GPU, for a trial of these benchmarks."""
    if bench.device == "cpu":
        bench.cohort._stacks = True
        bench.cohort._gpu = Engine(bench.cohort.shape, bench.cohort.device, bench.folder / "cache")


def seconds(bench: Bench, stacked: bool) -> float:
    """Return the time in which all members train, in one stack or one after the other; the first fit warms up."""
    bench.cohort._gpu.choices.stacks = lambda *_: stacked
    for _ in range(2):
        bench.cohort.load(bench.state)
        elapsed = bench.seconds(bench.ours_train, bench.members)
    return elapsed


def processes(name: str, device: str, sizes: tuple[int, int, int], count: int) -> float | str:
    """Return the time in which ``count`` processes train a member each, or a sentence that says why it is unknown.

    ``sizes`` are batch, rows and tokens of :class:`Bench`. All processes have warmed up before they start together.
    """
    if device == "cuda" and shutil.which(CONTROL) is None:
        return f"{CONTROL} is not installed here, so processes that share the GPU under MPS are not measured."
    try:
        with _service(device) as environment:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu.trainers", name, device, *map(str, sizes)]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            started = [subprocess.Popen(command, env=environment, **pipes) for _ in range(count)]
            try:
                return _together(started)
            finally:
                for process in started:
                    process.kill()
                    process.communicate()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"Processes that share the GPU are not measured: {error}."


def _together(started: list[subprocess.Popen[str]]) -> float:
    for process in started:
        _expect(process, "ready")
    began = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        _expect(process, "done")
    return time.perf_counter() - began


def _expect(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != word:
        raise RuntimeError(f"a process ended before it was {word}")


@contextmanager
def _service(device: str) -> Iterator[dict[str, str]]:
    """Start the service, and stop it at the end; return the environment of its clients."""
    if device != "cuda":
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        subprocess.run([CONTROL, "-d"], env=environment, check=True, timeout=30)
        try:
            yield environment
        finally:
            subprocess.run([CONTROL], input="quit\n", text=True, env=environment, check=False, timeout=60)


def main(name: str, device: str, *sizes: int) -> None:
    """Train one member when told to."""
    bench = Bench(name, device, 1, *sizes, members=1)
    on_gpu_paths(bench)
    bench.seconds(bench.ours_train, 1)
    print("ready", flush=True)
    sys.stdin.readline()
    bench.seconds(bench.ours_train, 1)
    print("done", flush=True)


if __name__ == "__main__":
    name, device, *sizes = sys.argv[1:]
    main(name, device, *map(int, sizes))
