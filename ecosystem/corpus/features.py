"""Observable features of documents, computed once, at publication, for all documents of a step together.

The quality and repetition rules of Rae et al. (2021, "Scaling Language Models: Methods, Analysis & Insights from
Training Gopher", appendix A1) use them. Words are separated by white space; where a script has none, they are found by
dictionary (:mod:`ecosystem.corpus.segmentation`). Blank lines do not count as lines. Shares of characters ignore white
space.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.schema import FEATURES
from ecosystem.corpus.words import SPACED, Words, blocks, fill_missing, number_strings, words

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_BLOCK_DOCUMENTS = 4096  # limits memory, and gives every core something to do
_BLOCK_BYTES = 2**20
_BULLET = r"^\s*(?:[•‣▪◦●∙]|[-*+]\s)"
_ELLIPSIS = r"(?:\.\.\.|…)\s*$"
_EDGES = r"^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$"


def features(text: pl.Series) -> pl.DataFrame:
    """Return ``size`` (bytes in UTF-8) and every column of :data:`schema.FEATURES`, one row per text.

    A text without words (empty, blank or null) has zeros in all columns but ``content_hash``; no value is NaN.
    The repetition shares count a word n-gram only if it occurs at least twice in the document, so a short text
    without repetition scores 0. ``top_<n>gram`` is the number of occurrences times the characters of the most frequent
    n-gram (the longest of equally frequent ones) over all characters, at most 1. ``duplicate_5grams`` counts each
    character once. A row depends on its text alone, so texts are examined in blocks, several at a time.
    """
    if text.dtype not in (pl.String, pl.Null):
        return _numeric_features(text)
    text = fill_missing(text).rename("text")
    parts = [text[part] for part in blocks(text, _BLOCK_BYTES, _BLOCK_DOCUMENTS)]
    if len(parts) == 1:
        return _text_features(text)
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        return pl.concat(pool.map(_text_features, parts), rechunk=True)


def _text_features(text: pl.Series) -> pl.DataFrame:
    """Return the features of one block of texts, none of them null."""
    tokens = words(text, SPACED)
    lengths = tokens.vocabulary.str.len_chars().to_numpy().astype(np.int64)[tokens.codes]
    count = tokens.lengths()
    characters = np.bincount(tokens.document, weights=lengths, minlength=tokens.documents).astype(np.float64)
    per_word = 1 / np.maximum(count, 1)
    lettered = tokens.vocabulary.str.contains(r"\p{L}").to_numpy()[tokens.codes]
    columns: dict[str, NDArray[np.generic] | pl.Series] = {
        "size": text.str.len_bytes().cast(pl.Int32),
        "words": count,
        "mean_word_length": characters * per_word,
        "symbol_ratio": text.str.count_matches(r"#|\.\.\.|…").to_numpy() * per_word,
        "alphabetic_words": np.bincount(tokens.document[lettered], minlength=tokens.documents) * per_word,
        "stop_words": _stop_words(tokens),
        **_lines(text),
        **_repetition(tokens, lengths, characters),
        "content_hash": content_hash(text),
    }
    schema = {"size": pl.Int32(), **FEATURES}
    return pl.DataFrame([pl.Series(name, columns[name]).cast(dtype) for name, dtype in schema.items()])


def _numeric_features(content: pl.Series) -> pl.DataFrame:
    """Return the same columns for vectors or categories: size and hash of their bytes; the others are null."""
    values = np.ascontiguousarray(content.to_numpy())
    rows = values.reshape(len(values), -1) if len(values) else np.zeros((0, 0))
    size = rows.shape[1] * rows.itemsize
    digests = [blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    columns = {
        "size": pl.Series(np.full(len(rows), size)),
        "content_hash": pl.Series(np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)),
    }
    schema = {"size": pl.Int32(), **FEATURES}
    return pl.DataFrame(
        [
            columns[n].alias(n).cast(t) if n in columns else pl.repeat(None, len(rows), dtype=t, eager=True).alias(n)
            for n, t in schema.items()
        ]
    )


def content_hash(text: pl.Series) -> pl.Series:
    """Return a 64-bit hash (UInt64) of each text in lower case with white space collapsed.

    Hashes are stable across processes and versions of the program, so duplicates are found across segments of a run.
    """
    digests = (blake2b(" ".join(t.lower().split()).encode(), digest_size=8).digest() for t in fill_missing(text))
    return pl.Series("content_hash", np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64))


def _stop_words(tokens: Words) -> NDArray[np.int64]:
    """Count the different stop words of each document."""
    stripped = tokens.vocabulary.str.to_lowercase().str.replace_all(_EDGES, "")
    index = {word: i for i, word in enumerate(STOP_WORDS)}
    stop = np.array([index.get(word, -1) for word in stripped], np.int64)[tokens.codes]
    seen = np.zeros((tokens.documents, len(STOP_WORDS)), np.bool_)
    seen[tokens.document[stop >= 0], stop[stop >= 0]] = True
    return np.asarray(seen.sum(axis=1), dtype=np.int64)


def _lines(text: pl.Series) -> dict[str, NDArray[np.generic]]:
    """Return the shares of lines that begin with a bullet, end with an ellipsis, or repeat an earlier line."""
    lines = number_strings(text.str.extract_all(r"(?m)^.*\S.*$"))
    share = 1 / np.maximum(lines.lengths(), 1)
    bullet = lines.vocabulary.str.contains(_BULLET).to_numpy()[lines.codes]
    ellipsis = lines.vocabulary.str.contains(_ELLIPSIS).to_numpy()[lines.codes]
    first = np.unique(lines.document * max(lines.vocabulary.len(), 1) + lines.codes, return_index=True)[1]
    repeats = lines.lengths() - np.bincount(lines.document[first], minlength=lines.documents)
    return {
        "bullet_lines": np.bincount(lines.document[bullet], minlength=lines.documents) * share,
        "ellipsis_lines": np.bincount(lines.document[ellipsis], minlength=lines.documents) * share,
        "duplicate_lines": repeats * share,
    }


def _repetition(
    tokens: Words, lengths: NDArray[np.int64], characters: NDArray[np.float64]
) -> dict[str, NDArray[np.generic]]:
    """Return the shares of characters in the most frequent 2-, 3- and 4-gram and in repeated 5-grams.

    An n-gram can repeat within a document only if its first and its last n - 1 words do. So each length examines only
    the positions at which the previous length found a repetition.
    """
    before = np.concatenate([[0], np.cumsum(lengths)])  # characters before each word
    word, counts = _groups(tokens.document * max(tokens.vocabulary.len(), 1) + tokens.codes)
    types = counts.size + 1
    gram = word  # the number of the n-gram that starts at each position, from 1; 0: it occurs once in its document
    result: dict[str, NDArray[np.generic]] = {}
    for n in range(2, 6):
        here = np.flatnonzero((gram[:-1] > 0) & (gram[1:] > 0))
        here = here[here + n <= tokens.codes.size]
        here = here[tokens.document[here] == tokens.document[here + n - 1]]
        group, counts = _groups(gram[here] * types + word[here + n - 1])
        gram = np.zeros(tokens.codes.size, np.int64)
        gram[here] = group
        if n < 5:
            start, often = here[group > 0], counts[group[group > 0] - 1]
            best = np.zeros(tokens.documents, np.int64)
            # Packed into one integer that orders by occurrences, then by characters.
            np.maximum.at(best, tokens.document[start], (often << 32) + before[start + n] - before[start])
            covered = (best >> 32) * (best & 0xFFFFFFFF)
            result[f"top_{n}gram"] = np.minimum(covered / np.maximum(characters, 1), 1)
    edges = np.zeros(tokens.codes.size + 1, np.int64)
    starts = np.flatnonzero(gram)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + 5, -1)
    inside = np.cumsum(edges)[:-1] > 0
    covered = np.bincount(tokens.document[inside], weights=lengths[inside], minlength=tokens.documents)
    result["duplicate_5grams"] = covered / np.maximum(characters, 1)
    return result


def _groups(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the keys that occur at least twice from 1, and all others 0; return numbers and counts of the groups.

    Key and position are sorted as one integer where both fit: several times as fast as sorting positions by key.
    """
    group = np.zeros(keys.size, np.int64)
    bits = keys.size.bit_length()
    if keys.size and int(keys.max()) < 2 ** (63 - bits):
        packed = np.sort(keys << bits | np.arange(keys.size))
        ordered, position = packed >> bits, packed & (2**bits - 1)
    else:
        position = np.argsort(keys, kind="stable")
        ordered = keys[position]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    counts = np.diff(first, append=keys.size)
    often = counts > 1
    first, counts = first[often], counts[often]
    members = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    group[position[members]] = np.repeat(np.arange(1, counts.size + 1), counts)
    return group, counts
