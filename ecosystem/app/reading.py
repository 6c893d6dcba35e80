"""Reading the documents of a film, and the lineage of one: from its author's training sets back to people.

Everything is from stored tables. Documents are data: they reach the page as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import solara
import solara.lab

from ecosystem.app.film import Film
from ecosystem.app.fold import Fold
from ecosystem.errors import EcosystemError
from ecosystem.report.charts.theme import HUMAN, SYNTHETIC
from ecosystem.report.exhibits import CLIP, LONGEST, image_shape, picture, readable
from ecosystem.report.findings import number, percent
from ecosystem.report.page import visible
from ecosystem.scenario.scenario import Scenario

EACH, PICTURES = 3, 6  # documents in a column
FITS, STEPS = 6, 5  # of a lineage, shown at first; steps that the documents of a training set are from
REMEMBERED = 50  # steps whose training sets are kept in memory
LOOKED_AT = "the step looked at"
INITIAL = "initial"  # author of what the web opened with


@dataclass(frozen=True)
class Entry:
    """A document as it is shown: ``text`` (all of it, or its first LONGEST characters) or a ``picture``, and facts."""

    doc: int
    synthetic: bool
    text: str
    picture: str | None
    facts: tuple[str, ...]
    characters: int = 0  # of the whole document

    @property
    def long(self) -> bool:
        """Whether only the beginning is shown until somebody opens it."""
        return self.picture is None and (len(self.text) > CLIP or self.text.count("\n") >= 10)


def authors(film: Film) -> dict[str, str]:
    """Return who has published anything: each trainer, each population of writers, the initial web; key → name.

    A key is a trainer's name, ``writers/<population>`` or ``initial``.
    """
    there = set(film.documents["author"].unique())
    numbered = [f"{name}/{i}" for name, recipe in film.scenario.trainers.items() for i in range(recipe.count)]
    found = {name: name for name in numbered if name in there}
    peopled = {author.rsplit("/", 1)[0] for author in there if author.startswith("writers/")}
    found |= {f"writers/{name}": f"{name} (writers)" for name in film.scenario.writers if f"writers/{name}" in peopled}
    return found | ({INITIAL: _called("people", INITIAL)} if INITIAL in there else {})


def published(film: Film, author: str) -> pl.DataFrame:
    """Return the documents (rows of ``film.documents``) of a key of :func:`authors`, in order of publication."""
    mine = pl.col("author").str.starts_with(f"{author}/") if author.startswith("writers/") else pl.lit(value=False)
    return film.documents.filter((pl.col("author") == author) | mine)


def entries(film: Film, documents: pl.DataFrame, first: int = 0) -> list[Entry]:
    """Read some of these documents, all of one step, from number ``first`` on; raise StoreError where it is damaged.

    They come in order of publication, nothing picked: at most EACH, or PICTURES where they are images.
    """
    if documents.is_empty():
        return []
    step = documents["t"][0]
    segment = film.run.store.table("corpus", range(step, step + 1), ("doc", "words", "reason", "content"))
    shape = image_shape(film.run.scenario, segment["content"].dtype)
    some = documents.slice(first, EACH if shape is None else PICTURES)
    names = film.places["name"]
    rows = some.join(segment, on="doc", how="left", maintain_order="left")
    return [_entry(row, names[row["site"]], shape) for row in rows.iter_rows(named=True)]


def _entry(row: dict[str, Any], site: str, shape: tuple[int, int] | None) -> Entry:
    content = row["content"]
    whole = "" if shape else visible(readable(content))
    text = whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}…"
    facts = [f"{row['author']}, step {row['t']}", f"document {row['doc']}", f"site {site}"]
    facts += [f"{row['words']:,} word{'s' if row['words'] != 1 else ''}"] if isinstance(content, str) else []
    facts += [f"depth {number(row['depth'])}"] if row["synthetic"] else ["written by people"]
    if row["verdict"]:
        facts += [f"refused by {row['verdict']}" + (f": {row['reason']}" if row["reason"] else "")]
    if row["retired_at"] is not None:
        facts += [f"left the web at step {row['retired_at']}"]
    shown = None if shape is None else picture(content, shape)
    return Entry(row["doc"], row["synthetic"], text, shown, tuple(visible(fact) for fact in facts), len(whole))


# Lineage


@dataclass(frozen=True)
class Origin:
    """Part of a training set by weight: ``kind`` is people, injected (``who``: a source), start or model.

    Of models ``who`` is a population, or a trainer where it is one alone, and ``step`` when they published.
    """

    kind: str
    who: str
    step: int | None
    share: float

    @property
    def told(self) -> str:
        """The origin in words, with its share."""
        return f"{_share(self.share)} {_called(self.kind, self.who)}" + (
            "" if self.step is None else f" of step {self.step}"
        )


@dataclass(frozen=True)
class Fit:
    """Models of a lineage that were fitted at one ``step`` (None: never yet), and what on; shares sum to one.

    ``who`` is the trainer, or how many of the ``population``; ``passes`` the mean number of these models that one meets
    on the way back to people; ``documents`` the mean size of their training sets, and ``exact`` whether these are known
    row by row.
    """

    population: str
    who: str
    step: int | None
    passes: float
    documents: float
    origins: tuple[Origin, ...]
    exact: bool

    @property
    def human(self) -> float:
        """The share of the training sets that people wrote, what was injected included."""
        return sum(origin.share for origin in self.origins if origin.kind in ("people", "injected"))


@dataclass(frozen=True)
class Lineage:
    """How a document descends from people.

    Going back from it one draws, from the training set that its author's model had last been fitted to, one document
    by its weight; of that one the same, and so on until people wrote it. ``hops``, the mean number of models on
    the way, is the document's depth; ``ends``, which sum to one, say where the ways end; ``fits`` come latest first.
    """

    doc: int
    author: str
    t: int
    depth: float
    fits: tuple[Fit, ...]
    ends: tuple[Origin, ...]
    caveats: tuple[str, ...]

    @property
    def hops(self) -> float:
        """The mean number of models on the way back."""
        return sum(fit.passes for fit in self.fits)


class Ancestry:
    """Lineages of a film's documents; a step's ledger is read when a lineage first needs it."""

    def __init__(self, film: Film) -> None:
        self.film = film
        self._known: dict[int, pl.DataFrame] = {}

    def training_sets(self, step: int) -> pl.DataFrame:
        """Return what every trainer that was fitted at a step was fitted to, by origin.

        Columns: reader, kind, who, t (step of publication of a model's documents, else null), share (by weight; sums
        to one for each reader), documents, exact. A trainer's set is what its select gate kept; of one that keeps an
        archive (``retain``), the archive. Archives of steps whose models were not kept are gone: then it is everything
        that the trainer had ever selected, which is exact where no retention policy thinned it.
        """
        if step not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[step] = self._composed(step)
        return self._known[step]

    def _composed(self, step: int) -> pl.DataFrame:
        rows = self._kept(step).with_columns(exact=pl.lit(value=True))
        archiving = self._archiving(step)
        if archiving:
            rows = pl.concat([rows.filter(~_of(archiving)), self._archives(step, archiving)])
        rows = rows.filter(pl.col("reader").is_in(self._fits().filter(pl.col("fit") == step)["author"].to_list()))
        known = self.film.documents.select("author", "t", "synthetic", document="doc")
        web = pl.col("source").is_null()
        # A row number of a source is no id of a document of the web.
        joined = pl.concat(
            [rows.filter(web).join(known, on="document", how="left"), rows.filter(~web)], how="diagonal"
        ).with_columns(
            kind=pl.when(~web)
            .then(pl.lit("injected"))
            .when("synthetic")
            .then(pl.lit("model"))
            .otherwise(pl.lit("people"))
        )
        model = pl.col("kind") == "model"
        written = pl.col("author").str.replace("^writers/(.*)/[0-9]+$", "$1")
        origin = joined.with_columns(
            who=pl.when(~web).then("source").when(model).then("author").otherwise(written),
            t=pl.when(model).then("t"),
            # Weights that are all zero count alike, as they do in a fit.
            weight=pl.when(pl.col("weight").sum().over("reader") > 0).then("weight").otherwise(1.0),
        )
        summed = origin.group_by("reader", "kind", "who", "t", "exact").agg(pl.col("weight").sum(), documents=pl.len())
        share = pl.col("weight") / pl.col("weight").sum().over("reader")
        return summed.with_columns(share=share).drop("weight").sort("reader", "kind", "who", "t")

    def _kept(self, step: int) -> pl.DataFrame:
        ledger = self.film.run.store.table(
            "ledger", range(step, step + 1), ("reader", "document", "source", "weight", "verdict")
        )
        return ledger.filter(pl.col("verdict").is_null()).drop("verdict")

    def _archiving(self, step: int) -> dict[str, bool]:
        """Return the populations that keep an archive at a step, and whether any policy thins it."""
        in_force = self.film.scenario.at(step).trainers
        return {name: bool(recipe.retain) for name, recipe in in_force.items() if recipe.retain is not None}

    def _archives(self, step: int, archiving: dict[str, bool]) -> pl.DataFrame:
        store = self.film.run.store
        if step in store.steps_with_weights():
            held = store.table("archive", range(step, step + 1), ("reader", "document", "source", "weight"))
            return held.filter(_of(archiving)).with_columns(exact=pl.lit(value=True))
        past = {s: self._archiving(s) for s in range(1, step + 1)}
        ever = [self._kept(s).filter(_of(then)) for s, then in past.items() if then]
        thinned = [name for then in past.values() for name, thinning in then.items() if thinning]
        # What was scraped again counts once, as acquired last.
        held = pl.concat(ever).filter(_of(archiving)).unique(["reader", "document", "source"], keep="last")
        return held.with_columns(exact=~_of(thinned))

    def lineage(self, doc: int) -> Lineage:
        """Return how a document descends from people; raise EcosystemError where there is none of this number."""
        film = self.film
        found = film.documents.filter(pl.col("doc") == doc)
        if found.is_empty():
            raise EcosystemError(f"there is no document {doc}; there are 0 to {film.documents.height - 1}.")
        row = found.row(0, named=True)
        author, t = row["author"], row["t"]
        if not row["synthetic"]:
            people = author.split("/")[1] if author.startswith("writers/") else author
            return Lineage(doc, author, t, row["depth"], (), (Origin("people", people, None, 1.0),), ())
        ways = self._fitted(pl.DataFrame({"author": [author], "t": [t], "passes": [1.0]}, schema_overrides=WAYS))
        fits: list[Fit] = []
        ends: list[pl.DataFrame] = []
        while (step := ways["fit"].max()) is not None:
            assert isinstance(step, int)
            now = ways.filter(pl.col("fit") == step)
            flows = self.training_sets(step).join(now.drop("fit"), left_on="reader", right_on="author")
            flows = flows.with_columns(flow=pl.col("share") * pl.col("passes"))
            fits += _passed(step, now, flows)
            ends.append(flows.filter(pl.col("kind") != "model").select("kind", "who", "flow"))
            models = flows.filter(pl.col("kind") == "model").select("t", author="who", passes="flow")
            ways = _together([ways.filter(pl.col("fit").ne_missing(step)), self._fitted(models)])
        if ways.height:  # these wrote before their first fit
            begun = ways.with_columns(kind=pl.lit("start"), who=self._models("author"), flow="passes")
            fits += _beginners(begun)
            ends.append(begun.select("kind", "who", "flow"))
        over = pl.concat(ends).group_by("kind", "who").agg(pl.col("flow").sum()).sort("flow", "who", descending=True)
        origins = tuple(Origin(kind, who, None, share) for kind, who, share in over.iter_rows())
        return Lineage(doc, author, t, row["depth"], tuple(fits), origins, _caveats(film.scenario, fits))

    def _fits(self) -> pl.DataFrame:
        """Return who was fitted when: author, fit (the step); whatever else a step did, a training set was measured."""
        sets = (pl.col("scope") == "training_set") & (pl.col("metric") == "documents")
        return self.film.metrics.filter(sets).select(author="id", fit="step")

    def _fitted(self, ways: pl.DataFrame) -> pl.DataFrame:
        """Return (author, fit, passes): the step at which each author had last been fitted before it published."""
        # What is published at a step is written before anybody trains at it.
        fits = self._fits().with_columns(t=pl.col("fit") + 1).sort("t")
        joined = ways.sort("t").join_asof(fits, on="t", by="author", strategy="backward", check_sortedness=False)
        return _together([joined.select("author", "fit", "passes")])

    def _models(self, author: str) -> pl.Expr:
        models = {name: recipe.model for name, recipe in self.film.scenario.trainers.items()}
        return _population(author).replace_strict(models, return_dtype=pl.String)


WAYS = {"author": pl.String(), "t": pl.Int32(), "passes": pl.Float64()}


def _of(populations: Sequence[str] | dict[str, bool]) -> pl.Expr:
    return _population("reader").is_in(list(populations))


def _population(column: str) -> pl.Expr:
    return pl.col(column).str.replace("/[0-9]+$", "")


def _together(ways: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(ways).group_by("author", "fit", maintain_order=True).agg(pl.col("passes").sum())


def _passed(step: int, now: pl.DataFrame, flows: pl.DataFrame) -> list[Fit]:
    """Return what the models of each population that one passes at a step were fitted to, the most passed first."""
    found = []
    population = _population("author").alias("population")
    for (name,), members in now.group_by(population, maintain_order=True):
        passes = float(members["passes"].sum())
        mine = flows.filter(pl.col("reader").is_in(members["author"].to_list()))
        weighted = mine.group_by("reader").agg(pl.col("documents").sum(), pl.col("passes").first())
        model = pl.col("kind") == "model"
        merged = mine.with_columns(by="who", who=pl.when(model).then(_population("who")).otherwise("who"))
        parts = merged.group_by("kind", "who", "t").agg(pl.col("flow").sum(), pl.col("by").unique())
        order = pl.col("kind").replace_strict({"people": 0, "injected": 1, "model": 2}, return_dtype=pl.Int8)
        ordered = parts.sort(order, -pl.col("t"), "who", nulls_last=True)
        origins = tuple(
            Origin(kind, by[0] if kind == "model" and len(by) == 1 else who, t, flow / passes)
            for kind, who, t, flow, by in ordered.iter_rows()
        )
        documents = float(np.average(weighted["documents"], weights=weighted["passes"]))
        found.append(
            Fit(str(name), _named(str(name), members["author"]), step, passes, documents, origins, mine["exact"].all())
        )
    return sorted(found, key=lambda fit: -fit.passes)


def _beginners(begun: pl.DataFrame) -> list[Fit]:
    """Return those whose models wrote with the weights that they start from."""
    found = []
    for (name, model), members in begun.group_by(_population("author").alias("population"), "who", maintain_order=True):
        origin = Origin("start", str(model), None, 1.0)
        passes = float(members["passes"].sum())
        found.append(Fit(str(name), _named(str(name), members["author"]), None, passes, 0.0, (origin,), exact=True))
    return sorted(found, key=lambda fit: -fit.passes)


def _named(population: str, members: pl.Series) -> str:
    return str(members[0]) if members.len() == 1 else f"{members.len()} trainers of {population}"


def _share(value: float) -> str:
    return percent(round(value, 9))  # sums of many shares are not quite 1


def _called(kind: str, who: str) -> str:
    """Return an origin in words."""
    if kind == "people":
        return "the initial web" if who == INITIAL else f"{who} (writers)"
    return {"injected": f"injected from {who}", "start": f"the weights that {who} starts from"}.get(kind, who)


def _caveats(scenario: Scenario, fits: Sequence[Fit]) -> tuple[str, ...]:
    """Return what a lineage does not know, as far as it applies."""
    recipes = [scenario.at(fit.step).trainers[fit.population] for fit in fits if fit.step is not None]
    told = [(recipe, scenario.models[recipe.model]) for recipe in recipes]
    found = []
    if any(recipe.start == "previous" and model.depends_on_start for recipe, model in told):
        found.append(
            "A model that goes on from its previous weights learnt from earlier training sets too; counted is the last."
        )
    if any(model.uses_budget for _, model in told):
        found.append(
            "A budget may reach only part of a training set, or all of it several times; this is not recorded."
        )
    if any(scenario.models[scenario.trainers[fit.population].model].starts_pretrained for fit in fits):
        found.append(
            "What the weights that models start from had learnt is in no training set; ways that meet them end there."
        )
    if any(recipe.decoding.prompt is not None for recipe in recipes):
        found.append("The prompts that texts begin with are not counted as an origin.")
    if not all(fit.exact for fit in fits):
        found.append(
            "Archives of steps whose models were not kept (weights_every) are gone: told in their place is all that "
            "their trainers had selected until then, so that shares and depth differ from the true ones."
        )
    return tuple(found)


# What the page shows

TINTS = {"people": HUMAN, "injected": "#4f9d8f", "start": "#c79a3a", "model": SYNTHETIC}


def _text(tag: str, words: str, *classes: str, **attributes: str) -> Any:
    """Show words, which are text whatever stands in them."""
    return solara.v.Html(tag=tag, children=[words], class_=" ".join(classes), attributes=attributes)


@solara.component
def Reading(film: Film, step: int, last: int) -> None:
    """Let people open the documents of a film; nothing is read before they do. ``last``: the steps there are."""
    with solara.Div(classes=["eco-panel", "eco-reading"]):
        Fold("Reading: what was written, and where it comes from", lambda: Reader(film, step, last))


@solara.component
def Reader(film: Film, step: int, last: int) -> None:
    """Show documents of an author at a step beside its first ones."""
    ancestry = solara.use_memo(lambda: Ancestry(film), [film])
    author, choose = solara.use_state("")
    fixed, fix = solara.use_state(LOOKED_AT)
    first, turn = solara.use_state(0)
    traced, trace = solara.use_state(-1)
    names = solara.use_memo(lambda: authors(film), [film, last])
    writing = solara.use_memo(lambda: set(film.documents.filter(pl.col("t") == step)["author"]), [film, last, step])
    present = [key for key in names if any(who == key or who.startswith(f"{key}/") for who in writing)]
    chosen = author if author in names else next(iter(present or names), "")
    mine = solara.use_memo(lambda: published(film, chosen), [film, last, chosen])
    steps = [str(t) for t in mine["t"].unique(maintain_order=True)]
    at = int(fixed) if fixed in steps else step
    now, begun = mine.filter(pl.col("t") == at), mine.filter((pl.col("t") == mine["t"].min()) & (pl.col("t") < at))
    place = first if first < now.height else 0

    def read() -> tuple[list[Entry], list[Entry]]:
        return entries(film, now, place), entries(film, begun)

    task = solara.lab.use_task(read, dependencies=[film, last, chosen, at, place], raise_error=False)

    def pick(change: Callable[[str], None], value: str) -> None:
        change(value)
        turn(0)

    keys = {name: key for key, name in names.items()}
    with solara.Div(classes=["eco-bar"]):
        solara.Select("author", list(keys), names.get(chosen), lambda name: pick(choose, keys[name]), dense=True)
        options = [LOOKED_AT, *steps]
        solara.Select("step", options, fixed if fixed in options else LOOKED_AT, lambda t: pick(fix, t), dense=True)
    if task.exception is not None:
        solara.Error(str(task.exception))
        return
    shown: tuple[list[Entry], list[Entry]] = task.latest or ([], [])
    with solara.Div(classes=["eco-columns"]):
        with solara.Div():
            _text("h4", f"Published at step {at}")
            if now.is_empty():
                _text("p", f"{names.get(chosen, 'Nobody')} published nothing at this step.")
            elif shown[0]:
                upto = min(place + len(shown[0]), now.height)
                with solara.Div(classes=["eco-turn"]):
                    _text("span", f"{place + 1:,} to {upto:,} of {now.height:,}")
                    if upto < now.height or place:
                        solara.Button(
                            "next" if upto < now.height else "from the first",
                            on_click=lambda: turn(upto if upto < now.height else 0),
                            text=True,
                            small=True,
                        )
            Documents(shown[0], ancestry, traced, trace, last)
        with solara.Div():
            _text("h4", "Its first documents" + (f", step {begun['t'][0]}" if begun.height else ""))
            if begun.is_empty():
                _text("p", "It had published nothing before." if now.height else "")
            elif shown[1]:
                with solara.Div(classes=["eco-turn"]):
                    _text("span", f"1 to {len(shown[1]):,} of {begun.height:,}")
            Documents(shown[1], ancestry, traced, trace, last)


@solara.component
def Documents(shown: Sequence[Entry], ancestry: Ancestry, traced: int, trace: Callable[[int], None], last: int) -> None:
    """Show documents one below the other, each with a way to its lineage."""
    with solara.Div():
        for entry in shown:
            with solara.Div(classes=["eco-doc", "eco-machine" if entry.synthetic else "eco-people"]).key(
                f"d{entry.doc}"
            ):
                if entry.picture is not None:
                    attributes = {"src": entry.picture, "alt": f"document {entry.doc}"}
                    solara.v.Html(tag="img", attributes=attributes)
                elif not entry.text.strip():
                    _text("p", "An empty document.")
                elif entry.long:
                    extent = "all" if entry.characters <= LONGEST else f"the first {LONGEST:,} of"
                    summary = [
                        _text("div", f"{entry.text[:CLIP]}…", "eco-words", "eco-clip", dir="auto"),
                        _text("span", f"{extent} {entry.characters:,} characters", "eco-more"),
                    ]
                    whole = _text("div", entry.text, "eco-words", dir="auto")
                    solara.v.Html(tag="details", children=[solara.v.Html(tag="summary", children=summary), whole])
                else:
                    _text("div", entry.text, "eco-words", dir="auto")
                _text("div", " · ".join(entry.facts), "eco-facts")
                if entry.synthetic:
                    ours = entry.doc == traced
                    solara.Button(
                        "Close the lineage" if ours else "Lineage",
                        on_click=lambda doc=entry.doc, ours=ours: trace(-1 if ours else doc),
                        text=True,
                        x_small=True,
                    )
                    if ours:
                        Descent(ancestry, entry.doc, last)


@solara.component
def Descent(ancestry: Ancestry, doc: int, last: int) -> None:
    """Show the lineage of a document, fit by fit, latest first."""
    whole, unfold = solara.use_state(False)
    task = solara.lab.use_task(lambda: ancestry.lineage(doc), dependencies=[ancestry, doc], raise_error=False)
    if task.exception is not None:
        solara.Error(str(task.exception))
        return
    if task.value is None:
        _text("p", "Going back through the ledgers …")
        return
    found = task.value
    with solara.Div(classes=["eco-descent"]):
        _text("p", told(found))
        Bar(found.ends)
        for fit in found.fits if whole else found.fits[:FITS]:
            when = "before its first fit" if fit.step is None else f"trained at step {fit.step}"
            size = f" on {fit.documents:,.0f} documents, {_share(fit.human)} by people" if fit.documents else ""
            with solara.Div(classes=["eco-fit"]):
                _text("strong", f"{fit.who}, {when}{size}")
                _text(
                    "span",
                    f" · met {number(fit.passes)} times on the way back" + ("" if fit.exact else " · approximate"),
                )
                Bar(fit.origins)
        if len(found.fits) > FITS:
            few = "fewer" if whole else f"all {len(found.fits)} of them"
            solara.Button(f"Show {few}", on_click=lambda: unfold(not whole), text=True, x_small=True)
        for caveat in found.caveats:
            _text("p", caveat)


@solara.component
def Bar(origins: Sequence[Origin]) -> None:
    """Show shares as a bar, and in words below it."""
    with solara.Div():
        with solara.Div(classes=["eco-shares"]):
            for origin in origins:
                style = f"width:{100 * origin.share:.3f}%;background:{TINTS[origin.kind]}"
                solara.v.Html(tag="span", style_=style, attributes={"title": origin.told})
        _text("div", in_words(origins), "eco-facts")


def in_words(origins: Sequence[Origin]) -> str:
    """Return origins with their shares in a line; of those of models all steps together, then some of them."""
    groups: dict[tuple[str, str], list[Origin]] = {}
    for origin in origins:
        groups.setdefault((origin.kind, origin.who), []).append(origin)
    words = []
    for (kind, who), parts in groups.items():
        steps = [f"{_share(part.share)} of step {part.step}" for part in parts if part.step is not None]
        more = ["…"] if len(steps) > STEPS else []
        among = (
            f" ({', '.join(steps[:STEPS] + more)})" if len(steps) > 1 else f" of step {parts[0].step}" if steps else ""
        )
        words.append(f"{_share(sum(part.share for part in parts))} {_called(kind, who)}{among}")
    return ", ".join(words)


def told(found: Lineage) -> str:
    """Return in a sentence or two what a lineage says."""
    if not found.fits:
        return f"Document {found.doc} was written by people: no model stands between it and them (depth 0)."
    where = f"Document {found.doc} by {found.author}, published at step {found.t}, has depth {number(found.depth)}"
    way = "the mean number of models met on the way back to people, drawing from each training set a document by weight"
    return f"{where}: {way}. The ways end at:"
