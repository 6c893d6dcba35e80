"""Downstream tasks in a run: members are fine-tuned on each, evaluated and restored.

The same training examples, in the same order, serve every member at every step, so that differences between members
and between steps are due to their weights. The baseline is the accuracy of random weights fine-tuned in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from ecosystem.errors import TrainingError
from ecosystem.families.base import Cohort, Progress, SupportsPrompts
from ecosystem.families.requests import Budget, Member, PromptedFitRequest, ScoreRequest, Start
from ecosystem.metrics import tasks
from ecosystem.metrics.estimates import Estimate, mean_and_error
from ecosystem.metrics.tasks import TASKS, Example
from ecosystem.scenario.entries.measure import DownstreamSpec
from ecosystem.sources.base import Reservoir
from ecosystem.streams import Streams

Values = dict[str, Estimate | float]


@dataclass(frozen=True)
class Downstream:
    """The tasks of a run: their examples and the settings of fine-tuning."""

    settings: DownstreamSpec
    examples: dict[str, tuple[list[Example], list[Example]]]  # per task: for training, for testing
    streams: Streams

    @classmethod
    def of(cls, settings: DownstreamSpec, reservoir: Reservoir, streams: Streams) -> Downstream:
        """Make the examples from held-out documents; raise DataError if there are too few."""
        stream = streams.at("measure/downstream")
        examples = {
            kind: tasks.make(kind, reservoir.held_out, reservoir.topics, settings.train, settings.test, stream)
            for kind in dict.fromkeys([*settings.tasks, *settings.zero_shot])
        }
        return cls(settings, examples, streams)

    def due(self, t: int) -> bool:
        """Return whether models are evaluated at step ``t``: at step 1, and every ``settings.every`` steps after it."""
        return t > 0 and (t - 1) % self.settings.every == 0

    def judge(self, cohort: Cohort, members: Sequence[int], fine_tune: bool, progress: Progress) -> list[Values]:
        """Evaluate members: without fine-tuning, and (with ``fine_tune``) fine-tuned from their weights."""
        results = self._untuned(cohort, members)
        if fine_tune:
            for values, tuned in zip(results, self._tuned(cohort, members, "previous", [""], progress), strict=True):
                values |= tuned
        return results

    def references(
        self, cohort: Cohort, fine_tune: bool, starts_pretrained: bool, progress: Progress
    ) -> dict[Literal["initial", "random"], Values]:
        """Evaluate the weights that members start from (if pre-trained) and random weights.

        Accuracies of fine-tuned random weights are means over several initialisations. All of these answer the same
        examples, so the standard error is the larger of their mean standard error and that of the mean.
        """
        kinds: list[Literal["initial", "random"]] = ["initial", "random"] if starts_pretrained else ["random"]
        results = dict(zip(kinds, self._untuned(cohort, kinds), strict=True))
        if fine_tune and starts_pretrained:
            results["initial"] |= self._tuned(cohort, [0], "foundation", [""], progress)[0]
        if fine_tune:
            drawn: list[Values] = []
            while len(drawn) < self.settings.random:
                members = range(min(cohort.members, self.settings.random - len(drawn)))
                names = [f"/random/{len(drawn) + member}" for member in members]
                drawn += self._tuned(cohort, members, "scratch", names, progress)
            for metric in drawn[0]:
                values, errors = np.array([values[metric] for values in drawn]).T
                mean, between = mean_and_error(values)
                results["random"][metric] = mean, float(np.fmax(between, errors.mean()))
        return results

    def chance(self) -> Values:
        """Return the accuracies of guessing, by the names of all metrics."""
        names = [("accuracy", kind) for kind in self.settings.tasks] + [
            ("zero_shot", kind) for kind in self.settings.zero_shot
        ]
        return {f"{name}_{kind}": tasks.chance(self.examples[kind][1]) for name, kind in names}

    def _untuned(self, cohort: Cohort, members: Sequence[Member]) -> list[Values]:
        results: list[Values] = [{} for _ in members]
        for kind in self.settings.zero_shot:
            for values, estimate in zip(results, self._answers(cohort, members, kind), strict=True):
                values[f"zero_shot_{kind}"] = estimate
        return results

    def _tuned(
        self, cohort: Cohort, members: Sequence[int], start: Start, names: Sequence[str], progress: Progress
    ) -> list[Values]:
        """Fine-tune members on every task in turn; ``names`` are stream suffixes (one for all, or one each)."""
        assert isinstance(cohort, SupportsPrompts)  # as its family declares
        results: list[Values] = [{} for _ in members]
        before = cohort.state()
        for kind in self.settings.tasks:
            train, _ = self.examples[kind]
            requests = [
                PromptedFitRequest(
                    member=member,
                    docs=pl.Series([example.choices[example.answer] for example in train], dtype=pl.String),
                    weight=np.ones(len(train)),
                    budget=Budget(epochs=self.settings.epochs),
                    learning_rate=self.settings.learning_rate,
                    start=start,
                    stream=self.streams.at(f"measure/downstream/{kind}{names[place % len(names)]}"),
                    prompts=pl.Series([example.text for example in train], dtype=pl.String),
                    batch=self.settings.batch,
                )
                for place, member in enumerate(members)
            ]
            try:
                cohort.fit_prompted(requests, _task_progress(kind, progress))
                for values, estimate in zip(results, self._answers(cohort, members, kind), strict=True):
                    values[f"accuracy_{kind}"] = estimate
            except TrainingError as error:
                raise TrainingError(f'fine-tuned on the task "{kind}": {error}') from error
            finally:
                cohort.load(before)
        return results

    def _answers(self, cohort: Cohort, members: Sequence[Member], kind: str) -> list[Estimate]:
        _, test = self.examples[kind]
        nats = likelihoods(cohort, members, test, alone=False)
        alone = likelihoods(cohort, members, test, alone=True) if TASKS.get(kind).relative else [None] * len(members)
        return [tasks.accuracy(n, a, test)[0] for n, a in zip(nats, alone, strict=True)]


def write_harness(examples: Mapping[str, Sequence[Example]], folder: Path, before: str) -> list[str]:
    """Write tasks as lm-evaluation-harness reads them from a folder (``--include_path``); return their names.

    Per task: its examples as JSON lines, and a task file, which is JSON and therefore YAML. ``before`` precedes
    every text, as the end of text precedes every document that a model here was trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for kind, test in examples.items():
        name = f"ecosystem_{kind}"
        data = folder.resolve() / f"{name}.jsonl"
        data.write_text("".join(json.dumps(example._asdict()) + "\n" for example in test), encoding="utf-8")
        metric = "acc_mutual_info" if TASKS.get(kind).relative else "acc"
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "description": before,
            "doc_to_text": "{{text}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "target_delimiter": "",
            "num_fewshot": 0,
            "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1.0},
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task, indent=2) + "\n", encoding="utf-8")
        names.append(name)
    return names


def likelihoods(
    cohort: Cohort, members: Sequence[Member], examples: Sequence[Example], alone: bool
) -> list[np.ndarray]:
    """Return minus the log-likelihood, in nats, of every choice of every example after its text (or after nothing).

    There is one array [choices] per member. The end of text after a choice is not counted.
    """
    choices = pl.Series([choice for example in examples for choice in example.choices], dtype=pl.String)
    texts = [("" if alone else example.text) for example in examples for _ in example.choices]
    prompts = pl.Series(texts, dtype=pl.String)
    scores = cohort.score([ScoreRequest(member, choices, prompts) for member in members])
    return [score.per_document()[0] - score.nll[score.offsets[1:] - 1] for score in scores]


def _task_progress(kind: str, progress: Progress) -> Callable[[str, int, int], None]:
    return lambda _, done, total: progress(f"task {kind}", done, total)
