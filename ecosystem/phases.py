"""One step of the world: nine phases, in order, each a function of the world and of the step's tables.

Everybody acts on the same snapshot: trainers write before anybody's text of this step is on the web, and all
scrape the web as it stands after curation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ecosystem.agents import Trainer
from ecosystem.corpus.schema import ARCHIVE, LEDGER, SEGMENT, empty
from ecosystem.errors import TrainingError
from ecosystem.families.base import FitRecord, FitRequest, GenerateRequest
from ecosystem.measure import measure_step
from ecosystem.policies.base import gate

if TYPE_CHECKING:
    from ecosystem.world import World

DRAFT = {name: SEGMENT[name] for name in ("site", "author", "synthetic", "depth", "model", "source", "row", "text")}


@dataclass
class Step:
    """The tables that travel through one step, room by room."""

    t: int
    drafts: list[pl.DataFrame] = field(default_factory=list)  # columns of DRAFT
    unpublished: dict[str, pl.Series] = field(default_factory=dict)  # per trainer: text written for scoring only
    segment: pl.DataFrame = field(default_factory=lambda: empty(SEGMENT))
    candidates: dict[str, pl.DataFrame] = field(default_factory=dict)  # per trainer: index rows
    ledger: pl.DataFrame = field(default_factory=lambda: empty(LEDGER))
    training: dict[str, pl.DataFrame] = field(default_factory=dict)  # per trainer: the ledger rows it trains on
    fits: dict[str, FitRecord] = field(default_factory=dict)
    reviews: list[pl.DataFrame] = field(default_factory=list)
    metrics: list[pl.DataFrame] = field(default_factory=list)


def write(world: World, step: Step) -> None:
    """People write: documents from their source, without replacement, until it runs dry."""
    live = world.corpus.live()
    for writer in world.writers:
        here = live.filter(pl.col("site").is_in(writer.homes.tolist()))["synthetic"]
        share = float(here.mean() or 0.0)  # type: ignore[arg-type]
        rows = world.draw(writer.recipe.source, writer.wants_to_write(share), writer.name)
        if len(rows):
            text = world.reservoirs[writer.recipe.source].rows(rows)
            step.drafts.append(
                human_drafts(text, writer.recipe.source, rows, f"writers/{writer.name}", writer.place(len(rows)))
            )


def generate(world: World, step: Step) -> None:
    """Models write: what each trainer publishes, and a little more that is only ever used for scoring."""
    asking = [trainer for trainer in world.trainers if trainer.wants_to_publish]
    extra = world.spec.measure.synthetic
    for model, trainers in by_model(asking).items():
        requests = [_generate_request(world, trainer, trainer.recipe.publish + extra) for trainer in trainers]
        written = world.cohorts[model].generate(requests, world.progress)
        for trainer, texts in zip(trainers, written, strict=True):
            step.unpublished[trainer.name] = texts.tail(extra)
            published = texts.head(trainer.recipe.publish)
            step.drafts.append(
                _draft(
                    published,
                    site=trainer.place(published.len()),
                    author=trainer.name,
                    synthetic=True,
                    depth=1.0 + trainer.depth,
                    model=model,
                )
            )


def _generate_request(world: World, trainer: Trainer, n: int) -> GenerateRequest:
    """Ask a trainer's model for ``n`` documents, with the beginnings that its decoding calls for."""
    decoding, prompts = trainer.recipe.decoding, None
    if decoding.prompt is not None:
        scraped = decoding.prompt.origin == "scraped"
        index = world.corpus.live() if scraped else world.corpus.index.filter(~pl.col("synthetic"))
        if index.is_empty():
            world.note(f"{trainer.name} found no {decoding.prompt.origin} documents to begin from: it wrote unprompted")
            decoding = decoding.model_copy(update={"prompt": None})
        else:
            luck = world.stream(f"trainers/{trainer.name}/prompts").uniform(np.arange(n))
            prompts = world.corpus.text(index["doc"].gather((luck * index.height).astype(np.int64)))
    stream = world.stream(f"trainers/{trainer.name}/generate")
    return GenerateRequest(trainer.member, n, decoding, prompts, stream)


def publish(world: World, step: Step) -> None:
    """The drafts of this step become one segment; the publish gate may refuse some of them."""
    drafts = pl.concat(step.drafts) if step.drafts else empty(DRAFT)
    segment = world.corpus.prepare(drafts, step.t)
    signed = gate(segment, world.policies(world.spec.web.publish), world.context("web"))
    step.segment = signed.select(SEGMENT.keys())
    world.corpus.publish(step.segment)


def retain(world: World, step: Step) -> None:
    """The retain gate decides what stays on the web."""
    policies = world.policies(world.spec.web.retain)
    if not policies:
        return
    live = world.corpus.live()
    after = gate(live.with_columns(weight=pl.lit(1.0)), policies, world.context("web"))
    world.corpus.reweigh(live["doc"], after["weight"])
    world.corpus.retire(after.filter(pl.col("verdict").is_not_null())["doc"], step.t)


def curate(world: World, step: Step) -> None:
    """Curators review documents on their sites and remove, down-weight or endorse."""
    live = world.corpus.live()
    for curator in world.curators:
        reviewed = curator.review(live)
        step.reviews.append(reviewed.select("doc", "synthetic", "suspect", curator=pl.lit(curator.name)))
        suspects, trusted = reviewed.filter("suspect"), reviewed.filter(~pl.col("suspect"))
        strength = curator.recipe.strength
        if curator.recipe.action == "remove":
            world.corpus.retire(suspects["doc"], step.t)
        elif curator.recipe.action == "down_weight":
            world.corpus.reweigh(suspects["doc"], pl.repeat(strength, suspects.height, eager=True))
        else:
            for site in trusted["site"]:
                world.web.endorse(int(curator.homes[0]), site, strength)


def scrape(world: World, step: Step) -> None:
    """Every trainer that will train collects candidates: a weighted sample without replacement."""
    live = world.corpus.live()
    for trainer in world.trainers:
        if trainer.wants_to_fit:
            step.candidates[trainer.name] = _sample(world, trainer, live)


def _sample(world: World, trainer: Trainer, live: pl.DataFrame) -> pl.DataFrame:
    """Draw a trainer's candidates from the live documents it can see.

    Weighted sampling without replacement with one keyed number per document (Efraimidis & Spirakis 2006,
    exponential keys): whether a document is drawn depends on no other document's position in the table.
    """
    how = trainer.recipe.scrape
    seen = live.filter((pl.col("t") <= world.t - trainer.recipe.lag) & (pl.col("weight") > 0))
    appeal = seen["weight"].to_numpy()
    if how.strategy == "reach":
        seen = seen.filter(pl.col("site").is_in(world.web.reach(trainer.homes, how.links).tolist()))
        appeal = seen["weight"].to_numpy()
    elif how.strategy == "recent":
        appeal = appeal * 0.5 ** ((world.t - seen["t"].to_numpy()) / how.half_life)
    elif how.strategy == "popularity":
        appeal = appeal * world.web.popularity()[seen["site"].to_numpy()]
    luck = world.stream(f"trainers/{trainer.name}/scrape").uniform(seen["doc"])
    arrival = -np.log(luck) / appeal
    chosen = np.argsort(arrival, kind="stable")[: how.docs]
    return seen[np.sort(chosen)]


def select(world: World, step: Step) -> None:
    """The select gate: each trainer's policies sign, weigh and add; what has no verdict is its training set."""
    books: list[pl.DataFrame] = []
    for trainer in world.trainers:
        if not trainer.wants_to_fit:
            continue
        candidates = step.candidates[trainer.name].with_columns(weight=pl.lit(1.0))
        signed = gate(
            candidates.drop("verdict", "reason"), world.policies(trainer.recipe.select), world.context(trainer.name)
        )
        book = signed.with_columns(reader=pl.lit(trainer.name), document="doc", source="injected_from").select(
            pl.col(name).cast(dtype) for name, dtype in LEDGER.items()
        )
        books.append(book)
        kept = book.filter(pl.col("verdict").is_null())
        step.training[trainer.name] = kept if trainer.recipe.retain is None else _archive(world, trainer, kept)
    if books:
        step.ledger = pl.concat(books)


def _archive(world: World, trainer: Trainer, kept: pl.DataFrame) -> pl.DataFrame:
    """Add what was kept now to a trainer's archive, thin it by the retention policies, and return its rows."""
    new = kept.with_columns(t=pl.lit(world.t, pl.Int32)).select(ARCHIVE.keys())
    mine = pl.col("reader") == trainer.name
    # The same document scraped again counts once, as acquired last.
    held = pl.concat([world.archive.filter(mine), new]).unique(["document", "source"], keep="last", maintain_order=True)
    held = held.with_columns(doc=_archive_ids(held))
    signed = gate(held, world.policies(trainer.recipe.retain or []), world.context(trainer.name))
    held = signed.filter(pl.col("verdict").is_null()).select(ARCHIVE.keys())
    world.archive = pl.concat([world.archive.filter(~mine), held])
    truth = world.corpus.index.select("synthetic", "depth", document="doc")
    known = held.filter(pl.col("source").is_null()).join(truth, on="document", how="left", maintain_order="left")
    injected = held.filter(pl.col("source").is_not_null()).with_columns(synthetic=pl.lit(False), depth=pl.lit(0.0))
    rows = pl.concat([known, injected], how="diagonal")
    return rows.with_columns(verdict=pl.lit(None), reason=pl.lit(None)).select(
        pl.col(name).cast(dtype) for name, dtype in LEDGER.items()
    )


def _archive_ids(held: pl.DataFrame) -> pl.Series:
    """Return an id per archive row that no web document has: injected rows count downwards from -1."""
    return held.select(
        pl.when(pl.col("source").is_null()).then(pl.col("document")).otherwise(-1 - pl.col("document"))
    ).to_series()


def fit(world: World, step: Step) -> None:
    """Models are trained on what their trainers selected; one cohort at a time, all its members together."""
    ready: list[Trainer] = []
    for trainer in world.trainers:
        if trainer.name in step.training:
            if step.training[trainer.name].is_empty():
                world.note(f"{trainer.name} had nothing to train on: {_why_empty(step, trainer)}; it keeps its model")
            else:
                ready.append(trainer)
    for model, trainers in by_model(ready).items():
        requests = [_fit_request(world, step, trainer) for trainer in trainers]
        try:
            records = world.cohorts[model].fit(requests, world.progress)
        except TrainingError as error:
            at = next((t.name for t in trainers if t.member == getattr(error, "member", None)), model)
            raise TrainingError(f"step {step.t}, {at}: {error}") from error
        for trainer, record in zip(trainers, records, strict=True):
            step.fits[trainer.name] = record
            rows = step.training[trainer.name]
            trainer.depth = float(np.average(rows["depth"], weights=_positive(rows["weight"])))
            trainer.has_model = True


def _fit_request(world: World, step: Step, trainer: Trainer) -> FitRequest:
    rows = step.training[trainer.name]
    return FitRequest(
        member=trainer.member,
        docs=world.contents(rows),
        weight=_positive(rows["weight"]),
        budget=trainer.recipe.budget,
        learning_rate=trainer.recipe.learning_rate,
        start=trainer.recipe.start,
        stream=world.stream(f"trainers/{trainer.name}/fit"),
    )


def _positive(weight: pl.Series) -> np.ndarray:
    """Return weights as an array; if all are zero (a weigher refused everything), all alike."""
    array = weight.to_numpy().astype(np.float64)
    return array if array.sum() > 0 else np.ones_like(array)


def _why_empty(step: Step, trainer: Trainer) -> str:
    book = step.ledger.filter(pl.col("reader") == trainer.name)
    if book.is_empty():
        return "it found no documents to scrape"
    refused = book.group_by("verdict", maintain_order=True).len().iter_rows()
    return f"all {book.height} candidates were refused ({', '.join(f'{n} by {who}' for who, n in refused)})"


def measure(world: World, step: Step) -> None:
    """Everything is measured on held-out human text, on the text of this step, and on the web."""
    measure_step(world, step)


def by_model(trainers: Sequence[Trainer]) -> dict[str, list[Trainer]]:
    """Group trainers by the name of their model, in order."""
    groups: dict[str, list[Trainer]] = {}
    for trainer in trainers:
        groups.setdefault(trainer.recipe.model, []).append(trainer)
    return groups


def _draft(text: pl.Series, **columns: object) -> pl.DataFrame:
    """Return drafts with these contents; a scalar stands for every row, a missing column is null."""
    frame = pl.DataFrame({"text": text.cast(pl.String)})
    for name, dtype in DRAFT.items():
        value = columns.get(name)
        if name != "text":
            column = pl.lit(pl.Series(value) if isinstance(value, np.ndarray) else value)
            frame = frame.with_columns(column.cast(dtype).alias(name))
    return frame.select(DRAFT.keys())


def human_drafts(text: pl.Series, source: str, rows: np.ndarray, author: str, sites: np.ndarray) -> pl.DataFrame:
    """Return drafts written by people."""
    return _draft(text, site=sites, author=author, synthetic=False, depth=0.0, source=source, row=rows)


Phase = Callable[["World", Step], None]
PHASES: tuple[Phase, ...] = (write, generate, publish, retain, curate, scrape, select, fit, measure)
