"""The UNet against diffusers' (full layout), and a plain float64 reading of its weights (light layout)."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers_oracle import RESNET, rename
from factories import draw, error, randomise

from unclip.unclip_core.nets.unet import UNet
from unclip.unclip_core.nets.unet_params import UNetParams

TOLERANCE = 1e-5
CHANNELS = (16, 32, 48, 64)
DECODER = UNetParams(
    in_channels=3,
    out_channels=6,
    channels=CHANNELS,
    blocks=(2,) * 4,
    attention=(False, True, True, True),
    map_channels=(0,) * 4,
    time_channels=16,
    time_embed_dim=64,
    mid_attention=True,
    context_dim=24,
    head_dim=16,
    groups=8,
)
SUPER_RES = dataclasses.replace(
    DECODER,
    in_channels=6,
    out_channels=3,
    attention=(False,) * 4,
    mid_attention=False,
    context_dim=None,
    time_shift="add",
)
LIGHT = UNetParams(
    in_channels=3,
    out_channels=3,
    channels=(8, 16),
    blocks=(1, 2),
    attention=(False, False),
    map_channels=(2, 3),
    time_channels=8,
    time_embed_dim=12,
    mid_blocks=2,
    groups=4,
    patch_size=2,
    layout="light",
)


def diffusers_decoder(layers):
    return randomise(
        UNet2DConditionModel(
            sample_size=16,
            in_channels=3,
            out_channels=6,
            block_out_channels=CHANNELS,
            layers_per_block=layers,
            down_block_types=("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
            cross_attention_dim=24,
            attention_head_dim=16,
            class_embed_type="identity",
            norm_num_groups=8,
            resnet_time_scale_shift="scale_shift",
            norm_eps=1e-5,
        )
    )


def ours(params, oracle):
    net = UNet(params)
    net.load_state_dict(rename(oracle.state_dict(), RESNET), strict=True)
    return net.eval()


def condition(batch, tokens):
    return {"embed": draw(batch, 64, seed=2), "context": draw(batch, tokens, 24, seed=3)}


@pytest.mark.parametrize(("layers", "size"), [(1, (16, 16)), (2, (8, 24)), (3, (16, 8))])
@torch.no_grad()
def test_decoder_equals_diffusers(layers, size):
    oracle = diffusers_decoder(layers)
    net = ours(dataclasses.replace(DECODER, blocks=(layers,) * 4), oracle)
    x, t, cond = draw(2, 3, *size), torch.tensor([3, 981]), condition(2, 7)
    reference = oracle(x, t, cond["context"], class_labels=cond["embed"]).sample
    assert error(net(x, t, **cond), reference) < TOLERANCE


@torch.no_grad()
def test_quiet_features_show_the_norms_eps():
    """Features of variance near eps: with 1e-6 in place of 1e-5 this is off by more than a per cent."""
    oracle = diffusers_decoder(1)
    for value in oracle.conv_in.parameters():
        value.mul_(0.003)
    net = ours(dataclasses.replace(DECODER, blocks=(1,) * 4), oracle)
    x, t, cond = draw(2, 3, 16, 16), torch.tensor([3, 981]), condition(2, 7)
    reference = oracle(x, t, cond["context"], class_labels=cond["embed"]).sample
    assert error(net(x, t, **cond), reference) < TOLERANCE
    wrong = ours(dataclasses.replace(DECODER, blocks=(1,) * 4, eps=1e-6), oracle)
    assert error(wrong(x, t, **cond), reference) > 0.01


@torch.no_grad()
def test_context_mask_equals_diffusers():
    oracle = diffusers_decoder(2)
    net = ours(DECODER, oracle)
    x, t, cond = draw(3, 3, 16, 16), torch.tensor([0, 500, 999]), condition(3, 7)
    mask = torch.arange(7)[None] < torch.tensor([[7], [4], [1]])
    reference = oracle(x, t, cond["context"], class_labels=cond["embed"], attention_mask=mask).sample
    masked = net(x, t, **cond, context_mask=mask)
    assert error(masked, reference) < TOLERANCE
    assert error(net(x, t, **cond), reference) > 100 * TOLERANCE
    cond["context"][~mask] = 100.0  # nothing of what is masked may be read
    assert torch.equal(net(x, t, **cond, context_mask=mask), masked)


@pytest.mark.parametrize("size", [(16, 16), (24, 8)])
@torch.no_grad()
def test_super_resolution_equals_diffusers(size):
    oracle = randomise(
        UNet2DModel(
            sample_size=16,
            in_channels=6,
            out_channels=3,
            block_out_channels=CHANNELS,
            layers_per_block=2,
            down_block_types=("ResnetDownsampleBlock2D",) * 4,
            up_block_types=("ResnetUpsampleBlock2D",) * 4,
            add_attention=False,
            norm_num_groups=8,
            norm_eps=1e-5,
        )
    )
    net = ours(SUPER_RES, oracle)
    x, t = draw(2, 6, *size), torch.tensor([166, 832])
    assert error(net(x, t), oracle(x, t).sample) < TOLERANCE


def test_gradients_take_the_same_road():
    """With gradients the attention is written out; the result is that of the fused kernel."""
    net = randomise(UNet(DECODER))
    x, t, cond = draw(1, 3, 16, 16), torch.tensor([400]), condition(1, 5)
    mask = torch.tensor([[True, True, True, False, False]])
    with torch.no_grad():
        fused = net(x, t, **cond, context_mask=mask)
    assert error(net(x, t, **cond, context_mask=mask), fused) < TOLERANCE


def reference_block(w, name, x, embed):
    h = F.silu(F.group_norm(x, 4, w[f"{name}.norm1.weight"], w[f"{name}.norm1.bias"]))
    h = F.conv2d(h, w[f"{name}.conv1.weight"], w[f"{name}.conv1.bias"], padding=1)
    signal = embed @ w[f"{name}.time_proj.weight"].T + w[f"{name}.time_proj.bias"]
    scale, shift = signal[:, : h.shape[1], None, None], signal[:, h.shape[1] :, None, None]
    h = F.group_norm(h, 4, w[f"{name}.norm2.weight"], w[f"{name}.norm2.bias"]) * (1 + scale) + shift
    if f"{name}.skip.weight" in w:
        x = F.conv2d(x, w[f"{name}.skip.weight"], w[f"{name}.skip.bias"])
    return x + F.conv2d(F.silu(h), w[f"{name}.conv2.weight"], w[f"{name}.conv2.bias"], padding=1)


def reference_light(w, x, t, embed, maps):
    """LIGHT's forward, step by step; 1x1 convolutions as products, patches by reshaping."""

    def linear(name, h):
        weight = w[f"{name}.weight"]
        return torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], h) + w[f"{name}.bias"][:, None, None]

    def block(name, h):
        return reference_block(w, name, h, signal)

    angles = t.double()[:, None] * 10000.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    hidden = F.silu(waves @ w["time_embed.linear1.weight"].T + w["time_embed.linear1.bias"])
    signal = F.silu(hidden @ w["time_embed.linear2.weight"].T + w["time_embed.linear2.bias"] + embed)

    batch, _, height, width = x.shape
    patches = x.reshape(batch, 3, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
    patches = patches.reshape(batch, 12, height // 2, width // 2)
    h = F.conv2d(patches, w["stem.weight"], w["stem.bias"], padding=1)
    kept = block("down.0.blocks.0", h + linear("down.0.lift", maps[0]))
    h = kept.reshape(batch, 8, height // 4, 2, width // 4, 2).mean(dim=(3, 5))
    h = h + linear("down.1.lift", maps[1])
    for name in ("down.1.blocks.0", "down.1.blocks.1", "middle.blocks.0", "middle.blocks.1"):
        h = block(name, h)
    h = linear("up.0.enter", h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    h = h + linear("up.0.keep", kept) + linear("up.0.lift", maps[0])
    h = block("up.0.blocks.0", h)
    h = F.silu(F.group_norm(h, 4, w["out_norm.weight"], w["out_norm.bias"]))
    h = F.conv2d(h, w["out_conv.weight"], w["out_conv.bias"], padding=1)
    h = h.reshape(batch, 3, 2, 2, height // 2, width // 2).permute(0, 1, 4, 2, 5, 3)
    return h.reshape(batch, 3, height, width)


@torch.no_grad()
def test_light_layout_equals_a_plain_reading_of_its_weights():
    net = randomise(UNet(LIGHT))
    weights = {key: value.double() for key, value in net.state_dict().items()}
    x, t, embed = draw(2, 3, 12, 8), torch.tensor([2.5, 700.0]), draw(2, 12, seed=4)
    maps = {0: draw(2, 2, 6, 4, seed=5), 1: draw(2, 3, 3, 2, seed=6)}
    reference = reference_light(
        weights, x.double(), t, embed.double(), {level: value.double() for level, value in maps.items()}
    )
    assert error(net(x, t, embed=embed, maps=maps).double(), reference) < TOLERANCE
    last = net.to(memory_format=torch.channels_last)(x, t, embed=embed, maps=maps)
    assert error(last.double(), reference) < TOLERANCE


@torch.no_grad()
def test_batch_does_not_matter():
    net = randomise(UNet(DECODER))
    x, t, cond = draw(3, 3, 16, 16), torch.tensor([10, 400, 900]), condition(3, 5)
    together = net(x, t, **cond)
    for i in range(3):
        alone = net(x[i : i + 1], t[i : i + 1], **{key: value[i : i + 1] for key, value in cond.items()})
        assert error(together[i : i + 1], alone) < TOLERANCE


@torch.no_grad()
def test_half_precision_follows_the_weights(native):
    net = randomise(UNet(LIGHT))
    maps = {0: draw(1, 2, 4, 4), 1: draw(1, 3, 2, 2)}
    full = net(draw(1, 3, 8, 8), torch.tensor([999]), maps=maps)
    half = net.bfloat16()(draw(1, 3, 8, 8), torch.tensor([999]), maps=maps)
    assert half.dtype == torch.bfloat16
    assert error(half.float(), full) < 0.05


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"blocks": (1, 2, 3)}, "blocks has 3 levels, channels has 2"),
        ({"channels": (8, 18)}, "channels 18 is not a multiple of groups 4"),
        ({"attention": (False, True), "head_dim": 5}, "attended channels 16 is not a multiple of head_dim 5"),
        ({"time_shift": "scale"}, "scale_shift"),
        ({"layout": "heavy"}, "light"),
        ({"time_channels": 7}, "got 7"),
        ({"mid_blocks": 0}, "mid_blocks must be a positive whole number, got 0"),
    ],
)
def test_params_that_disagree_are_refused(change, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(LIGHT, **change)


def test_inputs_that_do_not_fit_are_refused():
    net, t = UNet(LIGHT), torch.tensor([1])
    maps = {0: draw(1, 2, 4, 4), 1: draw(1, 3, 2, 2)}
    with pytest.raises(ValueError, match="10 x 8: both must be multiples of 4"):
        net(draw(1, 3, 10, 8), t, maps=maps)
    with pytest.raises(ValueError, match=r"level 1 needs a map of shape \(3, 2, 2\).*got none"):
        net(draw(1, 3, 8, 8), t, maps={0: maps[0]})
    with pytest.raises(ValueError, match=r"got \(3, 4, 4\)"):
        net(draw(1, 3, 8, 8), t, maps=maps | {1: draw(1, 3, 4, 4)})
    with pytest.raises(ValueError, match="context of width 24 given, the net takes None"):
        net(draw(1, 3, 8, 8), t, maps=maps, context=draw(1, 2, 24))
    decoder = UNet(DECODER)
    with pytest.raises(ValueError, match="context of width None given, the net takes 24"):
        decoder(draw(1, 3, 8, 8), t)
    with pytest.raises(ValueError, match=r"context_mask must be bool.*float32 \(1, 2\)"):
        decoder(draw(1, 3, 8, 8), t, context=draw(1, 2, 24), context_mask=torch.ones(1, 2))
    with pytest.raises(ValueError, match="level 0, which takes none"):
        decoder(draw(1, 3, 8, 8), t, context=draw(1, 2, 24), maps={0: draw(1, 2, 8, 8)})


def test_shapes_are_checked_whenever_they_change():
    """Steps of one run have the shapes of its first, which alone are checked; another run's are checked anew."""
    net, t = UNet(LIGHT).eval(), torch.tensor([1])
    maps = {0: draw(1, 2, 4, 4), 1: draw(1, 3, 2, 2)}
    first = net(draw(1, 3, 8, 8), t, maps=maps)
    with pytest.raises(ValueError, match="10 x 8: both must be multiples of 4"):
        net(draw(1, 3, 10, 8), t, maps=maps)
    with pytest.raises(ValueError, match="level 1 needs a map"):
        net(draw(1, 3, 8, 8), t, maps={0: maps[0]})
    torch.testing.assert_close(net(draw(1, 3, 8, 8), t, maps=maps), first)
