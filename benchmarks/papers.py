"""Print the figures of docs/papers.md from a run: ``python -m benchmarks.papers RUN --step 1 --step 60``.

Every figure is rounded once, from the values that the run stores.
"""

from __future__ import annotations

from pathlib import Path

import click
import polars as pl

from ecosystem.formats import number
from ecosystem.report.data import RunReportData
from ecosystem.report.summaries import means, members
from ecosystem.runs.run import Run


def rows(run: Run, steps: tuple[int, ...], digits: int, complement: bool) -> list[str]:
    """Return a row of the table per closed form and step: population, metric, step, simulated, predicted.

    Without ``steps``, only the last one. ``complement``: of 1 minus the metric, as the sum of squared probabilities is
    of the Gini-Simpson index.
    """
    data = RunReportData.of(run)
    table: list[str] = []
    for population, metric in dict.fromkeys((law.population, law.metric) for law in run.scenario.theory):
        simulated = means(members(data.metrics, metric)).filter(pl.col("population") == population)
        predicted = data.laws(metric).filter(pl.col("population") == population)
        for step in steps or (run.last_step,):
            for value, error in simulated.filter(pl.col("step") == step).select("value", "error").iter_rows():
                at_step = predicted.filter(pl.col("step") == step)["value"]
                laws = ", ".join(number(1 - law if complement else law, digits) for law in at_step)
                name = f"1 - {metric}" if complement else metric
                found = number(1 - value if complement else value, digits)
                spread = "" if error is None else f" ± {number(error, digits)}"
                table.append(f"| {population} | {name} | {step} | {found}{spread} | {laws or '–'} |")
    return table


def domain_rows(run: Run, steps: tuple[int, ...], digits: int) -> list[str]:
    """Return a row per population and step: the loss on each domain that the scenario lists (``measure.domains``)."""
    parts = pl.col("id").str.split("/").list
    measured = run.metrics.filter(pl.col("scope") == "domain").with_columns(
        population=parts.first(), domain=parts.last()
    )
    means_of = measured.group_by("step", "population", "domain").agg(pl.col("value").mean())
    values = {row[:3]: row[3] for row in means_of.iter_rows()}
    names = run.scenario.measure.domains or []
    table = [f"| population | step | {' | '.join(names)} |"]
    for population in run.scenario.trainers:
        for step in steps or (run.last_step,):
            losses = [values.get((step, population, name)) for name in names]
            cells = ["–" if loss is None else number(loss, digits) for loss in losses]
            table.append(f"| {population} | {step} | {' | '.join(cells)} |")
    return table


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--step", "steps", type=click.IntRange(min=0), multiple=True, help="Steps to print; the last by default.")
@click.option("--digits", type=click.IntRange(min=0), default=3, show_default=True, help="Digits after the point.")
@click.option("--complement", is_flag=True, help="Print 1 minus the metric.")
@click.option("--domains", is_flag=True, help="Print the losses on domains instead.")
def main(run: Path, steps: tuple[int, ...], digits: int, complement: bool, domains: bool) -> None:
    """Print simulated and predicted values of RUN, a run folder, as rows of a table in Markdown."""
    opened = Run.open(run)
    for row in domain_rows(opened, steps, digits) if domains else rows(opened, steps, digits, complement):
        click.echo(row)


if __name__ == "__main__":
    main()
