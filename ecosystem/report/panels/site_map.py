"""Maps of the site graph at step 0, the middle step and the last step, in one layout."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.calendar import Calendar, step_name
from ecosystem.errors import StoreError
from ecosystem.report import charts
from ecosystem.report.charts import ChartLabels
from ecosystem.streams import Streams

LINKS = 1500  # maximum number of links drawn; more would merge into a grey area
SEED = 1


def graphs(folder: Path, metrics: pl.DataFrame, last: int, calendar: Calendar | None = None) -> list[tuple[str, Any]]:
    """Draw the site graph at up to three steps, as (name, chart); empty if the graph or its metrics are missing."""
    measured = metrics.filter((pl.col("scope") == "site") & pl.col("metric").is_in(["documents", "synthetic_share"]))
    file = folder / "web.graphml"
    if measured.is_empty() or not file.is_file():
        return []
    graph = _read(file)
    places = layout(graph)
    index = {node: i for i, node in enumerate(graph.nodes)}
    every_link = np.array([(index[a], index[b]) for a, b in graph.edges], dtype=np.int64).reshape(-1, 2)
    sites = pl.DataFrame(
        {
            "id": [str(node) for node in graph.nodes],
            "site": [str(name) for _, name in graph.nodes(data="label")],
            "x": places[:, 0].round(4),
            "y": places[:, 1].round(4),
        }
    ).with_columns(site=pl.when(pl.col("site") == "None").then("id").otherwise("site"))
    steps = sorted({0, last // 2, last} & set(measured["step"].unique()))
    most = float(measured.filter((pl.col("metric") == "documents") & pl.col("step").is_in(steps))["value"].max() or 1)  # type: ignore[arg-type]
    maps = []
    for step in steps:
        there = _there(graph, step)
        links = every_link[there[every_link].all(axis=1)]
        drawn = lines(links, places)
        values = measured.filter(pl.col("step") == step).pivot(
            "metric", index="id", values="value", aggregate_function="first"
        )
        nodes = sites.filter(pl.Series(there)).join(values, on="id", how="left", maintain_order="left")
        for name in ("documents", "synthetic_share"):
            if name not in nodes.columns:
                nodes = nodes.with_columns(pl.lit(None, pl.Float64).alias(name))
        nodes = nodes.with_columns(pl.col("documents").fill_null(0.0)).rename({"synthetic_share": "value"}).drop("id")
        shown = (
            f"{drawn.height:,} of {len(links):,} links drawn" if drawn.height < len(links) else f"{len(links):,} links"
        )
        labels = ChartLabels(
            f"The web at {step_name(step, calendar)}", f"{nodes.height:,} sites, {shown}", "synthetic share", ".0%"
        )
        maps.append((f"web_{step:06d}", charts.site_graph(nodes, drawn, labels, most)))
    return maps


def _there(graph: Any, step: int) -> NDArray[np.bool_]:
    """Return which sites were alive after a step, [nodes]; all, on a web without births and deaths."""
    lives = [(node.get("born", 0), node.get("died", math.inf)) for _, node in graph.nodes(data=True)]
    return np.array([born <= step < died for born, died in lives], dtype=np.bool_)


def _read(file: Path) -> Any:
    import networkx as nx

    try:
        graph = nx.Graph(nx.read_graphml(file))  # links in both directions are one line
    except (ParseError, nx.NetworkXError, ValueError, KeyError) as error:
        raise StoreError(
            f"{file}: cannot be read as GraphML ({error}); restore it from a copy, or delete it to write the report "
            "without maps of the web."
        ) from None
    graph.remove_edges_from(nx.selfloop_edges(graph))
    return graph


def lines(links: NDArray[np.int64], places: NDArray[np.float64]) -> pl.DataFrame:
    """Return the ends (x, y, x2, y2) of at most LINKS evenly chosen links; ``links``: [links, 2] node indices."""
    return ends(chosen_links(links), places)


def chosen_links(links: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most LINKS evenly chosen links, [links, 2]."""
    places = np.linspace(0, len(links) - 1, min(LINKS, len(links))).astype(np.int64)
    return np.take(links.reshape(-1, 2), places, axis=0)


def ends(links: NDArray[np.int64], places: NDArray[np.float64]) -> pl.DataFrame:
    """Return the ends (x, y, x2, y2) of links, [links, 2] node indices."""
    positions = np.hstack([places[links[:, 0]], places[links[:, 1]]]).round(4)
    return pl.DataFrame(positions, schema=["x", "y", "x2", "y2"], orient="row")


def layout(graph: Any) -> NDArray[np.float64]:
    """Return node positions [nodes, 2], about 0 to 1: Fruchterman & Reingold, started from a map of distances.

    The layout is deterministic: equal graphs have equal positions.
    """
    import networkx as nx

    n = graph.number_of_nodes()
    if n <= 2:
        return np.linspace([0.3, 0.5], [0.7, 0.5], n) if n == 2 else np.full((n, 2), 0.5)
    if not graph.number_of_edges():  # without links, draw a grid
        across = math.ceil(math.sqrt(n))
        return np.array([[(i % across + 0.5) / across, 1 - (i // across + 0.5) / across] for i in range(n)])
    initial = dict(zip(graph.nodes, _by_distance(graph), strict=True))
    steps = int(min(60, max(6, 12_000 // n)))  # each step takes time proportional to n^2
    places = nx.spring_layout(
        graph, pos=initial, seed=SEED, iterations=steps, weight=None, method="force", k=1.6 / n**0.5
    )
    positions = np.array([places[node] for node in graph.nodes])
    # Without clipping, a few outliers would squeeze all other sites into a corner.
    low, high = np.quantile(positions, [0.01, 0.99], axis=0)
    return np.asarray(np.clip((positions - low) / np.maximum(high - low, 1e-9), -0.02, 1.02))


def _by_distance(graph: Any, pivots: int = 24) -> NDArray[np.float64]:
    """Return initial positions from the distances to a few distant nodes (pivot MDS): their two main directions."""
    import networkx as nx

    nodes = list(graph.nodes)
    index = {node: i for i, node in enumerate(nodes)}
    distance = np.full((len(nodes), 0), 0.0)
    nearest = np.full(len(nodes), np.inf)
    pivot = 0
    for _ in range(min(pivots, len(nodes))):
        row = np.full(len(nodes), np.nan)
        for node, steps in nx.single_source_shortest_path_length(graph, nodes[pivot]).items():
            row[index[node]] = steps
        row = np.nan_to_num(row, nan=float(np.nanmax(row)) + 2)
        distance = np.column_stack([distance, row])
        nearest = np.minimum(nearest, row)
        pivot = int(np.argmax(nearest))
    squared = distance**2
    centred = squared - squared.mean(0) - squared.mean(1, keepdims=True) + squared.mean()
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    positions = centred @ directions[:2].T
    if positions.shape[1] < 2:
        positions = np.column_stack([positions, np.zeros(len(nodes))])
    # Nodes with equal distances would coincide, and forces cannot separate coinciding nodes.
    jitter = Streams(SEED).at("report/sites").rng().normal(size=(len(nodes), 2))
    size = np.abs(positions).max() or 1.0
    return np.asarray(positions / size + 0.05 * jitter)
