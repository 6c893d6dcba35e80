"""The measure phase: collect the data of every measurement; :mod:`ecosystem.metrics` does the arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from ecosystem.families.base import SupportsWatermark
from ecosystem.families.requests import Score, ScoreRequest
from ecosystem.metrics import tables
from ecosystem.metrics.estimates import error_of_mean, ratio
from ecosystem.metrics.tables import rows
from ecosystem.policies.base import Policy, WritesWatermark
from ecosystem.policies.sampling import Prefer
from ecosystem.simulation.agents import by_model
from ecosystem.simulation.measurement.costs import measure_costs
from ecosystem.simulation.measurement.instruments import measure_instruments
from ecosystem.simulation.measurement.overlap import measure_overlap
from ecosystem.simulation.measurement.parameters import measure_parameters
from ecosystem.simulation.measurement.site_types import measure_site_types
from ecosystem.simulation.measurement.text import (
    Values,
    initial_perplexities,
    measure_baselines,
    measure_models,
    quality_of,
    radioactivity_values,
    tested_mark,
    text_values,
    watermark_values,
)
from ecosystem.simulation.measurement.views import measure_views
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step


def measure_opening(state: State, step: Step) -> None:
    """Measure the references of all later steps: reference models and human text."""
    measure_web(state, step)
    if state.scenario.modality != "text":
        return
    references = state.references
    for name, initial in references.initial.items():
        [random] = state.cohorts[name].score([ScoreRequest("random", references.held_out)])
        unigram = Score(references.unigram[name][initial.unit], initial.unit, initial.offsets)
        for reference, score in (("initial", initial), ("random", random), ("unigram", unigram)):
            step.metrics.append(rows(step.t, "reference", f"{name}/{reference}", quality_of(state, name, score)))
        if (mark := tested_mark(state, name)) is not None:
            cohort, contexts = state.cohorts[name], state.scenario.measure.radioactivity or 0
            assert isinstance(cohort, SupportsWatermark)  # checked when the scenario was read
            test = cohort.radioactivity("initial", references.held_out, mark, contexts)
            step.metrics.append(rows(step.t, "reference", f"{name}/initial", radioactivity_values(test)))
    if references.downstream is not None:
        measure_baselines(state, step, references.downstream)
    human = text_values(state, references.held_out, "reference/human")
    policy = next((p for p in state.scenario.policies.values() if isinstance(p, WritesWatermark)), None)
    if policy is not None:
        cohort = state.cohorts[policy.model]
        assert isinstance(cohort, SupportsWatermark)  # checked when the scenario was read
        human |= watermark_values(policy, *cohort.watermark(references.held_out, policy.mark))
    step.metrics.append(rows(step.t, "reference", "human", human))
    for population, settings in state.scenario.trainers.items():
        prompt = settings.decoding.prompt
        values = initial_perplexities(state, settings, references.held_out, prompt.tokens if prompt is not None else 0)
        step.metrics.append(rows(step.t, "reference", f"{population}/human", values))


def measure_step(state: State, step: Step) -> None:
    """Measure every trainer, its training set and its policies, the curators and the web."""
    if state.scenario.modality == "text":
        measure_models(state, step)
    else:
        measure_parameters(state, step)
    if step.training:
        step.metrics.append(tables.training_sets(_with_ai_share(state, pl.concat(step.training.values())), step.t))
        select = {trainer.name: _names(state.enforced(trainer.settings.select)) for trainer in state.trainers}
        step.metrics.append(tables.policies(step.ledger, select, step.t))
    if state.scenario.web.publish:
        drafts = step.segment.with_columns(reader=pl.lit("web"), source=pl.lit(None, pl.String))
        gate = _names(state.enforced(state.scenario.web.publish))
        step.metrics.append(tables.policies(drafts, {"web": gate}, step.t))
        measure_rewards(state, step)
    step.metrics += [
        rows(step.t, "policy", name, {"in_force": float(name in state.in_force)})
        for name, policy in state.scenario.policies.items()
        if policy.when is not None
    ]
    step.metrics += state.classifiers.measured()
    if step.audiences:
        names = np.array(list(step.audiences))
        audience = np.array(list(step.audiences.values()))
        writing = np.array([not writer.has_left for writer in state.writers if writer.name in step.audiences])
        values = {"audience": audience, "writing": writing.astype(np.float64)}
        step.metrics.append(tables.many(step.t, "writer", names, values, {}))
    for name, choices in state.choices.items():
        choice = state.scenario.writers[name].choice
        assert choice is not None
        names = np.array([f"{name}/{number}" for number in range(choice.communities)])
        step.metrics.append(tables.many(step.t, "community", names, choices.values(choice), {}))
    if step.reviews:
        reviews = pl.concat(step.reviews)
        for curator in state.curators:
            step.metrics.append(rows(step.t, "curator", curator.name, _reviews(reviews, curator.name)))
    step.metrics += _domains(state, step)
    measure_web(state, step)
    measure_costs(state, step)


def _domains(state: State, step: Step) -> Iterator[pl.DataFrame]:
    """Yield the loss of every trainer's model on the documents of each domain that the scenario lists."""
    metric = "cross_entropy" if state.scenario.modality == "text" else "held_out_nll"
    for domain in state.scenario.measure.domains or []:
        docs = _domain(state, step, domain)
        for model, trainers in by_model([t for t in state.trainers if t.has_model and docs.len()]).items():
            scores = state.cohorts[model].score([ScoreRequest(trainer.member, docs) for trainer in trainers])
            for trainer, score in zip(trainers, scores, strict=True):
                values = {metric: ratio(*score.per_document())}
                yield rows(step.t, "domain", f"{trainer.name}/{domain}", values)


def _domain(state: State, step: Step, domain: str) -> pl.Series:
    """Return held-out documents of a source, or the unpublished ones that a population of trainers has just written."""
    if domain in state.reservoirs:
        return state.reservoirs[domain].held_out.head(state.scenario.measure.held_out)
    members = [trainer.name for trainer in state.trainers if trainer.population == domain]
    written = [step.unpublished[name] for name in members if name in step.unpublished]
    return pl.concat(written) if written else pl.Series([], dtype=state.corpus.content)


def measure_rewards(state: State, step: Step) -> None:
    """Measure the mean reward of each trainer's drafts, refused ones included, by the first policy that judges them."""
    measured: list[str] = []
    for name, policy in state.policies(state.scenario.web.publish):
        if not isinstance(policy, Prefer) or policy.drafts is None:
            continue
        drafts = step.segment.filter(pl.Series(policy.judged(step.segment)) & ~pl.col("author").is_in(measured))
        reward = pl.Series(policy.mean_reward(drafts, state.context("web")(name)), dtype=pl.Float64)
        by_author = drafts.select("author", reward=reward).group_by("author", maintain_order=True)
        means = by_author.agg(mean=pl.col("reward").mean(), error=error_of_mean("reward"))
        authors, values, errors = (column.to_numpy() for column in means.get_columns())
        step.metrics.append(tables.many(step.t, "trainer", authors, {"reward": values}, {"reward": errors}))
        measured += authors.tolist()


def _names(policies: Sequence[tuple[str, Policy]]) -> list[str]:
    return [name for name, _ in policies]


def measure_web(state: State, step: Step) -> None:
    """Measure the contamination of the web and of its sites, what readers see, and what instruments observe."""
    live = state.corpus.live().columns("site", "ai_share", "depth")
    step.metrics.append(tables.web(live, step.t))
    measure_overlap(state, step)
    if state.scenario.measures_views:
        measure_views(state, step)
    measure_instruments(state, step)
    if state.scenario.measure.sites:
        step.metrics.append(tables.sites(live, step.t))
    measure_site_types(state, step)


def _with_ai_share(state: State, training: pl.DataFrame) -> pl.DataFrame:
    """Add the column ai_share to ledger rows: 0 for injected documents, the share recorded for those of the web."""
    if not state.corpus.assisted:
        return training.with_columns(ai_share="synthetic")
    of_web = training["source"].is_null().to_numpy()
    share = np.zeros(training.height)
    share[of_web] = state.corpus.array("ai_share")[training["document"].to_numpy()[of_web]]
    return training.with_columns(ai_share=pl.Series(share))


def _reviews(reviews: pl.DataFrame, curator: str) -> Values:
    own = reviews.filter(pl.col("curator") == curator)
    synthetic, suspect = own["synthetic"].to_numpy(), own["suspect"].to_numpy()
    values: Values = {}
    for origin, of in (("human", ~synthetic), ("synthetic", synthetic)):
        values[f"reviewed_{origin}"] = float(of.sum())
        values[f"suspect_{origin}"] = float((of & suspect).sum())
    return values
