"""Downstream tasks: what is asked, what is learnt from it, and that judging a model leaves it as it was."""

import json
import re
from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch

from ecosystem.cli.listing import harness, listing
from ecosystem.errors import DataError, ScenarioError, TrainingError
from ecosystem.families.language.packing import PromptedBatches
from ecosystem.families.requests import Budget, PromptedFitRequest, ScoreRequest
from ecosystem.metrics import tasks
from ecosystem.metrics.tasks import TASKS, Example
from ecosystem.report.data import RunReportData
from ecosystem.report.sections import sections
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.entries.measure import DownstreamSpec
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation import downstream
from ecosystem.simulation.downstream import Downstream, likelihoods
from ecosystem.streams import Streams
from tests.conftest import MACHINE, ROOT, tiny
from tests.families_shared import STREAMS, cohort, documents, in_transformers
from tests.test_resume import fingerprints

ALL = ("topic", "next_sentence", "word_order", "next_word")


# What is asked.


def written(n=160, topics=5):
    """Documents of four sentences, in each of which stands a name that no other document has, and their topics."""
    words = [f"{a}{b}" for a in ("ba", "do", "fe", "gi", "lu") for b in ("ral", "ton", "mir", "sek", "nop", "vis")]
    rng = np.random.default_rng(3)

    def sentence(name):
        chosen = [*rng.choice(words, 8, replace=False), name]
        return " ".join(["The", *chosen[:4], chosen[8], *chosen[4:8]]) + "."

    names = ["x" + "".join("abcdefghij"[int(d)] for d in f"{i:03d}") for i in range(n)]
    texts = [" ".join(sentence(name) for _ in range(4)) for name in names]
    return pl.Series(texts), pl.Series([f"part{i % topics}" for i in range(n)])


def made(kind, docs=None, topics=None, train=24, test=12, seed=1):
    given = written() if docs is None else (docs, topics)
    return tasks.make(kind, *given, train, test, Streams(seed).at("measure/downstream"))


def names(examples):
    return [set(re.findall(r"\bx[a-j]{3}\b", e.text + e.choices[e.answer])) for e in examples]


def test_there_are_four_kinds_of_task():
    assert tuple(sorted(TASKS.all())) == tuple(sorted(ALL))
    listed = json.loads(listing("tasks", True))
    assert {entry["name"] for entry in listed} == set(ALL) and all(entry["about"] for entry in listed)


@pytest.mark.parametrize("kind", ALL)
def test_training_and_test_examples_are_of_different_documents(kind):
    train, test = made(kind, train=40, test=20)
    assert (len(train), len(test)) == (40, 20)
    assert all(len(found) == 1 for found in names([*train, *test]) if found), "an example is of one document"
    assert set().union(*names(train)).isdisjoint(set().union(*names(test)))
    assert len(set().union(*names(train))) > 10


@pytest.mark.parametrize("kind", ALL)
def test_right_answers_are_spread_evenly_over_the_choices(kind):
    for examples in made(kind, train=26, test=15):
        counts = Counter(example.answer for example in examples)
        assert len(counts) == len(examples[0].choices) == (2 if kind in ("next_sentence", "word_order") else 4)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert all(len(set(example.choices)) == len(example.choices) for example in examples)
        assert tasks.chance(examples) == pytest.approx(1 / len(counts))


@pytest.mark.parametrize("kind", ALL)
def test_examples_do_not_depend_on_the_order_of_documents(kind):
    docs, topics = written()
    order = np.random.default_rng(0).permutation(len(docs))
    assert made(kind) == made(kind, docs.gather(order), topics.gather(order))
    assert made(kind) != made(kind, seed=2)


def test_right_choices_are_what_people_wrote_and_wrong_ones_are_not():
    docs, topics = written()
    whole = dict(zip(docs, topics, strict=True))
    for example in made("topic")[1]:
        [source] = [text for text in whole if example.text.removesuffix("\n\nTopic:") in text]
        assert example.choices[example.answer] == f" {whole[source]}"
    for example in made("next_sentence")[1]:
        right, wrong = example.choices[example.answer], example.choices[1 - example.answer]
        [source] = [text for text in whole if example.text + right in text]
        assert wrong.strip() not in source and any(wrong.strip() in text for text in whole)
    for example in made("word_order")[1]:
        right, wrong = example.choices[example.answer], example.choices[1 - example.answer]
        assert any(right in text for text in whole) and not any(wrong in text for text in whole)
        assert sum(a != b for a, b in zip(right.split(), wrong.split(), strict=True)) == 2
        assert Counter(right.split()) == Counter(wrong.split())
    counts = Counter(word for text in whole for word in re.findall(r"[A-Za-z]+", text))
    for example in made("next_word")[1]:
        assert any(text.startswith(example.text + example.choices[example.answer]) for text in whole)
        asked = [counts[choice.strip()] for choice in example.choices]
        assert min(asked) >= tasks.SEEN, "names, which occur four times, are too rare to be asked for"


def test_too_few_documents_are_a_sentence():
    with pytest.raises(
        DataError,
        match=r"task \"topic\" needs 500 examples to train on and 500 to test on, .* yield \d+ to \w+ on; raise",
    ):
        made("topic", train=500, test=500)
    docs, _ = written()
    with pytest.raises(DataError, match=r"but 160 real documents that are never published, .* yield 0 to"):
        made("topic", docs, None)


def test_accuracy_takes_the_likeliest_choice_and_knows_its_error():
    examples = [Example("", ("a", "b"), 1), Example("", ("a", "b", "c"), 0), Example("", ("a", "b"), 0)]
    nats = np.array([2.0, 1.0, 3.0, 4.0, 5.0, 9.0, 8.0])
    (value, error), right = tasks.accuracy(nats, None, examples)
    assert right.tolist() == [True, True, False]
    assert value == pytest.approx(2 / 3) and error == pytest.approx(np.sqrt(2 / 9 * 3 / 2 / 3))
    alone = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 8.0, 0.0])  # the text speaks for the first choice of the last
    assert tasks.accuracy(nats, alone, examples)[1].tolist() == [True, True, True]


# Learning answers.


def answers(n=12, seed=5):
    """Prompts and answers of a few tokens each, of very different lengths."""
    return documents(n, seed, 0, 14), documents(n, seed + 1, 1, 5)


def answering(prompts, docs, member=0, epochs=1.0, rate=3e-3, batch=4, start="foundation", name="answers"):
    stream = STREAMS.at(name, 3)
    given = (np.ones(len(docs)), Budget(epochs=epochs), rate, start, stream, prompts, batch)
    return PromptedFitRequest(member, docs, *given)


@pytest.mark.slow
def test_only_answers_have_a_gradient_and_no_example_sees_another():
    made_of = cohort()
    prompts, docs = answers()
    encode = made_of.tokenizer.encode
    batches = list(made_of._prompted(answering(prompts, docs, batch=12)))
    assert len(batches) == 1
    arrays = [torch.from_numpy(np.ascontiguousarray(getattr(batches[0], n))) for n in ("inputs", "targets", "weight")]
    inputs, targets, scale = arrays
    loss, grads = made_of._gradients(made_of.weights.initial)((inputs, targets, scale / batches[0].tokens))

    # The same by transformers, one example at a time, without padding; labels of prompts are masked.
    theirs = in_transformers(made_of)
    scored = sum(len(a) + 1 for a in encode(docs))
    total = torch.zeros(())
    for prompt, answer in zip(encode(prompts), encode(docs), strict=True):
        chain = torch.tensor([[0, *prompt, *answer, 0]])
        labels = chain.clone()
        labels[:, : 1 + len(prompt)] = -100
        total = total + theirs(chain, labels=labels).loss * (len(answer) + 1) / scored
    total.backward()
    assert float(loss) == pytest.approx(float(total.detach()), rel=1e-5)
    expected = dict(theirs.named_parameters())
    for name, grad in zip(made_of.weights.initial, grads, strict=True):
        torch.testing.assert_close(grad, expected[name].grad, atol=2e-5, rtol=1e-3)


def test_answers_are_whole_and_every_epoch_has_each_once():
    prompts, docs = documents(10, 1, 30, 60), documents(10, 2, 2, 6)
    encode = cohort().tokenizer.encode
    given = (encode(prompts), encode(docs), np.ones(10), 0, 24, 4)
    batches = list(PromptedBatches(*given, Budget(epochs=2), STREAMS.at("order")))
    seen = [
        row.targets[row.weight > 0].tolist()
        for batch in batches
        for row in (type(batch)(*rows, 0) for rows in zip(batch.inputs, batch.targets, batch.weight, strict=True))
    ]
    whole = sorted([*answer.tolist(), 0] for answer in encode(docs))
    assert sorted(seen[:10]) == whole and sorted(seen[10:]) == whole and seen[:10] != seen[10:]
    assert all(batch.inputs.shape[1] <= 24 and (batch.inputs[:, 0] == 0).all() for batch in batches)
    with pytest.raises(TrainingError, match="an answer of 24 tokens does not fit the context of 24"):
        answer = encode(documents(1, 3, 24, 25))
        PromptedBatches(encode(prompts[:1]), answer, np.ones(1), 0, 24, 4, Budget(epochs=1), STREAMS)


def test_a_stack_learns_answers_as_its_members_do_alone():
    prompts, docs = answers(24)
    requests = [answering(prompts, docs, member=m, epochs=3, name=f"answers/{m}") for m in (0, 1)]
    alone, stacked = cohort(2), cohort(2, stacks=True)
    one, other = alone.fit_prompted(requests), stacked.fit_prompted(requests)
    assert [r.tokens for r in one] == [r.tokens for r in other]
    for member in (0, 1):  # AdamW makes a step of what is left of a sum that is nothing: judged by what they say
        ours, theirs = (c.score([ScoreRequest(member, docs, prompts)])[0].nll for c in (alone, stacked))
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
        untrained = cohort(2).score([ScoreRequest(member, docs, prompts)])[0].nll
        assert np.abs(ours - untrained).max() > 0.2


def test_a_document_behind_a_prompt_is_scored_as_the_end_of_both():
    made_of = cohort()
    prompts, docs = answers()
    whole = pl.Series([f"{p} {d}".strip() for p, d in zip(prompts, docs, strict=True)])
    behind, both = made_of.score([ScoreRequest(0, docs, prompts), ScoreRequest(0, whole)])
    for i in range(len(docs)):
        mine = behind.nll[behind.offsets[i] : behind.offsets[i + 1]]
        np.testing.assert_allclose(mine, both.nll[: both.offsets[i + 1]][-len(mine) :], atol=1e-5)
    # Too long for the context, a prompt loses its first tokens.
    long, docs = documents(6, 9, 40, 50), documents(6, 8, 3, 4)
    short = pl.Series([" ".join(text.split()[-(24 - 1 - 3) :]) for text in long])
    cut, same = made_of.score([ScoreRequest(0, docs, long), ScoreRequest(0, docs, short)])
    np.testing.assert_allclose(cut.nll, same.nll, atol=1e-5)


# Judging.


def parity(train=160, test=200, **more):
    """A task that can be learnt and not guessed: which of two tokens follows depends on the first one's side of 35."""
    rng = np.random.default_rng(2)

    def example(i):
        first = int(rng.integers(1, 35)) + 35 * (i % 2)
        return Example(f"{first} {' '.join(map(str, rng.integers(3, 70, 4)))}", (" 1", " 2"), i % 2)

    how = DownstreamSpec(tasks=["word_order"], zero_shot=["word_order"], epochs=8.0, learning_rate=1e-2, **more)
    made_of = [example(i) for i in range(train)], [example(i) for i in range(test)]
    return Downstream(how, {"word_order": made_of}, Streams(4))


def silent(*_):
    pass


def test_judging_leaves_members_as_they_were_and_says_the_same_twice():
    made_of = cohort(2)
    made_of.fit_prompted([answering(*answers(), member=1)])
    before = made_of.state()
    task = parity(train=24, test=20)
    first = task.judge(made_of, [0, 1], True, silent)
    assert all((made_of.state()[name] == values).all() for name, values in before.items())
    assert first == task.judge(made_of, [0, 1], True, silent)
    assert first == [task.judge(made_of, [m], True, silent)[0] for m in (0, 1)], "members do not influence each other"


def test_what_was_trained_on_the_answers_beats_chance_and_its_untrained_self():
    made_of = cohort()
    [values] = parity().judge(made_of, [0], True, silent)
    (tuned, error), (untuned, _) = values["accuracy_word_order"], values["zero_shot_word_order"]
    assert tuned > 0.5 + 6 * error
    assert abs(untuned - 0.5) < 4 * np.sqrt(0.25 / 200) < tuned - 0.5
    assert parity().judge(made_of, [0], False, silent) == [{"zero_shot_word_order": values["zero_shot_word_order"]}]


def test_the_baseline_is_random_weights_fine_tuned_alike():
    task, made_of = parity(train=16, test=40, random=3), cohort(2)
    before = made_of.state()
    found = task.references(made_of, True, True, silent)
    assert set(found) == {"initial", "random"} and set(found["random"]) == set(task.chance())
    assert all((made_of.state()[name] == values).all() for name, values in before.items())
    drawn = [task._tuned(made_of, [0], "scratch", [f"/random/{k}"], silent)[0] for k in range(3)]
    values = [one["accuracy_word_order"][0] for one in drawn]
    assert found["random"]["accuracy_word_order"][0] == pytest.approx(np.mean(values))
    assert found["random"]["accuracy_word_order"][1] >= np.std(values, ddof=1) / np.sqrt(3) - 1e-12
    [present] = task.judge(made_of, [0], True, silent)  # which has not moved from its foundation
    assert present == found["initial"]


def test_nats_are_those_of_the_choice_alone():
    made_of = cohort()
    [example] = [Example("5 6 7", (" 8 9", " 10"), 0)]
    [nats] = likelihoods(made_of, [0], [example], alone=False)
    theirs = in_transformers(made_of)
    with torch.no_grad():
        for found, choice in zip(nats, ([8, 9], [10]), strict=True):
            chain = torch.tensor([[0, 5, 6, 7, *choice]])
            log_p = torch.log_softmax(theirs(chain).logits[0], -1)
            expected = -sum(float(log_p[3 + i, token]) for i, token in enumerate(choice))
            assert found == pytest.approx(expected, abs=1e-4)


# In a run.

ASKED = {
    "sources.language.held_out": 80,
    "measure.downstream.tasks": ["next_word"],
    "measure.downstream.zero_shot": ["next_word"],
    "measure.downstream.train": 16,
    "measure.downstream.test": 40,
    "measure.downstream.every": 2,
    "measure.downstream.epochs": 1.0,
    "measure.downstream.random": 2,
}


def asking(**changes):
    return tiny(**changes).override(ASKED)


@pytest.fixture(scope="module")
def judged(tmp_path_factory, cache):
    out = tmp_path_factory.mktemp("judged")
    for _ in begin(asking(), out=out, machine=MACHINE, cache=cache):
        pass
    return Run.open(folder_of(asking(), out))


@pytest.mark.slow
def test_a_run_judges_when_it_is_time_to_and_a_resumed_one_alike(judged, cache, tmp_path, monkeypatch):
    rows = judged.metrics.filter(pl.col("metric").is_in(["accuracy_next_word", "zero_shot_next_word"]))
    found = {(row["step"], row["id"]): row for row in rows.filter(metric="accuracy_next_word").iter_rows(named=True)}
    trainers = ["naive/0", "naive/1", "careful/0"]
    references = ["chance", "tiny/initial", "tiny/random"]
    assert set(found) == {(0, name) for name in references} | {(t, name) for t in (1, 3) for name in trainers}
    assert found[0, "chance"]["value"] == 0.25 and all(r["error"] > 0 for k, r in found.items() if k[1] != "chance")
    assert len(rows) == 2 * len(found)

    for _ in begin(asking(steps=2), out=tmp_path, machine=MACHINE, cache=cache):
        pass
    # Baselines are of the opening, which has been measured.
    monkeypatch.setattr(Downstream, "references", None)
    assert [s.t for s in begin(asking(), out=tmp_path, machine=MACHINE, cache=cache)] == [3]
    assert fingerprints(folder_of(asking(), tmp_path)) == fingerprints(judged.path)


@pytest.mark.slow
def test_judging_changes_nothing_else_of_a_run(judged, finished, cache, tmp_path):
    plain = tiny().override({"sources.language.held_out": 80})
    for _ in begin(plain, out=tmp_path, machine=MACHINE, cache=cache):
        pass
    other = Run.open(folder_of(plain, tmp_path))
    asked = pl.col("metric").str.contains("accuracy|zero_shot")
    assert judged.metrics.filter(~asked).equals(other.metrics)
    assert judged.documents.collect().equals(other.documents.collect())


@pytest.mark.slow
def test_the_report_draws_tasks_against_random_weights_and_chance(judged, finished):
    book = RunReportData.of(judged)
    drawn = sections(book)
    assert "downstream" not in sections(RunReportData.of(finished))
    assert "Downstream tasks" in drawn["downstream"](book) and {"accuracy_next_word", "zero_shot_next_word"} <= {
        *book.specs
    }
    for name in ("accuracy_next_word", "zero_shot_next_word"):
        chart = json.dumps(book.specs[name])
        assert "randomly initialised" in chart and "chance" in chart and "careful" in chart
    table = drawn["figures"](book)
    assert "next word<small>accuracy, fine-tuned</small>" in table and "25\u00a0%" in table


BAD = [
    ({"tasks": []}, "measure.downstream: set tasks or zero_shot"),
    ({"tasks": ["next_wrd"]}, r'no task "next_wrd" \(did you mean "next_word"\?\); there are next_sentence, next_word'),
    ({"tasks": ["topic"]}, r'the task "topic" needs the topics of documents, which a source of kind process'),
    ({"tasks": ["next_word", "next_word"]}, r"measure\.downstream\.tasks: .* task twice"),
]


@pytest.mark.parametrize(("table", "sentence"), BAD)
def test_a_mistake_in_the_table_is_a_sentence(table, sentence):
    with pytest.raises(ScenarioError, match=sentence):
        tiny().override({"measure.downstream": table})


def test_what_cannot_be_judged_is_said_when_the_scenario_is_read():
    with pytest.raises(ScenarioError, match=r"held_out is 0"):
        asking().override({"sources.language.held_out": 0})
    with pytest.raises(ScenarioError, match=r"no model of this scenario can be fine-tuned on a task \(ngram; gpt2"):
        asking().override({"models.tiny.preset": "trigram", "measure.downstream.zero_shot": []})
    with pytest.raises(ScenarioError, match="cannot change inside a run"):
        Scenario.parse(asking().plain() | {"changes": [{"at": 2, "set": {"measure.downstream.every": 3}}]})
    vectors = Scenario.load(ROOT / "scenarios/papers/shumailov_gmm.toml")
    with pytest.raises(ScenarioError, match=r"measure\.downstream: tasks need text"):
        vectors.override({"measure.downstream": {"tasks": ["topic"]}})


def test_counts_answer_as_they_are(cache, tmp_path):
    scenario = asking(steps=1).override({"models.tiny.preset": "trigram", "policies.fluent.high": 1e9})
    for _ in begin(scenario, out=tmp_path, machine=MACHINE, cache=cache):
        pass
    run = Run.open(folder_of(scenario, tmp_path))
    assert any("which cannot be fine-tuned" in event for _, event in run.events)
    found = run.metrics.filter(pl.col("metric").str.ends_with("_next_word"))
    assert set(found["metric"]) == {"zero_shot_next_word", "accuracy_next_word"}
    assert found.filter(metric="accuracy_next_word")["id"].to_list() == ["chance"]
    assert found.filter(step=1).height == 3


# For another program.


@pytest.mark.slow
def test_tasks_are_written_for_the_harness(judged, tmp_path):
    command = harness(judged.path, tmp_path, "naive/0", 1, "<|endoftext|>")
    assert f"pretrained={tmp_path / 'model'} --tasks ecosystem_next_word --include_path {tmp_path}" in command
    assert (tmp_path / "model" / "model.safetensors").is_file()
    lines = [json.loads(line) for line in (tmp_path / "ecosystem_next_word.jsonl").read_text().splitlines()]
    reservoir = judged.scenario.sources["language"].open("language", Streams(judged.seed), judged.path)
    _, test = Downstream.of(judged.scenario.measure.downstream, reservoir, Streams(judged.seed)).examples["next_word"]
    assert [(line["text"], tuple(line["choices"]), line["answer"]) for line in lines] == test
    task = json.loads((tmp_path / "ecosystem_next_word.yaml").read_text())
    assert task["metric_list"][0]["metric"] == "acc" and task["target_delimiter"] == ""
    written = downstream.write_harness({"next_sentence": test}, tmp_path / "relative", "")
    relative = json.loads((tmp_path / "relative" / f"{written[0]}.yaml").read_text())
    assert relative["metric_list"][0]["metric"] == "acc_mutual_info"


@pytest.mark.slow
def test_the_harness_finds_the_same_accuracy(judged, tmp_path):
    evaluator = pytest.importorskip("lm_eval.evaluator", reason="needs lm-evaluation-harness (the extra lm-eval)")
    from lm_eval.tasks import TaskManager

    harness(judged.path, tmp_path, "naive/0", 3, "<|endoftext|>")
    found = evaluator.simple_evaluate(
        model="hf",
        model_args=f"pretrained={tmp_path / 'model'}",
        tasks=["ecosystem_next_word"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        device="cpu",
        bootstrap_iters=0,
    )
    ours = judged.metrics.filter(pl.col("id") == "naive/0", step=3, metric="zero_shot_next_word")["value"].item()
    assert found["results"]["ecosystem_next_word"]["acc,none"] == pytest.approx(ours, abs=1e-9)
