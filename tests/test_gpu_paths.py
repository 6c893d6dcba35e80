"""What GPT-2s compute with on a GPU, computed on a CPU: stacks or members, compiled functions, recorded ones."""

import json

import numpy as np
import pytest
import torch

from ecosystem.families.language import loss
from ecosystem.families.language.gpt2.gpu import choice
from ecosystem.families.language.gpt2.gpu.choice import Choices, Size
from ecosystem.families.language.gpt2.gpu.engine import Engine
from ecosystem.families.language.gpt2.gpu.recording import Compiled, Recorded, record_calls
from ecosystem.families.requests import Decoding, Prompt
from tests.families_shared import (
    SHAPE,
    cohort,
    documents,
    fit_request,
    generate_request,
    weights,
)
from tests.test_families import assert_close

SIZE = Size("train on", 3, 8, 16)
CPU = torch.device("cpu")


def on_gpu(folder, stacked, members=3, **options):
    """A cohort that computes as on a GPU, with the choice already made."""
    made = plain(members)
    made._stacks = True
    made._gpu = Engine(SHAPE, CPU, folder, **{"record": record_calls, **options})
    made._gpu.choices.stacks = lambda size, one, other: stacked
    return made


def plain(members=3):
    made, each = cohort(members), [weights(name=f"w{m}") for m in range(members)]
    made.load({name: np.stack([one[name].numpy() for one in each]) for name in made.state()})
    return made


@pytest.mark.parametrize("stacked", [True, False])
def test_recorded_training_equals_that_of_a_cpu(stacked, tmp_path):
    docs = [documents(12, seed=m) for m in range(3)]
    requests = [fit_request(docs[m], m, np.linspace(0.5, 1.5, 12), start="previous") for m in range(3)]
    ours, theirs = on_gpu(tmp_path, stacked), plain()
    records = ours.fit(requests), theirs.fit(requests)
    np.testing.assert_allclose(*[[record.loss for record in side] for side in records], rtol=1e-4)
    assert_close(ours.state(), theirs.state())


DECODINGS = {
    "plain": Decoding(max_tokens=23),
    "hot, after prompts": Decoding(max_tokens=20, temperature=1.3, prompt=Prompt(tokens=5)),
    "step by step": Decoding(max_tokens=23, top_k=9, repetition_penalty=1.2),
}


@pytest.mark.parametrize("decoding", DECODINGS.values(), ids=list(DECODINGS))
@pytest.mark.parametrize("stacked", [True, False])
def test_a_static_cache_writes_what_a_cpu_writes(decoding, stacked, tmp_path):
    prompts = documents(30, seed=5, low=2) if decoding.prompt else None
    requests = [generate_request(30, decoding, m, prompts) for m in range(3)]
    ours, theirs = on_gpu(tmp_path, stacked), plain()
    assert [t.to_list() for t in ours.generate(requests)] == [t.to_list() for t in theirs.generate(requests)]
    assert all((a.drawn == b.drawn).all() for a, b in zip(ours.written, theirs.written, strict=True))


def test_a_choice_is_measured_once_and_kept(tmp_path, monkeypatch):
    calls, notes = [], []
    times = {"stack": 0.5, "each": 0.2}
    clock = [0.0]

    def work(key):
        def call():
            calls.append(key)
            clock[0] += times[key]

        return call

    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])
    choices = Choices(tmp_path, CPU, SHAPE, notes.append)
    assert [choices.stacks(SIZE, work("stack"), work("each")) for _ in range(2)] == [False, False]
    assert calls == ["stack", "each"] * 4 and len(notes) == 1
    assert notes[0].startswith("3 members are computed one after the other when they train on 8 rows of 16 tokens: 0.5")
    times["stack"] = 0.1  # a resumed run keeps the choice, though a measurement would now give the other
    assert not Choices(tmp_path, CPU, SHAPE, notes.append).stacks(SIZE, work("stack"), work("each"))
    assert len(calls) == 8 and notes[0] == notes[1]
    [file] = (tmp_path / "choices").iterdir()
    file.write_text("{")
    assert Choices(tmp_path, CPU, SHAPE, notes.append).stacks(SIZE, work("stack"), work("each"))
    assert json.loads(file.read_text())["stacked"] == pytest.approx(0.1)


def test_work_that_does_not_fit_the_memory_is_not_chosen(tmp_path):
    def too_much():
        raise torch.OutOfMemoryError

    assert not Choices(tmp_path, CPU, SHAPE, print).stacks(SIZE, too_much, lambda: None)


def test_both_ways_are_measured_on_the_work_itself(tmp_path):
    made = cohort(3, stacks=True)
    made._gpu = Engine(SHAPE, CPU, tmp_path)
    before = {name: values.copy() for name, values in made.state().items()}
    assert made._trains_stacked([made._packed(fit_request(documents(9, seed=m), m)) for m in range(3)]) in (True, False)
    assert all((values == before[name]).all() for name, values in made.state().items()), "a trial trains nothing"
    made.generate([generate_request(4, member=m) for m in range(3)])
    sizes = list(made._gpu.choices._known)
    assert [size.what for size in sizes] == ["train on", "write"] and sizes[1].rows == 4
    notes = made.take_notes()
    assert len(notes) == 2 and all(note.startswith('model "model": 3 members are computed') for note in notes)
    assert made.take_notes() == []


def test_what_cannot_be_compiled_or_recorded_is_computed_as_it_is():
    notes = []

    def refused(function, inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    double = Recorded(lambda x: [2 * x], notes.append, refused)
    assert double(torch.ones(2))[0].tolist() == [2, 2] and double(torch.zeros(3))[0].tolist() == [0, 0, 0]
    compiled = Compiled(lambda x: 2 * x, notes.append)
    compiled._compiled = lambda x: refused(None, x)  # as when it meets what it does not support
    assert compiled(torch.ones(1)).tolist() == [2] and compiled(torch.ones(1)).tolist() == [2]
    assert [note.split(" (")[0] for note in notes] == ["recording a CUDA graph failed", "torch.compile failed"]
    broken = Compiled(lambda x: refused(None, x), notes.append)
    broken._compiled = lambda x: refused(None, x)
    with pytest.raises(RuntimeError, match="capturing"):
        broken(torch.ones(1))


def test_a_recording_gets_new_values_and_other_shapes_are_not_recorded():
    double = Recorded(lambda x: [2 * x], print, record_calls)
    first = double(torch.ones(2))[0]
    assert double(torch.full((2,), 3.0))[0] is first and first.tolist() == [6, 6]
    assert double(torch.ones(3))[0].tolist() == [2, 2, 2] and first.tolist() == [6, 6]


def test_the_loss_of_a_padded_vocabulary_is_that_of_the_vocabulary():
    generator = torch.Generator().manual_seed(0)
    x, table = torch.randn(2, 9, 8, generator=generator), torch.randn(2, 131, 8, generator=generator)
    targets, scale = torch.randint(0, 131, (2, 9), generator=generator), torch.rand(2, 9, generator=generator)
    results = []
    for kernel in (None, loss.softmax_minus_one_hot):
        leaves = [x.clone().requires_grad_(), table.clone().requires_grad_()]
        losses = loss.weighted_loss(*leaves, targets, scale, kernel)
        results.append((losses.detach(), *torch.autograd.grad(losses.sum(), leaves)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler, at itself
def test_compiled_functions_give_the_numbers_of_pytorch(tmp_path):
    requests = [fit_request(documents(12), start="previous")]
    writing = [generate_request(5, Decoding(max_tokens=4))]
    # Everything is traced as for a GPU; generating C++, which a GPU has no use for, would take minutes.
    ours, theirs = on_gpu(tmp_path, True, 1, compiles=True, backend="aot_eager"), plain(1)
    assert ours.generate(writing)[0].to_list() == theirs.generate(writing)[0].to_list()
    ours.fit(requests), theirs.fit(requests)
    assert_close(ours.state(), theirs.state())
    assert ours.take_notes() == [], "nothing failed"
