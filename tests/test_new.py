"""A scenario for texts of one's own: what is found in them, and a file that runs."""

import gzip
import json
import re
import sys
import tomllib

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.beginning.draft import draft
from ecosystem.beginning.sourcing import choose_source
from ecosystem.beginning.survey import survey
from ecosystem.cli.main import cli
from ecosystem.corpus import languages as languages_module
from ecosystem.corpus.languages import languages, script
from ecosystem.errors import DataError, EcosystemError
from ecosystem.scenario.inputs import missing_inputs
from ecosystem.scenario.presets import presets
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World

WORDS = [
    "the",
    "river",
    "and",
    "another",
    "bridge",
    "of",
    "stone",
    "were",
    "old",
    "that",
    "day",
    "with",
    "people",
    "who",
    "have",
    "to",
    "be",
    "inside",
    "towns",
    "before",
    "noon",
]


def sentence(rng, length=60):
    return " ".join(rng.choice(WORDS, length)) + "."


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(1)
    return [sentence(rng) for _ in range(120)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(*arguments):
    return CliRunner().invoke(cli, ["new", *map(str, arguments)])


def test_a_folder_of_texts_becomes_a_scenario_that_runs(place, documents):
    (place / "mine/deep").mkdir(parents=True)
    for number, text in enumerate(documents):
        (place / ("mine" if number % 2 else "mine/deep") / f"{number}.txt").write_text(text)
    (place / "mine/copy.txt").write_text(documents[0])
    (place / "mine/blank.txt").write_text(" \n")
    (place / "mine/picture.png").write_bytes(b"\x89PNG")
    said = new("my-web", "--text", "mine")
    assert said.exit_code == 0, said.exception
    assert "a document is a file: there are 122" in said.output
    assert re.search(r"documents +120 \(60 words each", said.output) and re.search(r"words +7,200\n", said.output)
    assert "1 exact copies, 1 without text" in said.output
    scenario = Scenario.load("my-web")
    assert scenario.sources["docs"].path == "mine/**/*.txt" and set(scenario.trainers) == {
        "naive",
        "filtered",
        "anchored",
    }
    assert scenario.models["small"].kind == "ngram" and scenario.writers["people"].rate > 0
    assert not missing_inputs([scenario], place)
    assert json.loads((place / "schemas/scenario.json").read_text())["anyOf"]
    text = (place / "my-web.toml").read_text()
    assert text.startswith("#:schema ./schemas/scenario.json\n") and str(place) not in text
    assert not [line for line in text.splitlines() if len(line) > 150]
    world = World(scenario.override({"steps": 2}), 1, base=place)
    assert world.state.reservoirs["docs"].held_out.len() == 24  # a fifth of few documents
    world.step()
    world.step()
    last = world.snapshot().metrics
    assert last.filter(pl.col("metric") == "cross_entropy").height >= 6


def test_nothing_is_overwritten(place, documents):
    (place / "t.txt").write_text("\n\n".join(documents))
    assert new("web", "--text", "t.txt").exit_code == 0
    before = (place / "web.toml").read_bytes()
    error = new("web", "--text", "t.txt").exception
    assert isinstance(error, EcosystemError) and "web.toml: exists already; choose another NAME" in str(error)
    assert (place / "web.toml").read_bytes() == before


def test_json_lines_and_parquet_are_read_by_their_column_of_text(place, documents):
    rows = [{"id": i, "title": "T", "body": text} for i, text in enumerate(documents)]
    (place / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    pl.DataFrame(rows).rename({"body": "unusual"}).write_parquet(place / "a.parquet")
    said = new("lines", "--text", "a.jsonl.gz", "--json")
    assert json.loads(said.output)["survey"]["documents"] == 120, said.exception
    assert Scenario.load("lines").sources["docs"].column == "body"
    assert new("columns", "--text", "a.parquet", "--out", "sub").exit_code == 0
    source = Scenario.load("sub/columns.toml").sources["docs"]
    assert source.column == "unusual" and source.path == str(place / "a.parquet")  # not below the folder of the file
    assert new("asked", "--text", "a.parquet", "--column", "title").exception is not None  # copies of one text


def test_lines_are_documents_if_there_are_few_blank_lines(place, documents):
    (place / "t.txt").write_text("\n".join(documents))
    chosen = choose_source(place / "t.txt", place)
    assert chosen.fields["split"] == "line" and len(list(chosen.texts())) == 120
    (place / "t.txt").write_text("\n\n".join(documents))
    assert choose_source(place / "t.txt", place).fields["split"] == "blank_line"


def test_what_is_found_is_right(documents):
    rng = np.random.default_rng(2)
    near = [text.replace("river", "lake", 1) for text in [text for text in documents if "river" in text][:12]]
    texts = [*documents, *near, *[f"{text}#" for text in [sentence(rng, 20) for _ in range(28)]], None, ""]
    found = survey([*texts, texts[0]], "here")
    assert (found.texts, found.documents, found.copies, found.empty) == (163, 160, 1, 2)
    assert 10 <= found.near_duplicates * 160 <= 14  # twelve, of which MinHash may miss or add a few
    assert found.refused["standard"] == 28 / 160  # those of fewer than 50 words
    assert found.refused["short_text"] == 0 and found.reasons == [("number of words below its limit", 28)]
    assert found.words == sum(len(text.split()) for text in dict.fromkeys(t for t in texts if t))


@pytest.mark.parametrize(
    ("words", "model"),
    [(100_000, "trigram"), (1_000_000, "gpt2-nano"), (6_000_000, "gpt2-micro"), (10**9, "gpt2-micro")],
)
def test_the_model_suits_the_amount_of_text(words, model, documents, tmp_path):
    """Twenty tokens a parameter within four passes: 0.17 M parameters need 380,000 words on the web at first."""
    (tmp_path / "t.txt").write_text("\n\n".join(documents))
    found = survey(documents, "here")
    large = type(found)(**{**vars(found), "documents": words // 300, "words": words})
    drafted = draft("web", choose_source(tmp_path / "t.txt", tmp_path), large)
    assert drafted.preset == model and f'preset = "{model}"' in drafted.text
    Scenario.parse(tomllib.loads(drafted.text), base=tmp_path, authored=True)


@pytest.mark.parametrize("preset", sorted(presets()))
def test_every_preset_can_be_asked_for(preset, documents, tmp_path):
    (tmp_path / "t.txt").write_text("\n\n".join(documents))
    drafted = draft("web", choose_source(tmp_path / "t.txt", tmp_path), survey(documents, "here"), preset)
    Scenario.parse(tomllib.loads(drafted.text), base=tmp_path, authored=True)
    assert preset == "trigram" or drafted.why.startswith("as asked for; trigram would suit the amount of text, since ")


def test_other_languages_are_named_and_not_judged_by_english_rules(tmp_path):
    rng = np.random.default_rng(3)
    russian = [
        "река",
        "и",
        "старый",
        "каменный",
        "мост",
        "были",
        "в",
        "этот",
        "день",
        "с",
        "людьми",
        "которые",
        "должны",
        "быть",
        "в",
        "городе",
        "к",
        "полудню",
    ]
    texts = [" ".join(rng.choice(russian, 60)) for _ in range(60)]
    (tmp_path / "t.txt").write_text("\n\n".join(texts))
    found = survey(texts, "here")
    drafted = draft("web", choose_source(tmp_path / "t.txt", tmp_path), found)
    assert 'kind = "repetition"' in drafted.text and any("are for English" in line for line in drafted.limits)
    assert script("река") == "CYRILLIC" and script("漢字") == "CJK" and script("12") == "none"
    if "py3langid" in found.languages_by:
        assert next(iter(found.languages)) == "ru"


def test_without_the_library_scripts_are_named(monkeypatch, documents):
    monkeypatch.setitem(sys.modules, "py3langid", None)
    shares, by = languages([*documents[:3], "漢字" * 20])
    assert shares == {"LATIN": 0.75, "CJK": 0.25} and languages_module.INSTALL in by


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["web", "--text", "nothing"], "nothing: there is no such file or folder"),
        (["web", "--text", "t.tx"], 'did you mean "t.txt"?'),
        (["web", "--text", "few.txt"], "few.txt: has 2 distinct documents, too few"),
        (["web", "--text", "empty.txt"], "empty.txt: contains no text"),
        (["web", "--text", "folder"], "folder: has no files of text; give files that end in .txt"),
        (["we b", "--text", "t.txt"], 'NAME "we b": use letters'),
        (["web", "--text", "t.txt", "--model", "gpt2-nanno"], 'did you mean "gpt2-nano"?'),
        (["web", "--text", "t.txt", "--column", "x"], "holds plain text, which has no columns"),
        (["web", "--text", "bad.jsonl"], "bad.jsonl: cannot be read as jsonl"),
        (["web", "--text", "numbers.jsonl"], "has no column of text; name it with --column"),
        (["web", "--text", "utf16.txt"], "is not UTF-8 text (invalid start byte at byte 0); convert it"),
        (["web", "--text", "latin1"], "latin1/t.txt: is not UTF-8 text"),
        (["web", "--text", "latin1"], "or leave it out of latin1."),
        (["web", "--text", "bytes.txt"], "bytes.txt: is not text: it contains NUL bytes"),
    ],
)
def test_a_mistake_is_a_sentence_and_leaves_no_file(place, documents, arguments, message):
    (place / "t.txt").write_text("\n\n".join(documents))
    (place / "few.txt").write_text("one\n\ntwo")
    (place / "empty.txt").write_text(" ")
    (place / "folder").mkdir()
    (place / "bad.jsonl").write_text("{")
    (place / "numbers.jsonl").write_text('{"a": 1}\n')
    (place / "utf16.txt").write_bytes("text".encode("utf-16"))
    (place / "bytes.txt").write_bytes(b"\x7fELF\x00\xf0")
    (place / "latin1").mkdir()
    (place / "latin1/t.txt").write_bytes(b"d\xe9j\xe0 vu " * 9)
    error = new(*arguments).exception
    assert isinstance(error, EcosystemError) and message in str(error)
    assert isinstance(error, DataError) or "NAME" in str(error) or "--model" in str(error)
    assert not list(place.glob("*.toml"))
