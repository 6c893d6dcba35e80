"""Laws of the world: luck that stays with its owner, a ledger that adds up, and agents that do what they say."""

import gc
import weakref

import mesa
import numpy as np
import polars as pl
import pytest

from ecosystem.errors import DataError, ScenarioError
from ecosystem.runs.execute import begin
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.agents import Curator, Trainer, Writer
from ecosystem.simulation.selection import Pools, sample
from ecosystem.simulation.step import human_drafts
from ecosystem.simulation.world import World
from tests.conftest import MACHINE, ROOT, tiny


def world_of(scenario, cache, seed=1) -> World:
    return World(scenario, seed, cache=cache, threads=MACHINE.threads)


@pytest.fixture(scope="module")
def stepped(cache) -> World:
    world = world_of(tiny(), cache)
    world.step()
    world.step()
    return world


@pytest.mark.slow
def test_the_world_is_a_mesa_model(stepped):
    assert {kind: len(agents) for kind, agents in stepped.agents_by_type.items()} == {Writer: 2, Curator: 1, Trainer: 3}
    assert stepped.running and stepped.t == 2


def test_a_world_that_is_no_longer_used_leaves_the_memory(cache):
    world = weakref.ref(
        world_of(Scenario.load(ROOT / "scenarios/papers/kazdan_regimes.toml").override({"steps": 1}), cache)
    )
    gc.collect()
    assert world() is None


@pytest.mark.slow
def test_adding_a_population_leaves_everybody_elses_luck(cache):
    data = tiny().plain()
    more = data | {"trainers": data["trainers"] | {"extra": data["trainers"]["naive"]}}
    small, large = world_of(tiny(), cache), world_of(Scenario.parse(more), cache)
    small.step()
    large.step()

    def written(world):
        segment = world.snapshot().segment.filter(~pl.col("author").str.starts_with("extra"))
        return segment.select("author", "site", "content").rows()

    assert written(small) == written(large)
    assert {t.name: t.homes.tolist() for t in small.trainers}.items() <= {
        t.name: t.homes.tolist() for t in large.trainers
    }.items()


@pytest.mark.slow
def test_a_change_that_changes_nothing_leaves_everything(cache):
    same = tiny(changes=[{"at": 1, "set": {"trainers.naive.publish": 12, "policies.short.min_words": 3}}])
    worlds = [world_of(s, cache) for s in (tiny(changes=[]), same)]
    for world in worlds:
        world.step()
    a, b = (world.snapshot() for world in worlds)
    assert a.segment.equals(b.segment) and a.ledger.equals(b.ledger) and a.metrics.equals(b.metrics)
    for name, array in a.weights["tiny"].items():
        assert np.array_equal(array, b.weights["tiny"][name])


@pytest.mark.slow
def test_the_ledger_adds_up(finished):
    ledger, documents = finished.ledger.collect(), finished.documents.collect()
    web = ledger.filter(pl.col("source").is_null()).join(documents, left_on="document", right_on="doc", how="left")
    assert web["t"].is_not_null().all()
    assert (web["t"] <= web["step"]).all(), "nobody reads what is not yet written"
    gone = web.filter(pl.col("retired_at").is_not_null())
    assert (gone["retired_at"] > gone["step"]).all(), "nobody reads what has left the web"
    assert (web["synthetic"] == web["synthetic_right"]).all() and (web["depth"] == web["depth_right"]).all()
    injected = ledger.filter(pl.col("source").is_not_null())
    assert set(injected["reader"]) == {"careful/0"} and not injected["synthetic"].any()


def test_measured_shares_are_those_of_the_tables(finished):
    metrics = finished.metrics.filter((pl.col("step") == 3) & (pl.col("metric") == "synthetic_share"))
    live = finished.documents.collect().filter(pl.col("retired_at").is_null() & pl.col("verdict").is_null())
    assert metrics.filter(pl.col("scope") == "web")["value"].item() == pytest.approx(live["synthetic"].mean())
    naive = finished.ledger.collect().filter((pl.col("step") == 3) & (pl.col("reader") == "naive/0"))
    measured = metrics.filter((pl.col("scope") == "training_set") & (pl.col("id") == "naive/0"))["value"].item()
    assert measured == pytest.approx(naive.filter(pl.col("verdict").is_null())["synthetic"].mean())


def test_depth_is_one_more_than_the_mean_of_what_the_author_was_trained_on(finished):
    documents = finished.documents.collect()
    ledger = finished.ledger.collect().filter((pl.col("reader") == "naive/0") & pl.col("verdict").is_null())
    assert documents.filter(~pl.col("synthetic"))["depth"].unique().to_list() == [0.0]
    for step in (1, 2, 3):
        depth = documents.filter((pl.col("author") == "naive/0") & (pl.col("t") == step))["depth"].unique().item()
        trained = ledger.filter(pl.col("step") == step - 1)["depth"].mean() if step > 1 else 0.0
        assert depth == pytest.approx(1 + trained)


@pytest.mark.slow
def test_a_dry_source_is_an_event_and_not_the_end(tmp_path, cache):
    (tmp_path / "few.txt").write_text("\n\n".join(f"sentence number {i} of a small source" for i in range(60)))
    source = {"kind": "text", "path": str(tmp_path / "few.txt"), "held_out": 5}
    data = tiny().plain() | {"sources": {"language": source}}
    data["web"] = data["web"] | {"initial": {"source": "language", "documents": 40}}
    world = world_of(Scenario.parse(data), cache)
    for _ in range(3):
        world.step()
    assert world.state.drawn["language"] == 55
    events = world.snapshot().state["events"]
    assert any('the source "language" ran dry' in event for event in events)


def test_a_trainer_whose_every_candidate_was_refused_keeps_its_model(cache):
    world = world_of(tiny(policies__short__min_words=10_000, trainers__careful__select=["short"]), cache)
    world.step()
    [event] = [e for e in world.snapshot().state["events"] if "careful/0" in e]
    assert "nothing to train on: all 30 candidates were refused (30 by short); it keeps its model" in event
    careful = next(t for t in world.trainers if t.name == "careful/0")
    start = world_of(tiny(), cache).cohorts["tiny"].state()
    for name, array in world.state.cohorts["tiny"].state().items():
        assert np.array_equal(array[careful.member], start[name][careful.member])


def scraped(world, **how):
    """How often each live document is scraped over many independent steps."""
    trainer = world.trainers[0]
    recipe = trainer.settings.model_copy(update={"scrape": trainer.settings.scrape.model_copy(update=how)})
    world.state.scenario = world.spec.model_copy(update={"trainers": world.spec.trainers | {"naive": recipe}})
    return trainer


def counts_over_steps(world, trainer, steps=400):
    """Documents drawn one at a time, at many steps."""
    now = world.t
    drawn = []
    for t in range(now, now + steps):
        world.state.t = t
        drawn.append(sample(world.state, trainer, Pools(world.state)).item())
    world.state.t = now
    return np.bincount(drawn, minlength=len(world.corpus))


def test_scraping_is_in_proportion_to_prominence(cache):
    world = world_of(tiny(), cache)
    docs = pl.Series(world.corpus.live().doc)
    world.corpus.retire(docs[4:], 0, "a policy")
    world.corpus.reweigh(docs[:4], pl.Series([0.0, 1.0, 1.0, 2.0]))
    trainer = scraped(world, docs=1, strategy="uniform")
    found = counts_over_steps(world, trainer)[:4]
    n, p = found.sum(), np.array([0, 0.25, 0.25, 0.5])
    # Within 4 standard errors of a multinomial; a document of weight 0 is never drawn.
    assert (np.abs(found - n * p) <= 4 * np.sqrt(n * p * (1 - p))).all()


def test_recent_documents_are_likelier_by_their_half_life(cache):
    world = world_of(tiny(), cache)
    world.state.t = 4
    world.corpus.retire(pl.Series(world.corpus.live().doc[1:]), 0, "a policy")
    new = human_drafts(pl.Series(["new"]), "language", np.array([0]), "a", np.array([0]))
    world.corpus.publish(world.corpus.prepare(new, 4))
    trainer = scraped(world, docs=1, strategy="recent", half_life=2.0)
    now = world.t
    draws = []
    for i in range(400):
        world.state.streams = type(world.state.streams)(i)  # another seed, since age must stay the same
        draws.append(sample(world.state, trainer, Pools(world.state)).item())
    assert world.t == now
    share = np.mean(np.array(draws) > 0)
    assert abs(share - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 400)  # 4 steps are two half-lives: 1 to 4


def test_reach_stays_within_its_links(cache):
    world = world_of(tiny(), cache)
    trainer = scraped(world, docs=10_000, strategy="reach", links=0)
    assert set(world.corpus.rows(sample(world.state, trainer, Pools(world.state)))["site"]) == set(
        trainer.homes.tolist()
    )


@pytest.mark.slow
def test_lag_hides_what_is_new(stepped):
    trainer = stepped.trainers[0]
    recipe = trainer.settings.model_copy(update={"lag": 2})
    before, stepped.state.scenario = (
        stepped.spec,
        stepped.spec.model_copy(update={"trainers": stepped.spec.trainers | {"naive": recipe}}),
    )
    assert stepped.corpus.rows(sample(stepped.state, trainer, Pools(stepped.state)))["t"].unique().to_list() == [0]
    stepped.state.scenario = before


def test_curators_err_at_their_rates(cache):
    world = world_of(tiny(curators__editors__reviews=100_000), cache)
    n = 20_000
    documents = pl.DataFrame({"doc": np.arange(n), "site": [int(world.curators[0].homes[0])] * n}).with_columns(
        synthetic=pl.col("doc") % 2 == 0
    )
    judged = world.curators[0].review(documents)
    assert judged.height == n
    for synthetic, rate in ((True, 0.8), (False, 0.05)):
        suspect = judged.filter(pl.col("synthetic") == synthetic)["suspect"]
        assert abs(suspect.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / suspect.len())


@pytest.mark.slow
@pytest.mark.parametrize("action", ["remove", "down_weight", "endorse"])
def test_what_curators_do(action, cache):
    scenario = tiny(
        curators__editors__action=action,
        curators__editors__reviews=500,
        curators__editors__sites=12,
        curators__editors__strength=0.5,
    )
    world = world_of(scenario, cache)
    world.step()
    documents = world.corpus.index
    if action == "remove":
        gone = documents.filter(pl.col("retired_at").is_not_null())
        assert gone["synthetic"].mean() > 0.5 and not world.web.endorsements()
    elif action == "down_weight":
        assert documents["retired_at"].is_null().all()
        assert set(documents["weight"]) == {0.5, 1.0}
    else:
        assert (documents["weight"] == 1.0).all() and world.web.endorsements()


def test_a_fit_is_taken_back_by_a_factor(cache):
    """Both worlds begin alike, so that their second fits are equal but for what is made of them."""

    def weights(recovery):
        change = [{"at": 2, "set": {"trainers.naive.recovery": recovery}}]
        world = world_of(tiny().override({"changes": change}), cache)
        states = []
        for _ in range(2):
            world.step()
            states.append({name: np.array(values) for name, values in world.snapshot().weights["tiny"].items()})
        return states

    (before, plain), (_, back) = weights(-1.0), weights(0.5)
    naive = [t.member for t in world_of(tiny(), cache).trainers if t.population == "naive"]
    careful = [t.member for t in world_of(tiny(), cache).trainers if t.population == "careful"]
    for name in plain:
        expected = before[name][naive] - 0.5 * (plain[name][naive] - before[name][naive])
        assert np.allclose(back[name][naive], expected, atol=1e-6) and back[name].dtype == plain[name].dtype
        assert np.array_equal(back[name][careful], plain[name][careful])
    assert any(not np.allclose(back[name], plain[name], atol=1e-3) for name in plain)


def test_recovery_where_it_has_no_meaning_is_refused():
    with pytest.raises(ScenarioError, match='recovery: goes back from a fit to the last model; set from = "previous"'):
        tiny(trainers__naive__recovery=0.5, trainers__naive__from="scratch")
    ngrams = {"kind": "ngram", "order": 2, "vocabulary": 300, "context": 24}
    with pytest.raises(ScenarioError, match="cannot be taken back by a factor"):
        tiny(trainers__naive__recovery=0.5, models__tiny=ngrams)


def test_writers_write_less_as_they_read_more_machine_text(cache):
    world = world_of(tiny(writers__people__rate=10.0, writers__people__reaction=1.0), cache)
    writer = world.writers[0]
    assert writer.documents_to_write(0.0) == 10 and writer.documents_to_write(1.0) == 0
    assert writer.documents_to_write(0.5) == 5
    assert writer.documents_to_write(0.55) in (4, 5)


def test_every_and_offset_say_when_a_trainer_fits(cache):
    world = world_of(tiny(trainers__naive__every=2, trainers__naive__offset=1), cache)
    trainer, fits = world.trainers[0], []
    for t in range(1, 7):
        world.state.t = t
        fits.append(trainer.wants_to_fit)
    assert fits == [False, True, False, True, False, True]


@pytest.mark.slow
def test_a_model_that_was_never_trained_publishes_nothing(cache):
    data = tiny(models__tiny__init="random", trainers__careful__publish=0).plain()
    world = world_of(Scenario.parse(data), cache)
    world.step()
    assert not world.snapshot().segment["synthetic"].any()
    world.step()
    assert world.snapshot().segment["synthetic"].any()


def test_a_failed_step_leaves_the_world_stopped(cache, monkeypatch):
    world = world_of(tiny(), cache)
    monkeypatch.setattr(world.state.cohorts["tiny"], "generate", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        world.step()
    assert not world.running


def test_a_loss_that_is_not_finite_names_trainer_and_step(cache):
    from ecosystem.errors import TrainingError

    world = world_of(tiny(trainers__careful__learning_rate=1e30, trainers__careful__budget__tokens=20_000), cache)
    with pytest.raises(TrainingError, match=r"step 1, careful/0: .*(loss|learning rate)"):
        world.step()


def test_a_model_that_diverged_in_its_last_update_is_not_committed(cache):
    from ecosystem.errors import TrainingError

    world = world_of(tiny(trainers__careful__learning_rate=1e30), cache)  # one update, whose loss was still finite
    with pytest.raises(TrainingError, match=r"step 1, careful/0: .*diverged.*learning_rate"):
        world.step()
    assert world.snapshot().t == 0


@pytest.mark.slow
def test_a_stored_model_opens_in_transformers_and_is_the_one_that_was_trained(finished, cache):
    import torch

    model = finished.model("naive/1", step=2)
    ids = model.tokenizer("lo mi ra", return_tensors="pt").input_ids
    assert type(model).__name__ == "GPT2LMHeadModel"
    loaded, tokenizer = finished.load_model("naive/1", step=2)
    assert torch.equal(tokenizer("lo mi ra", return_tensors="pt").input_ids, ids) and not hasattr(loaded, "tokenizer")
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    with torch.no_grad():
        before, after = (finished.model("naive/1", step=s)(ids).logits for s in (1, 2))
        assert torch.equal(model(ids).logits, after) and not torch.equal(before, after)


@pytest.mark.parametrize("name", ["web.graphml", "web.gexf"])
def test_the_site_graph_is_left_for_other_tools(name, finished):
    import networkx as nx

    read = nx.read_graphml if name.endswith("graphml") else nx.read_gexf
    graph = read(finished.path / name)
    live = finished.documents.collect().filter(pl.col("retired_at").is_null() & pl.col("verdict").is_null())
    assert sum(graph.nodes[n]["documents"] for n in graph) == live.height
    total = sum(graph.nodes[n]["documents"] * graph.nodes[n]["synthetic_share"] for n in graph)
    assert total == pytest.approx(live["synthetic"].sum())


@pytest.mark.parametrize("model", [{"kind": "gaussian", "covariance": "maximum_likelihood"}, {"kind": "kde"}])
def test_models_cannot_be_measured_against_a_single_document(tmp_path, model):
    """The covariance of one document is not a number, and the distance from it ended in an error of linear algebra."""
    data = {
        "name": "single",
        "steps": 1,
        "sources": {"s": {"kind": "digits"}},
        "web": {"kind": "complete", "sites": 3, "initial": {"source": "s", "documents": 1}},
        "models": {"m": model},
        "trainers": {"t": {"model": "m", "sites": 1}},
    }
    with pytest.raises(DataError, match=r"^web\.initial\.documents = 1: .* at least 2; raise it\.$"):
        list(begin(Scenario.parse(data), out=tmp_path))


def test_batch_run_varies_the_seed_that_it_is_given():
    scenario = Scenario.load(ROOT / "tests/baseline/scenarios/categories.toml")
    parameters = {"scenario": [scenario], "seed": [1, 2, 1]}
    rows = mesa.batch_run(World, parameters, number_processes=1, max_steps=1, display_progress=False)
    first, second, again = (row["entropy"] for row in rows)
    assert first == again != second
