"""Observe the web with the instruments of the scenario: samples, and detectors that err.

The verdict of a detector on a document depends on the instrument and the document alone, so it is the same at every
date. Beside what it observes, every instrument gives the true value, which nobody on the web knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.draws import lowest
from ecosystem.metrics.estimates import Estimate, binomial, mean_and_error, ratio
from ecosystem.metrics.tables import rows
from ecosystem.scenario.entries.instruments import InstrumentSpec
from ecosystem.simulation.measurement.views import views
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step
from ecosystem.types import Floats, Ints

Flags = NDArray[np.bool_]
Reading = tuple[Estimate, float, int]  # what is observed and its standard error, the true value, documents observed
_NEVER = -1  # retired_at of documents that have not left the web


def measure_instruments(state: State, step: Step) -> None:
    """Append what every instrument with an observation at this step gives; no row if there is nothing to observe."""
    for name, settings in state.scenario.instruments.items():
        if not settings.observes_at(step.t):
            continue
        reading = _OBSERVE[settings.observes](Instrument(name, settings, state, step))
        if reading is not None:
            estimate, truth, documents = reading
            values: dict[str, Estimate | float] = {settings.observes: estimate, "true_value": truth}
            step.metrics.append(rows(step.t, "instrument", name, values | {"documents": float(documents)}))


@dataclass(frozen=True)
class Instrument:
    """An instrument at a step."""

    name: str
    settings: InstrumentSpec
    state: State
    step: Step

    def machine(self, docs: Ints) -> Flags:
        """Return which documents are machine text in truth: those with more AI than the threshold."""
        return np.asarray(self.state.corpus.array("ai_share")[docs] > self.settings.threshold)

    def flagged(self, docs: Ints) -> Flags:
        """Return which documents the detector takes for machine text.

        One number for each document decides, so one that is flagged as human text would be flagged as machine text too
        (as long as the rates of both errors add up to less than 1).
        """
        hit = 1 - (self.settings.false_negative_rate or 0.0)
        rate = np.where(self.machine(docs), hit, self.settings.false_positive_rate or 0.0)
        return np.asarray(self.state.streams.at(f"instruments/{self.name}/verdict").uniform(docs) < rate)

    def sampled(self, docs: Ints, *, always_the_same: bool = False) -> Ints:
        """Return a random sample of documents, without replacement; all, if it is not smaller."""
        name = f"instruments/{self.name}/sample"
        stream = self.state.streams.at(name) if always_the_same else self.state.stream(name)
        wanted = self.settings.sample
        return docs if wanted is None or wanted >= docs.size else lowest(docs, wanted, stream)

    def on_sites(self, docs: Ints) -> Flags:
        """Return which documents are on sites of the types that are observed."""
        sites, types = self.state.web.population, self.settings.site_types
        if types is None:
            return np.ones(docs.size, np.bool_)
        assert sites is not None  # checked when the scenario was read
        observed = [sites.names.index(name) for name in types]
        return np.isin(sites.type[self.state.corpus.array("site")[docs]], observed)

    def newest(self, docs: Ints) -> Flags:
        """Return which documents were published within the window, after the opening."""
        t = self.state.corpus.array("t")[docs]
        return np.asarray((t > 0) & (t > self.step.t - (self.settings.window or 1)))

    def population(self) -> tuple[Ints, Floats | None]:
        """Return the documents that are observed, ascending, and their views by readers (None: they count alike)."""
        new_sites = self.settings.population == "new_sites"
        docs = self._first_of_new_sites() if new_sites else self.state.corpus.live().doc
        chosen, weight = self.on_sites(docs), None
        if self.settings.population in ("new", "new_sites"):
            chosen &= self.newest(docs)
        elif self.settings.population == "read":
            weight = views(self.state)
            chosen &= weight > 0
        elif self.settings.population == "crawl":
            chosen &= (self.state.corpus.array("weight")[docs] > 0) & ~self._refusing(docs)
        return docs[chosen], None if weight is None else weight[chosen]

    def _refusing(self, docs: Ints) -> Flags:
        """Return which documents are on sites that refuse crawlers."""
        refusing = self.state.refusing()
        if refusing is None:
            return np.zeros(docs.size, np.bool_)
        return np.asarray(refusing[self.state.corpus.array("site")[docs]])

    def _first_of_new_sites(self) -> Ints:
        """Return the first document of every site that was born since the opening, ascending."""
        sites, corpus = self.state.web.population, self.state.corpus
        assert sites is not None  # checked when the scenario was read
        site = corpus.array("site")
        docs = np.flatnonzero(corpus.array("published") & (sites.born[site] > 0))
        return np.sort(docs[np.unique(site[docs], return_index=True)[1]])

    def sample(self, docs: Ints, seen: Floats | None) -> tuple[Ints, Floats | None]:
        """Return a sample of a population, and the weights of what is seen of each document."""
        if seen is None or self.settings.sample is None:
            return self.sampled(docs), seen
        # Views are drawn with replacement; a document that is drawn several times is one observation.
        noise = self.state.stream(f"instruments/{self.name}/views").uniform(np.arange(self.settings.sample))
        drawn, times = np.unique(np.searchsorted(np.cumsum(seen), noise * seen.sum(), "right"), return_counts=True)
        return docs[drawn], times.astype(np.float64)


def _mean(values: NDArray[np.float64] | Flags, weight: Floats | None) -> Estimate:
    """Return the weighted mean over documents and its standard error, as for a sample of many more documents."""
    if weight is not None:
        return ratio(weight * values, weight)
    if values.dtype == np.bool_:
        return binomial(int(np.count_nonzero(values)), values.size)
    return mean_and_error(values)


def _flagged_share(of: Instrument) -> Reading | None:
    every, seen = of.population()
    if not every.size:
        return None
    docs, weight = of.sample(every, seen)
    return _mean(of.flagged(docs), weight), _mean(of.machine(every), seen)[0], docs.size


def _ai_text_share(of: Instrument) -> Reading | None:
    every, seen = of.population()
    if not every.size:
        return None
    docs, weight = of.sample(every, seen)
    ai_share, error = of.state.corpus.array("ai_share").astype(np.float64), of.settings.error or 0.0
    value, of_sampling = _mean(ai_share[docs], weight)
    noise = float(of.state.stream(f"instruments/{of.name}/error").rng().standard_normal())
    estimate = value + (of.settings.bias or 0.0) + error * noise
    return (estimate, float(np.hypot(of_sampling, error))), _mean(ai_share[every], seen)[0], docs.size


def _posts(of: Instrument) -> Reading | None:
    """Return the number of documents of a step relative to the baseline, with the error of two Poisson numbers."""
    steps, now = of.settings.baseline_steps, of.step.t
    if now < steps[-1]:
        return None
    t = of.state.corpus.array("t")
    dated = of.state.corpus.array("published") & ((t == now) | ((t >= steps[0]) & (t <= steps[-1])))
    docs = np.flatnonzero(dated & (t > 0))
    docs = docs[of.on_sites(docs)]

    def counts(taken: Ints) -> tuple[int, int]:
        at = t[taken]
        return int((at == now).sum()), int(((at >= steps[0]) & (at <= steps[-1])).sum())

    (count, before), (true_count, true_before) = counts(docs[~of.flagged(docs)]), counts(docs[~of.machine(docs)])
    if not before or not true_before:
        return None
    value, true_value = count * len(steps) / before, true_count * len(steps) / true_before
    return (value, len(steps) / before * float(np.sqrt(count + count**2 / before))), true_value, count


def _pages_gone(of: Instrument) -> Reading | None:
    """Return the share of pages seen earlier that have left the web; the sample is the same at every date."""
    assert of.settings.seen is not None
    first, last = of.settings.seen
    corpus = of.state.corpus
    t, left = corpus.array("t"), corpus.array("retired_at")
    if of.step.t < last:
        return None
    seen = corpus.array("published") & (t <= last)
    seen &= t >= first if of.settings.population == "new" else (left == _NEVER) | (left > first)
    every = np.flatnonzero(seen)
    every = every[of.on_sites(every)]
    if not every.size:
        return None
    docs = of.sampled(every, always_the_same=True)
    gone = left != _NEVER
    return binomial(int(gone[docs].sum()), docs.size), float(gone[every].mean()), docs.size


def _synthetic_kept_ratio(of: Instrument) -> Reading | None:
    """Return the ratio of two shares kept, with the error of the delta method for independent shares."""
    docs, kept = _reached(of)
    shown = np.isin(docs, of.sampled(docs))
    estimate = _kept_ratio(of.flagged(docs[shown]), kept[shown])
    truth = _kept_ratio(of.machine(docs), kept)
    return None if np.isnan(estimate[0]) else (estimate, truth[0], int(shown.sum()))


def _kept_ratio(machine: Flags, kept: Flags) -> Estimate:
    """Return the share kept of machine text over that of the rest, and its standard error; NaN if it is undefined."""
    share, other = (binomial(int((kept & of).sum()), int(of.sum())) for of in (machine, ~machine))
    if np.isnan(share[0]) or not other[0] > 0:
        return float("nan"), float("nan")
    value = share[0] / other[0]
    return value, float(np.hypot(share[1], value * other[1])) / other[0]


def _reached(of: Instrument) -> tuple[Ints, Flags]:
    """Return the documents of the web that reached the policy in this step, once each, and whether it kept them."""
    policy, gates = of.settings.policy, []
    assert policy is not None
    drafts, ledger = of.step.segment, of.step.ledger.filter(pl.col("source").is_null())
    if policy in (names := of.state.scenario.web.publish):
        gates.append((names, drafts.select("doc", "verdict")))
    for trainer in of.state.trainers:
        if policy in (names := trainer.settings.select):
            own = ledger.filter(pl.col("reader") == trainer.name)
            gates.append((names, own.select("verdict", doc="document").select("doc", "verdict")))
    tables = [
        table.filter(pl.col("verdict").is_null() | pl.col("verdict").is_in(names[names.index(policy) :]))
        for names, table in gates
    ]
    if not tables or policy not in {name for name, _ in of.state.enforced([policy])}:
        return np.zeros(0, np.int64), np.zeros(0, np.bool_)
    reached = pl.concat(tables).unique("doc", keep="first", maintain_order=True).sort("doc")
    reached = reached.filter(pl.Series(of.on_sites(reached["doc"].to_numpy()), dtype=pl.Boolean))
    return reached["doc"].to_numpy(), (reached["verdict"].fill_null("") != policy).to_numpy()


_OBSERVE: dict[str, Callable[[Instrument], Reading | None]] = {
    "flagged_share": _flagged_share,
    "ai_text_share": _ai_text_share,
    "posts": _posts,
    "pages_gone": _pages_gone,
    "synthetic_kept_ratio": _synthetic_kept_ratio,
}
