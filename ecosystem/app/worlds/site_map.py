"""Where each site and link of a run is drawn on the page: one layout for all steps, births and deaths included."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.web import Web
from ecosystem.report.panels.site_map import chosen_links, ends, layout
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.transitions.web_life import repeat_life
from ecosystem.streams import Streams


@dataclass(frozen=True)
class SiteMap:
    """Sites (``places``: site, name, x, y, curated) and links (x, y, x2, y2), without endorsements.

    ``pairs`` [links, 2] are the sites of each link. Curators are shown on the sites that they have at the opening.
    """

    web: Web
    places: pl.DataFrame
    links: pl.DataFrame
    pairs: NDArray[np.int64]

    @classmethod
    def of(cls, scenario: Scenario, run: Run, through: int) -> SiteMap:
        """Lay out the web with every site that is there at any step until ``through``."""
        web = Web(scenario.web, Streams(run.seed), run.base)
        homes = [
            web.homes(f"curators/{name}/{number}", population.sites)
            for name, population in scenario.curators.items()
            for number in range(population.count)
        ]
        repeat_life(web, scenario, through)
        once = sorted({(min(a, b), max(a, b)) for a, b, _ in web.links()})
        graph = nx.Graph(once)
        graph.add_nodes_from(range(web.sites))
        at = dict(zip(graph.nodes, layout(graph).round(4).tolist(), strict=True))
        sites = range(web.sites)
        places = pl.DataFrame(
            {
                "site": pl.Series(sites, dtype=pl.Int32),
                "name": web.labels(),
                "x": [at[site][0] for site in sites],
                "y": [at[site][1] for site in sites],
                "curated": np.isin(sites, np.concatenate([np.array([], np.int64), *homes])),
            }
        )
        pairs = chosen_links(np.array(once, np.int64))
        return cls(web, places, ends(pairs, places.select("x", "y").to_numpy()), pairs)

    @property
    def changes(self) -> bool:
        """Whether sites are born or die."""
        return self.web.population is not None

    def there(self, step: int) -> NDArray[np.bool_]:
        """Return whether each site is alive after a step, [sites]."""
        sites = self.web.population
        return np.ones(self.web.sites, np.bool_) if sites is None else sites.there(step)
