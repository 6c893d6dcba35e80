"""The formula of every built-in metric, and where it comes from; the names are those of the definitions.

Notation: Σ runs over documents unless said otherwise; nll is minus a log-likelihood in nats; p is a model's
distribution and q the true one, μ and A the mean and covariance of a model, ν and B the true ones; w are weights; ⟦ ⟧
is 1 where what is inside holds and else 0. "Counted" marks a number that is read off the tables of a step.
"""

from __future__ import annotations

COUNTED = "counted"
PROJECT = "this project"
_TASK_NAMES = ("topic", "next_sentence", "word_order", "next_word")


def _each(names: list[str], formula: str, source: str) -> dict[str, tuple[str, str]]:
    return dict.fromkeys(names, (formula, source))


_TEXT_MODELS = {
    "cross_entropy": ("Σ nll / Σ tokens", "Shannon 1948"),
    "cross_entropy_change": ("Σ (nll - nll of the starting weights) / Σ tokens", PROJECT),
    "perplexity": ("exp(cross_entropy)", "Jelinek et al. 1977"),
    "bits_per_byte": ("Σ nll / (ln 2 · Σ bytes)", "Gao et al. 2020 (The Pile)"),
    **_each(
        ["cross_entropy_frequent", "cross_entropy_rare"],
        "Σ nll / Σ tokens over tokens of frequent (rare) types; frequent: the smallest set of types with 80 % of the "
        "held-out human tokens",
        PROJECT,
    ),
    **_each(
        ["cross_entropy_frequent_change", "cross_entropy_rare_change"],
        "Σ (nll - nll of the starting weights) / Σ tokens over the same tokens",
        PROJECT,
    ),
    "cross_entropy_synthetic": ("Σ nll / Σ tokens over the trainers' unpublished text", PROJECT),
    "excess_nats": ("Σ (nll + ln q(document)) / documents", "Kullback & Leibler 1951, estimated from samples"),
    **_each(
        [f"initial_perplexity_q{q:02d}" for q in (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)],
        "quantile over texts of exp(nll / tokens) under the starting weights, over equally many tokens of each text",
        "Shumailov et al. 2024, histograms of perplexity",
    ),
    **_each(
        [f"{way}_{task}" for way in ("accuracy", "zero_shot") for task in _TASK_NAMES],
        "Σ ⟦the likeliest choice is the answer⟧ / examples",
        "this project; fine-tuning at every generation as in Wang et al. 2412.14872",
    ),
    "training_loss": ("mean nll per token over the last tenth of a fit", COUNTED),
    "next_token_l1": (
        "Σ over contexts of Σ over tokens |p - p of the starting weights| / contexts",
        "Seddik et al. 2024",
    ),
}

_TEXTS = {
    **_each(
        [f"distinct_{n}" for n in range(1, 5)], "mean over groups of different n-grams / n-grams", "Li et al. 2016"
    ),
    **_each(
        [f"rep_{n}" for n in range(1, 5)],
        "mean over documents of 1 - different n-grams / n-grams",
        "Welleck et al. 2020",
    ),
    "self_bleu": (
        "mean over documents of BLEU-4 against all others: brevity penalty times the geometric mean of the clipped "
        "n-gram precisions",
        "Zhu et al. 2018 (Texygen); BLEU: Papineni et al. 2002",
    ),
    "compression_ratio": ("mean over groups of bytes / bytes after zlib, level 6", PROJECT),
    "entropy": (
        "texts: -Σ f ln f + (K - 1) / (2 N) over the K words seen in N, f their frequencies; categories: -Σ p ln p",
        "Miller 1955",
    ),
    "zipf_exponent": (
        "the s that maximises Σ c_r ln(r^-s / Σ r^-s) over ranks r with counts c_r, between 0 and 20",
        "Clauset et al. 2009",
    ),
    **_each(
        [f"vocabulary_kept_{k}" for k in range(1, 11)],
        "mean over groups of words of the decile that occur / Σ (1 - (1 - f)^N), f their human frequencies, N the "
        "words of a group",
        PROJECT,
    ),
    "mean_words": ("Σ words / documents", COUNTED),
    "watermark_z": (
        "mean over documents of (x - E x) / sd x without a mark: x counts green tokens (green_list), or is the "
        "weighted mean of the bits (synthid)",
        "Kirchenbauer et al. 2023; Dathathri et al. 2024",
    ),
    "watermark_found": ("Σ ⟦z > threshold⟧ / documents", PROJECT),
}

_CATEGORIES = {
    "simpson": ("Σ p² over symbols", "Simpson 1949"),
    "gini_simpson": ("1 - Σ p² over symbols", "Simpson 1949; used by Seddik et al. 2404.05090"),
    "entropy_share": ("Σ p ln p / Σ q ln q", "Shannon 1948"),
    "support": ("Σ ⟦p > 0⟧ over symbols", PROJECT),
    "max_probability": ("max p", PROJECT),
    "mode": ("argmax p, the first of several", PROJECT),
    "first_type": ("p(argmax q)", PROJECT),
    "tail_mass": ("Σ p over all symbols but the likeliest tenth under q", PROJECT),
    "tail_types": ("Σ ⟦p > 0⟧ over all symbols but the likeliest tenth under q", PROJECT),
    "unseen_mass": ("Σ q ⟦p = 0⟧", "missing mass, Good 1953"),
    "l1": ("Σ |p - q|", "twice the total variation distance; Seddik et al. 2404.05090"),
    "l2": ("Σ (p - q)²: the squared Euclidean distance", "Seddik et al. 2404.05090"),
}

_VECTORS = {
    "held_out_nll": ("Σ nll / documents", "Shannon 1948"),
    "mean_error": ("|μ - ν|²", "Shumailov et al. 2305.17493"),
    "variance": ("tr A / tr B", "Shumailov et al. 2305.17493"),
    "log_variance": ("ln(tr A / tr B)", PROJECT),
    "standard_deviation": ("√(tr A / tr B)", PROJECT),
    "w2": ("|μ - ν|² + tr(A + B - 2 (√B A √B)^½): the squared distance", "Dowson & Landau 1982"),
    "density_distance": ("∫ (p - q)²", PROJECT),
    "density_change": ("∫ (p - p of the first fit)²", "Shumailov et al. 2305.17493"),
    "test_error": ("|weights - true weights|²", "Gerstgrasser et al. 2404.01413; Dohmatob et al. 2410.04840"),
    "accuracy": ("1 - angle(fitted normal, true normal) / π", "Feng et al. 2406.07515"),
    "label_accuracy": ("Σ w ⟦label is right⟧ / Σ w over the training set", "Feng et al. 2406.07515"),
    "label_noise": ("the noise of the fitted classifier", PROJECT),
    "latent_log_std": (
        "ln of the standard deviation of the encoder's means over 500 documents and all latent numbers",
        "Shumailov et al. 2024",
    ),
    "collapsed": ("⟦support = 1⟧ or ⟦variance = 0⟧", PROJECT),
    "collapsed_at": ("min t with collapsed = 1", PROJECT),
}

_TABLES = {
    "synthetic_share": ("Σ w ⟦synthetic⟧ / Σ w; of the web w = 1", PROJECT),
    "depth": ("Σ w depth / Σ w; of the web w = 1", PROJECT),
    "injected_share": ("Σ w ⟦injected⟧ / Σ w", PROJECT),
    "true_positive_rate": ("refused synthetic documents / synthetic documents, held out", "standard"),
    "false_positive_rate": ("refused human documents / human documents, held out", "standard"),
    "auc": (
        "mean over pairs of ⟦score of the positive > score of the negative⟧, 1/2 for equals",
        "Hanley & McNeil 1982; error: DeLong et al. 1988",
    ),
    "audience": ("Σ prominence ⟦human⟧ / Σ prominence at the home sites", PROJECT),
    "complies": ("⟦the trainer marks its text⟧", PROJECT),
    "writing": ("⟦the writer has not left⟧", PROJECT),
    "flops": (
        "3 · tokens trained · F(context) + Σ length · F(length), F per token of one forward pass",
        "Kaplan et al. 2020",
    ),
    "spent": ("price · documents paid for", COUNTED),
}

_COUNTS = (
    "tokens_trained",
    "documents_published",
    "documents_trained",
    "documents",
    "kept_human",
    "refused_human",
    "kept_synthetic",
    "refused_synthetic",
    "tokens_generated",
    "tokens_published",
    "documents_generated",
    "human_documents",
    "documents_injected",
    "reviews",
    "reviewed_human",
    "reviewed_synthetic",
    "suspect_human",
    "suspect_synthetic",
)

FORMULAS: dict[str, tuple[str, str]] = {
    **_TEXT_MODELS,
    **_TEXTS,
    **_CATEGORIES,
    **_VECTORS,
    **_TABLES,
    **_each(list(_COUNTS), "the number of them", COUNTED),
}
"""Name of a metric → its formula and its source."""
