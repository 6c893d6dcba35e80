"""A scenario in a line of text and as a card of a notebook."""

from __future__ import annotations

from ecosystem.cards import Grid, card
from ecosystem.formats import counted
from ecosystem.scenario.tables import ScenarioTables


def line(scenario: ScenarioTables) -> str:
    """Return a scenario in one line: its name, its size and its seed."""
    trainers = sum(spec.count for spec in scenario.trainers.values())
    populations = counted(len(scenario.trainers), "population")
    return (
        f"<Scenario {scenario.name}: {counted(scenario.steps, 'step')}, seed {scenario.seed}, "
        f"{counted(trainers, 'trainer')} in {populations}>"
    )


def scenario_card(scenario: ScenarioTables) -> str:
    """Return the card of a scenario: its size and its entries."""
    calendar, initial = scenario.calendar, scenario.web.initial
    facts = {
        "steps": scenario.steps,
        "dates": None if calendar is None else calendar.span(0, scenario.steps),
        "seed": scenario.seed,
        "documents": scenario.modality,
        "web": scenario.web.graph,
        "sites": scenario.web.sites,
        "at first": None if initial is None else f"{counted(initial.documents, 'document')} of {initial.source}",
        "retain": " → ".join(scenario.web.retain) or None,
    }
    trainers = [
        (name, t.count, t.model, t.start, " → ".join(t.select) or "everything", f"{float(t.publish):g}")
        for name, t in scenario.trainers.items()
    ]
    people = [(name, w.count, w.source, f"{float(w.rate):g}") for name, w in scenario.writers.items()]
    curators = [(name, c.count, c.action, f"{float(c.reviews):g}") for name, c in scenario.curators.items()]
    entries = [
        (section, name, entry.kind)
        for section, table in scenario.tables()
        if section in ("sources", "models", "policies")
        for name, entry in table.items()
    ]
    changes = [
        (scenario.step_name(change.at), ", ".join(f"{path} = {value}" for path, value in change.set.items()))
        for change in scenario.changes
    ]
    return card(
        f"Scenario {scenario.name}",
        scenario.description,
        facts,
        Grid("Trainers", ["population", "trainers", "model", "from", "select", "documents a step"], trainers),
        Grid("Writers", ["population", "writers", "source", "documents a step"], people),
        Grid("Curators", ["population", "curators", "action", "reviews a step"], curators),
        Grid("Entries", ["section", "name", "kind"], entries),
        Grid("Timed changes", ["at", "set"], changes),
    )
