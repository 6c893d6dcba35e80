"""Words of scripts written without spaces between them, by the dictionaries of ICU.

These are Chinese, Japanese, Thai, Lao, Khmer and Burmese. Text in other scripts, also within the same document, is left
as it is.
"""

from __future__ import annotations

import polars as pl

_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
UNSPACED = rf"[{_SCRIPTS}]"
# A run of such scripts with the punctuation around it, or everything up to the next run.
_RUNS = rf"[^\p{{L}}\p{{N}}]*[{_SCRIPTS}]+[^\p{{L}}\p{{N}}]*|[^{_SCRIPTS}]+"


def split_unspaced(lists: pl.Series) -> pl.Series:
    """Split the strings in a column of lists where they contain words of a script without spaces.

    The parts of a string make up the string: punctuation belongs to the word before it or, at the beginning, to the
    word after it. Strings without such scripts are not changed.
    """
    strings = lists.explode().drop_nulls().unique(maintain_order=True)
    strings = strings.filter(strings.str.contains(UNSPACED))
    if not strings.len():
        return lists
    runs = strings.str.extract_all(_RUNS)
    each = runs.explode().unique(maintain_order=True)
    words = {
        run: _words(run) if unspaced else [run]
        for run, unspaced in zip(each.to_list(), each.str.contains(UNSPACED).to_list(), strict=True)
    }
    parts = {
        string: [word for run in row for word in words[run]]
        for string, row in zip(strings.to_list(), runs.to_list(), strict=True)
    }
    rows = [[part for string in row for part in parts.get(string, (string,))] for row in lists.to_list()]
    return pl.Series(lists.name, rows, dtype=pl.List(pl.String))


def _words(run: str) -> list[str]:
    from icu4py.breakers import WordBreaker  # a compiled library with large tables, needed only for such scripts

    words: list[str] = []
    for piece in WordBreaker(run, "root"):
        if words and not (_has_letters(piece) and _has_letters(words[-1])):
            words[-1] += piece
        else:
            words.append(piece)
    return words


def _has_letters(text: str) -> bool:
    return any(map(str.isalnum, text))
