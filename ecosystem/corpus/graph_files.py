"""Files with graphs of sites: read GraphML, GML and edge lists, write GraphML and GEXF."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from ecosystem.corpus.graph_formats import (
    GraphFormatError,
    format_of,
    is_graphml,
    parse_edges,
    parse_gml,
    parse_graphml,
)
from ecosystem.errors import DataError, StoreError
from ecosystem.formats import visible
from ecosystem.input_files import COMPRESSED, InputFiles, summary

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
WRITABLE = (".graphml", ".gexf")


def find_graph(path: str, base: Path) -> Path:
    """Return the file of a graph; raise DataError if there is none, or several, or it cannot be opened."""
    places = InputFiles("web.path", "web.path", base)
    files = places.find(path, "is a folder; give a GraphML file or an edge list")
    if len(files) > 1:
        raise DataError(f"web.path: {path}: this pattern matches {len(files)} files; give one file.")
    places.require_readable(files)
    return files[0]


def read_graph(path: str, base: Path) -> Any:
    """Read a graph; number its nodes 0 … n - 1 in the order of the file and store their names as ``label``.

    GraphML and GML may be directed, with an optional ``weight`` of links. Everything else is an undirected edge list,
    unless it is recognised as another format. The weights of parallel links are added. :mod:`ecosystem.input_files`
    lists all rules. Raises DataError with the file name if the file is missing, empty, malformed or of another format.
    """
    places, file = InputFiles("web.path", "web.path", base), find_graph(path, base)
    data = places.read_bytes(file)
    suffix = Path(file.stem).suffix if file.suffix in COMPRESSED else file.suffix
    try:
        if is_graphml(data, suffix.lower()):
            graph = _numbered(_parse_graphml(data, file), file)
        else:
            text = places.decode(file, data)
            gml = format_of(text, suffix.lower()) == "GML"
            graph = _numbered(_parse_gml(text, file), file) if gml else _from_edges(parse_edges(text), file)
    except GraphFormatError as error:
        raise DataError(f"web.path: {file}: {error}.") from None
    if graph.number_of_nodes() == 0:
        raise DataError(f"web.path: {file}: contains no sites; give a graph with at least one.")
    return graph


def write_graph(graph: Any, file: Path) -> None:
    """Write a graph as GraphML or GEXF, by the ending of ``file``; attributes are numbers, texts or booleans.

    Raises DataError for another ending, and StoreError if the file cannot be written.
    """
    import networkx as nx

    suffix = file.suffix.lower()
    if suffix not in WRITABLE:
        raise DataError(
            f"{file}: unknown format {suffix or '(no ending)'}; choose a name ending in {' or '.join(WRITABLE)}."
        )
    try:
        if suffix == ".graphml":
            nx.write_graphml_xml(graph, file)
        else:
            nx.write_gexf(graph, file)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written: {error.strerror}; choose another place.") from None


def _parse_graphml(data: bytes, file: Path) -> Any:
    if not data:
        raise DataError(f"web.path: {file}: is empty; give a graph with at least one site.")
    with _malformed("GraphML", file):
        return parse_graphml(data)


def _parse_gml(text: str, file: Path) -> Any:
    with _malformed("GML", file):
        return parse_gml(text)


@contextmanager
def _malformed(name: str, file: Path) -> Iterator[None]:
    """Raise every error of networkx, which does not validate files, as a DataError."""
    import networkx as nx

    try:
        yield
    except GraphFormatError:
        raise
    except (
        ParseError,
        nx.NetworkXException,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise DataError(
            f"web.path: {file}: is not a {name} file ({type(error).__name__}: {summary(error)}); correct it, or save "
            "the graph again."
        ) from None


def _numbered(parsed: Any, file: Path) -> Any:
    """Return a graph of networkx with numbered nodes and simple, weighted links."""
    import networkx as nx

    graph: Any = nx.DiGraph() if parsed.is_directed() else nx.Graph()
    number = {name: i for i, name in enumerate(parsed.nodes)}
    for name, node in parsed.nodes(data=True):
        graph.add_node(number[name], label=_name(str(node.get("label", name)), file, f"node {number[name] + 1}"))
    for a, b, link in parsed.edges(data=True):
        where = f"link {visible(a)} - {visible(b)}"
        _add_link(graph, number[a], number[b], _weight(link.get("weight", 1.0), file, where))
    return graph


def _from_edges(lines: list[tuple[int, list[str]]], file: Path) -> Any:
    import networkx as nx

    graph: Any = nx.Graph()
    number: dict[str, int] = {}
    for line_number, entries in lines:
        where = f"line {line_number}"
        for name in entries[:2]:
            number.setdefault(name, len(number))
            graph.add_node(number[name], label=_name(name, file, where))
        if len(entries) > 1:
            weight = _weight(entries[2], file, where) if len(entries) == 3 else 1.0
            _add_link(graph, number[entries[0]], number[entries[1]], weight)
    return graph


def _add_link(graph: Any, a: int, b: int, weight: float) -> None:
    """Add a link, or add its weight to that of a parallel one."""
    graph.add_edge(a, b, weight=weight + (graph.edges[a, b]["weight"] if graph.has_edge(a, b) else 0.0))


def _name(name: str, file: Path, where: str) -> str:
    """Return the name of a site; raise DataError if it contains characters that no XML file can."""
    if _NOT_XML.search(name):
        raise DataError(
            f'web.path: {file}: {where}: the name "{visible(name)}" contains control characters; correct it.'
        )
    return name


def _weight(value: Any, file: Path, where: str) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise DataError(f"web.path: {file}: {where}: the weight must be a number above 0, not {value!r}.")
    return weight
