"""Compiled decoding: the tokens of PyTorch, bit for bit, whatever the batch; PyTorch where it is not possible."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ecosystem.families.language.gpt2 import cohort as gpt2_cohort
from ecosystem.families.language.gpt2 import compiled
from ecosystem.families.language.gpt2.compiled import CompiledDecoder
from ecosystem.families.language.gpt2.decoder import Gpt2Decoder
from ecosystem.families.language.gpt2.shape import Shape
from ecosystem.families.requests import Decoding, Prompt
from tests.families_shared import cohort, documents, generate_request, weights

SHAPE = Shape(n_layer=2, n_embd=64, n_head=2, vocabulary=70, context=60, n_inner=128)

here = pytest.mark.skipif(compiled._library() is None, reason="no compiler, or a PyTorch without MKL")


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


def test_without_a_compiler_pytorch_decodes(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert compiled._load.__wrapped__() is None


@pytest.mark.slow
def test_a_compiler_that_fails_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(tmp_path))
    monkeypatch.setattr(compiled, "_commands", lambda *arguments: [["false"]])
    assert compiled._load.__wrapped__() is None
    assert not list(tmp_path.rglob("*.so"))


@here
@pytest.mark.slow
def test_kernels_of_other_bits_are_not_used(monkeypatch):
    step = CompiledDecoder.step
    monkeypatch.setattr(
        CompiledDecoder, "step", lambda self, ids, t: torch.nextafter(step(self, ids, t), torch.ones(1))
    )
    assert not compiled._same_bits.__wrapped__(SHAPE)
