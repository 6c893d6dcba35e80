"""A user's script is checked by mypy in strict mode: the public surface has the types that its documentation says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")

SCRIPT = """
from pathlib import Path

import ecosystem

scenario = ecosystem.Scenario.load("world.toml", plugins=["my_filter.py"]).override({"steps": 3})
run = ecosystem.run(scenario, seed=1, out=Path("outputs"), memory="4GB")
reveal_type(run)
reveal_type(run.metrics)
reveal_type(run.documents)
reveal_type(run.trainers())
reveal_type(run.lineage(3).depth)
reveal_type(run.events)
reveal_type(ecosystem.Run.open("outputs/x/1"))
other: ecosystem.Run = ecosystem.branch(run, 2, {"trainers.labs.publish": 0})
world = ecosystem.World(scenario, seed=1)
reveal_type(world.t)
reveal_type(world.snapshot().ledger)
result: ecosystem.StudyResult = ecosystem.study("study.toml", engine="serial", jobs=None)
reveal_type(result.effects)
reveal_type(result.study)
found: ecosystem.FrontierResult = ecosystem.frontier("frontier.toml", threads=2)
threshold, report = found
reveal_type(report)
reveal_type(ecosystem.load_plugin("my_filter.py"))
reveal_type(ecosystem.fit("fit.toml", jobs=2))
reveal_type(ecosystem.view(run, other).address)
try:
    pass
except ecosystem.EcosystemError as error:
    reveal_type(error.exit_code)
"""
TYPES = [
    "ecosystem.notebook.run.Run",
    "polars.dataframe.frame.DataFrame",
    "polars.lazyframe.frame.LazyFrame",
    "list[str]",
    "float",
    "list[tuple[int, str]]",
    "ecosystem.notebook.run.Run",
    "int",
    "polars.dataframe.frame.DataFrame",
    "polars.dataframe.frame.DataFrame",
    "ecosystem.studies.spec.study.Study",
    "pathlib.Path",
    "types.ModuleType",
    "ecosystem.fitting.run_fit.FitResult",
    "str",
    "int",
]
WRONG = """
import ecosystem

ecosystem.run("world.toml", sede=1)
ecosystem.run(7)
ecosystem.branch("run", values={1: 2})
ecosystem.study("study.toml", engine="proceses")
ecosystem.study("study.toml", job=2)
ecosystem.Run.open("run").plot.qualty()
ecosystem.Run.open("run").to_pandas("document")
ecosystem.Scenario.load("world.toml").overide({})
"""


@pytest.mark.slow
def test_mypy_knows_the_public_types_and_finds_mistakes(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(WRONG)
    # As for a user whose package is installed: only the scripts are reported on. Large packages are left out for time.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\nfollow_imports = silent\n"
        "[mypy-torch.*,transformers.*,altair.*,pyarrow.*,numpy.*,sklearn.*,scipy.*,mesa.*]\nfollow_imports = skip\n"
    )
    options = ["--cache-dir", str(tmp_path / "cache"), "--config-file", "mypy.ini"]
    command = [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"]
    source = str(Path(__file__).parent.parent)
    checked = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "MYPYPATH": source}
    )
    revealed = re.findall(r'^right\.py:\d+: note: Revealed type is "(.+?)\??"$', checked.stdout, re.MULTILINE)
    assert [re.sub(r"\bbuiltins\.", "", name) for name in revealed] == TYPES, checked.stdout
    assert not re.search(r"^right\.py:\d+: error", checked.stdout, re.MULTILINE), checked.stdout
    lines = [int(line) for line in re.findall(r"^wrong\.py:(\d+): error", checked.stdout, re.MULTILINE)]
    assert sorted(set(lines)) == list(range(4, 12)), checked.stdout
