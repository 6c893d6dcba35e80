"""Mixed documents: a share by a model and the rest by a person, within one document."""

from __future__ import annotations

import numpy as np
import polars as pl

from ecosystem.sources.vectors import as_documents
from ecosystem.types import Floats


def mixed(ai: pl.Series, human: pl.Series, ai_share: Floats, mix: str, noise: Floats) -> tuple[pl.Series, Floats]:
    """Return documents made of one AI and one human document each, and the share of AI in each, [documents].

    ``ai_share`` [documents], between 0 and 1, is what is wanted. Text: words of the human document, then words of the
    AI document, cut so that the latter are ``ai_share`` of the whole as nearly as both lengths allow; the share
    returned is that of the characters in words. Vectors and categories: one of the two documents, the model's where
    ``noise`` [documents] is below ``ai_share`` (``mix`` = "draw"), or their weighted mean ("blend").
    """
    if ai.dtype == pl.String:
        triples = zip(ai.to_list(), human.to_list(), ai_share.tolist(), strict=True)
        pairs = [_spliced(a, h, share) for a, h, share in triples]
        return pl.Series("content", [text for text, _ in pairs], dtype=pl.String), np.array([s for _, s in pairs])
    if mix == "blend":
        share = ai_share[:, None]
        return as_documents(share * ai.to_numpy() + (1 - share) * human.to_numpy()), ai_share
    by_model = noise < ai_share
    place = np.arange(ai.len()) + np.where(by_model, 0, ai.len())
    return pl.concat([ai, human]).gather(place), by_model.astype(np.float64)


def _spliced(ai: str, human: str, share: float) -> tuple[str, float]:
    """Return a text of a human and an AI span, and the share of the AI span in the characters of its words."""
    own, generated = human.split(), ai.split()
    if not own or not generated:
        return (ai, 1.0) if generated else (human, 0.0)
    # The longest text with this share whose spans are not longer than the two texts.
    words = min(len(generated) / share, len(own) / (1 - share))
    taken = generated[: max(1, round(share * words))]
    kept = own[: max(1, round((1 - share) * words))]
    by_ai, by_human = (sum(map(len, part)) for part in (taken, kept))
    return " ".join([*kept, *taken]), by_ai / (by_human + by_ai)
