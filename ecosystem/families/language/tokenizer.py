"""Text to token ids and back: a byte-level BPE trained on the human documents, or the tokenizer of a checkpoint.

The tokens of a document are cached by its text, since the same documents are scraped at step after step. Byte-level BPE
(Sennrich et al. 2016; Radford et al. 2019) is lossless: decoding the tokens of a text gives the same text.
"""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tokenizers
from numpy.typing import NDArray

from ecosystem.errors import DataError
from ecosystem.families.base import Progress, silent
from ecosystem.parsing import parse_json

END_OF_TEXT = "<|endoftext|>"
SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and nobody saw it.",
    "Every model was trained on text that an earlier model had written.",
)
_SURVIVING = 0.8  # least similarity of a text and its decoded tokens; a few characters may be unknown
_LEAST_FILLED = 0.9  # least share of a model's vocabulary that its tokenizer fills; the rest is padding
_TRIED_CHARACTERS = 200  # of each text
_CACHE_LIMIT = 50_000_000  # tokens, 200 MB; above it the cache is emptied
_AT_ONCE = 2048  # texts encoded together: of more, the results alone fill the memory, and each takes twice as long
_LONGEST_RUN = 1000  # characters; training takes the square of the length of a run of letters, digits or marks
_PIECE = 1 << 16  # characters after which a long text is cut at white space, so that progress is reported
# Every pre-token of a byte-level BPE is within one of these runs, but for the space before it.
_RUNS = re.compile(rf"[^\W_]{{1,{_LONGEST_RUN}}}|(?:[^\w\s]|_){{1,{_LONGEST_RUN}}}|\s{{1,{_LONGEST_RUN}}}")
_POLL_SECONDS = 0.1


class Tokenizer:
    """A tokenizer with a cache: ``encode``, ``decode``, the id ``end`` of the end of text, and ``size`` (ids)."""

    def __init__(self, model: tokenizers.Tokenizer, end: int, source: Path | None = None) -> None:
        """``end`` is the id that separates documents; ``source`` is the checkpoint folder, if it was read from one."""
        self._model = model
        # The characters "<|endoftext|>" in a document are ordinary text, not its end.
        self._model.encode_special_tokens = True
        self._model.no_truncation()
        self._model.no_padding()
        self._source = source
        self._cache: dict[str, NDArray[np.int32]] = {}
        self._cached_tokens = 0
        self.end = end
        self._ids = np.unique(list(model.get_vocab(with_added_tokens=True).values())).astype(np.int64)
        self.size = int(self._ids.max(initial=-1)) + 1

    @classmethod
    def train(cls, texts: Sequence[str], vocabulary: int, progress: Progress = silent) -> Tokenizer:
        """Train a byte-level BPE of at most ``vocabulary`` tokens; short texts may give fewer.

        The same texts in the same order give the same tokenizer. No token spans a cut in a run of 1,000 or more
        letters, digits or marks (a sequence of bases, a line of dashes), so the time is linear in the length of a text.
        ``progress`` counts the characters read, then reports the merging of tokens; an exception that it raises, such
        as KeyboardInterrupt, ends the training.
        """
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        _train(model, trainer, texts, progress)
        return cls(model, _end_of_text_id(model, None))

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read a tokenizer from a checkpoint folder.

        ``tokenizer.json`` is read directly, older layouts (``vocab.json`` and ``merges.txt``, SentencePiece) with
        transformers' ``AutoTokenizer``. Raises DataError if neither works or there is no end-of-text token.
        """
        path = folder / "tokenizer.json"
        if path.is_file():
            try:
                model = tokenizers.Tokenizer.from_file(str(path))
            except Exception as error:  # the library raises bare Exception
                raise DataError(f"{path} cannot be read as a tokenizer: {error}.") from error
        else:
            model = _load_with_transformers(folder)
        return cls(model, _end_of_text_id(model, folder), folder)

    def encode(self, docs: pl.Series) -> list[NDArray[np.int32]]:
        """Return the token ids of every document, without the end of text; cached documents are not encoded again."""
        texts = docs.to_list()
        new = [text for text in dict.fromkeys(texts) if text not in self._cache]
        if new and self._cached_tokens > _CACHE_LIMIT:
            self._cache = {text: self._cache[text] for text in texts if text in self._cache}
            self._cached_tokens = 0
        for first in range(0, len(new), _AT_ONCE):
            block = new[first : first + _AT_ONCE]
            encodings = self._model.encode_batch_fast(block, add_special_tokens=False)
            for text, encoding in zip(block, encodings, strict=True):
                ids = np.array(encoding.ids, dtype=np.int32)
                self._cache[text] = ids
                self._cached_tokens += len(ids)
        return [self._cache[text] for text in texts]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of every sequence of ids; bytes that are not UTF-8 become U+FFFD."""
        return list(self._model.decode_batch([list(row) for row in ids], skip_special_tokens=False))

    def check(self, texts: Sequence[str]) -> None:
        """Raise DataError if texts do not survive encoding and decoding, as with an empty tokenizer.

        ``texts`` are documents of the run, or none; case, accents and white space may change.
        """
        tried = [text[:_TRIED_CHARACTERS] for text in texts if _plain(text[:_TRIED_CHARACTERS])][:2] or list(SENTENCES)
        for text, ids in zip(tried, self.encode(pl.Series(tried)), strict=True):
            (decoded,) = self.decode([ids.tolist()])
            if SequenceMatcher(None, _plain(text), _plain(decoded), autojunk=False).ratio() < _SURVIVING:
                before, after = (" ".join(words.split())[:40] for words in (text, decoded))
                raise DataError(
                    f'the tokenizer in {self._source} ({len(self._ids)} tokens) turns the text "{before}" into '
                    f'"{after}"; it is empty, damaged, or made for other text. Save the tokenizer of the model there '
                    "with save_pretrained, or set tokenizer to a checkpoint that has it."
                )

    def check_padding(self, types: int, model: str) -> None:
        """Raise DataError if a checkpoint with ``types`` outputs has far more than tokens and usual padding."""
        if len(self._ids) < _LEAST_FILLED * types:
            raise DataError(
                f'the tokenizer of model "{model}" has {len(self._ids)} tokens but its output {types}; they do not '
                "belong together. Set tokenizer to a checkpoint with the model's own."
            )

    def ids_without_text(self, types: int) -> NDArray[np.int64]:
        """Return the ids below ``types`` that are not tokens, such as the padding of a model's vocabulary."""
        return np.setdiff1d(np.arange(types), self._ids)

    def save(self, folder: Path, context: int) -> None:
        """Write tokenizer files for transformers' ``AutoTokenizer``; ``context`` is the longest input in tokens."""
        self._model.encode_special_tokens = False  # the default of other readers
        try:
            self._model.save(str(folder / "tokenizer.json"))
        finally:
            self._model.encode_special_tokens = True
        end = self._model.id_to_token(self.end)
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end,
            "eos_token": end,
            "unk_token": end,
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _train(
    model: tokenizers.Tokenizer, trainer: tokenizers.trainers.Trainer, texts: Sequence[str], progress: Progress
) -> None:
    """Train ``model`` in a thread of its own, so that this one can report progress and be interrupted."""
    total, read, stopped = sum(map(len, texts)), 0, False
    errors: list[BaseException] = []

    def pieces() -> Iterator[str]:
        nonlocal read
        for text in texts:
            for piece in _pieces(text):
                if stopped:
                    return
                yield piece
                read += len(piece)

    def work() -> None:
        try:
            model.train_from_iterator(pieces(), trainer=trainer)
        except BaseException as error:  # raised again in the calling thread
            errors.append(error)

    # A daemon, since merging cannot be stopped: it must not keep an interrupted program alive.
    thread = threading.Thread(target=work, name="tokenizer", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            if read < total:
                progress("reading for the tokenizer", read, total)
            else:
                progress("merging for the tokenizer", 0, 1)
    finally:
        stopped = True
    if errors:
        raise errors[0]


def _pieces(text: str) -> Iterator[str]:
    """Cut a text between pre-tokens after about 65,000 characters, and within a run after 1,000."""
    start = 0
    for run in _RUNS.finditer(text) if len(text) >= _LONGEST_RUN else ():
        if run.end() - run.start() == _LONGEST_RUN:
            cut = run.end()
        elif run.start() - start >= _PIECE and run[0].isspace():
            cut = run.start()
        else:
            continue
        yield text[start:cut]
        start = cut
    yield text[start:]


def _plain(text: str) -> str:
    """Return a text without case, accents and white space, which tokenizers may change."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in decomposed if not c.isspace() and not unicodedata.combining(c))


def _load_with_transformers(folder: Path) -> tokenizers.Tokenizer:
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model: tokenizers.Tokenizer = loaded.backend_tokenizer
        return model
    except Exception as error:  # transformers raises many types, with one remedy
        raise DataError(
            f"{folder} contains no readable tokenizer ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "save one there with save_pretrained, which writes a tokenizer.json."
        ) from error


def _end_of_text_id(model: tokenizers.Tokenizer, folder: Path | None) -> int:
    """Return the id of the end of text: as configured in the tokenizer, by its usual names, or as in config.json."""
    candidates = [END_OF_TEXT, "</s>"]
    if folder is not None:
        tables = [_read_table(folder / name) for name in ("tokenizer_config.json", "special_tokens_map.json")]
        configured = [table.get(key) for key in ("eos_token", "sep_token") for table in tables]
        candidates = [c["content"] if isinstance(c, dict) else c for c in configured if c] + candidates
    for candidate in candidates:
        if (token := model.token_to_id(candidate)) is not None:
            return token
    token = _read_table(folder / "config.json").get("eos_token_id") if folder is not None else None
    token = token[0] if isinstance(token, list) and token else token
    if isinstance(token, int) and model.id_to_token(token) is not None:
        return token
    raise DataError(f"the tokenizer in {folder} has no end-of-text token; set eos_token in tokenizer_config.json.")


def _read_table(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a JSON table: {error}.") from error
