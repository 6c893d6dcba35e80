"""Metrics of tables: contamination of the web and of training sets, and the documents that each policy refuses.

Each function takes frames and returns rows of ``schema.METRICS``. These are counts and shares of whole tables, not
estimates, so their ``error`` is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.calendar import Calendar
from ecosystem.corpus.schema import METRICS

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


def with_dates(frame: Frame, calendar: Calendar | None, last: int, column: str = "step") -> Frame:
    """Return a table with a column ``date`` after all others: the dates of the steps 0 to ``last`` in ``column``.

    Without a calendar the table is returned unchanged.
    """
    if calendar is None:
        return frame
    dates = {t: calendar.date_of(t) for t in range(last + 1)}
    steps = pl.col(column).cast(pl.Int64)
    return frame.with_columns(date=steps.replace_strict(dates, default=None, return_dtype=pl.Date))


def rows(step: int, scope: str, identity: str, values: Mapping[str, tuple[float, float] | float]) -> pl.DataFrame:
    """Return the metric rows of one ``identity`` from values, or (value, standard error), by name; NaN becomes null."""
    pairs = [value if isinstance(value, tuple) else (value, None) for value in values.values()]
    # Built directly, because each expression would cost as much as the whole table, and there are many tables.
    columns: list[Sequence[object]] = [[name] * len(pairs) for name in (step, scope, identity)]
    columns += [list(values), [_nan_to_none(value) for value, _ in pairs], [_nan_to_none(error) for _, error in pairs]]
    return pl.DataFrame(dict(zip(METRICS, columns, strict=True)), schema=METRICS)


def _nan_to_none(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)


def many(
    step: int,
    scope: str,
    names: NDArray[np.str_],
    values: Mapping[str, NDArray[np.float64]],
    errors: Mapping[str, NDArray[np.float64]],
) -> pl.DataFrame:
    """Return the metric rows of many ids at once from values of shape [ids] by metric name; NaN values get no row.

    ``errors`` has the standard errors of the metrics that are estimates.
    """
    unknown = np.full(names.size, np.nan)
    frames = [
        pl.DataFrame({"id": names, "value": column.astype(np.float64), "error": errors.get(m, unknown)}).with_columns(
            metric=pl.lit(m)
        )
        for m, column in values.items()
    ]
    table = pl.concat(frames).filter(pl.col("value").is_not_nan())
    return _finish(table, step=pl.lit(step), scope=pl.lit(scope))


def web(live: pl.DataFrame, step: int) -> pl.DataFrame:
    """Return ``synthetic_share``, ``depth`` and ``documents`` of the live documents, unweighted.

    ``live`` has the columns site, ai_share and depth, one row per document. A mixed document counts by its share of AI.
    """
    return _contamination(live.with_columns(weight=pl.lit(1.0), id=pl.lit(0, pl.UInt8)), step, "web", pl.lit("web"))


def sites(live: pl.DataFrame, step: int) -> pl.DataFrame:
    """Return the metrics of :func:`web` for every site with a live document; the id is the site's number."""
    by_site = live.select("ai_share", "depth", id="site", weight=pl.lit(1.0))
    return _contamination(by_site, step, "site", pl.col("id").cast(pl.String))


def training_sets(training: pl.DataFrame, step: int) -> pl.DataFrame:
    """Return the weighted contamination of every reader's training set: the rows of a ledger that were not refused.

    Beside the columns of a ledger, ``training`` has ai_share. Also returns ``documents`` and ``injected_share``. If all
    weights of a set are zero, its shares are null.
    """
    passed = training.filter(pl.col("verdict").is_null()).with_columns(id=pl.col("reader"))
    injected = _share(pl.col("source").is_not_null()).alias("injected_share")
    return _contamination(passed, step, "training_set", pl.col("id"), injected)


def policies(ledger: pl.DataFrame, select: Mapping[str, Sequence[str]], step: int) -> pl.DataFrame:
    """Return, per reader and policy, the documents kept and refused by true origin; the id is ``reader/policy``.

    ``select`` gives every reader's policies in order of application: a document refused by the k-th was kept by
    all before it and never reached those after it. Injected documents pass no policy and are not counted. A
    reader missing from the ledger has no rows. For the gates of the web, pass the index with ``reader`` = "web"
    and ``source`` = null.
    """
    reached = ledger.filter(pl.col("source").is_null())
    counts = reached.group_by("reader", "verdict").agg(
        human=(~pl.col("synthetic")).sum().cast(pl.Int64), synthetic=pl.col("synthetic").sum().cast(pl.Int64)
    )
    by_verdict: dict[tuple[str, str | None], tuple[int, int]] = {
        (reader, verdict): (human, synthetic) for reader, verdict, human, synthetic in counts.iter_rows()
    }
    present = set(ledger["reader"].unique().to_list())
    result: list[pl.DataFrame] = []
    for reader, names in select.items():
        if reader not in present:
            continue
        human, synthetic = by_verdict.get((reader, None), (0, 0))
        frames: list[pl.DataFrame] = []
        for name in reversed(names):  # the documents that reach a policy are those it keeps plus those it refuses
            refused_human, refused_synthetic = by_verdict.get((reader, name), (0, 0))
            values = {
                "kept_human": float(human),
                "refused_human": float(refused_human),
                "kept_synthetic": float(synthetic),
                "refused_synthetic": float(refused_synthetic),
            }
            frames.append(rows(step, "policy", f"{reader}/{name}", values))
            human, synthetic = human + refused_human, synthetic + refused_synthetic
        result += reversed(frames)
    return pl.concat(result) if result else pl.DataFrame(schema=METRICS)


def _share(flag: pl.Expr) -> pl.Expr:
    """Return the weighted mean of a column, or null if all weights are zero."""
    weight = pl.col("weight").sum()
    return pl.when(weight > 0).then((flag.cast(pl.Float64) * pl.col("weight")).sum() / weight)


def _contamination(docs: pl.DataFrame, step: int, scope: str, name: pl.Expr, *more: pl.Expr) -> pl.DataFrame:
    """Return the metric rows of each ``id`` of ``docs`` (columns id, weight, ai_share, depth), under its ``name``."""
    wide = docs.group_by("id", maintain_order=True).agg(
        _share(pl.col("ai_share")).alias("synthetic_share"),
        _share(pl.col("depth")).alias("depth"),
        pl.len().cast(pl.Float64).alias("documents"),
        *more,
    )
    long = wide.unpivot(index="id", variable_name="metric", value_name="value")
    return _finish(long, step=pl.lit(step), scope=pl.lit(scope), id=name, error=pl.lit(None))


def _finish(frame: pl.DataFrame, **columns: pl.Expr) -> pl.DataFrame:
    cast = {name: columns.get(name, pl.col(name)).cast(dtype) for name, dtype in METRICS.items()}
    return frame.select(**cast | {name: cast[name].fill_nan(None) for name in ("value", "error")})
