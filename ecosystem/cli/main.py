"""The command line. Every command imports what it needs inside itself, so that ``--help`` stays instant."""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper
from types import FrameType

import click

from ecosystem.cli import reading, running, studying

SMALLER = "Make its models, counts or batches smaller; what is committed stays."


def _stop(number: int, frame: FrameType | None) -> None:
    """Answer Ctrl-C where nothing is under way that could be lost: at once, also inside the import of a library."""
    os.write(2, b"Stopped; nothing that was committed is lost.\n")
    os._exit(130)


def main() -> None:
    """Run the command line; a user's mistake ends with one clear sentence and exit code 2."""
    signal.signal(signal.SIGINT, _stop)  # until a run begins, which finishes what it is writing
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal has every letter
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    from ecosystem.errors import EcosystemError

    try:
        cli.main(arguments, prog_name="ecosystem", standalone_mode=False)
    except EcosystemError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        if debug:
            raise
        sys.exit(130)
    except MemoryError as error:
        if debug:
            raise
        click.echo(
            f"Error: this machine has too little memory for what the scenario asks ({error}). {SMALLER}", err=True
        )
        sys.exit(2)
    except RuntimeError as error:  # how torch says the same (click's Abort is one too, but was caught above)
        if debug or "allocate" not in str(error):
            raise
        click.echo(f"Error: this machine has too little memory for what the scenario asks. {SMALLER}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone (| head); there is nobody to tell
        sys.exit(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ecosystem")
def cli() -> None:
    """Simulate a web on which language models train on what language models wrote.

    Give --debug to any command to see the traceback behind an error.
    """


for _command in (
    running.run,
    running.check,
    running.view,
    running.report,
    running.branch,
    running.validate,
    studying.study,
    studying.threshold,
    reading.audit,
    reading.lineage,
    reading.list_,
    reading.schema,
    reading.show,
    reading.tasks,
):
    cli.add_command(_command)
cli.add_command(studying.FRONTIER, "frontier")
