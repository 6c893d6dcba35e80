"""``ecosystem check`` looks for the files that scenarios, studies and frontiers name."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError
from ecosystem.runs.planning.estimate import Plan
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from ecosystem.sources.base import SOURCES
from tests.conftest import MACHINE, ROOT

LOOP = """
name = "loop"
[sources.docs]
kind = "text"
path = "data/*.txt"
[web]
kind = "complete"
sites = 4
initial = { source = "docs", documents = 20 }
[models.small]
preset = "trigram"
[trainers.lab]
model = "small"
"""
STUDY = """
name = "question"
base = "inner/loop.toml"
seeds = [1, 2]
measures = [{ metric = "cross_entropy" }]
[arms]
few = { "trainers.lab.publish" = 1 }
many = { "trainers.lab.publish" = 9 }
"""
FRONTIER = """
name = "edge"
base = "inner/loop.toml"
seeds = [1, 2]
path = "trainers.lab.publish"
range = { low = 1, high = 9, whole = true }
measure = { metric = "cross_entropy" }
limit = 1.0
"""


@pytest.fixture
def loop(tmp_path, monkeypatch):
    """A scenario with the text that it names, in a folder that is not the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner" / "data").mkdir(parents=True)
    (tmp_path / "inner/data/a.txt").write_text("\n\n".join(f"document number {i}" for i in range(40)))
    file = tmp_path / "inner/loop.toml"
    file.write_text(LOOP)
    return file


def check(*arguments):
    """Return what ``ecosystem check`` prints, or the error that it raises."""
    result = CliRunner().invoke(cli, ["check", *map(str, arguments)])
    if result.exception is None:
        return result.output
    assert isinstance(result.exception, EcosystemError), result.exception
    return f"REFUSED {result.exception}"


def refusals(*arguments):
    said = check(*arguments)
    assert said.startswith("REFUSED "), said
    return said.removeprefix("REFUSED ").splitlines()


def test_files_that_exist_are_valid_beside_the_scenario(loop):
    assert "valid (10 steps, 1 trainer)" in check(loop)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ('sources.docs.path="nowhere.txt"', "sources.docs: nowhere.txt: no such file"),
        ('sources.docs.path="data"', "sources.docs: data: is a folder"),
        ('sources.docs.path="data/*.md"', "no file matches this pattern"),
        ('sources.docs={kind="jsonl",path="x.jsonl"}', "sources.docs: x.jsonl: no such file"),
        ('sources.docs={kind="parquet",path="x.parquet"}', "sources.docs: x.parquet: no such file"),
        ('sources.docs={kind="hub",dataset="./tales"}', "sources.docs: ./tales: no such folder"),
        ('web={kind="file",path="no.graphml",initial={source="docs",documents=9}}', "web.path: no.graphml: no such"),
        ('web={kind="file",path="data/*",initial={source="docs",documents=9}}', "matches 2 files"),
        ('models.small={kind="gpt2",init="./nothing"}', 'models.small: init = "./nothing": no such folder'),
        ('models.small={kind="gpt2",init="nothing.gguf"}', 'models.small: init = "nothing.gguf": no such file;'),
        (f'models.small={{kind="gpt2",init="./{"x" * 300}"}}', "no such folder"),
        ('models.small={kind="gpt2",init="~nobody-here/x"}', "no such folder"),
        ('sources.docs.path="~nobody-here/x.txt"', "no such file"),
        (f'sources.docs.path="{"x" * 300}.txt"', "File name too long"),
        (f'sources.docs={{kind="hub",dataset="./{"x" * 300}"}}', "no such folder"),
        ('models.small={kind="gpt2",init="./data"}', "config.json is missing"),
        (
            'models.small={kind="ngram",order=2,context=8,tokenizer="./nothing"}',
            'models.small: tokenizer = "./nothing": no such folder',
        ),
    ],
)
def test_a_file_that_is_missing_is_named(setting, sentence, loop):
    (loop.parent / "data/b.txt").write_text("more")
    (line,) = refusals(loop, "--set", setting)
    assert line.startswith(f"{loop}: ") and sentence in line


def test_images_must_exist_too(tmp_path):
    source = SOURCES.get("images")(path="pictures")
    with pytest.raises(EcosystemError, match=r"sources\.digits: pictures: no such file"):
        source.check_files("digits", tmp_path)


def test_every_missing_file_is_named_at_once(loop):
    lines = refusals(loop, "--set", "sources.docs.path=no.txt", "--set", 'models.small={kind="gpt2",init="./no"}')
    assert len(lines) == 2 and all(line.startswith(f"{loop}: ") for line in lines)


def test_a_file_that_cannot_be_opened_is_named(loop, monkeypatch):
    plain = Path.open

    def denied(self, *arguments, **more):
        if self.name == "a.txt":
            raise PermissionError(13, "Permission denied")
        return plain(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", denied)
    (line,) = refusals(loop)
    assert "a.txt: cannot be read (Permission denied)" in line


MANY = "web.initial.documents=100000000"
SET_MANY = """set = { "web.initial.documents" = 100000000 }\n"""
ONLY = "web.initial.documents = 100,000,000, but sources.docs has only 36 documents to publish"


def test_documents_that_a_source_does_not_have_are_not_counted(loop, tmp_path, monkeypatch):
    assert "note: web.initial" not in check(loop, "--set", "web.initial.documents=36")
    assert f"note: {ONLY}" in check(loop, "--set", MANY)
    study = tmp_path / "question.toml"
    study.write_text(STUDY.replace("seeds", SET_MANY + "seeds", 1))
    assert check(study).count(ONLY) == 1
    scenario = Scenario.load(loop)
    plan = Plan.of(scenario.override({"web.initial.documents": 10**8}), MACHINE, tmp_path, loop.parent)
    exact = Plan.of(scenario.override({"web.initial.documents": 36}), MACHINE, tmp_path, loop.parent)
    assert plan.initial_documents == 36 and plan.tokens_to_train == exact.tokens_to_train > 0
    assert [note for note in plan.notes if note.startswith(ONLY)] and "36 initially" in plan.text()
    world = World(scenario.override({"web.initial.documents": 10**8}), base=loop.parent)
    assert len(world.corpus.live()) == 36


def test_what_a_run_refuses_to_open_is_not_valid(loop):
    assert "leaves none to publish" in refusals(loop, "--set", "sources.docs.held_out=40")[0]
    (loop.parent / "data/a.txt").write_bytes(b"\xff\xfe\0")
    (line,) = refusals(loop)
    assert line.startswith(f"{loop}: sources.docs: ") and "is not UTF-8 text" in line


def test_the_text_of_python_is_counted_if_much_is_asked_of_it(tmp_path):
    file = ROOT / "scenarios/single_trainer.toml"
    assert "but sources.docs has only" in check(file, "--set", MANY)


@pytest.mark.parametrize("text", [STUDY, FRONTIER])
def test_studies_and_frontiers_are_looked_through_too(text, loop, tmp_path):
    file = tmp_path / "question.toml"
    file.write_text(text)
    assert "valid" in check(file)
    (loop.parent / "data/a.txt").unlink()
    (line,) = refusals(file)  # once, not for every run
    assert line.startswith(f"{file}: sources.docs: data/*.txt: no file matches")
    file.write_text(text.replace("inner/", "absent/"))
    assert 'base: there is no scenario "absent/loop.toml"' in refusals(file)[0]


def test_a_stored_history_must_exist(loop, tmp_path):
    file = tmp_path / "question.toml"
    file.write_text(STUDY + '[branch]\nstep = 1\nrun = "outputs/loop-0123456789ab"\n')
    (line,) = refusals(file)
    assert line.startswith(f"{file}: branch.run: outputs/loop-0123456789ab/1: is not a run folder")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "study"])
def test_a_dry_run_refuses_what_check_refuses(command, loop, tmp_path):
    file = {"run": loop, "study": tmp_path / "question.toml"}[command]
    (tmp_path / "question.toml").write_text(STUDY)
    assert CliRunner().invoke(cli, [command, str(file), "--dry-run", "--json"]).exception is None
    (loop.parent / "data/a.txt").unlink()
    error = CliRunner().invoke(cli, [command, str(file), "--dry-run"]).exception
    assert isinstance(error, EcosystemError) and "sources.docs: data/*.txt: no file matches" in str(error)


def test_a_dataset_of_the_hub_is_noted(loop):
    said = check(loop, "--set", 'sources.docs={kind="hub",dataset="owner/tales"}')
    assert 'note: sources.docs.dataset = "owner/tales" is not a folder' in said
    said = check(loop, "--set", 'models.small={kind="gpt2",init="smollm3"}')
    assert 'note: models.small.init = "smollm3" (did you mean "smollm2"?) is not a folder' in said


@pytest.mark.slow
def test_every_shipped_file_is_valid():
    files = sorted((ROOT / "scenarios").rglob("*.toml"))
    assert check(*files).count(": valid (") == len(files)
