"""Format numbers, shares, durations and untrusted text."""

from __future__ import annotations

# Characters that are invisible, or control a terminal or the direction of text, and their replacements. Newlines and
# tabs are kept, as are the joiners of Persian, Indic scripts and emoji.
_INVISIBLE = (0x61C, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
_TAGS = range(0xE0000, 0xE0080)
_REPLACEMENTS: dict[int, int | str | None] = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t\r"},
    ord("\r"): None,
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    **{code: f"\\u{code:04x}" for code in (*_INVISIBLE, *range(0xD800, 0xE000))},
    **{code: f"\\U{code:08x}" for code in _TAGS},
}


def visible(text: object) -> str:
    """Replace characters that are invisible or control a terminal or the direction of text.

    Apply it to all text from users, files and models before it is shown. The result is plain text, not HTML.
    """
    return str(text).translate(_REPLACEMENTS)


def format_duration(seconds: float) -> str:
    """Return a duration, given in seconds, in a readable unit, such as ``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{max(1.0, seconds):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.0f} days"


def format_bytes(size: float) -> str:
    """Return a number of bytes in a readable unit, such as ``512 MB`` or ``3.4 GB``."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.{1 if size < 100 * unit and name != 'MB' else 0}f} {name}"
    return f"{size / 1e3:,.0f} kB"


def counted(count: float, noun: str) -> str:
    """Return a number with a noun in the singular or the regular plural: ``1 trainer``, ``3,000 trainers``."""
    return f"{count:,.0f} {noun}{'' if count == 1 else 's'}"


def number(value: float, digits: int = 2) -> str:
    """Return a number with a true minus sign and commas between thousands."""
    return f"{value:,.{digits}f}".replace("-", "−")


def significant(value: float, digits: int = 3) -> str:
    """Return a number with significant digits and commas between thousands; with an exponent above a million."""
    short = f"{value:.{digits}g}"
    return f"{float(short):,g}" if abs(value) < 1e6 else short


def percent(value: float) -> str:
    """Return a share as a percentage, with one decimal below 10 % and above 99 %."""
    shown = 100 * value
    digits = 0 if abs(shown) < 1e-9 or 10 <= shown <= 99 or shown == 100 else 1
    return f"{shown:.{digits}f}\u00a0%".replace("-", "−")
