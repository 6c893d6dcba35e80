"""Watermarks: the same as transformers' to the bit, found where they are, not where they are not, and a policy."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import binom
from transformers import (
    GPT2Config,
    SynthIDTextWatermarkLogitsProcessor,
    WatermarkDetector,
    WatermarkingConfig,
    WatermarkLogitsProcessor,
)

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import ScenarioError
from ecosystem.families.language import generation, watermark
from ecosystem.families.language.ngram.family import Ngram
from ecosystem.families.requests import Decoding, Prompt, Radioactivity
from ecosystem.policies.base import gate
from ecosystem.policies.watermark import Watermark
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.phases import watermarking
from ecosystem.simulation.world import World
from ecosystem.streams import Streams
from ecosystem.testing import sample_context, sample_documents
from tests.conftest import MACHINE, TINY, tiny
from tests.families_shared import (
    SHAPE,
    Numbers,
    build_context,
    cohort,
    documents,
    fit_request,
    generate_request,
    weights,
)

GREEN = WatermarkSpec("green_list", 15_485_863)
TOURNAMENT = WatermarkSpec("synthid", 42, depth=6)
BOTH = pytest.mark.parametrize("mark", [GREEN, TOURNAMENT], ids=lambda mark: mark.scheme)
V = SHAPE.vocabulary


class Flat:
    """A model to which all tokens are alike."""

    def __init__(self, types):
        self.types = types

    def begin(self, ids):
        return torch.zeros(len(ids), self.types)

    def step(self, ids, position):
        return torch.zeros(len(ids), self.types)

    def keep(self, rows, used):
        pass


def written_flat(n, mark, types=V, most=40):
    noise = Streams(5).at("flat").uniform(np.arange(n * most)).reshape(n, most).astype(np.float32)
    task = generation.Task([np.zeros(0, np.int32)] * n, Decoding(max_tokens=most), noise, 0, most, mark=mark)
    texts = generation.write(Flat(types), task, torch.device("cpu"), lambda _: None)
    return [np.array(ids, np.int32) for ids in texts]


def library_synthid(mark, history=1024):
    return SynthIDTextWatermarkLogitsProcessor(
        ngram_len=mark.context_width + 1,
        keys=mark.keys().tolist(),
        sampling_table_size=2**16,
        sampling_table_seed=0,
        context_history_size=history,
        device=torch.device("cpu"),
        skip_first_ngram_calls=True,
    )


def repetitive(n, length, types=V, seed=0):
    """Texts of few, often repeated tokens, as human ones are: token k has probability proportional to 1 / k."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, types)
    return [rng.choice(np.arange(1, types), length, p=share / share.sum()).astype(np.int32) for _ in range(n)]


# The same as transformers.


@pytest.mark.parametrize(("key", "share"), [(15_485_863, 0.25), (7, 0.5), (2**31, 0.1)])
def test_green_lists_are_those_of_transformers(key, share):
    theirs = WatermarkLogitsProcessor(V, "cpu", greenlist_ratio=share, hashing_key=key)
    ours = watermark.GreenLists(V, share, key)
    for before in (1, 5, V - 1, 5):
        green = ours.green(np.full(V, before), np.arange(V))
        assert set(np.flatnonzero(green)) == set(theirs._get_greenlist_ids(torch.tensor([3, before])).tolist())


@pytest.mark.parametrize("marked", [True, False])
def test_the_z_score_of_green_tokens_is_the_detectors(marked):
    """On what our own loop wrote, token by token the same, and on text in which pairs of tokens repeat."""
    made = cohort(1)
    mark = replace(GREEN, green_share=0.3, bias=3.0)
    [texts] = made.tokens([replace(generate_request(30), mark=mark if marked else None)])
    texts = [ids for ids in texts if len(ids) > 3] + repetitive(10, 60)
    z, scored = watermark.detect(mark, [np.array(ids) for ids in texts], V)
    config = WatermarkingConfig(greenlist_ratio=0.3, bias=3.0, hashing_key=mark.key)
    theirs = WatermarkDetector(GPT2Config(vocab_size=V, bos_token_id=0), "cpu", config, ignore_repeated_ngrams=True)
    for ids, ours, count in zip(texts, z, scored, strict=True):
        found = theirs(torch.tensor([list(ids)]), return_dict=True)
        assert ours == pytest.approx(found.z_score[0], abs=1e-9) and count == found.num_tokens_scored[0]
    assert min(scored[-10:]) < 59  # the repeated ones


def test_bits_and_z_scores_of_synthid_are_those_of_transformers():
    texts = torch.from_numpy(np.stack(repetitive(20, 80, types=4))).long()
    library = library_synthid(TOURNAMENT)
    bits, fresh = library.compute_g_values(texts).numpy(), library.compute_context_repetition_mask(texts).numpy()
    assert 0.1 < fresh.mean() < 0.9  # contexts of four from three tokens repeat
    ids = texts.numpy()
    contexts = np.stack([watermark._hash(row) for row in ids.T[np.arange(76)[:, None] + np.arange(4)]], axis=1)
    ours = watermark.bits(TOURNAMENT, contexts.ravel(), ids[:, 4:].ravel())
    assert np.array_equal(ours.reshape(bits.shape), bits)
    weight = np.linspace(10, 1, 6)
    total = ((bits - 0.5) @ weight * fresh).sum(1)
    z, scored = watermark.detect(TOURNAMENT, list(ids.astype(np.int32)), 4)
    assert np.array_equal(scored, fresh.sum(1))
    assert z == pytest.approx(total / np.sqrt(fresh.sum(1) * (weight @ weight) / 4))


@pytest.mark.slow
@pytest.mark.parametrize(("mark", "whole"), [(GREEN, 4096), (GREEN, 0), (TOURNAMENT, 0)])
def test_marked_distributions_are_those_of_transformers(mark, whole, monkeypatch):
    """Step by step along given texts, repeated contexts among them; the end of text (0) is left as it was."""
    monkeypatch.setattr(watermark, "_UNPACKED_TYPES", whole)  # a large vocabulary's lists stay packed
    texts = np.stack(repetitive(8, 30, types=4)).astype(np.int64)
    logits = 2 * torch.randn(30, 8, V, generator=torch.Generator().manual_seed(1))
    library = WatermarkLogitsProcessor(V, "cpu") if mark is GREEN else library_synthid(mark)
    ours = watermark.marker(mark, V, (31, 8))
    for position in range(20):
        shown = logits[position].clone()
        shown[:, 0] = -torch.inf  # which leaves it out of theirs, too
        begun = torch.from_numpy(np.concatenate([np.zeros((8, 1), np.int64), texts[:, :position]], axis=1))
        # Its detector never sees the first token, so we do not mark it; theirs would, after the end of text.
        first = position == 0 and mark is GREEN
        theirs = torch.softmax(shown if first else library(begun, shown), -1)
        p = torch.softmax(logits[position], -1)
        found = generation._watermarked(p.clone(), 0, ours, texts.T[:position], np.arange(8))
        found = found / found.sum(-1, keepdim=True)
        assert torch.allclose(found[:, 0], p[:, 0], rtol=1e-4)
        assert torch.allclose(found[:, 1:] / (1 - p[:, :1]), theirs[:, 1:], rtol=2e-4, atol=1e-7), position


# What a mark does, by its closed form.


def test_as_many_tokens_are_green_as_the_bias_says():
    """Where all tokens are alike, γ e^δ / (1 - γ + γ e^δ) of them are green; four standard errors."""
    texts = written_flat(400, GREEN)
    z, scored = watermark.detect(GREEN, texts, V)
    share = int(V * 0.25) / (V - 1)  # the end of text, which takes no part, is green here and there: at most 1 / V
    expected = share * math.e**2 / (1 - share + share * math.e**2)
    green = z * np.sqrt(scored * 0.1875) + 0.25 * scored
    error = 4 * math.sqrt(expected * (1 - expected) / scored.sum())
    assert green.sum() / scored.sum() == pytest.approx(expected, abs=error + 1 / V)


@BOTH
def test_a_mark_changes_no_lengths(mark):
    """The end of text comes with chance 1 / V at every token; four standard errors of a mean length."""
    plain, marked = (np.array([len(ids) for ids in written_flat(2000, m, types=20)]) for m in (None, mark))
    expected = sum((1 - 1 / 20) ** i for i in range(1, 41))
    for lengths in (plain, marked):
        assert lengths.mean() == pytest.approx(expected, abs=4 * lengths.std() / math.sqrt(2000))


def test_a_tournament_leaves_the_distribution_on_average_over_contexts():
    """SynthID's promise: averaged over contexts nothing is bent, although every single one is; four standard errors."""
    n = 4000
    play = watermark.marker(TOURNAMENT, V, (5, n))
    text = np.random.default_rng(2).integers(1, V, (4, n))
    p = torch.softmax(torch.randn(1, V, generator=torch.Generator().manual_seed(2)), -1).repeat(n, 1)
    found = play(p.clone(), text, np.arange(n))
    assert torch.allclose(found.sum(-1), torch.ones(n), atol=1e-4)
    error = found.std(0) / math.sqrt(n)
    assert ((found.mean(0) - p[0]).abs() < 4 * error).all() and (found.std(0) > p[0] / 2).all()


@BOTH
def test_unmarked_text_is_rarely_taken_for_marked(mark):
    """On repetitive text, over many keys: mean 0, variance 1 and the stated rate, to four standard errors over keys.

    Counting a repeated pair as often as it stands there would make the variance about 2.
    """
    texts = repetitive(30, 60)
    found = [watermark.detect(replace(mark, key=key), texts, V) for key in range(1, 151)]
    z, scored = np.stack([f[0] for f in found]), found[0][1]
    share = int(V * 0.25) / V if mark.scheme == "green_list" else 0.5  # lists hold whole tokens
    if mark.scheme == "green_list":
        bias = (share - 0.25) * np.sqrt(scored / 0.1875)
        over = binom.sf(np.floor(0.25 * scored + 2 * np.sqrt(0.1875 * scored)), scored, share)
    else:
        bias, over = np.zeros(30), None
    for values, expected in ((z - bias, 0.0), ((z - bias) ** 2, 1.0), (z > 2, 0.0228 if over is None else over.mean())):
        by_key = values.mean(1)
        assert by_key.mean() == pytest.approx(expected, abs=4 * by_key.std(ddof=1) / math.sqrt(150) + 0.01 * expected)


# In the loop and through the tokenizer.


@BOTH
@pytest.mark.parametrize("stacks", [False, True])
def test_a_mark_is_its_own_members_and_nobody_elses(mark, stacks):
    """In one call, marked and unmarked, with prompts of different lengths: each as if it were alone."""
    made = cohort(2, stacks=stacks)
    decoding = Decoding(max_tokens=16, prompt=Prompt(tokens=6))
    prompts = documents(9, low=1, high=12)
    asked = [generate_request(9, decoding, member=m, prompts=prompts) for m in (0, 1)]
    asked[0] = replace(asked[0], mark=mark)
    together = made.tokens(asked)
    for request, found in zip(asked, together, strict=True):
        assert made.tokens([request])[0] == found
        assert made.tokens([replace(request, n=5, prompts=prompts.head(5))])[0] == found[:5]
    assert made.tokens([replace(asked[0], mark=None)])[0] != together[0]
    assert made.tokens([replace(asked[0], mark=replace(mark, key=3))])[0] != together[0]


@BOTH
def test_a_transformer_marks_what_it_writes(mark):
    """Far above chance: twenty standard errors, where unmarked texts stay within four."""
    made = cohort(1, initial=weights(spread=0.3))
    for shown, sure in ((mark, True), (None, False)):
        [texts] = made.generate([replace(generate_request(200), mark=shown)])
        z, scored = made.watermark(texts, mark)
        excess = z.sum() / math.sqrt((scored > 0).sum())
        assert excess > 20 if sure else abs(excess) < 4


def test_a_mark_outlives_the_tokenizer(tmp_path):
    """Decoded and read again a text has other tokens here and there, and nearly all of its mark."""
    rng = np.random.default_rng(0)
    words = ["water", "mark", "marking", "in", "the", "a", "green", "list", "of", "tokens", "text", "texts", "kept"]
    human = pl.Series([" ".join(rng.choice(words, 40)) + "." for _ in range(300)])
    family = Ngram(order=2, vocabulary=300, context=64)
    made = family.cohort("counts", 1, build_context(human=human, cache=tmp_path))
    [tokens] = made.tokens([replace(generate_request(100, Decoding(max_tokens=60)), mark=GREEN)])
    texts = pl.Series(made.tokenizer.decode(tokens))
    again = made.tokenizer.encode(texts)
    changed = [not np.array_equal(a, b) for a, b in zip(tokens, again, strict=True)]
    chosen, _ = watermark.detect(GREEN, [np.array(ids, np.int32) for ids in tokens], made.types)
    read, _ = made.watermark(texts, GREEN)
    assert any(changed)
    assert read.mean() > 0.7 * chosen.mean() > 2
    same = ~np.array(changed)
    assert np.array_equal(read[same], chosen[same])


def readers(tmp_path, mark):
    """Return models of token pairs fitted to unmarked text, and to text with a mark, and human text to test them on."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), rng.integers(2, 7))) for _ in range(150)]
    human = pl.Series([" ".join(rng.choice(words, 40)) + "." for _ in range(600)])
    made = Ngram(order=2, vocabulary=300, context=64).cohort("counts", 2, build_context(human=human, cache=tmp_path))
    texts = [made.generate([replace(generate_request(600, Decoding(max_tokens=60)), mark=m)])[0] for m in (None, mark)]
    made.fit([fit_request(docs, member) for member, docs in enumerate(texts)])
    return made, human


@pytest.mark.parametrize("mark", [GREEN, replace(TOURNAMENT, context_width=1)], ids=lambda mark: mark.scheme)
def test_a_model_that_has_read_marked_text_is_radioactive(tmp_path, mark):
    made, human = readers(tmp_path, mark)
    unmarked, marked = (made.radioactivity(member, human, mark, 4000) for member in (0, 1))
    assert abs(unmarked.z) < 4 and unmarked.log10_p > -4
    assert marked.z > 6 and marked.log10_p < -8


def test_a_model_that_does_not_depend_on_the_key_is_radioactive_by_chance(tmp_path):
    """Over many keys z has mean 0 and, since each list holds exactly a quarter of the tokens, variance of at most 1."""
    made, human = readers(tmp_path, None)
    tests = [made.radioactivity(0, human, replace(GREEN, key=key), 1000) for key in range(1, 101)]
    z, p = np.array([t.z for t in tests]), 10 ** np.array([t.log10_p for t in tests])
    assert abs(z.mean()) < 4 / math.sqrt(100)
    assert z.var(ddof=1) < 1 + 4 * math.sqrt(2 / 99)
    assert (p < 0.05).mean() < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 100)


def test_repeated_predictions_count_once():
    rng = np.random.default_rng(1)
    contexts, predicted = rng.integers(0, V, (300, 16)), rng.integers(0, V, 300)
    once = watermark.radioactivity(GREEN, contexts, predicted, V)
    again = watermark.radioactivity(GREEN, np.tile(contexts, (20, 1)), np.tile(predicted, 20), V)
    assert again == once and once.scored == len({*zip(contexts[:, -1].tolist(), predicted.tolist(), strict=True)})
    assert watermark.radioactivity(GREEN, contexts[:0], predicted[:0], V) == Radioactivity(0.0, 0.0, 0)


def test_checkpoints_with_more_logits_than_tokens_are_marked_over_all_of_them():
    made = cohort(1)
    made.tokenizer = type("Fewer", (Numbers,), {"size": V - 5})()
    assert made.types == V and made.watermark(documents(3), GREEN)[1].min() > 0


# The policy.


def found_in(z, scored, policy):
    table = sample_documents(len(z))
    models = SimpleNamespace(watermark=lambda *_: (np.array(z), np.array(scored)))
    context = replace(sample_context(table)("p"), models=models)
    return gate(table.drop("content"), [("p", policy)], lambda _: context)["reason"].to_list()


def test_it_refuses_what_is_marked_and_long_enough():
    policy = Watermark(model="small", threshold=4.0, min_tokens=16)
    reasons = found_in([4.01, 4.0, 9.0, -9.0, 9.26], [16, 16, 15, 80, 80], policy)
    assert [r is not None for r in reasons] == [True, False, False, False, True]
    assert reasons[4] == "watermark: z 9.3 is above 4"


def test_fields_of_the_other_scheme_are_refused():
    for scheme, field in (("green_list", "depth"), ("synthid", "bias")):
        with pytest.raises(ValueError, match=f'{field} is not allowed with scheme = "{scheme}"'):
            Watermark(model="m", scheme=scheme, **{field: 2})
    assert Watermark(model="m", bias=3.0).mark == replace(GREEN, bias=3.0)
    assert Watermark(model="m", scheme="synthid", key=9, depth=7).mark == WatermarkSpec("synthid", 9, depth=7)


MARKED = {
    "policies.mark": {"kind": "watermark", "model": "tiny", "min_tokens": 4, "threshold": 2.0},
    "trainers.naive.decoding.watermark": "mark",
    "trainers.naive.count": 4,
}
COUNTS = {"models.tiny": {"preset": "trigram", "vocabulary": 300, "context": 64}}


def marked(**changes) -> Scenario:
    quick = {k: v for k, v in TINY.items() if not k.startswith("models.")}
    scenario = tiny().override(quick | COUNTS | MARKED)
    return scenario.override({k.replace("__", "."): v for k, v in changes.items()})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trainers.naive.decoding.watermark": "mrk"}, "there is no [policies.mrk]"),
        (
            {"trainers.naive.decoding.watermark": "short"},
            'the policy "short" is of kind length; only a policy of kind watermark',
        ),
        ({"policies.mark.model": "tini"}, "policies.mark.model: there is no [models.tini]"),
        (
            {"models.other": {"preset": "trigram"}, "policies.mark.model": "other"},
            'reads texts with the model "other", but trainers.naive.model is "tiny"',
        ),
        ({"trainers.naive.retain": ["mark"]}, "cannot thin an archive"),
        ({"policies.mark.compliance": 1.5}, "policies.mark.compliance: "),
        (
            {"measure.radioactivity": 100, "models.other": {"preset": "trigram"}, "policies.mark.model": "other"},
            "measure.radioactivity: no policy of kind watermark names the model of a trainer",
        ),
        ({"policies.mark.depth": 3}, 'depth is not allowed with scheme = "green_list"; remove it'),
    ],
)
def test_what_does_not_go_together_is_said_when_the_scenario_is_read(changes, sentence):
    with pytest.raises(ScenarioError) as error:
        marked().override(changes)
    assert sentence in str(error.value)


def test_only_families_that_can_mark_do():
    gaussian = Scenario.load("scenarios/validation/gaussian_replace.toml")
    population = next(iter(gaussian.trainers))
    model = next(iter(gaussian.models))
    with pytest.raises(ScenarioError) as error:
        gaussian.override(
            {
                "policies.mark": {"kind": "watermark", "model": model},
                f"trainers.{population}.decoding.watermark": "mark",
            }
        )
    assert "of kind gaussian, which can neither write nor detect watermarks; choose a model of kind" in str(error.value)
    assert "decoding.watermark: has no meaning for vector documents" in str(error.value)


def test_a_scenario_without_watermarks_says_nothing_of_them():
    assert "watermark" not in tiny().to_toml()


@pytest.mark.slow
def test_as_many_comply_as_are_asked_to_and_more_join(cache):
    world = World(marked(), 1, cache=cache)
    before: set[str] = set()
    for compliance in (0.0, 0.25, 0.5, 0.75, 1.0):
        world.state.scenario = marked(policies__mark__compliance=compliance)
        now = set(watermarking(world.state))
        assert before <= now and len(now) == round(4 * compliance)
        before = now
    few = marked(policies__mark__compliance=0.25)
    assert (
        len({frozenset(watermarking(World(few, seed, cache=cache).state)) for seed in (1, 2, 3, 4)}) > 1
    )  # who complies is chance


def test_a_run_with_a_watermark(tmp_path, cache):
    """Those who comply are found and refused, the others are not; a change of compliance takes effect at its step."""
    change = [{"at": 2, "set": {"policies.mark.compliance": 1.0}}]
    settings = {"trainers__careful__select": ["mark"], "measure__radioactivity": 500, "changes": change, "steps": 2}
    scenario = marked(policies__mark__compliance=0.5, **settings)
    for _ in begin(scenario, out=tmp_path, machine=MACHINE, cache=cache):
        pass
    run = Run.open(folder_of(scenario, tmp_path))
    values = {(s, i, m): v for s, i, m, v in run.metrics.select("step", "id", "metric", "value").iter_rows()}
    names = [f"naive/{i}" for i in range(4)]
    assert [sum(values[t, name, "complies"] for name in names) for t in (1, 2)] == [2, 4]
    assert (1, "careful/0", "complies") not in values
    z = {name: values[1, name, "watermark_z"] for name in [*names, "careful/0"]}
    complying = [name for name in names if values[1, name, "complies"]]
    assert min(z[name] for name in complying) > max(v for name, v in z.items() if name not in complying)
    assert abs(values[0, "human", "watermark_z"]) < min(z[name] for name in complying)
    assert (0, "tiny/initial", "radioactivity_z") in values and (1, "careful/0", "radioactivity_log10_p") in values
    book = run.ledger.filter(pl.col("reader") == "careful/0", pl.col("step") == 1).collect()
    authors = run.documents.select("author", document="doc").collect()
    refused = book.filter(pl.col("verdict") == "mark").join(authors, on="document")["author"]
    assert refused.is_in(complying).mean() > 0.5
