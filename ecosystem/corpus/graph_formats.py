"""Recognise the format of a graph file, and parse GraphML, GML and edge lists."""

from __future__ import annotations

import codecs
import re
from io import BytesIO
from itertools import pairwise
from typing import Any, Literal
from xml.etree import ElementTree

Format = Literal["GML", "edge list"]

_OTHER_ENDINGS = {
    ".dl": "UCINET",
    ".dot": "DOT",
    ".g6": "graph6",
    ".gexf": "GEXF",
    ".gv": "DOT",
    ".json": "JSON",
    ".mtx": "Matrix Market",
    ".net": "Pajek",
    ".paj": "Pajek",
    ".s6": "sparse6",
    ".xlsx": "Excel",
}
_OTHER_CONTENTS = {
    r"<": "XML, but not GraphML",
    r"\{\s*[\"}]|\[\s*[\[{\"\]]": "JSON",
    r"\*\s*(?:vertices|network|arcs|edges)\b": "Pajek",
    r"%%MatrixMarket": "Matrix Market",
    r"dl\s+n\s*=": "UCINET",
    r"(?:strict\s+)?(?:di)?graph\b[^\n]*\{": "DOT",
    r">>(?:graph|sparse|digraph)6<<": "graph6",
}
_GML = re.compile(
    r"(?:\s*(?:#[^\n]*|(?:creator|comment|version)\b[^\n]*|directed\s+[01]))*\s*graph\s*\[", re.IGNORECASE
)
_QUOTED = r'"(?:[^"]|"")*"'
_COMMENT = re.compile(rf"{_QUOTED}|(?:^|\s)#(?=\s|$)")
_SIGNS, _TABS = re.compile(r"[,;|]"), re.compile(r"\t")
_ENTRIES = {  # separator → entries, and signs
    _SIGNS: re.compile(rf"\s*({_QUOTED}(?=\s*(?:[,;|]|$))|[,;|]|[^\s,;|](?:[^,;|]*[^\s,;|])?)\s*"),
    _TABS: re.compile(rf"\s*({_QUOTED}(?=\s*(?:\t|$))|\S(?:[^\t]*[^\s])?)\s*"),
}
_MIXED = re.compile(rf"{_QUOTED}(?=[\s,;|]|$)|[^\s,;|]+|[,;|]")  # signs or white space, from line to line
_COMMENTS = re.compile(r"\A(?:\s*(?:[#%][^\n]*)?\n)*\s*")
_HEADERS = (
    {"source", "target"},
    {"from", "to"},
    {"src", "dst"},
    {"src", "dest"},
    {"from_id", "to_id"},
    {"source_id", "target_id"},
    {"fromnodeid", "tonodeid"},
    {"node1", "node2"},
    {"node_1", "node_2"},
    {"site1", "site2"},
)
_NUMBER = re.compile(r"[-+]?(?:\d|\.\d|nan|inf)", re.IGNORECASE)


class GraphFormatError(ValueError):
    """A graph file of another format or with a malformed part; the message is the end of a sentence."""


def format_of(text: str, suffix: str) -> Format:
    """Return the format of a graph file other than GraphML; raise GraphFormatError for one that is not read."""
    if suffix == ".gml" or _GML.match(text):
        return "GML"
    for pattern, name in _OTHER_CONTENTS.items():
        if any(re.match(pattern, start, re.IGNORECASE) for start in (text.lstrip(), _COMMENTS.sub("", text))):
            raise _unknown(name)
    if suffix in _OTHER_ENDINGS:
        raise _unknown(_OTHER_ENDINGS[suffix])
    return "edge list"


def _unknown(name: str) -> GraphFormatError:
    return GraphFormatError(f"is {name}; convert it to GraphML, GML or an edge list")


def is_graphml(data: bytes, suffix: str) -> bool:
    """Return whether a graph file is meant as GraphML, by its ending or its first bytes."""
    start = data[:2000].removeprefix(codecs.BOM_UTF8).lstrip()
    return suffix in (".graphml", ".xml") or bool(re.match(rb"<(?:.*<)?(?:\w+:)?graphml\b", start, re.DOTALL))


def parse_graphml(data: bytes) -> Any:
    """Return the networkx graph of a GraphML file; raise GraphFormatError if it contains more than one graph."""
    import networkx as nx

    elements = (element for _, element in ElementTree.iterparse(BytesIO(data), events=("start",)))
    if sum(element.tag.rpartition("}")[2] == "graph" for element in elements) > 1:
        raise GraphFormatError("contains several graphs, or a graph inside a node; give one plain graph")
    return nx.read_graphml(BytesIO(data))


def parse_gml(text: str) -> Any:
    """Return the networkx graph of a GML file, with ids as nodes and names in the attribute ``label``."""
    import networkx as nx

    return nx.parse_gml(text, label="id")


def parse_edges(text: str) -> list[tuple[int, list[str]]]:
    """Return the line number and the entries (names, weight) of every line of an edge list, without header.

    Raises GraphFormatError for a malformed line, and for a header whose words are names of sites too.
    """
    numbered = enumerate(text.rstrip("\x1a \n").split("\n"), start=1)  # ^Z ended text files of DOS
    plain = [(number, _without_comment(line)) for number, line in numbered]
    entry = _entry_pattern([line for _, line in plain])
    lines = [(number, entries) for number, line in plain if (entries := _entries(line, number, entry))]
    if not lines or not _is_header(lines[0][1]):
        return lines
    words = set(lines[0][1][:2])
    again = next((number for number, entries in lines[1:] if words & set(entries[:2])), None)
    if again is not None:
        raise GraphFormatError(
            f"line {lines[0][0]} looks like a header, but line {again} uses its words as names of sites; remove the "
            "header, or, if it is a link, move it below another line"
        )
    return lines[1:]


def _without_comment(line: str) -> str:
    """Return a line without its comment and without white space around."""
    if line.lstrip().startswith(("#", "%")):
        return ""
    comment = next((found.start() for found in _COMMENT.finditer(line) if not found[0].startswith('"')), None)
    return line[:comment].strip()


def _entry_pattern(lines: list[str]) -> re.Pattern[str]:
    """Return a pattern of entries; names may contain spaces if the same signs, or tabs, separate those of all lines."""
    unquoted = [re.sub(_QUOTED, "q", line) for line in lines]
    for separator, entry in _ENTRIES.items():
        if any(map(separator.search, unquoted)) and all(separator.search(x) for x in unquoted if re.search(r"\s", x)):
            return entry
    return _MIXED


def _entries(line: str, number: int, pattern: re.Pattern[str]) -> list[str]:
    """Return the names and the weight on a line; none if the line is blank."""
    found = pattern.findall(line)
    names = [entry for i, entry in enumerate(found) if not entry.startswith('"') and (i or " #" in entry)]
    ambiguous = next((mark[0].strip() for entry in names if (mark := re.search(r"(?:^|\s)#\S*", entry))), None)
    if ambiguous is not None:
        raise GraphFormatError(
            f"line {number}: {ambiguous!r} may be a name or a comment; put a name in double quotes, and white space "
            "after the # of a comment"
        )
    if any(entry.startswith('"') and not (len(entry) > 1 and entry.endswith('"')) for entry in found):
        raise GraphFormatError(f"line {number}: a double quote is not closed")
    signs = [entry in (",", ";", "|") for entry in found]
    if '""' in found or signs[:1] == [True] or any(a and b for a, b in pairwise(signs)):
        raise GraphFormatError(f"line {number}: a name or weight is missing between separators")
    entries = [entry for entry, sign in zip(found, signs, strict=True) if not sign]
    if len(entries) > 3:
        raise GraphFormatError(
            f"line {number} has {len(entries)} entries; a line of an edge list has two names and an optional weight (a "
            "line with one name is a site without links), and a name with separators is put in double quotes"
        )
    return [entry[1:-1].replace('""', '"') if entry.startswith('"') else entry for entry in entries]


def _is_header(entries: list[str]) -> bool:
    names = {entry.lower() for entry in entries[:2]}
    return names in _HEADERS and (len(entries) == 2 or not _NUMBER.match(entries[2]))
