"""``python -m tests.fuzz``: a campaign of random inputs; prints a table and the first input of every failure."""

from __future__ import annotations

import sys
import time

import click

from tests.fuzz.campaign import run
from tests.fuzz.targets import TARGETS


@click.command()
@click.option("--inputs", type=click.IntRange(min=1), default=2500, show_default=True, help="Inputs of each target.")
@click.option("--seed", "number", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--target", "names", multiple=True, type=click.Choice(list(TARGETS)), help="Target; repeatable (default: all)."
)
def main(inputs: int, number: int, names: tuple[str, ...]) -> None:
    """Try many inputs of each target; exit with 1 if one ended in anything but use or a refusal."""
    print(
        "| input | tried | used | refused | failed | 95 % bound of failures | seconds |\n|---|---|---|---|---|---|---|"
    )
    failures: dict[str, str] = {}
    for name in names or TARGETS:
        began = time.monotonic()
        tally = run(name, inputs, number)
        counts = [f"{tally.outcomes[key]:,}" for key in ("used", "refused", "failed")]
        bound, seconds = f"{tally.upper_bound():.2%}", f"{time.monotonic() - began:.0f}"
        print(f"| {' | '.join([name, f'{tally.tried:,}', *counts, bound, seconds])} |", flush=True)
        failures |= tally.failures
    for place, drawn in failures.items():
        print(f"\n{place}\n  {drawn}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
