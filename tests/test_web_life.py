"""The life of a web against its laws: lives of pages and sites, births, refusal of crawlers, and the growth of links.

Tolerances are in standard errors (SE). A law is checked at 4 SE unless the test says otherwise, so that a correct
program fails one check in 16,000.
"""

import warnings
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from pydantic import ValidationError

from ecosystem.corpus.life.growth import Attachment, poisson
from ecosystem.corpus.life.pages import PageLives
from ecosystem.corpus.life.popularity import page_rank
from ecosystem.corpus.life.sites import Sites
from ecosystem.corpus.life.spec import AgeSpec, LifeSpec, SiteType
from ecosystem.corpus.web import Web, WebSpec
from ecosystem.streams import Streams

WEIBULL = {"law": "weibull", "scale": 31.0, "shape": 0.67}
HALVING = {"law": "exponential", "half_life": 14.5}
INITIAL = {"source": "s", "documents": 5}
PAPER = {"press": {"share": 0.25}, "blog": {"share": 0.75}}


def grown(steps: int = 0, seed: int = 1, **fields) -> Web:
    """A web with one type of sites, after some steps."""
    spec = WebSpec.model_validate({"sites": 40, "types": {"all": {"share": 1.0}}, **fields})
    web = Web(spec, Streams(seed), Path())
    for t in range(1, steps + 1):
        web.advance(t, spec)
    return web


def survival(law: dict, age: float) -> float:
    if law["law"] == "exponential":
        return 2 ** (-age / law["half_life"])
    return float(np.exp(-((age / law["scale"]) ** law["shape"])))


class Published:
    """A corpus of which only what lives need is there: ``n`` documents at each of some steps, all on site 0."""

    def __init__(self, n: int, steps: range) -> None:
        self._arrays = {"t": np.repeat(np.array(steps), n), "site": np.zeros(n * len(steps), np.int64)}

    def __len__(self) -> int:
        return self._arrays["t"].size

    def array(self, name: str):
        return self._arrays[name]


# Lives


@pytest.mark.parametrize("law", [WEIBULL, HALVING])
@pytest.mark.parametrize("step", [1.0, 1 / 12])
def test_pages_survive_as_their_law_says_whatever_the_length_of_a_step(law, step):
    n = 20_000
    scaled = {key: value / step if key in ("scale", "half_life") else value for key, value in law.items()}
    types = {"all": SiteType.model_validate({"share": 1.0, "page_life": scaled})}
    ends = PageLives(types, None, Streams(3)).ends(Published(n, range(3)), Sites(types, 1, Streams(3)))
    for born in range(3):
        for age in (1, 10, 40):  # in years; the first year is where shapes differ most
            expected = survival(law, age)
            alive = (ends[born * n : (born + 1) * n] > born + age / step).mean()
            assert abs(alive - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


def test_old_pages_are_conditioned_on_having_survived_until_the_opening():
    n = 20_000
    types = {"all": SiteType.model_validate({"share": 1.0, "page_life": WEIBULL})}
    sites = Sites(types, 1, Streams(4))
    lives = PageLives(types, AgeSpec(law="exponential", mean=5.0), Streams(4))
    ends = lives.ends(Published(n, range(2)), sites)
    ages = AgeSpec(law="exponential", mean=5.0).ages(Streams(4).at("web/initial/age").uniform(np.arange(n)))
    assert abs(ages.mean() - 5.0) < 4 * 5.0 / np.sqrt(n)
    for later in (1, 10):
        each = np.array([survival(WEIBULL, a + later) / survival(WEIBULL, a) for a in ages])
        error = np.sqrt((each * (1 - each)).sum()) / n
        assert abs((ends[:n] > later).mean() - each.mean()) < 4 * error
        new = survival(WEIBULL, later)
        assert each.mean() - new > 10 * error, "with shape < 1 the old last longer, so the test can tell them from new"
        assert abs((ends[n:] > 1 + later).mean() - new) < 4 * np.sqrt(new * (1 - new) / n), "later pages are new"


def test_one_age_for_all_and_pages_without_a_law():
    types = {"all": SiteType.model_validate({"share": 1.0, "page_life": HALVING})}
    n, sites = 5_000, Sites(types, 1, Streams(5))
    old = PageLives(types, AgeSpec.model_validate(7.0), Streams(5)).ends(Published(n, range(1)), sites)
    new = PageLives(types, None, Streams(5)).ends(Published(n, range(1)), sites)
    assert np.allclose(old, new), "an exponential life has no memory"
    forever = {"all": SiteType(share=1.0)}
    assert np.isinf(PageLives(forever, None, Streams(5)).ends(Published(9, range(1)), sites)).all()


def test_extreme_lives_end_at_once_or_never():
    uniform, age = np.array([1e-9, 0.5, 1 - 1e-9]), np.array([0.0, 5.0, 60.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = LifeSpec(law="weibull", scale=1e-9, shape=100.0).remaining(uniform, age)
        long = LifeSpec(law="weibull", scale=1e308, shape=1e-9).remaining(uniform, age)
    assert (short < 1e-8).all() and np.isinf(long[0])


def test_new_links_are_the_first_arrivals():
    types = {"all": SiteType.model_validate({"share": 1.0})}
    sites = Sites(types, 500, Streams(9))
    links = [(a, b) for a in range(500) for b in (0, a // 2) if a != b]
    attachment = Attachment(sites, links, Streams(9))
    for site, degree in ((1, 3), (3, 3), (4, 3), (400, 1), (499, 5)):
        appeal = attachment.appeal()[:site]
        arrival = -np.log(Streams(9).at(f"web/sites/{site}/links").uniform(np.arange(site))) / appeal
        assert attachment.choose(site, degree).tolist() == np.argsort(arrival, kind="stable")[:degree].tolist()


def test_lives_are_keyed_by_document_and_do_not_depend_on_when_they_are_asked_for():
    types = {"all": SiteType.model_validate({"share": 1.0, "page_life": WEIBULL})}
    sites, little_by_little = Sites(types, 1, Streams(6)), PageLives(types, AgeSpec.model_validate(2), Streams(6))
    for steps in (1, 2, 4):
        parts = little_by_little.ends(Published(50, range(steps)), sites)
    assert (parts == PageLives(types, AgeSpec.model_validate(2), Streams(6)).ends(Published(50, range(4)), sites)).all()


def test_sites_die_as_their_law_says_and_take_no_place_again():
    web = grown(12, sites=4_000, degree=1, types={"all": {"share": 1.0, "site_life": {**HALVING, "half_life": 9.0}}})
    sites = web.population
    for t in (1, 6, 12):
        expected = survival({**HALVING, "half_life": 9.0}, t)
        assert abs(sites.there(t).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / 4_000)
    assert len(sites) == web.sites == 4_000 and (sites.died[sites.alive] == -1).all()
    assert ((sites.died == np.ceil(sites.ends)) | sites.alive).all()


def test_sites_that_are_born_live_from_their_birth():
    life = {**HALVING, "half_life": 9.0}
    types = {"all": SiteType.model_validate({"share": 1.0, "site_life": life})}
    sites, n = Sites(types, 1, Streams(8)), 4_000
    new = sites.add(types, np.zeros(n, np.int64), 20)
    for age in (1, 6):
        expected = survival(life, age)
        assert abs((sites.ends[new] > 20 + age).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


# Types and refusal


def test_types_have_their_shares_exactly_and_at_random():
    sites = Sites({n: SiteType.model_validate(t) for n, t in PAPER.items()}, 40, Streams(1))
    assert sites.names == ["blog", "press"] and sites.type.sum() == 10
    assert not (sites.type[:10] == sites.type[0]).all(), "not the first sites, which have the most links"
    other = Sites({n: SiteType.model_validate(t) for n, t in reversed(PAPER.items())}, 40, Streams(1))
    assert (other.type == sites.type).all(), "the order in a file has no effect"
    rounded = {n: SiteType(share=1 / 3) for n in "abc"}
    assert np.bincount(Sites(rounded, 10, Streams(1)).type).tolist() in ([3, 4, 3], [4, 3, 3], [3, 3, 4])


def test_a_share_of_sites_refuses_and_more_only_join_them():
    curve = {"law": "points", "points": [[0, 0.05], [10, 0.45]]}
    types = {"all": SiteType.model_validate({"share": 1.0, "refuses": curve})}
    sites, before = Sites(types, 4_000, Streams(2)), np.zeros(4_000, bool)
    for t, share in ((0, 0.05), (5, 0.25), (10, 0.45)):
        refusing = sites.refusing(types, t)
        assert abs(refusing.mean() - share) < 4 * np.sqrt(share * (1 - share) / 4_000)
        assert not (before & ~refusing).any()
        before = refusing
    assert not sites.refusing({"all": SiteType(share=1.0)}, 5).any()


# Births


def test_births_are_poisson_numbers_and_follow_their_curve():
    steps, mean = 400, 2.5
    numbers = np.array([poisson(mean, Streams(1).at("births", t)) for t in range(steps)])
    assert abs(numbers.mean() - mean) < 4 * np.sqrt(mean / steps)
    fourth = mean + 3 * mean**2  # fourth central moment
    assert abs(numbers.var(ddof=1) - mean) < 4 * np.sqrt((fourth - mean**2) / steps)
    more = [poisson(2 * mean, Streams(1).at("births", t)) for t in range(steps)]
    assert (more >= numbers).all(), "common random numbers: a higher mean gives no fewer"
    assert poisson(0.0, Streams(1).at("births")) == 0
    assert abs(poisson(1e6, Streams(1).at("births")) - 1e6) < 4_000


def test_sites_are_born_by_type_and_old_ones_keep_their_numbers():
    births = {"law": "points", "points": [[10, 0.0], [11, 4.0]]}
    types = {"press": {"share": 0.25, "births": 1.5}, "blog": {"share": 0.75, "births": births}}
    web = grown(60, types=types)
    sites = web.population
    assert (sites.born[:40] == 0).all() and (np.diff(sites.born) >= 0).all()
    blog, press = (np.bincount(sites.born[40:][sites.type[40:] == kind], minlength=61) for kind in (0, 1))
    assert blog[:11].sum() == 0, "none before the curve rises"
    assert abs(blog[11:].sum() - 4.0 * 50) < 4 * np.sqrt(4.0 * 50)
    assert abs(press.sum() - 1.5 * 60) < 4 * np.sqrt(1.5 * 60)
    early, noise = grown(5, types=types).population, grown(60, types=types | {"blog": {"share": 0.75}}).population
    assert (early.type == sites.type[: len(early)]).all() and (early.ends == sites.ends[: len(early)]).all()
    same = types | {"blog": {"share": 0.75}}
    refusing = {n: SiteType.model_validate({**t, "refuses": 0.5}) for n, t in same.items()}
    fewer = noise.refusing(refusing, 0)
    assert (fewer == sites.refusing(refusing, 0)[: fewer.size]).all(), "the noise of a site is keyed by its number"


# Links


@pytest.mark.slow
def test_new_sites_link_to_popular_ones_as_barabasi_and_albert_say():
    links, born = 2, 3_000
    web = grown(1, sites=3, degree=links, kind="complete", types={"all": {"share": 1.0, "births": float(born)}})
    degree = np.bincount([b for _, b, _ in web.links()], minlength=web.sites)
    n = web.sites
    assert (np.bincount([a for a, _, _ in web.links()], minlength=n) == degree).all(), "undirected: both directions"
    for least in (4, 10, 20):
        # P(K >= k) = m (m + 1) / (k (k + 1)); uniform attachment would give (m / (m + 1))^(k - m).
        expected = links * (links + 1) / (least * (least + 1))
        error = np.sqrt(expected * (1 - expected) / n)
        assert abs((degree >= least).mean() - expected) < 4 * error
    assert abs((degree >= 20).mean() - (2 / 3) ** 18) > 4 * np.sqrt(expected / n), "the test can tell the two apart"
    assert degree.max() > 10 * np.median(degree)


def test_links_that_form_lead_to_popular_living_sites():
    web = grown(0, sites=200, types={"all": {"share": 1.0}}, links={"births": 50.0})
    spec = WebSpec.model_validate({"sites": 200, "types": {"all": {"share": 1.0}}, "links": {"births": 50.0}})
    before = {(a, b) for a, b, _ in web.links()}
    popular = np.bincount([b for _, b in before], minlength=200)
    for t in (1, 2, 3):
        web.advance(t, spec)
    new = {(a, b) for a, b, _ in web.links()} - before
    assert abs(len(new) / 2 - 150) < 4 * np.sqrt(150) and all((b, a) in new for a, b in new)
    gained = np.bincount([b for _, b in new], minlength=200)
    top = np.argsort(popular)[-20:]
    # Half of the ends are uniform (10 %), half in proportion to links.
    share = 0.5 * 0.1 + 0.5 * popular[top].sum() / popular.sum()
    assert abs(gained[top].sum() / gained.sum() - share) < 4 * np.sqrt(share * (1 - share) / gained.sum()) + 0.02
    assert share > 0.18, "against 10 % if all ends were uniform"


def test_a_full_graph_gets_no_more_links_and_nothing_links_to_the_dead():
    assert len(grown(5, kind="complete", sites=5, links={"births": 20.0}).links()) == 20
    dying = {"all": {"share": 1.0, "births": 5.0, "site_life": {"law": "exponential", "half_life": 5.0}}}
    web = grown(30, types=dying, links={"births": 10.0})
    sites = web.population
    for a, b, _ in web.links():
        first = max(sites.born[a], sites.born[b])
        assert all(sites.died[x] == -1 or sites.died[x] > first for x in (a, b))
    assert (~sites.alive).sum() > 40


def test_a_directed_graph_gets_links_in_one_direction(tmp_path):
    nx.write_graphml_xml(nx.DiGraph([(0, 1), (1, 2), (2, 0)]), tmp_path / "web.graphml")
    spec = {"kind": "file", "path": str(tmp_path / "web.graphml"), "sites": None, "degree": 2}
    web = grown(3, **spec, types={"all": {"share": 1.0, "births": 20.0}})
    new = [(a, b) for a, b, _ in web.links() if a >= 3]
    assert len(new) == 2 * (web.sites - 3) and all(a > b for a, b in new)


# What a web with births and deaths means to those who read it


def test_dead_sites_have_no_popularity_reach_or_endorsements():
    dying = {"all": {"share": 1.0, "births": 3.0, "site_life": {"law": "exponential", "half_life": 6.0}}}
    web = grown(10, types=dying)
    alive = web.population.alive
    rank = web.popularity()
    assert (rank[~alive] == 0).all() and rank.sum() == pytest.approx(1)
    living = nx.DiGraph()
    living.add_nodes_from(np.flatnonzero(alive).tolist())
    living.add_weighted_edges_from((a, b, w) for a, b, w in web.links() if alive[a] and alive[b])
    expected = nx.pagerank(living, alpha=0.85, max_iter=1000, tol=1e-10)
    assert rank[alive] == pytest.approx([expected[site] for site in living], abs=1e-9)
    home = int(np.flatnonzero(alive)[0])
    assert alive[web.reach([home], 50)].all()
    dead = int(np.flatnonzero(~alive)[0])
    links = web.links()
    web.endorse(home, dead, 5.0)
    web.endorse(dead, home, 5.0)
    assert web.links() == links and web.endorsements() == []


def test_page_rank_is_that_of_networkx_with_weights_and_sites_without_links():
    links = [(0, 1, 2.0), (1, 2, 1.0), (3, 1, 0.5), (0, 3, 1.0)]  # 2 links nowhere, 4 is alone
    graph = nx.DiGraph()
    graph.add_nodes_from(range(5))
    graph.add_weighted_edges_from(links)
    expected = nx.pagerank(graph, alpha=0.85, max_iter=1000, tol=1e-10)
    rank = page_rank(links, np.ones(5, bool))
    assert rank == pytest.approx([expected[site] for site in range(5)], abs=1e-9)
    assert (page_rank(links[::-1], np.ones(5, bool)) == rank).all(), "bit for bit in any order of the links"


def test_an_endorsement_outlives_a_restore_also_where_a_link_forms_later():
    types = {"all": {"share": 1.0, "births": 2.0, "site_life": {"law": "exponential", "half_life": 8.0}}}
    spec = WebSpec.model_validate({"sites": 40, "types": types, "links": {"births": 30.0}})
    web = Web(spec, Streams(1), Path())
    for t in range(1, 9):
        if t in (2, 5):
            living = web.population.living().tolist()
            for a, b in zip(living, living[7:], strict=False):
                web.endorse(a, b, 0.3)
        web.advance(t, spec)
    again = Web(spec, Streams(1), Path())
    for t in range(1, 9):
        again.advance(t, spec)
    again.restore(web.endorsements())
    assert again.links() == web.links() and again.endorsements() == web.endorsements()
    assert any(not web.is_living(b) for _, b, _ in web.endorsements()), "some endorsed sites have died"
    assert (again.popularity() == web.popularity()).all()


def test_homes_that_died_are_replaced_by_others_of_the_opening():
    dying = {"all": {"share": 1.0, "births": 3.0, "site_life": {"law": "exponential", "half_life": 6.0}}}
    first, later = grown(0, types=dying), grown(6, types=dying)
    before, after = first.homes("writers/people/0", 8), later.homes("writers/people/0", 8)
    alive = later.population.alive
    assert alive[after].all() and after.size == 8 and (after < 40).all()
    assert set(before[alive[before]]) <= set(after) and not alive[before].all()


def test_an_export_tells_types_births_and_deaths(tmp_path):
    dying = {"all": {"share": 1.0, "births": 3.0, "site_life": {"law": "exponential", "half_life": 6.0}}}
    web = grown(6, types=dying)
    for name, read in (("web.graphml", nx.read_graphml), ("web.gexf", nx.read_gexf)):
        web.export(tmp_path / name, {"documents": np.arange(web.sites)})
        nodes = read(tmp_path / name).nodes
        assert len(nodes) == web.sites
        for site, node in enumerate(nodes.values()):
            assert node["type"] == "all" and node["born"] == web.population.born[site]
            assert node.get("died", -1) == web.population.died[site]


# What a file may say


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"types": {"a": {"share": 0.5}, "b": {"share": 0.4}}}, "types: the shares of all types must add up to 1, but"),
        ({"types": {"a": {"share": 1.0}, "b": {}}}, "types.b: never has a site; set its share"),
        ({"types": {"a": {"share": 0.999}, "b": {"share": 0.001}}}, "types.b.share: 0.001 of 40 sites is none"),
        ({"types": {"a": {"share": 1.0}}, "kind": "isolated"}, 'types: sites of kind = "isolated" are dealt to agents'),
        ({"types": None, "links": {"births": 2.0}}, "links: form on a web with types only"),
        ({"types": None, "initial": {"source": "s", "documents": 5, "age": 2.0}}, "initial.age: counts for pages that"),
        ({"initial": {"source": "s", "documents": 5, "age": 2.0}}, "initial.age: counts for pages that die only"),
        ({"types": {"a": {"share": 1.0, "page_life": {"law": "weibull", "scale": 3.0}}}}, "shape: is required"),
        ({"types": {"a": {"share": 1.0, "page_life": {**HALVING, "shape": 2.0}}}}, "shape: has no meaning for law"),
        ({"types": {"a": {"share": 1.0, "page_life": {"law": "exponential", "half_life": 0.0}}}}, "greater than 0"),
        ({"types": {"a": {"share": 1.0, "refuses": 1.5}}}, "must be at most 1, not 1.5"),
        ({"types": {"a": {"share": 1.0, "births": 1e9}}}, "must be at most 10000, not 1e+09"),
        ({"initial": {"source": "s", "documents": 5, "age": [2.0]}}, "must be a duration, such as 6 or"),
        ({"initial": {"source": "s", "documents": 5, "age": {"law": "exponential"}}}, "give a duration, or { law ="),
        ({"initial": {"source": "s", "documents": 5, "age": "6 months"}}, '"6 months" needs a calendar'),
    ],
)
def test_what_makes_no_sense_is_refused(fields, sentence):
    with pytest.raises(ValidationError) as error:
        WebSpec.model_validate({"sites": 40, "types": {"all": {"share": 1.0}}, **fields})
    assert sentence in str(error.value)


def test_a_life_needs_what_its_law_needs():
    assert LifeSpec.model_validate(WEIBULL).plain() == WEIBULL
    assert LifeSpec.model_validate(HALVING).plain() == HALVING
    assert WebSpec.model_validate(
        {"sites": 9, "types": {"a": {"share": 1.0, "page_life": HALVING}}, "initial": INITIAL | {"age": 6}}
    ).plain()["initial"] == INITIAL | {"age": 6.0}
