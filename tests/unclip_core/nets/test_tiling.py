"""Tiles against the whole image: no seam, the same numbers, bounded features."""

import dataclasses

import pytest
import torch
from factories import draw

from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.models import Upsampler
from unclip.unclip_core.nets import tiling
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.nets.upsampler import UpsamplerNet
from unclip.unclip_core.pipelines import upscale

PARAMS = UNetParams(
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


@pytest.fixture(scope="module")
def net():
    """Random, output layers too."""
    made = UpsamplerNet(PARAMS)
    for index, parameter in enumerate(made.parameters()):
        scale = 0.2 if parameter.ndim < 2 else 1.2 * parameter[0].numel() ** -0.5
        parameter.data = scale * draw(*parameter.shape, seed=index) + (parameter.ndim == 1) * 0.5
    return made.eval().requires_grad_(False)


def uneven(batch, height, width):
    """An image whose corners differ much in brightness and contrast: the worst for tiles with their own norms."""
    ramp = torch.linspace(-2, 2, width) + torch.linspace(-1, 1, height)[:, None]
    return ramp + ramp.abs() * draw(batch, 3, height, width, seed=5)


@pytest.mark.parametrize("overlap", [4, 12, 48])
@pytest.mark.parametrize(("length", "own"), [(64, 16), (72, 32), (40, 100), (8, 8)])
def test_weights_of_a_side_sum_to_one(length, own, overlap):
    total = torch.zeros(length)
    for span in tiling.spans(length, own, overlap, 4):
        assert span.start % 4 == span.first % 4 == 0
        total[span.start : span.stop] += span.weights(length)
    torch.testing.assert_close(total, torch.ones(length))


@pytest.mark.slow
@torch.no_grad()
def test_tiles_equal_the_whole_when_they_see_enough(net):
    """With the net's whole reach as overlap nothing differs: statistics are swept for until they are right."""
    x, low, t = uneven(2, 96, 128), draw(2, 3, 96, 128, seed=2), torch.tensor([500, 20])
    whole = net(x, t, low)
    made = tiling.Tiled(net, 32, overlap=48)(x, t, low)
    assert (made - whole).abs().max() < 1e-5 * whole.abs().max()


@pytest.mark.slow
@torch.no_grad()
def test_as_many_sweeps_as_norms_are_enough(net, monkeypatch):
    """Each makes one more norm's statistics exact, whatever they were before."""
    monkeypatch.setattr(tiling, "TOLERANCE", 0.0)
    seen = []
    hook = net.unet.out_norm.register_forward_pre_hook(lambda *_: seen.append(1))
    x, low, t = uneven(1, 96, 128), draw(1, 3, 96, 128, seed=2), torch.tensor([500])
    tiled = tiling.Tiled(net, 32, overlap=48)
    first, again = tiled(x, t, low), tiled(x, t, low)
    hook.remove()
    norms = sum(isinstance(module, torch.nn.GroupNorm) for module in net.modules())
    assert len(seen) <= 2 * (norms + 1) * 12
    torch.testing.assert_close(again, first, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_few_sweeps_are_near_and_own_norms_are_not(net, monkeypatch):
    monkeypatch.setattr(tiling, "TOLERANCE", 0.05)
    x, low, t = uneven(1, 96, 128), draw(1, 3, 96, 128, seed=2), torch.tensor([500])
    whole = net(x, t, low)
    near = tiling.Tiled(net, 32, overlap=48)(x, t, low)
    monkeypatch.setattr(tiling.SharedNorms, "count", 0)
    far = tiling.Tiled(net, 32, overlap=48)(x, t, low)
    assert (near - whole).abs().max() < 0.02 * whole.abs().max() < (far - whole).abs().max()


@torch.no_grad()
def test_a_net_works_as_before_after_tiles(net):
    x, low, t = draw(1, 3, 32, 32), draw(1, 3, 32, 32, seed=2), torch.tensor([3])
    before = net(x, t, low)
    tiling.Tiled(net, 16, overlap=8)(x, t, low)
    assert torch.equal(net(x, t, low), before)


@pytest.mark.slow
@torch.no_grad()
def test_what_the_net_sees_does_not_grow_with_the_image(net, monkeypatch):
    monkeypatch.setattr(tiling, "MAX_TILE_ELEMENTS", 8 * 64 * 64 // 4)
    monkeypatch.setattr(tiling, "OVERLAP", 16)
    for side in (64, 128, 256):
        seen = []
        hook = net.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].shape[-2:].numel()))
        x = draw(1, 3, side, side)
        tiling.tiled_if_large(net, side, side)(x, torch.tensor([9]), x)
        hook.remove()
        assert max(seen) <= 64 * 64 and (len(seen) == 1) == (side == 64)


@pytest.fixture(scope="module")
def upsampler(net):
    return Upsampler("test", net, DiffusionSpec(prediction="sample", clip_range=5.0), scale=4)


def test_upscaling_in_tiles_equals_upscaling_whole(upsampler):
    images = uneven(2, 11, 20).sigmoid().permute(0, 2, 3, 1)  # 44 x 80 px: padded to stride, four tiles
    given = {"steps": 2, "seeds": [1, 2]}
    whole, made = upscale(upsampler, images, tile=0, **given), upscale(upsampler, images, tile=40, **given)
    assert (made - whole).abs().max() < 1e-4
    alone = upscale(upsampler, images[1:], tile=40, steps=2, seeds=[2])
    assert (made[1:] - alone).abs().max() < 1e-5


def test_attention_and_bad_tiles_are_refused(net):
    attending = UpsamplerNet(dataclasses.replace(PARAMS, attention=(False, True), head_dim=4))
    with pytest.raises(ValueError, match="attends"):
        tiling.tiled_if_large(attending, 64, 64, 16)
    with pytest.raises(ValueError, match="-1"):
        tiling.tiled_if_large(net, 64, 64, -1)
