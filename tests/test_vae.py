"""Variational autoencoders: the laws of a family, the loss against NumPy, mistakes told, and images in the report."""

import base64
import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from scipy.special import ndtri

from ecosystem.errors import DataError, TrainingError
from ecosystem.families import foundation
from ecosystem.families.base import BuildContext
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, ScoreRequest
from ecosystem.families.statistical.gaussian import GaussianCohort
from ecosystem.families.vae import cohort
from ecosystem.families.vae.batches import VaeBatches
from ecosystem.families.vae.family import Vae
from ecosystem.families.vae.networks import Convolutional, Dense
from ecosystem.report import charts, write_report
from ecosystem.report.html import PAGES
from ecosystem.report.panels import documents
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import Truth
from ecosystem.sources.images import Digits
from ecosystem.sources.vectors import as_documents
from ecosystem.streams import Streams
from ecosystem.testing import check_family
from tests.conftest import ROOT

STREAMS = Streams(7)
DIGITS = Digits().open("digits", STREAMS, Path()).rows(np.arange(400))
RNG = np.random.default_rng(1)
ODD = as_documents(RNG.random((30, 5)) ** 2)
TINY = {"latent": 2, "hidden": 7, "layers": 2, "epochs": 2.0, "batch": 9}


def context(human=DIGITS, cache=Path(), threads=1):
    return BuildContext(human, STREAMS, "cpu", threads, cache)


def fit(docs=DIGITS, member=0, weight=None, epochs=3.0, **more):
    weight = np.ones(docs.len()) if weight is None else np.asarray(weight, dtype=np.float64)
    given = {"learning_rate": None, "start": "scratch", "stream": STREAMS.at(f"fit/{member}")} | more
    return FitRequest(member, docs, weight, Budget(epochs=epochs), **given)


def ask(member=0, n=6, temperature=1.0):
    return GenerateRequest(member, n, Decoding(temperature=temperature), None, STREAMS.at("ask"))


def same(one, two) -> bool:
    return all(np.array_equal(one[name], two[name]) for name in one)


# Laws.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "human"),
    [
        (Vae(**TINY), ODD),
        (Vae(init="untrained", latent=8, hidden=32, batch=48), DIGITS.head(60)),
        (Vae(latent=3, hidden=16, epochs=1.0, schedule="cosine"), DIGITS.head(60)),
        (Vae(architecture="convolutional", epochs=1.0, batch=48), DIGITS.head(60)),
        (Vae(architecture="convolutional", init="untrained", capacity=3, latent=3), DIGITS.head(60)),
    ],
    ids=["layers of odd sizes, one by one", "in stacks", "odd latent", "convolutions in stacks", "odd convolutions"],
)
def test_the_laws_of_a_family(family, human, tmp_path):
    check_family(family, human, tmp_path)


@pytest.mark.parametrize("architecture", ["dense", "convolutional"])
def test_a_member_is_the_same_in_any_stack_and_on_any_thread(architecture):
    family = Vae(init="untrained", architecture=architecture, hidden=32)
    assert family.cohort("v", 1, context()).network.stack(family.batch) > 1
    requests = [fit(DIGITS.gather(np.arange(m, 300, 2 + m % 2)), m) for m in range(5)]
    together = family.cohort("v", 5, context())
    together.fit(requests)
    spread = family.cohort("v", 5, context(threads=3))
    spread.fit(requests)
    assert same(together.state(), spread.state())
    for member in (0, 4):
        alone = family.cohort("v", 5, context())
        alone.fit([requests[member]])
        for name, values in alone.state().items():
            assert np.array_equal(values[member], together.state()[name][member])
            assert not np.array_equal(values[member], values[1]), "the others have not been asked"


def test_large_members_and_odd_ones_are_trained_one_by_one():
    assert Dense(64, 8, 128, 1).stack(128) == 16
    assert Dense(784, 16, 1024, 2).stack(256) == 1
    assert Dense(63, 8, 128, 1).stack(128) == Dense(64, 3, 128, 1).stack(128) == Dense(64, 8, 100, 1).stack(128) == 1
    assert Convolutional(8, 8, 8, 16).stack(128) == 16
    assert Convolutional(28, 28, 16, 64).stack(128) == Convolutional(8, 8, 8, 12).stack(128) == 1


def test_it_learns():
    """20 passes over 400 digits take more than 12 of 45 nats off held-out ones: off their uniform cross-entropy."""
    made = Vae(init="untrained", learning_rate=5e-3, batch=32).cohort("v", 1, context())
    made.fit([fit(epochs=20.0)])
    held_out = Digits().open("digits", STREAMS, Path()).held_out
    before, after = (made.score([ScoreRequest(who, held_out)])[0].nll for who in ("initial", 0))
    assert 44 < before.mean() < 46, "64 pixels of log 2"
    assert after.mean() < before.mean() - 12


def test_weights_of_documents_count():
    family = Vae(init="untrained", hidden=16)

    def trained(docs, weight):
        made = family.cohort("v", 1, context())
        made.fit([fit(docs, 0, weight)])
        return made.state()

    half = (np.arange(400) < 200).astype(np.float64)
    assert same(trained(DIGITS, half), trained(DIGITS.head(200), None)), "weight 0 is the same as not being there"
    assert same(trained(DIGITS, np.full(400, 2.0)), trained(DIGITS, None)), "only shares of the weight matter"
    own = VaeBatches(fit(DIGITS.head(4), 0, [1, 3, 0, 4], epochs=1.0), 2, 3)
    batches = list(own)
    assert own.total == 3 and [batch.tokens for batch in batches] == [2, 1] and own.steps == 2
    weights = {tuple(x): w for b in batches for x, w in zip(b.inputs, b.weight[:, 0], strict=True) if w}
    for row, expected in ((0, 3 / 8), (1, 9 / 8), (3, 12 / 8)):
        assert weights[tuple(DIGITS[row].to_numpy().astype(np.float32))] == pytest.approx(expected)
    assert len(batches[0].inputs) == 16 and (batches[0].weight[2:] == 0).all(), "filled up to a whole vector"


def test_budgets_in_documents_and_in_passes():
    made = Vae(init="untrained", hidden=16).cohort("v", 2, context())
    by_passes, by_documents = fit(epochs=1.5), fit(member=1)
    by_documents = FitRequest(**(vars(by_documents) | {"budget": Budget(tokens=77)}))
    assert [record.tokens for record in made.fit([by_passes, by_documents])] == [600, 77]


def test_where_a_fit_starts(tmp_path):
    made = Vae(hidden=16, epochs=1.0).cohort("v", 1, context(cache=tmp_path))
    start = made.state()
    for where in ("foundation", "previous"):
        made.load(start)
        made.fit([fit(start=where, learning_rate=1e-30)])
        assert same(made.state(), start), "a fit that cannot move stays where it started"
    made.fit([fit(start="scratch", learning_rate=1e-30)])
    assert not same(made.state(), start)


def test_a_foundation_is_trained_once(tmp_path, monkeypatch):
    first = Vae(**TINY).cohort("one", 1, context(ODD, tmp_path))
    monkeypatch.setattr(foundation, "pretrain", None)
    second = Vae(**TINY).cohort("two", 2, context(ODD, tmp_path))
    assert second.fingerprint == first.fingerprint
    assert all(np.array_equal(values[1], first.state()[name][0]) for name, values in second.state().items())
    assert first.generate([ask()])[0].equals(second.generate([ask(1)])[0])


def test_a_state_of_another_shape_is_refused():
    made = Vae(init="untrained", **TINY).cohort("v", 1, context(ODD))
    other = Vae(init="untrained", latent=3).cohort("v", 1, context(ODD))
    with pytest.raises(DataError, match="do not fit"):
        made.load(other.state())


# Arithmetic.


def by_hand(weights, part, x, layers=2):
    for i in range(layers + 1):
        x = x @ weights[f"{part}.{i}.weight"] + weights[f"{part}.{i}.bias"]
        x = np.maximum(x, 0) if i < layers else x
    return x


def test_convolutions_are_those_of_torch():
    """Patches and matrix products against PyTorch's own convolutions, each member with weights of its own."""
    network = Convolutional(8, 12, 3, 5)
    members = [network.draw(STREAMS.at(f"convolutions/{m}")) for m in range(2)]
    weights = {name: torch.stack([member[name] for member in members]) for name in members[0]}
    x, z = torch.from_numpy(RNG.random((2, 4, 96))).float(), torch.from_numpy(RNG.standard_normal((2, 4, 3))).float()
    mean, log_variance = network.encode(weights, x)
    logits = network.logits(weights, z)
    relu, functional = torch.relu, torch.nn.functional
    for m, own in enumerate(members):
        images = x[m].view(4, 1, 8, 12)
        for i, channels in enumerate((5, 10)):
            cells = own[f"encoder.convolution.{i}.weight"].view(2, 2, 2, 2, -1, channels)
            kernel = cells.permute(5, 4, 0, 2, 1, 3).reshape(channels, -1, 4, 4)
            bias = own[f"encoder.convolution.{i}.bias"][0]
            images = relu(functional.conv2d(images, kernel, bias, stride=2, padding=1))
        seen = images.permute(0, 2, 3, 1).flatten(1) @ own["encoder.dense.weight"] + own["encoder.dense.bias"]
        assert torch.allclose(torch.cat([mean[m], log_variance[m]], dim=1), seen, atol=1e-6)
        images = (z[m] @ own["decoder.dense.weight"] + own["decoder.dense.bias"]).view(4, 2, 3, 10).permute(0, 3, 1, 2)
        for i, (inputs, channels) in enumerate(((10, 5), (5, 1))):
            cells = own[f"decoder.transposed.{i}.weight"].view(inputs, 2, 2, 2, 2, channels)
            kernel = cells.permute(0, 5, 1, 3, 2, 4).reshape(inputs, channels, 4, 4)
            bias = own[f"decoder.transposed.{i}.bias"][0]
            images = functional.conv_transpose2d(images, kernel, bias, stride=2, padding=1)
            images = relu(images) if i == 0 else images
        assert torch.allclose(logits[m], images.flatten(1), atol=1e-6)


def test_which_images_convolutions_take(tmp_path):
    def family(**more):
        return Vae(architecture="convolutional", init="untrained", **more).cohort("v", 1, context(human, tmp_path))

    human = as_documents(RNG.random((4, 36)))
    with pytest.raises(DataError, match="sides are divisible by 4, but these are 6 by 6"):
        family()
    human = as_documents(RNG.random((4, 32)))
    with pytest.raises(DataError, match=r"vectors of 32 numbers: that is not a square number; set models\.v\.image"):
        family()
    with pytest.raises(DataError, match=r"image = \[4, 9\] makes 36"):
        family(image=[4, 9])
    assert (family(image=[4, 8]).network.height, family(image=[4, 8]).network.width) == (4, 8)


def test_divergence_reconstruction_and_loss_against_numpy():
    made = Vae(init="untrained", beta=0.3, **TINY).cohort("v", 1, context(ODD))
    weights = {name: 3 * values[0].astype(np.float64) for name, values in made.state().items()}
    x, noise = ODD.to_numpy().copy(), RNG.standard_normal((30, 2))
    mean, log_variance = np.split(by_hand(weights, "encoder", x), 2, axis=1)
    logits = by_hand(weights, "decoder", mean + np.exp(log_variance / 2) * noise)
    p = 1 / (1 + np.exp(-logits))
    cross_entropy = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1)
    kl = (0.5 * (np.exp(log_variance) + mean**2) - 0.5 - 0.5 * log_variance).sum(axis=1)

    tensors = {name: torch.from_numpy(values)[None] for name, values in weights.items()}
    given = torch.from_numpy(x)[None], torch.from_numpy(noise)[None]
    found = cohort.divergence(*(torch.from_numpy(a)[None] for a in (mean, log_variance)))
    assert np.allclose(found[0], kl)
    assert np.allclose(cohort.loss(made.network, tensors, *given, 0.0)[0], cross_entropy)
    assert np.allclose(cohort.loss(made.network, tensors, *given, 0.3)[0], cross_entropy + 0.3 * kl)
    assert cohort.divergence(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)).item() == 0, "the prior itself"
    # In one dimension: KL(N(1, e^2) || N(0, 1)) = (e^2 + 1 - 1 - 2) / 2.
    one = cohort.divergence(torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]]))
    assert one.item() == pytest.approx((np.exp(2) - 2) / 2)


def test_a_document_is_the_decoders_mean_of_keyed_normal_numbers():
    """Temperature multiplies their variance; beta has no part in writing or scoring."""
    made = Vae(init="untrained", beta=9.0, **TINY).cohort("v", 1, context(ODD))
    weights = {name: values[0].astype(np.float64) for name, values in made.state().items()}
    z = ndtri(STREAMS.at("ask").uniform(np.arange(12))).reshape(6, 2)
    for temperature in (1.0, 4.0):
        [docs] = made.generate([ask(temperature=temperature)])
        expected = 1 / (1 + np.exp(-by_hand(weights, "decoder", np.sqrt(temperature) * z)))
        assert docs.dtype == pl.Array(pl.Float64, 5) and np.allclose(docs.to_numpy(), expected, atol=1e-6)
    plain = Vae(init="untrained", **TINY).cohort("v", 1, context(ODD))
    [ours], [theirs] = made.score([ScoreRequest(0, ODD)]), plain.score([ScoreRequest("initial", ODD)])
    assert np.array_equal(ours.nll, theirs.nll)
    [other] = made.score([ScoreRequest("random", ODD)])
    assert not np.array_equal(ours.nll, other.nll)


def test_a_score_is_of_the_document_alone():
    made = Vae(init="untrained").cohort("v", 1, context())
    [score] = made.score([ScoreRequest(0, DIGITS)])
    [few] = made.score([ScoreRequest(0, DIGITS.gather([377, 5]))])
    assert np.allclose(few.nll, score.nll[[377, 5]], rtol=1e-6)
    assert made.score([ScoreRequest(0, DIGITS.clear())])[0].nll.size == 0


def test_what_members_write_is_held_against_the_truth(tmp_path):
    family = Vae(hidden=16, epochs=5.0)
    made = family.cohort("v", 2, context(cache=tmp_path))
    made.fit([fit(epochs=5.0, member=1)])
    truth = Truth(mean=DIGITS.to_numpy().mean(axis=0), covariance=np.cov(DIGITS.to_numpy(), rowvar=False))
    found = made.describe(truth)
    stream = STREAMS.at("model/v/describe")
    written = made.generate([GenerateRequest(m, 500, Decoding(), None, stream) for m in range(2)])
    for member, docs in enumerate(written):
        x = docs.to_numpy()
        assert found["variance"][member] == pytest.approx(x.var(axis=0, ddof=1).sum() / np.trace(truth.covariance))
        assert found["mean_error"][member] == pytest.approx(((x.mean(axis=0) - truth.mean) ** 2).sum())
        normal = GaussianCohort("g", 1, 64)
        normal.load({"mean": x.mean(axis=0)[None], "covariance": np.cov(x, rowvar=False)[None]})
        assert found["w2"][member] == pytest.approx(normal.describe(truth)["w2"][0])
        eyes = {name: values[:1] for name, values in family.cohort("v", 1, context(cache=tmp_path)).state().items()}
        weights = {k: torch.from_numpy(v) for k, v in eyes.items()}
        seen = made.network.encode(weights, torch.tensor(x[None]).float())[0]
        assert found["latent_log_std"][member] == pytest.approx(np.log(seen.numpy().std()), rel=1e-4)
    assert "latent_log_std" not in Vae(init="untrained").cohort("v", 1, context()).describe(truth)


def test_a_model_that_always_writes_the_same(tmp_path):
    made = Vae(hidden=16, epochs=1.0).cohort("v", 1, context(cache=tmp_path))
    made.load({name: np.zeros_like(values) for name, values in made.state().items()})
    found = made.describe(Truth(mean=np.full(64, 0.5), covariance=np.eye(64)))
    assert found["variance"] == [0] and np.isnan(found["log_variance"]) and found["mean_error"] == [0]


# Mistakes.


def test_what_cannot_be_trained_is_a_sentence(tmp_path):
    made = Vae(init="untrained").cohort("v", 2, context())
    start = made.state()
    wild = as_documents(np.full((3, 64), 1.5))
    gap = as_documents(np.full((3, 64), np.nan))
    with pytest.raises(TrainingError, match=r"member 1 cannot be trained .* from 1.5 to 1.5, but .* 0 to 1") as error:
        made.fit([fit(), fit(wild, 1)])
    assert error.value.member == 1
    for request, said in [
        (fit(gap), "values run from nan to nan"),
        (fit(DIGITS.clear()), "there are no documents, so there is nothing to train on"),
        (fit(weight=np.zeros(400)), "every document has weight 0"),
        (fit(weight=np.full(400, -1.0)), "negative or not finite"),
        (fit(learning_rate=1e30), "loss of member 0 is not a finite number at step"),
    ]:
        with pytest.raises(TrainingError, match=said):
            made.fit([request, fit(member=1)])
    assert same(made.state(), start), "a call that fails changes nobody"
    with pytest.raises(DataError, match='model "v" cannot be trained on the web\'s initial documents: their values'):
        Vae().cohort("v", 1, context(wild, tmp_path))
    with pytest.raises(DataError, match=r"form of its .* set web\.initial\.documents"):
        Vae().cohort("v", 1, context(DIGITS.clear(), tmp_path))
    with pytest.raises(DataError, match='model "v" cannot score these documents'):
        made.score([ScoreRequest(0, wild)])
    with pytest.raises(TrainingError, match='foundation of model "v": the loss of member 0 is not a finite number'):
        Vae(learning_rate=1e30).cohort("v", 1, context(cache=tmp_path))


# Images in a run and in its report.


def test_the_papers_scenario_can_be_read():
    scenario = Scenario.load(ROOT / "scenarios" / "papers" / "shumailov_vae.toml")
    assert scenario.modality == "vector" and set(scenario.trainers) == {"replace", "kept_tenth"}


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache) -> Run:
    scenario = Scenario.load(ROOT / "scenarios" / "papers" / "shumailov_vae.toml").override(
        {
            "steps": 2,
            "models.vae.epochs": 1.0,
            "models.vae.hidden": 16,
            "trainers.replace.budget.epochs": 1.0,
            "trainers.kept_tenth.budget.epochs": 1.0,
            "trainers.replace.count": 2,
            "trainers.kept_tenth.count": 2,
            "web.initial.documents": 100,
        }
    )
    out = tmp_path_factory.mktemp("vae")
    for _ in begin(scenario, out=out, machine=Machine("cpu", 2), cache=cache):
        pass
    return Run.open(folder_of(scenario, out))


@pytest.mark.slow
def test_a_run_with_a_tenth_of_real_images(run):
    measured = run.metrics.filter(pl.col("metric").is_in(["latent_log_std", "w2"]) & pl.col("value").is_finite())
    assert measured.height == 2 * 2 * 4, "every trainer from step 1, where all publish from the foundation"
    share = run.metrics.filter((pl.col("metric") == "injected_share") & (pl.col("step") == 2)).sort("id")
    assert np.allclose(share["value"], [0.1, 0.1, 0, 0], atol=1e-3)


@pytest.mark.slow
def test_images_are_shown_as_images(run, monkeypatch):
    monkeypatch.setattr(charts, "pictures", lambda spec: (b"<svg/>", b"png"))
    page = write_report(run).read_text(encoding="utf-8")
    shown = page.split('<img src="data:image/png;base64,')[1:]
    assert len(shown) == 10 + 2 * 2 * 10, "ten real ones, and ten of each population at steps 1 and 2"
    assert all('alt="document ' in one.split(">")[0] and "image-rendering:pixelated" in one for one in shown)
    segment = run.store.table("corpus", range(1, 2))
    first = segment.filter(pl.col("author") == "replace/0").row(0, named=True)
    picture = Image.open(io.BytesIO(base64.b64decode(shown[10].split('"')[0])))
    assert picture.size == (8, 8) and picture.mode == "L"
    assert np.array_equal(np.asarray(picture), np.round(np.reshape(first["content"], (8, 8)) * 255))
    assert f'alt="document {first["doc"]} by replace/0, an image of 8 by 8 grey values"' in page
    assert "Real images on the initial web" in page


def row(content, **more):
    known = {"author": "a/0", "doc": 3, "words": 2, "synthetic": True, "depth": 1.0, "verdict": None}
    return pl.DataFrame([known | {"content": content} | more])


def shown(rows, shape):
    macros = PAGES.get_template("macros.html").module
    return "".join(macros.document(document) for document in documents.documents(rows, shape))


def test_texts_and_other_numbers_in_the_report():
    text = shown(row("<b>bold</b> words"), None)
    assert "&lt;b&gt;bold&lt;/b&gt; words" in text and "document 3 · 2 words · depth 1.0" in text and "<b>" not in text
    assert "An empty document." in shown(row(""), None)
    few, many = (shown(row(values), None) for values in ([0.25, -1 / 3], [0.0] * 9))
    assert ">0.25, -0.333</div>" in few and "words ·" not in few
    assert ">0, 0, 0, 0, 0, 0, 0, 0, … (9 numbers)</div>" in many
    assert '<div class="words" dir="auto">0</div>' in shown(row(0), None), "category 0 is no empty text"
    refused = shown(row([2.0, -1.0, np.nan, 0.5], verdict='"dull"'), (2, 2))
    assert "refused by &#34;dull&#34;" in refused and "1 of them refused" in refused


def test_which_documents_are_images():
    def shape(source, length):
        data = {
            "name": "x",
            "sources": {"s": source},
            "web": {"kind": "isolated", "sites": 1, "initial": {"source": "s", "documents": 9}},
            "models": {"m": {"kind": "gaussian"}},
        }
        return documents.image_shape(Scenario.parse(data), pl.Array(pl.Float64, length))

    assert shape({"kind": "digits"}, 64) == (8, 8)
    assert shape({"kind": "images", "path": "x", "size": [2, 3]}, 6) == (2, 3)
    assert shape({"kind": "images", "path": "x"}, 49) == (7, 7)
    assert shape({"kind": "images", "path": "x"}, 50) is None
    assert shape({"kind": "gaussian", "dim": 4}, 4) is None
