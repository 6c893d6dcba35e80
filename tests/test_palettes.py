"""Colours of charts: told apart by readers with colour blindness, and visible on their background, as measured.

Simulation of colour blindness: Machado, Oliveira & Fernandes (2009), matrices of severity 1 for linear RGB.
Difference of colours: CIEDE2000 (Sharma, Wu & Dalal 2005), with their test data. Contrast: WCAG 2.2.
"""

from __future__ import annotations

import numpy as np
import pytest

from ecosystem.report import charts
from ecosystem.report.charts.theme import HUMAN, SYNTHETIC, Scheme

VISION = {
    "trichromacy": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
SCHEMES = {"light": charts.LIGHT, "dark": charts.DARK}


def linear(colours) -> np.ndarray:
    """Linear RGB of sRGB colours written as #rrggbb, [colours, 3]."""
    encoded = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    relative = rgb @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    delta = 6 / 29
    f = np.where(relative > delta**3, np.cbrt(relative), relative / (3 * delta**2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Difference of colours in CIELAB, with all weights 1."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    light, chroma, angle = (l1 + l2) / 2, (c1 + c2) / 2, (h1 + turn / 2) % 360
    t = 1 - 0.17 * np.cos(np.radians(angle - 30)) + 0.24 * np.cos(np.radians(2 * angle))
    t += 0.32 * np.cos(np.radians(3 * angle + 6)) - 0.2 * np.cos(np.radians(4 * angle - 63))
    turned = np.sin(np.radians(60 * np.exp(-(((angle - 275) / 25) ** 2))))
    turned *= -2 * np.sqrt(chroma**7 / (chroma**7 + 25**7))
    of_light = (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    of_chroma, of_hue = (c2 - c1) / (1 + 0.045 * chroma), hue / (1 + 0.015 * chroma * t)
    return np.sqrt(of_light**2 + of_chroma**2 + of_hue**2 + turned * of_chroma * of_hue)


def nearest(colours, vision: str) -> float:
    """The smallest difference of any two colours, as readers with this vision see them."""
    seen = lab(np.clip(linear(colours) @ np.transpose(VISION[vision]), 0, 1))
    first, second = np.triu_indices(len(colours), 1)
    return float(ciede2000(seen[first], seen[second]).min())


def contrasts(colours, paper: str) -> np.ndarray:
    luminance, behind = linear(colours) @ TO_XYZ[1], float((linear([paper]) @ TO_XYZ[1])[0])
    return (np.maximum(luminance, behind) + 0.05) / (np.minimum(luminance, behind) + 0.05)


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, -1, 2), (50, 0, 0), 2.3669),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_differences_are_those_of_the_published_data(one, other, difference):
    assert ciede2000(np.array(one, float), np.array(other, float)) == pytest.approx(difference, abs=1e-4)


def test_black_on_white_has_the_contrast_of_the_standard():
    assert contrasts(["#000000", "#767676"], "#ffffff") == pytest.approx([21, 4.54], abs=0.01)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_populations_greys_and_origins_are_told_apart(scheme: Scheme, vision: str):
    assert nearest(scheme.populations, vision) >= 10
    assert nearest(scheme.greys, vision) >= 10
    assert nearest([HUMAN, SYNTHETIC], vision) >= 10
    assert nearest([*scheme.share, scheme.paper], vision) >= 10


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_colours_and_texts_are_visible_on_their_paper(scheme: Scheme):
    marks = [*scheme.populations, *scheme.greys, *scheme.share, HUMAN, SYNTHETIC]
    assert contrasts(marks, scheme.paper).min() >= 3
    assert contrasts([scheme.ink, scheme.soft], scheme.paper).min() >= 4.5
