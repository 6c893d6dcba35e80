"""The graph of sites: laws of reach, popularity, endorsement and restoring; files in and out; what can be wrong."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from pydantic import ValidationError

from ecosystem.corpus.web import Web, WebSpec
from ecosystem.errors import DataError, EcosystemError, StoreError
from ecosystem.report.panels.site_map import layout
from ecosystem.spec import explain
from ecosystem.streams import Streams

KINDS = [
    {"kind": "barabasi_albert", "sites": 40, "degree": 2},
    {"kind": "watts_strogatz", "sites": 40, "degree": 4, "rewire": 0.2},
    {"kind": "complete", "sites": 12},
]


def web(seed=1, base=Path(), **fields) -> Web:
    return Web(WebSpec(**(fields or KINDS[0])), Streams(seed), base)


def drawn(graph: Web) -> np.ndarray:
    """Where the sites of a web are drawn, shape [sites, 2]."""
    links = nx.Graph((a, b) for a, b, _ in graph.links())
    links.add_nodes_from(range(graph.sites))
    return layout(links)


# Laws.


@pytest.mark.parametrize("fields", KINDS)
def test_a_web_is_a_function_of_spec_and_seed(fields):
    one, two = web(**fields), web(**fields)
    assert one.links() == two.links() and one.sites == fields["sites"]
    assert (drawn(one) == drawn(two)).all() and (one.popularity() == two.popularity()).all()
    assert one.labels() == [str(site) for site in range(one.sites)]
    if fields["kind"] != "complete":
        assert web(seed=2, **fields).links() != one.links()


@pytest.mark.parametrize("fields", KINDS)
def test_every_link_runs_both_ways_with_weight_one(fields):
    links = {(a, b): weight for a, b, weight in web(**fields).links()}
    assert links and all(links[b, a] == weight == 1.0 and a != b for (a, b), weight in links.items())


@pytest.mark.parametrize("fields", KINDS)
def test_reach_grows_with_links_until_everything_connected_is_reached(fields):
    graph = web(**fields)
    homes = graph.homes("trainers/a/0", 2)
    assert graph.reach(homes, 0).tolist() == sorted(homes)
    before: set[int] = set()
    for links in range(12):
        now = set(graph.reach(homes, links).tolist())
        assert before <= now
        before = now
    assert before == set(range(graph.sites))


def test_reach_follows_the_shortest_paths_and_ignores_weights():
    graph = web()
    plain = nx.DiGraph([(a, b) for a, b, _ in graph.links()])
    for links in (1, 2, 3):
        assert graph.reach([5], links).tolist() == sorted(
            site for site, far in nx.single_source_shortest_path_length(plain, 5).items() if far <= links
        )
    near = graph.reach([5], 1).tolist()
    graph.endorse(5, near[-1] if near[-1] != 5 else near[0], 1000.0)
    assert graph.reach([5], 1).tolist() == near


def test_what_reach_and_popularity_return_is_the_callers_own():
    graph = web()
    graph.reach([1], 1)[:] = -1
    graph.popularity()[:] = -1
    assert graph.reach([1], 1).min() >= 0 and graph.popularity().min() > 0


def test_homes_are_different_sites_and_an_agent_keeps_them():
    graph = web()
    assert len(set(graph.homes("a", 40).tolist())) == 40
    assert graph.homes("a", 3).tolist() == graph.homes("a", 10)[:3].tolist() == web().homes("a", 3).tolist()
    assert graph.homes("a", 10).tolist() != graph.homes("b", 10).tolist()
    assert len(graph.homes("a", 1000)) == 40  # no more than there are
    assert graph.homes("a", 1).dtype == np.int64


@pytest.mark.parametrize("fields", KINDS)
def test_popularity_sums_to_one_and_rises_with_endorsement(fields):
    graph = web(**fields)
    before = graph.popularity()
    assert before.sum() == pytest.approx(1.0) and (before > 0).all()
    graph.endorse(0, 7, 3.0)
    after = graph.popularity()
    assert after.sum() == pytest.approx(1.0) and after[7] > before[7]


def test_an_endorsement_makes_a_link_where_there_was_none_in_one_direction():
    graph = web()
    there = {(a, b) for a, b, _ in graph.links()}
    a, b = next((a, b) for a in range(40) for b in range(40) if a != b and (a, b) not in there)
    assert b not in graph.reach([a], 1)
    graph.endorse(a, b, 0.5)
    graph.endorse(a, b, 0.25)
    assert b in graph.reach([a], 1) and a not in graph.reach([b], 1)
    assert graph.endorsements() == [(a, b, 0.75)]
    assert (a, b, 0.75) in graph.links()


def test_a_site_cannot_endorse_itself():
    graph = web()
    before = graph.popularity()
    graph.endorse(3, 3, 10.0)
    assert graph.endorsements() == [] and (graph.popularity() == before).all()


def test_a_restored_web_equals_the_one_that_was_saved_bit_for_bit():
    graph, links = web(), [(0, 9, 0.1), (9, 0, 0.7), (2, 30, 0.3), (0, 9, 0.2), (31, 2, 1e-3)]
    for link in links:
        graph.endorse(*link)
    saved = graph.endorsements()
    fresh, used = web(), web()
    used.endorse(17, 23, 5.0)
    used.endorse(0, 9, 5.0)
    for other in (fresh, used):
        other.restore(saved)
        assert other.endorsements() == saved and other.links() == graph.links()
        assert (other.popularity() == graph.popularity()).all()
        assert all((other.reach([s], 1) == graph.reach([s], 1)).all() for s in range(40))
    fresh.restore([])
    assert fresh.links() == web().links() and (fresh.popularity() == web().popularity()).all()


@pytest.mark.parametrize("sites", [1, 2])
def test_the_smallest_webs_work(sites):
    graph = web(kind="complete", sites=sites)
    assert graph.popularity() == pytest.approx([1 / sites] * sites)
    assert drawn(graph).shape == (sites, 2) and graph.reach([0], 1).tolist() == list(range(sites))


def test_two_thousand_sites_are_no_trouble():
    graph = web(kind="barabasi_albert", sites=2000, degree=3)
    assert graph.popularity().argmax() in range(20)  # the oldest sites have the most links
    assert len(graph.reach(graph.homes("a", 3), 3)) > 500


# Files in and out.


@pytest.mark.parametrize("suffix", [".graphml", ".gexf"])
def test_an_exported_web_reads_back_with_its_attributes(tmp_path, suffix):
    graph = web()
    graph.endorse(4, 11, 0.5)
    share = np.linspace(0, 1, 40)
    file = tmp_path / f"web{suffix}"
    graph.export(file, {"synthetic_share": share, "documents": np.arange(40), "curated": share > 0.5})
    read = nx.read_graphml(file, node_type=int) if suffix == ".graphml" else nx.read_gexf(file, node_type=int)
    assert sorted((a, b, w) for a, b, w in read.edges(data="weight")) == graph.links()
    for site, node in read.nodes(data=True):
        assert node["synthetic_share"] == pytest.approx(share[site]) and node["documents"] == site
        assert node["curated"] == bool(share[site] > 0.5) and node["label"] == str(site)
    assert read.edges[4, 11]["endorsed"] == 0.5


def test_an_exported_web_can_be_the_next_web(tmp_path):
    graph = web()
    graph.endorse(4, 11, 0.5)
    graph.export(tmp_path / "web.graphml", {"synthetic_share": np.full(40, np.nan)})
    again = web(kind="file", path="web.graphml", base=tmp_path)
    assert again.links() == graph.links() and again.endorsements() == []


def test_an_edge_list_keeps_its_names_and_order(tmp_path):
    (tmp_path / "web.txt").write_text(
        "# my web\nnews, blog 2\nblog news\n\nforum\nnews forum 0.5 # comment\nblog blog\n"
    )
    (tmp_path / "w.csv").write_text("\ufeffnews,blog\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        (tmp_path / "bad.txt").write_text("a b\nnews blog 2 3")
        web(kind="file", path="bad.txt", base=tmp_path)
    graph = web(kind="file", path="web.txt", base=tmp_path)
    assert graph.labels() == ["news", "blog", "forum"]
    assert graph.links() == [(0, 1, 3.0), (0, 2, 0.5), (1, 0, 3.0), (2, 0, 0.5)]
    assert web(kind="file", path="w.csv", base=tmp_path).labels() == ["news", "blog"]


def test_a_directed_graphml_stays_directed_and_labels_are_kept(tmp_path):
    graph = nx.DiGraph()
    graph.add_node("z", label="The Times")
    graph.add_edge("z", "a", weight=2.5)
    nx.write_graphml_xml(graph, tmp_path / "g.graphml")
    found = web(kind="file", path=str(tmp_path / "g.graphml"))
    assert found.labels() == ["The Times", "a"] and found.links() == [(0, 1, 2.5)]


BAD_GRAPHS = [
    ("no.graphml", None, r'no such file.*did you mean "ok\.graphml"'),
    ("folder", None, r"is a folder; give a GraphML file or an edge list"),
    ("e.graphml", b"", r"is empty"),
    ("e.graphml", b"<graphml><node", r"is not a GraphML file"),
    ("e.graphml", b"<html></html>", r"is not a GraphML file"),
    ("e.graphml", b"\xff\xfe nonsense", r"is not a GraphML file"),
    (
        "e.graphml",
        b'<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed"/></graphml>',
        r"contains no sites",
    ),
    ("e.txt", b"", r"contains no sites"),
    ("e.txt", b"# only a comment\n\n", r"contains no sites"),
    ("e.txt", b"a b c d\n", r"line 1 has 4 entries"),
    ("e.txt", b"a b\na c heavy\n", r"line 2: the weight must be a number above 0, not 'heavy'"),
    ("e.txt", b"a b -1\n", r"line 1: the weight must be a number above 0, not '-1'"),
    ("e.txt", b"caf\xe9 b\n", r"is not UTF-8"),
]


@pytest.mark.parametrize(("path", "content", "sentence"), BAD_GRAPHS)
def test_everything_wrong_with_a_graph_file_is_one_sentence(tmp_path, monkeypatch, path, content, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "ok.graphml").write_text("fine")
    if content is not None:
        (tmp_path / path).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as error:
        web(kind="file", path=path)
    message = str(error.value)
    assert message.startswith("web.path: ") and path in message and message.endswith(".") and "\n" not in message


def test_an_export_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(StoreError, match=r"cannot be written: No such file or directory; choose another place\.$"):
        web().export(tmp_path / "nowhere" / "web.graphml")
    with pytest.raises(DataError, match=r"web\.png: unknown format \.png; .* \.graphml or \.gexf\.$"):
        web().export(tmp_path / "web.png")
    with pytest.raises(DataError, match=r'the attribute "share" has 3 values for 40 sites\.$'):
        web().export(tmp_path / "web.gexf", {"share": np.zeros(3)})


@pytest.mark.parametrize("call", [(40, 0, 1.0), (-1, 0, 1.0), (0, 1, 0.0), (0, 1, float("nan"))])
def test_a_wrong_endorsement_is_refused(call):
    graph = web()
    with pytest.raises(EcosystemError):
        graph.endorse(*call)
    with pytest.raises(EcosystemError):
        graph.restore([call])
    with pytest.raises(DataError, match="site 99; the sites of this web are 0 to 39"):
        graph.reach([99], 1)


# The spec.


def test_a_spec_is_plain_data_and_back():
    spec = WebSpec(kind="watts_strogatz", sites=30, degree=4, initial={"source": "docs", "documents": 10})
    plain = spec.plain()
    assert plain["kind"] == "watts_strogatz" and plain["initial"] == {"source": "docs", "documents": 10}
    assert "path" not in plain and WebSpec(**plain) == spec


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"kind": "barabasi"},
            'web.kind: must be "barabasi_albert", "watts_strogatz", "complete", "isolated", "islands"',
        ),
        ({}, 'web: kind = "barabasi_albert" needs sites'),
        ({"sites": 3, "degree": 3}, "web: degree (3) must be below sites (3)"),
        ({"kind": "watts_strogatz", "sites": 9, "degree": 3}, "web: degree (3) must be even for watts_strogatz"),
        ({"kind": "file"}, 'web: kind = "file" needs path'),
        ({"kind": "file", "path": "x", "sites": 3}, 'web: sites is not allowed with kind = "file"'),
        ({"sites": 3, "path": "x"}, 'web: path is allowed with kind = "file"'),
        ({"sites": 0}, "web.sites: must be greater than 0"),
        ({"sites": 9, "rewire": 2}, "web.rewire: must be at most 1"),
        ({"sites": 9, "degre": 2}, 'web.degre: unknown key (did you mean "degree"?)'),
        ({"sites": 9, "initial": {"source": "docs"}}, "web.initial.documents: this key is required"),
    ],
)
def test_a_wrong_field_is_a_sentence(fields, sentence):
    with pytest.raises(ValidationError) as error:
        WebSpec(**fields)
    (problem,) = explain(error.value, "web", WebSpec)
    assert problem.startswith(sentence)


def test_islands_are_dealt_to_populations_and_isolated_sites_to_agents():
    shared = web(kind="islands", sites=6)
    first, again = shared.homes("trainers/a/0", 2), shared.homes("trainers/a/1", 2)
    assert first.tolist() == again.tolist() == [0, 1]
    assert shared.homes("trainers/b/0", 2).tolist() == [2, 3]
    assert shared.homes("writers/a/0", 2).tolist() == [0, 1]  # people of the same name live on the same island
    assert shared.reach(first, 5).tolist() == [0, 1]
    assert np.bincount(shared.places("x", np.arange(60)), minlength=6).tolist() == [10] * 6
    apart = web(kind="isolated", sites=6)
    assert [apart.homes(f"trainers/a/{i}", 2).tolist() for i in range(3)] == [[0, 1], [2, 3], [4, 5]]
