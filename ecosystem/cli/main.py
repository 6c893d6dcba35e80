"""The command line. Commands import what they need when they are called, so that ``--help`` is fast."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType
from typing import Any

import click

from ecosystem.cli import beginning, checking, comparing, reading, running, studying
from ecosystem.cli.options import PLUGIN
from ecosystem.interpreter import require_docstrings
from ecosystem.version import __version__

SECTIONS = {
    "Begin": (beginning.new, beginning.doctor, reading.list_, checking.check, reading.schema),
    "Run": (running.run, running.branch, running.view, running.report),
    "Many runs": (studying.study, studying.threshold, studying.fit, comparing.compare, comparing.prune),
    "Look into a run": (reading.show, reading.lineage, reading.audit, reading.tasks, reading.cite),
    "Theory": (running.validate,),
}
LESS_MEMORY = "Use smaller models, counts or batches; committed steps are kept."


def _stop(number: int, frame: FrameType | None) -> None:
    """Exit at once on Ctrl-C while no step is in progress, even inside the import of a library."""
    os.write(2, b"Stopped.\n")
    os._exit(130)


def main() -> None:
    """Run the command line; an error that the user can correct is printed as one message, with exit code 2."""
    signal.signal(signal.SIGINT, _stop)  # a run replaces this handler to finish its writing
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # some terminals lack some characters
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    from ecosystem.errors import EcosystemError
    from ecosystem.formats import visible

    try:
        cli.main(arguments, prog_name="ecosystem", standalone_mode=False)
    except EcosystemError as error:
        if debug:
            raise
        click.echo(f"Error: {visible(error)}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        if debug:
            raise
        sys.exit(130)
    except MemoryError as error:
        if debug:
            raise
        click.echo(f"Error: this machine has too little memory for the scenario ({error}). {LESS_MEMORY}", err=True)
        sys.exit(2)
    except RuntimeError as error:  # torch's error for too little memory (click.Abort, a subclass, is caught above)
        if debug or "allocate" not in str(error):
            raise
        click.echo(f"Error: this machine has too little memory for the scenario. {LESS_MEMORY}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def _errors_of_the_system() -> Iterator[None]:
    """End the process with a message if output cannot be written; raise EcosystemError for an unusable path."""
    try:
        yield
    except BrokenPipeError:
        click.echo("Stopped: the reader of the output has closed it. Committed steps are kept.", err=True)
        os._exit(141)  # as if ended by SIGPIPE; the interpreter would try to write what is left of the output
    except OSError as error:
        if error.filename is not None:  # a name that is too long, a loop of links, a folder without permission
            from ecosystem.errors import EcosystemError

            raise EcosystemError(f"{error.filename}: {error.strerror}.") from error
        if error.errno not in _UNWRITABLE:
            raise
        message = f"Error: standard output cannot be written ({error.strerror}). Committed steps are kept."
        click.echo(message, err=True)
        os._exit(2)


class _Commands(click.Group):
    """The commands; output that cannot be written ends one with a message."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in the order in which a new user needs them."""
        width = max(len(str(command.name)) for commands in SECTIONS.values() for command in commands)
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(
                    [(f"{command.name:{width}}", command.get_short_help_str(60)) for command in commands]
                )

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """Read the arguments; ``--help`` and ``--version`` print here."""
        with _errors_of_the_system():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke a command."""
        require_docstrings()
        with _errors_of_the_system():
            return super().invoke(ctx)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ecosystem")
def cli() -> None:
    """Simulate model collapse on a web shared by people and language models.

    Add --debug to any command to show the traceback of an error.
    """


for _commands in SECTIONS.values():
    for _command in _commands:
        cli.add_command(PLUGIN(_command))
cli.add_command(studying.FRONTIER, "frontier")
