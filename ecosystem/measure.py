"""The measure phase: who is measured on what, every step; the arithmetic is in :mod:`ecosystem.metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.agents import by_model
from ecosystem.corpus.sources import Truth
from ecosystem.downstream import Downstream
from ecosystem.errors import DataError, TrainingError
from ecosystem.families.base import DescribedCohort, Score, ScoreRequest, TextCohort
from ecosystem.metrics import tables
from ecosystem.metrics.base import METRICS, Estimate, TextMetric, Vocabulary, measure_texts, sample_groups
from ecosystem.metrics.quality import by_frequency, frequent_types, quality, ratio, unigram_nll
from ecosystem.metrics.tables import rows
from ecosystem.streams import Stream

if TYPE_CHECKING:
    from ecosystem.phases import Step
    from ecosystem.world import World

Values = dict[str, Estimate | float]


@dataclass(frozen=True)
class References:
    """What everything is compared with, fixed when the web opens: held-out human text and human frequencies."""

    held_out: pl.Series  # documents that are never published
    sizes: NDArray[np.int64]  # their bytes in UTF-8
    truth: NDArray[np.float64] | None  # their exact log-likelihoods in nats, where the source is a known process
    vocabulary: Vocabulary  # words of the web's initial human documents
    frequent: dict[str, NDArray[np.bool_]]  # per model: which token types are frequent in human text
    unigram: dict[str, NDArray[np.float64]]  # per model: nats of each token type under human frequencies
    downstream: Downstream | None  # tasks made from documents that are never published, if there are to be any
    initial: dict[str, Score]  # per model: the held-out documents under the weights that trainers start from

    @classmethod
    def of(cls, world: World, human: pl.Series) -> References:
        """Take the references from the web's initial source and documents (none of them if it opens empty)."""
        initial = world.spec.web.initial
        held_out, truth, downstream = pl.Series([], dtype=pl.String), None, None
        if initial is not None:
            reservoir = world.reservoirs[initial.source]
            how = world.spec.measure.downstream
            downstream = None if how is None else Downstream.of(how, reservoir, world.streams)
            held_out = reservoir.held_out.head(world.spec.measure.held_out)
            truth = reservoir.log_likelihood(held_out)
        counts = {name: cast(TextCohort, cohort).type_counts(human) for name, cohort in world.cohorts.items()}
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
                for name, cohort in world.cohorts.items()
                if held_out.len()
            },
        )


def truth_of(world: World, human: pl.Series) -> Truth:
    """Return what vectors or categories are held against: the source's exact law, or else the initial documents'."""
    initial = world.spec.web.initial
    exact = world.reservoirs[initial.source].truth if initial is not None else None
    if exact is not None:
        return exact
    if human.len() == 0:
        raise DataError("the web begins without documents, so there is no truth to measure by; give web.initial.")
    x = human.to_numpy()
    if world.spec.modality == "category":
        return Truth(probabilities=np.bincount(x) / len(x))
    return Truth(mean=x.mean(axis=0), covariance=np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1]))


def byte_sizes(docs: pl.Series) -> NDArray[np.int64]:
    """Return the bytes of each document in UTF-8, shape [documents]."""
    return docs.str.len_bytes().cast(pl.Int64).to_numpy()


def text_metrics(world: World) -> list[TextMetric]:
    """Return the text metrics that the scenario asks for (all of them unless it says which)."""
    kinds = METRICS.all()
    return [kinds[name]() for name in (world.spec.measure.texts or kinds)]


def measure_opening(world: World, step: Step) -> None:
    """Measure once, at step 0, what later steps are held against: reference models and human text."""
    measure_web(world, step)
    if world.spec.modality != "text":
        return
    known = world.references
    for name, initial in known.initial.items():
        [random] = world.cohorts[name].score([ScoreRequest("random", known.held_out)])
        unigram = Score(known.unigram[name][initial.unit], initial.unit, initial.offsets)
        for reference, score in (("initial", initial), ("random", random), ("unigram", unigram)):
            step.metrics.append(rows(step.t, "reference", f"{name}/{reference}", _quality(world, name, score)))
    if known.downstream is not None:
        _measure_baselines(world, step, known.downstream)
    human = _texts(world, known.held_out, "reference/human")
    step.metrics.append(rows(step.t, "reference", "human", human))


def _measure_baselines(world: World, step: Step, downstream: Downstream) -> None:
    """Measure what downstream accuracies are held against: guessing, random weights and what members start from."""
    step.metrics.append(rows(step.t, "reference", "chance", downstream.chance()))
    for name, cohort in world.cohorts.items():
        family = world.spec.models[name]
        if downstream.how.tasks and not family.tunable:
            world.note(f'model "{name}" is of kind {family.kind}, which cannot be fine-tuned: no accuracy after that')
        found = downstream.references(cohort, family.tunable, family.begins_trained, world.progress)
        for reference, values in found.items():
            step.metrics.append(rows(step.t, "reference", f"{name}/{reference}", values))


def measure_step(world: World, step: Step) -> None:
    """Measure every trainer, its training set and its policies, the curators and the web."""
    if world.spec.modality == "text":
        measure_models(world, step)
    else:
        measure_parameters(world, step)
    if step.training:
        step.metrics.append(tables.training_sets(pl.concat(step.training.values()), step.t))
        select = {trainer.name: trainer.recipe.select for trainer in world.trainers}
        step.metrics.append(tables.policies(step.ledger, select, step.t))
    if world.spec.web.publish:
        door = step.segment.with_columns(reader=pl.lit("web"), source=pl.lit(None, pl.String))
        step.metrics.append(tables.policies(door, {"web": world.spec.web.publish}, step.t))
    if step.reviews:
        reviews = pl.concat(step.reviews)
        for curator in world.curators:
            step.metrics.append(rows(step.t, "curator", curator.name, _reviews(reviews, curator.name)))
    measure_web(world, step)


def measure_web(world: World, step: Step) -> None:
    """Measure the contamination of the web and of its sites."""
    step.metrics.append(tables.web(world.corpus.index, step.t))
    if world.spec.measure.sites:
        step.metrics.append(tables.sites(world.corpus.index, step.t))


def measure_models(world: World, step: Step) -> None:
    """Score every trainer's model on held-out human and on fresh synthetic text, and measure what it published."""
    written = [text for text in step.unpublished.values() if text.len()]
    synthetic = pl.concat(written) if written else pl.Series([], dtype=pl.String)
    judged = _judge(world, step)
    for trainer in world.trainers:
        model, values = trainer.recipe.model, Values(judged.get(trainer.name, {}))
        asked = [docs for docs in (world.references.held_out, synthetic) if docs.len()]
        scores = iter(world.cohorts[model].score([ScoreRequest(trainer.member, docs) for docs in asked]))
        if world.references.held_out.len():
            score = next(scores)
            if not np.isfinite(score.nll).all():
                raise TrainingError(
                    f"step {step.t}, {trainer.name}: its loss on held-out text is not a finite number. A neural model "
                    "has diverged: lower its learning_rate. A model of counts finds what it never saw impossible: "
                    'smooth it (smoothing = "kneser_ney"). Nothing of this step is committed.'
                )
            values |= _quality(world, model, score)
        if synthetic.len():
            values["cross_entropy_synthetic"] = ratio(*next(scores).per_document())
        mine = step.segment.filter((pl.col("author") == trainer.name) & pl.col("verdict").is_null())
        values["documents_published"] = float(mine.height)
        if mine.height:
            values["mean_words"] = _mean(mine["words"])
            values |= _texts(world, mine["content"], f"trainers/{trainer.name}/sample")
        if trainer.name in step.fits:
            fit = step.fits[trainer.name]
            values |= {"training_loss": fit.loss, "tokens_trained": float(fit.tokens)}
        step.metrics.append(rows(step.t, "trainer", trainer.name, values))


def _judge(world: World, step: Step) -> dict[str, Values]:
    """Judge every trainer that has a model on the downstream tasks, if it is time to; return accuracies by name."""
    downstream, found = world.references.downstream, dict[str, Values]()
    if downstream is None or not downstream.due(step.t):
        return found
    for model, trainers in by_model([trainer for trainer in world.trainers if trainer.has_model]).items():
        members, family = [trainer.member for trainer in trainers], world.spec.models[model]
        try:
            values = downstream.judge(world.cohorts[model], members, family.tunable, world.progress)
        except TrainingError as error:
            raise TrainingError(f"step {step.t}, {model}: {error}") from error
        found |= dict(zip([trainer.name for trainer in trainers], values, strict=True))
    return found


def measure_parameters(world: World, step: Step) -> None:
    """Hold the parameters of every trainer's model against the truth; they are known exactly, so without an error."""
    assert world.truth is not None
    for model, trainers in by_model(world.trainers).items():
        ready = [trainer for trainer in trainers if trainer.has_model]
        found = cast(DescribedCohort, world.cohorts[model]).describe(world.truth)
        members = [trainer.member for trainer in ready]
        names = np.array([trainer.name for trainer in ready])
        values = {metric: column[members] for metric, column in found.items()}
        values["documents_trained"] = np.array([getattr(step.fits.get(n), "tokens", np.nan) for n in names.tolist()])
        step.metrics.append(tables.many(step.t, "trainer", names, values))


def _quality(world: World, model: str, score: Score) -> Values:
    """Return what one model's score of the held-out documents says."""
    known = world.references
    nats, tokens = score.per_document()
    document = np.repeat(np.arange(tokens.size), tokens)
    values: Values = {**quality(nats, tokens, known.sizes)}
    values |= by_frequency(score.nll, score.unit, document, known.frequent[model])
    # Paired by document: most of the spread of the cross-entropy is that some documents are harder than others.
    with np.errstate(invalid="ignore"):  # a model of counts may find text impossible, before and after
        more = score.nll - known.initial[model].nll
    values["cross_entropy_change"] = ratio(np.bincount(document, weights=more, minlength=tokens.size), tokens)
    paired = by_frequency(more, score.unit, document, known.frequent[model])
    values |= {f"{name}_change": change for name, change in paired.items()}
    if known.truth is not None:
        # A document's true log-likelihood under the process: what no model can beat on average.
        values["excess_nats"] = ratio(nats + known.truth, np.ones_like(tokens))
    return values


def _texts(world: World, texts: pl.Series, stream: str) -> Values:
    how = world.spec.measure
    chance: Stream = world.stream(stream)
    groups = sample_groups(texts, how.words, how.groups, chance)
    return {**measure_texts(text_metrics(world), groups, world.references.vocabulary)}


def _mean(values: pl.Series) -> Estimate:
    array = values.to_numpy().astype(np.float64)
    return ratio(array, np.ones_like(array))


def _reviews(reviews: pl.DataFrame, curator: str) -> Values:
    mine = reviews.filter(pl.col("curator") == curator)
    values: Values = {}
    for origin, synthetic in (("human", False), ("synthetic", True)):
        of = mine.filter(pl.col("synthetic") == synthetic)
        values[f"reviewed_{origin}"] = float(of.height)
        values[f"suspect_{origin}"] = float(of.filter("suspect").height)
    return values
