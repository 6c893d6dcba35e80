"""The findings of a run in sentences, written from its numbers alone.

A change is reported only beyond two standard errors. Missing measurements are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl

from ecosystem.formats import number, percent
from ecosystem.report import summaries
from ecosystem.report.closed_forms import Agreement
from ecosystem.report.summaries import Outcome

TOLD = 6  # most populations with a sentence of their own


def signed(value: float, digits: int = 2) -> str:
    """Format a number with its sign."""
    return f"{value:+,.{digits}f}".replace("-", "−")


def plus_minus(value: float, error: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """Format ``value ± error``, or the value alone if its error is unknown; a small error gives more digits."""
    if error is not None and 0 < error < 10.0**-digits:
        digits = min(5, math.ceil(-math.log10(error)))
    text = signed(value, digits) if sign else number(value, digits)
    return text if error is None else f"{text}\u00a0±\u00a0{number(error, digits)}"


def listed(parts: Sequence[str]) -> str:
    """Join names: ``a, b and c``."""
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else ""


def bold(name: str) -> str:
    """Mark a name in a sentence as bold."""
    return f"**{name}**"


def _plural(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def progress(done: int, planned: int) -> str:
    """State how much of an unfinished run is done; "" for a finished run."""
    if done == 0:
        return "Only step 0, the opening of the web, is committed: there is nothing to conclude yet."
    if done < planned:
        return f"This run is unfinished: {done} of {_plural(planned, 'step')} are committed."
    return ""


def contamination(metrics: pl.DataFrame, populations: Sequence[str]) -> list[str]:
    """State the synthetic shares of the web and of the training sets."""
    lines = []
    share, depth = summaries.series(metrics, "web", "synthetic_share"), summaries.series(metrics, "web", "depth")
    if share.height == 1:
        lines.append(f"At step {share['step'][0]} {percent(share['value'][0])} of the web's documents are synthetic.")
    elif share.height:
        (first, start, _), (last, end, _) = share.row(0), share.row(-1)
        moved = "stayed at" if abs(end - start) < 0.0005 else "rose" if end > start else "fell"
        course = percent(end) if moved == "stayed at" else f"from {percent(start)} to {percent(end)}"
        sentence = f"Between steps {first} and {last} the synthetic share of the web {moved} {course}"
        if depth.height:
            sentence += f", at a mean depth of {number(depth['value'][-1], 1)} model hops from human data"
        lines.append(sentence + ".")
    trained = summaries.means(summaries.members(metrics, "synthetic_share", "training_set"))
    parts = []
    for population in populations:
        last_set = summaries.at(trained, population)
        if last_set is not None:
            parts.append((last_set[0], f"{bold(population)} {percent(last_set[0])}"))
    if 0 < len(parts) <= TOLD:
        lines.append(f"Synthetic share of the last training sets: {listed([text for _, text in parts])}.")
    elif parts:
        low, high = min(parts), max(parts)
        lines.append(f"The synthetic share of the last training sets ranged from {low[1]} to {high[1]}.")
    return lines


def agreement(agreements: Sequence[Agreement]) -> list[str]:
    """State with how many closed forms the simulation agrees at the last step, and name the others."""
    judged = [(one, one.z) for one in agreements if one.z is not None]
    if not judged:
        return []
    off = [(one, z) for one, z in judged if abs(z) > 2]
    sentence = (
        f"At the last step {len(judged) - len(off)} of {_plural(len(judged), 'closed form')} lie within two standard "
        "errors of the simulated mean"
    )
    if off:
        worst = sorted(off, key=lambda pair: -abs(pair[1]))[:TOLD]
        names = [f"{one.metric} of {bold(one.population)} ({signed(z, 1)} standard errors)" for one, z in worst]
        sentence += f"; further away {'is' if len(off) == 1 else 'are'} {listed(names)}"
    return [sentence + "."]


def quality(outcomes: Sequence[Outcome]) -> list[str]:
    """State which population degraded, by how much, and how far towards the randomly initialised model."""
    moved = [o for o in outcomes if o.verdict != "unknown"]
    alone = [bold(o.population) for o in outcomes if o.first_step == o.last_step]
    blind = [o for o in outcomes if o.first_step != o.last_step and o.error is None]
    ranked = sorted(moved, key=lambda o: -o.change)
    shown = ranked if len(ranked) <= TOLD else [*ranked[:2], *ranked[-2:]]
    sentences = [_outcome(o) for o in shown]
    if len(shown) < len(ranked):
        counts = {v: sum(o.verdict == v for o in ranked) for v in ("degraded", "improved", "unchanged")}
        sentences.insert(
            0,
            f"Of {len(ranked)} populations {counts['degraded']} degraded, {counts['improved']} improved and "
            f"{counts['unchanged']} did not change measurably on held-out human text; "
            "the two that fared worst and the two that fared best:",
        )
    sentences += [
        f"{bold(o.population)} moved by {signed(o.change)} nats per token ({number(o.before)} → {number(o.after)}); "
        "its standard error is unknown."
        for o in blind[:TOLD]
    ]
    if alone:
        who = listed(alone) if len(alone) <= TOLD else _plural(len(alone), "population")
        sentences.append(f"The change in quality of {who} is unknown: it was measured at one step only.")
    return sentences


def _outcome(o: Outcome) -> str:
    course = f"{number(o.before)} → {number(o.after)}"
    change = plus_minus(o.change, o.error, sign=True)
    if o.verdict == "unchanged":
        return f"{bold(o.population)} shows no measurable change ({change} nats per token, {course})."
    verb = "degraded" if o.verdict == "degraded" else "improved"
    size = plus_minus(abs(o.change), o.error)
    sentence = f"{bold(o.population)} {verb} by {size} nats per token on held-out human text ({course})"
    if o.towards_random is not None and o.verdict == "degraded":
        sentence += f", {percent(o.towards_random)} of the way to the randomly initialised model"
    return sentence + "."


def diversity(metrics: pl.DataFrame, populations: Sequence[str]) -> list[str]:
    """State the change in diversity of published text, against human text."""
    values = summaries.members(metrics, "distinct_2")
    if values.is_empty():
        return []
    levels, changes = summaries.means(values), summaries.means(summaries.since_start(values))
    human = summaries.references(metrics, "distinct_2").filter(pl.col("kind") == "human")["value"]
    parts: list[tuple[float, str]] = []
    for population in populations:
        level, change = summaries.at(levels, population), summaries.at(changes, population)
        if level is None or change is None:
            continue
        begun = levels.filter(pl.col("population") == population)["step"][0]
        if begun == level[2]:
            parts.append((level[0], f"{bold(population)} {plus_minus(level[0], level[1])} (measured once)"))
        elif change[1] is None or abs(change[0]) > 2 * change[1]:
            verb = "fell" if change[0] < 0 else "rose"
            course = f"from {number(level[0] - change[0])} to {plus_minus(level[0], level[1])}"
            parts.append((change[0], f"{bold(population)} {verb} {course}"))
        else:
            parts.append(
                (change[0], f"{bold(population)} did not change measurably ({plus_minus(level[0], level[1])})")
            )
    if not parts:
        return []
    shown = [text for _, text in (parts if len(parts) <= TOLD else [min(parts), max(parts)])]
    against = f" (human text: {number(human[0])})" if len(human) else ""
    return [f"Distinct 2-grams of published text, as a share of all{against}: {'; '.join(shown)}."]


def refusals(metrics: pl.DataFrame) -> list[str]:
    """State the rates at which policies refused documents and curators suspected them."""
    sentences = []
    table = summaries.refusals(metrics).filter(pl.col("flagged").sum().over("what") > 0)
    for policy in table["what"].unique(maintain_order=True).to_list()[:TOLD]:
        rows = table.filter(pl.col("what") == policy)
        sentences.append(f"The policy {bold(policy)} refused {_by_origin(rows)}.")
    caught = summaries.detections(metrics)
    for curators in caught["who"].unique(maintain_order=True).to_list()[:3]:
        rows = caught.filter(pl.col("who") == curators)
        sentences.append(f"Of the documents reviewed, {bold(curators)} took for synthetic {_by_origin(rows)}.")
    return sentences


def _by_origin(rows: pl.DataFrame) -> str:
    sums = rows.group_by("origin", maintain_order=True).agg(pl.col("flagged", "total").sum())
    return listed(
        [
            f"{percent(flagged / total)} of the {total:,.0f} {origin} documents"
            for origin, flagged, total in sums.iter_rows()
        ]
    )


def missing(metrics: pl.DataFrame, expected: Mapping[str, tuple[str, str]]) -> str:
    """Name expected measurements that are missing; ``expected``: name → (scope, metric)."""
    there = set(metrics.select("scope", "metric").unique().rows())
    absent = [name for name, key in expected.items() if key not in there]
    return f"Not measured in this run: {listed(absent)}." if absent else ""


def caution(outcomes: Sequence[Outcome]) -> str:
    """State what the standard errors do and do not cover."""
    if not any(o.verdict != "unknown" for o in outcomes):
        return ""
    single = [o.population for o in outcomes if o.members == 1]
    sentence = (
        "This is one seed: standard errors cover the choice of held-out documents and the trainers of a population, "
        "not other webs; run the scenario with other seeds to see how far the results repeat."
    )
    if single and len(single) == len(outcomes):
        sentence = sentence.replace(" and the trainers of a population", " (each population has a single trainer)")
    return sentence
