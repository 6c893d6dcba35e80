"""Total collapse: how many trainers it reached and when, and which symbol was left."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from ecosystem.report import figures, page
from ecosystem.report.book import Book
from ecosystem.report.findings import TOLD, bold, number, percent, plus_minus
from ecosystem.theory.extinction import time_to_collapse

REPLACING = ("diversity_replace", "surviving_types")  # laws that say that a population learns from its last texts alone
SYMBOLS = 8  # the likeliest ones, at most, that have a row of their own


@dataclass(frozen=True)
class Fate:
    """How many trainers of a population had collapsed by some step, and when.

    ``mean`` is that of the steps of collapse, with its standard error ``error``. Where some have not collapsed by the
    last step, these count as that step, and the mean is a lower bound; ``median`` is the step by which half had
    (Kaplan & Meier's, as all are watched equally long), None where fewer have. ``predicted`` is the closed form.
    """

    population: str
    trainers: int
    collapsed: int
    mean: float
    error: float | None
    median: float | None
    predicted: float | None

    @property
    def share(self) -> tuple[float, float]:
        """Return the share of trainers that had collapsed and its binomial standard error."""
        share = self.collapsed / self.trainers
        return share, math.sqrt(share * (1 - share) / self.trainers)


def fates(book: Book) -> list[Fate]:
    """Return the fate of every population in which somebody collapsed."""
    known = figures.members(book.metrics, "collapsed")
    times = figures.members(book.metrics, "collapsed_at").select("trainer", at="value")
    last = book.run.steps
    found = []
    for population in book.populations:
        trainers = known.filter(pl.col("population") == population).select("trainer").unique()
        at = trainers.join(times, on="trainer", how="left")["at"]
        steps = np.sort(at.fill_null(float(last)).to_numpy())
        collapsed, n = int(at.count()), len(steps)
        if not collapsed:
            continue
        half = math.ceil(n / 2)
        found.append(
            Fate(
                population=population,
                trainers=n,
                collapsed=collapsed,
                mean=float(steps.mean()),
                error=float(steps.std(ddof=1)) / math.sqrt(n) if n > 1 else None,
                median=float(steps[half - 1]) if collapsed >= half else None,
                predicted=_predicted(book, population),
            )
        )
    return found


def _predicted(book: Book, population: str) -> float | None:
    """Return the expected step of collapse where the scenario names a law of replacing and the truth is known."""
    p = book.truth.probabilities if book.truth is not None else None
    for one in book.run.scenario.theory:
        if p is not None and one.population == population and one.law in REPLACING:
            return time_to_collapse(p, one.parameters["n"]) - one.first
    return None


def findings(book: Book) -> list[str]:
    """Say who collapsed and when, with the closed form where there is one."""
    sentences = []
    for fate in fates(book)[:TOLD]:
        share, error = fate.share
        mean = plus_minus(fate.mean, fate.error, 1)
        if fate.collapsed == fate.trainers:
            who = f"all {fate.trainers} trainers" if fate.trainers > 1 else "the only trainer"
            told = f"{who} collapsed totally, at step {mean}" + (" on average" if fate.trainers > 1 else "")
        else:
            told = (
                f"{percent(share)} ± {number(100 * error, 1)} of the {fate.trainers} trainers had collapsed totally by "
                f"step {book.run.steps}; the mean step of collapse is at least {mean}"
            )
        law = f" (closed form for large samples: {number(fate.predicted, 1)})" if fate.predicted is not None else ""
        sentences.append(f"In {bold(fate.population)} {told}{law}.")
    return sentences


def tables(book: Book) -> str:
    """Return the tables of times to collapse and of the symbols that were left, as HTML; empty if nobody collapsed."""
    found = fates(book)
    if not found:
        return ""
    rows = []
    for fate in found:
        share, error = fate.share
        bound = "" if fate.collapsed == fate.trainers else "≥ "
        rows.append(
            [
                page.tinted(book.populations, fate.population),
                f"{fate.collapsed} of {fate.trainers}",
                f"{percent(share)} ± {number(100 * error, 1)}",
                bound + plus_minus(fate.mean, fate.error, 1),
                "–" if fate.median is None else number(fate.median, 0),
                "–" if fate.predicted is None else number(fate.predicted, 1),
            ]
        )
    head = [
        "population",
        "collapsed",
        "share",
        "mean step of collapse",
        "median",
        "closed form<small>large samples</small>",
    ]
    about = "Trainers in whose model nothing varied any more at some step up to the last."
    if any(fate.collapsed < fate.trainers for fate in found):
        about += " ≥: some had not collapsed; they count as the last step, so that the mean is a lower bound."
    body = f'<h3>Total collapse</h3><p class="note">{about}</p>{page.table(head, rows)}'
    return body + _fixations(book, found)


def fixations(book: Book, population: str) -> pl.DataFrame:
    """Return which symbol was left to the collapsed trainers: symbol, probability, count, expected, z.

    The likeliest symbols under the truth have rows of their own, all others one together (symbol null). Without
    selection each is left with its true probability (Seddik et al. 2024, Proposition 1), so that z is the difference in
    standard deviations of a binomial count.
    """
    assert book.truth is not None and book.truth.probabilities is not None
    p = book.truth.probabilities
    end = figures.members(book.metrics, "collapsed_at").filter(pl.col("population") == population)
    left = figures.members(book.metrics, "mode").join(end, on=["trainer", "step"], how="semi")["value"]
    counts = np.bincount(left.to_numpy().astype(np.int64), minlength=p.size)
    order = np.argsort(-p, kind="stable")
    own, rest = order[:SYMBOLS].tolist(), order[SYMBOLS:]
    rows = [(symbol, float(p[symbol]), int(counts[symbol])) for symbol in own]
    if rest.size:
        rows.append((None, float(p[rest].sum()), int(counts[rest].sum() + counts[p.size :].sum())))
    frame = pl.DataFrame(rows, schema={"symbol": pl.Int64, "probability": pl.Float64, "count": pl.Int64}, orient="row")
    expected = pl.col("probability") * left.len()
    spread = (expected * (1 - pl.col("probability"))).sqrt()
    return frame.with_columns(expected=expected, z=pl.when(spread > 0).then((pl.col("count") - expected) / spread))


def _fixations(book: Book, found: list[Fate]) -> str:
    if book.truth is None or book.truth.probabilities is None:
        return ""
    rows = []
    for fate in found:
        for symbol, p, count, expected, z in fixations(book, fate.population).iter_rows():
            told = "–" if z is None else f"{z:+.1f}".replace("-", "−")
            which = "all others" if symbol is None else str(symbol)
            rows.append(
                [
                    page.tinted(book.populations, fate.population),
                    which,
                    f"{p:.4f}",
                    str(count),
                    number(expected, 1),
                    told,
                ]
            )
    early = [fate.population for fate in found if fate.collapsed < fate.trainers]
    about = (
        "The symbol that was left to each collapsed trainer. Sampling alone leaves each with its true probability; z "
        "is the difference in standard deviations."
    )
    if early:
        about += (
            f" Not all have collapsed in {page.escape(', '.join(early))}: those that do so early favour likely symbols."
        )
    head = ["population", "symbol", "true probability", "left to", "expected", "z"]
    return f'<h3>What was left</h3><p class="note">{about}</p>{page.table(head, rows)}'
