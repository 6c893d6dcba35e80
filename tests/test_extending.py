"""Files that extend others: merging, cycles, paths, and errors that name the file a key is from."""

from pathlib import Path

import pytest

from ecosystem.errors import ScenarioError
from ecosystem.fitting.spec.fit import Fit
from ecosystem.runs.audit import read_policies
from ecosystem.scenario.entries.trainers import TrainerSpec
from ecosystem.scenario.extending import merged, read_file
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.spec.study import Study
from tests.conftest import ROOT, tiny


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.toml").write_text(tiny().to_toml())

    def written(text, name="own.toml"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return written


def test_an_extension_equals_the_scenario_with_the_values_set(write):
    own = write('extends = "base.toml"\nname = "own"\nsteps = 2\ntrainers.naive = { publish = 5, select = ["dedup"] }')
    values = {"name": "own", "steps": 2, "trainers.naive.publish": 5, "trainers.naive.select": ["dedup"]}
    policies = tiny().policies
    values["trainers.naive.select"] = [next(iter(policies))]
    own = write(own.read_text().replace("dedup", next(iter(policies))))
    assert Scenario.load(own) == tiny().override(values)
    assert "extends" not in Scenario.load(own).to_toml()
    assert Scenario.load(write('extends = "base"')).fingerprint() == tiny().fingerprint()


def test_tables_are_merged_and_lists_and_scalars_replaced():
    base = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": [{"x": 1}]}
    assert merged(base, {"a": {"c": {"d": [3]}}, "e": []}) == {"a": {"b": 1, "c": {"d": [3]}}, "e": []}
    assert merged(base, {"a": 4})["a"] == 4 and base["a"]["b"] == 1


def test_an_entry_of_another_kind_or_preset_replaces_the_whole_one(write):
    own = write('extends = "base"\n[models.tiny]\npreset = "trigram"\n[trainers.naive]\npublish = 3')
    scenario = Scenario.load(own)
    assert scenario.models["tiny"].plain() == tiny(models__tiny__preset="trigram").models["tiny"].plain()
    assert scenario.trainers["naive"].scrape == tiny().trainers["naive"].scrape
    same = Scenario.load(write('extends = "base"\n[models.tiny]\nkind = "gpt2"\nn_embd = 16\nn_head = 2'))
    assert same.models["tiny"].n_layer == 1  # a kind that is the same keeps the other fields


def test_extensions_of_extensions_and_of_bundled_files(write):
    write('extends = "smoke"\nsteps = 2', "middle.toml")
    assert Scenario.load(write('extends = "middle"\nseed = 9')) == Scenario.load(
        ROOT / "scenarios/smoke.toml"
    ).override({"steps": 2, "seed": 9})
    study = Study.load(write('extends = "monoculture"\nseeds = [5, 6]', "few.toml"))
    assert study.seeds == [5, 6] and study.arms == Study.load("monoculture").arms
    assert (
        read_policies(write('extends = "smoke"', "own.toml")).keys()
        == read_policies(ROOT / "scenarios/smoke.toml").keys()
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('extends = "nothing"', 'own.toml: extends: there is no scenario "nothing"'),
        ('extends = "finite_wb"', 'did you mean "finite_web"?'),
        ("extends = 3", "own.toml: extends: give the path of one file"),
        ('extends = "own.toml"', "extend each other in a cycle ("),
        ('extends = "bad.toml"', r"own.toml: trainers.naive.count \(from .*bad.toml\): must be greater than 0, not -2"),
        ('extends = "bad.toml"\ntrainers.naive.publsh = 3', r"own.toml: trainers.naive.publsh: unknown key"),
        ('extends = "bad.toml"', r"own.toml: changes.0.at \(from .*bad.toml\): must be greater than 0"),
        ('extends = "bad.toml"\nchanges = [{ at = 0 }]', r"own.toml: changes.0.at: "),
        ('without = ["steps"]', "own.toml: without: removes entries of the file that extends names"),
        ('extends = "base"\nwithout = "steps"', "own.toml: without: give a list of dotted paths"),
        (
            'extends = "base"\nwithout = ["trainers.naiv"]',
            r'base.toml has no trainers.naiv \(did you mean "naive"\?\); in ',
        ),
        (
            'extends = "base"\nwithout = ["polices.x"]',
            r'has no polices.x \(did you mean "policies"\?\); at its top it has ',
        ),
        ('extends = "base"\nwithout = ["steps.x"]', "steps holds no names; remove all of it"),
        ('extends = "base"\nwithout = ["web"]', "own.toml: web: this key is required and missing"),
    ],
)
def test_mistakes_name_the_file_that_the_key_is_from(write, text, sentence):
    write('extends = "base"\ntrainers.naive.count = -2\nchanges = [{ at = 0, set = {} }]', "bad.toml")
    with pytest.raises(ScenarioError, match=sentence.replace("(", r"\(") if "\\" not in sentence else sentence):
        Scenario.load(write(text))


def test_entries_are_removed_before_the_own_ones_are_merged(write):
    base = tiny()
    write(
        'extends = "base"\n[trainers.other]\nmodel = "tiny"\npublish = 3',
        "two.toml",
    )
    only = Scenario.load(
        write('extends = "two"\nwithout = ["trainers.naive", "trainers.careful.select", "policies.short"]')
    )
    assert set(only.trainers) == {"careful", "other"} and set(base.policies) - set(only.policies) == {"short"}
    anew = Scenario.load(write('extends = "two"\nwithout = ["trainers.naive"]\n[trainers.naive]\nmodel = "tiny"'))
    assert (
        anew.trainers["naive"].publish == TrainerSpec.model_fields["publish"].default != base.trainers["naive"].publish
    )
    study = Study.load(
        write('extends = "monoculture"\nwithout = ["arms.eight", "arms.four.trainers.labs.count"]', "few.toml")
    )
    whole = Study.load("monoculture").arms
    assert set(whole) - set(study.arms) == {"eight"}
    assert set(whole["four"]) - set(study.arms["four"]) == {"trainers.labs.count"}


def test_a_cycle_of_several_files_is_refused(write):
    write('extends = "b"', "a.toml")
    write('extends = "sub/c.toml"', "b.toml")
    file = write('extends = "../a.toml"', "sub/c.toml")
    with pytest.raises(ScenarioError, match=r"extend each other in a cycle \(.*c\.toml -> .*a\.toml -> .*b\.toml"):
        read_file(file)


def test_paths_of_the_extended_file_still_lead_to_its_files(write):
    texts = "\n\n".join(f"document number {i}" for i in range(40))
    write(texts, "inner/data/a.txt")
    base = '[sources.docs]\nkind = "text"\npath = "data/*.txt"\n[web]\nkind = "complete"\nsites = 4\n'
    base += 'initial = { source = "docs", documents = 9 }\n[models.m]\npreset = "trigram"\n[trainers.t]\nmodel = "m"'
    write(f'name = "x"\n{base}', "inner/base.toml")
    own = Scenario.load(write('extends = "inner/base.toml"', "other/own.toml".replace("other/", "")))
    assert own.sources["docs"].path == "inner/data/*.txt"
    deep = write('extends = "../inner/base.toml"', "other/own.toml")
    assert Scenario.load(deep).sources["docs"].path == "../inner/data/*.txt"
    assert len(Scenario.load(deep).sources["docs"].files("docs", deep.parent)) == 1
    write(texts, "other/data/b.txt")  # a file beside the extension wins
    assert Scenario.load(deep).sources["docs"].path == "data/*.txt"


@pytest.mark.parametrize(
    ("question", "name"),
    [(Study, "five_policies"), (Study, "calibrated_policies"), (Frontier, "detector_needed"), (Fit, "fits/mixed_loop")],
)
def test_a_bundled_study_search_or_fit_is_extended_in_any_folder(write, question, name):
    own, original = question.load(write(f'extends = "{name}"')), question.load(name)
    scenarios = [each.check(Path(each.where).parent)[1] for each in (own, original)]
    assert scenarios[0] == scenarios[1] and scenarios[0]
