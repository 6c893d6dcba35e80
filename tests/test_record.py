"""For the record: settings that differ from the defaults, data statements, the root of a run and its BibTeX entry."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.errors import StoreError
from ecosystem.report.data import RunReportData
from ecosystem.report.panels.contrasts import contrasts
from ecosystem.report.panels.data_statement import DataStatement, without_folders
from ecosystem.report.panels.record import settings_table, versions
from ecosystem.report.sections import record_section
from ecosystem.runs.citation import ROOTED, bibtex, latex, root
from ecosystem.runs.run import Run
from ecosystem.scenario.departures import NOT_LISTED, Setting, departures
from ecosystem.scenario.scenario import Scenario
from ecosystem.streams import Streams
from tests.conftest import ROOT, tiny
from tests.invented_runs import invent, scenario


def rebuilt(name: str, settings: list[Setting]) -> dict:
    """A scenario file with these settings and no others."""
    data: dict = {"name": name}
    for path, value, _ in settings:
        node, keys = data, path.split(".")
        for key, following in zip(keys, [*keys[1:], ""], strict=True):
            new = value if not following else [] if following == "0" and following not in node else {}
            if isinstance(node, list):
                if int(key) == len(node):
                    node.append(new)
                node = node[int(key)]
            else:
                node = node.setdefault(key, new)
    return data


def plain(spec: Scenario) -> dict:
    return {key: value for key, value in spec.plain().items() if key not in NOT_LISTED}


FILES = ["smoke", "finite_web", "papers/kazdan_regimes", "papers/ferbach_curated", "validation/adoption"]
EVERY = sorted(
    str(file.relative_to(ROOT / "scenarios").with_suffix(""))
    for file in (ROOT / "scenarios").rglob("*.toml")
    if file.parent.name not in ("studies", "fits", "stories")
)


@pytest.mark.parametrize("name", FILES)
def test_a_scenario_is_its_listed_settings_and_all_else_is_default(name):
    spec = Scenario.load(name)
    assert plain(Scenario.parse(rebuilt(spec.name, departures(spec)))) == plain(spec)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_shipped_scenario_is_its_listed_settings(part):
    for name in EVERY[part::4]:
        spec = Scenario.load(name)
        assert plain(Scenario.parse(rebuilt(spec.name, departures(spec)))) == plain(spec), name


def test_what_equals_its_default_is_not_listed_and_what_differs_is():
    spec = Scenario.load("smoke")
    listed = {setting.path: setting for setting in departures(spec)}
    assert listed["steps"] == ("steps", 3, 10)
    assert listed["models.tiny.preset"].value == "gpt2-nano" and "models.tiny.n_layer" not in listed
    assert listed["models.tiny.n_embd"] == ("models.tiny.n_embd", 32, 64)  # of the preset
    assert listed["policies.fluent.high"].value == 400.0 and "policies.fluent.low" not in listed
    explicit = spec.override({"steps": 10, "policies.fluent.low": 1.0, "trainers.naive.scrape.docs": 1000})
    now = {setting.path for setting in departures(explicit)}
    assert listed.keys() - now == {"steps", "trainers.naive.scrape.docs"} and not now - listed.keys()
    for path, setting in listed.items():  # every listed default is one: with it, the row is gone
        if setting.default is not None and not path.startswith("models."):
            unlike = departures(spec.override({path: setting.default}))
            assert path not in {each.path for each in unlike}, path


def test_tables_are_written_on_one_line():
    table = settings_table([Setting("a", {"b.c": 0.5, "d": []}, {}), Setting("e", ["x", {"y": 1}], None)])
    assert table.rows[0] == ["a", "{ b.c = 0.5, d = [] }", "{}"] and table.rows[1][1] == '["x", { y = 1 }]'


# Sources


STATED = {"sources.language.licence": "CC-BY-4.0", "sources.language.description": "Words of <b>nobody</b>."}


def test_what_a_source_states_changes_no_fingerprint_and_no_documents():
    spec = tiny()
    stated = spec.override(STATED)
    assert stated.fingerprint() == spec.fingerprint()
    before, after = (s.sources["language"].open("language", Streams(1), Path()) for s in (spec, stated))
    assert before.digest == after.digest and before.rows(range(3)).equals(after.rows(range(3)))
    assert Scenario.parse(stated.plain()).sources["language"].licence == "CC-BY-4.0"


def test_a_data_statement_has_hashes_licences_and_what_was_used(finished):
    [language] = DataStatement(RunReportData.of(finished)).sources()
    documents = finished.documents.filter(pl.col("verdict").is_null() & ~pl.col("synthetic")).collect()
    assert language.facts["Published on the web"] == f"{documents.height} documents, {documents['words'].sum():,} words"
    given = finished.ledger.filter(pl.col("source").is_not_null()).collect()
    assert language.facts["Given to trainers by policies"].startswith(f"{given.height} times, ")
    assert language.facts["SHA-256"] == finished.environment["sources"]["language"]["digest"]
    assert language.facts["Licence"] == "none: the documents are computed" and "Language" not in language.facts
    assert "PSF" in Scenario.load("finite_web").sources["docs"].shipped


def test_a_run_shows_what_its_source_states_and_takes_it_over_later(tmp_path):
    run = invent(tmp_path / "run", scenario(steps=1, curators=False), graph=False)
    spec = run.scenario.override({"sources.docs.licence": "own", "sources.docs.description": "A <b>bold</b> text."})
    assert run.update_notes(spec) and not run.update_notes(spec)
    section = str(record_section(RunReportData.of(Run.open(run.path))))
    assert "<dd>own</dd>" in section and "A &lt;b&gt;bold&lt;/b&gt; text." in section and "ab" * 32 in section
    assert "<dd>en</dd>" in section and "5,123 may be drawn" in section  # English, of python_docs


def test_texts_of_the_users_own_have_a_language_and_no_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(tmp_path / "cache"))
    text = {"kind": "text", "path": str(tmp_path / "private" / "novels" / "*.txt")}
    spec = scenario(steps=1, sources={"docs": text}, curators=False)

    def from_source(frame):
        return frame.with_columns(source=pl.when(~pl.col("synthetic")).then(pl.lit("docs")))

    run = invent(tmp_path / "run", spec, graph=False, documents=from_source)
    facts = DataStatement(RunReportData.of(run)).sources()[0].facts
    assert facts["From"] == "novels/*.txt" and facts["Published on the web"] == "3 documents, 120 words"
    assert re.match(r"(en|LATIN) 100", facts["Language"]) and facts["Licence"].startswith("not stated")
    assert without_folders("/home/me/texts.jsonl") == "texts.jsonl" and without_folders("") == ""
    assert without_folders("data/**/*.txt") == "data/**/*.txt" and without_folders("owner/name") == "name"


def test_versions_of_resumes_have_a_column_if_they_differ(tmp_path):
    run = invent(tmp_path / "run", scenario(steps=1), graph=False)
    environment = json.loads((run.path / "environment.json").read_text())
    same = {"after_step": 0, "python": environment["python"], "packages": environment["packages"]}
    other = {"after_step": 1, "python": "3.12.1", "packages": environment["packages"]}
    run.store.write("environment.json", json.dumps(environment | {"resumed": [same, other]}).encode())
    table = versions(Run.open(run.path))
    assert table.head == ["package", "version", "resumed after step 1"]
    assert ["Python", "3.11.7", "3.12.1"] in table.rows and ["torch", "2.13.0", "2.13.0"] in table.rows


# Citation


def entry_of(text: str) -> dict[str, str]:
    """Parse one BibTeX entry: braces nest, and fields are separated by commas outside them."""
    kind, rest = re.fullmatch(r"@(\w+)\{(.*)\}\s*", text, re.S).groups()
    parts, depth = [""], 0
    for character in rest:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    assert depth == 0
    fields = (re.fullmatch(r"\s*(\w+) = \{(.*)\}\s*", part, re.S).groups() for part in parts[1:])
    return {"kind": kind, "key": parts[0], **dict(fields)}


HOSTILE = 'A 100 % "test": {unbalanced, \\input{x} $x_1^2$ & #5 ~ <b>|\n@misc{y, é'


def test_the_entry_parses_whatever_the_description_holds(tmp_path):
    spec = scenario(steps=1, description=HOSTILE).override({"name": "my_web-1"})
    run = invent(tmp_path / "run", spec, graph=False)
    entry = entry_of(bibtex(run))
    assert entry["kind"] == "misc" and entry["key"] == f"my_web-1-{spec.fingerprint()}-1"
    assert entry["title"] == r"{my\_web-1}, seed 1: a run of ecosystem" and root(run) in entry["note"]
    assert not re.search(r"(?<!\\)[%$&#_]", entry["abstract"]) and r"100 \% " in entry["abstract"]
    assert r"\textbackslash{}input\textbraceleft{}x\textbraceright{}" in entry["abstract"] and "é" in entry["abstract"]
    assert latex("\x1b[31m") == "␛[31m" and "\n" not in entry["abstract"]


def test_the_year_is_that_of_the_last_record(tmp_path):
    run = invent(tmp_path / "run", scenario(steps=1), graph=False)
    os.utime(run.path / "commits" / "000001.json", (1_500_000_000, 1_500_000_000))
    os.utime(run.path / "commits" / "000000.json", (1_400_000_000, 1_400_000_000))
    assert entry_of(bibtex(run))["year"] == "2017"


def test_the_root_changes_with_every_file_and_the_commands_print_it(tmp_path):
    spec = scenario(steps=2)
    roots = {root(invent(tmp_path / name, each)) for name, each in (("a", spec), ("b", spec.override({"seed": 2})))}
    run = invent(tmp_path / "c", spec, metrics=lambda frame: frame.with_columns(pl.col("value") + 1e-9))
    roots |= {root(run)}
    environment = (run.path / "environment.json").read_bytes()
    run.store.write("environment.json", environment.replace(b"2.13.0", b"2.13.1"))
    roots |= {root(Run.open(run.path))}
    assert len(roots) == 4 and all(re.fullmatch(r"[0-9a-f]{64}", each) for each in roots)
    said = CliRunner().invoke(cli, ["check", str(run.path)]).output
    assert f"Merkle root {root(run)}" in said
    cited = CliRunner().invoke(cli, ["cite", str(run.path), str(tmp_path / "a")]).output
    entries = cited.split("\n\n")
    assert root(run) in entry_of(entries[0])["note"] and entry_of(entries[1])["key"].endswith("-1")
    record = run.path / "commits" / "000002.json"
    record.write_bytes(record.read_bytes().replace(b'"kept": false', b'"kept": true'))
    with pytest.raises(StoreError, match="damaged"):
        root(Run.open(run.path))


# Populations compared


def compared(run: Run, kind: str, members: int):
    web = run.scenario.web.model_copy(update={"graph": kind})
    run.__dict__["scenario"] = run.scenario.model_copy(update={"web": web})
    values = {"naive": [1.0, 2.0, 4.0], "filtered": [3.0, 4.5, 6.0]}
    rows = [
        (1, "trainer", f"{name}/{i}", "cross_entropy", value, 0.01)
        for name, numbers in values.items()
        for i, value in enumerate(numbers[:members])
    ]
    return contrasts(RunReportData.of(run, pl.DataFrame(rows, schema=run.metrics.schema, orient="row")))


def test_trainers_on_webs_of_their_own_are_samples_and_those_of_one_web_are_not(tmp_path):
    two = scenario({"naive": [], "filtered": []}, steps=1, members=3, curators=False)
    run = invent(tmp_path / "run", two, graph=False)
    [row] = compared(run, "isolated", 3).rows
    assert row[2].text == "+2.17" and row[5] == "3 and 3" and "Welch" in row[6]
    assert row[4].text == "+1.1"  # 2.1667 / sqrt((2.3333 + 2.25) / 2) = 1.4313, times Hedges' 0.7979 of 4 degrees
    [row] = compared(run, "parallel", 3).rows
    assert row[5] == "3 pairs" and row[4].text == "+4.2"  # 2.1667 / 0.2887 = 7.506, times Hedges' 0.5642 of 2 degrees
    [row] = compared(run, "isolated", 2).rows
    assert row[4].text == "–" and row[4].soft  # an effect size needs three
    assert compared(run, "complete", 3) is None


def test_the_root_is_found_with_tools_of_the_standard_library():
    """As the page about run folders computes it."""
    folder = ROOT / "tests" / "data" / "run-v1" / "text-3363a5fdcc2f" / "1"
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ROOTED}
    digests["record"] = json.loads((folder / "commits" / "000002.json").read_text())["digest"]
    assert root(Run.open(folder)) == hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
