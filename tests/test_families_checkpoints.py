"""Text in and out: tokenizers, presets, foundations in the cache, and checkpoints that transformers opens."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors import SafetensorError

from ecosystem.errors import DataError, ScenarioError, StoreError
from ecosystem.families import foundation
from ecosystem.families.base import FAMILIES
from ecosystem.families.language.gpt2.family import Gpt2
from ecosystem.families.language.huggingface.family import CausalLm
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, ScoreRequest
from ecosystem.families.training_spec import Foundation, Training
from tests.families_shared import STREAMS, build_context, largest_difference

MODELS = Path(__file__).parent.parent / "models"
HUMAN = [
    f"The {noun} {verb} the {other}, and then it {verb} again; {i} times in all.\n\nNobody knows why."
    for i, (noun, verb, other) in enumerate(
        (a, b, c)
        for a in ("function", "module", "reader", "naïve class")
        for b in ("returns", "calls", "finds")
        for c in ("value", "list", "file — or not", "été")
    )
]
TINY = Gpt2(
    n_layer=1,
    n_embd=16,
    n_head=2,
    vocabulary=300,
    context=32,
    training=Training(batch=4),
    foundation=Foundation(tokens=2000, batch=4),
)


def changed(family, **values):
    return type(family)(**(family.model_dump() | values))


def context(cache, human=HUMAN, **more):
    return build_context(human=human, cache=cache, **more)


# Tokenizers.


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(HUMAN, 300)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(), max_size=5))
def test_any_text_survives_the_tokenizer(texts):
    texts = [*texts, "", "<|endoftext|>", " <|endoftext|> \r\n\t\x00", "日本語 🤖‍ é é"]
    made = Tokenizer.train(HUMAN, 300)
    ids = made.encode(pl.Series(texts, dtype=pl.String))
    assert made.decode(ids) == texts
    assert all(made.end not in row for row in ids), "words in a document never end it"


def test_tokens_are_computed_once_per_text(tokenizer):
    calls = []
    model = tokenizer._model

    class Counting:
        def encode_batch_fast(self, texts, **more):
            calls.append(list(texts))
            return model.encode_batch_fast(texts, **more)

    tokenizer._model = Counting()
    try:
        first = tokenizer.encode(pl.Series(["one new text", "another", "one new text"]))
        again = tokenizer.encode(pl.Series(["another", "a third", "one new text"]))
    finally:
        tokenizer._model = model
    assert calls == [["one new text", "another"], ["a third"]]
    assert again[2] is first[0] and (first[0] == first[2]).all()


def test_a_full_memory_is_emptied_not_overrun(tokenizer, monkeypatch):
    monkeypatch.setattr("ecosystem.families.language.tokenizer._CACHE_LIMIT", 10)
    made = Tokenizer.train(HUMAN, 300)
    expected = [ids.tolist() for ids in tokenizer.encode(pl.Series(HUMAN))]
    for _ in range(2):
        for i in range(0, len(HUMAN), 4):
            found = made.encode(pl.Series(HUMAN[i : i + 6]))
            assert [ids.tolist() for ids in found] == expected[i : i + 6]
    assert len(made._cache) <= 12


@pytest.mark.slow
def test_training_a_tokenizer_is_deterministic_across_processes(tokenizer, tmp_path):
    script = (
        "import sys; from pathlib import Path; from tests.test_families_checkpoints import *;"
        "Tokenizer.train(HUMAN, 300).save(Path(sys.argv[1]), 32)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=os.environ)
    (tmp_path / "here").mkdir()
    tokenizer.save(tmp_path / "here", 32)
    assert (tmp_path / "tokenizer.json").read_text() == (tmp_path / "here" / "tokenizer.json").read_text()


@pytest.mark.slow
def test_transformers_opens_the_tokenizer(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path, 32)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in HUMAN[:5]:
        (ids,) = tokenizer.encode(pl.Series([text]))
        assert theirs(text)["input_ids"] == ids.tolist() and theirs.decode(ids.tolist()) == text
    assert theirs.eos_token_id == tokenizer.end and theirs.model_max_length == 32
    again = Tokenizer.load(tmp_path)
    assert (again.end, again.size) == (tokenizer.end, tokenizer.size)
    assert again.encode(pl.Series([HUMAN[0]]))[0].tolist() == tokenizer.encode(pl.Series([HUMAN[0]]))[0].tolist()


def test_tokenizers_that_cannot_be_opened(tmp_path):
    with pytest.raises(DataError, match="contains no readable tokenizer"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        Tokenizer.load(tmp_path)


# Presets.


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.toml")), ids=lambda path: path.stem)
def test_presets_are_families(path):
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    family = FAMILIES.get(data.pop("kind"))(**data)
    assert path.read_text(encoding="utf-8").splitlines()[1].startswith("# ")  # after the line of the schema
    load = family.workload()
    expected = {"gpt2-char": 128_832, "gpt2-nano": 173_824, "gpt2-micro": 675_328, "gpt2-mini": 10_101_760}.get(
        path.stem, 0
    )
    assert load.parameters == expected
    assert (load.tokens_to_pretrain > 0) == (family.init == "foundation" and family.kind != "ngram")


@pytest.mark.slow
def test_presets_do_not_import_torch():
    script = (
        "import sys, tomllib; from pathlib import Path; from ecosystem.families.base import FAMILIES;"
        "[FAMILIES.get(d.pop('kind'))(**d).workload() for p in Path(sys.argv[1]).glob('*.toml')"
        " for d in [tomllib.loads(p.read_text())]];"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(MODELS)], check=True, env=os.environ)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n_head": 3}, "n_embd = 16 is not divisible by n_head = 3"),
        ({"n_layer": None, "vocabulary": None}, "needs n_layer, vocabulary; only a checkpoint"),
        ({"vocabulary": 256}, "256 bytes and the end of text"),
        ({"context": 1}, "leaves no room"),
        ({"n_layer": 0}, "greater than 0"),
        ({"training": {"clip": -1}}, "greater than 0"),
        ({"n_layers": 3}, "Extra inputs"),
    ],
)
def test_presets_that_do_not_fit_together(values, said):
    with pytest.raises(ValidationError, match=said):
        changed(TINY, **values)


def test_causal_lm_presets_that_do_not_fit_together():
    for values, said in (
        ({"init": "random", "vocabulary": 300, "context": 32}, "needs architecture"),
        ({"init": "random", "architecture": "opt", "context": 32}, "needs vocabulary"),
        ({"init": "facebook/opt-125m", "architecture": "opt"}, "remove both"),
        ({"init": "random", "architecture": "opt", "context": 32, "vocabulary": 9}, "too small"),
    ):
        with pytest.raises(ValidationError, match=said):
            CausalLm(**values)
    with pytest.raises(ScenarioError, match='did you mean "causal_lm"'):
        FAMILIES.get("causal-lm")


# Foundations.


def test_a_foundation_is_trained_once_and_found_again(tmp_path):
    progress = []
    place = context(tmp_path, progress=lambda *at: progress.append(at))
    assert TINY.workload().tokens_to_pretrain == 2000
    first = TINY.cohort("a", 2, place)
    assert ("foundation", 2000, 2000) in progress
    progress.clear()
    second = TINY.cohort("b", 3, context(tmp_path, progress=lambda *at: progress.append(at), threads=1))
    assert progress == [] and second.members == 3 and first.fingerprint == second.fingerprint
    assert all((first.state()[name][0] == second.state()[name][2]).all() for name in first.state())
    docs = pl.Series(HUMAN)
    trained, chance = first.score([ScoreRequest("initial", docs), ScoreRequest("random", docs)])
    assert trained.nll.mean() < chance.nll.mean() - 0.3
    assert [path.name for path in tmp_path.iterdir()] == [first.fingerprint], "nothing is left lying about"


def test_a_rebuilt_foundation_is_the_same_bit_for_bit(tmp_path):
    one = TINY.cohort("a", 1, context(tmp_path / "one", threads=1))
    two = TINY.cohort("a", 1, context(tmp_path / "two", threads=2))
    assert one.fingerprint == two.fingerprint
    for path in (tmp_path / "one" / one.fingerprint).iterdir():
        assert path.read_bytes() == (tmp_path / "two" / two.fingerprint / path.name).read_bytes()


@pytest.mark.parametrize("damage", ["alter", "truncate", "remove", "hashes"])
def test_a_damaged_foundation_is_rebuilt(tmp_path, damage):
    place = context(tmp_path)
    made = TINY.cohort("a", 1, place)
    folder = tmp_path / made.fingerprint
    path = folder / ("hashes.json" if damage == "hashes" else "model.safetensors")
    whole = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] + (b"?" + whole[len(whole) // 2 + 1 :] if damage == "alter" else b""))
    assert foundation.find(tmp_path, made.fingerprint) is None
    again = TINY.cohort("a", 1, place)
    assert largest_difference(made.state(), again.state()) == 0 and path.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [made.fingerprint]


def test_fingerprints_cover_what_a_foundation_depends_on(tmp_path):
    mark = TINY.fingerprint(context(tmp_path))
    assert mark == TINY.fingerprint(context(tmp_path / "elsewhere", threads=7))
    assert mark == changed(TINY, training=Training(batch=9, learning_rate=1.0)).fingerprint(context(tmp_path))
    others = [
        changed(TINY, n_layer=2).fingerprint(context(tmp_path)),
        changed(TINY, foundation=Foundation(tokens=2001, batch=4)).fingerprint(context(tmp_path)),
        changed(TINY, training=Training(batch=4, clip=0.5)).fingerprint(context(tmp_path)),
        changed(TINY, init="random").fingerprint(context(tmp_path)),
        TINY.fingerprint(context(tmp_path, seed=8)),
        TINY.fingerprint(context(tmp_path, human=HUMAN[::-1])),
        TINY.fingerprint(context(tmp_path, human=[*HUMAN[:-2], HUMAN[-2] + HUMAN[-1]])),
        TINY.fingerprint(context(tmp_path, device="cuda")),
    ]
    assert len({mark, *others}) == 9
    wide = changed(TINY, n_embd=1024, n_layer=2)
    assert wide.fingerprint(context(tmp_path, threads=1)) != wide.fingerprint(context(tmp_path, threads=2))


@pytest.mark.slow
def test_processes_that_build_the_same_foundation_at_once(tmp_path):
    script = (
        "import sys; from tests.test_families_checkpoints import *;"
        "made = TINY.cohort('a', 1, context(Path(sys.argv[1])));"
        "print(made.state()['transformer.wte.weight'].sum())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ)
        for _ in range(2)
    ]
    assert len({process.communicate(timeout=120)[0] for process in started}) == 1
    assert [process.returncode for process in started] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_entry_that_another_process_finished_meanwhile_is_taken(tmp_path):
    def write(text):
        return lambda folder: (folder / "file").write_text(text)

    def slow():
        foundation.obtain(tmp_path, "entry", lambda: write("quicker"))
        return write("slower")

    assert (foundation.obtain(tmp_path, "entry", slow) / "file").read_text() == "quicker"
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"model cache .* cannot be written"):
        foundation.obtain(tmp_path / "file", "entry", lambda: lambda folder: None)

    def full(folder):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(StoreError, match=r"cannot be written: .*No space left .*--cache"):
        foundation.obtain(tmp_path / "cache", "entry", lambda: full)


def test_no_human_documents_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"set web\.initial\.documents"):
        TINY.cohort("small", 1, context(tmp_path, human=[]))


def test_random_initialisation_caches_the_tokenizer_alone(tmp_path):
    family = changed(TINY, init="random")
    place = context(tmp_path)
    assert family.workload().tokens_to_pretrain == 0 and not family.starts_pretrained
    made = family.cohort("a", 2, place)
    names = {path.name for path in (tmp_path / made.fingerprint).iterdir()}
    assert names == {"config.json", "tokenizer.json", "tokenizer_config.json", "hashes.json"}
    other = family.cohort("b", 1, context(tmp_path))
    assert (made.state()["transformer.wte.weight"][0] != other.state()["transformer.wte.weight"][0]).any()
    (score,) = made.score([ScoreRequest("initial", pl.Series(HUMAN))])
    assert score.nll.mean() == pytest.approx(np.log(made.tokenizer.size), abs=0.05)


# Checkpoints.


def trained(made):
    docs = pl.Series(HUMAN)
    requests = [
        FitRequest(m, docs, np.ones(len(docs)), Budget(tokens=500), 1e-2, "foundation", STREAMS.at(f"fit/{m}"))
        for m in range(made.members)
    ]
    made.fit(requests)
    return made


@pytest.mark.slow
def test_checkpoints_are_opened_by_transformers_and_by_us(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = trained(TINY.cohort("a", 2, context(tmp_path / "cache")))
    made.save_assets(tmp_path / "saved")
    TINY.save_weights(tmp_path / "saved", made.state(), 1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert type(model).__name__ == "GPT2LMHeadModel" and model.config.vocab_size == made.tokenizer.size
    ids = torch.tensor([[theirs.eos_token_id, *theirs(HUMAN[3][:20])["input_ids"], theirs.eos_token_id]])
    with torch.no_grad():
        mean = model.eval()(ids, labels=ids).loss.item()
    (score,) = made.score([ScoreRequest(1, pl.Series([HUMAN[3][:20]]))])
    assert score.nll.mean() == pytest.approx(mean, rel=1e-5)

    again = Gpt2(init=str(tmp_path / "saved"))
    assert again.workload().parameters == made.parameters
    opened = again.cohort("b", 1, context(tmp_path / "cache", human=[]))
    assert all((opened.state()[name][0] == made.state()[name][1]).all() for name in made.state())
    assert opened.context == 32 and opened.fingerprint != made.fingerprint
    shorter = Gpt2(init=str(tmp_path / "saved"), context=16, n_layer=1).cohort("b", 1, context(tmp_path / "cache"))
    assert shorter.context == 16 and shorter.shape.context == 32
    generic = CausalLm(init=str(tmp_path / "saved")).cohort("c", 1, context(tmp_path / "cache"))
    docs = pl.Series([*HUMAN, HUMAN[0] * 4])
    ours, general = opened.score([ScoreRequest(0, docs)])[0], generic.score([ScoreRequest(0, docs)])[0]
    assert general.nll == pytest.approx(ours.nll, abs=1e-4)


def test_old_checkpoints_without_prefix_and_with_buffers_are_read(tmp_path):
    from safetensors.numpy import load_file, save_file

    made = TINY.cohort("a", 1, context(tmp_path / "cache"))
    folder = tmp_path / "cache" / made.fingerprint
    arrays = {k.removeprefix("transformer."): v for k, v in load_file(folder / "model.safetensors").items()}
    for path in folder.iterdir():
        path.unlink() if path.name in ("hashes.json", "model.safetensors") else None
    half = len(arrays) // 2
    save_file(dict(list(arrays.items())[:half]), folder / "model-1.safetensors")
    save_file({**dict(list(arrays.items())[half:]), "h.0.attn.bias": np.ones(1)}, folder / "model-2.safetensors")
    opened = Gpt2(init=str(folder)).cohort("a", 1, context(tmp_path))
    assert largest_difference(made.state(), opened.state()) == 0


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "model.safetensors").unlink(), "contains no weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"short"), "cannot be read as weights"),
        (lambda f: rewrite(f, n_layer=2), 'lacks the weight "transformer.h.1.ln_1.weight"'),
        (lambda f: rewrite(f, n_positions=64), "has shape"),
        (lambda f: rewrite(f, vocab_size=7), "do not belong together"),
        (lambda f: rewrite(f, model_type="opt"), 'use kind = "causal_lm"'),
        (lambda f: rewrite(f, activation_function="relu"), 'use kind = "causal_lm"'),
        (lambda f: rewrite(f, n_embd="wide"), "not a number"),
    ],
)
def test_broken_checkpoints_are_sentences(tmp_path, breakage, said):
    made = TINY.cohort("a", 1, context(tmp_path / "cache"))
    folder = tmp_path / "cache" / made.fingerprint
    breakage(folder)
    with pytest.raises(DataError, match=said):
        Gpt2(init=str(folder)).cohort("a", 1, context(tmp_path))


def rewrite(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_sizes_that_contradict_the_checkpoint_are_sentences(tmp_path):
    made = TINY.cohort("a", 1, context(tmp_path / "cache"))
    folder = str(tmp_path / "cache" / made.fingerprint)
    with pytest.raises(DataError, match=r"n_layer = 5, but the checkpoint .* has 1; remove n_layer"):
        Gpt2(init=folder, n_layer=5).cohort("a", 1, context(tmp_path))
    with pytest.raises(DataError, match=r"context = 64, but the checkpoint .* has only 32; lower context"):
        Gpt2(init=folder, context=64).cohort("a", 1, context(tmp_path))
    with pytest.raises(DataError, match=r"context = 64, but the checkpoint .* has only 32; lower context"):
        CausalLm(init=folder, context=64).cohort("a", 1, context(tmp_path))


def test_checkpoints_that_are_not_there_are_sentences(tmp_path, monkeypatch):
    for family in (Gpt2, CausalLm):
        with pytest.raises(DataError, match="give a checkpoint folder"):
            family(init=str(tmp_path / "nowhere")).cohort("a", 1, context(tmp_path))
        monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
        with pytest.raises(
            DataError, match=r"not be downloaded from the Hugging Face Hub .* path of a local checkpoint folder"
        ):
            family(init="owner/model").cohort("a", 1, context(tmp_path))


def offline(*_, **__):
    raise ConnectionError("Cannot reach the Hub.")


# Any causal language model of transformers.

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "opt": {**SMALL, "ffn_dim": 32, "word_embed_proj_dim": 16},
    "llama": {**SMALL, "intermediate_size": 32},
    "gpt_neox": {**SMALL, "intermediate_size": 32},
}


def tiny_lm(architecture, init="random"):
    return CausalLm(
        init=init,
        architecture=architecture,
        config=CONFIGS[architecture],
        vocabulary=300,
        context=32,
        training=Training(batch=4, learning_rate=1e-3),
        foundation=Foundation(tokens=1500, batch=4),
    )


@pytest.mark.slow
@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_any_architecture_fits_writes_scores_and_is_saved(architecture, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    family = tiny_lm(architecture)
    made = family.cohort("m", 2, context(tmp_path / "cache"))
    docs = pl.Series(HUMAN)
    before = made.score([ScoreRequest(0, docs)])[0].nll.mean()
    records = trained(made).fit(
        [FitRequest(1, docs, np.ones(len(docs)), Budget(tokens=600), None, "previous", STREAMS.at("more"))]
    )
    assert records[0].tokens == 600 and np.isfinite(records[0].loss)
    scores = made.score([ScoreRequest(w, docs) for w in (0, 1, "initial", "random")])
    assert scores[0].nll.mean() < before - 0.1 and scores[1].nll.mean() < before - 0.1
    assert scores[2].nll.mean() == pytest.approx(before) and scores[3].nll.mean() > before - 0.1

    requests = [GenerateRequest(m, 9, Decoding(max_tokens=20), None, STREAMS.at(f"w/{m}")) for m in range(2)]
    texts = made.generate(requests)
    assert [t.len() for t in texts] == [9, 9] and texts[0].to_list() != texts[1].to_list()
    assert made.generate(requests[1:])[0].to_list() == texts[1].to_list()

    made.save_assets(tmp_path / "saved")
    family.save_weights(tmp_path / "saved", made.state(), 1)
    model, theirs = (c.from_pretrained(tmp_path / "saved") for c in (AutoModelForCausalLM, AutoTokenizer))
    ids = torch.tensor([[theirs.eos_token_id, *theirs(HUMAN[5])["input_ids"], theirs.eos_token_id]])
    with torch.no_grad():
        mean = model.eval()(ids[:, :32], labels=ids[:, :32]).loss.item()
    chosen = scores[1].nll[scores[1].offsets[5] :][: min(32, ids.shape[1]) - 1]
    assert chosen.mean() == pytest.approx(mean, rel=1e-4)

    opened = CausalLm(init=str(tmp_path / "saved"), training=family.training).cohort(
        "n", 1, context(tmp_path, human=[])
    )
    assert set(opened.state()) == set(made.state()) and opened.context == 32
    assert all((opened.state()[name][0] == made.state()[name][1]).all() for name in made.state())
    greedy = Decoding(top_k=1, max_tokens=15)
    (ours,) = opened.generate([GenerateRequest(0, 2, greedy, None, STREAMS.at("g"))])
    out = model.generate(
        torch.tensor([[theirs.eos_token_id]]),
        attention_mask=torch.ones(1, 1, dtype=torch.long),
        do_sample=False,
        max_new_tokens=15,
        pad_token_id=theirs.eos_token_id,
    )[0].tolist()[1:]
    end = out.index(theirs.eos_token_id) if theirs.eos_token_id in out else None
    assert ours.to_list() == [theirs.decode(out[:end])] * 2

    state = made.state()
    twin = family.cohort("m", 2, context(tmp_path / "cache"))
    twin.load(state)
    assert largest_difference(state, twin.state()) == 0
    twin.fit([FitRequest(0, docs, np.ones(len(docs)), Budget(tokens=300), None, "scratch", STREAMS.at("s"))])
    made.fit([FitRequest(0, docs, np.ones(len(docs)), Budget(tokens=300), None, "scratch", STREAMS.at("s"))])
    assert largest_difference(made.state(), twin.state()) == 0


def test_a_causal_lm_foundation_is_cached(tmp_path):
    family = tiny_lm("llama", "foundation")
    place = context(tmp_path)
    assert family.workload().tokens_to_pretrain == 1500
    made = family.cohort("m", 1, place)
    assert foundation.find(tmp_path, made.fingerprint)
    assert largest_difference(made.state(), family.cohort("m", 1, place).state()) == 0
    trained, chance = made.score([ScoreRequest(w, pl.Series(HUMAN)) for w in ("initial", "random")])
    assert trained.nll.mean() < chance.nll.mean() - 0.3


@pytest.mark.parametrize("objective", [None, "focal"])
def test_gpt2_and_causal_lm_train_alike(tmp_path, objective):
    """The same weights, documents and noise on both engines, 5 steps: losses agree to 1e-4 nats."""
    made = TINY.cohort("a", 1, context(tmp_path))
    folder = str(tmp_path / made.fingerprint)
    docs = pl.Series(HUMAN)
    training = TINY.training.model_copy(update={"objective": objective})
    records = [
        family.cohort("x", 1, context(tmp_path)).fit(
            [FitRequest(0, docs, np.arange(len(docs)) % 3, Budget(tokens=640), 1e-3, "previous", STREAMS.at("f"))]
        )[0]
        for family in (Gpt2(init=folder, training=training), CausalLm(init=folder, training=training))
    ]
    assert records[0].loss == pytest.approx(records[1].loss, abs=1e-4)


def test_architectures_that_cannot_be_are_sentences(tmp_path):
    with pytest.raises(DataError, match=r'no architecture "lama".*did you mean "llama"'):
        CausalLm(init="random", architecture="lama", vocabulary=300, context=32).cohort("m", 1, context(tmp_path))
    odd = CausalLm(
        init="random",
        architecture="opt",
        config={**CONFIGS["opt"], "num_attention_heads": 3},
        vocabulary=300,
        context=32,
    )
    with pytest.raises(DataError, match="opt cannot be built with these sizes"):
        odd.cohort("m", 1, context(tmp_path))
