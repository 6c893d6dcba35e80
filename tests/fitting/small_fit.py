"""A small fit whose runs take a fraction of a second, for tests."""

import re
from pathlib import Path

SCENARIO = """
name = "pond"
steps = 3
[sources.truth]
kind = "gaussian"
[web]
sites = 6
initial = { source = "truth", documents = 60 }
[models.normal]
kind = "gaussian"
[writers.people]
source = "truth"
rate = 20
sites = 3
[trainers.labs]
count = 2
model = "normal"
sites = 2
scrape = { docs = 40 }
publish = 10
[measure]
synthetic = 0
sites = false
"""
FIT = """
name = "small"
scenario = "pond.toml"
trials = 10
batch = 3
replicates = 2
noise = 4
draws = 4
morris = 2
[parameters.rate]
path = "writers.people.rate"
prior = { law = "log_uniform", low = 5, high = 80 }
[parameters.temperature]
path = "trainers.labs.decoding.temperature"
prior = { law = "uniform", low = 0.5, high = 1.0 }
[[targets]]
step = 3
quantity = "synthetic_share"
scope = "web"
value = 0.25
error = 0.02
[[targets]]
step = 2
quantity = "synthetic_share"
scope = "web"
value = 0.15
error = 0.02
[[targets]]
step = 3
quantity = "variance"
scope = "trainer"
id = "labs"
value = 0.9
error = 0.1
use = "predict"
"""


def write(folder: Path) -> Path:
    """Write the fit and its scenario to a folder; return the path of the fit."""
    (folder / "pond.toml").write_text(SCENARIO)
    file = folder / "small.toml"
    file.write_text(FIT)
    return file


def contents(out: Path) -> dict[str, bytes]:
    """Return every file of the results of the fit.

    Charts number their clips over the life of a process, so these numbers are left out, and hashes of charts too.
    """
    [folder] = out.glob("fits/small-*")
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "digests.json")]
    read = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}
    return {name: re.sub(rb"clip\d+", b"clip", content) for name, content in read.items()}
