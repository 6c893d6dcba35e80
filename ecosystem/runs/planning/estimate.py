"""The plan of a run, made before it starts: agents, documents, tokens, and an estimate of the time."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ecosystem.corpus.features import features
from ecosystem.corpus.web import DEALT
from ecosystem.families.requests import Budget
from ecosystem.formats import counted, format_duration
from ecosystem.placement.workers import Workers
from ecosystem.policies.base import Filter
from ecosystem.policies.filters import FeatureFilter
from ecosystem.policies.reasons import Rule, first_reason
from ecosystem.runs.environment import Machine
from ecosystem.runs.planning.growth import Growth
from ecosystem.runs.planning.memory import Resources
from ecosystem.scenario.consistency import unused_settings
from ecosystem.scenario.entries.trainers import TrainerSpec
from ecosystem.scenario.inputs import OpenedSources, downloads, initial_documents, omissions, shortage
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.files import TextSource

TOKENS_PER_EXAMPLE = 70  # text and one choice of a downstream task
CHOICES = 4  # per example, at most
TOKENS_PER_DOCUMENT = 90  # about the mean of python_docs with a vocabulary of 1,024; assumed of all but texts of users
TOKENS_PER_WORD = 2.3  # mean of python_docs with a vocabulary of 1,024
# Shares of the matrix-product rate that training and generation reach (gpt2-nano and gpt2-micro, two CPU cores).
TRAINING_SHARE, GENERATION_SHARE = 0.35, 0.25
_SAMPLE, _NEARLY_ALL = 100, 0.9  # documents of a source, and the share of them whose refusal is worth a note


@dataclass(frozen=True)
class Plan:
    """Counts and times of the steps left; counts of generated tokens are upper limits: a model may end texts early."""

    name: str
    steps: int  # of the whole run
    done: int  # the last step that exists already, of this run or of the one it branches from; -1: none
    device: str
    writers: int
    trainers: int
    curators: int
    initial_documents: int
    documents_per_step: float
    tokens_to_pretrain: int
    tokens_to_train: int
    tokens_to_generate: int
    tokens_for_tasks: int  # fine-tuning on downstream tasks
    cache: str
    seconds: float  # all steps left, start-up and report
    seconds_to_pretrain: float  # if the foundations are not cached
    unknown: list[str]  # models of unknown size, not included in ``seconds``
    notes: list[str]  # settings without effect, and measurements that will be missing
    growth: Growth = field(default_factory=Growth)  # births of sites and links in the steps left
    sites: int | None = None  # at the opening; None: as many as the file of the graph has, or the run has begun
    dates: str = ""  # of the opening and the last step; "": without a calendar
    placement: str = ""  # workers that compute the models; "": this process
    resources: Resources | None = None  # memory and disk; None: unknown

    @classmethod
    def of(cls, scenario: Scenario, machine: Machine, cache: Path, base: Path = Path(), *, done: int = -1) -> Plan:
        """Return the plan of a scenario; its times rest on the rate of a matrix product, measured on the spot.

        ``done`` is the last step that exists already, of an interrupted run or of the parent of a branch (-1: none).
        Relative paths that are not found in the current folder start at ``base``. The source of the initial documents
        is read to count them, unless it is downloaded. Raises DataError if it cannot be read.
        """
        sources = OpenedSources(scenario, base)
        documents = initial_documents(scenario, sources)
        missing = [*shortage(scenario, documents), *omissions(scenario, sources)] if done < 0 else []
        scenario = _with_initial_documents(scenario, documents)
        notes = _notes(scenario) + _refusals(scenario, sources) + downloads(scenario, base) + missing
        rate, length = matrix_rate(machine), _tokens_per_document(scenario, sources)
        pretrain = train = generate = for_tasks = 0
        foundation = 0.0
        unknown = []
        left = max(0, scenario.steps - max(0, done))
        seconds = _serial_seconds(left)
        for name, family in scenario.models.items():
            load = family.beside(base).workload()
            trainers = [trainer for trainer in scenario.trainers.values() if trainer.model == name]
            if not trainers and not load.tokens_to_pretrain:
                continue
            pretrain += load.tokens_to_pretrain
            if family.modality != "text":
                seconds += 0.001 * left * sum(trainer.count for trainer in trainers)
                continue  # such documents have no tokens
            tokens = [_trainer_tokens(trainer, scenario, done, length) for trainer in trainers]
            tokens.append((0, _assisted_tokens(name, scenario, done)))
            model_train, model_generate = sum(t for t, _ in tokens), sum(g for _, g in tokens)
            train, generate = train + model_train, generate + model_generate
            flops = load.flops_per_token
            if not flops:
                unknown.append(name)
            tuned, answered = _task_tokens(name, scenario, done)
            for_tasks += tuned
            seconds += flops * (3 * tuned + answered) / (TRAINING_SHARE * rate)
            foundation += 3 * flops * load.tokens_to_pretrain / (TRAINING_SHARE * rate)
            if family.uses_budget:  # other families only count, in negligible time
                seconds += 3 * flops * model_train / (TRAINING_SHARE * rate)
            seconds += flops * model_generate / (GENERATION_SHARE * rate)
        return cls(
            **_population(scenario),
            name=scenario.name,
            steps=scenario.steps,
            done=done,
            device=machine.describe(),
            tokens_to_pretrain=pretrain,
            tokens_to_train=train,
            tokens_to_generate=generate,
            tokens_for_tasks=for_tasks,
            cache=str(cache),
            seconds=seconds,
            seconds_to_pretrain=foundation,
            unknown=unknown,
            notes=notes,
            growth=Growth.of(scenario, done),
            sites=scenario.web.sites if done < 0 else None,
        )

    def placed(self, workers: Workers | None) -> Plan:
        """Return the plan with models that are computed by workers, each assumed to be as fast as this machine.

        The foundation is pre-trained by one of them.
        """
        if workers is None:
            return self
        serial = _serial_seconds(max(0, self.steps - max(0, self.done)))
        seconds = serial + (self.seconds - serial) / workers.count
        return replace(self, placement=workers.describe(), seconds=seconds)

    def text(self) -> str:
        """Return the plan as a few lines of text."""
        tokens = f"about {self.tokens_to_train:,} to train, up to {self.tokens_to_generate:,} to generate"
        if self.tokens_for_tasks:
            tokens += f", about {self.tokens_for_tasks:,} for downstream tasks"
        pretraining = f"{self.tokens_to_pretrain:,} to pre-train the foundation, " if self.tokens_to_pretrain else ""
        foundation = (
            f", plus {format_duration(self.seconds_to_pretrain)} for the foundation unless it is cached in {self.cache}"
            if self.tokens_to_pretrain
            else ""
        )
        time = f"about {format_duration(self.seconds)}{foundation}"
        if self.unknown:
            time = f"unknown, since the size of {' and '.join(self.unknown)} is known only from the checkpoint"
        initially = f"{self.initial_documents:,} initially, " if self.done < 0 else ""
        agents = [
            counted(count, noun)
            for count, noun in ((self.trainers, "trainer"), (self.writers, "writer"), (self.curators, "curator"))
        ]
        return "\n".join(
            [
                f"{self.name}: {self._steps_left()} on {self.device}",
                *([f"  dates      {self.dates}"] if self.dates else []),
                f"  agents     {', '.join(agents)}",
                *([f"  placement  {self.placement}"] if self.placement else []),
                *([f"  sites      {grown}"] if (grown := self.growth.text(self.sites)) else []),
                f"  documents  {initially}about {self.documents_per_step:,.0f} per step",
                *([f"  tokens     {pretraining}{tokens}"] if self.tokens_to_train else []),
                f"  time       {time}",
                *(f"  {line}" for line in ([] if self.resources is None else self.resources.lines())),
                *(f"  note       {note}" for note in self.notes),
            ]
        )

    def _steps_left(self) -> str:
        if self.done < 0:
            return counted(self.steps, "step")
        left = counted(max(0, self.steps - self.done), "step")
        return f"{left} left after step {self.done} of {self.steps} (tokens and time are those of the steps left)"

    def plain(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self) | {"resources": None if self.resources is None else self.resources.plain()}


def _serial_seconds(steps: int) -> float:
    """Return the time of start-up, policies, metrics and report."""
    return 6.0 + 0.5 * steps


def _with_initial_documents(scenario: Scenario, documents: int) -> Scenario:
    """Return the scenario with another number of initial documents, if it has any."""
    web = scenario.web
    if web.initial is None:
        return scenario
    initial = web.initial.model_copy(update={"documents": documents})
    return scenario.model_copy(update={"web": web.model_copy(update={"initial": initial})})


def _population(scenario: Scenario) -> dict[str, Any]:
    """Return the numbers of agents and documents of a plan, and its dates."""
    people = sum(w.count * w.rate * w.mean_activity(scenario.steps) for w in scenario.writers.values())
    machines = sum(t.count * t.publish * t.mean_activity(scenario.steps) for t in scenario.trainers.values())
    return {
        "writers": sum(w.count for w in scenario.writers.values()),
        "trainers": sum(t.count for t in scenario.trainers.values()),
        "curators": sum(c.count for c in scenario.curators.values()),
        "initial_documents": scenario.web.initial.documents if scenario.web.initial else 0,
        "documents_per_step": people + machines,
        "dates": "" if scenario.calendar is None else scenario.calendar.span(0, scenario.steps),
    }


def _notes(scenario: Scenario) -> list[str]:
    """Return a sentence for every setting without effect, and for every measurement that will be missing."""
    notes = unused_settings(scenario)
    initial = scenario.web.initial
    if initial is None or not scenario.sources[initial.source].held_out:
        reason = f"sources.{initial.source}.held_out is 0" if initial else "the web begins without human documents"
        notes.append(f"quality on human text will not be measured: {reason}")
    if initial is not None and (learnt := initial.learnt(scenario.modality)) < initial.documents:
        notes.append(
            f"tokenizers, foundations and references learn from the first {learnt:,} of {initial.documents:,} initial "
            "documents (web.initial.sample)"
        )
    if scenario.measure.downstream is not None and scenario.measure.downstream.tasks:
        notes += [
            f"models.{name} is of kind {family.kind}, which cannot be fine-tuned on downstream tasks"
            for name, family in scenario.models.items()
            if not family.supports_prompts
        ]
    return notes


def _refusals(scenario: Scenario, sources: OpenedSources) -> list[str]:
    """Return a sentence for every filter by words that will refuse nearly all documents that people publish."""
    gates: list[list[str] | None] = [scenario.web.publish, scenario.web.retain]
    gates += [gate for trainer in scenario.trainers.values() for gate in (trainer.select, trainer.retain)]
    applied = {name: scenario.policies[name] for gate in gates for name in gate or ()}
    filters = {name: policy for name, policy in applied.items() if isinstance(policy, FeatureFilter)}
    if not filters:
        return []
    published = [scenario.web.initial.source] if scenario.web.initial else []
    published += [writer.source for writer in scenario.writers.values()]
    notes = []
    for source in dict.fromkeys(published):
        reservoir = sources[source]
        if reservoir is None:
            continue
        texts = reservoir.rows(np.arange(min(_SAMPLE, reservoir.size or _SAMPLE)))
        sample = features(texts)
        for name, policy in filters.items():
            refused, reasons = _refused(policy.counted(sample, texts.clone), policy.rules())
            if refused >= _NEARLY_ALL * sample.height:
                notes.append(
                    f"policies.{name} will refuse {refused} of {sample.height} documents of sources.{source} "
                    f"({reasons}); unless this is intended, change its limits"
                )
    return notes


def _refused(sample: pl.DataFrame, rules: list[Rule]) -> tuple[int, str]:
    """Return how many documents are refused, with an example of each rule that refuses most of them."""
    by_rule = [first_reason(sample, [rule]).drop_nulls() for rule in rules]
    most = max(reasons.len() for reasons in by_rule)
    examples = [f"{reasons.len()} as: {reasons[0]}" for reasons in by_rule if 2 * reasons.len() > most]
    return sample.height - first_reason(sample, rules).null_count(), ", ".join(examples)


def _tokens_per_document(scenario: Scenario, sources: OpenedSources) -> float:
    """Estimate the mean length of the initial documents, from the first of them if they are texts of a user."""
    initial = scenario.web.initial
    if initial is None or not isinstance(scenario.sources[initial.source], TextSource):
        return TOKENS_PER_DOCUMENT
    reservoir = sources[initial.source]
    if reservoir is None or not reservoir.size:
        return TOKENS_PER_DOCUMENT
    words = features(reservoir.rows(np.arange(min(_SAMPLE, reservoir.size))))["words"]
    return max(1.0, float(words.to_numpy().mean()) * TOKENS_PER_WORD)


def _trainer_tokens(trainer: TrainerSpec, scenario: Scenario, done: int, length: float) -> tuple[int, int]:
    """Return the tokens that a population trains on, and generates at most, in the steps after ``done``.

    ``length``: tokens of a document.
    """
    before, end = max(0, done), scenario.steps
    fits = _times(end - trainer.offset, trainer.every) - _times(before - trainer.offset, trainer.every)
    budget = trainer.budget if scenario.models[trainer.model].uses_budget else Budget(epochs=1.0)
    per_fit = budget.tokens or round((budget.epochs or 1.0) * _selected_tokens(trainer, scenario, before, length))
    published = trainer.publish * trainer.mean_activity(scenario.steps)
    generated = round(published + scenario.measure.synthetic) * trainer.decoding.max_tokens * max(0, end - before)
    return trainer.count * fits * per_fit, trainer.count * generated


def _assisted_tokens(model: str, scenario: Scenario, done: int) -> int:
    """Return the tokens that a model generates at most, after step ``done``, for writers who adopt AI."""
    before, end, tokens = max(0, done), scenario.steps, 0.0
    for writer in scenario.writers.values():
        trainer = None if writer.adoption is None else scenario.trainers[writer.adoption.uses]
        if writer.adoption is not None and trainer is not None and trainer.model == model:
            times = np.linspace(min(before + 1, end), end, 100)
            share = float(np.mean([writer.adoption.share.at(t) for t in times.tolist()]))
            tokens += writer.count * writer.rate * share * max(0, end - before) * trainer.decoding.max_tokens
    return round(tokens)


def _times(steps: int, every: int) -> int:
    """Return how often something happens in the first ``steps`` steps, if it does at step 1 and every so many steps."""
    return max(0, math.ceil(steps / every))


def _selected_tokens(trainer: TrainerSpec, scenario: Scenario, done: int, length: float) -> float:
    """Estimate the tokens of a training set, if filters refuse no more than their limits require."""
    tokens = float(min(trainer.scrape.docs, _reachable_documents(trainer, scenario, done)) * length)
    for name in trainer.select:
        if isinstance(policy := scenario.policies[name], Filter):
            if policy.most_documents is not None:
                tokens = min(tokens, length * policy.most_documents)
            if policy.most_words is not None:
                tokens = min(tokens, TOKENS_PER_WORD * policy.most_words)
    return tokens


def _task_tokens(model: str, scenario: Scenario, done: int) -> tuple[int, int]:
    """Estimate the tokens of downstream tasks that a model's members are fine-tuned on, and score as answers."""
    settings, family = scenario.measure.downstream, scenario.models[model]
    members = sum(trainer.count for trainer in scenario.trainers.values() if trainer.model == model)
    if settings is None:
        return 0, 0
    models = members * (_times(scenario.steps, settings.every) - _times(done, settings.every))  # evaluated
    tunings = 0
    if family.supports_prompts:
        baselines = settings.random + family.starts_pretrained if done < 0 else 0  # measured at the opening
        tunings = (models + baselines) * len(settings.tasks)
    answers = (tunings + (models + 1) * len(settings.zero_shot)) * settings.test * CHOICES
    return round(tunings * settings.epochs * settings.train * TOKENS_PER_EXAMPLE), answers * TOKENS_PER_EXAMPLE


def _reachable_documents(trainer: TrainerSpec, scenario: Scenario, done: int) -> int:
    """Estimate the documents that a trainer can scrape half-way through the steps left, if none are retired."""
    web, half = scenario.web, (done + scenario.steps) / 2
    initial = web.initial.documents if web.initial else 0
    if web.graph in DEALT and web.sites:
        authors = {"islands": trainer.count, "parallel": len(scenario.trainers)}.get(web.graph, 1)
        return round(initial / web.sites * trainer.sites + half * authors * trainer.publish)
    published: float = _population(scenario)["documents_per_step"]
    return round(initial + half * published)


def matrix_rate(machine: Machine, size: int = 768) -> float:
    """Measure the rate (FLOP/s) of a single-precision product of two ``size`` × ``size`` matrices on the device."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    missing = machine.device == "cuda" and not torch.cuda.is_available()  # other machines compute
    a = torch.ones(size, size, device="cpu" if missing else machine.device)
    (a @ a).sum().item()
    started, products = time.perf_counter(), 0
    while time.perf_counter() - started < 0.05:
        (a @ a).sum().item()
        products += 1
    elapsed = time.perf_counter() - started
    torch.set_num_threads(threads)
    return 2 * size**3 * products / elapsed
