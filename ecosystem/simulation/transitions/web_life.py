"""The life of the web between two steps: sites die and are born, links form, pages die, and agents move."""

from __future__ import annotations

import polars as pl

from ecosystem.corpus.web import Web
from ecosystem.scenario.entries.homes import PublisherSpec
from ecosystem.scenario.entries.people import CuratorSpec, WriterSpec
from ecosystem.scenario.entries.trainers import TrainerSpec
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.agents import Actor, Trainer
from ecosystem.simulation.state import State
from ecosystem.types import Ints

PAGE, SITE = "page died", "site died"
"""Reasons for which documents leave the web by themselves."""


def home_sites(web: Web, agent: str, settings: WriterSpec | TrainerSpec | CuratorSpec) -> Ints:
    """Return the home sites of an agent (``writers/people/0``) on the web as it is now."""
    if isinstance(settings, PublisherSpec) and settings.site_type is not None:
        assert web.population is not None  # checked when the scenario was read
        return web.population.living(settings.site_type)
    return web.homes(agent, settings.sites)


def change_web(state: State) -> None:
    """Let sites and pages die, sites be born and links form, as the scenario in force says for the step."""
    if state.web.population is None:
        return
    state.web.advance(state.t, state.scenario.web)
    for event in settle(state):
        state.note(event)
    _retire_pages(state)


def settle(state: State) -> list[str]:
    """Give every agent living home sites; return a sentence for each population that has just lost all of them."""
    web, stranded = state.web, dict[str, int]()
    if web.population is None:
        return []
    alive = web.population.alive
    agents: list[Actor] = [*state.writers, *state.curators, *state.all_trainers]
    for agent in agents:
        settings, homes = agent.settings, agent.homes
        of_type = isinstance(settings, PublisherSpec) and settings.site_type is not None
        if not of_type and alive[homes].all():
            continue
        if isinstance(agent, Trainer) and agent.inherited and alive[homes].any():
            agent.homes = homes[alive[homes]]
        else:
            agent.homes = home_sites(web, f"{agent.section}/{agent.name}", settings)
        if homes.size and not agent.homes.size:
            population = f"{agent.section}.{agent.population}"
            stranded[population] = stranded.get(population, 0) + 1
    return [f"no site is left for {n} of {population}: they publish nothing" for population, n in stranded.items()]


def repeat_life(web: Web, scenario: Scenario, through: int) -> None:
    """Repeat what happens to sites and links from the opening to a step, on a web that has just been made."""
    if web.population is not None:
        for t in range(1, through + 1):
            web.advance(t, scenario.at(t).web)


def _retire_pages(state: State) -> None:
    """Retire the documents whose own life, or that of their site, has ended."""
    sites, live = state.web.population, state.corpus.live()
    assert sites is not None and state.pages is not None
    site = live.array("site")
    page_ends, site_ends = state.pages.ends(state.corpus, sites)[live.doc], sites.ends[site]
    site_gone = ~sites.alive[site]
    # Within one step, the one that ended first is the reason.
    page_gone = (page_ends <= state.t) & ~(site_gone & (site_ends < page_ends))
    for reason, gone in ((PAGE, page_gone), (SITE, site_gone & ~page_gone)):
        if gone.any():
            state.corpus.retire(pl.Series(live.doc[gone], dtype=pl.Int64), state.t, reason)
