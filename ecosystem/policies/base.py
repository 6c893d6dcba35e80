"""The three things a policy may do to a table of documents, and the gate that applies an ordered list of them.

A policy sees a table and a :class:`Context`, never the world. It receives the observable columns only, unless
it declares itself an ``oracle``. Nothing is deleted: the first policy to refuse a row signs it in ``verdict``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.schema import OBSERVABLE, empty
from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import EcosystemError
from ecosystem.registry import Registry
from ecosystem.spec import Spec
from ecosystem.streams import Stream

ADDED: dict[str, pl.DataType] = {"source": pl.String(), "document": pl.Int64()}


@dataclass(frozen=True)
class Scores:
    """What a fitted classifier says of documents.

    ``score`` [documents]: the probability that each is positive. ``reference``: the same, in ascending order, of
    negative examples that it has not learnt from.
    """

    score: NDArray[np.float64]
    reference: NDArray[np.float64]


Answers = tuple[NDArray[np.float64], NDArray[np.int64]]
"""A number and a count of units (tokens) for each document, [documents] each."""


class CorpusView(Protocol):
    """The documents of the web, by id."""

    def contents(self, docs: pl.Series) -> pl.Series:
        """Return the contents of documents, in the order of ``docs``."""

    def live(self) -> pl.Series:
        """Return the ids of the documents that are on the web now, ascending."""

    def near_duplicates(self, num_perm: int, shingle: int, threshold: float, docs: pl.Series) -> pl.Series:
        """Return the earliest near-duplicate ever published of each document, or null."""


class SourceView(Protocol):
    """The sources of real documents, by name; held-out documents are not in them."""

    def size(self, source: str) -> int | None:
        """Return the number of documents of a source; None: it is endless."""

    def contents(self, source: str, rows: NDArray[np.int64]) -> pl.Series:
        """Return the contents of rows of a source."""

    def drawn(self, source: str, t: int) -> int:
        """Return how many of a source's first rows people had drawn by the end of step ``t``."""


class ModelView(Protocol):
    """The models of the scenario, by name, with the weights that their trainers start from."""

    def score(self, model: str, docs: pl.Series) -> Answers:
        """Return (nats, tokens) of documents: minus the log-likelihood of each, and its length."""

    def watermark(self, model: str, mark: WatermarkSpec, docs: pl.Series) -> Answers:
        """Return (z-scores, scored tokens) of documents, read with the tokenizer of the model."""


class ClassifierView(Protocol):
    """The classifiers of policies that learn, by the name of the policy."""

    def scores(self, policy: str, docs: pl.Series) -> Scores | None:
        """Return what the classifier says of documents, or None as long as it has not been fitted."""


class TruthView(Protocol):
    """What only an oracle may ask."""

    def label_is_correct(self, docs: pl.Series) -> NDArray[np.bool_]:
        """Return whether the label of each document is correct."""


@dataclass(frozen=True)
class Context:
    """What a policy may ask for besides its table: the moment, two streams, and five views; never the world itself.

    ``reader`` is the trainer whose gate it is, or "web". ``stream`` is the policy's own at this step,
    ``static_stream`` the same at every step; ``.uniform(ids)`` of either gives each row noise of its own. ``truth`` is
    there for oracles only. ``added`` (columns ``source``, ``document``) is what adders before this policy have added at
    the same gate. ``report_shortfall(wanted, given)`` records that an adder has fewer documents than it was asked for.
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
    truth: TruthView | None = None
    added: pl.DataFrame = field(default_factory=lambda: empty(ADDED))

    def contents(self, docs: pl.Series) -> pl.Series:
        """Return the contents of documents by id: ``corpus.contents``, which most filters need and nothing else."""
        return self.corpus.contents(docs)


class Policy(Spec):
    """A rule about documents: exactly one of Filter, Weigher and Adder."""

    # A field called source or model must name an entry of the scenario, which is checked when that is read; what else
    # a policy needs of the rest it says in problems().

    oracle: ClassVar[bool] = False  # True: sees the truth columns
    needs_content: ClassVar[bool] = True  # False: `doc`, `t` and `weight` are enough, so it can thin an archive
    reads_text: ClassVar[bool] = False  # True: has no meaning for vectors and categories
    needs_labels: ClassVar[bool] = False  # True: has no meaning for documents without labels
    row_wise: ClassVar[bool] = True  # False: the verdict on a row may depend on which other rows there are

    @property
    def thins_archives(self) -> bool:
        """Whether it may stand at the retain gate of a trainer, whose archive has few columns."""
        return not self.needs_content

    def scores_read(self) -> list[str]:
        """Return the names of other policies whose classifiers' scores it reads."""
        return []


class Filter(Policy):
    """Refuses rows."""

    @property
    def most_documents(self) -> int | None:
        """Documents that it leaves at most, whatever it is given; None: no fixed number."""
        return None

    @property
    def most_words(self) -> int | None:
        """Words that it leaves at most, to half a document; None: no fixed number."""
        return None

    @abstractmethod
    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return, per row, null to keep it or the reason (String) for refusing it."""


@runtime_checkable
class WritesWatermark(Protocol):
    """A filter by a watermark that trainers write with: their ``decoding.watermark`` may name it."""

    @property
    def model(self) -> str:
        """Name of the model whose tokenizer reads texts, and with which complying trainers write."""

    @property
    def mark(self) -> WatermarkSpec:
        """The watermark itself."""

    @property
    def compliance(self) -> float:
        """Share of the trainers whose decoding names the policy that write with its watermark."""

    @property
    def threshold(self) -> float:
        """Z-score above which a document counts as watermarked."""

    @property
    def min_tokens(self) -> int:
        """Scored tokens below which a document is not judged."""


class Weigher(Policy):
    """Multiplies the weight of rows."""

    @abstractmethod
    def weigh(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return, per row, a factor >= 0 (Float64)."""


class Adder(Policy):
    """Adds rows of real documents from a source."""

    pays_writers: ClassVar[bool] = False  # True: its price is for documents that are written because they are paid for

    @property
    def price_per_document(self) -> float | None:
        """What a document costs, in units of money, the first time that any trainer is given it; None: nothing."""
        return None

    @abstractmethod
    def add(self, kept: int, ctx: Context) -> pl.DataFrame:
        """Return rows (source: String, document: Int64 row of the source, weight: Float64) for ``kept`` kept rows."""


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
    """Apply policies in order to ``docs`` and return it with ``verdict``, ``reason``, ``weight`` and added rows.

    ``docs`` has a row per document (columns of the index; ``doc`` is the identity) and may already carry
    verdicts; rows keep their order, and one without a weight has weight 1. Each policy sees only the rows that
    no earlier one refused. Rows that an Adder adds come last, have ``doc`` = row in the source,
    ``injected_from`` = the source and ``added_by`` = the adder, and are seen by no later filter or weigher, which
    only learn that they are there (``Context.added``): order matters. A later adder counts them among the kept. A
    policy that breaks its contract raises EcosystemError with its name.
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
            ctx = replace(ctx, added=pl.concat(added).select(source="injected_from", document="doc"))
        if isinstance(policy, Filter):
            # Answers go back by place, not by a join: an archive may hold one id twice, from two sources.
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
            added.append(_injected(policy.add(kept, ctx), name))
        else:
            raise EcosystemError(f"policies.{name}: {type(policy).__name__} is no Filter, Weigher or Adder.")
    return pl.concat([table, *added], how="diagonal_relaxed") if added else table


def _ask(rule: Callable[[pl.DataFrame, Context], pl.Series], docs: pl.DataFrame, ctx: Context) -> pl.Series:
    """Put the table to a policy; a column that this gate does not have (an archive has few) is a clear error."""
    try:
        return rule(docs, ctx)
    except pl.exceptions.ColumnNotFoundError as error:
        raise EcosystemError(
            f"policies.{ctx.policy}: looks at a column that documents at the gate of {ctx.reader} do not have "
            f"({str(error).splitlines()[0]}); there are: {', '.join(docs.columns)}."
        ) from error


def _spread(answers: pl.Series, is_open: pl.Series) -> pl.Series:
    """Return the answers for the open rows as a column of the whole table, null on the others."""
    if answers.len() == is_open.len():
        return answers
    place = pl.when(is_open).then(is_open.cum_sum().cast(pl.Int64) - 1)
    return answers.gather(pl.select(place).to_series())


def _reasons(column: pl.Series, height: int, name: str) -> pl.Series:
    # A mask of true and false would become the reasons "true" and "false" and refuse every row: say so instead.
    if column.dtype not in (pl.String, pl.Null):
        raise EcosystemError(
            f"policies.{name}: returned {column.dtype} where reasons are due: a filter returns, per row, null to keep "
            "it or the reason (String) for refusing it."
        )
    return _sized(column, height, name).cast(pl.String)


def _factors(column: pl.Series, height: int, name: str) -> pl.Series:
    factor = _sized(column, height, name).cast(pl.Float64)
    if factor.null_count() or not bool(factor.is_finite().all()) or not bool((factor >= 0).all()):
        raise EcosystemError(
            f"policies.{name}: a weight is missing, negative or not finite; a weigher must return numbers >= 0."
        )
    return factor


def _injected(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    missing = [column for column in ("source", "document", "weight") if column not in rows.columns]
    if missing:
        raise EcosystemError(f"policies.{name}: an adder must return source, document and weight; {missing} missing.")
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
        raise EcosystemError(f"policies.{name}: returned {column.len()} rows for a table of {height}.")
    return column
