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
    """Check that ``policy`` obeys the laws of policies; raise AssertionError that names the first broken law.

    ``docs`` has the columns of ``schema.SEGMENT`` (an index and ``content``); by default, 60 made-up documents.

    A policy is unchanged by being written to a file and read back. It is deterministic. Its result does not depend on
    the order of rows, on the truth unless its class sets ``oracle = True``, or on other rows unless its class sets
    ``row_wise = False``. Weights are finite and >= 0, and an empty table is not an error. A filter is idempotent:
    applied again to the rows that it kept, it refuses none. Its reasons are never empty. An adder depends only on the
    number of kept rows, adds no row twice, and adds only rows that exist in the source. A learning filter collects the
    same examples when called twice, each a text and a label, and none from an empty web; it decides on each score
    separately; and the classifier in use at a step was fitted at that step or earlier.
    """
    table = sample_documents() if docs is None else docs
    name = f"{type(policy).__name__} ({policy.kind or 'not registered'})"
    fields = {key: value for key, value in policy.plain().items() if key != "kind"}
    assert type(policy).model_validate(fields) == policy, (
        f"{name}: the policy must not change when it is written to a file and read back."
    )
    if isinstance(policy, Adder):
        _check_adder(policy, name)
        return
    assert isinstance(policy, Filter | Weigher), f"{name}: the class must be a Filter, a Weigher or an Adder."
    if isinstance(policy, LearningFilter):
        _check_learning(policy, table, name)
    context = sample_context(table)

    def apply(rows: pl.DataFrame) -> pl.DataFrame:
        try:
            return gate(rows, [("policy", policy)], context).select("doc", "verdict", "reason", "weight")
        except EcosystemError as error:
            raise AssertionError(f"{name}: the gate refuses the result: {error}") from error

    index = table.select(list(INDEX))
    once = apply(index)
    _same(once, apply(index), f"{name}: two calls with the same table must return the same result.")
    assert apply(index.clear()).is_empty(), f"{name}: the result for an empty table must be empty."
    shuffled = index.sample(fraction=1.0, shuffle=True, seed=1)
    _same(once, apply(shuffled), f"{name}: the result must not depend on the order of the rows.")
    if not policy.oracle:
        truth = index.select(list(TRUTH)).sample(fraction=1.0, shuffle=True, seed=2)
        permuted = index.drop(list(TRUTH)).with_columns(truth)
        law = "the result must not depend on the truth columns; a policy that needs them sets oracle = True."
        _same(once, apply(permuted), f"{name}: {law}")
    if policy.row_wise:
        half = index.filter(pl.col("doc").hash(seed=3) % 2 == 0)
        law = "the result for a row must not depend on other rows; a policy that needs them sets row_wise = False."
        _same(once.filter(pl.col("doc").is_in(half["doc"].implode())), apply(half), f"{name}: {law}")
    if isinstance(policy, Filter):
        reasons = once["reason"].drop_nulls()
        assert bool((reasons.str.strip_chars() != "").all()), f"{name}: a refusal must not have an empty reason."
        kept = index.filter(once["verdict"].is_null())
        law = "the filter must be idempotent: applied again to the rows that it kept, it must refuse none."
        assert apply(kept)["verdict"].null_count() == kept.height, f"{name}: {law}"


def _check_learning(policy: LearningFilter, table: pl.DataFrame, name: str) -> None:
    """Check the training examples of a learning filter, the steps of its fits, and its refusals."""
    for t in range(1, 2 * STEP):
        fitted = policy.fitted_at(t)
        law = f"{name}: the classifier in use at step {t} must be fitted by then and stay in use until the next fit"
        assert 0 <= fitted <= t and (not fitted or policy.fitted_at(fitted) == fitted), f"{law} (fitted_at: {fitted})."
    texts = table["content"].gather(np.arange(ROWS) % table.height)
    web = table.sort("doc").with_columns(doc=pl.int_range(pl.len(), dtype=pl.Int64))
    for documents in (web, web.clear()):
        corpus = Corpus()
        corpus.publish(documents)
        examples, repeated = (
            policy.collect_examples(LearningView(corpus, SampleReservoirs(texts), Streams(1), "policy", STEP))
            for _ in range(2)
        )
        wrong = wrong_examples(examples)
        assert not wrong, f"{name}: from {documents.height} documents, collect_examples returned {wrong}."
        same = examples.texts.equals(repeated.texts) and np.array_equal(examples.positive, repeated.positive)
        assert same, f"{name}: two calls of collect_examples must return the same examples."
    score = Stream(1, "score").uniform(np.arange(50))
    for reference in (np.arange(200) / 200, np.zeros(0)):
        refused = policy.refused(score, reference)
        law = f"{name}: refused must return an array of bool that depends, for each score, on that score alone"
        assert isinstance(refused, np.ndarray) and refused.dtype == np.bool_ and refused.shape == score.shape, f"{law}."
        each = [bool(policy.refused(score[i : i + 1], reference)[0]) for i in range(score.size)]
        assert refused.tolist() == each, f"{law} ({len(reference)} reference scores)."


def _check_adder(policy: Adder, name: str) -> None:
    """Check an adder with a finite, an empty and an endless source."""
    for rows in (ROWS, 0, None):
        for kept in (0, 1, 40, 10_000):
            ctx = sample_context(sample_documents(1), rows=rows)("policy")
            added = policy.add(kept, ctx)
            law = f"{name}: two calls with {kept} kept rows must add the same rows."
            assert added.equals(policy.add(kept, ctx)), law
            for column in ("source", "document", "weight"):
                assert column in added.columns, f"{name}: the added rows must have the column {column}."
            document, weight = added["document"], added["weight"].cast(pl.Float64)
            unique = added.select("source", "document").is_unique().all()
            assert document.null_count() == 0 and unique, (
                f"{name}: each added row must name a document, and none twice."
            )
            bounded = bool((document >= 0).all()) and (rows is None or bool((document < rows).all()))
            assert bounded, f"{name}: adds rows that do not exist in the source, which has {rows} documents."
            finite = weight.null_count() == 0 and bool(weight.is_finite().all()) and bool((weight >= 0).all())
            assert finite, f"{name}: a weight is missing, negative or not finite."


def _same(expected: pl.DataFrame, actual: pl.DataFrame, law: str) -> None:
    """Assert that two results agree for every document; weights up to rounding."""
    left, right = expected.sort("doc"), actual.sort("doc")
    same = left.drop("weight").equals(right.drop("weight"))
    assert same and np.allclose(left["weight"], right["weight"], rtol=1e-9, atol=0.0), law
