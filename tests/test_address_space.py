"""A run under a limit of address space: its steps are kept, and it ends with a report or with a sentence."""

import subprocess
import sys

import pytest

from ecosystem.errors import EcosystemError
from ecosystem.report.charts import renderer
from ecosystem.runs.run import Run
from tests.studies.small_study import STUDY, WORLD

resource = pytest.importorskip("resource", reason="this system sets no such limits")

SCENARIO = """
name = "small"
seed = 1
steps = 2
[sources.normal]
kind = "gaussian"
[web]
sites = 3
initial = { source = "normal", documents = 60 }
[models.normal]
kind = "gaussian"
[trainers.labs]
model = "normal"
scrape = { docs = 40 }
publish = 20
"""


COMMAND = [sys.executable, "-m", "ecosystem"]
enforced = pytest.mark.skipif(sys.platform != "linux", reason="the limit is enforced on Linux")


def limited(gigabytes, folder, *arguments):
    """Run a command of ``ecosystem`` in a folder under a limit of address space."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (gigabytes * 10**9, gigabytes * 10**9))

    return subprocess.run([*COMMAND, *arguments], cwd=folder, preexec_fn=limit, capture_output=True, text=True)


def test_a_chart_that_cannot_be_drawn_is_a_sentence_and_not_the_end_of_the_process():
    renderer.cache_clear()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (50 * 2**30, before[1]))
    try:
        with pytest.raises(
            EcosystemError, match=r"needs 71 GB of address space.* limit .* is 53\.7 GB.*ecosystem report"
        ):
            renderer()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert renderer().__name__ == "vl_convert"


@pytest.mark.slow
@enforced
@pytest.mark.parametrize("gigabytes", [3, 72, 80])
def test_a_run_under_a_limit_keeps_its_steps(gigabytes, tmp_path):
    (tmp_path / "small.toml").write_text(SCENARIO)
    ended = limited(gigabytes, tmp_path, "run", "small.toml", "--threads", "1", "--out", "out")
    [folder] = tmp_path.glob("out/*/1")
    run = Run.open(folder)
    assert run.last_step == 2 and run.verify()
    assert "Traceback" not in ended.stderr
    if ended.returncode == 2:
        assert "charts, and so the report, cannot be drawn" in ended.stderr and not (folder / "report.html").exists()
        subprocess.run([*COMMAND, "report", folder], check=True, capture_output=True)
    else:
        assert ended.returncode == 0 and gigabytes > 64
    assert (folder / "report.html").exists() and list(folder.glob("charts/*.png"))


@pytest.mark.slow
@enforced
def test_a_study_under_a_limit_keeps_its_runs_and_tables(tmp_path):
    (tmp_path / "loop.toml").write_text(WORLD)
    (tmp_path / "small.toml").write_text(STUDY)
    ended = limited(12, tmp_path, "study", "small.toml")
    assert ended.returncode == 2 and "charts, and so the report, cannot be drawn" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.glob("outputs/studies/*/effects.parquet"))
    assert not list(tmp_path.glob("outputs/studies/*/report.html"))
