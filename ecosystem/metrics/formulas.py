"""The formulas of the metrics that the simulation itself takes, and the publications that they are from.

Notation: Σ runs over documents unless said otherwise; nll is minus a log-likelihood in nats; p is a model's
distribution and q the true one, μ and A the mean and covariance of a model, ν and B the true ones; w are weights; ⟦ ⟧
is 1 where what is inside holds and else 0.
"""

from __future__ import annotations


def _each(names: list[str], formula: str, source: str) -> dict[str, tuple[str, str]]:
    return dict.fromkeys(names, (formula, source))


_TEXT_MODELS = {
    "cross_entropy": ("Σ nll / Σ tokens", "Shannon 1948"),
    "cross_entropy_change": ("Σ (nll - nll of the starting weights) / Σ tokens", ""),
    "perplexity": ("exp(cross_entropy)", "Jelinek et al. 1977"),
    "bits_per_byte": ("Σ nll / (ln 2 · Σ bytes)", "Gao et al. 2020 (The Pile)"),
    **_each(
        ["cross_entropy_frequent", "cross_entropy_rare"],
        "Σ nll / Σ tokens over tokens of frequent (rare) types; frequent: the smallest set of types with 80 % of the "
        "held-out human tokens",
        "",
    ),
    **_each(
        ["cross_entropy_frequent_change", "cross_entropy_rare_change"],
        "Σ (nll - nll of the starting weights) / Σ tokens over the same tokens",
        "",
    ),
    "cross_entropy_synthetic": ("Σ nll / Σ tokens over the trainers' unpublished text", ""),
    "excess_nats": ("Σ (nll + ln q(document)) / documents", "Kullback & Leibler 1951, estimated from samples"),
    **_each(
        [f"initial_perplexity_q{q:02d}" for q in (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)],
        "quantile over texts of exp(nll / tokens) under the starting weights, over equally many tokens of each text",
        "Shumailov et al. 2024, histograms of perplexity",
    ),
    "training_loss": ("mean nll per token over the last tenth of a fit", ""),
    "next_token_l1": (
        "Σ over contexts of Σ over tokens |p - p of the starting weights| / contexts",
        "Seddik et al. 2024",
    ),
}

_TEXTS = {
    "mean_words": ("Σ words / documents", ""),
    "watermark_z": (
        "mean over documents of (x - E x) / sd x without a mark: x counts green tokens (green_list), or is the "
        "weighted mean of the bits (synthid)",
        "Kirchenbauer et al. 2023; Dathathri et al. 2024",
    ),
    "watermark_found": ("Σ ⟦z > threshold⟧ / documents", ""),
}

_CATEGORIES = {
    "simpson": ("Σ p² over symbols", "Simpson 1949"),
    "gini_simpson": ("1 - Σ p² over symbols", "Simpson 1949; used by Seddik et al. 2404.05090"),
    "entropy_share": ("Σ p ln p / Σ q ln q", "Shannon 1948"),
    "support": ("Σ ⟦p > 0⟧ over symbols", ""),
    "max_probability": ("max p", ""),
    "mode": ("argmax p, the first of several", ""),
    "first_type": ("p(argmax q)", ""),
    "tail_mass": ("Σ p over all symbols but the likeliest tenth under q", ""),
    "tail_types": ("Σ ⟦p > 0⟧ over all symbols but the likeliest tenth under q", ""),
    "unseen_mass": ("Σ q ⟦p = 0⟧", "missing mass, Good 1953"),
    "l1": ("Σ |p - q|", "twice the total variation distance; Seddik et al. 2404.05090"),
    "l2": ("Σ (p - q)²: the squared Euclidean distance", "Seddik et al. 2404.05090"),
}

_VECTORS = {
    "held_out_nll": ("Σ nll / documents", "Shannon 1948"),
    "mean_error": ("|μ - ν|²", "Shumailov et al. 2305.17493"),
    "variance": ("tr A / tr B", "Shumailov et al. 2305.17493"),
    "log_variance": ("ln(tr A / tr B)", ""),
    "standard_deviation": ("√(tr A / tr B)", ""),
    "w2": ("|μ - ν|² + tr(A + B - 2 (√B A √B)^½): the squared distance", "Dowson & Landau 1982"),
    "density_distance": ("∫ (p - q)²", ""),
    "density_change": ("∫ (p - p of the first fit)²", "Shumailov et al. 2305.17493"),
    "test_error": ("|weights - true weights|²", "Gerstgrasser et al. 2404.01413; Dohmatob et al. 2410.04840"),
    "accuracy": ("1 - angle(fitted normal, true normal) / π", "Feng et al. 2406.07515"),
    "label_accuracy": ("Σ w ⟦label is right⟧ / Σ w over the training set", "Feng et al. 2406.07515"),
    "label_noise": ("the noise of the fitted classifier", ""),
    "latent_log_std": (
        "ln of the standard deviation of the encoder's means over 500 documents and all latent numbers",
        "Shumailov et al. 2024",
    ),
    "collapsed": ("⟦support = 1⟧ or ⟦variance = 0⟧", ""),
    "collapsed_at": ("min t with collapsed = 1", ""),
}

_TABLES = {
    "synthetic_share": ("Σ w ⟦synthetic⟧ / Σ w; of the web w = 1", ""),
    "depth": ("Σ w depth / Σ w; of the web w = 1", ""),
    "injected_share": ("Σ w ⟦injected⟧ / Σ w", ""),
    "true_positive_rate": ("refused synthetic documents / synthetic documents, held out", ""),
    "false_positive_rate": ("refused human documents / human documents, held out", ""),
    "auc": (
        "mean over pairs of ⟦score of the positive > score of the negative⟧, 1/2 for equals",
        "Hanley & McNeil 1982; error: DeLong et al. 1988",
    ),
    "audience": ("Σ prominence ⟦human⟧ / Σ prominence at the home sites", ""),
    "complies": ("⟦the trainer marks its text⟧", ""),
    "writing": ("⟦the writer has not left⟧", ""),
    "flops": (
        "3 · tokens trained · F(context) + Σ length · F(length), F per token of one forward pass",
        "Kaplan et al. 2020",
    ),
    "spent": ("price · documents paid for", ""),
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
    **_each(list(_COUNTS), "the number of them", ""),
}
"""Name of a metric → its formula, and its publication or ""."""
