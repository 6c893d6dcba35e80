"""What is fuzzed: for each target a Hypothesis strategy of inputs, and a function that uses one input.

The function returns "used" or "refused". Any other exception than an EcosystemError or an error of click is a failure.
"""

from __future__ import annotations

import copy
import functools
import operator
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import click
import tomli_w
from hypothesis import strategies as st

from ecosystem.cli.listing import json_schema
from ecosystem.cli.main import cli
from ecosystem.corpus.graph_files import read_graph
from ecosystem.errors import EcosystemError
from ecosystem.fitting.spec.fit import Fit
from ecosystem.report import charts, write_report
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.consistency import unused_settings
from ecosystem.scenario.presets import file_kind, read_toml
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.files import JsonLines, TextFiles
from ecosystem.streams import Streams
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.spec.study import Study
from tests.fuzz.schemas import values

ROOT = Path(__file__).parents[2]
Outcome = Literal["used", "refused"]

WORDS = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "naive",
        "small",
        "web",
        "text",
        "nan",
        "../x",
        "a/b",
        "policies.x",
        "\x1b[2J",
        "\u202e",
        "日本",
        "x" * 300,
    ]
)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([10**9, 10**9 + 1, 2**63, -(2**63), 10**30]),
    st.floats(),
    st.sampled_from([0.5, -0.0, 1e-300, 1e300]),
)
SCALARS = st.one_of(st.booleans(), NUMBERS, WORDS, st.text(max_size=8))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=5
)


@dataclass(frozen=True)
class Target:
    """A sort of input: its strategy, and the function that uses an input in a scratch folder."""

    inputs: st.SearchStrategy[Any]
    use: Callable[[Any, Path], Outcome]


_SORTS: dict[str, type[Study] | type[Frontier] | type[Fit]] = {"study": Study, "frontier": Frontier, "fit": Fit}


@functools.cache
def shipped() -> list[tuple[Path, dict[str, Any]]]:
    """Return all shipped scenario, study, frontier and fit files with their contents."""
    files = [file for file in sorted((ROOT / "scenarios").rglob("*.toml")) if file.parent.name != "stories"]
    return [(file, tomllib.loads(file.read_text())) for file in files]


def paths(data: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in nested tables and lists."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path for key, value in items for path in ((*before, key), *paths(value, (*before, key)))]


@st.composite
def mutated_tables(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Draw a shipped file with one to four values replaced, removed, renamed, repeated or exchanged."""
    file, data = draw(st.sampled_from(shipped()))
    data = copy.deepcopy(data)
    for _ in range(draw(st.integers(1, 4))):
        places = paths(data)
        if not places:
            break
        *parents, key = draw(st.sampled_from(places))
        table = data
        for parent in parents:
            table = table[parent]
        action = draw(st.sampled_from(["replace", "replace", "remove", "rename", "exchange"]))
        if action == "replace":
            table[key] = draw(VALUES)
        elif action == "remove":
            del table[key]
        elif action == "rename" and isinstance(table, dict):
            table[draw(WORDS | st.text(max_size=5))] = table.pop(key)
        elif action == "exchange":
            other = data
            for step in draw(st.sampled_from(places)):
                if not isinstance(other, dict | list) or step not in (
                    other if isinstance(other, dict) else range(len(other))
                ):
                    break
                other = other[step]
            table[key] = copy.deepcopy(other)
    return str(file), data


@functools.cache
def schemas() -> dict[str, st.SearchStrategy[Any]]:
    """Return a strategy of tables that the JSON Schema allows, for scenarios, studies and frontiers."""
    kinds: tuple[Literal["scenario", "study", "frontier"], ...] = ("scenario", "study", "frontier")
    return {kind: values(json_schema(kind), json_schema(kind)) for kind in kinds}


@st.composite
def allowed_tables(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Draw a table that a JSON Schema allows; what it refers to may be missing."""
    kind = draw(st.sampled_from(["scenario", "scenario", "study", "frontier"]))
    table = draw(schemas()[kind])
    if kind == "scenario":  # the schema cannot say which kinds need what
        table["web"].setdefault("sites", 8)
    else:
        table["base"] = "smoke.toml"
    return str(ROOT / "scenarios/allowed.toml"), table


def check_table(drawn: tuple[str, dict[str, Any]], folder: Path) -> Outcome:
    """Validate a mutated scenario, study, frontier or fit as the commands do."""
    name, data = drawn
    file = Path(name).with_name("mutated.toml")
    try:
        kind = file_kind(data)
        if kind == "scenario":
            scenario = Scenario.parse(data, where="mutated.toml", base=file.parent, authored=True)
            unused_settings(scenario)
            stored = Scenario.parse(tomllib.loads(scenario.to_toml()), base=file.parent)
            kept = scenario.model_copy(update={"variants": stored.variants, "placement": None})
            assert stored == kept, "a stored scenario differs"
        else:
            _SORTS[kind]._validated(data, "mutated.toml").check(file.parent)
    except EcosystemError:
        return "refused"
    return "used"


@st.composite
def mutated_bytes(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> bytes:
    """Draw contents with a few bytes replaced, inserted, removed or repeated."""
    data = bytearray(draw(contents))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data))))
        length = draw(st.sampled_from([0, 0, 1, 3, 40]))
        inserted = draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from([b'"', b"[", b"\n", b"\xff", b"\xef\xbb\xbf", b"9" * 5000, b"[" * 3000]),
            )
        )
        data[place : place + length] = inserted
    return bytes(data)


def check_toml(data: bytes, folder: Path) -> Outcome:
    """Read and validate damaged TOML."""
    file = folder / "damaged.toml"
    file.write_bytes(data)
    try:
        table = read_toml(file)
        if file_kind(table) == "scenario":
            Scenario.parse(table, where=str(file), base=ROOT / "scenarios", authored=True)
        else:
            _SORTS[file_kind(table)].load(file)
    except EcosystemError:
        return "refused"
    return "used"


SMALL = [tomllib.loads(file.read_text()) for file in sorted((ROOT / "tests/baseline/scenarios").glob("*.toml"))]
SMALL = [data for data in SMALL if data["name"] not in ("baseline-gpt2", "baseline-vae")]  # these train for seconds
SMALL_VALUES = st.one_of(st.sampled_from([0, 1, 2, 3, 60, 0.0, 0.1, 0.5, 1.0, 1e-9, -1, 400]), st.booleans(), WORDS)


def alike(value: Any, data: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy of values of the type of ``value``; other tables, lists and names are those of ``data``."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.sampled_from([0, 1, 2, 3, 7, 60, 400])
    if isinstance(value, float):
        return st.sampled_from([0.0, 1e-9, 0.1, 0.5, 1.0, 2.0, -1.0])
    places = [functools.reduce(operator.getitem, path, data) for path in paths(data)]
    names = [key for table in data.values() if isinstance(table, dict) for key in table]
    return st.sampled_from(
        [*names, *(x for x in places if type(x) is type(value))] if isinstance(value, str) else places
    )


@st.composite
def small_scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a small scenario with one or two values replaced, most of them by values of their type, or removed."""
    data = copy.deepcopy(draw(st.sampled_from(SMALL)))
    for _ in range(draw(st.integers(1, 2))):
        *parents, key = draw(st.sampled_from([path for path in paths(data) if path[0] != "steps"]))
        table = data
        for parent in parents:
            table = table[parent]
        action = draw(st.sampled_from(["alike", "alike", "alike", "alike", "any", "remove"]))
        table[key] = copy.deepcopy(draw(alike(table[key], data) if action == "alike" else SMALL_VALUES))
        if action == "remove":
            del table[key]
    return data


def run_scenario(data: dict[str, Any], folder: Path) -> Outcome:
    """Run a scenario, read it again and write its report, without pictures."""
    try:
        scenario = Scenario.parse(data, where="small.toml")
        for _ in begin(scenario, out=folder, machine=Machine("cpu", 1), cache=folder / "cache"):
            pass
        run = Run.open(folder_of(scenario, folder))
        run.verify()
        with mock.patch.object(charts, "pictures", lambda spec: (b"<svg/>", b"png")):
            write_report(run)
    except EcosystemError:
        return "refused"
    return "used"


JSON_LINES = b'{"text": "One document."}\n{"text": "Another, with \\u00e9."}\n{"text": "", "n": 3}\n' * 5
TEXT = "One paragraph.\n\nAnother one, größer.\n\n第三段。\n\n".encode() * 5
EDGES = b"# links\na b\nb,c,2\nc\ta\n\na c\n" * 3
GRAPHML = (ROOT / "tests/data/run-v1/text-3363a5fdcc2f/1/web.graphml").read_bytes()
SOURCES = {"x.jsonl": JSON_LINES, "x.txt": TEXT, "x.csv": EDGES, "x.edges": EDGES, "x.graphml": GRAPHML}


@st.composite
def source_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw the name and the contents of a damaged file of documents or links."""
    name = draw(st.sampled_from(sorted(SOURCES)))
    contents = draw(mutated_bytes(st.just(SOURCES[draw(st.sampled_from([name, name, name, *sorted(SOURCES)]))])))
    return name, contents


def read_source(drawn: tuple[str, bytes], folder: Path) -> Outcome:
    """Open a file of documents, or read a graph."""
    name, data = drawn
    (folder / name).write_bytes(data)
    try:
        if name.endswith((".jsonl", ".txt")):
            kind = JsonLines if name.endswith(".jsonl") else TextFiles
            reservoir = kind(path=name).open("docs", Streams(1), folder)
            reservoir.rows(list(range(min(3, reservoir.size or 0))))
        else:
            read_graph(name, folder)
    except EcosystemError:
        return "refused"
    return "used"


OPTIONS = [
    "--set",
    "--seed",
    "--steps",
    "--variant",
    "--step",
    "--author",
    "--limit",
    "--policy",
    "--at",
    "--all",
    "--json",
    "--reader",
]
COMMANDS = [
    ["run", "--dry-run"],
    ["check"],
    ["list"],
    ["schema"],
    ["show"],
    ["lineage"],
    ["audit"],
    ["branch", "--dry-run"],
    ["study", "--dry-run"],
    ["report"],
]
SETTINGS = st.sampled_from(
    [
        "steps=2",
        "trainers.naive.count=3",
        "policies.x={kind='length'}",
        "seed=",
        "=3",
        "a.b.c=1",
        "web.sites=[1",
        "models.tiny.preset=trigram",
    ]
)


@st.composite
def arguments(draw: st.DrawFn) -> list[str]:
    """Draw arguments of a command that computes nothing for long."""
    command = draw(st.sampled_from(COMMANDS))
    run = str(ROOT / "tests/data/run-v1/text-3363a5fdcc2f/1")
    places = st.sampled_from(
        [
            run,
            f"{run}@1",
            f"{run}@x",
            str(ROOT / "scenarios/smoke.toml"),
            str(ROOT / "scenarios/studies/monoculture.toml"),
            "scenarios",
            "metrics",
            "laws",
            "0",
            "7",
            "99999",
        ]
    )
    words = st.lists(
        st.one_of(places, st.sampled_from(OPTIONS), SETTINGS, WORDS.filter(lambda word: "\x00" not in word)), max_size=4
    )
    return [*command, draw(places), *draw(words)]


def call(drawn: list[str], folder: Path) -> Outcome:
    """Call the command line in this process."""
    if drawn[0] in ("report", "branch"):  # these write into the run folder
        drawn = [*drawn, "--help"]
    try:
        cli.main(drawn, prog_name="ecosystem", standalone_mode=False)
    except (EcosystemError, click.ClickException):
        return "refused"
    except SystemExit as stop:
        assert stop.code in (0, 1, 2)
    return "used"


TARGETS = {
    "mutated scenarios, studies, frontiers": Target(mutated_tables(), check_table),
    "tables that the JSON Schema allows": Target(allowed_tables(), check_table),
    "runs of mutated scenarios": Target(small_scenarios(), run_scenario),
    "damaged TOML": Target(
        mutated_bytes(st.sampled_from([tomli_w.dumps(data).encode() for _, data in shipped()])), check_toml
    ),
    "documents and graphs": Target(source_files(), read_source),
    "arguments": Target(arguments(), call),
}
