"""Run folders with invented numbers, so that reports can be tested without training anything."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ecosystem.corpus.schema import ARCHIVE, INDEX_CHANGE, LEDGER, METRICS, SEGMENT, Snapshot, empty
from ecosystem.runs.run import Run
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario

POPULATIONS = {"naive": [], "filtered": ["neardup", "quality"], "anchored": ["neardup", "quality", "archive"]}
DRIFT = {"naive": 0.07, "filtered": 0.035, "anchored": 0.0}  # nats per token and step
WORDS = [
    "the",
    "module",
    "returns",
    "a",
    "list",
    "of",
    "names",
    "that",
    "have",
    "been",
    "imported",
    "when",
    "no",
    "argument",
    "is",
    "given",
]
Row = tuple[int, str, str, str, float | None, float | None]


def scenario(
    populations: Mapping[str, Sequence[str]] = POPULATIONS,
    *,
    members: int = 2,
    steps: int = 10,
    sites: int = 60,
    curators: bool = True,
    **more: Any,
) -> Scenario:
    """Return a scenario with these populations (name → select)."""
    trainer = {"count": members, "model": "small", "scrape": {"docs": 500}}
    return Scenario.parse(
        {
            "name": "invented",
            "description": "Numbers made up for a test.",
            "steps": steps,
            "sources": {"docs": {"kind": "python_docs"}},
            "web": {"kind": "barabasi_albert", "sites": sites, "initial": {"source": "docs", "documents": 3000}},
            "models": {"small": {"preset": "gpt2-nano"}},
            "policies": {
                "quality": {"kind": "gopher_quality"},
                "neardup": {"kind": "minhash_dedup"},
                "archive": {"kind": "inject_real", "source": "docs", "fraction": 0.25},
            },
            "trainers": {name: {**trainer, "select": list(select)} for name, select in populations.items()},
            "curators": {"editors": {"count": 2}} if curators else {},
            **more,
        }
    )


def measurements(spec: Scenario, step: int, drift: Mapping[str, float] = DRIFT) -> pl.DataFrame:
    """Return plausible rows of one step."""
    luck = np.random.default_rng([7, step])
    rows: list[Row] = []

    def put(scope: str, identity: str, /, **values: float | tuple[float, float]) -> None:
        for metric, value in values.items():
            number, error = value if isinstance(value, tuple) else (value, None)
            rows.append((step, scope, identity, metric, number, error))

    share = 1 - math.exp(-0.28 * step)
    put("web", "web", documents=3000.0 + 1500 * step, synthetic_share=share, depth=share * (0.6 * step))
    for site in range(spec.web.sites or 0):
        own = min(1.0, max(0.0, share + luck.normal(0, 0.2 * (step > 0))))
        put("site", str(site), documents=float(luck.integers(10, 60 + 30 * step)), synthetic_share=own)
    if step == 0:
        for name, nats in (("random", 6.94), ("unigram", 5.6), ("initial", 3.84)):
            put("reference", f"small/{name}", **_quality(nats))
        put("reference", "human", **_text(0.0))
        return _frame(rows)
    for population, recipe in spec.trainers.items():
        for number in range(recipe.count):
            trainer, gone = f"{population}/{number}", drift.get(population, 0.02) * step
            nats = 3.84 + gone + luck.normal(0, 0.008)
            put("trainer", trainer, **_quality(nats), **_text(gone), cross_entropy_synthetic=(3.6 - gone, 0.02))
            put(
                "trainer",
                trainer,
                documents_published=300.0,
                mean_words=(45.0 - 20 * gone, 0.8),
                training_loss=nats - 0.1,
            )
            put("trainer", trainer, tokens_trained=50_000.0)
            put("training_set", trainer, synthetic_share=share * 0.95, depth=share * 0.5 * step, documents=500.0)
            put("training_set", trainer, injected_share=0.25 if "archive" in recipe.select else 0.0)
            for policy in recipe.select:
                put("policy", f"{trainer}/{policy}", **_counts("kept_", 400 * (1 - share), 380 * share))
                refused = (0.0, 0.0) if policy == "archive" else (24 * (1 - share), 95 * share)
                put("policy", f"{trainer}/{policy}", **_counts("refused_", *refused))
    for population, reviewers in spec.curators.items():
        for number in range(reviewers.count):
            put("curator", f"{population}/{number}", **_counts("reviewed_", 40 * (1 - share), 40 * share))
            put("curator", f"{population}/{number}", **_counts("suspect_", 2 * (1 - share), 32 * share))
    return _frame(rows)


def _quality(nats: float) -> dict[str, tuple[float, float]]:
    return {
        "cross_entropy": (nats, 0.02),
        "perplexity": (math.exp(nats), 0.02 * math.exp(nats)),
        "bits_per_byte": (nats / 2.1, 0.012),
        "cross_entropy_frequent": (nats - 0.9, 0.02),
        "cross_entropy_rare": (nats * 1.6, 0.04),
    }


def _text(gone: float) -> dict[str, tuple[float, float]]:
    values = {f"distinct_{n}": (min(0.98, 0.35 + 0.17 * n) * (1 - 0.5 * gone), 0.008) for n in range(1, 5)}
    values |= {f"rep_{n}": (0.3 / n + 0.3 * gone, 0.01) for n in range(1, 5)}
    values |= {f"vocabulary_kept_{k}": (max(0.02, 1 - (0.02 + 0.09 * k) * gone), 0.01) for k in range(1, 11)}
    more = {"self_bleu": 0.25 + 0.4 * gone, "compression_ratio": 2.4 + gone, "entropy": 5.9 - 1.5 * gone}
    return values | {name: (value, 0.02) for name, value in {**more, "zipf_exponent": 1.02 + 0.2 * gone}.items()}


def _counts(prefix: str, human: float, synthetic: float) -> dict[str, float]:
    return {f"{prefix}human": float(round(human)), f"{prefix}synthetic": float(round(synthetic))}


def _frame(rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=METRICS, orient="row")


def segment(spec: Scenario, step: int, text: Callable[[str, int, int], str] | None = None) -> pl.DataFrame:
    """Return the documents of one step; ``text(author, step, number)`` says what they contain."""
    authors = ["initial"] if step == 0 else [f"{p}/{i}" for p, r in spec.trainers.items() for i in range(r.count)]
    luck = np.random.default_rng([8, step])
    rows = [
        {
            "doc": 10_000 * step + 10 * i + k,
            "t": step,
            "site": int(luck.integers(spec.web.sites or 1)),
            "author": author,
            "synthetic": step > 0,
            "depth": 0.7 * step,
            "model": "small" if step else None,
            "words": 40,
            "content": text(author, step, k) if text else " ".join(luck.choice(WORDS, 40)),
        }
        for i, author in enumerate(authors)
        for k in range(3)
    ]
    frame = pl.DataFrame(rows, schema_overrides=SEGMENT) if rows else empty(SEGMENT)
    return pl.concat([empty(SEGMENT), frame], how="diagonal_relaxed").select(list(SEGMENT)).cast(dict(SEGMENT))


def invent(
    folder: Path,
    spec: Scenario,
    *,
    last: int | None = None,
    metrics: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame,
    text: Callable[[str, int, int], str] | None = None,
    documents: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame,
    events: Mapping[int, Sequence[str]] | None = None,
    drift: Mapping[str, float] = DRIFT,
    graph: bool = True,
) -> Run:
    """Write a run folder up to step ``last`` and open it.

    ``metrics`` may alter the measurements of each step, ``documents`` what was published.
    """
    store = Store(folder)
    store.write("scenario.toml", spec.to_toml().encode())
    store.write("environment.json", json.dumps(ENVIRONMENT | {"seed": spec.seed}).encode())
    if graph:
        store.write("web.graphml", _graphml(spec.web.sites or 1))
    for step in range((spec.steps if last is None else last) + 1):
        snapshot = Snapshot(
            t=step,
            segment=documents(segment(spec, step, text)),
            changes=empty(INDEX_CHANGE),
            ledger=empty(LEDGER),
            metrics=metrics(measurements(spec, step, drift)),
            archive=empty(ARCHIVE),
            state={"t": step, "events": list((events or {}).get(step, []))},
            weights={"small": {"bias": np.zeros((1, 1), np.float32)}},
        )
        store.commit(snapshot, kept=False, seconds=1.5)
    return Run.open(folder)


ENVIRONMENT = {
    "device": "cpu",
    "device_name": "cpu with 2 compute threads",
    "threads": 2,
    "python": "3.11.7",
    "platform": "Linux",
    "packages": {"ecosystem": "0.1.0", "torch": "2.13.0"},
    "sources": {"docs": {"digest": "ab" * 32, "size": 5123}},
    "foundations": {"small": "cd" * 8},
    "resumed": [],
}


def _graphml(sites: int) -> bytes:
    import networkx as nx

    graph = nx.barabasi_albert_graph(sites, 2, seed=1) if sites > 2 else nx.complete_graph(sites)
    directed = nx.DiGraph(graph)
    for site in directed.nodes:
        directed.nodes[site]["label"] = str(site)
    return "\n".join(nx.generate_graphml(directed)).encode()
