"""Files that come with ecosystem are found by name from any folder, and completed in a shell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import ecosystem
from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError
from ecosystem.scenario.presets import bundled_files, located
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.spec.study import Study
from tests.conftest import ROOT


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_shipped_file_is_found_by_its_name(elsewhere):
    for file in (ROOT / "scenarios").rglob("*.toml"):
        inside = file.relative_to(ROOT / "scenarios").with_suffix("")
        assert located(inside) == located(str(inside)) == file
        assert located(inside.name).stem == inside.name


def test_a_name_is_sought_first_among_files_of_the_kind(elsewhere):
    assert located("wildai_filters").parent.name == "papers"
    assert located("wildai_filters", prefer="studies").parent.name == "studies"
    assert Study.load("wildai_filters").base.startswith("..")
    assert Scenario.load("smoke") == Scenario.load(ROOT / "scenarios/smoke.toml")
    assert ecosystem.Scenario.load("papers/vu_gpt2").name == ecosystem.Scenario.load("vu_gpt2").name


def test_a_file_in_the_current_folder_wins_but_a_folder_that_is_no_run_does_not(elsewhere):
    (elsewhere / "smoke").mkdir()
    assert located("smoke") == located("smoke", runs=True) == ROOT / "scenarios/smoke.toml"
    shutil.copy(ROOT / "scenarios/policy_web.toml", elsewhere / "smoke.toml")
    assert located("smoke") == Path("smoke.toml")
    assert Scenario.load("smoke").name == "policy-web"
    (elsewhere / "smoke/scenario.toml").touch()
    assert located("smoke", runs=True) == Path("smoke") and located("smoke") == Path("smoke.toml")


def test_names_below_the_current_folder_are_shown_relative_to_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert located("smoke") == Path("scenarios/smoke.toml")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "finite_wb"], 'finite_wb: there is no such file (did you mean "finite_web"?).'),
        (["study", "remedy"], '(did you mean "remedies"?)'),
        (["check", "finite_web.toml"], "a file of this name comes with ecosystem: "),
        (["run", "remedies"], "is a study, not a scenario; run it with: ecosystem study"),
        (["check", "../smoke"], "../smoke: there is no such file."),
        (["check", "x" * 300], "cannot be read: File name too long"),
    ],
)
def test_a_wrong_name_is_a_sentence(elsewhere, arguments, sentence):
    error = CliRunner().invoke(cli, arguments).exception
    assert isinstance(error, EcosystemError) and sentence in str(error)


def test_commands_take_names(elsewhere):
    said = CliRunner().invoke(cli, ["check", "smoke", "monoculture", "detector_needed"])
    assert said.exit_code == 0 and said.output.count(": valid (") == 3


def completed(*words):
    *arguments, incomplete = words
    items = ShellComplete(cli, {}, "ecosystem", "_ECOSYSTEM_COMPLETE").get_completions(list(arguments), incomplete)
    return [(item.value, item.type) for item in items]


def test_a_shell_completes_names_runs_and_paths(elsewhere):
    names = completed("run", "finite_")
    assert names == [("finite_web", "plain")]
    assert completed("run", "no_name_") == [("no_name_", "file")]  # paths, by the shell
    assert ("papers/vu_gpt2", "plain") in completed("check", "papers/vu")
    assert ("vu_gpt2", "plain") in completed("run", "vu_") and ("vu_gpt2", "plain") not in completed("study", "vu_")
    assert ("remedies", "plain") in completed("study", "rem")
    run = elsewhere / "outputs/tiny-0123456789ab/1"
    run.mkdir(parents=True)
    (run / "scenario.toml").touch()
    for command in ("show", "report", "view"):
        assert ("outputs/tiny-0123456789ab/1", "plain") in completed(command, "outputs/t")
    assert ("outputs/tiny-0123456789ab/1", "plain") not in completed("run", "outputs/t")


def test_paths_that_begin_like_a_name_are_completed_too(elsewhere):
    (elsewhere / "finite_own").mkdir()
    (elsewhere / "finite_web.toml").touch()
    assert completed("run", "finite_") == [(word, "plain") for word in ("finite_web", "finite_own/", "finite_web.toml")]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_a_name(elsewhere):
    """Bash drops words that come before paths, which the other shells keep."""
    (elsewhere / "ecosystem").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m ecosystem "$@"\n')
    (elsewhere / "ecosystem").chmod(0o755)
    script = """
        eval "$(_ECOSYSTEM_COMPLETE=bash_source ecosystem)"
        compopt() { :; }  # there is no line to edit
        COMP_WORDS=(ecosystem run finite_) COMP_CWORD=2
        _ecosystem_completion ecosystem && echo "${COMPREPLY[@]}"
    """
    place = {"PATH": f"{elsewhere}:{os.environ['PATH']}"}
    assert (
        subprocess.run(["bash", "-c", script], env=os.environ | place, capture_output=True, text=True).stdout
        == "finite_web\n"
    )


def test_all_bundled_files_have_both_names():
    files = bundled_files()
    assert files["papers/wildai_filters"] == files["wildai_filters"] != files["studies/wildai_filters"]
