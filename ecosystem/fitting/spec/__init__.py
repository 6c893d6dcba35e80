"""Fit files: parameters with priors, and targets."""
