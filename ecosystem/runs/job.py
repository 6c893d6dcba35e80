"""What one call runs or resumes, and where: a scenario or branch with its run folder, perhaps the mirror of a URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecosystem.errors import EcosystemError
from ecosystem.input_files import is_url
from ecosystem.runs.branch import Branch
from ecosystem.runs.remote.mirror import Mirror
from ecosystem.runs.remote.places import require_writable, upload_report
from ecosystem.runs.run import folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario


@dataclass(frozen=True)
class Job:
    """A scenario or branch with its run folder; ``last`` is the last committed step, -1 if there is none.

    ``mirror`` is that of a run in an object store; ``out`` and ``folder`` are then on this machine.
    """

    scenario: Scenario
    branch: Branch | None
    folder: Path
    last: int
    out: str | Path
    base: Path
    cache: str | Path | None
    fresh: bool
    mirror: Mirror | None

    @classmethod
    def of(
        cls, target: Scenario | Branch, *, out: str | Path, cache: str | Path | None, fresh: bool, base: Path
    ) -> Job:
        """Find the folder and its last step; fetch what is missing of a run at a URL.

        Raises EcosystemError for ``fresh`` at a URL, where nothing is moved aside.
        """
        branch = target if isinstance(target, Branch) else None
        scenario = target.scenario if isinstance(target, Branch) else target
        mirror = None
        if isinstance(out, str) and is_url(out) and branch is None:
            if fresh:
                raise EcosystemError(f"{out}: nothing is moved in an object store; start again at another URL (--out).")
            require_writable(out)
            mirror = Mirror(out)
            out = mirror.folder
            mirror.resume(folder_of(scenario, out))
        folder = folder_of(scenario, out) if branch is None else branch.folder(out)
        last = -1 if fresh else Store(folder).last()
        base = base if branch is None else branch.parent.base
        return cls(scenario, branch, folder, last, out, base, cache, fresh, mirror)

    @property
    def place(self) -> str:
        """The folder of the run, or its URL."""
        return str(self.folder) if self.mirror is None else self.mirror.place(self.folder)

    def push(self) -> None:
        """Push what is committed, if the run is in an object store."""
        if self.mirror is not None:
            self.mirror.push(self.folder)

    def push_report(self) -> None:
        """Push the report, if the run is in an object store."""
        if self.mirror is not None:
            upload_report(self.folder, self.place)

    @property
    def done(self) -> int:
        """The last step that exists already, of this run or of the one that it branches from; -1 if there is none."""
        return self.branch.step if self.last < 0 and self.branch is not None else self.last

    def opening(self) -> str:
        """Return a line with the run folder that says whether the run is new, resumed or a branch."""
        if self.last >= 0:
            return f"Resuming {self.place} after {self.scenario.step_name(self.last)} of {self.scenario.steps}."
        if self.branch is None:
            return f"Run folder: {self.place}"
        parent, step = self.branch.parent.path, self.scenario.step_name(self.branch.step)
        return f"Branching from {parent} after {step} of {self.scenario.steps}: {self.place}"
