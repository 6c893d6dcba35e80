"""Writing and scoring: every draw is the model's, noise is keyed, and nats are those of transformers."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ecosystem.errors import TrainingError
from ecosystem.families.language import generation, scoring
from ecosystem.families.language.gpt2 import transformer
from ecosystem.families.language.gpt2.decoder import Gpt2Decoder
from ecosystem.families.requests import Decoding, Prompt, Score, ScoreRequest
from tests.families_shared import (
    SHAPE,
    STREAMS,
    Numbers,
    cohort,
    documents,
    generate_request,
    in_transformers,
    weights,
)

LOGITS = 3 * torch.randn(64, 70, generator=torch.Generator().manual_seed(3))


# Picking a token.


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 31, 32, 33, 70, 1024])
def test_pick_inverts_the_cumulative_distribution(size):
    """With n evenly spaced numbers a token of probability p is picked n p times, to within rounding: 2 and 1e-5 n."""
    logits = 2 * torch.randn(1, size, generator=torch.Generator().manual_seed(size))
    n = 50_000
    found = generation.pick(torch.softmax(logits, -1).repeat(n, 1), (torch.arange(n)[:, None] + 0.5) / n)
    counts = torch.bincount(found, minlength=size)
    assert (counts - n * torch.softmax(logits[0], -1)).abs().max() <= 2 + 1e-5 * n
    assert (found.diff() >= 0).all()


def test_pick_never_takes_a_refused_token():
    logits = LOGITS.masked_fill(torch.rand(LOGITS.shape, generator=torch.Generator().manual_seed(0)) < 0.9, -torch.inf)
    logits[:, 5] = 0.0  # at least one is left
    logits[3] = -torch.inf
    logits[3, 69] = 0.0
    for u in (1e-12, 0.3, 0.999999, 1 - 2.0**-24):
        found = generation.pick(torch.softmax(logits, -1), torch.full((64, 1), u))
        assert torch.isfinite(logits.gather(1, found[:, None])).all()
    assert found[3] == 69


@pytest.mark.parametrize(
    ("decoding", "processors"),
    [
        (Decoding(temperature=0.7), [TemperatureLogitsWarper(0.7)]),
        (Decoding(top_k=5), [TopKLogitsWarper(5)]),
        (Decoding(top_k=500), []),
        (Decoding(top_p=0.8), [TopPLogitsWarper(0.8)]),
        (Decoding(top_p=1e-6), [TopPLogitsWarper(1e-6)]),
        (Decoding(repetition_penalty=1.3), [RepetitionPenaltyLogitsProcessor(1.3)]),
        (
            Decoding(repetition_penalty=1.3, temperature=1.5, top_k=20, top_p=0.6),
            [
                RepetitionPenaltyLogitsProcessor(1.3),
                TemperatureLogitsWarper(1.5),
                TopKLogitsWarper(20),
                TopPLogitsWarper(0.6),
            ],
        ),
    ],
)
def test_filters_equal_transformers_logits_processors(decoding, processors):
    ids = torch.randint(0, 70, (64, 12), generator=torch.Generator().manual_seed(4))
    seen = torch.zeros(64, 70, dtype=torch.bool).scatter_(1, ids, True)
    theirs = LOGITS.clone()
    for processor in processors:
        theirs = processor(ids, theirs)
    ours = generation.adjust(LOGITS.clone(), decoding, seen)
    assert (ours.isinf() == theirs.isinf()).all()
    torch.testing.assert_close(ours, theirs)


# Writing documents.


@pytest.mark.slow
def test_decoding_with_the_cache_equals_a_whole_forward_pass():
    made = weights()
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 70, (6, SHAPE.context)))
    whole = transformer.logits(made, transformer.hidden(made, SHAPE, ids)).view(6, SHAPE.context, -1)
    for first in (1, 5):
        decoder = Gpt2Decoder(made, SHAPE, 6, SHAPE.context)
        assert (decoder.begin(ids[:, :first]) - whole[:, first - 1]).abs().max() < 1e-4
        rows = torch.arange(6)
        for position in range(first, SHAPE.context):
            if position == 10:
                rows = torch.tensor([1, 4, 5])
                decoder.keep(rows, position)
            found = decoder.step(ids[rows, position], position)
            assert (found - whole[rows, position]).abs().max() < 1e-4


def within(counts, p, errors=4.5):
    """Counts of independent draws agree with probabilities within ``errors`` standard errors, sqrt(n p (1 - p))."""
    n = counts.sum()
    assert (np.abs(counts - n * p) <= errors * np.sqrt(n * p * (1 - p)) + 1e-9).all()


@pytest.mark.slow
@pytest.mark.parametrize("stacks", [False, True])
def test_tokens_follow_the_models_distribution(stacks):
    """20,000 documents: the first token, and the second after the commonest first one; within 4.5 standard errors.

    70 tokens twice: a correct sampler fails one such test in 1000. A sampler that shared its noise between positions
    would give the second token away by the first.
    """
    made = cohort(stacks=stacks, initial=weights(spread=3.0))
    texts = made.generate([generate_request(20_000, Decoding(max_tokens=2))])[0]
    pairs = [[*map(int, text.split()), 0, 0][:2] for text in texts]
    first, second = np.array(pairs).T
    model = in_transformers(made)
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([[0]])).logits[0, -1], -1).numpy()
        common = int(p[1:].argmax()) + 1
        q = torch.softmax(model(torch.tensor([[0, common]])).logits[0, -1], -1).numpy()
    assert 0.02 < p[common] < 0.98 and np.abs(p - q).max() > 0.02
    within(np.bincount(first, minlength=70), p)
    within(np.bincount(second[first == common], minlength=70), q)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [1.0, 1.5])
@pytest.mark.parametrize("prompted", [False, True])
def test_greedy_writing_equals_transformers_generate(penalty, prompted):
    made = cohort(2, initial=weights(spread=2.0))
    state = dict(made.state())
    end = state["transformer.wte.weight"][:, 0]
    state["transformer.ln_f.bias"] += 5.0 * end / (end**2).sum(1, keepdims=True)  # so that some documents end
    made.load(state)
    prompts = documents(12, low=4, high=9) if prompted else None
    decoding = Decoding(
        top_k=1, repetition_penalty=penalty, max_tokens=23, prompt=Prompt(tokens=4) if prompted else None
    )
    (texts,) = made.generate([generate_request(12 if prompted else 2, decoding, member=1, prompts=prompts)])
    model = in_transformers(made, member=1)
    lengths = set()
    for i, text in enumerate(texts):
        start = Numbers().encode(prompts[i : i + 1])[0][:4].tolist() if prompts is not None else []
        out = model.generate(
            torch.tensor([[0, *start]]),
            attention_mask=torch.ones(1, 1 + len(start), dtype=torch.long),
            do_sample=False,
            max_length=SHAPE.context,
            repetition_penalty=penalty,
            eos_token_id=0,
            pad_token_id=0,
        )[0].tolist()[1:]
        theirs = out[: out.index(0)] if 0 in out else out
        ours = [int(word) for word in text.split()]
        assert ours[: len(theirs)] == theirs
        assert len(ours) <= len(theirs) + (0 not in out)  # we also use the last position of the context
        lengths.add(len(ours))
    assert not prompted or len(lengths) > 1


def test_luck_belongs_to_the_document_not_to_the_batch(monkeypatch):
    """The batches' sizes may change the rounding of logits, but not who gets which number."""
    made = cohort()
    (many,) = made.generate([generate_request(300)])
    (few,) = made.generate([generate_request(7)])
    assert many.head(7).to_list() == few.to_list()
    assert many.n_unique() > 290
    monkeypatch.setattr(generation, "_COMPACT_BELOW", 1.0)
    assert made.generate([generate_request(300)])[0].to_list() == many.to_list()
    monkeypatch.setattr(generation, "_COMPACT_BELOW", 0.0)
    assert made.generate([generate_request(300)])[0].to_list() == many.to_list()
    assert made.generate([generate_request(300, name="else")])[0].to_list() != many.to_list()


@pytest.mark.parametrize(
    "decoding", [Decoding(max_tokens=20), Decoding(max_tokens=9, prompt=Prompt(tokens=3), top_p=0.9)]
)
def test_members_write_the_same_alone_together_and_stacked(decoding):
    prompts = documents(40, seed=5) if decoding.prompt else None
    requests = [generate_request(40, decoding, m, prompts) for m in range(3)]
    made, stack = cohort(3), cohort(3, stacks=True)
    state = {name: np.stack([weights(name=f"w{m}")[name].numpy() for m in range(3)]) for name in made.state()}
    made.load(state), stack.load(state)
    together = made.generate(requests)
    assert len({tuple(texts) for texts in together}) == 3
    for request, texts in zip(requests, together, strict=True):
        assert made.generate([request])[0].to_list() == texts.to_list()
    assert [t.to_list() for t in stack.generate(requests)] == [t.to_list() for t in together]


def test_documents_end_with_the_end_of_text_or_the_context():
    made = cohort(initial=weights(spread=0.0))  # nearly uniform over 70 tokens
    (texts,) = made.generate([generate_request(2000, Decoding(max_tokens=10_000))])
    lengths = np.array([len(text.split()) for text in texts])
    assert lengths.max() == SHAPE.context and "0" not in " ".join(texts).split()
    # Ending at once has a probability of about 1/70: 28.6 of 2000, standard error 5.3; tolerance 4.5 of them.
    assert 5 < (lengths == 0).sum() < 53
    assert texts.dtype == pl.String and (texts == "").sum() == (lengths == 0).sum()
    capped = made.generate([generate_request(2000, Decoding(max_tokens=6))])[0]
    assert max(len(text.split()) for text in capped) == 6
    assert [t.split()[:6] for t in texts] == [t.split() for t in capped], "a cap changes no noise"


def test_prompts_are_kept_or_dropped_and_may_be_short():
    made = cohort()
    prompts = pl.Series(["1 2 3 4 5 6 7 8", "9 10", "", "11 12 13 14 15"])
    kept = made.generate([generate_request(4, Decoding(max_tokens=6, prompt=Prompt(tokens=4)), prompts=prompts)])[0]
    dropped = made.generate(
        [generate_request(4, Decoding(max_tokens=6, prompt=Prompt(tokens=4, keep=False)), prompts=prompts)]
    )[0]
    for text, rest, prompt in zip(kept, dropped, ["1 2 3 4", "9 10", "", "11 12 13 14"], strict=True):
        assert text.split() == prompt.split() + rest.split()
        assert len(rest.split()) <= 6
    alone = made.generate([generate_request(1, Decoding(max_tokens=6), name="x")])[0]
    empty = made.generate(
        [generate_request(1, Decoding(max_tokens=6, prompt=Prompt(tokens=4)), prompts=pl.Series([""]), name="x")]
    )[0]
    assert alone.to_list() == empty.to_list()
    full = Decoding(max_tokens=6, prompt=Prompt(tokens=SHAPE.context - 1))
    long = documents(3, low=50, high=60)
    assert {len(t.split()) for t in made.generate([generate_request(3, full, prompts=long)])[0]} <= {23, 24}


def test_prompts_that_cannot_be_are_sentences():
    made = cohort()
    too_long = Decoding(prompt=Prompt(tokens=SHAPE.context))
    with pytest.raises(TrainingError, match=r"do not fit the context of 24; lower prompt.tokens to at most 23"):
        made.generate([generate_request(3, too_long, prompts=documents(3))])
    with pytest.raises(TrainingError, match="but none are given"):
        made.generate([generate_request(3, Decoding(prompt=Prompt(tokens=2)))])
    with pytest.raises(TrainingError, match="but 2 are given"):
        made.generate([generate_request(3, Decoding(prompt=Prompt(tokens=2)), prompts=documents(2))])


def test_broken_weights_are_a_sentence():
    made = cohort()
    made.load({name: values * np.nan for name, values in made.state().items()})
    with pytest.raises(TrainingError, match="no longer finite"):
        made.generate([generate_request(3)])


def test_caches_too_large_for_the_memory_are_cut_into_smaller_batches(monkeypatch):
    made = cohort(2)
    (whole,) = made.generate([generate_request(20)])
    monkeypatch.setattr(
        "ecosystem.families.language.cohort._CACHED_VALUES", {"cpu": 3 * 2 * 2 * 32 * 24}
    )  # of 3 documents
    assert [len(rows) for job in made._pieces([generate_request(20)]) for _, rows in job] == [3, 3, 3, 3, 2, 2, 2, 2]
    assert made.generate([generate_request(20)])[0].to_list() == whole.to_list()


def test_nothing_asked_nothing_done():
    made = cohort()
    assert made.generate([]) == [] and made.score([]) == [] and made.fit([]) == []
    (none,) = made.generate([generate_request(0)])
    assert none.len() == 0 and none.dtype == pl.String
    (score,) = made.score([ScoreRequest(0, pl.Series([], dtype=pl.String))])
    assert score.nll.shape == (0,) and score.offsets.tolist() == [0] and score.per_document()[0].shape == (0,)


# Scoring.


@pytest.mark.slow
def test_scores_equal_transformers_loss():
    made = cohort(2)
    docs = pl.concat([documents(40, high=SHAPE.context - 1), pl.Series(["", "5"])])
    (score,) = made.score([ScoreRequest(1, docs)])
    nats, units = score.per_document()
    model = in_transformers(made, member=1)
    for i, ids in enumerate(Numbers().encode(docs)):
        chain = torch.tensor([[0, *ids.tolist(), 0]])
        with torch.no_grad():
            mean = model(chain, labels=chain).loss.item()
        assert units[i] == len(ids) + 1
        assert nats[i] / units[i] == pytest.approx(mean, rel=1e-5)
        assert score.unit[score.offsets[i] : score.offsets[i + 1]].tolist() == [*ids.tolist(), 0]


@pytest.mark.slow
def test_long_documents_are_scored_in_windows():
    """Every token once; the first window from the start, later ones from at least half a context."""
    made = cohort()
    model = in_transformers(made)
    docs = pl.Series([" ".join(map(str, np.arange(n) % 69 + 1)) for n in (23, 24, 25, 36, 100)])
    (score,) = made.score([ScoreRequest(0, docs)])
    assert np.isfinite(score.nll).all()
    for i, ids in enumerate(Numbers().encode(docs)):
        chain = [0, *ids.tolist(), 0]
        found = score.nll[score.offsets[i] : score.offsets[i + 1]]
        for place in range(len(chain) - 1):
            if place < SHAPE.context:
                first = 0
            elif len(chain) - 1 - SHAPE.context < place - 12:
                continue  # in a last window that was moved back to have more context: checked by its end below
            else:
                first = 12 * ((place - SHAPE.context) // 12 + 1)
            with torch.no_grad():
                log_p = torch.log_softmax(model(torch.tensor([chain[first : place + 1]])).logits[0, -1], -1)
            assert found[place] == pytest.approx(-log_p[chain[place + 1]].item(), abs=1e-4)
        with torch.no_grad():
            last = torch.log_softmax(model(torch.tensor([chain[:-1][-SHAPE.context :]])).logits[0, -1], -1)
        assert found[-1] == pytest.approx(-last[0].item(), abs=1e-4)


@pytest.mark.parametrize("context", [1, 2, 3, 7, 8])
def test_windows_cover_every_token_once(context):
    tokens = [np.arange(1, n + 1, dtype=np.int32) for n in (0, 1, 5, 6, 7, 8, 9, 30)]
    unit, offsets = scoring.units(tokens, 0)
    parts = scoring.windows(unit, offsets, 0, context)
    places = np.concatenate([np.arange(p.place, p.place + len(p.ids) - p.skip) for p in parts])
    assert sorted(places.tolist()) == list(range(len(unit)))
    for part in parts:
        assert 0 < len(part.ids) <= context and 0 <= part.skip < len(part.ids)
        assert (part.targets[:-1] == part.ids[1:]).all()
        assert unit[part.place] == part.targets[part.skip]
        assert part.skip == 0 or part.skip >= context // 2
    for batch in scoring.padded(parts, 10):
        assert (unit[batch.place] == batch.targets[batch.scored]).all()


def test_initial_and_random_weights_can_be_scored():
    made = cohort(2)
    docs = documents(30)
    state = {name: np.zeros_like(values) for name, values in made.state().items()}
    made.load(state)
    member, initial, chance = made.score([ScoreRequest(w, docs) for w in (1, "initial", "random")])
    assert member.nll == pytest.approx(np.log(70), rel=1e-5)
    assert initial.nll.mean() > np.log(70) + 0.1  # wide random weights: confidently wrong
    assert chance.nll.mean() == pytest.approx(np.log(70), abs=0.05) and chance.nll.std() > 0
    again = cohort(2, threads=1).score([ScoreRequest("random", docs)])[0]
    assert (again.nll == chance.nll).all()


def test_scores_depend_neither_on_threads_nor_on_company():
    docs = documents(100)
    (alone,) = cohort(1, threads=1).score([ScoreRequest(0, docs)])
    company = cohort(3, threads=2).score([ScoreRequest(2, docs), ScoreRequest("initial", documents(50, seed=9))])
    assert (company[0].nll == alone.nll).all()


def test_nats_per_document_when_some_have_no_units():
    score = Score(np.array([1.0, 2.0, 4.0]), np.zeros(3, np.int64), np.array([0, 0, 2, 2, 3, 3]))
    nats, units = score.per_document()
    assert nats.tolist() == [0, 3, 0, 4, 0] and units.tolist() == [0, 2, 0, 1, 0]


def test_luck_is_uniform_and_below_one():
    rows = generation.token_noise(STREAMS.at("u"), np.arange(2000), 50)
    assert rows.dtype == np.float32 and rows.min() > 0 and rows.max() < 1
    # Mean of 100,000 uniform numbers: standard error 0.00091; tolerance 4 of them.
    assert abs(rows.mean() - 0.5) < 4 * 0.00091
    assert (generation.token_noise(STREAMS.at("u"), np.array([7]), 20)[0] == rows[7, :20]).all()


def test_the_same_member_may_write_for_several_requests():
    made = cohort()
    requests = [generate_request(5, name="a"), generate_request(5, name="b")]
    a, b = made.generate(requests)
    assert a.to_list() != b.to_list() and made.generate(requests[1:])[0].to_list() == b.to_list()
    with pytest.raises(ValueError, match="each from 0"):
        made.generate([replace(requests[0], member=1)])
