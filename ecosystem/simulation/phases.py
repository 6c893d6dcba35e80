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
from numpy.typing import NDArray

from ecosystem.simulation.agents import Trainer, by_model
from ecosystem.corpus.schema import ARCHIVE, INDEX, LEDGER, SEGMENT, empty
from ecosystem.errors import TrainingError
from ecosystem.families.base import FitRecord, FitRequest, GenerateRequest, WriteRecord
from ecosystem.marks import Mark
from ecosystem.simulation.measurement.measure import measure_step
from ecosystem.policies.base import gate

if TYPE_CHECKING:
    from ecosystem.simulation.world import World

DRAFT = {name: SEGMENT[name] for name in ("site", "author", "synthetic", "depth", "model", "source", "row", "content")}


@dataclass
class Step:
    """The tables that travel through one step, room by room."""

    t: int
    drafts: list[pl.DataFrame] = field(default_factory=list)  # columns of DRAFT
    audiences: dict[str, float] = field(default_factory=dict)  # per writer that may leave: share of people's prominence
    marks: dict[str, Mark] = field(default_factory=dict)  # per trainer that watermarks its text
    unpublished: dict[str, pl.Series] = field(default_factory=dict)  # per trainer: text written for scoring only
    written: dict[str, WriteRecord | int] = field(default_factory=dict)  # per trainer: what that took, or documents
    segment: pl.DataFrame = field(default_factory=lambda: empty(SEGMENT))
    live: pl.DataFrame = field(default_factory=lambda: empty(INDEX))  # the index rows that can be scraped
    candidates: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # per trainer: rows of `live`
    ledger: pl.DataFrame = field(default_factory=lambda: empty(LEDGER))
    training: dict[str, pl.DataFrame] = field(default_factory=dict)  # per trainer: the ledger rows it trains on
    fits: dict[str, FitRecord] = field(default_factory=dict)
    reviews: list[pl.DataFrame] = field(default_factory=list)
    metrics: list[pl.DataFrame] = field(default_factory=list)


def write(world: World, step: Step) -> None:
    """People write: documents from their source, without replacement, until it runs dry."""
    live = world.corpus.live()
    moved: dict[tuple[str, bool], int] = {}  # per population: writers that left, and that came back
    for writer in world.writers:
        here = live.filter(pl.col("site").is_in(writer.homes.tolist()))
        share = float(here["synthetic"].mean() or 0.0)  # type: ignore[arg-type]
        if writer.recipe.leaves_below is not None:
            step.audiences[writer.name] = _audience(here)
        left = writer.has_left
        writer.hear_of(step.audiences.get(writer.name, 1.0))
        if writer.has_left != left:
            moved[writer.population, writer.has_left] = moved.get((writer.population, writer.has_left), 0) + 1
        rows = world.draw(writer.recipe.source, writer.wants_to_write(share), writer.name)
        if len(rows):
            content = world.reservoirs[writer.recipe.source].rows(rows)
            step.drafts.append(
                human_drafts(content, writer.recipe.source, rows, f"writers/{writer.name}", writer.place(len(rows)))
            )

    for (population, left), some in moved.items():
        told = "left for want of readers" if left else "came back"
        world.note(f"{some} of the {world.spec.writers[population].count} writers of {population} {told}")


def _audience(here: pl.DataFrame) -> float:
    """Return the share of the prominence of these documents that people wrote; 1 where there are none."""
    weight, people = here["weight"].to_numpy(), ~here["synthetic"].to_numpy()
    return float(weight[people].sum() / weight.sum()) if weight.sum() > 0 else 1.0


def generate(world: World, step: Step) -> None:
    """Models write: what each trainer publishes, and a little more that is only ever used for scoring."""
    asking = [trainer for trainer in world.trainers if trainer.wants_to_publish]
    extra, step.marks = world.spec.measure.synthetic, world.marks()
    for model, trainers in by_model(asking).items():
        requests = [_generate_request(world, t, t.recipe.publish + extra, step.marks.get(t.name)) for t in trainers]
        written = world.cohorts[model].generate(requests, world.progress)
        took = getattr(world.cohorts[model], "written", [request.n for request in requests])
        step.written |= dict(zip([trainer.name for trainer in trainers], took, strict=True))
        published = []
        for trainer, docs in zip(trainers, written, strict=True):
            step.unpublished[trainer.name] = docs.tail(extra)
            published.append(docs.head(trainer.recipe.publish))
        counts = [docs.len() for docs in published]
        step.drafts.append(
            _draft(
                pl.concat(published),
                site=np.concatenate([t.place(n) for t, n in zip(trainers, counts, strict=True)]),
                author=np.repeat([trainer.name for trainer in trainers], counts),
                synthetic=True,
                depth=np.repeat([1.0 + trainer.depth for trainer in trainers], counts),
                model=model,
            )
        )


def _generate_request(world: World, trainer: Trainer, n: int, mark: Mark | None) -> GenerateRequest:
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
            prompts = world.corpus.contents(index["doc"].gather((luck * index.height).astype(np.int64)))
    stream = world.stream(f"trainers/{trainer.name}/generate")
    return GenerateRequest(trainer.member, n, decoding, prompts, stream, mark)


def publish(world: World, step: Step) -> None:
    """The drafts of this step become one segment; the publish gate may refuse some of them."""
    drafts = pl.concat(step.drafts) if step.drafts else empty({**DRAFT, "content": world.corpus.content})
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
        if reviewed.is_empty():
            continue
        suspects, trusted = reviewed.filter("suspect"), reviewed.filter(~pl.col("suspect"))
        strength = curator.recipe.strength
        if curator.recipe.action == "remove":
            world.corpus.retire(suspects["doc"], step.t)
        elif curator.recipe.action == "down_weight":
            world.corpus.reweigh(suspects["doc"], pl.repeat(strength, suspects.height, eager=True))
        else:
            for site in trusted["site"]:
                world.web.endorse(int(curator.homes[0]), site, strength)


@dataclass(frozen=True)
class Shelf:
    """The live documents as scrapers look through them: columns as arrays, and which rows stand on each site."""

    doc: NDArray[np.int64]
    t: NDArray[np.int64]
    site: NDArray[np.int64]
    weight: NDArray[np.float64]
    order: NDArray[np.int64]  # rows sorted by site
    starts: NDArray[np.int64]  # where each site begins in `order`, [sites + 1]

    @classmethod
    def of(cls, live: pl.DataFrame, sites: int) -> Shelf:
        """Sort the rows of ``live`` (columns of the index) by site."""
        doc, t, site, weight = (live[name].to_numpy() for name in ("doc", "t", "site", "weight"))
        order = np.argsort(site, kind="stable")
        return cls(doc, t, site, weight, order, np.searchsorted(site[order], np.arange(sites + 1)))

    def on(self, sites: Sequence[int]) -> NDArray[np.int64]:
        """Return the rows on these sites, in ascending order."""
        return np.sort(np.concatenate([self.order[self.starts[site] : self.starts[site + 1]] for site in sites]))


def scrape(world: World, step: Step) -> None:
    """Every trainer that will train collects candidates: a weighted sample without replacement."""
    step.live = world.corpus.live()
    shelf = Shelf.of(step.live, world.web.sites)
    for trainer in world.trainers:
        if trainer.wants_to_fit:
            step.candidates[trainer.name] = sample(world, trainer, shelf)


def sample(world: World, trainer: Trainer, shelf: Shelf) -> NDArray[np.int64]:
    """Draw a trainer's candidates from the live documents it can see; return their rows.

    Weighted sampling without replacement with one keyed number per document (Efraimidis & Spirakis 2006,
    exponential keys): whether a document is drawn depends on no other document's position in the table.
    """
    how = trainer.recipe.scrape
    if how.strategy == "reach":
        rows = shelf.on(world.web.reach(trainer.homes, how.links).tolist())
    else:
        rows = np.arange(shelf.doc.size)
    rows = rows[(shelf.t[rows] <= world.t - trainer.recipe.lag) & (shelf.weight[rows] > 0)]
    if len(rows) <= how.docs:
        return rows  # all of them, whatever their luck
    appeal = shelf.weight[rows]
    if how.strategy == "recent":
        appeal = appeal * 0.5 ** ((world.t - shelf.t[rows]) / how.half_life)
    elif how.strategy == "popularity":
        appeal = appeal * world.web.popularity()[shelf.site[rows]]
    luck = world.stream(f"trainers/{trainer.name}/scrape").uniform(shelf.doc[rows])
    with np.errstate(divide="ignore"):
        arrival = -np.log(luck) / appeal
    chosen = np.argsort(arrival, kind="stable")[: how.docs]
    return rows[np.sort(chosen)]


def select(world: World, step: Step) -> None:
    """The select gate: each trainer's policies sign, weigh and add; what has no verdict is its training set."""
    books: list[pl.DataFrame] = []
    free = [t for t in world.trainers if t.wants_to_fit and not t.recipe.select]
    if free:  # where no policy stands at the gate, everything passes: all such trainers in one table
        counts = [len(step.candidates[trainer.name]) for trainer in free]
        readers = pl.Series(np.repeat([trainer.name for trainer in free], counts), dtype=pl.String)
        table = step.live[np.concatenate([step.candidates[trainer.name] for trainer in free])]
        nobody = {name: pl.lit(None, pl.String) for name in ("injected_from", "added_by")}
        whole = _book(table.with_columns(weight=pl.lit(1.0), **nobody), readers)
        first = np.concatenate([[0], np.cumsum(counts)]).tolist()
        passed = {t.name: whole[a:b] for t, a, b in zip(free, first[:-1], first[1:], strict=True)}
    for trainer in world.trainers:
        if not trainer.wants_to_fit:
            continue
        if trainer.recipe.select:
            table = step.live[step.candidates[trainer.name]].with_columns(weight=pl.lit(1.0))
            policies = world.policies(trainer.recipe.select)
            signed = gate(table.drop("verdict", "reason"), policies, world.context(trainer.name))
            book = _book(signed, pl.lit(trainer.name))
        else:
            book = passed[trainer.name]
        books.append(book)
        kept = book.filter(pl.col("verdict").is_null()) if trainer.recipe.select else book
        step.training[trainer.name] = kept if trainer.recipe.retain is None else _archive(world, trainer, kept)
    if books:
        step.ledger = pl.concat(books)
    _note_shortfalls(world)


def _note_shortfalls(world: World) -> None:
    """Tell once for each adder how much less than asked for it gave, however many trainers asked."""
    for name, short in world.shortfalls.items():
        wanted, given = (sum(column) for column in zip(*short, strict=True))
        who = "1 trainer" if len(short) == 1 else f"{len(short)} trainers"
        world.note(f"policies.{name}: {who} asked for {wanted} documents and got {given}, since there are no more")
    world.shortfalls.clear()


def _book(signed: pl.DataFrame, reader: pl.Expr | pl.Series) -> pl.DataFrame:
    """Return the ledger rows of a table that has been through a gate."""
    return signed.with_columns(reader=reader, document="doc", source="injected_from").select(
        pl.col(name).cast(dtype) for name, dtype in LEDGER.items()
    )


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
    return rows.with_columns(verdict=pl.lit(None), reason=pl.lit(None), added_by=pl.lit(None)).select(
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
        requests = _fit_requests(world, step, trainers)
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


def _fit_requests(world: World, step: Step, trainers: Sequence[Trainer]) -> list[FitRequest]:
    """Ask for one fit per trainer; contents are gathered for all of them at once."""
    sets = [step.training[trainer.name] for trainer in trainers]
    contents = world.contents(pl.concat(sets))
    first = np.concatenate([[0], np.cumsum([rows.height for rows in sets])]).tolist()
    return [
        FitRequest(
            member=trainer.member,
            docs=contents[a:b],
            weight=_positive(rows["weight"]),
            budget=trainer.recipe.budget,
            learning_rate=trainer.recipe.learning_rate,
            start=trainer.recipe.start,
            stream=world.stream(f"trainers/{trainer.name}/fit"),
        )
        for trainer, rows, a, b in zip(trainers, sets, first[:-1], first[1:], strict=True)
    ]


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


def _draft(content: pl.Series, **columns: object) -> pl.DataFrame:
    """Return drafts with these contents; a scalar stands for every row, a missing column is null."""
    made = []
    for name, dtype in DRAFT.items():
        value = columns.get(name)
        if name == "content":
            made.append(content.alias(name))
        elif isinstance(value, np.ndarray):
            made.append(pl.Series(name, value).cast(dtype))
        else:
            made.append(pl.Series(name, [value], dtype=dtype).new_from_index(0, content.len()))
    return pl.DataFrame(made)


def human_drafts(content: pl.Series, source: str, rows: np.ndarray, author: str, sites: np.ndarray) -> pl.DataFrame:
    """Return drafts written by people."""
    return _draft(content, site=sites, author=author, synthetic=False, depth=0.0, source=source, row=rows)


Phase = Callable[["World", Step], None]
PHASES: tuple[Phase, ...] = (write, generate, publish, retain, curate, scrape, select, fit, measure)
