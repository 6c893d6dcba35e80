"""Rewriting: which tokens a model draws again, from which distribution, and what the web knows of them."""

import numpy as np
import polars as pl
import pytest
import torch

from ecosystem.errors import ScenarioError
from ecosystem.families.requests import Rewriting
from ecosystem.families.statistical.categorical import CategoricalCohort
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.simulation.world import World
from ecosystem.streams import Stream
from tests.conftest import MACHINE, tiny
from tests.families_shared import SHAPE, STREAMS, cohort, documents

EVERY = Rewriting(model="m", threshold=0.0, temperature=1.0)
STREAM = STREAMS.at("rewrite")


def tokens(docs):
    return [[int(word) for word in text.split()] for text in docs]


def distribution(made, *history):
    """What the model draws after these tokens, from one pass over them."""
    logits = made._decoder(["initial"], 1, SHAPE.context).begin(torch.tensor([[0, *history]]))
    logits[:, 0] = -torch.inf
    return torch.softmax(logits.double(), -1)[0].numpy()


@pytest.mark.parametrize("after", ["original", "rewritten"])
def test_tokens_are_drawn_from_the_distribution_after_the_text_before_them(after):
    made, text = cohort(), "5 9 31 2"
    result = made.rewrite(pl.Series([text] * 4000), EVERY.model_copy(update={"after": after}), STREAM)
    drawn = np.array(tokens(result.docs))
    assert drawn.shape == (4000, 4) and not (drawn == 0).any()
    second = drawn if after == "original" else drawn[drawn[:, 0] == np.bincount(drawn[:, 0]).argmax()]
    first = 5 if after == "original" else second[0, 0]
    for sample, p in ((drawn[:, 0], distribution(made)), (second[:, 1], distribution(made, first))):
        observed = np.bincount(sample, minlength=SHAPE.vocabulary) / len(sample)
        assert (abs(observed - p) <= 4.5 * np.sqrt(p * (1 - p) / len(sample)) + 1e-9).all()


def test_only_tokens_of_at_least_the_threshold_change():
    made, docs, threshold = cohort(), documents(30), 0.02
    result = made.rewrite(docs, EVERY.model_copy(update={"threshold": threshold}), STREAM)
    changed = 0
    for old, new in zip(tokens(docs), tokens(result.docs), strict=True):
        assert len(old) == len(new)
        for i in range(min(len(old), SHAPE.context - 1)):
            if old[i] != new[i]:
                changed += 1
                assert _probability(made, old[:i], old[i]) >= threshold * 0.999
    assert changed > 20 and result.changed.sum() >= changed
    assert made.rewrite(docs, EVERY.model_copy(update={"threshold": 1.0}), STREAM).docs.to_list() == docs.to_list()


def _probability(made, before, token):
    logits = made._decoder(["initial"], 1, SHAPE.context).begin(torch.tensor([[0, *before]]))
    return float(torch.softmax(logits, -1)[0, token])


def test_shares_count_changed_tokens_and_documents_do_not_depend_on_each_other():
    made, docs = cohort(), documents(40)
    how = Rewriting(model="m", threshold=0.0, rate=0.3)
    result = made.rewrite(docs, how, STREAM)
    pairs = list(zip(tokens(docs), tokens(result.docs), strict=True))
    assert result.changed.tolist() == [sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairs]
    assert result.tokens.tolist() == [len(old) for old, _ in pairs]
    assert 0.2 < result.changed.sum() / result.tokens.sum() < 0.33
    # With fewer documents and other threads, the first ones are the same.
    assert cohort(threads=1).rewrite(docs.head(7), how, STREAM).docs.to_list() == result.docs.head(7).to_list()
    none = how.model_copy(update={"rate": 0.0})
    assert made.rewrite(docs, none, STREAM).docs.to_list() == docs.to_list()
    empty = made.rewrite(pl.Series([""]), how, STREAM)
    assert empty.docs.to_list() == [""] and empty.share.tolist() == [0.0]


def test_a_temperature_flattens_what_symbols_are_drawn_from():
    made = CategoricalCohort("m", 1, 3)
    made.begin_from(np.repeat([0, 1, 2], [60, 30, 10]))
    how = Rewriting(model="m", threshold=0.5, temperature=2.0)
    docs = pl.Series([0] * 20_000 + [1] * 50 + [2] * 50, dtype=pl.Int32)
    result = made.rewrite(docs, how, Stream(1, "edit"))
    assert result.docs[20_000:].to_list() == docs[20_000:].to_list()  # less probable than the threshold
    expected = np.sqrt([0.6, 0.3, 0.1]) / np.sqrt([0.6, 0.3, 0.1]).sum()
    observed = np.bincount(result.docs[:20_000], minlength=3) / 20_000
    assert (abs(observed - expected) < 4.5 * np.sqrt(expected / 20_000)).all()
    assert result.share.mean() == pytest.approx(1 - observed[0], abs=0.01)


def rewriting(**fields):
    return tiny(writers__people__rewrite={"model": "tiny", "threshold": 0.0, "rate": 0.4, **fields})


def test_a_rewritten_document_is_human_with_the_changed_share_as_its_depth(cache):
    worlds = [World(scenario, 3, cache=cache, threads=1) for scenario in (tiny(), rewriting())]
    written = []
    for world in worlds:
        world.step()
        snapshot = world.snapshot()
        written.append(snapshot.segment.filter(pl.col("author").str.starts_with("writers/")))
    plain, rewritten = written
    same = ["doc", "author", "source", "row", "synthetic"]
    assert rewritten.height and rewritten.select(same).equals(plain.select(same)) and not plain["synthetic"].any()
    changed = rewritten["content"] != plain["content"]
    assert (rewritten["model"].is_not_null() == changed).all() and set(rewritten["model"].drop_nulls()) == {"tiny"}
    assert ((rewritten["depth"] > 0) == changed).all() and 0.2 < rewritten["depth"].mean() < 0.45
    costs = snapshot.metrics.filter((pl.col("metric") == "flops") & pl.col("id").str.starts_with("writers/"))
    assert costs.height and (costs["value"] > 0).all()
    shares = snapshot.metrics.filter((pl.col("metric") == "depth") & (pl.col("scope") == "training_set"))
    assert (shares["value"] > 0).all()


def test_rewriting_that_no_model_can_do_is_refused():
    with pytest.raises(ScenarioError, match=r"writers.people.rewrite.model: there is no \[models.other\]"):
        rewriting(model="other")
    with pytest.raises(ScenarioError, match="starts from untrained weights"):
        tiny(writers__people__rewrite={"model": "tiny"}, models__tiny__init="random")


def test_a_lineage_says_what_models_changed_of_the_text_of_people(cache, tmp_path):
    scenario = rewriting().override({"steps": 2, "weights_every": 1})
    list(begin(scenario, out=tmp_path, machine=MACHINE, cache=cache))
    run = Run.open(folder_of(scenario, tmp_path))
    docs = run.documents.collect()
    human = docs.filter((pl.col("depth") > 0) & ~pl.col("synthetic"))["doc"][0]
    assert "written by people; a model changed" in run.lineage(human).text()
    lineage = run.lineage(docs.filter(pl.col("synthetic") & (pl.col("depth") > 1))["doc"][-1])
    assert lineage.depth > lineage.hops and "that models changed" in lineage.text()
