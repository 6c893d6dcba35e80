"""Editors find the schema of every shipped file, and it agrees with what the program accepts."""

import json
import subprocess
import sys
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
        assert schema == ROOT / "scenarios/schemas" / f"{kind}.json" and schema.exists(), file


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


@pytest.mark.parametrize(
    ("values", "path", "words"),
    [
        ({"steps": "x"}, ["steps"], "not valid under any"),
        ({"sources": {"docs": {"kind": "pythn_docs"}}}, ["sources", "docs", "kind"], "not one of"),
        (
            {"policies": {"short": {"kind": "length", "min_word": 3}}},
            ["policies", "short"],
            "'min_word' was unexpected",
        ),
        ({"models": {"small": {"preset": "gpt2-nan"}}}, ["models", "small", "preset"], "not one of"),
        ({"extends": "smoke", "stepz": 3}, [], "'stepz' was unexpected"),
    ],
)
def test_an_editor_marks_the_value_that_is_wrong(values, path, words, validators):
    smoke = json.loads(json.dumps(tomllib.loads((ROOT / "scenarios/smoke.toml").read_text()), default=str))
    wrong = values if "extends" in values else {**smoke, **values}
    [error] = validators["scenario"].iter_errors(wrong)
    assert list(error.path) == path and words in error.message


@pytest.mark.slow
def test_the_command_writes_the_shipped_schemas(tmp_path):
    """In a process of its own, since tests of plug-ins add kinds to this one."""
    command = [sys.executable, "-m", "ecosystem", "schema", "--into", str(tmp_path / "schemas")]
    written = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {Path(line).stem for line in written.splitlines()} == set(KINDS)
    for file in written.splitlines():
        shipped = ROOT / "scenarios/schemas" / Path(file).name
        assert shipped.read_text() == Path(file).read_text(), "run: ecosystem schema --into scenarios/schemas"


def test_the_command_prints_a_schema():
    printed = CliRunner().invoke(cli, ["schema", "study"]).output
    assert json.loads(printed) == editor_schema("study")
