"""Births of sites and links: how many, and to which sites new links lead (preferential attachment)."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from ecosystem.corpus.life.sites import Sites
from ecosystem.streams import Stream, Streams
from ecosystem.types import Floats, Ints

_ATTEMPTS = 10  # at finding two sites without a link


def poisson(mean: float, stream: Stream) -> int:
    """Return the Poisson number with this mean at the quantile that the stream draws: larger means give no less."""
    if mean <= 0:
        return 0
    from scipy.special import pdtr  # not at the top, since reading a scenario would take longer

    counts = np.arange(int(mean + 10 * mean**0.5 + 25))
    return int(np.searchsorted(pdtr(counts, mean), stream.uniform(0)[0]))


class Attachment:
    """Chooses the ends of new links: a living site is chosen in proportion to the links to it, at least one.

    On an undirected graph this is the growth of Barabási & Albert 1999 (Science 286), on a directed one nearly that of
    Price 1976 (J. Am. Soc. Inf. Sci. 27). Endorsements do not count, so the graph of sites depends on the seed alone.
    """

    def __init__(self, sites: Sites, links: list[tuple[int, int]], streams: Streams) -> None:
        """``links`` are those of the opening, in both directions if they count in both."""
        self._sites, self._streams = sites, streams
        ends = np.array([b for _, b in links], dtype=np.int64)
        self._incoming = np.bincount(ends, minlength=len(sites)).astype(np.float64)

    def appeal(self) -> Floats:
        """Return the weight of each site as the end of a new link, [sites]; 0 for dead ones."""
        return np.asarray(np.maximum(self._incoming, 1.0) * self._sites.alive)

    def count(self, site: int, change: int) -> None:
        """Count a link to a site that forms (1) or ends (-1)."""
        self._incoming[site] += change

    def welcome(self, new: int) -> None:
        """Make room for new sites, which nothing links to yet."""
        self._incoming = np.concatenate([self._incoming, np.zeros(new)])

    def choose(self, site: int, degree: int) -> Ints:
        """Return up to ``degree`` different living sites with lower numbers, to which a new site links."""
        appeal = self.appeal()[:site]
        noise = self._streams.at(f"web/sites/{site}/links").uniform(np.arange(site))
        with np.errstate(divide="ignore"):  # the first arrivals of exponential clocks (Efraimidis & Spirakis 2006)
            arrival = -np.log(noise) / appeal
        first = np.argpartition(arrival, degree)[:degree] if degree < site else np.arange(site)  # sorting all is slow
        first = first[np.argsort(arrival[first], kind="stable")]
        return first[appeal[first] > 0]

    def pairs(self, wanted: int, stream: Stream, linked: Container[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return up to ``wanted`` new links: from any living site to one in proportion to its appeal.

        A site never links to itself, nor to one that it is ``linked`` to.
        """
        living = self._sites.living()
        if living.size < 2:
            return []
        bounds = np.cumsum(self.appeal())
        noise = stream.uniform(np.arange(2 * _ATTEMPTS * wanted)).reshape(wanted, _ATTEMPTS, 2)
        froms = living[(noise[..., 0] * living.size).astype(np.int64)]
        tos = np.searchsorted(bounds, noise[..., 1] * bounds[-1], side="right")
        chosen: dict[tuple[int, int], None] = {}
        for attempts in zip(froms.tolist(), tos.tolist(), strict=True):
            for a, b in zip(*attempts, strict=True):
                if a != b and not {(a, b), (b, a)} & chosen.keys() and (a, b) not in linked:
                    chosen[a, b] = None
                    break
        return list(chosen)
