"""Words, quality rules, diversity and near-duplicates of text with and without spaces between words."""

import json
from pathlib import Path

import polars as pl
import pytest

from ecosystem.corpus.features import features
from ecosystem.corpus.words import LETTERED, SPACED, TOKENS, words
from ecosystem.metrics.base import measure_texts, sample_groups
from ecosystem.metrics.text import Distinct
from ecosystem.policies.duplicates import NearDuplicates
from ecosystem.policies.filters import GopherQuality, Length, Repetition
from ecosystem.policies.reasons import first_reason
from ecosystem.runs.environment import Machine
from ecosystem.runs.planning.estimate import Plan
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.python_docs import PythonDocs
from ecosystem.streams import Streams
from tests.languages import PHRASES, WITHOUT_SPACES, prose, with_one_character_changed


def split(text, pattern):
    """The words of one text, in order."""
    found = words(pl.Series([text]), pattern)
    return found.vocabulary.gather(found.codes).to_list()


@pytest.mark.parametrize(
    ("text", "spaced", "tokens"),
    [
        ("我们需要认真对待。", ["我们", "需要", "认真", "对待。"], ["我们", "需要", "认真", "对待", "。"]),
        ("「人工智能」", ["「人工", "智能」"], ["「", "人工", "智能", "」"]),
        (
            "我用GPT-4写3.5篇",
            ["我", "用", "GPT-4", "写", "3.5", "篇"],
            ["我", "用", "GPT", "-", "4", "写", "3", ".", "5", "篇"],
        ),
        ("吾輩は猫である", ["吾輩", "は", "猫", "で", "ある"], ["吾輩", "は", "猫", "で", "ある"]),
        ("เด็กไปโรงเรียน ทุกวัน", ["เด็ก", "ไป", "โรงเรียน", "ทุก", "วัน"], ["เด็ก", "ไป", "โรงเรียน", "ทุก", "วัน"]),
        ("ប្រទេសកម្ពុជា", ["ប្រទេស", "កម្ពុជា"], ["ប្រទេស", "កម្ពុជា"]),
        ("문장을 나눕니다.", ["문장을", "나눕니다."], ["문장을", "나눕니다", "."]),
        ("العربية لغة جميلة.", ["العربية", "لغة", "جميلة."], ["العربية", "لغة", "جميلة", "."]),
        ("It's 世界, 😀 don't", ["It's", "世界,", "😀", "don't"], ["It's", "世界", ",", "😀", "don't"]),
    ],
)
def test_words_fit_the_script(text, spaced, tokens):
    assert split(text, SPACED) == spaced
    assert split(text, TOKENS) == tokens


@pytest.mark.parametrize("language", PHRASES)
def test_segmentation_loses_no_character_and_leaves_text_with_spaces_alone(language):
    for text in prose(language, 20):
        assert "".join(split(text, SPACED)) == "".join(text.split())
        if language not in WITHOUT_SPACES:
            assert split(text, SPACED) == text.split()
        else:
            assert 30 <= len(split(text, LETTERED)) <= 160  # of 200 characters


@pytest.mark.parametrize("language", PHRASES)
def test_one_changed_character_is_found_and_unrelated_texts_are_kept(language):
    """At least 190 of 200 changed texts, and at most 1 % of 19,900 unrelated pairs: none of 200 texts has a match."""
    texts = prose(language, 200)
    index = NearDuplicates()
    index.add(range(200), pl.Series(texts))
    assert index.earliest(range(200)).null_count() == 200
    index.add(range(200, 400), pl.Series(with_one_character_changed(texts)))
    found = index.earliest(range(200, 400)).to_list()
    assert sum(match == i for i, match in enumerate(found)) >= 190


def test_one_changed_character_of_natural_prose_is_found():
    """Python's documentation in pieces of 200 characters; a piece repeats an earlier one in at most 1 % of them."""
    reservoir = PythonDocs().open("docs", Streams(1), Path())
    pieces = [text[:200] for text in reservoir.rows(range(1000)) if len(text) >= 200][:200]
    index = NearDuplicates()
    index.add(range(200), pl.Series(pieces))
    assert index.earliest(range(200)).null_count() >= 198
    index.add(range(200, 400), pl.Series(with_one_character_changed(pieces)))
    assert sum(match == i for i, match in enumerate(index.earliest(range(200, 400)))) >= 190


def test_long_texts_are_compared_by_words_alone():
    """A letter of every fourth word differs, so few word shingles are equal."""

    def found(count, a):
        base = [f"{chr(a)}{chr(a + i % 26)}{chr(a + i // 26)}{chr(a + 5) * 8}" for i in range(count)]
        other = [word + chr(a) * (i % 4 == 0) for i, word in enumerate(base)]
        index = NearDuplicates(threshold=0.5)
        index.add([0, 1], pl.Series([" ".join(base), " ".join(other)]))
        return index.earliest([1]).to_list() == [0]

    for alphabet in "аa":  # Cyrillic, Latin
        assert found(60, ord(alphabet)) and not found(90, ord(alphabet))


@pytest.mark.parametrize("language", WITHOUT_SPACES)
def test_quality_rules_apply_to_text_without_spaces_once_their_limits_fit(language):
    table = features(pl.Series(prose(language, 50)))
    fitted = GopherQuality(variant="short_text", min_stop_words=0, min_mean_word_length=1)
    assert first_reason(table, fitted.rules()).null_count() == 50
    assert first_reason(table, Length(min_words=30, max_words=160).rules()).null_count() == 50
    assert first_reason(table, GopherQuality(variant="short_text").rules()).null_count() == 0
    [once, again] = [PHRASES[language][2].split("|")[0], PHRASES[language][2].split("|")[0] * 12]
    reasons = first_reason(features(pl.Series([once, again])), Repetition().rules())
    assert reasons.is_null().to_list() == [True, False]


@pytest.mark.parametrize("language", WITHOUT_SPACES)
def test_repetition_lowers_the_diversity_of_text_without_spaces(language):
    varied, same = prose(language, 40), prose(language, 1) * 40

    def distinct(texts):
        groups = sample_groups(pl.Series(texts), 400, 4, Streams(1).at("distinct"))
        return {name: value for name, (value, _) in measure_texts([Distinct()], groups).items()}

    varied, same = distinct(varied), distinct(same)
    assert 0.2 < varied["distinct_1"] < 0.6  # a vocabulary of words, not of clauses that never come again
    assert varied["distinct_2"] > 1.2 * same["distinct_2"]


@pytest.fixture
def scenario(tmp_path):
    """A scenario whose trainer selects the documents of a file by words, and a function that fills the file."""
    policies = {
        "quality": {"kind": "gopher_quality", "variant": "short_text"},
        "length": {"kind": "length", "min_words": 30},
        "unused": {"kind": "length", "min_words": 9999},
    }
    trainer = {"model": "small", "scrape": {"docs": 50}, "select": ["quality", "length"], "publish": 5}
    scenario = Scenario.parse(
        {
            "name": "languages",
            "steps": 1,
            "sources": {"human": {"kind": "jsonl", "path": "human.jsonl", "held_out": 10}},
            "web": {"kind": "complete", "sites": 1, "initial": {"source": "human", "documents": 60}},
            "models": {"small": {"preset": "trigram"}},
            "policies": policies,
            "trainers": {"labs": trainer | {"decoding": {"max_tokens": 16}}},
        }
    )

    def refusals(language, **changes):
        lines = [json.dumps({"text": text}) for text in prose(language, 130)]
        (tmp_path / "human.jsonl").write_text("\n".join(lines))
        machine = Machine("cpu", 1)
        changed = scenario.override({path.replace("__", "."): value for path, value in changes.items()})
        plan = Plan.of(changed, machine, tmp_path, tmp_path)
        return [note for note in plan.notes if "will refuse" in note]

    return refusals


def test_the_plan_warns_of_rules_that_refuse_nearly_all_documents(scenario):
    [note] = scenario("Chinese")
    assert "policies.quality will refuse 100 of 100 documents of sources.human" in note
    assert "mean word length" in note and "number of stop words 0 is below 1" in note
    fitting = {"policies__quality__min_stop_words": 0, "policies__quality__min_mean_word_length": 1.0}
    assert scenario("Chinese", **fitting) == []
    [note] = scenario("Arabic")
    assert "stop words" in note and "mean word length" not in note
    [note] = scenario("Thai", **fitting, policies__length__min_words=200)
    assert note.startswith("policies.length will refuse 100 of 100") and "is below 200" in note
    assert scenario("English") == []
