"""Any causal language model of transformers, one member at a time."""
