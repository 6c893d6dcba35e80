"""Trainers of one run on many machines: members of cohorts live in the workers of a Ray cluster."""
