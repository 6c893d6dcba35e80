"""Kernel density estimates, mixtures of normals and least squares, the cohort that a loop makes, and their source."""

import warnings
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from safetensors.numpy import load, save
from scipy import stats

from ecosystem.errors import DataError, TrainingError
from ecosystem.families.base import BuildContext, Family, MemberError, Workload
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, ScoreRequest
from ecosystem.families.single import SinglesCohort, choose
from ecosystem.families.statistical.gmm import GaussianMixture, Mixture, resampled
from ecosystem.families.statistical.kde import KernelDensity
from ecosystem.families.statistical.linear import LinearRegression
from ecosystem.families.statistical.maximisation import k_means, maximise
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import Truth
from ecosystem.sources.regression import Regression
from ecosystem.spec import explain
from ecosystem.streams import Streams
from ecosystem.testing import check_family
from ecosystem.validation.validate import files, run_checks
from tests.conftest import MACHINE

STREAMS = Streams(5)
RNG = np.random.default_rng(1)


def vectors(x):
    x = np.asarray(x, dtype=np.float64)
    return pl.Series("content", x, dtype=pl.Array(pl.Float64, x.shape[1]))


PLANE = vectors(np.where(RNG.random((60, 1)) < 0.4, [-4.0, 1.0], [3.0, -2.0]) + RNG.normal(0.0, [1.0, 0.5], (60, 2)))
LINE = vectors(RNG.normal(1.0, 2.0, (50, 1)))
ROWS = Regression(weights=[2.0, -1.0], noise=0.25).open("rows", STREAMS, None)
SLOPES = ROWS.rows(np.arange(60))


def cohort(family, human, tmp_path, members=1):
    return family.cohort("m", members, BuildContext(human, STREAMS, "cpu", 1, tmp_path))


def fit(docs, member=0, weight=None, name="fit"):
    weight = np.ones(docs.len()) if weight is None else np.asarray(weight, dtype=np.float64)
    return FitRequest(member, docs, weight, Budget(epochs=1), None, "scratch", STREAMS.at(f"{name}/{member}"))


def ask(n, member=0, temperature=1.0, name="generate"):
    return GenerateRequest(member, n, Decoding(temperature=temperature), None, STREAMS.at(f"{name}/{member}"))


def fitted(family, docs, tmp_path, weight=None):
    made = cohort(family, docs, tmp_path)
    made.fit([fit(docs, weight=weight)])
    return made


def said(made, **truth):
    return {name: values[0] for name, values in made.describe(Truth(**truth)).items()}


# Laws.

LAWFUL = [
    (KernelDensity(), PLANE),
    (KernelDensity(bandwidth=0.3, init="foundation"), LINE),
    (GaussianMixture(), PLANE),
    (GaussianMixture(components=3, init="foundation", regularization=1e-6), PLANE),
    (LinearRegression(), SLOPES),
    (LinearRegression(design="fresh", init="foundation"), SLOPES),
]
lawful = pytest.mark.parametrize(("family", "human"), LAWFUL, ids=lambda x: x.kind if isinstance(x, Family) else "")


@pytest.mark.slow
@lawful
def test_the_laws_of_a_family(family, human, tmp_path):
    check_family(family, human, tmp_path)


@lawful
def test_a_document_is_the_same_among_few_and_among_many(family, human, tmp_path):
    made = fitted(family, human, tmp_path)
    [many] = made.generate([ask(300)])
    for n in (1, 2, 7, 33):
        [few] = made.generate([ask(n)])
        assert few.to_numpy().tobytes() == many.head(n).to_numpy().tobytes()


@lawful
def test_a_stored_state_goes_on_exactly(family, human, tmp_path):
    """Through a file, with a member that has never been fitted and members of different sizes."""
    made = cohort(family, human, tmp_path, members=3)
    made.fit([fit(human, 0), fit(human.head(40), 2)])
    twin = cohort(family, human, tmp_path, members=3)
    twin.load(load(save(made.state())))
    requests = [ask(5, 0), ask(5, 2)]
    assert all(a.equals(b) for a, b in zip(made.generate(requests), twin.generate(requests), strict=True))
    for one in (made, twin):
        one.fit([fit(human.tail(40), 0)])
    assert save(made.state()) == save(twin.state())
    for name, values in made.describe(Truth(mean=np.zeros(human.to_numpy().shape[1]))).items():
        assert np.array_equal(values, twin.describe(Truth())[name], equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), [("linear_replace", 1), ("linear_accumulate", 2)])
def test_least_squares_in_the_world_obey_gerstgrassers_laws(name, seed):
    checks = run_checks(files()[name], seed, replicates=100)
    assert len(checks) == 3 and all(check.passed for check in checks), checks


@pytest.mark.slow
def test_a_recursion_of_kernels_keeps_the_variance_that_theory_says(tmp_path):
    """Every estimate from 10 draws of the one before: V -> (1 - 1/n) V + h², mean over 500 within 5 standard errors."""
    n, width, members = 10, 0.5, 500
    made = cohort(KernelDensity(bandwidth=width), LINE.head(1), tmp_path, members)
    docs = [vectors(x) for x in np.random.default_rng(3).normal(size=(members, n, 1))]
    expected = 1.0
    for t in range(4):
        made.fit([fit(own, member) for member, own in enumerate(docs)])
        docs = made.generate([ask(n, member, name=f"generate{t}") for member in range(members)])
        expected = (1 - 1 / n) * expected + width**2
        variance = made.describe(Truth(mean=np.zeros(1), covariance=np.eye(1)))["variance"]
        assert abs(variance.mean() - expected) < 5 * variance.std(ddof=1) / np.sqrt(members)


# Densities.


@pytest.mark.parametrize("rule", ["scott", "silverman", 0.4])
def test_kernels_are_those_of_scikit_learn(rule, tmp_path):
    from sklearn.neighbors import KernelDensity as Reference

    made = fitted(KernelDensity(bandwidth=rule), PLANE, tmp_path)
    x = vectors(RNG.normal(0.0, 4.0, (200, 2)))
    [score] = made.score([ScoreRequest(0, x)])
    assert np.allclose(-score.nll, Reference(bandwidth=rule).fit(PLANE.to_numpy()).score_samples(x.to_numpy()))


def test_weighted_kernels_are_those_of_scipy(tmp_path, monkeypatch):
    weight = RNG.random(50)
    weight[7] = 0.0
    reference = stats.gaussian_kde(LINE.to_numpy()[:, 0], bw_method="scott", weights=weight)
    # SciPy scales its rule by the standard deviation of the data, this family does not.
    width = float(np.sqrt(reference.covariance[0, 0]))
    made = fitted(KernelDensity(bandwidth=width), LINE, tmp_path, weight)
    monkeypatch.setattr("ecosystem.families.statistical.kde._CELLS", 100)  # two documents at a time
    [score] = made.score([ScoreRequest(0, LINE)])
    assert np.allclose(-score.nll, reference.logpdf(LINE.to_numpy()[:, 0]))
    by_rule = fitted(KernelDensity(), LINE, tmp_path, weight).state()["0/width"]
    assert by_rule == pytest.approx(reference.scotts_factor()), "the effective number of documents"


@pytest.mark.parametrize("algorithm", ["batched", "scikit_learn"])
def test_a_mixture_is_the_one_that_scikit_learn_finds(algorithm, tmp_path):
    from sklearn.mixture import GaussianMixture as Reference

    made = fitted(GaussianMixture(algorithm=algorithm, tol=1e-8, max_iter=1000), PLANE, tmp_path)
    reference = Reference(2, tol=1e-8, max_iter=1000, reg_covar=0.0, random_state=0).fit(PLANE.to_numpy())
    x = vectors(RNG.normal(0.0, 4.0, (200, 2)))
    [score] = made.score([ScoreRequest(0, x)])
    assert np.allclose(-score.nll, reference.score_samples(x.to_numpy()), atol=1e-5)
    [record] = made.fit([fit(PLANE)])
    [score] = made.score([ScoreRequest(0, PLANE)])
    assert record.tokens == 60 and record.loss == pytest.approx(score.nll.mean(), abs=1e-6)


def test_every_step_of_a_stack_is_scikit_learns():
    """From the same shares on, after a few steps, for overlapping normals that are far from converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Reference

    x = RNG.normal(size=(3, 80, 2)) + 1.5 * (RNG.random((3, 80, 1)) < 0.3)
    noise = RNG.random((3, 3))
    parts = k_means(x, noise)
    for steps in (1, 4):
        found = maximise(x, noise, tol=1e-12, max_iter=steps, regularization=1e-6)
        for member in range(3):
            by_part = [x[member][parts[member] == j] for j in range(3)]
            start = Reference(
                3,
                tol=1e-12,
                max_iter=steps,
                weights_init=[len(part) / 80 for part in by_part],
                means_init=[part.mean(axis=0) for part in by_part],
                precisions_init=[np.linalg.inv(np.cov(p, rowvar=False, bias=True) + 1e-6 * np.eye(2)) for p in by_part],
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                start.fit(x[member])
            assert np.allclose(found.weight[member], start.weights_, atol=1e-9)
            assert np.allclose(found.mean[member], start.means_, atol=1e-9)
            assert np.allclose(found.covariance[member], start.covariances_, atol=1e-9)
            assert found.loss[member] == pytest.approx(-start.lower_bound_, abs=1e-9)


def test_distances_between_mixtures_are_the_integrals(tmp_path):
    one = Mixture(np.array([0.3, 0.7]), np.array([[-2.0], [1.0]]), np.array([[[0.5]], [[2.0]]]))
    two = Mixture(np.ones(1), np.array([[0.5]]), np.array([[[1.5]]]))
    grid = np.linspace(-15.0, 15.0, 20_001)[:, None]
    square = (np.exp(one.log_density(grid)) - np.exp(two.log_density(grid))) ** 2
    assert one.distance(two) == pytest.approx(np.trapezoid(square, grid[:, 0]))
    assert one.distance(two) == two.distance(one) and one.distance(one) == 0
    made = fitted(GaussianMixture(components=1), LINE, tmp_path)
    mean, variance = LINE.to_numpy().mean(axis=0), LINE.to_numpy().var(axis=0)
    own = {"mean": mean, "covariance": variance[None]}
    assert said(made, **own, normal=True)["density_distance"] == pytest.approx(0, abs=1e-12)
    assert "density_distance" not in said(made, **own), "the moments of collected documents are no density"
    assert said(made, **own)["density_change"] == 0
    made.fit([fit(vectors(LINE.to_numpy() + 1.0))])
    assert said(made, **own)["density_change"] == pytest.approx(said(made, **own, normal=True)["density_distance"])


def test_moments_are_those_of_the_density(tmp_path):
    truth = {"mean": np.array([1.0]), "covariance": np.array([[4.0]])}
    grid = np.linspace(-40.0, 40.0, 40_001)
    for family in (KernelDensity(bandwidth=0.7), GaussianMixture()):
        made = fitted(family, LINE, tmp_path, 1.0 + (np.arange(50) % 3))
        density = np.exp(-made.score([ScoreRequest(0, vectors(grid[:, None]))])[0].nll)
        mean = np.trapezoid(grid * density, grid)
        variance = np.trapezoid((grid - mean) ** 2 * density, grid)
        told = said(made, **truth)
        assert told["mean_error"] == pytest.approx((mean - 1) ** 2)
        assert told["variance"] == pytest.approx(variance / 4)
        assert told["w2"] == pytest.approx((mean - 1) ** 2 + (np.sqrt(variance) - 2) ** 2)
        assert said(made) == ({} if isinstance(family, KernelDensity) else {"collapsed": 0, "density_change": 0})


# Samples.


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_have_the_moments_of_the_model(temperature, tmp_path):
    """20,000 draws within 5 standard errors; temperature multiplies the variance of kernels, components and noise."""
    n = 20_000
    weight = 1.0 + (np.arange(60) % 2)
    share = weight / weight.sum()
    made = fitted(KernelDensity(bandwidth=1.5), PLANE, tmp_path, weight)
    x = PLANE.to_numpy()
    mean = share @ x
    kernels = (share[:, None] * (x - mean)).T @ (x - mean) + temperature * 1.5**2 * np.eye(2)
    _has_moments(made.generate([ask(n, temperature=temperature)])[0].to_numpy(), mean, kernels)
    made = fitted(GaussianMixture(), PLANE, tmp_path)
    parts = {key.removeprefix("0/"): array for key, array in made.state().items()}
    warm = Mixture(parts["weight"], parts["mean"], temperature * parts["covariance"])
    _has_moments(made.generate([ask(n, temperature=temperature)])[0].to_numpy(), *warm.moments())
    made = fitted(LinearRegression(design="fresh", noise=0.5), SLOPES, tmp_path)
    drawn = made.generate([ask(n, temperature=temperature)])[0].to_numpy()
    _has_moments(drawn[:, :2], np.zeros(2), np.eye(2))
    noise = drawn[:, 2] - drawn[:, :2] @ made.state()["0/weights"]
    _has_moments(noise[:, None], np.zeros(1), np.array([[0.5 * temperature]]))


def _has_moments(x, mean, covariance):
    n = len(x)
    assert (np.abs(x.mean(axis=0) - mean) < 5 * np.sqrt(np.diag(covariance) / n)).all()
    products = (x - mean)[:, :, None] * (x - mean)[:, None]
    assert (np.abs(products.mean(axis=0) - covariance) < 5 * products.std(axis=0) / np.sqrt(n)).all()


def test_what_has_no_weight_is_never_chosen():
    weight = np.array([0.0, 2.0, 0.0, 1.0, 0.0])
    noise = np.concatenate([STREAMS.at("luck").uniform(np.arange(9000)), [1e-300, 2 / 3, 1 - 2.0**-53]])
    counts = np.bincount(choose(weight, noise), minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0] and abs(counts[1] - 6000) < 5 * np.sqrt(2000)


# Weights.


def test_a_weight_of_two_is_the_document_twice(tmp_path):
    weight = 1.0 + (np.arange(60) % 2)
    for family, docs in ((KernelDensity(bandwidth=0.5), PLANE), (LinearRegression(), SLOPES)):
        made = cohort(family, docs, tmp_path, members=2)
        made.fit([fit(docs, 0, weight), fit(docs.gather(np.repeat(np.arange(60), weight.astype(int))), 1)])
        one, two = made.score([ScoreRequest(0, docs), ScoreRequest(1, docs)])
        assert np.allclose(one.nll, two.nll)


def test_documents_are_resampled_by_weight_where_weights_differ():
    weight = np.array([0.0, 0.5, 1.0, 2.25, 1.25, 1.0])
    for number in range(50):
        counts = np.bincount(resampled(weight, STREAMS.at(f"resample/{number}")), minlength=6)
        assert counts.sum() == 6 and (np.abs(counts - weight) < 1).all()
    assert resampled(np.full(4, 0.3), STREAMS.at("alike")).tolist() == [0, 1, 2, 3]


# Least squares.


def test_a_regression_is_the_one_that_numpy_finds(tmp_path):
    made = fitted(LinearRegression(noise=0.25), SLOPES, tmp_path)
    x, y = SLOPES.to_numpy()[:, :2], SLOPES.to_numpy()[:, 2]
    best = np.linalg.lstsq(x, y)[0]
    assert np.allclose(made.state()["0/weights"], best)
    assert said(made, weights=np.array([2.0, -1.0]))["test_error"] == pytest.approx(((best - [2, -1]) ** 2).sum())
    assert said(made, mean=np.zeros(3), covariance=np.eye(3)) == {}, "where there are no true weights"
    [score] = made.score([ScoreRequest(0, SLOPES)])
    exact = stats.norm.logpdf(x).sum(axis=1) + stats.norm.logpdf(y, x @ best, 0.5)
    assert np.allclose(score.nll, -exact)


def test_every_member_labels_the_design_of_its_own_first_documents(tmp_path):
    made = cohort(LinearRegression(), SLOPES, tmp_path, members=2)
    parts = [SLOPES.head(20), SLOPES.tail(30)]
    made.fit([fit(parts[0], 0), fit(parts[1], 1)])
    first = made.generate([ask(45, 0), ask(45, 1)])
    made.fit([fit(docs.head(25), member) for member, docs in enumerate(first)])
    again = made.generate([ask(45, 0), ask(45, 1)])
    for own, *written in zip(parts, first, again, strict=True):
        design = own.to_numpy()[:, :2]
        for docs in written:
            assert np.array_equal(docs.to_numpy()[:, :2], np.concatenate([design, design, design])[:45])
    begun = cohort(LinearRegression(init="foundation"), SLOPES, tmp_path)
    begun.fit([fit(parts[0])])
    assert np.array_equal(begun.generate([ask(60)])[0].to_numpy()[:, :2], SLOPES.to_numpy()[:, :2])


def test_without_noise_a_regression_repeats_itself(tmp_path):
    made = fitted(LinearRegression(noise=0.0), SLOPES, tmp_path)
    [docs] = made.generate([ask(60)])
    before = made.state()["0/weights"]
    made.fit([fit(docs)])
    assert np.allclose(made.state()["0/weights"], before)


# The source.

SOURCE = Regression(weights=[1.0, -0.5, 2.0], noise=0.3, held_out=40)


def test_rows_of_a_regression_are_functions_of_their_numbers():
    reservoir, numbers = SOURCE.open("s", STREAMS, None), np.array([7, 10**12, 3, 0])
    together = reservoir.rows(numbers).to_numpy()
    assert np.array_equal(together, np.concatenate([reservoir.rows([n]).to_numpy() for n in numbers]))
    other = SOURCE.model_copy(update={"weights": [0.0, 0.0, 0.0]}).open("s", STREAMS, None)
    assert np.array_equal(other.rows(numbers).to_numpy()[:, :3], together[:, :3])
    assert reservoir.held_out.len() == 40 and reservoir.held_out.dtype == pl.Array(pl.Float64, 4)
    assert reservoir.size is None and reservoir.digest != other.digest


def test_the_truth_of_a_regression_is_normal():
    reservoir = SOURCE.open("s", STREAMS, None)
    truth, x = reservoir.truth, reservoir.rows(np.arange(40_000)).to_numpy()
    assert truth.normal and truth.weights.tolist() == [1.0, -0.5, 2.0]
    _has_moments(x, truth.mean, truth.covariance)
    exact = stats.multivariate_normal(truth.mean, truth.covariance).logpdf(x[:100])
    assert np.allclose(reservoir.log_likelihood(vectors(x[:100])), exact)
    far = vectors([[np.inf, 0, 0, 0], [0, 0, np.nan, 0], [0, 0, 0, 1e300]])
    assert (reservoir.log_likelihood(far) == -np.inf).all()
    with pytest.raises(DataError, match="its documents are vectors of 4 numbers"):
        reservoir.log_likelihood(PLANE)


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (Regression, {"dim": 2, "weights": [1.0]}, "s.x: weights has 1 numbers, but dim = 2"),
        (Regression, {"noise": 0.0}, "s.x.noise: must be greater than 0"),
        (Regression, {"weights": []}, "s.x.weights: needs at least 1 entry"),
        (
            KernelDensity,
            {"bandwidth": "scot"},
            's.x.bandwidth: must be a number above 0, "scott", "scott_scaled" or "silverman", not',
        ),
        (
            KernelDensity,
            {"bandwidth": 0.0},
            's.x.bandwidth: must be a number above 0, "scott", "scott_scaled" or "silverman", not 0.0',
        ),
        (GaussianMixture, {"components": 0}, "s.x.components: must be at least 1"),
        (LinearRegression, {"noise": -1.0}, "s.x.noise: must be at least 0"),
    ],
)
def test_a_wrong_field_is_a_sentence(kind, fields, sentence):
    with pytest.raises(ValidationError) as error:
        kind(**fields)
    (problem,) = explain(error.value, "s.x", kind)
    assert problem.startswith(sentence) and "\n" not in problem


# What cannot be done.


def test_a_mixture_of_equal_documents_has_collapsed(tmp_path):
    made = fitted(GaussianMixture(components=3), vectors(np.full((7, 2), 0.1)), tmp_path)
    told = said(made, mean=np.zeros(2), covariance=np.eye(2), normal=True)
    assert told.keys() == {"mean_error", "variance", "w2", "collapsed"}
    assert told["collapsed"] == 1 and told["variance"] == 0 and told["w2"] == pytest.approx(2.02)
    [docs] = made.generate([ask(4)])
    assert docs.to_list() == [[0.1, 0.1]] * 4
    [score] = made.score([ScoreRequest(0, vectors([[0.1, 0.1], [0.2, 0.1]]))])
    assert score.nll.tolist() == [-np.inf, np.inf]
    twin = cohort(GaussianMixture(components=3), PLANE, tmp_path)
    twin.load(made.state())
    assert twin.generate([ask(4)])[0].equals(docs)


def test_a_component_that_dies_is_a_sentence(tmp_path):
    made = cohort(GaussianMixture(components=3), PLANE, tmp_path, members=2)
    with pytest.raises(MemberError, match=r"^member 1: a mixture of 3 components needs at least as many") as error:
        made.fit([fit(PLANE, 0), fit(PLANE.head(2), 1)])
    assert error.value.member == 1
    # Two documents at three places: every component is left with one place. On a line: none with a plane.
    few = vectors(np.repeat([[0.0, 0.0], [5.0, 1.0], [1.0, 9.0]], 2, axis=0))
    flat = vectors(np.column_stack([np.arange(30.0), 2 * np.arange(30.0)]))
    for docs in (few, flat):
        for algorithm in ("batched", "scikit_learn"):
            alone = cohort(GaussianMixture(components=3, algorithm=algorithm), docs, tmp_path)
            with pytest.raises(MemberError, match="member 0: a component of the mixture has died"):
                alone.fit([fit(docs)])
        with pytest.raises(MemberError, match="member 1: a component of the mixture has died"):
            made.fit([fit(PLANE), fit(docs, 1)])
        assert made.state() == {}, "nobody has learnt"
        alive = fitted(GaussianMixture(components=3, regularization=1e-3), docs, tmp_path)
        assert np.isfinite(said(alive, mean=np.zeros(2), covariance=np.eye(2))["w2"])


def test_a_singular_design_is_a_sentence(tmp_path):
    made = cohort(LinearRegression(), SLOPES, tmp_path)
    with pytest.raises(TrainingError, match="the design is singular: 1 documents span 1 directions, but"):
        made.fit([fit(SLOPES.head(1))])
    weight = np.zeros(60)
    weight[3] = 1.0
    with pytest.raises(TrainingError, match="the design is singular: 1 documents"):
        made.fit([fit(SLOPES, weight=weight)])
    with pytest.raises(DataError, match="but the documents here have only one"):
        cohort(LinearRegression(), LINE, tmp_path)


@lawful
def test_what_cannot_be_asked_is_a_sentence(family, human, tmp_path):
    with pytest.raises(DataError, match=r"form of its .* set web\.initial\.documents"):
        cohort(family, human.clear(), tmp_path)
    made = cohort(family, human, tmp_path)
    broken = vectors(np.where(np.arange(60)[:, None] == 3, np.nan, np.ones((60, human.dtype.size))))
    with pytest.raises(MemberError, match="member 0: some of its documents contain numbers that are not finite"):
        made.fit([fit(broken)])
    if not family.starts_pretrained:
        for wish in (lambda: made.generate([ask(1)]), lambda: made.score([ScoreRequest(0, human)])):
            with pytest.raises(MemberError, match="member 0: it has not been fitted yet"):
                wish()
        assert made.describe(Truth(mean=np.zeros(3), covariance=np.eye(3))) == {} == made.state()
    with pytest.raises(TrainingError, match='model "m": it has not been fitted yet'):
        made.score([ScoreRequest("random", human)])


def test_states_that_do_not_fit_are_refused(tmp_path):
    made = fitted(GaussianMixture(), PLANE, tmp_path)
    before = made.state()
    missing = {name: array for name, array in before.items() if name != "0/first_mean"}
    for state, sentence in (
        ({"1/weight": np.ones(2)}, r'"1/weight" is stored, but its members are 0 to 0'),
        ({"weight": np.ones(2)}, '"weight" is stored, but'),
        (missing, "first_mean is missing"),
        (fitted(GaussianMixture(components=3), PLANE, tmp_path).state(), r"weight is \[3\], not \[2\]"),
        (fitted(GaussianMixture(), LINE, tmp_path).state(), r"mean is \[2, 1\], not \[2, 2\]"),
    ):
        with pytest.raises(DataError, match=f'parameters of model "m" do not fit: {sentence}'):
            made.load(state)
    assert save(made.state()) == save(before)


# A family of somebody else's.


class Spread:
    """A normal of known mean: what the author of a family writes."""

    def __init__(self):
        self.scale = None

    def fit(self, docs, *, weight, stream):
        self.scale = np.sqrt(np.average(docs.to_numpy()[:, 0] ** 2, weights=weight))
        return {}

    def generate(self, n, *, stream, decoding):
        return vectors(stats.norm.ppf(stream.uniform(np.arange(n)))[:, None] * self.scale)

    def score(self, docs):
        return stats.norm.logpdf(docs.to_numpy()[:, 0], scale=self.scale)

    def state(self):
        return {} if self.scale is None else {"scale": np.array(self.scale)}

    def load(self, state):
        self.scale = state["scale"].item()


class Careless(Spread):
    """One that writes too little, and knows what it is worth."""

    def generate(self, n, *, stream, decoding):
        return super().generate(1, stream=stream, decoding=decoding)

    def describe(self, truth):
        return {} if self.scale is None else {"variance": self.scale**2}


class Spreads(Family):
    """Its preset."""

    modality: ClassVar[str] = "vector"

    def workload(self):
        return Workload(0, 0, 0)

    def cohort(self, name, members, context):
        return SinglesCohort(name, members, context.human.dtype, Spread)


def test_a_family_takes_no_more_than_a_model(tmp_path):
    check_family(Spreads(), LINE, tmp_path)
    for claim, lacking in (("supports_watermark", "SupportsWatermark"), ("supports_prompts", "SupportsPrompts")):
        boastful = type("Boastful", (Spreads,), {claim: True})
        with pytest.raises(AssertionError, match=f"its cohort must be a {lacking}"):
            check_family(boastful(), LINE, tmp_path)
    made = fitted(Spreads(), LINE, tmp_path)
    assert made.describe(Truth()) == {}, "describing is optional"
    twin = cohort(Spreads(), LINE, tmp_path)
    twin.load(load(save(made.state())))
    assert twin.generate([ask(3)])[0].equals(made.generate([ask(3)])[0]), "a number survives the file"


def test_a_model_that_writes_too_little_is_told():
    made = SinglesCohort("m", 3, pl.Array(pl.Float64, 1), Careless)
    made.fit([fit(LINE, 1)])
    with pytest.raises(MemberError, match=r"member 1: 2 documents .* but generate\(\) returned 1 of type"):
        made.generate([ask(2, 1)])
    variance = made.describe(Truth())["variance"]
    assert np.isnan(variance[[0, 2]]).all() and variance[1] > 0


# Runs.

SHAPES = {"kind": "toy", "shape": "moons", "documents": 300, "held_out": 0}
ROWS_OF_THREE = {"kind": "regression", "weights": [1.0, 0.5], "held_out": 0}
RUNS = {
    "kde": ({"kind": "kde", "bandwidth": 0.2}, SHAPES, {"variance", "mean_error", "w2"}),
    "gmm": (
        {"kind": "gmm", "components": 3, "regularization": 1e-6},
        SHAPES,
        {"variance", "mean_error", "w2", "collapsed", "density_change"},
    ),
    "gmm_of_normals": (
        {"kind": "gmm", "algorithm": "scikit_learn"},
        ROWS_OF_THREE,
        {"variance", "mean_error", "w2", "collapsed", "density_change", "density_distance"},
    ),
    "linear": ({"kind": "linear"}, ROWS_OF_THREE, {"test_error"}),
}


def scenario(model, source, steps):
    trainer = {"model": "model", "scrape": {"docs": 60, "strategy": "reach"}, "publish": 20}
    return Scenario.parse(
        {
            "name": "tiny",
            "steps": steps,
            "sources": {"points": source},
            "web": {"kind": "barabasi_albert", "sites": 6, "initial": {"source": "points", "documents": 200}},
            "models": {"model": model},
            "policies": {"window": {"kind": "window", "steps": 2}, "old": {"kind": "decay", "keeps_weights": False}},
            "trainers": {"early": trainer | {"count": 2, "select": ["old"]}, "late": trainer | {"offset": 1}},
            "changes": [{"at": 2, "set": {"web.retain": ["window"]}}],
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_and_its_resumption(name, tmp_path):
    model, source, metrics = RUNS[name]
    folders = []
    for parts in ([3], [1, 2, 3]):
        out = tmp_path / f"in{len(parts)}"
        for steps in parts:
            spec = scenario(model, source, steps)
            for _ in begin(spec, out=out, machine=MACHINE, cache=tmp_path):
                pass
        folders.append(folder_of(spec, out))
    whole, resumed = (Run.open(folder) for folder in folders)
    assert whole.metrics.equals(resumed.metrics)
    assert whole.documents.collect().equals(resumed.documents.collect())
    for step in range(4):
        a, b = (run.store.weights(step).get("model", {}) for run in (whole, resumed))
        assert save(dict(a)) == save(dict(b))
        assert {key.split("/")[0] for key in a} == [set(), {"0", "1"}, {"0", "1", "2"}, {"0", "1", "2"}][step]
    measured = whole.metrics.filter((pl.col("scope") == "trainer") & (pl.col("id") == "late/0"))
    assert set(measured["metric"]) == metrics | {"documents_trained"} and measured["step"].min() == 2
    assert measured["value"].is_finite().all()
