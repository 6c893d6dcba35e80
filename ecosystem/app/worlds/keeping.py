"""Copy the steps of a live world to where ``ecosystem run`` would have put them."""

from __future__ import annotations

import shutil
from pathlib import Path

from ecosystem.errors import EcosystemError
from ecosystem.runs.environment import write_environment
from ecosystem.runs.files import io_errors, relative_path
from ecosystem.runs.records import PRUNED
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario


def kept(store: Store, scenario: Scenario, base: Path, out: Path) -> Path:
    """Copy the steps of a store to the folder of its scenario below ``out``, and return that folder.

    Paths of the scenario start at ``base``. Raises EcosystemError, and leaves nothing behind, if the folder exists or
    cannot be written.
    """
    target = folder_of(scenario, out)
    if target.exists():
        raise EcosystemError(
            f"{target}: a run of this scenario exists already, with {max(0, Store(target).last())} of "
            f"{scenario.steps} steps; nothing was written."
        )
    part = target.with_name(f".{target.name}.part")
    try:
        with io_errors(target):
            _copy(store, scenario, base, part, target)
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _copy(store: Store, scenario: Scenario, base: Path, part: Path, target: Path) -> None:
    """Write a complete run folder at ``part``, to be moved to ``target``."""
    files: list[tuple[Path, str]] = []
    for commit in store.commits():
        holder = store.owning_store(commit.step).folder
        present = [name for name in commit.files if name.split("/")[0] not in PRUNED or (holder / name).exists()]
        files += [(holder, name) for name in (*present, f"commits/{commit.step:06d}.json")]
    for folder, name in files:
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, part / name)
    environment = {**Run(store.folder).environment, "base": relative_path(base, target)}
    copy = Store(part)
    for name in ("web.graphml", "web.gexf"):
        copy.write(name, (store.folder / name).read_bytes())
    write_environment(copy, environment)
    copy.write("scenario.toml", scenario.to_toml().encode())
