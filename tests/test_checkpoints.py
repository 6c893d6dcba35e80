"""Checkpoints that are tried when they are opened: tokenizers, causality, positions, caches, and other formats."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.errors import DataError, EcosystemError
from ecosystem.families import checkpoint
from ecosystem.families.language import generation
from ecosystem.families.language.family import LanguageFamily
from ecosystem.families.language.gpt2.family import Gpt2
from ecosystem.families.language.huggingface.decoders import (
    CachedDecoder,
    UncachedDecoder,
    UncompactedDecoder,
    fastest_decoder,
)
from ecosystem.families.language.huggingface.family import CausalLm
from ecosystem.families.language.ngram.family import Ngram
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, ScoreRequest
from ecosystem.runs.environment import Machine
from ecosystem.runs.planning.estimate import Plan
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from tests.families_shared import STREAMS, build_context, largest_difference

HUMAN = [f"The {noun} reads {i} files, naïvely.\n\nThen it stops." for i in range(20) for noun in ("module", "class")]
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = {**WIDTHS, "intermediate_size": 32, "num_key_value_heads": 2}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
BERT = {**WIDTHS, "intermediate_size": 32}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1}
CONFIGS = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "qwen2": LLAMA,
    "opt": {**WIDTHS, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 64},
    "gpt_neox": BERT,
    "phi": LLAMA,
    "gpt_bigcode": GPT2,
    "lfm2": {**LLAMA, "layer_types": ["conv", "full_attention"]},
    "qwen3_next": {
        **LLAMA,
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts": 0,
    },
    "bamba": {**LLAMA, **MAMBA, "mamba_expand": 2, "mamba_d_conv": 4, "attn_layer_indices": [1]},
    "jamba": {
        **LLAMA,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_experts": 2,
        "use_mamba_kernels": False,
        "mamba_d_state": 4,
    },
    "falcon_h1": {**LLAMA, **MAMBA, "mamba_d_ssm": 32},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "bert": {**BERT, "is_decoder": True},
    "roberta": {**BERT, "is_decoder": True, "max_position_embeddings": 365, "pad_token_id": 300, "vocab_size": 301},
}
COMPACTED = ("gpt2", "llama", "qwen2", "opt", "gpt_neox", "phi", "gpt_bigcode")

MACHINE = Machine.choose("cpu", 1)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(HUMAN, 300)


def saved(folder, architecture, tokenizer=None, **values):
    """Save a random model, by default without a tokenizer, as its training scripts leave it."""
    import transformers

    config = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    config |= CONFIGS[architecture] | values
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(architecture, **config), dtype=torch.float32
        )
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save(folder, 32)
    return folder


def opened(folder, members=1, family=CausalLm, human=HUMAN, **values):
    return family(init=str(folder), **values).cohort("m", members, build_context(human=human))


def request(n=40, **decoding):
    return [GenerateRequest(0, n, Decoding(**{"max_tokens": 24, **decoding}), None, STREAMS.at("writes"))]


# Architectures.


@pytest.mark.slow
@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_architecture_writes_what_it_would_without_a_cache(architecture, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(generation, "_COMPACT_BELOW", 1.0)  # rows are dropped as soon as one has ended
    made = opened(saved(tmp_path / "saved", architecture, tokenizer), context=32)
    if architecture in COMPACTED:
        assert made._decoder_class is CachedDecoder
    texts = made.tokens(request())
    # Texts end at different times, so that rows are dropped; greedy ones would not.
    assert len({len(ids) for ids in texts[0]}) > 1
    made._decoder_class = UncachedDecoder
    assert made.tokens(request()) == texts
    record = made.fit(
        [FitRequest(0, pl.Series(HUMAN), np.ones(len(HUMAN)), Budget(tokens=200), 1e-3, "previous", STREAMS.at("fit"))]
    )[0]
    assert np.isfinite(record.loss)
    assert np.isfinite(made.score([ScoreRequest(0, pl.Series(HUMAN[:4]))])[0].nll).all()


def test_rows_are_dropped_from_a_cache_that_cannot_drop_them(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(generation, "_COMPACT_BELOW", 1.0)
    made = opened(saved(tmp_path / "saved", "llama", tokenizer))
    texts = made.tokens(request())
    for decoder in (UncompactedDecoder, UncachedDecoder):
        made._decoder_class = decoder
        assert made.tokens(request()) == texts


@pytest.mark.parametrize("fault", ["keep", "values"])
def test_a_wrong_cache_is_not_used(fault, tmp_path, tokenizer, monkeypatch):
    made = opened(saved(tmp_path / "saved", "llama", tokenizer))
    forward = type(made).forward

    def forgetful(self, ids, cache=None):
        return forward(self, ids, None)

    def stuck(self, rows):
        raise AttributeError("batch_select_indices")

    if fault == "values":
        monkeypatch.setattr(type(made), "forward", forgetful)
        assert fastest_decoder(made) is UncachedDecoder
    else:
        monkeypatch.setattr("transformers.cache_utils.DynamicCache.batch_select_indices", stuck)
        assert fastest_decoder(made) is UncompactedDecoder


def test_the_trial_draws_no_random_numbers(tmp_path, tokenizer):
    made = opened(saved(tmp_path / "saved", "gpt2", tokenizer))
    torch.manual_seed(5)
    before, numbers, state = torch.get_rng_state(), np.random.get_state()[1].copy(), made.state()
    fastest_decoder(made)
    assert torch.equal(before, torch.get_rng_state()) and (numbers == np.random.get_state()[1]).all()
    assert largest_difference(state, made.state()) == 0


def test_models_that_see_the_future_are_refused(tmp_path, tokenizer):
    folder = saved(tmp_path / "saved", "bert", tokenizer, is_decoder=False)
    with pytest.raises(DataError, match=r"BertLMHeadModel.* is not causal.*is_decoder = true"):
        opened(folder)
    scratch = CausalLm(init="random", architecture="bert", config=BERT, vocabulary=300, context=16)
    with pytest.raises(DataError, match="is not causal"):
        scratch.cohort("m", 1, build_context(human=HUMAN, cache=tmp_path / "cache"))


def test_positions_that_begin_after_the_padding(tmp_path, tokenizer):
    folder = saved(tmp_path / "saved", "roberta", tokenizer, max_position_embeddings=66, pad_token_id=1)
    made = opened(folder)
    assert made.context == 64
    long = pl.Series(["a module reads " * 40])
    assert np.isfinite(made.score([ScoreRequest(0, long)])[0].nll).all()
    with pytest.raises(DataError, match="positions for only 64 tokens; lower context"):
        opened(folder, context=65)


def test_models_without_positions_start_from_random_weights(tmp_path):
    family = CausalLm(init="random", architecture="mamba", config=CONFIGS["mamba"], vocabulary=300, context=16)
    made = family.cohort("m", 1, build_context(human=HUMAN, cache=tmp_path))
    assert made.context == 16 and len(made.generate(request(5))[0]) == 5


# Tokenizers.


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2", "opt", "gpt_neox", "phi", "llama", "gpt_bigcode"])
def test_checkpoints_without_a_tokenizer_are_refused(architecture, tmp_path):
    folder = saved(tmp_path / "saved", architecture)
    with pytest.raises(DataError, match=r"saved.*save_pretrained|no end-of-text token"):
        opened(folder)


def test_tokenizers_that_belong_to_another_model_are_refused(tmp_path, tokenizer):
    for family in (Gpt2, CausalLm):
        with pytest.raises(DataError, match="300 tokens but its output 600; they do not belong together"):
            opened(saved(tmp_path / "large", "gpt2", tokenizer, vocab_size=600), family=family)
        with pytest.raises(DataError, match="do not belong together"):
            opened(saved(tmp_path / "small", "gpt2", tokenizer, vocab_size=200), family=family)


def test_a_tokenizer_that_loses_the_documents_is_refused_by_every_family(tmp_path, tokenizer):
    folder = saved(tmp_path / "saved", "gpt2")
    words = {"<|endoftext|>": 0, "[UNK]": 1, "module": 2}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    table = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(table))
    ngram = Ngram(order=2, smoothing="add_k", k=0.1, tokenizer=str(folder), context=16)
    for family in (Gpt2(init=str(folder)), CausalLm(init=str(folder)), ngram):
        with pytest.raises(DataError, match=r'\(3 tokens\) turns the text "The module'):
            family.cohort("m", 1, build_context(human=HUMAN, cache=tmp_path / "cache"))


def test_tokenizers_may_change_case_and_white_space(tmp_path):
    words = {word: i for i, word in enumerate(["[SEP]", "[UNK]", "the", "module", "reads", "files"])}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    table = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "model": model,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(table))
    (tmp_path / "tokenizer_config.json").write_text('{"sep_token": "[SEP]"}')
    read = Tokenizer.load(tmp_path)
    read.check(["The  module\nreads files"])
    assert read.end == 0, "the end of text is the separator of BERT"


def test_ids_without_text_are_never_written(tmp_path, tokenizer):
    folder = saved(tmp_path / "saved", "gpt2", tokenizer, vocab_size=320)
    for family in (Gpt2, CausalLm):
        made = opened(folder, family=family)
        (texts,) = made.tokens(request(60))
        drawn = np.concatenate(texts)  # of about 1,400 tokens, 6 % would be padding
        assert len(drawn) > 1000 and drawn.max() < 300


GERMAN = [
    f"{wer} {tut} {was} {wo}, und danach {tut} {wer.lower()} es {wie}."
    for wer in ("Sie", "Er", "Niemand")
    for tut in ("liest", "öffnet", "schließt", "schreibt")
    for was in ("den Brief", "das Fenster", "die Zeitung", "das Buch", "die Tür")
    for wo in ("zu Hause", "im Garten", "nachts")
    for wie in ("wieder", "langsam")
]
CHECKPOINT = """
name = "checkpoint"
steps = 1
[sources.words]
kind = "jsonl"
path = "{source}.jsonl"
[web]
kind = "watts_strogatz"
sites = 12
degree = 4
initial = {{ source = "words", documents = 40 }}
[models.m]
kind = "{family}"
init = "{init}"
tokenizer = "{tokenizer}"
[trainers.t]
model = "m"
publish = 2
scrape = {{ docs = 4 }}
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """GPT-2 trained for seconds on Python's documentation, an untrained one, and tokenizers of 1,024 tokens."""
    import argparse
    import inspect
    import typing
    from pydoc_data.topics import topics

    import transformers

    folder = tmp_path_factory.mktemp("checkpoints")
    prose = [part for topic in topics.values() for part in topic.split("\n\n") if len(part) > 100]
    code = [part for module in (argparse, typing, inspect) for part in inspect.getsource(module).split("\n\n")]
    random = np.random.default_rng(1)
    texts = {name: random.permutation(parts).tolist() for name, parts in (("prose", prose), ("code", code))}
    for name, parts in {**texts, "german": random.permutation(GERMAN).tolist()}.items():
        lines = "\n".join(json.dumps({"text": " ".join(parts[i : i + 3])}) for i in range(0, 120, 3))
        (folder / f"{name}.jsonl").write_text(lines)
    made = {name: Tokenizer.train(parts[120:], 1024) for name, parts in texts.items()}
    made["half"] = Tokenizer.train(texts["prose"][120::2], 1024)
    for name, tokenizer in made.items():
        (folder / name).mkdir()
        tokenizer.save(folder / name, 64)
    saved(folder / "untrained", "gpt2", made["prose"], vocab_size=1024, n_embd=64)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "untrained")
    ids = torch.from_numpy(np.concatenate(made["prose"].encode(pl.Series(texts["prose"][120:]))).astype(np.int64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for _ in range(300):
            batch = torch.stack([ids[at : at + 64] for at in torch.randint(len(ids) - 64, (16,))])
            model(batch, labels=batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder / "trained")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("init", "tokenizer", "source", "noted"),
    [
        ("trained", "prose", "prose", False),
        ("trained", "prose", "code", False),  # documents of another kind
        ("trained", "prose", "german", False),  # and of another language
        ("untrained", "prose", "prose", False),
        ("untrained", "code", "prose", False),
        ("trained", "code", "prose", True),
        ("trained", "half", "prose", True),
    ],
)
def test_the_tokenizer_of_another_model_is_noted(init, tokenizer, source, noted, checkpoints, tmp_path):
    for family in ("gpt2", "causal_lm"):
        text = CHECKPOINT.format(
            family=family, init=checkpoints / init, tokenizer=checkpoints / tokenizer, source=checkpoints / source
        )
        (tmp_path / "checkpoint.toml").write_text(text)
        world = World(Scenario.load(tmp_path / "checkpoint.toml"), base=tmp_path, cache=tmp_path / "cache")
        notes = [event for event in world.snapshot().state["events"] if "checkpoint" in event]
        assert ["belongs to another model" in note for note in notes] == [True] * noted


# Formats and places.


@pytest.mark.parametrize("family", [Gpt2, CausalLm])
def test_weights_that_are_not_numbers_are_a_fault_of_the_checkpoint(family, tmp_path, tokenizer):
    from safetensors.numpy import load_file, save_file

    folder = saved(tmp_path / "saved", "gpt2", tokenizer)
    arrays = load_file(folder / "model.safetensors")
    next(array for name, array in arrays.items() if "c_attn.weight" in name)[0, 0] = np.nan
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"1 of \d+ weights contain values that are not finite.*c_attn"):
        opened(folder, family=family)


@pytest.mark.parametrize("family", [Gpt2, CausalLm])
def test_other_formats_are_named(family, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"adapter \(LoRA or similar\).*merge_and_unload.*save_pretrained.*tokenizer"):
        opened(tmp_path, family=family)


SCENARIO = """
name = "places"
steps = 1
[sources.words]
kind = "process"
[web]
kind = "watts_strogatz"
sites = 12
degree = 4
initial = {{ source = "words", documents = 4 }}
[models.m]
kind = "gpt2"
init = "{init}"
[trainers.t]
model = "m"
publish = 2
scrape = {{ docs = 4 }}
"""


def test_relative_paths_are_resolved_beside_the_scenario(tmp_path, monkeypatch, tokenizer):
    file = tmp_path / "scenarios" / "places.toml"
    folder = saved(file.parent / "checkpoints" / "mine", "gpt2", tokenizer)
    file.write_text(SCENARIO.format(init="checkpoints/mine"))
    monkeypatch.chdir(tmp_path)
    scenario = Scenario.load(file)
    assert CliRunner().invoke(cli, ["check", str(file)]).output.count("note") == 0
    world = World(scenario, base=file.parent, cache=tmp_path / "cache")
    cohort = world.state.cohorts["m"]
    assert cohort.fingerprint == checkpoint.fingerprint(folder)
    assert scenario.models["m"].init == "checkpoints/mine", "a run folder does not depend on where its scenario is"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine").mkdir()
    assert scenario.models["m"].beside(file.parent).init == "checkpoints/mine", "the current folder comes first"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "causal_lm"])
def test_fields_that_contradict_a_checkpoint_are_refused_with_their_place(kind, tmp_path, monkeypatch, tokenizer):
    def refusal(command, *settings):
        options = [option for setting in settings for option in ("--set", f"models.m.{setting}")]
        error = CliRunner().invoke(cli, [command, str(file), *options]).exception
        assert isinstance(error, EcosystemError) and str(error).startswith(f"{file}: models.m"), error
        return str(error)

    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "mine", "gpt2", tokenizer)
    file = tmp_path / "places.toml"
    file.write_text(SCENARIO.format(init="mine").replace("gpt2", kind))
    assert "context = 65, but the checkpoint" in refusal("check", "context=65")
    assert "adapter.rank = 17, but the model is only 16 wide" in refusal("check", "adapter={rank=17}")
    targets, unknown = 'adapter={targets=["c_attn","q_porj"]}', "adapter.targets = ['q_porj']: the gpt2 has no"
    assert kind == "gpt2" or unknown in refusal("check", targets)
    monkeypatch.setattr(LanguageFamily, "check_files", lambda self: None)  # as before a download
    assert "context = 65, but the checkpoint" in refusal("run", "context=65")
    assert kind == "gpt2" or unknown in refusal("run", targets)


@pytest.mark.parametrize(
    ("init", "on_hub"), [("owner/model", True), ("gpt2", True), ("./owner", False), ("a/b/c", False), ("a b", False)]
)
def test_what_is_looked_up_on_the_hub_is_said_beforehand(init, on_hub, tmp_path):
    file = tmp_path / "places.toml"
    file.write_text(SCENARIO.format(init=init))
    output = CliRunner().invoke(cli, ["check", str(file)]).output
    assert (f'models.m.init = "{init}" is not a folder' in output) == on_hub
    if on_hub:
        (note,) = [note for note in Plan.of(Scenario.load(file), MACHINE, tmp_path).notes if "Hub" in note]
        assert note in output
    else:
        with pytest.raises(DataError, match="no such folder"):
            checkpoint.folder_of(init, "init")
