"""The tables of a report: final figures, counts, costs, and what is needed to reproduce the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from ecosystem.formats import number, percent
from ecosystem.metrics.tasks import TASKS
from ecosystem.report import summaries
from ecosystem.report.findings import plus_minus, share
from ecosystem.report.html import Cell, Cells, Column, Table, tinted
from ecosystem.report.summaries import Outcome
from ecosystem.runs.run import Run

# Metrics of the table of final figures: column heading and digits (None: a share, shown as a percentage).
FINAL: dict[str, tuple[Column, int | None]] = {
    "perplexity": (Column("perplexity"), 1),
    "bits_per_byte": (Column("bits per byte"), 3),
    "excess_nats": (Column("excess nats", "per document"), 2),
    "distinct_2": (Column("distinct 2-grams"), 3),
    "self_bleu": (Column("self-BLEU"), 3),
    "entropy": (Column("entropy", "nats per word"), 2),
    "vocabulary_kept_10": (Column("rarest decile kept"), None),
    **{
        f"{metric}_{task}": (Column(task.replace("_", " "), condition), None)
        for metric, condition in (("accuracy", "accuracy, fine-tuned"), ("zero_shot", "accuracy, zero-shot"))
        for task in TASKS.all()
    },
}
COSTS = {
    "tokens_trained": Column("tokens trained"),
    "documents_trained": Column("documents trained"),
    "tokens_generated": Column("tokens generated"),
    "tokens_published": Column("tokens published"),
    "documents_generated": Column("documents generated"),
    "flops": Column("operations", "floating-point"),
    "human_documents": Column("human documents", "written or bought"),
    "documents_injected": Column("documents injected"),
    "reviews": Column("documents reviewed"),
    "spent": Column("spent"),
}


def final_table(metrics: pl.DataFrame, outcomes: Sequence[Outcome], populations: list[str]) -> Table:
    """Return the table of final figures, with a row for each population and each reference."""
    by_population = {outcome.population: outcome for outcome in outcomes}
    values = {m: summaries.members(metrics, m) for m in ("cross_entropy", *FINAL)}
    measured = [m for m in FINAL if not values[m].is_empty()]
    final = {m: summaries.means(values[m]) for m in ("cross_entropy", *measured)}
    references = {m: summaries.references(metrics, m) for m in ("cross_entropy", *measured)}
    trained = {m: summaries.means(summaries.members(metrics, m, "training_set")) for m in ("synthetic_share", "depth")}
    head = [
        Column("population"),
        Column("cross-entropy", "nats per token"),
        Column("since the start", "nats per token"),
        Column("towards random"),
        *(FINAL[m][0] for m in measured),
        Column("synthetic share", "of the training set"),
        Column("depth", "of the training set"),
    ]
    rows: list[Cells] = []
    for population in populations:
        rows.append([tinted(populations, population), *_quality(final["cross_entropy"], by_population.get(population))])
        rows[-1] += [_estimate(summaries.at(final[m], population), FINAL[m][1]) for m in measured]
        rows[-1] += [_estimate(summaries.at(trained["synthetic_share"], population), None)]
        rows[-1] += [_estimate(summaries.at(trained["depth"], population), 2)]
    for kind in ("initial", "unigram", "random", "human", "chance"):
        rows += _reference_rows(references, kind)
    return Table(head, [row + ["–"] * (len(head) - len(row)) for row in rows])


def _quality(levels: pl.DataFrame, outcome: Outcome | None) -> list[str]:
    """Format cross-entropy, its change, and the share of the distance to random weights."""
    if outcome is None:
        return ["–", "–", "–"]
    level = summaries.at(levels, outcome.population)
    change = plus_minus(outcome.change, outcome.error, 3, sign=True)
    towards = outcome.towards_random
    return [
        plus_minus(outcome.after, level[1] if level else None, 3),
        change if outcome.last_step > outcome.first_step else "–",
        percent(towards) if towards and towards > 0 else "–",
    ]


def _reference_rows(references: Mapping[str, pl.DataFrame], kind: str) -> list[Cells]:
    """Return a row for each reference of a kind; ``references``: metric → table, cross-entropy first."""
    values = {m: frame.filter(pl.col("kind") == kind) for m, frame in references.items()}
    labels = list(dict.fromkeys(label for frame in values.values() for label in frame["label"]))
    rows: list[Cells] = []
    for label in labels:
        cells = []
        for m, frame in values.items():
            row = frame.filter(pl.col("label") == label)
            estimate = None if row.is_empty() else (row["value"][0], row["error"][0], 0)
            cells.append(_estimate(estimate, 3 if m == "cross_entropy" else FINAL[m][1]))
        rows.append([Cell(label, soft=True), cells[0], "", "", *cells[1:], "", ""])
    return rows


def _estimate(estimate: tuple[float, float | None, int] | None, digits: int | None) -> str:
    if estimate is None:
        return "–"
    value, error, _ = estimate
    if digits is None:
        return share(value, error)
    return plus_minus(value, error, digits)


def counts_table(rates: pl.DataFrame, names: tuple[str, str, str]) -> Table:
    """Return the counts behind a chart of rates; ``names``: headings of the rows, of flagged and of all documents."""
    row_name, flagged_name, total_name = names
    groups = [Column(origin, name) for origin in summaries.ORIGINS for name in (flagged_name, total_name, "rate")]
    rows = []
    for row in rates["row"].unique(maintain_order=True):
        cells = [row]
        for origin in summaries.ORIGINS:
            counted = rates.filter((pl.col("row") == row) & (pl.col("origin") == origin))
            if counted.is_empty():
                cells += ["0", "0", "–"]
            else:
                flagged, total, rate, error = counted.select("flagged", "total", "rate", "error").row(0)
                cells += [f"{flagged:,.0f}", f"{total:,.0f}", share(rate, error)]
        rows.append(cells)
    return Table([Column(row_name), *groups], rows)


def costs(run: Run) -> Table | None:
    """Return the costs of each population and adder over all steps; None if there are none."""
    spent = run.costs(total=True).with_columns(
        who=pl.when(pl.col("id").str.starts_with("policies/"))
        .then("id")
        .otherwise(pl.col("id").str.split("/").list.head(2).list.join("/"))
    )
    totals = {
        (who, metric): value for who, metric, value in spent.group_by("who", "metric").agg(pl.col("value").sum()).rows()
    }
    shown = [metric for metric in COSTS if any(value for (_, kind), value in totals.items() if kind == metric)]
    rows = [
        [who, *(_amount(metric, totals.get((who, metric))) for metric in shown)]
        for who in spent["who"].unique(maintain_order=True)
    ]
    return Table([Column("population or policy"), *(COSTS[metric] for metric in shown)], rows) if shown else None


def _amount(metric: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if metric == "flops" else number(value, 2 if metric == "spent" else 0)


def command(run: Run) -> str:
    """Return the command that reproduces a run from its folder."""
    device, threads = run.environment.get("device", "cpu"), run.environment.get("threads")
    return f"ecosystem run scenario.toml --device {device}" + (f" --threads {threads}" if threads else "")


def reproduction(run: Run) -> dict[str, object]:
    """Return what the numbers of a run depend on besides its scenario and versions: machine, resumes and branch."""
    environment, fork = run.environment, run.store.fork
    resumed = [f"after {_step(run, resume.get('after_step'))}" for resume in environment.get("resumed", [])]
    threads = environment.get("threads")
    return {
        "Seed": environment.get("seed", "?"),
        "Device": environment.get("device_name", environment.get("device", "cpu")),
        "Compute threads": threads if threads is not None else "?",
        "Platform": environment.get("platform", "?"),
        "Resumed": ", ".join(resumed) or "never",
        **(
            {}
            if fork is None
            else {"Branch": f"of {fork.parent} after {_step(run, fork.step)}; earlier steps are read from that folder"}
        ),
        "Time": f"{run.seconds:,.0f} s for {run.last_step} steps and the opening",
        "Fingerprint": run.scenario.fingerprint(),
    }


def _step(run: Run, step: object) -> str:
    return run.scenario.step_name(step) if isinstance(step, int) else f"step {step}"
