"""Where runs live on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from ecosystem.errors import EcosystemError
from ecosystem.scenario.scenario import Scenario


def require_local_path(out: str | Path) -> Path:
    """Return a place on this machine; raise EcosystemError for a URL, also one that became a path."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(out)):
        raise EcosystemError(
            f"{out}: is a URL, and this goes into a folder of this machine; only studies and frontiers take a URL. "
            "Give a folder (--out)."
        )
    return Path(out)


def folder_of(scenario: Scenario, out: str | Path = "outputs") -> Path:
    """Return where the run of this scenario lives: ``<out>/<name>-<fingerprint>/<seed>``; ``out`` is no URL."""
    return require_local_path(out) / f"{scenario.name}-{scenario.fingerprint()}" / str(scenario.seed)
