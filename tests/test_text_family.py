"""Single models of text: the how-to runs, and its model equals an n-gram model of the same counts."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import DataError, TrainingError
from ecosystem.families.base import FAMILIES, MemberError, SupportsPrompts, SupportsWatermark, TextCohort
from ecosystem.families.language.cohort import CohortSettings
from ecosystem.families.language.gpt2.family import Gpt2
from ecosystem.families.language.ngram.cohort import CountCohort
from ecosystem.families.language.ngram.counts import NgramSettings
from ecosystem.families.language.ngram.family import Ngram
from ecosystem.families.language.single import SingleTextCohort
from ecosystem.families.requests import Decoding, Prompt, ScoreRequest
from ecosystem.families.training_spec import Foundation
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.testing import check_family
from tests.conftest import MACHINE
from tests.families_shared import Numbers, fit_request, generate_request

GUIDE = Path(__file__).parent.parent / "docs" / "howto" / "text-family.md"
DOCS = pl.Series(["1 2 3 1 2", "2 2 1", "", "5 1 2 3 4 5 1 2", "1 2"])
WEIGHT = [1.0, 2.0, 1.0, 0.0, 1.0]


class Few(Numbers):
    """Seven tokens; 0 is the end of text."""

    size = 7


@pytest.fixture(scope="module")
def guide():
    """The names of the how-to after all its blocks have been run."""
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(GUIDE), "exec"), names)
    yield names
    del FAMILIES._kinds["pairs"]  # other tests list the kinds


def single(guide, members=1, context=24, **settings):
    return SingleTextCohort("model", members, Few(), lambda: guide["PairModel"](7, 0.3), context=context, **settings)


def fitted(made):
    made.fit([fit_request(DOCS, weight=WEIGHT)])
    return made


# The how-to.


@pytest.mark.slow
def test_a_run_of_the_guide_is_reported_and_resumed(guide, tmp_path, cache):
    scenario, run = guide["scenario"], guide["run"]
    report = (run.path / "report.html").read_text(encoding="utf-8")
    assert "pair-loop" in report and "labs" in report
    for steps in (1, 2):
        for _ in begin(scenario.override({"steps": steps}), out=tmp_path, machine=MACHINE, cache=cache):
            pass
    resumed = Run.open(folder_of(scenario, tmp_path))
    assert resumed.environment["resumed"] and not run.environment["resumed"]
    assert resumed.metrics.equals(run.metrics)
    assert resumed.documents.collect().equals(run.documents.collect())
    for step in range(3):
        a, b = (r.store.weights(step).get("pairs", {}) for r in (run, resumed))
        # Stored arrays are read anew at each access, and save() keeps none of them alive.
        assert save(dict(a)) == save(dict(b)) and {key.split("/")[0] for key in a} == (
            set() if step == 0 else {"0", "1"}
        )
    costs = run.metrics.filter(scope="cost", step=2, id="trainers/labs/0")
    assert {"tokens_trained", "tokens_generated", "tokens_published"} <= set(costs["metric"])


@pytest.mark.slow
def test_a_prompt_and_a_watermark_in_a_run(guide, cache, tmp_path):
    scenario = guide["scenario"].override(
        {
            "policies": {"secret": {"kind": "watermark", "model": "pairs", "key": 5}},
            "trainers.labs.decoding": {"max_tokens": 40, "watermark": "secret", "prompt": {"tokens": 3}},
        }
    )
    for _ in begin(scenario, out=tmp_path, machine=MACHINE, cache=cache):
        pass
    run = Run.open(folder_of(scenario, tmp_path))
    marks = run.metrics.filter(metric="watermark_z", step=2, scope="trainer")
    human = run.metrics.filter(metric="watermark_z", step=0, id="human")
    assert marks.height == 2 and marks["value"].min() > human["value"][0] + 1


# The laws of a family.


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [
        Ngram(order=2, vocabulary=280, context=32),
        Ngram(order=3, vocabulary=280, context=32, smoothing="add_k", k=0.1, init="random"),
        Gpt2(n_layer=1, n_embd=16, n_head=2, vocabulary=280, context=32, foundation=Foundation(tokens=500, batch=4)),
    ],
    ids=["counts that start pretrained", "counts from nothing", "gpt2"],
)
def test_language_families_obey_the_laws(family, guide, tmp_path):
    check_family(family, guide["documents"], tmp_path)


# The cohort.


@pytest.mark.slow
def test_it_is_the_ngram_model_of_the_same_counts(guide):
    """Scores agree to rounding, behind prompts too, and the same uniform numbers pick the same tokens.

    Every token occurs in the documents: after one that does not, an n-gram model looks at shorter contexts.
    """
    docs, weight = pl.concat([DOCS, pl.Series(["6 4 3 5 6"])]), [1.0, 2.0, 1.0, 0.5, 1.0, 3.0]
    ours = single(guide)
    ngrams = NgramSettings(2, "add_k", k=0.3)
    theirs = CountCohort(CohortSettings("model", 1, Few(), 24), ngrams, DOCS.clear(), 1)
    [record], [other] = (made.fit([fit_request(docs, weight=weight)]) for made in (ours, theirs))
    assert record.tokens == other.tokens and record.loss == pytest.approx(other.loss)
    prompts = pl.Series(["5 1", "6", "", "2 2 1 4", "3"])
    for request in (ScoreRequest(0, DOCS), ScoreRequest(0, DOCS, prompts), ScoreRequest("random", DOCS)):
        [a], [b] = ours.score([request]), theirs.score([request])
        np.testing.assert_allclose(a.nll, b.nll, rtol=1e-6)
        assert (a.unit == b.unit).all() and (a.offsets == b.offsets).all()
    np.testing.assert_allclose(ours.next_token(0, DOCS, 2), theirs.next_token(0, DOCS, 2), atol=1e-6)
    for decoding in (
        Decoding(max_tokens=20),
        Decoding(max_tokens=20, temperature=0.5, top_k=5),
        Decoding(max_tokens=9, top_p=0.8, repetition_penalty=1.3, prompt=Prompt(tokens=2)),
    ):
        given = None if decoding.prompt is None else prompts.gather(np.arange(60) % 5)
        for mark in (None, WatermarkSpec("green_list", 7)):
            request = generate_request(60, decoding, prompts=given)
            request = type(request)(**(vars(request) | {"mark": mark}))
            [a], [b] = ours.generate([request]), theirs.generate([request])
            assert a.equals(b)
            assert (ours.written[0].drawn == theirs.written[0].drawn).all()


def test_what_it_can_do_is_what_protocols_say(guide):
    made = single(guide)
    assert isinstance(made, TextCohort) and isinstance(made, SupportsWatermark)
    assert not isinstance(made, SupportsPrompts) and made.fingerprint == "" and made.flops_per_token(24) is None


@pytest.mark.slow
def test_long_documents_are_scored_in_windows(guide):
    long = pl.Series([" ".join(map(str, np.random.default_rng(0).integers(1, 7, 61)))])
    [windows], [whole] = (fitted(single(guide, context=n)).score([ScoreRequest(0, long)]) for n in (8, 100))
    np.testing.assert_allclose(windows.nll, whole.nll)


def test_members_begin_alike_and_a_fit_begins_anew(guide):
    made = single(guide, members=3)
    assert made.score([ScoreRequest(1, DOCS)])[0].nll == pytest.approx(np.log(7)) and made.state() == {}
    made.begin_from(DOCS, fit_request(DOCS).stream)
    initial, own = made.score([ScoreRequest("initial", DOCS), ScoreRequest(2, DOCS)])
    assert (initial.nll == own.nll).all() and initial.nll.mean() < np.log(7)
    for _ in range(2):
        made.fit([fit_request(pl.Series(["6 6"]), member=1)])
    assert made.state()["1/counts"].sum() == pytest.approx(3 + 49 * 0.3), "the first fit is replaced"
    assert (made.score([ScoreRequest(2, DOCS)])[0].nll == own.nll).all()
    twin = single(guide, members=3)
    twin.load(made.state())
    assert save(twin.state()) == save(made.state())


def test_a_check_names_the_law_that_an_incomplete_state_breaks(guide, tmp_path):
    class Forgetful(guide["PairModel"]):
        def state(self):
            return {"sums": np.zeros(7)}

    class Family(guide["PairFamily"]):
        def cohort(self, name, members, context):
            return SingleTextCohort(name, members, Few(), lambda: Forgetful(7, 0.3))

    with pytest.raises(AssertionError, match=r"loads the state of another must continue.* raised KeyError"):
        check_family(Family(), DOCS, tmp_path)


def test_mistakes_are_sentences(guide):
    made = fitted(single(guide, members=2))
    before = made.state()
    for docs, weight, sentence in (
        (DOCS[:0], None, "member 1 cannot be trained: there are no documents"),
        (DOCS, np.zeros(5), "every document has weight 0"),
    ):
        with pytest.raises(MemberError, match=sentence):
            made.fit([fit_request(pl.Series(["1"])), fit_request(docs, 1, weight)])

    class Checked(guide["PairModel"]):
        def load(self, state):
            raise DataError("counts have another shape.")

    checked = SingleTextCohort("model", 2, Few(), lambda: Checked(7, 0.3))
    with pytest.raises(DataError, match=r'parameters of model "model" do not fit: counts have another shape'):
        checked.load({"0/counts": np.ones((3, 3))})
    with pytest.raises(DataError, match="its members are 0 to 1"):
        made.load({"2/counts": np.ones((7, 7))})
    assert save(made.state()) == save(before)

    class Wrong(guide["PairModel"]):
        def next_token(self, ids):
            p = super().next_token(ids)
            return p[:, :3] if self.add > 0.3 else 2 * p

    for add, sentence in ((0.5, r"shape \[\d+, 3\], not \[\d+, 7\]"), (0.1, "not distributions")):
        wrong = SingleTextCohort("model", 1, Few(), lambda add=add: Wrong(7, add))
        with pytest.raises(MemberError, match=rf"member 0: next_token\(\) returned .*{sentence}"):
            wrong.fit([fit_request(DOCS)])
        wrong.begin_from(DOCS, fit_request(DOCS).stream)
        with pytest.raises(TrainingError, match=r'model "model": next_token\(\) returned'):
            wrong.score([ScoreRequest("initial", DOCS)])
        with pytest.raises(MemberError, match="member 0: next_token"):
            wrong.generate([generate_request(3)])
