"""Files with graphs of sites: read GraphML and edge lists, write GraphML and GEXF."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from ecosystem.errors import DataError, StoreError, nearest

WRITABLE = (".graphml", ".gexf")


def read_graph(path: str, base: Path) -> Any:
    """Read a graph; number its nodes 0 … n - 1 in the order of the file and store their names as ``label``.

    Files ending in ``.graphml`` or ``.xml`` are GraphML, directed or not, with an optional ``weight`` of links. All
    others are undirected edge lists: each line has two names and an optional weight, separated by white space or
    commas; ``#`` begins a comment. Raises DataError with the file name if the file is missing, empty or malformed.
    """
    file = _locate(path, base)
    try:
        graph = _read_graphml(file) if file.suffix.lower() in (".graphml", ".xml") else _read_edges(file)
    except UnicodeDecodeError as error:
        raise DataError(
            f"web.path: {file}: is not UTF-8 text ({error.reason} at byte {error.start:,}); convert it."
        ) from None
    except OSError as error:
        raise DataError(f"web.path: {file}: cannot be read: {error.strerror}; give a file that can be read.") from None
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


def _locate(path: str, base: Path) -> Path:
    relative = Path(path).expanduser()
    candidates = [Path.cwd() / relative, base / relative]
    for file in candidates:
        if file.is_file():
            return file
        if file.is_dir():
            raise DataError(f"web.path: {path}: is a folder; give a GraphML file or an edge list.")
    folders = [file.parent for file in candidates if file.parent.is_dir()]
    siblings = {str(relative.with_name(file.name)) for folder in folders for file in folder.iterdir()}
    raise DataError(
        f"web.path: {path}: no such file, neither in the current folder nor in the scenario's"
        f"{nearest(path, siblings)}; correct web.path."
    )


def _read_graphml(file: Path) -> Any:
    import networkx as nx

    if not file.stat().st_size:
        raise DataError(f"web.path: {file}: is empty; give a graph with at least one site.")
    try:
        parsed = nx.read_graphml(file)
    except OSError:
        raise
    # networkx does not validate the file; a malformed one raises errors of many types.
    except (ParseError, nx.NetworkXException, LookupError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"web.path: {file}: is not a GraphML file ({type(error).__name__}: {_short(error)}).") from None
    graph: Any = nx.DiGraph() if parsed.is_directed() else nx.Graph()
    number = {name: i for i, name in enumerate(parsed.nodes)}
    for name, node in parsed.nodes(data=True):
        graph.add_node(number[name], label=str(node.get("label", name)))
    for a, b, link in parsed.edges(data=True):
        graph.add_edge(number[a], number[b], weight=_weight(link.get("weight", 1.0), file, f"link {a} - {b}"))
    return graph


def _read_edges(file: Path) -> Any:
    import networkx as nx

    graph: Any = nx.Graph()
    number: dict[str, int] = {}
    for line_number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1):
        names = line.split("#", 1)[0].replace(",", " ").split()
        if not names:
            continue
        where = f"line {line_number}"
        if len(names) > 3:
            raise DataError(
                f"web.path: {file}: {where} has {len(names)} entries; a line of an edge list has two names and an "
                "optional weight (a line with one name is a site without links)."
            )
        for name in names[:2]:
            number.setdefault(name, len(number))
            graph.add_node(number[name], label=name)
        if len(names) > 1:
            weight = _weight(names[2], file, where) if len(names) == 3 else 1.0
            graph.add_edge(number[names[0]], number[names[1]], weight=weight)
    return graph


def _weight(value: Any, file: Path, where: str) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise DataError(f"web.path: {file}: {where}: the weight must be a number above 0, not {value!r}.")
    return weight


def _short(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or "no details")[:160].rstrip(".")
