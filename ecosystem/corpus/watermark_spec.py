"""Watermarks: the parameters that generation and detection of a watermark share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecosystem.streams import Stream

Scheme = Literal["green_list", "synthid"]


@dataclass(frozen=True)
class WatermarkSpec:
    """The parameters of a watermark; two with equal fields are the same watermark.

    ``green_list`` (Kirchenbauer et al. 2023): the previous token determines which share ``green_share`` of all tokens
    is green, and ``bias`` is added to the logits of green tokens. ``synthid`` (Dathathri et al. 2024): the
    ``context_width`` previous tokens determine ``depth`` random bits of every token, and candidates compete in a
    tournament of as many rounds.
    """

    scheme: Scheme
    key: int
    green_share: float = 0.25
    bias: float = 2.0
    context_width: int = 4
    depth: int = 5

    @property
    def reach(self) -> int:
        """The number of previous tokens on which the mark of a token depends."""
        return 1 if self.scheme == "green_list" else self.context_width

    def keys(self) -> NDArray[np.int64]:
        """Return one key per round of the tournament, [depth]; a smaller depth has a prefix of the same keys."""
        return Stream(self.key, "synthid").rng().integers(1, 2**31, self.depth, dtype=np.int64)
