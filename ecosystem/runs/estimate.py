"""What a run will do, before it does anything: agents, documents, tokens, and about how long it takes."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecosystem.families.requests import Budget
from ecosystem.formats import format_duration
from ecosystem.policies.base import Filter
from ecosystem.runs.environment import Machine
from ecosystem.scenario.consistency import unused_settings
from ecosystem.scenario.entries import TrainerSpec
from ecosystem.scenario.scenario import Scenario

TOKENS_PER_EXAMPLE = 70  # of a downstream task, text and one choice
CHOICES = 4  # of an example, at most
TOKENS_PER_DOCUMENT = 90  # assumed for sources not yet read; python_docs has about this many under 1,024 tokens
TOKENS_PER_WORD = 2.3  # of python_docs, in a vocabulary of 1,024 tokens
# Shares of the matrix-product rate that the engine reaches, measured on two CPU cores with gpt2-nano and -micro.
TRAINING_SHARE, GENERATION_SHARE = 0.35, 0.25


@dataclass(frozen=True)
class Plan:
    """Counts of one run; tokens are upper estimates where documents end when the model says so."""

    name: str
    steps: int
    device: str
    writers: int
    trainers: int
    curators: int
    initial_documents: int
    documents_per_step: float
    tokens_to_pretrain: int
    tokens_to_train: int
    tokens_to_generate: int
    tokens_for_tasks: int  # to fine-tune on downstream tasks
    cache: str
    seconds: float  # of the steps, with starting and reporting
    seconds_to_pretrain: float  # unless the foundations are cached
    unknown: list[str]  # models of unknown size, whose time is not in `seconds`
    notes: list[str]  # what will not happen or not be measured, though the scenario may seem to say so

    @classmethod
    def of(cls, scenario: Scenario, machine: Machine, cache: Path) -> Plan:
        """Count what the scenario asks for; the time comes from a matrix product measured here and now."""
        rate = matrix_rate(machine)
        pretrain = train = generate = for_tasks = 0
        foundation = 0.0
        unknown = []
        seconds = 6.0 + 0.5 * scenario.steps  # starting up, policies, metrics and the report
        for name, family in scenario.models.items():
            load = family.workload()
            if not any(recipe.model == name for recipe in scenario.trainers.values()) and not load.tokens_to_pretrain:
                continue
            pretrain += load.tokens_to_pretrain
            if family.modality != "text":
                seconds += 0.001 * scenario.steps * sum(r.count for r in scenario.trainers.values() if r.model == name)
                continue  # documents there are not made of tokens
            work = [_trainer_tokens(r, scenario) for r in scenario.trainers.values() if r.model == name]
            model_train, model_generate = sum(t for t, _ in work), sum(g for _, g in work)
            train, generate = train + model_train, generate + model_generate
            flops = load.flops_per_token
            if not flops:
                unknown.append(name)
            tuned, judged = _task_tokens(name, scenario)
            for_tasks += tuned
            seconds += flops * (3 * tuned + judged) / (TRAINING_SHARE * rate)
            foundation += 3 * flops * load.tokens_to_pretrain / (TRAINING_SHARE * rate)
            if family.uses_budget:  # others count what they read, which takes next to nothing
                seconds += 3 * flops * model_train / (TRAINING_SHARE * rate)
            seconds += flops * model_generate / (GENERATION_SHARE * rate)
        people = sum(w.count * w.rate for w in scenario.writers.values())
        machines = sum(t.count * t.publish for t in scenario.trainers.values())
        return cls(
            name=scenario.name,
            steps=scenario.steps,
            device=machine.describe(),
            writers=sum(w.count for w in scenario.writers.values()),
            trainers=sum(t.count for t in scenario.trainers.values()),
            curators=sum(c.count for c in scenario.curators.values()),
            initial_documents=scenario.web.initial.documents if scenario.web.initial else 0,
            documents_per_step=people + machines,
            tokens_to_pretrain=pretrain,
            tokens_to_train=train,
            tokens_to_generate=generate,
            tokens_for_tasks=for_tasks,
            cache=str(cache),
            seconds=seconds,
            seconds_to_pretrain=foundation,
            unknown=unknown,
            notes=_notes(scenario),
        )

    def text(self) -> str:
        """Return the plan in a few lines."""
        tokens = f"{self.tokens_to_train:,} to train, up to {self.tokens_to_generate:,} to generate"
        if self.tokens_for_tasks:
            tokens += f", about {self.tokens_for_tasks:,} for downstream tasks"
        once = f"{self.tokens_to_pretrain:,} once, for the foundation; " if self.tokens_to_pretrain else ""
        first = (
            f", and {format_duration(self.seconds_to_pretrain)} for the foundation unless it is in {self.cache}"
            if self.tokens_to_pretrain
            else ""
        )
        time = f"about {format_duration(self.seconds)}{first}"
        if self.unknown:
            time = f"unknown: only its checkpoint can tell how large {' and '.join(self.unknown)} is"
        return "\n".join(
            [
                f"{self.name}: {self.steps} steps on {self.device}",
                f"  agents     {self.trainers} trainers, {self.writers} writers, {self.curators} curators",
                f"  documents  {self.initial_documents:,} at first, about {self.documents_per_step:,.0f} more a step",
                *([f"  tokens     {once}{tokens}"] if self.tokens_to_train else []),
                f"  time       {time}",
                *(f"  note       {note}" for note in self.notes),
            ]
        )

    def plain(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self)


def _notes(scenario: Scenario) -> list[str]:
    late = [change.at for change in scenario.changes if change.at > scenario.steps]
    notes = [f"the change at step {at} never comes, since the run has {scenario.steps} steps" for at in late]
    notes += unused_settings(scenario)
    initial = scenario.web.initial
    if initial is None or not scenario.sources[initial.source].held_out:
        why = f"sources.{initial.source}.held_out is 0" if initial else "the web begins without human documents"
        notes.append(f"no quality on human text will be measured: {why}")
    if scenario.measure.downstream is not None and scenario.measure.downstream.tasks:
        notes += [
            f"models.{name} is of kind {family.kind}, which cannot be fine-tuned on downstream tasks"
            for name, family in scenario.models.items()
            if not family.supports_prompts
        ]
    return notes


def _trainer_tokens(recipe: TrainerSpec, scenario: Scenario) -> tuple[int, int]:
    """Return (tokens to train, tokens to generate at most) of a population over the whole run."""
    fits = max(0, math.ceil((scenario.steps - recipe.offset) / recipe.every))
    budget = recipe.budget if scenario.models[recipe.model].uses_budget else Budget(epochs=1.0)
    per_fit = budget.tokens or round((budget.epochs or 1.0) * _tokens_selected(recipe, scenario))
    written = (recipe.publish + scenario.measure.synthetic) * recipe.decoding.max_tokens * scenario.steps
    return recipe.count * fits * per_fit, recipe.count * written


def _tokens_selected(recipe: TrainerSpec, scenario: Scenario) -> float:
    """Return about how many tokens a training set has, if filters keep as much as they may."""
    tokens = float(min(recipe.scrape.docs, _documents_in_sight(recipe, scenario)) * TOKENS_PER_DOCUMENT)
    for name in recipe.select:
        if isinstance(policy := scenario.policies[name], Filter):
            if policy.most_documents is not None:
                tokens = min(tokens, TOKENS_PER_DOCUMENT * policy.most_documents)
            if policy.most_words is not None:
                tokens = min(tokens, TOKENS_PER_WORD * policy.most_words)
    return tokens


def _task_tokens(model: str, scenario: Scenario) -> tuple[int, int]:
    """Return about how many tokens a model's members are fine-tuned on, and answer, for downstream tasks."""
    how, family = scenario.measure.downstream, scenario.models[model]
    members = sum(recipe.count for recipe in scenario.trainers.values() if recipe.model == model)
    if how is None:
        return 0, 0
    times = members * math.ceil(scenario.steps / how.every)
    tuned = (times + how.random + family.starts_pretrained) * len(how.tasks) if family.supports_prompts else 0
    answers = (tuned + (times + 1) * len(how.zero_shot)) * how.test * CHOICES
    return round(tuned * how.epochs * how.train * TOKENS_PER_EXAMPLE), answers * TOKENS_PER_EXAMPLE


def _documents_in_sight(recipe: TrainerSpec, scenario: Scenario) -> int:
    """Return how many documents a trainer can scrape half-way through the run, if all of them stay."""
    web, half = scenario.web, scenario.steps / 2
    initial = web.initial.documents if web.initial else 0
    if web.graph in ("isolated", "islands") and web.sites:
        authors = recipe.count if web.graph == "islands" else 1
        return round(initial / web.sites * recipe.sites + half * authors * recipe.publish)
    written = sum(w.count * w.rate for w in scenario.writers.values())
    return round(initial + half * (written + sum(t.count * t.publish for t in scenario.trainers.values())))


def matrix_rate(machine: Machine, size: int = 768) -> float:
    """Measure the floating-point rate (FLOP/s) of a large single-precision matrix product on the device."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    a = torch.ones(size, size, device=machine.device)
    (a @ a).sum().item()
    started, products = time.perf_counter(), 0
    while time.perf_counter() - started < 0.05:
        (a @ a).sum().item()
        products += 1
    elapsed = time.perf_counter() - started
    torch.set_num_threads(threads)
    return 2 * size**3 * products / elapsed
