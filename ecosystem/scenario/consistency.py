"""Check a scenario as a whole: every name is defined, all parts are of one sort, the sites suffice.

Each part has been checked by itself before; its ``problems`` method lists what its kind requires of the others. Every
function returns sentences that begin with a dotted path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ecosystem.errors import nearest
from ecosystem.families.base import Family
from ecosystem.metrics.base import TEXT_METRICS
from ecosystem.metrics.catalogue import definitions
from ecosystem.metrics.tasks import TASKS
from ecosystem.policies.base import Adder, Filter, Policy, Weigher, WritesWatermark
from ecosystem.scenario.entries import CuratorSpec, TrainerSpec, WriterSpec
from ecosystem.scenario.tables import ScenarioTables
from ecosystem.theory.laws import wrong_law


def inconsistencies(s: ScenarioTables) -> list[str]:
    """Return a sentence for every inconsistency in a scenario whose parts are each valid."""
    return [
        *_web(s),
        *_trainers(s),
        *_curators(s),
        *_parts(s),
        *_mixed(s),
        *_theory(s),
        *_downstream(s),
        *_text_metrics(s),
    ]


def _absent(path: str, name: str, table: Mapping[str, Any], section: str) -> list[str]:
    """Return a sentence if no entry of a section has this name."""
    if name in table:
        return []
    there = ", ".join(sorted(table)) or "none"
    return [f"{path}: there is no [{section}.{name}]{nearest(name, table)}; defined in [{section}]: {there}"]


def _gate(
    s: ScenarioTables, path: str, names: Sequence[str], allowed: tuple[type[Policy], ...], what: str
) -> list[str]:
    """Return a sentence for every policy that a gate cannot apply; ``what`` names those that it can."""
    problems = []
    for name in names:
        problems += _absent(path, name, s.policies, "policies")
        policy = s.policies.get(name)
        if policy is not None and not isinstance(policy, allowed):
            problems.append(f'{path}: the policy "{name}" ({policy.kind}) cannot be used here; {what}')
    if len(set(names)) < len(names):
        problems.append(f"{path}: names a policy twice; a gate applies each policy once")
    return problems


def _web(s: ScenarioTables) -> list[str]:
    """Return a sentence for every undefined source, and every policy that the web's gates cannot apply."""
    problems = []
    if s.web.initial is not None:
        problems += _absent("web.initial.source", s.web.initial.source, s.sources, "sources")
    problems += _gate(s, "web.publish", s.web.publish, (Filter,), "only filters can be used at the publish gate")
    both = (Filter, Weigher)
    problems += _gate(s, "web.retain", s.web.retain, both, "only filters and weighers can be used at the retain gate")
    for name, writer in s.writers.items():
        problems += _absent(f"writers.{name}.source", writer.source, s.sources, "sources")
    return problems


def _trainers(s: ScenarioTables) -> list[str]:
    """Return a sentence for every model or policy that trainers name and cannot use."""
    problems = []
    for name, trainer in s.trainers.items():
        path = f"trainers.{name}"
        problems += _absent(f"{path}.model", trainer.model, s.models, "models")
        problems += _gate(s, f"{path}.select", trainer.select, (Filter, Weigher, Adder), "")
        problems += [
            f'{path}.retain: the policy "{name}" ({s.policies[name].kind}) cannot thin an archive, which knows only '
            "when a document was acquired; replace, accumulate, accumulate_subsample, window and decay can"
            for name in trainer.retain or []
            if name in s.policies and not s.policies[name].thins_archives
        ]
        problems += _gate(s, f"{path}.retain", trainer.retain or [], (Policy,), "")
        mark, where = trainer.decoding.watermark, f"{path}.decoding.watermark"
        if mark is not None:
            problems += _absent(where, mark, s.policies, "policies")
        if mark in s.policies and not isinstance(s.policies[mark], WritesWatermark):
            problems.append(
                f'{where}: the policy "{mark}" is of kind {s.policies[mark].kind}; only one of kind watermark can '
                "mark text"
            )
    return problems


def _curators(s: ScenarioTables) -> list[str]:
    """Return a sentence for every reason why curators cannot measure the fluency of a document."""
    problems = []
    for name, curator in s.curators.items():
        if curator.judge is None:
            continue
        path, judge = f"curators.{name}.judge", s.models.get(curator.judge)
        problems += _absent(path, curator.judge, s.models, "models")
        if s.modality != "text":
            problems.append(f"{path}: only text has fluency, but documents here are {s.modality}; leave it out")
        elif judge is not None and not judge.starts_pretrained:
            problems.append(
                f'{path}: the model "{curator.judge}" starts from random weights and cannot measure fluency'
            )
        elif s.web.initial is None or not getattr(s.sources.get(s.web.initial.source), "held_out", 1):
            problems.append(
                f"{path}: fluency is measured against documents that are never published; give web.initial, from a "
                "source with held_out documents"
            )
    return problems


def _parts(s: ScenarioTables) -> list[str]:
    """Return the problems that sources, models and policies report, and every name that refers to nothing."""
    problems = []
    for name, source in s.sources.items():
        problems += source.problems(f"sources.{name}", s)
    for name, model in s.models.items():
        problems += model.problems(f"models.{name}", s)
    for name, policy in s.policies.items():
        path = f"policies.{name}"
        for field, section, table in (("source", "sources", s.sources), ("model", "models", s.models)):
            named = getattr(policy, field, None)
            if named is not None:
                problems += _absent(f"{path}.{field}", named, table, section)
        problems += policy.problems(path, s)
    return problems


def _theory(s: ScenarioTables) -> list[str]:
    """Return a sentence for every closed form that names nothing, or cannot be computed."""
    problems = []
    for number, theory in enumerate(s.theory):
        problems += _absent(f"theory.{number}.population", theory.population, s.trainers, "trainers")
        wrong = wrong_law(theory.law, theory.parameters, s.modality)
        if wrong:
            problems.append(f"theory.{number}.{wrong}")
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
        f'measure.texts: there is no text metric "{m}"{nearest(m, metrics)}; there are {", ".join(metrics)}'
        for m in s.measure.texts or []
        if m not in metrics
    ]


def unused_settings(s: ScenarioTables) -> list[str]:
    """Return a sentence for every value that is allowed but has no effect.

    These are sources and models that nothing refers to, and budgets of trainers whose model ignores them. Policies may
    be defined only to be enforced later, from the page or in a study.
    """
    referred = set(_strings(s.plain()))
    unused = [
        f"{section}.{name} is not used: nothing refers to it"
        for section, entries in (("sources", s.sources), ("models", s.models))
        for name in entries
        if name not in referred
    ]
    default = TrainerSpec.model_fields["budget"].default
    return unused + [
        f"trainers.{name}.budget has no effect: models.{trainer.model} is of kind {s.models[trainer.model].kind}, and "
        "sees every document that was selected once; a policy of kind sample can limit those"
        for name, trainer in s.trainers.items()
        if trainer.budget != default and not s.models[trainer.model].uses_budget
    ]


def _strings(value: object) -> Iterator[str]:
    """Yield every string among the values of nested tables and lists, keys excluded."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _strings(inner)


def _downstream(s: ScenarioTables) -> list[str]:
    """Return a sentence for every reason why the downstream tasks cannot be made or judged."""
    settings, path = s.measure.downstream, "measure.downstream"
    if settings is None:
        return []
    if s.modality != "text":
        return [f"{path}: tasks are made of text, but this scenario's documents are of sort {s.modality}; leave it out"]
    tasks, problems = TASKS.all(), []
    for field in ("tasks", "zero_shot"):
        names = getattr(settings, field)
        problems += [
            f'{path}.{field}: there is no task "{name}"{nearest(name, tasks)}; there are {", ".join(tasks)}'
            for name in names
            if name not in tasks
        ]
        if len(set(names)) < len(names):
            problems.append(f"{path}.{field}: names a task twice")
    source = s.sources.get(s.web.initial.source) if s.web.initial is not None else None
    if s.web.initial is None:
        problems.append(f"{path}: tasks are made from the source that the web begins with; give web.initial")
    elif source is not None and not source.held_out:
        problems.append(
            f"{path}: tasks are made from documents that are never published, but "
            f"sources.{s.web.initial.source}.held_out is 0"
        )
    elif source is not None and not source.has_topics:
        problems += [
            f'{path}: the task "{name}" asks for the topics of documents, which a source of kind {source.kind} does '
            "not know (python_docs does); leave the task out"
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
            "give zero_shot instead"
        )
    return problems


def _sizes(s: ScenarioTables) -> list[str]:
    """Return a sentence where the initial documents are missing, or the sources' vectors differ in length."""
    problems = []
    if s.web.initial is None and s.models:
        problems.append(
            f"web.initial: is missing, but models of {s.modality} documents learn the form of a document from the "
            "initial documents, and are measured against them; give it a source and a number of documents"
        )
    widths = {name: source.width for name, source in s.sources.items() if source.width is not None}
    if s.modality == "vector" and len(set(widths.values())) > 1:
        lengths = ", ".join(f"{name} {width}" for name, width in widths.items())
        problems.append(
            f"sources: their vectors must all have one length, but the lengths are {lengths}; make them equal, or "
            "leave out a source"
        )
    return problems


def _mixed(s: ScenarioTables) -> list[str]:
    """Return a sentence for every part that is incompatible with the documents of the others."""
    problems = []
    for section in ("sources", "models"):
        for name, part in getattr(s, section).items():
            if part.modality != s.modality:
                problems.append(
                    f"{section}.{name}: is for {part.modality} documents, but this scenario's are {s.modality}; "
                    "all sources and models must be of one sort"
                )
    problems += _dealt(s) + _labels(s)
    return problems if s.modality == "text" else problems + _sizes(s) + _textless(s)


def _labels(s: ScenarioTables) -> list[str]:
    """Return a sentence for every source without true labels, where a model or policy needs them."""
    problems = []
    readers: dict[str, Family | Policy] = {f"models.{name}": family for name, family in s.models.items()}
    readers |= {f"policies.{name}": policy for name, policy in s.policies.items()}
    needs = [path for path, part in readers.items() if part.needs_labels]
    if needs:
        who = f"{needs[0]} ({readers[needs[0]].kind})"
        if s.web.initial is None:
            problems.append(f"web.initial: is missing, but its source says which labels are right, as {who} needs")
        problems += [
            f"sources.{name}: {source.kind} documents have no labels that are right or wrong, but {who} needs them; "
            "give a source of kind labelled"
            for name, source in s.sources.items()
            if not source.labelled
        ]
    return problems


def _textless(s: ScenarioTables) -> list[str]:
    """Return a sentence for every setting that applies to text only, in a scenario of other documents."""
    problems = []
    for name, policy in s.policies.items():
        if policy.reads_text:
            problems.append(f"policies.{name}: {policy.kind} reads words, but documents here are of sort {s.modality}")
    for name, trainer in s.trainers.items():
        decoding = trainer.decoding
        unused = {"prompt": decoding.prompt is not None, "repetition_penalty": decoding.repetition_penalty != 1.0}
        unused["watermark"] = decoding.watermark is not None
        if s.modality == "vector":
            unused |= {"top_k": decoding.top_k is not None, "top_p": decoding.top_p is not None}
        problems += [
            f"trainers.{name}.decoding.{field}: has no meaning for {s.modality} documents; leave it out"
            for field, given in unused.items()
            if given
        ]
    return problems


def _dealt(s: ScenarioTables) -> list[str]:
    """Return a sentence if the sites of an isolated web, or of islands, cannot be allotted to the agents."""
    if s.web.graph not in ("isolated", "islands") or s.web.sites is None:
        return []
    agents: list[tuple[str, WriterSpec | CuratorSpec | TrainerSpec]] = [
        *s.writers.items(),
        *s.curators.items(),
        *s.trainers.items(),
    ]
    if s.web.graph == "isolated":
        needed = sum(agent.count * agent.sites for _, agent in agents)
        whose = "agents that need"
    else:
        islands: dict[str, set[int]] = {}
        for name, agent in agents:
            islands.setdefault(name, set()).add(agent.sites)
        uneven = [name for name, sites in islands.items() if len(sites) > 1]
        if uneven:
            return [f'web: the populations on the island "{uneven[0]}" share its sites; give them all the same sites']
        needed = sum(max(sites) for sites in islands.values())
        whose = "islands (populations by name) that need"
    if needed > s.web.sites:
        return [f"web.sites: {s.web.sites} sites are too few for {whose} {needed} of their own"]
    return []
