"""What changes between two steps: which policies are in force, and which laboratories begin, split, merge and end."""

from contextlib import closing
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from ecosystem.app.worlds.actions import previewed
from ecosystem.app.worlds.run_view import RunView
from ecosystem.errors import ScenarioError
from ecosystem.families.base import BuildContext
from ecosystem.families.members import MemberWeights
from ecosystem.metrics.conditions import Comparison, Condition, measured
from ecosystem.report import findings, summaries
from ecosystem.report.build import write_report
from ecosystem.report.data import RunReportData
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.consistency import unused_settings
from ecosystem.scenario.measured import unmeasured
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.phases import watermarking
from ecosystem.simulation.transitions.laboratories import Transferred
from ecosystem.simulation.world import World
from ecosystem.streams import Streams
from ecosystem.theory.diversity import diversity_merged, diversity_replace
from tests.conftest import MACHINE, tiny
from tests.test_branch import branched, ran

STEPS = 9
ONLINE = {"kind": "window", "steps": 3}
BRAKE = {"kind": "oracle", "when": "web.synthetic_share > 0.4", "ends_when": "web.synthetic_share < 0.3"}


def parse(**sections) -> Scenario:
    """Symbols on a small web, which people and two populations of laboratories write to; a step takes milliseconds."""
    trainer = {"count": 2, "model": "frequencies", "scrape": {"docs": 30}, "publish": 8, "retain": []}
    return Scenario.parse(
        {
            "name": "transitions",
            "steps": STEPS,
            "sources": {"truth": {"kind": "categorical", "types": 20, "shape": "zipf", "exponent": 1.0}},
            "web": {
                "kind": "barabasi_albert",
                "sites": 10,
                "degree": 2,
                "initial": {"source": "truth", "documents": 60},
                "publish": ["brake"],
                "retain": ["online"],
            },
            "models": {"frequencies": {"kind": "categorical", "types": 20, "init": "foundation"}},
            "policies": {"online": ONLINE, "brake": BRAKE},
            "writers": {"people": {"source": "truth", "rate": 20.0}},
            "trainers": {"a": trainer, "b": trainer},
            **sections,
        }
    )


def with_brake(**fields) -> Scenario:
    return parse(policies={"online": ONLINE, "brake": {"kind": "oracle", **fields}})


def committed(run, steps=range(STEPS + 1)):
    return [commit.files for commit in run.store.commits() if commit.step in steps]


def resumed_at(scenario, out, cache, stops) -> Run:
    """Run a scenario in several parts; every part is left as if killed, and the next one resumes it."""
    for stop in [*stops, scenario.steps]:
        with closing(begin(scenario, out=out, machine=MACHINE, cache=cache)) as snapshots:
            for snapshot in snapshots:
                if snapshot.t == stop:
                    break
    return Run.open(folder_of(scenario, out))


@pytest.fixture(scope="module")
def braked(tmp_path_factory, cache) -> Run:
    return ran(parse(), tmp_path_factory.mktemp("braked"), cache=cache)


# Conditions


@pytest.mark.parametrize(
    ("field", "text", "sentence"),
    [
        ("when", "web.synthetic_share", r"policies\.brake\.when: 'web.synthetic_share' is not a condition: write NAME"),
        ("when", "web.synthetic_share > high", r"policies\.brake\.when: .* is not a condition"),
        ("when", "web.synthetic_share > 1e999", r"policies\.brake\.when: .* is not a condition"),
        ("when", "web.synthetic_share > 0.4 and", r"policies\.brake\.when: .* is not a condition"),
        ("when", "__import__('os').getcwd() > 1", r"policies\.brake\.when: .* is not a condition"),
        ("when", "web.synthetic_shar > 0.4", r'no metric "synthetic_shar" \(did you mean "synthetic_share"\?\)'),
        ("when", "web.support > 4", r"policies\.brake\.when: the web has no support; choose from synthetic_share, dep"),
        ("when", "lab.support > 4", r'when: there is no population of trainers "lab"; choose from web, a, b\.'),
        ("when", "a/2.support > 4", r"when: there is no trainer a/2; the numbers are 0 to 1\."),
        (
            "ends_when",
            "web.synthetic_share < 0.5",
            r"ends_when: both conditions hold if web\.synthetic_share is",
        ),
        (
            "ends_when",
            "web.synthetic_share > 0.3",
            r"both conditions hold if web\.synthetic_share is 0\.5",
        ),
        ("ends_when", "web.depth <", r"policies\.brake\.ends_when: 'web.depth <' is not a condition"),
    ],
)
def test_a_wrong_condition_is_a_sentence_with_its_path(field, text, sentence):
    with pytest.raises(ScenarioError, match=sentence):
        with_brake(**{"when": "web.synthetic_share > 0.4", field: text})


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("naive.kept_human > 4", "trainers have no kept_human, which is a metric of policies"),
        ("naive.suspect_human > 4", "a metric of curators"),
        ("naive.flagged_share > 4", "a metric of instruments"),
        ("naive.w2 > 4", "w2 is not measured of models of text documents"),
        ("web.held_out_overlap > 0", r"never measured in this scenario; add a table \[measure.overlap\]"),
        ("web.crawl_refused_share > 0", "set web.types.NAME.refuses"),
        ("naive.next_token_l1 > 0", "set measure.contexts"),
        ("naive.distinct_2 < 0.4", "list its kind in measure.texts"),
        ("naive.accuracy_topic < 0.4", "list its task in measure.downstream"),
        ("naive.cross_entropy > 4", "set held_out of the source of web.initial"),
    ],
)
def test_a_condition_on_what_is_never_measured_is_refused(condition, reason):
    unmeasured = {"measure__texts": ["repetition"], "measure__contexts": 0, "sources__language__held_out": 0}
    with pytest.raises(ScenarioError, match=rf"policies\.brake\.when: .*{reason}"):
        tiny(**unmeasured, policies__brake={"kind": "oracle", "when": condition})


def test_a_condition_on_what_is_measured_later_or_always_is_allowed(finished, braked):
    change = {"at": 2, "set": {"measure.contexts": 3}}
    tiny(measure__contexts=0, changes=[change], policies__brake={"kind": "oracle", "when": "naive.next_token_l1 > 0"})
    for run in (finished, braked):
        trained = run.metrics.filter(pl.col("scope").is_in(["trainer", "training_set"]) & (pl.col("step") > 0))
        for metric in trained["metric"].unique():
            assert unmeasured(run.scenario, Comparison("a", None, metric, ">", 0.0)) == ""
        for metric in run.metrics.filter((pl.col("scope") == "web") & (pl.col("step") > 0))["metric"].unique():
            assert unmeasured(run.scenario, Comparison("web", None, metric, ">", 0.0)) == ""


def test_a_condition_that_ends_what_never_began_is_refused():
    with pytest.raises(ScenarioError, match=r"policies\.brake\.ends_when: has no meaning .* set when too"):
        with_brake(ends_when="web.depth < 1")


def test_and_binds_more_tightly_than_or():
    condition = Condition.parse("web.depth > 3 or web.documents >= 10 and a/1.support <= 2e1")
    depth, documents, support = condition.comparisons()
    assert (support.of, support.number, support.limit) == ("a", 1, 20.0)
    for values in np.ndindex(2, 2, 2):
        values_of = {depth: 3.0 + values[0], documents: 9.0 + values[1], support: 21.0 - values[2]}
        assert condition.holds(values_of) == (values[0] or (values[1] and values[2]))


def test_a_policy_is_in_force_between_two_thresholds(braked):
    """Recomputed here from the measured shares; the policy refuses all machine text while it is in force."""
    shares = summaries.series(braked.metrics, "web", "synthetic_share")["value"].to_list()
    expected, on = [], False
    for share in shares[:-1]:
        on = share >= 0.3 if on else share > 0.4
        expected.append(on)
    assert len(set(expected)) == 2 and sum(a != b for a, b in pairwise(expected)) >= 3
    recorded = braked.metrics.filter(metric="in_force")
    assert recorded["value"].to_list() == [float(on) for on in expected]
    drafts = braked.documents.filter(pl.col("t") > 0).collect()
    for t, on in enumerate(expected, 1):
        refused = drafts.filter((pl.col("t") == t) & (pl.col("verdict") == "brake"))
        assert refused.height == (4 * 8 if on else 0)
    judged = braked.metrics.filter((pl.col("id") == "web/brake") & (pl.col("metric") == "refused_synthetic"))
    assert judged["step"].to_list() == [t for t, on in enumerate(expected, 1) if on]  # no row where it did not act


def test_every_switch_is_an_event_and_in_the_report(braked):
    steps = summaries.in_force(braked.metrics)["brake"]
    events = [(t, event) for t, event in braked.events if event.startswith("policies.brake")]
    assert [t for t, _ in events] == [t for t, _ in summaries.switches(braked.metrics)]
    assert "comes into force (web.synthetic_share > 0.4): web.synthetic_share was 0." in events[0][1]
    assert "is no longer in force (web.synthetic_share < 0.3)" in events[1][1]
    data = RunReportData.of(braked)
    assert (events[0][0], "policies.brake in force") in data.theme.changes
    assert (events[1][0], "policies.brake not in force") in data.theme.changes
    [sentence] = findings.conditions(braked.metrics, braked.scenario.policies)
    assert f"at {len(steps)} of {STEPS} steps ({findings.spans(steps)})" in sentence
    assert findings.spans([1, 2, 3, 7]) == "1–3, 7"


@pytest.mark.slow
def test_a_run_killed_after_every_step_decides_alike(braked, cache, tmp_path):
    again = resumed_at(parse(), tmp_path, cache, range(STEPS))
    assert committed(again) == committed(braked)


@pytest.mark.slow
def test_a_branch_keeps_what_is_in_force(braked, cache, tmp_path):
    """After the fork, the policy is in force only because it was before: the share is between the thresholds."""
    shares = summaries.series(braked.metrics, "web", "synthetic_share")["value"].to_list()
    steps = summaries.in_force(braked.metrics)["brake"]
    fork = next(t for t in steps if t + 1 in steps and shares[t] < 0.4)
    assert committed(branched(braked, fork, {}, tmp_path / "same", cache)) == committed(braked)
    values = {"policies.brake.ends_when": "web.synthetic_share < 0.38"}
    branch = branched(braked, fork, values, tmp_path / "branch", cache)
    whole = ran(branch.scenario, tmp_path / "whole", cache=cache)
    assert committed(branch) == committed(whole) != committed(braked)


@pytest.mark.slow
def test_without_a_measurement_a_policy_is_not_in_force_and_says_so_once(cache, tmp_path):
    never = {"trainers.b.active": False}
    scenario = with_brake(when="b.support < 100 or web.synthetic_share >= 0").override(never)
    run = resumed_at(scenario, tmp_path, cache, [2, 5])
    said = [(t, event) for t, event in run.events if "policies.brake" in event]
    assert said == [
        (1, "policies.brake is not in force: its condition needs b.support, which was not measured at step 0")
    ]
    assert set(run.metrics.filter(metric="in_force")["value"]) == {0.0}


def test_a_band_has_a_condition_at_each_end():
    band = with_brake(when="web.synthetic_share > 0.1", ends_when="web.synthetic_share > 0.4")
    assert band.policies["brake"].ends_when == "web.synthetic_share > 0.4"


def test_losing_a_measurement_ends_a_policy_with_an_event():
    """Trainers that have ended are not measured any more."""
    data = with_brake(when="b.support > 1").plain()
    world, said = World(Scenario.parse({**data, "changes": [{"at": 3, "set": {"trainers.b.active": False}}]})), []
    for _ in range(5):
        world.step()
        said += [(world.state.t, event) for event in world.snapshot().state["events"] if "policies.brake" in event]
    assert [t for t, _ in said] == [1, 2, 4] and "comes into force" in said[1][1]
    assert said[2][1] == (
        "policies.brake is no longer in force: its condition needs b.support, which was not measured at step 3"
    )


def test_a_condition_reads_one_trainer_a_mean_or_training_sets():
    world = World(parse())
    world.step()
    world.step()
    metrics = world.snapshot().metrics

    def value(name):
        [comparison] = Condition.parse(f"{name} > 0").comparisons()
        return measured(metrics, comparison)

    support = [metrics.filter(scope="trainer", id=f"a/{i}", metric="support")["value"][0] for i in (0, 1)]
    assert (value("a/1.support"), value("a.support")) == (support[1], sum(support) / 2)
    shares = metrics.filter(scope="training_set", metric="synthetic_share").filter(pl.col("id").str.starts_with("b/"))
    assert value("b.synthetic_share") == pytest.approx(shares["value"].mean())
    assert value("web.documents") == metrics.filter(scope="web", metric="documents")["value"][0]


def test_a_mark_is_asked_for_only_while_its_policy_is_in_force():
    policies = {"mark": {"kind": "watermark", "model": "words", "when": "web.synthetic_share > 0.1"}}
    scenario = parse(
        sources={"language": {"kind": "process", "held_out": 5}},
        web={"kind": "barabasi_albert", "sites": 5, "degree": 2, "initial": {"source": "language", "documents": 30}},
        models={"words": {"kind": "ngram", "order": 2, "vocabulary": 300, "context": 64, "init": "foundation"}},
        policies=policies,
        writers={},
        trainers={"a": {"model": "words", "publish": 9, "decoding": {"watermark": "mark", "max_tokens": 16}}},
        measure={"texts": ["distinct"], "synthetic": 0},
    )
    world, marking = World(scenario), []
    for _ in range(2):
        world.step()
        marking.append(set(watermarking(world.state)))
    assert marking == [set(), {"a/0"}]


@pytest.mark.slow
def test_a_policy_with_a_condition_can_be_previewed_and_audited(braked):
    view = RunView(braked)
    calm = next(t for t in range(1, STEPS) if t not in summaries.in_force(braked.metrics)["brake"])
    text = '{ kind = "oracle", when = "web.synthetic_share > 0.9" }'
    table = previewed(view, calm, "brake", text, lambda *_: None)
    recall = table.filter(by="all", measure="recall")["value"].to_list()
    assert recall == [1.0]  # what it would refuse, whether or not its condition holds
    with pytest.raises(ScenarioError, match=r"policies\.brake\.when: the web has no support"):
        previewed(view, calm, "brake", text.replace("synthetic_share", "support"), lambda *_: None)


# Laboratories

PAIR = {"count": 2, "model": "frequencies", "scrape": {"docs": 30}, "publish": 8, "retain": []}
CHILD = {**PAIR, "active": False, "split_from": "a"}
MERGER = {"trainers.b.merged_into": "a", "trainers.b.merged_weights": "average"}
FITS_ONCE = {"every": 100}  # at step 1, so that weights change by transfers alone


def laboratories(*, more=None, changes=({"at": 4, "set": MERGER}, {"at": 6, "set": {"trainers.c.active": True}})):
    trainer = {**PAIR, **(more or {})}
    trainers = {"a": trainer, "b": trainer, "c": {**CHILD, **(more or {})}}
    return parse(trainers=trainers, changes=list(changes))


@pytest.fixture(scope="module")
def merged(tmp_path_factory, cache) -> Run:
    return ran(laboratories(), tmp_path_factory.mktemp("merged"), cache=cache)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("trainers.b.merged_into", "d", r"trainers\.b\.merged_into: there is no \[trainers\.d\]"),
        ("trainers.b.merged_into", "b", r"trainers\.b\.merged_into: must be another population than b"),
        ("trainers.b.merged_weights", "average", r"merged_weights: has no meaning without merged_into"),
        ("trainers.a.count", 3, r"trainers\.c\.split_from: c has 2 trainers and a 3, but each needs its counterpart"),
        ("trainers.c.model", "points", r"trainers\.c\.split_from: weights can only be shared within one model"),
    ],
)
def test_a_merger_that_makes_no_sense_is_a_sentence(path, value, sentence):
    scenario = laboratories(changes=()).override({"models.points": {"kind": "categorical", "types": 20}})
    with pytest.raises(ScenarioError, match=sentence):
        scenario.override({path: value})


def test_mergers_in_a_circle_and_means_without_meaning_are_refused():
    circle = {"trainers.a.merged_into": "b", "trainers.b.merged_into": "c", "trainers.c.merged_into": "a"}
    with pytest.raises(ScenarioError, match=r"trainers\.a\.merged_into: a → b → c → a is a circle; one of them must"):
        laboratories(changes=()).override(circle)
    points = {"models.frequencies": {"kind": "kde"}, "sources.truth": {"kind": "gaussian", "dim": 1}}
    with pytest.raises(ScenarioError, match=r"trainers\.b\.merged_weights: .*\(kde\) have no meaningful mean; remove"):
        laboratories(changes=()).override({**points, **MERGER})
    with pytest.raises(ScenarioError, match=r"changes\.0 \(at step 4\): trainers\.b\.merged_into: there is no"):
        laboratories(changes=({"at": 4, "set": {"trainers.b.merged_into": "z"}},))


def test_merged_laboratories_share_weights_sites_archives_and_depth():
    world = World(laboratories(more=FITS_ONCE))
    for _ in range(3):
        world.step()
    weights, state = world.cohorts["frequencies"].state()["probability"], world.state
    a, b = ([t for t in world.trainers if t.population == name] for name in "ab")
    homes = [set(x.homes.tolist()) | set(y.homes.tolist()) for x, y in zip(a, b, strict=True)]
    depth = [(x.depth + y.depth) / 2 for x, y in zip(a, b, strict=True)]
    both = [pl.col("reader").is_in([x.name, y.name]) for x, y in zip(a, b, strict=True)]
    archives = [set(state.archive.filter(readers)["document"]) for readers in both]
    assert [t.name for t in world.trainers] == ["a/0", "a/1", "b/0", "b/1"] and (weights[0] != weights[2]).any()
    world.step()
    after = world.cohorts["frequencies"].state()["probability"]
    np.testing.assert_array_equal(after[:2], (weights[:2] + weights[2:4]) / 2)
    np.testing.assert_array_equal(after[2:], weights[2:])
    assert [t.name for t in world.trainers] == ["a/0", "a/1"]
    assert [set(t.homes.tolist()) for t in a] == homes and [t.depth for t in a] == depth
    assert [set(state.archive.filter(reader=t.name)["document"]) for t in a] == archives
    assert set(state.archive["reader"]) == {"a/0", "a/1"}
    assert "the 2 trainers of b become part of a" in world.snapshot().state["events"]
    rows = world.snapshot().metrics.filter(pl.col("id").str.starts_with("b/"))
    written = world.snapshot().segment.filter(pl.col("author").str.starts_with("b/"))
    assert rows.is_empty() and written.is_empty()


def test_the_one_that_remains_keeps_its_weights_unless_told_otherwise():
    change = {"at": 3, "set": {"trainers.b.merged_into": "a"}}
    world = World(laboratories(more=FITS_ONCE, changes=(change,)))
    for _ in range(2):
        world.step()
    before, depth = world.cohorts["frequencies"].state()["probability"], [t.depth for t in world.trainers[:2]]
    world.step()
    np.testing.assert_array_equal(world.cohorts["frequencies"].state()["probability"], before)
    assert [t.depth for t in world.trainers] == depth


def test_a_laboratory_that_splits_begins_as_a_copy_on_sites_of_its_own():
    world = World(laboratories(more=FITS_ONCE))
    for _ in range(5):
        world.step()
    a = world.trainers[:2]
    archive = world.state.archive
    world.step()
    weights, c = world.cohorts["frequencies"].state()["probability"], world.trainers[2:]
    assert [t.name for t in c] == ["c/0", "c/1"]
    np.testing.assert_array_equal(weights[4:], weights[:2])
    assert [t.depth for t in c] == [t.depth for t in a] and all(t.has_model for t in c)
    for parent, child in zip(a, c, strict=True):
        assert parent.homes.tolist() != child.homes.tolist()
        own = world.state.archive.filter(reader=child.name).drop("reader")
        assert own.equals(archive.filter(reader=parent.name).drop("reader"))
    assert {"c/0", "c/1"} < set(world.snapshot().segment["author"])


def test_laboratories_close_and_are_founded_without_others():
    changes = ({"at": 2, "set": {"trainers.b.active": False}}, {"at": 3, "set": {"trainers.b.active": True}})
    world = World(laboratories(changes=changes))
    names = []
    for _ in range(3):
        world.step()
        names.append([t.population for t in world.trainers])
    assert names == [["a", "a", "b", "b"], ["a", "a"], ["a", "a", "b", "b"]]
    assert "the 2 trainers of b begin" in world.snapshot().state["events"]


def test_what_was_to_share_with_one_that_is_not_there_says_so():
    changes = (
        {"at": 2, "set": {"trainers.a.active": False}},
        {"at": 3, "set": {"trainers.b.merged_into": "a", "trainers.c.active": True}},
    )
    world, said = World(laboratories(changes=changes)), []
    for _ in range(3):
        world.step()
        said += [event for event in world.snapshot().state["events"] if "trainers of" in event]
    assert said == [
        "the 2 trainers of a end",
        "the 2 trainers of c begin with starting weights, since a is not there",
        "the 2 trainers of b end, since a is not there",
    ]
    assert [t.population for t in world.trainers] == ["c", "c"]


def test_a_merger_of_mergers_goes_to_the_one_that_remains():
    """b becomes part of c, which is part of a: the sites of all are a's."""
    data = laboratories(changes=()).plain()
    data["trainers"]["c"] = {**data["trainers"]["b"]}
    data["changes"] = [
        {"at": 2, "set": {"trainers.c.merged_into": "a"}},
        {"at": 3, "set": {"trainers.b.merged_into": "c"}},
    ]
    world = World(Scenario.parse(data))
    homes = {t.name: set(t.homes.tolist()) for t in world.trainers}
    for _ in range(3):
        world.step()
    assert [t.name for t in world.trainers] == ["a/0", "a/1"]
    for trainer in world.trainers:
        number = trainer.name[-1]
        assert set(trainer.homes.tolist()) == homes[f"a/{number}"] | homes[f"b/{number}"] | homes[f"c/{number}"]


def test_a_laboratory_that_never_begins_is_noted():
    assert [note for note in unused_settings(laboratories(changes=())) if "never begins" in note] == [
        "trainers.c never begins: active is false, and no change sets trainers.c.active"
    ]
    assert not [note for note in unused_settings(laboratories()) if "never begins" in note]
    merged = laboratories(changes=()).override({"trainers.b.merged_into": "a", "trainers.c.active": True})
    assert [note for note in unused_settings(merged) if "never begins" in note] == [
        "trainers.b never begins: it is part of a from the beginning; set merged_into in a timed change"
    ]


@pytest.mark.slow
def test_runs_with_mergers_resume_and_branch_bit_for_bit(merged, cache, tmp_path):
    again = resumed_at(laboratories(), tmp_path / "again", cache, range(STEPS))
    assert committed(again) == committed(merged)
    same = branched(merged, 5, {}, tmp_path / "same", cache)
    assert committed(same) == committed(merged)
    parent = ran(laboratories(changes=()), tmp_path / "parent", cache=cache)
    branch = branched(parent, 3, MERGER, tmp_path / "branch", cache)
    whole = ran(branch.scenario, tmp_path / "whole", cache=cache)
    assert committed(branch) == committed(whole)
    assert committed(branch, range(4)) == committed(parent, range(4))


def test_an_ancestor_of_a_split_laboratory_is_its_parent(merged, cache, tmp_path):
    """Before its first fit, a laboratory writes with the weights that its parent had fitted at the step before."""
    documents = merged.documents.collect()
    doc = documents.filter((pl.col("author") == "c/0") & (pl.col("t") == 6))["doc"][0]
    lineage = merged.lineage(doc)
    assert (lineage.fits[0].population, lineage.fits[0].step) == ("a", 5)
    assert sum(end.share for end in lineage.ends) == pytest.approx(1)
    assert any("averaged" in caveat for caveat in lineage.caveats)
    later = documents.filter((pl.col("author") == "c/0") & (pl.col("t") == 7))["doc"][0]
    assert (merged.lineage(later).fits[0].population, merged.lineage(later).fits[0].step) == ("c", 6)


@pytest.mark.slow
def test_a_run_with_mergers_has_a_report(merged, monkeypatch):
    monkeypatch.setattr("ecosystem.report.charts.pictures", lambda spec: (b"<svg/>", b"png"))
    page = write_report(merged).read_text()
    assert "the 2 trainers of b become part of a" in page and "trainers.b.merged_into = a" in page


@pytest.mark.parametrize("sources", [{1: [0, 1]}, {2: [0]}, {0: [1], 1: [0]}])
def test_transfers_are_exact_in_every_layout(sources, tmp_path):
    values = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    expected = values.copy()
    for target, members in sources.items():
        expected[target] = values[members].mean(axis=0)
    context = BuildContext(pl.Series([], dtype=pl.String), Streams(1), "cpu", 1, tmp_path)
    weights = MemberWeights("m", 3, {"w": torch.zeros(4)}, lambda stream: {"w": torch.zeros(4)}, context)
    weights.load({"w": values})
    weights.load(Transferred(weights.state(), sources))
    np.testing.assert_array_equal(weights.state()["w"], expected)
    apart = {f"{member}/w": row for member, row in enumerate(values)}
    found = Transferred(apart, sources)
    assert len(found) == 3 and set(found) == set(apart)
    np.testing.assert_array_equal([found[f"{member}/w"] for member in range(3)], expected)


def test_a_member_without_weights_gives_none():
    """A model that was never fitted has no arrays."""
    found = Transferred({"0/w": np.ones(2), "2/w": np.zeros(2)}, {0: [1], 1: [2]})
    assert dict(found).keys() == {"1/w", "2/w"}


def test_merging_gives_back_diversity():
    t = np.arange(1, 30)
    two, many = (diversity_merged(0.9, 20, 10, t, parties) for parties in (2, 10**6))
    alone = diversity_replace(0.9, 20, t)
    np.testing.assert_array_equal(two[:10], alone[:10])
    assert two[10] == pytest.approx((alone[9] + 0.9) / 2 * (1 - 1 / 20))
    np.testing.assert_allclose(many[10:], diversity_replace(0.9, 20, t[10:] - 10), rtol=1e-5)
    np.testing.assert_allclose(diversity_merged(0.9, 20, 10, t, 1), alone, rtol=1e-12)
