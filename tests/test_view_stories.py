"""Stories: each is followed instruction by instruction; what it says is compared with what came out."""

from __future__ import annotations

import time

import pytest
from click.testing import CliRunner

from ecosystem.app.teaching.claims import Claim
from ecosystem.app.teaching.follow import DONE, MISSED, OPEN, state_of
from ecosystem.app.teaching.story import load, shipped
from ecosystem.app.worlds.session_model import SessionConfig, SessionModel
from ecosystem.cli.main import cli
from ecosystem.errors import ScenarioError
from tests.conftest import MACHINE

SEEDS = (1, 2, 3, 5, 11, 14)  # an observation must be made with any of them


def until(condition, seconds=120):
    end = time.monotonic() + seconds  # so that what hangs fails
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)


@pytest.fixture
def begin(cache, monkeypatch):
    """Begins sessions of stories, as the page does; they are closed at the end."""
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(cache))
    begun = []

    def make(staged, seed):
        config = SessionConfig((), staged.scenario, staged.base, MACHINE)
        members = {"config": config, "news": staticmethod(lambda: None), "pressed": staticmethod(lambda: True)}
        begun.append(type("Told", (SessionModel,), members)(seed=str(seed)))
        until(lambda: begun[-1].live_runs[0].state != "opening")
        return begun[-1]

    yield make
    for session in begun:
        session.close()


def follow(session, task):
    """Do what an instruction says, with what the page's buttons and knobs call."""
    action = task.action
    if action.fork is not None:
        session.look(action.fork)
        session.fork(0, session.step_shown)
    elif action.turn is not None:
        assert task.knob in session.knobs.values()
        session.turn(task.knob.path, task.value)
    else:
        for _ in range(action.steps):
            session.step()
    until(lambda: all(run.state in ("ready", "finished", "failed") and not run.waiting for run in session.live_runs))
    assert [run.error for run in session.live_runs] == [None] * len(session.live_runs)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", shipped())
def test_a_story_is_followed_to_the_letter_and_comes_out_as_it_says(begin, name, seed):
    staged = load(name)
    session = begin(staged, seed)
    assert session.live_runs[0].scenario.seed == seed
    for scene, tasks in enumerate(staged.tasks):
        for task in tasks:
            assert state_of(task, session) in (OPEN, MISSED)  # missed: of a world that the fork still replaces
            follow(session, task)
            assert state_of(task, session) == DONE
        outcomes = [claim.outcome(session.views, staged.end(scene)) for claim in staged.claims[scene]]
        assert [outcome.figures for outcome in outcomes if not outcome.holds] == []


def test_stories_have_what_a_class_needs():
    for name in shipped():
        staged = load(name)
        assert len(staged.story.scenes) >= 3 and all(staged.tasks) and all(staged.claims)
        shown = {scene.look for scene in staged.story.scenes}
        assert shown <= {"web", "contamination", "quality", "diversity", "ledger"}


STORY = """
title = "Mine"
description = "A story of my own."
world = "stories/worlds/real_data"
[[scenes]]
title = "One"
text = "Some text."
do = [{ fork = 0 }, { turn = "policies.archive.fraction", to = 0.25 }, { steps = 2 }]
question = "What?"
expected = "This."
claims = ["second:labs.cross_entropy < first:labs.cross_entropy"]
"""


@pytest.fixture
def write(tmp_path):
    def file(text):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return tmp_path / "mine.toml"

    return file


def test_a_story_of_ones_own_is_read(write):
    staged = load(write(STORY))
    assert [str(task) for task in staged.tasks[0]] == [
        "Press “Fork here (step 0)” in the first world, with the step slider at this step.",
        "Set “share of real documents” to 0.25, in the second world.",
        "Press Step twice, to step 2 in both worlds.",
    ]


def test_check_takes_stories_and_other_commands_name_the_right_one(write):
    file = str(write(STORY))
    assert CliRunner().invoke(cli, ["check", file]).output == f"{file}: valid (1 scene)\n"
    wrong = CliRunner().invoke(cli, ["check", str(write(STORY.replace("to = 0.25", "to = 2.0")))])
    assert "goes from 0 to 0.9; 2 is outside" in str(wrong.exception)
    told = CliRunner().invoke(cli, ["run", file])
    assert str(told.exception) == f"{file}: is a story, not a scenario; run it with: ecosystem view --story {file}"
    assert "--set applies to" in str(CliRunner().invoke(cli, ["check", file, "--set", "steps=3"]).exception)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('title = "Mine"', "titel = 1", "titel: unknown key"),
        ("stories/worlds/real_data", "no_such_world", 'world: there is no scenario "no_such_world"'),
        ("steps = 2", "steps = 99", "scenes.0.do.2: the world has 12 steps, and this would be step 99"),
        ("fork = 0", "fork = 4", "scenes.0.do.0: the world is at step 0 then, and cannot be forked at step 4"),
        ("archive.fraction", "archive.fractoin", 'has no knob policies.archive.fractoin (did you mean "policies.arch'),
        ("to = 0.25", "to = 2.0", "goes from 0 to 0.9; 2 is outside"),
        ("to = 0.25", "to = 0.26", "has positions at every 0.05 from 0; 0.26 is none"),
        ("to = 0.25", 'to = "much"', "needs a number, not 'much'"),
        (", to = 0.25", "", "turn and to belong together"),
        ("{ steps = 2 }", "{}", "an instruction is one of steps, turn"),
        ("second:labs", "third:labs", "is no claim: write NAME.METRIC"),
        ("second:labs", "second:lab", 'there is no population of trainers "lab"'),
        ("< first:labs.cross_entropy", "< 2 * 3", "is no claim: multiply the numbers"),
        ("second:labs.cross_entropy <", "labs.cross_entropy@5 <", "step 5 comes after the scene, which ends at step 2"),
        ("second:labs.cross_entropy < first:labs.cross_entropy", "labs.cross_entropy follows law", "no [[theory]]"),
        ("to = 0.25", "to = true", "scenes.0.do.1.to: must be a number, or the name of a choice"),
        ("to = 0.25", "to = nan", "scenes.0.do.1.to: must be a number, or the name of a choice"),
        ("first:labs.cross_entropy", "first:labs.variance", "variance is not measured of models of text documents"),
        ("first:labs.cross_entropy", "labs.cross_entropy@0", "labs.cross_entropy is measured from step 1 on"),
        ("first:labs.cross_entropy", "9" * 400, "its number is too large"),
        (
            'question = "',
            'measures = { quality = "perplexty" }\nquestion = "',
            'has no "perplexty" (did you mean "perpl',
        ),
        ('question = "', 'look = "instruments"\nquestion = "', "scenes.0.look: the world has no instruments"),
        ("[[scenes]]", "[[scene]]", "scenes"),
        ('question = "What?"', "", "scenes.0.question"),
    ],
)
def test_what_is_wrong_with_a_story_is_said_in_a_sentence(write, old, new, sentence):
    assert old in STORY
    file = write(STORY.replace(old, new))
    told = CliRunner().invoke(cli, ["view", "--story", str(file), "--no-browser"])
    assert told.exit_code != 0 and isinstance(told.exception, ScenarioError | SystemExit)
    message = f"{told.exception} {told.output}"
    assert sentence in message and str(file) in message


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--story", ""], "the name is empty, not a story"),
        (["--story", "."], ". is a folder, not a story"),
        (["--story", "no_such"], 'there is no story "no_such"'),
        (["--teach", "smoke"], "stories have worlds of their own"),
        (["--teach", "--set", "steps=3"], "stories have worlds of their own"),
        ([], "give a scenario, a run folder"),
    ],
)
def test_what_view_cannot_show_is_refused(arguments, sentence):
    told = CliRunner().invoke(cli, ["view", *arguments])
    assert told.exit_code != 0 and sentence in f"{told.exception} {told.output}"


def test_a_claim_says_what_is_compared():
    assert Claim.parse("labs.depth > 0.5 * second:labs/1.depth@3").other.step == 3
    assert Claim.parse("labs.depth > 1e-3").factor == 0.001
    kept = Claim.parse("labs.vocabulary_kept_7 > 0.5").term
    assert kept.shown(3, 1) == "share kept of the seventh tenth of words, labs, at step 3"
    for text in ("labs.depth", "labs.depth > ", "labs.depth >> 3", "labs.depth > nan", "x > 1", "labs.depth > 1; 2"):
        with pytest.raises(ScenarioError, match="is no claim"):
            Claim.parse(text)
