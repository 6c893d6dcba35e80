"""Compare with the numerical baseline, or store it anew: ``python -m tests.baseline [--renew] [SCENARIO …]``."""

import click

from tests.baseline.record import (
    SCENARIOS,
    STORED,
    changed,
    environment,
    environment_differences,
    measured,
    store,
    stored,
)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(SCENARIOS)), metavar="[SCENARIO]...")
@click.option("--renew/--check", default=False, help="Store what the runs give now, or only compare (the default).")
def main(names: tuple[str, ...], renew: bool) -> None:
    """Run the scenarios of the baseline (all, or those named) and say what differs from what is stored.

    The exit code is 1 where something differs and nothing is stored.
    """
    before, old = stored() if STORED.exists() else ({}, {})
    differences = environment_differences(before, environment())
    if renew and names and differences:
        raise click.UsageError("This environment is not the stored one: renew all scenarios, without names.")
    for difference in differences:
        click.echo(f"environment: {difference}")
    results, lines = {}, []
    for name in names or SCENARIOS:
        results[name] = measured(name)
        said = (
            changed(name, old[name], results[name], [] if renew else differences)
            if name in old
            else [f"{name}: not stored."]
        )
        click.echo("\n".join(said or [f"{name}: as stored."]))
        lines += said
    if renew:
        kept = {name: old[name] for name in SCENARIOS if name in old}
        store({name: {**kept, **results}[name] for name in SCENARIOS})
        click.echo(f"Stored: {STORED}")
    elif lines:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
