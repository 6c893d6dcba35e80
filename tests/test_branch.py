"""Branches: a run that leaves another one's history, reads it where it lies, and is the run of a timed change."""

import json
import shutil

import pytest

from ecosystem.api import run_scenario
from ecosystem.errors import EcosystemError, ScenarioError, StoreError
from ecosystem.report.tables import reproduction
from ecosystem.runs.branch import Branch
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.leftovers import sweep
from ecosystem.runs.progress import RunProgress
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from tests.conftest import MACHINE, tiny

FORK, STEPS = 3, 6
ARCHIVE = {"kind": "inject_real", "source": "language", "fraction": 0.5}
CHANGE = {"policies.paid": ARCHIVE, "trainers.naive.select": ["paid"]}


def words(**changes) -> Scenario:
    """Bigrams on a small web, with every sort of agent, gate and archive; six steps take a second."""
    fields = {
        "models.tiny": {"kind": "ngram", "order": 2, "vocabulary": 300, "context": 64, "init": "foundation"},
        "steps": STEPS,
        "changes": [{"at": 2, "set": {"trainers.naive.publish": 9}}],
        "policies.fluent.high": 1e6,
        "writers.people.rate": 3.0,
        "measure.texts": ["distinct"],
    }
    return tiny(**{**{path.replace(".", "__"): value for path, value in fields.items()}, **changes})


def ran(scenario, out, **more) -> Run:
    for _ in begin(scenario, out=out, machine=MACHINE, **more):
        pass
    return Run.open(folder_of(scenario, out))


def branched(parent, step, values, out, cache, **more) -> Run:
    branch = Branch.of(parent, step, values, **more)
    for _ in begin(branch.scenario, out=out, cache=cache, base=parent.base, branch=branch):
        pass
    return Run.open(branch.folder(out))


def files(run, steps=range(STEPS + 1)):
    """Names, sizes and hashes of every file of these steps: every table, the state and the weights."""
    named = [commit.files for commit in run.store.commits() if commit.step in steps]
    return [{name: file for name, file in step.items() if not name.startswith("models/")} for step in named]


def untouched(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.name != ".lock"}


@pytest.fixture(scope="module")
def parent(tmp_path_factory, cache):
    return ran(words(), tmp_path_factory.mktemp("parents"), cache=cache)


@pytest.fixture(scope="module")
def other(parent, cache):
    """The parent's branch after step 3 in which people are paid to write for one population."""
    return branched(parent, FORK, CHANGE, parent.path.parent.parent, cache)


@pytest.mark.slow
def test_a_branch_without_change_is_its_parent_bit_for_bit(parent, cache, tmp_path):
    before = untouched(parent.path)
    same = branched(parent, FORK, {}, tmp_path, cache)
    assert files(same) == files(parent)
    assert same.scenario == parent.scenario
    assert untouched(parent.path) == before
    own = {path.name for path in (same.path / "corpus").iterdir()}
    assert own == {f"{t:06d}.parquet" for t in range(FORK + 1, STEPS + 1)}  # nothing was copied


@pytest.mark.slow
def test_a_branch_with_a_change_is_the_run_of_that_timed_change(parent, other, cache, tmp_path):
    data = parent.scenario.plain()
    data["changes"].append({"at": FORK + 1, "set": CHANGE})
    scenario = Scenario.parse(data)
    assert other.path.parent.name == folder_of(scenario).parent.name
    whole = ran(scenario, tmp_path, cache=cache)
    assert files(other) == files(whole)
    assert files(other)[: FORK + 1] == files(parent)[: FORK + 1]
    for mine, theirs in zip(files(other)[FORK + 1 :], files(parent)[FORK + 1 :], strict=True):
        assert not any(mine[name] == theirs[name] for name in mine if name.split("/")[0] in ("weights", "ledger"))


@pytest.mark.slow
def test_a_branch_is_read_like_any_run(other, parent):
    assert set(other.metrics["step"]) == set(range(STEPS + 1))
    assert other.documents.collect()["t"].max() == STEPS
    ledger = other.ledger.collect()
    assert ledger.filter(reader="naive/0", source="language")["step"].unique().sort().to_list() == [4, 5, 6]
    assert [step for step, _ in other.events] == sorted(step for step, _ in other.events)
    assert other.verify() > 7 * (STEPS + 1)
    assert other.store.assets("models/tiny") == parent.store.assets("models/tiny")
    assert f"of {parent.path.resolve()} after step 3" in reproduction(other)["Branch"]


@pytest.mark.slow
def test_a_branch_of_a_branch_reads_through_both(parent, other, cache, tmp_path):
    second = branched(other, 5, {"trainers.careful.publish": 0}, tmp_path, cache)
    assert [Store(second.path).owning_store(t).folder for t in (3, 5, 6)] == [
        parent.path.resolve(),
        other.path.resolve(),
        second.path,
    ]
    assert second.verify() and second.steps == STEPS
    assert files(second, range(FORK + 1)) == files(parent, range(FORK + 1))
    assert second.scenario.changes[-1].at == 6 and second.scenario.changes[:-1] == other.scenario.changes
    early = Store(tmp_path / "early")
    early.branch_off(other.store, 2)  # before the branch's own steps: it is the parent's history that is read
    assert early.ancestry() == [early.folder, parent.path.resolve()] and early.last() == 2


@pytest.mark.slow
def test_a_branch_that_was_stopped_goes_on(other, parent, cache, tmp_path):
    out = tmp_path / "stopped"
    branch = Branch.of(parent, FORK, CHANGE)
    steps = begin(branch.scenario, out=out, cache=cache, branch=branch)
    assert next(steps).t == FORK + 1
    steps.close()
    again = [s.t for s in begin(branch.scenario, out=out, machine=MACHINE, cache=cache, branch=branch)]
    assert again == [5, 6]
    assert list(begin(branch.scenario, out=out, cache=cache, branch=branch)) == []
    assert files(Run.open(branch.folder(out))) == files(other)


@pytest.mark.slow
def test_a_branch_killed_before_its_first_step_goes_on(other, parent, cache, tmp_path, monkeypatch):
    from ecosystem.simulation.world import World

    branch = Branch.of(parent, FORK, CHANGE)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(World, "step", lambda world: 1 / 0)
        next(begin(branch.scenario, out=tmp_path, cache=cache, branch=branch))
    assert Run.open(branch.folder(tmp_path)).steps == FORK
    # The branch's own scenario goes on from there as well: it is an ordinary run.
    assert [s.t for s in begin(branch.scenario, out=tmp_path, machine=MACHINE, cache=cache)] == [4, 5, 6]
    assert files(Run.open(branch.folder(tmp_path))) == files(other)


@pytest.mark.slow
def test_neither_pruning_nor_sweeping_reaches_the_parent(cache, tmp_path):
    parent = ran(words(weights_every=2, steps=3), tmp_path, cache=cache)
    before = untouched(parent.path)
    assert parent.store.steps_with_weights() == [0, 2, 3]
    sparse = branched(parent, 3, {"weights_every": 100}, tmp_path, cache, steps=6)
    (sparse.path / "corpus/000001.parquet").write_bytes(b"left behind")
    assert sweep(sparse.store) == ["corpus/000001.parquet"]
    assert sparse.store.steps_with_weights() == [0, 2, 3, 6]
    assert untouched(parent.path) == before
    with pytest.raises(StoreError, match=r"models of step 1 were not kept .* models are kept for steps 0, 2, 3"):
        branched(parent, 1, CHANGE, tmp_path, cache)
    for _ in begin(words(weights_every=2, steps=4), out=tmp_path, machine=MACHINE, cache=cache):
        pass  # the parent goes on, and prunes the models of step 3, which the branch needs no more
    assert sparse.verify() and sparse.steps == 6
    assert [s.t for s in begin(sparse.scenario.override({"steps": 7}), out=tmp_path, machine=MACHINE, cache=cache)] == [
        7
    ]


@pytest.mark.slow
def test_a_folder_of_runs_may_be_moved_as_a_whole(parent, other, tmp_path):
    shutil.copytree(parent.path.parent.parent, tmp_path / "elsewhere")
    moved = Run.open(tmp_path / "elsewhere" / other.path.parent.name / "1")
    assert moved.verify() == other.verify()
    assert moved.store.owning_store(0).folder == (tmp_path / "elsewhere" / parent.path.parent.name / "1").resolve()


@pytest.fixture
def copies(parent, other, tmp_path):
    """A copy of the parent and its branch: (the parent's folder, the branch's)."""
    shutil.copytree(parent.path.parent, tmp_path / parent.path.parent.name)
    shutil.copytree(other.path.parent, tmp_path / other.path.parent.name)
    return tmp_path / parent.path.parent.name / "1", tmp_path / other.path.parent.name / "1"


def test_a_parent_that_is_missing_moved_or_another_is_told(copies):
    above, below = copies
    above.rename(above.with_name("moved"))
    with pytest.raises(
        StoreError, match=r"branches off .* after step 3 .*contains no run.*correct parent in .*branch\.json"
    ):
        Run.open(below)
    told = json.loads((below / "branch.json").read_text())
    (below / "branch.json").write_text(json.dumps(told | {"parent": told["parent"] + "/../moved"}))
    assert Run.open(below).verify()  # the remedy works
    (above.with_name("moved") / "commits/000003.json").unlink()
    for later in (above.with_name("moved") / "commits").glob("00000[4-9].json"):
        later.unlink()
    with pytest.raises(StoreError, match="not the one that it began from"):
        Run.open(below)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"step": 2}, "is not the one that it began from"),
        ({"digest": "0" * 64}, "is not the one that it began from"),
        ({"step": None}, "is damaged; it must say where this branch begins"),
    ],
    ids=["step", "digest", "not a step"],
)
def test_an_altered_fork_is_told(change, sentence, copies):
    _, below = copies
    told = json.loads((below / "branch.json").read_text())
    (below / "branch.json").write_text(json.dumps(told | change))
    with pytest.raises(StoreError, match=sentence):
        Run.open(below)


def test_a_fork_that_is_consistently_another_does_not_fit_the_branch(copies):
    above, below = copies
    second = Store(above).commits()[2]
    told = json.loads((below / "branch.json").read_text())
    (below / "branch.json").write_text(json.dumps(told | {"step": 2, "digest": second.digest}))
    with pytest.raises(StoreError, match="the record of step 3 is missing, but that of step 4 exists"):
        Run.open(below)
    (below / "branch.json").unlink()
    with pytest.raises(StoreError, match="the record of step 0 is missing, but that of step 4 exists"):
        Run.open(below)


def test_a_damaged_file_of_the_parent_is_named(copies):
    above, below = copies
    (above / "corpus/000001.parquet").write_bytes(b"")
    with pytest.raises(
        StoreError, match=r"corpus/000001\.parquet: this file of step 1 .*from a copy; the branch .* reads it"
    ):
        Run.open(below).verify()
    (above / "commits/000002.json").write_text("{}")
    with pytest.raises(StoreError, match=r"branches off .*commits/000002\.json: this commit record is damaged"):
        Run.open(below)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 2),
        ("trainers.naive.count", 3),
        ("trainers.naive.model", "tiny"),
        ("models.tiny.order", 3),
        ("sources.language.held_out", 10),
        ("web.sites", 10),
        ("writers.people.count", 3),
    ],
)
def test_what_cannot_differ_at_a_fork_is_refused(path, value, parent):
    with pytest.raises(ScenarioError, match=rf'after step 3: "{path}" cannot change inside a run.*weights_every'):
        Branch.of(parent, FORK, {path: value})


def test_other_mistakes_are_sentences(parent, cache, tmp_path):
    with pytest.raises(StoreError, match="step 9 is not committed; this run has steps 0 to 6"):
        Branch.of(parent, 9, {})
    with pytest.raises(ScenarioError, match=r"no step would follow.*give --steps 7 or more"):
        Branch.of(parent, 6, {})
    with pytest.raises(ScenarioError, match=r"select: there is no \[policies\.paid\]"):
        Branch.of(parent, FORK, {"trainers.naive.select": ["paid"]})
    with pytest.raises(ScenarioError, match="a change needs a value"):
        Branch.of(parent, FORK, {"trainers.naive.learning_rate": None})
    with pytest.raises(ScenarioError, match=r"is the run .* itself; change .*--set; in Python: values"):
        Branch.of(parent, FORK, {}).folder(parent.path.parent.parent)
    branch = Branch.of(parent, FORK, CHANGE)
    with pytest.raises(EcosystemError, match="memory:/x: is a URL"):
        branch.folder("memory:/x")
    with pytest.raises(ScenarioError, match="began on cpu with 2 compute threads and continues bit for bit only there"):
        next(begin(branch.scenario, out=tmp_path, machine=Machine("mps", 1), cache=cache, branch=branch))


@pytest.mark.slow
def test_another_source_is_refused(copies, cache):
    above, _ = copies
    environment = (above / "environment.json").read_text()
    digest = Run.open(above).environment["sources"]["language"]["digest"]
    (above / "environment.json").write_text(environment.replace(digest, "0" * 64))
    (above / "digests.json").unlink()  # as if it had been so from the start
    branch = Branch.of(Run.open(above), 2, CHANGE)
    with pytest.raises(EcosystemError, match='source "language" has changed'):
        next(begin(branch.scenario, out=above.parent.parent, cache=cache, branch=branch))


def timed(*changes) -> Scenario:
    return words(changes=[{"at": at, "set": values} for at, values in changes])


def test_an_override_holds_after_the_fork_whatever_timed_changes_said():
    scenario = timed(
        (2, {"trainers.naive.publish": 9}),
        (4, {"trainers.naive.publish": 8}),
        (5, {"trainers.naive.publish": 7, "trainers.careful.publish": 3}),
        (6, {"trainers.naive.scrape.docs": 11, "policies.short.min_words": 9}),
    )
    values = {
        "trainers.naive.publish": 1,
        "trainers.naive.scrape": {"docs": 5},
        "policies.short": {"kind": "length", "min_words": 4},
    }
    forked = scenario.forked(3, values)
    for t in range(7):
        now, before = forked.at(t), scenario.at(t)
        if t <= 3:
            assert now.trainers == before.trainers and now.policies == before.policies
        else:
            assert now.trainers["naive"].publish == 1 and now.trainers["naive"].scrape.docs == 5
            assert now.policies["short"].min_words == 4
            assert now.trainers["careful"].publish == before.trainers["careful"].publish  # the rest comes as planned
    assert Scenario.parse(forked.plain()) == forked


def test_another_kind_takes_the_place_of_a_policy_and_its_later_changes():
    scenario = timed((5, {"policies.short.min_words": 9}))
    forked = scenario.forked(3, {"policies.short.kind": "repetition"})
    assert [c.at for c in forked.changes] == [4]
    assert forked.at(3).policies["short"].kind == "length" and forked.at(6).policies["short"].kind == "repetition"


def test_no_change_is_the_scenario_itself():
    scenario = words()
    assert scenario.forked(3, {}) == scenario
    assert scenario.forked(3, {"steps": 9, "description": "longer"}).fingerprint() == scenario.fingerprint()


def test_records_are_read_once_and_new_or_altered_ones_are_noticed(copies, monkeypatch):
    from ecosystem.runs.records import Commit

    _, below = copies
    store, read = Store(below), []
    original = Commit.read
    monkeypatch.setattr(Commit, "read", lambda path: read.append(path.name) or original(path))
    assert len(store.commits()) == store.last() + 1 == STEPS + 1
    assert sorted(read) == [f"{t:06d}.json" for t in range(STEPS + 1)]
    path = below / "commits/000006.json"
    whole = path.read_text()
    path.unlink()
    assert store.last() == 5
    path.write_text(whole)
    assert store.last() == 6 and read.count("000006.json") == 2
    path.write_text(whole.replace('"seconds": 0.', '"seconds": 1.'))
    with pytest.raises(StoreError, match="do not match its digest"):
        store.commits()


@pytest.mark.slow
def test_in_python_and_on_the_command_line_it_is_the_same(parent, cache, tmp_path, monkeypatch):
    from click.testing import CliRunner

    import ecosystem
    from ecosystem import api
    from ecosystem.cli.main import cli

    def report(folder):
        (folder / "report.html").write_text("the report")
        return str(folder / "report.html")

    monkeypatch.setattr(api, "_report", report)
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    mine = ecosystem.branch(parent, FORK, {"trainers.naive.publish": 0}, steps=4)
    setting = ["--set", "trainers.naive.publish=0", "--steps", "4"]
    again = CliRunner().invoke(cli, ["branch", f"{parent.path}@{FORK}", *setting], catch_exceptions=False)
    assert again.output.splitlines()[0].startswith("This run is finished")
    assert again.output.splitlines()[-1] == str(mine.path / "report.html")
    quiet = ["--quiet", "--name", "quiet", "--out", "other"]
    named = CliRunner().invoke(cli, ["branch", f"{parent.path}@{FORK}", *setting, *quiet], catch_exceptions=False)
    [folder] = (tmp_path / "other").glob("quiet-*/1")
    assert named.output == f"other/{folder.parent.name}/1/report.html\n"
    assert files(Run.open(folder)) == files(mine)
    with pytest.raises(ScenarioError, match=r"write it as RUN@STEP, for instance .*@6"):
        CliRunner().invoke(cli, ["branch", f"{parent.path}@last"], catch_exceptions=False)


def test_files_are_found_from_where_the_parent_found_them(cache, tmp_path, monkeypatch):
    """A path of a scenario is relative to its file, which a run folder no longer knows but for what it noted."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work/poems.txt").write_text("\n\n".join(f"lo mi {i} ra su {i % 7} ti" for i in range(150)))
    scenario = words(steps=1).override({"sources.language": {"kind": "text", "path": "poems.txt"}})
    monkeypatch.chdir(tmp_path)
    parent = ran(scenario, "outputs", cache=cache, base=tmp_path / "work")
    assert branched(parent, 1, {"trainers.naive.publish": 0}, "outputs", cache, steps=2).steps == 2


@pytest.mark.slow
@pytest.mark.parametrize("lag", [None, 0, 1])
def test_a_branch_that_changes_nothing_says_so(lag, parent, tmp_path, capsys):
    values = {} if lag is None else {"trainers.naive.lag": lag}  # 0 is in force already
    branch = Branch.of(parent, 1, values, name="other")
    summary = run_scenario(branch, RunProgress(), out=tmp_path, dry_run=True)
    said = capsys.readouterr().out
    again = f"computes steps 2 to {parent.last_step} of {parent.path} again, with the same numbers" in said
    assert again == (lag != 1) and summary["plan"]["done"] == 1
    assert "left after step 1 of" in said


def test_a_branch_with_more_steps_than_its_parent_is_no_repetition(parent):
    branch = Branch.of(parent, parent.last_step, {}, steps=parent.last_step + 2, name="other")
    assert branch.repeated_steps() == []


@pytest.mark.slow
def test_a_later_change_that_is_left_out_is_told(cache, tmp_path, capsys):
    planned = [{"at": 5, "set": {"trainers.naive.publish": 2, "trainers.careful.publish": 2}}]
    parent = ran(words(steps=1, changes=planned), tmp_path, cache=cache)
    branch = Branch.of(parent, 1, {"trainers.naive.publish": 0}, steps=6)
    run_scenario(branch, RunProgress(), out=tmp_path, dry_run=True)
    told = capsys.readouterr().out
    assert "change of trainers.naive.publish at step 5 is dropped: the branch overrides it from step 2" in told
    assert "trainers.careful.publish" not in told and not branch.folder(tmp_path).exists()
