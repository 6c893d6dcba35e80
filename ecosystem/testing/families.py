"""Checks of the laws of model families."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl

from ecosystem.errors import EcosystemError
from ecosystem.families.base import (
    BuildContext,
    Cohort,
    Describes,
    Family,
    Rewrites,
    SupportsPrompts,
    SupportsWatermark,
    TextCohort,
)
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, Member, ScoreRequest
from ecosystem.streams import Streams


def check_family(family: Family, human: pl.Series, cache: Path) -> None:
    """Check that a model family obeys the laws of families; raise AssertionError that names the first broken law.

    ``human`` holds a few dozen documents of the family's modality; ``cache`` is a folder for foundations. The laws:

    * A cohort of two members equals two cohorts of one.
    * A document does not depend on the number of documents requested, nor on the number of threads.
    * A cohort that loads a state continues exactly.
    * A score has one number per unit.
    * A cohort implements the capabilities that the class variables of its family declare.
    * Next-token distributions agree with scores.
    """
    check = _FamilyCheck(type(family).__name__, family, human, cache, Streams(3))
    cohort = check.build(2)
    check.capabilities(cohort)
    with check.law("a cohort must be able to fit its members."):
        cohort.fit([check.fit(0, 0), check.fit(1, 1)])
    check.independence(cohort)
    check.state(cohort)
    check.score(cohort)
    if family.modality == "text":
        check.next_token(cast(TextCohort, cohort), 1)
        check.next_token(cast(TextCohort, cohort), "initial")


@dataclass(frozen=True)
class _FamilyCheck:
    """The laws of one family; each method checks one law on a cohort of two, member i fitted by ``fit(i, i)``."""

    name: str
    family: Family
    human: pl.Series
    cache: Path
    streams: Streams

    @contextmanager
    def law(self, sentence: str) -> Iterator[None]:
        """Turn an unexpected error in the family's code into an AssertionError that names the law."""
        try:
            yield
        except (AssertionError, EcosystemError):
            raise
        except Exception as error:
            raise AssertionError(f"{self.name}: {sentence} Its code raised {error!r}.") from error

    def build(self, members: int, threads: int = 1) -> Cohort:
        return self.family.cohort("law", members, BuildContext(self.human, self.streams, "cpu", threads, self.cache))

    def fit(self, member: int, number: int) -> FitRequest:
        docs, stream = self.human.gather(np.arange(number, self.human.len(), 2)), self.streams.at(f"fit/{number}")
        return FitRequest(member, docs, np.ones(docs.len()), Budget(tokens=400), None, "foundation", stream)

    def generate(self, member: int, number: int, n: int = 9) -> GenerateRequest:
        stream = self.streams.at(f"generate/{number}")
        return GenerateRequest(member, n, Decoding(max_tokens=8), None, stream)

    def capabilities(self, cohort: Cohort) -> None:
        """Check that a cohort implements what its family declares, and writes before its first fit if pretrained."""
        for declared, protocol in (
            (self.family.modality == "text", TextCohort),
            (self.family.modality != "text", Describes),
            (self.family.supports_prompts, SupportsPrompts),
            (self.family.supports_watermark, SupportsWatermark),
            (self.family.supports_rewriting, Rewrites),
        ):
            law = f"its cohort must be a {protocol.__name__}, as the class variables of the family declare."
            assert not declared or isinstance(cohort, protocol), f"{self.name}: {law}"
        if self.family.starts_pretrained:
            [docs] = cohort.generate([self.generate(0, 0)])
            assert docs.len() == 9, f"{self.name}: a family that starts pretrained must write before its first fit."

    def independence(self, cohort: Cohort) -> None:
        """Check that members are independent of each other and of threads, and documents of the number requested."""
        documents = cohort.generate([self.generate(0, 0), self.generate(1, 1)])
        law = f"{self.name}: a cohort of two must equal two cohorts of one, with any number of threads"
        for number in (0, 1):
            single = self.build(1, threads=2)
            single.fit([self.fit(0, number)])
            [docs] = single.generate([self.generate(0, number)])
            assert docs.equals(documents[number]), f"{law} (the documents of member {number} differ)."
            [score] = cohort.score([ScoreRequest(number, self.human)])
            [single_score] = single.score([ScoreRequest(0, self.human)])
            assert np.array_equal(score.nll, single_score.nll, equal_nan=True), (
                f"{law} (scores of member {number} differ)."
            )
        [fewer], [empty] = (cohort.generate([self.generate(0, 0, n)]) for n in (4, 0))
        assert fewer.equals(documents[0].head(4)), f"{self.name}: a document must not depend on the number requested."
        assert empty.len() == 0, f"{self.name}: a request for no documents must return none."

    def state(self, cohort: Cohort) -> None:
        """Check that a state holds arrays, and that another cohort that loads it continues exactly."""
        requests = [self.generate(0, 0), self.generate(1, 1)]
        twin, law = self.build(2), "a cohort that loads the state of another must continue exactly as the other."
        with self.law(law):
            twin.load(cohort.state())
            same = all(a.equals(b) for a, b in zip(twin.generate(requests), cohort.generate(requests), strict=True))
            assert same, f"{self.name}: {law}"
        for array in cohort.state().values():
            assert isinstance(array, np.ndarray), f"{self.name}: a state must contain only NumPy arrays."

    def score(self, cohort: Cohort) -> None:
        """Check that a score has one number per unit."""
        [score] = cohort.score([ScoreRequest(1, self.human)])
        complete = score.offsets[0] == 0 and score.offsets[-1] == score.nll.size == score.unit.size
        law = f"{self.name}: a score must have one number per unit of each document."
        assert complete and score.offsets.size == self.human.len() + 1, law

    def next_token(self, cohort: TextCohort, member: Member) -> None:
        """Check that next-token distributions sum to 1 and agree with the scores of the next tokens."""
        tokens = 2
        [score] = cohort.score([ScoreRequest(member, self.human)])
        p = cohort.next_token(member, self.human, tokens)
        longer = np.diff(score.offsets) > tokens + 1  # a score also has a unit for the end of the document
        place = score.offsets[:-1][longer] + tokens
        assert len(p) == len(place), (
            f"{self.name}: next_token must return one distribution per document with more tokens."
        )
        assert np.allclose(p.sum(axis=1), 1, atol=1e-4), f"{self.name}: a next-token distribution must sum to 1."
        scored = np.exp(-score.nll[place])
        law = f"{self.name}: next-token distributions of member {member} must agree with its scores."
        assert np.allclose(p[np.arange(len(p)), score.unit[place]], scored, rtol=1e-3, atol=1e-6), law
