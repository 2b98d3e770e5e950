"""MoVQ against diffusers' VQModel, and in strips against in one piece."""

import factories
import pytest
import torch

from unclip.unclip_core.families.kandinsky22.names import MOVQ
from unclip.unclip_core.families.karlo.names import renamed
from unclip.unclip_core.nets import feature_rows, movq
from unclip.unclip_core.nets.feature_rows import Strip
from unclip.unclip_core.nets.movq_codec import MoVQCodec
from unclip.unclip_core.nets.movq_layers import SpatialNorm
from unclip.unclip_core.nets.movq_params import MoVQParams

SHAPES = {
    "as published, thin": MoVQParams((32, 64, 64, 96), (False, False, False, True), groups=8, codes=50),
    "attention at two sizes": MoVQParams((32, 64), (True, True), blocks=1, groups=4, codes=7),
    "wider codes": MoVQParams((32, 32, 64), (False, True, False), groups=16, latent_channels=3, codes=20),
}


def reference(params):
    diffusers = pytest.importorskip("diffusers")
    down = ["AttnDownEncoderBlock2D" if on else "DownEncoderBlock2D" for on in params.attention]
    up = ["AttnUpDecoderBlock2D" if on else "UpDecoderBlock2D" for on in reversed(params.attention)]
    return diffusers.VQModel(
        block_out_channels=params.channels, down_block_types=down, up_block_types=up, layers_per_block=params.blocks,
        norm_num_groups=params.groups, latent_channels=params.latent_channels, vq_embed_dim=params.latent_channels,
        num_vq_embeddings=params.codes, norm_type="spatial",
    )  # fmt: skip


def pair(params, seed=0):
    """diffusers' net with every parameter random, and ours with the same."""
    theirs = factories.randomise(reference(params), seed).requires_grad_(False)
    ours = movq.MoVQ(params).eval().requires_grad_(False)
    state = theirs.state_dict()
    ours.load_state_dict({key: state.pop(renamed(key, MOVQ)) for key in ours.state_dict()})
    assert not state
    return ours, theirs


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_diffusers_vqmodel(name):
    """In float64: attention over random weights makes 1e-5 of float32's rounding, more or less with the machine."""
    params = SHAPES[name]
    ours, theirs = (net.double() for net in pair(params))
    images = factories.draw(2, 3, 4 * params.factor, 6 * params.factor).clamp(-1, 1).double()
    with torch.no_grad():
        latents = theirs.encode(images).latents
        assert factories.error(ours.encode(images), latents) < 1e-10
        assert factories.error(ours.decode(latents), theirs.decode(latents, force_not_quantize=True).sample) < 1e-10
        quantised, _, _ = theirs.quantize(latents)
        assert factories.error(ours.codebook(latents), quantised) < 1e-10
        assert factories.error(ours.decode(latents, quantise=True), theirs.decode(latents).sample) < 1e-10


def test_strips_show_no_seam(monkeypatch):
    """In float64, where nothing but a seam could differ."""
    ours = pair(SHAPES["as published, thin"])[0].double()
    images = factories.draw(2, 3, 96, 64).clamp(-1, 1).double()
    with torch.no_grad():
        latents = ours.encode(images)
        whole = ours.decode(latents)
        monkeypatch.setattr(movq, "WHOLE_ELEMENTS", 1)
        monkeypatch.setattr(feature_rows, "STRIP_ELEMENTS", 1)
        assert factories.error(ours.encode(images), latents) < 1e-10
        assert factories.error(ours.decode(latents), whole) < 1e-10


def test_strips_do_not_change_what_they_are_given(monkeypatch):
    params = MoVQParams((32, 64), (False, False), blocks=1, groups=4, codes=5)
    ours, _ = pair(params)
    latents = factories.draw(1, 4, 40, 8)
    kept = latents.clone()
    monkeypatch.setattr(movq, "WHOLE_ELEMENTS", 1)
    monkeypatch.setattr(feature_rows, "STRIP_ELEMENTS", 1)
    with torch.no_grad():
        ours.decode(latents)
    assert torch.equal(latents, kept)


@pytest.mark.parametrize(("first", "rows"), [(0, 24), (0, 5), (7, 9), (23, 1)])
def test_scales_at_a_strip_are_the_nearest_latents(first, rows):
    maps, x = factories.draw(2, 6, 6, 4), torch.zeros(2, 6, rows, 12)
    found = SpatialNorm._at(maps, x, Strip(first, 24, x, x))
    assert torch.equal(found, maps.repeat_interleave(4, 2).repeat_interleave(3, 3)[:, :, first : first + rows])


def test_gradients_pass_straight_through_the_codebook():
    ours, _ = pair(SHAPES["attention at two sizes"])
    latents = factories.draw(1, 4, 3, 3).requires_grad_(True)
    ours.codebook(latents).sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))
    ours.decode(latents, quantise=True).square().sum().backward()
    assert float(latents.grad.abs().max()) > 1


@pytest.mark.slow
def test_the_codec_takes_batches_apart_and_keeps_float32(monkeypatch):
    ours, _ = pair(SHAPES["as published, thin"])
    codec = MoVQCodec(ours)
    latents = factories.draw(3, 4, 4, 8)
    with torch.no_grad():
        alone = torch.cat([codec.decode(row[None]) for row in latents])
        assert (
            factories.error(codec.decode(latents), alone) < 4e-5
        )  # convolutions round by another way, and random layers amplify
        assert codec.preview(latents).shape == (3, 3, 4, 8)
        half = MoVQCodec(ours.to(torch.bfloat16))
        assert half.decode(latents).dtype == torch.float32
        assert half.encode(torch.zeros(1, 3, 8, 8)).dtype == torch.float32
    with pytest.raises(ValueError, match="multiples of 8, not 9 × 8"):
        codec.encode(torch.zeros(1, 3, 8, 9))


def test_the_preview_is_near_what_flat_latents_show():
    """Of a linear decoder it would be exact: here it must at least beat the mean colour by far."""
    ours, _ = pair(SHAPES["as published, thin"])
    codec = MoVQCodec(ours)
    flat = factories.draw(20, 4, 1, 1, seed=5).expand(-1, -1, 2, 2)
    with torch.no_grad():
        colours = codec.decode(flat).mean((2, 3))
        shown = codec.preview(flat).mean((2, 3))
    assert (shown - colours.clamp(-1, 1)).square().mean() < (colours.mean(0) - colours).square().mean()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"groups": 5}, "channels 128 is not a multiple of groups 5"), ({"codes": 0}, "codes must be"),
     ({"attention": (True,)}, "4 channels and 1 attention")],
)  # fmt: skip
def test_shapes_that_do_not_agree_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        MoVQParams(**change)
