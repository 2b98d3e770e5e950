"""The stages as functions: independence of the batch, ranking, and errors, on small random parts."""

import copy
import dataclasses
import math

import pytest
import torch
from factories import randomised, unet_params

from unclip.unclip_core import pipelines
from unclip.unclip_core.clip.adapter import TextCondition
from unclip.unclip_core.diffusion.samplers import SAMPLERS
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.embedding.arithmetic import cosine
from unclip.unclip_core.models import Decoder, Prior, Upsampler
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.map_conditioner import MapConditionerParams
from unclip.unclip_core.nets.prior import PriorParams, PriorTransformer
from unclip.unclip_core.nets.upsampler import UpsamplerNet

SAMPLE = DiffusionSpec(prediction="sample", clip_range=5.0)


@pytest.fixture(scope="module")
def prior() -> Prior:
    params = PriorParams(width=32, layers=2, heads=2, head_dim=16, embed_dim=12, text_width=10, text_tokens=5)
    return Prior("test", randomised(PriorTransformer(params)), SAMPLE, unit_norm=True)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    conditioner = MapConditionerParams(
        embed_dim=12, hidden=16, time_embed_dim=16, map_channels=(0, 4), map_sizes=(0, 4)
    )
    net = DecoderNet(DecoderParams(conditioner=conditioner, unet=unet_params(3, (0, 4)), image_size=16))
    return Decoder("test", randomised(net), SAMPLE, image_size=16)


@pytest.fixture(scope="module")
def upsampler() -> Upsampler:
    return Upsampler("test", randomised(UpsamplerNet(unet_params(6, (0, 0)))), SAMPLE, scale=4)


def text(count: int) -> TextCondition:
    generator = torch.Generator().manual_seed(5)

    def rows(n: int) -> TextCondition:
        return TextCondition(
            torch.randn(n, 12, generator=generator),
            torch.randn(n, 5, 10, generator=generator),
            torch.arange(5)[None].expand(n, 5) < 4,
        )

    null = rows(1)
    every = rows(count)
    return TextCondition(every.embeds, every.states, every.mask, null)


PRIOR = {"steps": 3, "guidance_scale": 2.0, "sampler": "ddpm"}
DECODER = {"steps": 3, "guidance_scale": 2.0, "sampler": "ddpm"}


def test_an_embedding_does_not_depend_on_its_batch(prior):
    said = text(3)
    together = pipelines.sample_prior(prior, said, seeds=[7, 8, 9], **PRIOR)
    alone = pipelines.sample_prior(prior, said.select([1]), seeds=[8], **PRIOR)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_embeddings_differ_by_seed_and_have_unit_norm(prior):
    drawn = pipelines.sample_prior(prior, text(1).select([0, 0]), seeds=[1, 2], **PRIOR)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(2))


def test_the_kept_candidates_are_those_nearest_to_the_text(prior):
    said = text(2)
    every = pipelines.sample_prior(prior, said, seeds=[3, 40], candidates=4, **PRIOR).view(2, 4, -1)
    kept = pipelines.sample_prior(prior, said, seeds=[3, 40], candidates=4, keep=2, **PRIOR)
    for row in range(2):
        scores = cosine(every[row], said.embeds[row].expand(4, -1))
        assert torch.equal(kept[2 * row : 2 * row + 2], every[row][scores.argsort(descending=True)[:2]])


def test_a_candidate_depends_on_its_seed_and_number_alone(prior):
    said = text(1)
    three = pipelines.sample_prior(prior, said, seeds=[3], candidates=3, **PRIOR)
    two = pipelines.sample_prior(prior, said.select([0, 0]), seeds=[9, 3], candidates=2, **PRIOR)
    torch.testing.assert_close(two[2:], three[:2], rtol=0, atol=1e-5)
    torch.testing.assert_close(pipelines.sample_prior(prior, said, seeds=[3], **PRIOR), three[:1], rtol=0, atol=1e-5)


def test_prompts_with_neighbouring_seeds_share_no_candidate(prior):
    """The same text under seeds in a row: had candidate k the seed + k, two prompts would draw the same."""
    drawn = pipelines.sample_prior(prior, text(1).select([0] * 3), seeds=[5, 6, 7], candidates=3, **PRIOR)
    apart = torch.cdist(drawn, drawn) + 9 * torch.eye(9)
    assert apart.min() > 1e-3


def test_an_image_does_not_depend_on_its_batch(decoder):
    embeds = torch.randn(3, 12, generator=torch.Generator().manual_seed(2))
    together = pipelines.sample_decoder(decoder, embeds, text=text(3), seeds=[7, 8, 9], **DECODER)
    alone = pipelines.sample_decoder(decoder, embeds[1:2], text=text(3).select([1]), seeds=[8], **DECODER)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-4)
    assert together.std() > 0.01


def test_the_text_reaches_the_image_and_may_be_left_out(decoder):
    embeds = torch.randn(1, 12)
    with_text = pipelines.sample_decoder(decoder, embeds, text=text(1), seeds=[7], **DECODER)
    without = pipelines.sample_decoder(decoder, embeds, seeds=[7], **DECODER)
    assert (with_text - without).abs().max() > 1e-3


def test_guidance_of_one_is_the_conditional_model(decoder):
    embeds, seen = torch.randn(1, 12), []
    forward = decoder.net.forward
    decoder.net.forward = lambda x, *more, **named: (seen.append(len(x)), forward(x, *more, **named))[1]
    try:
        pipelines.sample_decoder(decoder, embeds, seeds=[7], steps=2, guidance_scale=1.0)
        pipelines.sample_decoder(decoder, embeds, seeds=[7], steps=2, guidance_scale=2.0)
    finally:
        del decoder.net.forward
    assert seen == [1, 1, 2, 2]


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (7, 30)])
def test_images_of_any_size_grow_fourfold(size):
    """A net that predicts x0 and says a pattern of 2 x 2 pixels in every patch draws that pattern, padded or not."""
    net = UpsamplerNet(unet_params(6, (0, 0))).eval()  # its output layer starts at zero, so only its bias is left
    pattern = torch.linspace(-0.8, 0.8, 12)
    net.unet.out_conv.bias.data = pattern
    grown = pipelines.upscale(Upsampler("test", net, SAMPLE, scale=4), torch.rand(2, *size, 3), steps=2, seeds=[1, 2])
    expected = (pattern * 0.5 + 0.5).reshape(3, 2, 2).tile(1, 2 * size[0], 2 * size[1]).movedim(0, -1)
    torch.testing.assert_close(grown, expected.expand(2, -1, -1, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2])
def test_one_and_two_steps_work(prior, decoder, steps):
    settings = {"steps": steps, "guidance_scale": 2.0}
    for sampler in ("ddpm", "ddim", "dpmpp_2m", "dpmpp_sde"):
        embeds = pipelines.sample_prior(prior, text(1), seeds=[1], sampler=sampler, **settings)
        assert torch.isfinite(pipelines.sample_decoder(decoder, embeds, seeds=[1], sampler=sampler, **settings)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "0"),
        ({"steps": 10_000}, "10000"),
        ({"guidance_scale": math.nan}, "nan"),
        ({"sampler": "euler"}, "euler"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 2]}, "2 seeds"),
        ({"keep": 3, "candidates": 2}, "keep 3 of 2"),
        ({"eta": 2.0}, "eta"),
    ],
)
def test_bad_numbers_are_refused_with_the_number(prior, change, message):
    with pytest.raises(ValueError, match=message):
        pipelines.sample_prior(prior, text(1), **({**PRIOR, "seeds": [1]} | change))


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 8, 8, 4), (8, 8, 3), (1, 0, 8, 3)])
def test_what_is_no_batch_of_images_is_refused(upsampler, shape):
    with pytest.raises(ValueError, match="images of shape"):
        pipelines.upscale(upsampler, torch.zeros(shape), steps=2, seeds=[1])


def broken(rows, value, row=-1):
    """The same with one number of a row replaced."""
    rows = rows.clone()
    rows[row].view(-1)[3] = value
    return rows


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_images_with_broken_numbers_are_refused_by_their_row(upsampler, value):
    images = broken(torch.rand(3, 8, 8, 3), value, row=1)
    with pytest.raises(ValueError, match="Row 2 of the 3 images holds NaN or infinity"):
        pipelines.upscale(upsampler, images, steps=2, seeds=[1, 2, 3])
    with pytest.raises(ValueError, match="Row 2 of the 3 images holds NaN or infinity"):
        pipelines.encode_image(LookClip, images)
    with pytest.raises(ValueError, match="Row 2 of the 3 pictures to start from holds NaN"):
        pipelines.Canvas(images=images)
    with pytest.raises(ValueError, match="Row 2 of the 3 hints holds NaN"):
        pipelines.Canvas(hint=images)


@pytest.mark.parametrize("name", ["known", "mask"])
def test_known_pixels_and_their_mask_come_together(upsampler, name):
    given = {"known": torch.rand(1, 32, 32, 3), "mask": torch.zeros(1, 32, 32)}
    with pytest.raises(ValueError, match="mask"):
        pipelines.upscale(upsampler, torch.rand(1, 8, 8, 3), steps=2, seeds=[1], **{name: given[name]})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (torch.randn(1, 13), "embeddings are 13 numbers wide, and 12 are needed"),
        (torch.randn(12), r"embeddings have shape \[12\]: give a batch \[B, 12\]"),
        (torch.randn(1, 1, 12), r"embeddings have shape \[1, 1, 12\]"),
        (broken(torch.randn(1, 12), math.nan), "Row 1 of the 1 .* embeddings holds NaN or infinity"),
        (broken(torch.randn(1, 12), math.inf), "Row 1 of the 1 .* embeddings holds NaN or infinity"),
    ],
)
def test_embeddings_that_no_image_can_be_drawn_of_are_refused(decoder, rows, said):
    with pytest.raises(ValueError, match=said):
        pipelines.sample_decoder(decoder, rows, seeds=[1], **DECODER)
    with pytest.raises(ValueError, match=said.replace("embeddings", "negative embeddings").replace(".* ", "")):
        pipelines.sample_decoder(decoder, torch.randn(1, 12), seeds=[1], negative_embeds=rows, **DECODER)
    for scale in (1.0, 2.0):  # without guidance nothing reads it, but it is wrong all the same
        with pytest.raises(ValueError, match="negative"):
            settings = {**DECODER, "guidance_scale": scale}
            pipelines.sample_decoder(decoder, torch.randn(1, 12), seeds=[1], negative_embeds=rows, **settings)


def test_a_start_with_broken_numbers_is_refused(prior, decoder):
    noise, error = broken(torch.randn(1, 3, 16, 16), math.nan), torch.tensor([math.nan])
    for given, said in (({"start": noise}, "noises to start from"), ({"start_error": error}, "errors of the start")):
        with pytest.raises(ValueError, match=said):
            pipelines.sample_decoder(decoder, torch.randn(1, 12), seeds=[1], **given, **DECODER)
    with pytest.raises(ValueError, match="embeddings to start from"):
        start = broken(torch.randn(1, 12), math.nan)
        pipelines.sample_prior(prior, text(1), seeds=[1], start=start, strength=0.5, **PRIOR)


def test_texts_and_embeddings_must_fit(decoder):
    with pytest.raises(ValueError, match="2 texts do not go with 3 image embeddings"):
        pipelines.sample_decoder(decoder, torch.randn(3, 12), text=text(2), seeds=[1, 2, 3], **DECODER)


def test_guidance_without_the_empty_prompt_says_what_is_missing(prior):
    said = text(1)
    bare = TextCondition(said.embeds, said.states, said.mask)
    with pytest.raises(ValueError, match="empty prompt"):
        pipelines.sample_prior(prior, bare, seeds=[1], **PRIOR)


class LookClip:
    """A CLIP whose image embedding is the mean colour of an image, and whose text space is the same."""

    class adapter:  # noqa: N801
        @staticmethod
        def encode_image(images):
            return images.mean(dim=(1, 2))


def plain(*colours) -> torch.Tensor:
    return torch.tensor(colours)[:, None, None, :].expand(-1, 4, 4, -1)


def words_for(*colours) -> TextCondition:
    return TextCondition(torch.tensor(colours), torch.zeros(len(colours), 1, 1), torch.ones(len(colours), 1).bool())


def test_rerank_keeps_the_images_nearest_to_their_own_text():
    red, green, orange, lime = (1.0, 0, 0), (0, 1.0, 0), (1.0, 0.5, 0), (0.4, 1.0, 0)
    images = plain(green, orange, red, red, lime, green)
    kept = pipelines.rerank(LookClip, words_for(red, green), images, keep=2)
    torch.testing.assert_close(kept, plain(red, orange, green, lime))


@pytest.mark.parametrize(("count", "keep", "message"), [(3, 1, "shared out"), (4, 3, "keep 3 of 2"), (4, 0, "keep 0")])
def test_rerank_refuses_what_does_not_come_out_even(count, keep, message):
    with pytest.raises(ValueError, match=message):
        pipelines.rerank(LookClip, words_for((1.0, 0, 0), (0, 1.0, 0)), torch.rand(count, 4, 4, 3), keep)


def on_meta(part):
    """The part on a device that computes no numbers: whatever needs one there fails."""
    fields = {name: getattr(part, name) for name in vars(part) if name != "module"}
    for name in ("net", "last"):
        if fields.get(name) is not None:
            fields[name] = copy.deepcopy(fields[name]).to("meta")
    return type(part)(**fields)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.3, 0.7)])
def test_nothing_in_the_loops_waits_for_the_device(prior, decoder, upsampler, sampler, interval):
    given = {"steps": 4, "sampler": sampler, "guidance_scale": 2.0, "guidance_interval": interval}
    scaled = dataclasses.replace(prior, unit_norm=False)  # the norm is checked once, after the loop
    embeds = pipelines.sample_prior(on_meta(scaled), text(2).to("meta"), seeds=[1, 2], candidates=2, **given)
    assert embeds.shape == (4, 12)
    # What a stage is given is looked at once, before the loop: here it has numbers.
    small = pipelines.sample_decoder(on_meta(decoder), torch.randn(4, 12), text=text(4), seeds=range(4), **given)
    two = dataclasses.replace(upsampler, last=upsampler.net)
    large = pipelines.upscale(on_meta(two), torch.rand(small.shape), steps=3, sampler=sampler, seeds=range(4))
    assert large.shape == (4, 64, 64, 3)


@pytest.mark.parametrize("draw", ["prior", "decoder"])
def test_guidance_outside_its_interval_is_not_run(prior, decoder, monkeypatch, draw):
    """Steps of a plan of four lie at 1, 3/4, 1/2 and 1/4 of the process."""
    seen = []

    def run(scale, interval):
        seen.clear()
        given = {"steps": 4, "guidance_scale": scale, "guidance_interval": interval, "seeds": [3], "sampler": "ddim"}
        if draw == "prior":
            return pipelines.sample_prior(prior, text(1), **given)
        return pipelines.sample_decoder(decoder, torch.ones(1, 12), text=text(1), **given)

    net = prior.net.blocks[0].norm1 if draw == "prior" else decoder.net.unet.stem
    hook = net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    always, rows = run(3.0, (0.0, 1.0)), seen[-4:]
    assert rows == [2, 2, 2, 2]
    partly = run(3.0, (0.4, 0.8))
    assert seen[-4:] == [1, 2, 2, 1]
    never = run(3.0, (0.3, 0.4))
    hook.remove()
    assert torch.equal(never, run(1.0, (0.0, 1.0))) and not torch.equal(partly, never)
    assert not torch.equal(partly, always)
