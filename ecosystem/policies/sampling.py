"""Policies that resample a set: random samples, importance weights by the score of a detector, choices by reward."""

from __future__ import annotations

import math
import unicodedata
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.corpus.words import SPACED, words
from ecosystem.errors import nearest
from ecosystem.policies.base import POLICIES, Context, Filter, Weigher
from ecosystem.policies.learning import LearningFilter
from ecosystem.policies.reasons import first_reason
from ecosystem.spec import ScenarioParts, Spec
from ecosystem.streams import Stream
from ecosystem.types import Floats


@POLICIES.register("importance")
class Importance(Weigher):
    """Weighs documents by the probability that they are human, given the score of a detector (cf. Drayson et al. 2025).

    The detector is simulated: its score is N(0, 1) for a human document and N(d, 1) for a synthetic one (the binormal
    model), with d = sqrt(2) * inverse normal of ``auc``. The score of a document never changes. With q the
    ``synthetic_prior``, the weight is P(human | score) / (1 - q). So the mean weight is exactly 1 if the share q of the
    documents is synthetic, and with an ``auc`` of 0.5 every weight is 1. With ``detector``, the score is that of a
    learned_detector, and neither ``auc`` nor the truth is used; until that detector is trained, every weight is 1.
    With ``power``, weights are raised to a power: Drayson et al. resample by the tenth power of the probability that a
    text is human. Since training scales weights to a mean of 1, this equals their resampling on average.
    """

    oracle: ClassVar[bool] = True

    auc: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        0.9, description="area under the ROC curve of the simulated detector; 0.5: no better than chance"
    )
    synthetic_prior: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="synthetic share of the documents, as the trainer assumes it"
    )
    detector: str | None = Field(
        None, description="name of a learned_detector whose scores are used; absent: the simulated detector"
    )
    power: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, description="power to which the weights are raised; above 1 it favours the surest documents; absent: 1"
    )

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require that ``detector`` names a policy that learns to detect synthetic documents."""
        detectors = sorted(
            name for name, p in scenario.policies.items() if isinstance(p, LearningFilter) and p.detects_synthetic
        )
        if self.detector is None or self.detector in detectors:
            return []
        return [
            f'{path}.detector: "{self.detector}" must name a policy that learns to detect synthetic documents, such as '
            f"one of kind learned_detector{nearest(self.detector, detectors)}; defined: "
            f"{', '.join(detectors) or 'none'}"
        ]

    def scores_read(self) -> list[str]:
        """Return the name of the detector."""
        return [] if self.detector is None else [self.detector]

    def weigh(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return the weights, between 0 and 1 / (1 - synthetic_prior), raised to ``power``."""
        weight = self._simulated(docs, ctx) if self.detector is None else self._learned(self.detector, docs["doc"], ctx)
        return pl.Series("factor", weight if self.power is None else weight**self.power)

    def _simulated(self, docs: pl.DataFrame, ctx: Context) -> NDArray[np.float64]:
        normal = NormalDist()
        shift = math.sqrt(2) * normal.inv_cdf(self.auc)
        uniform = ctx.static_stream.uniform(docs["doc"].to_numpy())
        noise = np.array([normal.inv_cdf(u) for u in uniform.tolist()], dtype=np.float64)
        score = noise + shift * docs["synthetic"].fill_null(False).to_numpy()
        odds = self.synthetic_prior / (1 - self.synthetic_prior)  # of synthetic against human, before the score
        human: NDArray[np.float64] = 1 / (1 + odds * np.exp(shift * score - shift**2 / 2))
        return human / (1 - self.synthetic_prior)

    def _learned(self, detector: str, docs: pl.Series, ctx: Context) -> NDArray[np.float64]:
        scores = ctx.classifiers.scores(detector, docs)
        if scores is None:
            return np.ones(docs.len())
        # The detector has learnt as if both classes were equally frequent.
        q, s = self.synthetic_prior, scores.score
        return (1 - s) / ((1 - q) * (1 - s) + q * s)


@POLICIES.register("sample")
class Sample(Filter):
    """Keeps a random sample of fixed size, drawn anew at each step and for each reader.

    After filters it makes training sets equally large, if enough documents are left. Without it, a policy that refuses
    more is compared at less data. ``count`` keeps that many documents. ``words`` keeps documents in the order of their
    noise until they contain that many words, including the documents of earlier adders at the gate, which are never
    refused. So sets contain the same amount of text, however long the documents of each author are. The last document
    is kept if at least half of it is within the limit; so the size is right on average and off by at most half a
    document.
    """

    needs_content: ClassVar[bool] = False
    row_wise: ClassVar[bool] = False

    count: Annotated[int, Field(ge=1, le=10**9)] | None = Field(
        None, description="most documents kept; 1000 if neither count nor words is given"
    )
    # Of all observable columns, words are nearest to tokens: on the prose of Python, human text has 2.31 to 2.33 tokens
    # per word and that of a trigram 2.29 to 2.36 over ten steps, but 0.37 tokens per byte against 0.37 to 0.39.
    words: Annotated[int, Field(ge=1, le=10**12)] | None = Field(
        None, description="words kept, those of earlier adders included, instead of count; for text only"
    )

    @model_validator(mode="before")
    @classmethod
    def _thousand_documents(cls, data: Any) -> Any:
        # Set in the value: a scenario with the default equals one that states it.
        return {**data, "count": 1000} if isinstance(data, dict) and not {"count", "words"} & data.keys() else data

    @model_validator(mode="after")
    def _one_amount(self) -> Sample:
        if (self.count is None) == (self.words is None):
            raise ValueError("give exactly one of count and words")
        return self

    @property
    def most_documents(self) -> int | None:
        """Most documents kept: ``count``."""
        return self.count

    @property
    def most_words(self) -> int | None:
        """Most words kept: ``words``."""
        return self.words

    @property
    def thins_archives(self) -> bool:
        """Whether it counts documents: the archive of a trainer has no column of words."""
        return self.words is None

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require text for a number of words."""
        if self.words is None or scenario.modality == "text":
            return []
        return [f"{path}.words: {scenario.modality} documents have no words; give count instead"]

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents that are not drawn."""
        ids = docs["doc"].to_numpy()
        order = np.lexsort((ids, ctx.stream.uniform(ids)))
        dropped = np.zeros(docs.height, np.bool_)
        if self.words is None:
            dropped[order[self.count :]] = True
            reason = pl.lit(f"not among the {self.count} documents drawn")
        else:
            length = docs["words"].to_numpy()[order].astype(np.float64)
            # Middles ascend, so no short document beyond the limit is kept.
            middle = _added_words(ctx) + np.cumsum(length) - length / 2
            dropped[order] = middle > self.words
            reason = pl.lit(f"not among the {self.words} words drawn")
        return first_reason(docs, [(pl.lit(pl.Series("dropped", dropped)), reason)])


def _added_words(ctx: Context) -> int:
    """Count the words that earlier adders have added at the gate."""
    return sum(
        int(words(ctx.sources.contents(str(source), rows["document"].to_numpy()), SPACED).lengths().sum())
        for (source,), rows in ctx.added.group_by("source", maintain_order=True)
    )


_LARGEST = 1e9  # of a reward; an impossible text has minus infinity
_Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]


class Reward(Spec):
    """What a sort of curators prefers: one score of a document, times a scale."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="share of the choices that these curators make")
    scale: Annotated[float, Field(ge=-1e6, le=1e6)] = Field(1.0, description="factor of the score; below 0: dislike")
    types: list[_Number] | None = Field(None, description="categories: the reward of each type, in their order")
    direction: list[_Number] | None = Field(None, description="vectors: the reward is the inner product with this one")
    feature: Literal["words", "size", "mean_word_length", "stop_words", "alphabetic_words", "top_2gram"] | None = Field(
        None, description="text: the reward is this observable column"
    )
    lexicon: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="text: the share of the words that are in this list"
    )
    model: str | None = Field(
        None, description="text: the log-likelihood per token under the initial weights of this model, in nats"
    )

    @model_validator(mode="after")
    def _one_score(self) -> Reward:
        if sum(getattr(self, name) is not None for name in _SCORES) != 1:
            raise ValueError(f"give exactly one of {', '.join(_SCORES)}")
        for word in self.lexicon or []:
            if not word or any(unicodedata.category(c)[0] not in "LMN" for c in word):
                raise ValueError(f"lexicon: {word!r} is not one word of letters and digits, so no text has it")
        return self

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require a score that documents of the scenario have, and a reward for every type or coordinate."""
        name = next(name for name in _SCORES if getattr(self, name) is not None)
        if scenario.modality != _SCORES[name]:
            return [f"{path}.{name}: is for {_SCORES[name]} documents, but documents here are {scenario.modality}"]
        if self.model is not None:
            known = sorted(scenario.models)
            hint = f"{nearest(self.model, known)}; defined in [models]: {', '.join(known) or 'none'}"
            return [] if self.model in known else [f"{path}.model: there is no [models.{self.model}]{hint}"]
        given = len(self.types or self.direction or [])
        widths = [source.width for source in scenario.sources.values() if source.width is not None]
        widths += [model.plain().get("types", 0) for model in scenario.models.values() if self.types is not None]
        needed = max(widths, default=given)
        if name not in ("types", "direction") or given == needed or (self.types is not None and given > needed):
            return []
        return [f"{path}.{name}: has {given} numbers, but documents here need {needed}; give one for each"]

    def of(self, docs: pl.DataFrame, ctx: Context) -> Floats:
        """Return the reward of every document, [documents]."""
        if self.feature is not None:
            score = docs[self.feature].to_numpy()
        elif self.model is not None:
            nats, tokens = ctx.models.score(self.model, docs["doc"])
            score = -nats / np.maximum(tokens, 1)
        else:
            score = self._of_contents(ctx.contents(docs["doc"]))
        return np.asarray(np.clip(self.scale * score.astype(np.float64), -_LARGEST, _LARGEST))

    def _of_contents(self, contents: pl.Series) -> NDArray[Any]:
        if self.types is not None:
            return np.asarray(np.array(self.types)[contents.to_numpy()])
        if self.direction is not None:
            return np.asarray(contents.to_numpy() @ np.array(self.direction))
        listed = [word.lower() for word in self.lexicon or []]
        found = contents.str.to_lowercase().str.extract_all(r"[\p{L}\p{M}\p{N}]+")
        share = found.list.eval(pl.element().is_in(listed).cast(pl.Float64)).list.mean()
        return np.asarray(share.fill_null(0.0).to_numpy())


_SCORES = {"types": "category", "direction": "vector", "feature": "text", "lexicon": "text", "model": "text"}


@POLICIES.register("prefer")
class Prefer(Filter):
    """Keeps what curators prefer: a document is chosen with a probability in proportion to e to the reward.

    With ``drafts`` = K it is for the publish gate: of K drafts by one model, one is published, as if a user had picked
    it (Ferbach et al. 2024). This is the model of Bradley & Terry for two drafts and of Plackett & Luce for more. The
    rivals of a draft are those of the same author and step in the same block of K ids: the choice never changes, and
    the first and last block of an author may hold fewer drafts. Documents of people are kept. Each choice is made by
    one sort of curators, drawn in proportion to their shares (heterogeneous curators: cf. Zhao, Fu & Pham 2025).

    With ``count`` it is for any gate: that many of all documents there are chosen one after the other, without
    replacement, whoever wrote them; anew at each step and for each reader.
    """

    oracle: ClassVar[bool] = True  # where drafts are shown, it is known whose they are
    row_wise: ClassVar[bool] = False

    rewards: Annotated[list[Reward], Field(min_length=1)] = Field(
        description="what curators prefer: one table, or one for each sort of curators, whose shares add up to 1"
    )
    drafts: Annotated[int, Field(ge=2, le=10**6)] | None = Field(
        None, description="drafts of a model of which one is kept; exclusive with count"
    )
    count: Annotated[int, Field(ge=1, le=10**9)] | None = Field(
        None, description="most documents kept, of all at the gate; exclusive with drafts"
    )
    population: str | None = Field(
        None, description="with drafts: name of the population of trainers whose drafts are judged; absent: all"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Prefer:
        if (self.drafts is None) == (self.count is None):
            raise ValueError("give exactly one of drafts and count")
        if self.count is not None and (len(self.rewards) > 1 or self.population is not None):
            raise ValueError("count takes one reward and no population; use drafts")
        if abs(sum(reward.share for reward in self.rewards) - 1) > 1e-9:
            raise ValueError("rewards: their shares must add up to 1")
        return self

    @property
    def most_documents(self) -> int | None:
        """Most documents kept: ``count``."""
        return self.count

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require rewards that these documents have, a population that exists, and a gate that sees all drafts."""
        problems = [
            problem
            for place, reward in enumerate(self.rewards)
            for problem in reward.problems(f"{path}.rewards.{place}", scenario)
        ]
        if self.population is not None and self.population not in scenario.trainers:
            hint = f"{nearest(self.population, scenario.trainers)}; defined in [trainers]: "
            problems.append(
                f"{path}.population: there is no [trainers.{self.population}]{hint}"
                f"{', '.join(sorted(scenario.trainers)) or 'none'}"
            )
        if self.drafts is not None:
            name = path.partition(".")[2]
            gates = {"web.retain": scenario.web.retain}
            gates |= {f"trainers.{trainer}.select": spec.select for trainer, spec in scenario.trainers.items()}
            problems += [
                f"{gate}: {name} ({self.kind}) chooses among all drafts of a step, which are only at web.publish; use "
                "it there, or give it count instead of drafts"
                for gate, names in gates.items()
                if name in names
            ]
        return problems

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse the documents that are not chosen."""
        refused = np.zeros(docs.height, np.bool_)
        if self.drafts is None:
            key = self.rewards[0].of(docs, ctx) + _gumbel(docs, ctx.stream)
            refused[np.lexsort((docs["doc"].to_numpy(), -key))[self.count :]] = True
            reason = f"not among the {self.count} documents preferred"
        else:
            judged = self.judged(docs)
            refused[judged] = self._lost(docs.filter(pl.Series(judged)), self.drafts, ctx)
            reason = f"another of {self.drafts} drafts was preferred"
        return first_reason(docs, [(pl.lit(pl.Series("refused", refused, dtype=pl.Boolean)), pl.lit(reason))])

    def judged(self, docs: pl.DataFrame) -> NDArray[np.bool_]:
        """Return which documents are drafts that curators judge, [documents]; all with ``count``."""
        if self.drafts is None:
            return np.ones(docs.height, np.bool_)
        ours = pl.col("synthetic")
        if self.population is not None:
            ours &= pl.col("author").str.starts_with(f"{self.population}/")
        return docs.select(ours).to_series().to_numpy()

    def mean_reward(self, docs: pl.DataFrame, ctx: Context) -> Floats:
        """Return the reward of every document, averaged over the choices of all curators, [documents]."""
        return np.asarray(sum(reward.share * reward.of(docs, ctx) for reward in self.rewards))

    def _lost(self, docs: pl.DataFrame, drafts: int, ctx: Context) -> NDArray[np.bool_]:
        """Return which drafts lose to another one in their block, [documents]."""
        block = docs["doc"].to_numpy() // drafts
        limits = np.cumsum([reward.share for reward in self.rewards])[:-1]
        curator = np.searchsorted(limits, ctx.static_stream.child("curator").uniform(block), side="right")
        key = _gumbel(docs, ctx.static_stream)
        for number, reward in enumerate(self.rewards):
            key[curator == number] += reward.of(docs.filter(pl.Series(curator == number)), ctx)
        rivals = docs.select(
            "author", "t", "doc", block=pl.Series(block), key=pl.Series(key), row=pl.int_range(pl.len())
        )
        won = rivals.sort("key", "doc", descending=[True, False]).unique(["author", "t", "block"], keep="first")
        lost = np.ones(docs.height, np.bool_)
        lost[won["row"].to_numpy()] = False
        return lost


def _gumbel(docs: pl.DataFrame, stream: Stream) -> Floats:
    """Return one standard Gumbel number per document: the largest sum of reward and noise is Plackett and Luce's."""
    return np.asarray(-np.log(-np.log(stream.uniform(docs["doc"].to_numpy()))))
