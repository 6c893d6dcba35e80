"""What models are compared with, fixed when the web opens: held-out documents, and the true distribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.errors import DataError
from ecosystem.families.base import Cohort, TextCohort
from ecosystem.families.requests import Member, Score, ScoreRequest
from ecosystem.metrics.base import Vocabulary
from ecosystem.metrics.quality import frequent_types, unigram_nll
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.downstream import Downstream
from ecosystem.sources.base import Reservoir, Truth
from ecosystem.streams import Streams

BY_CHANCE = 0.97  # share of the logarithm of the vocabulary from which a loss is that of guessing
UNCERTAIN = 0.9  # the same for an entropy: from here on a model does not prefer some tokens to others
TRIED_TOKENS = 4  # of a held-out document, before the prediction whose entropy is measured
CONTEXT_TOKENS = 16  # of a held-out document, after which next-token distributions are compared


@dataclass(frozen=True)
class References:
    """References for measuring models of text, fixed at the opening: held-out text and word frequencies."""

    held_out: pl.Series  # documents that are never published
    sizes: NDArray[np.int64]  # their bytes in UTF-8
    truth: NDArray[np.float64] | None  # their exact log-likelihoods in nats, where the source is a known process
    vocabulary: Vocabulary  # words of the web's initial human documents
    frequent: dict[str, NDArray[np.bool_]]  # per model: which token types are frequent in human text
    unigram: dict[str, NDArray[np.float64]]  # per model: nats of each token type under human frequencies
    downstream: Downstream | None  # tasks built from documents that are never published; None: no tasks
    initial: dict[str, Score]  # per model: the held-out documents under the weights that trainers start from
    next_token: dict[str, NDArray[np.float32]]  # per model: their next-token distributions after held-out beginnings

    @classmethod
    def of(
        cls,
        human: pl.Series,
        scenario: Scenario,
        reservoirs: Mapping[str, Reservoir],
        cohorts: Mapping[str, Cohort],
        streams: Streams,
    ) -> References:
        """Compute the references from the initial source and its ``human`` documents (none on an empty web)."""
        initial, measure = scenario.web.initial, scenario.measure
        held_out, truth, downstream = pl.Series([], dtype=pl.String), None, None
        if initial is not None:
            reservoir, tasks = reservoirs[initial.source], measure.downstream
            downstream = None if tasks is None else Downstream.of(tasks, reservoir, streams)
            held_out = held_out_documents(scenario, reservoirs, held_out.dtype)
            truth = reservoir.log_likelihood(held_out)
        counts = {name: cast(TextCohort, cohort).type_counts(human) for name, cohort in cohorts.items()}
        return cls(
            held_out=held_out,
            sizes=byte_sizes(held_out),
            truth=truth,
            vocabulary=Vocabulary.of(human),
            frequent={name: frequent_types(count) for name, count in counts.items()},
            unigram={name: unigram_nll(count) for name, count in counts.items()},
            downstream=downstream,
            initial={
                name: cohort.score([ScoreRequest("initial", held_out)])[0]
                for name, cohort in cohorts.items()
                if held_out.len()
            },
            next_token={
                name: next_token(cohort, "initial", held_out, measure.contexts) for name, cohort in cohorts.items()
            },
        )


def held_out_documents(scenario: Scenario, reservoirs: Mapping[str, Reservoir], content: pl.DataType) -> pl.Series:
    """Return the documents on which every trainer is scored; empty, of type ``content``, if the web opens empty."""
    source = scenario.true_source
    if source is None:
        return pl.Series([], dtype=content)
    return reservoirs[source].held_out.head(scenario.measure.held_out)


def true_distribution(human: pl.Series, scenario: Scenario, reservoirs: Mapping[str, Reservoir]) -> Truth:
    """Return the distribution of vectors or categories: the exact one of the source, or that of ``human`` documents.

    Raises DataError if neither is available: a covariance needs two documents.
    """
    source = scenario.true_source
    exact = reservoirs[source].truth if source is not None else None
    if exact is not None:
        return exact
    if human.len() == 0:
        raise DataError("web.initial: is missing, so that models have no truth to be measured against; set it.")
    x = human.to_numpy()
    if scenario.modality == "category":
        return Truth(probabilities=np.bincount(x) / len(x))
    if len(x) < 2:
        raise DataError(
            f"web.initial.documents = {len(x)}: models are measured against the mean and covariance of the initial "
            "documents, and a covariance needs at least 2; raise it."
        )
    return Truth(mean=x.mean(axis=0), covariance=np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1]))


def byte_sizes(docs: pl.Series) -> NDArray[np.int64]:
    """Return the bytes of each document in UTF-8, shape [documents]."""
    return docs.str.len_bytes().cast(pl.Int64).to_numpy()


def next_token(cohort: Cohort, member: Member, held_out: pl.Series, contexts: int) -> NDArray[np.float32]:
    """Return next-token distributions after the beginnings of held-out documents, [at most contexts, types]."""
    docs = held_out if contexts else held_out.head(0)
    return cast(TextCohort, cohort).next_token(member, docs, CONTEXT_TOKENS)[:contexts]


def unsuited_checkpoints(references: References, scenario: Scenario, cohorts: Mapping[str, Cohort]) -> list[str]:
    """Return a sentence for every checkpoint that predicts held-out documents no better than chance, but confidently.

    This is how the tokenizer of another model shows; an untrained checkpoint is not confident. Small GPT-2 (2,048
    tokens, 400 steps) had losses, as shares of the logarithm of the vocabulary, of 0.55 to 0.63 on text like their own,
    0.70 to 0.96 on other text in scripts they had seen, 0.97 to 1.20 on text they had seen with the tokenizer of
    another model, and 1.08 or more on scripts they had never seen. Their entropies were 0.55 to 0.82, an untrained
    model's 1.00. Not noticed are models of hardly any training, and text in bytes, whose ids all byte-level BPEs share
    (docs/log.md has the table).
    """
    sentences = []
    for name, score in references.initial.items():
        if not scenario.models[name].starts_from_checkpoint or not len(score.nll):
            continue
        p = (
            cast(TextCohort, cohorts[name])
            .next_token("initial", references.held_out.head(32), TRIED_TOKENS)
            .astype(np.float64)
        )
        chance, loss = np.log(p.shape[1]), score.nll.mean()
        entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=1).mean() if len(p) else chance
        if loss > BY_CHANCE * chance and entropy < UNCERTAIN * chance:
            sentences.append(
                f'the checkpoint of model "{name}" predicts human documents no better than chance ({loss:.2f} nats per '
                f"token; guessing among {p.shape[1]:,} tokens gives {chance:.2f}) but with confidence: its tokenizer "
                "belongs to another model, or it was trained on text of another script. Check the tokenizer files."
            )
    return sentences
