"""Trace documents back to people through the stored ledgers and archives of a run."""

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

_CACHED_STEPS = 50  # training sets of this many steps stay in memory


class History(Protocol):
    """The committed steps of a run as tables, from which lineages are computed."""

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
        """Every document, with at least the columns doc, t, author, synthetic and depth, and not ai_share."""


@dataclass(frozen=True)
class RunHistory:
    """A :class:`History` whose tables are in memory."""

    store: Store
    scenario: Scenario
    metrics: pl.DataFrame
    documents: pl.DataFrame


class Ancestry:
    """Compute the lineages of a run's documents; the ledger of a step is read when it is first needed."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._sets: dict[int, pl.DataFrame] = {}
        self._known: pl.DataFrame | None = None

    def training_sets(self, step: int) -> pl.DataFrame:
        """Return the composition, by origin, of every training set fitted at a step.

        Columns: reader, kind, who, t (step of publication of a model's documents, else null), share (by weight; sums
        to one for each reader), documents, exact. A mixed document is divided between its writer and the trainer whose
        model wrote the rest. A training set is what the trainer's select gate let pass, or the
        archive of a trainer that keeps one (``retain``). Archives of steps whose models were not kept have been
        deleted. They are replaced by everything that the trainer had selected until then, which is exact if no
        retention policy thinned the archive.
        """
        if step not in self._sets:
            if len(self._sets) >= _CACHED_STEPS:
                self._sets.pop(next(iter(self._sets)))
            self._sets[step] = self._compose(step)
        return self._sets[step]

    def _compose(self, step: int) -> pl.DataFrame:
        rows = self._selected(step).with_columns(exact=pl.lit(value=True))
        archiving = self._archiving(step)
        if archiving:
            rows = pl.concat([rows.filter(~_belongs_to(archiving)), self._archives(step, archiving)])
        rows = rows.filter(pl.col("reader").is_in(self._fits().filter(pl.col("fit") == step)["author"].to_list()))
        publications = self._publications().select("author", "t", "assistant", "ai_share", document="doc")
        from_web = pl.col("source").is_null()
        # In a row with a source, document is a row number of that source, not the id of a document of the web.
        joined = pl.concat(
            [rows.filter(from_web).join(publications, on="document", how="left"), rows.filter(~from_web)],
            how="diagonal",
        ).with_columns(
            pl.col("ai_share").fill_null(0.0),
            # As in a fit, weights that are all zero count as equal.
            weight=pl.when(pl.col("weight").sum().over("reader") > 0).then("weight").otherwise(1.0),
        )
        writers = pl.col("author").str.replace("^writers/(.*)/[0-9]+$", "$1")
        by_people = joined.filter(pl.col("ai_share") < 1).with_columns(
            kind=pl.when(from_web).then(pl.lit("people")).otherwise(pl.lit("injected")),
            who=pl.when(from_web).then(writers).otherwise("source"),
            t=pl.lit(None, pl.Int32),
            part=1 - pl.col("ai_share"),
        )
        by_models = joined.filter(pl.col("ai_share") > 0).with_columns(
            kind=pl.lit("model"), who="assistant", part="ai_share"
        )
        origins = pl.concat([by_people, by_models], how="diagonal")
        part = pl.col("part")
        totals = origins.group_by("reader", "kind", "who", "t", "exact").agg(
            (pl.col("weight") * part).sum(), documents=part.sum()
        )
        share = pl.col("weight") / pl.col("weight").sum().over("reader")
        return totals.with_columns(share=share).drop("weight").sort("reader", "kind", "who", "t")

    def _publications(self) -> pl.DataFrame:
        """Return the documents with ``ai_share`` and ``assistant``, the trainer whose model wrote that share."""
        documents = self.history.documents
        if self._known is None or self._known.height != documents.height:
            if self.history.scenario.has_assisted_writers:
                assistance = self.history.store.table("corpus", columns=("doc", "ai_share", "assistant"))
                joined = documents.join(assistance, on="doc", how="left", maintain_order="left")
                self._known = joined.with_columns(assistant=pl.coalesce("assistant", "author"))
            else:
                share = pl.col("synthetic").cast(pl.Float64)
                self._known = documents.with_columns(ai_share=share, assistant="author")
        return self._known

    def _selected(self, step: int) -> pl.DataFrame:
        """Return the rows of a step's ledger that no policy refused."""
        ledger = self.history.store.table(
            "ledger", range(step, step + 1), ("reader", "document", "source", "weight", "verdict")
        )
        return ledger.filter(pl.col("verdict").is_null()).drop("verdict")

    def _archiving(self, step: int) -> dict[str, bool]:
        """Return the populations that keep an archive at a step, each with whether a policy thins it."""
        trainers = self.history.scenario.at(step).trainers
        return {name: bool(settings.retain) for name, settings in trainers.items() if settings.retain is not None}

    def _archives(self, step: int, archiving: dict[str, bool]) -> pl.DataFrame:
        """Return the archives of these populations after a step, or a replacement where they were deleted."""
        store = self.history.store
        if step in store.steps_with_weights():
            archives = store.table("archive", range(step, step + 1), ("reader", "document", "source", "weight"))
            return archives.filter(_belongs_to(archiving)).with_columns(exact=pl.lit(value=True))
        by_step = {t: self._archiving(t) for t in range(1, step + 1)}
        selected = [self._selected(t).filter(_belongs_to(names)) for t, names in by_step.items() if names]
        thinned = [name for names in by_step.values() for name, is_thinned in names.items() if is_thinned]
        trainers = self.history.scenario.at(step).trainers
        merged = [settings.merged_into for settings in trainers.values() if settings.merged_into is not None]
        thinned += [*merged, *(name for name, settings in trainers.items() if settings.split_from is not None)]
        # A document that was selected several times counts once, with its latest weight.
        archives = pl.concat(selected).filter(_belongs_to(archiving))
        archives = archives.unique(["reader", "document", "source"], keep="last")
        return archives.with_columns(exact=~_belongs_to(thinned))

    def lineage(self, doc: int) -> Lineage:
        """Return how a document descends from people; raise EcosystemError if there is no such document."""
        history = self.history
        rows = self._publications().filter(pl.col("doc") == doc)
        if rows.is_empty():
            last = history.documents.height - 1
            raise EcosystemError(f"there is no document {doc}; this run has documents 0 to {last}.")
        row = rows.row(0, named=True)
        author, t, share, trainer = row["author"], row["t"], row["ai_share"], row["assistant"]
        people = author.split("/")[1] if author.startswith("writers/") else author
        if not row["synthetic"]:
            return Lineage(doc, author, t, row["depth"], (), (Origin("people", people, None, 1.0),), ())
        start = pl.DataFrame({"author": [trainer], "t": [t], "passes": [share]}, schema_overrides=PUBLICATIONS)
        pending = self._latest_fits(start)
        fits: list[Fit] = []
        written = {"kind": ["people"], "who": [people], "flow": [1 - share]}
        ends = [pl.DataFrame(written)] if share < 1 else []
        while (step := pending["fit"].max()) is not None:
            assert isinstance(step, int)
            current = pending.filter(pl.col("fit") == step)
            flows = self.training_sets(step).join(current.drop("fit"), left_on="reader", right_on="author")
            flows = flows.with_columns(flow=pl.col("share") * pl.col("passes"))
            fits += _fits_of_step(step, current, flows)
            ends.append(flows.filter(pl.col("kind") != "model").select("kind", "who", "flow"))
            models = flows.filter(pl.col("kind") == "model").select("t", author="who", passes="flow")
            pending = _add_up([pending.filter(pl.col("fit").ne_missing(step)), self._latest_fits(models)])
        if pending.height:  # these published before their first fit
            unfitted = pending.with_columns(kind=pl.lit("start"), who=self._model_of("author"), flow="passes")
            fits += _fits_before_first(unfitted)
            ends.append(unfitted.select("kind", "who", "flow"))
        totals = pl.concat(ends).group_by("kind", "who").agg(pl.col("flow").sum()).sort("flow", "who", descending=True)
        origins = tuple(Origin(kind, who, None, share) for kind, who, share in totals.iter_rows())
        caveats = _caveats(history.scenario, fits)
        by = (None, None) if trainer == author else (trainer, share)
        return Lineage(doc, author, t, row["depth"], tuple(fits), origins, caveats, *by)

    def _fits(self) -> pl.DataFrame:
        """Return every fit of the run: author, fit (the step)."""
        # A training set is measured at a step if and only if its trainer was fitted there.
        sizes = (pl.col("scope") == "training_set") & (pl.col("metric") == "documents")
        return self.history.metrics.filter(sizes).select(author="id", fit="step")

    def _latest_fits(self, publications: pl.DataFrame) -> pl.DataFrame:
        """Return (author, fit, passes): the step of each author's latest fit before it published, null if none."""
        # Documents are generated before any training of the same step.
        fits = self._fits().with_columns(t=pl.col("fit") + 1).sort("t")
        joined = publications.sort("t")
        for table in (fits, self._splits()):
            joined = joined.join_asof(table, on="t", by="author", strategy="backward", check_sortedness=False)
        # Before its first fit, a trainer that has split from another writes with the weights of that one.
        inherited = pl.col("split").is_not_null() & (pl.col("fit").fill_null(0) < pl.col("split"))
        parents = joined.filter(inherited).select("passes", author="parent", t="split")
        own = joined.filter(inherited.not_()).select("author", "fit", "passes")
        return _add_up([own, *([self._latest_fits(parents)] if parents.height else [])])

    def _splits(self) -> pl.DataFrame:
        """Return every split of a trainer from another: author, t and split (the step), parent."""
        scenario, rows = self.history.scenario, []
        for t in range(1, self.history.store.last() + 1):
            before, now = (scenario.at(step).trainers for step in (t - 1, t))
            rows += [
                (f"{name}/{number}", t, t, f"{settings.split_from}/{number}")
                for name, settings in now.items()
                if settings.split_from is not None
                and settings.present
                and not before[name].present
                and before[settings.split_from].present
                for number in range(settings.count)
            ]
        columns = {"author": pl.String(), "t": pl.Int32(), "split": pl.Int32(), "parent": pl.String()}
        return pl.DataFrame(rows, schema=columns, orient="row")

    def _model_of(self, author: str) -> pl.Expr:
        models = {name: settings.model for name, settings in self.history.scenario.trainers.items()}
        return _population(author).replace_strict(models, return_dtype=pl.String)


PUBLICATIONS = {"author": pl.String(), "t": pl.Int32(), "passes": pl.Float64()}


def _belongs_to(populations: Sequence[str] | dict[str, bool]) -> pl.Expr:
    return _population("reader").is_in(list(populations))


def _population(column: str) -> pl.Expr:
    return pl.col(column).str.replace("/[0-9]+$", "")


def _add_up(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return (author, fit, passes) with the passes of each fit added up."""
    return pl.concat(frames).group_by("author", "fit", maintain_order=True).agg(pl.col("passes").sum())


def _fits_of_step(step: int, current: pl.DataFrame, flows: pl.DataFrame) -> list[Fit]:
    """Return the fits of one step, one for each population, by descending number of passes."""
    fits = []
    population = _population("author").alias("population")
    for (name,), members in current.group_by(population, maintain_order=True):
        passes = float(members["passes"].sum())
        inflows = flows.filter(pl.col("reader").is_in(members["author"].to_list()))
        sizes = inflows.group_by("reader").agg(pl.col("documents").sum(), pl.col("passes").first())
        by_model = pl.col("kind") == "model"
        merged = inflows.with_columns(authors="who", who=pl.when(by_model).then(_population("who")).otherwise("who"))
        parts = merged.group_by("kind", "who", "t").agg(pl.col("flow").sum(), pl.col("authors").unique())
        order = pl.col("kind").replace_strict({"people": 0, "injected": 1, "model": 2}, return_dtype=pl.Int8)
        ordered = parts.sort(order, -pl.col("t"), "who", nulls_last=True)
        origins = tuple(
            Origin(kind, authors[0] if kind == "model" and len(authors) == 1 else who, t, flow / passes)
            for kind, who, t, flow, authors in ordered.iter_rows()
        )
        documents = float(np.average(sizes["documents"], weights=sizes["passes"]))
        label, exact = _label(str(name), members["author"]), inflows["exact"].all()
        fits.append(Fit(str(name), label, step, passes, documents, origins, exact))
    return sorted(fits, key=lambda fit: -fit.passes)


def _fits_before_first(unfitted: pl.DataFrame) -> list[Fit]:
    """Return a Fit without a step for every population that published with the weights that it starts from."""
    fits = []
    population = _population("author").alias("population")
    for (name, model), members in unfitted.group_by(population, "who", maintain_order=True):
        origin = Origin("start", str(model), None, 1.0)
        passes = float(members["passes"].sum())
        fits.append(Fit(str(name), _label(str(name), members["author"]), None, passes, 0.0, (origin,), exact=True))
    return sorted(fits, key=lambda fit: -fit.passes)


def _label(population: str, members: pl.Series) -> str:
    return str(members[0]) if members.len() == 1 else f"{members.len()} trainers of {population}"


def _caveats(scenario: Scenario, fits: Sequence[Fit]) -> tuple[str, ...]:
    """Return a sentence for every limitation that applies to a lineage."""
    trainers = [scenario.at(fit.step).trainers[fit.population] for fit in fits if fit.step is not None]
    models = [(trainer, scenario.models[trainer.model]) for trainer in trainers]
    caveats = []
    if any(trainer.start == "previous" and model.depends_on_start for trainer, model in models):
        caveats.append(
            "A model that continues from its previous weights has learnt from earlier training sets too; only the "
            "latest is counted."
        )
    if any(model.uses_budget for _, model in models):
        caveats.append(
            "A budget may cover only part of a training set, or all of it several times; this is not recorded."
        )
    if any(scenario.models[scenario.trainers[fit.population].model].starts_pretrained for fit in fits):
        caveats.append(
            "The pre-training data of the weights that models start from are in no training set; a walk that reaches "
            "such weights ends there."
        )
    if any(trainer.decoding.prompt is not None for trainer in trainers):
        caveats.append("The prompts that texts begin with are not counted as an origin.")
    if any(trainer.merged_weights is not None for trainer in scenario.at(scenario.steps).trainers.values()):
        caveats.append(
            "Of laboratories whose weights were averaged, only the training sets of the one that remains are counted."
        )
    if not all(fit.exact for fit in fits):
        caveats.append(
            "Archives of steps whose models were not kept (weights_every) have been deleted. They are replaced by "
            "everything that their trainers had selected until then, so that shares and depth are only approximate."
        )
    return tuple(caveats)
