"""The sites of a web with types: the type of each, its birth and death, and whether it refuses crawlers.

Sites keep their numbers for ever. The noise of a site is keyed by its number, so it depends on nothing but the seed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ecosystem.corpus.life.spec import SiteType, opening_types
from ecosystem.streams import Streams
from ecosystem.types import Floats, Ints

ALIVE = -1


class Sites:
    """Arrays over all sites that ever were, [sites]: ``type`` (place in ``names``), ``born`` and ``died`` (steps).

    ``ends`` is the time at which the life of a site ends (infinite: never), in steps; it dies at the first step from
    then on. ``died`` is ALIVE for living sites.
    """

    def __init__(self, types: Mapping[str, SiteType], opening: int, streams: Streams) -> None:
        """Lay out the sites of the opening."""
        self.names = sorted(types)
        self._streams = streams
        self.type, self.born, self.died = (np.zeros(0, np.int64) for _ in range(3))
        self.ends: Floats = np.zeros(0)
        self._threshold: Floats = np.zeros(0)  # a site refuses crawlers where its type's share is above this
        self._of_type: dict[str, Ints] = {}
        noise = streams.at("web/sites/type").uniform(np.arange(opening))
        self.add(types, opening_types(types, noise), 0)

    def __len__(self) -> int:
        """Return the number of sites that ever were."""
        return self.type.size

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Whether each site is alive, [sites]."""
        return np.asarray(self.died == ALIVE)

    def living(self, name: str | None = None) -> Ints:
        """Return the numbers of the living sites, or of those of one type, ascending; the array is shared."""
        key = name or ""
        if key not in self._of_type:
            chosen = self.alive if name is None else self.alive & (self.type == self.names.index(name))
            self._of_type[key] = np.flatnonzero(chosen)
        return self._of_type[key]

    def add(self, types: Mapping[str, SiteType], new: Ints, t: int) -> Ints:
        """Add sites of these types (places in ``names``), born at step ``t``; return their numbers."""
        sites = np.arange(len(self), len(self) + new.size)
        noise = self._streams.at("web/sites/life").uniform(sites)
        ends = np.full(new.size, np.inf)
        for place, name in enumerate(self.names):
            life, own = types[name].site_life, new == place
            if life is not None:
                ends[own] = t + life.remaining(noise[own])
        self.type = np.concatenate([self.type, new])
        self.born = np.concatenate([self.born, np.full(new.size, t, np.int64)])
        self.died = np.concatenate([self.died, np.full(new.size, ALIVE, np.int64)])
        self.ends = np.concatenate([self.ends, ends])
        refusal = self._streams.at("web/sites/refuses").uniform(sites)
        self._threshold = np.concatenate([self._threshold, refusal])
        self._of_type.clear()
        return sites

    def let_die(self, t: int) -> Ints:
        """Let the sites die whose life has ended by step ``t``; return their numbers."""
        dying = np.flatnonzero(self.alive & (self.ends <= t))
        if dying.size:
            self.died[dying] = t
            self._of_type.clear()
        return dying

    def plain(self) -> list[dict[str, object]]:
        """Return the type, birth and, of dead ones, death of each site."""
        rows = zip(self.type.tolist(), self.born.tolist(), self.died.tolist(), strict=True)
        return [
            {"type": self.names[kind], "born": born} | ({"died": died} if died != ALIVE else {})
            for kind, born, died in rows
        ]

    def there(self, t: int) -> NDArray[np.bool_]:
        """Return whether each site was alive after step ``t``, [sites]."""
        return np.asarray((self.born <= t) & ((self.died == ALIVE) | (self.died > t)))

    def refusing(self, types: Mapping[str, SiteType], t: int) -> NDArray[np.bool_]:
        """Return whether each site refuses crawlers at step ``t``, [sites]."""
        curves = [types[name].refuses for name in self.names]
        share = np.array([0.0 if curve is None else curve.at(t) for curve in curves])
        return np.asarray(self._threshold < share[self.type])
