"""Consistency of what a scenario measures, and of the laws beside it, with the rest of the scenario."""

from __future__ import annotations

from ecosystem.errors import nearest
from ecosystem.metrics.base import TEXT_METRICS
from ecosystem.metrics.catalogue import definitions
from ecosystem.metrics.tasks import TASKS
from ecosystem.policies.base import Filter, WritesWatermark
from ecosystem.policies.duplicates import without_held_out
from ecosystem.scenario.entries.instruments import InstrumentSpec
from ecosystem.scenario.requirements import absent
from ecosystem.scenario.tables import ScenarioTables
from ecosystem.theory.laws import wrong_law


def measurements(s: ScenarioTables) -> list[str]:
    """Return a sentence for every measurement or law that the scenario does not allow."""
    checks = (_theory, _downstream, _overlap, _text_metrics, _domains, _radioactivity, _instruments)
    return [problem for check in checks for problem in check(s)]


def _instruments(s: ScenarioTables) -> list[str]:
    """Return a sentence for every instrument that observes what the scenario does not have."""
    problems = []
    gates = {name for names in (s.web.publish, *(trainer.select for trainer in s.trainers.values())) for name in names}
    moved = any(path == "web.publish" or path.endswith(".select") for change in s.changes for path in change.set)
    for name, instrument in s.instruments.items():
        problems += _unknown_sites(s, f"instruments.{name}", instrument)
        path, policy = f"instruments.{name}.policy", instrument.policy
        if policy is None:
            continue
        problems += absent(s, path, policy, "policies")
        if policy in s.policies and not isinstance(s.policies[policy], Filter):
            problems.append(f'{path}: the policy "{policy}" ({s.policies[policy].kind}) keeps all; name a filter')
        elif policy in s.policies and policy not in gates and not moved:
            problems.append(
                f'{path}: the policy "{policy}" is at no gate whose verdicts are recorded; list it in web.publish, or '
                "in the select of a trainer"
            )
    return problems


def _unknown_sites(s: ScenarioTables, path: str, instrument: InstrumentSpec) -> list[str]:
    """Return a sentence for every type of sites that an instrument observes, but the web does not have."""
    types = s.web.types or {}
    if not types and instrument.of == "new_sites":
        return [f"{path}.of: no site is born on a web without types of sites; set web.types, or observe others"]
    return [
        f'{path}.site_types: there is no type "{name}"{nearest(name, types)}; defined in [web.types]: '
        f"{', '.join(sorted(types)) or 'none'}"
        for name in instrument.site_types or []
        if name not in types
    ]


def _theory(s: ScenarioTables) -> list[str]:
    """Return a sentence for every closed form that cannot be computed or refers to an undefined name."""
    problems = []
    for number, theory in enumerate(s.theory):
        chosen = s.writers.get(theory.population)
        if theory.population in s.trainers or chosen is None or chosen.choice is None:
            problems += absent(s, f"theory.{number}.population", theory.population, "trainers")
        problem = wrong_law(theory.law, theory.parameters, s.modality)
        if problem:
            problems.append(f"theory.{number}.{problem}")
        metrics = definitions()
        if theory.metric not in metrics:
            problems.append(
                f'theory.{number}.metric: there is no metric "{theory.metric}"{nearest(theory.metric, metrics)}; '
                "see `ecosystem list metrics`"
            )
    return problems


def _text_metrics(s: ScenarioTables) -> list[str]:
    """Return a sentence for every text metric that does not exist."""
    metrics = TEXT_METRICS.all()
    return [
        f'measure.texts: there is no text metric "{m}"{nearest(m, metrics)}; available: {", ".join(metrics)}'
        for m in s.measure.texts or []
        if m not in metrics
    ]


def _domains(s: ScenarioTables) -> list[str]:
    """Return a sentence for every domain of documents that does not exist, is empty, or is named twice."""
    path, problems = "measure.domains", []
    for name in s.measure.domains or []:
        source = s.sources.get(name)
        if (source is None) == (name not in s.trainers):
            fault = "is both a source and a population" if source else "is neither a source nor a population"
            problems.append(f'{path}: "{name}" {fault} of trainers{nearest(name, [*s.sources, *s.trainers])}')
        elif source is not None and not source.held_out:
            problems.append(f"{path}: models are scored on held-out documents, but sources.{name}.held_out is 0")
        elif source is None and not s.measure.synthetic:
            problems.append(f'{path}: the unpublished documents of "{name}" are scored, but measure.synthetic is 0')
    if len(set(s.measure.domains or [])) < len(s.measure.domains or []):
        problems.append(f"{path}: lists a domain twice; remove one")
    return problems


def _radioactivity(s: ScenarioTables) -> list[str]:
    """Return a sentence if models are to be tested for a watermark that none of them can write."""
    models = {trainer.model for trainer in s.trainers.values()}
    tested = [p for p in s.policies.values() if isinstance(p, WritesWatermark) and p.model in models]
    if s.measure.radioactivity is None or tested:
        return []
    return [
        "measure.radioactivity: no policy of kind watermark names the model of a trainer; add one, for whose watermark "
        "models are tested, or remove this key"
    ]


def _downstream(s: ScenarioTables) -> list[str]:
    """Return a sentence for every reason why the downstream tasks cannot be built or evaluated."""
    settings, path = s.measure.downstream, "measure.downstream"
    if settings is None:
        return []
    if s.modality != "text":
        return [f"{path}: tasks need text, but the documents of this scenario are of kind {s.modality}; remove it"]
    tasks, problems = TASKS.all(), []
    for field in ("tasks", "zero_shot"):
        names = getattr(settings, field)
        problems += [
            f'{path}.{field}: there is no task "{name}"{nearest(name, tasks)}; there are {", ".join(tasks)}'
            for name in names
            if name not in tasks
        ]
        if len(set(names)) < len(names):
            problems.append(f"{path}.{field}: lists a task twice; remove one")
    source = s.sources.get(s.web.initial.source) if s.web.initial is not None else None
    if s.web.initial is None:
        problems.append(f"{path}: tasks are built from the source of the initial documents; set web.initial")
    elif source is not None and not source.held_out:
        problems.append(
            f"{path}: tasks are built from documents that are never published, but "
            f"sources.{s.web.initial.source}.held_out is 0"
        )
    elif source is not None and not source.has_topics:
        problems += [
            f'{path}: the task "{name}" needs the topics of documents, which a source of kind {source.kind} does '
            "not provide (python_docs does); remove the task"
            for name in dict.fromkeys([*settings.tasks, *settings.zero_shot])
            if name in tasks and tasks[name].needs_topics
        ]
    if (
        settings.tasks
        and not settings.zero_shot
        and s.models
        and not any(model.supports_prompts for model in s.models.values())
    ):
        kinds = ", ".join(sorted({model.kind for model in s.models.values()}))
        problems.append(
            f"{path}.tasks: no model of this scenario can be fine-tuned on a task ({kinds}; gpt2 and causal_lm can); "
            "use zero_shot instead"
        )
    return problems


def _overlap(s: ScenarioTables) -> list[str]:
    """Return a sentence if there are no held-out texts whose overlap could be measured."""
    if s.measure.overlap is None:
        return []
    if s.modality != "text":
        return [f"measure.overlap: counts words, but documents here are of kind {s.modality}; remove it"]
    return without_held_out("measure.overlap", s)
