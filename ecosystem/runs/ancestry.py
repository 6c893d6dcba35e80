"""Tracing documents back to people through the stored ledgers and archives of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from ecosystem.errors import EcosystemError
from ecosystem.runs.lineage import Fit, Lineage, Origin
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario

_REMEMBERED = 50  # steps whose training sets are kept in memory


class History(Protocol):
    """The committed steps of a run as tables: what a lineage is read from."""

    @property
    def store(self) -> Store:
        """The run folder, for ledgers and archives."""

    @property
    def scenario(self) -> Scenario:
        """The scenario of the run."""

    @property
    def metrics(self) -> pl.DataFrame:
        """Every measurement (columns of ``schema.METRICS``)."""

    @property
    def documents(self) -> pl.DataFrame:
        """Every document: doc, t, author, synthetic and depth at least."""


@dataclass(frozen=True)
class RunHistory:
    """A :class:`History` whose tables have been read."""

    store: Store
    scenario: Scenario
    metrics: pl.DataFrame
    documents: pl.DataFrame


class Ancestry:
    """The lineages of a run's documents; a step's ledger is read when a lineage first needs it."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._sets: dict[int, pl.DataFrame] = {}

    def training_sets(self, step: int) -> pl.DataFrame:
        """Return what every trainer that was fitted at a step was fitted to, by origin.

        Columns: reader, kind, who, t (step of publication of a model's documents, else null), share (by weight; sums
        to one for each reader), documents, exact. A trainer's set is what its select gate kept; of one that keeps an
        archive (``retain``), the archive. Archives of steps whose models were not kept are gone: then it is everything
        that the trainer had ever selected, which is exact where no retention policy thinned it.
        """
        if step not in self._sets:
            if len(self._sets) >= _REMEMBERED:
                self._sets.pop(next(iter(self._sets)))
            self._sets[step] = self._composed(step)
        return self._sets[step]

    def _composed(self, step: int) -> pl.DataFrame:
        rows = self._kept(step).with_columns(exact=pl.lit(value=True))
        archiving = self._archiving(step)
        if archiving:
            rows = pl.concat([rows.filter(~_of(archiving)), self._archives(step, archiving)])
        rows = rows.filter(pl.col("reader").is_in(self._fits().filter(pl.col("fit") == step)["author"].to_list()))
        publications = self.history.documents.select("author", "t", "synthetic", document="doc")
        web = pl.col("source").is_null()
        # A row number of a source is no id of a document of the web.
        joined = pl.concat(
            [rows.filter(web).join(publications, on="document", how="left"), rows.filter(~web)], how="diagonal"
        ).with_columns(
            kind=pl.when(~web)
            .then(pl.lit("injected"))
            .when("synthetic")
            .then(pl.lit("model"))
            .otherwise(pl.lit("people"))
        )
        model = pl.col("kind") == "model"
        written = pl.col("author").str.replace("^writers/(.*)/[0-9]+$", "$1")
        origin = joined.with_columns(
            who=pl.when(~web).then("source").when(model).then("author").otherwise(written),
            t=pl.when(model).then("t"),
            # Weights that are all zero count alike, as they do in a fit.
            weight=pl.when(pl.col("weight").sum().over("reader") > 0).then("weight").otherwise(1.0),
        )
        summed = origin.group_by("reader", "kind", "who", "t", "exact").agg(pl.col("weight").sum(), documents=pl.len())
        share = pl.col("weight") / pl.col("weight").sum().over("reader")
        return summed.with_columns(share=share).drop("weight").sort("reader", "kind", "who", "t")

    def _kept(self, step: int) -> pl.DataFrame:
        ledger = self.history.store.table(
            "ledger", range(step, step + 1), ("reader", "document", "source", "weight", "verdict")
        )
        return ledger.filter(pl.col("verdict").is_null()).drop("verdict")

    def _archiving(self, step: int) -> dict[str, bool]:
        """Return the populations that keep an archive at a step, and whether any policy thins it."""
        in_force = self.history.scenario.at(step).trainers
        return {name: bool(recipe.retain) for name, recipe in in_force.items() if recipe.retain is not None}

    def _archives(self, step: int, archiving: dict[str, bool]) -> pl.DataFrame:
        store = self.history.store
        if step in store.steps_with_weights():
            held = store.table("archive", range(step, step + 1), ("reader", "document", "source", "weight"))
            return held.filter(_of(archiving)).with_columns(exact=pl.lit(value=True))
        past = {s: self._archiving(s) for s in range(1, step + 1)}
        ever = [self._kept(s).filter(_of(then)) for s, then in past.items() if then]
        thinned = [name for then in past.values() for name, thinning in then.items() if thinning]
        # What was scraped again counts once, as acquired last.
        held = pl.concat(ever).filter(_of(archiving)).unique(["reader", "document", "source"], keep="last")
        return held.with_columns(exact=~_of(thinned))

    def lineage(self, doc: int) -> Lineage:
        """Return how a document descends from people; raise EcosystemError where there is none of this number."""
        history = self.history
        rows = history.documents.filter(pl.col("doc") == doc)
        if rows.is_empty():
            raise EcosystemError(f"there is no document {doc}; there are 0 to {history.documents.height - 1}.")
        row = rows.row(0, named=True)
        author, t = row["author"], row["t"]
        if not row["synthetic"]:
            people = author.split("/")[1] if author.startswith("writers/") else author
            return Lineage(doc, author, t, row["depth"], (), (Origin("people", people, None, 1.0),), ())
        ways = self._fitted(pl.DataFrame({"author": [author], "t": [t], "passes": [1.0]}, schema_overrides=WAYS))
        fits: list[Fit] = []
        ends: list[pl.DataFrame] = []
        while (step := ways["fit"].max()) is not None:
            assert isinstance(step, int)
            current = ways.filter(pl.col("fit") == step)
            flows = self.training_sets(step).join(current.drop("fit"), left_on="reader", right_on="author")
            flows = flows.with_columns(flow=pl.col("share") * pl.col("passes"))
            fits += _passed(step, current, flows)
            ends.append(flows.filter(pl.col("kind") != "model").select("kind", "who", "flow"))
            models = flows.filter(pl.col("kind") == "model").select("t", author="who", passes="flow")
            ways = _together([ways.filter(pl.col("fit").ne_missing(step)), self._fitted(models)])
        if ways.height:  # these wrote before their first fit
            begun = ways.with_columns(kind=pl.lit("start"), who=self._models("author"), flow="passes")
            fits += _beginners(begun)
            ends.append(begun.select("kind", "who", "flow"))
        over = pl.concat(ends).group_by("kind", "who").agg(pl.col("flow").sum()).sort("flow", "who", descending=True)
        origins = tuple(Origin(kind, who, None, share) for kind, who, share in over.iter_rows())
        return Lineage(doc, author, t, row["depth"], tuple(fits), origins, _caveats(history.scenario, fits))

    def _fits(self) -> pl.DataFrame:
        """Return who was fitted when: author, fit (the step); whatever else a step did, a training set was measured."""
        sets = (pl.col("scope") == "training_set") & (pl.col("metric") == "documents")
        return self.history.metrics.filter(sets).select(author="id", fit="step")

    def _fitted(self, ways: pl.DataFrame) -> pl.DataFrame:
        """Return (author, fit, passes): the step at which each author had last been fitted before it published."""
        # What is published at a step is written before any training at it.
        fits = self._fits().with_columns(t=pl.col("fit") + 1).sort("t")
        joined = ways.sort("t").join_asof(fits, on="t", by="author", strategy="backward", check_sortedness=False)
        return _together([joined.select("author", "fit", "passes")])

    def _models(self, author: str) -> pl.Expr:
        models = {name: recipe.model for name, recipe in self.history.scenario.trainers.items()}
        return _population(author).replace_strict(models, return_dtype=pl.String)


WAYS = {"author": pl.String(), "t": pl.Int32(), "passes": pl.Float64()}


def _of(populations: Sequence[str] | dict[str, bool]) -> pl.Expr:
    return _population("reader").is_in(list(populations))


def _population(column: str) -> pl.Expr:
    return pl.col(column).str.replace("/[0-9]+$", "")


def _together(ways: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(ways).group_by("author", "fit", maintain_order=True).agg(pl.col("passes").sum())


def _passed(step: int, ways: pl.DataFrame, flows: pl.DataFrame) -> list[Fit]:
    """Return what the models of each population that one passes at a step were fitted to, the most passed first."""
    fits = []
    population = _population("author").alias("population")
    for (name,), members in ways.group_by(population, maintain_order=True):
        passes = float(members["passes"].sum())
        own = flows.filter(pl.col("reader").is_in(members["author"].to_list()))
        weighted = own.group_by("reader").agg(pl.col("documents").sum(), pl.col("passes").first())
        model = pl.col("kind") == "model"
        merged = own.with_columns(by="who", who=pl.when(model).then(_population("who")).otherwise("who"))
        parts = merged.group_by("kind", "who", "t").agg(pl.col("flow").sum(), pl.col("by").unique())
        order = pl.col("kind").replace_strict({"people": 0, "injected": 1, "model": 2}, return_dtype=pl.Int8)
        ordered = parts.sort(order, -pl.col("t"), "who", nulls_last=True)
        origins = tuple(
            Origin(kind, by[0] if kind == "model" and len(by) == 1 else who, t, flow / passes)
            for kind, who, t, flow, by in ordered.iter_rows()
        )
        documents = float(np.average(weighted["documents"], weights=weighted["passes"]))
        fits.append(
            Fit(str(name), _named(str(name), members["author"]), step, passes, documents, origins, own["exact"].all())
        )
    return sorted(fits, key=lambda fit: -fit.passes)


def _beginners(begun: pl.DataFrame) -> list[Fit]:
    """Return those whose models wrote with the weights that they start from."""
    fits = []
    for (name, model), members in begun.group_by(_population("author").alias("population"), "who", maintain_order=True):
        origin = Origin("start", str(model), None, 1.0)
        passes = float(members["passes"].sum())
        fits.append(Fit(str(name), _named(str(name), members["author"]), None, passes, 0.0, (origin,), exact=True))
    return sorted(fits, key=lambda fit: -fit.passes)


def _named(population: str, members: pl.Series) -> str:
    return str(members[0]) if members.len() == 1 else f"{members.len()} trainers of {population}"


def _caveats(scenario: Scenario, fits: Sequence[Fit]) -> tuple[str, ...]:
    """Return what a lineage does not know, as far as it applies."""
    trainers = [scenario.at(fit.step).trainers[fit.population] for fit in fits if fit.step is not None]
    models = [(trainer, scenario.models[trainer.model]) for trainer in trainers]
    caveats = []
    if any(trainer.start == "previous" and model.depends_on_start for trainer, model in models):
        caveats.append(
            "A model that goes on from its previous weights learnt from earlier training sets too; counted is the last."
        )
    if any(model.uses_budget for _, model in models):
        caveats.append(
            "A budget may reach only part of a training set, or all of it several times; this is not recorded."
        )
    if any(scenario.models[scenario.trainers[fit.population].model].starts_pretrained for fit in fits):
        caveats.append(
            "What the weights that models start from had learnt is in no training set; ways that meet them end there."
        )
    if any(trainer.decoding.prompt is not None for trainer in trainers):
        caveats.append("The prompts that texts begin with are not counted as an origin.")
    if not all(fit.exact for fit in fits):
        caveats.append(
            "Archives of steps whose models were not kept (weights_every) are gone. Their place is taken by all that "
            "their trainers had selected until then, so that shares and depth differ from the true ones."
        )
    return tuple(caveats)
