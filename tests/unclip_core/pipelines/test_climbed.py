"""VQGAN+CLIP's ascent over a codec's latents: straight-through gradients in closed form, the range, the score."""

import made_up_family
import pytest
import torch
from factories import randomised
from torch.nn import functional as F

from unclip.unclip_core.clip.open_clip_adapter import ClipConfig, OpenClipAdapter, build_open_clip
from unclip.unclip_core.diffusion.noise import NoiseSource
from unclip.unclip_core.embedding.arithmetic import normalize
from unclip.unclip_core.models import PIXELS, Clip
from unclip.unclip_core.nets.movq import MoVQ
from unclip.unclip_core.nets.movq_codec import MoVQCodec
from unclip.unclip_core.nets.movq_params import MoVQParams
from unclip.unclip_core.pipelines import editing
from unclip.unclip_core.pipelines.climbed import Latents
from unclip.unclip_core.pipelines.clip_ascent import Ascent

WIDTH, CODES = 12, 40


class Recording(MoVQCodec):
    """A codec that keeps what it was asked for."""

    def __init__(self, net):
        super().__init__(net)
        self.wanted, self.decoded = [], []

    def quantised(self, latents):
        self.wanted.append(latents.detach().clone())
        return super().quantised(latents)

    def decode(self, latents):
        self.decoded.append(latents.detach().clone())
        return super().decode(latents)


@pytest.fixture
def codec():
    """A small random MoVQ whose decoder's images are about in range."""
    net = randomised(MoVQ(MoVQParams((32, 32), (False, True), blocks=1, groups=8, codes=CODES))).requires_grad_(False)
    for name, value in net.named_parameters():
        if "norm" in name and (".scale." in name or ".shift." in name):
            value.mul_(0.2).add_(1.0 if name.endswith("scale.bias") else 0.0)
    generator = torch.Generator().manual_seed(3)
    net.codebook.codes.weight.copy_(torch.randn(CODES, 4, generator=generator))
    spread = net.decode(torch.randn(2, 4, 4, 4, generator=generator)).std()
    net.decoder.head.conv.weight.div_(2 * spread)
    net.decoder.head.conv.bias.zero_()
    return Recording(net)


@pytest.fixture(scope="module")
def clip():
    config = ClipConfig(
        model={
            "embed_dim": WIDTH,
            "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8},
            "text_cfg": {"context_length": 8, "vocab_size": 515, "layers": 1, "width": 16, "heads": 2},
        },
        merges="r e",
        normalize=True,
    )
    return Clip("test", OpenClipAdapter(randomised(build_open_clip(config)), config))


def texts(count):
    return normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(5)))


def nearest(codec, latents):
    """The nearest codes, by the distances written out in float64."""
    codes = codec.module.codebook.codes.weight.double()
    places = latents.movedim(1, -1).double()
    distances = ((places[..., None, :] - codes) ** 2).sum(-1)
    return codes[distances.argmin(-1)].movedim(-1, 1).float()


def test_each_place_is_decoded_as_its_nearest_code_and_limits_are_the_codebooks(codec):
    latents = 1.5 * torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(codec.quantised(latents), nearest(codec, latents), rtol=0, atol=1e-6)
    codes = codec.module.codebook.codes.weight
    least, greatest = codec.limits
    assert torch.equal(least, codes.min(dim=0).values) and torch.equal(greatest, codes.max(dim=0).values)


def test_the_gradient_is_that_of_the_codes_passed_straight_through(codec):
    """d loss / d latents = the decoder's Jacobian at the codes times d loss / d image, clamped or not."""
    climbed = Latents(codec, None, 2, (12, 8), NoiseSource([1, 2]), torch.device("cpu"))
    weight = torch.randn(2, 3, 12, 8, generator=torch.Generator().manual_seed(2))
    (climbed.render() * weight).sum().backward()
    codes = nearest(codec, climbed.learned[0].detach()).requires_grad_(True)
    expected = torch.autograd.grad((codec.module.decode(codes) * 0.5 * weight).sum(), codes)[0]
    torch.testing.assert_close(climbed.learned[0].grad, expected, rtol=1e-4, atol=1e-5)
    assert expected.abs().max() > 1e-3


def test_latents_stay_within_the_codebooks_range(codec, clip):
    ascent = Ascent(steps=6, cutouts=2, learning_rate=3.0)
    found = editing.optimise_images(clip, texts(2), ascent, seeds=[1, 2], size=(16, 12), codec=codec)
    least, greatest = (edge[:, None, None] for edge in codec.limits)
    assert len(codec.wanted) == 7 and found.shape == (2, 16, 12, 3)
    assert all(bool((least <= z).all() and (z <= greatest).all()) for z in codec.wanted)
    at_the_edge = [bool(((z == least) | (z == greatest)).any()) for z in codec.wanted]
    assert all(at_the_edge[1:])  # steps of 3 lead beyond it
    for decoded, z in zip(codec.decoded, codec.wanted, strict=True):
        torch.testing.assert_close(decoded, nearest(codec, z), rtol=0, atol=1e-5)


def score(clip, images, wanted):
    seen = F.interpolate(images.movedim(-1, 1), (16, 16), mode="bilinear", antialias=True)
    return (normalize(clip.adapter.encode_pixels(seen)) * wanted).sum(dim=1)


@pytest.mark.parametrize("began", [False, True])
def test_the_score_of_every_image_rises_toward_its_text_and_falls_away_from_it(codec, clip, began):
    start = torch.rand(2, 16, 24, 3, generator=torch.Generator().manual_seed(4)) if began else None
    images = []
    for steps, rate, wanted in ((1, 1e-9, texts(2)), (15, 0.3, texts(2)), (15, 0.3, -texts(2))):
        ascent = Ascent(steps=steps, cutouts=4, learning_rate=rate, smoothness=0.0)
        with torch.inference_mode():  # as in ComfyUI
            images.append(
                editing.optimise_images(
                    clip, wanted + 0, ascent, seeds=[1, 2], images=start, size=(16, 24), codec=codec
                )
            )
    before, toward, away = (score(clip, each, texts(2)) for each in images)
    assert (toward > before + 2e-4).all() and (away < before - 2e-4).all(), (before, toward, away)
    assert (toward - away).mean() > 0.004  # a random CLIP hardly sees what a random codec draws
    assert 0 <= images[1].min() and images[1].max() <= 1


def test_a_start_is_encoded_and_a_size_between_the_codecs_is_cropped(codec):
    start = torch.rand(1, 3, 13, 9, generator=torch.Generator().manual_seed(6))
    climbed = Latents(codec, start, 1, (13, 9), NoiseSource([1]), torch.device("cpu"))
    covered = F.pad(start, (0, 1, 0, 1), mode="replicate") * 2 - 1
    least, greatest = (edge[:, None, None] for edge in codec.limits)
    expected = codec.encode(covered).clamp(least, greatest)
    torch.testing.assert_close(climbed.learned[0].detach(), expected)
    assert climbed.render().shape == (1, 3, 13, 9)


def test_a_codec_without_a_codebook_and_one_of_pixels_climb_too(clip):
    wanted, ascent = texts(1), Ascent(steps=10, cutouts=4, learning_rate=0.1)
    for codec in (made_up_family.PatchCodec(), PIXELS):
        began = editing.optimise_images(
            clip, wanted, Ascent(steps=1, cutouts=1, learning_rate=1e-9), seeds=[1], size=(16, 16), codec=codec
        )
        ended = editing.optimise_images(clip, wanted, ascent, seeds=[1], size=(16, 16), codec=codec)
        assert score(clip, ended, wanted) > score(clip, began, wanted) + 0.01
