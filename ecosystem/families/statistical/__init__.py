"""Models with known parameters and, for many, closed forms for repeated retraining."""
