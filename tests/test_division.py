"""Layers of one model on several devices: balanced, in order, and with the numbers of one device."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.errors import DataError, EcosystemError
from ecosystem.families.language import generation
from ecosystem.families.language.huggingface.decoders import CachedDecoder
from ecosystem.families.language.huggingface.division import balanced
from ecosystem.families.language.huggingface.family import CausalLm
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, PromptedFitRequest, ScoreRequest
from ecosystem.families.training_spec import Training
from ecosystem.families.worker_pool import WorkerPool
from ecosystem.placement.worker import Blueprint, Worker
from tests.conftest import SMOKE, tiny
from tests.families_shared import STREAMS, build_context, largest_difference
from tests.other_device import DEVICE, other_device

DOCS = pl.Series([f"The {noun} reads {i} files.\n\nThen it stops." for i in range(10) for noun in ("module", "class")])
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2}
CONFIGS = {
    "gpt2": {"n_embd": 32, "n_layer": 5, "n_head": 2},  # the output matrix is the embeddings
    "llama": {**WIDTHS, "intermediate_size": 48},
    "opt": {**WIDTHS, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt_neox": {**WIDTHS, "intermediate_size": 48},
}


def built(folder, devices=(), architecture="llama", **values):
    values = {"init": "random", "architecture": architecture, "config": CONFIGS.get(architecture), **values}
    if values["init"] == "random":
        values |= {"vocabulary": 300, "context": 32}
    family = CausalLm(**values, training=Training(batch=4, learning_rate=1e-3))
    return family.cohort("m", 2, replace(build_context(human=DOCS, cache=folder, threads=1), devices=devices))


def worked(cohort, start="scratch"):
    """Let a cohort do all it can; return the numbers and texts."""
    weight, stream = np.ones(len(DOCS)), STREAMS.at("fit")
    requests = [FitRequest(m, DOCS, weight, Budget(tokens=200), None, "previous", stream) for m in (0, 1)]
    losses = [record.loss for record in cohort.fit(requests)]
    before = cohort.state()
    cohort.fit([FitRequest(1, DOCS, weight, Budget(tokens=100), None, start, stream)])
    prompts = PromptedFitRequest(0, DOCS, weight, Budget(tokens=100), None, "previous", stream, DOCS.reverse())
    losses += [record.loss for record in cohort.fit_prompted([prompts])]
    after = {name: values.copy() for name, values in cohort.state().items()}
    scores = [score.nll for score in cohort.score([ScoreRequest(who, DOCS) for who in (0, 1, "initial", "random")])]
    writes = [GenerateRequest(m, 9, Decoding(max_tokens=24), None, STREAMS.at("write")) for m in (0, 1)]
    texts = cohort.tokens(writes)
    cohort.load(before)
    cohort.load(dict(before))
    return {"losses": losses, "scores": np.concatenate(scores), "texts": texts, "after": after, "state": cohort.state()}


def same(one, other, tolerance):
    assert one["losses"] == pytest.approx(other["losses"], abs=tolerance)
    np.testing.assert_allclose(one["scores"], other["scores"], rtol=0, atol=tolerance)
    assert one["texts"] == other["texts"] and len({len(ids) for ids in one["texts"][0]}) > 1
    for state in ("after", "state"):
        assert largest_difference(one[state], other[state]) <= tolerance


@pytest.fixture
def device(monkeypatch):
    """The name of a second device, and rows that are dropped from caches as soon as one has ended."""
    monkeypatch.setattr(generation, "_COMPACT_BELOW", 1.0)
    monkeypatch.setattr(WorkerPool, "run", lambda self, jobs, *rest: [job() for job in jobs])  # modes are of a thread
    with other_device() as name:
        yield name


@pytest.mark.parametrize(
    ("sizes", "rest", "devices", "expected"),
    [
        ([1] * 12, 0, 2, [0] * 6 + [1] * 6),
        ([1] * 12, 0, 4, [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3),
        ([2] * 6, 4, 2, [0, 0, 1, 1, 1, 1]),  # 8 and 8
        ([1] * 6, 40, 3, [1] * 3 + [2] * 3),  # the rest fills the first device
        ([1, 1, 1, 1, 4], 0, 2, [0, 0, 0, 0, 1]),
        ([5], 0, 1, [0]),
    ],
)
def test_layers_are_divided_in_order_and_evenly(sizes, rest, devices, expected):
    assert balanced(sizes, rest, devices) == expected


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_layers_are_where_they_are_planned_and_all_else_is_on_the_first_device(architecture, tmp_path, device):
    module = built(tmp_path, ("cpu", device), architecture).module
    layers = module.transformer.h if architecture == "gpt2" else module.model.layers
    numbers = [{tensor.device == DEVICE for tensor in [*layer.parameters(), *layer.buffers()]} for layer in layers]
    assert numbers == [{False}] * 2 + [{True}] * 3 or numbers == [{False}] * 1 + [{True}] * 4
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    assert {p.device.type for p in module.parameters() if id(p) not in inside} == {"cpu"}
    head, table = module.get_output_embeddings().weight, module.get_input_embeddings().weight
    assert (head is table) == (architecture == "gpt2")
    sizes = [sum(p.numel() for p in module.parameters() if (p.device == DEVICE) == there) for there in (False, True)]
    largest = max(sum(p.numel() for p in layer.parameters()) for layer in layers)
    assert abs(sizes[0] - sizes[1]) <= largest


@pytest.mark.slow
@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_divided_model_has_the_numbers_of_one_device(architecture, tmp_path, device):
    ours = built(tmp_path, ("cpu", device), architecture)
    assert ours._decoder_class is CachedDecoder
    theirs = worked(built(tmp_path, (), architecture))
    same(worked(ours), theirs, 2e-5)


@pytest.mark.slow
def test_adapters_of_a_divided_model_have_the_numbers_of_one_device(tmp_path, device):
    sizes = CONFIGS["llama"] | {"num_hidden_layers": 2}  # both layers, and so all adapters, are on the second device
    base = built(tmp_path, config=sizes)
    base.save_assets(tmp_path / "base")
    CausalLm(init="random", architecture="llama", vocabulary=300, context=32).save_weights(
        tmp_path / "base", base.state(), 0
    )
    values = {"init": str(tmp_path / "base"), "architecture": None, "config": {}, "adapter": {"rank": 4}}
    ours, theirs = (built(tmp_path, devices, **values) for devices in (("cpu", device), ()))
    assert {tensor.device for tensor in ours.weights.of(0).values()} == {DEVICE}
    same(worked(ours, "foundation"), worked(theirs, "foundation"), 2e-5)


@pytest.mark.slow
def test_what_mixes_devices_is_found_by_the_tests_and_refused_when_a_model_is_opened(tmp_path, device, monkeypatch):
    monkeypatch.setattr("ecosystem.families.language.huggingface.division._moved", lambda value, to: value)
    with pytest.raises(DataError, match=r"cannot compute the logits of two sentences \(RuntimeError: .* same device"):
        built(tmp_path, ("cpu", device))


@pytest.mark.slow
def test_two_numbers_of_one_device_change_no_bit(tmp_path):
    same(worked(built(tmp_path, ("cpu:0", "cpu:1"))), worked(built(tmp_path)), 0)


def test_more_devices_than_layers_are_refused(tmp_path):
    with pytest.raises(DataError, match="the llama has 5 layers, too few for 8 GPUs; give at most --gpus-per-worker 5"):
        built(tmp_path, ("cpu",) * 8)


# Workers with several GPUs.


@pytest.mark.parametrize(("gpus", "devices"), [(1, ()), (2, ("cuda:0", "cuda:1"))])
def test_a_worker_divides_layers_over_its_gpus(gpus, devices, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    contexts = []

    class Remembers:
        def cohort(self, name, members, context):
            contexts.append(context)
            return type("Cohort", (), {"fingerprint": ""})()

    plan = Blueprint(Remembers(), "m", 1, 0, STREAMS, "cuda", 1, tmp_path, gpus=gpus)
    Worker(".").build("m", plan, DOCS, [])
    assert contexts[0].devices == devices
    with pytest.raises(EcosystemError, match="--gpus-per-worker 4: PyTorch sees only 2 GPUs in a worker on"):
        Worker(".").build("m", replace(plan, gpus=4), DOCS, [])


def test_models_that_are_not_divided_are_refused_in_the_plan(tmp_path):
    sentence = "--gpus-per-worker 2: only a causal_lm is divided over GPUs, but each member of models.tiny (gpt2) is"
    options = ["--engine", "ray", "--gpus-per-worker", "2", "--out", str(tmp_path), "--dry-run"]
    refused = CliRunner().invoke(cli, ["run", str(SMOKE), *options]).exception
    assert isinstance(refused, EcosystemError) and sentence in str(refused)
    file = tmp_path / "placed.toml"
    file.write_text(SMOKE.read_text() + "\n[placement]\ngpus_per_worker = 2\n")
    checked = CliRunner().invoke(cli, ["check", str(file)])
    named = sentence.replace("--gpus-per-worker", "placement.gpus_per_worker =")
    assert "valid" not in checked.output and str(checked.exception).startswith(f"{file}: {named}")
    refused = CliRunner().invoke(cli, ["run", str(file), "--out", str(tmp_path), "--dry-run"]).exception
    assert str(refused).startswith(named)
    lm = {"kind": "causal_lm", "init": "random", "architecture": "llama", "vocabulary": 300, "context": 32}
    placement = tiny(placement={"gpus_per_worker": 2}).placement
    assert not placement.problem({"big": CausalLm(**{key: lm[key] for key in lm if key != "kind"})}, placement)
