"""Definitions of metrics: the unit, direction and description of each, by name.

This module defines the metrics that the simulation itself measures. Text metrics, tasks and plug-ins define their own;
:func:`ecosystem.metrics.catalogue.definitions` returns all of them.
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
    """The definition of a metric."""

    unit: str
    """"1" for a pure number."""
    collapse: Literal["up", "down", ""]
    """Direction in which it moves when models collapse; "" if neither direction is better."""
    text: str
    """Description in one line."""
    alias: str = ""
    """A more precise name, accepted wherever a metric is named; tables use the short one."""
    source: str = ""
    """Source, with a mark if its text was not read (see :mod:`ecosystem.metrics.formulas`)."""
    title: str = ""
    """Title of its chart; empty: its name."""
    formula: str = ""
    """Formula, for the reference."""

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
"""Metrics of scope ``cost``, counted for each agent and policy at every step."""
QUANTILES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)
"""Quantiles of the perplexities of single texts, in percent."""
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
        "nats per token",
        "down",
        "cross_entropy on new, unpublished text by all trainers: low if they all write alike",
    ),
    "excess_nats": Definition(
        "nats per document", "up", "cross-entropy above the entropy of the true process, where that is known"
    ),
    **{
        f"initial_perplexity_q{q:02d}": Definition(
            "1",
            "",
            f"{q} % quantile of the perplexities of single published texts (by default, their first 32 tokens) under "
            "the weights that trainers start from",
        )
        for q in QUANTILES
    },
    "training_loss": Definition("nats per token", "", "mean loss over the last tenth of training in this step"),
    "tokens_trained": Definition("tokens", "", "tokens that the model was trained on in this step"),
    "documents_published": Definition(
        "documents",
        "",
        "documents that a trainer published in this step; of a type of sites, those that appeared on them",
    ),
    "complies": Definition("1", "", "1 if a trainer whose decoding names a watermark applies it in this step, else 0"),
    "watermark_z": Definition(
        "1",
        "",
        "mean z-score of a trainer's new documents under the watermark that its decoding names, or else the first in "
        "the scenario: about 0 without a watermark, apart from the effect of common phrases under one key",
    ),
    "watermark_found": Definition(
        "1", "", "share of a trainer's new documents, refused ones included, with a z-score above the threshold"
    ),
    "radioactivity_z": Definition(
        "1",
        "",
        "standard deviations by which a model's most likely tokens after unmarked text carry a watermark more often "
        "than by chance, each combination counted once: about 0 unless it has learnt from marked text",
    ),
    "radioactivity_log10_p": Definition(
        "1", "", "logarithm to base 10 of the probability of such a radioactivity_z by chance"
    ),
    "mean_words": Definition("words", "", "words per published document, as separated by white space"),
    "next_token_l1": Definition(
        "1",
        "up",
        "L1 distance (0 to 2) of next-token distributions from those of the starting weights, mean over contexts",
    ),
    "reward": Definition(
        "1",
        "",
        "mean reward of a trainer's drafts, refused ones included, where a policy of kind prefer chooses among them",
    ),
    # of a model of vectors or categories, on held-out documents
    "held_out_nll": Definition(
        "nats per document",
        "up",
        "minus the mean log-likelihood of held-out real documents; infinite if one has probability 0",
    ),
    # of a model of categories, by its own probabilities
    "simpson": Definition("1", "up", "sum of squared probabilities: the chance that two draws are equal"),
    "gini_simpson": Definition("1", "down", "1 - sum of squared probabilities: the chance that two draws differ"),
    "entropy_share": Definition("1", "down", "entropy of a categorical model, as a share of the truth's"),
    "support": Definition("types", "down", "number of symbols with positive probability"),
    "max_probability": Definition("1", "up", "probability of the likeliest symbol"),
    "mode": Definition(
        "symbol", "", "the likeliest symbol (the first of several): the one that remains after collapse"
    ),
    "first_type": Definition("1", "", "probability of the symbol that is likeliest under the truth"),
    "tail_mass": Definition("1", "down", "probability of all symbols except the likeliest tenth under the truth"),
    "tail_types": Definition("types", "down", "number of symbols in that tail with positive probability"),
    "unseen_mass": Definition("1", "up", "true probability of all symbols to which the model gives probability 0"),
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
        "squared Wasserstein-2 distance between normal distributions with the moments of model and truth",
        "squared_w2",
    ),
    "density_distance": Definition(
        "per unit of volume",
        "up",
        "integral of the squared difference between the densities of the model and of a normal truth",
        "integrated_squared_error",
    ),
    "density_change": Definition(
        "per unit of volume",
        "up",
        "integral of the squared difference between the densities of the model and of its first fit",
        "integrated_squared_change",
    ),
    "hellinger": Definition(
        "1", "up", "Hellinger distance (0 to 1) between the densities of the model and of the truth, for single numbers"
    ),
    "test_error": Definition(
        "squared units", "up", "squared distance of regression weights from the true ones", "squared_weight_error"
    ),
    "accuracy": Definition(
        "1",
        "",
        "chance that the model labels a new document correctly: 1 - angle between its plane and the true one / π; "
        "the accuracies of downstream tasks are named accuracy_TASK",
        "label_model_accuracy",
    ),
    "label_accuracy": Definition("1", "", "share of correct labels, by weight, in the training set of this step"),
    "label_noise": Definition("1", "", "chance that a model writes the label that it considers wrong"),
    "latent_log_std": Definition(
        "nats",
        "down",
        "log standard deviation of the latent means that the foundation's encoder gives a model's images",
    ),
    "collapsed": Definition("1", "up", "1 if the fitted distribution has one symbol only or no variance, else 0"),
    "collapsed_at": Definition("step", "", "first step at which the model has collapsed; recorded at that step only"),
    "documents_trained": Definition("documents", "", "documents that the model was fitted to in this step"),
    # of the web and of training sets
    "synthetic_share": Definition("1", "up", "share written by models: of live documents, or of a set by weight"),
    "depth": Definition("model hops", "up", "mean number of model hops back to human data (human documents: 0)"),
    "documents": Definition("documents", "", "number of documents"),
    "held_out_overlap": Definition(
        "1",
        "",
        "share of the held-out documents that have 13 words in a row (measure.overlap) in common with a document on "
        "the web, or in a training set",
    ),
    "crawl_refused_share": Definition(
        "1", "", "share of live documents on sites that refuse crawlers, of the web or of a type of sites"
    ),
    # of a type of sites, beside synthetic_share, depth and documents
    "sites": Definition("sites", "", "number of living sites of a type"),
    "sites_born": Definition("sites", "", "sites of a type that were born in this step; at step 0, all of them"),
    "sites_died": Definition("sites", "", "sites of a type that died in this step"),
    "left_page_died": Definition("documents", "", "documents that left in this step because their page died"),
    "left_site_died": Definition("documents", "", "documents that left in this step because their site died"),
    "left_curated": Definition("documents", "", "documents that curators removed in this step"),
    "left_filtered": Definition("documents", "", "documents that the retain gate of the web removed in this step"),
    "injected_share": Definition("1", "", "share of a training set, by weight, that a policy added from a source"),
    # of a policy, by the true origin of the documents that reached it
    "kept_human": Definition("documents", "", "human documents that reached the policy and passed"),
    "refused_human": Definition("documents", "", "human documents that it refused (its false positives)"),
    "kept_synthetic": Definition("documents", "", "synthetic documents that reached the policy and passed"),
    "refused_synthetic": Definition("documents", "", "synthetic documents that it refused (its true positives)"),
    "in_force": Definition("1", "", "1 if a policy with a condition (when) is in force at this step, else 0"),
    # of a policy's classifier, when it is trained, on documents outside its training set
    "true_positive_rate": Definition("1", "", "share of synthetic documents that a learned detector refuses"),
    "false_positive_rate": Definition("1", "", "share of human documents that a learned detector refuses"),
    "auc": Definition(
        "1",
        "",
        "chance that a classifier scores a synthetic (or trusted) document higher than a human (or web) document",
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
        "human documents that a writer wrote, or that an adder with a price bought for the first time: newly written "
        "for pay, or taken from an archive or source",
    ),
    "documents_injected": Definition(
        "documents", "", "documents that an adder added to training sets, repetitions included"
    ),
    "reviews": Definition("documents", "", "documents that a curator reviewed, or that people labelled for a detector"),
    "spent": Definition("money", "", "price times the number of documents paid for"),
    # of a writer that may leave
    "audience": Definition(
        "1", "down", "share of human documents in the prominence at the writer's home sites, before it writes"
    ),
    "writing": Definition("1", "down", "1 if it writes at this step, 0 if it has left"),
    # of a community of writers who choose
    "share_writing": Definition("1", "down", "share of a community of writers that writes without AI"),
    "share_using_ai": Definition("1", "up", "share of a community of writers that uses AI"),
    "share_silent": Definition("1", "", "share of a community of writers that publishes nothing"),
    "human_benefit": Definition("units of benefit", "", "benefit of a human document, as given or learnt"),
    "ai_benefit": Definition("units of benefit", "down", "benefit of a document by AI, as given, reduced or learnt"),
    "welfare": Definition("units of benefit", "down", "mean payoff in a community of writers"),
    # of a curator
    "reviewed_human": Definition("documents", "", "human documents that a curator reviewed in this step"),
    "reviewed_synthetic": Definition("documents", "", "synthetic documents that a curator reviewed in this step"),
    "suspect_human": Definition("documents", "", "reviewed human documents that the curator considered synthetic"),
    "suspect_synthetic": Definition("documents", "", "reviewed synthetic documents that it considered synthetic"),
}
for _name, (_formula, _source) in FORMULAS.items():
    DEFINED[_name] = DEFINED[_name]._replace(formula=_formula, source=DEFINED[_name].source or _source)
_OWNERS = dict.fromkeys(DEFINED, _PACKAGE)


def define(definitions: Mapping[str, Definition], owner: str) -> None:
    """Define metrics by name.

    Registering a metric kind calls this; a plug-in calls it for the metrics that its models describe themselves with.
    ``owner`` is the class that yields the metrics, with its module. Raise ScenarioError for a name that is malformed
    or already defined by another owner.
    """
    owners = {label: _OWNERS[name] for name, entry in DEFINED.items() for label in (name, entry.alias)}
    for label in (label for name, entry in definitions.items() for label in (name, entry.alias) if label):
        if not _NAME.fullmatch(label):
            raise ScenarioError(
                f'{owner}: the metric name "{label}" may only have lower-case letters, digits and "_", and must begin '
                "with a letter; rename it."
            )
        if owners.get(label, owner) != owner:
            raise ScenarioError(f'{owner}: the metric "{label}" is already defined by {owners[label]}; rename it.')
    DEFINED.update(definitions)
    _OWNERS.update(dict.fromkeys(definitions, owner))


def is_plugged_in(name: str) -> bool:
    """Return whether a defined metric comes from outside this package."""
    return _OWNERS[name].partition(".")[0] != _PACKAGE
