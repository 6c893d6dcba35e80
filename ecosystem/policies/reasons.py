"""Rules of filters: each says which rows break it and gives the reason; the first broken rule refuses a row."""

from __future__ import annotations

import polars as pl

Rule = tuple[pl.Expr, pl.Expr]
"""Whether a row breaks the rule (Boolean), and the reason (String)."""


def first_reason(docs: pl.DataFrame, rules: list[Rule]) -> pl.Series:
    """Return, per row, the reason of the first broken rule, or null.

    Where a rule is null, it does not refuse the row.
    """
    if not rules:
        return pl.Series("reason", [None] * docs.height, dtype=pl.String)
    return docs.select(
        pl.coalesce(*(pl.when(broken).then(reason) for broken, reason in rules)).cast(pl.String).alias("reason")
    ).to_series()


def below(column: str, least: float, what: str) -> Rule:
    """Make the rule that refuses rows whose ``column`` is below ``least``; ``what`` names the column in the reason."""
    return pl.col(column).cast(pl.Float32) < pl.lit(least, pl.Float32), _sentence(column, what, "below", least)


def above(column: str, most: float, what: str) -> Rule:
    """Make the rule that refuses rows whose ``column`` is above ``most``; ``what`` names the column in the reason."""
    # Compared in Float32, as the features are stored: 0.1 in Float32 is above 0.1 in Float64.
    return pl.col(column).cast(pl.Float32) > pl.lit(most, pl.Float32), _sentence(column, what, "above", most)


def _sentence(column: str, what: str, side: str, limit: float) -> pl.Expr:
    shown = pl.col(column).cast(pl.Float64).round(3)
    shown = shown.cast(pl.Int64) if float(limit).is_integer() and column in ("words", "stop_words") else shown
    return pl.format("{} {} is {} {}", pl.lit(what), shown, pl.lit(side), pl.lit(f"{limit:g}"))
