"""Examine the installation: versions, devices, disks, optional packages, the compiler, and a self-test of seconds."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import time
from contextlib import closing
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import islice
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from ecosystem.cache import cache_folder
from ecosystem.errors import EcosystemError, each_line
from ecosystem.formats import format_bytes
from ecosystem.interpreter import cores, memory_size
from ecosystem.version import __version__

SHOWN = ("torch", "mesa", "transformers", "tokenizers", "polars", "numpy", "networkx", "altair", "pydantic", "click")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
_DEVELOPMENT = ("dev", "test", "docs", "bench")
_ALL = 99  # snapshots: more than there are
_TINY = {
    "models.tiny": {"preset": "trigram", "vocabulary": 300},
    "steps": 2,
    "web.initial.documents": 80,
    "trainers.naive.publish": 10,
    "trainers.careful.publish": 10,
    "measure.held_out": 20,
    "measure.words": 30,
}


def examine(out: Path, cache: str | Path | None = None) -> dict[str, Any]:
    """Return what runs depend on, as data for JSON; ``out`` is the folder for runs. No network is used."""
    import torch

    from ecosystem.runs.environment import Machine

    machine = Machine.choose()
    devices = ["cpu", *(f"cuda: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    kept = cache_folder(cache)
    return {
        "ecosystem": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in SHOWN},
        "devices": devices,
        "device": machine.device,
        "cores": cores(),
        "threads": machine.threads,
        "thread_variables": {key: os.environ[key] for key in _THREADS if key in os.environ},
        "memory": memory_size(),
        "disks": {"out": _disk(out), "cache": {**_disk(kept), "used": folder_size(kept)}},
        "compiler": compiler(),
        "extras": extras(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _disk(folder: Path) -> dict[str, Any]:
    """Return the path of a folder, the free bytes on its disk, and whether it can be written or made."""
    place = folder.absolute()
    existing = next((each for each in (place, *place.parents) if each.is_dir()), place)
    return {"path": str(folder), "free": shutil.disk_usage(existing).free, "writable": os.access(existing, os.W_OK)}


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder; 0 if there is none. Files that vanish meanwhile do not count."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_size
            except OSError:
                continue
    return total


def compiler() -> dict[str, Any]:
    """Return whether the kernels for GPT-2 on CPUs can be compiled here, and with what; the build is not tried."""
    import torch

    name = (os.environ.get("CXX") or "c++").split()[0]
    found = shutil.which(name)
    instructions = torch.backends.cpu.get_cpu_capability()
    reason = ""
    if platform.system() != "Linux" or not instructions.startswith("AVX"):
        reason = f"kernels are for Linux on x86-64 with AVX2, not {platform.system()} with {instructions}"
    elif found is None:
        reason = f'there is no C++ compiler "{name}"; install one, for instance with: apt install g++'
    return {"path": found, "instructions": instructions, "kernels": not reason, "reason": reason}


def extras() -> dict[str, dict[str, Any]]:
    """Return, for every extra of ecosystem, whether it is installed, what is missing, and the command to install it."""
    found: dict[str, dict[str, Any]] = {}
    for line in requires("ecosystem") or []:
        requirement = Requirement(line)
        name = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", str(requirement.marker or ""))
        if name is None or name[1] in _DEVELOPMENT:
            continue
        entry = found.setdefault(name[1], {"missing": [], "command": f'pip install "ecosystem[{name[1]}]"'})
        present = _version(requirement.name)
        if present is None or not requirement.specifier.contains(present, prereleases=True):
            entry["missing"].append(f"{requirement.name}{requirement.specifier}" if present else requirement.name)
    return {name: {"installed": not entry["missing"], **entry} for name, entry in found.items()}


def self_test() -> dict[str, Any]:
    """Run a tiny world twice, once interrupted after a step and resumed, and compare the bytes of all committed files.

    Takes a few seconds. The result has ``passed``, ``seconds`` and, if it failed, ``problem``.
    """
    started, problem = time.monotonic(), ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            if _files_of_run(Path(folder), "whole", [_ALL]) != _files_of_run(Path(folder), "resumed", [2, _ALL]):
                problem = "a resumed run differs from an uninterrupted one"
    except EcosystemError as error:
        problem = str(error)
    except Exception as error:  # a broken library can raise anything, and all of it is a finding
        problem = f"{type(error).__name__}: {error}"
    return {"passed": not problem, "seconds": round(time.monotonic() - started, 1), "problem": problem}


def _files_of_run(folder: Path, name: str, stops: list[int]) -> list[dict[str, dict[str, Any]]]:
    """Run the tiny world, stopping after so many snapshots each time; return size and hash of its files."""
    from ecosystem.runs.environment import Machine
    from ecosystem.runs.execute import begin
    from ecosystem.runs.run import Run, folder_of
    from ecosystem.scenario.presets import located
    from ecosystem.scenario.scenario import Scenario

    scenario = Scenario.load(located("smoke")).override({**_TINY, "changes": []})
    for most in stops:
        with closing(begin(scenario, out=folder / name, machine=Machine("cpu", 1), cache=folder)) as snapshots:
            for _ in islice(snapshots, most):
                pass
    run = Run.open(folder_of(scenario, folder / name))
    run.verify()
    return [commit.files for commit in run.store.commits()]


def text(found: dict[str, Any]) -> str:
    """Return a report of :func:`examine`, and of the self-test if it is in it, for the terminal."""
    memory = "unknown" if found["memory"] is None else format_bytes(found["memory"])
    variables = "".join(f", {key}={value}" for key, value in found["thread_variables"].items())
    packages = ", ".join(f"{name} {number or 'MISSING'}" for name, number in found["packages"].items())
    kernels = found["compiler"]
    lines = [
        f"ecosystem   {found['ecosystem']} on Python {found['python']}, {found['platform']}",
        f"packages    {packages}",
        f"devices     {', '.join(found['devices'])}; runs choose {found['device']}",
        f"processor   {found['cores']} cores for this process, {found['threads']} compute threads{variables}",
        f"memory      {memory}",
    ]
    for name, disk in found["disks"].items():
        used = f", {format_bytes(disk['used'])} used" if "used" in disk else ""
        unwritable = "" if disk["writable"] else "; NOT WRITABLE: choose another folder with --" + name
        lines.append(f"{name:11} {disk['path']}: {format_bytes(disk['free'])} free{used}{unwritable}")
    lines.append(
        f"kernels     can be compiled with {kernels['path']} ({kernels['instructions']})"
        if kernels["kernels"]
        else f"kernels     not compiled, PyTorch computes instead: {kernels['reason']}"
    )
    for name, extra in found["extras"].items():
        state = "installed" if extra["installed"] else f"not installed: {extra['command']}"
        lines.append(f"extra       {name:10} {state}")
    if (test := found.get("self_test")) is not None:
        said = "passed: a resumed run equals an uninterrupted one" if test["passed"] else "FAILED"
        lines.append(f"self-test   {said} ({test['seconds']} s)")
        lines += each_line("           ", test["problem"]).splitlines() if test["problem"] else []
    return "\n".join(lines)
