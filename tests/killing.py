"""Run the tiny scenario in a child process that kills itself (SIGKILL) at a chosen moment."""

import os
import signal
from pathlib import Path

import ecosystem.runs.store
import ecosystem.simulation.phases
import ecosystem.simulation.world
from ecosystem.runs.execute import begin
from ecosystem.runs.store import Store
from tests.conftest import MACHINE, tiny

STEP = 2  # the step in which the process dies


def die() -> None:
    """End this process at once, as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


def run_and_die(out: Path, cache: Path, moment: str) -> None:
    """Run; ``moment`` is ``phase:NAME``, ``inside:WORK``, ``write:NAME`` or ``part:NAME`` (a half-written file)."""
    kind, name = moment.split(":")
    progress = ecosystem.families.base.silent
    clock = {"t": 0}
    if kind == "phase":

        def wrapped(phase):
            def run(world, step):
                phase(world, step)
                if step.t == STEP and phase.__name__ == name:
                    die()

            run.__name__ = phase.__name__
            return run

        ecosystem.simulation.world.PHASES = tuple(wrapped(phase) for phase in ecosystem.simulation.phases.PHASES)
    elif kind == "inside":

        def progress(what, done, total):
            if clock["t"] == STEP - 1 and name in what and done > 0:
                die()

    else:
        write = Store.write

        def dying(self, path, content):
            content = content if isinstance(content, bytes) else b"".join(content)
            if path.startswith(f"{name}/{STEP:06d}"):
                if kind == "part":
                    (self.folder / path).parent.mkdir(exist_ok=True)
                    (self.folder / path).with_name(f".{Path(path).name}.part").write_bytes(content[: len(content) // 2])
                    die()
                write(self, path, content)
                die()
            return write(self, path, content)

        Store.write = dying
    for snapshot in begin(tiny(), out=out, machine=MACHINE, cache=cache, progress=progress):
        clock["t"] = snapshot.t
