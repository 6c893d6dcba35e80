"""What writers let models write: whose models they use, the texts of these, and the drafts made with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from ecosystem.families.base import TextCohort
from ecosystem.families.requests import GenerateRequest, WriteRecord
from ecosystem.simulation.agents import Trainer
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step, draft_table
from ecosystem.types import Floats, Ints


def ready_trainers(state: State, uses: str | None) -> list[Trainer]:
    """Return the trainers of a population whose models writers can use now."""
    return [trainer for trainer in state.trainers if trainer.population == uses and trainer.has_model]


def why_none(state: State, uses: str | None) -> str:
    """Return why no trainer of a population is ready."""
    there = any(trainer.population == uses for trainer in state.trainers)
    return f"{uses} have no model yet" if there else f"{uses} is not there"


def trainer_used(state: State, population: str, writers: Sequence[int] | Ints, trainers: int) -> Ints:
    """Return which of the ready ``trainers`` each writer of a population uses, by number of the writer, [writers].

    A writer uses the same trainer at every step, unless others get their first models.
    """
    return (state.streams.at(f"writers/{population}/uses").uniform(writers) * trainers).astype(np.int64)


Asked = tuple[Trainer, int, str]
"""What writers ask of a trainer's model: the trainer, a number of documents, and the stream of their noise."""


def generated(state: State, step: Step, asked: Sequence[Asked]) -> list[pl.Series]:
    """Return the unprompted documents of every request, in order; their cost is the trainers'.

    The models of a cohort write all of them together.
    """
    written: dict[int, pl.Series] = {}
    for model in dict.fromkeys(trainer.settings.model for trainer, _, _ in asked):
        own = [place for place, (trainer, _, _) in enumerate(asked) if trainer.settings.model == model]
        cohort, started = state.cohorts[model], state.clock.now()
        texts = cohort.generate([_request(state, step, *asked[place]) for place in own], state.progress)
        amounts: Sequence[WriteRecord | int] = (
            cohort.written if isinstance(cohort, TextCohort) else [text.len() for text in texts]
        )
        drawn = [amount if isinstance(amount, int) else int(amount.drawn.sum()) for amount in amounts]
        state.clock.divide("trainers", [asked[place][0].name for place in own], drawn, started)
        for place, text, amount in zip(own, texts, amounts, strict=True):
            written[place] = text
            name = asked[place][0].name
            step.written[name] = _together(step.written.get(name), amount)
    return [written[place] for place in range(len(asked))]


def _request(state: State, step: Step, trainer: Trainer, n: int, stream: str) -> GenerateRequest:
    decoding = trainer.settings.decoding.model_copy(update={"prompt": None})
    noise = state.stream(f"trainers/{trainer.name}/{stream}")
    return GenerateRequest(trainer.member, n, decoding, None, noise, step.marks.get(trainer.name))


def _together(earlier: WriteRecord | int | None, later: WriteRecord | int) -> WriteRecord | int:
    """Add up what a trainer's model has written in one step; its own publications come first."""
    if isinstance(earlier, WriteRecord) and isinstance(later, WriteRecord):
        drawn, read = ([getattr(part, name) for part in (earlier, later)] for name in ("drawn", "read"))
        return WriteRecord(np.concatenate(drawn), np.concatenate(read))
    if isinstance(earlier, int) and isinstance(later, int):
        return earlier + later
    return later


def assisted_drafts(content: pl.Series, share: Floats, trainer: Trainer, **columns: object) -> pl.DataFrame:
    """Build drafts of documents of which a trainer's model wrote a ``share`` each, [documents], 0 included.

    ``columns`` are site and author, and source and row of the human parts, which documents wholly by the model lose.
    """
    drafts = draft_table(content, synthetic=share > 0, depth=share * (1.0 + trainer.depth), **columns)
    assisted, people = pl.col("synthetic"), pl.lit(pl.Series(share)) < 1
    return drafts.with_columns(
        model=pl.when(assisted).then(pl.lit(trainer.settings.model)),
        assistant=pl.when(assisted).then(pl.lit(trainer.name)),
        source=pl.when(people).then("source"),
        row=pl.when(people).then("row"),
        ai_share=pl.Series(share),
    )
