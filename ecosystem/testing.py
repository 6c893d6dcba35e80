"""The laws that every policy and every family must obey, built in or not, for the tests of those who write one.

::

    from ecosystem.testing import check_family, check_policy

    def test_my_policy():
        check_policy(MyPolicy(limit=3))

    def test_my_family(tmp_path):
        check_family(MyFamily(), documents, tmp_path)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.features import features
from ecosystem.corpus.schema import INDEX, SEGMENT, TRUTH
from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import EcosystemError
from ecosystem.families.base import (
    BuildContext,
    Cohort,
    Describes,
    Family,
    SupportsPrompts,
    SupportsWatermark,
    TextCohort,
)
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, Member, ScoreRequest
from ecosystem.policies.base import Adder, Answers, Context, Filter, Policy, Scores, Weigher, gate
from ecosystem.policies.duplicates import NearDuplicates
from ecosystem.policies.learning import LearningFilter, LearningView, wrong_examples
from ecosystem.sources.base import FiniteReservoir, Reservoir
from ecosystem.streams import Stream, Streams

_ROWS = 97  # documents in the pretended finite source
_T = 6  # the pretended step


def check_policy(policy: Policy, docs: pl.DataFrame | None = None) -> None:
    """Raise AssertionError, naming the law in a sentence, if ``policy`` breaks one.

    ``docs`` has the columns of ``schema.SEGMENT`` (an index and ``content``); without it, 60 made-up documents
    serve. The laws: the policy survives being written to a file and read back; it is blind to the truth unless
    its class says ``oracle = True``, to the order of rows, to other rows unless its class says
    ``row_wise = False``; asked twice it says the same; what it kept it keeps when asked again; a reason is never
    empty; a weight is finite and >= 0; an empty table is no error; an adder depends on the number of kept rows
    alone, adds no row twice and none that the source does not have. A filter that learns collects the same examples
    when asked twice, each a text and a label, and collects none without complaint from an empty web; it refuses by the
    score of each document; and the classifier in use at a step is fitted then or before.
    """
    table = sample_documents() if docs is None else docs
    name = f"{type(policy).__name__} ({policy.kind or 'not registered'})"
    fields = {key: value for key, value in policy.plain().items() if key != "kind"}
    assert type(policy).model_validate(fields) == policy, f"{name}: written out and read back it is another policy."
    if isinstance(policy, Adder):
        _check_adder(policy, name)
        return
    assert isinstance(policy, Filter | Weigher), f"{name}: must be a Filter, a Weigher or an Adder."
    if isinstance(policy, LearningFilter):
        _check_learning(policy, table, name)
    context = sample_context(table)

    def apply(rows: pl.DataFrame) -> pl.DataFrame:
        try:
            return gate(rows, [("policy", policy)], context).select("doc", "verdict", "reason", "weight")
        except EcosystemError as error:
            raise AssertionError(f"{name}: the gate refuses what it returned: {error}") from error

    index = table.select(list(INDEX))
    once = apply(index)
    _same(once, apply(index), f"{name}: asked twice about the same table it must say the same.")
    assert apply(index.clear()).is_empty(), f"{name}: an empty table must be no error and stay empty."
    shuffled = index.sample(fraction=1.0, shuffle=True, seed=1)
    _same(once, apply(shuffled), f"{name}: it must be blind to the order of the rows.")
    if not policy.oracle:
        truth = index.select(list(TRUTH)).sample(fraction=1.0, shuffle=True, seed=2)
        other = index.drop(list(TRUTH)).with_columns(truth)
        law = "it must be blind to the truth columns; a policy that needs them says oracle = True."
        _same(once, apply(other), f"{name}: {law}")
    if policy.row_wise:
        half = index.filter(pl.col("doc").hash(seed=3) % 2 == 0)
        law = "it must be blind to other rows; a policy that is not says row_wise = False."
        _same(once.filter(pl.col("doc").is_in(half["doc"].implode())), apply(half), f"{name}: {law}")
    if isinstance(policy, Filter):
        reasons = once["reason"].drop_nulls()
        assert bool((reasons.str.strip_chars() != "").all()), f"{name}: it refuses with an empty reason."
        kept = index.filter(once["verdict"].is_null())
        law = "it must be idempotent: asked about what it kept, it must refuse nothing more."
        assert apply(kept)["verdict"].null_count() == kept.height, f"{name}: {law}"


def sample_documents(n: int = 60) -> pl.DataFrame:
    """Return ``n`` made-up documents with the columns of ``schema.SEGMENT``: long and short, clean and not."""
    rng = Stream(0, "testing").rng()
    vocabulary = [
        "the",
        "of",
        "and",
        "to",
        "with",
        *(f"{a}{b}" for a in "bdfgklmn" for b in ("ala", "ero", "ish", "un")),
    ]
    kinds: list[Callable[[], str]] = [
        lambda: " ".join(rng.choice(vocabulary, int(rng.integers(40, 120)))),
        lambda: " ".join(rng.choice(vocabulary, int(rng.integers(1, 12)))),
        lambda: "\n".join(["- " + " ".join(rng.choice(vocabulary, 3))] * int(rng.integers(1, 6))),
        lambda: "# 12 ... # 7 …\n" * int(rng.integers(0, 4)),
    ]
    texts: list[str] = []
    for i in range(n):
        copied = i % 7 == 6
        texts.append(texts[i // 2] + (" again" if i % 2 else "") if copied else kinds[i % 9 % 4]())
    text = pl.Series("content", texts, dtype=pl.String)
    synthetic = rng.random(n) < 0.5
    frame = features(text).with_columns(
        text,
        doc=pl.int_range(n, dtype=pl.Int64),
        t=pl.Series(np.sort(rng.integers(0, _T + 1, n))),
        site=pl.Series(rng.integers(0, 5, n)),
        retired_at=pl.lit(None),
        weight=pl.Series(rng.uniform(0.5, 2, n)),
        author=pl.Series(np.where(synthetic, "models/0", "people/0")),
        synthetic=pl.Series(synthetic),
        depth=pl.Series(np.where(synthetic, 1.0, 0.0)),
        model=pl.Series(["model" if s else None for s in synthetic], dtype=pl.String),
        source=pl.Series([None if s else "docs" for s in synthetic], dtype=pl.String),
        row=pl.lit(None),
        verdict=pl.lit(None),
        reason=pl.lit(None),
    )
    first = pl.col("doc").first().over("content_hash")
    frame = frame.with_columns(duplicate_of=pl.when(first < pl.col("doc")).then(first))
    return frame.select(pl.col(name).cast(dtype) for name, dtype in SEGMENT.items())


def sample_context(table: pl.DataFrame, t: int = _T, rows: int | None = _ROWS) -> Callable[[str], Context]:
    """Return what makes a policy's context at step ``t`` over ``table`` (columns of ``schema.SEGMENT``).

    Texts and near-duplicates are those of the table; scores, what classifiers say, right labels and watermarks are made
    up; every source has ``rows`` documents (None: endless), which are those of the table over and over, and of which
    people have drawn the first 40.
    """
    streams = Streams(1)
    corpus, models = SampleCorpus(table.sort("doc")), SampleModels(streams)
    sources, oracle = SampleSources(corpus.table["content"], rows), SampleOracle(streams)

    def context_of(policy: str) -> Context:
        return Context(
            policy=policy,
            reader="reader",
            t=t,
            stream=streams.at(f"policies/{policy}/reader", t),
            static_stream=streams.at(f"policies/{policy}"),
            corpus=corpus,
            sources=sources,
            models=models,
            classifiers=oracle,
            truth=oracle,
            report_shortfall=lambda wanted, given: None,
        )

    return context_of


class SampleCorpus:
    """The documents of a table as a corpus, all of them live."""

    def __init__(self, table: pl.DataFrame) -> None:
        """``table`` has the columns of ``schema.SEGMENT`` and is sorted by ``doc``."""
        self.table = table
        self._indexes: dict[tuple[int, int, float], NearDuplicates] = {}

    def contents(self, docs: pl.Series) -> pl.Series:
        """Return the contents of documents by id."""
        return self.table["content"].gather(self.table["doc"].search_sorted(docs))

    def live(self) -> pl.Series:
        """Return all ids."""
        return self.table["doc"]

    def near_duplicates(self, num_perm: int, shingle: int, threshold: float, docs: pl.Series) -> pl.Series:
        """Return the earliest near-duplicate of each document in the table, or null."""
        key = (num_perm, shingle, threshold)
        if key not in self._indexes:
            self._indexes[key] = NearDuplicates(*key)
            self._indexes[key].add(self.table["doc"], self.table["content"])
        return self._indexes[key].earliest(docs)


@dataclass(frozen=True)
class SampleSources:
    """Sources of ``rows`` documents each (None: endless): ``documents`` over and over, the first 40 drawn by people."""

    documents: pl.Series
    rows: int | None

    def size(self, source: str) -> int | None:
        """Return the number of documents of every source."""
        return self.rows

    def contents(self, source: str, rows: NDArray[np.int64]) -> pl.Series:
        """Return the contents of rows of a source."""
        return self.documents.gather(rows % self.documents.len())

    def drawn(self, source: str, t: int) -> int:
        """Return how many rows people have drawn by the end of any step."""
        return 40 if self.rows is None else min(40, self.rows)


@dataclass(frozen=True)
class SampleModels:
    """Made-up scores and watermarks, a function of the document's id and of the name of the model."""

    streams: Streams

    def score(self, model: str, docs: pl.Series) -> Answers:
        """Return (nats, tokens) of documents."""
        tokens = (self.streams.at(f"tokens/{model}").uniform(docs.to_numpy()) * 80).astype(np.int64)
        return tokens * 8 * self.streams.at(f"nats/{model}").uniform(docs.to_numpy()), tokens

    def watermark(self, model: str, mark: WatermarkSpec, docs: pl.Series) -> Answers:
        """Return (z-scores, scored tokens) of documents."""
        stream = self.streams.at(f"watermark/{model}/{mark.key}")
        z, tokens = stream.uniform(docs.to_numpy()), stream.child("tokens").uniform(docs.to_numpy())
        return 20 * z - 10, (80 * tokens).astype(np.int64)


@dataclass(frozen=True)
class SampleOracle:
    """Made-up classifiers and labels, a function of the document's id."""

    streams: Streams

    def scores(self, policy: str, docs: pl.Series) -> Scores:
        """Return what the classifier of a policy says of documents."""
        return Scores(self.streams.at(f"judge/{policy}").uniform(docs.to_numpy()), np.arange(200) / 200)

    def label_is_correct(self, docs: pl.Series) -> NDArray[np.bool_]:
        """Return whether the label of each document is correct."""
        return self.streams.at("right").uniform(docs.to_numpy()) < 0.5


class _Sources(dict[str, Reservoir]):
    """One pretended source by whatever name."""

    def __init__(self, texts: pl.Series) -> None:
        super().__init__()
        self._reservoir = FiniteReservoir("pretended", texts, 0.0, Streams(1))

    def __missing__(self, name: str) -> Reservoir:
        return self._reservoir


def _check_learning(policy: LearningFilter, table: pl.DataFrame, name: str) -> None:
    """The laws of what a filter learns from, and of when and how it refuses."""
    for t in range(1, 2 * _T):
        fitted = policy.fitted_at(t)
        law = f"{name}: the classifier in use at step {t} must be fitted then or before, and stay in use until the next"
        assert 0 <= fitted <= t and (not fitted or policy.fitted_at(fitted) == fitted), f"{law} (fitted_at: {fitted})."
    texts = table["content"].gather(np.arange(_ROWS) % table.height)
    web = table.sort("doc").with_columns(doc=pl.int_range(pl.len(), dtype=pl.Int64))
    for documents in (web, web.clear()):
        corpus = Corpus()
        corpus.publish(documents)
        one, other = (
            policy.collect_examples(LearningView(corpus, _Sources(texts), Streams(1), "policy", _T)) for _ in range(2)
        )
        wrong = wrong_examples(one)
        assert not wrong, f"{name}: of {documents.height} documents it collected {wrong}."
        same = one.texts.equals(other.texts) and np.array_equal(one.positive, other.positive)
        assert same, f"{name}: asked twice it must collect the same examples."
    score = Stream(1, "score").uniform(np.arange(50))
    for reference in (np.arange(200) / 200, np.zeros(0)):
        refused = policy.refused(score, reference)
        law = f"{name}: refused must say of each score, by itself, whether it is refused, and be an array of bool"
        assert isinstance(refused, np.ndarray) and refused.dtype == np.bool_ and refused.shape == score.shape, f"{law}."
        each = [bool(policy.refused(score[i : i + 1], reference)[0]) for i in range(score.size)]
        assert refused.tolist() == each, f"{law} ({len(reference)} scores to refer to)."


def check_family(family: Family, human: pl.Series, cache: Path) -> None:
    """Check the laws of every family of models; raise AssertionError with a sentence that names the one broken.

    ``human`` are documents of the family's modality (a few dozen), ``cache`` a folder for foundations. Laws: a cohort
    of two equals two cohorts of one; a document does not depend on the size of the batch; a state that is loaded
    continues exactly; the number of threads changes nothing; a score has one number per unit; a cohort can do what the
    class variables of its family declare; next-token distributions agree with scores.
    """
    check = _FamilyCheck(type(family).__name__, family, human, cache, Streams(3))
    cohort = check.build(2)
    check.capabilities(cohort)
    cohort.fit([check.fit(0, 0), check.fit(1, 1)])
    check.independence(cohort)
    check.state(cohort)
    check.score(cohort)
    if family.modality == "text":
        check.next_token(cast(TextCohort, cohort), 1)
        check.next_token(cast(TextCohort, cohort), "initial")


@dataclass(frozen=True)
class _FamilyCheck:
    """The laws of one family, each on a cohort of two whose members have been fitted as their numbers say."""

    name: str
    family: Family
    human: pl.Series
    cache: Path
    streams: Streams

    def build(self, members: int, threads: int = 1) -> Cohort:
        return self.family.cohort("law", members, BuildContext(self.human, self.streams, "cpu", threads, self.cache))

    def fit(self, member: int, number: int) -> FitRequest:
        docs, stream = self.human.gather(np.arange(number, self.human.len(), 2)), self.streams.at(f"fit/{number}")
        return FitRequest(member, docs, np.ones(docs.len()), Budget(tokens=400), None, "foundation", stream)

    def generate(self, member: int, number: int, n: int = 9) -> GenerateRequest:
        stream = self.streams.at(f"generate/{number}")
        return GenerateRequest(member, n, Decoding(max_tokens=8), None, stream)

    def capabilities(self, cohort: Cohort) -> None:
        """A cohort can do what its family declares, and writes before its first fit if it starts pretrained."""
        for declared, protocol in (
            (self.family.modality == "text", TextCohort),
            (self.family.modality != "text", Describes),
            (self.family.supports_prompts, SupportsPrompts),
            (self.family.supports_watermark, SupportsWatermark),
        ):
            law = f"its cohort must be a {protocol.__name__}, by the class variables of the family."
            assert not declared or isinstance(cohort, protocol), f"{self.name}: {law}"
        if self.family.starts_pretrained:
            [docs] = cohort.generate([self.generate(0, 0)])
            assert docs.len() == 9, f"{self.name}: it starts pretrained, but does not write before its first fit."

    def independence(self, cohort: Cohort) -> None:
        """A member depends neither on the others nor on threads, a document not on the size of the batch."""
        written = cohort.generate([self.generate(0, 0), self.generate(1, 1)])
        law = f"{self.name}: a cohort of two must equal two cohorts of one, whatever the number of threads"
        for number in (0, 1):
            alone = self.build(1, threads=2)
            alone.fit([self.fit(0, number)])
            [docs] = alone.generate([self.generate(0, number)])
            assert docs.equals(written[number]), f"{law} (the documents of member {number} differ)."
            [ours], [theirs] = (c.score([ScoreRequest(m, self.human)]) for c, m in ((cohort, number), (alone, 0)))
            assert np.array_equal(ours.nll, theirs.nll, equal_nan=True), f"{law} (scores of member {number} differ)."
        [fewer], [nothing] = (cohort.generate([self.generate(0, 0, n)]) for n in (4, 0))
        assert fewer.equals(written[0].head(4)), f"{self.name}: a document must not depend on the number requested."
        assert nothing.len() == 0, f"{self.name}: a request for no documents must return none."

    def state(self, cohort: Cohort) -> None:
        """A state holds arrays, and another cohort that loads it continues exactly."""
        requests = [self.generate(0, 0), self.generate(1, 1)]
        twin = self.build(2)
        twin.load(cohort.state())
        same = all(a.equals(b) for a, b in zip(twin.generate(requests), cohort.generate(requests), strict=True))
        assert same, f"{self.name}: loaded into another cohort, a state must continue exactly as before."
        for array in cohort.state().values():
            assert isinstance(array, np.ndarray), f"{self.name}: a state holds NumPy arrays only."

    def score(self, cohort: Cohort) -> None:
        """A score has one number per unit."""
        [score] = cohort.score([ScoreRequest(1, self.human)])
        whole = score.offsets[0] == 0 and score.offsets[-1] == score.nll.size == score.unit.size
        law = f"{self.name}: a score has one number per unit of each document."
        assert whole and score.offsets.size == self.human.len() + 1, law

    def next_token(self, cohort: TextCohort, member: Member) -> None:
        """A distribution after some tokens sums to one and gives the next token the probability of its score."""
        tokens = 2
        [score] = cohort.score([ScoreRequest(member, self.human)])
        p = cohort.next_token(member, self.human, tokens)
        longer = np.diff(score.offsets) > tokens + 1  # documents with more tokens, and the end
        place = score.offsets[:-1][longer] + tokens
        assert len(p) == len(place), f"{self.name}: a next-token distribution is due for every document of more tokens."
        assert np.allclose(p.sum(axis=1), 1, atol=1e-4), f"{self.name}: a next-token distribution must sum to one."
        scored = np.exp(-score.nll[place])
        law = f"{self.name}: next-token distributions of member {member} must agree with its scores."
        assert np.allclose(p[np.arange(len(p)), score.unit[place]], scored, rtol=1e-3, atol=1e-6), law


def _check_adder(policy: Adder, name: str) -> None:
    """The laws of an adder, for a finite and an endless source."""
    for rows in (_ROWS, 0, None):
        for kept in (0, 1, 40, 10_000):
            ctx = sample_context(sample_documents(1), rows=rows)("policy")
            added = policy.add(kept, ctx)
            law = f"{name}: asked twice to add to {kept} rows it must add the same."
            assert added.equals(policy.add(kept, ctx)), law
            for column in ("source", "document", "weight"):
                assert column in added.columns, f"{name}: what it adds lacks the column {column}."
            document, weight = added["document"], added["weight"].cast(pl.Float64)
            unique = added.select("source", "document").is_unique().all()
            assert document.null_count() == 0 and unique, f"{name}: it adds a document twice, or none in particular."
            bounded = bool((document >= 0).all()) and (rows is None or bool((document < rows).all()))
            assert bounded, f"{name}: it adds rows that the source of {rows} documents does not have."
            finite = weight.null_count() == 0 and bool(weight.is_finite().all()) and bool((weight >= 0).all())
            assert finite, f"{name}: a weight is missing, negative or not finite."


def _same(expected: pl.DataFrame, found: pl.DataFrame, law: str) -> None:
    """Compare two answers by document; weights to rounding."""
    left, right = expected.sort("doc"), found.sort("doc")
    same = left.drop("weight").equals(right.drop("weight"))
    assert same and np.allclose(left["weight"], right["weight"], rtol=1e-9, atol=0.0), law
