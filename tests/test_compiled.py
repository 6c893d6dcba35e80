"""Compiled kernels: tokens and gradients of PyTorch, bit for bit; PyTorch where they are not possible."""

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from ecosystem.cache import cache_folder
from ecosystem.families.language.gpt2 import cohort as gpt2_cohort
from ecosystem.families.language.gpt2 import compiled, compiled_training, kernels
from ecosystem.families.language.gpt2.compiled import CompiledDecoder
from ecosystem.families.language.gpt2.decoder import Gpt2Decoder
from ecosystem.families.language.gpt2.shape import Shape
from ecosystem.families.requests import Budget, Decoding, Prompt
from ecosystem.families.training_spec import Objective
from ecosystem.simulation.world import World
from ecosystem.sources.python_docs import PythonDocs
from tests.conftest import tiny
from tests.families_shared import cohort, documents, fit_request, generate_request, weights

SHAPE = Shape(n_layer=2, n_embd=64, n_head=2, vocabulary=70, context=60, n_inner=128)

here = pytest.mark.skipif(kernels.library() is None, reason="no compiler, or a PyTorch without MKL")


@pytest.fixture(autouse=True)
def one_compute_thread():
    """Compute as a worker of a pool does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def without_compiler(monkeypatch):
    """Decode with PyTorch."""
    monkeypatch.setattr(gpt2_cohort, "usable", lambda weights, shape: False)


@here
@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        SHAPE,
        replace(SHAPE, n_head=1),
        replace(SHAPE, n_head=4),
        replace(SHAPE, n_embd=128, n_head=4, n_inner=512, vocabulary=300, context=140),
        replace(SHAPE, n_embd=48, n_head=3, n_layer=1, n_inner=96),
    ],
)
@pytest.mark.parametrize("rows", [3, 7])
def test_logits_are_those_of_pytorch_bit_for_bit(shape, rows):
    made = weights(shape)
    assert compiled.usable(made, shape)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 70, (rows, shape.context)))
    with torch.inference_mode():
        ours, theirs = (kind(made, shape, rows, shape.context) for kind in (CompiledDecoder, Gpt2Decoder))
        first = 1 + rows % 2 * 8
        assert torch.equal(ours.begin(ids[:, :first]), theirs.begin(ids[:, :first]))
        kept = torch.arange(rows)
        for position in range(first, shape.context):
            if position == 20 and rows > 3:
                kept = kept[1::2]
                ours.keep(kept, position)
                theirs.keep(kept, position)
            found = ours.step(ids[kept, position], position)
            assert torch.equal(found, theirs.step(ids[kept, position], position))


DECODINGS = [
    Decoding(max_tokens=100),
    Decoding(max_tokens=20, temperature=0.7),
    Decoding(max_tokens=100, top_k=5),
    Decoding(max_tokens=100, top_p=0.9, repetition_penalty=1.2),
]


def written(requests):
    made = cohort(2, SHAPE, initial=weights(SHAPE))
    return made.tokens(requests)


def requests_of(decoding, n=60):
    prompts = documents(n, 5, low=0, high=12) if decoding.prompt else None
    return [replace(generate_request(n, decoding, member), prompts=prompts) for member in (0, 1)]


@here
@pytest.mark.slow
@pytest.mark.parametrize("decoding", [*DECODINGS, Decoding(max_tokens=30, prompt=Prompt(tokens=9))], ids=range(5))
def test_tokens_are_those_of_pytorch(decoding, monkeypatch):
    used, advance = [], CompiledDecoder.advance

    def counted(self, *arguments):
        used.append(1)
        advance(self, *arguments)

    monkeypatch.setattr(CompiledDecoder, "advance", counted)
    ours = written(requests_of(decoding))
    monkeypatch.setattr(gpt2_cohort, "usable", lambda weights, shape: False)
    assert bool(used) == (decoding.top_k is None and decoding.top_p is None)
    assert ours == written(requests_of(decoding))
    assert len({len(text) for text in ours[0]}) > 5  # documents end at different positions


@pytest.mark.slow
def test_a_document_does_not_depend_on_the_others():
    texts = written(requests_of(Decoding(max_tokens=100)))[0]
    for n in (1, 3, 40):
        assert written(requests_of(Decoding(max_tokens=100), n))[0] == texts[:n]


@pytest.mark.slow
def test_nor_with_pytorch(without_compiler):
    test_a_document_does_not_depend_on_the_others()


def rows_of(shape, rows, length=None):
    generator, size = torch.Generator().manual_seed(3), (rows, length or shape.context)
    inputs, targets = (torch.randint(0, shape.vocabulary, size, generator=generator) for _ in range(2))
    return inputs, targets, torch.rand(size, generator=generator)


WIDE = replace(SHAPE, n_embd=128, n_head=4, n_inner=512, vocabulary=1000, context=128)


@here
@pytest.mark.slow
@pytest.mark.parametrize("length", [48, 128])
@pytest.mark.parametrize(
    "shape", [replace(SHAPE, context=128), replace(SHAPE, n_head=1, n_layer=3, context=128, vocabulary=2048), WIDE]
)
def test_gradients_are_those_of_pytorch_bit_for_bit(shape, length, monkeypatch):
    made, calls = weights(shape), []
    compute = compiled_training._compiled_gradients
    monkeypatch.setattr(compiled_training, "_compiled_gradients", lambda *given: calls.append(1) or compute(*given))
    totals = [None, None]
    for rows in (8, 3):  # the second part is added to the first
        part = rows_of(shape, rows, length)
        (loss, totals[0]), (plain, totals[1]) = (
            function(made, shape, part, total)
            for function, total in zip(
                (compiled_training.gradients, compiled_training.plain_gradients), totals, strict=True
            )
        )
        assert torch.equal(loss, plain)
        assert all(map(torch.equal, *totals))
    assert len(calls) >= 2


@pytest.mark.parametrize(
    "case", ["odd length", "long", "mostly unscored", "two threads", "narrow heads", "large vocabulary", "objective"]
)
def test_pytorch_computes_gradients_where_the_kernels_do_not_fit(case, monkeypatch):
    monkeypatch.setattr(compiled_training, "_compiled_gradients", lambda *given: pytest.fail("compiled"))
    shape = {
        "narrow heads": replace(SHAPE, n_head=8),
        "large vocabulary": replace(SHAPE, vocabulary=20_000),
        "long": replace(SHAPE, context=160),
    }.get(case, replace(SHAPE, context=32))
    inputs, targets, scale = rows_of(shape, 2, 31 if case == "odd length" else None)
    if case == "mostly unscored":
        scale[:, 10:] = 0
    if case == "two threads":
        torch.set_num_threads(2)
    made = weights(shape)
    objective = Objective("focal", 2.0) if case == "objective" else None
    _, grads = compiled_training.gradients(made, shape, (inputs, targets, scale), None, objective)
    assert [g.shape for g in grads] == [w.shape for w in made.values()]


@here
@pytest.mark.slow
def test_a_fit_is_that_of_pytorch_bit_for_bit(monkeypatch):
    shape, fitted, calls = replace(SHAPE, context=64), [], []
    compute = compiled_training._compiled_gradients
    monkeypatch.setattr(compiled_training, "_compiled_gradients", lambda *given: calls.append(1) or compute(*given))
    for _ in range(2):
        made = cohort(3, shape)
        made.fit([fit_request(documents(60, seed), seed, budget=Budget(tokens=3000)) for seed in range(3)])
        fitted.append(made.state())
        monkeypatch.setattr(kernels, "library", lambda: None)  # the second time
    assert calls
    assert fitted[0].keys() == fitted[1].keys()
    assert all(np.array_equal(fitted[0][name], fitted[1][name]) for name in fitted[0])


@here
def test_gradients_of_other_bits_are_not_used(monkeypatch):
    compute = compiled_training._compiled_gradients

    def altered(*given):
        losses, grads = compute(*given)
        grads[0][0, 0] = torch.nextafter(grads[0][0, 0], torch.tensor(9.0))
        return losses, grads

    assert compiled_training._same_bits.__wrapped__(SHAPE, 32)
    monkeypatch.setattr(compiled_training, "_compiled_gradients", altered)
    assert not compiled_training._same_bits.__wrapped__(SHAPE, 32)


def test_without_a_compiler_pytorch_decodes(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert kernels._load.__wrapped__() is None


@here
def test_the_compiler_may_have_options(monkeypatch):
    built = []
    monkeypatch.setenv("CXX", "c++ -O2 '-DNAME=two words'")
    monkeypatch.setattr(kernels, "_build", lambda *arguments: built.append(arguments) or kernels.library()._name)
    assert kernels._load.__wrapped__() is not None
    assert built[0][0] == [shutil.which("c++"), "-O2", "-DNAME=two words"]
    monkeypatch.setenv("CXX", "c++ '")
    assert kernels._load.__wrapped__() is None


@pytest.mark.slow
def test_a_compiler_that_fails_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "_commands", lambda *arguments: ([["false"]], ["true"]))
    assert kernels._load.__wrapped__() is None
    assert not list(tmp_path.rglob("*.so"))


def test_kernels_are_compiled_while_sources_are_read(monkeypatch, cache):
    prepared = threading.Event()
    monkeypatch.setattr(kernels, "library", prepared.set)
    original = PythonDocs.open

    def opened(source, *arguments):
        assert prepared.wait(60)
        return original(source, *arguments)

    monkeypatch.setattr(PythonDocs, "open", opened)
    World(tiny(), cache=cache)


@pytest.mark.parametrize(("preset", "device"), [("gpt2-nano", "cuda"), ("gpt2", "cpu"), ("trigram", "cpu")])
def test_kernels_that_are_not_used_are_not_compiled(preset, device, monkeypatch):
    monkeypatch.setattr(kernels, "prepare", lambda: pytest.fail("compiled"))
    tiny(models__tiny__preset=preset).models["tiny"].prepare(device)


@here
@pytest.mark.slow
def test_a_damaged_library_is_compiled_again(monkeypatch, tmp_path):
    compiler, instructions = shutil.which("c++"), torch.backends.cpu.get_cpu_capability()
    path = kernels._build([compiler], instructions)  # whole, from the cache that tests share
    damaged = tmp_path / path.relative_to(cache_folder())
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    shutil.copy(path.with_suffix(".sha256"), damaged.parent)
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(tmp_path))
    assert kernels._build([compiler], instructions) == damaged
    assert damaged.stat().st_size == path.stat().st_size


@here
@pytest.mark.slow
def test_kernels_of_other_bits_are_not_used(monkeypatch):
    step = CompiledDecoder.step
    monkeypatch.setattr(
        CompiledDecoder, "step", lambda self, ids, t: torch.nextafter(step(self, ids, t), torch.ones(1))
    )
    assert not compiled._same_bits.__wrapped__(SHAPE)
