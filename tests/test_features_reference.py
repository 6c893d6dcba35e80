"""Features computed in blocks, against a plain reference that looks at one document at a time."""

import re
from collections import Counter
from hashlib import blake2b

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecosystem.corpus import features as module
from ecosystem.corpus.features import STOP_WORDS, features
from ecosystem.corpus.words import SPACED, words

PIECES = st.sampled_from(
    ["a", "bb", "the", "The,", "of", "#", "x...", "…", "12", "•", "- ", "\n", "\n- ", "é", "我们去学校。"]
)
TEXTS = st.lists(
    st.none() | st.lists(PIECES, max_size=30).map(" ".join) | st.text(alphabet="ab \n#.-…é猫", max_size=40), max_size=8
)


def reference(text: str | None) -> dict[str, float]:
    text = text or ""
    found = words(pl.Series([text]), SPACED)  # the words themselves are tested in test_features
    tokens = found.vocabulary.gather(found.codes).to_list()
    characters, share = sum(map(len, tokens)), 1 / max(len(tokens), 1)
    stripped = [re.sub(r"^[\W_]+|[\W_]+$", "", token.lower()) for token in tokens]
    lines = [line for line in text.split("\n") if line.strip()]
    per_line = 1 / max(len(lines), 1)
    row = {
        "size": len(text.encode()),
        "words": len(tokens),
        "mean_word_length": characters * share,
        "symbol_ratio": len(re.findall(r"#|\.\.\.|…", text)) * share,
        "alphabetic_words": sum(any(map(str.isalpha, token)) for token in tokens) * share,
        "stop_words": len(set(stripped) & set(STOP_WORDS)),
        "bullet_lines": sum(bool(re.match(r"\s*(?:[•‣▪◦●∙]|[-*+]\s)", line)) for line in lines) * per_line,
        "ellipsis_lines": sum(bool(re.search(r"(?:\.\.\.|…)\s*$", line)) for line in lines) * per_line,
        "duplicate_lines": (len(lines) - len(set(lines))) * per_line,
    }
    for n in (2, 3, 4):
        counts = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
        best = max(((count, len("".join(gram))) for gram, count in counts.items() if count > 1), default=(0, 0))
        row[f"top_{n}gram"] = min(best[0] * best[1] / max(characters, 1), 1)
    grams = [tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)]
    counts = Counter(grams)
    inside = {i + k for i, gram in enumerate(grams) if counts[gram] > 1 for k in range(5)}
    row["duplicate_5grams"] = sum(len(tokens[i]) for i in inside) / max(characters, 1)
    digest = blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest()
    return row | {"content_hash": int.from_bytes(digest, "little")}


def check(texts: list[str | None]) -> None:
    frame = features(pl.Series(texts, dtype=pl.String))
    rows = [reference(text) for text in texts]
    assert frame.equals(pl.DataFrame(rows, schema=frame.schema))


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_every_value_is_that_of_the_reference(texts):
    check(texts)


@settings(max_examples=30, deadline=None)
@given(TEXTS, st.integers(1, 3), st.integers(1, 60))
def test_the_size_of_the_blocks_changes_nothing(texts, documents, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_DOCUMENTS", documents)
        patch.setattr(module, "_BLOCK_BYTES", size)
        check(texts)


def test_long_documents_and_keys_too_large_to_be_packed():
    check([" ".join(f"w{i * i % 97}" for i in range(10_000)), "", None])
    keys = np.array([2**62, 5, 2**62, 7, 5, 2**62])
    group, counts = module._groups(keys)
    assert group.tolist() == [2, 1, 2, 0, 1, 2]
    assert counts.tolist() == [2, 3]
