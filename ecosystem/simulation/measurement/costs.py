"""Measure the costs of a step by agent and policy: tokens, floating-point operations, documents, reviews and money.

Costs are rows of scope ``cost`` whose id is a path of the scenario: ``trainers/naive/0``, ``writers/people/0``,
``curators/editors/0``, ``policies/archive``. Measuring costs nothing, except for texts that trainers write only for
scoring, which are generated like any other. Foundations and the opening cost nothing either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.schema import METRICS
from ecosystem.families.base import TextCohort
from ecosystem.families.requests import WriteRecord
from ecosystem.policies.base import Adder
from ecosystem.simulation.agents import Trainer, Writer
from ecosystem.simulation.state import Purchases, State
from ecosystem.simulation.step import Step

Costs = dict[str, float]
_BACKWARD = 3  # forward and backward pass together, in forward passes (Kaplan et al. 2020, section 2.1)


def measure_costs(state: State, step: Step) -> None:
    """Append the costs of every trainer, writer, curator, adder and learning filter in this step."""
    costs: dict[str, Costs] = {}
    published = step.segment.select("author", "synthetic", open=pl.col("verdict").is_null())
    drafts = {str(author): rows for (author,), rows in published.group_by("author", maintain_order=True)}
    for trainer in state.trainers:
        own = drafts.get(trainer.name, published.clear())
        costs[f"trainers/{trainer.name}"] = _of_trainer(state, step, trainer, own["open"].to_numpy())
    for writer in state.writers:
        if writer.population in state.choices and not writer.settings.rate:
            continue  # it takes part in a game without documents
        author = f"writers/{writer.name}"
        wrote, pay = int((~drafts[author]["synthetic"]).sum()) if author in drafts else 0, writer.settings.pay
        costs[author] = {"human_documents": float(wrote)} | ({} if pay is None else {"spent": pay * wrote})
        costs[author] |= _of_rewriting(state, step, writer)
    injected = step.ledger.filter(pl.col("added_by").is_not_null())
    for (name,), added in injected.group_by("added_by", maintain_order=True):
        costs[f"policies/{name}"] = _of_adder(state, str(name), added)
    for curator, reviewed in zip(state.curators, step.reviews, strict=True):
        costs[f"curators/{curator.name}"] = {"reviews": float(reviewed.height)}
    for name, labels in state.classifiers.labelled().items():
        costs.setdefault(f"policies/{name}", {})["reviews"] = float(labels)
    rows = [
        (step.t, "cost", who, metric, value, None) for who, spent in costs.items() for metric, value in spent.items()
    ]
    step.metrics.append(pl.DataFrame(rows, schema=METRICS, orient="row"))


def _of_trainer(state: State, step: Step, trainer: Trainer, published: NDArray[np.bool_]) -> Costs:
    """Return the costs of a trainer; ``published``: whether each of its drafts passed the publish gate."""
    costs, fit = Costs(), step.fits.get(trainer.name)
    unit = "tokens" if state.scenario.modality == "text" else "documents"
    if fit is not None:
        costs[f"{unit}_trained"] = float(fit.tokens)
    written = step.written.get(trainer.name)
    if isinstance(written, WriteRecord):
        costs["tokens_generated"] = float(written.drawn.sum())
        costs["tokens_published"] = float(written.drawn[: len(published)][published].sum())
    elif written is not None:
        costs["documents_generated"] = float(written)
    cohort = state.cohorts[trainer.settings.model]
    per_token = cohort.flops_per_token(cohort.context) if isinstance(cohort, TextCohort) else None
    if isinstance(cohort, TextCohort) and per_token is not None:
        # Documents are packed into rows of the whole context; a generated document attends only to itself.
        flops = 0.0 if fit is None else _BACKWARD * per_token * fit.tokens
        if isinstance(written, WriteRecord):
            lengths, documents = np.unique(written.drawn + written.read, return_counts=True)
            passes = zip(lengths.tolist(), documents.tolist(), strict=True)
            flops += sum(count * length * (cohort.flops_per_token(length) or 0.0) for length, count in passes)
        costs["flops"] = flops
    return costs


def _of_rewriting(state: State, step: Step, writer: Writer) -> Costs:
    """Return the operations of the model that rewrote a writer's documents; {} if there is none, or none are known."""
    how, rewritten = writer.settings.rewrite, step.rewritten.get(writer.name)
    cohort = None if how is None else state.cohorts[how.model]
    if rewritten is None or not isinstance(cohort, TextCohort) or cohort.flops_per_token(1) is None:
        return {}
    read = rewritten.tokens + 1  # with the end of text before them
    tokens = np.bincount(np.minimum(read, cohort.context), read)  # by length of the input
    lengths = np.flatnonzero(tokens).tolist()
    return {"flops": sum(float(tokens[n]) * (cohort.flops_per_token(n) or 0.0) for n in lengths)}


def _of_adder(state: State, name: str, added: pl.DataFrame) -> Costs:
    """Return the number of injected documents and, if the adder has a price, the payment for new ones.

    A document is paid for once, for all trainers and all later steps.
    """
    policy, costs = state.scenario.policies[name], Costs({"documents_injected": float(added.height)})
    price = policy.price_per_document if isinstance(policy, Adder) else None
    if isinstance(policy, Adder) and price is not None:
        new = 0
        for (source,), rows in added.group_by("source", maintain_order=True):
            bought = state.purchases.setdefault(name, {}).setdefault(str(source), set())
            before = len(bought)
            bought.update(rows["document"].to_list())
            new += len(bought) - before
        if policy.pays_writers and added.height and not new:
            state.note(
                f"policies.{name}: no new documents were written for pay; all {added.height} documents added had been "
                "bought before, so nothing was spent"
            )
        costs |= {"human_documents": float(new), "spent": price * new}
    return costs


def plain_purchases(purchases: Purchases) -> dict[str, dict[str, list[list[int]]]]:
    """Return purchases as JSON: runs of rows, each as its first and last row."""
    return {name: {source: _runs(rows) for source, rows in by.items()} for name, by in purchases.items()}


def read_purchases(stored: Mapping[str, Mapping[str, Iterable[Iterable[int]]]]) -> Purchases:
    """Return purchases from the JSON of :func:`plain_purchases`."""
    return {
        name: {source: {row for a, b in runs for row in range(a, b + 1)} for source, runs in by.items()}
        for name, by in stored.items()
    }


def _runs(rows: set[int]) -> list[list[int]]:
    ordered = np.array(sorted(rows), dtype=np.int64)
    gaps = np.flatnonzero(np.diff(ordered) > 1)
    firsts, lasts = np.append(0, gaps + 1), np.append(gaps, len(ordered) - 1)
    return [[int(ordered[a]), int(ordered[b])] for a, b in zip(firsts, lasts, strict=True)] if len(ordered) else []
