"""Documents and lineages of a run as text for the terminal, which the text of models cannot control."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from ecosystem.errors import EcosystemError, nearest
from ecosystem.formats import percent, visible
from ecosystem.runs.run import Run

EXCERPT = 400  # characters of a document printed above its lineage


def published(run: Run, step: int | None, author: str | None, limit: int) -> str:
    """Return up to ``limit`` documents published at a step (default: the last), by one author or population if given.

    Raises EcosystemError if the run has no such step, or the author published nothing at it.
    """
    documents, name = run.documents.collect(), run.scenario.step_name
    step = run.last_step if step is None else step
    if not 0 <= step <= run.last_step:
        dated = f" ({run.calendar.span(0, run.last_step)})" if run.calendar is not None else ""
        raise EcosystemError(f"--step {name(step)}: this run has steps 0 to {run.last_step}{dated}.")
    chosen = documents.filter(pl.col("t") == step)
    if author is not None:
        chosen = chosen.filter((pl.col("author") == author) | pl.col("author").str.starts_with(author + "/"))
        if chosen.is_empty():
            authors = documents["author"].unique().sort().to_list()
            names = sorted({*authors, *(a.rsplit("/", 1)[0] for a in authors)})
            hint = nearest(author, [name for name in names if name != author])
            raise EcosystemError(
                f'--author "{author}" published nothing at {name(step)}{hint}; authors: {", ".join(names)}.'
            )
    lines = [f"{chosen.height} documents at {name(step)}" + (f", the first {limit}:" if chosen.height > limit else ":")]
    for row in chosen.head(limit).iter_rows(named=True):
        lines += ["", _heading(row, run), _content(row["content"])]
    return "\n".join(lines)


def traced(run: Run, document: int, step: int | None, *, as_json: bool) -> str:
    """Return the beginning of a document and its lineage, or the lineage as JSON; ``step`` selects fits."""
    lineage = run.lineage(document)
    if as_json:
        return json.dumps(lineage.plain(step), indent=2)
    text = lineage.text(step, run.calendar).replace("\u00a0", " ")  # some terminals cannot print it
    row = run.documents.filter(pl.col("doc") == document).collect().row(0, named=True)
    content = _content(row["content"])
    excerpt = content if len(content) <= EXCERPT else f"{content[:EXCERPT]}…"
    return "\n".join([_heading(row, run), excerpt, "", visible(text)])


def _heading(row: dict[str, Any], run: Run) -> str:
    """Return a line with the id, author, site and origin of a document, and when it left the web."""
    removal = f", refused by {row['verdict']} ({row['reason']})" if row["verdict"] else ""
    removal += f", retired at {run.scenario.step_name(row['retired_at'])}" if row["retired_at"] is not None else ""
    removal += f" ({row['left_by']})" if row.get("left_by") is not None else ""
    human = "human" + (f", {percent(row['depth'])} of it by a model" if row["depth"] else "")
    kind = f"synthetic, depth {row['depth']:.2f}" if row["synthetic"] else human
    return visible(f"[{row['doc']}] {row['author']} on site {row['site']}: {kind}{removal}")


def _content(content: Any) -> str:
    """Return the printable form of a text, vector or category."""
    if isinstance(content, str):
        return visible(content)
    return " ".join(f"{number:.4g}" for number in content) if isinstance(content, list) else str(content)
