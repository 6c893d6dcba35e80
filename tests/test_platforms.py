"""What other systems lack: the package does without, and the run folder keeps its promises."""

import os
import subprocess
import sys

import pytest

from ecosystem.runs.files import relative_path
from tests.conftest import ROOT
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
import multiprocessing
from ecosystem import Scenario, World
from ecosystem.errors import EcosystemError
scenario = Scenario.load(sys.argv[1])
World(scenario)
def again(number):
    try:
        World(scenario)
    except EcosystemError as error:
        return str(error)
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map(again, [1])[0])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_process_forked_from_one_that_has_computed_is_told_so_instead_of_waiting():
    scenario = ROOT / "tests/baseline/scenarios/categories.toml"
    code = f"import sys\n{FORK}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, scenario], capture_output=True, text=True, timeout=60
    )
    assert "This process was forked from one that has already built a world" in done.stdout, done.stderr
