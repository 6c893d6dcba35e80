"""Formulas of the metrics that the simulation itself measures, and their sources.

Notation: Σ runs over documents unless stated otherwise; nll is the negative log-likelihood in nats; p is the model's
distribution and q the true one; μ and A are the mean and covariance of the model, ν and B the true ones; w are
weights; ⟦condition⟧ is 1 if the condition holds and 0 otherwise.

The source of a formula is where the measure comes from. A mark after a source says how far the formula was checked
against it: "unread" if it was taken from secondary sources or general knowledge, "abstract" if the paper's abstract
states it, and "code" if the authors' published code computes it. Without a mark, the text of the paper was read.
"""

from __future__ import annotations


def _each(names: list[str], formula: str, source: str) -> dict[str, tuple[str, str]]:
    return dict.fromkeys(names, (formula, source))


_TEXT_MODELS = {
    "cross_entropy": ("Σ nll / Σ tokens", "common definition"),
    "cross_entropy_change": ("Σ (nll - nll of the starting weights) / Σ tokens", ""),
    "perplexity": ("exp(cross_entropy)", "Jelinek et al. 1977 (abstract)"),
    "bits_per_byte": ("Σ nll / (ln 2 · Σ bytes)", "Gao et al. 2020, The Pile (unread)"),
    **_each(
        ["cross_entropy_frequent", "cross_entropy_rare"],
        "Σ nll / Σ tokens over tokens of frequent (rare) types; frequent: the smallest set of types that covers 80 % "
        "of the tokens in the web's initial human documents",
        "",
    ),
    **_each(
        ["cross_entropy_frequent_change", "cross_entropy_rare_change"],
        "Σ (nll - nll of the starting weights) / Σ tokens over the same tokens",
        "",
    ),
    "cross_entropy_synthetic": ("Σ nll / Σ tokens over the trainers' unpublished text", ""),
    "excess_nats": ("Σ (nll + ln q(document)) / documents", "Kullback & Leibler 1951 (unread), estimated from samples"),
    **_each(
        [f"initial_perplexity_q{q:02d}" for q in (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)],
        "quantile over texts of exp(nll / tokens) under the starting weights, over the same number of tokens in each",
        "Shumailov et al. 2024 (2305.17493), histograms of perplexity",
    ),
    "training_loss": ("mean nll per token over the last tenth of a fit", ""),
    "next_token_l1": (
        "Σ over contexts of Σ over tokens |p - p of the starting weights| / contexts",
        "Seddik et al. 2024 (2404.05090), section 5, there from the first model",
    ),
}

_TEXTS = {
    "radioactivity_z": (
        "(g - γN) / √(N γ(1 - γ)) for g green of N different pairs of a token and the likeliest one after it; γ: share "
        "of green tokens",
        "Sander et al. 2024 (2402.14904) (abstract)",
    ),
    "radioactivity_log10_p": ("log10 P(X ≥ g), X binomial with N and γ", "Sander et al. 2024 (2402.14904) (abstract)"),
    "mean_words": ("Σ words / documents", ""),
    "watermark_z": (
        "mean over documents of (x - E x) / sd x, both without a watermark: x counts green tokens (green_list), or is "
        "the weighted mean of the bits (synthid)",
        "Kirchenbauer et al. 2023 (unread); Dathathri et al. 2024 (unread)",
    ),
    "watermark_found": ("Σ ⟦z > threshold⟧ / documents with enough tokens to score", ""),
}

_CATEGORIES = {
    "simpson": ("Σ p² over symbols", "Simpson 1949 (unread); Seddik et al. 2024 (2404.05090)"),
    "gini_simpson": ("1 - Σ p² over symbols", "Simpson 1949 (unread)"),
    "entropy_share": ("Σ p ln p / Σ q ln q over symbols", "Shannon 1948 (unread)"),
    "support": ("Σ ⟦p > 0⟧ over symbols", ""),
    "max_probability": ("max p", ""),
    "mode": ("argmax p, the first of several", ""),
    "first_type": ("p(argmax q), the first of several", ""),
    "tail_mass": ("Σ p over all symbols except the likeliest tenth under q (rounded down, at least one)", ""),
    "tail_types": ("Σ ⟦p > 0⟧ over the same symbols", ""),
    "unseen_mass": ("Σ q ⟦p = 0⟧ over symbols", "Good 1953 (unread), the missing mass"),
    "l1": (
        "Σ |p - q| over symbols: twice the total variation distance",
        "Seddik et al. 2024 (2404.05090), Theorem 3, there from the first model",
    ),
    "l2": ("Σ (p - q)² over symbols: the squared Euclidean distance", ""),
}

_VECTORS = {
    "held_out_nll": ("Σ nll / documents", "common definition"),
    "mean_error": ("|μ - ν|²", "Kazdan et al. 2025 (2410.16713, code)"),
    "variance": ("tr A / tr B", "Kazdan et al. 2025 (2410.16713, code)"),
    "log_variance": ("ln(tr A / tr B)", ""),
    "standard_deviation": ("√(tr A / tr B)", ""),
    "w2": ("|μ - ν|² + tr(A + B - 2 (√B A √B)^½): the squared distance", "Dowson & Landau 1982 (abstract)"),
    "density_distance": ("∫ (p - q)²", ""),
    "density_change": ("∫ (p - p of the first fit)²", "Shumailov et al. 2024 (2305.17493, code)"),
    "hellinger": (
        "√(½ ∫ (√p - √q)²), within 9 standard deviations of the true mean",
        "Peterson 2024 (2404.03502, code)",
    ),
    "test_error": (
        "|weights - true weights|²",
        "Gerstgrasser et al. 2024 (2404.01413, unread); Dohmatob et al. 2024 (2410.04840, unread)",
    ),
    "accuracy": (
        "1 - angle(fitted normal, true normal) / π; 1/2 if all weights are 0",
        "Feng et al. 2024 (2406.07515, unread)",
    ),
    "label_accuracy": ("Σ w ⟦label is correct⟧ / Σ w over the training set", "Feng et al. 2024 (2406.07515, unread)"),
    "label_noise": ("the label noise of the fitted classifier", ""),
    "latent_log_std": (
        "ln of the standard deviation of the encoder's means over 500 documents and all latent dimensions",
        "Shumailov et al. 2024 (2305.17493, code)",
    ),
    "collapsed": ("⟦max p = 1⟧ or ⟦variance = 0⟧", ""),
    "collapsed_at": ("min t with collapsed = 1", ""),
}

_TABLES = {
    "synthetic_share": ("Σ w ⟦synthetic⟧ / Σ w; of the web w = 1; a mixed document counts by its share of AI", ""),
    "depth": ("Σ w depth / Σ w; of the web w = 1", ""),
    "crawl_refused_share": ("live documents on sites that refuse crawlers / live documents", ""),
    "injected_share": ("Σ w ⟦injected⟧ / Σ w", ""),
    "true_positive_rate": ("refused synthetic documents / synthetic documents, held out", "common definition"),
    "false_positive_rate": ("refused human documents / human documents, held out", "common definition"),
    "auc": (
        "mean over pairs of ⟦score of the positive > score of the negative⟧, 1/2 for ties",
        "Hanley & McNeil 1982 (abstract); error: DeLong et al. 1988 (unread)",
    ),
    "audience": ("Σ prominence ⟦human⟧ / Σ prominence at the home sites; 1 if that is 0", ""),
    "held_out_overlap": (
        "held-out documents with an n-gram of words in common with the set / held-out documents",
        "Brown et al. 2020, appendix C (unread), by document instead of by benchmark",
    ),
    "in_force": ("⟦the policy is in force⟧", ""),
    "complies": ("⟦the trainer marks its text⟧", ""),
    "writing": ("⟦the writer has not left⟧", ""),
    "share_writing": ("writers with the strategy / writers in the community", ""),
    "share_using_ai": ("users of AI / writers in the community", ""),
    "share_silent": ("silent writers / writers in the community", ""),
    "human_benefit": ("benefit; if learnt, the moving average of 100 max(0, fall of the Hellinger distance)", ""),
    "ai_benefit": (
        "ai_benefit - collapse · use, or · metric; if learnt, as human_benefit",
        "Baumann et al. 2026 (2604.21853, code)",
    ),
    "welfare": (
        "Σ share of a strategy · (its benefit - its cost)",
        "Baumann et al. 2026 (2604.21853, code)",
    ),
    "flops": (
        "3 · tokens trained · F(context) + Σ length · F(length), F per token of one forward pass",
        "Kaplan et al. 2020 (unread)",
    ),
    "spent": ("price · documents paid for", ""),
}

_COUNTS = (
    "tokens_trained",
    "documents_published",
    "documents_trained",
    "documents",
    "sites",
    "sites_born",
    "sites_died",
    "left_page_died",
    "left_site_died",
    "left_curated",
    "left_filtered",
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
    "reward": ("Σ reward / drafts, with the rewards of several curators averaged by their shares", ""),
    **_each(list(_COUNTS), "count", ""),
}
"""Formula and source of each metric; the source is "" for measures of this project."""
