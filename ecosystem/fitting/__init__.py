"""Fits of scenarios to measurements: search, emulation, posterior, identifiability and report."""
