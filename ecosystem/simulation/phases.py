"""The nine phases of a step, in order; each is a function of the state and of the tables of the step.

All agents act on the same snapshot: trainers write before any text of this step is published, and all of them scrape
the web after curation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.corpus import Live
from ecosystem.corpus.schema import empty
from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import TrainingError
from ecosystem.families.base import MemberError, Rewrites, TextCohort, recovered
from ecosystem.families.requests import FitRequest, GenerateRequest
from ecosystem.policies.base import WritesWatermark, gate
from ecosystem.simulation.agents import Trainer, Writer, by_model
from ecosystem.simulation.measurement.measure import measure_step
from ecosystem.simulation.selection import Pools, archive, ledger_rows, note_shortfalls, readable, sample
from ecosystem.simulation.state import State
from ecosystem.simulation.step import DRAFT, Step, draft_table, human_drafts
from ecosystem.simulation.writing.adoption import plan_documents, write_by_adoption
from ecosystem.simulation.writing.drafts import revise_choices, write_by_choice, write_with_ai


def write(state: State, step: Step) -> None:
    """Let people write: documents from their source, without replacement, until it runs dry."""
    revise_choices(state)
    live = state.corpus.live()
    site, synthetic = live.array("site"), live.array("synthetic")
    documents = np.bincount(site, minlength=state.web.sites)
    by_models = np.bincount(site[synthetic], minlength=state.web.sites)
    moved: dict[tuple[str, bool], int] = {}  # per (population, has left): number of writers
    for writer in state.clock.each("writers", state.writers):
        if writer.population in state.choices:
            write_by_choice(state, step, writer)
            continue
        homes = np.unique(writer.homes)
        share = float(by_models[homes].sum() / max(documents[homes].sum(), 1))
        if writer.settings.leaves_below is not None:
            step.audiences[writer.name] = _audience(live, homes)
        left = writer.has_left
        writer.update_presence(step.audiences.get(writer.name, 1.0))
        if writer.has_left != left:
            moved[writer.population, writer.has_left] = moved.get((writer.population, writer.has_left), 0) + 1
        count = writer.documents_to_write(share)
        if writer.settings.adoption is not None:
            plan_documents(state, step, writer, count)
            continue
        rows = state.draw(writer.settings.source, count, writer.name)
        if len(rows):
            content, author = state.reservoirs[writer.settings.source].rows(rows), f"writers/{writer.name}"
            drafts = human_drafts(content, writer.settings.source, rows, author, writer.place(len(rows)))
            step.drafts.append(drafts if writer.settings.rewrite is None else _rewritten(state, step, writer, drafts))
    for (population, left), count in moved.items():
        event = "left for lack of readers" if left else "returned"
        state.note(f"{count} of the {state.scenario.writers[population].count} writers of {population} {event}")


def _rewritten(state: State, step: Step, writer: Writer, drafts: pl.DataFrame) -> pl.DataFrame:
    """Return a writer's drafts after a model has rewritten them: still human, with its share as their depth."""
    how = writer.settings.rewrite
    assert how is not None
    cohort = state.cohorts[how.model]
    assert isinstance(cohort, Rewrites)  # checked when the scenario was read
    result = cohort.rewrite(drafts["content"], how, state.stream(f"writers/{writer.name}/rewrite"))
    step.rewritten[writer.name] = result
    # A text of the weights that trainers start from is one hop from human data.
    return drafts.with_columns(
        content=result.docs,
        depth=pl.Series(result.share),
        model=pl.when(pl.Series(result.changed) > 0).then(pl.lit(how.model)),
    )


def _audience(live: Live, sites: NDArray[np.int64]) -> float:
    """Return the human share of the prominence of the documents on these sites; 1 if it is zero in total."""
    nearby = np.isin(live.array("site"), sites)
    weight, people = live.array("weight")[nearby], ~live.array("synthetic")[nearby]
    return float(weight[people].sum() / weight.sum()) if weight.sum() > 0 else 1.0


def generate(state: State, step: Step) -> None:
    """Let models write the documents to publish, and extra ones that are only used for scoring."""
    publishing = [trainer for trainer in state.trainers if trainer.wants_to_publish]
    extra, step.marks = state.scenario.measure.synthetic, watermarking(state)
    for model, trainers in by_model(publishing).items():
        amounts = [trainer.documents_to_publish() for trainer in trainers]
        requests = [
            _generate_request(state, trainer, amount + extra, step.marks.get(trainer.name))
            for trainer, amount in zip(trainers, amounts, strict=True)
        ]
        cohort, started = state.cohorts[model], state.clock.now()
        written = cohort.generate(requests, state.progress)
        costs = cohort.written if isinstance(cohort, TextCohort) else [request.n for request in requests]
        names = [trainer.name for trainer in trainers]
        step.written |= dict(zip(names, costs, strict=True))
        amounts_written = [cost if isinstance(cost, int) else int(cost.drawn.sum()) for cost in costs]
        state.clock.divide("trainers", names, amounts_written, started)
        published = []
        for trainer, docs, amount in zip(trainers, written, amounts, strict=True):
            step.unpublished[trainer.name] = docs.tail(extra)
            published.append(docs.head(amount))
        counts = [docs.len() for docs in published]
        step.drafts.append(
            draft_table(
                pl.concat(published),
                site=np.concatenate([t.place(n) for t, n in zip(trainers, counts, strict=True)]),
                author=np.repeat([trainer.name for trainer in trainers], counts),
                synthetic=True,
                depth=np.repeat([1.0 + trainer.depth for trainer in trainers], counts),
                model=model,
            )
        )
    write_with_ai(state, step)
    write_by_adoption(state, step)


def _generate_request(state: State, trainer: Trainer, n: int, mark: WatermarkSpec | None) -> GenerateRequest:
    """Build the request to a trainer's model for ``n`` documents, with prompts if its decoding has any."""
    decoding, prompts = trainer.settings.decoding, None
    if decoding.prompt is not None:
        scraped = decoding.prompt.origin == "scraped"
        docs = state.corpus.live().doc if scraped else np.flatnonzero(~state.corpus.array("synthetic"))
        docs = readable(state, trainer, docs) if scraped else docs
        if not docs.size:
            state.note(f"{trainer.name} found no {decoding.prompt.origin} documents to begin from: it wrote unprompted")
            decoding = decoding.model_copy(update={"prompt": None})
        else:
            noise = state.stream(f"trainers/{trainer.name}/prompts").uniform(np.arange(n))
            prompts = state.corpus.contents(docs[(noise * docs.size).astype(np.int64)])
    stream = state.stream(f"trainers/{trainer.name}/generate")
    return GenerateRequest(trainer.member, n, decoding, prompts, stream, mark)


def watermarking(state: State) -> dict[str, WatermarkSpec]:
    """Return the watermark of every trainer that writes with one at this step, by name.

    Among the trainers whose decoding names a policy, the complying share is taken in a fixed random order: a trainer
    that complies at one share complies at every larger one. A policy that is not in force asks no one for a mark.
    """
    candidates: dict[str, list[str]] = {}
    for trainer in state.trainers:
        if trainer.settings.decoding.watermark is not None:
            candidates.setdefault(trainer.settings.decoding.watermark, []).append(trainer.name)
    marks: dict[str, WatermarkSpec] = {}
    for name, trainers in candidates.items():
        policy = state.scenario.policies[name]
        assert isinstance(policy, WritesWatermark)  # checked when the scenario was read
        if not state.enforced([name]):
            continue
        noise = {t: state.streams.at(f"policies/{name}/compliance/{t}").uniform(0)[0] for t in trainers}
        complying = int(policy.compliance * len(trainers) + 0.5)
        marks |= dict.fromkeys(sorted(trainers, key=noise.__getitem__)[:complying], policy.mark)
    return marks


def publish(state: State, step: Step) -> None:
    """Publish the drafts of this step as one segment; the publish gate may refuse some of them."""
    drafts = (
        pl.concat(step.drafts, how="diagonal") if step.drafts else empty({**DRAFT, "content": state.corpus.content})
    )
    segment = state.corpus.prepare(drafts, step.t)
    signed = gate(segment, state.enforced(state.scenario.web.publish), state.context("web"))
    step.segment = signed.select(state.corpus.columns)
    state.corpus.publish(step.segment)


def retain(state: State, step: Step) -> None:
    """Apply the retain gate to the live documents."""
    policies = state.enforced(state.scenario.web.retain)
    if not policies:
        return
    live = state.corpus.live().table()
    after = gate(live.with_columns(weight=pl.lit(1.0)), policies, state.context("web"))
    state.corpus.reweigh(live["doc"], after["weight"])
    refused = after.filter(pl.col("verdict").is_not_null())
    state.corpus.retire(refused["doc"], step.t, refused["verdict"])


def curate(state: State, step: Step) -> None:
    """Let curators review documents on their sites and remove, down-weight or endorse them."""
    if not state.curators:
        return
    live = state.corpus.live().columns("doc", "site", "synthetic")
    for curator in state.clock.each("curators", state.curators):
        reviewed = curator.review(live)
        step.reviews.append(reviewed.select("doc", "synthetic", "suspect", curator=pl.lit(curator.name)))
        if reviewed.is_empty():
            continue
        suspects, trusted = reviewed.filter("suspect"), reviewed.filter(~pl.col("suspect"))
        strength = curator.settings.strength
        if curator.settings.action == "remove":
            state.corpus.retire(suspects["doc"], step.t, f"curators/{curator.name}")
        elif curator.settings.action == "down_weight":
            state.corpus.reweigh(suspects["doc"], pl.repeat(strength, suspects.height, eager=True))
        else:
            for site in trusted["site"]:
                state.web.endorse(int(curator.homes[0]), site, strength)


def scrape(state: State, step: Step) -> None:
    """Collect the candidates of every trainer that will train: a weighted sample without replacement."""
    pools = Pools(state)
    for trainer in state.clock.each("trainers", state.trainers):
        if trainer.wants_to_fit:
            step.candidates[trainer.name] = sample(state, trainer, pools)


def select(state: State, step: Step) -> None:
    """Apply each trainer's select gate: rows without a verdict become its training set, or join its archive."""
    fitting = [trainer for trainer in state.trainers if trainer.wants_to_fit]
    ungated = _ungated(state, step, [trainer for trainer in fitting if not trainer.settings.select])
    ledgers: list[pl.DataFrame] = []
    for trainer in state.clock.each("trainers", fitting):
        if trainer.settings.select:
            table = state.corpus.rows(step.candidates[trainer.name]).with_columns(weight=pl.lit(1.0))
            policies = state.enforced(trainer.settings.select)
            signed = gate(table.drop("verdict", "reason"), policies, state.context(trainer.name))
            ledger = ledger_rows(signed, pl.lit(trainer.name))
            kept = ledger.filter(pl.col("verdict").is_null())
        else:
            ledger = kept = ungated[trainer.name]
        ledgers.append(ledger)
        step.training[trainer.name] = kept if trainer.settings.retain is None else archive(state, trainer, kept)
    if ledgers:
        step.ledger = pl.concat(ledgers)
    note_shortfalls(state)


def _ungated(state: State, step: Step, trainers: Sequence[Trainer]) -> dict[str, pl.DataFrame]:
    """Return the ledgers of trainers without select policies, built as one table, which is faster."""
    if not trainers:
        return {}
    counts = [len(step.candidates[trainer.name]) for trainer in trainers]
    readers = pl.Series(np.repeat([trainer.name for trainer in trainers], counts), dtype=pl.String)
    docs = np.concatenate([step.candidates[trainer.name] for trainer in trainers])
    table = state.corpus.rows(docs, ("doc", "verdict", "reason", "synthetic", "depth"))
    origin = {name: pl.lit(None, pl.String) for name in ("injected_from", "added_by")}
    ledger = ledger_rows(table.with_columns(weight=pl.lit(1.0), **origin), readers)
    first = np.concatenate([[0], np.cumsum(counts)]).tolist()
    return {t.name: ledger[a:b] for t, a, b in zip(trainers, first[:-1], first[1:], strict=True)}


def fit(state: State, step: Step) -> None:
    """Train models on the training sets, one cohort at a time, with all its members together."""
    ready: list[Trainer] = []
    for trainer in state.trainers:
        if trainer.name in step.training:
            if step.training[trainer.name].is_empty():
                state.note(f"{trainer.name} had nothing to train on: {_why_empty(step, trainer)}; it keeps its model")
            else:
                ready.append(trainer)
    for model, trainers in by_model(ready).items():
        requests = _fit_requests(state, step, trainers)
        factors = {t.member: t.settings.recovery for t in trainers}
        recovery = {member: factor for member, factor in factors.items() if factor is not None and factor != -1}
        before = dict(state.cohorts[model].state()) if recovery else {}
        started = state.clock.now()
        try:
            records = state.cohorts[model].fit(requests, state.progress)
        except TrainingError as error:
            member = error.member if isinstance(error, MemberError) else None
            culprit = next((t.name for t in trainers if t.member == member), model)
            raise TrainingError(f"step {step.t}, {culprit}: {error}") from error
        state.clock.divide("trainers", [t.name for t in trainers], [record.tokens for record in records], started)
        if recovery:
            state.cohorts[model].load(recovered(before, state.cohorts[model].state(), recovery))
        for trainer, record in zip(trainers, records, strict=True):
            step.fits[trainer.name] = record
            rows = step.training[trainer.name]
            trainer.depth = float(np.average(rows["depth"], weights=_positive(rows["weight"])))
            trainer.has_model = True


def _fit_requests(state: State, step: Step, trainers: Sequence[Trainer]) -> list[FitRequest]:
    """Build one fit request per trainer; contents are gathered for all of them at once."""
    sets = [step.training[trainer.name] for trainer in trainers]
    contents = state.contents(pl.concat(sets))
    first = np.concatenate([[0], np.cumsum([rows.height for rows in sets])]).tolist()
    return [
        FitRequest(
            member=trainer.member,
            docs=contents[a:b],
            weight=_positive(rows["weight"]),
            budget=trainer.settings.budget,
            learning_rate=trainer.settings.learning_rate,
            start=trainer.settings.start,
            stream=state.stream(f"trainers/{trainer.name}/fit"),
        )
        for trainer, rows, a, b in zip(trainers, sets, first[:-1], first[1:], strict=True)
    ]


def _positive(weight: pl.Series) -> np.ndarray:
    """Return weights as an array; if all are zero (a weigher refused everything), return ones."""
    array = weight.to_numpy().astype(np.float64)
    return array if array.sum() > 0 else np.ones_like(array)


def _why_empty(step: Step, trainer: Trainer) -> str:
    candidates = step.ledger.filter(pl.col("reader") == trainer.name)
    if candidates.is_empty():
        return "it found no documents to scrape"
    refused = candidates.group_by("verdict", maintain_order=True).len().iter_rows()
    return f"all {candidates.height} candidates were refused ({', '.join(f'{n} by {who}' for who, n in refused)})"


def measure(state: State, step: Step) -> None:
    """Measure models, their documents of this step, and the web."""
    measure_step(state, step)


Phase = Callable[[State, Step], None]
PHASES: tuple[Phase, ...] = (write, generate, publish, retain, curate, scrape, select, fit, measure)
