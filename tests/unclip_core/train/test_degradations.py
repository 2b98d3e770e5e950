"""How small images are corrupted in training: what stays, what moves, and that a seed gives it again."""

import random

import pytest
import torch
from torch.nn import functional as F

from unclip.unclip_core.train.degradations import bsr, degrade
from unclip.unclip_core.world.render import render
from unclip.unclip_core.world.scenes import sample_scenes


def test_blur_and_noise_leave_half_alone_and_keep_constants_in_place():
    small = torch.zeros(800, 3, 16, 16)
    degraded = degrade(small, torch.Generator().manual_seed(0))
    untouched = (degraded == 0).flatten(1).all(dim=1)
    assert 340 < int(untouched.sum()) < 460
    assert float(degraded.mean()) == pytest.approx(0.0, abs=1e-3)


@pytest.fixture(scope="module")
def large():
    return render(sample_scenes(random.Random(0), 24, "trained"), 128) * 2 - 1


def test_bsr_makes_small_images_of_the_same_thing(large):
    rng = random.Random(1)
    errors = []
    for image in large:
        made = bsr(image[None], 4, rng)
        assert made.shape == (1, 3, 32, 32) and -1 <= made.min() <= made.max() <= 1
        errors.append(float((made - F.avg_pool2d(image[None], 4)).square().mean()))
    assert all(1e-6 < error < 0.05 for error in errors)
    assert max(errors) > 5 * min(errors)  # from slight to strong


def test_bsr_moves_nothing():
    """The middle of a bump stays where it is, in the mean over many corruptions."""
    rows, columns = torch.arange(96.0) + 0.5, torch.arange(64.0) + 0.5
    bump = torch.exp(-((rows[:, None] - 43.0) ** 2 + (columns - 30.0) ** 2) / (2 * 8.0**2))
    image, rng = (bump * 1.6 - 0.8).expand(1, 3, -1, -1), random.Random(2)
    mean = torch.stack([bsr(image, 4, rng) for _ in range(200)]).mean(dim=(0, 1, 2)) + 0.8
    weight = mean.clamp(min=0.05) - 0.05  # without the floor that noise and JPEG leave
    middle = [
        float((weight.sum(dim=1 - axis) * (torch.arange(len(side) // 4) + 0.5)).sum() / weight.sum())
        for axis, side in enumerate((rows, columns))
    ]
    assert middle == pytest.approx([43 / 4, 30 / 4], abs=0.05)


def test_a_seed_gives_the_same_corruption_again(large):
    first, again = (bsr(large[:1], 4, random.Random(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, bsr(large[:1], 4, random.Random(6)))
