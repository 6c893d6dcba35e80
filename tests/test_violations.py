"""Refusals of values are plain sentences: which key, what is allowed, what was found."""

import inspect
import json
import math
import re

import pytest
import tomli_w
from click.testing import CliRunner
from pydantic import BaseModel, ValidationError

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError, ScenarioError, StoreError
from ecosystem.families.base import FAMILIES
from ecosystem.policies.base import POLICIES
from ecosystem.runs.environment import read_environment
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import SOURCES
from ecosystem.spec import _spec_in, explain
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.spec.study import Study
from ecosystem.violations import sentence
from tests.conftest import ROOT, tiny

JARGON = re.compile(
    r"input should|valid (integer|number|string|list|dict|boolean)|instance of|pydantic|after validation|dict\b|\btag\b"
    r"|constrained|literal\[|[a-z]Spec\b|\bstr\b|\bint\b|\bbool\b|NoneType|characters?\b.*should",
    re.IGNORECASE,
)
WRONG = (
    *("", "word", "3", True, 3, -1, 0, 2.5, -0.5, 10**30, math.inf, math.nan, {}, [], {"a": 1}, [1], ["x"], [[]]),
    *([0.5, 2, 3], ["x", 1], [{}], {"a": {}}, {"a": 3}, {"a": []}, {"a": ["x"]}, {1: 2}, {"a": {"b": {}}}, "x" * 500),
)


def specs():
    """Return every class that files are validated with."""
    found: dict[type[BaseModel], None] = {}

    def add(model):
        if model not in found and not inspect.isabstract(model):
            found[model] = None
            for field in model.model_fields.values():
                if inner := _spec_in(field.annotation):
                    add(inner)

    kinds = [kind for registry in (SOURCES, FAMILIES, POLICIES) for kind in registry.all().values()]
    for model in [Scenario, Study, Frontier, *kinds]:
        add(model)
    return list(found)


def test_no_refusal_of_any_field_speaks_of_the_library():
    tried = set()
    for model in specs():
        for name, field in model.model_fields.items():
            if model is Scenario and name in ("sources", "models", "policies"):
                continue  # these tables are parsed before
            for wrong in WRONG:
                try:
                    model.model_validate({field.alias or name: wrong})
                except ValidationError as error:
                    tried |= {problem["type"] for problem in error.errors()}
                    for line in explain(error, "part", model):
                        assert not JARGON.search(line), (model, name, wrong, line)
                        assert line.startswith(("part.", "part: ")) and "<" not in line, line
    assert {"model_type", "dict_type", "list_type", "too_short", "too_long", "int_type", "literal_error"} <= tried
    assert {"string_type", "float_type", "bool_type", "finite_number", "string_too_short", "missing"} <= tried
    assert {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "extra_forbidden"} <= tried


SCENARIOS = [
    ({"web": 3}, "web: must be a table ([web]), not 3."),
    ({"web": ["a"]}, "web: must be a table ([web]), not a list."),
    ({"trainers": 3}, "trainers: must be a table ([trainers]), not 3."),
    ({"trainers": {"lab": True}}, "trainers.lab: must be a table ([trainers.lab]), not true."),
    ({"changes": [3]}, "changes.0: must be a table ([[changes]]), not 3."),
    ({"changes": [{"at": 1, "set": 3}]}, "changes.0.set: must be a table (set = { … }), not 3."),
    ({"changes": {}}, "changes: must be a list in square brackets, not a table."),
    ({"steps": "10"}, "steps: must be a whole number, not '10'."),
    ({"steps": 2.5}, "steps: must be a whole number, not 2.5."),
    ({"steps": True}, "steps: must be a whole number, not true."),
    ({"steps": 0}, "steps: must be greater than 0, not 0."),
    ({"steps": 10**12}, "steps: must be at most 1,000,000,000, not 1000000000000."),
    ({"name": 7}, "name: must be text in quotes, not 7."),
    ({"measure": {"sites": 1}}, "measure.sites: must be true or false, not 1."),
    (
        {"policies": {"golden": {"kind": "origin_weight", "real_share": "gold"}}},
        'policies.golden.real_share: must be a number, or "golden", not \'gold\' (did you mean "golden"?).',
    ),
    (
        {"policies": {"golden": {"kind": "origin_weight", "real_share": 1.5}}},
        'policies.golden.real_share: must be at most 1, or "golden", not 1.5.',
    ),
    ({"changes": [{"at": 2, "set": {"web.retain": [None]}}]}, "a change needs a value; a file cannot hold None."),
    ({"web": {"kind": "compleet"}}, 'or "file", not \'compleet\' (did you mean "complete"?).'),
]


@pytest.mark.parametrize(("values", "expected"), SCENARIOS)
def test_a_scenario_is_refused_in_plain_words(values, expected):
    with pytest.raises(ScenarioError) as error:
        Scenario.parse(tiny().plain() | values, where="s.toml")
    lines = str(error.value).splitlines()
    assert any(line.startswith("s.toml: ") and line.endswith(expected) for line in lines), lines


STUDIES = [
    ({"seeds": []}, "seeds: needs at least 1 entry, but has none."),
    ({"measures": []}, "measures: needs at least 1 entry, but has none."),
    ({"measures": [3]}, "measures.0: must be a table ([[measures]]), not 3."),
    ({"measures": [{"metric": "bleu", "window": [1]}]}, "measures.0.window: needs at least 2 entries, but has 1."),
    ({"measures": [{"metric": "bleu", "window": [1, 2, 3]}]}, "window: may have at most 2 entries, but has 3."),
    ({"arms": 3}, "arms: must be a table ([arms]), not 3."),
    ({"arms": {"a": 3}}, "arms.a: must be a table ([arms.a]), not 3."),
    (
        {"axes": {"steps": 3}},
        "axes.steps: must be a list of values, or a range such as { low = 0.0, high = 1.0 }, not 3.",
    ),
    ({"axes": {"steps": {"low": "x", "high": 2.0}}}, "axes.steps.low: must be a number, not 'x'."),
    ({"axes": {"steps": {"hihg": 2.0}}}, 'axes.steps.hihg: unknown key (did you mean "high"?)'),
    ({"prices": {"tokens": "x"}}, "prices.tokens: must be a number, not 'x'."),
]


@pytest.mark.parametrize(("values", "expected"), STUDIES)
def test_a_study_is_refused_in_plain_words(values, expected):
    plain = Study.load(ROOT / "scenarios/studies/monoculture.toml").plain()
    with pytest.raises(ScenarioError) as error:
        Study._validated(plain | values, "s.toml")
    assert any(line.startswith("s.toml: ") and expected in line for line in str(error.value).splitlines()), error.value


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", "1", "seed: must be a whole number, not '1'"),
        ("threads", 0, "threads: must be greater than 0, not 0"),
        ("sources", 3, "sources: must be a table"),
        ("resumed", {}, "resumed: must be a list in square brackets, not a table"),
        ("device", None, "device: must be text in quotes, not nothing"),
    ],
)
def test_a_damaged_environment_is_refused_in_plain_words(key, value, expected, tmp_path):
    kept = next((ROOT / "tests/data/run-v1").rglob("environment.json"))
    environment = json.loads(kept.read_text())
    (tmp_path / "environment.json").write_text(json.dumps(environment | {key: value}))
    with pytest.raises(StoreError) as error:
        read_environment(tmp_path)
    assert f"environment.json: is damaged ({expected}" in str(error.value)
    del environment[key]
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(StoreError, match=rf"{key}: this key is required and missing"):
        read_environment(tmp_path)


def test_an_error_of_an_unknown_sort_keeps_its_message():
    said = sentence({"type": "new", "msg": "Input should be blue", "input": "red"}, "colour")
    assert said == "must be blue, not 'red'"


@pytest.mark.parametrize(
    ("data", "options", "count"),
    [
        ({"steps": 0, "weights_every": "x"}, [], 2),
        ({"changes": [{"at": 2, "set": {"trainers.naive.publish": -1, "measure.words": 0}}]}, [], 2),
        ({"knobs": [{"path": "measure.words", "low": -3.0, "high": 2.0}]}, [], 1),
        ({"variants": {"large": {"trainers.naive.publish": -1, "measure.words": 0}}}, [], 2),
        ({"models": {"tiny": {"preset": "broken"}}}, [], 2),
        ({}, ["--set", "steps=0", "--set", "trainers.naive.publish=-1"], 2),
        ({}, ["--variant", "nothing"], 1),
    ],
    ids=["table", "change", "knob", "variant", "preset", "--set", "--variant"],
)
def test_every_line_names_the_file_and_a_path(data, options, count, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/broken.toml").write_text('kind = "gpt2"\nn_layer = "x"\nn_head = 0\n')
    file = tmp_path / "s.toml"
    file.write_text(tomli_w.dumps(tiny().plain() | data))
    for command in ("check", "run"):
        error = CliRunner().invoke(cli, [command, str(file), *options]).exception
        assert isinstance(error, EcosystemError), error
        lines = str(error).splitlines()
        assert len(lines) >= count and all(line.startswith((f"{file}: ", f"{file} with --")) for line in lines), lines
