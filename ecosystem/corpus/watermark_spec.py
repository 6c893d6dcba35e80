"""A watermark: the few numbers that a writer of marked text and a detector of the mark must share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecosystem.streams import Stream

Scheme = Literal["green_list", "synthid"]


@dataclass(frozen=True)
class WatermarkSpec:
    """One watermark; two with equal fields are the same watermark.

    ``green_list`` (Kirchenbauer et al. 2023): the previous token decides which ``green_share`` of all tokens is green,
    and the logits of green tokens are raised by ``bias``. ``synthid`` (Dathathri et al. 2024): the ``context_width``
    previous tokens decide ``depth`` random bits of every token, and candidates meet in a tournament of as many rounds.
    """

    scheme: Scheme
    key: int
    green_share: float = 0.25
    bias: float = 2.0
    context_width: int = 4
    depth: int = 5

    def keys(self) -> NDArray[np.int64]:
        """Return one key per round of the tournament, shape [depth]; a smaller depth has the first of the same keys."""
        return Stream(self.key, "synthid").rng().integers(1, 2**31, self.depth, dtype=np.int64)
