"""Placed canvases, against PyTorch's own sampler and against areas."""

import pytest
import torch
import torch.nn.functional as F

from unclip.unclip_core.nets.frames import RADIUS, SPAN, Frames, paste
from unclip.unclip_core.nets.map_conditioner import MapConditioner, MapConditionerParams, move_frames

BOXES = torch.tensor([[[0.5, 0.5, 0.3], [0.3, 0.7, 0.2]], [[0.9, 0.1, 0.25], [0.5, 0.2, 0.4]]], dtype=torch.float64)


def sampled(boxes, canvases, size):
    """The same by grid_sample, a canvas at a time."""
    cells = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    total = torch.zeros(len(boxes), canvases.shape[2], size, size, dtype=torch.float64)
    for row in range(len(boxes)):
        for (x, y, radius), canvas in zip(boxes[row], canvases[row], strict=True):
            across, down = (cells - x) / (SPAN * radius), (cells - y) / (SPAN * radius)
            grid = torch.stack(torch.broadcast_tensors(across[None, :], down[:, None]), dim=-1)
            total[row] += F.grid_sample(canvas[None], grid[None], align_corners=False, padding_mode="zeros")[0]
    return total


def test_a_canvas_is_laid_over_its_box_by_linear_interpolation():
    canvases = torch.randn(2, 2, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(paste(BOXES, canvases, 32), sampled(BOXES, canvases, 32))


@pytest.mark.parametrize("size", [4, 8, 64])
def test_the_mass_of_a_canvas_is_the_area_of_its_box_at_every_size(size):
    box = torch.tensor([[[0.48, 0.53, 0.15]]], dtype=torch.float64)
    laid = paste(box, torch.ones(1, 1, 1, 8, 8, dtype=torch.float64), size)
    assert float(laid.sum()) / size**2 == pytest.approx((2 * SPAN * 0.15) ** 2, rel=0.04)


def test_gradients_move_a_box_towards_what_it_should_cover():
    wanted = paste(torch.tensor([[[0.55, 0.45, 0.2]]]), torch.ones(1, 1, 1, 4, 4), 32)
    box = torch.tensor([[[0.5, 0.5, 0.2]]], requires_grad=True)
    (paste(box, torch.ones(1, 1, 1, 4, 4), 32) - wanted).square().mean().backward()
    assert box.grad[0, 0, 0] < 0 < box.grad[0, 0, 1]


def test_frames_start_in_the_middle():
    torch.manual_seed(0)
    boxes, canvases = Frames(width=64, hidden=6, count=2, channels=3, side=4)(torch.zeros(5, 64), torch.zeros(5, 6))
    assert boxes.shape == (5, 2, 3) and canvases.shape == (5, 2, 3, 4, 4)
    assert (boxes[..., :2] - 0.5).abs().max() < 0.13
    assert ((boxes[..., 2] / RADIUS).log().abs() < 0.5).all()


def test_every_map_ends_with_what_the_canvases_show():
    torch.manual_seed(1)
    params = MapConditionerParams(
        embed_dim=4,
        hidden=6,
        time_embed_dim=8,
        map_channels=(5, 6),
        map_sizes=(8, 4),
        factors=(1, 1),
        frames=2,
        canvas=3,
        canvas_channels=2,
    )
    conditioner = MapConditioner(params)
    seen = []
    conditioner.frames.register_forward_hook(lambda module, given, made: seen.append(made))
    condition = conditioner(torch.randn(3, 4))
    boxes, canvases = seen[0]
    for level, size in ((0, 8), (1, 4)):
        torch.testing.assert_close(condition[f"maps.{level}"][:, -2:], paste(boxes, canvases, size))
    assert [condition[f"maps.{level}"].shape for level in (0, 1)] == [(3, 5, 8, 8), (3, 6, 4, 4)]
    assert condition["boxes"] is boxes


def conditioner_with_frames():
    torch.manual_seed(1)
    return MapConditioner(
        MapConditionerParams(
            embed_dim=4,
            hidden=6,
            time_embed_dim=8,
            map_channels=(5, 6),
            map_sizes=(8, 4),
            factors=(1, 1),
            frames=2,
            canvas=3,
            canvas_channels=2,
        )
    )


def test_relaid_canvases_are_those_of_a_conditioner_that_puts_its_boxes_there():
    conditioner, embeds = conditioner_with_frames(), torch.randn(2, 4)
    before = conditioner(embeds)
    moved = move_frames(before, BOXES.float())
    # A layer that says BOXES[0] whatever it is given, for the first image.
    with torch.no_grad():
        conditioner.frames.boxes.weight.zero_()
        offset, radius = BOXES[0, :, :2] - 0.5, (BOXES[0, :, 2:] / RADIUS).log()
        conditioner.frames.boxes.bias.copy_(torch.cat([offset, radius], dim=1).flatten())
    expected = conditioner(embeds)
    for name in ("maps.0", "maps.1", "boxes"):
        torch.testing.assert_close(moved[name][0], expected[name][0])
        assert not torch.equal(moved[name], before[name])
    assert moved["embed"] is before["embed"]


def test_what_has_no_canvases_or_other_boxes_cannot_be_relaid():
    condition = conditioner_with_frames()(torch.randn(2, 4))
    with pytest.raises(ValueError, match="boxes"):
        move_frames(condition, BOXES.float()[:, :1])
    with pytest.raises(ValueError, match="no canvases"):
        move_frames({"embed": condition["embed"]}, BOXES.float())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"frames": 2}, "2 frames with 0 canvas_channels"),
        ({"canvas_channels": 2}, "0 frames with 2 canvas_channels"),
        ({"frames": 1, "canvas_channels": 5}, "leave nothing beside 5 canvas_channels"),
        ({"frames": 1, "canvas_channels": 2, "canvas": 0}, "canvas"),
    ],
)
def test_frames_and_canvases_must_agree(given, said):
    with pytest.raises(ValueError, match=said):
        MapConditionerParams(embed_dim=4, hidden=6, time_embed_dim=8, map_channels=(5,), map_sizes=(8,), **given)
