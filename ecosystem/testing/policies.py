"""Checks of the laws of policies."""

from __future__ import annotations

import numpy as np
import polars as pl

from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.schema import INDEX, TRUTH
from ecosystem.errors import EcosystemError
from ecosystem.policies.base import Adder, Filter, Policy, Weigher, gate
from ecosystem.policies.learning import LearningFilter, LearningView, wrong_examples
from ecosystem.streams import Stream, Streams
from ecosystem.testing.samples import ROWS, STEP, SampleReservoirs, sample_context, sample_documents


def check_policy(policy: Policy, docs: pl.DataFrame | None = None) -> None:
    """Check that ``policy`` obeys the laws of policies; raise AssertionError with a sentence that names a broken law.

    ``docs`` has the columns of ``schema.SEGMENT`` (an index and ``content``); by default, 60 made-up documents.

    A policy is unchanged by being written to a file and read back. Its answer does not depend on the truth unless its
    class sets ``oracle = True``, on the order of rows, or on other rows unless its class sets ``row_wise = False``. It
    is deterministic and idempotent: applied again to what it kept, it refuses nothing. Reasons are never empty, weights
    are finite and >= 0, and an empty table is not an error. An adder depends on the number of kept rows only, and adds
    no row twice and none that the source lacks. A learning filter collects the same examples when called twice, each a
    text and a label, and none from an empty web; it decides on each score separately; and the classifier in use at a
    step was fitted at that step or before.
    """
    table = sample_documents() if docs is None else docs
    name = f"{type(policy).__name__} ({policy.kind or 'not registered'})"
    fields = {key: value for key, value in policy.plain().items() if key != "kind"}
    assert type(policy).model_validate(fields) == policy, (
        f"{name}: it must not change when it is written to a file and read back."
    )
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
    assert apply(index.clear()).is_empty(), f"{name}: an empty table must not be an error and must stay empty."
    shuffled = index.sample(fraction=1.0, shuffle=True, seed=1)
    _same(once, apply(shuffled), f"{name}: it must not depend on the order of the rows.")
    if not policy.oracle:
        truth = index.select(list(TRUTH)).sample(fraction=1.0, shuffle=True, seed=2)
        other = index.drop(list(TRUTH)).with_columns(truth)
        law = "it must not depend on the truth columns; a policy that needs them sets oracle = True."
        _same(once, apply(other), f"{name}: {law}")
    if policy.row_wise:
        half = index.filter(pl.col("doc").hash(seed=3) % 2 == 0)
        law = "it must not depend on other rows; a policy that needs them sets row_wise = False."
        _same(once.filter(pl.col("doc").is_in(half["doc"].implode())), apply(half), f"{name}: {law}")
    if isinstance(policy, Filter):
        reasons = once["reason"].drop_nulls()
        assert bool((reasons.str.strip_chars() != "").all()), f"{name}: it refuses with an empty reason."
        kept = index.filter(once["verdict"].is_null())
        law = "it must be idempotent: applied again to what it kept, it must refuse nothing."
        assert apply(kept)["verdict"].null_count() == kept.height, f"{name}: {law}"


def _check_learning(policy: LearningFilter, table: pl.DataFrame, name: str) -> None:
    """Check what a filter learns from, when it is fitted, and how it refuses."""
    for t in range(1, 2 * STEP):
        fitted = policy.fitted_at(t)
        law = f"{name}: the classifier in use at step {t} must be fitted then or before, and stay in use until the next"
        assert 0 <= fitted <= t and (not fitted or policy.fitted_at(fitted) == fitted), f"{law} (fitted_at: {fitted})."
    texts = table["content"].gather(np.arange(ROWS) % table.height)
    web = table.sort("doc").with_columns(doc=pl.int_range(pl.len(), dtype=pl.Int64))
    for documents in (web, web.clear()):
        corpus = Corpus()
        corpus.publish(documents)
        one, other = (
            policy.collect_examples(LearningView(corpus, SampleReservoirs(texts), Streams(1), "policy", STEP))
            for _ in range(2)
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


def _check_adder(policy: Adder, name: str) -> None:
    """Check an adder with a finite, an empty and an endless source."""
    for rows in (ROWS, 0, None):
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


def _same(expected: pl.DataFrame, actual: pl.DataFrame, law: str) -> None:
    """Assert that two answers agree for every document; weights up to rounding."""
    left, right = expected.sort("doc"), actual.sort("doc")
    same = left.drop("weight").equals(right.drop("weight"))
    assert same and np.allclose(left["weight"], right["weight"], rtol=1e-9, atol=0.0), law
