"""Study files and their cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.errors import ScenarioError
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.spec.study import Study
from tests.conftest import ROOT
from tests.studies.small_study import STUDY, axes, load


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('metric = "variance"', 'metric = "varience"'), 'no metric "varience" (did you mean "variance"?)'),
        (('of = "lab"', 'of = "labs"'), 'no [trainers.labs] (did you mean "lab"?)'),
        (("window = [2, 4]", "window = [2, 9]"), "step 9 comes after the last step, 4"),
        (("window = [2, 4]", "window = [4, 2]"), "window: 4 comes after 2"),
        (("seeds = [1, 2, 3]", "seeds = [1, 1]"), "seeds: a seed is repeated"),
        (("seeds = [1, 2, 3]", "seeds = [1]"), "seeds: give at least two"),
        (('reference = "alone"', 'reference = "alon"'), 'no arm "alon" (did you mean "alone"?)'),
        (('base = "loop.toml"', 'base = "loob"'), 'there is no scenario "loob"'),
        (('fraction" = 0.8', 'fraction" = 1.8'), "arms.more: policies.fresh.fraction"),
        (('fraction" = 0.8', 'fracton" = 0.8'), 'unknown key (did you mean "fraction"?)'),
        (("[arms.more]", "[arms.'more money']"), 'the name "more money" may contain only'),
        (("[arms.alone]", "[axes]\nsteps = [3, 4]\n[arms.alone]"), "either arms (named sets of path = value) or axes"),
        (('name = "small"', 'nam = "small"'), 'unknown key (did you mean "name"?)'),
        (('metric = "w2"', 'metric = "mean_words"'), 'measures.1.goal: set goal = "lower" or "higher"'),
        (("[arms.alone]", "[branch]\nstep = 4\n[arms.alone]"), "branch.step = 4: give a whole number from 0 to 3"),
        (
            (
                "[arms.alone]",
                "[set]\n'trainers.lab.publish' = 9\n[worlds.w]\n'trainers.lab.publish' = 8\n[arms.alone]",
            ),
            "set.trainers.lab.publish: has no effect, since every world sets this path",
        ),
        (
            ("[arms.alone]", "[set]\nweights_every = 4\n[branch]\nstep = 3\n[arms.alone]"),
            "branch.step = 3: the models of step 3 are not kept with weights_every = 4; set weights_every to a divisor",
        ),
        (
            ("[arms.alone]", "[prices]\nmilk = 2.0\n[arms.alone]"),
            'prices: there is no cost "milk"; choose from tokens_trained, ',
        ),
        (('of = "lab"', 'of = "labs"'), "measures.1.of: there is no [trainers.labs]"),
        (('of = "lab"', 'of = "x"'), "choose from lab, web (in arms.alone)"),
        (('metric = "variance"', 'metric = "varience"'), "measures.0.metric: there is no metric"),
        (("window = [2, 4]", "window = [4, 2]"), "measures.1.window: 4 comes after 2"),
        (('policies.fresh.fraction"', 'policies.fesh.fraction"'), "arms.more: policies.fesh.fraction: there is no"),
        (('policies.fresh.fraction"', 'policies.fesh.fraction"'), '(did you mean "fresh"?); defined in [policies]: '),
        (('policies.fresh.fraction" = 0.8', 'trainers.la.publish" = 8'), 'no [trainers.la] (did you mean "lab"?)'),
        (
            ('policies.fresh.fraction" = 0.8', 'policies.new.kind" = "inject"'),
            "arms.more: policies.new: unknown policy kind",
        ),
        (
            ("[arms.alone]", '[design]\nmethod = "sobol"\npoints = 3\n[arms.alone]'),
            "design.points: 3 is not a power of two",
        ),
    ],
)
def test_a_mistake_is_told_where_it_stands(folder: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(ScenarioError) as error:
        load(folder, STUDY.replace(*change)).cells(folder)
    assert said in str(error.value)
    assert all(line.startswith(f"{folder / 'study.toml'}: ") for line in str(error.value).splitlines())


def test_a_mistake_in_a_file_ends_the_command_with_a_sentence(folder: Path) -> None:
    (folder / "small.toml").write_text(STUDY.replace("0.8", "1.8"))
    result = CliRunner().invoke(cli, ["study", str(folder / "small.toml"), "--dry-run"])
    assert isinstance(result.exception, ScenarioError) and not (folder / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[arms.alone]", "[arms.alone]\nseed = 20"), r'arms\.alone: "seed" must be the same'),
        (("[[measures]]", '[[measures]]\nmetric = "variance"\n[[measures]]'), "measures: variance is given twice"),
        (('base = "loop.toml"', 'base = "small.toml"'), r"base: .*small\.toml is a study; give a scenario"),
    ],
)
def test_what_would_compare_nothing_is_refused(folder: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        load(folder, STUDY.replace(*change, 1)).cells(folder)


def test_cells_are_arms_by_worlds_by_seeds_and_seeds_come_first(folder: Path) -> None:
    worlds = STUDY + '[worlds.short]\nsteps = 4\n[worlds.wide]\n"trainers.lab.publish" = 30\n'
    cells = load(folder, worlds).cells(folder)
    assert len(cells) == 3 * 2 * 3
    assert [cell.scenario.seed for cell in cells] == [1] * 6 + [2] * 6 + [3] * 6
    assert cells[0].label == "alone in short, seed 1"
    wide = next(c for c in cells if (c.arm, c.world) == ("more", "wide"))
    assert wide.scenario.trainers["lab"].publish == 30 and wide.scenario.policies["fresh"].fraction == 0.8


def test_axes_make_a_grid_of_named_arms(folder: Path) -> None:
    text = axes("", '"trainers.lab.publish" = [10, 20]\n"policies.fresh.fraction" = [0.25, 0.5, 0.75]')
    study = load(folder, text)
    assert len(study.levers()) == 6 and len(study.cells(folder)) == 18
    assert next(iter(study.levers())) == study.base_arm == "publish=10, fraction=0.25"


def test_a_lever_may_be_the_step_at_which_an_arm_forks(folder: Path) -> None:
    text = STUDY.replace(
        "[arms.more]", '[arms.later]\n"branch.step" = 3\n"trainers.lab.select" = ["fresh"]\n[arms.more]'
    )
    cells = load(folder, text + "[branch]\nstep = 1\n").cells(folder)
    assert {cell.arm: cell.branch_step for cell in cells} == {"alone": 1, "helped": 1, "later": 3, "more": 1}
    assert {cell.arm: cell.parent is None for cell in cells}["alone"]  # the base itself, without a branch


SHIPPED = sorted((ROOT / "scenarios" / "studies").glob("*.toml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_study_that_comes_with_the_project_is_sound(file: Path) -> None:
    if "[[measures]]" in file.read_text():
        assert len(Study.load(file).cells(file.parent)) >= 4
    else:
        frontier = Frontier.load(file)
        for end in (frontier.range.low, frontier.range.high):
            frontier.scenario(file.parent, round(end) if frontier.range.whole else end, 1)
