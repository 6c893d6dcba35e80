"""Trainers that begin or end between two steps: laboratories that are founded, split, merge or close.

A cohort has members for all trainers of a scenario from the opening on. A trainer that is not there (yet, or any more)
neither writes nor trains nor is measured; its member waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.placement.parts import member_of
from ecosystem.simulation.agents import Trainer
from ecosystem.simulation.state import State

Transfers = dict[Trainer, list[Trainer]]
"""Trainers that get other weights, and those whose weights they get (the mean of several)."""


class Transferred(Mapping[str, NDArray[Any]]):
    """The state of a cohort in which some members have the weights of others, or the mean weights of several.

    ``sources`` maps the number of such a member to theirs. Every array is made when it is asked for.
    """

    def __init__(self, state: Mapping[str, NDArray[Any]], sources: Mapping[int, Sequence[int]]) -> None:
        self._state, self._sources = state, sources

    def __getitem__(self, name: str) -> NDArray[Any]:
        member = member_of(name)
        if member is None:
            array = np.array(self._state[name])
            for target, members in self._sources.items():
                array[target] = _mean([self._state[name][source] for source in members])
            return array
        own = name.partition("/")[2]
        return _mean([self._state[f"{source}/{own}"] for source in self._sources.get(member, [member])])

    def __iter__(self) -> Iterator[str]:
        for name in self._state:
            member = member_of(name)
            if member not in self._sources:
                yield name
            for target, members in self._sources.items() if member is not None else ():
                if members[0] == member:
                    yield f"{target}/{name.partition('/')[2]}"

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _mean(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.asarray(np.mean(np.stack(arrays), axis=0, dtype=arrays[0].dtype))


def change_trainers(state: State) -> None:
    """Let trainers begin and end as the scenario in force says; those that begin do so before others end.

    A trainer that splits from another begins with the weights, the depth and a copy of the archive of that one. A
    trainer that merges leaves its home sites and its archive to the one that remains, and with
    ``merged_weights = "average"`` half of the weights.
    """
    beginning = [trainer for trainer in state.all_trainers if trainer.settings.present and not trainer.present]
    ending = [trainer for trainer in state.all_trainers if trainer.present and not trainer.settings.present]
    if not beginning and not ending:
        return
    _begin(state, beginning)
    _end(state, ending)
    state.trainers = [trainer for trainer in state.all_trainers if trainer.present]


def _begin(state: State, beginning: Sequence[Trainer]) -> None:
    by_name = {trainer.name: trainer for trainer in state.trainers}
    parents = {trainer: by_name.get(f"{trainer.settings.split_from}/{trainer.number}") for trainer in beginning}
    _transfer(state, {trainer: [parent] for trainer, parent in parents.items() if parent and parent.has_model})
    for trainer, parent in parents.items():
        trainer.present = True
        if parent is not None:
            trainer.depth, trainer.has_model = parent.depth, parent.has_model
            _give_archive(state, parent, trainer)
    _note(state, {trainer: _beginning(trainer, parent) for trainer, parent in parents.items()})


def _end(state: State, ending: Sequence[Trainer]) -> None:
    by_name = {trainer.name: trainer for trainer in state.all_trainers if trainer.present and trainer not in ending}
    heirs = {trainer: by_name.get(state.scenario.heir(trainer.population, trainer.number)) for trainer in ending}
    averaged: Transfers = {}
    for trainer, heir in heirs.items():
        if heir is not None and heir.has_model and trainer.has_model and trainer.settings.merged_weights is not None:
            averaged.setdefault(heir, [heir]).append(trainer)
    _transfer(state, averaged)
    for heir, sources in averaged.items():
        heir.depth = float(np.mean([source.depth for source in sources]))
    for trainer, heir in heirs.items():
        trainer.present = False
        if heir is not None:
            heir.take_homes(trainer.homes)
            _give_archive(state, trainer, heir)
        state.archive = state.archive.filter(pl.col("reader") != trainer.name)
    _note(state, {trainer: _ending(trainer, heir) for trainer, heir in heirs.items()})


def _transfer(state: State, transfers: Transfers) -> None:
    """Give members the (mean) weights of others, one model at a time."""
    by_model: dict[str, dict[int, list[int]]] = {}
    for trainer, sources in transfers.items():
        members = by_model.setdefault(trainer.settings.model, {})
        members[trainer.member] = [source.member for source in sources]
    for model, members in by_model.items():
        cohort = state.cohorts[model]
        cohort.load(Transferred(cohort.state(), members))


def _give_archive(state: State, giver: Trainer, taker: Trainer) -> None:
    """Add a copy of an archive to that of another trainer, if that one keeps any; newer acquisitions replace older."""
    if taker.settings.retain is None:
        return
    own = pl.col("reader") == taker.name
    given = state.archive.filter(pl.col("reader") == giver.name).with_columns(reader=pl.lit(taker.name))
    both = pl.concat([state.archive.filter(own), given]).sort("t", maintain_order=True)
    both = both.unique(["document", "source"], keep="last", maintain_order=True)
    state.archive = pl.concat([state.archive.filter(~own), both])


def _note(state: State, what: Mapping[Trainer, str]) -> None:
    """Record an event for each population, with its number of trainers."""
    groups: dict[tuple[str, str], int] = {}
    for trainer, verb in what.items():
        groups[trainer.population, verb] = groups.get((trainer.population, verb), 0) + 1
    for (population, verb), count in groups.items():
        who = f"the trainer of {population}" if count == 1 else f"the {count} trainers of {population}"
        state.note(f"{who} {_singular(verb) if count == 1 else verb}")


def _beginning(trainer: Trainer, parent: Trainer | None) -> str:
    origin = trainer.settings.split_from
    if parent is not None:
        return f"split from {origin}"
    return "begin" if origin is None else f"begin with starting weights, since {origin} is not there"


def _ending(trainer: Trainer, heir: Trainer | None) -> str:
    into = trainer.settings.merged_into
    if heir is not None:
        return f"become part of {heir.population}"
    return "end" if into is None else f"end, since {into} is not there"


def _singular(verb: str) -> str:
    first = re.match(r"\w+", verb)
    return verb if first is None else f"{first[0]}s{verb.removeprefix(first[0])}"
