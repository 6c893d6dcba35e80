"""Check the parts of a scenario against each other: names, kinds of documents and numbers of sites.

Each part has already been validated on its own. Its ``problems`` method checks what its kind requires of other parts.
Every function returns sentences that begin with a dotted path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ecosystem.corpus.web import DEALT
from ecosystem.errors import nearest
from ecosystem.families.base import Family
from ecosystem.formats import counted
from ecosystem.policies.base import Adder, Filter, Policy, Weigher, WritesWatermark
from ecosystem.scenario.entries.people import CuratorSpec, WriterSpec
from ecosystem.scenario.entries.trainers import INITIAL, TrainerSpec
from ecosystem.scenario.measurements import measurements
from ecosystem.scenario.requirements import absent, conditions, site_types, succession
from ecosystem.scenario.tables import ScenarioTables


def inconsistencies(s: ScenarioTables) -> list[str]:
    """Return a sentence for every inconsistency in a scenario whose parts are each valid."""
    return [
        *_web(s),
        *site_types(s),
        *_trainers(s),
        *_curators(s),
        *_parts(s),
        *_mixed(s),
        *measurements(s),
    ]


def _gate(
    s: ScenarioTables, path: str, names: Sequence[str], allowed: tuple[type[Policy], ...], rule: str
) -> list[str]:
    """Return a sentence for every policy that a gate cannot apply; ``rule`` states which policies it accepts."""
    problems = []
    for name in names:
        problems += absent(s, path, name, "policies")
        policy = s.policies.get(name)
        if policy is not None and not isinstance(policy, allowed):
            problems.append(f'{path}: the policy "{name}" ({policy.kind}) cannot be used here; {rule}')
    if len(set(names)) < len(names):
        problems.append(f"{path}: lists a policy twice; a gate applies each policy once")
    return problems


def _web(s: ScenarioTables) -> list[str]:
    """Return a sentence for every undefined source, and every policy that the web's gates cannot apply."""
    problems = [] if s.measure.truth is None else absent(s, "measure.truth", s.measure.truth, "sources")
    if s.web.initial is not None:
        problems += absent(s, "web.initial.source", s.web.initial.source, "sources")
    problems += _gate(s, "web.publish", s.web.publish, (Filter,), "only filters can be used at the publish gate")
    both = (Filter, Weigher)
    problems += _gate(s, "web.retain", s.web.retain, both, "only filters and weighers can be used at the retain gate")
    for name, writer in s.writers.items():
        problems += absent(s, f"writers.{name}.source", writer.source, "sources")
        problems += [] if writer.rewrite is None else writer.rewrite.problems(f"writers.{name}.rewrite", s)
        if writer.choice is not None:
            problems += writer.choice.problems(f"writers.{name}.choice", s)
        if writer.adoption is not None:
            problems += writer.adoption.problems(f"writers.{name}.adoption", s)
    return problems


def _trainers(s: ScenarioTables) -> list[str]:
    """Return a sentence for every model or policy that trainers refer to but cannot use."""
    problems = []
    for name, trainer in s.trainers.items():
        path = f"trainers.{name}"
        problems += absent(s, f"{path}.model", trainer.model, "models")
        problems += _gate(s, f"{path}.select", trainer.select, (Filter, Weigher, Adder), "")
        problems += [
            f'{path}.retain: the policy "{name}" ({s.policies[name].kind}) cannot thin an archive, which stores only '
            "when each document was acquired; replace, accumulate, accumulate_subsample, window and decay can"
            for name in trainer.retain or []
            if name in s.policies and not s.policies[name].thins_archives
        ]
        problems += _gate(s, f"{path}.retain", trainer.retain or [], (Policy,), "")
        problems += [_not_one_author(s, f"{path}.scrape.shares", author) for author in trainer.scrape.shares or {}]
        family = s.models.get(trainer.model)
        if trainer.recovery is not None and family is not None and not family.supports_recovery:
            problems.append(
                f"{path}.recovery: a fit of a model of kind {family.kind} cannot be taken back by a factor; those of "
                "gpt2, causal_lm and linear can"
            )
        elif trainer.recovery is not None and trainer.start != "previous":
            problems.append(f'{path}.recovery: goes back from a fit to the last model; set from = "previous"')
        problems += succession(s, path, name)
        if trainer.decoding.truncate is not None and family is not None and not family.supports_truncation:
            problems.append(
                f"{path}.decoding.truncate: a model of kind {family.kind} cannot truncate what it draws; gaussian can"
            )
        elif trainer.decoding.truncate is not None and any(
            source.width not in (1, None) for source in s.sources.values()
        ):
            problems.append(
                f"{path}.decoding.truncate: is for single numbers, but documents here are longer; remove it"
            )
        mark, where = trainer.decoding.watermark, f"{path}.decoding.watermark"
        if mark is not None:
            problems += absent(s, where, mark, "policies")
        if mark in s.policies and not isinstance(s.policies[mark], WritesWatermark):
            problems.append(
                f'{where}: the policy "{mark}" is of kind {s.policies[mark].kind}; only a policy of kind watermark '
                "can mark text"
            )
    return [problem for problem in problems if problem]


def _not_one_author(s: ScenarioTables, path: str, name: str) -> str:
    """Return a sentence unless a name in ``shares`` is that of one population of authors; "" if it is."""
    meanings = [f"{section}.{name}" for section in ("trainers", "writers") if name in getattr(s, section)]
    if name == INITIAL:
        meanings.append("the initial documents")
    if len(meanings) == 1:
        return ""
    if meanings:
        return f'{path}: "{name}" may mean {" or ".join(meanings)}; rename one of them'
    authors = [*s.trainers, *s.writers, INITIAL]
    return f'{path}: nobody named "{name}" publishes{nearest(name, authors)}; name one of {", ".join(authors)}'


def _curators(s: ScenarioTables) -> list[str]:
    """Return a sentence for every reason why curators cannot measure the fluency of a document."""
    problems = []
    for name, curator in s.curators.items():
        if curator.judge is None:
            continue
        path, judge = f"curators.{name}.judge", s.models.get(curator.judge)
        problems += absent(s, path, curator.judge, "models")
        if s.modality != "text":
            problems.append(
                f"{path}: only text has fluency, but this scenario's documents are {s.modality}; remove judge"
            )
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
    """Return the problems that sources, models and policies report, and every reference to an undefined entry."""
    problems = []
    for name, source in s.sources.items():
        problems += source.problems(f"sources.{name}", s)
    for name, model in s.models.items():
        problems += model.problems(f"models.{name}", s)
    for name, policy in s.policies.items():
        path = f"policies.{name}"
        for field, section in (("source", "sources"), ("model", "models")):
            reference = getattr(policy, field, None)
            if reference is not None:
                problems += absent(s, f"{path}.{field}", reference, section)
        problems += [*policy.problems(path, s), *conditions(s, path, policy)]
    return problems


def unused_settings(s: ScenarioTables) -> list[str]:
    """Return a sentence for every value that is allowed but has no effect.

    These are unused sources, models and fields of models, trainers that never begin, changes after the last step,
    instruments that never observe, budgets of trainers whose model ignores them, and lengths of texts beyond the
    context of the model. Unused policies
    are not listed, since the page or a study may apply them later.
    """
    references = set(_strings(s.plain()))
    unused = [
        f"{section}.{name} is not used: nothing refers to it"
        for section, entries in (("sources", s.sources), ("models", s.models))
        for name in entries
        if name not in references
    ]
    default = TrainerSpec.model_fields["budget"].default
    late = [
        f"the change at {s.step_name(change.at)} has no effect: the run has {counted(s.steps, 'step')}"
        for change in s.changes
        if change.at > s.steps
    ]
    unused += [f"models.{name}.{sentence}" for name, model in s.models.items() for sentence in model.unused()]
    begun = {path for change in s.changes for path in change.set}
    unused += [
        f"trainers.{name} never begins: active is false, and no change sets trainers.{name}.active"
        for name, trainer in s.trainers.items()
        if trainer.active is False and f"trainers.{name}.active" not in begun
    ] + [
        f"trainers.{name} never begins: it is part of {trainer.merged_into} from the beginning; set merged_into in a "
        "timed change"
        for name, trainer in s.trainers.items()
        if trainer.merged_into is not None
    ]
    refusing = any(entry.refuses is not None for entry in (s.web.types or {}).values())
    unused += [
        f"trainers.{name}.scrape.robots has no effect: no site refuses crawlers (web.types.NAME.refuses)"
        for name, trainer in s.trainers.items()
        if trainer.scrape.robots is not None and not refusing
    ]
    unused += [
        f"instruments.{name} never observes anything in the {counted(s.steps, 'step')} of the run; correct its dates, "
        "or the number of steps"
        for name, instrument in s.instruments.items()
        if not instrument.observes_within(s.steps)
    ]
    contexts = {name: model.plain().get("context") for name, model in s.models.items()}
    unused += [
        f"trainers.{name}.decoding.max_tokens = {trainer.decoding.max_tokens} is not reached: a text ends when the "
        f"context of models.{trainer.model} ({context} tokens) is full"
        for name, trainer in s.trainers.items()
        if isinstance(context := contexts[trainer.model], int) and trainer.decoding.max_tokens > context
    ]
    return [*late, *unused] + [
        f"trainers.{name}.budget has no effect: models.{trainer.model} is of kind {s.models[trainer.model].kind}, "
        "which reads every selected document once; use a policy of kind sample to limit their number"
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


def _sizes(s: ScenarioTables) -> list[str]:
    """Return a sentence if initial documents are missing, or if the vectors of the sources differ in length."""
    problems = []
    if s.web.initial is None and s.models:
        problems.append(
            f"web.initial: is missing, but models of {s.modality} documents learn the form of a document from the "
            "initial documents, and are measured against them; set its source and documents"
        )
    widths = {name: source.width for name, source in s.sources.items() if source.width is not None}
    if s.modality == "vector" and len(set(widths.values())) > 1:
        lengths = ", ".join(f"{name} {width}" for name, width in widths.items())
        problems.append(
            f"sources: their vectors must all have one length, but the lengths are {lengths}; make them equal, or "
            "remove a source"
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
                    "all sources and models must handle the same kind"
                )
    origin = s.sources.get(s.true_source or "")
    if s.measure.density is not None and (origin is None or not (origin.width == 1 and origin.has_density)):
        problems.append(
            "measure.density: densities are compared on single numbers whose density is known, but the true ones are "
            "others; remove it, or use a source of kind student_t, or gaussian with dim = 1"
        )
    problems += _too_few_sites(s) + _labels(s)
    return problems if s.modality == "text" else problems + _sizes(s) + _text_only_settings(s)


def _labels(s: ScenarioTables) -> list[str]:
    """Return a sentence for every source without true labels, where a model or policy needs them."""
    problems = []
    readers: dict[str, Family | Policy] = {f"models.{name}": family for name, family in s.models.items()}
    readers |= {f"policies.{name}": policy for name, policy in s.policies.items()}
    needing_labels = [path for path, part in readers.items() if part.needs_labels]
    if needing_labels:
        reader = f"{needing_labels[0]} ({readers[needing_labels[0]].kind})"
        if s.web.initial is None:
            problems.append(f"web.initial: is missing, but its source says which labels are right, as {reader} needs")
        problems += [
            f"sources.{name}: {source.kind} documents have no labels that are right or wrong, but {reader} needs them; "
            "use a source of kind labelled"
            for name, source in s.sources.items()
            if not source.labelled
        ]
    return problems


def _text_only_settings(s: ScenarioTables) -> list[str]:
    """Return a sentence for every setting that applies to text only, in a scenario of other documents."""
    problems = []
    for name, policy in s.policies.items():
        if policy.reads_text:
            problems.append(f"policies.{name}: {policy.kind} reads words, but documents here are of kind {s.modality}")
    for name, trainer in s.trainers.items():
        decoding = trainer.decoding
        unused = {"prompt": decoding.prompt is not None, "repetition_penalty": decoding.repetition_penalty != 1.0}
        unused["watermark"] = decoding.watermark is not None
        if s.modality == "vector":
            unused |= {"top_k": decoding.top_k is not None, "top_p": decoding.top_p is not None}
        problems += [
            f"trainers.{name}.decoding.{field}: has no meaning for {s.modality} documents; remove it"
            for field, is_set in unused.items()
            if is_set
        ]
    return problems


def _too_few_sites(s: ScenarioTables) -> list[str]:
    """Return a sentence if a web whose sites are dealt to agents has too few of them."""
    if s.web.graph not in DEALT or s.web.sites is None:
        return []
    agents: list[tuple[str, WriterSpec | CuratorSpec | TrainerSpec]] = [
        *s.writers.items(),
        *s.curators.items(),
        *s.trainers.items(),
    ]
    if s.web.graph == "isolated":
        needed = sum(agent.count * agent.sites for _, agent in agents)
        recipients = "agents that need"
    elif s.web.graph == "parallel":
        if len({(agent.count, agent.sites) for _, agent in agents}) > 1:
            return [
                "web: each of the parallel webs has one agent of every population; give all populations the same "
                "count and the same number of sites"
            ]
        needed = max((agent.count * agent.sites for _, agent in agents), default=0)
        recipients = "parallel webs (agents by number) that need"
    else:
        islands: dict[str, set[int]] = {}
        for name, agent in agents:
            islands.setdefault(name, set()).add(agent.sites)
        uneven = [name for name, sites in islands.items() if len(sites) > 1]
        if uneven:
            return [f'web: the populations on the island "{uneven[0]}" share its sites; give them equal sites']
        needed = sum(max(sites) for sites in islands.values())
        recipients = "islands (populations by name) that need"
    if needed > s.web.sites:
        return [f"web.sites: {s.web.sites} sites are too few for {recipients} {needed} of their own"]
    return []
