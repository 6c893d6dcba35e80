"""What other systems lack: the package does without, and the run folder keeps its promises."""

import os
import subprocess
import sys

import pytest

from ecosystem.runs.files import relative_path
from tests.conftest import ROOT
from tests.invented_runs import invent
from tests.invented_runs import scenario as invented_scenario
from tests.test_format import WORLD

# Windows has none of these; macOS lacks the last.
WITHOUT = """
import os, sys, warnings
warnings.simplefilter("ignore")  # the lock says that it is only a marker file
sys.modules.update(dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios")))
for name in ("O_DIRECTORY", "getuid", "geteuid", "sched_getaffinity"):
    vars(os).pop(name, None)
"""
COMMIT = """
from ecosystem.runs.store import Store
from tests.test_store import snapshot
store = Store(Path(sys.argv[1]))
with store.lock():
    store.commit(snapshot(store.last() + 1), kept=True, seconds=0.0)
    print("committed", flush=True)
    if sys.argv[2] == "hold":
        input()
"""


def process(code, *arguments, **more):
    command = [sys.executable, "-c", f"{WITHOUT}\nfrom pathlib import Path\n{code}", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **more)


def ended(code, *arguments, **more):
    child = process(code, *arguments, **more)
    said, errors = child.communicate()
    return child.returncode, said, errors


@pytest.mark.slow
def test_a_step_is_committed_and_locked_without_fcntl(tmp_path):
    holding = process(COMMIT, tmp_path, "hold")
    assert holding.stdout.readline() == "committed\n", holding.stderr.read()
    code, _, errors = ended(COMMIT, tmp_path, "leave")
    assert code == 1 and f"{tmp_path}: another process is working on this run" in errors
    holding.kill()
    holding.communicate()
    code, said, errors = ended(COMMIT, tmp_path, "leave")
    assert (code, said) == (0, "committed\n"), errors
    assert sorted(path.name for path in (tmp_path / "commits").iterdir()) == ["000000.json", "000001.json"]


@pytest.mark.slow
def test_a_run_needs_nothing_that_only_linux_has(tmp_path):
    """The main job, on a terminal that has no Greek."""
    (tmp_path / "loop.toml").write_text(WORLD)
    main = "from ecosystem.cli.main import main\nmain()"
    encoding = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    code, said, errors = ended(main, "run", "loop.toml", cwd=tmp_path, env=encoding)
    assert code == 0, errors
    assert said.splitlines()[-1].endswith("report.html")
    code, said, errors = ended(main, "list", "metrics", env=encoding)
    assert code == 0 and "?" in said, errors


def test_paths_are_told_from_the_folder_where_there_is_a_way(tmp_path):
    assert relative_path(tmp_path / "a" / "b", tmp_path / "c") == "../a/b"
    assert relative_path(tmp_path, tmp_path) == "."


FORK = """
import os, sys
import ecosystem
from ecosystem.errors import EcosystemError
scenario = ecosystem.Scenario.load(sys.argv[1])
calls = {
    "build": lambda: ecosystem.World(scenario),
    "read": lambda: ecosystem.Run.open(sys.argv[2]).metrics.height,
    "run": lambda: ecosystem.run(scenario, out=sys.argv[3]),
    "study": lambda: ecosystem.study(sys.argv[4], out=sys.argv[3]),
}
calls[sys.argv[5]]()
for name, call in calls.items():
    if os.fork() == 0:
        try:
            call()
        except EcosystemError as error:
            print(name, "|", error, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("first", ["build", "read"])
def test_a_process_forked_from_one_that_has_computed_is_told_so_instead_of_waiting(first, tmp_path):
    scenario = ROOT / "tests/baseline/scenarios/categories.toml"
    study = ROOT / "scenarios/studies/curators.toml"
    stored = invent(tmp_path / "run", invented_scenario(steps=1, sites=5)).path
    arguments = [scenario, stored, tmp_path / "out", study, first]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, *arguments], capture_output=True, text=True, timeout=60
    )
    told = [line.partition(" | ") for line in done.stdout.splitlines()]
    assert [name for name, _, _ in told] == ["build", "read", "run", "study"], done.stderr
    assert all(said.startswith("This process was forked from one that has already run") for _, _, said in told), told


OPTIMISED = """
import sys
import ecosystem
for name, file in zip(("run", "study", "frontier"), sys.argv[2:]):
    try:
        getattr(ecosystem, name)(file, out=sys.argv[1])
    except ecosystem.EcosystemError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_run_without_docstrings_is_refused_before_it_computes(tmp_path):
    scenarios = ROOT / "scenarios"
    files = [scenarios / "smoke.toml", scenarios / "studies/curators.toml", scenarios / "studies/detector_needed.toml"]
    done = subprocess.run(
        [sys.executable, "-OO", "-c", OPTIMISED, tmp_path / "out", *files], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.count("python -OO (PYTHONOPTIMIZE=2) removes docstrings") == 3, done.stderr
    assert not list((tmp_path / "out").rglob("commits"))
