"""Every metric by name: what it is in one line, in which unit, and which way it moves when models collapse."""

from __future__ import annotations

from typing import NamedTuple


class Definition(NamedTuple):
    """One line about a metric: ``unit`` ("1" for a pure number), ``collapse`` ("up", "down" or "") and ``text``."""

    unit: str
    collapse: str
    text: str


def _by_n(name: str, text: str, collapse: str) -> dict[str, Definition]:
    return {f"{name}_{n}": Definition("1", collapse, text.format(n=n)) for n in range(1, 5)}


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
_TASKS = {
    "topic": "which part of its source a passage comes from",
    "next_sentence": "a passage's next sentence or one of another document",
    "word_order": "a sentence as written or with two words swapped",
    "next_word": "a passage's next word or one of three as frequent",
}


def _of_tasks(name: str, text: str, collapse: str) -> dict[str, Definition]:
    return {f"{name}_{task}": Definition("1", collapse, text.format(task=what)) for task, what in _TASKS.items()}


DEFINITIONS: dict[str, Definition] = {
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
    **_of_tasks(
        "accuracy", "share of right answers after fine-tuning from the model's present weights: {task}", "down"
    ),
    **_of_tasks("zero_shot", "share of right answers of the model as it is: {task}", "down"),
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
    # of the texts a model publishes, on groups of equally many words
    **_by_n("distinct", "different {n}-grams / all {n}-grams in samples of equally many words", "down"),
    **_by_n("rep", "1 - different {n}-grams / all {n}-grams within one document, mean over documents", "up"),
    "self_bleu": Definition("1", "up", "mean BLEU-4 of each sampled document against all the others"),
    "compression_ratio": Definition("1", "up", "bytes of text / bytes after zlib: the higher, the more redundant"),
    "entropy": Definition(
        "nats", "down", "entropy of the word frequencies of a sample (Miller-Madow), or of a categorical model"
    ),
    "next_token_l1": Definition(
        "1",
        "up",
        "L1 distance (0 to 2) of next-token distributions from those of the starting weights, mean over contexts",
    ),
    "zipf_exponent": Definition("1", "up", "s of the power law rank^-s fitted to a sample by maximum likelihood"),
    **{
        f"vocabulary_kept_{k}": Definition(
            "1",
            "down",
            f"human words of frequency decile {k} (1: most frequent) that occur, per expected in as much human text",
        )
        for k in range(1, 11)
    },
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
    "l2": Definition("1", "up", "sum of squared differences from the true probabilities"),
    # of a model of vectors, by its own parameters
    "mean_error": Definition("squared units", "up", "squared distance of the mean from the true one"),
    "variance": Definition("1", "down", "trace of the covariance, as a share of the true one's"),
    "log_variance": Definition("nats", "down", "logarithm of variance"),
    "standard_deviation": Definition("1", "down", "square root of variance"),
    "w2": Definition("squared units", "up", "squared Wasserstein-2 distance between the normals of model and truth"),
    "density_distance": Definition(
        "per unit of volume", "up", "integral of the squared difference of the model's density from a normal truth's"
    ),
    "density_change": Definition(
        "per unit of volume", "up", "the same difference from the density of the model's own first fit"
    ),
    "test_error": Definition("squared units", "up", "squared distance of regression weights from the true ones"),
    "accuracy": Definition(
        "1", "", "chance that its label of a new document is right: 1 - angle between its plane and the true one / π"
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
