"""The upsampler's net: what it adds to the enlarged image, what it sees of the colours around, crops and tiles."""

import dataclasses
import itertools

import pytest
import torch
from factories import draw

from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.models import Upsampler
from unclip.unclip_core.nets import tiling
from unclip.unclip_core.nets.params import params_from_dict, params_to_dict
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.nets.upsampler import FAINT_CONTRAST, UpsamplerNet, UpsamplerParams, neighbour_contrast
from unclip.unclip_core.pipelines import upscale
from unclip.unclip_core.pipelines.images import enlarge, to_images

PLAIN = UNetParams(
    in_channels=6,
    out_channels=3,
    channels=(8, 12),
    blocks=(1, 1),
    attention=(False, False),
    map_channels=(0, 0),
    time_channels=8,
    time_embed_dim=16,
    mid_blocks=1,
    groups=4,
    patch_size=2,
    layout="light",
)
PARAMS = UpsamplerParams(**dataclasses.asdict(PLAIN) | {"norm": "none"}, residual=True, reach=1)
T = torch.tensor([400])


def random_net(params):
    made = UpsamplerNet(params)
    for index, parameter in enumerate(made.parameters()):
        scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.data = scale * draw(*parameter.shape, seed=index)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_an_untrained_net_with_a_residual_only_enlarges(reach):
    net = UpsamplerNet(dataclasses.replace(PARAMS, reach=reach))
    low = draw(1, 3, 16, 24)
    assert torch.equal(net(draw(1, 3, 16, 24, seed=2), T, low), low)


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize("reach", [0, 1])
def test_a_net_in_half_precision_keeps_the_small_image_exact(reach, tile, native):
    """What an untrained net adds is 0: nothing of what is enlarged may be rounded on its way, whole or in tiles."""
    upsampler = Upsampler(
        "test",
        UpsamplerNet(dataclasses.replace(PARAMS, reach=reach)).bfloat16(),
        DiffusionSpec(prediction="sample"),
        scale=2,
    )
    small = draw(1, 16, 20, 3).sigmoid()
    made = upscale(upsampler, small, steps=2, seeds=[1], tile=tile)
    expected = enlarge(small.permute(0, 3, 1, 2) * 2 - 1, 2, upsampler.clamp)
    torch.testing.assert_close(made, to_images(expected), atol=1e-6, rtol=0)


def test_params_of_files_without_a_residual_stay_what_they_were():
    before = {name: value for name, value in params_to_dict(PLAIN).items() if name != "norm"}
    params = params_from_dict(UpsamplerParams, before)
    assert (params.residual, params.reach, params.inner) == (False, 0, PLAIN)
    assert torch.equal(
        random_net(params)(draw(1, 3, 8, 8), T, draw(1, 3, 8, 8, seed=2)),
        random_net(PLAIN)(draw(1, 3, 8, 8), T, draw(1, 3, 8, 8, seed=2)),
    )


@pytest.mark.parametrize("reach", [1, 2])
def test_the_outlook_is_the_way_to_the_colour_that_differs_most(reach):
    """Against loops over the cells of images that are flat within each cell."""
    small = draw(1, 3, 5, 6, seed=3)
    along, way = neighbour_contrast(small.repeat_interleave(4, 2).repeat_interleave(4, 3), 4, reach)
    assert along.shape == (1, (2 * reach + 1) ** 2, 5, 6) and way.shape == (1, 3, 5, 6)
    for row, column in itertools.product(range(5), range(6)):
        own = small[0, :, row, column]
        steps = [
            small[0, :, min(max(row + down, 0), 4), min(max(column + across, 0), 5)] - own
            for down in range(-reach, reach + 1)
            for across in range(-reach, reach + 1)
        ]
        furthest = max(steps, key=lambda step: float(step.norm()))
        torch.testing.assert_close(way[0, :, row, column], furthest)
        expected = torch.stack([step @ furthest / (furthest @ furthest + FAINT_CONTRAST**2) for step in steps])
        torch.testing.assert_close(along[0, :, row, column], expected, rtol=1e-4, atol=1e-5)


def test_the_outlook_of_an_outline_is_the_same_in_all_colours():
    covered = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(4)).repeat_interleave(2, 2)
    covered = covered.repeat_interleave(2, 3)
    inks = [(torch.tensor([-0.9, 0.2, 0.1]), torch.tensor([0.8, -0.7, 0.5])), (torch.zeros(3), torch.ones(3))]
    seen = [
        neighbour_contrast(torch.lerp(a[None, :, None, None], b[None, :, None, None], covered), 2, 2)[0]
        for a, b in inks
    ]
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0.02)


def test_a_plain_image_has_no_outlines():
    along, way = neighbour_contrast(torch.full((1, 3, 8, 8), 0.4), 2, 2)
    assert float(along.abs().max()) == float(way.abs().max()) == 0.0


@torch.no_grad()
def test_without_norms_a_crop_is_a_part_of_the_whole():
    net, x, low = random_net(PARAMS), draw(1, 3, 96, 96), draw(1, 3, 96, 96, seed=2)
    part = (..., slice(0, 64), slice(32, 96))
    inner = (..., slice(0, 32), slice(32, 64))
    made = net(x[part].contiguous(), T, low[part].contiguous())
    torch.testing.assert_close(made[inner], net(x, T, low)[part][inner], rtol=0, atol=1e-5)


@torch.no_grad()
def test_without_norms_tiles_equal_the_whole_in_one_sweep():
    net, x, low = random_net(PARAMS), draw(1, 3, 96, 64), draw(1, 3, 96, 64, seed=2)
    runs = []
    net.unet.register_forward_hook(lambda *_: runs.append(1))
    made = tiling.Tiled(net, 32, overlap=48)(x, T, low)
    assert len(runs) == 3 * 2
    torch.testing.assert_close(made, net(x, T, low), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"out_channels": 6}, "in_channels 6 and out_channels 6"),
        ({"residual": False}, "reach 1 needs a residual"),
        ({"map_channels": (4, 0)}, "no map at the first level"),
        ({"reach": -1}, "reach must be 0 or a positive whole number, got -1"),
        ({"reach": True}, "got True"),
        ({"norm": "batch"}, "norm must be one of"),
    ],
)
def test_params_that_disagree_are_refused(change, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(PARAMS, **change)
