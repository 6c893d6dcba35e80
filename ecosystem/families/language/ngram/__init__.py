"""N-gram models: counts of token sequences."""
