"""Gaussian and categorical models: the laws of a family, and their estimates against NumPy's and SciPy's."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from ecosystem.errors import DataError, TrainingError
from ecosystem.families.base import BuildContext
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, ScoreRequest
from ecosystem.families.statistical.categorical import Categorical, CategoricalCohort, decoded, truncated
from ecosystem.families.statistical.gaussian import Gaussian
from ecosystem.sources.base import Truth
from ecosystem.streams import Streams
from ecosystem.testing import check_family

STREAMS = Streams(5)
RNG = np.random.default_rng(1)
VECTORS = pl.Series("content", RNG.normal(2.0, 3.0, (60, 2)), dtype=pl.Array(pl.Float64, 2))
SYMBOLS = pl.Series("content", RNG.integers(0, 7, 60), dtype=pl.Int32)


def context(human, tmp_path):
    return BuildContext(human, STREAMS, "cpu", 1, tmp_path)


def fit(docs, member=0, weight=None):
    weight = np.ones(docs.len()) if weight is None else np.asarray(weight, dtype=np.float64)
    return FitRequest(member, docs, weight, Budget(epochs=1), None, "scratch", STREAMS.at(f"fit/{member}"))


FAMILIES = [
    (Gaussian(), VECTORS),
    (Gaussian(covariance="maximum_likelihood", init="foundation"), VECTORS),
    (Categorical(), SYMBOLS),
    (Categorical(add_k=0.5, types=9, init="foundation"), SYMBOLS),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "human"), FAMILIES, ids=lambda x: repr(x)[:40])
def test_the_laws_of_a_family(family, human, tmp_path):
    check_family(family, human, tmp_path)


@pytest.mark.parametrize(("covariance", "divisor"), [("unbiased", 1), ("maximum_likelihood", 0)])
def test_a_normal_is_fitted_as_numpy_does(covariance, divisor, tmp_path):
    made = Gaussian(covariance=covariance).cohort("g", 2, context(VECTORS, tmp_path))
    made.fit([fit(VECTORS, 1)])
    state = made.state()
    x = VECTORS.to_numpy()
    assert np.allclose(state["mean"][1], x.mean(axis=0))
    assert np.allclose(state["covariance"][1], np.cov(x, rowvar=False, ddof=divisor))
    assert (state["mean"][0] == 0).all(), "the other member has not been asked"
    [score] = made.score([ScoreRequest(1, VECTORS)])
    exact = stats.multivariate_normal(x.mean(axis=0), np.cov(x, rowvar=False, ddof=divisor)).logpdf(x)
    assert np.allclose(score.nll, -exact)


def test_a_weight_of_two_is_the_document_twice(tmp_path):
    weight = 1.0 + (np.arange(60) % 2)
    for family, docs in ((Gaussian(covariance="maximum_likelihood"), VECTORS), (Categorical(), SYMBOLS)):
        made = family.cohort("m", 2, context(docs, tmp_path))
        twice = docs.gather(np.repeat(np.arange(60), weight.astype(int)))
        made.fit([fit(docs, 0, weight), fit(twice, 1)])
        for values in made.state().values():
            assert np.allclose(values[0], values[1])


def test_samples_have_the_moments_of_the_model(tmp_path):
    """20,000 draws: means within 5 standard errors; temperature multiplies the covariance."""
    made = Gaussian(init="foundation").cohort("g", 1, context(VECTORS, tmp_path))
    n = 20_000
    for temperature in (1.0, 0.8):
        request = GenerateRequest(0, n, Decoding(temperature=temperature), None, STREAMS.at("g"))
        x = made.generate([request])[0].to_numpy()
        variance = np.diag(made.state()["covariance"][0]) * temperature
        assert (np.abs(x.mean(axis=0) - made.state()["mean"][0]) < 5 * np.sqrt(variance / n)).all()
        assert (np.abs(x.var(axis=0, ddof=1) / variance - 1) < 5 * np.sqrt(2 / n)).all()
    made = Categorical(init="foundation").cohort("c", 1, context(SYMBOLS, tmp_path))
    drawn = made.generate([GenerateRequest(0, n, Decoding(), None, STREAMS.at("c"))])[0].to_numpy()
    p = made.state()["probability"][0]
    share = np.bincount(drawn, minlength=p.size) / n
    assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / n)).all()


def test_decodings_of_a_distribution():
    p = np.array([[0.5, 0.2, 0.2, 0.1]])
    squared = decoded(p, Decoding(temperature=0.5))
    assert np.allclose(squared / squared.sum(), p**2 / (p**2).sum())
    assert decoded(p, Decoding(top_k=1)).tolist() == [[0.5, 0, 0, 0]]
    assert (decoded(p, Decoding(top_k=2)) > 0).sum() == 3, "ties with the k-th stay"
    assert (decoded(p, Decoding(top_p=0.69)) > 0).tolist() == [[True, True, False, False]]
    assert (decoded(p, Decoding(top_p=0.71)) > 0).tolist() == [[True, True, True, False]]


@pytest.mark.parametrize("frequency", [[0.9, 0.06, 0.04], [0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
def test_truncated_frequencies_are_where_gradient_descent_rests(frequency):
    """On the logits of a softmax, from uniform ones, in steps that grow smaller."""
    q, logits = np.array(frequency), np.zeros(3)
    for step in range(60_000):
        p = np.exp(logits - logits.max())
        p /= p.sum()
        learnt = q * (p <= 0.8)
        logits -= 0.05 / (1 + step / 20_000) * (learnt.sum() * p - learnt)
    assert truncated(q[None], 0.8)[0] == pytest.approx(p, abs=2e-3)
    made = CategoricalCohort("c", 1, 3, gamma=0.8)
    fitted = made.estimate(np.repeat([0, 1, 2], (q * 100).round().astype(int))[None], np.ones((1, 100)))
    assert fitted["probability"][0] == pytest.approx(p, abs=2e-3)


def test_what_a_collapsed_model_says(tmp_path):
    same = pl.Series("content", np.full((3, 1), 7.0), dtype=pl.Array(pl.Float64, 1))
    made = Gaussian().cohort("g", 1, context(same, tmp_path))
    made.fit([fit(same)])
    said = made.describe(Truth(mean=np.zeros(1), covariance=np.eye(1)))
    assert said["collapsed"] == [1] and said["variance"] == [0] and np.isnan(said["log_variance"][0])
    assert said["w2"][0] == pytest.approx(50) and said["mean_error"][0] == pytest.approx(49)
    assert made.generate([GenerateRequest(0, 2, Decoding(), None, STREAMS.at("x"))])[0].to_list() == [[7.0], [7.0]]
    one = pl.Series("content", [3, 3], dtype=pl.Int32)
    made = Categorical(types=4).cohort("c", 1, context(one, tmp_path))
    made.fit([fit(one)])
    said = made.describe(Truth(probabilities=np.array([0.4, 0.3, 0.2, 0.1])))
    assert said["collapsed"] == [1] and said["support"] == [1] and said["entropy"] == [0] and said["first_type"] == [0]
    assert said["unseen_mass"] == pytest.approx([0.9])
    longer = made.describe(Truth(probabilities=np.array([0.2, 0.2, 0.1, 0.2, 0.3])))
    assert longer["unseen_mass"] == pytest.approx([0.8]), "symbols that the model does not have are unseen as well"


def test_w2_between_normals_in_one_dimension(tmp_path):
    docs = pl.Series("content", [[1.0], [5.0]], dtype=pl.Array(pl.Float64, 1))
    made = Gaussian(covariance="maximum_likelihood").cohort("g", 1, context(docs, tmp_path))
    made.fit([fit(docs)])
    said = made.describe(Truth(mean=np.array([1.0]), covariance=np.array([[9.0]])))
    assert said["w2"][0] == pytest.approx((3 - 1) ** 2 + (2 - 3) ** 2)


def test_what_cannot_be_fitted_is_a_sentence(tmp_path):
    made = Gaussian().cohort("g", 1, context(VECTORS, tmp_path))
    with pytest.raises(TrainingError, match="needs at least 2 documents but has 1"):
        made.fit([fit(VECTORS.head(1))])
    with pytest.raises(DataError, match=r"form of its .* set web\.initial\.documents"):
        Gaussian().cohort("g", 1, context(VECTORS.clear(), tmp_path))
    with pytest.raises(DataError, match="initial documents of the web: it needs at least 2"):
        Gaussian(init="foundation").cohort("g", 1, context(VECTORS.head(1), tmp_path))
    huge = pl.Series("content", [[1e300, 0.0], [-1e300, 0.0]], dtype=pl.Array(pl.Float64, 2))
    with pytest.raises(TrainingError, match="has diverged"):
        made.fit([fit(huge)])
    with pytest.raises(TrainingError, match="the symbol 6 is not one of its 5 types"):
        Categorical(types=5).cohort("c", 1, context(SYMBOLS, tmp_path)).fit([fit(SYMBOLS)])
    with pytest.raises(DataError, match=r"mean is missing, not \(1, 2\)"):
        made.load({})
