"""The list of stored runs with their disk use."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ecosystem.formats import counted, format_bytes
from ecosystem.runs.files import require_local_path
from ecosystem.runs.space import stored_runs


def runs_listing(out: Path, as_json: bool) -> str:
    """Return the runs below a folder, with their state and sizes, as text or JSON."""
    runs = stored_runs(require_local_path(out))
    if as_json:
        return json.dumps([{**asdict(run), "folder": str(run.folder), "state": run.state} for run in runs], indent=1)
    width = max((len(str(run.folder)) for run in runs), default=0)
    lines = [
        f"{run.folder!s:{width}}  {run.state:14}  {format_bytes(run.size):>9}, {format_bytes(run.weights)} of it models"
        for run in runs
    ]
    total = f"{counted(len(runs), 'run')}, {format_bytes(sum(run.size for run in runs))}"
    return "\n".join([*lines, f"{total} (ecosystem prune deletes what is no longer needed)"])
