"""Any causal language model of transformers, one member after the other."""
