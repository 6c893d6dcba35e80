"""The version of ecosystem; the packaging reads it from here, and runs record it."""

__version__ = "0.2.0"
