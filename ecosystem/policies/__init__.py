"""Policies: frozen values that refuse, weigh or add documents at a gate."""
