"""What study and frontier files share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.errors import ScenarioError
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.spec.study import Study
from tests.studies.small_study import FRONTIER, WORLD


def test_the_wrong_sort_of_file_is_told_in_a_sentence(folder: Path) -> None:
    (folder / "where.toml").write_text(FRONTIER)
    for kind, file, said in (
        (Study, "loop.toml", "is a scenario, not a study; .*ecosystem run"),
        (Study, "where.toml", "is a frontier, not a study; .*ecosystem threshold"),
        (Frontier, "small.toml", "is a study, not a frontier; .*ecosystem study"),
    ):
        with pytest.raises(ScenarioError, match=said):
            kind.load(folder / file)


def test_a_study_is_checked_and_described_like_a_scenario(folder: Path) -> None:
    result = CliRunner().invoke(cli, ["check", str(folder / "small.toml"), str(folder / "loop.toml")])
    assert "small.toml: valid (9 runs, 3 arms)" in result.stdout and "loop.toml: valid (4 steps" in result.stdout
    assert "note" not in result.stdout
    (folder / "loop.toml").write_text(WORLD.replace("publish = 20", "publish = 20\nbudget = { tokens = 9 }"))
    (folder / "where.toml").write_text(FRONTIER)
    for file in ("small.toml", "where.toml"):
        said = CliRunner().invoke(cli, ["check", str(folder / file)]).stdout
        assert said.count(f"{file}: note: trainers.lab.budget has no effect") == 1
    result = CliRunner().invoke(cli, ["run", str(folder / "small.toml")])
    assert "is a study, not a scenario" in str(result.exception) and "ecosystem study" in str(result.exception)
    for what in ("study", "frontier"):
        schema = json.loads(CliRunner().invoke(cli, ["schema", what]).stdout)
        assert {"name", "base", "seeds"} <= set(schema["$defs"]["whole"]["properties"])


def test_a_study_is_confirmed_with_other_models_and_fewer_seeds(folder: Path) -> None:
    arguments = ["study", str(folder / "small.toml"), "--out", str(folder / "out"), "--dry-run"]
    first = CliRunner().invoke(cli, arguments).stdout
    other = CliRunner().invoke(cli, [*arguments, "--seeds", "2", "--set", "trainers.lab.publish=30"]).stdout
    assert first.count("(to do)") == 9 and other.count("(to do)") == 6
    assert not {line.split()[3] for line in first.splitlines()[:9]} & {
        line.split()[3] for line in other.splitlines()[:6]
    }
    for wrong, said in ((["--seeds", "1"], "at least two"), (["--seeds", "4"], "the file has 3")):
        assert said in str(CliRunner().invoke(cli, [*arguments, *wrong]).exception)
