"""The documents that the page lets people read, and how they descend from people."""

import networkx as nx
import polars as pl
import pytest

from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario

pytest.importorskip("solara", reason="the interactive page needs the extra view")

from ecosystem.app import documents
from ecosystem.app.worlds.run_view import RunView
from ecosystem.errors import EcosystemError
from ecosystem.runs.ancestry import Ancestry
from ecosystem.runs.lineage import Origin, in_words, summary_of

SCRIPT = "<script>alert(1)</script> **bold** <img src=x onerror=alert(2)> [link](javascript:alert(3)) {{7*7}}"
STEPS = 6


def scenario(source: dict, model: dict, **more) -> Scenario:
    """Labs that are given text by people, one that keeps all it ever selected, and one that keeps two steps of it."""
    labs = {"model": "m", "scrape": {"docs": 40}, "publish": 9, "budget": {"epochs": 1}}
    return Scenario.parse(
        {
            "name": "reading",
            "steps": STEPS,
            "weights_every": 1,
            "sources": {"s": source},
            "web": {
                "kind": "barabasi_albert",
                "sites": 8,
                "degree": 2,
                "initial": {"source": "s", "documents": 60},
                "publish": ["cap"],
                "retain": ["window"],
            },
            "models": {"m": model},
            "policies": {
                "window": {"kind": "window", "steps": 3},
                "cap": {"kind": "synthetic_cap", "per_author": 8},
                "people": {"kind": "inject_real", "source": "s", "fraction": 0.2},
            },
            "writers": {"people": {"count": 2, "source": "s", "rate": 3.0}},
            "trainers": {
                "labs": {**labs, "count": 2, "select": ["people"]},
                "keeper": {**labs, "retain": [], "select": ["people"], "every": 2, "offset": 1},
                "thin": {**labs, "retain": ["window"]},
            },
            "measure": {"held_out": 10, "words": 30, "synthetic": 0},
            **more,
        }
    )


def view_of(spec: Scenario, out, cache) -> RunView:
    for _ in begin(spec, out=out, machine=Machine("cpu", 1), cache=cache):
        pass
    return RunView(Run.open(folder_of(spec, out)))


@pytest.fixture(scope="module")
def view(tmp_path_factory, cache) -> RunView:
    """A web of numbers; every archive is still there."""
    spec = scenario({"kind": "gaussian", "dim": 2}, {"kind": "gaussian"})
    return view_of(spec, tmp_path_factory.mktemp("numbers"), cache)


@pytest.mark.slow
def test_endorsements_do_not_move_the_drawing(view, tmp_path, cache):
    curators = {"editors": {"sites": 4, "reviews": 20, "action": "endorse"}}
    spec = scenario({"kind": "gaussian", "dim": 2}, {"kind": "gaussian"}, curators=curators, steps=2)
    endorsed = view_of(spec, tmp_path, cache)
    weights = [link["endorsed"] for *_, link in nx.read_graphml(endorsed.run.path / "web.graphml").edges(data=True)]
    assert max(weights) > 0
    where = ["site", "x", "y"]
    assert endorsed.places.select(where).equals(view.places.select(where))
    assert endorsed.places.select("x", "y").n_unique() == 8


@pytest.fixture(scope="module")
def pruned(tmp_path_factory, cache) -> RunView:
    """The same web, with the archives of steps 0, 4 and 6 alone."""
    spec = scenario({"kind": "gaussian", "dim": 2}, {"kind": "gaussian"}, weights_every=4)
    return view_of(spec, tmp_path_factory.mktemp("pruned"), cache)


@pytest.fixture(scope="module")
def texts(tmp_path_factory, cache) -> RunView:
    """A web of texts, many of which are markup."""
    place = tmp_path_factory.mktemp("texts")
    long = "\n".join(f"line {i} of a long text" for i in range(400))
    words = [f"{SCRIPT} and the {i}th sentence\x1b[31m of \t them" for i in range(150)]
    (place / "s.txt").write_text("\n\n".join([*words, long]))
    source = {"kind": "text", "path": str(place / "s.txt"), "held_out": 10}
    model = {"kind": "ngram", "order": 3, "vocabulary": 257, "context": 64}
    spec = scenario(source, model, steps=2)
    spec = spec.override({"web.initial.documents": 120, "web.retain": [], "writers.people.rate": 1.0})
    return view_of(spec, place, cache)


@pytest.fixture(scope="module")
def ancestry(view) -> Ancestry:
    return Ancestry(view)


def first_of_each(view: RunView, author: str) -> list[int]:
    """One document of every step at which a trainer published; all of one step have the same lineage."""
    mine = view.documents.filter(pl.col("author") == author)
    return mine.group_by("t", maintain_order=True).agg(pl.col("doc").first())["doc"].to_list()


# Reading


def test_everybody_who_published_is_an_author(view):
    found = documents.authors(view)
    assert list(found) == ["labs/0", "labs/1", "keeper/0", "thin/0", "writers/people", "initial"]
    counts = [documents.published(view, key).height for key in found]
    assert sum(counts) == view.documents.height and min(counts) > 0


def test_documents_are_read_in_order_with_their_facts(view):
    mine = documents.published(view, "labs/1").filter(pl.col("t") == 2)
    one, two = documents.entries(view, mine), documents.entries(view, mine, 6)
    assert [entry.doc for entry in one + two] == mine["doc"].to_list()[:3] + mine["doc"].to_list()[6:9]
    content = view.run.documents.filter(pl.col("doc") == one[0].doc).select("content").collect().item().to_list()
    assert one[0].text == ", ".join(f"{value:.3g}" for value in content)
    facts = " · ".join(one[0].facts)
    assert facts.startswith(f"labs/1, step 2 · document {one[0].doc} · site ")
    assert f"depth {mine['depth'][0]:.2f}" in facts and "words" not in facts
    refused = [fact for entry in one + two for fact in entry.facts if fact.startswith("refused")]
    assert len(refused) == mine.filter(pl.col("verdict").is_not_null())["doc"].is_in([e.doc for e in one + two]).sum()
    old = documents.entries(view, documents.published(view, "writers/people").filter(pl.col("t") == 1))
    assert all({"written by people", "left the web at step 4"} < set(entry.facts) for entry in old)


def test_nobody_has_refused_what_passed(view):
    refused = view.documents.filter(pl.col("verdict").is_not_null())
    entry = documents.entries(view, refused.filter(pl.col("t") == 2))[0]
    assert any(fact.startswith("refused by cap: exceeds") for fact in entry.facts)
    passed = documents.published(view, "initial")
    assert not any("refused" in fact for entry in documents.entries(view, passed) for fact in entry.facts)


def test_markup_stays_text(texts):
    initial = documents.published(texts, "initial")
    found = [entry for first in range(0, initial.height, 3) for entry in documents.entries(texts, initial, first)]
    short = [entry for entry in found if not entry.long]
    assert len(found) == 120 and len(short) >= 119
    assert all(entry.text.startswith(SCRIPT) and "␛[31m of \t them" in entry.text for entry in short)


def test_long_documents_are_cut_and_say_so(texts):
    body = "\n".join(f"line {i} of a long text" for i in range(400))
    row = {"doc": 1, "author": "a/0", "t": 1, "site": 0, "synthetic": True, "depth": 1.0, "words": 9, "reason": None}
    entry = documents._entry({**row, "verdict": None, "retired_at": None, "content": body}, "0", None)
    assert entry.long and entry.text.startswith(body[: documents.LONGEST])
    assert entry.text == f"{body[: documents.LONGEST]}…" and entry.characters == len(body)


def test_images_are_pictures():
    row = {"doc": 1, "author": "a/0", "t": 1, "site": 0, "synthetic": True, "depth": 1.0, "words": 0, "reason": None}
    row |= {"verdict": None, "retired_at": None, "content": [0.0, 1.0, 0.5, 2.0]}
    entry = documents._entry(row, "0", (2, 2))
    assert entry.picture.startswith("data:image/png;base64,") and not entry.long


def test_nothing_that_the_page_gets_is_markup(texts):
    """Text is a child of an element, which Vue escapes; no widget takes HTML."""
    import solara

    mine = documents.published(texts, "initial")
    shown = documents.entries(texts, mine)
    box, context = solara.render(
        documents.Documents(shown, Ancestry(texts), -1, lambda doc: None, 2), handle_error=False
    )
    widgets, found = [box], []
    while widgets:
        widget = widgets.pop()
        children = getattr(widget, "children", [])
        widgets += [child for child in children if not isinstance(child, str)]
        found += [child for child in children if isinstance(child, str)]
        assert not getattr(widget, "v_html", None) and "HTML" not in type(widget).__name__
        assert type(widget).__name__ != "Html" or widget.tag in ("div", "span", "p", "details", "summary")
    context.close()
    assert [entry.text for entry in shown] == [text for text in reversed(found) if "<script>" in text]


def test_what_is_not_open_costs_nothing(view, monkeypatch):
    import solara

    monkeypatch.setattr(documents, "authors", lambda view: pytest.fail("somebody read"))
    box, context = solara.render(documents.Reading(view, 2, STEPS), handle_error=False)
    assert len(box.children) == 1
    context.close()
    with pytest.raises(pytest.fail.Exception, match="somebody read"):
        solara.render(documents.Reader(view, 2, STEPS), handle_error=False)


# Lineage


@pytest.mark.parametrize("author", ["labs/0", "keeper/0", "thin/0"])
def test_a_document_is_as_many_models_away_from_people_as_its_depth_says(view, ancestry, author):
    """The world adds up depths step by step, forwards; a lineage goes back through the ledgers."""
    docs = first_of_each(view, author)
    assert len(docs) >= 4
    for doc in docs:
        found = ancestry.lineage(doc)
        assert found.hops == pytest.approx(found.depth, rel=1e-9)
        assert found.depth == view.documents["depth"][doc] and found.author == author
        assert found.caveats == ()  # a normal distribution is fitted to a training set alone, and all are there
    assert found.depth > 1.5  # so that there was something to add up


def test_shares_sum_to_one(view, ancestry):
    for author in ("labs/0", "keeper/0", "thin/0"):
        for doc in first_of_each(view, author):
            found = ancestry.lineage(doc)
            assert sum(end.share for end in found.ends) == pytest.approx(1)
            assert {end.kind for end in found.ends} <= {"people", "injected"}
            assert all(sum(origin.share for origin in fit.origins) == pytest.approx(1) for fit in found.fits)
            measured = view.metrics.filter(
                (pl.col("step") == found.fits[0].step)
                & (pl.col("id") == author)
                & (pl.col("metric") == "synthetic_share")
            )
            assert found.fits[0].who == author and found.fits[0].passes == pytest.approx(1)
            assert found.fits[0].human == pytest.approx(1 - measured["value"].item())
            steps = [fit.step for fit in found.fits]
            assert steps == sorted(steps, reverse=True) and steps[0] < found.t
            assert all(origin.step is None or origin.step <= fit.step for fit in found.fits for origin in fit.origins)


def test_training_sets_are_what_was_measured(view, ancestry):
    """Sizes and shares of every training set, archives among them, against the metrics of the run."""
    measured = view.metrics.filter(pl.col("scope") == "training_set")
    seen = 0
    for step in range(1, STEPS + 1):
        sets = ancestry.training_sets(step)
        for (reader,), rows in sets.group_by("reader"):
            here = measured.filter((pl.col("step") == step) & (pl.col("id") == reader))
            known = dict(here.select("metric", "value").iter_rows())
            shares = dict(rows.group_by("kind").agg(pl.col("share").sum()).iter_rows())
            assert rows["documents"].sum() == known["documents"]
            assert shares.get("model", 0.0) == pytest.approx(known["synthetic_share"])
            assert shares.get("injected", 0.0) == pytest.approx(known["injected_share"])
            seen += 1
    assert seen == measured.filter(pl.col("metric") == "documents").height == 3 * STEPS + STEPS // 2


def test_archives_that_are_gone_are_made_again_or_told_apart(view, ancestry, pruned):
    assert pruned.run.store.steps_with_weights() == [0, 4, 6]
    remembered = Ancestry(pruned)
    for step in range(1, STEPS + 1):
        true, found = ancestry.training_sets(step), remembered.training_sets(step)
        thinned = pl.col("reader") == "thin/0"
        assert found.filter(~thinned).equals(true.filter(~thinned))
        assert found.filter(thinned)["exact"].unique().to_list() == [step in (4, 6)]
        assert found.filter(thinned)["documents"].sum() >= true.filter(thinned)["documents"].sum()
    assert found.filter(thinned)["documents"].sum() == true.filter(thinned)["documents"].sum()
    by = {doc: remembered.lineage(doc) for doc in first_of_each(pruned, "thin/0")}
    assert all(any("weights_every" in c for c in found.caveats) for found in by.values() if found.t > 1)
    assert all(sum(end.share for end in found.ends) == pytest.approx(1) for found in by.values())


def test_people_have_no_models_behind_them(view, ancestry):
    doc = documents.published(view, "writers/people")["doc"][0]
    found = ancestry.lineage(doc)
    assert (found.depth, found.hops, found.fits) == (0.0, 0, ())
    assert [(end.kind, end.who, end.share) for end in found.ends] == [("people", "people", 1.0)]
    assert "no model" in summary_of(found)


def test_what_a_model_starts_from_counts_as_an_end(texts):
    doc = documents.published(texts, "labs/0").filter(pl.col("t") == 2)["doc"][0]
    found = Ancestry(texts).lineage(doc)
    assert found.hops == pytest.approx(found.depth) and {fit.step for fit in found.fits} == {1, None}
    assert "start" in {end.kind for end in found.ends} and any("models start from" in c for c in found.caveats)
    first = documents.published(texts, "labs/0")["doc"][0]
    assert in_words(Ancestry(texts).lineage(first).ends) == "100\u00a0% the weights that m starts from"


def test_no_such_document(ancestry):
    with pytest.raises(EcosystemError, match="there is no document 99999; this run has documents 0 to"):
        ancestry.lineage(99999)


def test_origins_in_words():
    parts = [Origin("people", "initial", None, 0.25), Origin("injected", "s", None, 0.2)]
    parts += [Origin("model", "labs", 4, 0.3), Origin("model", "labs", 2, 0.15)]
    parts += [Origin("model", "thin/0", 3, 0.1)]
    told = in_words(parts).replace("\u00a0", " ")
    assert told == (
        "25 % the initial web, 20 % injected from s, 45 % labs (30 % of step 4, 15 % of step 2), 10 % thin/0 of step 3"
    )
