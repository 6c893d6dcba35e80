"""Sources of vectors and symbols: laws of the endless ones and their truth first, then toys and images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from pydantic import ValidationError
from scipy import stats

from ecosystem.errors import DataError
from ecosystem.sources.base import SOURCES, FiniteReservoir
from ecosystem.sources.categorical import Categorical
from ecosystem.sources.images import Digits, Images
from ecosystem.sources.vectors import Gaussian, Toy, as_documents
from ecosystem.spec import explain
from ecosystem.streams import Streams

MATRIX = [[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]]
ENDLESS = {
    "standard": Gaussian(held_out=30),
    "independent": Gaussian(held_out=30, dim=3, mean=[1.0, 0.0, -5.0], variance=[1.0, 0.25, 9.0]),
    "correlated": Gaussian(held_out=30, dim=3, mean=0.5, covariance=MATRIX),
    "uniform": Categorical(held_out=30, types=40),
    "zipf": Categorical(held_out=30, types=1000, shape="zipf"),
    "listed": Categorical(held_out=30, probabilities=[0.0, 0.6, 0.0, 0.3, 0.1, 0.0]),
}
endless = pytest.mark.parametrize("spec", ENDLESS.values(), ids=ENDLESS.keys())


def opened(spec, seed=1, name="mine", base=Path()):
    return spec.open(name, Streams(seed), base)


def same(one: pl.Series, two: pl.Series) -> bool:
    """Whether documents agree in type and to the last bit."""
    return one.dtype == two.dtype and one.to_numpy().tobytes() == two.to_numpy().tobytes()


# Laws of a source without end.


@endless
def test_a_row_is_a_function_of_its_number_alone(spec):
    reservoir, numbers = opened(spec), np.array([7, 10**12, 3, 0, 7, 41])
    together = reservoir.rows(numbers)
    assert same(together, pl.concat([reservoir.rows(np.array([n])) for n in numbers]))
    assert same(reservoir.rows(np.arange(777)), reservoir.rows(np.arange(776, -1, -1)).reverse())
    assert same(together, opened(spec.model_copy(update={"held_out": 2.0})).rows(numbers))
    assert reservoir.size is None


@endless
def test_documents_have_the_type_of_their_modality_even_if_there_are_none(spec):
    reservoir = opened(spec)
    dtype = pl.Array(pl.Float64, spec.dim) if spec.modality == "vector" else pl.Int32
    nothing = opened(spec.model_copy(update={"held_out": 0.0})).held_out
    for docs, count in ((reservoir.rows([4, 2]), 2), (reservoir.rows([]), 0), (reservoir.held_out, 30), (nothing, 0)):
        assert docs.dtype == dtype and len(docs) == count and docs.name == "content"
        assert reservoir.log_likelihood(docs).shape == (count,)


@endless
def test_held_out_documents_are_no_rows(spec):
    reservoir = opened(spec)
    longer = opened(spec.model_copy(update={"held_out": 90.0})).held_out
    assert same(longer.head(30), reservoir.held_out)
    assert not same(longer, reservoir.rows(np.arange(90)))
    if spec.modality == "vector":
        drawn = {row.tobytes() for row in reservoir.rows(np.arange(5000)).to_numpy()}
        assert drawn.isdisjoint(row.tobytes() for row in longer.to_numpy())


@endless
def test_seed_and_name_make_other_documents_and_the_digest_tells(spec):
    reservoirs = [opened(spec), opened(spec, seed=2), opened(spec, name="other")]
    rows = [reservoir.rows(np.arange(50)).to_numpy().tobytes() for reservoir in reservoirs]
    assert len(set(rows)) == len({reservoir.digest for reservoir in reservoirs}) == 3
    assert len(reservoirs[0].digest) == 64
    again = SOURCES.get(spec.kind).model_validate({k: v for k, v in spec.plain().items() if k != "kind"})
    assert again == spec and opened(again).digest == reservoirs[0].digest
    assert same(opened(again).rows(np.arange(50)), reservoirs[0].rows(np.arange(50)))


def test_every_parameter_is_in_the_digest():
    gaussians = [Gaussian(), Gaussian(mean=1.0), Gaussian(variance=2.0), Gaussian(dim=2), Gaussian(held_out=3)]
    symbols = [Categorical(types=4), Categorical(types=5), Categorical(types=5, shape="zipf")]
    assert len({opened(spec).digest for spec in [*gaussians, *symbols]}) == 8


@endless
def test_rows_are_counted_from_zero(spec):
    with pytest.raises(DataError, match=r"^sources\.mine: cannot draw row -1; rows are counted from 0\.$"):
        opened(spec).rows(np.array([3, -1]))


# The truth of a normal distribution. All bounds are five standard errors; seeds are fixed.


@pytest.mark.parametrize("name", ["standard", "independent", "correlated"])
def test_moments_are_the_true_ones(name):
    reservoir, n = opened(ENDLESS[name]), 40_000
    x = reservoir.rows(np.arange(n)).to_numpy()
    mean, covariance = reservoir.truth.mean, reservoir.truth.covariance
    variance = np.diagonal(covariance)
    assert reservoir.truth.probabilities is None and covariance.shape == (len(mean), len(mean))
    assert (np.abs(x.mean(axis=0) - mean) <= 5 * np.sqrt(variance / n)).all()
    # The variance of a sample covariance of normals is (s_ii s_jj + s_ij²) / n.
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / n)
    assert (np.abs(np.cov(x.T).reshape(covariance.shape) - covariance) <= 5 * error).all()
    standard = (x - mean) / np.sqrt(variance)
    assert (np.abs((standard**4).mean(axis=0) - 3) <= 5 * np.sqrt(96 / n)).all()
    assert (np.abs((standard[1:] * standard[:-1]).mean(axis=0)) <= 5 / np.sqrt(n)).all()  # row and next row
    assert all(stats.kstest(column, "norm").pvalue > 1e-6 for column in standard.T)


def test_the_truth_is_what_was_asked_for():
    for fields, mean, covariance in [
        ({}, [0], [[1]]),
        ({"dim": 2, "mean": 3, "variance": 4}, [3, 3], [[4, 0], [0, 4]]),
        ({"dim": 2, "mean": [1, 2.5], "variance": [4, 1]}, [1, 2.5], [[4, 0], [0, 1]]),
        ({"dim": 2, "covariance": [[2, 1], [1, 2]]}, [0, 0], [[2, 1], [1, 2]]),
    ]:
        truth = opened(Gaussian(**fields)).truth
        assert truth.mean.tolist() == mean and truth.covariance.tolist() == covariance


def test_a_vector_of_more_coordinates_begins_with_those_of_fewer():
    few, more = (opened(Gaussian(dim=dim)).rows(np.arange(9)).to_numpy() for dim in (2, 5))
    assert (more[:, :2] == few).all()


def test_a_diagonal_matrix_is_a_list_of_variances():
    matrix = np.diag([1.0, 4.0, 0.25]).tolist()
    one, two = (opened(Gaussian(dim=3, **f)) for f in ({"variance": [1.0, 4.0, 0.25]}, {"covariance": matrix}))
    assert (one.rows(np.arange(99)).to_numpy() == two.rows(np.arange(99)).to_numpy()).all()
    assert one.log_likelihood(one.held_out) == pytest.approx(two.log_likelihood(one.held_out), rel=1e-12)


@pytest.mark.parametrize("name", ["standard", "independent", "correlated"])
def test_the_log_likelihood_is_the_log_density(name):
    reservoir = opened(ENDLESS[name])
    law = stats.multivariate_normal(reservoir.truth.mean, reservoir.truth.covariance)
    x = np.concatenate([reservoir.held_out.to_numpy(), np.zeros((1, len(reservoir.truth.mean)))])
    assert reservoir.log_likelihood(as_documents(x)) == pytest.approx(np.atleast_1d(law.logpdf(x)), rel=1e-10)
    surprise = -reservoir.log_likelihood(reservoir.rows(np.arange(20_000)))
    # The surprise of a d-dimensional normal vector has the variance d / 2.
    assert abs(surprise.mean() - law.entropy()) <= 5 * np.sqrt(x.shape[1] / 2 / 20_000)


def test_densities_integrate_to_one():
    line = np.linspace(-30, 34, 4001)
    reservoir = opened(Gaussian(mean=2.0, variance=9.0))
    assert np.trapezoid(np.exp(reservoir.log_likelihood(as_documents(line[:, None]))), line) == pytest.approx(1)
    plane = np.stack(np.meshgrid(line[::20], line[::20]), axis=-1).reshape(-1, 2)
    reservoir = opened(Gaussian(dim=2, covariance=[[4.0, 1.5], [1.5, 2.0]]))
    cell = (line[20] - line[0]) ** 2
    assert np.exp(reservoir.log_likelihood(as_documents(plane))).sum() * cell == pytest.approx(1)


def test_what_is_not_finite_is_impossible_and_what_is_no_vector_a_sentence():
    for spec in (ENDLESS["independent"], ENDLESS["correlated"]):
        x = np.array([[0.0, 0.0, 0.0], [np.nan, 0.0, 0.0], [0.0, np.inf, 0.0], [0.0, 0.0, 1e300], [0.0, 0.0, 0.0]])
        found = opened(spec).log_likelihood(as_documents(x))
        assert np.isneginf(found).tolist() == [False, True, True, True, False] and found[0] == found[4]
        for docs in (as_documents(np.zeros((3, 2))), pl.Series(["text"]), pl.Series([1, 2, 3])):
            with pytest.raises(DataError, match=r"^sources\.mine: .* its documents are vectors of 3 numbers\.$"):
                opened(spec).log_likelihood(docs)


# The truth of symbols.


@pytest.mark.parametrize("name", ["uniform", "zipf", "listed"])
def test_frequencies_are_the_true_ones(name):
    reservoir, n = opened(ENDLESS[name]), 200_000
    p = reservoir.truth.probabilities
    symbols = reservoir.rows(np.arange(n)).to_numpy()
    counts = np.bincount(symbols, minlength=len(p))
    # Rare symbols are pooled by twos, fours, … until five standard errors mean something: at least 25 expected.
    place = np.minimum(np.cumsum(p) * n // 25, n // 25 - 1).astype(int)
    pooled, expected = np.bincount(place, weights=counts), np.bincount(place, weights=p) * n
    assert len(counts) == len(p) and (counts[p == 0] == 0).all()
    assert (np.abs(pooled - expected) <= 5 * np.sqrt(expected * (1 - expected / n)) + 1e-9).all()
    repeated = (symbols[1:] == symbols[:-1]).mean()  # row and next row are independent
    assert abs(repeated - (p**2).sum()) <= 5 * np.sqrt((p**2).sum() / n)


def test_the_probabilities_are_what_was_asked_for():
    assert opened(Categorical(types=4)).truth.probabilities.tolist() == [0.25] * 4
    zipf = opened(Categorical(types=3, shape="zipf")).truth.probabilities
    assert zipf == pytest.approx(np.array([6, 3, 2]) / 11, rel=1e-15)
    steep = opened(Categorical(types=50, shape="zipf", exponent=2.0)).truth.probabilities
    assert steep[0] / steep[9] == pytest.approx(100) and steep.sum() == pytest.approx(1, abs=1e-15)
    assert (np.diff(steep) < 0).all()
    listed = opened(Categorical(probabilities=[0.1, 0.6, 0.3])).truth
    assert listed.probabilities == pytest.approx([0.1, 0.6, 0.3], rel=1e-15)  # the user's order stays
    assert listed.mean is None and listed.covariance is None
    cut = opened(Categorical(types=50, shape="zipf", cut=3)).truth.probabilities
    assert cut == pytest.approx(np.append(zipf, np.zeros(47)), rel=1e-15)
    assert opened(Categorical(probabilities=[0.1, 0.6, 0.3], cut=2)).truth.probabilities == pytest.approx(
        [0, 2 / 3, 1 / 3]
    )
    assert opened(Categorical(types=4, cut=2)).truth.probabilities.tolist() == [0.5, 0.5, 0, 0]
    assert set(opened(Categorical(types=50, cut=3)).rows(np.arange(200)).to_list()) == {0, 1, 2}
    thirds = opened(Categorical(probabilities=[0.3333333333] * 3)).truth.probabilities
    assert thirds.tolist() == [1 / 3] * 3


@pytest.mark.parametrize("name", ["uniform", "zipf", "listed"])
def test_the_log_likelihood_is_the_log_probability(name):
    reservoir = opened(ENDLESS[name])
    p = reservoir.truth.probabilities
    every = pl.Series(np.arange(len(p), dtype=np.int32))
    assert np.exp(reservoir.log_likelihood(every)).tolist() == pytest.approx(p.tolist(), rel=1e-12)
    surprise = -reservoir.log_likelihood(reservoir.rows(np.arange(20_000)))
    positive = p[p > 0]
    entropy = -(positive * np.log(positive)).sum()
    spread = np.sqrt(max((positive * np.log(positive) ** 2).sum() - entropy**2, 0))
    assert abs(surprise.mean() - entropy) <= 5 * spread / np.sqrt(20_000) + 1e-9
    assert np.isneginf(reservoir.log_likelihood(pl.Series([-1, len(p), None, 2**31]))).all()


def test_what_is_no_symbol_is_a_sentence():
    for docs in (pl.Series([0.5]), pl.Series(["a"]), as_documents(np.zeros((2, 2)))):
        with pytest.raises(DataError, match=r"^sources\.mine: .* its documents are symbols \(whole numbers\)\.$"):
            opened(ENDLESS["zipf"]).log_likelihood(docs)


def test_numbers_at_the_end_of_the_scale_are_possible_symbols():
    class Last:
        def uniform(self, ids):
            return np.full(len(ids), 1 - 2.0**-53)

    reservoir = opened(Categorical(probabilities=[0.6, 0.3, 0.1, 0.0, 0.0]))
    reservoir._streams = type("Streams", (), {"at": lambda *_: Last()})()
    assert reservoir.rows([0]).to_list() == [2]


# Toy shapes, digits, images: finite.


def everything(reservoir: FiniteReservoir) -> np.ndarray:
    return np.concatenate([reservoir.rows(np.arange(reservoir.size)).to_numpy(), reservoir.held_out.to_numpy()])


@pytest.mark.parametrize(("shape", "dim"), [("blobs", 2), ("moons", 2), ("circles", 2), ("swiss_roll", 3)])
def test_toys_are_finite_and_drawn_without_replacement(shape, dim):
    reservoir = opened(Toy(shape=shape, documents=300, held_out=0.2))
    points = everything(reservoir)
    assert reservoir.size == 240 and points.shape == (300, dim)
    assert reservoir.rows([0]).dtype == pl.Array(pl.Float64, dim)
    assert len(np.unique(points, axis=0)) == 300  # none twice, so none both drawn and held out
    assert reservoir.truth is None and reservoir.log_likelihood(reservoir.held_out) is None
    again = opened(Toy(shape=shape, documents=300, held_out=0.2))
    assert (everything(again) == points).all() and again.digest == reservoir.digest
    others = [opened(Toy(shape=shape, documents=300), **other) for other in ({"seed": 2}, {"name": "other"})]
    others.append(opened(Toy(shape=shape, documents=300, noise=0.3)))
    assert len({other.digest for other in [*others, reservoir]}) == 4
    with pytest.raises(DataError, match=r"^sources\.mine: .* rows 0 to 239\.$"):
        reservoir.rows([240])


def test_toys_have_their_shape():
    circles = everything(opened(Toy(shape="circles", noise=0.0, documents=200)))
    radii = np.round(np.linalg.norm(circles, axis=1), 9)
    assert set(radii) == {0.8, 1.0}
    noisy = everything(opened(Toy(shape="swiss_roll", documents=2000)))
    assert noisy[:, 1].min() > -1 and noisy[:, 1].max() < 22 and noisy[:, 0].std() > 4


def test_digits_are_real_images_in_grey_from_zero_to_one():
    reservoir = opened(Digits())
    images = everything(reservoir)
    assert images.shape == (1797, 64) and reservoir.size == 1797 - 180
    assert reservoir.image_shape == Digits().image_shape(64) == (8, 8)
    assert images.min() == 0 and images.max() == 1 and set(np.unique(images * 16)) == set(range(17))
    assert len(np.unique(images, axis=0)) == 1797
    assert opened(Digits(), seed=2).digest == reservoir.digest  # the data are the same; the order is not
    assert not same(opened(Digits(), seed=2).held_out, reservoir.held_out)
    assert reservoir.truth is None


GREY = np.random.default_rng(5).integers(0, 256, (12, 5, 4), dtype=np.uint8)


def rows_of(images) -> set[bytes]:
    return {np.asarray(image, dtype=np.float64).tobytes() for image in images}


def save_pngs(folder: Path, images=GREY) -> None:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02}.png")


def test_a_folder_a_pattern_and_an_archive_give_the_same_images(tmp_path, monkeypatch):
    save_pngs(tmp_path / "pngs")
    (tmp_path / "pngs" / "notes.txt").write_text("not an image")
    np.savez(tmp_path / "all.npz", images=GREY)
    reservoirs = [opened(Images(path=str(tmp_path / path))) for path in ("pngs", "pngs/*.png", "pngs/**/[01]*.png")]
    reservoirs.append(opened(Images(path="all.npz"), base=tmp_path))
    monkeypatch.chdir(tmp_path)
    reservoirs.append(opened(Images(path="pngs/"), base=Path("/elsewhere")))
    for reservoir in reservoirs:
        assert reservoir.digest == reservoirs[0].digest and reservoir.image_shape == (5, 4)
        assert rows_of(everything(reservoir)) == rows_of(GREY.reshape(12, 20) / 255)
        assert same(reservoir.held_out, reservoirs[0].held_out) and reservoir.size == 10


@pytest.mark.parametrize(
    ("stored", "fields", "expected"),
    [
        (GREY, {"scale": 510}, GREY / 510),
        (GREY.astype(np.uint16) * 257, {}, GREY / 255),
        (GREY.astype(np.int64), {"scale": 255}, GREY / 255),
        (GREY / 255, {}, GREY / 255),
        ((GREY / 255).astype(np.float32), {}, (GREY / 255).astype(np.float32)),
        (GREY > 127, {}, GREY > 127),
        ((GREY // 2).astype(np.int8), {}, (GREY // 2) / 127),
    ],
)
def test_any_type_of_number_becomes_grey_from_zero_to_one(tmp_path, stored, fields, expected):
    np.savez_compressed(tmp_path / "x.npz", images=stored, labels=np.arange(12))
    found = everything(opened(Images(path=str(tmp_path / "x.npz"), **fields)))
    order = np.lexsort(found.T)
    expected = np.asarray(expected, dtype=np.float64).reshape(12, 20)
    assert found[order] == pytest.approx(expected[np.lexsort(expected.T)], rel=1e-12)


def test_deep_coloured_and_fractional_files_keep_their_values(tmp_path):
    deep = np.linspace(0, 65535, 20).astype(np.uint16).reshape(5, 4)
    colour = np.repeat(GREY[0][:, :, None], 3, axis=2)
    for path, array, expected in [
        ("deep.png", deep, deep / 65535),
        ("colour.png", colour, GREY[0] / 255),
        ("fraction.tif", (GREY[0] / 255).astype(np.float32), (GREY[0] / 255).astype(np.float32)),
        ("bits.png", GREY[0] > 127, GREY[0] > 127),
    ]:
        Image.fromarray(array).save(tmp_path / path)
        [image] = everything(opened(Images(path=str(tmp_path / path), held_out=0)))
        assert image == pytest.approx(np.asarray(expected, dtype=np.float64).reshape(-1), rel=1e-12)


def test_images_can_be_brought_to_one_size(tmp_path):
    save_pngs(tmp_path / "mixed")
    Image.fromarray(np.full((9, 3), 51, dtype=np.uint8)).save(tmp_path / "mixed" / "other.png")
    np.savez(tmp_path / "mixed" / "more.npz", images=np.full((1, 20, 16), 0.5))
    reservoir = opened(Images(path=str(tmp_path / "mixed"), size=[5, 4]))
    found = rows_of(everything(reservoir).round(6))
    assert reservoir.image_shape == (5, 4) and len(found) == 14
    assert found == rows_of([*(GREY.reshape(12, 20) / 255).round(6), np.full(20, 0.2), np.full(20, 0.5)])


def test_of_equal_images_one_stays(tmp_path):
    save_pngs(tmp_path / "twice", [*GREY, *GREY[:5]])
    assert len(everything(opened(Images(path=str(tmp_path / "twice"))))) == 12


BAD_FILES = [
    ("zebras.jpeg", {}, r"no such file, neither in the current folder nor in the scenario's; correct"),
    ("a.pgn", {}, r'no such file, neither .* nor .* \(did you mean "a.png"\?\); correct sources\.mine\.path'),
    ("none/*.png", {}, r"no file matches this pattern, neither in the current folder nor in the scenario's"),
    ("empty", {}, r'the folder contains no images \(.*\.png.*\); give .* pattern such as "empty/\*\*/\*\.png"'),
    ("[ac].png", {}, r"c\.png: has 6 x 4 pixels \(height x width\), but a\.png has 5 x 4; .* to \[5, 4\]"),
    ("text.png", {}, r"text\.png: cannot be read \(.*\); give whole image files in sources\.mine\.path"),
    ("cut.png", {}, r"cut\.png: cannot be read \(.*\); give whole image files"),
    ("deep.tif", {}, r"contains whole numbers of 32 bits, .*; set sources\.mine\.scale"),
    ("text.npz", {}, r"text\.npz: cannot be read \(.*\); give an archive written by numpy\.savez"),
    ("cut.npz", {}, r"cut\.npz: cannot be read \(.*\); give an archive written by numpy\.savez"),
    ("plain.npz", {}, r"plain\.npz: cannot be read \(.*\); give an archive written by numpy\.savez"),
    ("objects.npz", {}, r"objects\.npz: cannot be read \(.*\); give an archive written by numpy\.savez"),
    ("key.npz", {}, r'contains no array "images" \(did you mean "image"\?\), only image, labels; save it with'),
    ("nothing.npz", {}, r'contains no array "images", only nothing; save it with'),
    ("flat.npz", {}, r'the array "images" has the shape \[12, 20\]; it must be \[n, height, width\]'),
    ("none.npz", {}, r'the array "images" has the shape \[0, 5, 4\]; it must be'),
    ("words.npz", {}, r'the array "images" must hold numbers, not <U4'),
    (
        "wide.npz",
        {},
        r"contains whole numbers of 64 bits, .* set sources\.mine\.scale to it, for instance",
    ),
    ("wide.npz", {"scale": 9.0}, r"contains values from 0 to \d+, .* 0 \(black\) and 9 \(white\); set"),
    ("below.npz", {}, r"contains values from -1 to 0\.5, .* 0 \(black\) and 1 \(white\)"),
    ("nan.npz", {}, r"contains values from nan to nan, .* 0 \(black\) and 1 \(white\)"),
    ("a.png", {}, r"held_out: 0\.1 holds out 1 of 1 documents .* leaves none to publish"),
]


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty").mkdir()
    (folder / "empty" / "readme.txt").write_text("nothing here")
    Image.fromarray(GREY[0]).save(folder / "a.png")
    Image.fromarray(np.zeros((6, 4), dtype=np.uint8)).save(folder / "c.png")
    Image.fromarray(np.full((5, 4), 70_000, dtype=np.int32)).save(folder / "deep.tif")
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) - 30])
    for ending in ("png", "npz"):
        (folder / f"text.{ending}").write_text("this is a text")
    with (folder / "plain.npz").open("wb") as file:
        np.save(file, GREY)
    np.savez(folder / "objects.npz", images=np.array([None, 1], dtype=object))
    np.savez(folder / "key.npz", image=GREY, labels=np.arange(12))
    np.savez(folder / "nothing.npz")
    np.savez(folder / "flat.npz", images=GREY.reshape(12, 20))
    np.savez(folder / "none.npz", images=GREY[:0])
    np.savez(folder / "words.npz", images=np.array([[["text"]]]))
    np.savez(folder / "wide.npz", images=np.append(GREY, np.zeros((1, 5, 4), dtype=np.int64), axis=0))
    np.savez(folder / "below.npz", images=np.array([[[-1.0, 0.5]]]))
    np.savez(folder / "nan.npz", images=np.array([[[np.nan, 0.5]]]))
    data = (folder / "wide.npz").read_bytes()
    (folder / "cut.npz").write_bytes(data[: len(data) // 2])
    return folder


@pytest.mark.parametrize(("path", "fields", "sentence"), BAD_FILES)
def test_everything_wrong_with_images_is_one_sentence(bad, path, fields, sentence):
    with pytest.raises(DataError, match=sentence) as error:
        opened(Images(path=path, **fields), base=bad)
    message = str(error.value)
    assert (
        message.startswith(("sources.mine: ", "sources.mine.held_out: "))
        and message.endswith(".")
        and "\n" not in message
    )


def test_without_the_library_the_sentence_says_how_to_install_it(bad, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r'^sources\.mine: .* needs the library "Pillow", .*: pip install pillow\.$'):
        opened(Images(path="a.png"), base=bad)
    np.savez(bad / "good.npz", images=GREY)
    assert len(everything(opened(Images(path="good.npz"), base=bad))) == 12  # an archive does without


# Fields.


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (Gaussian, {"held_out": 0.1}, "s.x.held_out: must be a number of documents such as 500"),
        (Gaussian, {"held_out": 1.5}, "s.x.held_out: must be a share below 1 or a whole number"),
        (Gaussian, {"dim": 0}, "s.x.dim: must be at least 1"),
        (Gaussian, {"mean": "high"}, "s.x.mean: must be a number or a list of numbers, not 'high'"),
        (Gaussian, {"mean": [0.0, True]}, "s.x.mean: must be a number or a list of numbers, not [0.0, True]"),
        (Gaussian, {"mean": []}, "s.x.mean: must be a number or a list of numbers, not []"),
        (Gaussian, {"variance": float("nan")}, "s.x.variance: must be a number or a list of numbers, not nan"),
        (Gaussian, {"mean": [0.0, 1.0]}, "s.x: mean has 2 numbers, but dim = 1; give one for each coordinate or set"),
        (Gaussian, {"dim": 3, "variance": [1.0]}, "s.x: variance has 1 numbers, but dim = 3; give one"),
        (Gaussian, {"variance": 0}, "s.x: variance must be above 0, not 0"),
        (Gaussian, {"dim": 2, "variance": [1, -2.5]}, "s.x: variance must be above 0, not -2.5"),
        (Gaussian, {"variance": 1, "covariance": [[1]]}, "s.x: variance and covariance exclude each other; remove one"),
        (Gaussian, {"dim": 2, "covariance": [[1]]},
         "s.x: covariance must have 2 rows of 2 numbers, as dim = 2, but has 1 of 1"),
        (Gaussian, {"dim": 2, "covariance": [[1, 0], [1]]},
         "s.x: covariance must have 2 rows of 2 numbers, as dim = 2, but has 2 of 1 or 2"),
        (Gaussian, {"covariance": []}, "s.x: covariance must have 1 rows of 1 numbers, as dim = 1, but has none"),
        (Gaussian, {"dim": 2, "covariance": [[1, 0.5], [0.4, 1]]},
         "s.x: covariance must be symmetric, but row 1, column 2 is 0.5 and row 2, column 1 is 0.4"),
        (Gaussian, {"dim": 2, "covariance": [[1, 2], [2, 1]]},
         "s.x: covariance must be positive definite, but its smallest eigenvalue is -1 (0 or less"),
        (Gaussian, {"dim": 2, "covariance": [[1, 0.1], [0.1, 0.01]]}, "s.x: covariance must be positive definite, but"),
        (Gaussian, {"covariance": [["a"]]}, "s.x.covariance.0.0: must be a number, not 'a'"),
        (Gaussian, {"sigma": 1}, "s.x.sigma: unknown key; allowed here: covariance, description, dim, "),
        (Categorical, {}, "s.x: give types, the number of symbols, or probabilities"),
        (Categorical, {"held_out": 0.5, "types": 2}, "s.x.held_out: must be a number of documents such as 500"),
        (Categorical, {"types": 0}, "s.x.types: must be at least 1"),
        (Categorical, {"types": 3, "shape": "zip"}, 's.x.shape: must be "uniform" or "zipf"'),
        (Categorical, {"types": 3, "exponent": 2.0}, 's.x: exponent is allowed with shape = "zipf" only'),
        (Categorical, {"probabilities": [0.5, 0.4]}, "s.x: probabilities must sum to one, but these 2 sum to 0.9;"),
        (Categorical, {"probabilities": [1 + 2e-9]},
         "s.x: probabilities must sum to one, but these 1 sum to 1.000000002"),
        (Categorical, {"probabilities": [1.5, -0.5]}, "s.x: probabilities must be 0 or more, but one is -0.5"),
        (Categorical, {"probabilities": []}, "s.x.probabilities: needs at least 1 entry"),
        (Categorical, {"probabilities": [1.0], "types": 1}, "s.x: probabilities and types exclude each other; remove"),
        (Categorical, {"probabilities": [1.0], "shape": "zipf"}, "s.x: probabilities and shape exclude each other;"),
        (Toy, {"shape": "moon"}, 's.x.shape: must be "blobs", "moons", "circles" or "swiss_roll"'),
        (Toy, {"documents": 0}, "s.x.documents: must be at least 1"),
        (Toy, {"noise": -1.0}, "s.x.noise: must be at least 0"),
        (Digits, {"held_out": 2.5}, "s.x.held_out: must be a share below 1 or a whole number"),
        (Images, {}, "s.x.path: this key is required and missing"),
        (Images, {"path": "a", "size": [8]}, "s.x.size: needs at least 2 entries"),
        (Images, {"path": "a", "size": [8, 0]}, "s.x.size.1: must be at least 1"),
        (Images, {"path": "a", "scale": 0.0}, "s.x.scale: must be greater than 0"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_a_sentence_with_its_path(kind, fields, sentence):
    with pytest.raises(ValidationError) as error:
        kind(**fields)
    (problem,) = explain(error.value, "s.x", kind)
    assert problem.startswith(sentence) and "\n" not in problem


def test_the_kinds_are_registered_with_their_modality():
    modalities = {kind: SOURCES.get(kind).modality for kind in ("gaussian", "toy", "digits", "images", "categorical")}
    assert modalities == {"categorical": "category", **dict.fromkeys(("gaussian", "toy", "digits", "images"), "vector")}
    assert SOURCES.get("text").modality == "text" == SOURCES.get("process").modality


@pytest.mark.slow
def test_reading_the_kinds_imports_nothing_heavy():
    heavy = "{'torch', 'sklearn', 'PIL', 'scipy'}"
    code = f"import sys; from ecosystem.sources.base import SOURCES; SOURCES.all(); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
