"""Sources of images: handwritten digits from scikit-learn, and folders, files and archives of images.

An image is a vector document: the grey values of its pixels from 0 (black) to 1 (white), row by row.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.errors import DataError, nearest
from ecosystem.input_files import InputFiles
from ecosystem.sources.base import SOURCES, FiniteReservoir, Source
from ecosystem.sources.files import input_files
from ecosystem.sources.vectors import as_documents
from ecosystem.streams import Streams
from ecosystem.types import Floats, Modality

_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp", ".npz")


class ImageReservoir(FiniteReservoir):
    """A reservoir of images, as vectors of grey values row by row; ``image_shape`` is (height, width)."""

    def __init__(self, name: str, images: Floats, held_out: float, streams: Streams) -> None:
        """``images`` has shape [n, height, width]; ``held_out`` as in :class:`Source`."""
        count, height, width = images.shape
        self.image_shape = (height, width)
        super().__init__(name, as_documents(images.reshape(count, height * width)), held_out, streams)


@SOURCES.register("digits")
class Digits(Source):
    """The 1,797 handwritten digits of 8 × 8 pixels in scikit-learn (Alpaydin & Kaynak 1998)."""

    modality: ClassVar[Modality] = "vector"
    shipped: ClassVar[str] = "BSD-3-Clause (part of scikit-learn); from the UCI repository, CC BY 4.0"

    @property
    def width(self) -> int:
        """Numbers in a document."""
        return 64

    def image_shape(self, length: int) -> tuple[int, int] | None:
        """Return (8, 8) for a document of 64 numbers, else None."""
        return (8, 8) if length == self.width else None

    def open(self, name: str, streams: Streams, base: Path) -> ImageReservoir:
        """Read the bundled file; its grey values run from 0 to 16."""
        from sklearn.datasets import load_digits

        return ImageReservoir(name, load_digits().images / 16.0, self.held_out, streams)


@SOURCES.register("images")
class Images(Source):
    """Grey images of one size from a folder, from files, or from .npz archives with an array ``images`` [n, h, w]."""

    modality: ClassVar[Modality] = "vector"

    path: str = Field(
        min_length=1,
        description="folder, file or pattern (*, ?, **), relative to the current folder or the scenario's",
    )
    size: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[height, width] to which every image is scaled; absent: all images must have the same size"
    )
    scale: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="value of white; absent: the largest integer of the file's type (255 for 8 bits), or 1 for floats",
    )

    def origin(self) -> str:
        """Return the path as written in the scenario."""
        return self.path

    @property
    def width(self) -> int | None:
        """Numbers in a document if ``size`` is given, else None."""
        return math.prod(self.size) if self.size else None

    def image_shape(self, length: int) -> tuple[int, int] | None:
        """Return (height, width) for documents of ``length`` grey values; images of unknown size count as squares."""
        side = math.isqrt(length)
        height, width = self.size or (side, side)
        return (height, width) if length == height * width > 0 else None

    def check_files(self, name: str, base: Path) -> None:
        """Raise DataError if ``path`` leads to no images, or one cannot be opened."""
        input_files(name, base).require_readable(self._files(name, base))

    def open(self, name: str, streams: Streams, base: Path) -> ImageReservoir:
        """Read all images into memory; raise DataError if there are none, or one is damaged or has another size.

        Only the first of exact duplicates is kept, so that no copy of a held-out image is published.
        """
        files = self._files(name, base)
        stacks = [self._read(name, file, input_files(name, base)) for file in files]
        height, width = stacks[0].shape[1:]
        for file, stack in zip(files, stacks, strict=True):
            if stack.shape[1:] != (height, width):
                raise DataError(
                    f"sources.{name}: {file}: has {stack.shape[1]} x {stack.shape[2]} pixels (height x width), but "
                    f"{files[0].name} has {height} x {width}; give images of one size, or set sources.{name}.size, "
                    f"for instance to [{height}, {width}]."
                )
        distinct = dict.fromkeys(image.tobytes() for stack in stacks for image in stack)
        images = np.frombuffer(b"".join(distinct), dtype=np.float64).reshape(-1, height, width)
        return ImageReservoir(name, images, self.held_out, streams)

    def _files(self, name: str, base: Path) -> list[Path]:
        """Return the files that match ``path`` in the current folder, else in ``base``, sorted by name."""
        no_images = (
            f"the folder contains no images ({', '.join(_ENDINGS)}); "
            f'give one that does, or a pattern such as "{self.path.rstrip("/")}/**/*.png"'
        )
        return input_files(name, base).find(self.path, no_images, _ENDINGS)

    def _read(self, name: str, file: Path, places: InputFiles) -> Floats:
        """Read the images of one file, [n, h, w], values from 0 to 1."""
        raw = _archive(places, file) if file.suffix.lower() == ".npz" else _picture(places, file, name)[None]
        images = self._scaled(f"{places.subject}: {file}", name, raw)
        return _resized(name, images, self.size) if self.size and self.size != list(images.shape[1:]) else images

    def _scaled(self, where: str, name: str, raw: NDArray[Any]) -> Floats:
        white: float | None = self.scale
        if white is None:
            if raw.dtype.kind in "bf":
                white = 1.0
            elif raw.dtype.itemsize <= 2:
                white = float(np.iinfo(raw.dtype).max)
            else:
                # The largest value of a wide type is a poor guess: small grey values would all be read as black.
                raise DataError(
                    f"{where}: contains whole numbers of {8 * raw.dtype.itemsize} bits, whose type does not give the "
                    f"value of white; set sources.{name}.scale to it, for instance 255."
                )
        least, greatest = float(raw.min()), float(raw.max())
        if not (least >= 0 and greatest <= white):  # also refuses NaN
            raise DataError(
                f"{where}: contains values from {least:g} to {greatest:g}, but they must lie between 0 (black) and "
                f"{white:g} (white); set sources.{name}.scale to the value of white."
            )
        return np.asarray(raw / white, dtype=np.float64)


def _archive(places: InputFiles, file: Path) -> NDArray[Any]:
    """Read the array ``images`` of an ``.npz`` archive, [n, h, w]."""
    try:
        # Opened here, since NumPy does not close a damaged archive.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            keys = list(archive.keys())
            images = np.asarray(archive["images"]) if "images" in keys else None
    # A damaged file raises errors of zip, zlib, header or pickle readers, which have no common base class.
    except Exception as error:
        raise places.unreadable(file, error, "an archive written by numpy.savez") from None
    where = f"{places.subject}: {file}"
    if images is None:
        raise DataError(
            f'{where}: contains no array "images"{nearest("images", keys)}, only {", ".join(keys) or "nothing"}; '
            "save it with numpy.savez(file, images=…)."
        )
    if images.dtype.kind not in "buif":
        raise DataError(f'{where}: the array "images" must hold numbers, not {images.dtype}.')
    if images.ndim != 3 or not images.size:
        raise DataError(
            f'{where}: the array "images" has the shape {list(images.shape)}; it must be [n, height, width], '
            "one grey value per pixel and at least one image."
        )
    return images


def _picture(places: InputFiles, file: Path, name: str) -> NDArray[Any]:
    """Read the grey values of an image file, [h, w], in the type of the file."""
    image_of = _pillow(name)
    try:
        with image_of.open(file) as image:
            # Converting to 8 bits would clip 16-bit values at 255.
            wide = image.mode.startswith("I") or image.mode == "F"
            grey = np.asarray(image if wide else image.convert("L"))
    # For a damaged file, decoders raise OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        raise places.unreadable(file, error, "whole image files") from None
    return grey


def _resized(name: str, images: Floats, size: list[int]) -> Floats:
    """Scale images to [height, width]; each pixel is a weighted mean of the pixels that it covers."""
    image_of = _pillow(name)
    height, width = size
    frames = [image_of.fromarray(image.astype(np.float32)) for image in images]
    resized = [np.asarray(frame.resize((width, height), image_of.Resampling.BILINEAR)) for frame in frames]
    return np.clip(np.stack(resized).astype(np.float64), 0.0, 1.0)  # rounding may exceed the interval


def _pillow(name: str) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DataError(
            f'sources.{name}: a source of kind images needs the library "Pillow", which is not installed; '
            "install it with: pip install pillow."
        ) from None
    return Image
