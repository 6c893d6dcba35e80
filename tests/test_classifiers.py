"""Classifiers that learn from the web: what they learn from, that a resumed run has the same, and how they err."""

from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.schema import OBSERVABLE
from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.metrics.estimates import roc_area, share
from ecosystem.policies.base import Scores, gate
from ecosystem.policies.classifiers import LearnedDetector, QualityClassifier, TextClassifier
from ecosystem.policies.filters import Length
from ecosystem.policies.learning import Examples, LearningFilter, LearningView, cutoff
from ecosystem.policies.sampling import Importance
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.classifiers import Classifiers
from ecosystem.simulation.phases import human_drafts
from ecosystem.streams import Streams
from ecosystem.testing import sample_context, sample_documents
from tests.conftest import MACHINE, tiny

DOCS = sample_documents()


def prose(n, seed, odd):
    """Return texts; those of machines use some words more often, ``odd`` of them in a hundred."""
    rng = np.random.default_rng(seed)
    plain, machine = [f"w{i}" for i in range(400)], [f"m{i}" for i in range(20)]
    return [
        " ".join(np.where(rng.random(30) < odd / 100, rng.choice(machine, 30), rng.choice(plain, 30))) for _ in range(n)
    ]


def web(policies, t=2, human=600, synthetic=(300, 300), odd=(12, 3), source=None, refused=()):
    """Return a world of nothing but a corpus: people wrote at step 0, machines of depth 1, 2, … at steps 1, 2, …

    The documents ``refused`` did not pass the publish gate.
    """
    corpus = Corpus()
    drafts = [(0, 0.0, prose(human, 1, 1))]
    drafts += [(k + 1, k + 1.0, prose(n, k + 2, odd[k])) for k, n in enumerate(synthetic)]
    for step, depth, texts in drafts:
        n = len(texts)
        frame = human_drafts(pl.Series(texts, dtype=pl.String), "docs", np.arange(n), "a", np.zeros(n, np.int64))
        frame = frame.with_columns(synthetic=pl.lit(depth > 0), depth=pl.lit(depth))
        segment = corpus.prepare(frame, step)
        verdict = pl.when(pl.col("doc").is_in(list(refused))).then(pl.lit("d")).otherwise("verdict")
        corpus.publish(segment.with_columns(verdict=verdict))
    spec = SimpleNamespace(policies=policies, web=SimpleNamespace(publish=[], retain=[]), trainers={})
    spec.trainers["r"] = SimpleNamespace(select=list(policies), retain=None)
    spec.enforced_policies = lambda: Scenario.enforced_policies(spec)
    reservoir = SimpleNamespace(size=None if source is None else len(source), rows=lambda at: pl.Series(source)[at])
    return SimpleNamespace(t=t, scenario=spec, corpus=corpus, streams=Streams(5), reservoirs={"trusted": reservoir})


def measured(world):
    frame = pl.concat(Classifiers(world).measured())
    return {(i, m): (v, e) for i, m, v, e in frame.select("id", "metric", "value", "error").iter_rows()}


# The arithmetic.


def test_the_area_is_the_share_of_pairs_and_its_error_that_of_repetitions():
    rng = np.random.default_rng(0)
    a, b = np.round(rng.normal(1, 1, 40), 1), np.round(rng.normal(0, 1, 30), 1)
    pairs = (a[:, None] > b).mean() + (a[:, None] == b).mean() / 2
    assert roc_area(a, b)[0] == pytest.approx(pairs)
    found = np.array([roc_area(rng.normal(1, 1, 60), rng.normal(0, 1, 90)) for _ in range(400)])
    spread = found[:, 0].std(ddof=1)  # known to 1 / sqrt(2 * 400) of itself
    assert abs(found[:, 1].mean() / spread - 1) < 4 / 800**0.5
    assert np.isnan(roc_area(a, a[:0])).all() and np.isnan(share(a[:0] > 0)).all()
    assert share(np.arange(100) < 20) == (0.2, 0.04)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.2, 0.5, 1.0])
def test_a_cut_lets_the_expected_share_exceed_it(rate):
    rng = np.random.default_rng(3)
    exceed = [(rng.random(50) > cutoff(np.sort(rng.random(79)), rate)).mean() for _ in range(2000)]
    m = int(rate * 80 + 1e-9)  # (n + 1) * rate = 80 * rate, exactly m / (n + 1) if scores are continuous
    assert abs(np.mean(exceed) - m / 80) <= 4 * np.std(exceed) / 2000**0.5
    assert m / 80 <= rate


def test_a_score_is_of_the_text_alone():
    texts = pl.Series([*prose(80, 1, 1), *prose(80, 2, 20)])
    positive = np.arange(160) >= 80
    classifier = TextClassifier.fit(texts, positive)
    whole = classifier.probability(texts)
    assert np.array_equal(classifier.probability(texts[40:41]), whole[40:41])
    again = TextClassifier.fit(texts, positive).probability(texts)
    assert np.array_equal(again, whole) and roc_area(whole[positive], whole[~positive])[0] > 0.99


# What a detector learns from.


def test_a_detector_learns_from_older_documents_only_and_never_changes():
    policy = LearnedDetector(every=2, examples=200, threshold=0.5)
    world = web({"d": policy})
    docs = pl.Series(np.arange(0, 1200, 7))
    now = Classifiers(world).scores("d", docs)
    assert now is not None and now.score[docs.to_numpy() >= 600].mean() > now.score[docs.to_numpy() < 600].mean()
    fitted = Classifiers(world).fitted("d")
    assert fitted.examples.docs.len() == 200 and fitted.examples.docs.max() < 900  # those of step 2 do not count
    world.t = 3  # another step, the same classifier: also for one who comes later and asks other documents first
    other = Classifiers(world)
    other.scores("d", docs[:3])
    for classifiers in (other, Classifiers(web({"d": policy}, t=3, synthetic=(300,)))):
        some = docs.filter(docs < 900)
        later = classifiers.scores("d", some)
        assert np.array_equal(later.score, now.score[: some.len()])
        assert np.array_equal(later.reference, now.reference)
    world.t = 4
    assert not np.array_equal(Classifiers(world).scores("d", docs).score, now.score)


def test_there_is_no_detector_before_there_is_something_to_detect():
    for t, every in ((1, 1), (1, 2), (4, 5)):
        assert (
            Classifiers(web({"d": LearnedDetector(every=every, threshold=0.5)}, t=t)).scores("d", pl.Series([0]))
            is None
        )
    base = sample_context(DOCS)

    def nobody(name):
        ctx = base(name)
        return type(ctx)(**{**ctx.__dict__, "classifiers": SimpleNamespace(scores=lambda policy, ids: None)})

    index = DOCS.drop("content")
    for policy in (LearnedDetector(threshold=0.0), QualityClassifier(source="s", threshold=1.0)):
        assert gate(index, [("p", policy)], nobody)["verdict"].null_count() == 60
    assert gate(index, [("p", Importance(detector="d"))], nobody)["weight"].equals(index["weight"])


def test_people_label_as_wrongly_as_they_are_said_to():
    world = web({"d": LearnedDetector(every=1, examples=1000, threshold=0.5, label_error=0.2)})
    examples = Classifiers(world).fitted("d").examples
    truth = world.corpus.index["synthetic"].gather(examples.docs).to_numpy()
    assert truth.sum() == 300 and truth.size == 800  # as far as there are
    wrong = (truth != examples.positive).mean()
    assert abs(wrong - 0.2) < 4 * (0.16 / 800) ** 0.5
    assert examples.calibration[truth].sum() == 75 and examples.calibration[~truth].sum() == 125
    # Labels belong to documents: whoever is shown again is labelled alike.
    world.t = 3
    again = Classifiers(world).fitted("d").examples
    first = dict(zip(examples.docs, examples.positive.tolist(), strict=True))
    both = [(first[d], p) for d, p in zip(again.docs, again.positive.tolist(), strict=True) if d in first]
    assert len(both) > 300 and all(a == b for a, b in both)


class Careless(LearningFilter):
    """Returns what it is given, and is fitted when it is told to be."""

    answer: ClassVar[object] = None
    due: ClassVar[int] = 2

    def fitted_at(self, t):
        return self.due

    def collect_examples(self, view):
        return self.answer

    def refused(self, score, reference):
        return score > 0.5


NUMBERS = Examples.contrast(pl.Series([1, 2]), pl.Series([3]))
NO_LABELS = replace(Examples.contrast(pl.Series(["a"] * 8), pl.Series(["b"] * 8)), positive=np.ones(16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({}, "collect_examples returned NoneType instead of Examples"),
        ({"answer": NUMBERS}, "collect_examples returned texts that are not all strings"),
        ({"answer": NO_LABELS}, "collect_examples returned positive without one bool for each of 16 texts"),
        ({"due": 3}, "fitted_at returned 3 at step 2; return a step up to 2"),
    ],
)
def test_what_no_classifier_can_be_fitted_to_is_a_sentence(attributes, sentence):
    policy = type("Told", (Careless,), attributes)()
    with pytest.raises(EcosystemError, match=rf"^policies\.c: {sentence}"):
        Classifiers(web({"c": policy})).scores("c", pl.Series([0]))
    with pytest.raises(EcosystemError, match=r"policies\.l: has no scores, .*learning filter"):
        Classifiers(web({"l": Length()})).scores("l", pl.Series([0]))


def test_examples_of_two_sets_calibrate_by_one_in_four_of_each():
    world = web({})
    docs = LearningView(world.corpus, {}, world.streams, "p", 2).documents(30)
    texts = pl.Series([f"text {i}" for i in range(9)])
    examples = Examples.contrast(texts, docs)
    assert examples.positive.tolist() == [True] * 9 + [False] * 30
    assert np.flatnonzero(examples.calibration).tolist() == [3, 7, 12, 16, 20, 24, 28, 32, 36]
    assert examples.docs.equals(docs["doc"]) and not examples.labelled and examples.shortage() == ""
    assert examples.texts.to_list() == [*texts, *world.corpus.contents(docs["doc"])]
    assert Examples.contrast(texts, docs[:0]).shortage() == "all 7 examples to learn from are positive"
    assert Examples.contrast(texts[:0], docs).shortage() == "all 23 examples to learn from are negative"
    assert Examples.contrast(texts[:0], docs[:0]).shortage() == "there are no examples to learn from"


def test_a_view_shows_what_was_published_before_and_the_same_whenever_it_is_read():
    """The truth stays hidden, and what befalls a document after the fit is nothing that a resumed run would repeat."""
    world = web({})

    def seen():
        view = LearningView(world.corpus, {}, world.streams, "p", 2)
        return view.documents(100), view.documents(10**6)

    few, every = seen()
    assert few.equals(every[:100]) and every.height == 900 and every["t"].max() == 1
    assert set(every.columns) == set(OBSERVABLE) - {"weight", "retired_at"} | {"content"}
    assert every["content"].equals(world.corpus.contents(every["doc"]).alias("content"))
    world.corpus.retire(every["doc"][:50], 3, "a policy")
    world.corpus.reweigh(every["doc"][:200], pl.Series([0.5] * 200))
    assert all(one.equals(other) for one, other in zip((few, every), seen(), strict=True))
    world = web({}, refused=[every["doc"][0]])
    assert seen()[1].equals(every[1:])
    with pytest.raises(EcosystemError, match=r'policies\.p: unknown source "docs"'):
        LearningView(world.corpus, {}, world.streams, "p", 2).source_texts("docs", 3)


# How well it does.


def test_error_rates_by_origin_and_depth_are_measured_when_it_is_trained():
    policies = {"d": LearnedDetector(every=2, examples=400, false_positive_rate=0.1)}
    found = measured(web(policies, t=2, human=1600, synthetic=(800, 400)))
    rate, error = found["d", "false_positive_rate"]
    # The cut is taken from 50 human documents, which adds its own error to that of the 1,400 that are measured.
    assert abs(rate - 0.1) < 4 * (error**2 + 0.09 / 50) ** 0.5
    assert found["d", "auc"][0] > 0.75
    (near, e1), (far, e2) = found["d/depth-1", "true_positive_rate"], found["d/depth-2", "true_positive_rate"]
    assert near - far > 4 * (e1**2 + e2**2) ** 0.5  # it has learnt from the first and never seen the second
    assert ("d/depth-1", "false_positive_rate") not in found
    assert Classifiers(web(policies, t=3)).measured() == []  # not retrained


def test_only_detectors_that_somebody_heeds_are_measured():
    policies = {"d": LearnedDetector(every=2, examples=200, threshold=0.5), "w": Importance(detector="d")}
    world = web(policies)
    for select, ids in (
        ([], set()),
        (["w"], {"d", "d/depth-1", "d/depth-2"}),
        (["d"], {"d", "d/depth-1", "d/depth-2"}),
    ):
        world.scenario.trainers["r"].select = select
        assert {i for frame in Classifiers(world).measured() for i in frame["id"]} == ids


@pytest.mark.slow
def test_a_detector_at_the_door_is_judged_by_all_that_was_written_and_learns_from_what_was_published():
    policies = {"d": LearnedDetector(every=2, examples=400, false_positive_rate=0.1)}
    whole = web(policies, human=1600, synthetic=(400, 800))
    judged = Classifiers(whole).scores("d", whole.corpus.index["doc"])
    caught = pl.Series(policies["d"].refused(judged.score, judged.reference)) & (whole.corpus.index["t"] == 2)
    sifted = web(policies, human=1600, synthetic=(400, 800), refused=np.flatnonzero(caught))
    assert caught.sum() > 20 and measured(sifted) == measured(whole)
    sifted.t = whole.t = 4
    learnt = Classifiers(sifted).fitted("d").examples.docs
    assert not learnt.is_in(sifted.corpus.index.filter(caught)["doc"].implode()).any()
    assert Classifiers(whole).fitted("d").examples.docs.is_in(whole.corpus.index.filter(caught)["doc"].implode()).any()


def test_scores_as_weights_average_one_where_they_are_right():
    rng = np.random.default_rng(2)
    synthetic = rng.random(40_000) < 0.3
    # Scores that are the exact posterior at even odds: two normals at a distance of 1.5.
    x = rng.normal(1.5 * synthetic, 1)
    score = 1 / (1 + np.exp(-(1.5 * x - 1.5**2 / 2)))
    ctx = sample_context(DOCS)("p")
    ctx = type(ctx)(
        **{**ctx.__dict__, "classifiers": SimpleNamespace(scores=lambda policy, ids: Scores(score, score[:0]))}
    )
    weight = Importance(detector="d", synthetic_prior=0.3).weigh(pl.DataFrame({"doc": range(40_000)}), ctx).to_numpy()
    assert abs(weight.mean() - 1) < 4 * weight.std() / 200
    assert weight[~synthetic].mean() > weight[synthetic].mean() and weight.max() <= 1 / 0.7
    assert Importance().plain() == {"kind": "importance", "auc": 0.9, "synthetic_prior": 0.5}  # as it always was


# Quality.


def test_quality_is_likeness_to_a_trusted_source_and_a_share_is_that_of_the_first_web():
    source = prose(600, 9, 15)  # the words that are rare on the web of people
    policies = {"q": QualityClassifier(source="trusted", examples=400, keep=0.2)}
    world = web(policies, t=1, synthetic=(500,), odd=(15,), source=source)
    assert measured(world)["q", "auc"][0] > 0.75
    judged = Classifiers(world).scores("q", pl.Series(np.arange(1100)))
    refused = policies["q"].refused(judged.score, judged.reference)
    # Of the web's own documents a fifth is kept, the cut being taken from 50 others of them.
    assert abs((~refused[:600]).mean() - 0.2) < 4 * (0.16 / 600 + 0.16 / 50) ** 0.5
    assert (~refused[600:]).mean() > 0.5
    assert (
        Classifiers(web({"q": QualityClassifier(source="trusted", keep=0.2, step=3)})).scores("q", pl.Series([0]))
        is None
    )


@pytest.mark.slow
def test_a_share_to_keep_is_kept_of_what_was_learnt_from_as_of_other_documents():
    """Half of the web, of its 300 documents that the classifier knows by heart as of the 200 that it has never seen.

    Where nothing tells trusted documents from others, a memory would refuse nearly all of the known ones, and keep all
    that were trusted. Over six draws each share is 1/2 to 4 standard errors: of 100 documents that cut, and of these.
    """
    known, unseen, copies = [], [], []
    for seed in range(6):
        world = web({"q": QualityClassifier(source="trusted", examples=800, keep=0.5)}, synthetic=(), t=1)
        world.streams = Streams(seed)
        texts = world.corpus.contents(pl.Series(range(600)))
        source = [*prose(500, 9 + seed, 1), *texts[:100].to_list()]  # a hundred may be trusted and on the web at once
        world.reservoirs["trusted"] = SimpleNamespace(size=600, rows=lambda at, source=source: pl.Series(source)[at])
        classifiers = Classifiers(world)
        judged = classifiers.scores("q", pl.Series(range(600)))
        kept = ~world.scenario.policies["q"].refused(judged.score, judged.reference)
        examples = classifiers.fitted("q").examples
        learnt = texts.is_in(
            examples.texts.filter(pl.Series(~examples.calibration & ~examples.positive)).implode()
        ).to_numpy()
        trusted = texts.is_in(
            examples.texts.filter(pl.Series(~examples.calibration & examples.positive)).implode()
        ).to_numpy()
        assert learnt.sum() == 300 and 30 < trusted.sum() < 70
        for found, group in ((known, learnt), (unseen, ~learnt & ~trusted), (copies, trusted)):
            found.append(kept[group].mean())
    for found, size in ((known, 300), (unseen, 170), (copies, 30)):
        assert abs(np.mean(found) - 0.5) < 4 * (0.25 / 100 + 0.25 / size) ** 0.5 / 6**0.5


def test_the_pareto_rule_keeps_as_often_as_it_should():
    n = 20_000
    docs = pl.DataFrame({"doc": range(n)})
    ctx = sample_context(DOCS)("p")
    for score in (0.0, 0.5, 0.9, 1.0):
        scores = Scores(np.full(n, score), np.array([]))
        context = type(ctx)(
            **{**ctx.__dict__, "classifiers": SimpleNamespace(scores=lambda policy, ids, scores=scores: scores)}
        )
        kept = QualityClassifier(source="s", pareto=9.0).refuse(docs, context).is_null().mean()
        # NumPy's Pareto is the Lomax distribution of the rule.
        expected = (np.random.default_rng(1).pareto(9.0, 400_000) > 1 - score).mean()
        assert abs(kept - expected) <= 4 * (expected * (1 - expected) * (1 / n + 1 / 400_000)) ** 0.5 + 1e-12


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (LearnedDetector, {}),
        (LearnedDetector, {"threshold": 0.5, "false_positive_rate": 0.1}),
        (QualityClassifier, {"source": "s"}),
        (QualityClassifier, {"source": "s", "keep": 0.5, "pareto": 9.0}),
        (LearnedDetector, {"examples": 80, "false_positive_rate": 0.09}),
        (QualityClassifier, {"source": "s", "examples": 80, "keep": 0.05}),
    ],
)
def test_a_classifier_is_cut_in_one_way_that_its_examples_can_tell(kind, fields):
    sentence = (
        r"examples = 80 is too small for .* raise examples, or .* at least 0\.091"
        if "examples" in fields
        else "give exactly one of"
    )
    with pytest.raises(ValidationError, match=sentence):
        kind(**fields)


# In a world.


def learning(**changes):
    """Return the tiny scenario with bigrams for models, which are quick, a detector at the gate and its scores."""
    policies = {
        "seen": {"kind": "learned_detector", "every": 3, "examples": 120, "false_positive_rate": 0.1},
        "odds": {"kind": "importance", "detector": "seen"},
        "good": {"kind": "quality_classifier", "source": "language", "examples": 60, "keep": 0.9},
        "spread": {"kind": "diversity", "count": 10},
        "old": {"kind": "verified_archive", "source": "language", "fraction": 0.2},
        "paid": {"kind": "paid_writing", "source": "language", "count": 3, "price": 2.0},
        "labels": {"kind": "provenance_label", "lost": 0.5},
        "fluent": {"kind": "perplexity_band", "model": "tiny", "keep": [0.0, 0.95]},
        "cap": {"kind": "synthetic_cap", "per_author": 10},
    }
    base = tiny().override({"models.tiny": {"preset": "bigram", "vocabulary": 300, "context": 64}})
    base = base.override({f"policies.{name}": policy for name, policy in policies.items()})
    return base.override(
        {
            "web.publish": ["cap", "seen"],
            "trainers.careful.select": ["good", "seen", "odds", "spread", "old", "paid"],
            "trainers.naive.select": ["labels", "seen", "fluent"],
            **{key.replace("__", "."): value for key, value in changes.items()},
        }
    )


@pytest.mark.slow
def test_a_resumed_run_has_the_same_classifiers(cache, tmp_path):
    for out, parts in (("whole", [4]), ("parts", [3, 4])):
        for steps in parts:
            for _ in begin(learning(steps=steps), out=tmp_path / out, machine=MACHINE, cache=cache):
                pass
    folders = [folder_of(learning(), tmp_path / out) for out in ("whole", "parts")]
    one, other = ([commit.files for commit in Store(folder).commits()] for folder in folders)
    assert one == other
    run = Run.open(folders[0])
    refused = run.ledger.filter(pl.col("verdict") == "seen").collect()
    assert refused.height > 0 and refused["reason"].str.starts_with("P(synthetic) = ").all()
    metrics = run.metrics.filter((pl.col("scope") == "policy") & (pl.col("metric") == "auc"))
    found = set(metrics.select("step", "id").rows())
    assert {(3, "seen"), (3, "seen/depth-1"), (1, "good")} <= found and {step for step, _ in found} == {1, 3}
    documents, ledger = run.documents.collect(), run.ledger.collect()
    paid = ledger.filter((pl.col("source") == "language") & (pl.col("reader") == "careful/0"))["document"]
    # The formal language is endless: what is paid for lies behind all that people draw, the archive before it.
    archived, bought = paid.filter(paid < 2**24), paid.filter(paid >= 2**24)
    opening = documents.filter(pl.col("t") == 0)["row"]
    assert archived.len() and archived.is_in(opening.implode()).all() and bought.len() == bought.n_unique() == 12
    published = documents.filter(pl.col("synthetic") & pl.col("verdict").is_null()).group_by("t", "author").len()
    assert published["len"].max() == 10
    assert {"labels", "spread", "good", "fluent"} <= set(ledger["verdict"].drop_nulls())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policies.odds.detector": "sen"}, r'odds\.detector: "sen".*did you mean "seen"'),
        ({"policies.odds.detector": "short"}, r"of kind learned_detector.*defined: seen"),
        ({"policies.good.source": "nowhere"}, r"policies\.good\.source: there is no \[sources\.nowhere\]"),
        (
            {"policies.old.source": "other", "sources.other": {"kind": "process"}},
            r'old\.source: .*"other".* published by then: language',
        ),
    ],
)
def test_what_a_policy_needs_is_asked_when_a_scenario_is_read(changes, sentence):
    with pytest.raises(ScenarioError, match=sentence):
        learning(**changes)


def test_a_web_that_begins_empty_has_no_archive_and_nothing_to_compare_with():
    data = learning().plain()
    del data["web"]["initial"]
    for name in data["models"]:  # none that learns from initial documents
        data["models"][name] = {"kind": "ngram", "init": "random", "order": 2, "context": 64, "tokenizer": "elsewhere"}
    with pytest.raises(ScenarioError) as error:
        Scenario.parse(data)
    assert "policies.good.step: training at step 1" in str(error.value)
    assert "policies.old.source: no documents of" in str(error.value)
    data["policies"]["good"]["step"], data["policies"]["old"]["until"] = 2, 1
    Scenario.parse(data)
