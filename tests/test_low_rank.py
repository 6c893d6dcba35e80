"""Adapters of the gpt2 family: the numbers of peft, and a base model that all members share."""

import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ecosystem.errors import DataError, ScenarioError
from ecosystem.families.language.gpt2.family import Gpt2
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, ScoreRequest
from ecosystem.families.training_spec import learning_rate
from ecosystem.scenario.scenario import Scenario
from tests.families_shared import STREAMS, build_context
from tests.test_checkpoints import HUMAN, saved

pytest.importorskip("peft")
DOCS = pl.Series("text", HUMAN[:20], dtype=pl.String)
ADAPTER = {"rank": 4, "alpha": 6.0, "targets": ["c_attn", "mlp.c_proj"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("gpt2") / "base", "gpt2", Tokenizer.train(HUMAN, 300))


def opened(base, members=1, threads=2, **adapter):
    family = Gpt2(init=str(base), adapter={**ADAPTER, **adapter}, training={"batch": 4, "learning_rate": 1e-2})
    return family, family.cohort("m", members, build_context(human=HUMAN, threads=threads))


def fitted(member=0, tokens=400):
    return FitRequest(member, DOCS, np.ones(20), Budget(tokens=tokens), None, "foundation", STREAMS.at("fit"))


def with_peft(base, cohort, adapter):
    """The same base model and adapter as a module of peft."""
    from peft import get_peft_model
    from transformers import GPT2LMHeadModel

    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft, at the layout of GPT-2's weights
        module = get_peft_model(GPT2LMHeadModel.from_pretrained(base, **off), adapter.configuration())
    parameters = {name.replace(".default.", "."): p for name, p in module.named_parameters() if p.requires_grad}
    weights = cohort.weights.of(0)
    assert {name: tuple(p.shape) for name, p in parameters.items()} == cohort.weights.shapes
    for name, parameter in parameters.items():
        parameter.data = weights[name].clone()
    return module, parameters


@pytest.mark.slow
@pytest.mark.parametrize("targets", [["all-linear"], ADAPTER["targets"]])
def test_loss_and_optimiser_step_are_those_of_peft(base, targets):
    family, cohort = opened(base, targets=targets)
    cohort.fit([fitted()])  # so that neither matrix is zero
    module, parameters = with_peft(base, cohort, family.adapter)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 299, (4, 24)))
    weights = cohort.weights.of(0)
    rows = ids[:, :-1], ids[:, 1:], torch.full((4, 23), 1 / 92)
    ours, grads = cohort._gradients(weights)(rows, None)
    theirs = module(input_ids=ids, labels=ids).loss
    theirs.backward()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)
    for (name, grad), parameter in zip(zip(weights, grads, strict=True), parameters.values(), strict=True):
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-3, atol=1e-6, msg=name)
    batches = cohort._packed(fitted(tokens=96))
    before, (batch,) = {name: tensor.clone() for name, tensor in weights.items()}, batches
    cohort.fit([FitRequest(0, DOCS, np.ones(20), Budget(tokens=96), None, "previous", STREAMS.at("fit"))])
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=family.training.weight_decay)
    optimiser.zero_grad()
    logits = module(input_ids=torch.from_numpy(batch.inputs).long()).logits
    targets = torch.from_numpy(batch.targets).long().flatten()
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
    (nll @ torch.from_numpy(batch.weight).flatten() / batch.tokens).backward()
    torch.nn.utils.clip_grad_norm_(parameters.values(), family.training.clip)
    rate = learning_rate(cohort.training, cohort.training.learning_rate, 0, batches.steps)
    for group in optimiser.param_groups:
        group["lr"], group["betas"] = rate, (family.training.beta1, family.training.beta2)
    optimiser.step()
    for name, tensor in cohort.weights.of(0).items():
        assert not torch.equal(tensor, before[name])
        torch.testing.assert_close(tensor, parameters[name].detach(), rtol=1e-3, atol=0.02 * rate)


def test_members_share_the_base_and_start_as_it(base):
    family, cohort = opened(base, 3)
    shared = {name: tensor.clone() for name, tensor in cohort._low_rank._base.items()}
    plain = Gpt2(init=str(base)).cohort("m", 1, build_context(human=HUMAN))
    whole = plain.parameters
    assert cohort.parameters == whole + cohort.weights.count() and all(".lora_" in name for name in cohort.state())
    assert family.footprint().own == cohort.weights.count() and family.footprint().shared == whole
    scores = cohort.score([ScoreRequest(member, DOCS) for member in ("initial", "random", 2)])
    untrained = plain.score([ScoreRequest(0, DOCS)])[0].nll
    assert np.allclose(scores[0].nll, untrained, atol=1e-5) and (scores[0].nll == scores[2].nll).all()
    assert (scores[1].nll != scores[0].nll).any()
    cohort.fit([fitted(1, 4000)])
    assert all(torch.equal(cohort._low_rank._base[name], tensor) for name, tensor in shared.items())
    after = cohort.score([ScoreRequest(member, DOCS) for member in (0, 1)])
    assert (after[0].nll == scores[0].nll).all() and after[1].nll.mean() < scores[0].nll.mean() - 0.01
    alone, one_thread = opened(base, 3)[1], opened(base, 3, threads=1)[1]
    alone.fit([fitted(1, 4000), fitted(2, 500)]), one_thread.fit([fitted(1, 4000)])
    for other in (alone, one_thread):  # bit for bit, whatever else is trained and by how many threads
        assert all((other.state()[name][1] == values[1]).all() for name, values in cohort.state().items())
    again = opened(base, 3)[1]
    again.load({name: values.copy() for name, values in cohort.state().items()})
    requests = [GenerateRequest(1, 20, Decoding(max_tokens=20), None, STREAMS.at("writes"))]
    assert again.generate(requests)[0].to_list() == cohort.generate(requests)[0].to_list()


@pytest.mark.slow
def test_checkpoints_open_in_transformers_and_peft(base, tmp_path):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    family, cohort = opened(base)
    cohort.fit([fitted(tokens=2000)])
    cohort.save_assets(tmp_path)
    family.save_weights(tmp_path, cohort.state(), 0)
    ids = torch.tensor([cohort.tokenizer.encode(DOCS)[0].tolist()[:4]])
    ours = cohort.next_token(0, DOCS.head(1), ids.shape[1])
    ids = torch.cat([torch.tensor([[cohort.tokenizer.end]]), ids], 1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, at peft
        modules = (
            AutoModelForCausalLM.from_pretrained(tmp_path),
            AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter"),
        )
        for module in modules:
            p = torch.softmax(module.eval()(ids).logits[0, -1], -1).numpy()
            np.testing.assert_allclose(ours[0], p, atol=1e-5)


def test_adapters_that_do_not_fit_are_refused(base, tmp_path):
    with pytest.raises(ValueError, match=r'targets: a GPT-2 has no linear layer "q_proj"; it has attn\.c_attn'):
        Gpt2(init=str(base), adapter={"targets": ["q_proj"]})
    with pytest.raises(DataError, match=r"this gpt2 of \d+ layers has no linear layers by these names"):
        opened(base, targets=["h.90.attn.c_attn"])
    sizes = {"n_layer": 1, "n_embd": 32, "n_head": 2, "vocabulary": 300, "context": 32}
    with pytest.raises(ValueError, match='adapts a checkpoint, but init = "foundation"'):
        Gpt2(adapter=ADAPTER, **sizes)
    text = (Path(__file__).parent.parent / "scenarios" / "real_model.toml").read_text()
    text = text.replace('from = "previous"', 'from = "scratch"').replace('"causal_lm"', '"gpt2"')
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ScenarioError, match="from: an adapter trains the weights of its checkpoint only"):
        Scenario.load(tmp_path / "a.toml")
