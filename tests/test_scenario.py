"""Scenario files: every mistake is found when the file is read, said in a sentence with its path and remedy."""

import copy
import json
import pickle
import subprocess
import sys
import time
import tomllib

import pytest

import ecosystem
from ecosystem.cli.listing import json_schema
from ecosystem.errors import ScenarioError
from ecosystem.scenario.consistency import unused_settings
from ecosystem.scenario.scenario import Scenario
from ecosystem.spec import parse_value, set_path
from tests.conftest import ROOT, SMOKE, tiny

FILES = sorted(f for f in (ROOT / "scenarios").rglob("*.toml") if f.parent.name not in ("studies", "fits", "stories"))


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_the_resolved_scenario_is_itself_a_scenario_and_the_same(file, tmp_path):
    scenario = Scenario.load(file)
    again = tmp_path / "scenario.toml"
    again.write_text(scenario.to_toml())
    assert Scenario.load(again) == scenario.model_copy(update={"variants": {}})  # it is one of them
    assert Scenario.load(again).fingerprint() == scenario.fingerprint()
    assert "preset" not in again.read_text()


def test_the_fingerprint_names_the_experiment_and_not_how_long_or_often_it_runs():
    base = tiny()
    assert tiny(steps=9, seed=5, description="other").fingerprint() == base.fingerprint()
    assert tiny(trainers__naive__publish=13).fingerprint() != base.fingerprint()


BAD = [
    (
        "trainers.naive.publsh",
        3,
        r'trainers\.naive\.publsh: unknown key \(did you mean "publish"\?\); allowed here: .*budget',
    ),
    ("trainers.naive.scrape.dcs", 3, r'scrape\.dcs: unknown key \(did you mean "docs"\?\); allowed here: docs'),
    ("policies.short.min_wrds", 3, r'policies\.short\.min_wrds: unknown key \(did you mean "min_words"'),
    (
        "changes",
        [{"at": 2, "sett": {}}],
        r'changes\.0\.sett: unknown key \(did you mean "set"\?\); allowed here: at, set',
    ),
    ("stps", 3, r'stps: unknown key \(did you mean "steps"'),
    ("models.tiny.n_layr", 3, r"models\.tiny\.n_layr: unknown key"),
    ("trainers.naive.count", "many", r"trainers\.naive\.count: .*whole number.*not 'many'"),
    ("trainers.naive.count", -1, r"trainers\.naive\.count: .*greater than 0.*-1"),
    ("steps", 0, r"steps: .*greater than 0"),
    ("curators.editors.true_positive_rate", 1.5, r"true_positive_rate: must be at most 1"),
    ("trainers.naive.model", "smal", r"trainers\.naive\.model: there is no \[models\.smal\]"),
    ("trainers.naive.select", ["neardp"], r'select: there is no \[policies\.neardp\] \(did you mean "neardup"'),
    ("trainers.naive.select", ["short", "short"], r"trainers\.naive\.select: .* policy twice"),
    ("trainers.naive.scrape.strategy", "reeach", r"""strategy: .*"reach".*'reeach' \(did you mean "reach"\?\)"""),
    ("web.initial.source", "docs", r"web\.initial\.source: there is no \[sources\.docs\]"),
    ("web.retain", ["archive"], r'the policy "archive" \(inject_real\) cannot be used here'),
    ("web", {"kind": "isolated", "sites": 12}, r"models\.tiny: learns from .* set web\.initial"),
    ("policies.short.kind", "lenth", r'policies\.short: unknown policy kind "lenth" \(did you mean "length"'),
    ("policies.archive.source", "nowhere", r"policies\.archive\.source: there is no"),
    ("models.tiny", {"preset": "gpt2-nan"}, r'there is no model preset "gpt2-nan" \(did you mean "gpt2-nano"'),
    ("models.tiny", 3, r"models\.tiny: must be a table"),
    ("trainers.naive.budget", {"tokens": 5, "epochs": 1}, r"exactly one of tokens and epochs"),
    (
        "trainers.naive.decoding.prompt",
        {"tokens": 64},
        r"prompt\.tokens: a prompt of 64 tokens leaves no room.*at most 62",
    ),
    ("name", "../elsewhere", r'the name "\.\./elsewhere" may only have letters'),
    ("measure.texts", ["distnct"], r'no text metric "distnct" \(did you mean "distinct"'),
    (
        "changes",
        [{"at": 2, "set": {"trainers.naive.count": 5}}],
        r'"trainers\.naive\.count" cannot change inside a run',
    ),
    ("changes", [{"at": 2, "set": {"policies.short.min_words": "x"}}], r"changes\.0 \(at step 2\).*min_words"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), BAD, ids=[f"{p}={v}" for p, v, _ in BAD])
def test_a_mistake_is_a_sentence_with_its_path(path, value, sentence, tmp_path):
    data = set_path(tomllib.loads(SMOKE.read_text()), path, value)
    with pytest.raises(ScenarioError, match=sentence) as error:
        Scenario.parse(data, where="bad.toml")
    assert str(error.value).startswith("bad.toml: ")


def test_every_mistake_is_reported_at_once():
    data = tomllib.loads(SMOKE.read_text()) | {"steps": -1, "wrong": 1}
    data["policies"]["short"]["kind"] = "nonsense"
    with pytest.raises(ScenarioError) as error:
        Scenario.parse(data)
    assert len(str(error.value).splitlines()) == 3


def test_what_a_kind_says_of_the_rest_of_a_scenario_is_reported_beside_everything_else():
    """Sources, models and policies say it alike, whoever wrote them."""

    def problems(self, path, scenario):
        own = type(self).__base__.problems(self, path, scenario)
        return [*own, f"{path}: wants {len(scenario.trainers)} readers"]

    scenario = tiny(trainers__naive__decoding__prompt={"tokens": 4})
    data = scenario.plain()
    for section in ("sources", "models", "policies"):
        for name, part in getattr(scenario, section).items():
            fields = {field: getattr(part, field) for field in type(part).model_fields}
            data[section][name] = type("Plugged", (type(part),), {"problems": problems}).model_validate(fields)
    with pytest.raises(ScenarioError) as error:
        Scenario.parse(data)
    lines = str(error.value).splitlines()
    paths = [f"{s}.{name}" for s in ("sources", "models", "policies") for name in getattr(scenario, s)]
    assert lines == [f"scenario: {path}: wants {len(scenario.trainers)} readers." for path in paths]
    data["trainers"]["naive"]["decoding"]["prompt"]["tokens"] = 64
    data["theory"] = [{"metric": "nothing", "population": "naive", "law": "nothing"}]
    with pytest.raises(ScenarioError) as error:
        Scenario.parse(data)
    said = str(error.value)
    assert said.index("prompt.tokens: a prompt of 64") < said.index("models.tiny: wants") < said.index("theory.0.law")


def test_presets_that_name_one_another_are_a_circle(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/a.toml").write_text('preset = "b"')
    (tmp_path / "models/b.toml").write_text('preset = "a"')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScenarioError, match="cycle: a -> b -> a"):
        tiny(models__tiny__preset="a")


def test_a_change_holds_from_its_step_on():
    scenario = tiny()
    fractions = [scenario.at(t).policies["archive"].fraction for t in range(5)]
    assert fractions == [0.25, 0.25, 0.25, 0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[ab]*.txt", "[ab]*.txt"),
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("reach", "reach"),
        ('["a"]', ["a"]),
        ("{a = 1}", {"a": 1}),
    ],
)
def test_the_right_hand_side_of_set_is_toml_or_a_word(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize("text", ["{kind = length}", '{kind = "length"', "[naive, filtered]", "[1 2]"])
def test_what_looks_like_a_table_or_list_is_one_or_is_refused(text):
    with pytest.raises(ScenarioError, match="is no table or list as TOML has them"):
        parse_value(text)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (
            "curators.editor.reviews",
            r'there is no \[curators\.editor\] \(did you mean "editors"\?\); .* complete table: curators\.editor',
        ),
        ("trainers.nave.publish", r'there is no \[trainers\.nave\] \(did you mean "naive"\?\)'),
        ("policies.shrt.min_words", r'there is no \[policies\.shrt\] \(did you mean "short"\?\)'),
    ],
)
def test_a_mistyped_name_makes_no_new_entry(path, sentence):
    with pytest.raises(ScenarioError, match=sentence):
        tiny().override({path: 4})
    with pytest.raises(ScenarioError, match=rf"after step 2: .*{sentence}"):
        tiny().forked(2, {path: 4})
    with pytest.raises(ScenarioError, match=rf"changes\.0 .*{sentence}"):
        Scenario.parse(tiny().plain() | {"changes": [{"at": 2, "set": {path: 4}}]})


def test_a_whole_entry_is_a_new_one():
    whole = {"curators.second": {"reviews": 4}, "curators.second.sites": 2, "policies.new": {"kind": "length"}}
    scenario = tiny().override(whole | {"policies.third.kind": "length", "policies.third.min_words": 9})
    assert scenario.curators["second"].reviews == 4 and scenario.curators["second"].sites == 2
    assert scenario.policies["new"].kind == "length" and scenario.policies["third"].min_words == 9
    assert tiny().forked(2, {"policies.new": {"kind": "length"}}).at(3).policies["new"].kind == "length"


def test_the_schema_names_every_kind():
    schema = json_schema()
    text = json.dumps(schema)
    for word in ("minhash_dedup", "python_docs", "gpt2", "causal_lm", "inject_real", "gpt2-nano"):
        assert f'"{word}"' in text
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}:
        assert reference in schema["$defs"]


def seconds(*command):
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=ROOT)
        best = min(best, time.perf_counter() - started)
    return best


@pytest.mark.slow
def test_help_and_check_import_nothing_heavy():
    for command in (["--help"], ["check", str(SMOKE)]):
        code = (
            "import sys; sys.argv = ['ecosystem', *" + repr(command) + "]\n"
            "from ecosystem.cli.main import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "heavy = {'torch', 'transformers', 'mesa', 'altair', 'pandas', 'scipy'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
    # Relative to starting Python itself, since machines differ: --help is bare click, check reads every spec.
    empty = seconds("-c", "import click, pydantic, polars, numpy, networkx")
    assert seconds("-m", "ecosystem", "--help") < empty
    assert seconds("-m", "ecosystem", "check", str(SMOKE)) < 4 * empty


def test_a_variant_sets_its_paths_and_a_wrong_one_is_found_when_the_file_is_read(tmp_path):
    file = tmp_path / "loop.toml"
    text = (ROOT / "scenarios" / "single_trainer.toml").read_text()
    file.write_text(text + '\n[variants.large]\nsteps = 99\n"web.initial.documents" = 77\n')
    read = Scenario.load(file)
    large = read.variant("large")
    assert (large.steps, large.web.initial.documents) == (99, 77)
    assert large.variants == {} and "variants" not in large.to_toml()
    assert (
        read.fingerprint()
        == Scenario.load(ROOT / "scenarios" / "single_trainer.toml").fingerprint()
        != large.fingerprint()
    )
    with pytest.raises(ScenarioError, match=r'no variant "larg"'):
        read.variant("larg")
    file.write_text(text + '\n[variants.large]\n"web.initial.document" = 77\n')
    with pytest.raises(ScenarioError, match=r"variants\.large: .*web\.initial\.document"):
        Scenario.load(file)


def test_an_island_has_one_number_of_sites():
    islands = Scenario.load(ROOT / "scenarios" / "papers" / "hodel_monoculture.toml")
    with pytest.raises(ScenarioError, match=r"web\.sites: 3 sites are too few for islands .* that need 4"):
        islands.override({"web.sites": 3})
    with pytest.raises(ScenarioError, match='on the island "of_2" share its sites'):
        islands.override({"writers.of_2": {"source": "docs", "sites": 3}})


def test_the_scenario_in_force_is_made_once_and_belongs_to_its_scenario():
    changes = [{"at": 3, "set": {"trainers.naive.publish": 7}}, {"at": 2, "set": {"trainers.naive.publish": 9}}]
    scenario, same = tiny(changes=changes), tiny(changes=changes)
    assert [scenario.at(t).trainers["naive"].publish for t in (5, 1, 2, 3, 0)] == [7, 12, 9, 7, 12]
    assert scenario.at(2) is scenario.at(2) and scenario.at(1) is scenario and scenario.at(9) is scenario.at(3)
    assert scenario == same and scenario.plain() == same.plain() and repr(scenario) == repr(same)
    same.at(2)
    assert scenario == same and copy.deepcopy(scenario) == pickle.loads(pickle.dumps(scenario)) == same
    without = scenario.model_copy(update={"changes": scenario.changes[1:]})
    assert without.at(5).trainers["naive"].publish == 9 and scenario.at(5).trainers["naive"].publish == 7
    renamed = scenario.model_copy(update={"name": "other"})
    assert renamed.at(5).name == "other" and renamed != scenario


def test_texts_longer_than_the_context_of_their_model_are_noted():
    scenario = Scenario.load(SMOKE)
    name, trainer = next(iter(scenario.trainers.items()))
    longer = scenario.override({f"trainers.{name}.decoding.max_tokens": 5000})
    notes = [note for note in unused_settings(longer) if "max_tokens" in note]
    assert len(notes) == 1 and notes[0].startswith(f"trainers.{name}.decoding.max_tokens = 5000 is not reached")
    assert f"models.{trainer.model}" in notes[0] and unused_settings(scenario) == []


def test_settings_of_a_pre_training_that_is_not_done_are_noted():
    scenario = Scenario.load(SMOKE).override({"models.tiny.init": "random"})
    (note,) = unused_settings(scenario)
    assert note == 'models.tiny.foundation has no effect, since a model with init = "random" is not pre-trained'
    assert unused_settings(scenario.override({"models.tiny.foundation": {}})) == []


@pytest.mark.parametrize("name", ["web", "initial", "writers", "human"])
def test_names_that_mean_something_else_in_results_are_refused(name, tmp_path):
    (tmp_path / "s.toml").write_text(SMOKE.read_text().replace("trainers.naive", f"trainers.{name}"))
    with pytest.raises(ScenarioError, match=rf"trainers\.{name}: choose another name; in results, {name} means the"):
        Scenario.load(tmp_path / "s.toml")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "trainers.naive.publsh",
            'unknown key "publsh" in trainers.naive (did you mean "publish"?); allowed here: active, activity',
        ),
        ("trainers.naive.scrap.docs", 'unknown key "scrap" in trainers.naive (did you mean "scrape"?)'),
        ("trainers.naive.scrape.dosc", 'unknown key "dosc" in trainers.naive.scrape (did you mean "docs"?)'),
        ("trainer.naive.publish", 'unknown key "trainer" (did you mean "trainers"?)'),
        ("polices.short.min_words", 'unknown key "polices" (did you mean "policies"?)'),
        ("web.retian", 'unknown key "retian" in web (did you mean "retain"?)'),
        ("measure.wrods", 'unknown key "wrods" in measure (did you mean "words"?)'),
        ("trainers.naive.count", '"trainers.naive.count" cannot change inside a run'),
        ("models.tiny.n_layr", '"models.tiny.n_layr" cannot change inside a run'),
        ("trainers.nave.publish", 'there is no [trainers.nave] (did you mean "naive"?)'),
        ("policies.short.min_wrods", 'policies.short.min_wrods: unknown key (did you mean "min_words"?)'),
        ("trainers.naive.from", 'must be "foundation", "previous" or "scratch", not 3'),
    ],
)
def test_a_mistyped_key_of_a_change_is_suggested(path, said):
    plain = tiny().plain()
    wrong = [
        lambda: Scenario.parse(plain | {"changes": [{"at": 2, "set": {path: 3}}]}, where="s.toml"),
        lambda: Scenario.parse(
            plain | {"knobs": [{"path": path, "low": 1.0, "high": 3.0}]}, where="s.toml", authored=True
        ),
        lambda: tiny().forked(1, {path: 3}),
    ]
    for use in wrong:
        with pytest.raises(ScenarioError) as error:
            use()
        assert said.removesuffix(", not 3") in str(error.value)


@pytest.mark.parametrize(
    ("file", "kind", "function"),
    [("injection_vs_filtering", "study", "study"), ("detector_needed", "frontier", "frontier")],
)
def test_a_file_of_another_kind_is_named_when_it_is_loaded(file, kind, function):
    path = SMOKE.parent / "studies" / f"{file}.toml"
    with pytest.raises(ScenarioError, match=rf"is a {kind}, not a scenario; run it with: .*ecosystem\.{function}\)"):
        Scenario.load(path)
    with pytest.raises(ScenarioError, match=rf"{kind}, not a scenario"):
        ecosystem.run(path)


@pytest.mark.parametrize(
    ("path", "name", "said"),
    [
        ("trainers.naive.model", "naive", "[models.naive]; trainers.naive is a population of trainers, not a model"),
        ("web.initial.source", "tiny", "[sources.tiny]; models.tiny is a model, not a source; defined in [sources]: "),
        ("web.publish", ["editors"], "[policies.editors]; curators.editors is a population of curators, not a policy"),
        ("curators.editors.judge", "language", "[models.language]; sources.language is a source, not a model"),
        ("trainers.naive.model", "tinny", '[models.tinny] (did you mean "tiny"?)'),
    ],
)
def test_an_entry_of_another_sort_is_named(path, name, said):
    values = {path: name} | ({"curators.editors.quality_bias": 1.0} if path.endswith("judge") else {})
    with pytest.raises(ScenarioError) as error:
        tiny().override(values)
    assert f"{path}: there is no {said}" in str(error.value)


def test_a_mistyped_key_makes_no_study_of_a_scenario(tmp_path):
    mistyped = tmp_path / "s.toml"
    mistyped.write_text(SMOKE.read_text().replace("name =", "seeds = [3]\nname =", 1))
    with pytest.raises(ScenarioError, match=r'seeds: unknown key \(did you mean "seed"\?\)'):
        Scenario.load(mistyped)


def test_two_values_of_a_path_at_one_step_are_refused():
    def parse(first, second):
        changes = [{"at": 2, "set": {"trainers.naive.publish": n}} for n in (first, second)]
        return Scenario.parse(tiny().plain() | {"changes": changes}, where="s.toml", authored=True)

    assert len(parse(3, 3).changes) == 2
    with pytest.raises(ScenarioError, match=r"s\.toml: changes\.1\.set: trainers\.naive\.publish = 4 at step 2, but"):
        parse(3, 4)
