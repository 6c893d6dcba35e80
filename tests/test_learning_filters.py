"""Filters that learn, written by a third party and installed as a plug-in, in a run from its file to its tables."""

import sys

import polars as pl
import pytest

from ecosystem.errors import ScenarioError
from ecosystem.policies.base import POLICIES
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.testing import check_policy
from tests.conftest import MACHINE, tiny

PLUGIN = '''
import polars as pl
from pydantic import Field

from ecosystem.policies.base import POLICIES
from ecosystem.policies.learning import Examples, LearningFilter, cutoff


@POLICIES.register("machine_spotter")
class MachineSpotter(LearningFilter):
    """Refuses a fifth of human text, and more of synthetic text, as editors have labelled it."""

    detects_synthetic = True
    reason = "spotted with {}"

    labels: int = Field(100, description="documents that editors label at every other step")

    def fitted_at(self, t):
        return t - t % 2

    def collect_examples(self, view):
        return view.labelled(self.labels // 2, 0.05)

    def refused(self, score, reference):
        return score > cutoff(reference, 0.2)


@POLICIES.register("like_the_first")
class LikeTheFirst(LearningFilter):
    """Refuses documents that look less like those with which the web began than like newer ones."""

    def collect_examples(self, view):
        docs = view.documents(200)
        return Examples.contrast(docs.filter(pl.col("t") == 0), docs.filter(pl.col("t") > 0))

    def refused(self, score, reference):
        return score < 0.5
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a distribution with an entry point in a folder on the path."""
    (tmp_path / "their_filters.py").write_text(PLUGIN)
    metadata = tmp_path / "their_filters-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-filters\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[ecosystem.plugins]\ntheirs = their_filters\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(POLICIES, "_kinds", dict(POLICIES.all()))
    monkeypatch.setattr(POLICIES, "_plugins_loaded", False)
    yield
    sys.modules.pop("their_filters", None)


def scenario(**changes):
    """Return the tiny scenario with bigrams for models, plugged-in filters at both gates and weights by scores."""
    base = tiny().override({"models.tiny": {"preset": "bigram", "vocabulary": 300, "context": 64}})
    policies = {
        "spotter": {"kind": "machine_spotter", "labels": 60},
        "first": {"kind": "like_the_first"},
        "odds": {"kind": "importance", "detector": "spotter"},
    }
    return base.override({f"policies.{name}": policy for name, policy in policies.items()}).override(
        {"web.publish": ["spotter"], "trainers.careful.select": ["first", "odds"], **changes}
    )


def run(steps, out, cache):
    for _ in begin(scenario(steps=steps), out=out, machine=MACHINE, cache=cache):
        pass
    return Run.open(folder_of(scenario(), out))


@pytest.mark.slow
def test_a_plugged_in_filter_learns_refuses_and_is_measured(plugin, cache, tmp_path):
    whole = run(4, tmp_path / "whole", cache)
    drafts = whole.documents.filter(pl.col("verdict") == "spotter").collect()
    assert drafts.height > 5 and drafts["t"].min() == 2 and drafts["reason"].str.starts_with("spotted with 0.").all()
    ledger = whole.ledger.filter(pl.col("reader") == "careful/0").collect()
    refused = ledger.filter(pl.col("verdict") == "first")
    assert refused.height > 5 and refused["reason"].str.starts_with("classifier score 0.").all()
    assert ledger.filter(pl.col("verdict").is_null())["weight"].n_unique() > 2, "importance reads the spotter's scores"

    metrics = whole.metrics.filter(pl.col("scope") == "policy")
    rates = metrics.filter(pl.col("metric").is_in(["true_positive_rate", "false_positive_rate"]))
    assert set(rates.select("step", "id").rows()) >= {(2, "spotter"), (2, "spotter/depth-1"), (4, "spotter")}
    assert rates["error"].null_count() == 0 and rates["value"].is_between(0, 1).all()
    areas = metrics.filter(pl.col("metric") == "auc")
    assert areas.filter(pl.col("id") == "spotter")["value"].min() > 0.5, "bigrams are told from the language"
    assert areas.filter(pl.col("id") == "first")["step"].to_list() == [2, 3, 4]
    reviews = whole.metrics.filter((pl.col("scope") == "cost") & (pl.col("metric") == "reviews"))
    bought = reviews.filter(pl.col("id").str.starts_with("policies/"))
    assert bought.select("step", "id").rows() == [(2, "policies/spotter"), (4, "policies/spotter")]
    assert bought["value"].is_between(30, 60).all()

    run(3, tmp_path / "parts", cache)
    parts = run(4, tmp_path / "parts", cache)
    assert [c.files for c in Store(parts.path).commits()] == [c.files for c in Store(whole.path).commits()]


@pytest.mark.slow
def test_a_filter_without_usable_examples_refuses_nothing_and_an_event_says_so(plugin, cache, tmp_path):
    done = run(3, tmp_path, cache)
    told = [(step, event) for step, event in done.events if event.startswith("policies.first")]
    assert told == [
        (
            1,
            "policies.first: no classifier was fitted, since all 60 examples to learn from are positive; nothing is "
            "refused or weighed by its scores until the next fit",
        )
    ]
    by_step = dict(done.ledger.filter(pl.col("verdict") == "first").group_by("step").len().collect().iter_rows())
    assert 1 not in by_step and 2 in by_step
    assert not any(event.startswith("policies.spotter") for _, event in done.events), "it is due at step 2 only"


def test_plugged_in_filters_obey_the_laws_and_are_checked_where_they_are_named(plugin):
    for kind in ("machine_spotter", "like_the_first"):
        check_policy(POLICIES.get(kind)())
    with pytest.raises(ScenarioError, match=r"odds\.detector: .*learned_detector; defined: spotter"):
        scenario(**{"policies.odds.detector": "first"})
