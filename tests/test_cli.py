"""The command line as a user meets it: what it prints, where, and how it answers mistakes and Ctrl-C."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner

import ecosystem
from ecosystem.cli.main import cli, main
from ecosystem.cli.reading import LISTED
from ecosystem.errors import EcosystemError
from ecosystem.report.profile import DEFINITIONS
from ecosystem.runs.files import require_local_path
from ecosystem.runs.planning.estimate import TOKENS_PER_DOCUMENT, Plan
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario
from tests.conftest import MACHINE, ROOT, TINY, tiny
from tests.invented_runs import invent, scenario


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in, with the tiny scenario in it."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny.toml").write_text(tiny().to_toml())
    return folder


def command(place, *arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "ecosystem", *map(str, arguments)], cwd=place, capture_output=True, text=True, **more
    )


def inside(place, *arguments):
    """Run a command in this process, which has imported what it needs; return the same as :func:`command`."""
    out, errors, code, handler = StringIO(), StringIO(), 0, signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.chdir(place)
        patch.setattr("sys.argv", ["ecosystem", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGINT, handler)
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def first(place):
    return command(place, "run", "tiny.toml")


@pytest.mark.slow
def test_a_run_prints_its_plan_its_steps_and_last_the_report(first, place):
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0].startswith("smoke: 3 steps on cpu with")
    for word in ("agents", "documents", "tokens", "time"):
        assert any(line.strip().startswith(word) for line in lines[:6])
    assert sum(line.startswith("step ") and "nats/token" in line for line in lines) == 3
    report = place / lines[-1]
    assert report.name == "report.html" and "<html" in report.read_text()
    assert Run.open(report.parent).steps == 3
    assert not list(report.parent.rglob("*.part"))


@pytest.mark.slow
def test_the_same_command_again_says_where_the_finished_run_is(first, place):
    again = inside(place, "run", "tiny.toml", "--json")
    summary = json.loads(again.stdout)
    assert summary["report"] == first.stdout.splitlines()[-1]
    assert "This run is finished" in again.stderr
    assert set(summary["final"]) == {"web", "naive", "careful"}
    assert summary["final"]["naive"]["cross_entropy"]["error"] > 0
    assert {row["definition"] for row in summary["profile"] if row["population"] == "naive"} == set(DEFINITIONS)


@pytest.mark.slow
def test_quiet_prints_the_path_alone(first, place):
    assert inside(place, "run", "tiny.toml", "--quiet").stdout == first.stdout.splitlines()[-1] + "\n"


@pytest.mark.slow
def test_fresh_sets_the_old_run_aside(first, place, unreported):
    report = place / first.stdout.splitlines()[-1]
    before = (report.parent / "commits/000003.json").read_text()
    again = inside(place, "run", "tiny.toml", "--fresh", "--steps", 1, "--quiet")
    assert again.returncode == 0, again.stderr
    assert Run.open(report.parent).steps == 1
    assert (report.parent.with_name("1.old-1") / "commits/000003.json").read_text() == before
    assert inside(place, "run", "tiny.toml", "--quiet").returncode == 0  # goes on to step 3
    files = [json.loads(folder.read_text())["files"] for folder in report.parent.parent.glob("1*/commits/000003.json")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_a_dry_run_leaves_nothing(place):
    plan = inside(place, "run", "tiny.toml", "--dry-run", "--json", "--seed", 7)
    assert plan.returncode == 0 and json.loads(plan.stdout)["plan"]["trainers"] == 3
    assert not list((place / "outputs").glob("*/7"))


@pytest.mark.slow
def test_the_plan_says_what_will_not_happen(place):
    late = 'changes=[{at=9, set={"trainers.naive.publish"=1}}]'
    plan = inside(
        place, "run", "tiny.toml", "--dry-run", "--seed", 7, "--set", late, "--set", "sources.language.held_out=0"
    )
    assert "note       the change at step 9 has no effect" in plan.stdout, plan.stderr
    assert "the run has 3 steps" in plan.stdout
    assert "sources.language.held_out is 0" in plan.stdout


def test_the_plan_counts_the_words_of_a_users_texts(tmp_path):
    """Two laboratories, three fits each of 20 documents of 1,000 words at 2.3 tokens."""
    for number in range(20):
        (tmp_path / f"long{number}.txt").write_text(" ".join(f"word{number}x{place}" for place in range(1000)))
    scenario = Scenario.parse(
        {
            "name": "long",
            "steps": 3,
            "sources": {"mine": {"kind": "text", "path": "long*.txt", "held_out": 0}},
            "web": {"kind": "complete", "sites": 1, "initial": {"source": "mine", "documents": 20}},
            "models": {"m": {"preset": "trigram"}},
            "trainers": {"labs": {"count": 2, "model": "m", "scrape": {"docs": 20}, "publish": 0}},
        }
    )
    assert Plan.of(scenario, MACHINE, tmp_path, tmp_path).tokens_to_train == pytest.approx(2 * 3 * 20 * 2300, rel=1e-3)


@pytest.mark.slow
def test_a_budget_that_a_model_does_not_heed_is_not_counted_and_said(tmp_path):
    """Four laboratories, ten fits each: of 10,000 words at 2.3 tokens, or of the budget where the model heeds it."""
    file = ROOT / "scenarios/policy_web.toml"
    trigram = Scenario.load(file)
    plan = Plan.of(trigram, MACHINE, tmp_path)
    assert plan.tokens_to_train == 4 * 10 * 23_000
    assert [note for note in plan.notes if "trainers.labs.budget has no effect" in note]
    documents = trigram.override({"policies.sample": {"kind": "sample", "count": 300}})
    assert Plan.of(documents, MACHINE, tmp_path).tokens_to_train == 4 * 10 * 300 * TOKENS_PER_DOCUMENT
    nano = Plan.of(trigram.override({"models.small.preset": "gpt2-nano"}), MACHINE, tmp_path)
    assert nano.tokens_to_train == 4 * 10 * 40_000 and not nano.notes
    said = CliRunner().invoke(cli, ["check", str(file)]).output
    assert "valid (10 steps" in said and "note: trainers.labs.budget has no effect" in said
    assert "note" not in CliRunner().invoke(cli, ["check", str(ROOT / "scenarios/finite_web.toml")]).output


def test_the_plan_of_a_resume_or_branch_counts_the_steps_left(tmp_path):
    scenario = tiny(steps=10, trainers__naive__every=3, trainers__naive__offset=1)
    scenario = scenario.override({f"trainers.{name}.budget": {"tokens": 900} for name in scenario.trainers})
    whole, until = (Plan.of(s, MACHINE, tmp_path) for s in (scenario, scenario.override({"steps": 4})))
    rest, none = (Plan.of(scenario, MACHINE, tmp_path, done=done) for done in (4, 10))
    assert whole.tokens_to_generate == until.tokens_to_generate + rest.tokens_to_generate
    assert whole.tokens_to_train == until.tokens_to_train + rest.tokens_to_train
    assert none.tokens_to_train == none.tokens_to_generate == 0 and rest.seconds < whole.seconds
    text = rest.text().splitlines()
    assert text[0].startswith("smoke: 6 steps left after step 4 of 10 (tokens and time are those of the steps left) on")
    assert "initially" not in text[2] and "10 steps on" in whole.text()


def test_fields_that_a_new_preset_or_kind_replaces_are_named():
    def said(*settings):
        options = [option for setting in settings for option in ("--set", setting)]
        return CliRunner().invoke(cli, ["check", str(ROOT / "scenarios/smoke.toml"), *options]).output

    preset = "models.tiny.preset=gpt2-micro"
    note = "note: models.tiny.preset replaces the whole entry; what the file sets in it is dropped:"
    assert f"{note} context, foundation, n_embd, vocabulary." in said(preset)
    assert f"{note} foundation, n_embd, vocabulary." in said(preset, "models.tiny.context=64")
    assert "dropped" not in said("models.tiny.n_embd=48", "sources.language.kind=process")


def test_a_model_that_nothing_refers_to_is_noted(place):
    arguments = ["check", str(place / "tiny.toml"), "--set", "models.spare.preset=trigram"]
    assert "note: models.spare is not used" in CliRunner().invoke(cli, arguments).output
    late = [*arguments, "--set", 'changes=[{at=9, set={"trainers.naive.publish"=1}}]']
    assert "note: the change at step 9 has no effect: the run has 3 steps" in CliRunner().invoke(cli, late).output
    arguments += ["--set", "trainers.naive.model=spare"]
    assert "note: models.spare" not in CliRunner().invoke(cli, arguments).output


def test_check_applies_set_to_studies_and_refuses_what_does_not_apply():
    study = str(ROOT / "scenarios/studies/detector_needed.toml")
    run = str(next((ROOT / "tests/data/run-v1").rglob("scenario.toml")).parent)
    for arguments, part in (
        ([study, "--set", "trainers.lab.count=3"], "trainers.lab"),
        ([study, "--variant", "published"], 'variant = "published"'),
        ([run, "--set", "steps=3"], "--set and --variant apply to files"),
    ):
        error = CliRunner().invoke(cli, ["check", *arguments]).exception
        assert isinstance(error, EcosystemError) and part in str(error)


def test_an_error_cannot_control_the_terminal(place):
    result = inside(place, "check", "x\x1b[2J\u202e\U000e0041.toml")
    assert result.returncode == 2 and r"x␛[2J\u202e\U000e0041" in result.stderr


def test_an_option_out_of_bounds_is_named(place):
    error = CliRunner().invoke(cli, ["run", str(place / "tiny.toml"), "--seed", str(10**20)]).exception
    assert isinstance(error, EcosystemError) and f"tiny.toml with --seed {10**20}: seed: " in str(error)


def test_ctrl_c_before_anything_has_begun_says_so(place):
    """Also inside the imports of libraries, which turn an interruption into errors of their own."""
    slow = """
import sys, time, types
from ecosystem.cli.main import main
def stuck(*arguments, **more):
    print("now", flush=True)
    time.sleep(60)
sys.modules["ecosystem.cli.listing"] = types.SimpleNamespace(json_schema=stuck)
sys.argv = ["ecosystem", "schema"]
main()
"""
    process = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "Stopped.\n")


def test_ctrl_c_while_a_report_is_drawn_says_that_every_step_is_committed(tmp_path, monkeypatch, capfd):
    scenario, options = tiny(steps=1), {"out": tmp_path, "device": "cpu", "threads": 1}
    monkeypatch.setattr("ecosystem.report.write_report", lambda run: signal.raise_signal(signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ecosystem.run(scenario, **options)
    assert capfd.readouterr().err == "All steps are committed; run the same command again to write the report.\n"
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.undo()
    assert (ecosystem.run(scenario, **options).path / "report.html").exists()


def test_the_readme_names_every_option_of_a_run():
    [row] = [
        line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `ecosystem run FILE`")
    ]
    assert set(re.findall(r"`(--[a-z-]+)`", row)) == {
        option for p in cli.commands["run"].params for option in p.opts if option.startswith("--")
    }


@pytest.mark.slow
def test_check_finds_a_damaged_file_of_a_run(first, place, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree((place / first.stdout.splitlines()[-1]).parent, folder)
    whole = inside(place, "check", folder)
    assert whole.returncode == 0 and "intact (steps 0 to 3" in whole.stdout
    for name in ("models/tiny/tokenizer.json", "index/000001.parquet", "weights/000000.safetensors"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept[:-1] + b"?")
        result = inside(place, "check", folder)
        assert result.returncode == 2 and f"{name}: this file of step" in result.stderr, name
        (folder / name).write_bytes(kept)


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(place):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "ecosystem", "run", "tiny.toml", "--seed", "3", "--steps", "500"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step   2/500"):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopping; press Ctrl-C again" in errors
    assert "are committed" in errors and "run the same command again" in errors
    assert "Traceback" not in errors
    [folder] = (place / "outputs").glob("*/3")
    assert Run.open(folder).steps >= 2


MISTAKES = [
    (["run", "nothing.toml"], "nothing.toml: there is no such file"),
    (["run", "tiny.tml"], 'did you mean "tiny.toml"?'),
    (["run", "tiny.toml", "--set", "trainers.naive.publsh=3"], 'unknown key (did you mean "publish"?)'),
    (["run", "tiny.toml", "--set", "steps"], "write it as path=value"),
    (["run", "tiny.toml", "--threads", "0"], "--threads"),
    (["run", "tiny.toml", "--threads", "20000", "--dry-run"], "--threads 20000: give a whole number from 1 to 1024"),
    (["run", "tiny.toml", "--seed", "8", "--device", "cuda"], "--device cuda: not available on this machine"),
    (["run", "tiny.toml", "--seed", "-1"], "--seed"),
    (["run", "tiny.toml", "--out", "tiny.toml", "--seed", "8"], "--out"),
    (["run", "tiny.toml", "--seed", "8", "--set", "trainers.naive.learning_rate=1e30"], "step 1, naive/"),
    (
        ["run", "tiny.toml", "--seed", "8", "--set", 'sources.language={kind="text", path="no/*.txt"}'],
        "sources.language",
    ),
    (["check", "tiny.toml", "broken.toml"], "broken.toml: is not valid TOML"),
    (["run", "tiny.toml", "--set", ".=3"], "write it as path=value"),
    (["run", "tiny.toml", "--set", 'models.tiny.init="foundatoin"'], 'did you mean "foundation"'),
    (["run", "tiny.toml", "--set", "name=été"], 'the name "été" may only have letters'),
    (["report", "."], "is not a run folder"),
    (["run", "."], "is a folder, not a scenario file; to write one for texts in it: ecosystem new NAME --text"),
    (["show", "nowhere"], "is not a run folder"),
    (["list", "nothing"], "nothing"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_a_sentence_and_exit_code_2(arguments, sentence, place):
    if arguments[-1] == "cuda":
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    (place / "broken.toml").write_text("name = ")
    result = inside(place, *arguments)
    assert result.returncode == 2, result.stdout + result.stderr
    assert sentence in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["view", "tiny.toml"], ["validate"]])
def test_only_runs_studies_and_frontiers_go_to_a_url(arguments, place, monkeypatch):
    monkeypatch.chdir(place)
    error = CliRunner().invoke(cli, [*arguments, "--out", "memory://x"]).exception
    assert isinstance(error, ecosystem.EcosystemError) and "only runs, studies and frontiers take a URL" in str(error)
    assert not (place / "memory:").exists()


@pytest.mark.slow
def test_debug_shows_the_traceback(place):
    assert "Traceback" in command(place, "run", "nothing.toml", "--debug").stderr


@pytest.mark.slow
def test_an_unwritable_folder_is_a_sentence(place):
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        result = inside(place, "run", "tiny.toml", "--out", "/proc/ecosystem")
    else:
        (place / "locked").mkdir(mode=0o500, exist_ok=True)
        result = inside(place, "run", "tiny.toml", "--out", "locked")
    assert result.returncode == 2 and "cannot be written" in result.stderr and "--out" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_show_reads_what_was_published_and_names_the_authors(first, place):
    folder = Path(first.stdout.splitlines()[-1]).parent
    shown = inside(place, "show", folder, "--step", 1, "--author", "naive", "--limit", 2)
    assert shown.returncode == 0 and shown.stdout.startswith("24 documents at step 1, the first 2:")
    assert "synthetic, depth 1.00" in shown.stdout
    wrong = inside(place, "show", folder, "--author", "navie")
    assert wrong.returncode == 2 and 'did you mean "naive"?' in wrong.stderr
    assert inside(place, "report", folder).stdout.strip().endswith("report.html")


@pytest.mark.slow
@pytest.mark.parametrize("what", LISTED)
def test_every_listing_is_text_and_json(what):
    text, data = inside(ROOT, "list", what), inside(ROOT, "list", what, "--json")
    entries = json.loads(data.stdout)
    assert len(entries) >= (1 if what in ("scaling_laws", "fits", "stories") else 4)
    assert all(entry["name"] in text.stdout and entry["about"] for entry in entries)
    if what in ("policies", "sources", "models"):
        undescribed = [
            f"{entry['name']}.{field['name']}"
            for entry in entries
            for field in entry.get("fields", [])
            if not field["about"]
        ]
        assert not undescribed


@pytest.mark.slow
def test_the_python_surface(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(cache))
    scenario = ecosystem.Scenario.load(ROOT / "scenarios/smoke.toml").override(TINY | {"steps": 1})
    run = ecosystem.run(scenario, seed=4, out=tmp_path, device="cpu", threads=2)
    assert run.path == tmp_path / run.path.parent.name / "4" and (run.path / "report.html").exists()
    assert run.last_step == run.steps == 1 == run.metrics["step"].max()
    assert run.documents.collect().height and run.ledger.collect().height
    with pytest.raises(AttributeError):
        _ = ecosystem.nothing
    assert set(ecosystem.__all__) <= set(dir(ecosystem)) and all(getattr(ecosystem, name) for name in dir(ecosystem))
    assert Run(str(run.path)).documents.collect().height == run.documents.collect().height
    for wrong, sentence in (
        ({"device": "tpu"}, "--device tpu: unknown device.* cpu"),
        ({"threads": 0}, "--threads 0: give a whole number"),
        ({"threads": 1025}, "--threads 1025: give a whole number from 1 to 1024"),
        ({"out": "nowhere://x"}, "nowhere://x: unknown kind of store"),
        ({"out": Path("memory://x")}, "memory:/x: is a URL"),
    ):
        with pytest.raises(ecosystem.EcosystemError, match=sentence):  # though it is finished
            ecosystem.run(scenario, seed=4, **{"out": tmp_path, **wrong})
    for call in (ecosystem.run, ecosystem.study, ecosystem.frontier):
        with pytest.raises(
            ecosystem.EcosystemError, match=r"path of its file \(see (Scenario|Study|Frontier)\.load\), not None"
        ):
            call(None)
    for asked in (lambda: ecosystem.branch(run, "one"), lambda: ecosystem.branch(run, 1, ["a=5"])):
        with pytest.raises(
            ecosystem.EcosystemError,
            match=r"'one' is no step; give its number|give a dict from dotted paths",
        ):
            asked()
    with pytest.raises(ecosystem.EcosystemError, match="give a dict from dotted paths to values"):
        scenario.override(["steps"])


@pytest.mark.parametrize("file", ["scenario.toml", "environment.json", "web.graphml"])
def test_check_finds_an_edited_file_in_a_folder_of_any_name(file, tmp_path):
    folder = invent(tmp_path / "run", scenario(steps=1, sites=5)).path
    said = CliRunner().invoke(cli, ["check", str(folder)])
    assert said.exit_code == 0 and "intact (steps 0 to 1" in said.output, said.exception
    (folder / file).write_text((folder / file).read_text() + "\n")
    error = CliRunner().invoke(cli, ["check", str(folder)]).exception
    assert isinstance(error, EcosystemError) and f"{file}: has been altered" in str(error)


def test_check_names_altered_drawings_and_files_of_other_programs(tmp_path):
    run = invent(tmp_path / "run", scenario(steps=1, sites=5))
    run.store.write("web.gexf", b"<gexf/>")
    (run.path / "web.gexf").write_bytes(b"<gexf>")
    (run.path / "commits/._000000.json").write_bytes(b"\0")
    said = CliRunner().invoke(cli, ["check", str(run.path)]).output
    assert "intact" in said and "altered, but only drawn" in said and "web.gexf" in said
    assert "not files of a run, and ignored: commits/._000000.json" in said


@pytest.mark.slow
def test_a_closed_pipe_does_not_look_like_a_finished_run(place):
    arguments = [sys.executable, "-m", "ecosystem", "run", "tiny.toml", "--seed", "9"]
    with subprocess.Popen(arguments, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert "Stopped: the reader of the output has closed it" in process.stderr.read()
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["check", "tiny.toml"], ["--help"], ["--version"]])
def test_output_that_cannot_be_written_is_one_sentence(arguments, place):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "ecosystem", *arguments],
            cwd=place,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert result.returncode == 2
    assert result.stderr.startswith("Error: standard output cannot be written (") and "\n" not in result.stderr[:-1]


def test_python_without_docstrings_is_refused(place):
    result = command(place, "list", "metrics", env={**os.environ, "PYTHONOPTIMIZE": "2"})
    assert result.returncode == 2 and "removes docstrings" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["show"], ["report"], ["lineage", "3"], ["audit"], ["branch"], ["view"], ["check"]]
)
def test_a_name_that_is_too_long_is_a_sentence(arguments):
    first, *rest = arguments
    with pytest.raises(EcosystemError, match=r"^x{300}.*File name too long.*\.$"):
        cli.main([first, "x" * 300, *rest], standalone_mode=False)


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="the system has no /dev/stdin")
def test_a_scenario_may_come_through_a_pipe(place):
    done = command(place, "check", "/dev/stdin", input=(place / "tiny.toml").read_text())
    assert done.returncode == 0 and done.stdout.startswith("/dev/stdin: valid"), done.stderr


def test_a_setting_is_one_value(place):
    with pytest.raises(EcosystemError, match="is more than one value; give each with a --set of its own"):
        cli.main(["check", str(place / "tiny.toml"), "--set", "steps=3\nseed=9"], standalone_mode=False)


@pytest.mark.slow
def test_fewer_steps_than_a_run_has_are_said(first, place):
    done = inside(place, "run", "tiny.toml", "--steps", "1")
    assert done.returncode == 0 and "has 3 steps, more than the 1 asked for" in done.stdout


def test_a_run_whose_folder_is_gone_says_so(tmp_path, monkeypatch):
    invent(tmp_path / "mine", scenario({"labs": []}, members=1, steps=1, sites=4))
    monkeypatch.chdir(tmp_path)
    run = Run.open("mine")
    assert run.last_step == 1
    monkeypatch.chdir("/")
    for read in (lambda: run.metrics, lambda: run.last_step, lambda: run.ledger):
        with pytest.raises(EcosystemError, match="this run folder is gone"):
            read()


def test_a_leading_tilde_of_out_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert require_local_path("~/runs") == tmp_path / "runs"
