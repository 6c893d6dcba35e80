"""Training a tokenizer: the same as in one piece on prose, linear on text without breaks, and interruptible."""

import json
import random
import time
from pydoc_data.topics import topics

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from ecosystem.families.language import tokenizer
from ecosystem.families.language.tokenizer import END_OF_TEXT, Tokenizer
from ecosystem.runs.progress import RunProgress

PROSE = "\n\n".join(list(topics.values())[:40])
CHINESE = "网络上的文字越来越多是机器写的，模型又从这些文字里学习。" * 400


def in_one_piece(text, vocabulary):
    """The tokens and merges that the library learns from the uncut text."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator([text], trainer=trainer)
    return json.loads(model.to_str())["model"]


def learnt(model, tmp_path):
    model.save(tmp_path, 32)
    return json.loads((tmp_path / "tokenizer.json").read_text())["model"]


@pytest.mark.parametrize("text", [PROSE, CHINESE], ids=["English", "Chinese"])
def test_a_long_text_is_cut_only_between_pre_tokens(text, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "_PIECE", 100)
    expected = in_one_piece(text, 700)
    assert learnt(Tokenizer.train([text], 700), tmp_path) == expected
    assert len(expected["merges"]) > 60


@given(st.lists(st.tuples(st.sampled_from(["a", "é", "7", "-", " ", "字", "ั", "_"]), st.integers(1, 2500)), max_size=6))
@settings(max_examples=50, deadline=None)
def test_pieces_make_up_the_text_and_have_no_long_run(runs):
    text = "".join(character * length for character, length in runs)
    pieces = list(tokenizer._pieces(text))
    assert "".join(pieces) == text
    assert all(len(run[0]) <= 1000 for piece in pieces for run in tokenizer._RUNS.finditer(piece))
    if all(length < 300 for _, length in runs):
        assert len(pieces) == 1


@pytest.mark.slow
def test_the_time_is_linear_in_the_length_of_a_word():
    """Four times the letters take about four times the time."""

    def seconds(letters):
        word = "".join(random.Random(1).choices("ACGT", k=letters))
        began = time.perf_counter()
        Tokenizer.train([word], 600)
        return time.perf_counter() - began

    assert seconds(800_000) < 8 * seconds(200_000) + 1  # in one word: 16 times, and minutes


def test_training_stops_where_progress_raises_and_reports_both_of_its_parts(monkeypatch):
    monkeypatch.setattr(tokenizer, "_POLL_SECONDS", 0.001)
    reports = []

    def stop(what, done, total):
        reports.append((what, done, total))
        raise KeyboardInterrupt

    text = "".join(random.Random(2).choices("ACGT", k=100_000))
    with pytest.raises(KeyboardInterrupt):
        Tokenizer.train([text], 400, stop)
    assert len(reports) == 1 and 0 <= reports[0][1] <= reports[0][2]
    reports.clear()
    Tokenizer.train([text], 400, lambda *report: reports.append(report))
    assert reports[-1] == ("merging for the tokenizer", 0, 1)


def test_an_error_of_the_training_thread_reaches_the_caller():
    with pytest.raises(TypeError):
        Tokenizer.train([b"bytes"], 300)


def test_a_task_that_cannot_be_counted_says_for_how_long_it_has_run(capsys):
    progress = RunProgress()
    progress.HEARTBEAT_SECONDS = 0.02
    with progress:
        for done in (0, 0):
            progress.task("merging", done, 1)
            time.sleep(0.2)
        progress.task("fit", 1, 4)
        time.sleep(0.02)
        progress.task("fit", 2, 4)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("  merging: ") and " so far, " in lines[0] and lines[0].endswith(" of memory")
    assert "fit: 50%" in lines[-1] and " left, " in lines[-1]
