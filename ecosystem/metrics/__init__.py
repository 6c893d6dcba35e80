"""Metrics of models, texts, training sets and the web: pure functions and the specs that name them."""
