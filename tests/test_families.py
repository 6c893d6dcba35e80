"""GPT-2 on our engine: the same mathematics as transformers, and cohorts that are nothing but their members."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from ecosystem.errors import TrainingError
from ecosystem.families.language import loss
from ecosystem.families.language.gpt2 import transformer
from ecosystem.families.language.gpt2.shape import Shape
from ecosystem.families.language.packing import Packing
from ecosystem.families.requests import Budget, ScoreRequest
from ecosystem.families.training_spec import Foundation, Objective, Training, learning_rate
from tests.families_shared import (
    PLAIN,
    SHAPE,
    STREAMS,
    Numbers,
    cohort,
    documents,
    fit_request,
    generate_request,
    in_transformers,
    largest_difference,
    weights,
)

IDS = torch.from_numpy(np.random.default_rng(0).integers(0, SHAPE.vocabulary, (5, SHAPE.context)))


def stacked(members=3):
    made = [weights(name=f"w{m}") for m in range(members)]
    return made, {name: torch.stack([one[name] for one in made]) for name in made[0]}


def assert_close(a, b):
    """Trained parameters agree to 1e-5; one in a thousand may be further apart, never by a third of a step of 3e-3.

    AdamW divides by the size of a gradient, so that where it is as good as zero rounding decides. The gradient by a
    key's bias is zero, for the softmax is the same whatever is added to all scores: it is left out.
    """
    apart = []
    for name in a:
        values = np.abs(a[name] - b[name])
        if name.endswith("c_attn.bias"):
            values = np.delete(values, np.s_[SHAPE.n_embd : 2 * SHAPE.n_embd], axis=-1)
        apart.append(values.ravel())
    apart = np.concatenate(apart)
    assert (apart > 1e-5).mean() < 1e-3 and apart.max() < 1e-3


# The same mathematics as transformers.


@pytest.mark.slow
def test_logits_equal_those_of_transformers():
    made = cohort()
    with torch.no_grad():
        ours = transformer.logits(made.weights.initial, transformer.hidden(made.weights.initial, SHAPE, IDS)).view(
            *IDS.shape, -1
        )
        theirs = in_transformers(made)(IDS).logits
    assert theirs.abs().max() > 1
    assert (ours - theirs).abs().max() < 1e-4


def test_logits_of_a_stack_equal_those_of_its_members():
    made, stack = stacked()
    ids = torch.stack([IDS, IDS.flip(0), IDS.flip(1)])
    together = transformer.logits(stack, transformer.hidden(stack, SHAPE, ids))
    for m, one in enumerate(made):
        assert (together[m] - transformer.logits(one, transformer.hidden(one, SHAPE, ids[m]))).abs().max() < 1e-5


@pytest.mark.parametrize("members", [1, 3])
def test_chunked_loss_and_its_gradients_equal_pytorchs(members, monkeypatch):
    monkeypatch.setitem(loss._CHUNK, "cpu", 70 * 16 * members)  # several chunks, the last one shorter
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(members, 50, 32, generator=generator, requires_grad=True)
    table = torch.randn(members, 70, 32, generator=generator, requires_grad=True)
    targets = torch.randint(0, 70, (members, 50), generator=generator)
    scale = torch.rand(members, 50, generator=generator)
    if members == 1:
        x, table, targets, scale = (t.detach().squeeze(0) for t in (x, table, targets, scale))
        x.requires_grad_(), table.requires_grad_()
    ours = loss.weighted_loss(x, table, targets, scale)
    nll = torch.nn.functional.cross_entropy((x @ table.mT).flatten(0, -2), targets.flatten(), reduction="none")
    theirs = (nll.view_as(scale) * scale).sum(-1)
    torch.testing.assert_close(ours, theirs)
    for mine, right in zip(
        torch.autograd.grad(ours.sum(), [x, table]), torch.autograd.grad(theirs.sum(), [x, table]), strict=True
    ):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)
    if members == 1:
        with torch.no_grad():
            torch.testing.assert_close(loss.token_nll(x, table, targets), nll)


@pytest.mark.parametrize("objective", [Objective("truncated", 0.6), Objective("focal", 2.0), Objective("focal", 0.5)])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kernel", [None, loss.softmax_minus_one_hot])
def test_gradients_of_objectives_equal_those_of_their_formulas(kernel, members, objective, monkeypatch):
    monkeypatch.setitem(loss._CHUNK, "cpu", 20 * 16 * members)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(members, 50, 8, generator=generator, requires_grad=True)
    table = torch.randn(members, 20, 8, generator=generator, requires_grad=True)
    targets = (x @ table.mT).argmax(-1)  # likely ones, and a few others
    targets[:, ::7] = 3
    scale = torch.rand(members, 50, generator=generator)
    ours = loss.weighted_loss(x, table, targets, scale, kernel, objective)
    p = torch.softmax(x @ table.mT, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if objective.kind == "truncated":
        assert 0.2 < (p > objective.gamma).float().mean() < 0.8
        factor = (p <= objective.gamma).float()
    else:
        factor = (1 - p) ** objective.gamma
    theirs = -(factor * p.log() * scale).sum(-1)
    torch.testing.assert_close(ours, theirs)
    for mine, right in zip(
        torch.autograd.grad(ours.sum(), [x, table]), torch.autograd.grad(theirs.sum(), [x, table]), strict=True
    ):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)


def test_an_objective_is_finite_for_targets_that_are_certain_or_impossible():
    for objective in (Objective("truncated", 0.99), Objective("focal", 0.5), Objective("focal", 2.0)):
        for kernel in (None, loss.softmax_minus_one_hot):
            x = torch.tensor([[200.0], [200.0]], requires_grad=True)
            losses = loss.weighted_loss(
                x, torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]), torch.ones(2), kernel, objective
            )
            (gradient,) = torch.autograd.grad(losses, x)
            assert losses > 80 and torch.isfinite(losses) and gradient[0] == 0
            assert gradient[1] == pytest.approx(2.0)  # that of cross-entropy: p is 0


def test_a_truncated_fit_leaves_what_the_model_is_sure_of():
    docs = pl.Series([" ".join(map(str, range(1, 9)))] * 8)
    request = fit_request(docs, budget=Budget(tokens=20_000))
    losses = {}
    for objective, gamma in (("cross_entropy", None), ("truncated", 0.6), ("focal", 4.0)):
        made = cohort(training=PLAIN.model_copy(update={"objective": objective, "gamma": gamma}))
        made.fit([request])
        losses[objective] = made.score([ScoreRequest(0, docs)])[0].nll.mean()
    assert losses["cross_entropy"] < 0.05  # one document, learnt by heart
    assert 0.1 < losses["truncated"] < -np.log(0.6)
    assert losses["cross_entropy"] < losses["focal"]


def test_an_objective_with_a_gamma_that_it_lacks_is_refused():
    assert Training(objective="cross_entropy") == Training() and "objective" not in Training().plain()
    assert Training(objective="truncated").loss == Objective("truncated", 0.99)
    assert Training(objective="focal").loss == Objective("focal", 2.0)
    for values in ({"gamma": 0.9}, {"objective": "truncated", "gamma": 1.1}, {"objective": "focal", "gamma": 0.0}):
        with pytest.raises(ValidationError, match="gamma"):
            Training(**values)
    own = Foundation().training(Training(objective="focal", gamma=1.0))
    assert own.loss is None and own.plain() == Foundation().training(Training()).plain()


@pytest.mark.slow
@pytest.mark.parametrize("stacks", [False, True])
def test_optimiser_steps_equal_those_of_transformers_and_pytorch(stacks):
    training = Training(batch=4, learning_rate=3e-3, schedule="constant", warmup=0.0, weight_decay=0.1, clip=0.5)
    made = cohort(training=training, stacks=stacks)
    model = in_transformers(made)
    request = fit_request(documents(30), budget=Budget(tokens=3 * 4 * SHAPE.context))
    packing = Packing(
        Numbers().encode(request.docs),
        request.weight,
        0,
        SHAPE.context,
        4,
        request.budget,
        request.stream.child("order"),
    )
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95), eps=1e-8)
    clipped = 0
    for batch in packing:
        logits = model(torch.from_numpy(batch.inputs)).logits
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten())
        optimiser.zero_grad()
        nll.backward()
        clipped += float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)) > 0.5
        optimiser.step()
    made.fit([request])
    after = {name: p.detach().numpy()[None] for name, p in model.named_parameters()}
    assert clipped == 3
    assert largest_difference(made.state(), cohort(training=training).state()) > 5e-3
    assert_close(made.state(), after)


def test_scratch_weights_have_gpt2s_spread():
    """The standard deviation of n normal draws has a standard error of sigma / sqrt(2 n); tolerance 4 of them."""
    shape = Shape(n_layer=3, n_embd=64, n_head=4, vocabulary=300, context=32, n_inner=256)
    from ecosystem.families.language.gpt2.cohort import draw

    drawn = draw(shape, STREAMS.at("scratch"))
    assert list(drawn) == list(shape.parameters())
    for name, tensor in drawn.items():
        if ".ln_" in name:
            assert (tensor == (1.0 if name.endswith("weight") else 0.0)).all()
        elif name.endswith("bias"):
            assert (tensor == 0).all()
        else:
            std = 0.02 / 6**0.5 if name.endswith("c_proj.weight") else 0.02
            assert abs(tensor.std().item() - std) < 4 * std / (2 * tensor.numel()) ** 0.5
    model = in_transformers(cohort(shape=shape, initial=drawn))
    assert sum(p.numel() for p in model.parameters()) == shape.count()


def test_learning_rates_follow_the_schedule():
    training = Training(schedule="cosine", warmup=0.1)
    rates = [learning_rate(training, 1.0, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.5) and 0 < rates[99] < 0.01
    assert learning_rate(replace_schedule(training), 1.0, 99, 100) == 1.0
    assert learning_rate(training, 2.0, 0, 1) == 2.0


def replace_schedule(training):
    return training.model_copy(update={"schedule": "constant"})


# A cohort is nothing but its members.


def requests_for(members, tokens=300):
    return [fit_request(documents(12, seed=m), m, budget=Budget(tokens=tokens), start="scratch") for m in members]


@pytest.mark.slow
def test_a_cohort_equals_cohorts_of_one_bit_for_bit():
    """On a CPU: whatever the number of members, of requests in the call, and of threads."""
    training = replace_batch(PLAIN, 130)  # batches of several parts
    reference = {}
    for m in range(3):
        alone = cohort(1, training=training, threads=1)
        request = replace(requests_for([m], tokens=5000)[0], member=0)
        alone.fit([request])
        reference[m] = alone.state()
    for threads in (1, 2, 3):
        together = cohort(3, training=training, threads=threads)
        together.fit(requests_for([2, 0, 1], tokens=5000))
        for m in range(3):
            for name, values in together.state().items():
                assert (values[m] == reference[m][name][0]).all()


def replace_batch(training, batch):
    return training.model_copy(update={"batch": batch})


def test_stacked_training_equals_one_by_one():
    """The same sums in another order. Members with other numbers of steps are in other stacks."""
    side, stack = cohort(4), cohort(4, stacks=True)
    requests = [*requests_for([0, 1], 500), *requests_for([3], 700), fit_request(pl.Series(["5 6"]), 2)]
    records = side.fit(requests), stack.fit(requests)
    assert largest_difference(side.state(), cohort(4).state()) > 1e-2
    assert_close(side.state(), stack.state())
    for one, other in zip(*records, strict=True):
        assert (one.tokens, other.tokens) == (other.tokens, one.tokens)
        assert one.loss == pytest.approx(other.loss, abs=1e-4)


def test_fit_changes_only_the_members_asked_for():
    made = cohort(3)
    before = made.state()
    made.fit([fit_request(documents(10), 1)])
    after = made.state()
    for name in before:
        assert (before[name][[0, 2]] == after[name][[0, 2]]).all()
    assert largest_difference(before, after) > 1e-3


def test_where_a_fit_starts():
    made = cohort(1)
    request = fit_request(documents(10), start="foundation")
    made.fit([request])
    first = made.state()
    made.fit([request])
    assert largest_difference(first, made.state()) == 0
    made.fit([replace(request, start="previous")])
    assert largest_difference(first, made.state()) > 1e-3
    made.fit([replace(request, start="scratch")])
    scratch = made.state()
    other = cohort(1, initial=weights(name="others"))
    other.fit([replace(request, start="scratch")])
    assert largest_difference(scratch, other.state()) == 0


def test_state_is_a_copy_and_load_restores_it():
    made = cohort(2)
    made.fit(requests_for([0, 1]))
    state = made.state()
    again = cohort(2)
    again.load(state)
    assert largest_difference(state, again.state()) == 0
    made.fit(requests_for([0, 1], 900))
    assert largest_difference(state, again.state()) == 0
    assert largest_difference(state, made.state()) > 0
    from ecosystem.errors import DataError

    with pytest.raises(DataError, match="another preset or another number of members"):
        cohort(3).load(state)


SCRIPT = """
import hashlib, sys
from tests.families_shared import *
made = cohort(3, threads=int(sys.argv[1]))
made.fit([fit_request(documents(20, seed=m), m, budget=Budget(tokens=2000)) for m in range(3)])
texts = made.generate([generate_request(20, member=m) for m in range(3)])
digest = hashlib.sha256(b"".join(v.tobytes() for v in made.state().values()))
digest.update("|".join(t for s in texts for t in s.to_list()).encode())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_same_numbers_in_separate_processes():
    found = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT, threads], capture_output=True, text=True, check=True, env=os.environ
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1


# What a fit sees.


def packing(docs, weight=None, budget=None, context=8, batch=4):
    tokens = Numbers().encode(pl.Series(docs))
    weight = np.ones(len(docs)) if weight is None else np.array(weight, dtype=float)
    return Packing(tokens, weight, 0, context, batch, budget or Budget(epochs=1), STREAMS.at("order"))


def test_every_epoch_holds_every_document_once_in_another_order():
    docs = [f"{10 * i + 1} {10 * i + 2} {10 * i + 3}" for i in range(6)]
    batches = list(packing(docs, budget=Budget(epochs=3), context=8, batch=2))
    chain = np.concatenate([b.targets.ravel()[: b.tokens] for b in batches])
    epochs = [[tuple(doc) for doc in epoch.reshape(6, 4)] for epoch in chain.reshape(3, 24)]
    whole = {(10 * i + 1, 10 * i + 2, 10 * i + 3, 0) for i in range(6)}
    assert all(set(epoch) == whole for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    inputs = np.concatenate([b.inputs.ravel()[: b.tokens] for b in batches])
    assert inputs[0] == 0 and (inputs[1:] == chain[:-1]).all()


def test_budgets_are_met_to_the_token():
    docs = ["1 2 3 4", "5 6", "7"]  # 10 tokens with their ends
    for budget, tokens in ((Budget(tokens=77), 77), (Budget(epochs=2.5), 25), (Budget(tokens=3), 3)):
        made = packing(docs, budget=budget)
        batches = list(made)
        assert made.total == tokens == sum(b.tokens for b in batches) and made.steps == len(batches)
        assert sum((b.weight > 0).sum() for b in batches) == tokens
    record = cohort().fit([fit_request(documents(5), budget=Budget(tokens=1001))])[0]
    assert record.tokens == 1001 and np.isfinite(record.loss) and record.seconds > 0


def test_training_sets_shorter_than_a_block():
    made = packing(["5 6"], budget=Budget(epochs=10), context=100)
    assert made.length == 3
    records = cohort().fit([fit_request(pl.Series([""]), budget=Budget(epochs=3))])
    assert records[0].tokens == 3


def gradient(docs, weight):
    """Gradient of the loss over one epoch in one batch, as a vector."""
    made = packing(docs, weight, context=3, batch=1000)
    (batch,) = made
    initial = cohort().weights.initial
    rows = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets), torch.from_numpy(batch.weight)
    _, grads = cohort()._gradients(initial)((rows[0], rows[1], rows[2] / batch.tokens))
    return torch.cat([g.flatten() for g in grads])


def test_weights_of_documents_are_respected():
    """Documents of 2 tokens and their end, blocks of 3: every block is a document, whatever their order."""
    docs = ["1 2", "3 4", "5 6"]
    assert torch.allclose(gradient(docs, [1, 0, 1]), gradient(["1 2", "5 6"], [1, 1]), atol=1e-6)
    assert torch.allclose(gradient(docs, [2, 2, 4]), gradient([*docs, "5 6"], [1, 1, 1, 1]), atol=1e-6)
    assert not torch.allclose(gradient(docs, [1, 1, 1]), gradient(docs, [1, 1, 2]), atol=1e-3)


def test_a_document_of_weight_zero_might_as_well_not_be_there():
    docs = documents(8)
    one, other = cohort(), cohort()
    one.fit([fit_request(docs, weight=[1, 1, 1, 0, 1, 1, 1, 0])])
    other.fit([fit_request(docs.gather([0, 1, 2, 4, 5, 6]))])
    assert largest_difference(one.state(), other.state()) == 0


@pytest.mark.slow
def test_weights_pull_the_model_towards_heavier_documents():
    docs = pl.Series(["1 2 3 4"] * 10 + ["5 6 7 8"] * 10)
    made = cohort()
    made.fit([fit_request(docs, weight=[9] * 10 + [1] * 10, budget=Budget(tokens=20_000))])
    nats, _ = made.score([ScoreRequest(0, pl.Series(["1 2 3 4", "5 6 7 8"]))])[0].per_document()
    assert nats == pytest.approx(-np.log([0.9, 0.1]), abs=0.3)  # the training optimum; not an estimate


# Errors.


@pytest.mark.parametrize(
    ("docs", "weight", "said"),
    [
        ([], [], "there are no documents"),
        (["1", "2"], [0, 0], "every document has weight 0"),
        (["1", "2"], [1, -1], "negative or not finite"),
        (["1", "2"], [1, np.nan], "negative or not finite"),
    ],
)
def test_nothing_to_train_on_is_a_sentence(docs, weight, said):
    docs = pl.Series(docs, dtype=pl.String)
    with pytest.raises(TrainingError, match=f"member 1 cannot be trained: .*{said}") as error:
        cohort(2).fit([fit_request(docs, member=1, weight=weight)])
    assert error.value.member == 1


@pytest.mark.parametrize("stacks", [False, True])
def test_a_loss_that_is_not_finite_names_member_and_step(stacks):
    made = cohort(3, stacks=stacks)
    good = made.state()
    state = dict(made.state())
    state["transformer.wpe.weight"][2] = np.nan
    made.load(state)
    requests = [fit_request(documents(5, seed=m), m, start="previous") for m in range(3)]
    with pytest.raises(TrainingError, match=r"the loss of member 2 is not a finite number at step 1 of 5 .*lower") as e:
        made.fit(requests)
    assert e.value.member == 2
    after = made.state()
    assert all((after[name][:2] == good[name][:2]).all() for name in good), "the others keep the weights they had"


def test_exploding_learning_rates_are_noticed():
    with pytest.raises(TrainingError, match="not a finite number"):
        cohort().fit([fit_request(documents(30), rate=1e30, budget=Budget(tokens=20_000))])


def test_a_fit_stops_when_progress_is_interrupted():
    calls = []

    def press_ctrl_c(what, done, total):
        calls.append((what, done, total))
        if done:
            raise KeyboardInterrupt

    made = cohort(2)
    before = made.state()
    with pytest.raises(KeyboardInterrupt):
        made.fit([fit_request(documents(50), m, budget=Budget(tokens=10_000_000)) for m in range(2)], press_ctrl_c)
    assert calls[-1][0] == "fit" and 0 < calls[-1][1] < calls[-1][2] == 20_000_000
    assert largest_difference(before, made.state()) == 0


def test_progress_counts_tokens_in_the_calling_thread():
    import threading

    seen = []
    made = cohort(3)
    docs = documents(30)
    made.fit(
        [fit_request(docs, m, budget=Budget(tokens=3000)) for m in range(3)],
        lambda *at: seen.append((threading.current_thread(), at)),
    )
    made.generate([generate_request(9, member=m) for m in range(3)], lambda *at: seen.append((None, at)))
    assert all(thread in (threading.main_thread(), None) for thread, _ in seen)
    assert ("fit", 9000, 9000) in [at for _, at in seen]
    assert ("generate", 3 * 9 * 23, 3 * 9 * 23) in [at for _, at in seen]
