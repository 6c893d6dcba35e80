"""Editors find the schema of every shipped file, and it agrees with what the program accepts."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from ecosystem.cli.main import cli
from ecosystem.cli.schemas import KINDS, editor_schema
from ecosystem.scenario.presets import file_kind
from tests.conftest import ROOT

SHIPPED = sorted([*(ROOT / "scenarios").rglob("*.toml"), *(ROOT / "models").glob("*.toml")])


@pytest.fixture(scope="module")
def validators():
    return {kind: Draft202012Validator(editor_schema(kind)) for kind in KINDS}


def test_every_shipped_file_names_its_schema_first(tmp_path):
    for file in SHIPPED:
        first = file.read_text().splitlines()[0]
        assert first.startswith("#:schema "), f"{file}: begin it with #:schema and the path of its schema"
        schema = (file.parent / first.removeprefix("#:schema ")).resolve()
        kind = "model" if file.parent.name == "models" else file_kind(tomllib.loads(file.read_text()))
        assert schema == ROOT / "scenarios/schemas" / f"{kind}.json", file


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_shipped_file_agrees_with_its_schema(file, validators):
    schema = file.read_text().splitlines()[0].rpartition("/")[2].removesuffix(".json")
    values = json.loads(json.dumps(tomllib.loads(file.read_text()), default=str))  # dates are text in JSON
    assert not [error.message for error in validators[schema].iter_errors(values)][:3]


@pytest.mark.parametrize(
    ("values", "valid"),
    [
        ({"extends": "finite_web"}, True),
        ({"extends": "finite_web", "trainers": {"naive": {"publish": 3}}}, True),
        ({"extends": "finite_web", "trainrs": {}}, False),
        ({"extends": 3}, False),
        ({"name": "x"}, False),
    ],
)
def test_a_file_that_extends_another_needs_no_other_key(values, valid, validators):
    assert validators["scenario"].is_valid(values) == valid
    assert not validators["study"].is_valid({"extends": "x", "sources": {}})


def test_the_command_writes_the_schemas_that_shipped_files_name(tmp_path):
    said = CliRunner().invoke(cli, ["schema", "--into", str(tmp_path / "schemas")])
    assert said.exit_code == 0, said.exception
    assert {Path(line).stem for line in said.output.splitlines()} == set(KINDS)
    printed = CliRunner().invoke(cli, ["schema", "study"]).output
    assert json.loads(printed) == json.loads((tmp_path / "schemas/study.json").read_text()) == editor_schema("study")
