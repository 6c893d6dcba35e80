"""Documents with right and wrong labels: where they come from, what learns from them, and who verifies them."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from ecosystem.errors import DataError, ScenarioError, TrainingError
from ecosystem.families.base import BuildContext
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, ScoreRequest
from ecosystem.families.statistical.classifier import Classifier
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from ecosystem.sources.base import Truth
from ecosystem.sources.labelled import Labelled
from ecosystem.streams import Streams
from ecosystem.testing import check_family
from ecosystem.validation import validate
from tests.conftest import ROOT

STREAMS = Streams(5)
W = np.array([1.0, -2.0, 2.0]) / 3


def opened(tmp_path, **fields):
    return Labelled(weights=[1.0, -2.0, 2.0], **fields).open("labelled", STREAMS, tmp_path)


def fit(docs, member=0, weight=None):
    weight = np.ones(docs.len()) if weight is None else weight
    return FitRequest(member, docs, weight, Budget(epochs=1), None, "scratch", STREAMS.at(f"fit/{member}"))


def cohort(family, human, tmp_path, members=1):
    return family.cohort("c", members, BuildContext(human, STREAMS, "cpu", 1, tmp_path))


def verified(**changes):
    """One population of the validation scenario with three replicates."""
    scenario = validate.sized(Scenario.load(ROOT / "scenarios/validation/verifier_loop.toml"), 3)
    return scenario.override({k.replace("__", "."): v for k, v in changes.items()})


def test_documents_are_what_the_truth_says(tmp_path):
    """20,000 documents: share of wrong labels, means and covariances within 5 standard errors."""
    n, noise = 20_000, 0.3
    source = opened(tmp_path, label_noise=noise)
    docs = source.rows(np.arange(n))
    x, y = docs.to_numpy()[:, :3], docs.to_numpy()[:, 3]
    wrong = np.sign(x @ W) != y
    assert abs(wrong.mean() - noise) < 5 * np.sqrt(noise * (1 - noise) / n)
    values, truth = docs.to_numpy(), source.truth
    assert (np.abs(values.mean(axis=0)) < 5 / np.sqrt(n)).all()
    assert (np.abs(np.cov(values.T) - truth.covariance) < 5 * np.sqrt(2 / n)).all()
    assert np.allclose(truth.plane, W) and np.allclose(truth.covariance[3, :3], truth.weights)
    some = np.array([7, 3, 19_999])
    assert source.rows(some).to_list() == docs.gather(some).to_list(), "a document depends on its number alone"
    clean = opened(tmp_path).rows(np.arange(100)).to_numpy()
    assert (np.sign(clean[:, :3] @ W) == clean[:, 3]).all()


def test_the_likelihood_is_that_of_numbers_and_label(tmp_path):
    source = opened(tmp_path, label_noise=0.25)
    docs = source.rows(np.arange(50))
    x, y = docs.to_numpy()[:, :3], docs.to_numpy()[:, 3]
    label = np.where(np.sign(x @ W) == y, 0.75, 0.25)
    assert np.allclose(source.log_likelihood(docs), stats.norm.logpdf(x).sum(axis=1) + np.log(label))
    odd = pl.Series([[0.0, 0.0, 1.0, 0.5], [np.nan, 0.0, 1.0, 1.0]], dtype=pl.Array(pl.Float64, 4))
    assert (source.log_likelihood(odd) == -np.inf).all()
    with pytest.raises(DataError, match="vectors of 4 numbers"):
        source.log_likelihood(pl.Series([1, 2]))


@pytest.mark.slow
@pytest.mark.parametrize("family", [Classifier(), Classifier(init="foundation", label_noise=0.2)], ids=["new", "old"])
def test_the_laws_of_a_family(family, tmp_path):
    check_family(family, opened(tmp_path, label_noise=0.1).rows(np.arange(60)), tmp_path)


def test_a_classifier_is_the_mean_of_labelled_numbers(tmp_path):
    docs = opened(tmp_path, label_noise=0.2).rows(np.arange(80))
    x, y = docs.to_numpy()[:, :3], docs.to_numpy()[:, 3]
    weight = 1.0 + np.arange(80) % 2
    made = cohort(Classifier(), docs, tmp_path, members=2)
    made.fit([fit(docs, 1, weight)])
    state = made.state()
    expected = np.average(y[:, None] * x, axis=0, weights=weight)
    noise = np.average(np.sign(x @ expected) != y, weights=weight)
    assert np.allclose(state["weights"], [[0, 0, 0], expected]) and np.allclose(state["noise"], [0.5, noise])
    [score] = made.score([ScoreRequest(1, docs)])
    label = np.where(np.sign(x @ expected) == y, 1 - noise, noise)
    assert np.allclose(-score.nll, stats.norm.logpdf(x).sum(axis=1) + np.log(label))


def test_what_a_classifier_writes(tmp_path):
    """Labels are wrong by its own lights as often as it was taught; a low temperature writes the likelier one."""
    docs, n = opened(tmp_path).rows(np.arange(500)), 4000
    made = cohort(Classifier(init="foundation", label_noise=0.2), docs, tmp_path)
    own = made.state()["weights"][0]

    def wrong(temperature):
        request = GenerateRequest(0, n, Decoding(temperature=temperature), None, STREAMS.at("write"))
        values = made.generate([request])[0].to_numpy()
        assert set(values[:, 3]) <= {-1.0, 1.0}
        return (np.sign(values[:, :3] @ own) != values[:, 3]).mean()

    assert abs(wrong(1.0) - 0.2) < 5 * np.sqrt(0.16 / n)
    assert abs(wrong(2.0) - 1 / 3) < 5 * np.sqrt(2 / 9 / n), "at temperature 2 the odds 1 : 4 are 1 : 2"
    assert wrong(0.01) == 0
    made.fit([fit(docs)])  # the same plane: what is not on its own side of it is all that is wrong by its lights
    taught = made.state()["noise"][0]
    assert 0 < taught < 0.1 and abs(wrong(1.0) - taught) < 5 * np.sqrt(taught / n)


def test_accuracy_is_the_share_of_right_answers(tmp_path):
    """Against the share among 40,000 new documents, within 5 standard errors; known directions exactly."""
    source, n = opened(tmp_path, label_noise=0.35), 40_000
    made = cohort(Classifier(), source.rows(np.arange(40)), tmp_path, members=4)
    made.fit([fit(source.rows(np.arange(40)))])
    made.load({"weights": np.stack([made.state()["weights"][0], W, -W, [2, 1, 0]]), "noise": np.full(4, 0.1)})
    said = made.describe(source.truth)["accuracy"]
    x = source.rows(np.arange(100, 100 + n)).to_numpy()[:, :3]
    right = (np.sign(x @ made.state()["weights"][0]) == np.sign(x @ W)).mean()
    assert abs(said[0] - right) < 5 * np.sqrt(0.25 / n) and 0.5 < said[0] < 0.99
    assert said[1:] == pytest.approx([1, 0, 0.5], abs=1e-7)
    new = cohort(Classifier(), source.rows(np.arange(4)), tmp_path)
    assert new.describe(source.truth)["accuracy"] == [0.5], "no direction at all"
    assert set(new.describe(Truth(mean=np.zeros(4)))) == {"label_noise"}


def test_what_cannot_be_classified_is_a_sentence(tmp_path):
    docs = opened(tmp_path).rows(np.arange(5))
    odd = pl.Series([[0.0, 0.0, 1.0, 0.5]], dtype=pl.Array(pl.Float64, 4))
    with pytest.raises(TrainingError, match=r"last number of a document is 0\.5, but a label must be 1 or -1"):
        cohort(Classifier(), docs, tmp_path).fit([fit(odd)])
    with pytest.raises(DataError, match=r'model "c" cannot be fitted to the initial documents .*: the last number'):
        cohort(Classifier(init="foundation"), odd, tmp_path)
    one = pl.Series([[1.0]], dtype=pl.Array(pl.Float64, 1))
    with pytest.raises(DataError, match="only one; use a source of kind labelled"):
        cohort(Classifier(), one, tmp_path)


def test_what_a_verifier_keeps_is_what_the_ledger_says():
    """The metric against the ledger's documents themselves; the odds of a right label grow fourfold at every step.

    3,000 documents a step, three steps; within 4 standard errors of the law, and the first share far from its square.
    """
    scenario = verified()
    world = World(scenario)
    for t in (1, 2, 3):
        world.step()
        book = world.snapshot().ledger
        docs = world.corpus.contents(book["document"]).to_numpy()
        right = pl.Series(np.sign(docs[:, 0]) == docs[:, 1])
        kept = book.with_columns(right=right).filter(pl.col("verdict").is_null())
        rows = world.snapshot().metrics.filter(pl.col("metric") == "label_accuracy")
        assert dict(kept.group_by("reader").agg(pl.col("right").mean()).iter_rows()) == pytest.approx(
            dict(rows.select("id", "value").iter_rows())
        )
        odds = 4.0**t / 9
        share = odds / (1 + odds)
        between = rows["value"].std() / np.sqrt(3)
        assert abs(kept["right"].mean() - share) < 4 * max(between, np.sqrt(share * (1 - share) / kept.height))
        refused = book.filter(pl.col("verdict").is_not_null())
        assert set(refused["verdict"]) == {"verifier"} and set(refused["reason"]) == {"judged to be labelled wrongly"}


def test_a_verifier_that_refuses_everything_is_an_event():
    world = World(verified(policies__verifier__keep_wrong=0.0, models__wrong90__label_noise=1.0))
    world.step()
    told = world.snapshot().state["events"]
    assert len(told) == 3 and all("were refused (1000 by verifier); it keeps its model" in event for event in told)


MISTAKES = [
    ({"sources.labelled": {"kind": "gaussian"}}, "sources.labelled: gaussian documents have no labels that are right"),
    (
        {
            "sources.labelled": {"kind": "regression"},
            "models.wrong90": {"kind": "linear", "init": "foundation"},
            "theory": [],
        },
        "but policies.verifier (verifier) needs them; use a source of kind labelled",
    ),
    ({"models.wrong90.init": "untrained"}, "models.wrong90: label_noise applies before the first fit"),
    ({"policies.verifier.keep_correct": 0.0, "policies.verifier.keep_wrong": 0.0}, "raise one of them"),
    ({"policies.verifier.keep_corect": 0.5}, 'unknown key (did you mean "keep_correct"?)'),
    ({"sources.labelled.label_noise": 1.5}, "sources.labelled.label_noise"),
    ({"sources.labelled.weights": [0.0]}, "weights are all 0"),
    ({"sources.labelled.weights": [1.0, 2.0]}, "weights has 2 numbers, but dim = 1"),
]


@pytest.mark.parametrize(("values", "sentence"), MISTAKES, ids=[s[:30] for _, s in MISTAKES])
def test_a_mistake_is_a_sentence(values, sentence):
    with pytest.raises(ScenarioError) as caught:
        verified().override(values)
    assert sentence in str(caught.value)


def test_labels_need_documents_to_begin_with():
    data = verified().plain()
    del data["web"]["initial"]
    with pytest.raises(ScenarioError, match=r"web\.initial: is missing, but its source says which labels are right"):
        Scenario.parse(data)
