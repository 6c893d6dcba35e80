"""What the page plays, without a browser: live worlds that step, change, pause, fork, are kept, and end."""

import tempfile
import threading
import time

import pytest
from click.testing import CliRunner

from ecosystem.app.knobs import spacing
from ecosystem.app.worlds.actions import (
    BackgroundTask,
    changes,
    choices,
    enforce,
    inline,
    previewed,
    proposed,
    saved,
    template,
)
from ecosystem.app.worlds.live_run import LiveRun
from ecosystem.app.worlds.run_view import RunView
from ecosystem.app.worlds.session_model import SessionConfig, SessionModel
from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError, ScenarioError, StoreError
from ecosystem.runs.run import Run
from ecosystem.scenario.entries.changes import Knob
from ecosystem.scenario.scenario import Scenario
from tests.conftest import MACHINE
from tests.test_branch import files, ran, words

STEPS = 4
NGRAM = {"kind": "ngram", "order": 2, "vocabulary": 300, "context": 64}


def until(condition, seconds=120):
    end = time.monotonic() + seconds  # so that what hangs fails
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)


def scenario(**more):
    fields = {"steps": STEPS, "models.tiny": NGRAM, "trainers.careful.select": ["neardup", "short"]}
    return words(**{**{path.replace(".", "__"): value for path, value in fields.items()}, **more})


@pytest.fixture
def sessions(tmp_path, monkeypatch):
    """Makes sessions whose temporary folders lie in ``tmp_path / "live"``; they are closed at the end."""
    (tmp_path / "live").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "live"))
    made = []

    def make(spec=None, runs=(), waits=True, **arguments):
        config = SessionConfig(tuple(runs), spec, tmp_path, MACHINE, tmp_path / "kept")
        kind = type("Played", (SessionModel,), {"config": config, "news": staticmethod(lambda: None)})
        made.append(kind(**arguments))
        for live_run in made[-1].live_runs if waits else ():
            until(lambda live_run=live_run: live_run.state != "opening")
        return made[-1]

    yield make
    for session in made:
        session.close()
    until(lambda: not any((tmp_path / "live").iterdir()))


def go(session, step):
    """Play until all live worlds have made this step and none is under way."""

    def arrived():
        settled = all(r.state in ("ready", "finished", "failed") for r in session.live_runs)
        if settled and any(r.state == "ready" and r.t < step for r in session.live_runs):
            session.step()
            return False
        return settled

    until(arrived)
    assert [r.error for r in session.live_runs] == [None] * len(session.live_runs)


def single(session, step):
    """Let the first world alone make steps up to this one."""
    live_run = session.live_runs[0]
    while live_run.t < step:
        live_run.advance()
        until(lambda: live_run.state in ("ready", "finished"))


def begin_paused(live_run):
    """Begin a step and pause it before it ends, however quick it is."""
    with live_run._asking:
        live_run._resumed.clear()  # the step waits at its first report
        assert live_run.advance()
        live_run.pause()


def history(live_run, through=STEPS):
    return files(Run.open(live_run.folder), range(through + 1))


@pytest.mark.slow
def test_a_session_and_its_saved_scenario_are_the_same_run(sessions, tmp_path, monkeypatch):
    session = sessions(scenario(), seed="5", knob_0=2)
    live_run, knob = session.live_runs[0], session.knobs["knob_0"]
    assert live_run.scenario.seed == 5 and live_run.scenario.value(knob.path) == 2
    single(session, 1)
    session.turn("trainers.naive.publish", 3.2)
    live_run.advance()
    session.turn("writers.people.rate", 7.0)  # the step under way does not see it
    until(lambda: live_run.state == "ready")
    assert session.value("writers.people.rate") == 7.0
    single(session, STEPS)
    assert live_run.state == "finished" and not session.running
    with pytest.raises(ScenarioError, match="no step of this world will begin after step 4"):
        session.turn("trainers.naive.publish", 5)

    listed = changes(live_run.scenario, session.config.scenario)
    assert listed == [(2, "trainers.naive.publish = 3", True), (3, "writers.people.rate = 7.0", True)]
    assert (2, "trainers.naive.publish = 9", False) in changes(scenario())  # of the file, and replaced by the session
    file = tmp_path / "saved.toml"
    file.write_text(saved(session, live_run), encoding="utf-8")
    assert "# From step 3 on: writers.people.rate = 7.0\n" in file.read_text()
    again = ran(Scenario.load(file), tmp_path / "again")
    assert files(again) == history(live_run)

    kept = session.keep(live_run)
    assert Run.open(kept).verify() == again.verify()
    assert (kept / "web.graphml").read_bytes() == (again.path / "web.graphml").read_bytes()
    assert Run.open(kept).base.resolve() == tmp_path and kept.parent.parent == tmp_path / "kept"
    with pytest.raises(EcosystemError, match="exists already, with 4 of 4 steps"):
        session.keep(live_run)
    monkeypatch.setattr("ecosystem.api._report", str)  # it takes longer than all the rest
    told = CliRunner().invoke(cli, ["run", str(file), "--out", str(tmp_path / "kept")])
    assert told.exit_code == 0 and "This run is finished" in told.output
    replay = sessions(runs=[kept])
    assert replay.last == STEPS and replay.views[0].metrics.equals(again.metrics)


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["abc", "-5", "1.5", "", "²", "1000000001"])
def test_a_seed_that_is_none_is_told_and_the_rest_is_done(sessions, seed):
    session = sessions(scenario(), seed=seed, knob_0=2)
    assert session.refused.startswith(f'seed "{seed}": give a whole number from 0 to 1000000000; ')
    live_run = session.live_runs[0]
    assert live_run.scenario.seed == scenario().seed
    assert live_run.scenario.value(session.knobs["knob_0"].path) == 2


def test_knobs_that_do_not_go_together_leave_the_file_as_it_is(sessions, tmp_path):
    at = "policies.short.min_words"
    ends = [
        {"path": at, "low": 0, "high": 25, "step": 5},
        {"path": "policies.short.max_words", "low": 5, "high": 60, "step": 5},
    ]
    short = {"policies.short": {"kind": "length", "min_words": 3, "max_words": 60}}
    plain = scenario().override({**short, "trainers.naive.select": ["short"]}).override({"knobs": ends})
    session = sessions(plain, knob_0=25, knob_1=10)
    assert "max_words = 10 must be at least min_words = 25" in session.refused
    assert session.live_runs[0].scenario.value(at) == 3
    session.turn(at, 25)
    with pytest.raises(ScenarioError, match=r"^this world: changes.*max_words = 10 must be at least min_words = 25"):
        session.turn("policies.short.max_words", 10)
    # What was begun with one of them far out can be read and saved, though the other's end no longer goes with it.
    session = sessions(plain, knob_0=25, knob_1=60)
    live_run = session.live_runs[0]
    until(lambda: live_run.state == "ready")
    assert not session.refused and Run.open(live_run.folder).scenario.value(at) == 25
    (tmp_path / "saved.toml").write_text(saved(session, live_run), encoding="utf-8")
    assert [knob.path for knob in Scenario.load(tmp_path / "saved.toml").knobs] == [at]


@pytest.mark.parametrize(
    ("low", "high", "step", "value", "expected"),
    [
        (0, 60, 20, 40, 20),
        (0, 60, 20, 30, 10),
        (0, 25, 5, 3, 1),
        (0.2, 1.6, 0.05, 0.97, 0.01),
        (5.0, 10.0, 1.0, 2.0, 1),
    ],
)
def test_what_stands_is_a_place_of_the_slider(low, high, step, value, expected):
    knob = Knob(path="x", low=low, high=high, step=step)
    assert spacing(knob, value) == pytest.approx(expected, rel=1e-12)
    assert round((value - low) / spacing(knob, value), 9) % 1 == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind = 3 =", "this is not valid TOML"),
        ("length", "this is not valid TOML"),
        ('"length"', "this is not an inline table"),
        ("{ steps = 2 }", "this table has no"),
    ],
)
def test_a_policy_that_cannot_be_read_is_told_why(text, sentence):
    with pytest.raises(ScenarioError, match=f"{sentence}.*write a policy as"):
        proposed(scenario(), "online", text)


def test_every_new_policy_is_offered_as_it_may_stand():
    plain = scenario()
    for choice in choices(plain):
        name, table = proposed(plain, choice, template(plain, choice))
        if table["kind"] != "verifier":  # which needs labels, and text has none
            plain.override({f"policies.{name}": table})


def test_a_step_can_be_paused_wherever_it_is(sessions):
    session = sessions(scenario())
    live_run = session.live_runs[0]
    live_run.pause()  # nothing is under way
    assert live_run.state == "ready"
    begin_paused(live_run)
    session.step()
    until(lambda: live_run.progress.what)
    task = BackgroundTask(lambda _: session.keep(live_run), lambda: None)  # waits for the step
    time.sleep(0.3)
    assert (live_run.state, live_run.t, task.done) == ("paused", 0, False)
    live_run.resume()
    until(lambda: live_run.state == "ready")
    task.join()
    assert live_run.t == 1 and Run.open(task.result).steps == 1
    single(session, 2)  # it is not paused any more


def test_a_change_made_as_a_step_ends_holds_from_the_next_one_on(sessions, monkeypatch):
    session = sessions(scenario())
    live_run, seen = session.live_runs[0], []
    refresh = live_run.view.refresh

    def refresh_and_look():
        refresh()
        seen.append((live_run.t, live_run.state, live_run.upcoming))  # committed, and not yet ready

    monkeypatch.setattr(live_run.view, "refresh", refresh_and_look)
    single(session, 2)
    assert seen == [(1, "stepping", 2), (2, "stepping", 3)]


@pytest.mark.slow
def test_a_fork_that_is_opening_is_waited_for(sessions, monkeypatch):
    session = sessions(scenario(weights_every=1))
    single(session, 2)
    parent, opened = session.live_runs[0], threading.Event()
    show = LiveRun._show
    monkeypatch.setattr(LiveRun, "_show", lambda self, view: (opened.wait(60), show(self, view)))
    session.fork(0, 1)
    fork = session.live_runs[1]
    session.step()
    assert (fork.state, parent.state, parent.t) == ("opening", "ready", 2)
    opened.set()
    until(lambda: fork.state == "ready")
    session.step()
    until(lambda: fork.state == "ready")
    assert (parent.t, fork.t) == (2, 2)


def press(session, times=1):
    """Press *Step* rather than play."""
    type(session).pressed = staticmethod(lambda: True)
    for _ in range(times):
        session.step()
    type(session).pressed = staticmethod(lambda: False)


@pytest.mark.slow
def test_steps_pressed_while_a_world_opens_or_steps_are_made_one_after_the_other(sessions, monkeypatch):
    opened, show = threading.Event(), LiveRun._show
    monkeypatch.setattr(LiveRun, "_show", lambda self, view: (opened.wait(60), show(self, view)))
    session = sessions(scenario(), waits=False)
    live_run = session.live_runs[0]
    session.step()  # playing: it asks again at every interval
    assert (live_run.state, live_run.waiting) == ("opening", 0)
    press(session, 2)
    assert (live_run.state, live_run.waiting, session.running) == ("opening", 2, True)
    opened.set()
    until(lambda: live_run.state == "ready")
    assert (live_run.t, live_run.waiting) == (2, 0)

    begin_paused(live_run)
    press(session)
    session.step()
    assert (live_run.state, live_run.target, live_run.waiting) == ("paused", 4, 1)
    live_run.withdraw()
    assert live_run.waiting == 0
    press(session, 7)  # of which one can be made
    assert live_run.waiting == 1
    live_run.resume()
    until(lambda: live_run.state == "finished")
    assert (live_run.t, live_run.waiting) == (STEPS, 0)


@pytest.mark.slow
def test_pressed_steps_take_worlds_side_by_side_to_the_same_step(sessions):
    session = sessions(scenario(weights_every=1))
    single(session, 2)
    session.fork(0, 1)
    press(session, 2)  # the fork catches up; then both
    until(lambda: all(live_run.state == "ready" and live_run.t == 3 for live_run in session.live_runs))


def test_knobs_policies_and_forks_wait_for_a_world_that_opens_or_are_refused(sessions, monkeypatch):
    opened, show = threading.Event(), LiveRun._show
    monkeypatch.setattr(LiveRun, "_show", lambda self, view: (opened.wait(60), show(self, view)))
    session = sessions(scenario(), waits=False)
    live_run = session.live_runs[0]
    session.turn("trainers.naive.publish", 3)
    enforce(live_run, "new: length", '{ kind = "length", min_words = 5 }', "naive")
    with pytest.raises(EcosystemError, match="has not opened yet; fork it when it has"):
        session.fork(0, 0)
    with pytest.raises(EcosystemError, match="nothing to keep"):
        session.keep(live_run)
    opened.set()
    until(lambda: live_run.state == "ready")
    press(session)
    until(lambda: live_run.t == 1)
    published = session.views[0].run.documents.filter(t=1, author="naive/0").collect()
    assert published.height == 3
    assert live_run.scenario.at(1).trainers["naive"].select[0] not in scenario().policies


def test_closing_leaves_nothing_behind(sessions, tmp_path):
    session = sessions(scenario())
    single(session, 1)
    session.fork(0, 1)
    session.fork(0, 0)
    replaced = session._begun[1]
    session.step()
    session.live_runs[0].pause()
    session.close()
    for live_run in session._begun:
        live_run.join(60)
        assert live_run.state == "closed"
    assert replaced not in session.live_runs
    until(lambda: not any((tmp_path / "live").iterdir()))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("world")]
    session.live_runs[0].advance()
    assert session.live_runs[0].state == "closed"


@pytest.mark.slow
def test_forks_equal_their_parent_until_something_is_changed(sessions, tmp_path):
    session = sessions(scenario(weights_every=3))
    single(session, 2)
    parent = session.live_runs[0]
    begin_paused(parent)
    session.fork(0, 2)  # its models are let go by the step under way, unless the fork asks for them
    parent.resume()
    until(lambda: parent.state == "ready")
    assert session.steered == 1 and [view.last for view in session.views] == [3, 2] and session.step_shown == 3
    first = session.live_runs[1]
    until(lambda: first.state == "ready")
    session.step()  # the one behind goes on alone
    until(lambda: first.state == "ready")
    assert (parent.t, first.t) == (3, 3)
    go(session, STEPS)
    assert history(first) == history(parent)
    with pytest.raises(EcosystemError, match="no step would follow"):
        session.fork(0, STEPS)
    with pytest.raises(StoreError, match="models of step 1 were not kept"):
        session.fork(0, 1)
    assert session.live_runs == [parent, first]

    session.fork(0, 2)  # in the place of the other, in a folder of its own
    second = session.live_runs[1]
    assert first.state == "closed" and second.branch.step == 2
    session.turn("trainers.naive.publish", 2)
    go(session, 3)
    assert history(second, 2) == history(parent, 2) and history(second)[3] != history(parent)[3]
    assert changes(second.scenario, parent.scenario)[-1] == (3, "trainers.naive.publish = 2", True)
    session.fork(1, 3)  # a fork of the fork, which ends
    third = session.live_runs[1]
    with pytest.raises(EcosystemError, match="no step of its own"):
        session.keep(third)
    go(session, STEPS)
    assert session.live_runs == [parent, third] and history(third, 3) == history(second, 3)

    kept = Run.open(session.keep(third))  # whole, though it was a fork of a fork
    assert kept.verify() and kept.store.ancestry() == [kept.path]
    assert files(kept) == history(third)
    session.fork(0, 0)
    go(session, STEPS)
    assert history(session.live_runs[1]) == history(parent)


@pytest.mark.slow
def test_a_stored_run_is_forked_where_its_models_were_kept(sessions, tmp_path):
    runs = [ran(scenario(weights_every=2, seed=seed), tmp_path / "runs") for seed in (1, 2)]
    session = sessions(runs=[run.path for run in runs])
    assert not session.live_runs and session.last == STEPS
    with pytest.raises(StoreError, match=r"not kept .*kept for steps 0, 2, 4"):
        session.fork(1, 3)
    before = sorted(path.name for path in runs[1].path.rglob("*"))
    session.fork(1, 2)
    until(lambda: session.live_runs[0].state == "ready")
    assert [view.run.seed for view in session.views] == [2, 2] and session.step_shown == 2 and session.running
    assert session.knobs and session.value("trainers.naive.publish") == 9
    go(session, STEPS)
    assert files(runs[1]) == history(session.live_runs[0])
    assert sorted(path.name for path in runs[1].path.rglob("*")) == before
    session.fork(1, 2)
    assert len(session.views) == 2 and session.steered == 0


@pytest.mark.slow
def test_a_policy_is_previewed_and_then_enforced(sessions):
    session = sessions(scenario())
    single(session, 2)
    live_run, view = session.live_runs[0], session.views[0]
    there = choices(view.scenario)
    assert there[: len(view.scenario.policies)] == list(view.scenario.policies) and "new: length" in there
    for choice in there:  # what a choice begins with is a policy as it may stand in a scenario
        name, table = proposed(view.scenario, choice, template(view.scenario, choice))
        assert table["kind"] and (name == choice) == (not choice.startswith("new: "))

    task = BackgroundTask(
        lambda report: previewed(view, 1, "new: length", '{ kind = "length", min_words = 5 }', report), int
    )
    task.join(60)
    kept = task.result.filter(by="origin", measure="survival")
    counted = Run.open(live_run.folder).documents.select("doc", "words").collect()
    live = view.live(1).join(counted, on="doc")
    assert set(kept["group"]) == {"human", "synthetic"}
    for origin, share in kept.select("group", "value").iter_rows():
        assert share == (live.filter(synthetic=origin == "synthetic")["words"] >= 5).mean()
    for typed, sentence in (
        ("length", "write a policy as"),
        ('{ kind = "lenght" }', 'unknown policy kind "lenght" (did you mean "length"?)'),
        ('{ kind = "length", min_words = -1 }', "min_words"),
    ):
        task = BackgroundTask(lambda report, typed=typed: previewed(view, 1, "new: length", typed, report), int)
        task.join(60)
        assert task.result is None and sentence in task.error
        with pytest.raises(ScenarioError):
            enforce(live_run, "new: length", typed, "careful")

    assert enforce(live_run, "new: length", '{ kind = "length", min_words = 5 }', "careful") == "length"
    assert (
        enforce(live_run, "new: length", '{ min_words = 5, kind = "length" }', "careful") == "length"
    )  # clicked twice
    assert enforce(live_run, "short", inline(view.scenario.policies["short"].plain()), "careful") == "short"
    assert enforce(live_run, "new: length", '{ kind = "length", min_words = 4 }', "naive") == "length_2"
    assert [what for at, what, _ in changes(live_run.scenario) if at == 3] == [
        'policies.length = { kind = "length", min_words = 5 }',
        'trainers.careful.select = ["short", "length", "neardup"]',
        'policies.length_2 = { kind = "length", min_words = 4 }',
        'trainers.naive.select = ["length_2"]',
    ]
    single(session, 3)
    refused = Run.open(live_run.folder).ledger.filter(step=3).collect()["verdict"]
    assert {"short", "length", "length_2"} >= set(refused.drop_nulls()) >= {"length_2"}
    assert isinstance(view, RunView) and live_run.error is None


def texts_of(box):
    """Return every text that a rendered component shows."""
    widgets, shown = [box], []
    while widgets:
        for child in getattr(widgets.pop(), "children", []):
            (shown if isinstance(child, str) else widgets).append(child)
    return shown


@pytest.mark.slow
def test_the_toolbar_previews_enforces_forks_and_keeps(sessions, tmp_path, monkeypatch):
    solara = pytest.importorskip("solara", reason="the interactive page needs the extra view")
    import ipyvuetify

    monkeypatch.setattr(solara.settings.main, "check_hooks", "off")  # as the server does: Mesa's own break them
    from ecosystem.app.events import CHANGES
    from ecosystem.app.toolbar import Toolbar

    session = sessions(scenario())
    single(session, 2)
    live_run = session.live_runs[0]
    box, page = solara.render(Toolbar(session, 0, 2), handle_error=False)

    def press(label):
        button = next(b for b in page.find(ipyvuetify.Btn).widgets if label in b.children)
        assert not button.disabled
        button.click()

    def shows(text):
        CHANGES.send()
        return any(text in shown for shown in texts_of(box))

    press("Preview a policy on the web after step 2")
    select = page.find(ipyvuetify.Select, label="policy").widget
    assert select.items == choices(live_run.scenario)
    select.v_model = "new: length"
    field = page.find(ipyvuetify.TextField).widget
    assert field.v_model == template(live_run.scenario, "new: length")
    field.v_model = '{ kind = "length", min_words = -1 }'
    press("Preview")
    until(lambda: shows("min_words"))
    assert not shows("(length) on the web after step 2")
    press("Enforce from step 3")
    assert shows("min_words") and len(live_run.scenario.changes) == len(scenario().changes)
    field.v_model = '{ kind = "length", min_words = 6 }'
    press("Preview")
    until(lambda: shows("length (length) on the web after step 2"))
    assert shows("synthetic") and shows("human") and not shows("min_words")

    page.find(ipyvuetify.Select, label="for").widget.v_model = "careful"
    press("Enforce from step 3")
    enforced = "From step 3 on, length comes first at the select gate of careful."
    assert shows(enforced) and live_run.scenario.at(3).trainers["careful"].select[0] == "length"
    assert shows('From step 3 on: policies.length = { kind = "length", min_words = 6 }')
    field.v_model = ""
    assert page.find(ipyvuetify.TextField).widget.v_model == template(live_run.scenario, "new: length")

    press("Keep this run")
    until(lambda: shows(f"Kept in {tmp_path / 'kept'}"))
    press("Fork here (step 2)")
    assert len(session.live_runs) == 2
    CHANGES.send()
    press("Let the knobs steer this world")
    assert session.steered == 0 and shows("The knobs steer this world")
    single(session, 3)
    assert not shows(enforced)
    page.close()
