"""Windows on scenes against the same part of the whole image, and how sharp outlines are against closed forms."""

import random

import pytest
import torch
from torch.nn import functional as F

from unclip.unclip_core.world.crops import draw_windows, window_on_outline
from unclip.unclip_core.world.edges import edge_width
from unclip.unclip_core.world.render import render
from unclip.unclip_core.world.scenes import sample_scene, sample_scenes


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(random.Random(0), 24, "trained")


@pytest.mark.parametrize("size", [256, 512])
def test_a_window_is_a_part_of_the_whole(scenes, size):
    rng = random.Random(1)
    windows = [window_on_outline(scene, rng, size // 4, 16) for scene in scenes]
    whole = render(scenes, size)
    for image, part, (left, top, side) in zip(whole, draw_windows(scenes, windows, 64), windows, strict=True):
        assert round(side * size) == 64
        left, top = round(left * size), round(top * size)
        assert left % 4 == top % 4 == 0
        torch.testing.assert_close(part, image[:, top : top + 64, left : left + 64], rtol=0, atol=2e-4)


def test_windows_lie_on_outlines(scenes):
    rng = random.Random(2)
    windows = [window_on_outline(scene, rng, 64, 16) for scene in scenes]
    parts = draw_windows(scenes, windows, 64)
    plain = [float(part.flatten(1).std(dim=1).max()) < 0.01 for part in parts]
    assert sum(plain) <= 1


def blurred(images, sigma):
    places = torch.arange(-12.0, 13.0)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    return F.conv2d(
        F.pad(images, (12,) * 4, mode="replicate"), (kernel[:, None] * kernel).expand(3, 1, -1, -1), groups=3
    )


@pytest.mark.parametrize(("sigma", "noise"), [(0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (2.0, 0.005)])
def test_the_width_of_blurred_outlines_is_that_of_a_gaussian(sigma, noise):
    """A step through a Gaussian takes 2.563 sigma from 10 to 90 %; one pixel's mean adds a variance of 1/12."""
    rng = random.Random(3)
    singles = [sample_scene(rng, "single", "trained") for _ in range(20)]
    images = render(singles, 256)
    if sigma:
        images = blurred(images, sigma)
    images = images + noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    widths = [edge_width(image) for image in images]
    expected = 2.563 * (sigma**2 + 1 / 12) ** 0.5 if sigma else 0.8
    assert sum(widths) / len(widths) == pytest.approx(expected, rel=0.06)


def test_a_plain_image_has_no_outline():
    with pytest.raises(ValueError, match="plain"):
        edge_width(torch.full((3, 32, 32), 0.7))
