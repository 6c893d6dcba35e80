"""How to cite a run: the root of the tree of its hashes, and an entry for BibTeX."""

from __future__ import annotations

import time

from ecosystem.formats import counted, visible
from ecosystem.input_files import digest_of
from ecosystem.runs.records import record_digest, record_files
from ecosystem.runs.run import Run

ROOTED = ("scenario.toml", "environment.json")  # files without a step that the root covers

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{character: f"\\{character}" for character in "&%$#_"},
}


def root(run: Run) -> str:
    """Return the Merkle root of a run, which changes with any file that its numbers are in or depend on.

    It is the SHA-256 of a record of three hashes: of the last commit record, which lists the hash of every file of its
    step and that of the record before it, of ``scenario.toml`` and of ``environment.json``. Reports and the site graph,
    which are drawn anew from the others, do not count. Raises StoreError if a record or file is damaged.
    """
    hashes = {name: digest_of(run.path / name) for name in ROOTED}
    return record_digest({"record": run.store.commits()[-1].digest, **hashes})


def bibtex(run: Run) -> str:
    """Return an entry for BibTeX, ``@misc``, that names the run, the release that computed it, and the root.

    The year is that in which the last step was committed. The entry has no author: that is whoever publishes the run.
    """
    scenario = run.scenario
    release = str(run.environment.get("packages", {}).get("ecosystem", ""))
    fields = {
        "title": f"{{{latex(scenario.name)}}}, seed {run.seed}: a run of ecosystem",
        "year": _year(run),
        "howpublished": latex(f"Simulation with ecosystem {release}".strip()),
        "version": latex(release),
        "abstract": latex(scenario.description),
        "note": f"{counted(run.last_step, 'step')}; scenario {scenario.fingerprint()}; "
        f"Merkle root of the run folder, SHA-256: {root(run)}",
    }
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    key = f"{scenario.name}-{scenario.fingerprint()}-{run.seed}"
    return ",\n".join([f"@misc{{{key}", *lines]) + "\n}\n"


def latex(text: str) -> str:
    """Return text as LaTeX shows it, on one line; braces are balanced whatever the text holds."""
    return "".join(_ESCAPED.get(character, character) for character in visible(" ".join(text.split())))


def _year(run: Run) -> str:
    """Return the year in which the file of the last record was written; "" if it has no date."""
    records = record_files(run.store.owning_store(run.last_step).folder)
    written = max((path.stat().st_mtime for path in records), default=0.0)
    return str(time.localtime(written).tm_year) if written else ""
