"""``ecosystem audit``: apply a policy to the documents of a stored run and compare its verdicts with the truth.

Nothing is run and nothing is written to the run's folder. The web is restored as it was after a step, the policy is
applied to its documents at a gate, and the gate's verdicts are counted by true origin, depth and author.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ecosystem.errors import EcosystemError, ScenarioError, nearest
from ecosystem.families.base import Progress, silent
from ecosystem.metrics.estimates import error_of_mean, wilson_interval
from ecosystem.metrics.tables import with_dates
from ecosystem.policies.base import Adder, Filter, Policy, Weigher, gate
from ecosystem.runs.execute import restore_world, verify_inputs
from ecosystem.runs.files import io_errors
from ecosystem.runs.run import Run
from ecosystem.scenario.extending import read_file

if TYPE_CHECKING:
    from ecosystem.simulation.world import World

COLUMNS: dict[str, pl.DataType] = {
    "policy": pl.String(),
    "kind": pl.String(),
    "step": pl.Int32(),
    "by": pl.String(),  # all, origin, depth or author; source for added documents
    "group": pl.String(),
    "measure": pl.String(),  # a key of MEASURES
    "value": pl.Float64(),
    "error": pl.Float64(),  # standard error; null for plain counts and ratios
    "low": pl.Float64(),  # 95 % interval of a share (Wilson 1927)
    "high": pl.Float64(),
}
MEASURES = {
    "documents": "documents",
    "share": "share before",  # of all documents
    "share_after": "share after",  # of the total weight of documents that pass the gate
    "survival": "kept",  # share of the group's documents that are kept
    "recall": "recall",  # share of the group's synthetic documents that are refused
    "false_positive_rate": "human refused",  # share of the group's human documents that are refused
    "precision": "precision",  # share of the refused documents that are synthetic
    "mean_weight": "mean weight",  # factor of a weigher
}
ONE_SIGMA = math.erf(math.sqrt(0.5))  # coverage of an interval of plus or minus one standard deviation


def audit(
    run: Run,
    names: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    *,
    step: int | None = None,
    everything: bool = False,
    reader: str = "web",
    cache: str | Path | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """Apply policies, each by itself, to the documents on the web after ``step`` (default: the last).

    ``names`` are policies defined at that step. ``values`` sets dotted paths below ``policies``; the policies that it
    names are audited too. ``everything`` includes documents that were retired or refused at the publish gate.
    ``reader`` is that of the gate: "web" or a trainer. Return a table of COLUMNS (and ``date`` with a calendar), in
    which a refusal counts as a detection of synthetic text. Raises EcosystemError for unknown names and invalid values.
    """
    values = values or {}
    for path in values:
        if path.count(".") == 0 or not path.startswith("policies."):
            raise ScenarioError(
                f'--set "{path}": an audit runs nothing, so only policies can be set (policies.NAME=…).'
            )
    if reader not in (readers := ["web", *run.trainers()]):
        raise EcosystemError(f'--reader "{reader}": unknown reader{nearest(reader, readers)}; give web or a trainer.')
    world = restore_world(run, run.last_step if step is None else step, values, cache=cache, progress=progress)
    audited = list(dict.fromkeys([*names, *(path.split(".")[1] for path in values)]))
    defined = (
        f"policies defined at {run.scenario.step_name(world.t)}: {', '.join(world.current_scenario.policies) or 'none'}"
    )
    if not audited:
        raise EcosystemError(
            f"no policy is named: use --policy NAME, or define one with --set policies.NAME={{kind=…}}; {defined}."
        )
    for name in audited:
        if name not in world.current_scenario.policies:
            raise EcosystemError(
                f'--policy "{name}": unknown policy{nearest(name, world.current_scenario.policies)}; {defined}.'
            )
    tables = []
    for name in audited:
        table = apply_policy(world, name, everything=everything, reader=reader)
        tables.append(score(world.current_scenario.policies[name], name, world.t, table))
    verify_inputs(run, world, run.base)  # again, because policies may have built models
    return with_dates(pl.concat(tables), run.calendar, run.last_step)


def apply_policy(world: World, name: str, *, everything: bool = False, reader: str = "web") -> pl.DataFrame:
    """Return the documents of a world after a gate that applies this policy only.

    There is one row per document, with the columns of the index and the gate's ``verdict``, ``reason`` and ``weight``,
    and one row with ``injected_from`` per document that an adder would add.
    """
    documents = world.corpus.index if everything else world.corpus.live().table()
    documents = documents.drop("verdict", "reason").with_columns(weight=pl.lit(1.0))
    return gate(documents, world.state.policies([name]), world.state.context(reader))


def score(policy: Policy, name: str, step: int, table: pl.DataFrame) -> pl.DataFrame:
    """Return the effect of one policy as a table of COLUMNS; ``table`` is that of :func:`apply_policy`."""
    added = pl.col("injected_from").is_not_null()
    refused, synthetic = pl.col("verdict").is_not_null(), pl.col("synthetic")
    kept_weight = pl.col("weight").filter(~refused).sum()
    counts = {
        "documents": pl.len(),
        "refused": refused.sum(),
        "synthetic": synthetic.sum(),
        "caught": (refused & synthetic).sum(),
        "after": kept_weight,
        "mean": pl.col("weight").mean(),
        "spread": error_of_mean("weight"),
    }
    groups = {
        "all": pl.lit("all"),
        "origin": pl.when("synthetic").then(pl.lit("synthetic")).otherwise(pl.lit("human")),
        "depth": pl.col("depth").round().cast(pl.Int64).cast(pl.String),
        "author": pl.col("author").str.replace(r"/\d+$", ""),
    }
    documents, total_weight = table.filter(~added), float(table.select(kept_weight).item())
    rows: list[dict[str, Any]] = []

    def add_rows(by: str, group: str, figures: Mapping[str, Any]) -> None:
        common = {"policy": name, "kind": policy.kind, "step": step, "by": by, "group": group}
        rows.extend({**common, "measure": measure, **figure} for measure, figure in figures.items())

    for by, group in groups.items():
        grouped = documents.group_by(group.alias("group")).agg(**counts)
        order = pl.col("group").cast(pl.Int64) if by == "depth" else pl.col("group")
        for row in grouped.sort(order).iter_rows(named=True):
            n, refusals, synthetic_n, caught = (row[key] for key in ("documents", "refused", "synthetic", "caught"))
            figures = {"documents": {"value": n}, "share": {"value": n / documents.height}}
            figures["share_after"] = {"value": row["after"] / total_weight if total_weight else None}
            if isinstance(policy, Filter):
                figures["survival"] = proportion(n - refusals, n)
                figures |= {"recall": proportion(caught, synthetic_n)} if synthetic_n else {}
                human_n = n - synthetic_n
                figures |= {"false_positive_rate": proportion(refusals - caught, human_n)} if human_n else {}
                if by == "all" and refusals:  # a group of one origin has a precision of 0 or 1
                    figures["precision"] = proportion(caught, refusals)
            elif isinstance(policy, Weigher):
                figures["mean_weight"] = {"value": row["mean"], "error": row["spread"]}
            add_rows(by, row["group"], figures)
    if isinstance(policy, Adder):
        for row in table.filter(added).group_by("injected_from").agg(**counts).iter_rows(named=True):
            figures = {"documents": {"value": row["documents"]}, "share_after": {"value": row["after"] / total_weight}}
            add_rows("source", row["injected_from"], figures)
    return pl.DataFrame(rows, schema=COLUMNS)


def proportion(k: int, n: int) -> dict[str, float]:
    """Return the share k/n with its standard error and its 95 % interval (Wilson 1927).

    The standard error is half the width of Wilson's interval of one standard deviation; it is not 0 if k is 0 or n.
    """
    below, above = wilson_interval(k, n, ONE_SIGMA)
    low, high = wilson_interval(k, n)
    return {"value": k / n, "error": (above - below) / 2, "low": low, "high": high}


def read_policies(file: Path) -> dict[str, Any]:
    """Return the policies of a TOML file, such as a scenario, by dotted path; raise ScenarioError if it has none."""
    table = read_file(file).get("policies")
    if not isinstance(table, Mapping) or not table:
        raise ScenarioError(f"{file}: has no policies; write each as a table [policies.NAME] with a kind.")
    return {f"policies.{name}": policy for name, policy in table.items()}


def write(results: pl.DataFrame, file: Path) -> None:
    """Write an audit as .parquet or .csv; raise EcosystemError for another ending or if it cannot be written."""
    if file.suffix not in (".parquet", ".csv"):
        raise EcosystemError(f"--out {file}: give a file that ends in .parquet or .csv.")
    with io_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".csv":
            results.write_csv(file)
        else:
            results.write_parquet(file)


def show(results: pl.DataFrame, place: str = "") -> None:
    """Print an audit to the terminal, one table per policy; ``place`` names the files, if it is not of a run."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 160  # a file or pipe gets unwrapped lines
    for (name, kind, step), rows in results.group_by("policy", "kind", "step", maintain_order=True):
        measures = [measure for measure in MEASURES if measure in rows["measure"]]
        date = f" ({rows['date'][0]})" if "date" in rows.columns else ""
        table = Table(title=f"{name} ({kind}) on {place or f'the web after step {step}{date}'}", title_justify="left")
        table.add_column("documents by")
        table.add_column("")
        for measure in measures:
            table.add_column(MEASURES[measure], justify="right")
        last = None
        for (by, group), figures in rows.group_by("by", "group", maintain_order=True):
            by_measure = {row["measure"]: row for row in figures.iter_rows(named=True)}
            if last not in (None, by):
                table.add_section()
            table.add_row("" if by == last else str(by), str(group), *cells(by_measure, measures))
            last = by
        console.print(table, markup=False)
    console.print(
        "± assumes that documents are refused independently; it is too small for a policy that decides by author.",
        markup=False,
        style="dim",
    )


def cells(figures: Mapping[str, Mapping[str, Any]], measures: Sequence[str]) -> Iterator[str]:
    """Yield a group's figures as text, in the order of ``measures``; ``figures`` holds rows of an audit by measure."""
    for measure in measures:
        value, error = (figures.get(measure, {}).get(key) for key in ("value", "error"))
        if value is None:
            yield "–"
        elif measure == "documents":
            yield f"{value:,.0f}"
        else:
            yield f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")
