"""``ecosystem audit``: what a policy would do to the documents of a stored run, judged by the truth that it cannot see.

Nothing is run and nothing is written to the run's folder: the web is put back as it stood after a step, the policy
stands at a gate before it, and the gate's verdicts are counted by true origin, depth and author.
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
from ecosystem.policies.base import Adder, Filter, Weigher, gate
from ecosystem.runs.execute import restored, same_inputs
from ecosystem.runs.files import io_errors
from ecosystem.runs.run import Run
from ecosystem.scenario.presets import read_toml

if TYPE_CHECKING:
    from ecosystem.simulation.world import World

COLUMNS: dict[str, pl.DataType] = {
    "policy": pl.String(),
    "kind": pl.String(),
    "step": pl.Int32(),
    "by": pl.String(),  # all, origin, depth, author; source for what an adder adds
    "group": pl.String(),
    "measure": pl.String(),  # a key of MEASURES
    "value": pl.Float64(),
    "error": pl.Float64(),  # standard error, null where the value is a plain count or ratio
    "low": pl.Float64(),  # 95 % interval of a share (Wilson 1927)
    "high": pl.Float64(),
}
MEASURES = {
    "documents": "documents",
    "share": "share before",  # of all documents
    "share_after": "share after",  # of the total weight of what passes the gate
    "survival": "kept",  # share of the group's documents that are kept
    "recall": "recall",  # share of the group's synthetic documents that are refused
    "false_positive_rate": "human refused",  # share of the group's human documents that are refused
    "precision": "precision",  # share of the refused documents that are synthetic
    "mean_weight": "mean weight",  # factor of a weigher
}
ONE_DEVIATION = math.erf(math.sqrt(0.5))  # level of an interval of one standard deviation to either side


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
    """Apply policies, each by itself, to the documents on the web after ``step`` (default: the last); count.

    ``names`` are policies in force at that step; ``values`` sets dotted paths below ``policies``, and what it names is
    audited too. ``everything`` takes all documents so far, those that left the web or were refused at its door
    included. ``reader`` is for whom the gate stands: "web" or a trainer. Returns a table of COLUMNS, in which a refusal
    counts as a detection of synthetic text. Raises EcosystemError for unknown names and wrong values.
    """
    values = values or {}
    for path in values:
        if path.count(".") == 0 or not path.startswith("policies."):
            raise ScenarioError(
                f'--set "{path}": an audit runs nothing, so only policies can be set (policies.NAME=…).'
            )
    if reader not in (readers := ["web", *run.trainers()]):
        raise EcosystemError(f'--reader "{reader}": there is none{nearest(reader, readers)}; web or a trainer.')
    world = restored(run, run.last_step if step is None else step, values, cache=cache, progress=progress)
    chosen = list(dict.fromkeys([*names, *(path.split(".")[1] for path in values)]))
    there = f"in force at step {world.t}: {', '.join(world.current_scenario.policies) or 'none'}"
    if not chosen:
        raise EcosystemError(f"Name a policy with --policy, or give one with --set policies.NAME={{kind=…}}; {there}.")
    for name in chosen:
        if name not in world.current_scenario.policies:
            raise EcosystemError(
                f'--policy "{name}": there is none{nearest(name, world.current_scenario.policies)}; {there}.'
            )
    found = [_judged(world, name, signed(world, name, everything=everything, reader=reader)) for name in chosen]
    same_inputs(run, world)  # again, now that the policies have built the models they asked for
    return pl.concat(found)


def signed(world: World, name: str, *, everything: bool = False, reader: str = "web") -> pl.DataFrame:
    """Return the documents of a world as they leave a gate where this policy stands alone.

    A row per document with the columns of the index, ``verdict``, ``reason`` and ``weight`` as the gate gives them, and
    a row with ``injected_from`` for each document that an adder would add.
    """
    documents = world.corpus.index if everything else world.corpus.live()
    documents = documents.drop("verdict", "reason").with_columns(weight=pl.lit(1.0))
    return gate(documents, world.state.policies([name]), world.state.context(reader))


def _judged(world: World, name: str, table: pl.DataFrame) -> pl.DataFrame:
    """Return what one policy did, as a table of COLUMNS."""
    policy = world.current_scenario.policies[name]
    added = pl.col("injected_from").is_not_null()
    refused, synthetic = pl.col("verdict").is_not_null(), pl.col("synthetic")
    kept_weight = pl.col("weight").filter(~refused).sum()
    counted = {
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
    documents, whole = table.filter(~added), float(table.select(kept_weight).item())
    rows: list[dict[str, Any]] = []

    def tell(by: str, group: str, figures: Mapping[str, Any]) -> None:
        one = {"policy": name, "kind": policy.kind, "step": world.t, "by": by, "group": group}
        rows.extend({**one, "measure": measure, **figure} for measure, figure in figures.items())

    for by, group in groups.items():
        found = documents.group_by(group.alias("group")).agg(**counted)
        order = pl.col("group").cast(pl.Int64) if by == "depth" else pl.col("group")
        for row in found.sort(order).iter_rows(named=True):
            n, refusals, machine, caught = (row[key] for key in ("documents", "refused", "synthetic", "caught"))
            figures = {"documents": {"value": n}, "share": {"value": n / documents.height}}
            figures["share_after"] = {"value": row["after"] / whole if whole else None}
            if isinstance(policy, Filter):
                figures["survival"] = proportion(n - refusals, n)
                figures |= {"recall": proportion(caught, machine)} if machine else {}
                figures |= {"false_positive_rate": proportion(refusals - caught, n - machine)} if n > machine else {}
                if by == "all" and refusals:  # in the other groups it is 0 or 1, all being of one origin
                    figures["precision"] = proportion(caught, refusals)
            elif isinstance(policy, Weigher):
                figures["mean_weight"] = {"value": row["mean"], "error": row["spread"]}
            tell(by, row["group"], figures)
    if isinstance(policy, Adder):
        for row in table.filter(added).group_by("injected_from").agg(**counted).iter_rows(named=True):
            figures = {"documents": {"value": row["documents"]}, "share_after": {"value": row["after"] / whole}}
            tell("source", row["injected_from"], figures)
    return pl.DataFrame(rows, schema=COLUMNS)


def proportion(k: int, n: int) -> dict[str, float]:
    """Return the share k/n, its standard error and its 95 % interval after Wilson (1927).

    The standard error is half of Wilson's interval of one standard deviation, so that it is not 0 where k is 0 or n.
    """
    below, above = wilson_interval(k, n, ONE_DEVIATION)
    low, high = wilson_interval(k, n)
    return {"value": k / n, "error": (above - below) / 2, "low": low, "high": high}


def policies_of(file: Path) -> dict[str, Any]:
    """Read the policies of a TOML file (a scenario will do) as dotted paths; raise ScenarioError if it has none."""
    table = read_toml(file).get("policies")
    if not isinstance(table, Mapping) or not table:
        raise ScenarioError(f"{file}: has no policies; write each as a table [policies.NAME] with a kind.")
    return {f"policies.{name}": policy for name, policy in table.items()}


def write(found: pl.DataFrame, file: Path) -> None:
    """Write an audit as .parquet or .csv; raise EcosystemError for another ending or a place that cannot be written."""
    if file.suffix not in (".parquet", ".csv"):
        raise EcosystemError(f"--out {file}: give a file that ends in .parquet or .csv.")
    with io_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".csv":
            found.write_csv(file)
        else:
            found.write_parquet(file)


def show(found: pl.DataFrame) -> None:
    """Print an audit on the terminal, one table per policy."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 160  # what reads it instead of a person wants whole lines
    for (name, kind, step), rows in found.group_by("policy", "kind", "step", maintain_order=True):
        there = [measure for measure in MEASURES if measure in rows["measure"]]
        table = Table(title=f"{name} ({kind}) on the web after step {step}", title_justify="left")
        table.add_column("documents by")
        table.add_column("")
        for measure in there:
            table.add_column(MEASURES[measure], justify="right")
        last = None
        for (by, group), figures in rows.group_by("by", "group", maintain_order=True):
            known = {row["measure"]: row for row in figures.iter_rows(named=True)}
            if last not in (None, by):
                table.add_section()
            table.add_row("" if by == last else str(by), str(group), *cells(known, there))
            last = by
        console.print(table, markup=False)
    console.print(
        "± is of documents refused independently of each other; a policy that goes by author errs in whole authors.",
        markup=False,
        style="dim",
    )


def cells(known: Mapping[str, Mapping[str, Any]], measures: Sequence[str]) -> Iterator[str]:
    """Yield a group's figures (rows of an audit by measure) as text, in the order of ``measures``."""
    for measure in measures:
        value, error = (known.get(measure, {}).get(key) for key in ("value", "error"))
        if value is None:
            yield "–"
        elif measure == "documents":
            yield f"{value:,.0f}"
        else:
            yield f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")
