"""Files from users: one set of rules for lookup, compression, encoding and types, in every source and graph file."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
from pathlib import Path

import polars as pl
import pytest
import zstandard

from ecosystem.corpus.web import Web, WebSpec
from ecosystem.errors import DataError, ScenarioError, StoreError
from ecosystem.parsing import MAX_DEPTH, LimitError, parse_json, parse_toml
from ecosystem.runs.records import Commit
from ecosystem.scenario import presets
from ecosystem.scenario.presets import read_toml, with_preset
from ecosystem.sources.files import HubDataset, JsonLines, Parquet, TextFiles
from ecosystem.sources.images import Images
from ecosystem.spec import parse_value
from ecosystem.streams import Streams

DOCS = ["alpha", "beta", "gamma", "delta"]
COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}


def texts(source, base=Path()) -> list[str]:
    reservoir = source.open("mine", Streams(1), base)
    return sorted([*reservoir.rows(range(reservoir.size)), *reservoir.held_out])


def web(file: Path | str, base=Path()) -> Web:
    return Web(WebSpec(kind="file", path=str(file)), Streams(1), base)


def sentence(call, *arguments) -> str:
    with pytest.raises((DataError, ScenarioError, StoreError)) as error:
        call(*arguments)
    message = str(error.value)
    assert "\n" not in message and len(message) < 800
    return message


# Every reader.

CONTENTS = {
    TextFiles: "\n\n".join(DOCS).encode(),
    JsonLines: "".join(json.dumps({"text": doc}) + "\n" for doc in DOCS).encode(),
    Web: b"news blog\nblog forum 2\n",
}


def read(kind, path: str, base=Path()) -> list[str]:
    return web(path, base).labels() if kind is Web else texts(kind(path=path), base)


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[type, bytes]:
    file = tmp_path_factory.mktemp("parquet") / "t.parquet"
    pl.DataFrame({"text": DOCS}).write_parquet(file)
    return {**CONTENTS, Parquet: file.read_bytes()}


@pytest.mark.parametrize("kind", [TextFiles, JsonLines, Parquet, Web])
@pytest.mark.parametrize("path", ["a[1].x", "[b]/a.x", "[b]/a*.x", "what?.x"])
def test_a_path_that_exists_is_literal_in_every_reader(tmp_path, monkeypatch, contents, kind, path):
    folder = tmp_path / "abs [1]*"
    (folder / "[b]").mkdir(parents=True)
    (folder / path.replace("*", "1")).write_bytes(contents[kind])
    monkeypatch.chdir(tmp_path)
    expected = sorted(DOCS) if kind is not Web else ["news", "blog", "forum"]
    assert read(kind, path, folder) == expected
    assert read(kind, str(folder / path)) == expected


def test_images_are_found_by_the_same_rules(tmp_path):
    from PIL import Image

    folder = tmp_path / "digits [28]"
    folder.mkdir()
    for value in (0, 128, 255):
        Image.new("L", (2, 2), value).save(folder / f"{value}.png")
    for path in ("digits [28]", "digits [28]/*.png"):
        assert Images(path=path).open("mine", Streams(1), tmp_path).size == 2
    (tmp_path / "bare").mkdir()
    assert "the folder contains no images" in sentence(Images(path="bare").open, "mine", Streams(1), tmp_path)


@pytest.mark.parametrize("kind", [TextFiles, JsonLines, Parquet, Web])
@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_files_are_read_and_damaged_ones_refused(tmp_path, contents, kind, ending):
    file = tmp_path / f"t.x.{ending}"
    data = COMPRESS[ending](contents[kind])
    file.write_bytes(data)
    assert read(kind, str(file)) == (sorted(DOCS) if kind is not Web else ["news", "blog", "forum"])
    for damaged in (data[:-9], data[:6] + bytes(len(data) - 6)):
        file.write_bytes(damaged)
        assert f"{file}: " in sentence(read, kind, str(file))


def test_all_parts_of_a_compressed_file_are_read(tmp_path):
    for ending, compress in COMPRESS.items():
        file = tmp_path / f"t.{ending}"
        file.write_bytes(compress(b"one\n\ntwo\n\n") + compress(b"three"))
        assert texts(TextFiles(path=str(file))) == ["one", "three", "two"]


@pytest.mark.parametrize("kind", [TextFiles, JsonLines, Web])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04rest", "is a ZIP archive; unpack it"),
        (b"PAR1rest", 'is a Parquet file; read it as a source of kind = "parquet"'),
        ("two words".encode("utf-16"), 'is not UTF-8 text .*iconv -f UTF-16 -t UTF-8"'),
        (b"caf\xe9 noir", 'is not UTF-8 text .*at byte 3.*iconv -f WINDOWS-1252 -t UTF-8"'),
    ],
)
def test_other_formats_and_encodings_are_refused_by_every_reader_of_text(tmp_path, kind, data, said):
    (tmp_path / "t.x").write_bytes(data)
    with pytest.raises(DataError, match=said):
        read(kind, "t.x", tmp_path)


@pytest.mark.parametrize("kind", [TextFiles, JsonLines, Web])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, kind):
    (tmp_path / "t.x").write_bytes(b"\xef\xbb\xbf" + CONTENTS[kind])
    assert read(kind, "t.x", tmp_path) == (sorted(DOCS) if kind is not Web else ["news", "blog", "forum"])


def test_lines_of_any_white_space_are_blank(tmp_path):
    gaps = ["\n\n", "\n\u00a0\n", "\n\u3000\n", "\n\f\n", "\n \t\n"]
    (tmp_path / "t.txt").write_text("".join(f"text {i}{gap}" for i, gap in enumerate(gaps)))
    assert read(TextFiles, "t.txt", tmp_path) == [f"text {i}" for i in range(len(gaps))]


def test_links_to_nothing_and_devices_are_named(tmp_path):
    (tmp_path / "link-gone.txt").symlink_to(tmp_path / "missing")
    (tmp_path / "link-there.txt").write_text("one\n\ntwo")
    assert "gone.txt: cannot be read (No such file or directory)" in sentence(read, TextFiles, "link-*.txt", tmp_path)
    assert "is neither a file nor a folder" in sentence(read, TextFiles, "/dev/null", tmp_path)


def test_a_folder_below_a_pattern_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "walked.txt").write_text("one\n\ntwo")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    pattern = f"{tmp_path}/**/walked.txt"
    assert "cannot be read (Permission denied)" in sentence(read, TextFiles, pattern, tmp_path)


def test_nul_characters_are_refused(tmp_path):
    (tmp_path / "t.txt").write_bytes("one\n\ntwo".encode("utf-16-le"))
    assert "contains NUL characters (the first after 1 characters)" in sentence(read, TextFiles, "t.txt", tmp_path)


def test_a_name_too_long_for_the_system_is_one_sentence(tmp_path):
    assert "cannot be read (File name too long)" in sentence(read, TextFiles, "a" * 300, tmp_path)


# Documents.


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": 1}, "an object in line 4"),
        ([1], "a list in line 4"),
        (155, "a number in line 4"),
        (True, "true or false in line 4"),
    ],
)
def test_a_value_that_is_not_text_is_refused_with_its_line(tmp_path, value, said):
    rows = [{"text": "one"}, {"text": None}, {"other": 1}, {"text": value}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert f'the column "text" contains {said}, not text' in sentence(read, JsonLines, "t.jsonl", tmp_path)


@pytest.mark.parametrize(
    "others",
    [
        '"meta": {"a": 1}}\n{"text": "two", "meta": [1, {"b": 2}]',
        '"score": NaN}\n{"score": -Infinity, "text": "two"',
        '"id": ' + "9" * 5000 + '}\n{"text": "two", "id": "x"',
        '"id": 1, "id": 2}\n\n{"text": "two"',
        '"id": "\\ud800"}\r\n{"text": "two"',
    ],
)
def test_columns_that_are_not_read_may_hold_anything(tmp_path, others):
    (tmp_path / "t.jsonl").write_text('{"text": "one", ' + others + "}\n")
    assert read(JsonLines, "t.jsonl", tmp_path) == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a", "text": "b"}', 'line 2 contains the key "text" 2 times; leave one.'),
        ('{"text": "\\ud83d"}', "half of a surrogate pair in line 2"),
        ('{"text": ' + "[" * 100_000, "line 2 is nested too deeply"),
        ('{"text": ' + "9" * 5000 + "}", "a number in line 2"),
        ('{"text": "a"', "line 2 is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    (tmp_path / "t.jsonl").write_text('{"text": "one"}\n' + line + "\n")
    assert said in sentence(read, JsonLines, "t.jsonl", tmp_path)


def test_one_json_value_over_several_lines_is_explained(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps([{"text": "a"}], indent=1))
    assert "if the file is one JSON value, convert it to JSON lines" in sentence(read, JsonLines, "t.json", tmp_path)


def test_categories_and_enumerations_of_parquet_are_text_and_other_types_are_named_briefly(tmp_path):
    names = [f"category {i:05}" for i in range(3000)]
    table = pl.DataFrame({"text": names[:3]})
    for dtype in (pl.Enum(names), pl.Categorical):
        table.cast(dtype).write_parquet(tmp_path / "t.parquet")
        assert read(Parquet, "t.parquet", tmp_path) == names[:3]
    wide = pl.DataFrame({"text": [dict.fromkeys(names, 1)]})
    for frame, said in ((wide, "Struct"), (table.cast(pl.Binary), "Binary")):
        frame.write_parquet(tmp_path / "t.parquet")
        assert f"contains {said}, not text" in sentence(read, Parquet, "t.parquet", tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data.replace(b"delta", b"\xff\xfe\xfa\xf9\xf8"), "invalid UTF-8"),
        (lambda data: data[:-5], "cannot be read .* complete Parquet file"),
        (lambda data: data[: len(data) // 2], "cannot be read .* complete Parquet file"),
    ],
)
def test_damaged_parquet_is_refused(tmp_path, damage, said):
    file = tmp_path / "t.parquet"
    pl.DataFrame({"text": DOCS}).write_parquet(file, compression="uncompressed")
    assert read(Parquet, "t.parquet", tmp_path) == sorted(DOCS)
    file.write_bytes(damage(file.read_bytes()))
    assert re.search(said, sentence(read, Parquet, "t.parquet", tmp_path))


@pytest.mark.parametrize("compression", ["brotli", "gzip", "lz4", "snappy", "zstd"])
def test_every_compression_of_parquet_is_read(tmp_path, compression):
    table = pl.DataFrame({"text": DOCS})
    table.write_parquet(tmp_path / "t.parquet", compression=compression)
    assert read(Parquet, "t.parquet", tmp_path) == sorted(DOCS)


def test_a_file_of_many_columns_lists_some_of_them(tmp_path):
    pl.DataFrame({f"a long name of a column {i}": ["x"] for i in range(500)}).write_parquet(tmp_path / "t.parquet")
    assert 'unknown column "text"' in sentence(read, Parquet, "t.parquet", tmp_path)


def test_text_without_visible_characters_is_left_out(tmp_path):
    (tmp_path / "t.txt").write_text("\u200b\n\none\n\n\u200b \ufeff\n\nt\u200bwo", encoding="utf-8")
    assert read(TextFiles, "t.txt", tmp_path) == ["one", "t\u200bwo"]
    (tmp_path / "t.txt").write_text("\u200b\n\n\u2060", encoding="utf-8")
    assert "contains no text" in sentence(read, TextFiles, "t.txt", tmp_path)


def test_copies_of_one_text_are_refused(tmp_path):
    (tmp_path / "t.txt").write_text("same\n\n same\n\nsame")
    assert "all 3 texts are equal; give different texts" in sentence(read, TextFiles, "t.txt", tmp_path)


# Saved datasets.


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("saved")
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_dict({"text": [f"document {i}" for i in range(60)]})
    table.save_to_disk(str(folder / "one"))
    datasets.DatasetDict({"train": table, "test": table.select(range(50, 60))}).save_to_disk(str(folder / "parts"))
    table.select(range(50, 60)).to_parquet(str(folder / "test.parquet"))
    held = datasets.Dataset.from_parquet(str(folder / "test.parquet"), split="test", cache_dir=str(folder / "cache"))
    held.save_to_disk(str(folder / "test"))
    return folder


@pytest.mark.parametrize(
    ("folder", "split", "rows"),
    [
        ("one", "train[:10]", range(10)),
        ("one", "train[-10%:]", range(54, 60)),
        ("parts", "train[10:13]+test[:2]", [10, 11, 12, 50, 51]),
        ("parts", "test[5:]", range(55, 60)),
        ("test", "test", range(50, 60)),
    ],
)
def test_slices_of_saved_datasets_are_used(saved, folder, split, rows):
    assert texts(HubDataset(dataset=folder, split=split), saved) == sorted(f"document {i}" for i in rows)


@pytest.mark.parametrize(
    ("folder", "split", "said"),
    [
        ("test", "train", 'unknown split "train"; sources.mine.split can be: test, or a slice'),
        ("one", "test", 'unknown split "test"; sources.mine.split can be: train, or a slice'),
        ("one", "trian[:3]", 'unknown split "trian" (did you mean "train"?)'),
        ("one", "train[3", "cannot be loaded"),
        ("parts", "test[:3]+valid", 'unknown split "valid"'),
    ],
)
def test_unknown_splits_and_slices_of_saved_datasets_are_refused(saved, folder, split, said):
    assert said in sentence(texts, HubDataset(dataset=folder, split=split), saved)


# Graph files.


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("net.json", '{"nodes": [1]}', "is JSON"),
        ("net.txt", '{\n "nodes": [1]}', "is JSON"),
        ("net.txt", "[\n  {", "is JSON"),
        ("net.net", "*Vertices 2\n1 a\n2 b\n", "is Pajek"),
        ("net.txt", "% made by Pajek\n*Vertices 2\n1 a\n", "is Pajek"),
        ("net.gexf", '<?xml version="1.0"?><gexf/>', "is XML, but not GraphML"),
        ("net.txt", "%%MatrixMarket matrix\n2 2 1\n1 2\n", "is Matrix Market"),
        ("net.txt", "digraph net {\n a -> b\n}\n", "is DOT"),
        ("net.gv", "a -- b\n", "is DOT"),
        ("net.gml", "graph [ node [ id 1 ]", "is not a GML file"),
        ("net.gml", "graph [ node [ id 1 ] edge [ source 1 target 2 ] ]", "is not a GML file"),
    ],
)
def test_other_formats_of_graphs_are_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    message = sentence(web, name, tmp_path)
    assert message.startswith("web.path: ") and said in message and message.endswith(".")


GML = """Creator "someone"
graph [ directed 1 multigraph 1
  node [ id 7 label "The Times" ] node [ id 3 label "Café" ] node [ id 5 ]
  edge [ source 7 target 3 weight 2 ] edge [ source 7 target 3 weight 0.5 ] edge [ source 3 target 5 ]
]"""


@pytest.mark.parametrize("name", ["net.gml", "net.txt", "net"])
def test_gml_is_read_under_any_name(tmp_path, name):
    (tmp_path / name).write_text(GML, encoding="utf-8")
    graph = web(name, tmp_path)
    assert graph.labels() == ["The Times", "Café", "5"] and graph.links() == [(0, 1, 2.5), (1, 2, 1.0)]


NODES = (
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="undirected"><node id="a">{}</node>{}'
)


def test_graphml_is_read_under_any_name_and_in_its_encoding(tmp_path):
    text = NODES.format(
        "", '<node id="é"/><edge source="a" target="é"/><edge source="é" target="a"/></graph></graphml>'
    )
    head = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!-- a comment -->\n'
    (tmp_path / "net.txt").write_bytes((head + text).encode("latin-1"))
    graph = web("net.txt", tmp_path)
    assert graph.labels() == ["a", "é"] and graph.links() == [(0, 1, 2.0), (1, 0, 2.0)]


@pytest.mark.parametrize("inner", ['<graph edgedefault="directed"><node id="b"/></graph>', ""])
def test_several_graphs_in_a_file_are_refused(tmp_path, inner):
    after = "</graph></graphml>" if inner else '</graph><graph edgedefault="directed"/></graphml>'
    (tmp_path / "net.graphml").write_text(NODES.format(inner, after))
    assert "contains several graphs, or a graph inside a node" in sentence(web, "net.graphml", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "Source,Target,Weight\na,b,2\nb,c,1\n",
        "from\tto\na\tb\t2\nb\tc\n",
        "a;b;2\nb;c\n",
        "a | b | 2\nb | c\n",
        "% a comment\n  # another\na b 2 # and one more\nb c #\n",
        '"a" "b" 2\r\n"b","c"\r\n\x1a',
        "# nothing\nsource target\na b 2\nb c\n",
    ],
)
def test_headers_separators_quotes_and_comments_of_edge_lists(tmp_path, text):
    (tmp_path / "net.csv").write_text(text, newline="")
    graph = web("net.csv", tmp_path)
    assert graph.labels() == ["a", "b", "c"]
    assert graph.links() == [(0, 1, 2.0), (1, 0, 2.0), (1, 2, 1.0), (2, 1, 1.0)]


@pytest.mark.parametrize("separator", [",", ";", "\t", " | ", ", ", "\t\t"])
def test_names_with_spaces_need_no_quotes_between_other_separators(tmp_path, separator):
    rows = [("source", "target"), ("Hub", "Site 1"), ("Hub", "Site 2"), ("New York", "Hub", "2.5")]
    (tmp_path / "net.csv").write_text("".join(f"{separator.join(row)} # note\n" for row in rows))
    graph = web("net.csv", tmp_path)
    assert graph.labels() == ["Hub", "Site 1", "Site 2", "New York"]
    assert graph.links()[:3] == [(0, 1, 1.0), (0, 2, 1.0), (0, 3, 2.5)]


def test_names_may_contain_a_hash_and_in_quotes_anything(tmp_path):
    (tmp_path / "net.txt").write_text(
        'page#1,page#2\nhttps://a.org/#top page#1\n"New York, N.Y.","say ""hi"""\n"#tag" "% x"\n'
    )
    assert web("net.txt", tmp_path).labels() == [
        "page#1", "page#2", "https://a.org/#top", "New York, N.Y.", 'say "hi"', "#tag", "% x"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a #b\n", "line 1: '#b' may be a name or a comment"),
        ("a,b #c\n", "line 1: '#c' may be a name or a comment"),
        ("New York San Francisco\n", "line 1 has 4 entries"),
        ("a,,2\n", "line 1: a name or weight is missing between separators"),
        (",b\n", "line 1: a name or weight is missing"),
        ('a ""\n', "line 1: a name or weight is missing"),
        ('a "b c\n', "line 1: a double quote is not closed"),
        ("source,target\nsource,news\n", "line 1 looks like a header, but line 2 uses its words"),
        ("source,target\n", "contains no sites"),
        ("a b nan\n", "line 1: the weight must be a number above 0"),
        ("a\x01b,c\n", 'line 1: the name "a␁b" contains control characters'),
        ("id,source,target,weight\n1,a,b,1\n", "line 1 has 4 entries"),
    ],
)
def test_lines_of_an_edge_list_that_can_mean_several_things_are_refused(tmp_path, text, said):
    (tmp_path / "net.txt").write_text(text)
    assert said in sentence(web, "net.txt", tmp_path)


def test_a_pattern_names_one_graph_file(tmp_path):
    for name in ("a1.txt", "a2.txt"):
        (tmp_path / name).write_text("news blog\n")
    assert "this pattern matches 2 files; give one file" in sentence(web, "a*.txt", tmp_path)
    assert web("a1*", tmp_path).labels() == ["news", "blog"]


# TOML, --set and records.

TOO_MUCH = ["9" * 5000, "0x" + "f" * 5000, "[" * 100_000, "[" * 300 + "]" * 300]


@pytest.mark.parametrize("value", TOO_MUCH)
def test_values_beyond_the_limits_are_refused_in_toml_and_set(tmp_path, value):
    file = tmp_path / "s.toml"
    file.write_text(f"steps = {value}\n")
    message = sentence(read_toml, file)
    assert message.startswith(f"{file}: is not valid TOML: ") and ("nested more than" in message or "digits" in message)
    message = sentence(parse_value, value)
    assert "nested more than" in message or "digits" in message


@pytest.mark.parametrize("text", ["a" + ".a" * 100 + " = 1", "[a" + ".a" * 5000 + "]"])
def test_dotted_keys_count_as_nesting(text):
    with pytest.raises(LimitError, match=f"nested more than {MAX_DEPTH} deep"):
        parse_toml(text)


def test_values_within_the_limits_are_kept():
    depth = MAX_DEPTH - 1
    assert parse_toml(f"v = {'[' * depth}{']' * depth}") and parse_json(f"{'[' * depth}1{']' * depth}")
    assert parse_value("9" * 99) == int("9" * 99) and parse_value("no [ toml") == "no [ toml"


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000, "[" * 300 + "]" * 300])
def test_a_commit_record_beyond_the_limits_is_damaged(tmp_path, value):
    file = tmp_path / "commits" / "000000.json"
    file.parent.mkdir()
    file.write_text(f'{{"step": {value}}}')
    assert "is damaged" in sentence(Commit.read, file)


# Files that come with the package.


def test_a_missing_scenario_that_comes_with_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = sentence(read_toml, Path("scenarios/smoke.toml"))
    place = message.partition("a file of this name comes with ecosystem: ")[2].rstrip(".")
    assert Path(place).is_file() and Path(place).name == "smoke.toml"


def test_a_package_without_its_files_says_so(monkeypatch):
    monkeypatch.setattr(presets, "bundled", lambda *_: [])
    assert "ecosystem does not find its own files" in sentence(with_preset, {"preset": "house"}, None)
