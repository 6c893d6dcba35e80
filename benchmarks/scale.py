"""How time and memory grow with the number of documents on the web: ``python -m benchmarks --scale``.

Every size is measured in a process of its own: time and peak memory of the opening, and of the steps after it. Thirty
trigram models scrape 1,000 documents each; people publish 1,000 documents of 40 words per step, and models 3,000. With
``near_duplicates``, the publish gate removes near-duplicates.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCENARIO = """
name = "scale"
steps = 3
[sources.language]
kind = "process"
mean_words = 40.0
held_out = 200
[web]
kind = "barabasi_albert"
sites = 1000
degree = 3
initial = {{ source = "language", documents = {documents} }}
publish = [{publish}]
[policies.near_duplicates]
kind = "minhash_dedup"
[models.trigram]
preset = "trigram"
[writers.people]
count = 10
source = "language"
rate = 100.0
[trainers.labs]
count = 30
model = "trigram"
scrape = {{ docs = 1000 }}
publish = 100
"""
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
TARGETS = {1_000_000: (90.0, 1.5), 10_000_000: (1200.0, 4.0)}
"""Documents → seconds of the opening and peak memory in GB."""
DEDUPLICATED_GB = 6.0  # target of the peak with near-duplicates removed, at ten million documents


def measure(sizes: Sequence[int] = SIZES, *, near_duplicates: bool = False) -> list[dict[str, Any]]:
    """Return, per number of initial documents, seconds and peak memory (GB) of the opening and of the steps."""
    call = [sys.executable, "-m", "benchmarks.scale"]
    rows = []
    for size in sizes:
        options = ["near_duplicates"] if near_duplicates else []
        done = subprocess.run([*call, str(size), *options], capture_output=True, text=True)
        if done.returncode:
            rows.append(
                {"documents": size, "error": (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]}
            )
        else:
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as a table in Markdown, with the targets."""
    lines = [
        "| documents | opening, s | peak, GB | step, s | peak with steps, GB | targets |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds, memory = TARGETS.get(row["documents"], (None, None))
        if row.get("near_duplicates"):
            seconds, memory = (None, None) if row["documents"] < SIZES[-1] else (seconds, DEDUPLICATED_GB)
        target = "" if seconds is None else f"{seconds:,.0f} s, {memory} GB"
        keys = ("opening", "opening_gb", "step", "peak_gb")
        figures = [row["error"], "", "", ""] if "error" in row else [f"{row[key]:,.3g}" for key in keys]
        lines.append(f"| {row['documents']:,} | {' | '.join(figures)} | {target} |")
    return "\n".join(lines)


def chart(rows: list[dict[str, Any]]) -> bytes:
    """Return a picture (SVG) of seconds and peak memory over the number of documents, on logarithmic axes."""
    import altair as alt

    from ecosystem.report.charts.export import pictures, specification

    panels = []
    for title, lines in (
        ("seconds", {"opening": "opening", "step": "step"}),
        ("peak memory, GB", {"opening": "opening_gb", "with steps": "peak_gb"}),
    ):
        points = [
            {"documents": row["documents"], "value": row[key], "of": line}
            for row in rows
            for line, key in lines.items()
            if "error" not in row
        ]
        panels.append(
            alt.Chart(alt.Data(values=points), width=300, height=240)
            .mark_line(point=True)
            .encode(
                x=alt.X("documents:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format="~s"), title="documents"),
                y=alt.Y("value:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format="~g"), title=title),
                color=alt.Color("of:N", title=None, sort=list(lines)),
            )
        )
    picture = alt.hconcat(*panels).resolve_scale(color="independent")
    return pictures(specification(picture))[0]


def _measure_here(documents: int, *, near_duplicates: bool) -> dict[str, Any]:
    """Open a web and make its steps in this process; return the figures."""
    from ecosystem.runs.environment import Machine
    from ecosystem.runs.execute import begin
    from ecosystem.scenario.scenario import Scenario

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scale.toml"
        file.write_text(SCENARIO.format(documents=documents, publish='"near_duplicates"' if near_duplicates else ""))
        scenario = Scenario.load(file)
        times, memory, began = [], [], time.perf_counter()
        for _ in begin(scenario, out=folder, machine=Machine("cpu", 2), cache=folder):
            times.append(time.perf_counter() - began)
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
            began = time.perf_counter()
    return {
        "documents": documents,
        "near_duplicates": near_duplicates,
        "opening": times[0],
        "opening_gb": memory[0],
        "step": statistics.median(times[1:]),
        "peak_gb": memory[-1],
    }


if __name__ == "__main__":
    print(json.dumps(_measure_here(int(sys.argv[1]), near_duplicates="near_duplicates" in sys.argv)))
