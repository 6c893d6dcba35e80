"""The three sorts of policies (filters, weighers, adders), and the gate that applies a list of them in order.

A policy sees a table of documents and a :class:`Context`, never the world. It receives only observable columns, unless
it declares itself an ``oracle``. No row is deleted: the first policy that refuses a row is named in ``verdict``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.corpus.schema import OBSERVABLE, empty
from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import EcosystemError
from ecosystem.registry import Registry
from ecosystem.spec import Spec
from ecosystem.streams import Stream

ADDED: dict[str, pl.DataType] = {"source": pl.String(), "document": pl.Int64(), "weight": pl.Float64()}


@dataclass(frozen=True)
class Scores:
    """Scores of documents by a fitted classifier.

    ``score`` [documents]: the probability that each document is positive. ``reference``: the ascending scores of
    negative examples that the classifier has not learnt from.
    """

    score: NDArray[np.float64]
    reference: NDArray[np.float64]


Answers = tuple[NDArray[np.float64], NDArray[np.int64]]
"""A number and a number of units (tokens) per document, [documents] each."""


class CorpusView(Protocol):
    """View of the documents of the web, by id."""

    def contents(self, docs: pl.Series) -> pl.Series:
        """Return the contents of documents, in the order of ``docs``."""

    def live(self) -> pl.Series:
        """Return the ids of the documents on the web at this moment, ascending."""

    def near_duplicates(self, num_perm: int, shingle: int, threshold: float, docs: pl.Series) -> pl.Series:
        """Return the id of the earliest near-duplicate ever published of each document, or null."""

    def held_out_overlaps(self, words: int, docs: pl.Series) -> pl.Series:
        """Return the number of the first held-out document with so many words in a row in common, or null."""


class SourceView(Protocol):
    """View of the sources of real documents, by name, without held-out documents."""

    def size(self, source: str) -> int | None:
        """Return the number of documents of a source; None if it is endless."""

    def contents(self, source: str, rows: NDArray[np.int64]) -> pl.Series:
        """Return the contents of rows of a source."""

    def drawn(self, source: str, t: int) -> int:
        """Return how many of the first rows of a source people had drawn by the end of step ``t``."""


class ModelView(Protocol):
    """View of the models of the scenario, by name, with the weights that their trainers start from."""

    def score(self, model: str, docs: pl.Series) -> Answers:
        """Return (nats, tokens) of documents: the negative log-likelihood and the length of each."""

    def watermark(self, model: str, mark: WatermarkSpec, docs: pl.Series) -> Answers:
        """Return (z-scores, scored tokens) of documents, tokenized as the model does."""


class ClassifierView(Protocol):
    """View of the classifiers of policies that learn, by the name of the policy."""

    def scores(self, policy: str, docs: pl.Series) -> Scores | None:
        """Return the scores of documents, or None until the classifier is fitted."""


class TruthView(Protocol):
    """View of the truth, for oracles only."""

    def label_is_correct(self, docs: pl.Series) -> NDArray[np.bool_]:
        """Return whether the label of each document is correct."""


@dataclass(frozen=True)
class Context:
    """What a policy receives besides its table: its place and time, two streams, and five views.

    ``reader`` is the trainer that the gate belongs to, or "web". ``stream`` is the stream of the policy at this step,
    ``static_stream`` the one for all steps; ``.uniform(ids)`` of either gives noise per row. ``truth`` is None except
    for oracles. ``added`` (columns ``source``, ``document``, ``weight``) holds the rows that earlier adders have added
    at this gate. ``report_shortfall(wanted, given)`` records that an adder has fewer documents than requested.
    ``refused_by(policy, docs)`` says which documents another filter of the scenario would refuse.
    """

    policy: str  # the name of the policy in the scenario
    reader: str
    t: int
    stream: Stream
    static_stream: Stream
    corpus: CorpusView
    sources: SourceView
    models: ModelView
    classifiers: ClassifierView
    report_shortfall: Callable[[int, int], None]
    refused_by: Callable[[str, pl.Series], NDArray[np.bool_]]
    truth: TruthView | None = None
    added: pl.DataFrame = field(default_factory=lambda: empty(ADDED))

    def contents(self, docs: pl.Series) -> pl.Series:
        """Return the contents of documents by id; short for ``corpus.contents``."""
        return self.corpus.contents(docs)


class Policy(Spec):
    """A rule about documents; every kind is a Filter, a Weigher or an Adder.

    With ``when`` and ``ends_when`` it is in force at some steps only (:mod:`ecosystem.metrics.conditions`).
    """

    # A field called source or model names an entry of the scenario, which is checked when that is read, like the
    # conditions; a policy checks its other needs in problems().

    oracle: ClassVar[bool] = False  # True: receives the truth columns
    needs_content: ClassVar[bool] = True  # False: needs only `doc`, `t` and `weight`, so it can thin an archive
    reads_text: ClassVar[bool] = False  # True: undefined for vectors and categories
    needs_labels: ClassVar[bool] = False  # True: undefined for documents without labels
    row_wise: ClassVar[bool] = True  # False: the verdict on a row may depend on the other rows

    when: str | None = Field(
        None,
        description="condition on the metrics of the step before, such as web.synthetic_share > 0.4, under which it is "
        "in force; absent: always",
    )
    ends_when: str | None = Field(
        None,
        description="condition that ends it, such as web.synthetic_share < 0.3; absent: as soon as `when` fails",
    )

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Policy:
        if self.ends_when is not None and self.when is None:
            raise ValueError("ends_when: has no meaning for a policy that is always in force; set when too")
        return self

    @property
    def thins_archives(self) -> bool:
        """Whether the retain gate of a trainer, whose archive has few columns, may apply it."""
        return not self.needs_content

    def scores_read(self) -> list[str]:
        """Return the names of the policies whose classifier scores it reads."""
        return []


class Filter(Policy):
    """A policy that refuses rows."""

    @property
    def most_documents(self) -> int | None:
        """Most documents that it keeps of any table; None: no fixed limit."""
        return None

    @property
    def most_words(self) -> int | None:
        """Most words that it keeps of any table, to half a document; None: no fixed limit."""
        return None

    @abstractmethod
    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return a String per row: null to keep the row, or the reason to refuse it."""


@runtime_checkable
class WritesWatermark(Protocol):
    """A filter by a watermark that trainers can write with: ``decoding.watermark`` may name it."""

    @property
    def model(self) -> str:
        """Name of the model that complying trainers write with, and whose tokenizer detects."""

    @property
    def mark(self) -> WatermarkSpec:
        """The watermark."""

    @property
    def compliance(self) -> float:
        """Share of the trainers whose decoding names the policy that do write with the watermark."""

    @property
    def threshold(self) -> float:
        """Z-score above which a document counts as watermarked."""

    @property
    def min_tokens(self) -> int:
        """Scored tokens below which a document is not judged."""


class Weigher(Policy):
    """A policy that multiplies the weights of rows."""

    @abstractmethod
    def weigh(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return a factor per row (Float64), 0 or more."""


class Adder(Policy):
    """A policy that adds rows of real documents from a source."""

    pays_writers: ClassVar[bool] = False  # True: its price pays people to write documents

    @property
    def price_per_document(self) -> float | None:
        """Price of a document, in units of money, due when the first trainer receives it; None: free."""
        return None

    @abstractmethod
    def add(self, kept: int, ctx: Context) -> pl.DataFrame:
        """Return rows (source: String, document: Int64 row in the source, weight: Float64) to add to ``kept`` rows."""


POLICIES: Registry[type[Policy]] = Registry(
    "policy",
    "ecosystem.policies.filters",
    "ecosystem.policies.duplicates",
    "ecosystem.policies.sampling",
    "ecosystem.policies.injection",
    "ecosystem.policies.retention",
    "ecosystem.policies.provenance",
    "ecosystem.policies.classifiers",
    "ecosystem.policies.diversity",
    "ecosystem.policies.watermark",
)


def gate(docs: pl.DataFrame, policies: Sequence[tuple[str, Policy]], context: Callable[[str], Context]) -> pl.DataFrame:
    """Apply policies in order to ``docs``; return it with ``verdict``, ``reason``, ``weight`` and added rows.

    ``docs`` has a row per document (columns of the index; ``doc`` is the id) and may already contain verdicts. Rows
    keep their order; a row without a weight has weight 1. Each policy sees only the rows that no earlier policy
    refused. Rows added by an Adder come last, with ``doc`` = row in the source, ``injected_from`` = the source and
    ``added_by`` = the adder. Later filters and weighers do not see them, but find them in ``Context.added``; later
    adders count them as kept. So order matters. Raise EcosystemError with the name of a policy that breaks its
    contract.
    """
    missing = [column for column in ("verdict", "reason", "injected_from", "added_by") if column not in docs.columns]
    weight = pl.col("weight").cast(pl.Float64) if "weight" in docs.columns else pl.lit(1.0)
    table = docs.with_columns(
        *(pl.lit(None, pl.String).alias(column) for column in missing), weight=weight.fill_null(1.0)
    )
    added: list[pl.DataFrame] = []
    for name, policy in policies:
        is_open = table["verdict"].is_null()
        open_rows = table if is_open.all() else table.filter(is_open)
        seen = open_rows if policy.oracle else open_rows[[c for c in OBSERVABLE if c in open_rows.columns]]
        ctx = context(name)
        if not policy.oracle:
            ctx = replace(ctx, truth=None)
        if added:
            ctx = replace(ctx, added=pl.concat(added).select("weight", source="injected_from", document="doc"))
        if isinstance(policy, Filter):
            # Answers are matched by place, not by a join: an archive may hold one id twice, from two sources.
            reason = _spread(_reasons(_ask(policy.refuse, seen, ctx), seen.height, name), is_open)
            refused = reason.is_not_null()
            table = table.with_columns(
                verdict=pl.when(refused).then(pl.lit(name)).otherwise(pl.col("verdict")),
                reason=pl.when(refused).then(reason).otherwise(pl.col("reason")),
            )
        elif isinstance(policy, Weigher):
            factor = _spread(_factors(_ask(policy.weigh, seen, ctx), seen.height, name), is_open)
            table = table.with_columns(weight=pl.col("weight") * factor.fill_null(1.0))
        elif isinstance(policy, Adder):
            kept = open_rows.height + sum(frame.height for frame in added)
            with _named(ctx):
                rows = policy.add(kept, ctx)
            added.append(_injected(rows, name))
        else:
            raise EcosystemError(
                f"policies.{name}: the class {type(policy).__name__} must be a Filter, a Weigher or an Adder."
            )
    return pl.concat([table, *added], how="diagonal_relaxed") if added else table


def _ask(rule: Callable[[pl.DataFrame, Context], pl.Series], docs: pl.DataFrame, ctx: Context) -> pl.Series:
    """Apply a rule to a table; raise EcosystemError if it uses a column that this gate lacks (an archive has few)."""
    try:
        with _named(ctx):
            answers = rule(docs, ctx)
    except pl.exceptions.ColumnNotFoundError as error:
        raise EcosystemError(
            f"policies.{ctx.policy}: uses a column that documents at the gate of {ctx.reader} lack "
            f"({str(error).splitlines()[0]}); available columns: {', '.join(docs.columns)}."
        ) from error
    if not isinstance(answers, pl.Series):
        raise EcosystemError(f"policies.{ctx.policy}: returned {type(answers).__name__} instead of a Polars Series.")
    return answers


@contextmanager
def _named(ctx: Context) -> Iterator[None]:
    """Add the name of the policy to the traceback of an error in its code."""
    try:
        yield
    except Exception as error:
        error.add_note(f"policies.{ctx.policy}: this error is from the code of the policy, at the gate of {ctx.reader}")
        raise


def _spread(answers: pl.Series, is_open: pl.Series) -> pl.Series:
    """Spread the answers for the open rows over all rows, null for the others."""
    if answers.len() == is_open.len():
        return answers
    place = pl.when(is_open).then(is_open.cum_sum().cast(pl.Int64) - 1)
    return answers.gather(pl.select(place).to_series())


def _reasons(column: pl.Series, height: int, name: str) -> pl.Series:
    # A mask of booleans would become the reasons "true" and "false" and refuse every row.
    if column.dtype not in (pl.String, pl.Null):
        raise EcosystemError(
            f"policies.{name}: returned {column.dtype} instead of reasons; a filter returns a String per row: null to "
            "keep the row, or the reason to refuse it."
        )
    return _sized(column, height, name).cast(pl.String)


def _factors(column: pl.Series, height: int, name: str) -> pl.Series:
    factor = _sized(column, height, name).cast(pl.Float64)
    if factor.null_count() or not bool(factor.is_finite().all()) or not bool((factor >= 0).all()):
        raise EcosystemError(
            f"policies.{name}: returned a weight that is missing, negative or not finite; weights must be 0 or more."
        )
    return factor


def _injected(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    if not isinstance(rows, pl.DataFrame):
        raise EcosystemError(f"policies.{name}: returned {type(rows).__name__} instead of a Polars DataFrame.")
    missing = [column for column in ("source", "document", "weight") if column not in rows.columns]
    if missing:
        raise EcosystemError(
            f"policies.{name}: returned no column {', '.join(missing)}; an adder returns source, document and weight."
        )
    _factors(rows["weight"], rows.height, name)
    return rows.select(
        doc=pl.col("document").cast(pl.Int64),
        injected_from=pl.col("source").cast(pl.String),
        added_by=pl.lit(name),
        weight=pl.col("weight").cast(pl.Float64),
        synthetic=pl.lit(False),
        depth=pl.lit(0.0),
    )


def _sized(column: pl.Series, height: int, name: str) -> pl.Series:
    if column.len() != height:
        raise EcosystemError(
            f"policies.{name}: returned {column.len()} rows for a table of {height} rows; it must return one for each."
        )
    return column
