"""The scripts of docs/clusters.md, with stand-ins for the commands of SLURM, and on a Ray cluster of two nodes here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario
from tests.conftest import ROOT

PAGE = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
SCRIPTS = dict(re.findall(r"`(\w+\.sbatch)`[^`]*```bash\n(.*?)```", PAGE, re.DOTALL))
NGRAM = ROOT / "tests/baseline/scenarios/ngram.toml"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the scripts are for bash")
STAND_INS = {
    "srun": 'while [[ "$1" == --* ]]; do shift; done\nexec "$@"',
    "scontrol": 'if [ "$1" = show ]; then printf "first\\nsecond\\n"; else echo "$@" >> "$CALLS"; fi',
    "hostname": "echo 127.0.0.1",
}


@pytest.fixture
def batch(tmp_path):
    """A function that runs a script of the page as a job: (name, arguments, more stand-ins) to a finished process."""

    def submit(name, *arguments, cpus=1, **commands):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for command, body in {**STAND_INS, **commands}.items():
            (folder / command).write_text(f"#!/bin/bash\n{body}\n")
            (folder / command).chmod(0o755)
        script = tmp_path / name
        script.write_text(SCRIPTS[name])
        variables = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "SLURM_JOB_ID": str(4000 + os.getpid() % 5000),  # decides the port
            "SLURM_CPUS_PER_TASK": str(cpus),
            "SLURM_JOB_NODELIST": "first,second",
            "SLURM_ARRAY_TASK_ID": "7",
        }
        return subprocess.run(
            ["bash", str(script), *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=400,
        )

    return submit


def test_the_page_has_three_scripts_with_requests_that_slurm_reads():
    assert set(SCRIPTS) == {"run.sbatch", "seeds.sbatch", "ray.sbatch"}
    for name, text in SCRIPTS.items():
        lines = text.splitlines()
        requests = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
        # SLURM reads requests up to the first command only.
        assert lines[0] == "#!/bin/bash" and requests == list(range(1, len(requests) + 1)), name


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (2, False), (143, True)])
def test_a_run_that_ran_out_of_time_is_queued_again(batch, tmp_path, code, requeued):
    done = batch("run.sbatch", "a b.toml", "--steps", 3, cpus=5, ecosystem=f'printf "%s|" "$@"; exit {code}')
    assert done.returncode == code and done.stderr == ""
    assert done.stdout == "run|a b.toml|--steps|3|--out|outputs|--threads|5|"
    calls = tmp_path / "calls"
    assert calls.exists() == requeued and (not requeued or calls.read_text().startswith("requeue "))


def test_an_array_has_a_seed_for_each_task(batch):
    done = batch("seeds.sbatch", "a.toml", ecosystem='printf "%s|" "$@"')
    assert done.stdout == "run|a.toml|--seed|7|--out|outputs|--threads|1|"


@pytest.mark.slow
def test_a_run_on_the_nodes_of_a_job_equals_one_in_one_process(batch, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_DISABLE_DASHBOARD", "1")
    command = f'"{sys.executable}" -m ecosystem "$@"'
    beside = str(Path(sys.executable).parent)
    real = shutil.which("ray", path=f"{beside}:{os.environ['PATH']}")
    done = batch(
        "ray.sbatch", "run", NGRAM, "--workers", 2, "--out", "placed", ecosystem=command, ray=f'exec "{real}" "$@"'
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 Ray workers on 2 machines" in done.stdout
    alone = subprocess.run(
        [sys.executable, "-m", "ecosystem", "run", str(NGRAM), "--out", "alone", "--threads", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 0, alone.stderr
    scenario = Scenario.load(NGRAM)
    name = f"{scenario.name}-{scenario.fingerprint()}/{scenario.seed}"
    first, second = (Run.open(tmp_path / out / name) for out in ("placed", "alone"))
    assert first.last_step == second.last_step == scenario.steps
    assert first.store.table("metrics").equals(second.store.table("metrics"))
