"""Laboratories that read each other: shares of authors, parallel webs, laws of networks, and who reaches real data."""

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.papers import main
from ecosystem.errors import DataError, ScenarioError
from ecosystem.report.findings import without_real_data
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.reading import reading_graph
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from ecosystem.theory.networks import (
    Network,
    network_diversity,
    network_mean_error,
    network_mean_error_limit,
    network_regression_error,
    network_variance,
    reaching_real_data,
    spectral_radius,
)
from ecosystem.validation import validate
from tests.conftest import ROOT

DOCUMENTS, REAL = np.array([[4, 8, 0], [0, 6, 6], [8, 0, 0]]), np.array([0, 4, 2])
BATCH, REAL_BATCH = 10, 20
VALIDATION = ROOT / "scenarios" / "validation"


def drawn(pool, n, rng):
    """``n`` different documents of each row of ``pool``."""
    return np.take_along_axis(pool, rng.random(pool.shape).argsort(axis=1)[:, :n], axis=1)


def simulated(covariance, generations, runs=5_000, seed=1):
    """Means and variances, [runs, laboratories] each, of normals that read each other."""
    rng = np.random.default_rng(seed)
    mean, variance = np.zeros((runs, 3)), np.ones((runs, 3))
    for generation in range(1, generations + 1):
        noise = rng.standard_normal((runs, 3, BATCH))
        texts, people = (
            mean[:, :, None] + np.sqrt(variance)[:, :, None] * noise,
            rng.standard_normal((runs, REAL_BATCH)),
        )
        mean, variance = np.empty_like(mean), np.ones_like(variance)
        for i in range(3):
            counts = DOCUMENTS[i] if generation > 1 else np.zeros(3, int)
            parts = [drawn(texts[:, j], n, rng) for j, n in enumerate(counts)]
            parts.append(drawn(people, REAL[i] if generation > 1 else DOCUMENTS[i].sum() + REAL[i], rng))
            read = np.concatenate(parts, axis=1)
            mean[:, i] = read.mean(axis=1)
            if covariance != "unit":
                variance[:, i] = read.var(axis=1, ddof=covariance == "unbiased")
    return mean, variance


def agrees(values, predicted):
    return abs(values.mean() - predicted) < 4 * values.std() / np.sqrt(len(values))


@pytest.mark.parametrize("covariance", ["unit", "unbiased", "maximum_likelihood"])
@pytest.mark.parametrize("generation", [1, 4])
def test_moments_are_those_of_a_simulation(covariance, generation):
    mean, variance = simulated(covariance, generation)
    shared = {"batch": BATCH, "real_batch": REAL_BATCH}
    for lab in range(3):
        error = network_mean_error(DOCUMENTS, REAL, lab, generation, covariance, **shared)
        assert agrees(mean[:, lab] ** 2, error)
        if covariance != "unit":
            assert agrees(variance[:, lab], network_variance(DOCUMENTS, REAL, lab, generation, covariance, **shared))
    if generation == 4:  # two readers of one laboratory draw some of the same documents
        alone = network_mean_error(DOCUMENTS, REAL, 0, generation, covariance)
        assert not agrees(mean[:, 0] ** 2, alone)


def test_without_shared_documents_the_recursion_is_that_of_the_module():
    network = Network.of(DOCUMENTS, REAL)
    a, n = network.shares, network.total
    noise = np.diag(
        [(REAL[i] / n[i]) ** 2 / max(REAL[i], 1) + (a[i] ** 2 / np.maximum(DOCUMENTS[i], 1)).sum() for i in range(3)]
    )
    error = np.diag(1 / n)
    for generation in range(2, 6):
        error = a @ error @ a.T + noise
        for lab in range(3):
            assert network_mean_error(DOCUMENTS, REAL, lab, generation) == pytest.approx(error[lab, lab], rel=1e-12)


@pytest.mark.parametrize("covariance", ["unit", "unbiased", "maximum_likelihood"])
def test_the_limit_is_where_the_generations_end(covariance):
    late = network_mean_error(DOCUMENTS, REAL, 2, [400], covariance, 3.0, BATCH)
    assert network_mean_error_limit(DOCUMENTS, REAL, 2, [1, 9], covariance, 3.0, BATCH) == pytest.approx(float(late[0]))
    with pytest.raises(DataError, match="reaches no real data"):
        network_mean_error_limit(DOCUMENTS, [0, 0, 0], 2, [1], covariance)


def test_a_laboratory_alone_is_the_classic_loop():
    t = np.arange(6)
    assert network_variance([[10]], [0], 0, t, "maximum_likelihood") == pytest.approx(0.9**t)
    assert network_diversity(0.6, [[10]], [0], 0, t) == pytest.approx(0.6 * 0.9**t)
    assert network_mean_error([[10]], [0], 0, t) == pytest.approx(t / 10)
    assert network_mean_error([[10]], [0], 0, t, "maximum_likelihood") == pytest.approx(1 - 0.9**t)
    assert network_regression_error(1.0, 3, [[0]], [10], 0, t[1:]) == pytest.approx(np.full(5, 0.5))


def test_own_kinds_of_real_data_bias_the_means():
    """Two laboratories at 0 and 2 that read each other settle at 0.5 and 1.5."""
    documents, real = [[10, 10], [10, 10]], [20, 20]
    for lab, bias in ((0, 0.5), (1, 1.5)):
        noise = network_mean_error(documents, real, lab, 60)
        assert network_mean_error(documents, real, lab, 60, offsets=[0, 2]) == pytest.approx(noise + bias**2)
    assert network_mean_error(documents, real, 1, 1, offsets=[0, 2]) == pytest.approx(1 / 40 + 4)
    with pytest.raises(DataError, match="offsets raise a fitted variance"):
        network_mean_error(documents, real, 0, 3, "unbiased", offsets=[0, 2])


def test_regression_errors_are_those_of_a_simulation():
    rng, runs, d = np.random.default_rng(2), 6000, 3
    documents, real = np.array([[0, 7, 0], [4, 0, 5], [0, 0, 0]]), np.array([3, 0, 8])
    errors = np.zeros((runs, 3, d))
    for generation in range(1, 5):
        following = np.empty_like(errors)
        for i in range(3):
            counts = documents[i] if generation > 1 else 0 * documents[i]
            rows = int(documents[i].sum() + real[i])
            x, y = rng.standard_normal((runs, rows, d)), rng.standard_normal((runs, rows))
            author = np.repeat(np.arange(3), counts)
            y[:, : len(author)] += np.einsum("rnd,rnd->rn", x[:, : len(author)], errors[:, author])
            following[:, i] = np.linalg.solve(np.swapaxes(x, 1, 2) @ x, np.einsum("rnd,rn->rd", x, y)[..., None])[
                ..., 0
            ]
        errors = following
        for lab in range(3):
            predicted = network_regression_error(1.0, d, documents, real, lab, generation)
            assert agrees((errors[:, lab] ** 2).sum(axis=1), predicted)


@given(
    st.integers(1, 5).flatmap(
        lambda k: st.lists(st.lists(st.integers(0, 2), min_size=k + 1, max_size=k + 1), min_size=k, max_size=k)
    )
)
@settings(max_examples=40, deadline=None)
def test_errors_are_bounded_if_and_only_if_all_reach_real_data(rows):
    """The last number of a row is the real documents of a laboratory; one that would read nothing reads itself."""
    counts = np.array(rows)
    documents, real = counts[:, :-1], counts[:, -1]
    documents[np.arange(len(real)), np.arange(len(real))] += counts.sum(axis=1) == 0
    names = [str(i) for i in range(len(real))]
    reads = {names[i]: [names[j] for j in np.flatnonzero(documents[i])] for i in range(len(real))}
    reaching = reaching_real_data(reads, [names[i] for i in np.flatnonzero(real)])
    bounded = spectral_radius(Network.of(documents, real).shares) < 1 - 1e-9
    assert bounded == (reaching == set(names))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([[1, 2]], [1], 0), "a row and a column"),
        (([[0]], [0], 0), "must read at least one document"),
        (([[3]], [1], 1), "lab must be the row of a laboratory"),
        (([[3]], [1], 0, "full"), "covariance must be one of"),
        (([[3]], [1], 0, "unit", 1.0, 2), "must not be below the number of documents"),
        (([[1]], [0], 0, "unbiased"), "documents must be a finite number of at least 2"),
        (([[3]], [1], 0, "unit", 1.0, None, None, [1, 2]), "offsets must have one number"),
    ],
)
def test_impossible_networks_are_sentences(arguments, sentence):
    documents, real, lab, *rest = arguments
    with pytest.raises(DataError, match=sentence):
        network_mean_error(documents, real, lab, 2, *rest)


# In a world.


def small(**changes):
    scenario = validate.sized(Scenario.load(VALIDATION / "network_means.toml"), 3)
    return scenario.override({"steps": 4, "theory": []} | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.mark.slow
def test_a_laboratory_reads_its_shares_on_its_own_web(tmp_path):
    for _ in begin(small(), out=tmp_path, machine=Machine("cpu", 1)):
        pass
    run = Run.open(folder_of(small(), tmp_path))
    documents = run.documents.collect()
    ledger = run.ledger.collect().join(
        documents.select("doc", "site", "author", "t"), left_on="document", right_on="doc"
    )
    ledger = ledger.with_columns(
        population=pl.col("author").str.strip_prefix("writers/").str.split("/").list.first(),
        number=pl.col("reader").str.split("/").list.last().cast(pl.Int32),
    )
    assert (ledger["site"] == ledger["number"]).all()
    last = ledger.filter(pl.col("t") == 4, pl.col("reader").str.starts_with("north/"))
    assert dict(last.group_by("population").len().iter_rows()) == {"north": 18, "east": 54, "people": 18}
    first = ledger.filter(pl.col("t") == 1)
    assert first["population"].unique().to_list() == ["people"]


def test_an_author_with_too_little_is_read_whole_and_noted():
    world = World(small(trainers__east__publish=10), 1)
    for _ in range(2):
        world.step()
    events = world.snapshot().state["events"]
    assert "trainers.north.scrape.shares.east: 3 trainers asked for 54 documents and got 30" in str(events)
    ledger = world.snapshot().ledger
    assert ledger.filter(reader="north/0").height == 30 - 8


@pytest.mark.slow
def test_a_network_resumes_bit_for_bit(tmp_path):
    for name, steps in (("whole", (4,)), ("parts", (2, 4))):
        for last in steps:
            for _ in begin(small(steps=last), out=tmp_path / name, machine=Machine("cpu", 1)):
                pass
    whole, parts = (Run.open(folder_of(small(), tmp_path / name)) for name in ("whole", "parts"))
    assert [c.files for c in whole.store.commits()] == [c.files for c in parts.store.commits()]


TEXTS = {
    "name": "texts",
    "steps": 3,
    "sources": {"grammar": {"kind": "process"}},
    "web": {"kind": "complete", "sites": 4, "initial": {"source": "grammar", "documents": 200}},
    "models": {"counts": {"preset": "bigram"}},
    "writers": {"people": {"source": "grammar", "rate": 40.0}},
    "trainers": {
        "a": {"model": "counts", "publish": 30, "scrape": {"docs": 50, "shares": {"b": 0.6, "people": 0.4}}},
        "b": {"model": "counts", "publish": 30, "every": 9, "scrape": {"docs": 90, "shares": {"initial": 1.0}}},
    },
    "measure": {"domains": ["grammar", "b"], "synthetic": 5},
}


def test_any_family_can_be_read_by_shares():
    """Texts of n-grams: the share of people's documents in a training set is the one that is stated."""
    world = World(Scenario.parse(TEXTS), 1)
    for _ in range(2):
        world.step()
    metrics = world.snapshot().metrics
    shares = dict(metrics.filter(scope="training_set", metric="synthetic_share").select("id", "value").iter_rows())
    assert shares == pytest.approx({"a/0": 0.6})
    domains = metrics.filter(scope="domain")
    assert sorted(domains["id"]) == ["a/0/b", "a/0/grammar", "b/0/b", "b/0/grammar"]
    held_out = metrics.filter(scope="trainer", metric="cross_entropy", id="a/0")["value"].item()
    assert domains.filter(id="a/0/grammar")["value"].item() == pytest.approx(held_out)
    own, other = (domains.filter(id=f"{who}/0/b")["value"].item() for who in ("b", "a"))
    assert own < other  # b has not been fitted since it wrote, and nobody predicts its texts better


@pytest.mark.slow
def test_losses_on_domains_are_printed(tmp_path):
    scenario = Scenario.parse(TEXTS)
    for _ in begin(scenario, out=tmp_path, machine=Machine("cpu", 1)):
        pass
    result = CliRunner().invoke(main, [str(folder_of(scenario, tmp_path)), "--domains", "--step", "2"])
    head, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in result.output.splitlines()]
    assert head == ["population", "step", "grammar", "b"]
    metrics = Run.open(folder_of(scenario, tmp_path)).metrics.filter(scope="domain", step=2)
    value = {name: f"{value:.3f}" for name, value in metrics.select("id", "value").iter_rows()}
    assert rows == [[who, "2", value[f"{who}/0/grammar"], value[f"{who}/0/b"]] for who in ("a", "b")]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trainers__north__scrape__shares": {"north": 0.5}}, "the shares must add up to 1, but these add up to 0.5"),
        ({"trainers__north__scrape__shares": {"north": 0.5, "east": 0.500001}}, r"these add up to 1\.000001"),
        (
            {"trainers__north__scrape__shares": {"nort": 1.0}},
            r'nobody named "nort" publishes \(did you mean "north"\?\)',
        ),
        (
            {
                "writers__north": {"source": "truth", "count": 3, "sites": 1},
                "trainers__north__scrape__shares": {"north": 1.0},
            },
            "may mean trainers.north or writers.north",
        ),
        ({"trainers__north__count": 2}, "one agent of every population"),
        ({"web__sites": 2}, "2 sites are too few for parallel webs"),
        ({"measure__domains": ["truth", "truth"]}, "lists a domain twice"),
        ({"measure__domains": ["people"]}, "is neither a source nor a population of trainers"),
        ({"measure__domains": ["north"]}, "the unpublished documents of"),
        ({"measure__domains": ["truth"], "sources__truth__held_out": 0.0}, "scored on held-out documents"),
    ],
)
def test_mistakes_are_sentences(changes, sentence):
    with pytest.raises(ScenarioError, match=sentence):
        small(**changes)


def test_quotas_add_up_to_the_documents():
    scrape = small(trainers__north__scrape__docs=7).at(2).trainers["north"].scrape
    assert sum(scrape.quotas().values()) == 7 and set(scrape.quotas()) == set(scrape.shares)
    backwards = dict(reversed(scrape.shares.items()))
    assert scrape.model_copy(update={"shares": backwards}).quotas() == scrape.quotas()


def test_a_mean_alone_is_fitted():
    world = World(small(), 1)
    world.step()
    state = world.state.cohorts["own"].state()
    assert (state["covariance"] == np.eye(8)).all() and (state["mean"] != 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["network_means", "network_collapse", "network_symbols", "network_regression"])
def test_worlds_agree_with_the_laws(name):
    checks = validate.run_checks(VALIDATION / f"{name}.toml", seed=7, replicates=60)
    assert [c.name for c in checks if not c.passed] == []


@pytest.mark.slow
def test_a_graph_read_backwards_is_found(tmp_path):
    text = (VALIDATION / "network_collapse.toml").read_text()
    documents = [[5, 10, 0, 0], [0, 3, 0, 9], [6, 0, 10, 0], [0, 10, 0, 6]]
    assert str(documents) in text
    (tmp_path / "wrong.toml").write_text(text.replace(str(documents), str(np.array(documents).T.tolist())))
    failed = [c for c in validate.run_checks(tmp_path / "wrong.toml", seed=1, replicates=60) if not c.passed]
    assert len(failed) >= 3


# Who reaches real data.


def test_the_report_names_who_reaches_no_real_data():
    collapse = Scenario.load(VALIDATION / "network_collapse.toml")
    [sentence] = without_real_data(collapse, 12)
    assert sentence == (
        "At step 12, populations **east** and **west** reach no source of real data, neither directly nor through "
        "other laboratories; **north**, with access to real data, reads from them."
    )
    assert without_real_data(collapse, 1) == []  # all read people
    assert without_real_data(small(), 4) == []  # east has no real data, but reads south


def loop(**changes):
    scenario = Scenario.load(VALIDATION / "gaussian_replace.toml")
    return scenario.override({"theory": []} | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, ["unbiased", "biased"]),
        ({"policies__newest__keep_initial": True}, []),
        ({"policies__newest": {"kind": "accumulate"}}, []),
        ({"policies__newest": {"kind": "window", "steps": 5}}, ["unbiased", "biased"]),
        ({"policies__newest": {"kind": "window", "steps": 9}}, []),  # the opening leaves the web at step 9
        ({"trainers__biased__retain": []}, ["unbiased"]),  # its archive has documents of step 1
        (
            {
                "policies__fresh": {"kind": "inject_real", "source": "truth", "count": 3},
                "trainers__biased__select": ["fresh"],
            },
            ["unbiased"],
        ),
        (
            {
                "policies__none": {"kind": "inject_real", "source": "truth", "count": 0},
                "trainers__biased__select": ["none"],
            },
            ["unbiased", "biased"],
        ),
        # On islands, people live with the population of their name; a uniform scrape has no bounds.
        ({"web__kind": "islands", "writers__biased": {"source": "truth", "sites": 1}}, ["unbiased"]),
        (
            {
                "web__kind": "islands",
                "writers__biased": {"source": "truth", "sites": 1},
                "trainers__unbiased__scrape__strategy": "uniform",
            },
            [],
        ),
    ],
)
def test_only_what_is_certain_is_said(changes, known):
    reads, real = reading_graph(loop(**changes), 8)
    assert [name for name in reads if name not in reaching_real_data(reads, real)] == known


def test_laboratories_that_are_not_there_are_not_named_and_not_read():
    """South reads east, which reads people and closes at step 5; what it wrote leaves a web of 2 steps at step 6."""
    shares = {"north": {"north": 1.0}, "east": {"people": 1.0}, "south": {"east": 1.0}}
    closed = small(
        steps=8,
        changes=[{"at": 5, "set": {"trainers.east.active": False, "trainers.north.active": False}}],
        policies__newest={"kind": "window", "steps": 2},
        **{f"trainers__{name}__scrape__shares": share for name, share in shares.items()},
    )
    assert without_real_data(closed, 5) == []
    [sentence] = without_real_data(closed, 6)
    assert sentence.startswith("At step 6, population **south** reaches no source of real data")
    conditional = closed.override({"policies.newest.when": "web.depth > 3"})  # may never have been in force
    assert without_real_data(conditional, 6) == []


def test_people_who_have_stopped_may_still_be_read():
    scenario = loop(
        web__kind="islands",
        writers__biased={"source": "truth", "sites": 1, "rate": 5.0},
        policies__newest={"kind": "window", "steps": 3},
        changes=[{"at": 2, "set": {"web.retain": ["newest"]}}, {"at": 5, "set": {"writers.biased.rate": 0.0}}],
    )
    assert reading_graph(scenario, 6)[1] == {"biased"} and reading_graph(scenario, 7)[1] == set()
