"""Where the report over the seeds of a scenario is, and the link to it from the report of each run."""

from __future__ import annotations

import os
from pathlib import Path

from markupsafe import Markup

from ecosystem.report.html import render
from ecosystem.runs.records import CHARTS, note_digests
from ecosystem.runs.run import Run

EMPTY = '<p class="seeds"></p>'  # in the page of a run that has no such report; texts in a page cannot contain it


def folder_over_seeds(scenario_folder: Path) -> Path:
    """Return the folder of the report over seeds: ``OUT/seeds/NAME-HASH`` for the runs in ``OUT/NAME-HASH``."""
    return scenario_folder.parent / "seeds" / scenario_folder.name


def link(run: Run) -> Markup:
    """Return a line with a link to the report over seeds, empty if there is none."""
    page = folder_over_seeds(run.path.resolve().parent) / "report.html"
    if not page.exists():
        return Markup(EMPTY)
    relative = Path(os.path.relpath(page, run.path.resolve())).as_posix()
    return Markup(render("run/seeds.html", address=relative).strip())


def add_link(run: Run) -> bool:
    """Put the link into the stored report of a run, if that has none yet; return whether it was added."""
    page = run.path / "report.html"
    try:
        content = page.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    added = link(run)
    if EMPTY not in content or added == EMPTY:
        return False
    new = content.replace(EMPTY, added, 1).encode()
    note_digests(run.path / CHARTS, {"../report.html": new})
    run.store.write("report.html", new)
    return True
