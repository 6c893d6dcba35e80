"""The networks of variational autoencoders, dense or convolutional: parameter shapes and forward passes.

The leading axis of every tensor is the member. Convolutions are matrix products of patches, so that members can be
stacked as in dense layers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ecosystem.streams import Stream

Weights = Mapping[str, Tensor]

VECTOR = 16  # float32 numbers in the widest processor vector (512 bits)
_MAX_STACK = 16  # members
_STACK_FLOPS = 1e8  # of a member's training step; above it, one thread per member is faster than a stack
_PATCH = 16  # pixels of a kernel of 4 by 4


class Network(ABC):
    """The shape of one member: ``length`` numbers per document, ``latent`` latent variables, and layers between."""

    length: int
    latent: int

    @abstractmethod
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return name → shape of every parameter, in order; the encoder outputs means, then log variances."""

    @abstractmethod
    def encode(self, weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log variances of the latent variables of documents x [M, n, d], each [M, n, latent]."""

    @abstractmethod
    def logits(self, weights: Weights, z: Tensor) -> Tensor:
        """Return the logits of the decoder's means for latent variables z [M, n, latent], [M, n, d]."""

    @abstractmethod
    def products(self) -> int:
        """Count the multiplications in one document's pass through encoder and decoder."""

    @abstractmethod
    def aligned(self) -> bool:
        """Return whether every layer fills whole vectors of the processor."""

    def decode(self, weights: Weights, z: Tensor) -> Tensor:
        """Return the decoder's means, in [0, 1], for latent variables z [M, n, latent]."""
        return torch.sigmoid(self.logits(weights, z))

    def stack(self, batch: int) -> int:
        """Return the maximum number of members to train in one stack."""
        return _MAX_STACK if self.aligned() and 6 * batch * self.products() < _STACK_FLOPS else 1

    def draw(self, stream: Stream) -> dict[str, Tensor]:
        """Draw one member's weights as PyTorch does: uniform within ± 1 / √inputs.

        For a transposed convolution, PyTorch uses the outputs per patch instead of the inputs.
        """
        generator = torch.Generator().manual_seed(stream.integer())
        weights: dict[str, Tensor] = {}
        bound = 1.0
        for name, shape in self.parameters().items():
            if name.endswith("weight"):  # a bias has the bound of the preceding weights
                bound = 1 / math.sqrt(shape[1] if "transposed" in name else shape[0])
            weights[name] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
        return weights


@dataclass(frozen=True)
class Dense(Network):
    """Dense layers of one width, with ReLUs between them."""

    length: int
    latent: int
    hidden: int
    layers: int

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return name → shape of every parameter, in order."""
        hidden = [self.hidden] * self.layers
        widths = {
            "encoder": [self.length, *hidden, 2 * self.latent],
            "decoder": [self.latent, *hidden, self.length],
        }
        shapes: dict[str, tuple[int, ...]] = {}
        for part, sizes in widths.items():
            for i, (inputs, outputs) in enumerate(pairwise(sizes)):
                shapes |= {f"{part}.{i}.weight": (inputs, outputs), f"{part}.{i}.bias": (1, outputs)}
        return shapes

    def products(self) -> int:
        """Return the number of weights."""
        return sum(math.prod(shape) for shape in self.parameters().values())

    def aligned(self) -> bool:
        """Return whether documents, layers and the encoder's output fill whole vectors."""
        return all(width % VECTOR == 0 for width in (self.length, self.hidden, 2 * self.latent))

    def encode(self, weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log variances of documents x [M, n, d]."""
        mean, log_variance = self._apply(weights, "encoder", x).chunk(2, dim=-1)
        return mean, log_variance

    def logits(self, weights: Weights, z: Tensor) -> Tensor:
        """Return logits for latent variables z [M, n, latent]."""
        return self._apply(weights, "decoder", z)

    def _apply(self, weights: Weights, part: Literal["encoder", "decoder"], x: Tensor) -> Tensor:
        for i in range(self.layers + 1):
            x = _dense(weights, f"{part}.{i}", x)
            if i < self.layers:
                x = F.relu(x)
        return x


@dataclass(frozen=True)
class Convolutional(Network):
    """An encoder of two strided convolutions and a dense layer, and a decoder of the reverse.

    The network that Shumailov et al. (2024) trained on digits: kernels of 4, strides of 2, padding of 1, ``capacity``
    channels after the first convolution and twice as many after the second, and a ReLU after each convolution except
    the last transposed one. The sides of images must be divisible by 4.
    """

    height: int
    width: int
    latent: int
    capacity: int

    @property
    def length(self) -> int:  # type: ignore[override]
        """Length of a document."""
        return self.height * self.width

    @property
    def _inner(self) -> int:
        return 2 * self.capacity * self.length // 16

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return name → shape of every parameter, in order; a convolution has (inputs per patch, channels)."""
        c, patch = self.capacity, _PATCH
        return {
            "encoder.convolution.0.weight": (patch, c),
            "encoder.convolution.0.bias": (1, c),
            "encoder.convolution.1.weight": (c * patch, 2 * c),
            "encoder.convolution.1.bias": (1, 2 * c),
            "encoder.dense.weight": (self._inner, 2 * self.latent),
            "encoder.dense.bias": (1, 2 * self.latent),
            "decoder.dense.weight": (self.latent, self._inner),
            "decoder.dense.bias": (1, self._inner),
            "decoder.transposed.0.weight": (2 * c, c * patch),
            "decoder.transposed.0.bias": (1, c),
            "decoder.transposed.1.weight": (c, patch),
            "decoder.transposed.1.bias": (1, 1),
        }

    def products(self) -> int:
        """Count the multiplications of dense layers, and those of convolutions at every position of the kernel."""
        c, patch = self.capacity, _PATCH
        convolutions = self.length // 4 * patch * c + self.length // 16 * patch * c * 2 * c
        return 2 * convolutions + 3 * self.latent * self._inner  # encoder and decoder have the same convolutions

    def aligned(self) -> bool:
        """Return whether channels and the encoder's output fill whole vectors."""
        return self.capacity % VECTOR == 0 and 2 * self.latent % VECTOR == 0

    def encode(self, weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log variances of images x [M, n, height * width]."""
        members, n = x.shape[:2]
        images = x.reshape(members * n, self.height, self.width, 1)
        for i in range(2):
            patches = _unfold(images)
            height, width = patches.shape[1:3]
            channels = _dense(weights, f"encoder.convolution.{i}", patches.view(members, n * height * width, -1))
            images = F.relu(channels).view(members * n, height, width, -1)
        mean, log_variance = _dense(weights, "encoder.dense", images.view(members, n, self._inner)).chunk(2, dim=-1)
        return mean, log_variance

    def logits(self, weights: Weights, z: Tensor) -> Tensor:
        """Return logits [M, n, height * width] for latent variables z [M, n, latent]."""
        members, n = z.shape[:2]
        height, width = self.height // 4, self.width // 4
        images = _dense(weights, "decoder.dense", z).view(members * n, height, width, 2 * self.capacity)
        for i in range(2):
            rows = images.reshape(members, n * height * width, -1)
            patches = torch.bmm(rows, weights[f"decoder.transposed.{i}.weight"])
            images = _fold(patches.view(members * n, height, width, -1))
            height, width = 2 * height, 2 * width
            images = images.reshape(members, n * height * width, -1) + weights[f"decoder.transposed.{i}.bias"]
            images = (F.relu(images) if i == 0 else images).view(members * n, height, width, -1)
        return images.view(members, n, self.length)


_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def _unfold(images: Tensor) -> Tensor:
    """Return the patch under the kernel at each of its positions on images [n, h, w, c], [n, h / 2, w / 2, 16 c].

    A kernel of 4 with a stride of 2 covers 2 by 2 cells of 2 by 2 pixels. An entry of a patch is (row and column of the
    cell, row and column in the cell, channel). With channels last, this copies whole cells at once.
    """
    n, height, width, channels = images.shape
    rows, columns = height // 2, width // 2
    padded = F.pad(images, (0, 0, 1, 1, 1, 1)).view(n, rows + 1, 2, columns + 1, 2, channels)
    cells = padded.transpose(2, 3).reshape(n, rows + 1, columns + 1, 4 * channels)
    return torch.cat([cells[:, a : a + rows, b : b + columns] for a, b in _CORNERS], dim=-1)


def _fold(patches: Tensor) -> Tensor:
    """Sum overlapping patches [n, h, w, 16 c] into images [n, 2 h, 2 w, c]: the transpose of :func:`_unfold`."""
    n, height, width, inputs = patches.shape
    parts = zip(_CORNERS, patches.chunk(4, dim=-1), strict=True)
    cells = sum(F.pad(part, (0, 0, b, 1 - b, a, 1 - a)) for (a, b), part in parts)
    assert isinstance(cells, Tensor)
    pixels = cells.view(n, height + 1, width + 1, 2, 2, inputs // 16).transpose(2, 3)
    return pixels.reshape(n, 2 * height + 2, 2 * width + 2, -1)[:, 1:-1, 1:-1]


def _dense(weights: Weights, layer: str, x: Tensor) -> Tensor:
    """Apply a dense layer to rows x [M, rows, inputs]; return [M, rows, outputs]."""
    return torch.baddbmm(weights[f"{layer}.bias"], x, weights[f"{layer}.weight"])
