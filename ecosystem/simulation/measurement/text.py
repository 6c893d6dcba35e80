"""Measure models of text: their scores of held-out text, the text they publish, downstream tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import TrainingError
from ecosystem.families.base import map_members
from ecosystem.families.requests import Radioactivity, Score
from ecosystem.metrics.base import TEXT_METRICS, Estimate, TextMetric, measure_texts, sample_groups
from ecosystem.metrics.estimates import ratio
from ecosystem.metrics.quality import by_frequency, perplexity_quantiles, quality
from ecosystem.metrics.tables import rows
from ecosystem.policies.base import WritesWatermark
from ecosystem.scenario.entries.trainers import TrainerSpec
from ecosystem.simulation.agents import Trainer, by_model
from ecosystem.simulation.downstream import Downstream
from ecosystem.simulation.measurement.reading import Asked, Reading, initial_score, read
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step

Values = dict[str, Estimate | float]


def measure_models(state: State, step: Step) -> None:
    """Score every trainer's model on held-out human and fresh synthetic text, and measure its publications."""
    written = [text for text in step.unpublished.values() if text.len()]
    synthetic = pl.concat(written) if written else pl.Series([], dtype=pl.String)
    published = step.segment.filter(pl.col("verdict").is_null())
    accuracies = _accuracies(state, step)
    by_author = {trainer.name: published.filter(pl.col("author") == trainer.name) for trainer in state.trainers}
    readings = _readings(state, synthetic, {name: own["content"] for name, own in by_author.items()})
    for trainer in state.trainers:
        model, values = trainer.settings.model, Values(accuracies.get(trainer.name, {}))
        reading, own = next(readings[model]), by_author[trainer.name]
        if (score := reading.held_out) is not None:
            if not np.isfinite(score.nll).all():
                raise TrainingError(
                    f"step {step.t}, {trainer.name}: its loss on held-out text is not finite. If the model is neural, "
                    "it has diverged: lower its learning_rate. If it counts n-grams, unseen ones have probability 0: "
                    'smooth it (smoothing = "kneser_ney"). This step is not committed.'
                )
            values |= quality_of(state, model, score)
        if (distance := reading.next_token_l1) is not None:
            values["next_token_l1"] = ratio(distance, np.ones_like(distance))
        values |= radioactivity_values(reading.radioactivity)
        if reading.synthetic is not None:
            values["cross_entropy_synthetic"] = ratio(*reading.synthetic)
        values["documents_published"] = float(own.height)
        if own.height:
            values["mean_words"] = _mean(own["words"])
            values |= text_values(state, own["content"], f"trainers/{trainer.name}/sample")
            values |= _perplexity_quantiles(reading.initial)
        values |= _watermark_in(state, step, trainer)
        if trainer.name in step.fits:
            fit = step.fits[trainer.name]
            values |= {"training_loss": fit.loss, "tokens_trained": float(fit.tokens)}
        step.metrics.append(rows(step.t, "trainer", trainer.name, values))


def _readings(state: State, synthetic: pl.Series, own: Mapping[str, pl.Series]) -> dict[str, Iterator[Reading]]:
    """Read all models of a scenario, those of each entry in the order of their trainers."""
    readings = {}
    for model, trainers in by_model(state.trainers).items():
        references = state.references
        asked = Asked(
            references.held_out,
            synthetic,
            state.scenario.measure.contexts,
            references.next_token[model],
            tested_mark(state, model),
            state.scenario.measure.radioactivity or 0,
        )
        members = [trainer.member for trainer in trainers]
        excerpts = [(own[trainer.name], *_excerpt(state, trainer)) for trainer in trainers]
        readings[model] = map_members(state.cohorts[model], read, members, (asked,), excerpts)
    return readings


def radioactivity_values(test: Radioactivity | None) -> Values:
    """Return the metrics of a test for a watermark; none if nothing was tested."""
    return {} if test is None or not test.scored else {"radioactivity_z": test.z, "radioactivity_log10_p": test.log10_p}


def tested_mark(state: State, model: str) -> WatermarkSpec | None:
    """Return the watermark that a model's trainers are tested for; None: they are not tested."""
    policies = (p for p in state.scenario.policies.values() if isinstance(p, WritesWatermark) and p.model == model)
    policy = next(policies, None)
    return policy.mark if policy is not None and state.scenario.measure.radioactivity is not None else None


def _excerpt(state: State, trainer: Trainer) -> tuple[int, int, int]:
    """Return where the excerpts of a trainer's publications begin, their length, and their number."""
    prompt = trainer.settings.decoding.prompt
    begun = prompt.tokens if prompt is not None and prompt.keep else 0
    return begun, *_excerpts(state, trainer.settings)


def _excerpts(state: State, settings: TrainerSpec) -> tuple[int, int]:
    """Return the length and the number of excerpts whose perplexity is measured."""
    measure = state.scenario.measure
    number = measure.initial_perplexity if state.scenario.models[settings.model].starts_pretrained else 0
    return min(measure.initial_tokens, settings.decoding.max_tokens), number


def _accuracies(state: State, step: Step) -> dict[str, Values]:
    """Evaluate every trainer that has a model on the downstream tasks, if due; return accuracies by name."""
    downstream, accuracies = state.references.downstream, dict[str, Values]()
    if downstream is None or not downstream.due(step.t):
        return accuracies
    for model, trainers in by_model([trainer for trainer in state.trainers if trainer.has_model]).items():
        members, family = [trainer.member for trainer in trainers], state.scenario.models[model]
        try:
            values = downstream.judge(state.cohorts[model], members, family.supports_prompts, state.progress)
        except TrainingError as error:
            raise TrainingError(f"step {step.t}, {model}: {error}") from error
        accuracies |= dict(zip([trainer.name for trainer in trainers], values, strict=True))
    return accuracies


def measure_baselines(state: State, step: Step, downstream: Downstream) -> None:
    """Measure the references of downstream accuracies: guessing, random weights and starting weights."""
    step.metrics.append(rows(step.t, "reference", "chance", downstream.chance()))
    for name, cohort in state.cohorts.items():
        family = state.scenario.models[name]
        if downstream.settings.tasks and not family.supports_prompts:
            state.note(f'model "{name}" is of kind {family.kind}, which cannot be fine-tuned: no accuracy after that')
        baselines = downstream.references(cohort, family.supports_prompts, family.starts_pretrained, state.progress)
        for reference, values in baselines.items():
            step.metrics.append(rows(step.t, "reference", f"{name}/{reference}", values))


def quality_of(state: State, model: str, score: Score) -> Values:
    """Compute the metrics of one model's score of the held-out documents."""
    references = state.references
    nats, tokens = score.per_document()
    document = np.repeat(np.arange(tokens.size), tokens)
    values: Values = {**quality(nats, tokens, references.sizes)}
    values |= by_frequency(score.nll, score.unit, document, references.frequent[model])
    # Paired by document: most of the spread of the cross-entropy is that some documents are harder than others.
    with np.errstate(invalid="ignore"):  # a model of counts may find text impossible, before and after
        more = score.nll - references.initial[model].nll
    values["cross_entropy_change"] = ratio(np.bincount(document, weights=more, minlength=tokens.size), tokens)
    paired = by_frequency(more, score.unit, document, references.frequent[model])
    values |= {f"{name}_change": change for name, change in paired.items()}
    if references.truth is not None:
        # No model can exceed the true log-likelihood on average.
        values["excess_nats"] = ratio(nats + references.truth, np.ones_like(tokens))
    return values


def initial_perplexities(state: State, settings: TrainerSpec, texts: pl.Series, begun: int) -> Values:
    """Return the quantiles of the perplexities of single texts under the weights that trainers start from.

    All use the same number of tokens after a prompt of ``begun`` tokens, since the probability of a token depends on
    the length of its context. The end of a text is not counted, since truncated texts have none. The texts are
    independent, so the first ones are a fair sample. The result is empty for a model that starts from random weights.
    """
    return _perplexity_quantiles(
        initial_score(state.cohorts[settings.model], texts, begun, *_excerpts(state, settings))
    )


def _perplexity_quantiles(score: Score | None) -> Values:
    if score is None:
        return {}
    nats, tokens = score.per_document()
    return {**perplexity_quantiles(nats - score.nll[score.offsets[1:] - 1], tokens - 1)}


def _watermark_in(state: State, step: Step, trainer: Trainer) -> Values:
    """Measure the watermark in a trainer's documents of this step, including those refused at the publish gate.

    The watermark is the one that its decoding names; if it names none, the first that other trainers use or that is at
    a gate, since a model may have learnt it from their text. Documents with too few tokens to score are left out.
    """
    own_policy, scenario = trainer.settings.decoding.watermark, state.scenario
    used = {*scenario.enforced_policies(), *(settings.decoding.watermark for settings in scenario.trainers.values())}
    policies = [
        policy
        for name, policy in scenario.policies.items()
        if isinstance(policy, WritesWatermark) and name in used and own_policy in (None, name)
    ]
    own = step.segment.filter(pl.col("author") == trainer.name)["doc"]
    if not policies or own.is_empty():
        return {}
    policy = policies[0]
    detected = watermark_values(policy, *state.services.models.watermark(policy.model, policy.mark, own))
    return {"complies": float(trainer.name in step.marks), **detected} if own_policy is not None else detected


def watermark_values(policy: WritesWatermark, z: NDArray[np.float64], scored: NDArray[np.int64]) -> Values:
    """Return the mean z-score and the share above the threshold, of documents with enough scored tokens."""
    long_enough = z[scored >= policy.min_tokens]
    detected, ones = (long_enough > policy.threshold).astype(np.float64), np.ones_like(long_enough)
    return {"watermark_z": ratio(long_enough, ones), "watermark_found": ratio(detected, ones)}


def text_values(state: State, texts: pl.Series, stream: str) -> Values:
    """Return the text metrics of equal-size samples of texts, drawn with the noise of a stream."""
    measure = state.scenario.measure
    groups = sample_groups(texts, measure.words, measure.groups, state.stream(stream))
    return {**measure_texts(text_metrics(state), groups, state.references.vocabulary)}


def text_metrics(state: State) -> list[TextMetric]:
    """Return the text metrics that the scenario lists (all if it lists none)."""
    kinds = TEXT_METRICS.all()
    return [kinds[name]() for name in (state.scenario.measure.texts or kinds)]


def _mean(values: pl.Series) -> Estimate:
    array = values.to_numpy().astype(np.float64)
    return ratio(array, np.ones_like(array))
