"""Who reads whom: the populations of trainers as a graph, with their sources of real data, as far as a scenario tells.

The graph errs towards reading too much. It has every link and every source of real data that the scenario may allow, so
a population that reaches no real data in it certainly reaches none: all that it learns from was written by models.
"""

from __future__ import annotations

from ecosystem.corpus.web import DEALT
from ecosystem.policies.base import Adder
from ecosystem.policies.injection import Injection
from ecosystem.policies.retention import Replace, Window
from ecosystem.scenario.entries.trainers import INITIAL, TrainerSpec
from ecosystem.scenario.scenario import Scenario


def reading_graph(scenario: Scenario, step: int) -> tuple[dict[str, set[str]], set[str]]:
    """Return whom each population of trainers reads at a step, and which populations may have real data of their own.

    Real data are documents of people or of the opening, documents that an adder injects, archives of what was selected
    earlier, prompts, and the foundation, if every fit starts from it. Populations that are not there at the step are
    left out, unless they were there while documents were published that another one may still read.
    """
    now = scenario.at(step)
    authors = {name: _authors(now, name) for name in now.trainers}
    reads = {
        name: {other for other in read & set(now.trainers) if _may_be_on_web(scenario, now.trainers[name], other, step)}
        for name, read in authors.items()
    }
    known = {name for name, trainer in now.trainers.items() if trainer.present}
    while more := {other for name in known for other in reads[name]} - known:
        known |= more
    real = {
        name
        for name, trainer in now.trainers.items()
        if name in known
        and (_keeps_real_data(now, trainer) or _may_find_real_data(scenario, trainer, authors[name], step))
    }
    return {name: read for name, read in reads.items() if name in known}, real


def _keeps_real_data(s: Scenario, trainer: TrainerSpec) -> bool:
    """Return whether trainers may have real data that they do not scrape."""
    if trainer.start == "foundation" and s.models[trainer.model].starts_pretrained:
        return True
    adders = [policy for name in trainer.select if isinstance(policy := s.policies[name], Adder)]
    injects = any(not isinstance(adder, Injection) or adder.count or adder.fraction for adder in adders)
    return trainer.retain is not None or trainer.decoding.prompt is not None or injects


def _may_find_real_data(scenario: Scenario, trainer: TrainerSpec, authors: set[str], step: int) -> bool:
    """Return whether documents of people, or of the opening, may be among those that a population reads at a step."""
    steps, opening = _readable(scenario, trainer, step)
    writers = [scenario.at(t).writers.items() for t in steps]
    people = any(f"writers/{name}" in authors and w.rate > 0 for at in writers for name, w in at)
    return people or (opening and INITIAL in authors)


def _may_be_on_web(scenario: Scenario, reader: TrainerSpec, author: str, step: int) -> bool:
    """Return whether a population was there when documents were published that a reader may find at a step."""
    return any(scenario.at(t).trainers[author].present for t in _readable(scenario, reader, step)[0])


def _readable(scenario: Scenario, reader: TrainerSpec, step: int) -> tuple[range, bool]:
    """Return the steps whose documents a population may find at a step, and whether it may find those of the opening.

    Policies with a condition have no part in it, since they may not be in force.
    """
    now, oldest, opening = scenario.at(step), 1, True
    for name in (*now.web.retain, *reader.select):
        policy = now.policies[name]
        if policy.when is not None:
            continue
        if isinstance(policy, Replace):
            oldest, opening = step, opening and policy.keep_initial
        elif isinstance(policy, Window):
            oldest, opening = max(oldest, step - policy.steps + 1), opening and policy.steps > step
    return range(max(oldest, 1), step + 1), opening


def _authors(s: Scenario, reader: str) -> set[str]:
    """Return the authors whose documents a population may read: trainers, writers (``writers/NAME``) and "initial"."""
    scrape = s.trainers[reader].scrape
    trainers, writers = set(s.trainers), {f"writers/{name}" for name in s.writers}
    initial = {INITIAL} if s.web.initial is not None else set()
    if scrape.shares is not None:
        named = set(scrape.shares)
        return named & (trainers | initial) | {f"writers/{name}" for name in named & set(s.writers)}
    endorsed = any(curator.action == "endorse" for curator in s.curators.values())  # endorsements are links
    if s.web.graph not in DEALT or s.web.graph == "parallel" or scrape.strategy != "reach" or endorsed:
        return trainers | writers | initial
    return {reader} | initial | (writers & {f"writers/{reader}"} if s.web.graph == "islands" else set())
