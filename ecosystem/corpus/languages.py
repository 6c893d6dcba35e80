"""Name the languages of texts, with py3langid if it is installed, or else their scripts.

py3langid (a fork of langid.py, Lui & Baldwin 2012) carries its model of 97 languages in the package, so nothing is
downloaded.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

INSTALL = 'pip install "ecosystem[languages]" names languages'
_SHORTEST = 20  # characters of a text whose language is guessed
_READ = 1000  # characters of a text that are read
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts without spaces between words


def languages(texts: Iterable[str]) -> tuple[dict[str, float], str]:
    """Return the share of texts by language code (ISO 639-1) or script, largest first, and what told them apart.

    Texts of fewer than 20 characters do not count.
    """
    long = [text[:_READ] for text in texts if len(text) >= _SHORTEST]
    try:
        import py3langid
    except ImportError:
        counts = Counter(script(text) for text in long)
        return _shares(counts), f"scripts only: {INSTALL}"
    counts = Counter(str(py3langid.classify(text)[0]) for text in long)
    return _shares(counts), "languages by py3langid, which is often wrong on a single short text"


def script(text: str) -> str:
    """Return the most frequent script of the letters of a text, as the names of its characters in Unicode begin."""
    names = (unicodedata.name(character, "").split(" ")[0] for character in text if character.isalpha())
    counts = Counter(name for name in names if name)
    return counts.most_common(1)[0][0] if counts else "none"


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.most_common()}
