"""Format numbers, shares and durations as text."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Return a duration, given in seconds, in a readable unit, such as ``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{max(1.0, seconds):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.0f} days"


def number(value: float, digits: int = 2) -> str:
    """Return a number with a true minus sign and commas between thousands."""
    return f"{value:,.{digits}f}".replace("-", "−")


def percent(value: float) -> str:
    """Return a share as a percentage, with one decimal below 10 % and above 99 %."""
    shown = 100 * value
    digits = 0 if abs(shown) < 1e-9 or 10 <= shown <= 99 or shown == 100 else 1
    return f"{shown:.{digits}f}\u00a0%".replace("-", "−")
