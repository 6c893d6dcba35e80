"""The measure phase: who is measured on what, every step; the arithmetic is in :mod:`ecosystem.metrics`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.agents import Trainer, by_model
from ecosystem.corpus.sources import Truth
from ecosystem.costs import measure_costs
from ecosystem.downstream import Downstream
from ecosystem.errors import DataError, TrainingError
from ecosystem.families.base import DescribedCohort, MarkingCohort, Member, Score, ScoreRequest, TextCohort
from ecosystem.metrics import tables
from ecosystem.metrics.base import (
    DOCUMENT_METRICS,
    TEXT_METRICS,
    Estimate,
    TextMetric,
    Vocabulary,
    measure_documents,
    measure_texts,
    sample_groups,
)
from ecosystem.metrics.quality import by_frequency, frequent_types, perplexity_quantiles, quality, ratio, unigram_nll
from ecosystem.metrics.tables import rows
from ecosystem.policies.watermark import Watermark
from ecosystem.recipes import TrainerSpec
from ecosystem.streams import Stream

if TYPE_CHECKING:
    from ecosystem.phases import Step
    from ecosystem.world import World

NAMED = 3  # trainers, at most, whose collapse is told of each by name

Values = dict[str, Estimate | float]
CONTEXT_TOKENS = 16  # of a held-out document, after which next-token distributions are compared


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
    next_token: dict[str, NDArray[np.float32]]  # per model: their next-token distributions after held-out beginnings

    @classmethod
    def of(cls, world: World, human: pl.Series) -> References:
        """Take the references from the web's initial source and documents (none of them if it opens empty)."""
        initial = world.spec.web.initial
        held_out, truth, downstream = pl.Series([], dtype=pl.String), None, None
        if initial is not None:
            reservoir, how = world.reservoirs[initial.source], world.spec.measure.downstream
            downstream = None if how is None else Downstream.of(how, reservoir, world.streams)
            held_out = held_out_of(world)
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
            next_token={name: _next_token(world, name, "initial", held_out) for name in world.cohorts},
        )


def held_out_of(world: World) -> pl.Series:
    """Return the real documents on which every trainer is scored; none if the web opens empty."""
    initial = world.spec.web.initial
    if initial is None:
        return pl.Series([], dtype=world.corpus.content)
    return world.reservoirs[initial.source].held_out.head(world.spec.measure.held_out)


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
    kinds = TEXT_METRICS.all()
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
    policy = next((p for p in world.spec.policies.values() if isinstance(p, Watermark)), None)
    if policy is not None:
        cohort = cast(MarkingCohort, world.cohorts[policy.model])
        human |= _marked(policy, *cohort.watermark(known.held_out, policy.mark))
    step.metrics.append(rows(step.t, "reference", "human", human))
    for population, recipe in world.spec.trainers.items():
        prompt = recipe.decoding.prompt
        values = _initial_perplexities(world, recipe, known.held_out, prompt.tokens if prompt is not None else 0)
        step.metrics.append(rows(step.t, "reference", f"{population}/human", values))


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
    step.metrics += world.judges.measured()
    if step.audiences:
        names = np.array(list(step.audiences))
        audience = np.array(list(step.audiences.values()))
        writing = np.array([not writer.has_left for writer in world.writers if writer.name in step.audiences])
        told = {"audience": audience, "writing": writing.astype(np.float64)}
        step.metrics.append(tables.many(step.t, "writer", names, told, {}))
    if step.reviews:
        reviews = pl.concat(step.reviews)
        for curator in world.curators:
            step.metrics.append(rows(step.t, "curator", curator.name, _reviews(reviews, curator.name)))
    measure_web(world, step)
    measure_costs(world, step)


def measure_web(world: World, step: Step) -> None:
    """Measure the contamination of the web and of its sites."""
    step.metrics.append(tables.web(world.corpus.index, step.t))
    if world.spec.measure.sites:
        step.metrics.append(tables.sites(world.corpus.index, step.t))


def measure_models(world: World, step: Step) -> None:
    """Score every trainer's model on held-out human and on fresh synthetic text, and measure what it published."""
    written = [text for text in step.unpublished.values() if text.len()]
    synthetic = pl.concat(written) if written else pl.Series([], dtype=pl.String)
    published = step.segment.filter(pl.col("verdict").is_null())
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
            values |= _next_token_change(world, trainer)
        if synthetic.len():
            values["cross_entropy_synthetic"] = ratio(*next(scores).per_document())
        mine = published.filter(pl.col("author") == trainer.name)
        values["documents_published"] = float(mine.height)
        if mine.height:
            values["mean_words"] = _mean(mine["words"])
            values |= _texts(world, mine["content"], f"trainers/{trainer.name}/sample")
            prompt = trainer.recipe.decoding.prompt
            begun = prompt.tokens if prompt is not None and prompt.keep else 0
            values |= _initial_perplexities(world, trainer.recipe, mine["content"], begun)
        values |= _watermark(world, step, trainer)
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
    """Hold every trainer's parameters, which are known exactly, against the truth, and score held-out documents."""
    assert world.truth is not None
    right = _right_labels(world, step)
    held_out = held_out_of(world)
    for model, trainers in by_model(world.trainers).items():
        ready = [trainer for trainer in trainers if trainer.has_model]
        found = cast(DescribedCohort, world.cohorts[model]).describe(world.truth)
        members = [trainer.member for trainer in ready]
        names = np.array([trainer.name for trainer in ready])
        values = {metric: column[members] for metric, column in found.items()}
        values["documents_trained"] = np.array([getattr(step.fits.get(n), "tokens", np.nan) for n in names.tolist()])
        values["label_accuracy"] = np.array([right.get(n, np.nan) for n in names.tolist()])
        if "collapsed" in values:
            values["collapsed_at"] = _collapses(world, ready, values["collapsed"] == 1)
        errors = {}
        if held_out.len():
            scores = world.cohorts[model].score([ScoreRequest(member, held_out) for member in members])
            nats = [ratio(*score.per_document()) for score in scores]
            values["held_out_nll"], errors["held_out_nll"] = np.array(nats, np.float64).reshape(-1, 2).T
        step.metrics.append(tables.many(step.t, "trainer", names, values, errors))
    measure_published(world, step)


def measure_published(world: World, step: Step) -> None:
    """Measure the vectors or categories that each trainer published, by the metrics registered for their modality."""
    assert world.truth is not None
    metrics = [kind() for kind in DOCUMENT_METRICS.all().values() if kind.modality == world.spec.modality]
    if not metrics:
        return
    published = step.segment.filter(pl.col("verdict").is_null())
    for trainer in world.trainers:
        mine = published.filter(pl.col("author") == trainer.name)["content"].to_numpy()
        values = measure_documents(metrics, mine, world.truth)
        if values:
            step.metrics.append(rows(step.t, "trainer", trainer.name, values))


def _collapses(world: World, trainers: Sequence[Trainer], collapsed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Record who has collapsed at this step for the first time; return the step for these, NaN for all others.

    Of a large population the first one, half and all are told, since a hundred replicates need no hundred sentences.
    """
    found = np.full(len(trainers), np.nan)
    new: dict[str, list[str]] = {}
    for place in np.flatnonzero(collapsed).tolist():
        trainer = trainers[place]
        if trainer.collapsed_at is None:
            trainer.collapsed_at = world.t
            found[place] = world.t
            new.setdefault(trainer.population, []).append(trainer.name)
    what = "collapsed: nothing varies any more in what was learnt"
    for population, names in new.items():
        fates = [trainer.collapsed_at for trainer in world.trainers if trainer.population == population]
        count = len(fates) - fates.count(None)
        before, half = count - len(names), (len(fates) + 1) // 2
        if len(fates) <= NAMED:
            for name in names:
                world.note(f"{name} {what}")
        elif count == len(fates):
            world.note(f"all {count} trainers of {population} have {what}")
        elif before < half <= count:
            world.note(f"half of the {len(fates)} trainers of {population} have {what}")
        elif before == 0:
            world.note(f"{names[0]} is the first of {len(fates)} trainers of {population} that has {what}")
    return found


def _right_labels(world: World, step: Step) -> dict[str, float]:
    """Return the share of right labels, by weight, in the training set of every trainer that has been fitted now.

    None at all where no label is right or wrong.
    """
    if world.truth is None or world.truth.plane is None or not step.fits:
        return {}
    rows = pl.concat([step.training[name] for name in step.fits])
    judged = rows.with_columns(right=pl.Series(world.right(world.contents(rows)))).filter(pl.col("weight") > 0)
    share = (pl.col("right") * pl.col("weight")).sum() / pl.col("weight").sum()
    return dict(judged.group_by("reader").agg(share).iter_rows())


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


def _next_token(world: World, model: str, member: Member, held_out: pl.Series) -> NDArray[np.float32]:
    """Return next-token distributions after the beginnings of held-out documents that the scenario asks for."""
    wanted = world.spec.measure.contexts
    cohort = cast(TextCohort, world.cohorts[model])
    found = cohort.next_token(member, held_out if wanted else held_out.head(0), CONTEXT_TOKENS)
    return found[:wanted]


def _next_token_change(world: World, trainer: Trainer) -> Values:
    """Return how far a trainer's next-token distributions are from those it started from (Seddik et al. 2024)."""
    known = world.references.next_token[trainer.recipe.model]
    if not len(known):
        return {}
    now = _next_token(world, trainer.recipe.model, trainer.member, world.references.held_out)
    distance = np.abs(now.astype(np.float64) - known).sum(axis=1)
    return {"next_token_l1": ratio(distance, np.ones_like(distance))}


def _initial_perplexities(world: World, recipe: TrainerSpec, texts: pl.Series, begun: int) -> Values:
    """Return the quantiles of the perplexities of single texts under the weights that trainers start from.

    All are taken on equally many tokens, behind a prompt of ``begun`` tokens: how probable a token is depends on how
    many are known before it. The end of a text is not counted, since a text that was cut has none. The texts were
    written independently, so the first serve. Nothing is measured of a model that starts from random weights.
    """
    how = world.spec.measure
    if not how.initial_perplexity or not world.spec.models[recipe.model].begins_trained:
        return {}
    cohort = cast(TextCohort, world.cohorts[recipe.model])
    docs = cohort.excerpts(texts, begun, min(how.initial_tokens, recipe.decoding.max_tokens))
    if docs.is_empty():
        return {}
    [score] = cohort.score([ScoreRequest("initial", docs.head(how.initial_perplexity))])
    nats, tokens = score.per_document()
    return {**perplexity_quantiles(nats - score.nll[score.offsets[1:] - 1], tokens - 1)}


def _watermark(world: World, step: Step, trainer: Trainer) -> Values:
    """Return how marked a trainer's documents of this step are, those refused at the publish gate among them.

    Looked for is the watermark that its decoding names; where it names none, the first that others put into theirs or
    that stands at a gate, since a model may have learnt it from others' text. Documents with too few tokens to be
    judged are left out.
    """
    named, spec = trainer.recipe.decoding.watermark, world.spec
    used = {*spec.standing(), *(recipe.decoding.watermark for recipe in spec.trainers.values())}
    policies = [p for n, p in spec.policies.items() if isinstance(p, Watermark) and n in used and named in (None, n)]
    mine = step.segment.filter(pl.col("author") == trainer.name)["doc"]
    if not policies or mine.is_empty():
        return {}
    policy = policies[0]
    found = _marked(policy, *world.watermark(policy.model, policy.mark, mine))
    return {"complies": float(trainer.name in step.marks), **found} if named is not None else found


def _marked(policy: Watermark, z: NDArray[np.float64], scored: NDArray[np.int64]) -> Values:
    judged = z[scored >= policy.min_tokens]
    over, each = (judged > policy.threshold).astype(np.float64), np.ones_like(judged)
    return {"watermark_z": ratio(judged, each), "watermark_found": ratio(over, each)}


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
    synthetic, suspect = mine["synthetic"].to_numpy(), mine["suspect"].to_numpy()
    values: Values = {}
    for origin, of in (("human", ~synthetic), ("synthetic", synthetic)):
        values[f"reviewed_{origin}"] = float(of.sum())
        values[f"suspect_{origin}"] = float((of & suspect).sum())
    return values
