"""Validation: comparison of the simulation with the closed forms of the literature."""
