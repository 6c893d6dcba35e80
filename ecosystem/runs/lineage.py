"""The lineage of a document, how it descends from people, as a value and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ecosystem.calendar import Calendar, step_name
from ecosystem.errors import EcosystemError
from ecosystem.formats import number, percent

LISTED_STEPS = 5  # steps of publication listed for the documents of one author in a training set
INITIAL = "initial"  # author of the initial documents
_ROUNDING = 1e-9  # of sums of many shares


@dataclass(frozen=True)
class Origin:
    """Part of a training set, as a share of its weight.

    ``kind`` is "people", "injected", "start" (starting weights) or "model". ``who`` is, in this order, the writers, the
    source, the model, and the population of trainers or the only trainer. ``step`` is the step of publication of
    documents by models, else None.
    """

    kind: str
    who: str
    step: int | None
    share: float

    @property
    def text(self) -> str:
        """Description of the origin, with its share."""
        return f"{share_text(self.share)} {origin_name(self.kind, self.who)}" + (
            "" if self.step is None else f" of step {self.step}"
        )


@dataclass(frozen=True)
class Fit:
    """The models of one population that a lineage passes and that were fitted at one step.

    ``step`` is None for models that were not fitted before they published. ``who`` is the trainer, or the number of
    trainers of the ``population``. ``passes`` is the mean number of these models on a walk back to people, and
    ``documents`` the mean size of their training sets. ``origins`` are the parts of these sets, with shares that sum to
    one. ``exact`` says whether the sets are known row by row.
    """

    population: str
    who: str
    step: int | None
    passes: float
    documents: float
    origins: tuple[Origin, ...]
    exact: bool

    @property
    def human(self) -> float:
        """Share of the training sets that people wrote, injected documents included."""
        return sum(origin.share for origin in self.origins if origin.kind in ("people", "injected"))

    @property
    def heading(self) -> str:
        """Description of the models, when they were fitted, and on how many documents."""
        return self.heading_in(None)

    def heading_in(self, calendar: Calendar | None) -> str:
        """Return :attr:`heading`, with the date of the fit if there is a calendar."""
        its = "their" if " trainers of " in self.who else "its"
        when = f"before {its} first fit" if self.step is None else f"trained at {step_name(self.step, calendar)}"
        size = f" on {self.documents:,.0f} documents, {share_text(self.human)} by people" if self.documents else ""
        return f"{self.who}, {when}{size}"

    @property
    def frequency(self) -> str:
        """Description of ``passes``."""
        return f"passed {number(self.passes)} times per walk"


@dataclass(frozen=True)
class Lineage:
    """How a document descends from people.

    A random walk goes back from the document: it draws one document by weight from the training set of the author's
    latest fit and continues from that document in the same way. It ends at a document that people wrote, or at a model
    that had not been fitted. From a mixed document, it goes to the model with the probability of its share of AI,
    ``ai_share``, and else ends at the writer; ``assistant`` is the trainer whose model wrote that share (both None for
    documents of trainers, and of people alone). ``hops``, the mean number of models on a walk, is the document's depth,
    unless models have rewritten documents of people. ``ends`` are the shares of walks by where they end; they sum to
    one. ``fits`` are ordered from the latest to the earliest.
    """

    doc: int
    author: str
    t: int
    depth: float
    fits: tuple[Fit, ...]
    ends: tuple[Origin, ...]
    caveats: tuple[str, ...]
    assistant: str | None = None
    ai_share: float | None = None

    @property
    def hops(self) -> float:
        """Mean number of models on a walk back to people."""
        return sum(fit.passes for fit in self.fits)

    def fits_at(self, step: int | None = None) -> tuple[Fit, ...]:
        """Return the fits of one step, or all fits if ``step`` is None.

        Raises EcosystemError if no model of this lineage was fitted at the step.
        """
        fits = tuple(fit for fit in self.fits if step in (None, fit.step))
        if step is not None and not fits:
            steps = sorted({fit.step for fit in self.fits if fit.step is not None})
            available = (
                f"its models were fitted at {', '.join(f'step {t}' for t in steps)}"
                if steps
                else "its lineage contains no fitted model"
            )
            raise EcosystemError(
                f"step {step}: no model in the lineage of document {self.doc} was fitted at this step; {available}."
            )
        return fits

    def plain(self, step: int | None = None) -> dict[str, Any]:
        """Return the lineage as plain data for JSON, with ``hops``; ``step`` restricts the fits to one step."""
        return {**asdict(self), "fits": [asdict(fit) for fit in self.fits_at(step)], "hops": self.hops}

    def text(self, step: int | None = None, calendar: Calendar | None = None) -> str:
        """Return the lineage as text, the latest fit first; ``step`` restricts the fits to one step.

        With a ``calendar``, the step of publication and those of fits have dates.
        """
        lines = [f"{summary_of(self, calendar)} {in_words(self.ends)}." if self.fits else summary_of(self, calendar)]
        for fit in self.fits_at(step):
            approximate = "" if fit.exact else ", approximate"
            lines += ["", f"{fit.heading_in(calendar)} ({fit.frequency}{approximate})", f"  {in_words(fit.origins)}"]
        return "\n".join([*lines, *(f"\n{caveat}" for caveat in self.caveats)])

    def __str__(self) -> str:
        """Return the lineage as text."""
        return self.text()


def share_text(value: float) -> str:
    """Return a share of a lineage as a percentage."""
    return percent(round(value, 9))  # sums of many shares are not quite 1


def origin_name(kind: str, who: str) -> str:
    """Return the description of an origin."""
    if kind == "people":
        return "the initial web" if who == INITIAL else f"{who} (writers)"
    return {"injected": f"injected from {who}", "start": f"the weights that {who} starts from"}.get(kind, who)


def in_words(origins: Sequence[Origin]) -> str:
    """Return origins with their shares in one line; those of a model are added up, with some of their steps."""
    groups: dict[tuple[str, str], list[Origin]] = {}
    for origin in origins:
        groups.setdefault((origin.kind, origin.who), []).append(origin)
    phrases = []
    for (kind, who), parts in groups.items():
        steps = [f"{share_text(part.share)} of step {part.step}" for part in parts if part.step is not None]
        more = ["…"] if len(steps) > LISTED_STEPS else []
        published = (
            f" ({', '.join(steps[:LISTED_STEPS] + more)})"
            if len(steps) > 1
            else f" of step {parts[0].step}"
            if steps
            else ""
        )
        phrases.append(f"{share_text(sum(part.share for part in parts))} {origin_name(kind, who)}{published}")
    return ", ".join(phrases)


def summary_of(lineage: Lineage, calendar: Calendar | None = None) -> str:
    """Return a lineage in one or two sentences, to be followed by its ends."""
    if not lineage.fits and lineage.depth > 0:
        changed = f"a model changed {share_text(lineage.depth)} of its tokens, which is its depth"
        return f"Document {lineage.doc} was written by people; {changed}."
    if not lineage.fits:
        return f"Document {lineage.doc} was written by people; there is no model in its lineage (depth 0)."
    when = step_name(lineage.t, calendar)
    by = lineage.author
    if lineage.ai_share is not None:
        by += f", {share_text(lineage.ai_share)} of it by the model of {lineage.assistant}"
    document = f"Document {lineage.doc} by {by}, published at {when}, has depth {number(lineage.depth)}"
    walk = "a walk back to people, which draws one document by weight from each training set"
    if all(fit.exact for fit in lineage.fits) and lineage.depth > lineage.hops + _ROUNDING:
        walk += f", {number(lineage.hops)}, and the share of these people's tokens that models changed"
    return f"{document}: the mean number of models on {walk}. The walks end at:"
