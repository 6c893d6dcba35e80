"""Runs on a web that lives: what agents do on it, what is recorded and measured, resumes, branches, report and page."""

import re
import tomllib

import numpy as np
import polars as pl
import pytest

from ecosystem.app.charts import world_charts
from ecosystem.app.documents import entries
from ecosystem.app.worlds.run_view import RunView
from ecosystem.cli.show import published, traced
from ecosystem.errors import ScenarioError
from ecosystem.report.build import write_report
from ecosystem.runs.branch import Branch
from ecosystem.runs.execute import begin
from ecosystem.runs.planning.estimate import Plan
from ecosystem.runs.planning.growth import Growth
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.consistency import unused_settings
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.selection import Pools, sample
from ecosystem.simulation.world import World
from tests.conftest import MACHINE, ROOT

STEPS = 8
LEFT = ("left_page_died", "left_site_died", "left_curated", "left_filtered")


def living(**values) -> Scenario:
    """Categories on a web of two types, with every reason to leave; dotted paths set (``__`` stands for a dot)."""
    blog = {"births": 1.0, "site_life": {"law": "exponential", "half_life": 12.0}, "refuses": 0.2}
    data = {
        "name": "living",
        "steps": STEPS,
        "sources": {"people": {"kind": "categorical", "types": 20, "held_out": 50}},
        "web": {
            "sites": 30,
            "retain": ["old"],
            "initial": {"source": "people", "documents": 400, "age": {"law": "exponential", "mean": 5.0}},
            "types": {
                "press": {"share": 0.3, "births": 0.5, "page_life": {"law": "weibull", "scale": 20.0, "shape": 0.7}},
                "blog": {"share": 0.7, "page_life": {"law": "exponential", "half_life": 6.0}, **blog},
            },
            "links": {"births": 4.0},
        },
        "models": {"counts": {"kind": "categorical", "types": 20}},
        "policies": {"old": {"kind": "window", "steps": 6}},
        "writers": {
            "journalists": {"count": 4, "source": "people", "rate": 5.0, "site_type": "press"},
            "settlers": {"count": 4, "source": "people", "rate": 2.0, "sites": 2},
        },
        "trainers": {
            "labs": {"count": 2, "model": "counts", "publish": 15, "site_type": "blog", "scrape": {"docs": 100}}
        },
        "curators": {"editors": {"reviews": 15}, "fans": {"action": "endorse", "strength": 0.3, "reviews": 5}},
        "measure": {"synthetic": 0},
    }
    return Scenario.parse(data).override({path.replace("__", "."): value for path, value in values.items()})


def stepped(scenario: Scenario, steps: int = STEPS) -> World:
    world = World(scenario)
    for _ in range(steps):
        world.step()
    return world


def ran(scenario: Scenario, out, **more) -> Run:
    for _ in begin(scenario, out=out, machine=MACHINE, **more):
        pass
    return Run.open(folder_of(scenario, out))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return ran(living(), tmp_path_factory.mktemp("living"))


@pytest.fixture(scope="module")
def metrics(run) -> pl.DataFrame:
    return run.metrics.filter(pl.col("scope") == "site_type").pivot("metric", index=["step", "id"], values="value")


# Planning


def test_the_plan_counts_births_also_those_of_timed_changes(tmp_path):
    change = {"at": 5, "set": {"web.types.blog.births": 11.0}}  # at steps 5 to 8
    growing = living(changes=[change], web__degree=3)
    whole = Growth.of(growing, -1)
    assert (whole.sites, whole.links) == (8 * 0.5 + 4 * 1.0 + 4 * 11.0, 8 * 4.0)
    assert whole.edges == 3 * whole.sites + whole.links and whole.memory > whole.disk > 0
    assert Growth.of(growing, 6) == Growth(2 * 11.5, 8.0, 3 * 2 * 11.5 + 8.0)
    text = "30 initially, about 52 are born in the steps left, and about 32 links form between sites"
    plan = Plan.of(growing, MACHINE, tmp_path)
    assert f"  sites      {text}\n" in plan.text() and plan.plain()["growth"]["sites"] == 52
    born = np.count_nonzero(stepped(growing).web.population.born > 0)
    assert abs(born - whole.sites) < 4 * np.sqrt(whole.sites)  # a Poisson number


# Publishing


def test_documents_appear_on_living_sites_of_their_authors_type(run):
    world = stepped(living())
    sites, documents = world.web.population, world.corpus.index
    place = documents["site"].to_numpy()
    t = documents["t"].to_numpy()
    assert (sites.born[place] <= t).all()
    assert ((sites.died[place] == -1) | (sites.died[place] > t)).all()
    types = np.array(sites.names)[sites.type[place]]
    journalists = documents["author"].str.starts_with("writers/journalists").to_numpy()
    labs = documents["author"].str.starts_with("labs").to_numpy()
    settlers = documents["author"].str.starts_with("writers/settlers").to_numpy()
    assert set(types[journalists]) == {"press"} and set(types[labs]) == {"blog"}
    assert set(types[settlers]) == {"press", "blog"}
    born_later = sites.born[place] > 0
    assert (born_later & journalists).any() and (born_later & labs).any(), "new sites are written on too"
    assert not (born_later & settlers).any(), "homes are sites of the opening"


def test_documents_of_a_type_are_spread_evenly_over_its_living_sites():
    world = stepped(living(writers__journalists__rate=500.0, web__types__press__births=0.0), 1)
    of_writers = world.corpus.index.filter(pl.col("author").str.starts_with("writers/journalists"))
    counts = of_writers["site"].value_counts()["count"].to_numpy()
    press = world.web.population.living("press")
    mean = 2_000 / press.size
    assert counts.size == press.size and counts.sum() == 2_000
    statistic = ((counts - mean) ** 2 / mean).sum()  # chi-squared with one degree of freedom less than sites
    assert abs(statistic - (press.size - 1)) < 4 * np.sqrt(2 * (press.size - 1))


def test_writers_whose_homes_died_move_and_those_without_a_site_are_silent():
    dying = {"law": "exponential", "half_life": 0.3}
    world = World(living(web__types__press__site_life=dying, web__types__press__births=0.0))
    before = {writer.name: writer.homes for writer in world.writers}
    for _ in range(5):
        world.step()
    sites = world.web.population
    assert not sites.living("press").size
    for writer in world.writers:
        if writer.population == "settlers":
            assert sites.alive[writer.homes].all() and writer.homes.size == 2
    assert any((before[w.name] != w.homes).any() for w in world.writers if w.population == "settlers")
    last = world.corpus.index.filter(pl.col("t") == 5)
    assert not last["author"].str.starts_with("writers/journalists").any() and last.height


@pytest.mark.slow
def test_an_event_says_once_that_a_population_has_no_site_left(tmp_path):
    values = {"web__types__press__site_life": {"law": "exponential", "half_life": 0.3}, "web__types__press__births": 0}
    ran(living(**values, steps=6), tmp_path)
    run = ran(living(**values), tmp_path)  # resumed, when the last site has died
    said = [step for step, text in run.events if text.startswith("no site is left for 4 of writers.journalists: they")]
    assert len(said) == 1 and said[0] <= 6


def test_activity_is_a_factor_of_what_people_write_and_laboratories_publish():
    points = {"law": "points", "points": [[1, 1.0], [2, 0.25]]}
    world = stepped(living(writers__journalists__activity=points, trainers__labs__activity=points), 5)
    counts = {}
    for author, t in world.corpus.index.select("author", "t").iter_rows():
        counts[author.split("/")[-2] if "/" in author else author, t] = (
            counts.get((author.split("/")[-2] if "/" in author else author, t), 0) + 1
        )
    assert counts["journalists", 1] == 20
    later = [counts["journalists", t] for t in range(2, 6)]  # 4 writers, each 1 or 2: mean 1.25
    assert all(4 <= count <= 8 for count in later) and abs(sum(later) - 20) < 4 * np.sqrt(16 * 0.1875)
    labs = [counts["labs", t] for t in range(2, 6)]  # 2 laboratories, each 3 or 4: mean 3.75
    assert all(6 <= count <= 8 for count in labs) and abs(sum(labs) - 30) < 4 * np.sqrt(8 * 0.1875)


def test_activity_of_one_changes_nothing():
    plain, factor = stepped(living(), 3), stepped(living(writers__journalists__activity=1.0), 3)
    assert plain.corpus.index.equals(factor.corpus.index)


# Crawlers


@pytest.mark.parametrize("strategy", ["uniform", "recent", "reach", "popularity"])
def test_trainers_never_scrape_sites_that_refuse_unless_they_ignore_it(strategy):
    values = {"trainers__labs__scrape__strategy": strategy, "web__types__blog__refuses": 0.6}
    for robots in ("obey", "ignore", None):
        world = World(living(**values, **({} if robots is None else {"trainers__labs__scrape__robots": robots})))
        world.step()
        trainer = world.trainers[0]
        refusing = world.state.refusing()[world.corpus.array("site")[sample(world.state, trainer, Pools(world.state))]]
        assert 0.4 < world.state.refusing()[world.web.population.living("blog")].mean() < 0.8
        assert refusing.any() == (robots == "ignore")


def test_the_refused_share_is_that_of_live_documents(run, metrics):
    world = stepped(living())
    refusing, live = world.state.refusing(), world.corpus.live()
    share = refusing[live.array("site")].mean()
    web = run.metrics.filter((pl.col("scope") == "web") & (pl.col("metric") == "crawl_refused_share"))
    assert web.filter(pl.col("step") == STEPS)["value"].item() == pytest.approx(share) and share > 0
    last = metrics.filter(pl.col("step") == STEPS).sort("id")
    assert last["crawl_refused_share"].to_list()[1] == 0, "the press refuses no one"
    weighed = (last["crawl_refused_share"] * last["documents"]).sum() / last["documents"].sum()
    assert weighed == pytest.approx(share)


# Departures


def test_the_books_of_every_type_balance(metrics):
    for kind in ("press", "blog"):
        rows = metrics.filter(pl.col("id") == kind).sort("step")
        left = rows.select(pl.sum_horizontal(LEFT)).to_series()
        for name, grown, lost in (
            ("documents", rows["documents_published"], left),
            ("sites", rows["sites_born"], rows["sites_died"]),
        ):
            change = rows[name].diff().drop_nulls().to_list()
            assert change == (grown - lost).to_list()[1:]
    totals = metrics.select(pl.sum(*LEFT)).row(0)
    assert min(totals) > 0, f"every reason is at work: {totals}"


def test_every_departure_has_its_reason(run):
    documents = run.documents.collect()
    gone = documents.filter(pl.col("retired_at").is_not_null())
    assert gone["left_by"].null_count() == 0
    assert documents.filter(pl.col("retired_at").is_null())["left_by"].is_null().all()
    assert set(gone["left_by"]) == {"page died", "site died", "curators/editors/0", "old"}
    assert set(gone.filter(pl.col("left_by") == "old").select(pl.col("retired_at") - pl.col("t")).to_series()) == {6}
    world = stepped(living())
    sites = world.web.population
    by_site = gone.filter(pl.col("left_by") == "site died")
    assert (sites.died[by_site["site"].to_numpy()] == by_site["retired_at"].to_numpy()).all()
    ends = world.state.pages.ends(world.corpus, sites)
    by_page = gone.filter(pl.col("left_by") == "page died")
    assert (np.ceil(ends[by_page["doc"].to_numpy()]) == by_page["retired_at"].to_numpy()).all()
    for rows, sign in ((by_page, 1), (by_site, -1)):  # if both end in one step, the first is the reason
        assert (sign * (sites.ends[rows["site"].to_numpy()] - ends[rows["doc"].to_numpy()]) > 0).all()
    live = documents.filter(pl.col("retired_at").is_null() & pl.col("verdict").is_null())
    assert sites.alive[live["site"].to_numpy()].all() and (ends[live["doc"].to_numpy()] > STEPS).all()


def test_pages_of_a_world_survive_as_their_law_says():
    forever = {"web__retain": [], "curators": {}, "web__types__blog__site_life__half_life": 1e9}
    world = World(living(**forever, web__initial__documents=8_000, trainers__labs__publish=0))
    sites = world.web.population
    for t in range(1, 5):
        world.step()
        first = (world.corpus.array("t") == 0) & (sites.type[world.corpus.array("site")] == sites.names.index("blog"))
        expected, n = 2 ** (-t / 6.0), int(first.sum())
        alive = (world.corpus.array("retired_at")[first] == -1).mean()
        assert abs(alive - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


def test_show_lineage_and_page_say_why_a_document_left(run):
    gone = run.documents.filter(pl.col("left_by") == "site died").collect().row(0, named=True)
    line = f"retired at step {gone['retired_at']} (site died)"
    assert line in traced(run, gone["doc"], None, as_json=False)
    assert line in published(run, gone["t"], None, 10_000)
    view = RunView(run)
    row = view.documents.filter(pl.col("doc") == gone["doc"])
    assert f"left the web at step {gone['retired_at']}: site died" in entries(view, row)[0].facts


def test_other_runs_keep_their_files():
    web = {"sites": 30, "initial": {"source": "people", "documents": 40}, "retain": ["old"]}
    window = {"old": {"kind": "window", "steps": 1}}
    data = {**living().plain(), "web": web, "policies": window, "writers": {}, "trainers": {}}
    world = stepped(Scenario.parse(data), 1)
    assert world.snapshot().changes.height == 40
    assert "left_by" not in world.snapshot().changes.columns
    assert "site_type" not in world.snapshot().metrics["scope"]


# Resumes and branches


def files(run: Run) -> list:
    return [commit.files for commit in Store(run.path).commits()]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["popularity", "reach"])
def test_a_resumed_run_is_the_same_bit_for_bit(strategy, tmp_path):
    scenario = living(trainers__labs__scrape__strategy=strategy)
    whole = ran(scenario, tmp_path / "whole")
    ran(living(trainers__labs__scrape__strategy=strategy, steps=5), tmp_path / "parts")
    parts = ran(scenario, tmp_path / "parts")
    assert Run.open(parts.path).environment["resumed"]
    assert files(parts) == files(whole)
    assert len(whole.store.state(STEPS)["endorsements"]) > 2


@pytest.mark.slow
def test_a_branch_is_the_run_of_a_timed_change(run, tmp_path):
    values = {"web.types.blog.births": 6.0, "web.types.blog.refuses": 0.9, "web.links.births": 0.0}
    branch = Branch.of(run, 4, values)
    for _ in begin(branch.scenario, out=tmp_path, base=run.base, branch=branch):
        pass
    branched = Run.open(branch.folder(tmp_path))
    fresh = ran(living().forked(4, values), tmp_path / "fresh")
    assert branched.metrics.equals(fresh.metrics) and branched.documents.collect().equals(fresh.documents.collect())
    assert files(branched)[5:] == files(fresh)[5:]
    early = run.metrics.filter(pl.col("step") <= 4)
    assert branched.metrics.filter(pl.col("step") <= 4).equals(early)
    share = branched.metrics.filter((pl.col("id") == "blog") & (pl.col("metric") == "crawl_refused_share"))["value"]
    assert share[4] < 0.5 < share[5]


def test_lives_cannot_change_inside_a_run(run):
    with pytest.raises(ScenarioError, match=r'"web\.types\.blog\.page_life\.half_life" cannot change inside a run'):
        Branch.of(run, 4, {"web.types.blog.page_life.half_life": 2.0})
    with pytest.raises(ScenarioError, match=r'"writers\.journalists\.site_type" cannot change inside a run'):
        Branch.of(run, 4, {"writers.journalists.site_type": "blog"})


# Settings


def test_the_page_about_living_webs_shows_a_valid_scenario():
    [text] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "living-web.md").read_text(encoding="utf-8"), re.DOTALL)
    rest = {"name": "page", "steps": 36, "sources": {"people": {"kind": "categorical", "types": 9}}, "models": {}}
    scenario = Scenario.parse(tomllib.loads(text) | rest)
    press, blog = scenario.web.types["press"], scenario.web.types["blog"]
    assert press.page_life.scale == 31 * 12 and blog.page_life.half_life == 14.5 * 12 and press.births.at(3) == 2
    assert blog.births.at(0) == 4 and blog.births.at(36) == 1 and scenario.web.links.births.at(9) == 20
    assert scenario.web.initial.age.mean == 60 and press.refuses.at(0) == 0 < press.refuses.at(36) < 0.28
    weekly = scenario.override({"step": "1 week"})
    assert weekly.web.types["press"].page_life.scale == pytest.approx(31 * 365.25 / 7)
    assert weekly.web.types["press"].births.at(0) == pytest.approx(2 * 12 / (365.25 / 7))


def test_home_sites_and_types_of_sites_exclude_each_other():
    data = living().plain()
    assert "sites" not in data["writers"]["journalists"] and data["writers"]["settlers"]["sites"] == 2
    assert Scenario.parse(data).fingerprint() == living().fingerprint()
    data["writers"]["journalists"]["sites"] = 3
    with pytest.raises(ScenarioError, match=r"writers\.journalists\.sites: has no meaning with site_type"):
        Scenario.parse(data)
    moved = living(writers__settlers__site_type="blog")
    assert moved.writers["settlers"].site_type == "blog" and moved.value("writers.settlers.sites") is None
    with pytest.raises(ScenarioError, match=r"writers\.settlers\.sites: has no meaning with site_type"):
        living(writers__settlers__site_type="blog", writers__settlers__sites=4)
    with pytest.raises(ScenarioError, match=r"writers\.journalists\.sites: has no meaning with site_type"):
        living(writers__journalists__sites=4)


def test_a_type_that_the_web_does_not_have_is_refused():
    with pytest.raises(ScenarioError, match=r"trainers\.labs\.site_type: there is no \[web\.types\.blogs\] \(did you"):
        living(trainers__labs__site_type="blogs")
    with pytest.raises(ScenarioError, match=r"trainers\.labs\.site_type: .* the web has no types; add \[web\.types"):
        Scenario.parse({**living().plain(), "web": {"sites": 9}})
    with pytest.raises(ScenarioError, match='the name "a b" may only have'):
        living(web__types={"a b": {"share": 1.0, "page_life": {"law": "exponential", "half_life": 1.0}}})


def test_laboratories_on_different_sites_cannot_merge():
    other = {"count": 2, "model": "counts", "sites": 2}
    change = {"at": 3, "set": {"trainers.labs.merged_into": "others"}}
    data = living(trainers__others=other).plain()
    with pytest.raises(ScenarioError, match=r"labs and others publish on different sites"):
        Scenario.parse({**data, "changes": [change]})


def test_obeying_where_no_one_refuses_has_no_effect_and_is_said():
    plain = living(trainers__labs__scrape__robots="ignore", web__types__blog={"share": 0.7})
    assert "trainers.labs.scrape.robots has no effect: no site refuses crawlers (web.types.NAME.refuses)" in [
        *unused_settings(plain)
    ]
    assert not any("robots" in note for note in unused_settings(living(trainers__labs__scrape__robots="obey")))


# Report and page


@pytest.mark.slow
def test_the_report_shows_what_lives_and_what_left(run):
    write_report(run)
    page = (run.path / "report.html").read_text()
    for title in (
        "Documents by type of site",
        "What left the web",
        "Sites by type",
        "Documents that crawlers may not r",
    ):
        assert title in page
    drawn = run.metrics.filter((pl.col("scope") == "site_type") & (pl.col("metric") == "sites"))
    for step in (0, STEPS):
        count = int(drawn.filter(pl.col("step") == step)["value"].sum())
        assert f"{count} sites, " in page, "the maps have the sites that were alive"


def test_the_map_of_the_page_has_a_place_for_every_site_and_hides_the_unborn_and_the_dead(run):
    view = RunView(run)
    sites = stepped(living()).web.population
    assert view.places.height == len(sites)
    chart = world_charts.web(view)
    for step in (0, 3, STEPS):
        frame = chart.at(step)
        [nodes] = [table for table in frame.columns.values() if "documents" in table]
        [links] = [table for table in frame.columns.values() if "x2" in table]
        assert [x is not None for x in nodes["x"]] == sites.there(step).tolist()
        assert frame.below.startswith(f"{sites.there(step).sum()} sites, ")
        shown = np.array([x is not None for x in links["x"]])
        assert (shown == sites.there(step)[view.map.pairs].all(axis=1)).all() and shown.any()
        assert sum(nodes["documents"]) == view.live(step).height
        assert not any(n for n, x in zip(nodes["documents"], nodes["x"], strict=True) if x is None)
    assert view.map is view.map, "one layout for all steps"
