"""The report of a fit: one page that works offline, with its charts."""

from ecosystem.fitting.report.build import write_fit

__all__ = ["write_fit"]
