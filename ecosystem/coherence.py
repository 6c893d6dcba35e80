"""What must go together in a scenario: names that refer to something, parts of one sort, sites enough for all.

Each part has been checked by itself before. Every function returns sentences that begin with a dotted path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ecosystem.errors import nearest
from ecosystem.families.base import FAMILIES, Family
from ecosystem.metrics.base import TEXT_METRICS
from ecosystem.metrics.catalogue import definitions
from ecosystem.metrics.tasks import TASKS
from ecosystem.policies.base import Adder, Filter, Policy, Weigher
from ecosystem.policies.classifiers import LearnedDetector, QualityClassifier
from ecosystem.policies.sampling import Importance, Sample, VerifiedArchive
from ecosystem.policies.watermark import Watermark
from ecosystem.recipes import CuratorSpec, TrainerSpec, WriterSpec
from ecosystem.theory.laws import wrong_law

if TYPE_CHECKING:
    from ecosystem.scenario import Scenario


def incoherent(s: Scenario) -> list[str]:
    """Return a sentence for everything in a scenario, sound part by part, that does not go together."""
    problems: list[str] = []

    def refer(path: str, name: str, table: Mapping[str, Any], section: str) -> None:
        if name not in table:
            there = ", ".join(sorted(table)) or "none"
            problems.append(
                f"{path}: there is no [{section}.{name}]{nearest(name, table)}; defined in [{section}]: {there}"
            )

    def gate(path: str, names: Sequence[str], allowed: tuple[type[Policy], ...], what: str) -> None:
        for name in names:
            refer(path, name, s.policies, "policies")
            policy = s.policies.get(name)
            if policy is not None and not isinstance(policy, allowed):
                problems.append(f'{path}: the policy "{name}" ({policy.kind}) cannot stand here; {what}')
        if len(set(names)) < len(names):
            problems.append(f"{path}: names a policy twice; each may stand once at a gate")

    if s.web.initial is not None:
        refer("web.initial.source", s.web.initial.source, s.sources, "sources")
    gate("web.publish", s.web.publish, (Filter,), "only filters can stand at the publish gate")
    gate("web.retain", s.web.retain, (Filter, Weigher), "only filters and weighers can stand at the retain gate")
    for name, writer in s.writers.items():
        refer(f"writers.{name}.source", writer.source, s.sources, "sources")
    for name, trainer in s.trainers.items():
        path = f"trainers.{name}"
        refer(f"{path}.model", trainer.model, s.models, "models")
        gate(f"{path}.select", trainer.select, (Filter, Weigher, Adder), "")
        problems += [
            f'{path}.retain: the policy "{name}" ({s.policies[name].kind}) cannot thin an archive, which knows only '
            "when a document was acquired; replace, accumulate, accumulate_subsample, window and decay can"
            for name in trainer.retain or []
            if name in s.policies and (s.policies[name].needs_content or _counts_words(s.policies[name]))
        ]
        gate(f"{path}.retain", trainer.retain or [], (Policy,), "")
        if trainer.decoding.watermark is not None:
            refer(f"{path}.decoding.watermark", trainer.decoding.watermark, s.policies, "policies")
            problems += _watermark(s, path, trainer)
        prompt, context = trainer.decoding.prompt, getattr(s.models.get(trainer.model), "context", None)
        if prompt is not None and context is not None and prompt.tokens + 1 >= context:
            problems.append(
                f"{path}.decoding.prompt.tokens: a prompt of {prompt.tokens} tokens leaves no room to write in the "
                f"model's context of {context}; at most {context - 2}"
            )
    for name, curator in s.curators.items():
        if curator.judge is None:
            continue
        path, judge = f"curators.{name}.judge", s.models.get(curator.judge)
        refer(path, curator.judge, s.models, "models")
        if s.modality != "text":
            problems.append(f"{path}: fluency is of text, but this scenario's documents are {s.modality}; leave it out")
        elif judge is not None and not judge.begins_trained:
            problems.append(
                f'{path}: the model "{curator.judge}" starts from random weights and cannot tell fluent text'
            )
        elif s.web.initial is None or not getattr(s.sources.get(s.web.initial.source), "held_out", 1):
            problems.append(
                f"{path}: fluency is told against documents that are never published; give web.initial, from a source "
                "with held_out documents"
            )
    for name, policy in s.policies.items():
        source, model = getattr(policy, "source", None), getattr(policy, "model", None)
        if source is not None:
            refer(f"policies.{name}.source", source, s.sources, "sources")
        if model is not None:
            refer(f"policies.{name}.model", model, s.models, "models")
        problems += _wanting(s, name, policy)
        if isinstance(policy, Watermark) and model in s.models and not s.models[str(model)].marks:
            problems.append(
                f'policies.{name}.model: the model "{model}" is of kind {s.models[str(model)].kind}, which cannot '
                f"watermark text or look for a watermark; {_marking()} can"
            )
    problems += _mixed(s)
    for number, theory in enumerate(s.theory):
        refer(f"theory.{number}.population", theory.population, s.trainers, "trainers")
        wrong = wrong_law(theory.law, theory.parameters, s.modality)
        if wrong:
            problems.append(f"theory.{number}.{wrong}")
        metrics = definitions()
        if theory.metric not in metrics:
            problems.append(
                f'theory.{number}.metric: there is no metric "{theory.metric}"{nearest(theory.metric, metrics)}; '
                "see `ecosystem list metrics`"
            )
    problems += _downstream(s)
    known = TEXT_METRICS.all()
    problems += [
        f'measure.texts: there is no text metric "{m}"{nearest(m, known)}; there are {", ".join(known)}'
        for m in s.measure.texts or []
        if m not in known
    ]
    return problems


def unheeded(s: Scenario) -> list[str]:
    """Return a sentence for every budget given to trainers whose model heeds none: no mistake, but of no use."""
    default = TrainerSpec.model_fields["budget"].default
    return [
        f"trainers.{name}.budget has no effect: models.{trainer.model} is of kind {s.models[trainer.model].kind}, and "
        "sees every document that was selected once; a policy of kind sample can limit those"
        for name, trainer in s.trainers.items()
        if trainer.budget != default and not s.models[trainer.model].heeds_budget
    ]


def _wanting(s: Scenario, name: str, policy: Policy) -> list[str]:
    """Return a sentence for what a policy needs of the rest of the scenario, beyond names that there must be."""
    problems, path = [], f"policies.{name}"
    if isinstance(policy, Importance) and policy.detector is not None:
        detectors = [other for other, p in s.policies.items() if isinstance(p, LearnedDetector)]
        if policy.detector not in detectors:
            there = ", ".join(sorted(detectors)) or "none"
            problems.append(
                f'{path}.detector: there is no policy "{policy.detector}" of kind learned_detector'
                f"{nearest(policy.detector, detectors)}; there are: {there}"
            )
    if isinstance(policy, QualityClassifier) and policy.step == 1 and s.web.initial is None:
        problems.append(
            f"{path}.step: at step 1 it would learn from what the web begins with, but that is nothing; give "
            "web.initial or a later step"
        )
    if isinstance(policy, VerifiedArchive) and policy.source in s.sources:
        begun = [] if s.web.initial is None else [s.web.initial.source]
        published = {*begun, *(w.source for w in s.writers.values() if policy.until > 0)}
        if policy.source not in published:
            there = ", ".join(sorted(published)) or "none"
            problems.append(
                f'{path}.source: nobody publishes documents of "{policy.source}" up to step {policy.until}, so that '
                f"its archive would be empty; those published by then are of: {there}"
            )
    return problems


def _counts_words(policy: Policy) -> bool:
    return isinstance(policy, Sample) and policy.words is not None


def _watermark(s: Scenario, path: str, trainer: TrainerSpec) -> list[str]:
    """Return a sentence if a trainer cannot mark its text with the policy that its decoding names."""
    name = str(trainer.decoding.watermark)
    policy, where = s.policies.get(name), f"{path}.decoding.watermark"
    if policy is None or trainer.model not in s.models:
        return []
    if not isinstance(policy, Watermark):
        return [f'{where}: the policy "{name}" is of kind {policy.kind}; only one of kind watermark can mark text']
    if policy.model != trainer.model:
        return [
            f'{where}: the policy "{name}" reads texts with the model "{policy.model}", but {path}.model is '
            f'"{trainer.model}"; they must be the same, or what is marked is not found: give it a policy of its own'
        ]
    return []


def _marking() -> str:
    return ", ".join(kind for kind, family in FAMILIES.all().items() if family.marks)


def _downstream(s: Scenario) -> list[str]:
    """Return a sentence for every reason why the downstream tasks cannot be made or judged."""
    how, path = s.measure.downstream, "measure.downstream"
    if how is None:
        return []
    if s.modality != "text":
        return [f"{path}: tasks are made of text, but this scenario's documents are of sort {s.modality}; leave it out"]
    known, problems = TASKS.all(), []
    for field in ("tasks", "zero_shot"):
        names = getattr(how, field)
        problems += [
            f'{path}.{field}: there is no task "{name}"{nearest(name, known)}; there are {", ".join(known)}'
            for name in names
            if name not in known
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
            for name in dict.fromkeys([*how.tasks, *how.zero_shot])
            if name in known and known[name].needs_topics
        ]
    if how.tasks and not how.zero_shot and s.models and not any(model.tunable for model in s.models.values()):
        kinds = ", ".join(sorted({model.kind for model in s.models.values()}))
        problems.append(
            f"{path}.tasks: no model of this scenario can be fine-tuned on a task ({kinds}; gpt2 and causal_lm can); "
            "give zero_shot instead"
        )
    return problems


def _sizes(s: Scenario) -> list[str]:
    """Return a sentence for what has no documents to begin from, or documents of another length than others."""
    problems = []
    if s.web.initial is None and s.models:
        problems.append(
            f"web.initial: is missing, but models of {s.modality} documents learn from what the web begins with what a "
            "document is, and are measured against it; give it a source and a number of documents"
        )
    widths = {name: source.width for name, source in s.sources.items() if source.width is not None}
    if s.modality == "vector" and len(set(widths.values())) > 1:
        told = ", ".join(f"{name} {width}" for name, width in widths.items())
        problems.append(
            f"sources: their documents must be vectors of one length, but the lengths are {told}; make them equal, or "
            "leave out a source"
        )
    for name, model in s.models.items():
        types = getattr(model, "types", None)
        wide = next((source for source, width in widths.items() if types is not None and width > types), None)
        if wide is not None:
            problems.append(
                f'models.{name}.types: {types} symbols are too few for the source "{wide}", which has {widths[wide]}; '
                f"give at least {widths[wide]}"
            )
    return problems


def _mixed(s: Scenario) -> list[str]:
    """Return a sentence for every part that cannot work with the others' kind of documents."""
    problems = []
    for section in ("sources", "models"):
        for name, part in getattr(s, section).items():
            if part.modality != s.modality:
                problems.append(
                    f"{section}.{name}: is for {part.modality} documents, but this scenario's are {s.modality}; "
                    "sources and models must be of one sort"
                )
    problems += _dealt(s)
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
    if s.modality == "text":
        return problems
    problems += _sizes(s)
    for name, policy in s.policies.items():
        if policy.reads_text or _counts_words(policy):
            what = "counts" if _counts_words(policy) else "reads"
            problems.append(f"policies.{name}: {policy.kind} {what} words, but documents here are of sort {s.modality}")
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


def _dealt(s: Scenario) -> list[str]:
    """Return what is wrong with how the sites of an isolated web, or of islands, are dealt out."""
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
            return [f'web: all that live on the island "{uneven[0]}" share its sites; give them equally many']
        needed = sum(max(sites) for sites in islands.values())
        whose = "islands (populations by name) that need"
    if needed > s.web.sites:
        return [f"web.sites: {s.web.sites} sites are too few for {whose} {needed} of their own"]
    return []
