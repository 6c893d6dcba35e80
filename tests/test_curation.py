"""Drafts chosen by reward, and weights of real data: the laws, the policies and the worlds that use them."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from ecosystem.errors import ScenarioError
from ecosystem.policies.base import gate
from ecosystem.policies.filters import Oracle
from ecosystem.policies.injection import InjectReal
from ecosystem.policies.provenance import OriginWeight
from ecosystem.policies.sampling import Prefer
from ecosystem.runs.execute import begin
from ecosystem.runs.run import folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from ecosystem.testing import sample_context, sample_documents
from ecosystem.theory.curation import (
    curated_distributions,
    curated_diversity,
    curated_mean_error,
    curated_reward,
    preferred,
    preferred_share,
    preferred_shift,
)
from ecosystem.theory.weighting import (
    golden_weight,
    stationary_mean_error,
    weighted_fit_mean_error,
    weighted_fit_variance,
    weighted_mean_error,
)
from ecosystem.validation import validate
from tests.conftest import MACHINE, ROOT

P, REWARDS = np.array([0.5, 0.3, 0.2]), np.array([0.0, 0.5, 1.0])
DOCS = sample_documents()


def agrees(values, predicted, *mistakes):
    """The mean is within four standard errors of the law and beyond them from every mistake."""
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    assert (np.abs(values.mean(axis=0) - predicted) <= 4 * error).all()
    for mistake in mistakes:
        assert (np.abs(values.mean(axis=0) - mistake) > 4 * error).any()


# The laws of choices.


def by_compositions(p, rewards, drafts):
    """The chosen type by summing over all numbers of each of three types among the drafts."""
    odds, chosen = np.exp(rewards), np.zeros(3)
    for i in range(drafts + 1):
        for j in range(drafts + 1 - i):
            count = np.array([i, j, drafts - i - j])
            ways = math.factorial(drafts) / math.prod(math.factorial(c) for c in count.tolist())
            chosen += ways * np.prod(p**count) * count * odds / (count @ odds)
    return chosen


def test_a_choice_is_exact_for_any_number_of_drafts():
    for drafts in (1, 2, 3, 7, 20):
        for p in (P, np.array([0.7, 0.0, 0.3])):
            assert preferred(p, REWARDS, drafts) == pytest.approx(by_compositions(p, REWARDS, drafts), abs=1e-13)
    odds = np.exp([0.0, 30.0, -100.0])
    pair = 2 * P * (P * odds[:, None] / (odds[:, None] + odds)).sum(axis=1)
    assert preferred(P, [0.0, 30.0, -100.0], 2) == pytest.approx(pair, abs=1e-14)
    far = P * np.exp(REWARDS) / (P @ np.exp(REWARDS))
    assert preferred(P, REWARDS, None) == pytest.approx(far)
    assert preferred(P, REWARDS, 10**6) == pytest.approx(far, abs=1e-6)


def test_published_diversity_rises_before_it_falls():
    found = curated_diversity(P, REWARDS, [0, 1, 5, 10, 20], drafts=2)
    assert found == pytest.approx([0.620, 0.654, 0.566, 0.240, 0.018], abs=5e-4)
    path, _ = curated_distributions(P, REWARDS, 300, drafts=2, curated_per_real=3)
    assert path[-1] == pytest.approx([0.272, 0.263, 0.465], abs=5e-4)
    reward = curated_reward(P, REWARDS, np.arange(30), drafts=3)
    assert (np.diff(reward) > 0).all() and reward[0] == pytest.approx(0.35)


def test_the_best_share_of_many_documents():
    rng, n, kept = np.random.default_rng(1), 4000, 0.3
    types = rng.choice(3, (60, n), p=P)
    key = REWARDS[types] + rng.gumbel(size=types.shape)
    best = np.take_along_axis(types, (-key).argsort(axis=1)[:, : int(kept * n)], axis=1)
    shares = (best[:, :, None] == np.arange(3)).mean(axis=1)
    agrees(shares, preferred_share(P, REWARDS, kept), preferred_share(P, REWARDS, 0.2), preferred(P, REWARDS, 3))
    assert preferred_share(P, REWARDS, 1) == pytest.approx(P)
    assert preferred_share(P, REWARDS, 1e-9) == pytest.approx(preferred(P, REWARDS, None), abs=1e-6)


@pytest.mark.parametrize(("drafts", "ratio"), [(2, None), (4, 2.0)])
def test_finite_samples_to_first_order(drafts, ratio):
    rng, n, runs, steps = np.random.default_rng(2), 100, 3000, 4
    odds, p = np.exp(REWARDS), np.tile(P, (runs, 1))
    p = rng.multinomial(n, p) / n
    for _ in range(steps):
        types = (rng.random((runs, n, drafts, 1)) > p.cumsum(axis=1)[:, None, None, :2]).sum(axis=3)
        key = np.log(odds)[types] + rng.gumbel(size=types.shape)
        won = np.take_along_axis(types, key.argmax(axis=2)[..., None], axis=2)[..., 0]
        counts = (won[:, :, None] == np.arange(3)).sum(axis=1)
        counts = counts if ratio is None else counts + rng.multinomial(int(n / ratio), P, size=runs)
        p = counts / counts.sum(axis=1, keepdims=True)
    arguments = {"drafts": drafts, "curated_per_real": ratio}
    infinite = curated_diversity(P, REWARDS, steps, **arguments)
    agrees(1 - (p**2).sum(axis=1), curated_diversity(P, REWARDS, steps, n=n, **arguments), infinite)


def test_the_mean_of_preferred_vectors():
    rng, slope, variance, n, runs = np.random.default_rng(3), 1.3, 2.0, 10, 20_000
    mean = rng.normal(scale=math.sqrt(variance / n), size=(runs, 2))
    for _ in range(3):
        pairs = mean[:, None, None] + math.sqrt(variance) * rng.normal(size=(runs, n, 2, 2))
        first = rng.random((runs, n)) < 1 / (1 + np.exp(-slope * (pairs[:, :, 0, 0] - pairs[:, :, 1, 0])))
        mean = np.where(first[..., None], pairs[:, :, 0], pairs[:, :, 1]).mean(axis=1)
    start, wrong = 2 * variance / n, 9 * (slope * variance) ** 2  # as if there were infinitely many drafts
    agrees((mean**2).sum(axis=1), curated_mean_error(slope, n, 3, 2, variance, start), wrong)
    assert preferred_shift(0.0) == 0 and preferred_shift(-1.0) == -preferred_shift(1.0)
    assert preferred_shift(1000.0) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-5), "the larger of two"


# The laws of weights.


def test_the_golden_weight_is_the_best_and_pooling_is_not():
    assert golden_weight(50, 50) == pytest.approx((math.sqrt(5) - 1) / 2)
    weights = np.linspace(0.001, 1, 1000)
    for real, synthetic in ((5, 50), (20, 20), (60, 10)):
        best, k = golden_weight(real, synthetic), real / synthetic
        errors = [stationary_mean_error(w, real, synthetic) for w in weights]
        assert weights[np.argmin(errors)] == pytest.approx(best, abs=1e-3)
        assert stationary_mean_error(best, real, synthetic) == pytest.approx(best / real)
        assert stationary_mean_error(k / (k + 1), real, synthetic) > 1.001 * best / real
    assert 20 * stationary_mean_error(0.5, 20, 20) == pytest.approx(0.6667, abs=1e-4)
    assert 5 * stationary_mean_error(1 / 11, 5, 50) == pytest.approx(0.5238, abs=1e-4)


@pytest.mark.parametrize("unbiased", [None, True, False])
def test_weighted_fits(unbiased):
    """None: the variance is known."""
    rng, w, real, synthetic, runs = np.random.default_rng(4), 0.35, 4, 7, 40_000
    mean, variance = rng.normal(scale=math.sqrt(1 / 6), size=runs), np.ones(runs)
    if unbiased is not None:
        first = rng.normal(size=(runs, 6))
        mean, variance = first.mean(axis=1), first.var(axis=1, ddof=1 if unbiased else 0)
    weight = np.repeat([w / real, (1 - w) / synthetic], [real, synthetic])
    for _ in range(3):
        own = mean[:, None] + np.sqrt(variance)[:, None] * rng.normal(size=(runs, synthetic))
        x = np.hstack([rng.normal(size=(runs, real)), own])
        mean = x @ weight
        if unbiased is not None:
            spread = ((x - mean[:, None]) ** 2) @ weight
            variance = spread / (1 - weight @ weight) if unbiased else spread
    known = weighted_mean_error(w, real, synthetic, 3, start=1 / 6)
    pooled = weighted_mean_error(real / (real + synthetic), real, synthetic, 3, start=1 / 6)
    if unbiased is None:
        agrees(mean**2, known, pooled)
        return
    arguments = (w, real, synthetic, 3, 1.0, 1 / 6)
    agrees(mean**2, weighted_fit_mean_error(*arguments, unbiased), pooled)
    agrees(variance, weighted_fit_variance(*arguments, unbiased), weighted_fit_variance(*arguments, not unbiased))


# The policy that prefers.


def drafts(n, each, synthetic=True):
    """Documents of n authors, ``each`` of every one, with as many words as their place within the author's."""
    return pl.DataFrame(
        {
            "doc": range(n * each),
            "t": [3] * (n * each),
            "author": [f"lab/{i // each}" for i in range(n * each)],
            "synthetic": [synthetic] * (n * each),
            "words": [i % each for i in range(n * each)],
        }
    )


def kept(policy, docs, context=None):
    table = gate(docs, [("p", policy)], context or sample_context(DOCS))
    return table.filter(pl.col("verdict").is_null())


def longest(scale, **fields):
    return Prefer.model_validate({"rewards": [{"feature": "words", "scale": scale}], **fields})


def test_one_of_every_block_is_kept_with_the_chances_of_plackett_and_luce():
    n = 6000
    won = kept(longest(0.7, drafts=3), drafts(n, 3))
    assert won["author"].n_unique() == won.height == n
    odds = np.exp(0.7 * np.arange(3))
    expected = odds / odds.sum()
    share = won["words"].value_counts().sort("words")["count"].to_numpy() / n
    assert (np.abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / n)).all()
    later = sample_context(DOCS, t=9)
    assert kept(longest(0.7, drafts=3), drafts(n, 3), later).equals(won), "a choice never changes"
    assert kept(longest(1e6, drafts=3), drafts(n, 3))["words"].to_list() == [2] * n
    assert kept(longest(-1e6, drafts=3), drafts(n, 3))["words"].to_list() == [0] * n


def test_whose_drafts_are_judged():
    docs = pl.concat([drafts(4, 4), drafts(2, 4, synthetic=False).with_columns(pl.col("doc") + 16)])
    assert kept(longest(1.0, drafts=4), docs).height == 4 + 8, "people choose themselves"
    assert kept(longest(1.0, drafts=4, population="lab"), docs).height == 4 + 8
    assert kept(longest(1.0, drafts=4, population="la"), docs).height == 24
    shifted = drafts(1, 8).with_columns(pl.col("doc") + 2)
    assert kept(longest(1.0, drafts=4), shifted).height == 3, "blocks of ids: 2 to 3, 4 to 7 and 8 to 9"


def test_curators_choose_by_their_shares():
    n = 8000
    rewards = [{"share": 0.8, "feature": "words", "scale": 1e6}, {"share": 0.2, "feature": "words", "scale": -1e6}]
    won = kept(Prefer.model_validate({"rewards": rewards, "drafts": 2}), drafts(n, 2))
    assert won["words"].mean() == pytest.approx(0.8, abs=4 * 0.4 / math.sqrt(n))


def test_the_preferred_of_all_documents_are_drawn_without_replacement():
    policy = longest(0.01, count=500)
    won = kept(policy, drafts(1, 1000))
    assert won.height == 500 and kept(policy, won).height == 500 and policy.most_documents == 500
    assert won["words"].mean() > 560
    later = sample_context(DOCS, t=9)
    assert not kept(policy, drafts(1, 1000), later).equals(won), "drawn anew at each step"


def test_rewards_of_texts():
    words = {"lexicon": ["the", "OF"]}
    docs = DOCS.drop("content")
    policy = Prefer.model_validate({"rewards": [words], "drafts": 2})
    texts = DOCS["content"].to_list()
    found = policy.mean_reward(docs, sample_context(DOCS)("p"))
    split = ["".join(c if c.isalnum() else " " for c in text.lower()).split() for text in texts]
    share = [sum(word in ("the", "of") for word in text) / max(len(text), 1) for text in split]
    assert found == pytest.approx(share) and max(share) > 0
    scored = Prefer.model_validate({"rewards": [{"model": "small", "scale": 2.0}], "drafts": 2})
    nats, tokens = sample_context(DOCS)("p").models.score("small", docs["doc"])
    assert scored.mean_reward(docs, sample_context(DOCS)("p")) == pytest.approx(-2 * nats / np.maximum(tokens, 1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rewards": [{"feature": "words"}]}, "exactly one of drafts and count"),
        ({"rewards": [], "drafts": 2}, "at least 1"),
        ({"rewards": [{}], "drafts": 2}, "exactly one of types, direction, feature, lexicon, model"),
        ({"rewards": [{"feature": "words", "types": [1.0]}], "drafts": 2}, "exactly one of types"),
        ({"rewards": [{"feature": "words", "share": 0.5}], "drafts": 2}, "must add up to 1"),
        ({"rewards": [{"feature": "words"}], "count": 5, "population": "labs"}, "use drafts"),
        ({"rewards": [{"types": [1e10]}], "drafts": 2}, "less than or equal to 1000000000"),
        ({"rewards": [{"direction": [0.0, -1e10]}], "drafts": 2}, "greater than or equal to -1000000000"),
        ({"rewards": [{"lexicon": []}], "drafts": 2}, "at least 1"),
        ({"rewards": [{"lexicon": ["the", "of course"]}], "drafts": 2}, "'of course' is not one word"),
    ],
)
def test_fields_that_make_no_sense(fields, message):
    with pytest.raises(ValidationError, match=message):
        Prefer.model_validate(fields)


CURATED, GOLDEN = (ROOT / "scenarios" / "papers" / name for name in ("ferbach_curated.toml", "he_golden_ratio.toml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"policies.pair.rewards": [{"types": [0.0, 1.0]}]},
            "rewards.0.types: has 2 numbers, but documents here need 3",
        ),
        (
            {"policies.pair.rewards": [{"feature": "words"}]},
            "feature: is for text documents, but documents here are cat",
        ),
        ({"trainers.pair.select": ["pair"]}, r"trainers\.pair\.select: pair \(prefer\) chooses among all drafts"),
        ({"web.retain": ["pair"]}, r"web\.retain: pair \(prefer\) .* give it count instead of drafts"),
        ({"policies.pair.population": "pairs"}, r"there is no \[trainers.pairs\] \(did you mean \"pair\""),
    ],
)
def test_rewards_that_a_scenario_does_not_have(changes, message):
    with pytest.raises(ScenarioError, match=message):
        Scenario.load(CURATED).override(changes)


@pytest.mark.slow
@pytest.mark.parametrize("file", [CURATED, GOLDEN])
def test_a_resumed_loop_equals_an_uninterrupted_one(file, tmp_path):
    scenario = validate.sized(Scenario.load(file), 2)

    def finish(place, steps):
        spec = scenario.override({"steps": steps})
        for _ in begin(spec, out=tmp_path / place, machine=MACHINE):
            pass
        return folder_of(spec, tmp_path / place)

    whole = finish("a", 4)
    assert finish("b", 2) == finish("b", 4)
    commits = [[commit.files for commit in Store(folder).commits()] for folder in (whole, finish("b", 4))]
    assert commits[0] == commits[1] and len(commits[0]) == 5


def test_the_reward_of_drafts_is_measured():
    world = World(validate.sized(Scenario.load(CURATED), 2), seed=1)
    for _ in range(2):
        world.step()
    snapshot = world.snapshot()
    reward = snapshot.metrics.filter(pl.col("metric") == "reward").sort("id")
    assert reward["id"].to_list() == sorted(f"{name}/{i}" for name in ("pair", "many", "fed", "split") for i in (0, 1))
    drafts = snapshot.segment.filter(pl.col("author") == "pair/0")
    value, error = reward.filter(pl.col("id") == "pair/0").select("value", "error").row(0)
    rewards = REWARDS[drafts["content"].to_numpy()]
    assert value == pytest.approx(rewards.mean()) and error == pytest.approx(rewards.std(ddof=1) / math.sqrt(1200))
    assert drafts["verdict"].null_count() == 600
    split = snapshot.segment.filter(pl.col("author") == "split/0")["content"].to_numpy()
    expected = (0.7 * REWARDS + 0.3 * REWARDS[::-1])[split].mean()
    assert reward.filter(pl.col("id") == "split/0")["value"].item() == pytest.approx(expected)


# The policy that weighs by origin.


def weights(policy, added=6, by=lambda other, docs: np.asarray(docs) % 3 == 0):
    """Weights of 30 scraped documents, every third of which is believed to be synthetic, after ``added`` real ones."""
    context = sample_context(DOCS)

    def context_of(name):
        return replace(context(name), refused_by=by)

    docs = DOCS.head(30).drop("content").with_columns(weight=1.0 + pl.col("doc") % 2)
    inject = InjectReal(source="docs", count=added)
    table = gate(docs, [("inject", inject), ("w", policy)], context_of)
    return docs["weight"].to_numpy(), table["weight"].to_numpy()


def test_real_documents_get_their_share_of_the_weight():
    believed = np.arange(30) % 3 == 0
    before, after = weights(OriginWeight(real_share=0.7, believed_by="labels"))
    assert after[30:].tolist() == [1.0] * 6 and (after[:30][~believed] == before[~believed]).all()
    assert after[:30][believed].sum() / after.sum() == pytest.approx(0.3)
    assert np.ptp(after[:30][believed] / before[believed]) == pytest.approx(0, abs=1e-12)
    before, after = weights(OriginWeight(real_share=0.7))
    assert after[:30].sum() / after.sum() == pytest.approx(0.3), "without a judge, only added documents are real"
    before, after = weights(OriginWeight(real_share=1.0))
    assert not after[:30].any()
    before, after = weights(OriginWeight(believed_by="labels"))
    assert 1 - after[:30][believed].sum() / after.sum() == pytest.approx(golden_weight(26, 10))
    for policy, added in ((OriginWeight(real_share=0.2), 0), (OriginWeight(real_share=0.2, believed_by="none"), 3)):
        before, after = weights(policy, added, by=lambda other, docs: np.zeros(docs.len(), np.bool_))
        assert (after[:30] == before).all(), "one sort only"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies.golden.believed_by": "humen"}, r'"humen" must name a filter .* \(did you mean "human"\?\)'),
        ({"policies.golden.believed_by": "real20"}, "must name a filter that judges each document by itself"),
        ({"web.retain": ["golden"]}, "would apply its factor again at every step"),
        ({"trainers.golden.select": ["golden", "real20"]}, "real20 adds documents behind golden"),
        ({"policies.golden.real_share": 0.0}, "greater than 0"),
    ],
)
def test_weights_that_make_no_sense(changes, message):
    with pytest.raises(ScenarioError, match=message):
        Scenario.load(GOLDEN).override(changes)


def test_beliefs_are_the_verdicts_of_the_other_policy():
    scenario = validate.sized(Scenario.load(GOLDEN), 2).override({"policies.labels.lost": 0.5})
    world = World(scenario, seed=1)
    for _ in range(3):
        world.step()
    ledger = world.snapshot().ledger.filter(pl.col("reader") == "golden_few_labels/0")
    scraped = ledger.filter(pl.col("source").is_null())
    assert scraped["synthetic"].all() and 5 < (scraped["weight"] == 1).sum() < 35, "those that lost their labels"
    everyone = world.snapshot().ledger.filter((pl.col("reader") == "golden_few/0") & pl.col("source").is_null())
    share = golden_weight(4, 40)
    assert everyone["weight"].to_list() == pytest.approx([4 * (1 - share) / share / 40] * 40)
    docs = world.corpus.live().table()
    judged = world.state.context("golden/0")("golden").refused_by("human", docs["doc"])
    alone = gate(docs.drop("verdict", "reason"), [("human", Oracle())], world.state.context("golden/0"))
    assert (judged == alone["verdict"].is_not_null().to_numpy()).all() and judged.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mistake", "population"),
    [
        ("curated_categories", {"policies.two.rewards.0.scale": 1.5}, "two"),
        ("curated_categories", {"policies.mixed.rewards.0.share": 0.5, "policies.mixed.rewards.1.share": 0.5}, "mixed"),
        ("curated_vectors", {"policies.weak.rewards.0.scale": 1.5}, "weak"),
        ("weighted_origins", {"policies.golden.real_share": 0.0909}, "golden_few"),
    ],
)
def test_worlds_find_a_mistake(name, mistake, population, tmp_path):
    scenario = Scenario.load(ROOT / "scenarios" / "validation" / f"{name}.toml")
    (tmp_path / f"{name}.toml").write_text(scenario.override(mistake).to_toml())
    failed = {check.name.split("/")[1] for check in validate.run_checks(tmp_path / f"{name}.toml") if not check.passed}
    assert population in failed
