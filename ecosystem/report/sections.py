"""The sections of a report: each reads the book of a run, draws its charts and returns its HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from ecosystem import charts
from ecosystem.charts import Words
from ecosystem.policies.base import Adder
from ecosystem.report import collapse, distributions, drawings, exhibits, figures, page, sites
from ecosystem.report.book import Book
from ecosystem.report.findings import plus_minus


def _section(key: str, about: str, body: str) -> str:
    none = '<p class="empty">Nothing of this was measured in this run.</p>'
    return f'<section><h2 id="{key}">{CONTENTS[key]}</h2><p class="note">{about}</p>{body or none}</section>'


def _quality(book: Book) -> str:
    panels = []
    for metric, (label, *_) in drawings.QUALITY.items():
        if (chart := drawings.quality(book, metric)) is not None:
            panels.append((label, book.figure(f"quality_{metric}", chart, full=True)))
    if not panels:
        return _section("quality", "", "")
    change = drawings.quality_change(book)
    about = (
        "How well each population predicts text that people wrote and that nobody ever published. The dotted lines are "
        "measured once: a randomly initialised model, where collapse would end, and a model that knows only how often "
        "each token occurs."
    )
    body = page.tabs(panels, "quality-view") + (
        "" if change is None else book.figure("quality_change", change, full=True)
    )
    return _section("quality", about, body)


def _parameters(book: Book) -> str:
    found = {metric: drawings.parameter(book, metric) for metric in drawings.parameters(book)}
    drawn = [book.figure(f"model_{metric}", chart) for metric, chart in found.items() if chart is not None]
    about = (
        "The models' own parameters held against the truth: mean over the trainers of each population ± standard "
        "error; faint: single trainers, or what four fifths of them span. Dashed lines are closed forms, where the "
        "scenario names one."
    )
    sources = sorted({f"{t.metric}: {t.law} ({t.source})" for t in book.run.scenario.theory if t.source})
    told = "".join(f"<li>{page.escape(source)}</li>" for source in sources)
    forms = f"<h3>Closed forms</h3><ul>{told}</ul>" if told else ""
    body = _grid(drawn) + distributions.vectors(book) + collapse.tables(book) + forms
    return _section("parameters", about, body)


def _parameter_figures(book: Book) -> str:
    theory, rows = book.run.scenario.theory, []
    for metric in drawings.parameters(book):
        means = figures.means(figures.members(book.metrics, metric))
        laws = figures.laws(theory, metric, book.run.steps, book.truth)
        for population in book.populations:
            last = means.filter(pl.col("population") == population).tail(1)
            if last.is_empty():
                continue
            step, value, error = last.select("step", "value", "error").row(0)
            known = laws.filter((pl.col("population") == population) & (pl.col("step") == step))["value"]
            name = page.tinted(book.populations, population)
            predicted = ", ".join(f"{v:.4g}" for v in known) or "–"
            rows.append([page.escape(drawings.called(metric)), name, plus_minus(value, error, 4), predicted])
    about = "At the last step: mean over each population's trainers ± standard error, and what a closed form says."
    body = page.table(["metric", "population", "simulated", "predicted"], rows, left=(0, 1)) if rows else ""
    return _section("figures", about, body)


def _contamination(book: Book) -> str:
    found = {metric: drawings.contamination(book, metric) for metric in drawings.CONTAMINATION}
    drawn = [book.figure(f"contamination_{metric}", chart) for metric, chart in found.items() if chart is not None]
    about = (
        "How much of the web, and of what each population trained on, models wrote; and how far that is from people."
    )
    return _section("contamination", about, _grid(drawn, "two"))


def _grid(drawn: Sequence[str], shape: str = "") -> str:
    return f'<div class="grid {shape}">{"".join(drawn)}</div>' if drawn else ""


def _diversity(book: Book) -> str:
    found = {metric: drawings.diversity(book, metric) for metric in drawings.texts(book)}
    drawn = [book.figure(f"text_{metric}", chart) for metric, chart in found.items() if chart is not None]
    vocabulary = drawings.vocabulary(book)
    kept = "" if vocabulary is None else book.figure("vocabulary_kept", vocabulary, full=True)
    tails = [book.figure(metric, chart) for metric, chart in drawings.tails(book).items()]
    body = _grid(drawn) + kept + _grid(tails) + _grid(distributions.perplexities(book), "two")
    about = (
        "Of what each population publishes, in samples of equally many words, against real held-out text measured in "
        "the same way; what becomes of rare words, which go first; and how probable single texts are to the weights "
        "that trainers start from."
    )
    return _section("diversity", about, body)


def _downstream(book: Book) -> str:
    how = book.run.scenario.measure.downstream
    asked = [("zero_shot", how.zero_shot), ("accuracy", how.tasks)] if how is not None else []
    about = {"accuracy": "share of right answers after fine-tuning", "zero_shot": "share of right answers as it is"}
    drawn = []
    for name, kinds in reversed(asked):
        for kind in kinds:
            single = figures.members(book.metrics, f"{name}_{kind}")
            known = figures.references(book.metrics, f"{name}_{kind}")
            if single.is_empty():
                continue
            title = f"{drawings.called(kind)}, {'fine-tuned' if name == 'accuracy' else 'zero-shot'}"
            words = Words(title, f"{about[name]}; dotted: the same of random weights, and guessing", "accuracy", ".0%")
            ends = [*single["value"], *known["value"]]
            domain = [max(0.0, min(ends) - 0.05), min(1.0, max(ends) + 0.05)]
            chart = charts.over_steps(
                figures.means(single), book.look, words, single=single, levels=known, domain=domain
            )
            drawn.append(book.figure(f"{name}_{kind}", chart))
    asked_of = (
        f"Each model is fine-tuned on a task's {how.train:,} examples from the weights it has at that step, answers "
        f"{how.test:,} others, and is then put back as it was. "
        if how is not None and how.tasks
        else ""
    )
    about_all = (
        f"Questions made from real documents that nobody ever published. {asked_of}The dotted lines are randomly "
        "initialised weights treated in the same way, where collapse would end, and what guessing gets."
    )
    return _section("downstream", about_all, _grid(drawn))


def _ledger(book: Book) -> str:
    policies = book.run.scenario.at(book.run.steps).policies  # with those that a timed change brought
    adders = [name for name, policy in policies.items() if isinstance(policy, Adder)]
    refused = figures.refusals(book.metrics).filter(~pl.col("what").is_in(adders))
    parts = []
    if refused.height:
        if refused.select("who", "what").unique().height > 24:
            whole = refused.group_by("what", "origin", maintain_order=True).agg(pl.col("flagged", "total").sum())
            rate = pl.col("flagged") / pl.col("total")
            refused = whole.with_columns(rate=rate).with_columns(
                error=(rate * (1 - rate) / pl.col("total")).sqrt(), row="what"
            )
        else:
            refused = refused.with_columns(row=pl.format("{} · {}", "who", "what"))
        words = Words(
            "What each policy refused, by true origin",
            "share of the documents that reached it, over all steps; grey: human, violet: synthetic; "
            "lines: ± one standard error",
            "share refused",
        )
        parts.append(book.figure("refusals", charts.rates(refused, words), full=True))
        parts.append(exhibits.counts_table(refused, ("population · policy", "refused", "reached it")))
    caught = figures.detections(book.metrics).with_columns(row="who")
    if caught.height:
        words = Words(
            "What curators took for synthetic, by true origin",
            "violet: synthetic documents caught (the rest were missed); grey: human documents accused wrongly",
            "share of the documents reviewed",
        )
        parts.append(book.figure("detections", charts.rates(caught, words), full=True))
        parts.append(exhibits.counts_table(caught, ("curators", "suspected", "reviewed")))
    about = "Policies and curators see documents; the truth below is known to the simulator alone."
    return _section("ledger", about, "".join(parts))


def _web(book: Book) -> str:
    drawn = [book.figure(name, chart) for name, chart in sites.graphs(book.run.path, book.metrics, book.run.steps)]
    about = "Each dot is a site: its area is the number of documents on it, its colour their synthetic share."
    return _section("web", about, _grid(drawn, "three"))


def _samples(book: Book) -> str:
    about = (
        "The first documents that the first trainers of each population published at the step: nothing was picked. "
        "Control characters are shown by their pictures."
    )
    if book.run.scenario.modality != "text":
        about = "The first documents that each population's first trainers published at the step: nothing was picked."
    return _section("texts", about, exhibits.samples(book.run, book.populations, book.run.trainers()))


def _figures(book: Book) -> str:
    about = "At each population's last measurement: mean over its trainers ± standard error."
    body = exhibits.final_table(book.metrics, book.outcomes, book.populations)
    return _section("figures", about, body)


def _run(book: Book) -> str:
    happened, again = exhibits.events(book.run.events), exhibits.reproduction(book.run)
    spent = f"<h3>What it cost</h3>{exhibits.costs(book.run)}"
    return _section("run", "", f"<h3>What happened</h3>{happened}{spent}<h3>How to reproduce it</h3>{again}")


CONTENTS = {
    "findings": "Findings",
    "quality": "Quality",
    "parameters": "Models and theory",
    "contamination": "Contamination",
    "diversity": "Diversity and tails",
    "downstream": "Downstream tasks",
    "ledger": "Ledger",
    "web": "The web",
    "texts": "Documents",
    "figures": "Final figures",
    "run": "The run",
}
_TEXT = (_quality, _contamination, _diversity, _downstream, _ledger, _web, _samples, _figures, _run)
_NUMBERS = (_parameters, _contamination, _ledger, _web, _samples, _parameter_figures, _run)
_KEYS = {section: section.__name__.removeprefix("_") for section in (*_TEXT, *_NUMBERS)}
_KEYS |= {_samples: "texts", _parameter_figures: "figures"}


def sections(book: Book) -> dict[str, Callable[[Book], str]]:
    """Return the sections of this run's report by their key in CONTENTS: texts, or vectors and categories."""
    chosen = _TEXT if book.run.scenario.modality == "text" else _NUMBERS
    asked = book.run.scenario.measure.downstream is not None
    return {_KEYS[section]: section for section in chosen if asked or section is not _downstream}
