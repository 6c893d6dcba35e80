"""Lengths of time in words."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Return a length of time in the unit that people would use, such as ``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{max(1.0, seconds):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.0f} days"
