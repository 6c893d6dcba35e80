"""Metrics against closed forms (THEORY.md, section 7) and by hand."""

import math
import time

import numpy as np
import polars as pl
import pytest

from ecosystem.corpus.schema import INDEX, LEDGER, METRICS, empty
from ecosystem.metrics import quality, tables
from ecosystem.metrics.base import TEXT_METRICS, Vocabulary, measure_texts, sample_groups
from ecosystem.metrics.bleu import bleu_scores
from ecosystem.metrics.catalogue import definitions
from ecosystem.metrics.estimates import mean_and_error, ratio
from ecosystem.metrics.text import (
    CompressionRatio,
    Distinct,
    Repetition,
    SelfBleu,
    TokenEntropy,
    VocabularyKept,
    ZipfExponent,
    zipf_exponent,
)
from ecosystem.streams import Stream

STREAM = Stream(1, "measure")


def groups_of(texts, size=50, count=8):
    return sample_groups(pl.Series(texts, dtype=pl.String), size, count, STREAM)


def iid(p, documents, length, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{k}" for k in rng.choice(len(p), length, p=p)) for _ in range(documents)]


def zipf(k, s=1.0):
    weights = np.arange(1, k + 1) ** -s
    return weights / weights.sum()


# Groups.


def test_groups_are_disjoint_equal_and_exact():
    texts = [" ".join(f"d{i}w{j}" for j in range(7 + i % 5)) for i in range(40)]
    groups = groups_of(texts, size=30, count=100)
    words = sum(7 + i % 5 for i in range(40))
    assert groups.count == words // 30
    assert groups.codes.shape == (groups.count, 30)
    assert len(np.unique(groups.codes)) == groups.codes.size  # each word of these texts occurs once: no overlap
    assert groups_of(texts, size=30, count=3).count == 3
    lines = [line for text in groups.texts() for line in text.split("\n")]
    assert sum(len(line.split()) for line in lines) == groups.count * 30
    assert all(len({word.split("w")[0] for word in line.split()}) == 1 for line in lines)


def test_too_little_text_is_not_measured():
    assert groups_of(["a b c"] * 3, size=5) is None
    assert groups_of([]) is None
    assert measure_texts([Distinct()], None) == {}
    assert groups_of(["a b c d e"] * 2, size=5).count == 2


def test_the_sample_depends_on_the_stream_alone():
    texts = [f"a{i} b{i} c{i}" for i in range(50)]
    assert (groups_of(texts).codes == groups_of(texts).codes).all()
    other = sample_groups(pl.Series(texts), 50, 8, Stream(2, "measure"))
    assert groups_of(texts).texts() != other.texts()


def test_no_ngram_reaches_across_documents_or_groups():
    groups = groups_of(["a b c"] * 40, size=10, count=12)
    grams = groups.grams(2)[0]
    assert len(set(grams.tolist())) == 2  # ab and bc, never ca
    assert groups.grams(4)[0].size == 0
    assert "distinct_4" not in Distinct().measure(groups)


def test_mean_and_error():
    assert mean_and_error([1.0, 3.0]) == (2.0, 1.0)
    assert math.isnan(mean_and_error([1.0])[1])
    assert math.isnan(mean_and_error([])[0])


# Text metrics.


def test_distinct_1_of_independent_words_is_as_computed():
    p, size = zipf(200), 500
    groups = groups_of(iid(p, 200, 100), size=size, count=40)
    value, error = Distinct().measure(groups)["distinct_1"]
    expected = (1 - (1 - p) ** size).sum() / size
    assert groups.count == 40
    assert abs(value - expected) < 4 * error
    assert error < 0.01


def test_distinct_by_hand():
    groups = groups_of(["a b a b", "a b a b"], size=4)
    result = Distinct().measure(groups)
    assert result["distinct_1"] == (0.5, 0.0)
    assert result["distinct_2"] == (pytest.approx(2 / 3), 0.0)
    assert result["distinct_3"] == (1.0, 0.0)


def test_repetition_of_a_constant_sequence():
    length = 25
    result = Repetition().measure(groups_of([" ".join("x" * length)] * 10))
    for n in range(1, 5):
        assert result[f"rep_{n}"] == (pytest.approx(1 - 1 / (length - n + 1)), pytest.approx(0))


def test_repetition_is_a_mean_over_documents():
    result = Repetition().measure(groups_of(["a a", "a b", "", "c"] * 20, size=10))
    assert result["rep_1"][0] == pytest.approx((0.5 + 0 + 0) / 3)  # a document without words has none
    assert result["rep_1"][1] == pytest.approx(np.std([0.5, 0, 0] * 20, ddof=1) / math.sqrt(60))
    assert result["rep_2"] == (0.0, 0.0)
    assert "rep_3" not in result


def test_self_bleu_of_identical_and_of_disjoint_documents():
    same = groups_of(["one two three four five six"] * 30, size=10)
    assert SelfBleu(documents=30).measure(same)["self_bleu"] == (pytest.approx(1), pytest.approx(0))
    apart = groups_of([" ".join(f"d{i}w{j}" for j in range(6)) for i in range(30)], size=10)
    assert SelfBleu(documents=30).measure(apart)["self_bleu"] == (0.0, 0.0)


def slow_bleu(texts, n_max):
    """BLEU of each text against all others, straight from its definition."""
    docs = [text.split() for text in texts]

    def grams(doc, n):
        found = {}
        for i in range(len(doc) - n + 1):
            found[tuple(doc[i : i + n])] = found.get(tuple(doc[i : i + n]), 0) + 1
        return found

    scores = []
    for i, doc in enumerate(docs):
        others = docs[:i] + docs[i + 1 :]
        nearest = min((abs(len(o) - len(doc)), len(o)) for o in others)[1]
        product = math.exp(min(0, 1 - nearest / len(doc)))
        for n in range(1, n_max + 1):
            mine = grams(doc, n)
            matched = sum(min(c, max(grams(o, n).get(g, 0) for o in others)) for g, c in mine.items())
            product *= (matched / (len(doc) - n + 1)) ** (1 / n_max)
        scores.append(product)
    return np.array(scores)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_self_bleu_agrees_with_its_definition(n):
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(list("abcd"), int(rng.integers(4, 15)))) for _ in range(20)]
    found = SelfBleu(documents=20, n=n).measure(groups_of(texts, size=20))["self_bleu"]
    assert found[0] == pytest.approx(slow_bleu(texts, n).mean())


def test_the_error_of_self_bleu_leaves_out_each_document_and_counts_pairs_once():
    """Straight from the definitions: scores again without each document, and what each pair adds beyond its members."""
    rng = np.random.default_rng(4)
    texts = [" ".join(rng.choice(list("abcd"), int(rng.integers(4, 15)))) for _ in range(12)]
    n, scores = len(texts), slow_bleu(texts, 3)
    loss = np.zeros((n, n))
    for j in range(n):
        rest = [i for i in range(n) if i != j]
        loss[rest, j] = scores[rest] - slow_bleu([texts[i] for i in rest], 3)
    left_out = [(scores.sum() - scores[j] - loss[:, j].sum()) / (n - 1) for j in range(n)]
    pairs = loss + loss.T
    members = pairs.sum(axis=0) / (n - 2)
    alone = [
        pairs[i, j] - members[i] - members[j] + pairs.sum() / (n - 1) / (n - 2) for i in range(n) for j in range(i)
    ]
    variance = (n - 1) * np.var(left_out) - np.sum(np.square(alone)) / n**2
    found = SelfBleu(documents=n, n=3).measure(groups_of(texts, size=10))["self_bleu"]
    assert variance > 0 and found == pytest.approx((scores.mean(), math.sqrt(variance)))


@pytest.mark.slow
@pytest.mark.parametrize("types", [200, 2000])
def test_the_error_of_self_bleu_is_the_spread_over_samples(types):
    """Zipf words; 300 samples of 100 documents give the true error to 4.1 %, and 3 of these errors are allowed.

    Scores taken as independent would give 0.7 of it, the jackknife alone 1.25 to 1.35.
    """
    rng = np.random.default_rng(5)
    share = 1 / np.arange(1, types + 1)
    found = []
    for _ in range(300):
        lengths = rng.integers(10, 40, 100)
        codes = rng.choice(types, int(lengths.sum()), p=share / share.sum())
        found.append(bleu_scores(codes, np.repeat(np.arange(100), lengths), types, 4).estimate())
    values, errors = np.array(found).T
    assert math.sqrt(np.mean(errors**2)) / values.std(ddof=1) == pytest.approx(1, abs=3 * 0.041)


def test_self_bleu_of_two_documents_has_no_error():
    value, error = SelfBleu(documents=2).measure(groups_of(["a b c d e", "a b c d f"], size=4))["self_bleu"]
    assert value > 0 and math.isnan(error)


def test_self_bleu_is_measured_on_equally_many_documents_or_not_at_all():
    texts = ["a b c d e"] * 20 + ["a b"] * 20  # the short ones have no 4-gram
    assert SelfBleu(documents=21).measure(groups_of(texts, size=20)) == {}
    assert SelfBleu(documents=20).measure(groups_of(texts, size=20))["self_bleu"][0] == pytest.approx(1)


def test_compression_ratio_rises_with_redundancy():
    varied = CompressionRatio().measure(groups_of(iid(zipf(5000, 0.5), 100, 50), size=500))["compression_ratio"][0]
    dull = CompressionRatio().measure(groups_of(["the same again and again"] * 1000, size=500))["compression_ratio"][0]
    assert 1 < varied < 4 < dull


def test_entropy_of_equally_likely_words():
    value, error = TokenEntropy().measure(groups_of(iid(np.full(20, 1 / 20), 100, 200), size=1000, count=20))["entropy"]
    assert abs(value - math.log(20)) < 4 * error
    assert error < 0.002
    assert TokenEntropy().measure(groups_of(["a a a a a"] * 40))["entropy"] == (0.0, 0.0)


@pytest.mark.parametrize("s", [0.7, 1.0, 1.5])
def test_the_zipf_exponent_is_recovered(s):
    p, n = zipf(100, s), 50_000
    counts = np.random.default_rng(4).multinomial(n, p)
    logs = np.log(np.arange(1, 101))
    information = n * ((p * logs**2).sum() - (p * logs).sum() ** 2)
    assert abs(zipf_exponent(counts) - s) < 4 / math.sqrt(information)
    # From the text alone ranks must be guessed; with this many words they are nearly right.
    value, error = ZipfExponent().measure(groups_of(iid(p, 100, 1000), size=10_000))["zipf_exponent"]
    assert abs(value - s) < 0.05
    assert 0 < error < 0.01


def test_the_zipf_exponent_at_its_limits():
    assert zipf_exponent(np.array([5, 5, 5, 5])) == pytest.approx(0, abs=1e-9)
    assert zipf_exponent(np.array([100_000, 1])) == pytest.approx(math.log2(100_000), abs=1e-6)
    assert ZipfExponent().measure(groups_of(["a a a a a"] * 40)) == {}


def test_the_vocabulary_kept_is_one_for_human_text_and_nothing_for_what_is_gone():
    p = zipf(2000)
    human = Vocabulary.of(pl.Series(iid(p, 500, 100, seed=1)))
    assert (np.diff(human.counts) <= 0).all()
    share = human.counts / human.counts.sum()
    words = human.words.to_list()
    rng = np.random.default_rng(2)
    same = [" ".join(rng.choice(words, 100, p=share)) for _ in range(200)]
    result = VocabularyKept().measure(groups_of(same, size=1000, count=20), human)
    assert list(result) == [f"vocabulary_kept_{k}" for k in range(1, 11)]
    for value, error in result.values():
        assert abs(value - 1) < 4 * error
    head = groups_of([" ".join(words[:100])] * 100, size=1000)
    lost = VocabularyKept().measure(head, human)
    assert lost["vocabulary_kept_1"][0] > 0.4
    assert all(lost[f"vocabulary_kept_{k}"] == (0.0, 0.0) for k in range(2, 11))
    alien = VocabularyKept().measure(groups_of(["unheard of words"] * 100), human)
    assert all(value == 0 for value, _ in alien.values())
    assert VocabularyKept().measure(head) == {}
    assert VocabularyKept().measure(head, Vocabulary.of(pl.Series(["few words"]))) == {}


def test_vocabulary_orders_by_count_then_alphabet():
    human = Vocabulary.of(pl.Series(["b a c a", "d c", None]))
    assert human.words.to_list() == ["a", "c", "b", "d"]
    assert human.counts.tolist() == [2, 2, 1, 1]
    assert human.ranks(pl.Series(["d", "z", "a"])).tolist() == [3, -1, 0]
    assert Vocabulary.of(pl.Series(["x x"])).expected(3).tolist() == [1.0]


def test_every_metric_is_defined_in_one_line():
    human = Vocabulary.of(pl.Series(iid(zipf(50), 20, 50)))
    groups = groups_of(iid(zipf(50), 120, 20), size=100)
    for kind, cls in TEXT_METRICS.all().items():
        found = cls().measure(groups, human)
        assert tuple(found) == tuple(cls.definitions), kind
        assert cls.definitions.items() <= definitions().items()
        assert all(math.isfinite(value) and error >= 0 for value, error in found.values())
    for definition in definitions().values():
        assert definition.unit and definition.text and "\n" not in definition.text
        assert definition.collapse in {"up", "down", ""}


def test_measuring_a_population_takes_little_time():
    texts = pl.Series(iid(zipf(5000), 300, 60))
    human, metrics = Vocabulary.of(texts), [cls() for cls in TEXT_METRICS.all().values()]
    measure_texts(metrics, sample_groups(texts, 1000, 8, STREAM), human)
    begin = time.perf_counter()
    measure_texts(metrics, sample_groups(texts, 1000, 8, STREAM), human)
    assert time.perf_counter() - begin < 0.6  # about 0.03 s on an idle machine


# Quality.


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    tokens = np.array([5, 10, 85])
    found = quality.quality(tokens * math.log(1000), tokens, tokens * 4)
    assert found["cross_entropy"] == (pytest.approx(math.log(1000)), pytest.approx(0, abs=1e-12))
    assert found["perplexity"][0] == pytest.approx(1000)
    assert found["bits_per_byte"][0] == pytest.approx(math.log2(1000) / 4)


def test_the_ratio_estimators_standard_error_is_honest():
    rng = np.random.default_rng(6)
    estimates = []
    for _ in range(800):
        tokens = rng.integers(10, 100, 60)
        nats = tokens * rng.normal(3, 0.5, 60)
        estimates.append(quality.cross_entropy(nats, tokens))
    values, errors = np.array(estimates).T
    assert abs(values.mean() - 3) < 4 * values.std() / math.sqrt(800)
    # The relative standard error of a standard deviation from 800 draws is 2.5 %; the delta method is a little low.
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_ratios_of_nothing_and_of_one():
    assert all(math.isnan(x) for x in ratio(np.array([]), np.array([])))
    value, error = ratio(np.array([6.0, 0.0]), np.array([2, 0]))
    assert value == 3 and math.isnan(error)
    assert quality.perplexity((1e4, 1.0))[0] == math.inf


def test_frequent_types_are_the_fewest_that_cover_the_share():
    counts = np.array([1, 50, 0, 30, 19, 0])
    assert quality.frequent_types(counts).tolist() == [False, True, False, True, False, False]
    assert quality.frequent_types(counts, 0.81).tolist() == [False, True, False, True, True, False]
    assert quality.frequent_types(counts, 1.0).tolist() == [True, True, False, True, True, False]
    assert not quality.frequent_types(np.zeros(3, np.int64)).any()


def test_cross_entropy_by_frequency_splits_the_whole():
    rng = np.random.default_rng(7)
    nll, types = rng.exponential(2, 1000), rng.integers(0, 10, 1000)
    document = np.sort(rng.integers(0, 30, 1000))
    frequent = np.arange(10) < 4
    found = quality.by_frequency(nll, types, document, frequent)
    share = frequent[types].mean()
    whole = share * found["cross_entropy_frequent"][0] + (1 - share) * found["cross_entropy_rare"][0]
    assert whole == pytest.approx(nll.mean())
    assert 0 < found["cross_entropy_rare"][1] < 0.5
    assert set(quality.by_frequency(nll, types, document, np.ones(10, bool))) == {"cross_entropy_frequent"}


def test_the_unigram_reference_is_a_distribution():
    counts = np.array([0, 3, 7])
    nll = quality.unigram_nll(counts)
    assert np.exp(-nll).sum() == pytest.approx(1)
    assert np.exp(-nll) == pytest.approx([1 / 13, 4 / 13, 8 / 13])


# Tables.


def index_of(rows):
    return pl.DataFrame(rows).select(
        (pl.col(name) if name in rows else pl.lit(None)).cast(dtype).alias(name) for name, dtype in INDEX.items()
    )


def ledger_of(rows):
    columns = {name: dtype for name, dtype in LEDGER.items() if name != "added_by"}
    return pl.DataFrame(rows, schema=columns, orient="row")


def values(frame):
    assert dict(frame.schema) == METRICS
    return {(i, m): v for i, m, v in frame.select("id", "metric", "value").iter_rows()}


def test_contamination_of_the_web_and_of_its_sites():
    index = index_of(
        {
            "doc": [0, 1, 2],
            "site": [1, 1, 2],
            "synthetic": [False, True, True],
            "depth": [0.0, 1.0, 2.0],
            "weight": [5.0, 1.0, 1.0],
        }
    ).with_columns(ai_share=pl.Series([0.0, 0.5, 1.0]))  # the second is a mixed document
    found = values(tables.web(index, 3))
    assert found == {("web", "synthetic_share"): 0.5, ("web", "depth"): 1.0, ("web", "documents"): 3.0}
    sites = values(tables.sites(index, 3))
    assert sites["1", "synthetic_share"] == 0.25
    assert sites["2", "depth"] == 2
    assert tables.web(index, 3)["error"].null_count() == 3
    assert tables.web(empty(INDEX).with_columns(ai_share=pl.lit(0.0)), 3).is_empty()


LEDGER_ROWS = ledger_of(
    [
        ("a/0", 1, None, None, None, 3.0, False, 0.0),
        ("a/0", 2, None, None, None, 1.0, True, 2.0),
        ("a/0", 3, None, "dup", "copy", 1.0, True, 1.0),
        ("a/0", 4, None, "good", "bad", 1.0, True, 1.0),
        ("a/0", 5, None, "good", "bad", 1.0, False, 0.0),
        ("a/0", 7, "docs", None, None, 4.0, False, 0.0),
        ("b/0", 1, None, None, None, 0.0, False, 0.0),
    ]
)


def test_contamination_of_training_sets_counts_weights():
    found = values(tables.training_sets(LEDGER_ROWS.with_columns(ai_share=pl.col("synthetic").cast(pl.Float64)), 2))
    assert found["a/0", "synthetic_share"] == 1 / 8
    assert found["a/0", "depth"] == 2 / 8
    assert found["a/0", "documents"] == 3
    assert found["a/0", "injected_share"] == 0.5
    assert found["b/0", "synthetic_share"] is None


def test_policies_met_what_those_before_them_kept():
    select = {"a/0": ["dup", "importance", "good"], "b/0": ["good"], "c/0": ["good"]}
    frame = tables.policies(LEDGER_ROWS, select, 2)
    found = values(frame)
    names = ("kept_human", "refused_human", "kept_synthetic", "refused_synthetic")
    assert [found["a/0/dup", name] for name in names] == [2, 0, 2, 1]
    assert [found["a/0/importance", name] for name in names] == [2, 0, 2, 0]
    assert [found["a/0/good", name] for name in names] == [1, 1, 1, 1]
    assert [found["b/0/good", name] for name in names] == [1, 0, 0, 0]
    assert frame["id"].unique(maintain_order=True).to_list() == ["a/0/dup", "a/0/importance", "a/0/good", "b/0/good"]
    assert dict(tables.policies(empty(LEDGER), select, 2).schema) == METRICS


def test_rows_of_metrics():
    frame = tables.rows(4, "trainer", "a/0", {"perplexity": (3.0, 0.5), "cross_entropy": (1.0, math.nan), "depth": 2})
    assert dict(frame.schema) == METRICS
    assert frame.select("metric", "value", "error").rows() == [
        ("perplexity", 3.0, 0.5),
        ("cross_entropy", 1.0, None),
        ("depth", 2.0, None),
    ]
