"""Assembles the report of a run and writes it, with its charts, into the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from ecosystem import charts
from ecosystem.report import collapse, figures, findings, page
from ecosystem.report.book import Book
from ecosystem.report.drawings import called
from ecosystem.report.findings import number, percent, plus_minus
from ecosystem.report.page import escape
from ecosystem.report.sections import CONTENTS, sections
from ecosystem.runs import Run
from ecosystem.store import Store

# What the report hopes to find: what it is called → (scope, metric).
EXPECTED = {
    "quality on held-out human text": ("trainer", "cross_entropy"),
    "the randomly initialised and the unigram model": ("reference", "cross_entropy"),
    "contamination of the web": ("web", "synthetic_share"),
    "contamination of training sets": ("training_set", "synthetic_share"),
    "diversity": ("trainer", "distinct_2"),
    "the vocabulary that is kept": ("trainer", "vocabulary_kept_1"),
}
CARDS = 6  # populations, at most, that get a card of their own
LAWS = 12  # closed forms, at most, that do; the table of final figures has all


def write_report(run: Run) -> Path:
    """Write ``report.html`` and ``charts/<name>.svg`` and ``.png`` into the folder of a run; return the page's path.

    Works for an unfinished run too. Raise StoreError where the folder cannot be read or written.
    """
    book = Book.of(run)
    body = "".join([_header(book), *(section(book) for section in sections(book).values()), _footer(book)])
    return publish(run.store, f"{run.scenario.name}, seed {run.seed}", body, book.specs, len(book.look.populations))


def publish(store: Store, title: str, body: str, specs: dict[str, dict[str, Any]], populations: int) -> Path:
    """Write a page as ``report.html`` with a picture of each of its charts beside it; return the page's path."""
    for name, spec in specs.items():
        svg, png = charts.pictures(spec)
        store.write(f"charts/{name}.svg", svg)
        store.write(f"charts/{name}.png", png)
    for path in (store.folder / "charts").glob("*.*"):
        if path.stem not in specs:  # of a report on fewer steps
            path.unlink()
    store.write("report.html", page.page(title, body, specs, populations))
    return store.folder / "report.html"


def _header(book: Book) -> str:
    run, scenario, look = book.run, book.run.scenario, book.look
    trainers = sum(recipe.count for recipe in scenario.trainers.values())
    facts = {
        "steps": f"{run.steps} of {scenario.steps}" if run.steps < scenario.steps else str(run.steps),
        "seed": run.seed,
        "trainers": f"{trainers} in {len(scenario.trainers)} populations" if trainers else "none",
        "models": ", ".join(dict.fromkeys(book.models.values())) or "none",
        "sites": book.metrics.filter(pl.col("scope") == "site")["id"].n_unique() or None,
        "documents": f"{_last(figures.series(book.metrics, 'web', 'documents'), 'value'):,.0f} on the web at the end",
    }
    shown = "".join(f"<li>{name} <b>{escape(value)}</b></li>" for name, value in facts.items() if value is not None)
    state = findings.progress(run.steps, scenario.steps)
    sentences = [
        *findings.contamination(book.metrics, look.populations),
        *findings.agreement(book.agreements),
        *findings.quality(book.outcomes),
        *findings.diversity(book.metrics, look.populations),
        *collapse.findings(book),
        *findings.refusals(book.metrics),
    ]
    expected = EXPECTED if scenario.modality == "text" else {}
    notes = [s for s in (findings.missing(book.metrics, expected), findings.caution(book.outcomes)) if s]
    legend = "".join(
        f'<span class="{page.hue(book.populations, name)}"><i class="dot"></i>{escape(name)}</span>'
        for name in look.populations[:8]
    ) + (f"<span>and {len(look.populations) - 8} more</span>" if len(look.populations) > 8 else "")
    shown_here = {"findings", *sections(book)}
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title in CONTENTS.items() if key in shown_here)
    return (
        f"<header><h1>{escape(scenario.name)}</h1>"
        + (f'<p class="lead">{escape(scenario.description)}</p>' if scenario.description else "")
        + f'<ul class="facts">{shown}</ul></header>'
        f'<nav><div>{links}</div><div class="legend">{legend}</div></nav><main>'
        + (f'<p class="wait">{escape(state)}</p>' if state else "")
        + f'<h2 id="findings">Findings</h2>{_cards(book)}<p class="findings">{page.prose(" ".join(sentences))}</p>'
        + "".join(f'<p class="note">{page.prose(note)}</p>' for note in notes)
    )


def _last(frame: pl.DataFrame, column: str) -> float:
    return float(frame.sort("step")[column][-1]) if frame.height else 0


def _cards(book: Book) -> str:
    cards = []
    share = figures.series(book.metrics, "web", "synthetic_share")
    if share.height:
        first, last = share["value"][0], share["value"][-1]
        cards.append(
            f'<div class="card"><span>Synthetic share of the web</span><b>{percent(last)}</b>'
            f"<span>{percent(first)} at step {share['step'][0]}</span></div>"
        )
    cards += [
        f'<div class="card {page.hue(book.populations, one.population)}"><span>{escape(one.population)}, '
        f"{escape(called(one.metric))} at step {one.step}</span><b>{number(one.simulated, 3)}"
        + (f" <small>±\u00a0{one.error:.1g}</small>" if one.error else "")
        + f"</b><span>closed form {number(one.predicted, 3)}</span></div>"
        for one in book.agreements[:LAWS]
    ]
    told = [o for o in book.outcomes if o.last_step > o.first_step]
    if len(told) > CARDS:
        ranked = sorted(told, key=lambda o: o.change)
        told = [*ranked[:2], *ranked[-2:]]
    for o in told:
        change, known, error = plus_minus(o.change, o.error, sign=True).partition("\u00a0±")
        error = f" <small>{known}{error}</small>" if known else ""
        way = (
            f" · {percent(o.towards_random)} of the way to random"
            if o.towards_random and o.verdict == "degraded"
            else ""
        )
        way = " · no measurable change" if o.verdict == "unchanged" else way
        course = f"nats per token, {number(o.before)} → {number(o.after)}{way}"
        cards.append(
            f'<div class="card {page.hue(book.populations, o.population)}"><span>{escape(o.population)}</span>'
            f"<b>{change}{error}</b><span>{course}</span></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _footer(book: Book) -> str:
    versions = book.run.environment.get("packages", {})
    version = escape(versions.get("ecosystem", ""))
    return f"</main><footer>Written by ecosystem {version}. This page loads nothing from anywhere.</footer>"
