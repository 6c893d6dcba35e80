"""What a report shows besides charts: sample texts, tables, events and how to reproduce the run; all as HTML."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl

from ecosystem.metrics.tasks import TASKS
from ecosystem.report import figures
from ecosystem.report.figures import Outcome
from ecosystem.report.findings import plus_minus
from ecosystem.report.page import escape, hue, table, tinted
from ecosystem.runs.formats import number, percent
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario

CLIP, LONGEST = 420, 6000  # characters shown at first, and at all
OPEN_POPULATIONS = 8  # whose texts are open; those of the rest unfold
EACH = 2  # texts in a cell
IMAGES, IN_A_ROW = 10, 5  # images in a cell, and side by side
PIXEL = 6  # side on the page, in CSS pixels, of one pixel of an image
NUMBERS = 8  # numbers of a vector that is no image

# Column of the table of final figures → digits; shares are marked by None and shown as percentages.
FINAL: dict[str, tuple[str, int | None]] = {
    "perplexity": ("perplexity", 1),
    "bits_per_byte": ("bits per byte", 3),
    "excess_nats": ("excess nats<small>a document</small>", 2),
    "distinct_2": ("distinct-2", 3),
    "self_bleu": ("self-BLEU", 3),
    "entropy": ("entropy<small>nats a word</small>", 2),
    "vocabulary_kept_10": ("rarest decile kept", None),
    **{
        f"{name}_{kind}": (f"{kind.replace('_', ' ')}<small>{how}</small>", None)
        for name, how in (("accuracy", "accuracy, fine-tuned"), ("zero_shot", "accuracy, zero-shot"))
        for kind in TASKS.all()
    },
}


def chosen_steps(last: int) -> list[int]:
    """Return the first, middle and last step after the opening, without repetition."""
    return sorted({1, (1 + last) // 2, last} - {0}) if last >= 1 else []


def samples(run: Run, populations: list[str], trainers: Sequence[str]) -> str:
    """Return sample texts of every population at the first, middle and last step, after human ones of step 0."""
    opening = run.store.table("corpus", range(1))
    shape = image_shape(run.scenario, opening["content"].dtype)
    human = opening.filter(~pl.col("synthetic")).head(3 if shape is None else IMAGES)
    shown = [human] if shape else [human[i : i + 1] for i in range(human.height)]
    title = "Human text" if run.scenario.modality == "text" else "Real images" if shape else "Real documents"
    parts = [
        f'<div class="row"><h3>{title} the web began with</h3>',
        f'<div class="cells">{"".join(f"<div>{_documents(rows, shape)}</div>" for rows in shown)}</div></div>'
        if human.height
        else '<p class="empty">The web opened empty.</p></div>',
    ]
    steps = chosen_steps(run.steps)
    segments = {step: run.store.table("corpus", range(step, step + 1)) for step in steps}
    rows = []
    for population in populations:
        authors = [name for name in trainers if name.rsplit("/", 1)[0] == population]
        cells = "".join(_cell(segments[step], step, authors, shape) for step in steps)
        colour = hue(populations, population)
        rows.append(
            f'<div class="row {colour}"><h3><span class="dot"></span>{escape(population)}</h3>'
            f'<div class="cells">{cells}</div></div>'
        )
    if not steps:
        return "".join(parts) + '<p class="empty">No model has published yet.</p>'
    parts += rows[:OPEN_POPULATIONS]
    if rest := rows[OPEN_POPULATIONS:]:
        parts.append(f'<details class="block"><summary>{len(rest)} more populations</summary>{"".join(rest)}</details>')
    return "".join(parts)


def _cell(segment: pl.DataFrame, step: int, authors: Sequence[str], shape: tuple[int, int] | None) -> str:
    """Return what a population published at a step: the first text of each of its first members, nothing picked."""
    mine = segment.filter(pl.col("author").is_in(list(authors)))
    turn = pl.int_range(pl.len()).over("author")
    first = mine.with_columns(turn=turn).sort("turn", maintain_order=True).head(EACH if shape is None else IMAGES)
    body = _documents(first, shape)
    return f"<div><h4>Step {step}</h4>{body or '<p class=empty>Nothing published at this step.</p>'}</div>"


def image_shape(scenario: Scenario, content: pl.DataType) -> tuple[int, int] | None:
    """Return (height, width) of the documents if they are images, else None.

    Images from files whose scenario does not say their size are taken for squares.
    """
    initial = scenario.web.initial
    source = scenario.sources[initial.source] if initial is not None else None
    shape = getattr(source, "image_shape", None)
    length = content.size if isinstance(content, pl.Array) else 0
    if getattr(source, "kind", "") == "images":
        shape = getattr(source, "size", None) or [math.isqrt(length)] * 2
    return (int(shape[0]), int(shape[1])) if shape is not None and length == shape[0] * shape[1] > 0 else None


def _documents(rows: pl.DataFrame, shape: tuple[int, int] | None) -> str:
    """Return documents: images side by side in one frame, anything else one below the other."""
    documents = list(rows.iter_rows(named=True))
    if shape is None or not documents:
        return "".join(_text(row) for row in documents)
    authors = list(dict.fromkeys(escape(row["author"]) for row in documents))
    about = ", ".join(authors) if len(authors) < 4 else f"{len(authors)} trainers"
    about += f" · {len(documents)} images"
    if documents[0]["synthetic"]:
        about += f" · depth {number(float(str(rows['depth'].mean())), 1)}"
    refused = sum(bool(row["verdict"]) for row in documents)
    about += f" · {refused} of them refused" if refused else ""
    strip = "".join(_image(row, shape) for row in documents)
    style = f"display:grid;grid-template-columns:repeat({IN_A_ROW},minmax(0,{PIXEL * shape[1]}px));gap:{PIXEL}px"
    return f'<div class="text"><div style="{style}">{strip}</div><div class="about">{about}</div></div>'


def _image(row: dict[str, Any], shape: tuple[int, int]) -> str:
    says = f"document {row['doc']} by {row['author']}, an image of {shape[0]} by {shape[1]} grey values"
    says += f", refused by {row['verdict']}" if row["verdict"] else ""
    style = "width:100%;image-rendering:pixelated"
    return f'<img src="{picture(row["content"], shape)}" alt="{escape(says)}" title="{escape(says)}" style="{style}">'


def picture(content: object, shape: tuple[int, int]) -> str:
    """Return a vector of grey values (0: black, 1: white) as the address of a picture; what is beyond is cut off."""
    from PIL import Image

    grey = np.round(np.clip(np.nan_to_num(np.asarray(content, np.float64)), 0, 1) * 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(grey.reshape(shape)).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def readable(content: object) -> str:
    """Return a document as text; of a vector its first numbers, rounded."""
    if isinstance(content, list):
        more = f", … ({len(content)} numbers)" if len(content) > NUMBERS else ""
        return ", ".join(f"{value:.3g}" for value in content[:NUMBERS]) + more
    return "" if content is None else str(content)


def _text(row: dict[str, object]) -> str:
    """Return one document, folded where it is long."""
    text = readable(row["content"])
    about = f"{escape(row['author'])} · document {row['doc']}"
    about += f" · {row['words']} words" if isinstance(row["content"], str | None) else ""
    if row["synthetic"]:
        about += f" · depth {number(float(str(row['depth'])), 1)}"
    if row["verdict"]:
        about += f" · refused by {escape(row['verdict'])}"
    if not text.strip():
        body = '<p class="empty">An empty document.</p>'
    elif len(text) <= CLIP and text.count("\n") < 10:
        body = f'<div class="words" dir="auto">{escape(text)}</div>'
    else:
        cut = f"\n… and {len(text) - LONGEST:,} characters more" if len(text) > LONGEST else ""
        body = (
            f'<details><summary><div class="words clip" dir="auto">{escape(text[:CLIP])}…</div>'
            f'<span class="more">all {len(text):,} characters</span></summary>'
            f'<div class="words" dir="auto">{escape(text[:LONGEST] + cut)}</div></details>'
        )
    return f'<div class="text">{body}<div class="about">{about}</div></div>'


def final_table(metrics: pl.DataFrame, outcomes: Sequence[Outcome], populations: list[str]) -> str:
    """Return the table of final figures, a row for every population and one for each reference."""
    fates = {o.population: o for o in outcomes}
    there = [m for m in FINAL if not figures.members(metrics, m).is_empty()]
    final = {m: figures.means(figures.members(metrics, m)) for m in there}
    trained = {m: figures.means(figures.members(metrics, m, "training_set")) for m in ("synthetic_share", "depth")}
    head = ["population", "cross-entropy<small>nats per token</small>", "since the start<small>nats per token</small>"]
    head += ["towards random"] + [FINAL[m][0] for m in there]
    head += ["synthetic share<small>of the training set</small>", "depth<small>of the training set</small>"]
    rows = []
    for population in populations:
        o = fates.get(population)
        name = tinted(populations, population)
        if o is None:
            rows.append([name, "–", "–", "–"])
        else:
            level = figures.at(figures.means(figures.members(metrics, "cross_entropy")), population)
            change = plus_minus(o.change, o.error, 3, sign=True)
            rows.append([name, plus_minus(o.after, level[1] if level else None, 3)])
            rows[-1] += [change if o.last_step > o.first_step else "–"]
            rows[-1] += [percent(o.towards_random) if o.towards_random and o.towards_random > 0 else "–"]
        rows[-1] += [_estimate(figures.at(final[m], population), FINAL[m][1]) for m in there]
        rows[-1] += [_estimate(figures.at(trained["synthetic_share"], population), None)]
        rows[-1] += [_estimate(figures.at(trained["depth"], population), 2)]
    for kind in ("initial", "unigram", "random", "human", "chance"):
        rows += _reference_rows(metrics, kind, there)
    width = len(head)
    return table(head, [row + ["–"] * (width - len(row)) for row in rows])


def _reference_rows(metrics: pl.DataFrame, kind: str, there: Sequence[str]) -> list[list[str]]:
    values = {m: figures.references(metrics, m).filter(pl.col("kind") == kind) for m in ("cross_entropy", *there)}
    labels = list(dict.fromkeys(label for frame in values.values() for label in frame["label"]))
    rows = []
    for label in labels:
        cells = []
        for m, frame in values.items():
            row = frame.filter(pl.col("label") == label)
            found = None if row.is_empty() else (row["value"][0], row["error"][0], 0)
            cells.append(_estimate(found, 3 if m == "cross_entropy" else FINAL[m][1]))
        rows.append([f'<span class="soft">{escape(label)}</span>', cells[0], "", "", *cells[1:], "", ""])
    return rows


def _estimate(found: tuple[float, float | None, int] | None, digits: int | None) -> str:
    if found is None:
        return "–"
    value, error, _ = found
    if digits is None:
        return percent(value) + ("" if error is None else f" ± {number(100 * error, 1)}")
    return plus_minus(value, error, digits)


def counts_table(rates: pl.DataFrame, names: tuple[str, str, str]) -> str:
    """Return counts behind a chart of rates; ``names``: of its rows, of what was flagged, and of all."""
    row_name, flagged_name, total_name = names
    head = [row_name] + [
        f"{o}<small>{what}</small>" for o in figures.ORIGINS for what in (flagged_name, total_name, "rate")
    ]
    rows = []
    for row in rates["row"].unique(maintain_order=True):
        cells = [escape(row)]
        for origin in figures.ORIGINS:
            found = rates.filter((pl.col("row") == row) & (pl.col("origin") == origin))
            if found.is_empty():
                cells += ["0", "0", "–"]
            else:
                flagged, total, rate, error = found.select("flagged", "total", "rate", "error").row(0)
                cells += [f"{flagged:,.0f}", f"{total:,.0f}", f"{percent(rate)} ± {number(100 * error, 1)}"]
        rows.append(cells)
    return f'<details class="block"><summary>The counts</summary>{table(head, rows)}</details>'


def events(found: Sequence[tuple[int, str]]) -> str:
    """Return what was worth telling, step by step."""
    if not found:
        return '<p class="empty">Nothing out of the ordinary was recorded.</p>'
    items = "".join(f"<li><b>Step {step}:</b> {escape(text)}</li>" for step, text in found[:200])
    rest = f"<li>… and {len(found) - 200:,} more</li>" if len(found) > 200 else ""
    return f'<ul class="events">{items}{rest}</ul>'


def _source(name: str, known: dict[str, Any]) -> str:
    size = known.get("size")
    documents = "endless" if size is None else f"{size:,} documents"
    return f"{name} ({documents}, {str(known.get('digest', ''))[:16]})"


COSTS = {
    "tokens_trained": "tokens trained",
    "documents_trained": "documents trained",
    "tokens_generated": "tokens generated",
    "tokens_published": "tokens published",
    "documents_generated": "documents generated",
    "flops": "operations<small>floating-point</small>",
    "human_documents": "by people<small>documents, written or bought</small>",
    "documents_injected": "injected<small>documents</small>",
    "reviews": "reviews<small>documents</small>",
    "spent": "spent",
}


def costs(run: Run) -> str:
    """Return what each population and adder spent over all steps, and the wall time."""
    spent = run.costs(total=True).with_columns(
        who=pl.when(pl.col("id").str.starts_with("policies/"))
        .then("id")
        .otherwise(pl.col("id").str.split("/").list.head(2).list.join("/"))
    )
    totals = {
        (who, metric): value for who, metric, value in spent.group_by("who", "metric").agg(pl.col("value").sum()).rows()
    }
    shown = [metric for metric in COSTS if any(value for (_, known), value in totals.items() if known == metric)]
    rows = [
        [escape(who), *(_amount(metric, totals.get((who, metric))) for metric in shown)]
        for who in spent["who"].unique(maintain_order=True)
    ]
    told = f'<p class="note">All steps together, {run.seconds:,.0f} s of wall time with the opening and measuring.</p>'
    return told + (table(["who", *(COSTS[metric] for metric in shown)], rows) if shown else "")


def _amount(metric: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if metric == "flops" else number(value, 2 if metric == "spent" else 0)


def reproduction(run: Run) -> str:
    """Return how to get the same numbers again: command, machine, versions, sources and resolved scenario."""
    known = run.environment
    device, threads = str(known.get("device", "cpu")), known.get("threads")
    command = f"ecosystem run scenario.toml --device {device}" + (f" --threads {threads}" if threads else "")
    packages = ", ".join(f"{name} {version}" for name, version in dict(known.get("packages", {})).items())
    sources = "; ".join(_source(name, source) for name, source in dict(known.get("sources", {})).items())
    fork = run.store.fork
    facts = {
        "Seed": known.get("seed", "?"),
        "Device": known.get("device_name", device),
        "Compute threads": threads if threads is not None else "?",
        "Python": known.get("python", "?"),
        "Platform": known.get("platform", "?"),
        "Packages": packages or "?",
        "Sources": sources or "none",
        "Resumed": ", ".join(f"after step {r.get('after_step')}" for r in known.get("resumed", [])) or "never",
        **({} if fork is None else {"Branch": f"of {fork.parent} after step {fork.step}, whose history is read there"}),
        "Time": f"{run.seconds:,.0f} s for {run.steps} steps and the opening",
        "Fingerprint": run.scenario.fingerprint(),
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    scenario = (run.path / "scenario.toml").read_text(encoding="utf-8")
    return (
        "<p>In this run's folder, whose <code>scenario.toml</code> holds the resolved scenario with its seed:</p>"
        f"<pre>{escape(command)}</pre>"
        '<p class="note">With the same versions, device and number of threads a CPU gives the same numbers bit for '
        "bit; with others the same draws, and numbers within tolerance.</p>"
        f"<dl>{listed}</dl>"
        f'<details class="block"><summary>The resolved scenario</summary><pre>{escape(scenario)}</pre></details>'
    )
