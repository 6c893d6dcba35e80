"""What a watermark is: the few numbers on which who marks a text and who looks for the mark must agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecosystem.streams import Stream

Scheme = Literal["green_list", "synthid"]


@dataclass(frozen=True)
class WatermarkSpec:
    """One watermark; two with equal fields are the same.

    ``green_list`` (Kirchenbauer et al. 2023): the token before decides which ``green_share`` of all tokens is green,
    and green ones get ``bias`` added to their logits. ``synthid`` (Dathathri et al. 2024): the ``context_width`` tokens
    before decide, for every token, ``depth`` random bits, and candidates meet in a tournament of as many rounds.
    """

    scheme: Scheme
    key: int
    green_share: float = 0.25
    bias: float = 2.0
    context_width: int = 4
    depth: int = 5

    def keys(self) -> NDArray[np.int64]:
        """Return one key per round of the tournament, shape [depth]; those of a smaller depth are the first ones."""
        return Stream(self.key, "synthid").rng().integers(1, 2**31, self.depth, dtype=np.int64)
