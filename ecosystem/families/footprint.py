"""Memory of models that have not been built, estimated from their sizes: bytes on a CPU, in float32."""

from __future__ import annotations

from dataclasses import dataclass

LARGE = 20_000_000
"""Parameters from which memory matters more than reading initial weights again."""
PART_TOKENS = 1024
"""Tokens of a batch that language models compute at once on a CPU, unless memory demands fewer."""

WRITTEN_ROWS = 128
"""Maximum documents that a thread writes at once on a CPU."""
CACHED_VALUES = 1 << 26
"""Maximum keys and values in a cache of a thread on a CPU: 256 MB in float32."""
LARGE_CHUNK = 1 << 22
"""Logits of large vocabularies in memory at once: 16 MB in float32."""

_VALUE = 4  # bytes of a float32
_KEPT, _KEPT_PER_THREAD = 1.1, 1.65  # what the C library keeps of freed memory, measured; large and small models
_LOGITS = 6  # copies of the logits of one token per document while it is drawn


@dataclass(frozen=True)
class Footprint:
    """Sizes of a language model on which its memory depends; the default is that of a negligible model."""

    own: int = 0  # parameters that every member has for itself, and trains
    shared: int = 0  # parameters that all members share
    shared_copies: int = 0  # of these at once: merged with an adapter, and random ones to compare with
    activations: int = 0  # values per token that are kept for the backward pass
    width: int = 0  # of the output matrix, which has a row for every token of the vocabulary
    vocabulary: int = 0
    context: int = 1  # tokens of a row
    batch: int = 1  # rows of a batch
    cached: int = 0  # keys and values per position and document while writing
    parallel: bool = False  # whether members are computed one per thread
    libraries: int = 0  # bytes of libraries that only this kind of model imports

    def weights(self, members: int) -> int:
        """Return the memory of all members between fits, initial weights included where they are kept."""
        kept = members + 1 if self.own < LARGE else members
        return _VALUE * (self.own * kept + self.shared * (1 + self.shared_copies))

    def stored(self, members: int) -> int:
        """Return the size of a step's weights on disk."""
        return _VALUE * self.own * members

    def optimiser(self, members: int, threads: int) -> int:
        """Return the memory of gradients, moments and further copies of weights during a fit of all members."""
        own, rows = _VALUE * self.own, -(-PART_TOKENS // self.context)
        if not self.parallel:
            return round(_KEPT * 3 * own)
        parts = -(-self.batch // rows)
        alone = 2 * own + parts * own if members % threads else 0  # the parts of one member, on all threads
        copies = members if self.own < LARGE else 0  # to return to after an error
        return round(_KEPT_PER_THREAD * (copies * own + max(min(members, threads) * 3 * own, alone)))

    def activation_bytes(self, threads: int, part_tokens: int) -> int:
        """Return the memory of a backward pass over a part of a batch, with the gradient of the output matrix."""
        rows = min(self.batch, max(1, part_tokens // self.context))
        table = 2 * _VALUE * self.width * self.vocabulary
        part = (
            _VALUE * rows * self.context * self.activations
            + table
            + _VALUE * 3 * min(LARGE_CHUNK, 16 * self.vocabulary)
        )
        return round(_KEPT_PER_THREAD * part * threads if self.parallel else _KEPT * part)

    def writing(self, threads: int, documents: int, tokens: int) -> int:
        """Return the memory of writing ``documents`` of up to ``tokens`` tokens with each member."""
        rows = min(WRITTEN_ROWS, documents)
        cache = _VALUE * min(CACHED_VALUES, rows * min(tokens, self.context) * self.cached)
        logits = _VALUE * _LOGITS * rows * self.vocabulary
        copies = 1 if self.parallel else 2  # caches of transformers are extended by copying
        return (copies * cache + logits) * (threads if self.parallel else 1)

    def scoring(self) -> int:
        """Return the memory of initial and random weights, which are read while models are compared with them."""
        return _VALUE * self.own * (2 if self.own >= LARGE else 1)
