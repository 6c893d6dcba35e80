"""Sources of real text: laws of the reservoir first, then each reader, then everything that can be wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from ecosystem.errors import DataError
from ecosystem.sources import python_docs
from ecosystem.sources.base import SOURCES, FiniteReservoir, digest
from ecosystem.sources.files import HubDataset, JsonLines, Parquet, TextFiles
from ecosystem.sources.python_docs import PythonDocs, clean, split
from ecosystem.spec import explain
from ecosystem.streams import Streams

DOCS = pl.Series("text", [f"document number {i}" for i in range(97)])


def everything(reservoir: FiniteReservoir) -> pl.Series:
    return reservoir.rows(np.arange(reservoir.size))


# Laws of a finite reservoir.


@pytest.mark.parametrize("held_out", [0, 0.001, 0.1, 0.5, 1, 7, 96])
def test_drawn_and_held_out_documents_are_all_documents_and_share_none(held_out):
    reservoir = FiniteReservoir("docs", DOCS, held_out, Streams(3))
    drawn, kept_back = everything(reservoir), reservoir.held_out
    assert set(drawn).isdisjoint(kept_back)
    assert sorted([*drawn, *kept_back]) == sorted(DOCS)
    assert len(kept_back) == (held_out if held_out >= 1 else np.ceil(97 * held_out))
    assert reservoir.size == len(drawn)


def test_the_order_depends_on_seed_and_name_alone():
    one = everything(FiniteReservoir("docs", DOCS, 0.1, Streams(3)))
    assert one.equals(everything(FiniteReservoir("docs", DOCS, 0.1, Streams(3))))
    assert not one.equals(everything(FiniteReservoir("docs", DOCS, 0.1, Streams(4))))
    assert not one.equals(everything(FiniteReservoir("other", DOCS, 0.1, Streams(3))))
    assert one.to_list() != sorted(one)


def test_documents_added_at_the_end_leave_the_order_of_the_others():
    few, more = (FiniteReservoir("docs", DOCS.head(n), 0, Streams(3)) for n in (60, 97))
    assert everything(few).to_list() == [text for text in everything(more) if text in set(DOCS.head(60))]


def test_a_larger_held_out_part_leaves_the_first_rows_what_they_were():
    small, large = (FiniteReservoir("docs", DOCS, n, Streams(3)) for n in (5, 50))
    assert everything(large).equals(everything(small).head(large.size))


def test_rows_may_be_asked_in_any_order_and_twice():
    reservoir = FiniteReservoir("docs", DOCS, 0.1, Streams(3))
    whole = everything(reservoir)
    assert reservoir.rows(np.array([5, 2, 5])).to_list() == [whole[5], whole[2], whole[5]]
    assert reservoir.rows(np.array([], dtype=np.int64)).to_list() == []
    assert reservoir.log_likelihood(whole) is None


@pytest.mark.parametrize("row", [-1, 88])
def test_rows_past_either_end_are_refused(row):
    with pytest.raises(DataError, match=r"^sources\.docs: .* rows 0 to 86\.$"):
        FiniteReservoir("docs", DOCS, 0.1, Streams(3)).rows(np.array([0, row]))


@pytest.mark.parametrize(("docs", "held_out"), [(DOCS, 97), (DOCS, 500), (DOCS, 0.999), (DOCS.head(1), 0.1)])
def test_held_out_must_leave_something_to_publish(docs, held_out):
    with pytest.raises(DataError, match=r"^sources\.docs\.held_out: .* leaves none to publish; lower"):
        FiniteReservoir("docs", docs, held_out, Streams(3))


def test_a_reservoir_of_nothing_is_refused():
    with pytest.raises(DataError, match=r"^sources\.docs: the source contains no documents; give one"):
        FiniteReservoir("docs", DOCS.head(0), 0.1, Streams(3))


def test_documents_need_not_be_text():
    vectors, moved = (pl.Series("text", np.arange(20.0).reshape(10, 2) + by) for by in (0, 1))
    reservoir = FiniteReservoir("cloud", vectors, 0.2, Streams(3))
    assert everything(reservoir).to_numpy().shape == (8, 2)
    assert reservoir.digest != FiniteReservoir("cloud", moved, 0.2, Streams(3)).digest


def test_the_digest_tells_every_change_and_only_changes():
    assert digest(DOCS) == digest(pl.concat([DOCS.head(40), DOCS.tail(57)])) == digest(pl.Series("x", list(DOCS)))
    for other in (DOCS.reverse(), DOCS.head(96), pl.Series([*DOCS[:-1], "x"])):
        assert digest(other) != digest(DOCS)
    assert digest(pl.Series(["ab", "c"])) != digest(pl.Series(["a", "bc"]))
    assert len(digest(DOCS)) == 64


def test_every_source_is_registered_and_writes_itself_as_data():
    assert set(SOURCES.all()) >= {"python_docs", "text", "jsonl", "parquet", "hub", "process"}
    assert TextFiles(path="a.txt").plain() == {
        "kind": "text", "held_out": 0.1, "min_chars": 1, "clean": True, "path": "a.txt", "split": "blank_line"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"held_out": 2.5}, "sources.docs.held_out: must be a share below 1 or a whole number"),
        ({"held_out": -0.1}, "sources.docs.held_out: must be at least 0"),
        ({"min_chars": 90, "max_chars": 80}, "sources.docs: min_chars (90) must be below max_chars (80)"),
    ],
)
def test_a_wrong_field_is_a_sentence_with_its_path(fields, sentence):
    with pytest.raises(ValidationError) as error:
        PythonDocs(**fields)
    (problem,) = explain(error.value, "sources.docs", PythonDocs)
    assert problem.startswith(sentence)


# python_docs.


@pytest.fixture(scope="module")
def docs():
    return PythonDocs().open("docs", Streams(1), Path())


@pytest.mark.slow
def test_python_docs_are_many_clean_different_documents(docs):
    texts = [*everything(docs), *docs.held_out]
    assert len(texts) > 5000 and sum(map(len, texts)) > 1_200_000
    assert len(set(texts)) == len(texts)
    assert all(40 <= len(text) <= 1500 and text == text.strip() for text in texts)
    assert not any("\n\n\n" in text or "  " in text or "\t" in text or ">>>" in text[:3] for text in texts)
    letters = sum(c.isalpha() or c == " " for text in texts for c in text)
    assert letters / sum(map(len, texts)) > 0.9
    assert sum(text.count("\n") for text in texts) / sum(map(len, texts)) < 0.02


@pytest.mark.slow
def test_python_docs_have_a_fixed_order_and_hash(docs):
    assert docs.digest == digest(pl.Series(list(python_docs.documents(40, 1500))))
    again = PythonDocs().open("docs", Streams(1), Path("/elsewhere"))
    assert again.digest == docs.digest and everything(again).equals(everything(docs))


def test_python_docs_leave_out_tests_and_what_is_installed_beside():
    root = python_docs.stdlib()
    parts = {part for file in python_docs._source_files(root) for part in file.relative_to(root).parts}
    assert parts.isdisjoint(python_docs.EXCLUDED) and "asyncio" in parts and "tkinter" in parts


@pytest.mark.slow
def test_a_long_paragraph_occurs_in_one_document_only(docs):
    long = [p for text in [*everything(docs), *docs.held_out] for p in text.split("\n\n") if 60 <= len(p) <= 700]
    assert len(long) == len(set(long))


def test_a_python_without_sources_is_one_sentence(monkeypatch, tmp_path):
    python_docs.raw_texts.cache_clear()
    python_docs.documents.cache_clear()
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(python_docs, "stdlib", lambda: tmp_path)
    monkeypatch.setattr(python_docs, "_topics", lambda: iter(()))
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "short.py").write_text('"""Too short."""')
    with pytest.raises(DataError, match=r"^sources\.docs: .*kind text\.$"):
        PythonDocs().open("docs", Streams(1), Path())
    python_docs.raw_texts.cache_clear()
    python_docs.documents.cache_clear()


def test_what_was_parsed_is_kept_and_parsed_anew_if_it_is_damaged_or_a_file_has_changed(monkeypatch, tmp_path):
    library, cache = tmp_path / "library", tmp_path / "cache"
    library.mkdir()
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(cache))
    monkeypatch.setattr(python_docs, "stdlib", lambda: library)
    monkeypatch.setattr(python_docs, "_topics", lambda: iter(["A topic."]))
    (library / "m.py").write_text('"""First."""')
    read = python_docs.raw_texts.__wrapped__
    first = read()
    assert first == (("m", "First."), ("language", "A topic."))
    [kept] = cache.iterdir()
    monkeypatch.setattr(python_docs, "_docstrings", None)  # nothing is parsed
    assert read() == first
    monkeypatch.undo()
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(cache))
    monkeypatch.setattr(python_docs, "stdlib", lambda: library)
    monkeypatch.setattr(python_docs, "_topics", lambda: iter(["A topic."]))
    kept.write_text(kept.read_text()[:-5])
    assert read() == first
    (library / "m.py").write_text('"""First and second."""')
    assert read()[0] == ("m", "First and second.") and len(list(cache.iterdir())) == 2
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(library / "m.py"))  # no folder: it cannot be written
    assert read()[0] == ("m", "First and second.")


def test_docstrings_come_in_the_order_of_the_file(monkeypatch, tmp_path):
    (tmp_path / "m.py").write_text(
        '"""Module."""\nx = "no docstring"\nif x:\n    class A:\n        """A class."""\n'
        '        def f(self):\n            """A method."""\n            def g():\n                """Inner."""\n'
        'else:\n    async def h():\n        """A coroutine."""\n'
    )
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "t.py").write_text('"""Left out."""')
    assert [text for _, text in python_docs._docstrings(tmp_path, python_docs._source_files(tmp_path))] == [
        "Module.",
        "A class.",
        "A method.",
        "Inner.",
        "A coroutine.",
    ]


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("A title\n=======\n\nText.", "A title\n\nText."),
        ("One.\n\n\n\n\nTwo.", "One.\n\nTwo."),
        ("These are lines\nof a poem\nthat stay apart.", "These are lines\nof a poem\nthat stay apart."),
        (
            "This line was wrapped because the margin had been\nreached at the end of it, and this one was not.",
            "This line was wrapped because the margin had been reached at the end of it, and this one was not.",
        ),
        ("Arguments:\n\n    x -- the one\n    y -- the other", "Arguments:\n\nx -- the one\ny -- the other"),
        ("Example::\n\n>>> f(1)\n[2]\n\nThe end.", "Example:\n\nThe end."),
        ("+----+-----+\n| it | is  |\n+====+=====+\n| a  | box |\n+----+-----+", ""),
        ("stmt ::= 'if' expression", ""),
        ("Use :class:`Thing` or :meth:`~a.b` on ``x`` with *care* and **verve**.",
         "Use Thing or a.b on x with care and verve."),
        ("Call f(*args, **kwargs) or a * b * c.", "Call f(*args, **kwargs) or a * b * c."),
        ("Exponents bind tighter [5].", "Exponents bind tighter."),
        ("a ------------ b or ......... so", "a b or so"),
        ("{1: (2, 3), 4: (5, 6)}", ""),
    ],
)  # fmt: skip
def test_clean(raw, cleaned):
    assert clean(raw) == cleaned


@pytest.mark.parametrize("limit", [7, 20, 60, 1000])
def test_split_keeps_the_words_and_the_limit(limit):
    text = "First things first. Then others.\nA line\n\nParagraph two is longer; it has clauses.\n\nUnbreakabilities"
    pieces = split(text, limit)
    assert all(0 < len(piece) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert split("", limit) == []


def test_split_prefers_paragraphs():
    assert split("aa\nbb\n\ncc dd\n\nee", 6) == ["aa\nbb", "cc dd", "ee"]


# Readers of files.


def texts(source, base=Path(), name="mine"):
    reservoir = source.open(name, Streams(1), base)
    return sorted([*everything(reservoir), *reservoir.held_out])


def test_text_is_cut_at_blank_lines_lines_or_files(tmp_path):
    (tmp_path / "b.txt").write_text("one\ntwo\n\n \n\nthree\n")
    (tmp_path / "a.txt").write_text("\ufefffour\r\n\r\nfive  ", encoding="utf-8", newline="")
    path = str(tmp_path / "*.txt")
    assert texts(TextFiles(path=path)) == ["five", "four", "one\ntwo", "three"]
    assert texts(TextFiles(path=path, split="line")) == ["five", "four", "one", "three", "two"]
    assert texts(TextFiles(path=path, split="file")) == ["four\n\nfive", "one\ntwo\n\nthree"]
    assert texts(TextFiles(path=path, split="file", clean=False, held_out=0))[1] == "one\ntwo\n\n \n\nthree\n"


def test_short_texts_and_exact_duplicates_are_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("no\n\nlonger\n\nlonger\n\nlongest")
    assert texts(TextFiles(path=str(tmp_path / "a.txt"), min_chars=3)) == ["longer", "longest"]


def test_paths_are_sought_here_and_then_beside_the_scenario(tmp_path, monkeypatch):
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here, beside):
        (folder / "data" / "deep").mkdir(parents=True)
    (beside / "data" / "deep" / "x.txt").write_text("beside\n\nit")
    monkeypatch.chdir(here)
    for path in ("data/deep/x.txt", "data/**/*.txt", "data/deep/?.txt"):
        assert texts(TextFiles(path=path), beside) == ["beside", "it"]
    (here / "data" / "deep" / "x.txt").write_text("here\n\nnow")
    assert texts(TextFiles(path="data/**/*.txt"), beside) == ["here", "now"]


def test_jsonl_and_parquet_read_their_column(tmp_path):
    table = pl.DataFrame({"id": [1, 2, 3], "body": ["first", None, "third"]})
    table.write_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_dicts()))
    assert texts(Parquet(path=str(tmp_path / "*.parquet"), column="body")) == ["first", "third"]
    assert texts(JsonLines(path=str(tmp_path / "t.jsonl"), column="body")) == ["first", "third"]


def test_every_reader_gives_the_same_documents_the_same_luck(tmp_path):
    docs = ["alpha", "beta", "gamma", "delta"]
    (tmp_path / "t.txt").write_text("\n\n".join(docs))
    pl.DataFrame({"text": docs}).write_parquet(tmp_path / "t.parquet")
    one = TextFiles(path=str(tmp_path / "t.txt")).open("x", Streams(1), Path())
    two = Parquet(path=str(tmp_path / "t.parquet")).open("x", Streams(1), Path())
    assert one.digest == two.digest and everything(one).equals(everything(two))


GOOD = {"a.txt": b"good\n\ntext", "a.jsonl": b'{"text": "good"}\n{"text": "text"}\n'}
BAD_FILES = [
    (TextFiles, "no.txt", None, {}, r'no such file.*did you mean "a.txt"'),
    (TextFiles, "no/*.md", None, {}, r"no file matches this pattern"),
    (TextFiles, "folder", None, {}, r'is a folder; give a file or a pattern such as "folder/\*\.txt"'),
    (TextFiles, "e.txt", b"", {}, r"contains no text"),
    (TextFiles, "e.txt", b" \n\n \n", {}, r"contains no text"),
    (TextFiles, "e.txt", b"caf\xe9 au lait", {}, r"is not UTF-8 text .* at byte 3.*iconv"),
    (
        TextFiles,
        "e.txt",
        b"ab\n\ncd",
        {"min_chars": 10},
        r"all 2 texts are shorter than min_chars = 10; lower min_chars",
    ),
    (TextFiles, "e.txt", b"only one", {}, r"leaves none to publish"),
    (JsonLines, "folder", None, {}, r'is a folder; .*"folder/\*\.jsonl"'),
    (Parquet, "folder", None, {}, r'is a folder; .*"folder/\*\.parquet"'),
    (JsonLines, "e.jsonl", b"", {}, r"contains no text"),
    (
        JsonLines,
        "e.jsonl",
        b'{"text": "a"}\nnot json\n',
        {},
        r"cannot be read \(line 2 is not JSON.*one JSON object per line",
    ),
    (JsonLines, "e.jsonl", b"[1, 2]\n", {}, r"cannot be read \(line 1 is JSON, but not an object"),
    (JsonLines, "e.jsonl", b'{"txt": "a", "id": 1}\n', {}, r'unknown column "text" \(did you mean "txt"\?\).* txt, id'),
    (
        JsonLines,
        "e.jsonl",
        b'{"text": {"a": 1}}\n',
        {},
        r'the column "text" contains an object in line 1, not text; choose another',
    ),
    (JsonLines, "e.jsonl", b"\xff\xfe\x00", {}, r"is not UTF-8 text .*line 1.*iconv -f UTF-16"),
    (Parquet, "e.parquet", b"", {}, r"cannot be read .*a complete Parquet file"),
    (Parquet, "e.parquet", b"PAR1 nonsense PAR1", {}, r"cannot be read .*a complete Parquet file"),
    (Parquet, "p.parquet", None, {"column": "body"}, r'unknown column "body".* can be: text, n\.'),
    (Parquet, "p.parquet", None, {"column": "n"}, r'the column "n" contains Int64, not text'),
]


@pytest.mark.parametrize(("kind", "path", "content", "fields", "sentence"), BAD_FILES)
def test_everything_wrong_with_a_file_is_one_sentence(tmp_path, monkeypatch, kind, path, content, fields, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name, data in {**GOOD, **({path: content} if content is not None else {})}.items():
        (tmp_path / name).write_bytes(data)
    pl.DataFrame({"text": ["a", "b"], "n": [1, 2]}).write_parquet(tmp_path / "p.parquet")
    with pytest.raises(DataError, match=sentence) as error:
        kind(path=path, **fields).open("mine", Streams(1), tmp_path)
    message = str(error.value)
    assert message.startswith(("sources.mine: ", "sources.mine.held_out: "))
    assert message.endswith(".") and "\n" not in message
    assert path.split("*")[0] in message or "held_out" in message


# Hugging Face datasets.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("hub")
    table = datasets.Dataset.from_dict({"story": ["once", "upon", None, "a time"], "n": [1, 2, 3, 4]})
    datasets.disable_progress_bars()
    table.save_to_disk(str(folder / "one"))
    datasets.DatasetDict({"train": table, "test": table.select([0, 1])}).save_to_disk(str(folder / "parts"))
    (folder / "files").mkdir()
    table.to_parquet(str(folder / "files" / "train-00000.parquet"))
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    if "datasets" in sys.modules:
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize(
    ("folder", "split", "stories"),
    [
        ("one", "train", ["a time", "once", "upon"]),
        ("parts", "test", ["once", "upon"]),
        ("files", "train", ["a time", "once", "upon"]),
        ("files", "train[:2]", ["once", "upon"]),
    ],
)
def test_a_local_dataset_folder_is_read(saved, folder, split, stories):
    assert texts(HubDataset(dataset=folder, split=split, column="story"), saved) == stories
    assert texts(HubDataset(dataset=str(saved / folder), split=split, column="story")) == stories


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"dataset": "one"}, r'unknown column "text".* can be: story, n\.'),
        ({"dataset": "one", "column": "n"}, r'the column "n" contains int, not text'),
        ({"dataset": "parts", "split": "trian"}, r'unknown split "trian" \(did you mean "train"\?\).*test, train'),
        ({"dataset": "nobody/nothing-of-that-name"}, r"cannot be loaded: .*network connection"),
        ({"dataset": "files", "split": "nothing"}, r"cannot be loaded: .*check sources.mine.dataset"),
    ],
)
def test_everything_wrong_with_a_dataset_is_one_sentence(saved, fields, sentence):
    with pytest.raises(DataError, match=sentence) as error:
        HubDataset(**fields).open("mine", Streams(1), saved)
    assert str(error.value).startswith(f"sources.mine: {fields['dataset']}") and "\n" not in str(error.value)


def test_without_the_library_the_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r'^sources\.mine: .*pip install "ecosystem\[hub\]"\.$'):
        HubDataset(dataset="x").open("mine", Streams(1), Path())
