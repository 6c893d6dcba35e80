"""N-gram models: distributions that sum to one and are the counts', and the laws that every cohort obeys."""

from itertools import pairwise, product

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from ecosystem.errors import DataError, EcosystemError, TrainingError
from ecosystem.families.base import FAMILIES, MemberError
from ecosystem.families.language.cohort import CohortSettings, LanguageCohort
from ecosystem.families.language.ngram.cohort import CountCohort
from ecosystem.families.language.ngram.counts import NgramSettings
from ecosystem.families.language.ngram.family import Ngram
from ecosystem.families.requests import Decoding, Prompt, ScoreRequest
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from tests.conftest import MACHINE, tiny
from tests.families_shared import Numbers, build_context, fit_request, generate_request
from tests.test_families_sampling import within

SMOOTHINGS = [{"smoothing": "none"}, {"smoothing": "add_k", "k": 0.3}, {"smoothing": "kneser_ney", "discount": 0.5}]
DOCS = pl.Series(["1 2 3 1 2", "2 2 1", "", "5 1 2 3 4 5 1 2", "1 2"])


class Few(Numbers):
    """Seven tokens, of which 6 never occurs in DOCS; 0 is the end of text."""

    size = 7


def cohort(order=3, members=1, threads=2, human=(), tokenizer=Few, context=24, **fields):
    family = Ngram(
        order=order, vocabulary=300, context=context, **({"init": "foundation" if human else "random"} | fields)
    )
    settings = CohortSettings("model", members, tokenizer(), context)
    ngrams = NgramSettings(order, family.smoothing, family.k, family.discount, family.memory)
    return CountCohort(settings, ngrams, pl.Series(list(human), dtype=pl.String), threads)


def fitted(docs=DOCS, weight=None, **how):
    made = cohort(**how)
    made.fit([fit_request(docs, weight=weight)])
    return made


def after(made, *history, member=0):
    """The distribution from which the next token is drawn after these tokens of a document, shape [vocabulary]."""
    logits = made._decoder([member], 1, 24).begin(torch.tensor([[0, *history]]))
    assert logits.dtype == torch.float32 and torch.isfinite(logits).all()
    return torch.softmax(logits.double(), -1)[0].numpy()


# Distributions.


@pytest.mark.slow
@pytest.mark.parametrize("fields", SMOOTHINGS, ids=lambda fields: fields["smoothing"])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_probabilities_after_every_context_sum_to_one(order, fields):
    """The logits are logarithms of probabilities, so that exp() sums to one; whole and fractional counts."""
    for weight in (None, [1, 0.2, 0.7, 2.5, 1]):
        made = fitted(weight=weight, order=order, **fields)
        for length in (0, 1, 2, 4):
            ids = torch.tensor([[0, *history] for history in product(range(1, 7), repeat=length)])
            logits = made._decoder([0], len(ids), 24).begin(ids)
            torch.testing.assert_close(logits.exp().sum(-1), torch.ones(len(ids)), rtol=0, atol=2e-6)
            assert (logits.exp() > 0).all() or fields["smoothing"] == "none"


def test_order_one_without_smoothing_is_the_frequencies():
    made = fitted(order=1, smoothing="none")
    counts = made.type_counts(DOCS)
    for history in ([], [3], [6, 6]):
        assert after(made, *history) == pytest.approx(counts / counts.sum(), abs=1e-7)


def test_without_smoothing_the_next_token_is_what_followed_and_unseen_contexts_fall_back():
    made = fitted(order=3, smoothing="none")
    follow = {
        (): [1, 2, 1, 0, 0, 1, 0],  # 0: the empty document
        (2,): [0, 0, 1, 0, 0, 0, 0],  # at the beginning of a document
        (1, 2): [3, 0, 0, 2, 0, 0, 0],
        (6, 6): [5, 6, 7, 2, 1, 2, 0],  # never seen: all tokens
        (6, 2): [3, 1, 1, 2, 0, 0, 0],  # never seen: after 2
        (6, 1, 2): [3, 0, 0, 2, 0, 0, 0],  # what came before the last two tokens is forgotten
    }
    for history, counts in follow.items():
        assert after(made, *history) == pytest.approx(np.array(counts) / sum(counts), abs=1e-7), history


def test_add_k_is_laplace():
    made = fitted(order=2, smoothing="add_k", k=0.5)
    assert after(made, 2) == pytest.approx((np.array([3, 1, 1, 2, 0, 0, 0]) + 0.5) / (7 + 7 * 0.5), abs=1e-7)
    assert after(made, 6) == pytest.approx((np.array([5, 6, 7, 2, 1, 2, 0]) + 0.5) / (23 + 7 * 0.5), abs=1e-7)


def test_kneser_ney_by_hand():
    """The documents "1 2" and "1 1" over four tokens, discount 1/2, computed on paper."""

    class Four(Numbers):
        size = 4

    docs = pl.Series(["1 2", "1 1"])
    how = {"docs": docs, "tokenizer": Four, "smoothing": "kneser_ney", "discount": 0.5}
    one, two, three = (fitted(order=order, **how) for order in (1, 2, 3))
    # Counts 2, 3, 1 of 6: each loses 1/2, and 3/2 of 6 are spread over four tokens.
    assert after(one) == pytest.approx(np.array([1.5, 2.5, 0.5, 0]) / 6 + 0.25 / 4)
    # 0 follows two different tokens (1, 2), 1 two (0, 1), 2 one (1): 5 in all.
    unigram = np.array([1.5, 1.5, 0.5, 0]) / 5 + 0.3 / 4
    assert after(two, 3) == pytest.approx(unigram)
    assert after(two, 1) == pytest.approx(np.array([0.5, 0.5, 0.5, 0]) / 3 + 0.5 * unigram)
    assert after(two) == pytest.approx(np.array([0, 1.5, 0, 0]) / 2 + 0.25 * unigram)
    # 1 begins both documents. Every other bigram follows one token only, so that they count alike.
    after_1 = np.array([0.5, 0.5, 0.5, 0]) / 3 + 0.5 * unigram
    first = np.array([0, 1.5, 0, 0]) / 2 + 0.25 * unigram
    assert after(three) == pytest.approx(np.array([0, 1.5, 0, 0]) / 2 + 0.25 * first)
    assert after(three, 1) == pytest.approx(np.array([0, 0.5, 0.5, 0]) / 2 + 0.5 * after_1)
    assert after(three, 3, 1) == pytest.approx(after_1)
    assert after(three, 1, 3) == pytest.approx(unigram)


def test_a_document_of_weight_two_is_the_document_twice():
    for fields in SMOOTHINGS:
        twice = fitted(docs=pl.Series(["1 2 3", "2 2", "1 2 3"]), **fields)
        weighted = fitted(docs=pl.Series(["1 2 3", "2 2", "4"]), weight=[2, 1, 0], **fields)
        for name, array in twice.state().items():
            assert (weighted.state()[name] == array).all()
        docs = pl.Series(["1 2", "4 4"])
        scores = [made.score([ScoreRequest(0, docs)])[0].nll for made in (twice, weighted)]
        assert (scores[0] == scores[1]).all()


# Fits.


def test_a_fit_says_what_it_counted():
    made = cohort(order=2, smoothing="none")
    weight = np.array([1, 1, 0, 2, 1])
    [record] = made.fit([fit_request(DOCS, weight=weight)])
    [score] = made.score([ScoreRequest(0, DOCS.filter(weight > 0))])
    nats, units = score.per_document()
    assert record.tokens == units.sum() == 22
    assert record.loss == pytest.approx(np.average(nats / units, weights=weight[weight > 0] * units))
    assert record.seconds > 0


def test_a_fit_keeps_what_memory_says_of_where_it_starts():
    old, new = np.array([2, 1, 1, 1, 0, 0, 0]), np.array([2, 1, 1, 0, 1, 0, 0])
    for memory, start, expected in (
        (0.0, "foundation", new),
        (0.5, "foundation", new + 0.5 * old),
        (1.0, "foundation", new + old),
        (0.5, "previous", new + 0.5 * (new + 0.5 * old)),
        (1.0, "scratch", new),
    ):
        made = cohort(order=1, memory=memory, human=["1 2", "3"])
        for _ in range(2):
            made.fit([fit_request(pl.Series(["1 2", "4"]), start=start)])
        kept = np.flatnonzero(expected)
        assert made.state()["0/1-grams"].tolist() == kept.tolist()
        assert (made.state()["0/counts"] == expected[kept]).all()


def test_what_is_nearly_forgotten_is_dropped():
    made = cohort(order=1, human=["1 2 3"], memory=0.01)
    for _ in range(4):
        made.fit([fit_request(pl.Series(["4"]), start="previous")])
    assert made.state()["0/1-grams"].tolist() == [0, 4]


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0.0, 1.0], ids=["replace", "accumulate"])
def test_diversity_falls_as_theory_says(memory):
    """400 loops of 20 one-token documents: E H_t = H_0 (1 - 1/n)^t, or H_0 prod(1 - 1/(n i^2)) if batches are pooled.

    Gini-Simpson diversity of the first token, within 4 standard errors (Seddik et al. 2024, theorem 1).
    """
    loops, n, fits = 400, 20, 4
    made = cohort(order=2, members=loops, smoothing="none", memory=memory)
    rng = np.random.default_rng(1)
    p = np.array([0.05, 0.4, 0.25, 0.15, 0.1, 0.05])
    texts = [pl.Series([str(w) if w else "" for w in rng.choice(6, n, p=p)]) for _ in range(loops)]
    for t in range(fits):
        made.fit([fit_request(docs, member, start="previous") for member, docs in enumerate(texts)])
        requests = [
            generate_request(n, Decoding(max_tokens=1), member, name=f"loop/{member}/{t}") for member in range(loops)
        ]
        texts = made.generate(requests)
    ids = torch.zeros(loops, 1, dtype=torch.long)
    q = torch.softmax(made._decoder(range(loops), 1, 24).begin(ids).double(), -1).numpy()
    diversity = 1 - (q**2).sum(1)
    i = np.arange(1, fits + 1)
    expected = (1 - (p**2).sum()) * np.prod(1 - 1 / (n * (i**2 if memory else 1)) * np.ones(fits))
    assert abs(diversity.mean() - expected) < 4 * diversity.std() / np.sqrt(loops)


# Writing and scoring.


@pytest.mark.slow
def test_tokens_follow_the_distribution():
    """20,000 documents: the first token, and the second after the commonest first one; within 4.5 standard errors."""
    made = fitted(smoothing="kneser_ney")
    for temperature in (1.0, 0.6):
        texts = made.generate([generate_request(20_000, Decoding(max_tokens=2, temperature=temperature))])[0]
        first, second = np.array([[*map(int, text.split()), 0, 0][:2] for text in texts]).T
        for found, p in ((first, after(made)), (second[first == 1], after(made, 1))):
            p = p ** (1 / temperature)
            within(np.bincount(found, minlength=7), p / p.sum())


def test_the_impossible_is_never_written():
    made = fitted(order=2, smoothing="none")
    seen = {pair for text in DOCS for pair in pairwise([0, *map(int, text.split()), 0])}
    for decoding in (
        Decoding(max_tokens=20, temperature=3.0),
        Decoding(max_tokens=20, temperature=0.1, repetition_penalty=2.0),
        Decoding(max_tokens=20, top_k=5, top_p=0.99),
    ):
        for text in made.generate([generate_request(300, decoding)])[0]:
            assert set(pairwise([0, *map(int, text.split())])) <= seen


def test_greedy_writing_goes_on_from_prompts_with_the_likeliest_token():
    made = fitted(order=3)
    prompts = pl.Series(["5 1", "6", "", "2 2 1 4"])
    decoding = Decoding(top_k=1, max_tokens=5, prompt=Prompt(tokens=2))
    [texts] = made.generate([generate_request(4, decoding, prompts=prompts)])
    for text, prompt in zip(texts, ("5 1", "6", "", "2 2"), strict=True):
        words = [int(word) for word in prompt.split()]
        for _ in range(5):
            best = int(after(made, *words).argmax())
            if best == 0:
                break
            words.append(best)
        assert text == " ".join(map(str, words))


@pytest.mark.parametrize("fields", SMOOTHINGS, ids=lambda fields: fields["smoothing"])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_scores_are_those_of_the_distribution_that_writes(order, fields):
    """Long documents too, bit for bit as in windows, in which every token sees its whole context."""
    long = " ".join(map(str, np.random.default_rng(0).integers(1, 7, 61)))
    docs = pl.concat([DOCS, pl.Series([long, "6 6 1"])])
    made = fitted(order=order, context=8, **fields)
    [score], [windowed] = made.score([ScoreRequest(0, docs)]), LanguageCohort.score(made, [ScoreRequest(0, docs)])
    assert (score.nll == windowed.nll).all() and (score.offsets == windowed.offsets).all()
    place = 0
    for ids in Few().encode(docs):
        words = [*ids.tolist(), 0]
        for i, word in enumerate(words):
            p = after(made, *words[:i])[word]
            with np.errstate(divide="ignore"):
                assert score.nll[place] == pytest.approx(-np.log(p), rel=2e-6, abs=2e-6)
            assert score.unit[place] == word
            place += 1
    assert place == len(score.nll)
    assert np.isinf(score.nll).any() == (fields["smoothing"] == "none")


def test_initial_is_the_foundation_and_random_is_uniform():
    made = cohort(human=DOCS.to_list(), members=2)
    made.fit([fit_request(pl.Series(["6 6"]), member=1)])
    initial, untouched, changed, chance = made.score([ScoreRequest(m, DOCS) for m in ("initial", 0, 1, "random")])
    assert (initial.nll == untouched.nll).all() and (initial.nll != changed.nll).any()
    assert chance.nll == pytest.approx(np.log(7)) and np.unique(chance.nll).size == 1
    begun = cohort()
    assert begun.score([ScoreRequest("initial", DOCS)])[0].nll == pytest.approx(np.log(7))
    assert len(begun.state()["0/3-grams"]) == 0 and after(begun, 3) == pytest.approx(1 / 7)


# The laws of cohorts.


def work(made, numbers):
    """Let members 0, 1 ... do the fits, the writing and the scoring that go by these numbers; all they say."""
    members = list(enumerate(numbers))
    chance = [np.random.default_rng(number) for number in numbers]
    texts = [pl.Series([" ".join(map(str, rng.integers(1, 7, 9))) for _ in range(40)]) for rng in chance]
    fits = [fit_request(texts[m], m, chance[m].random(40), name=f"fit/{number}") for m, number in members]
    records = made.fit(fits)
    written = made.generate([generate_request(50, member=m, name=f"generate/{number}") for m, number in members])
    scores = made.score([ScoreRequest(m, DOCS) for m, _ in members])
    return [
        (record.tokens, record.loss, text.to_list(), score.nll.tolist())
        for record, text, score in zip(records, written, scores, strict=True)
    ]


@pytest.mark.parametrize("fields", SMOOTHINGS, ids=lambda fields: fields["smoothing"])
def test_a_cohort_is_its_members_alone_for_any_number_of_threads(fields):
    together = cohort(members=3, threads=2, **fields)
    results, state = work(together, [5, 6, 7]), together.state()
    assert len({str(result) for result in results}) == 3
    for m in range(3):
        alone = cohort(threads=1, **fields)
        assert work(alone, [5 + m]) == [results[m]]
        for name in ("3-grams", "counts"):
            assert (alone.state()[f"0/{name}"] == state[f"{m}/{name}"]).all()


def test_what_is_stored_and_loaded_is_the_same_bit_for_bit():
    made, other = cohort(members=3, human=["1 2"]), cohort(members=3)
    work(made, [5, 6])  # the third still has what it began with
    other.load({name: array.copy() for name, array in made.state().items()})
    for name, array in made.state().items():
        assert other.state()[name].tobytes() == array.tobytes() and other.state()[name].dtype == array.dtype
    asked = [generate_request(30, member=m) for m in range(3)]
    assert [t.to_list() for t in other.generate(asked)] == [t.to_list() for t in made.generate(asked)]
    scores = [c.score([ScoreRequest(m, DOCS) for m in range(3)]) for c in (made, other)]
    assert all((a.nll == b.nll).all() for a, b in zip(*scores, strict=True))


def test_counts_of_something_else_are_not_loaded():
    made = fitted(members=2)
    before = made.state()
    keys, counts = before["0/3-grams"], before["0/counts"]
    for state, said in (
        (fitted(members=1).state(), "another number of members"),
        (fitted(members=2, order=2).state(), "0/2-grams"),
        ({**before, "0/counts": counts[1:]}, "those of member 0 are not a list of n-grams with their counts"),
        ({**before, "0/3-grams": keys[::-1].copy()}, "not a list of n-grams"),
        ({**before, "0/3-grams": keys.astype(np.int32)}, "not a list of n-grams"),
        ({**before, "0/3-grams": np.append(keys[:-1], 7**3)}, "member 0 has tokens beyond the vocabulary of 7"),
        ({**before, "0/counts": counts * 0}, "a count of member 0 is not a number above 0"),
        ({**before, "0/counts": counts * np.nan}, "a count of member 0 is not a number above 0"),
    ):
        with pytest.raises(DataError, match=said):
            made.load(state)
    assert all((made.state()[name] == array).all() for name, array in before.items())


def test_a_failed_fit_changes_nothing():
    made = fitted(members=2)
    before = made.state()
    for docs, weight, said in (
        (DOCS[:0], None, "member 1 cannot be trained: there are no documents, so there is nothing to train on"),
        (DOCS, np.zeros(5), "every document has weight 0"),
        (DOCS, [1, 1, -1, 1, 1], "negative or not finite"),
        (DOCS, [1, 1], "5 documents to train on but 2 weights"),
    ):
        with pytest.raises(MemberError, match=said):
            made.fit([fit_request(pl.Series(["1"])), fit_request(docs, 1, weight)])
    with pytest.raises(TrainingError, match=r"lower prompt\.tokens"):
        made.generate([generate_request(2, Decoding(prompt=Prompt(tokens=24)), prompts=DOCS[:2])])
    assert all((made.state()[name] == array).all() for name, array in before.items())


# The family.


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"order": 0}, "greater than or equal to 1"),
        ({"order": 6}, "less than or equal to 5"),
        ({"smoothing": "laplace"}, "'none', 'add_k' or 'kneser_ney'"),
        ({"smoothing": "add_k"}, "give k with"),
        ({"k": 1.0}, "and only with it"),
        ({"smoothing": "none", "discount": 0.5}, "takes no discount"),
        ({"discount": 1.0}, "less than 1"),
        ({"memory": 1.5}, "less than or equal to 1"),
        ({"init": "gpt2"}, "'foundation' or 'random'"),
        ({"vocabulary": 256}, "256 bytes and the end of text"),
        ({"tokenizer": "gpt2"}, "give either vocabulary or tokenizer"),
        ({"context": 3, "order": 4}, "context = 3 is too short for order = 4; give at least 4"),
        ({"order": 5, "vocabulary": 50257}, "order = 5 is too high for a vocabulary of 50257 tokens; give at most 4"),
        ({"n_layer": 3}, "Extra inputs"),
    ],
)
def test_presets_that_do_not_fit_together(fields, said):
    with pytest.raises(ValidationError, match=said):
        Ngram(**({"order": 2, "vocabulary": 300, "context": 24} | fields))


def test_a_tokenizer_with_too_many_tokens_for_the_order_is_a_sentence():
    class Many(Numbers):
        size = 50_000

    with pytest.raises(DataError, match='model "model": order = 5 is too high for a vocabulary of 50000 tokens'):
        cohort(order=5, tokenizer=Many)


def test_a_family_builds_its_cohort_and_borrows_a_tokenizer(tmp_path):
    texts = [f"the {a} sat on the {b}" for a in ("cat", "dog", "cow") for b in ("mat", "log", "bed")]
    place = build_context(human=texts, cache=tmp_path)
    family = Ngram(order=3, vocabulary=280, context=32)
    assert family.starts_pretrained and not family.model_copy(update={"init": "random"}).starts_pretrained
    assert Ngram(**{k: v for k, v in family.plain().items() if k != "kind"}) == family
    made = family.cohort("small", 2, place)
    [written] = made.generate([generate_request(50, Decoding(max_tokens=32))])
    assert written.str.contains("sat on").sum() > 10
    made.save_assets(tmp_path / "assets")
    borrowed = Ngram(order=1, tokenizer=str(tmp_path / "assets"), context=32).cohort("small", 1, place)
    docs = pl.Series(texts)
    assert (borrowed.type_counts(docs) == made.type_counts(docs)).all()
    assert made.fingerprint != borrowed.fingerprint
    assert len(list(tmp_path.glob("*/hashes.json"))) == 2
    with pytest.raises(DataError, match='model "small" is trained from scratch'):
        family.cohort("small", 1, build_context(cache=tmp_path))
    with pytest.raises(EcosystemError, match='a model of kind "ngram" is not a transformers model'):
        family.save_weights(tmp_path, made.state(), 0)


@pytest.mark.parametrize("name", ["unigram", "bigram", "trigram"])
def test_presets_stand_in_for_a_gpt2(name):
    """They read and write in the tokens of gpt2-nano, and score whatever is held out."""
    scenario = tiny(models__tiny__preset=name)
    family = scenario.models["tiny"]
    nano = tiny(models__tiny__preset="gpt2-nano").models["tiny"]
    assert isinstance(family, FAMILIES.get("ngram")) and family.smoothing == "kneser_ney"
    assert (family.vocabulary, family.context, family.init) == (nano.vocabulary, nano.context, nano.init)


@pytest.mark.slow
def test_a_run_is_measured_and_resumed(cache, tmp_path):
    """Two steps of the smoke scenario with a bigram; stopped after the first and resumed, the same files."""
    scenario = tiny(steps=2, models__tiny__preset="bigram", models__tiny__vocabulary=300)
    for _ in begin(scenario, out=tmp_path / "whole", machine=MACHINE, cache=cache):
        pass
    for steps in (1, 2):
        for _ in begin(scenario.override({"steps": steps}), out=tmp_path / "parts", machine=MACHINE, cache=cache):
            pass
    whole, parts = (Run.open(folder_of(scenario, tmp_path / name)) for name in ("whole", "parts"))
    assert parts.environment["resumed"] and not whole.environment["resumed"]
    assert [c.files for c in parts.store.commits()] == [c.files for c in whole.store.commits()]
    rows = whole.metrics.filter(pl.col("metric") == "cross_entropy")
    assert rows["value"].is_finite().all() and rows.filter(pl.col("scope") == "trainer").height >= 6
    reference = dict(rows.filter(pl.col("scope") == "reference").select("id", "value").iter_rows())
    assert reference["tiny/initial"] < reference["tiny/random"]
    with pytest.raises(EcosystemError, match="not a transformers model; its parameters are in weights"):
        whole.model("naive/0")
