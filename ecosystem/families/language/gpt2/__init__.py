"""GPT-2 models that are trained and sampled together."""
