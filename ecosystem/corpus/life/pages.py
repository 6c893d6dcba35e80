"""When each page dies: one draw for each document, at its publication."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.life.sites import Sites
from ecosystem.corpus.life.spec import AgeSpec, SiteType
from ecosystem.corpus.storage.stored_arrays import GrowingArray
from ecosystem.streams import Streams
from ecosystem.types import Floats, Ints


class PageLives:
    """The time at which the life of each document ends, in steps; infinite if it does not end by itself.

    It is a function of the seed, the document's id, its step and the type of its site. Nothing is stored: a resumed run
    draws the same lives. The risk of a step is not drawn, so the distribution is exact for any length of a step.
    """

    def __init__(self, types: Mapping[str, SiteType], age: AgeSpec | None, streams: Streams) -> None:
        """``age`` is that of the initial documents at the opening."""
        self._laws = [types[name].page_life for name in sorted(types)]
        self._age = age
        self._streams = streams
        self._ends = GrowingArray(np.float64)

    def ends(self, corpus: Corpus, sites: Sites) -> Floats:
        """Return the time at which the life of every document ends, [documents]; the array must not be changed."""
        first, last = len(self._ends.array), len(corpus)
        if first < last:
            docs = np.arange(first, last)
            t = corpus.array("t")[first:].astype(np.float64)
            self._ends.append(t + self._remaining(docs, t, sites.type[corpus.array("site")[first:]]))
        return self._ends.array

    def _remaining(self, docs: Ints, t: Floats, types: Ints) -> Floats:
        remaining, age = np.full(docs.size, np.inf), np.zeros(docs.size)
        initial = t == 0
        if self._age is not None:
            age[initial] = self._age.ages(self._streams.at("web/initial/age").uniform(docs[initial]))
        noise = self._streams.at("web/pages/life").uniform(docs)
        for place, law in enumerate(self._laws):
            own = types == place
            if law is not None and own.any():
                remaining[own] = law.remaining(noise[own], age[own])
        return remaining
