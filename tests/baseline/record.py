"""Run a scenario of the baseline, and compare what it gives with what is stored."""

import contextlib
import importlib.metadata
import json
import math
import platform
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy  # noqa: F401 (before its BLAS is asked for)
import threadpoolctl
import torch

import ecosystem

HERE = Path(__file__).parent
STORED = HERE / "stored.json"
DEVICE, THREADS = "cpu", 1
DIGITS = 10  # significant digits of a stored value

SCENARIOS = {
    "smoke": HERE.parent.parent / "scenarios" / "smoke.toml",
    **{path.stem: path for path in sorted((HERE / "scenarios").glob("*.toml"))},
}

# Versions of these decide numbers or the bytes of files.
PACKAGES = (
    "mesa",
    "networkx",
    "numpy",
    "polars",
    "rensa",
    "safetensors",
    "scikit-learn",
    "scipy",
    "threadpoolctl",
    "tokenizers",
    "torch",
    "transformers",
)

# The tables of a step in the order in which it makes them: the first that differs is the nearest to the cause.
TABLES = ("models", "corpus", "index", "ledger", "archive", "weights", "metrics", "state")


@dataclass(frozen=True)
class Tolerance:
    """How far values may be off in another environment than the stored one, and how many may be off by more."""

    relative: float  # of the value; of 1 for values below 1
    exceptions: float = 0.0  # share of all values


# Measured with other instruction sets for torch and BLAS (AVX2, SSE; stored: AVX-512), and 30 times as wide or more.
DOUBLE = Tolerance(1e-8)  # closed forms in double precision: equal to all 10 digits there
SINGLE = Tolerance(1e-5)  # sums in single precision, short training: off by up to 3e-7, and no draw came out otherwise
# After 100,000 tokens of training losses are off by 1e-3, so that some tokens are drawn otherwise, and all later texts,
# verdicts and weights with them: 12 % of the values of a step were off by more than a tenth.
CHAOTIC = Tolerance(0.1, exceptions=0.25)

TOLERANCES = {
    "smoke": CHAOTIC,
    "categories": DOUBLE,
    "gpt2": SINGLE,
    "labels": DOUBLE,
    "ngram": SINGLE,
    "regression": DOUBLE,
    "vae": SINGLE,
    "vectors": DOUBLE,
}
EXACT = Tolerance(0.0)


@dataclass(frozen=True)
class Result:
    """What a scenario gave: file → SHA-256, and (step, scope, id) as one string → metric → value."""

    files: dict[str, str]
    metrics: dict[str, dict[str, float]]

    @property
    def values(self) -> dict[tuple[str, str], float]:
        """The value of every (step, scope, id) and metric."""
        return {(row, metric): value for row, found in self.metrics.items() for metric, value in found.items()}


def environment() -> dict[str, str]:
    """Return what the bits of a result depend on besides the code."""
    libraries = threadpoolctl.threadpool_info()
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "torch instructions": torch.backends.cpu.get_cpu_capability(),
        "blas": ", ".join(sorted({str(lib.get("architecture")) for lib in libraries if lib["user_api"] == "blas"})),
        "device": DEVICE,
        "threads": str(THREADS),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def measured(name: str) -> Result:
    """Run a scenario from nothing, foundations included, and return what it gave."""
    scenario = ecosystem.Scenario.load(SCENARIOS[name])
    one_thread = threadpoolctl.threadpool_limits(THREADS)  # of NumPy's BLAS, whose sums depend on their number
    with one_thread, tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        run = ecosystem.run(scenario, out="runs", device=DEVICE, threads=THREADS)
        records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.path.glob("commits/*.json"))]
        files = {file: entry["sha256"] for record in records for file, entry in record["files"].items()}
        metrics: dict[str, dict[str, float]] = {}
        for step, scope, who, metric, value in run.metrics.select("step", "scope", "id", "metric", "value").iter_rows():
            metrics.setdefault(f"{step} {scope} {who}".strip(), {})[metric] = _rounded(value)
    return Result(files, metrics)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def stored() -> tuple[dict[str, str], dict[str, Result]]:
    """Return the stored environment and results."""
    data = json.loads(STORED.read_text(encoding="utf-8"))
    return data["environment"], {name: Result(**fields) for name, fields in data["scenarios"].items()}


def store(results: dict[str, Result]) -> None:
    """Write the environment and results, with one file or one (step, scope, id) a line."""
    scenarios = _lines(
        {name: _lines({"files": _lines(r.files), "metrics": _lines(r.metrics)}) for name, r in results.items()}
    )
    text = _lines({"environment": _lines(environment()), "scenarios": scenarios}) + "\n"
    STORED.write_text(text, encoding="utf-8")


def _lines(table: Mapping[str, Any]) -> str:
    """Return an object in JSON with an entry a line; strings that are objects already stay as they are."""
    texts = {key: value if str(value).startswith("{\n") else json.dumps(value) for key, value in table.items()}
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {text}" for key, text in texts.items()) + "\n}"


def changed(name: str, old: Result, new: Result, differences: list[str]) -> list[str]:
    """Return what differs, a sentence a line, the nearest to the cause first; nothing where the baseline holds.

    ``differences`` says how this environment differs from the stored one. Where it does not, every digit and every file
    counts; where it does, values may differ by the tolerance of the scenario, and files are not compared.
    """
    tolerance = TOLERANCES[name] if differences else EXACT
    before, now = old.values, new.values
    both = {**before, **now}
    values = [key for key in both if not _close(before.get(key), now.get(key), tolerance.relative)]
    named = {**old.files, **new.files}
    files = [] if differences else sorted((f for f in named if old.files.get(f) != new.files.get(f)), key=_order)
    absent = before.keys() != now.keys()
    if not files and not absent and len(values) <= tolerance.exceptions * len(both):
        return []
    lines = [f"{name}: the numbers are not those of the baseline."]
    if values:
        first = _described(values[0], before, now)
        lines.append(f"  first of {len(values)} metric values that differ, of {len(both)}: {first}")
    else:
        lines.append(f"  all {len(both)} metric values agree to {DIGITS} digits")
    if files:
        lines.append(f"  first of {len(files)} files that differ, of {len(named)}: {files[0]}")
        lines += [f"    {file}" for file in files[1:]]
    if differences:
        allowed = f"{tolerance.exceptions:.0%} of the values may differ by more than {tolerance.relative:g}"
        lines.append(f"  {allowed} in another environment: {'; '.join(differences)}")
    lines.append("  If the change is meant, store it with `python -m tests.baseline --renew` and say why.")
    return lines


def environment_differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return how an environment differs from the stored one."""
    return [f"{key} {old.get(key)} → {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)]


def _order(file: str) -> tuple[int, int, str]:
    table, _, name = file.partition("/")
    step = name.split(".")[0]
    return (int(step) if step.isdigit() else 0, TABLES.index(table) if table in TABLES else len(TABLES), file)


def _close(before: float | None, now: float | None, relative: float) -> bool:
    if before is None or now is None:
        return False
    return math.isclose(before, now, rel_tol=relative, abs_tol=relative)


def _described(
    key: tuple[str, str], before: Mapping[tuple[str, str], float], now: Mapping[tuple[str, str], float]
) -> str:
    row, metric = key
    step, _, who = row.partition(" ")
    there, here = _said(before.get(key)), _said(now.get(key))
    return f"metrics/{int(step):06d}.parquet, step {step}, {who}, {metric}: stored {there}, got {here}"


def _said(value: float | None) -> str:
    return "none" if value is None else f"{value:.{DIGITS}g}"
