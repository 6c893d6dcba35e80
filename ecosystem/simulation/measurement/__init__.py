"""The measure phase: what is measured of models, texts, policies and the web at every step, and what a step costs."""
