"""The web: a graph of sites, the links between them, and the endorsements that strengthen links.

Sites are nodes, numbered from 0. Every document has a site; agents have home sites. Every link of the original graph
has weight 1, or its weight in the file; links of an undirected graph count in both directions. An endorsement adds to
the weight of one directed link, and creates the link if it is missing. On a web with types of sites, sites and links
are born and sites die (:mod:`ecosystem.corpus.life`); that depends on the scenario and the seed alone, and is repeated
when a run is resumed. So only endorsements are saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from ecosystem.corpus.graph_files import read_graph, write_graph
from ecosystem.corpus.life.growth import Attachment, poisson
from ecosystem.corpus.life.popularity import DAMPING, page_rank
from ecosystem.corpus.life.sites import Sites
from ecosystem.corpus.life.spec import AgeSpec, LinkSpec, SiteType, opening_problem
from ecosystem.curves import Curve
from ecosystem.errors import DataError
from ecosystem.spec import Spec
from ecosystem.streams import Streams
from ecosystem.types import Positive

DEALT = ("isolated", "islands", "parallel")  # webs without links, whose sites are dealt to agents
_SAMPLE = 50_000  # texts: enough for a tokenizer and a foundation, and read within a minute


class InitialSpec(Spec):
    """Documents on the web before the first step: human documents of a source, spread over the sites."""

    source: str = Field(description="name of the source of the documents")
    documents: Positive = Field(description="number of initial documents")
    sample: Positive | None = Field(
        None,
        description="number of initial documents, the first ones, that tokenizers and foundations learn from and that "
        "metrics take as human; absent: 50,000 texts, or all vectors or categories",
    )
    age: AgeSpec | None = Field(
        None,
        description="age of these documents at the opening, for the lives of pages: a duration, or a distribution; "
        "absent: all are new",
    )

    def learnt(self, modality: str) -> int:
        """Return the number of initial documents that models and metrics learn from."""
        return min(self.documents, self.sample or (_SAMPLE if modality == "text" else self.documents))


class WebSpec(Spec):
    """The graph of sites, its initial documents, and the policies at its publish and retain gates."""

    graph: Literal["barabasi_albert", "watts_strogatz", "complete", "isolated", "islands", "parallel", "file"] = Field(
        "barabasi_albert",
        alias="kind",
        description="barabasi_albert: a grown graph, in which a few sites have very many links; watts_strogatz: a "
        "small world; complete: every site links to every other; isolated: no links, every agent has its own sites, "
        "and initial documents are dealt out evenly (replicates of one loop); islands: as isolated, but the agents of "
        "a population share its sites (separate webs side by side); parallel: as isolated, but agents with the same "
        "number share sites, one agent of every population (replicates of one network of laboratories); file: a graph "
        "read from `path`",
    )
    sites: Positive | None = Field(None, description="number of sites; absent with a file, which defines it")
    degree: Positive = Field(
        2,
        description="barabasi_albert: links of each new site; watts_strogatz: neighbours of each site (even); with "
        "types: links of each site that is born",
    )
    rewire: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="watts_strogatz: probability that a link is moved to a random site"
    )
    path: str | None = Field(
        None,
        description="file: path of a file in GraphML or GML, or of an edge list, relative to the current folder or the "
        "scenario's",
    )
    initial: InitialSpec | None = Field(
        None, description="documents on the web before the first step; absent: the web begins empty"
    )
    publish: list[str] = Field(
        [], description="names of the policies that a document must pass to be published, in order"
    )
    retain: list[str] = Field(
        [], description="names of the policies that decide at each step what stays on the web, in order"
    )
    types: dict[str, SiteType] | None = Field(
        None, description="types of sites, with their births and deaths; absent: all sites are alike and last for ever"
    )
    links: LinkSpec | None = Field(
        None, description="links that form while the web runs, on a web with types; absent: only those of new sites"
    )

    @model_validator(mode="after")
    def _alive(self) -> WebSpec:
        if self.types is None:
            if self.links is not None:
                raise ValueError("links: form on a web with types only; add [web.types.NAME], or remove links")
            if self.initial is not None and self.initial.age is not None:
                raise ValueError("initial.age: counts for pages that die only; add page_life to a type, or remove it")
            return self
        if self.graph in DEALT:
            raise ValueError(f'types: sites of kind = "{self.graph}" are dealt to agents; choose another kind of web')
        if problem := opening_problem(self.types, self.sites):
            raise ValueError(problem)
        lasting = all(entry.page_life is None for entry in self.types.values())
        if lasting and self.initial is not None and self.initial.age is not None:
            raise ValueError("initial.age: counts for pages that die only; add page_life to a type, or remove it")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> WebSpec:
        if self.graph == "file":
            if self.path is None:
                raise ValueError('kind = "file" needs path, the path of a GraphML file or an edge list')
            if self.sites is not None:
                raise ValueError(
                    'sites is not allowed with kind = "file": the file defines the number of sites; remove sites'
                )
            return self
        if self.path is not None:
            raise ValueError(f'path is allowed with kind = "file" only, not "{self.graph}"; remove path or change kind')
        if self.sites is None:
            raise ValueError(f'kind = "{self.graph}" needs sites, the number of sites, for instance sites = 60')
        if self.graph in ("barabasi_albert", "watts_strogatz") and self.degree >= self.sites:
            raise ValueError(f"degree ({self.degree}) must be below sites ({self.sites})")
        if self.graph == "watts_strogatz" and self.degree % 2:
            raise ValueError(
                f"degree ({self.degree}) must be even for watts_strogatz, with half of the neighbours on either side"
            )
        return self


class Web:
    """The graph of a running world: reach of agents, popularity of sites, and endorsements."""

    def __init__(self, spec: WebSpec, streams: Streams, base: Path) -> None:
        """Draw the graph from the stream ``web/graph``, or read it; raise DataError if the file is not a graph.

        ``base`` is the folder of the scenario file; paths are relative to the current folder or, if nothing is found
        there, to ``base``.
        """
        self._streams = streams
        self._kind = spec.graph
        self._owned: dict[str, NDArray[np.int64]] = {}  # sites assigned in order, by agent, population or number
        built = _build(spec, streams, base)
        self._mutual = not built.is_directed()
        self._graph = _directed(built)
        self.sites: int = self._graph.number_of_nodes()
        self._opening = self.sites
        self._endorsed: dict[tuple[int, int], float] = {}
        self._base: dict[tuple[int, int], float] = {(a, b): w for a, b, w in self._graph.edges(data="weight")}
        self._popularity: NDArray[np.float64] | None = None
        self._reached: dict[tuple[tuple[int, ...], int], NDArray[np.int64]] = {}
        self.population = None if spec.types is None else Sites(spec.types, self.sites, streams)
        self._attachment = None if self.population is None else Attachment(self.population, list(self._base), streams)

    def advance(self, t: int, spec: WebSpec) -> None:
        """Let sites die and be born, and links form, at step ``t``, as ``spec``, the settings in force, says.

        Called for every step from 1 on, in order; a web without types does not change.
        """
        sites, attachment = self.population, self._attachment
        if sites is None or attachment is None or spec.types is None:
            return
        for site in sites.let_die(t).tolist():
            for target in self._graph.successors(site):
                if (site, target) in self._base:
                    attachment.count(target, -1)
        born = [poisson(_rate(spec.types[n].births, t), self._streams.at(f"web/births/{n}", t)) for n in sites.names]
        new = sites.add(spec.types, np.repeat(np.arange(len(born)), born), t)
        attachment.welcome(new.size)
        self.sites = len(sites)
        for site in new.tolist():
            self._graph.add_node(site, label=str(site))
            for target in attachment.choose(site, spec.degree).tolist():
                self._form(site, target)
        if spec.links is not None:
            wanted = poisson(_rate(spec.links.births, t), self._streams.at("web/links/births", t))
            for a, b in attachment.pairs(wanted, self._streams.at("web/links", t), self._base):
                self._form(a, b)
        self._clear_caches(links=True)

    def _form(self, a: int, b: int) -> None:
        """Add a link of weight 1, in both directions on an undirected graph."""
        assert self._attachment is not None
        for link in ((a, b), (b, a)) if self._mutual else ((a, b),):
            self._base[link] = 1.0
            self._graph.add_edge(*link, weight=1.0 + self._endorsed.get(link, 0.0))
            self._attachment.count(link[1], 1)

    def is_living(self, site: int) -> bool:
        """Return whether a site is there; always, on a web without types."""
        return self.population is None or bool(self.population.alive[site])

    def labels(self) -> list[str]:
        """Return the name of every site, [sites]: its label in the file, else its number."""
        return [str(label) for _, label in self._graph.nodes(data="label")]

    def links(self) -> list[tuple[int, int, float]]:
        """Return (from, to, weight) of every link, sorted; endorsements included."""
        return sorted((int(a), int(b), float(w)) for a, b, w in self._graph.edges(data="weight"))

    def homes(self, name: str, n: int) -> NDArray[np.int64]:
        """Return ``n`` different home sites for the agent ``name``; all sites, if there are fewer.

        Every site draws one number from the stream ``home/<name>``, and homes are the sites with the smallest numbers,
        so an agent with one more home keeps the others. On an isolated web, homes are the next ``n`` sites without an
        agent; on islands, those of the agent's population (the second to last part of ``name``); on parallel webs,
        those of its number (the last part). On a web with types, the next site of the opening takes the place of one
        that has died.
        """
        if self._kind in DEALT:
            part = {"islands": -2, "parallel": -1}.get(self._kind)
            owner = name if part is None else name.split("/")[part]
            first = sum(sites.size for sites in self._owned.values())
            return self._owned.setdefault(owner, np.arange(first, first + n, dtype=np.int64)).copy()
        noise = self._streams.at(f"home/{name}").uniform(np.arange(self._opening))
        order = np.argsort(noise, kind="stable").astype(np.int64)
        return order[:n] if self.population is None else order[self.population.alive[order]][:n]

    def places(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw the site of each initial document (``rows`` of a source), uniformly.

        On a web whose sites are dealt to agents, documents are assigned to them in turn, so that all get equally many.
        """
        if self._kind in DEALT:
            return rows % self.sites
        return (self._streams.at(name).uniform(rows) * self.sites).astype(np.int64)

    def reach(self, homes: ArrayLike, links: int) -> NDArray[np.int64]:
        """Return the living sites within ``links`` links of any of ``homes``, including these, in ascending order."""
        start = tuple(sorted({self._site(int(home)) for home in np.asarray(homes).reshape(-1)}))
        if (start, links) not in self._reached:
            reached, frontier = set(start), set(start)
            for _ in range(links):
                frontier = {b for a in frontier for b in self._graph.successors(a)} - reached
                frontier = frontier if self.population is None else {b for b in frontier if self.is_living(b)}
                if not frontier:
                    break
                reached |= frontier
            self._reached[start, links] = np.array(sorted(reached), dtype=np.int64)
        return self._reached[start, links].copy()

    def popularity(self) -> NDArray[np.float64]:
        """Compute the PageRank of every site (damping 0.85, weighted links), [sites]; it sums to one.

        Dead sites, whose links do not count, have 0.
        """
        if self._popularity is None and self.population is not None:
            self._popularity = page_rank(self._graph.edges(data="weight"), self.population.alive)
        elif self._popularity is None:
            import networkx as nx

            rank = nx.pagerank(self._graph, alpha=DAMPING, max_iter=1000, tol=1e-10, weight="weight")
            self._popularity = np.array([rank[site] for site in range(self.sites)])
        return self._popularity.copy()

    def endorse(self, from_site: int, to_site: int, strength: float) -> None:
        """Add ``strength`` to the link between two sites; create the link if it is missing.

        A site's endorsement of itself is ignored, and so is one by or of a dead site. Raises DataError unless
        ``strength`` is finite and above 0.
        """
        link = self._site(from_site), self._site(to_site)
        if all(map(self.is_living, link)):
            self._strengthen(link, strength)

    def _strengthen(self, link: tuple[int, int], strength: float) -> None:
        if not (np.isfinite(strength) and strength > 0):
            raise DataError(f"an endorsement must have a finite strength above 0, not {strength!r}.")
        if link[0] != link[1]:
            self._set(link, self._endorsed.get(link, 0.0) + float(strength))

    def endorsements(self) -> list[tuple[int, int, float]]:
        """Return (from, to, total strength) of every endorsed link, sorted, as the argument of :meth:`restore`."""
        return [(a, b, strength) for (a, b), strength in sorted(self._endorsed.items())]

    def restore(self, endorsements: Iterable[tuple[int, int, float]]) -> None:
        """Replace all endorsements with a result of :meth:`endorsements`; restore links and popularity exactly."""
        for link in list(self._endorsed):
            if link in self._base:
                self._graph.edges[link]["weight"] = self._base[link]
            else:
                self._graph.remove_edge(*link)
        self._endorsed.clear()
        self._clear_caches(links=True)
        for a, b, strength in endorsements:  # also those of sites that have died since
            self._strengthen((self._site(int(a)), self._site(int(b))), float(strength))

    def export(self, path: str | Path, attributes: Mapping[str, ArrayLike] | None = None) -> None:
        """Write the graph as GraphML or GEXF, by the ending of ``path``.

        ``attributes`` (for instance the synthetic share) have one value per site, [sites]. Links have a ``weight`` and
        its ``endorsed`` part. On a web with types, sites also have their ``type``, the step at which they were ``born``
        and, if they have, the one at which they ``died``. Raises DataError for another ending, and StoreError if the
        file cannot be written.
        """
        graph = self._graph.copy()
        for name, values in (attributes or {}).items():
            column = np.asarray(values).tolist()
            if len(column) != self.sites:
                raise DataError(f'the attribute "{name}" has {len(column):,} values for {self.sites:,} sites.')
            for site, value in enumerate(column):
                graph.nodes[site][name] = value
        if self.population is not None:
            for site, lived in enumerate(self.population.plain()):
                graph.nodes[site].update(lived)
        for a, b, link in graph.edges(data=True):
            link["endorsed"] = self._endorsed.get((a, b), 0.0)
        write_graph(graph, Path(path))

    def _site(self, site: int) -> int:
        if not 0 <= site < self.sites:
            raise DataError(f"unknown site {site}; the sites of this web are 0 to {self.sites - 1:,}.")
        return int(site)

    def _set(self, link: tuple[int, int], strength: float) -> None:
        # The weight is computed from the total, not from earlier weights, so a restored web is equal bit for bit.
        self._clear_caches(links=not self._graph.has_edge(*link))
        self._endorsed[link] = strength
        self._graph.add_edge(*link, weight=self._base.get(link, 0.0) + strength)

    def _clear_caches(self, *, links: bool) -> None:
        self._popularity = None
        if links:
            self._reached.clear()


def _rate(curve: Curve | None, t: int) -> float:
    return 0.0 if curve is None else curve.at(t)


def _build(spec: WebSpec, streams: Streams, base: Path) -> Any:
    """Generate or read the graph, with nodes 0 … n - 1."""
    if spec.graph == "file":
        assert spec.path is not None
        return read_graph(spec.path, base)
    import networkx as nx

    assert spec.sites is not None
    seed = streams.at("web/graph").integer() % 2**32
    if spec.graph == "barabasi_albert":
        return nx.barabasi_albert_graph(spec.sites, spec.degree, seed=seed)
    if spec.graph == "watts_strogatz":
        return nx.watts_strogatz_graph(spec.sites, spec.degree, spec.rewire, seed=seed)
    return nx.complete_graph(spec.sites) if spec.graph == "complete" else nx.empty_graph(spec.sites)


def _directed(graph: Any) -> Any:
    """Return a simple directed graph with sorted nodes and links, weighted links and labelled nodes."""
    import networkx as nx

    result: Any = nx.DiGraph()
    for site in range(graph.number_of_nodes()):
        result.add_node(site, label=str(graph.nodes[site].get("label", site)))
    links = {(a, b): float(link.get("weight", 1.0)) for a, b, link in graph.edges(data=True) if a != b}
    if not graph.is_directed():
        links |= {(b, a): weight for (a, b), weight in links.items()}
    # Sorted, since the order of links determines the order of floating-point sums.
    for (a, b), weight in sorted(links.items()):
        result.add_edge(a, b, weight=weight)
    return result
