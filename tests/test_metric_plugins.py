"""Metrics of plug-ins: measured, stored, named by studies and closed forms, listed and reported like any other."""

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from ecosystem.cli.listing import listing
from ecosystem.errors import DataError, ScenarioError
from ecosystem.metrics import definitions as words
from ecosystem.metrics.base import (
    DOCUMENT_METRICS,
    TEXT_METRICS,
    Definition,
    DocumentMetric,
    TextMetric,
    measure_documents,
    measure_texts,
    sample_groups,
)
from ecosystem.metrics.catalogue import definitions, name_of, plugged_in
from ecosystem.metrics.definitions import define
from ecosystem.metrics.tasks import TASKS, NextWord
from ecosystem.scenario.entries.theory import TheorySpec
from ecosystem.sources.base import Truth
from ecosystem.streams import Stream
from ecosystem.studies.spec.measure import Measure
from tests.conftest import ROOT

PLUGIN = '''
"""Two metrics as another package would add them."""

import numpy as np

from ecosystem.metrics.base import (
    DOCUMENT_METRICS,
    TEXT_METRICS,
    Definition,
    DocumentMetric,
    TextMetric,
)
from ecosystem.metrics.estimates import mean_and_error


@TEXT_METRICS.register("word_length")
class WordLength(TextMetric):
    """Characters per word of a group."""

    definitions = {
        "word_length": Definition(
            "characters", "down", "characters per word & mark", "mean_word_length", "Shannon 1951", "Length of <words>"
        )
    }

    def measure(self, groups, human=None):
        lengths = groups.words.vocabulary.str.len_chars().to_numpy()
        return {"word_length": mean_and_error(lengths[groups.codes].mean(axis=1))}


@DOCUMENT_METRICS.register("radius")
class Radius(DocumentMetric):
    """Distance of published vectors from the true mean."""

    definitions = {"published_radius": Definition("units", "down", "distance of what is published from the true mean")}

    def measure(self, documents, truth):
        return {"published_radius": mean_and_error(np.linalg.norm(documents - truth.mean, axis=1))}
'''
TEXTS = """
name = "texts"
steps = 2
[sources.language]
kind = "process"
held_out = 20
[web]
kind = "watts_strogatz"
sites = 6
initial = { source = "language", documents = 60 }
[models.counts]
kind = "ngram"
order = 2
context = 64
vocabulary = 512
[trainers.naive]
model = "counts"
scrape = { docs = 60 }
decoding = { max_tokens = 40 }
publish = 30
[measure]
words = 100
groups = 3
texts = ["word_length"]
[[theory]]
metric = "mean_word_length"
population = "naive"
law = "diversity_replace"
parameters = { h0 = 4.0, n = 9 }
"""
VECTORS = """
name = "vectors"
steps = 3
[sources.truth]
kind = "gaussian"
[web]
kind = "isolated"
sites = 3
initial = { source = "truth", documents = 60 }
[models.normal]
kind = "gaussian"
[trainers.lab]
count = 3
model = "normal"
sites = 1
scrape = { docs = 40, strategy = "reach", links = 0 }
publish = 20
[measure]
sites = false
[[theory]]
metric = "published_radius"
population = "lab"
law = "gaussian_sd"
parameters = { n = 20 }
"""
STUDY = """
name = "small"
base = "vectors.toml"
seeds = [1, 2]
[arms.few]
[arms.many]
"trainers.lab.publish" = 40
[[measures]]
metric = "published_radius"
"""


def run(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "COLUMNS": "100"}
    command = [sys.executable, "-m", "ecosystem", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a package that names its module under the entry point, as an installer would write it."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "lengths.py").write_text(PLUGIN)
    installed = folder / "lengths-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: lengths\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[ecosystem.plugins]\nlengths = lengths\n")
    for name, text in (("texts", TEXTS), ("vectors", VECTORS), ("study", STUDY)):
        (folder / f"{name}.toml").write_text(text)
    return folder


def stored(path):
    return pl.concat([pl.read_parquet(file) for file in sorted(path.glob("**/metrics/*.parquet"))])


@pytest.mark.slow
def test_an_installed_metric_is_listed_with_its_words(folder):
    listed = {entry["name"]: entry for entry in json.loads(run(folder, "list", "metrics", "--json"))}
    assert listed["word_length"] == {
        "name": "word_length",
        "about": "characters per word & mark; unit: characters; higher is better; "
        "alias: mean_word_length; Shannon 1951",
        "better": "higher",
        "unit": "characters",
        "collapse": "down",
        "text": "characters per word & mark",
        "alias": "mean_word_length",
        "formula": "",
        "source": "Shannon 1951",
        "title": "Length of <words>",
    }
    assert listed["published_radius"]["unit"] == "units"
    assert listed.keys() - {"word_length", "published_radius"} == definitions().keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "told"),
    [
        ("texts", "word_length", ("Length of &lt;words&gt;", "characters per word &amp; mark")),
        ("vectors", "published_radius", ("Published radius", "distance of what is published from the true mean")),
    ],
)
def test_an_installed_metric_is_measured_stored_and_reported(folder, name, metric, told):
    run(folder, "run", f"{name}.toml", "--out", name, "--quiet")
    [path] = (folder / name).glob("*/1")
    rows = stored(path).filter(pl.col("metric") == metric)
    trainers = rows.filter(pl.col("scope") == "trainer")
    assert set(trainers["step"]) == ({1, 2} if name == "texts" else {2, 3}), "once something is published"
    assert (trainers["value"] > 0).all() and (trainers["error"] > 0).all()
    assert set(rows["id"]) >= ({"naive/0", "human"} if name == "texts" else {"lab/0", "lab/1", "lab/2"})
    page = (path / "report.html").read_text()
    for sentence in told:
        assert f">{sentence}" in page, sentence
    assert "<words>" not in page.split("<script", 1)[0]
    assert (path / "charts" / f"{'text' if name == 'texts' else 'model'}_{metric}.svg").is_file()


@pytest.mark.slow
def test_an_installed_metric_is_the_measure_of_a_study(folder):
    run(folder, "study", "study.toml", "--engine", "serial", "--out", "studies", "--quiet")
    [page] = (folder / "studies").glob("studies/small-*/report.html")
    assert "published_radius" in page.read_text()


@pytest.fixture
def tables():
    """Forget after a test what it registers."""
    changed = [words.DEFINED, words._OWNERS, *(r._kinds for r in (TEXT_METRICS, DOCUMENT_METRICS, TASKS))]
    definitions()
    before = [dict(table) for table in changed]
    yield
    for table, entries in zip(changed, before, strict=True):
        table.clear()
        table.update(entries)


class Loudness(TextMetric):
    definitions = {"loudness": Definition("1", "", "how loud it is")}

    def measure(self, groups, human=None):
        return {"volume": (1.0, 0.0)}


class Median(DocumentMetric):
    definitions = {"median": Definition("1", "up", "median of all symbols")}
    modality = "category"

    def measure(self, documents, truth):
        return {"median": (float(np.median(documents)), float("nan"))}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"perplexity": Definition("1", "up", "mine")}, '"perplexity" is already defined by ecosystem; rename it'),
        ({"distinct_1": Definition("1", "up", "mine")}, "already defined by ecosystem.metrics.text.Distinct"),
        ({"mine": Definition("1", "up", "mine", alias="w2")}, '"w2" is already defined by ecosystem'),
        ({"squared_w2": Definition("1", "up", "mine")}, '"squared_w2" is already defined by ecosystem'),
        ({"My metric": Definition("1", "up", "mine")}, '"My metric" may only have lower-case letters, digits and "_"'),
        ({}, "defines no metric; give its class definitions ="),
    ],
)
def test_a_metric_whose_name_is_taken_or_malformed_is_refused_whole(tables, entries, said):
    class Mine(Loudness):
        definitions = {"new_one": Definition("1", "up", "mine"), **entries} if entries else {}

    with pytest.raises(ScenarioError, match=said):
        TEXT_METRICS.register("mine")(Mine)
    assert "mine" not in TEXT_METRICS.all() and "new_one" not in definitions()


def test_a_metric_registered_twice_is_defined_anew(tables):
    for text in ("first", "second"):
        Loudness.definitions["loudness"] = Definition("1", "", text)
        TEXT_METRICS.register("loudness")(Loudness)
        assert definitions()["loudness"].text == text
    assert plugged_in() == ["loudness"]
    with pytest.raises(ScenarioError, match=f"already defined by {__name__}.Loudness"):
        define(Loudness.definitions, "another.Loudness")


def test_a_metric_yields_what_it_defines_and_no_more(tables):
    TEXT_METRICS.register("loudness")(Loudness)
    groups = sample_groups(pl.Series(["a b c d"] * 10), 5, 4, Stream(1, "measure"))
    with pytest.raises(DataError, match='kind "loudness" yields volume, which is not in its definitions'):
        measure_texts([Loudness()], groups)
    DOCUMENT_METRICS.register("median")(Median)
    found = measure_documents([Median()], np.array([3, 1, 2]), Truth())
    assert found["median"][0] == 2
    assert measure_documents([Median()], np.array([], np.int64), Truth()) == {}


def test_what_models_describe_of_themselves_can_be_defined(tables):
    with pytest.raises(ValueError, match='no metric "kurtosis"'):
        Measure(metric="kurtosis")
    define({"kurtosis": Definition("1", "down", "fourth moment", alias="standardised_fourth_moment")}, "models.Peaked")
    assert Measure(metric="kurtosis").lower_is_better is False
    assert Measure(metric="standardised_fourth_moment").name == "kurtosis"
    assert "kurtosis" in {entry["name"] for entry in json.loads(listing("metrics", True))}


def test_the_accuracies_of_a_plugged_in_task_are_metrics(tables):
    class Rhyme(NextWord):
        asks = "which word rhymes"

    TASKS.register("rhyme")(Rhyme)
    assert definitions()["accuracy_rhyme"].text.endswith("present weights: which word rhymes")
    assert Measure(metric="zero_shot_rhyme").lower_is_better is False
    assert plugged_in() == [], "its section of the report draws them"


def test_an_exact_name_stands_for_the_short_one_of_the_tables():
    aliases = {entry.alias: name for name, entry in definitions().items() if entry.alias}
    assert {"squared_w2": "w2", "squared_l2": "l2", "variance_ratio": "variance"}.items() <= aliases.items()
    assert aliases.keys().isdisjoint(definitions())
    for alias, name in aliases.items():
        assert name_of(alias) == name_of(name) == Measure(metric=alias, goal="lower").metric == name
        assert TheorySpec(metric=alias, population="p", law="gaussian_w2").metric == name
    assert name_of("unheard_of") == "unheard_of"
    listed = {entry["name"]: entry["about"] for entry in json.loads(listing("metrics", True))}
    assert all(f"alias: {alias}" in listed[name] for alias, name in aliases.items())
