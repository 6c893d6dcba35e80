"""How a web with types of sites grows during a run, as far as a plan can say: sites that are born, links that form."""

from __future__ import annotations

from dataclasses import dataclass

from ecosystem.scenario.scenario import Scenario

_SITE, _LINK = 1_300, 1_000  # bytes in memory of a site, and of a link in both directions, with up to 30,000 sites
_SITE_FILES, _LINK_FILES = 400, 600  # bytes in the two files of the graph


@dataclass(frozen=True)
class Growth:
    """Mean numbers of the steps left: sites born, links that form between sites, and links of all new sites and these.

    Deaths are not subtracted, since dead sites stay in the graph.
    """

    sites: float = 0.0
    links: float = 0.0
    edges: float = 0.0

    @classmethod
    def of(cls, scenario: Scenario, done: int) -> Growth:
        """Return the growth after step ``done``, with the births in force at each step."""
        if scenario.web.types is None:
            return cls()
        sites = links = 0.0
        for t in range(max(0, done) + 1, scenario.steps + 1):
            web = scenario.at(t).web
            sites += sum(entry.births.at(t) for entry in (web.types or {}).values() if entry.births is not None)
            links += 0.0 if web.links is None else web.links.births.at(t)
        return cls(sites, links, sites * scenario.web.degree + links)

    @property
    def memory(self) -> int:
        """Bytes in memory at the end of the run."""
        return round(self.sites * _SITE + self.edges * _LINK)

    @property
    def disk(self) -> int:
        """Bytes of the files of the graph."""
        return round(self.sites * _SITE_FILES + self.edges * _LINK_FILES)

    def text(self, opening: int | None) -> str:
        """Return a line of the plan, without its first word; "" if nothing is born.

        ``opening`` is the number of sites at first; None: it is not known, or the run has begun.
        """
        if not self.sites and not self.links:
            return ""
        first = "" if opening is None else f"{opening:,} initially, "
        links = f", and about {self.links:,.0f} links form between sites" if self.links else ""
        return f"{first}about {self.sites:,.0f} are born in the steps left{links}"
