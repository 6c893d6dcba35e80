"""What entries of a scenario require of others: names, sites, conditions, mergers, and measurements of text.

Every function returns sentences that begin with a dotted path.
"""

from __future__ import annotations

from ecosystem.errors import ScenarioError, nearest
from ecosystem.formats import counted
from ecosystem.metrics.conditions import Condition, same_values
from ecosystem.policies.base import Policy
from ecosystem.scenario.entries.people import WriterSpec
from ecosystem.scenario.entries.trainers import TrainerSpec
from ecosystem.scenario.measured import unmeasured
from ecosystem.scenario.tables import ScenarioTables

_ENTRIES = {
    "sources": "a source",
    "models": "a model",
    "policies": "a policy",
    "writers": "a population of writers",
    "trainers": "a population of trainers",
    "curators": "a population of curators",
    "instruments": "an instrument",
}


def absent(s: ScenarioTables, path: str, name: str, section: str) -> list[str]:
    """Return a sentence if no entry of a section has this name."""
    tables = dict(s.tables())
    table = tables[section]
    if name in table:
        return []
    defined = ", ".join(sorted(table)) or "none"
    other = next((other for other, entries in tables.items() if name in entries), None)
    hint = f"; {other}.{name} is {_ENTRIES[other]}, not {_ENTRIES[section]}" if other else nearest(name, table)
    return [f"{path}: there is no [{section}.{name}]{hint}; defined in [{section}]: {defined}"]


def succession(s: ScenarioTables, path: str, name: str) -> list[str]:
    """Return a sentence for every reason why trainers cannot split from others or become part of them."""
    trainer, problems = s.trainers[name], []
    for field in ("split_from", "merged_into"):
        other, where = getattr(trainer, field), f"{path}.{field}"
        if other is None:
            continue
        if other not in s.trainers or other == name:
            problems += absent(s, where, other, "trainers") or [f"{where}: must be another population than {name}"]
            continue
        counts = trainer.count, s.trainers[other].count
        if counts[0] != counts[1]:
            problems.append(
                f"{where}: {name} has {counted(counts[0], 'trainer')} and {other} {counts[1]}, but each needs its "
                "counterpart; give both the same count"
            )
        shares = field == "split_from" or trainer.merged_weights is not None
        if shares and trainer.model != s.trainers[other].model:
            problems.append(f"{where}: weights can only be shared within one model; give {name} and {other} the same")
    model = s.models.get(trainer.model)
    if trainer.merged_weights is not None and model is not None and not model.averages_parameters:
        problems.append(
            f"{path}.merged_weights: the parameters of models.{trainer.model} ({model.kind}) have no meaningful mean; "
            f"remove it, so that {trainer.merged_into} keeps its own"
        )
    seen, into = [name], trainer.merged_into
    while into in s.trainers and into not in seen:
        seen, into = [*seen, into], s.trainers[into].merged_into
    if into == name and len(seen) > 1:
        problems.append(f"{path}.merged_into: {' → '.join([*seen, name])} is a circle; one of them must remain")
    return problems


def conditions(s: ScenarioTables, path: str, policy: Policy) -> list[str]:
    """Return a sentence for every condition of a policy that cannot be parsed or measured, or that never ends."""
    problems, parsed = [], {}
    populations = {name: trainer.count for name, trainer in s.trainers.items()}
    for field in ("when", "ends_when"):
        text = getattr(policy, field)
        try:
            if text is not None:
                parsed[field] = Condition.parse(text)
        except ScenarioError as error:
            problems.append(f"{path}.{field}: {error}")
    for field, condition in parsed.items():
        parts = condition.comparisons()
        wrong = [problem for part in parts if (problem := part.problem(populations) or unmeasured(s, part))]
        problems += [f"{path}.{field}: {problem}" for problem in wrong]
    if len(parsed) == 2 and (value := same_values(parsed["when"], parsed["ends_when"])):
        metric = next(parsed["when"].comparisons()).name
        problems.append(
            f"{path}.ends_when: both conditions hold if {metric} is {value}; let them exclude each other, such as "
            f'when = "{metric} > 0.4" and ends_when = "{metric} < 0.3"'
        )
    return problems


def site_types(s: ScenarioTables) -> list[str]:
    """Return a sentence for every population that publishes on sites of a type that the web does not have."""
    types, problems = s.web.types or {}, []
    publishers: dict[str, WriterSpec | TrainerSpec] = {f"writers.{name}": w for name, w in s.writers.items()}
    publishers |= {f"trainers.{name}": trainer for name, trainer in s.trainers.items()}
    for path, settings in publishers.items():
        if settings.site_type is not None and settings.site_type not in types:
            defined = f"defined: {', '.join(types)}" if types else "the web has no types; add [web.types.NAME]"
            hint = nearest(settings.site_type, types)
            problems.append(f"{path}.site_type: there is no [web.types.{settings.site_type}]{hint}; {defined}")
    for name, trainer in s.trainers.items():
        into = s.trainers.get(trainer.merged_into or "")
        if into is not None and into.site_type != trainer.site_type:
            problems.append(
                f"trainers.{name}.merged_into: {name} and {trainer.merged_into} publish on different sites; give both "
                "the same site_type, or neither"
            )
    return problems
