"""The findings of a run in sentences, derived from its numbers.

A change is reported only if it exceeds two standard errors. Missing measurements are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl

from ecosystem.calendar import Calendar, step_name
from ecosystem.formats import counted, number, percent
from ecosystem.policies.base import Policy
from ecosystem.report import summaries
from ecosystem.report.closed_forms import Agreement
from ecosystem.report.summaries import Outcome
from ecosystem.scenario.reading import reading_graph
from ecosystem.scenario.scenario import Scenario
from ecosystem.theory.networks import reaching_real_data

LISTED = 6  # maximum number of populations, laws or policies listed one by one


def signed(value: float, digits: int = 2) -> str:
    """Format a number with its sign."""
    return f"{value:+,.{digits}f}".replace("-", "−")


def plus_minus(value: float, error: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """Format ``value ± error``, or the value alone if its error is None; a small error adds digits."""
    if error is not None and 0 < error < 10.0**-digits:
        digits = min(5, math.ceil(-math.log10(error)))
    text = signed(value, digits) if sign else number(value, digits)
    return text if error is None else f"{text}\u00a0±\u00a0{number(error, digits)}"


def share(value: float, error: float | None) -> str:
    """Format a share and its standard error in percent.

    An error of 0 is left out: a share of 0 or 1 in a sample does not say that it is exactly that. A small one adds
    digits.
    """
    if not error:
        return percent(value)
    if error >= 5e-4:
        return f"{percent(value)} ± {number(100 * error, 1)}"
    digits = min(4, math.ceil(-math.log10(100 * error)))
    return f"{number(100 * value, digits)}\u00a0% ± {number(100 * error, digits)}"


def listed(parts: Sequence[str]) -> str:
    """Join names: ``a, b and c``."""
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else ""


def bold(name: str) -> str:
    """Mark a name as bold for :func:`ecosystem.report.html.bold_parts`."""
    return f"**{name}**"


def of_population(name: str) -> str:
    """Mark the name of a population as a name in a sentence: any word may be one."""
    return f"population {bold(name)}"


def progress(done: int, planned: int) -> str:
    """State the progress of an unfinished run; "" for a finished run."""
    if done == 0:
        return "Only step 0, the opening of the web, is committed; there are no results yet."
    if done < planned:
        return f"This run is unfinished: {done} of {counted(planned, 'step')} are committed."
    return ""


def contamination(metrics: pl.DataFrame, populations: Sequence[str], calendar: Calendar | None = None) -> list[str]:
    """State the synthetic shares of the web and of the training sets."""
    lines = []
    shares, depth = summaries.series(metrics, "web", "synthetic_share"), summaries.series(metrics, "web", "depth")
    if shares.height == 1:
        when, share_then = step_name(shares["step"][0], calendar), percent(shares["value"][0])
        lines.append(f"At {when}, {share_then} of the documents on the web are synthetic.")
    elif shares.height:
        (first, start, _), (last, end, _) = shares.row(0), shares.row(-1)
        if abs(end - start) < 0.0005:
            change = f"stayed at {percent(end)}"
        else:
            change = f"{'rose' if end > start else 'fell'} from {percent(start)} to {percent(end)}"
        when = f"steps {first} and {last}"
        if calendar is not None:
            when = f"{step_name(first, calendar)} and {step_name(last, calendar)}"
        sentence = f"Between {when}, the synthetic share of the web {change}"
        if depth.height:
            sentence += f"; its documents are now {number(depth['value'][-1], 1)} model hops from human data on average"
        lines.append(sentence + ".")
    trained = summaries.means(summaries.members(metrics, "synthetic_share", "training_set"))
    parts = []
    for population in populations:
        last_set = summaries.at(trained, population)
        if last_set is not None:
            parts.append((last_set[0], f"{percent(last_set[0])} for {of_population(population)}"))
    if 0 < len(parts) <= LISTED:
        sets = "share of the last training set" if len(parts) == 1 else "shares of the last training sets"
        lines.append(f"Synthetic {sets}: {listed([text for _, text in parts])}.")
    elif parts:
        low, high = min(parts), max(parts)
        lines.append(f"Synthetic shares of the last training sets: from {low[1]} to {high[1]}.")
    return lines


def without_real_data(scenario: Scenario, step: int) -> list[str]:
    """Name the populations that reach no source of real data, directly or through what they read of others.

    Only what the scenario makes certain is said (:mod:`ecosystem.scenario.reading`).
    """
    reads, real = reading_graph(scenario, step)
    reaching = reaching_real_data(reads, real)
    there = [name for name, trainer in scenario.at(step).trainers.items() if trainer.present]
    cut_off = [name for name in there if name not in reaching]
    if not cut_off or step == 0:
        return []
    who = f"{len(cut_off)} populations"
    if len(cut_off) <= LISTED:
        who = f"{'population' if len(cut_off) == 1 else 'populations'} {listed([bold(name) for name in cut_off])}"
    reach = "reaches" if len(cut_off) == 1 else "reach"
    sentence = (
        f"At {scenario.step_name(step)}, {who} {reach} no source of real data, neither directly nor through other "
        "laboratories"
    )
    exposed = [bold(name) for name in there if name in reaching and reads[name] & set(cut_off)]
    if exposed and len(exposed) <= LISTED:
        sentence += (
            f"; {listed(exposed)}, with access to real data, {'reads' if len(exposed) == 1 else 'read'} from them"
        )
    return [sentence + "."]


def agreement(agreements: Sequence[Agreement]) -> list[str]:
    """State how many closed forms agree with the simulation at the last step, and name the others."""
    judged = [(agreement, agreement.z) for agreement in agreements if agreement.z is not None]
    if not judged:
        return []
    outside = [(agreement, z) for agreement, z in judged if abs(z) > 2]
    inside = len(judged) - len(outside)
    if len(judged) == 1:
        lies = f"the closed form {'does not lie' if outside else 'lies'}"
    else:
        lies = f"{inside} of {len(judged)} closed forms {'lies' if inside == 1 else 'lie'}"
    sentence = f"At the last step, {lies} within two standard errors of the simulated mean"
    if outside:
        worst = sorted(outside, key=lambda pair: -abs(pair[1]))[:LISTED]
        names = [f"{a.metric} of {bold(a.population)} ({signed(z, 1)} standard errors)" for a, z in worst]
        sentence += f"; outside: {listed(names)}"
    return [sentence + "."]


def quality(outcomes: Sequence[Outcome]) -> list[str]:
    """State which populations degraded, by how much, and how far towards the randomly initialised model."""
    measured_once = [bold(o.population) for o in outcomes if o.first_step == o.last_step]
    without_error = [o for o in outcomes if o.first_step != o.last_step and o.error is None]
    ranked = sorted((o for o in outcomes if o.verdict != "unknown"), key=lambda o: -o.change)
    shown = ranked if len(ranked) <= LISTED else [*ranked[:2], *ranked[-2:]]
    sentences = [_outcome(o) for o in shown]
    if len(shown) < len(ranked):
        counts = {v: sum(o.verdict == v for o in ranked) for v in ("degraded", "improved", "unchanged")}
        sentences.insert(
            0,
            f"Of {len(ranked)} populations, {counts['degraded']} degraded, {counts['improved']} improved and "
            f"{counts['unchanged']} did not change measurably on held-out human text; "
            "the two worst and the two best are:",
        )
    sentences += [
        f"Population {bold(o.population)} changed by {signed(o.change)} nats per token "
        f"({number(o.before)} → {number(o.after)}); its standard error is unknown."
        for o in without_error[:LISTED]
    ]
    if measured_once:
        n = len(measured_once)
        names = listed(measured_once) if n <= LISTED else counted(n, "population")
        sentences.append(f"The change in quality of {names} is unknown: it was measured at only one step.")
    return sentences


def _outcome(o: Outcome) -> str:
    levels = f"{number(o.before)} → {number(o.after)}"
    change = plus_minus(o.change, o.error, sign=True)
    if o.verdict == "unchanged":
        return f"Population {bold(o.population)} shows no measurable change ({change} nats per token, {levels})."
    verb = "degraded" if o.verdict == "degraded" else "improved"
    size = plus_minus(abs(o.change), o.error)
    sentence = f"Population {bold(o.population)} {verb} by {size} nats per token on held-out human text ({levels})"
    if o.towards_random is not None and o.verdict == "degraded":
        sentence += f", {percent(o.towards_random)} of the way to the randomly initialised model"
    return sentence + "."


def diversity(metrics: pl.DataFrame, populations: Sequence[str]) -> list[str]:
    """State the change in diversity of published text, with that of human text for comparison."""
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
        first_step = levels.filter(pl.col("population") == population)["step"][0]
        if first_step == level[2]:
            parts.append((level[0], f"{of_population(population)} {plus_minus(level[0], level[1])} (measured once)"))
        elif change[1] is None or abs(change[0]) > 2 * change[1]:
            verb = "fell" if change[0] < 0 else "rose"
            after = plus_minus(level[0], level[1])
            digits = len(after.partition("\u00a0")[0].partition(".")[2])
            before = number(level[0] - change[0], digits)
            parts.append((change[0], f"{of_population(population)} {verb} from {before} to {after}"))
        else:
            parts.append(
                (change[0], f"{of_population(population)} did not change measurably ({plus_minus(level[0], level[1])})")
            )
    if not parts:
        return []
    shown = [text for _, text in (parts if len(parts) <= LISTED else [min(parts), max(parts)])]
    reference = f" (human text: {number(human[0])})" if len(human) else ""
    return [f"Distinct 2-grams as a share of all 2-grams in published text{reference}: {'; '.join(shown)}."]


def refusals(metrics: pl.DataFrame) -> list[str]:
    """State the rates at which policies refused documents and curators suspected documents."""
    sentences = []
    table = summaries.refusals(metrics).filter(pl.col("flagged").sum().over("what") > 0)
    for policy in table["what"].unique(maintain_order=True).to_list()[:LISTED]:
        rows = table.filter(pl.col("what") == policy)
        sentences.append(f"The policy {bold(policy)} refused {_by_origin(rows)}.")
    suspected = summaries.detections(metrics)
    for curators in suspected["who"].unique(maintain_order=True).to_list()[:3]:
        rows = suspected.filter(pl.col("who") == curators)
        sentences.append(f"Of the documents they reviewed, {bold(curators)} suspected {_by_origin(rows)}.")
    return sentences


def overlap(metrics: pl.DataFrame, words: int) -> list[str]:
    """State the share of held-out documents found on the web at the last step."""
    found = summaries.series(metrics, "web", "held_out_overlap")
    if found.is_empty():
        return []
    _, value, error = found.row(-1)
    common = f"have {counted(words, 'word')} in a row in common with a document on the web"
    return [f"{share(value, error)} of the held-out documents {common}."]


def conditions(metrics: pl.DataFrame, policies: Mapping[str, Policy], calendar: Calendar | None = None) -> list[str]:
    """State at which steps each policy with a condition was in force."""
    last, sentences = metrics["step"].n_unique() - 1, []
    for name, steps in list(summaries.in_force(metrics).items())[:LISTED]:
        rule = f"when {policies[name].when}" if name in policies else "on a condition"
        times = f"at {len(steps)} of {counted(last, 'step')} ({spans(steps, calendar)})" if steps else "at no step"
        sentences.append(f"The policy {bold(name)}, in force {rule}, was in force {times}.")
    return sentences


def spans(steps: Sequence[int], calendar: Calendar | None = None) -> str:
    """Format ascending steps as ranges: ``2–4, 7``; with a calendar as ``2–4 (August 2022 to October 2022), 7 (…)``."""
    firsts = [step for step in steps if step - 1 not in steps]
    lasts = [step for step in steps if step + 1 not in steps]
    return ", ".join(
        (f"{a}–{b}" if a < b else f"{a}") + ("" if calendar is None else f" ({calendar.span(a, b)})")
        for a, b in zip(firsts, lasts, strict=True)
    )


def _by_origin(rows: pl.DataFrame) -> str:
    totals = rows.group_by("origin", maintain_order=True).agg(pl.col("flagged", "total").sum())
    return listed(
        [
            f"{percent(flagged / total)} of the {counted(total, f'{origin} document')}"
            for origin, flagged, total in totals.iter_rows()
        ]
    )


def missing(metrics: pl.DataFrame, expected: Mapping[str, tuple[str, str]]) -> str:
    """Name the expected measurements that are missing; ``expected``: name → (scope, metric)."""
    measured = set(metrics.select("scope", "metric").unique().rows())
    absent = [name for name, key in expected.items() if key not in measured]
    return f"Not measured in this run: {listed(absent)}." if absent else ""


def caution(outcomes: Sequence[Outcome]) -> str:
    """State what the standard errors do and do not cover."""
    if not any(o.verdict != "unknown" for o in outcomes):
        return ""
    single = all(o.members == 1 for o in outcomes)
    trainers = " (each population has a single trainer)" if single else " and the trainers of a population"
    return (
        f"This run has one seed. Standard errors cover the choice of held-out documents{trainers}, but not other webs; "
        "run the scenario with other seeds to see how well the results replicate."
    )
