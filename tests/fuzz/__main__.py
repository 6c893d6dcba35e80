"""``python -m tests.fuzz``: campaigns of random inputs, kills and altered files, each of which prints a table."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click

from tests.fuzz.campaign import run, upper_bound
from tests.fuzz.targets import TARGETS

SEED = click.option(
    "--seed", "number", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of chance."
)


@click.group()
def main() -> None:
    """Try to break the package; exit with 1 if something failed."""


@main.command()
@click.option("--count", type=click.IntRange(min=1), default=2500, show_default=True, help="Inputs of each target.")
@click.option("--target", "names", multiple=True, type=click.Choice(list(TARGETS)), help="Target; repeatable.")
@SEED
def inputs(count: int, names: tuple[str, ...], number: int) -> None:
    """Use random and mutated input."""
    print(
        "| input | tried | used | refused | failed | 95 % bound of failures | seconds |\n|---|---|---|---|---|---|---|"
    )
    failures: dict[str, str] = {}
    for name in names or TARGETS:
        began = time.monotonic()
        tally = run(name, count, number)
        counts = [f"{tally.outcomes[key]:,}" for key in ("used", "refused", "failed")]
        bound, seconds = f"{tally.upper_bound():.2%}", f"{time.monotonic() - began:.0f}"
        print(f"| {' | '.join([name, f'{tally.tried:,}', *counts, bound, seconds])} |", flush=True)
        failures |= tally.failures
    for place, drawn in failures.items():
        print(f"\n{place}\n  {drawn}")
    sys.exit(bool(failures))


@main.command()
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="Kills of each command.")
@SEED
def kills(count: int, number: int) -> None:
    """Kill runs, branches and studies at random moments, and run them again."""
    from tests.fuzz.kills import COMMANDS, Campaign

    print("| command | kills | results | different | 95 % bound | seconds undisturbed |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        campaign, different = Campaign(Path(folder)), 0
        for kind in COMMANDS:
            found = campaign.kill(kind, count, number)
            different += found.different
            bound = f"{upper_bound(found.different, found.results):.1%}"
            row = [
                kind,
                str(found.kills),
                str(found.results),
                str(found.different),
                bound,
                f"{found.after_seconds:.1f}",
            ]
            print(f"| {' | '.join(row)} |", flush=True)
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
