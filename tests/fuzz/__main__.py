"""``python -m tests.fuzz``: campaigns of random inputs, kills and altered files, each of which prints a table."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click

from tests.fuzz import kills as killing
from tests.fuzz import tampering
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
    head("input", "tried", "used", "refused", "failed", "95 % bound of failures", "seconds")
    failures: dict[str, str] = {}
    for name in names or TARGETS:
        began = time.monotonic()
        tally = run(name, count, number)
        counts = [f"{tally.outcomes[key]:,}" for key in ("used", "refused", "failed")]
        row(name, f"{tally.tried:,}", *counts, bound(tally.outcomes["failed"], tally.tried), f"{elapsed(began)}")
        failures |= tally.failures
    for place, drawn in failures.items():
        print(f"\n{place}\n  {drawn}")
    sys.exit(bool(failures))


@main.command()
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="Kills of each command.")
@SEED
def kills(count: int, number: int) -> None:
    """Kill runs, branches and studies at random moments, and run them again."""
    head("command", "kills", "of them while the report is drawn", "results", "different", "95 % bound", "seconds")
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        campaign = killing.Campaign(Path(folder))
        for kind in killing.COMMANDS:
            began = time.monotonic()
            tally = campaign.kill(kind, count, number)
            counts = (tally.kills, tally.reporting, tally.results, tally.different)
            row(kind, *map(str, counts), bound(tally.different, tally.results), elapsed(began))
            different += tally.different
    sys.exit(bool(different))


@main.command()
@click.option("--count", type=click.IntRange(min=1), default=500, show_default=True, help="Altered files per reader.")
@click.option("--reader", "names", multiple=True, type=click.Choice(list(tampering.READERS)), help="Repeatable.")
@SEED
def tamper(count: int, names: tuple[str, ...], number: int) -> None:
    """Alter files of runs, branches and studies, and read them again."""
    head("reader", "altered", "named", "not read", "same content", "missed", "95 % bound of missed", "seconds")
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        campaign = tampering.Campaign(Path(folder))
        for name in names or tampering.READERS:
            began = time.monotonic()
            tally = campaign.alter(name, count, number)
            counts = [f"{tally.outcomes[key]:,}" for key in ("named", "not read", "same content", "missed")]
            row(name, f"{count:,}", *counts, bound(len(tally.missed), count), elapsed(began))
            missed += tally.missed
    print(*missed, sep="\n")
    sys.exit(bool(missed))


def head(*names: str) -> None:
    """Print the head of a table."""
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


def row(*entries: str) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(entries)} |", flush=True)


def bound(failed: int, tried: int) -> str:
    """Return the upper 95 % bound of a probability in percent."""
    return f"{upper_bound(failed, tried):.2%}"


def elapsed(began: float) -> str:
    """Return the seconds since ``began`` on the monotonic clock."""
    return f"{time.monotonic() - began:.0f}"


if __name__ == "__main__":
    main()
