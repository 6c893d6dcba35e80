"""The ``causal_lm`` family (being written)."""
