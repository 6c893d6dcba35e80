"""Instruments that observe the web with errors: their laws, whom they observe, and what they refuse."""

import re
import tomllib

import numpy as np
import polars as pl
import pytest

from ecosystem.cli.listing import listing
from ecosystem.errors import ScenarioError
from ecosystem.report.build import write_report
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.consistency import unused_settings
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.measurement.views import views
from ecosystem.simulation.world import World
from ecosystem.studies.spec.measure import Measure, course_of
from tests.conftest import MACHINE, ROOT
from tests.test_adoption import web_of_numbers
from tests.worlds import run_world

ADOPTION = {"share": 0.5, "ai_shares": [0.2, 0.8, 1.0], "mix": "blend"}
DETECTOR = {"false_positive_rate": 0.2, "false_negative_rate": 0.05}
MANY = 300  # instruments that differ in nothing but their noise
LAB = {"count": 2, "model": "normal", "sites": 1, "publish": 3, "scrape": {"docs": 50}}
TYPES = {
    "press": {"share": 0.5, "births": 1.5, "refuses": 0.5, "page_life": {"law": "exponential", "half_life": 3.0}},
    "blog": {"share": 0.5, "births": 0.5, "refuses": {"law": "points", "points": [[0, 0.0], [4, 0.6]]}},
}


def observed(instruments: dict, steps: int = 2, **scenario) -> World:
    """Return a web whose writers make half of their documents with AI, observed by ``instruments``."""
    return run_world(web_of_numbers(ADOPTION, instruments=instruments, **scenario), steps)


def living(instruments: dict, steps: int = 4) -> World:
    """Return the same on a web with two types of sites, births, deaths and refusals."""
    writers = {
        name: {"count": 3, "source": "left", "rate": 20.0, "site_type": name, "adoption": {**ADOPTION, "uses": "labs"}}
        for name in TYPES
    }
    web = {"sites": 20, "types": TYPES, "initial": {"source": "left", "documents": 100}}
    return run_world(web_of_numbers(web=web, writers=writers, instruments=instruments), steps)


def value(world: World, name: str, metric: str = "true_value") -> float:
    return world.measured["instrument", name, metric]


def spread_of(world: World, metric: str) -> tuple[float, float, float]:
    """Return mean and standard deviation of a metric over MANY instruments d0, d1, …, and their mean stated error."""
    rows = world.snapshot().metrics.filter((pl.col("metric") == metric) & pl.col("id").str.contains(r"^d\d+$"))
    assert rows.height == MANY
    return rows["value"].mean(), rows["value"].std(), rows["error"].mean()


def expected_flags(share: float) -> float:
    return share * (1 - DETECTOR["false_negative_rate"]) + (1 - share) * DETECTOR["false_positive_rate"]


def live_table(world: World) -> pl.DataFrame:
    return world.corpus.live().columns("doc", "t", "site", "ai_share", "weight")


# Laws.


@pytest.mark.parametrize(("population", "seen"), [("live", False), ("read", True)])
def test_flagged_shares_have_the_expected_value_and_the_stated_error(population, seen):
    """The mean of 300 instruments is within 4.5 standard errors of s(1 - FNR) + (1 - s)FPR; s itself is not.

    Their spread is that of the stated error within 4.5 of its own standard errors (1 / √(2 n)).
    """
    settings = {"observes": "flagged_share", "of": population, "sample": 40, **DETECTOR}
    world = observed({f"d{k}": settings for k in range(MANY)}, people={"rate": 200.0})
    table = live_table(world)
    weight = views(world.state) if seen else np.ones(table.height)
    share = float(np.average(table["ai_share"] > 0.5, weights=weight))
    assert value(world, "d0") == pytest.approx(share) and 0.15 < share < 0.4
    mean, deviation, error = spread_of(world, "flagged_share")
    expected = expected_flags(share)
    assert abs(mean - expected) < 4.5 * deviation / np.sqrt(MANY) < abs(mean - share)
    assert abs(deviation / error - 1) < 4.5 / np.sqrt(2 * MANY) + 0.02, "without correction for a finite web"


def test_flagged_shares_are_as_expected_over_seeds():
    """Of 40 webs, the mean difference to the expected value is within 4.5 standard errors, that to the share is not."""
    scenario = web_of_numbers(ADOPTION, instruments={"one": {"observes": "flagged_share", "of": "new", **DETECTOR}})
    flagged, shares = [], []
    for seed in range(40):
        world = World(scenario, seed)
        world.step()
        flagged.append(value(world, "one", "flagged_share"))
        shares.append(value(world, "one"))
    off = np.array(flagged) - [expected_flags(share) for share in shares]
    bound = 4.5 * off.std(ddof=1) / np.sqrt(40)
    assert np.std(shares) > 0.02 and abs(off.mean()) < bound < abs(np.mean(flagged) - np.mean(shares))


def test_estimates_of_the_share_of_ai_have_their_bias_and_error():
    """Bias and spread of 300 instruments are within 4.5 standard errors of the settings."""
    settings = {"observes": "ai_text_share", "bias": 0.1, "error": 0.05}
    world = observed({f"d{k}": settings for k in range(MANY)}, people={"rate": 200.0})
    truth = world.measured["web", "web", "synthetic_share"]
    mean, deviation, error = spread_of(world, "ai_text_share")
    assert value(world, "d0") == pytest.approx(truth)
    assert abs(mean - truth - 0.1) < 4.5 * 0.05 / np.sqrt(MANY)
    assert abs(deviation / 0.05 - 1) < 4.5 / np.sqrt(2 * MANY) and error > 0.05


def test_a_verdict_never_changes():
    """A web on which nothing happens after step 2 is flagged alike at every date, whatever other instruments are."""
    changes = [{"at": 3, "set": {"writers.press.rate": 0.0, "trainers.labs.publish": 0}}]
    detector = {"observes": "flagged_share", **DETECTOR}
    world = observed({"one": detector}, 2, changes=changes)
    before = value(world, "one", "flagged_share")
    for _ in range(2):
        world.step()
        assert value(world, "one", "flagged_share") == before
    both = observed({"another": detector, "one": detector}, 2, changes=changes)
    assert value(both, "one", "flagged_share") == before != value(both, "another", "flagged_share")


def test_flags_grow_with_the_share_under_common_random_numbers():
    detector = {"one": {"observes": "flagged_share", "of": "new", "window": 9, **DETECTOR}}
    flagged = [
        value(run_world(web_of_numbers({"share": s}, instruments=detector), 2), "one", "flagged_share")
        for s in (0.0, 0.2, 0.4, 0.8)
    ]
    assert flagged == sorted(flagged) and len(set(flagged)) == 4


# Whom they observe.


def test_true_values_are_those_of_the_populations():
    world = living(
        {
            name: {"observes": "flagged_share", "ai_share_above": 0.0} | settings
            for name, settings in {
                "live": {},
                "new": {"of": "new"},
                "months": {"of": "new", "window": "2 months"},
                "ever": {"of": "new", "window": 99},
                "crawl": {"of": "crawl"},
                "read": {"of": "read"},
                "press": {"site_types": ["press"]},
                "mostly": {"ai_share_above": 0.5},
            }.items()
        }
        | {"born": {"observes": "ai_text_share", "of": "new_sites", "window": "4 months"}}
    )
    sites, table = world.web.population, live_table(world)
    site, t, ai = table["site"].to_numpy(), table["t"].to_numpy(), table["ai_share"].to_numpy()
    refusing = sites.refusing(world.current_scenario.web.types, 4)[site]
    press = sites.type[site] == sites.names.index("press")
    assert 0 < refusing.mean() < 1 and 0 < press.mean() < 1
    assert value(world, "live") == pytest.approx((ai > 0).mean())
    assert value(world, "new") == pytest.approx((ai > 0)[t == 4].mean())
    assert value(world, "months") == pytest.approx((ai > 0)[t >= 3].mean())
    assert value(world, "ever") == pytest.approx((ai > 0)[t > 0].mean()) != pytest.approx((ai > 0).mean())
    assert value(world, "crawl") == pytest.approx((ai > 0)[~refusing].mean())
    assert value(world, "press") == pytest.approx((ai > 0)[press].mean())
    assert value(world, "mostly") == pytest.approx((ai > 0.5).mean())
    read = np.average(ai > 0, weights=views(world.state))
    assert value(world, "read") == pytest.approx(read) != (ai > 0).mean()
    every = world.corpus.table(["doc", "t", "site", "ai_share"])
    new = np.flatnonzero(sites.born > 0)
    pages = every.filter(pl.col("site").is_in(new.tolist())).sort("doc").group_by("site")
    first, last = pages.agg(pl.col("ai_share").first()), pages.agg(pl.col("ai_share").last())
    assert first.height > 2 and value(world, "born", "documents") == first.height
    assert value(world, "born") == pytest.approx(first["ai_share"].mean()) != pytest.approx(last["ai_share"].mean())


def test_readers_see_documents_of_popular_sites():
    world = living({})
    table, popularity = live_table(world), world.web.popularity()
    total = seen = 0.0
    for (site,), own in table.group_by("site"):
        own_views = popularity[site] / own.height * own["weight"].to_numpy()
        total, seen = total + own_views.sum(), seen + (own_views * own["ai_share"].to_numpy()).sum()
    assert world.measured["web", "web", "read_synthetic_share"] == pytest.approx(seen / total)
    shares = [world.measured["site_type", name, "read_synthetic_share"] for name in TYPES]
    assert min(shares) < seen / total < max(shares)


def test_dates_of_observations():
    detector = {"observes": "flagged_share", "from": "2022-07-15", "every": "2 months", "until": "2022-12-01"}
    scenario = web_of_numbers(ADOPTION, instruments={"one": detector}, steps=8)
    world, dates = World(scenario), []
    for t in range(1, 9):
        world.step()
        dates += [t] if ("instrument", "one", "flagged_share") in world.measured else []
    assert dates == [2, 4, 6], "from the first step after the date, each second month, up to the last date"


def test_posts_are_counted_relative_to_the_baseline():
    instruments = {
        "human": {"observes": "posts", "baseline": ["2022-06-01", "2022-08-01"], "ai_share_above": 0.0},
        "all": {"observes": "posts", "baseline": [1, 2], "false_negative_rate": 1.0},
    }
    changes = [{"at": 3, "set": {"writers.press.rate": 10.0, "trainers.labs.publish": 0}}]
    world = observed(instruments, 1, changes=changes, trainers={"labs": LAB | {"publish": 0}})
    assert ("instrument", "human", "posts") not in world.measured, "the baseline is not over"
    for _ in range(2):
        world.step()
    new = world.corpus.table(["t", "ai_share"]).filter(pl.col("t") > 0)
    human = [new.filter((pl.col("t") == t) & (pl.col("ai_share") == 0)).height for t in (1, 2, 3)]
    assert value(world, "human", "posts") == value(world, "human") == pytest.approx(2 * human[2] / sum(human[:2]))
    assert value(world, "all", "posts") == 30 / 120 < value(world, "all") * 1.5
    [error] = world.snapshot().metrics.filter(id="all", metric="posts")["error"]
    assert error == pytest.approx(0.25 * np.sqrt(1 / 30 + 1 / 240))


def test_pages_gone_are_those_that_left():
    """A window of two steps retires everything older, and the same pages are looked for at every date."""
    pages = {"observes": "pages_gone", "seen": [2, 3]}
    instruments = {"new": pages, "live": {**pages, "of": "live"}, "some": {**pages, "of": "live", "sample": 60}}
    policies = {"recent": {"kind": "window", "steps": 2}}
    web = {"sites": 12, "initial": {"source": "left", "documents": 60}, "retain": ["recent"]}
    world, gone = World(web_of_numbers(ADOPTION, web=web, policies=policies, instruments=instruments, steps=5)), {}
    for t in range(1, 6):
        world.step()
        gone[t] = [world.measured.get(("instrument", name, "pages_gone")) for name in instruments]
    assert gone[1] == gone[2] == [None] * 3
    # On the web at step 2 or 3 are 126 pages of each of the steps 1 to 3; those of step 1 leave at step 3.
    assert gone[3][:2] == [0.0, pytest.approx(1 / 3)] and gone[4][:2] == [0.5, pytest.approx(2 / 3)]
    assert gone[5][:2] == [1.0, 1.0] and value(world, "live", "documents") == 378
    assert gone[5][2] == 1.0 and abs(gone[3][2] - 1 / 3) < 4.5 * np.sqrt(2 / 9 / 60)


def test_the_same_pages_are_looked_for_at_every_date():
    """After step 3, nothing leaves the web any more."""
    pages = {"observes": "pages_gone", "seen": [2, 3], "of": "live", "sample": 60}
    world = observed(
        {"some": pages},
        3,
        policies={"recent": {"kind": "window", "steps": 2}},
        web={"sites": 12, "initial": {"source": "left", "documents": 60}, "retain": ["recent"]},
        changes=[{"at": 4, "set": {"web.retain": []}}],
    )
    gone = value(world, "some", "pages_gone")
    for _ in range(3):
        world.step()
        assert value(world, "some", "pages_gone") == gone != value(world, "some")


@pytest.mark.parametrize("gate", ["select", "publish"])
def test_the_ratio_kept_is_that_of_the_documents_at_the_gate(gate):
    policies = {
        "some": {"kind": "sample", "count": 90},
        "doubtful": {"kind": "synthetic_detector", "true_positive_rate": 0.6, "false_positive_rate": 0.2},
    }
    names = ["some", "doubtful"] if gate == "select" else ["doubtful"]
    web = {"sites": 12, "initial": {"source": "left", "documents": 60}}
    trainers = {"labs": {**LAB, "count": 1, "scrape": {"docs": 120}, "select": names if gate == "select" else []}}
    ratio = {"observes": "synthetic_kept_ratio", "policy": "doubtful", "ai_share_above": 0.0}
    instruments = {"exact": ratio, "blind": {**ratio, "false_positive_rate": 0.5, "false_negative_rate": 0.5}}
    world = observed(
        instruments,
        2,
        policies=policies,
        web=web | ({"publish": names} if gate == "publish" else {}),
        trainers=trainers,
    )
    reader = "labs/0" if gate == "select" else "web"
    kept, refused = (
        {of: world.measured["policy", f"{reader}/doubtful", f"{verdict}_{of}"] for of in ("human", "synthetic")}
        for verdict in ("kept", "refused")
    )
    share = {of: kept[of] / (kept[of] + refused[of]) for of in kept}
    assert value(world, "exact", "synthetic_kept_ratio") == pytest.approx(share["synthetic"] / share["human"])
    assert value(world, "exact") == value(world, "blind") == value(world, "exact", "synthetic_kept_ratio") < 0.8
    [error] = world.snapshot().metrics.filter(id="blind", metric="synthetic_kept_ratio")["error"]
    assert abs(value(world, "blind", "synthetic_kept_ratio") - 1) < 4.5 * error < 4.5 * 0.4


# Settings, lists and reports.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observes": "share"}, "observes"),
        ({"bias": 0.1}, "bias: has no meaning for flagged_share, only for ai_text_share"),
        ({"observes": "ai_text_share", "false_positive_rate": 0.1}, "false_positive_rate: has no meaning for"),
        ({"window": 2}, 'set of = "new"'),
        ({"observes": "posts"}, "baseline: is required"),
        ({"observes": "posts", "baseline": [0, 0]}, "baseline: has no step after the opening"),
        ({"observes": "posts", "baseline": [3, 2]}, "first date comes after its last"),
        ({"observes": "pages_gone", "seen": [1, 2], "of": "read"}, "pages that were seen are new or live"),
        ({"observes": "synthetic_kept_ratio"}, "policy: is required"),
        ({"observes": "synthetic_kept_ratio", "policy": "x"}, r"there is no \[policies.x\]"),
        ({"observes": "synthetic_kept_ratio", "policy": "idle"}, "at no gate whose verdicts are recorded"),
        ({"observes": "synthetic_kept_ratio", "policy": "weigh"}, "keeps all; name a filter"),
        ({"of": "new_sites"}, "set web.types, or observe others"),
        ({"site_types": ["press"]}, r'no type "press"; defined in \[web.types\]: none'),
        ({"site_types": []}, "site_types: needs at least 1 entry"),
        ({"from": 3, "until": 2}, "until: comes before from"),
        ({"from": "2022-06-31"}, "no date of the calendar"),
        ({"every": "10 days"}, "every"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message):
    policies = {"idle": {"kind": "sample", "count": 9}, "weigh": {"kind": "importance"}}
    if settings.get("policy") == "weigh":
        policies["weigh"] = {"kind": "origin_weight", "real_share": 0.5}
    else:
        del policies["weigh"]
    with pytest.raises(ScenarioError, match=message):
        web_of_numbers(ADOPTION, policies=policies, instruments={"one": {"observes": "flagged_share"} | settings})


def test_errors_of_an_instrument_may_change_in_time():
    changes = [{"at": 2, "set": {"instruments.one.false_negative_rate": 1.0}}]
    world = observed({"one": {"observes": "flagged_share"}}, 1, changes=changes)
    assert value(world, "one", "flagged_share") == value(world, "one") > 0
    world.step()
    assert value(world, "one", "flagged_share") == 0.0 < value(world, "one")


def test_instruments_measure_without_changing_the_web():
    bare, seen = observed({}), observed({"one": {"observes": "flagged_share", "sample": 9}})
    assert bare.corpus.table(["doc", "site", "ai_share"]).equals(seen.corpus.table(["doc", "site", "ai_share"]))
    assert bare.base_scenario.fingerprint() != seen.base_scenario.fingerprint()


@pytest.mark.parametrize(
    ("settings", "never"),
    [
        ({"observes": "flagged_share", "from": 4}, False),
        ({"observes": "flagged_share", "from": 5}, True),
        ({"observes": "posts", "baseline": [1, 4]}, False),
        ({"observes": "posts", "baseline": [1, 5]}, True),
        ({"observes": "pages_gone", "seen": [0, 4]}, False),
        ({"observes": "pages_gone", "seen": [0, 5]}, True),
        ({"observes": "pages_gone", "seen": [-3, 0]}, True),  # documents of the opening are never new
        ({"observes": "pages_gone", "seen": [-3, 0], "of": "live"}, False),
        ({"observes": "pages_gone", "seen": [1, 3], "every": 5}, True),  # at the opening only
    ],
)
def test_an_instrument_that_never_observes_is_noted(settings, never):
    web = web_of_numbers(ADOPTION, instruments={"one": settings}, steps=4)
    assert any("instruments.one never observes anything" in note for note in unused_settings(web)) == never


def test_the_example_of_the_docs_is_valid():
    [text] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "observing.md").read_text(encoding="utf-8"), re.DOTALL)
    shown = tomllib.loads(text)
    plain = web_of_numbers(web={"sites": 20, "types": TYPES, "initial": {"source": "left", "documents": 100}}).plain()
    plain["writers"]["press"]["adoption"] = shown["writers"]["press"]["adoption"]
    instruments = Scenario.parse(plain | {"instruments": shown["instruments"], "steps": 24}).instruments
    assert [t for t in range(24) if instruments["articles"].observes_at(t)] == [6, 9, 12, 15, 18, 21]
    assert instruments["articles"].window == 12 and instruments["pages"].seen == [0, pytest.approx(6 + 30 / 31)]


def test_the_list_of_entries_has_instruments():
    assert "[instruments.NAME]" in listing("entries", False) and "[writers.NAME] adoption" in listing("entries", False)


def test_measures_of_studies_name_instruments_and_types_of_sites():
    world = living({"one": {"observes": "flagged_share"}}, 2)
    metrics = world.snapshot().metrics
    for of, metric, known in (
        ("instruments.one", "flagged_share", value(world, "one", "flagged_share")),
        ("web.types.blog", "read_synthetic_share", world.measured["site_type", "blog", "read_synthetic_share"]),
    ):
        measure = Measure(metric=metric, of=of)
        assert measure.mismatch(world.base_scenario) == "" and course_of(metrics, measure).rows() == [(2, known)]
    wrong = Measure(metric="flagged_share", of="instruments.two").mismatch(world.base_scenario)
    assert "there is no [instruments.two]" in wrong and "instruments.one" in wrong and "web.types.press" in wrong


@pytest.mark.slow
def test_a_report_shows_instruments_beside_the_truth(tmp_path):
    instruments = {"graphite": {"observes": "flagged_share", "of": "new", "sample": 50, **DETECTOR}}
    scenario = web_of_numbers(ADOPTION, instruments=instruments)
    for _ in begin(scenario, out=tmp_path, machine=MACHINE):
        pass
    page = write_report(Run.open(folder_of(scenario, tmp_path))).read_text()
    assert "What instruments see" in page and "graphite: share flagged as machine text" in page
    assert "new documents; sample of 50; false positives 0.2; false negatives 0.05" in page
    assert "Machine text that readers see" in page and "true value" in page
