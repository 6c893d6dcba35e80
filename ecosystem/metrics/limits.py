"""The bounds of metrics, as far as their definitions give them: shares lie between 0 and 1, counts are not negative."""

from __future__ import annotations

import math

from ecosystem.metrics.catalogue import definitions
from ecosystem.metrics.definitions import is_plugged_in

_COUNTS = ("documents", "model hops", "sites", "squared units", "tokens", "types", "words")  # units
_SHARES = (
    *("synthetic_share", "held_out_overlap", "crawl_refused_share", "injected_share", "read_synthetic_share"),
    *("flagged_share", "ai_text_share", "watermark_found", "true_positive_rate", "false_positive_rate", "auc"),
    *("distinct_1", "distinct_2", "distinct_3", "distinct_4", "rep_1", "rep_2", "rep_3", "rep_4", "self_bleu"),
    *("simpson", "gini_simpson", "max_probability", "first_type", "tail_mass", "unseen_mass", "hellinger"),
    *("accuracy", "label_accuracy", "label_noise", "collapsed", "share_writing", "share_using_ai", "share_silent"),
)
_POSITIVE = (
    *("cross_entropy", "bits_per_byte", "entropy", "entropy_share", "variance", "standard_deviation", "l1", "l2"),
    *("density_distance", "density_change", "compression_ratio", "zipf_exponent"),
)


def limits(metric: str) -> tuple[float, float]:
    """Return the lowest and the highest value that a metric can have, infinite where its definition gives none."""
    definition = definitions().get(metric)
    if definition is None or is_plugged_in(metric):
        return -math.inf, math.inf
    if metric in _SHARES or metric.startswith(("accuracy_", "zero_shot_")):
        return 0.0, 1.0
    known = definition.unit in _COUNTS or metric in _POSITIVE or metric.startswith("vocabulary_kept_")
    return 0.0 if known else -math.inf, math.inf
