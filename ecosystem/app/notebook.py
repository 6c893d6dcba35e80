"""The interactive page in a notebook: served by a process of its own, and shown in a frame below the cell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from markupsafe import Markup

from ecosystem.errors import EcosystemError, path_of
from ecosystem.plugins import loaded
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World

PATIENCE = 120.0  # seconds for the server to start, on a busy machine
_HEIGHT = 900  # pixels
_FRAME = Markup(
    "<div class='ecosystem-view'><a href='{0}' target='_blank'>{1}</a> at {0} (stop it with <code>.stop()</code>)"
    "<iframe title='{1}' width='100%' height='{2}' style='border:0'></iframe>"
    # The frame must have the notebook's own host name, or the browser withholds the page's cookie.
    "<script>(() => {{ const here = ['localhost', '127.0.0.1'].includes(location.hostname) ? location.hostname : "
    "'127.0.0.1'; for (const frame of document.querySelectorAll('.ecosystem-view iframe:not([src])')) "
    "if (frame.title === {3}) frame.src = '{0}'.replace('127.0.0.1', here); }})()</script></div>"
)


class View:
    """A page that is being served: ``address`` opens it in a browser, and a notebook shows it in a frame.

    It runs until :meth:`stop`, the end of a ``with`` block, or the end of this process.
    """

    def __init__(self, arguments: Sequence[str], title: str, folder: tempfile.TemporaryDirectory[str] | None) -> None:
        self.title, self.height = title, _HEIGHT
        self._folder = folder  # of the scenario's file, deleted with the page
        command = [sys.executable, "-m", "ecosystem", "view", *arguments, "--no-browser", "--port", "0", "--embed"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that interrupting a cell does not stop the page
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        self.address = self._ready()

    def _ready(self) -> str:
        """Return the address once the page can be opened; raise EcosystemError with what the server said instead."""
        assert self._process.stdout is not None
        late = threading.Timer(PATIENCE, self._process.kill)
        late.start()
        line = self._process.stdout.readline()
        late.cancel()
        if line.startswith("http://"):
            # Read to the end in a thread: a full pipe would stop the server.
            threading.Thread(target=self._process.communicate, daemon=True).start()
            return line.split()[0]
        said = self._process.communicate()[1].strip().removeprefix("Error: ")
        self.stop()
        raise EcosystemError(said or f"the page did not start within {PATIENCE:.0f} s.")

    @property
    def running(self) -> bool:
        """Whether the page is still being served."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Stop serving the page, and delete its live worlds."""
        self._finalizer()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<View of {self.title} at {self.address}>" if self.running else f"<View of {self.title}, stopped>"

    def _repr_html_(self) -> str:
        if not self.running:
            return str(Markup("<em>{}</em>").format(f"The page of {self.title} has been stopped."))
        title = Markup.escape(self.title)
        return str(_FRAME.format(self.address, title, self.height, Markup(repr(str(title)))))


def view(*what: Run | Scenario | World | str | Path) -> View:
    """Show the interactive page of a run, of two runs side by side, of a scenario or of a world.

    Runs and scenarios may be given by their paths. A world is computed again by the page from its scenario and seed, up
    to its present step, to the same numbers; the object itself is not touched. The page is served to this machine only,
    as by ``ecosystem view``; where a notebook runs on another machine, forward the port of its address. Raises
    EcosystemError if there is nothing that can be shown, or the extra ``view`` is not installed.
    """
    if not 1 <= len(what) <= 2:
        raise EcosystemError(f"view: give one run, scenario or world, or two runs to compare, not {len(what)} things.")
    plugins = [option for plugin in loaded() for option in ("--plugin", plugin.path)]
    scenario = next((item for item in what if isinstance(item, Scenario | World)), None)
    if scenario is None:
        places = [str(item.path if isinstance(item, Run) else path_of(item, "Run", "folder")) for item in what]
        return View([*places, *plugins], " and ".join(places), None)
    if len(what) > 1:
        raise EcosystemError("view: two runs can be compared; a scenario or a world is shown alone.")
    made: list[str] = []
    if isinstance(scenario, World):
        world, scenario = scenario, scenario.base_scenario
        scenario, made = scenario.override({"seed": world.state.streams.seed}), ["--advance", str(world.t)]
    folder = tempfile.TemporaryDirectory(prefix="ecosystem-view-")
    file = Path(folder.name, f"{scenario.name}.toml")
    file.write_text(scenario.to_toml(), encoding="utf-8")
    return View([str(file), *made, *plugins], scenario.name, folder)


def _end(process: subprocess.Popen[str]) -> None:
    """End a server; one that does not stop by itself is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
