"""GPT-2 as a stack of members that are trained and sampled together."""
