"""What metrics mean: the unit, the direction and the words of each, by name.

Here are those that the simulation itself takes. Text metrics, tasks and plug-ins define their own;
:func:`ecosystem.metrics.catalogue.definitions` has all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from ecosystem.errors import ScenarioError
from ecosystem.metrics.formulas import FORMULAS

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PACKAGE = __name__.partition(".")[0]


class Definition(NamedTuple):
    """A metric in words."""

    unit: str
    """"1" for a pure number."""
    collapse: Literal["up", "down", ""]
    """Where it moves when models collapse; "" if neither direction is better."""
    text: str
    """What it is, in one line."""
    alias: str = ""
    """A more exact name, accepted wherever a metric is named; tables keep the short one."""
    source: str = ""
    """The publication that it is from."""
    title: str = ""
    """What a chart of it is called; empty: its name."""
    formula: str = ""
    """Its formula, for the reference."""

    @property
    def better(self) -> Literal["lower", "higher", ""]:
        """Which values are better, "" if neither."""
        return "lower" if self.collapse == "up" else "higher" if self.collapse == "down" else ""


COSTS = (
    "tokens_trained",
    "tokens_generated",
    "tokens_published",
    "documents_trained",
    "documents_generated",
    "flops",
    "human_documents",
    "documents_injected",
    "reviews",
    "spent",
)
"""What every step counts of those who act in it (scope ``cost``)."""
QUANTILES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)
"""Of the perplexities of single texts, in percent."""


DEFINED: dict[str, Definition] = {
    # of a model, on held-out text
    "cross_entropy": Definition("nats per token", "up", "minus the mean log-likelihood of held-out human text"),
    "cross_entropy_change": Definition(
        "nats per token", "up", "cross_entropy minus that of the weights it started from, paired by document"
    ),
    "perplexity": Definition("1", "up", "exp(cross_entropy)"),
    "bits_per_byte": Definition(
        "bits per byte", "up", "minus the log-likelihood of held-out human text per byte of UTF-8; tokenizer-free"
    ),
    "cross_entropy_frequent": Definition(
        "nats per token", "", "cross_entropy on the most frequent token types that make up 80 % of human tokens"
    ),
    "cross_entropy_frequent_change": Definition("nats per token", "up", "cross_entropy_change on frequent token types"),
    "cross_entropy_rare_change": Definition("nats per token", "up", "cross_entropy_change on rare token types"),
    "cross_entropy_rare": Definition("nats per token", "up", "cross_entropy on the tokens of all other types"),
    "cross_entropy_synthetic": Definition(
        "nats per token", "down", "the same on fresh text of all trainers, unpublished: low where all write alike"
    ),
    "excess_nats": Definition(
        "nats per document", "up", "cross-entropy above the entropy of the true process, where that is known"
    ),
    **{
        f"initial_perplexity_q{q:02d}": Definition(
            "1",
            "",
            f"{q} % quantile of the perplexities of single published texts (their first 32 tokens, unless the scenario "
            "says otherwise) under the weights that trainers start from",
        )
        for q in QUANTILES
    },
    "training_loss": Definition("nats per token", "", "mean loss while the model was trained in this step"),
    "tokens_trained": Definition("tokens", "", "tokens that the model was trained on in this step"),
    "documents_published": Definition("documents", "", "documents that a trainer published in this step"),
    "complies": Definition(
        "1", "", "1 where a trainer whose decoding names a watermark does mark its text in this step, else 0"
    ),
    "watermark_z": Definition(
        "1",
        "",
        "mean z-score of a trainer's new documents under the watermark that its decoding names, or else the first of "
        "the scenario: 0 on average without a mark, up to what common phrases do under one key",
    ),
    "watermark_found": Definition(
        "1", "", "share of these documents above the watermark's threshold, refused ones among them"
    ),
    "mean_words": Definition("words", "", "words per published document, as separated by white space"),
    "next_token_l1": Definition(
        "1",
        "up",
        "L1 distance (0 to 2) of next-token distributions from those of the starting weights, mean over contexts",
        source="Seddik et al. 2024",
    ),
    # of a model of vectors or categories, on held-out documents
    "held_out_nll": Definition(
        "nats per document", "up", "minus the mean log-likelihood of held-out real documents; infinite if one cannot be"
    ),
    # of a model of categories, by its own probabilities
    "simpson": Definition("1", "up", "sum of squared probabilities: the chance that two draws are alike"),
    "gini_simpson": Definition("1", "down", "1 - sum of squared probabilities: the chance that two draws differ"),
    "entropy_share": Definition("1", "down", "entropy of a categorical model, as a share of the truth's"),
    "support": Definition("types", "down", "symbols of positive probability"),
    "max_probability": Definition("1", "up", "probability of the likeliest symbol"),
    "mode": Definition(
        "symbol", "", "the likeliest symbol (of several, the first): the one that is left after collapse"
    ),
    "first_type": Definition("1", "", "probability of the symbol that is likeliest under the truth"),
    "tail_mass": Definition("1", "down", "probability of all symbols but the likeliest tenth under the truth"),
    "tail_types": Definition("types", "down", "symbols of positive probability among them"),
    "unseen_mass": Definition("1", "up", "true probability of all symbols of probability 0 in the model"),
    "l1": Definition("1", "up", "sum of absolute differences from the true probabilities"),
    "l2": Definition(
        "1", "up", "sum of squared differences from the true probabilities: the square of the L2 distance", "squared_l2"
    ),
    # of a model of vectors, by its own parameters
    "mean_error": Definition(
        "squared units", "up", "squared distance of the mean from the true one", "squared_mean_error"
    ),
    "variance": Definition(
        "1",
        "down",
        "trace of the covariance, as a share of the true one's",
        "variance_ratio",
    ),
    "log_variance": Definition(
        "nats", "down", "logarithm of variance, which is a share of the truth's", "log_variance_ratio"
    ),
    "standard_deviation": Definition(
        "1", "down", "square root of variance, which is a share of the truth's", "standard_deviation_ratio"
    ),
    "w2": Definition(
        "squared units",
        "up",
        "squared Wasserstein-2 distance between the normals of model and truth, not its root",
        "squared_w2",
    ),
    "density_distance": Definition(
        "per unit of volume",
        "up",
        "integral of the squared difference of the model's density from a normal truth's",
        "integrated_squared_error",
    ),
    "density_change": Definition(
        "per unit of volume",
        "up",
        "integral of the squared difference of the model's density from that of its own first fit",
        "integrated_squared_change",
    ),
    "test_error": Definition(
        "squared units", "up", "squared distance of regression weights from the true ones", "squared_weight_error"
    ),
    "accuracy": Definition(
        "1",
        "",
        "chance that its label of a new document is right: 1 - angle between its plane and the true one / π; those of "
        "downstream tasks are accuracy_TASK",
        "label_model_accuracy",
    ),
    "label_accuracy": Definition(
        "1", "", "share of right labels, by weight, among those it was fitted to in this step"
    ),
    "label_noise": Definition("1", "", "chance that a model writes the label that it takes for wrong"),
    "latent_log_std": Definition(
        "nats", "down", "log standard deviation of what the foundation's encoder finds in a model's images (its means)"
    ),
    "collapsed": Definition("1", "up", "1 if nothing varies any more: one symbol, or no variance"),
    "collapsed_at": Definition("step", "", "the first step after whose fit nothing varies any more, said at that step"),
    "documents_trained": Definition("documents", "", "documents that the model was fitted to in this step"),
    # of the web and of training sets
    "synthetic_share": Definition("1", "up", "share written by models: of live documents, or of a set by weight"),
    "depth": Definition("model hops", "up", "mean number of models between a document and human data (human: 0)"),
    "documents": Definition("documents", "", "number of documents"),
    "injected_share": Definition("1", "", "share of a training set, by weight, that a policy added from a source"),
    # of a policy, by the true origin of the documents that reached it
    "kept_human": Definition("documents", "", "human documents that reached the policy and passed"),
    "refused_human": Definition("documents", "", "human documents that it refused (its false positives)"),
    "kept_synthetic": Definition("documents", "", "synthetic documents that reached the policy and passed"),
    "refused_synthetic": Definition("documents", "", "synthetic documents that it refused (its true positives)"),
    # of a policy's classifier, when it is trained, on documents that it did not learn from
    "true_positive_rate": Definition("1", "", "share of synthetic documents that a learned detector refuses"),
    "false_positive_rate": Definition("1", "", "share of human documents that a learned detector refuses"),
    "auc": Definition(
        "1",
        "",
        "chance that a classifier's score is higher for a synthetic (or trusted) document than for a human (or web) "
        "one",
    ),
    # of what a step cost (scope "cost"), beside tokens_trained and documents_trained
    "tokens_generated": Definition(
        "tokens", "", "tokens that a model drew, ends of text and unpublished texts included"
    ),
    "tokens_published": Definition("tokens", "", "tokens drawn for documents that the publish gate let pass"),
    "documents_generated": Definition(
        "documents", "", "vectors or categories that a model wrote, unpublished included"
    ),
    "flops": Definition(
        "operations", "", "floating-point operations of training and writing, by the architecture's own formula"
    ),
    "human_documents": Definition(
        "documents",
        "",
        "documents by people that a writer wrote, or that an adder with a price bought for the first time: newly "
        "written for pay, or out of an archive or source",
    ),
    "documents_injected": Definition(
        "documents", "", "documents that an adder brought into training sets, with repetition"
    ),
    "reviews": Definition("documents", "", "documents that a curator reviewed, or that people labelled for a detector"),
    "spent": Definition("money", "", "price times the documents paid for"),
    # of a writer that may leave
    "audience": Definition(
        "1", "down", "share of the prominence at its home sites that documents by people have, before it writes"
    ),
    "writing": Definition("1", "down", "1 if it writes at this step, 0 if it has left"),
    # of a curator
    "reviewed_human": Definition("documents", "", "human documents that a curator reviewed in this step"),
    "reviewed_synthetic": Definition("documents", "", "synthetic documents that a curator reviewed in this step"),
    "suspect_human": Definition("documents", "", "human documents among them that it took for synthetic"),
    "suspect_synthetic": Definition("documents", "", "synthetic documents among them that it took for synthetic"),
}
for _name, (_formula, _source) in FORMULAS.items():
    DEFINED[_name] = DEFINED[_name]._replace(formula=_formula, source=DEFINED[_name].source or _source)
_OWNERS = dict.fromkeys(DEFINED, _PACKAGE)


def define(definitions: Mapping[str, Definition], owner: str) -> None:
    """Enter metrics by name; ``owner``, the class that yields them with its module, is named where two claim one.

    Registering a metric calls it; a plug-in calls it for what its models describe of themselves. Raise ScenarioError
    for a name that is malformed or that another owner has.
    """
    taken = {given: _OWNERS[name] for name, entry in DEFINED.items() for given in (name, entry.alias)}
    for given in (given for name, entry in definitions.items() for given in (name, entry.alias) if given):
        if not _NAME.fullmatch(given):
            raise ScenarioError(
                f'{owner}: the metric name "{given}" may only have lower-case letters, digits and "_", and must begin '
                "with a letter; rename it."
            )
        if taken.get(given, owner) != owner:
            raise ScenarioError(f'{owner}: the metric "{given}" is already defined by {taken[given]}; rename it.')
    DEFINED.update(definitions)
    _OWNERS.update(dict.fromkeys(definitions, owner))


def is_plugged_in(name: str) -> bool:
    """Return whether a defined metric comes from outside this package."""
    return _OWNERS[name].partition(".")[0] != _PACKAGE
