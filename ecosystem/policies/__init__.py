"""Policies: frozen values that keep, weigh or add documents at a gate."""
