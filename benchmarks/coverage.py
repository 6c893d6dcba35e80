"""How often the 95 % intervals of a study cover the true effect: ``python -m benchmarks.coverage``.

It prints the table of docs/studies.md. Differences between arms are drawn from a normal, a skewed and a heavy-tailed
distribution; for Welch's interval, both arms are drawn from it, one with twice the spread of the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import click
import numpy as np

from ecosystem.metrics.intervals import LEVEL, Interval, mean_interval, welch_interval
from ecosystem.studies.statistics import bootstrap_interval
from ecosystem.types import Floats

SEEDS = (2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "exponential": lambda rng, n: rng.exponential(size=n) - 1,
    "log-normal": lambda rng, n: rng.lognormal(size=n) - math.exp(0.5),
    "Student's t, 3 degrees": lambda rng, n: rng.standard_t(3, n),
}
"""Name → n numbers of mean 0."""


def student(rng: np.random.Generator, draw: Callable[[np.random.Generator, int], Floats], n: int) -> Interval:
    """Return Student's interval of one sample of paired differences."""
    return mean_interval(draw(rng, n))


def bootstrap(rng: np.random.Generator, draw: Callable[[np.random.Generator, int], Floats], n: int) -> Interval | None:
    """Return the bootstrap interval of one sample of paired differences, from its own resamples."""
    return bootstrap_interval(draw(rng, n), seed=int(rng.integers(2**32)))


def welch(rng: np.random.Generator, draw: Callable[[np.random.Generator, int], Floats], n: int) -> Interval:
    """Return Welch's interval of two independent arms."""
    return welch_interval(2 * draw(rng, n), draw(rng, n))


METHODS = {"Student's": student, "bootstrap": bootstrap, "Welch's": welch}


def coverage(method: str, distribution: str, n: int, samples: int, seed: int) -> float:
    """Return the share of ``samples`` intervals of n seeds that contain 0, the true mean; NaN if there are none."""
    rng = np.random.default_rng([seed, n, *map(ord, method + distribution)])
    draw = DISTRIBUTIONS[distribution]
    found = [METHODS[method](rng, draw, n) for _ in range(samples)]
    covered = [interval.low <= 0 <= interval.high for interval in found if interval is not None]
    return float(np.mean(covered)) if covered else math.nan


@click.command()
@click.option("--samples", type=click.IntRange(min=1), default=4000, show_default=True, help="Samples per figure.")
@click.option("--seed", type=int, default=1, show_default=True)
def main(samples: int, seed: int) -> None:
    """Print the coverage of every interval as a table in Markdown."""
    click.echo("| seeds | " + " | ".join(f"{d}: {m}" for d in DISTRIBUTIONS for m in METHODS) + " |")
    click.echo("|---" * (1 + len(DISTRIBUTIONS) * len(METHODS)) + "|")
    for n in SEEDS:
        shares = [coverage(m, d, n, samples, seed) for d in DISTRIBUTIONS for m in METHODS]
        cells = ["–" if math.isnan(share) else f"{100 * share:.1f}" for share in shares]
        click.echo(f"| {n} | " + " | ".join(cells) + " |")
    error = 100 * math.sqrt(LEVEL * (1 - LEVEL) / samples)
    click.echo(
        f"\nCoverage in per cent, from {samples:,} samples each: standard errors up to {error:.1f} at {LEVEL:.0%}."
    )


if __name__ == "__main__":
    main()
