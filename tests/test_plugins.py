"""Plug-ins from single files: known to the process, to the workers of studies, and named by the runs that used them."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import polars as pl
import pytest

import ecosystem
from ecosystem import plugins
from ecosystem.errors import EcosystemError, ScenarioError, StoreError
from ecosystem.placement.worker import Worker
from ecosystem.policies.base import POLICIES
from tests.studies.small_runs import STUDY, WORLD

FILTER = '''
"""A filter of even documents."""
import polars as pl
from pydantic import Field

from ecosystem.policies.base import POLICIES, Filter


@POLICIES.register("KIND")
class Even(Filter):
    """Refuse documents with an odd id."""

    divisor: int = Field(2, description="what ids are divided by")

    def refuse(self, docs, ctx):
        return pl.select(pl.when(docs["doc"] % self.divisor != 0).then(pl.lit("odd"))).to_series()
'''
USED = '\n[policies.even]\nkind = "KIND"\n'


@pytest.fixture
def kind(tmp_path) -> str:
    """A kind of filter of this test alone, in the file ``my_filter.py``, with a scenario and a study that use it."""
    name = f"even_{tmp_path.name}".replace("-", "_")[:40]
    (tmp_path / "my_filter.py").write_text(FILTER.replace("KIND", name))
    world = WORLD.replace("publish = 20", 'publish = 20\nselect = ["even"]')
    (tmp_path / "world.toml").write_text(world + USED.replace("KIND", name))
    (tmp_path / "study.toml").write_text(STUDY.replace("publish", "scrape.docs"))
    yield name
    POLICIES._kinds.pop(name, None)
    plugins._LOADED.clear()


def command(*arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ecosystem", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_file_is_loaded_once_and_again_when_it_has_changed(tmp_path, kind):
    file = tmp_path / "my_filter.py"
    module = ecosystem.load_plugin(file)
    assert ecosystem.load_plugin(str(file)) is module and POLICIES.get(kind) is module.Even
    file.write_text(file.read_text().replace("Field(2,", "Field(3,"))
    changed = ecosystem.load_plugin(file)
    assert changed is not module and POLICIES.get(kind) is changed.Even and changed.Even().divisor == 3
    assert [plugin.name for plugin in plugins.loaded()] == ["my_filter.py"]


def test_files_of_one_name_in_two_folders_are_two_modules(tmp_path, kind):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "my_filter.py").write_text((tmp_path / "my_filter.py").read_text())
    ecosystem.load_plugin(tmp_path / "my_filter.py")
    with pytest.raises(EcosystemError, match=r"b/my_filter\.py, line 9: Two classes claim the policy kind"):
        ecosystem.load_plugin(tmp_path / "b" / "my_filter.py")
    assert len(plugins.loaded()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ndef f(:\n", "line 2: the plug-in is not valid Python"),
        ("\nimport no_such_package\n", "line 2: the plug-in failed with ModuleNotFoundError: No module named"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", "line 2: the plug-in failed with ZeroDivisionError"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(tmp_path, text, words):
    file = tmp_path / "broken.py"
    file.write_text(text)
    for _ in range(2):  # it is not taken for loaded after the first time
        with pytest.raises(EcosystemError) as refused:
            ecosystem.load_plugin(file)
        assert f"{file}, {words}" in str(refused.value)
    assert not any(name.startswith("plugin_broken") for name in sys.modules)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("my_filter", "a plug-in is one Python file"),
        ("absent.py", r"cannot be read \(No such file"),
        (7, "plugin: give a path"),
    ],
)
def test_what_is_no_file_of_python_is_refused(given, words):
    with pytest.raises(EcosystemError, match=words):
        ecosystem.load_plugin(given)
    with pytest.raises(EcosystemError, match=r"plugins: give a list of paths"):
        ecosystem.Scenario.load("scenarios/smoke.toml", plugins="my_filter.py")


def test_a_run_records_what_it_used_and_is_not_resumed_with_another(tmp_path, kind, unreported):
    file, scenario, out = tmp_path / "my_filter.py", tmp_path / "world.toml", tmp_path / "out"
    (tmp_path / "unused.py").write_text("x = 1\n")
    run = ecosystem.run(scenario, out=out, threads=1, plugins=[file, tmp_path / "unused.py"])
    refused = run.ledger.filter(pl.col("verdict") == "even").collect()
    assert refused.height > 20 and (refused["document"] % 2 == 1).all() and (refused["reason"] == "odd").all()
    assert run.environment["plugins"] == {"my_filter.py": plugins.loaded()[0].digest}
    file.write_text(file.read_text().replace("!= 0", "== 0"))
    with pytest.raises(StoreError, match=r"the plug-in my_filter\.py has changed since this run began"):
        ecosystem.run(scenario, out=out, threads=1, plugins=[file])
    longer = ecosystem.Scenario.load(scenario).override({"steps": 7})
    with pytest.raises(StoreError, match=r"the plug-in my_filter\.py has changed since this run began"):
        ecosystem.run(longer, out=out, threads=1)
    file.write_text(file.read_text().replace("== 0", "!= 0"))
    assert ecosystem.run(longer, out=out, threads=1, plugins=[file]).last_step == 7


def test_runs_without_plugins_record_none(tmp_path, kind, unreported):
    ecosystem.load_plugin(tmp_path / "my_filter.py")
    (tmp_path / "plain.toml").write_text(WORLD)
    run = ecosystem.run(tmp_path / "plain.toml", out=tmp_path / "out", threads=1)
    assert "plugins" not in run.environment


METRIC = """
from ecosystem.metrics.base import DOCUMENT_METRICS, Definition, DocumentMetric


@DOCUMENT_METRICS.register("largest")
class Largest(DocumentMetric):
    definitions = {"largest": Definition("1", "", "largest value")}

    def measure(self, documents, truth):
        return {"largest": (float(documents.max()), None)}
"""


def resume_without(scenario: Path, out: Path) -> str:
    longer = ecosystem.Scenario.load(scenario).override({"steps": 7})
    try:
        ecosystem.run(longer, out=out, threads=1)
    except StoreError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_a_metric_is_recorded_though_no_scenario_names_it(tmp_path, cache):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        (tmp_path / "largest.py").write_text(METRIC)
        (tmp_path / "world.toml").write_text(WORLD)
        arguments = {"out": tmp_path / "out", "threads": 1, "plugins": [tmp_path / "largest.py"]}
        place = pool.submit(path_of_run, tmp_path / "world.toml", arguments).result()
    run = ecosystem.Run.open(place)
    assert run.metrics.filter(pl.col("metric") == "largest").height == 3 * 4  # nothing is written before the first fit
    assert list(run.environment["plugins"]) == ["largest.py"]
    assert "uses the plug-in largest.py, which is not loaded" in resume_without(
        tmp_path / "world.toml", tmp_path / "out"
    )


def path_of_run(scenario: Path, arguments: dict) -> Path:
    return ecosystem.run(scenario, **arguments).path


@pytest.mark.slow
def test_the_command_line_and_a_stored_run(tmp_path, kind):
    file, scenario = tmp_path / "my_filter.py", tmp_path / "world.toml"
    without = command("check", scenario)
    assert without.returncode == 2 and f'unknown policy kind "{kind}"' in without.stderr
    done = command("run", scenario, "--plugin", file, "--out", tmp_path / "out", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["run"]
    refused = command("show", run, "--step", "1")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "this run uses the plug-in my_filter.py, which is not loaded. Add --plugin my_filter.py" in refused.stderr
    assert command("show", run, "--step", "1", "--plugin", file).returncode == 0
    assert kind in command("list", "policies", "--plugin", file).stdout


@pytest.mark.slow
def test_workers_of_a_study_need_no_copy_of_the_file(tmp_path, kind):
    file, folder = tmp_path / "my_filter.py", tmp_path
    ecosystem.load_plugin(file)
    file.unlink()
    result = ecosystem.study(folder / "study.toml", out=folder / "out", jobs=2)
    assert result.results.runs["error"].null_count() == 4
    places = {plugins_of(Path(place)) for place in result.results.runs["run"]}
    assert places == {("my_filter.py",)}
    with pytest.raises(ScenarioError, match="unknown policy kind"):
        POLICIES._kinds.pop(kind)
        ecosystem.Scenario.load(folder / "world.toml")


def plugins_of(folder: Path) -> tuple[str, ...]:
    return tuple(json.loads((folder / "environment.json").read_text())["plugins"])


def unpickled(sent: tuple[plugins.Plugin, ...], pickled: bytes) -> str:
    Worker(".", sent)
    return pickle.loads(pickled).kind


@pytest.mark.slow
def test_a_worker_of_a_placed_run_knows_the_classes_that_it_is_sent(tmp_path, kind):
    pickled = pickle.dumps(ecosystem.load_plugin(tmp_path / "my_filter.py").Even())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(unpickled, plugins.loaded(), pickled).result() == kind
