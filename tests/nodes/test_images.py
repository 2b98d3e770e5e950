"""Images of every kind that a canvas can send."""

import math

import pytest
import torch

from unclip.nodes.images import UnclipImageGrid, check_images, tile, to_rgb
from unclip.nodes.inputs import InputError


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_rgb_passes_unchanged():
    images = noise(2, 5, 7, 3)
    assert torch.equal(to_rgb(images), images)


def test_grey_is_repeated():
    images = noise(2, 4, 4, 1)
    rgb = to_rgb(images)
    assert rgb.shape == (2, 4, 4, 3)
    for channel in range(3):
        assert torch.equal(rgb[..., channel], images[..., 0])


def test_alpha_is_laid_over_white():
    images = torch.tensor([[1.0, 0, 0, alpha] for alpha in (1.0, 0.0, 0.25)]).view(1, 1, 3, 4)
    expected = torch.tensor([[1, 0, 0], [1, 1, 1], [1, 0.75, 0.75]]).view(1, 1, 3, 3)
    assert torch.allclose(to_rgb(images), expected)


def test_values_out_of_range_are_clipped_and_halves_become_floats():
    rgb = to_rgb(torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float16).view(1, 1, 1, 3))
    assert rgb.dtype == torch.float32
    assert rgb.flatten().tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 5000, 3, 3), (3, 2, 9, 4), (1, 1, 1, 1)])
def test_any_size_is_taken(shape):
    assert to_rgb(noise(*shape)).shape == (*shape[:3], 3)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(0, 8, 8, 3), "empty"),
        (torch.zeros(1, 0, 8, 3), "empty"),
        (torch.zeros(8, 8, 3), r"\[B, H, W, C\].*\[8, 8, 3\]"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), "numbers from 0 to 1"),
        (torch.zeros(1, 8, 8, 2), "not 2"),
        (torch.full((1, 2, 2, 3), math.nan), "NaN"),
        (torch.full((1, 2, 2, 3), math.inf), "infinity"),
        (None, "nothing is linked to Pick.s input .image."),
    ],
)
def test_what_is_no_image_is_refused(images, words):
    with pytest.raises(InputError, match=words):
        to_rgb(images)


def test_a_grid_lays_images_out_row_by_row():
    """Against plain slicing: image i lies at row i // columns, column i % columns."""
    images = noise(5, 2, 3, 3)
    (grid,) = UnclipImageGrid().run(images, columns=2)
    assert grid.shape == (1, 3 * 2, 2 * 3, 3)
    for i, image in enumerate(images):
        top, left = i // 2 * 2, i % 2 * 3
        assert torch.equal(grid[0, top : top + 2, left : left + 3], image)
    assert torch.all(grid[0, 4:, 3:] == 1), "the empty cell is white"


@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [(1, 0, (1, 1)), (2, 0, (1, 2)), (4, 0, (2, 2)), (5, 0, (2, 3)), (3, 8, (1, 3)), (3, 1, (3, 1))],
)
def test_the_shape_of_a_grid(count, columns, shape):
    assert tuple(tile(torch.zeros(count, 1, 1, 3), columns).shape[1:3]) == shape


def test_a_grid_keeps_the_channels():
    assert tile(noise(3, 2, 2, 4)).shape == (1, 4, 4, 4)


@pytest.mark.parametrize("columns", [-1, 65, 1.5, math.nan, True])
def test_a_grid_refuses_other_columns(columns):
    with pytest.raises(InputError, match="columns"):
        UnclipImageGrid().run(torch.zeros(1, 1, 1, 3), columns)


def test_a_grid_refuses_an_empty_batch():
    with pytest.raises(InputError, match="empty"):
        UnclipImageGrid().run(torch.zeros(0, 4, 4, 3))
    assert check_images(torch.zeros(1, 4, 4, 3)).shape == (1, 4, 4, 3)
