"""An image and its mask: what is refused, and what a codec sees where they are padded."""

import math

import pytest
import torch
from torch.nn import functional as F

from unclip.unclip_core.diffusion.denoiser import Prediction
from unclip.unclip_core.diffusion.inpaint_mask import MaskedImage


def zero(x, t):
    return Prediction(torch.zeros_like(x))


def masked(images, mask):
    return MaskedImage(images, mask, torch.Size((len(images), 3, *images.shape[1:3])))


def test_a_codec_sees_the_edge_repeated_where_an_image_is_padded():
    """A codec of means over 8 × 8 pixels: of columns 0..9, each of its own grey, 6 more repeat column 9."""
    grey = torch.linspace(0.1, 1, 10)
    seen = []

    def encode(images):
        seen.append(F.avg_pool2d(images, 8))
        return seen[0]

    images = grey[None, None, :, None].expand(1, 10, 10, 3)
    padded = masked(images, torch.zeros(1, 10, 10)).padded(torch.Size((1, 3, 16, 16)))
    assert torch.equal(padded.images[:, :10, :10], images)
    padded.start_from(zero, torch.zeros(1, 3, 2, 2), 0.5, encode, 8)
    left, right = grey[:8].mean(), (grey[8] + 7 * grey[9]) / 8
    expected = torch.stack([left, right]) * 2 - 1
    torch.testing.assert_close(seen[0], expected.expand(1, 3, 2, 2))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.01, -0.01])
def test_a_mask_out_of_its_range_is_refused(value):
    mask = torch.rand(1, 4, 5)
    mask[0, 2, 3] = value
    with pytest.raises(ValueError, match="mask must hold numbers from 0"):
        masked(torch.rand(2, 4, 5, 3), mask)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_known_image_with_broken_numbers_is_refused(value):
    images = torch.rand(1, 4, 5, 3)
    images[0, 2, 3, 1] = value
    with pytest.raises(ValueError, match="known image holds NaN"):
        masked(images, torch.zeros(1, 4, 5))


def test_what_is_padded_is_to_be_drawn():
    padded = masked(torch.rand(2, 3, 5, 3), torch.zeros(1, 3, 5)).padded(torch.Size((2, 3, 4, 8)))
    assert padded.shape == (2, 3, 4, 8) and float(padded.mask.sum()) == 4 * 8 - 3 * 5
    assert not padded.mask[:, :3, :5].any()
