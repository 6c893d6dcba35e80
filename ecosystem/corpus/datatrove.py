"""The features of Gopher's rules as the library datatrove counts them, for policies with ``as = "datatrove"``.

The published rules (Rae et al. 2021) leave open how to count. :mod:`ecosystem.corpus.features` counts an n-gram only if
it occurs at least twice, and then every occurrence; here the most frequent n-gram counts even if it occurs once, and
the first occurrence of a repeated 5-gram does not. Words here are those of the metrics, with punctuation marks as words
of their own, which is closest to the tokenizer that datatrove applies to English; shares of characters are of the
whole text, white space included.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from unicodedata import category

import polars as pl

from ecosystem.corpus.features import STOP_WORDS
from ecosystem.corpus.words import TOKENS, fill_missing

_WORD = re.compile(TOKENS)


def quality(texts: pl.Series) -> pl.DataFrame:
    """Return the features of the quality rules, one row per text.

    ``words`` and ``mean_word_length`` leave out words of punctuation and symbols alone; ``hashes`` and ``ellipses``
    (both per word), ``alphabetic_words`` (a share) and the stop words, which must be in lower case, do not. Blank lines
    count as lines.
    """
    return pl.DataFrame([_quality(text) for text in fill_missing(texts)], schema=dict.fromkeys(_QUALITY, pl.Float64))


def repetition(texts: pl.Series) -> pl.DataFrame:
    """Return the features of the repetition rules, one row per text.

    All but ``characters``, their number, are shares: of paragraphs (between blank lines) and of lines that repeat an
    earlier one; of characters in these; of characters in the most frequent n-gram, its occurrences times its length
    with single spaces; and of characters in n-grams that occurred before, read from left to right without overlaps.
    """
    rows = [_repetition(text) for text in fill_missing(texts)]
    return pl.DataFrame(rows, schema=dict.fromkeys(_REPETITION, pl.Float64))


_QUALITY = (
    *("words", "mean_word_length", "hashes", "ellipses", "bullet_lines", "ellipsis_lines", "alphabetic_words"),
    "stop_words",
)
_REPETITION = (
    *("characters", "duplicate_paragraphs", "duplicate_paragraph_characters"),
    *("duplicate_lines", "duplicate_line_characters"),
    *(f"top_{n}gram" for n in range(2, 5)),
    *(f"duplicate_{n}grams" for n in range(5, 11)),
)


def _quality(text: str) -> dict[str, float]:
    words = _WORD.findall(text)
    plain = [word for word in words if any(category(character)[0] not in "PSC" for character in word)]
    lines = text.splitlines()
    per_word, per_line = 1 / max(len(words), 1), 1 / max(len(lines), 1)
    values = (
        len(plain),
        sum(map(len, plain)) / max(len(plain), 1),
        text.count("#") * per_word,
        (text.count("...") + text.count("…")) * per_word,
        sum(line.lstrip().startswith(("•", "-")) for line in lines) * per_line,
        sum(line.rstrip().endswith(("...", "…")) for line in lines) * per_line,
        sum(any(map(str.isalpha, word)) for word in words) * per_word,
        len(set(STOP_WORDS).intersection(words)),
    )
    return dict(zip(_QUALITY, values, strict=True))


def _repetition(text: str) -> dict[str, float]:
    words = _WORD.findall(text)
    paragraphs, lines = re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text)
    characters = max(len(text), 1)
    values = (
        len(text),
        _repeated(paragraphs)[0] / len(paragraphs),
        _repeated(paragraphs)[1] / characters,
        _repeated(lines)[0] / len(lines),
        _repeated(lines)[1] / characters,
        *(_most_frequent(words, n) / characters for n in range(2, 5)),
        *(_repeated_ngrams(words, n) / characters for n in range(5, 11)),
    )
    return dict(zip(_REPETITION, values, strict=True))


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    """Return how many parts repeat an earlier one, and their characters."""
    counts = Counter(parts)
    return len(parts) - len(counts), sum(len(part) * (count - 1) for part, count in counts.items())


def _most_frequent(words: Sequence[str], n: int) -> int:
    """Return the occurrences of the most frequent n-gram (the first of several) times its characters."""
    counts = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    [(gram, count)] = counts.most_common(1) or [("", 0)]
    return len(gram) * count


def _repeated_ngrams(words: Sequence[str], n: int) -> int:
    """Return the characters of the n-grams that occurred before; after one, reading goes on behind it."""
    seen: set[str] = set()
    characters = place = 0
    while place + n <= len(words):
        gram = "".join(words[place : place + n])
        repeats = gram in seen
        characters += len(gram) if repeats else 0
        place += n if repeats else 1
        seen.add(gram)
    return characters
