"""Conditioners, decoder, upsampler and presets."""

import dataclasses
import json

import pytest
import torch
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from diffusers_oracle import TEXT_PROJ, rename
from factories import draw, error, randomise

from unclip.unclip_core.families.karlo import presets as karlo_presets
from unclip.unclip_core.families.native import presets as native_presets
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.layers import timestep_embedding
from unclip.unclip_core.nets.map_conditioner import MapConditioner, MapConditionerParams
from unclip.unclip_core.nets.params import params_from_dict, params_to_dict
from unclip.unclip_core.nets.prior import PriorParams, PriorTransformer
from unclip.unclip_core.nets.token_conditioner import TokenConditioner, TokenConditionerParams
from unclip.unclip_core.nets.unet import UNet
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.nets.upsampler import UpsamplerNet, UpsamplerParams

TOKENS = TokenConditionerParams(embed_dim=12, text_width=12, time_embed_dim=16, context_dim=10)
MAPS = MapConditionerParams(
    embed_dim=12, hidden=20, time_embed_dim=16, map_channels=(0, 3, 5), map_sizes=(0, 4, 2), depth=2
)
SMALL_UNET = UNetParams(
    in_channels=3,
    out_channels=3,
    channels=(8, 8, 16),
    blocks=(1, 1, 1),
    attention=(False,) * 3,
    map_channels=(0, 3, 5),
    time_channels=8,
    time_embed_dim=16,
    groups=4,
    layout="light",
    patch_size=2,
)
SMALL = DecoderParams(conditioner=MAPS, unet=SMALL_UNET, image_size=16)
SMALL_TOKENS = DecoderParams(
    conditioner=TOKENS,
    image_size=16,
    unet=dataclasses.replace(
        SMALL_UNET, map_channels=(0, 0, 0), context_dim=10, attention=(False, False, True), head_dim=8
    ),
)
TIGHT = 1e-5  # where our normalisation in float32 meets a reference in float64


def numbers(net):
    return sum(value.numel() for value in net.state_dict().values())


def text(batch):
    return {
        "text_embeds": draw(batch, 12, seed=3),
        "text_states": draw(batch, 5, 12, seed=4),
        "text_mask": torch.arange(5)[None] < torch.tensor([[5], [2], [1]])[:batch],
    }


@torch.no_grad()
def test_token_conditioner_equals_diffusers_with_guidance():
    oracle = randomise(UnCLIPTextProjModel(clip_embeddings_dim=12, time_embed_dim=16, cross_attention_dim=10))
    net = TokenConditioner(TOKENS)
    net.load_state_dict(rename(oracle.state_dict(), TEXT_PROJ), strict=True)
    images, empty, given = draw(2, 12, seed=8), draw(2, 12, seed=9), text(2)
    both = {
        "prompt_embeds": torch.cat([empty, given["text_embeds"]]),
        "text_encoder_hidden_states": given["text_states"].repeat(2, 1, 1),
    }
    context, embed = oracle(image_embeddings=images, do_classifier_free_guidance=True, **both)
    ours = net(images, **given)
    dropped = net(images, **given | {"text_embeds": empty}, drop_image=torch.ones(2, dtype=torch.bool))
    assert error(torch.cat([dropped["embed"], ours["embed"]]), embed) < 1e-6
    assert error(torch.cat([dropped["context"], ours["context"]]), context) < 1e-6
    assert ours["context_mask"].tolist() == [[True] * 9, [True] * 6 + [False] * 3]


def test_token_conditioner_wants_a_text():
    net = TokenConditioner(TOKENS)
    with pytest.raises(ValueError, match="empty prompt"):
        net(draw(1, 12))
    with pytest.raises(ValueError, match="empty prompt"):
        net(draw(1, 12), **text(1), drop_text=torch.tensor([True]))
    for other, given in (({"text_embeds": draw(1, 8)}, "8 and 12"), ({"text_states": draw(1, 5, 8)}, "12 and 8")):
        with pytest.raises(ValueError, match=f"12 numbers with token states of 12; given are {given}: take"):
            net(draw(1, 12), **text(1) | other)
    with pytest.raises(ValueError, match="text embeddings of 12; given are 8"):
        MapConditioner(MAPS)(draw(1, 12), draw(1, 8))


def same(a, b):
    return a.keys() == b.keys() and all(torch.allclose(a[key], b[key], atol=1e-6) for key in a)


def rows(condition, index):
    return {key: value[index] for key, value in condition.items()}


@torch.no_grad()
def test_map_conditioner_equals_its_definition():
    net = randomise(MapConditioner(MAPS)).double()
    images, texts = draw(3, 12, seed=2).double(), draw(3, 12, seed=3).double()

    def whiten(rows):
        centred = rows - rows.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()

    h = torch.cat([whiten(images), whiten(texts)], dim=1)
    for layer in net.mlp:
        h = h @ layer.weight.T + layer.bias
        h = h / (1 + torch.exp(-h))
    result = net(images, texts)
    assert set(result) == {"embed", "maps.1", "maps.2"}
    assert error(result["embed"], h @ net.embed.weight.T + net.embed.bias) < TIGHT
    flat = h @ net.maps["1"].weight.T + net.maps["1"].bias
    for y in range(4):
        for x in range(4):
            cell = (y * 4 + x) * 3
            assert error(result["maps.1"][:, :, y, x], flat[:, cell : cell + 3]) < TIGHT


@torch.no_grad()
def test_dropped_equals_absent_equals_null():
    net = randomise(DecoderNet(SMALL))
    images, texts = draw(4, 12, seed=2), draw(4, 12, seed=3)
    drop_image, drop_text = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    mixed = net.condition(images, texts, drop_image=drop_image, drop_text=drop_text)
    assert same(rows(mixed, slice(0, 1)), net.null_condition(1))
    assert same(rows(mixed, slice(2, 3)), net.condition(images[2:3]))
    assert same(rows(mixed, slice(1, 2)), net.null_condition(1, texts[1:2]))
    full = net.condition(images, texts)
    assert same(rows(mixed, slice(3, 4)), rows(full, slice(3, 4)))
    for i in range(3):
        assert not same(rows(mixed, slice(i, i + 1)), rows(full, slice(i, i + 1)))
    scaled = net.condition(7 * images + 2, texts)  # an embedding's scale and offset do not count
    assert max(error(scaled[key], full[key]) for key in full) < 1e-4


def test_dropped_rows_train_the_null_vectors_only_where_dropped():
    net = randomise(MapConditioner(MAPS))
    texts = draw(2, 12, seed=3).requires_grad_()
    condition = net(draw(2, 12), texts, drop_text=torch.tensor([True, False]))
    sum(value.square().sum() for value in condition.values()).backward()
    assert net.null_text.grad.abs().max() > 0
    assert texts.grad[0].abs().max() == 0
    assert texts.grad[1].abs().max() > 0
    assert net.null_image.grad is None or net.null_image.grad.abs().max() == 0


@torch.no_grad()
def test_decoder_hands_the_condition_on():
    net = randomise(DecoderNet(SMALL))
    x, t, condition = draw(2, 3, 16, 16), torch.tensor([1, 900]), net.condition(draw(2, 12), draw(2, 12))
    maps = {1: condition["maps.1"], 2: condition["maps.2"]}
    reference = net.unet(x, t, embed=condition["embed"], maps=maps)
    assert torch.equal(net(x, t, condition), reference)
    assert error(net(x, t, net.null_condition(2)), reference) > 0.01
    assert not net.needs_text


@torch.no_grad()
def test_decoder_with_tokens():
    net = randomise(DecoderNet(SMALL_TOKENS))
    assert net.needs_text
    x, t, condition = draw(3, 3, 16, 16), torch.tensor([1, 40, 900]), net.condition(draw(3, 12), **text(3))
    reference = net.unet(
        x, t, embed=condition["embed"], context=condition["context"], context_mask=condition["context_mask"]
    )
    assert torch.equal(net(x, t, condition), reference)
    dropped = net.condition(draw(3, 12), **text(3), drop_image=torch.ones(3, dtype=torch.bool))
    assert same(net.null_condition(3, **text(3)), dropped)


@torch.no_grad()
def test_upsampler_sees_both_images():
    params = dataclasses.replace(SMALL_UNET, in_channels=6, map_channels=(0, 0, 0))
    net = randomise(UpsamplerNet(params))
    x, low, t = draw(1, 3, 24, 16), draw(1, 3, 24, 16, seed=5), torch.tensor([500])
    assert torch.equal(net(x, t, low), net.unet(torch.cat([x, low], dim=1), t))
    with pytest.raises(ValueError, match=r"\(24, 16\), low_res \(12, 8\)"):
        net(x, t, draw(1, 3, 12, 8))
    with pytest.raises(ValueError, match=r"3 \+ 1 channels given, the net takes 6"):
        net(x, t, low[:, :1])


@pytest.mark.parametrize(
    "params",
    [native_presets.tiny_decoder(), karlo_presets.karlo_decoder(), SMALL, SMALL_TOKENS],
    ids=["tiny", "karlo", "maps", "tokens"],
)
def test_decoder_params_survive_json(params):
    config = json.loads(json.dumps(params.to_dict()))
    assert config == params.to_dict()
    assert DecoderParams.from_dict(config) == params


def test_params_of_the_other_nets_survive_json():
    for cls, params in (
        (UpsamplerParams, native_presets.tiny_upsampler()),
        (UNetParams, karlo_presets.karlo_super_res()),
        (PriorParams, native_presets.tiny_prior()),
    ):
        assert params_from_dict(cls, json.loads(json.dumps(params_to_dict(params)))) == params


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_size": 32}, "level 1 of an image of side 32 has side 8, conditioner.map_sizes says 4"),
        ({"conditioner": dataclasses.replace(MAPS, time_embed_dim=24)}, "24 is not unet.time_embed_dim 16"),
        ({"conditioner": dataclasses.replace(MAPS, map_channels=(0, 2, 5))}, r"\(0, 2, 5\) are not .*0, 3, 5"),
        ({"conditioner": TOKENS}, "context_dim 10 is not unet.context_dim None"),
    ],
)
def test_decoder_params_that_disagree_are_refused(change, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"extra": 1}, r"unknown keys \['extra'\]"),
        ({"unet": params_to_dict(SMALL_UNET)}, r"missing keys \['conditioner'\]"),
        ({"conditioner": {"kind": "vector"}, "unet": {}}, r"one of .*'map', .*'token'\], got 'vector'"),
    ],
)
def test_broken_configs_are_refused(config, told):
    with pytest.raises(ValueError, match=told):
        DecoderParams.from_dict(config)


def test_map_conditioner_params_that_disagree_are_refused():
    with pytest.raises(ValueError, match="3 map_channels, but 2 map_sizes"):
        dataclasses.replace(MAPS, map_sizes=(0, 4))
    with pytest.raises(ValueError, match="level 0 has 0 map channels of side 8"):
        dataclasses.replace(MAPS, map_sizes=(8, 4, 2))


@pytest.mark.parametrize("order", ["cos_sin", "sin_cos"])
def test_timestep_embedding_by_its_formula(order):
    t = torch.tensor([0, 1, 999])
    got = timestep_embedding(t, 8, order)
    angles = t.double()[:, None] / 10000.0 ** (torch.arange(4, dtype=torch.float64) / 4)
    parts = [angles.cos(), angles.sin()]
    wanted = torch.cat(parts if order == "cos_sin" else parts[::-1], dim=1)
    assert got.dtype == torch.float32
    assert (got - wanted).abs().max() < 1e-4  # float32 angles up to 999
    with pytest.raises(ValueError, match="even, got 7"):
        timestep_embedding(t, 7)
    with pytest.raises(ValueError, match="cos_first"):
        timestep_embedding(t, 8, "cos_first")


def test_karlo_has_the_published_sizes():
    with torch.device("meta"):
        decoder = DecoderNet(karlo_presets.karlo_decoder())
        assert numbers(decoder.unet) == 885_439_686
        assert numbers(decoder.conditioner) == 7_878_400
        assert numbers(UNet(karlo_presets.karlo_super_res())) == 691_579_523
        assert numbers(PriorTransformer(karlo_presets.karlo_prior())) == 1_022_030_080


def test_the_bundled_model_stays_small():
    """In fp16 the decoder's file must stay below 16 MiB."""
    sizes = [
        numbers(DecoderNet(native_presets.tiny_decoder())),
        numbers(PriorTransformer(native_presets.tiny_prior())),
        numbers(UpsamplerNet(native_presets.tiny_upsampler())),
    ]
    assert sizes[0] <= 8_200_000
    assert sizes[1] <= 5_300_000
    assert sizes[2] <= 1_200_000


@torch.no_grad()
def test_the_bundled_nets_run_at_their_size():
    """In float32 the decoder gives what it gives in float64; an untrained upsampler gives the enlarged image."""
    decoder, upsampler = DecoderNet(native_presets.tiny_decoder()), UpsamplerNet(native_presets.tiny_upsampler())
    torch.nn.init.normal_(decoder.unet.out_conv.weight, std=0.05)  # it starts at zero
    embeds, x, t = draw(1, 192), draw(1, 3, 64, 64), torch.tensor([5])
    low = decoder(x, t, decoder.condition(embeds))
    high = decoder.double()(x.double(), t, decoder.condition(embeds.double()))
    assert high.shape == x.shape and high.std() > 0.1
    torch.testing.assert_close(low.double(), high, rtol=0, atol=1e-3)
    small, noise = draw(1, 3, 64, 96), draw(1, 3, 64, 96, seed=3)
    torch.testing.assert_close(upsampler(noise, t, small), small)
