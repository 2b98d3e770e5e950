"""Inversion, inpainting, CLIP guidance and CLIP's ascent on small random parts and on closed forms."""

import dataclasses
import math

import pytest
import torch
from factories import randomised, unet_params

from unclip.unclip_core import pipelines
from unclip.unclip_core.clip.open_clip_adapter import ClipConfig, OpenClipAdapter, build_open_clip
from unclip.unclip_core.diffusion.denoiser import Prediction
from unclip.unclip_core.diffusion.inversion import psnr
from unclip.unclip_core.diffusion.noise import NoiseSource
from unclip.unclip_core.diffusion.samplers import ddim
from unclip.unclip_core.diffusion.schedules import alpha_bar, cosine_betas, make_steps
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.embedding.arithmetic import normalize
from unclip.unclip_core.models import Clip, Decoder, Upsampler
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.inference_gradients import enable_gradients, to_normal_tensors
from unclip.unclip_core.nets.map_conditioner import MapConditionerParams
from unclip.unclip_core.nets.upsampler import UpsamplerNet
from unclip.unclip_core.pipelines import editing
from unclip.unclip_core.pipelines.clip_ascent import Ascent, cutouts
from unclip.unclip_core.pipelines.clip_guidance import ClipGuided, clip_logits

SIDE, WIDTH = 16, 12
TABLE = alpha_bar(cosine_betas())


def make_decoder(prediction="sample", variance="fixed_small"):
    conditioner = MapConditionerParams(
        embed_dim=WIDTH, hidden=16, time_embed_dim=16, map_channels=(0, 4), map_sizes=(0, 4)
    )
    channels = 6 if variance == "learned_range" else 3
    net = DecoderNet(DecoderParams(conditioner=conditioner, unet=unet_params(3, (0, 4), channels), image_size=SIDE))
    return Decoder(
        "test",
        randomised(net),
        DiffusionSpec(prediction=prediction, variance=variance, clip_range=1.0),
        image_size=SIDE,
    )


def make_clip():
    config = ClipConfig(
        model={
            "embed_dim": WIDTH,
            "vision_cfg": {"image_size": SIDE, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8},
            "text_cfg": {"context_length": 8, "vocab_size": 515, "layers": 1, "width": 16, "heads": 2},
        },
        merges="r e",
        normalize=True,
    )
    return Clip("test", OpenClipAdapter(randomised(build_open_clip(config)), config))


@pytest.fixture(scope="module")
def decoder():
    return make_decoder()


@pytest.fixture(scope="module")
def clip():
    return make_clip()


@pytest.fixture(scope="module", params=[("sample", "fixed_small"), ("epsilon", "learned_range")], ids=["x0", "eps"])
def any_decoder(request):
    """The bundled family's kind of net, and Karlo's."""
    return make_decoder(*request.param)


def embeds(count=1):
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(2))


def random_images(count=1, height=SIDE, width=SIDE):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(3))


DRAW = {"steps": 3, "guidance_scale": 2.0}


# ---- inversion ----


def test_what_the_decoder_drew_is_inverted_to_noise_that_draws_it(decoder):
    settings = {"steps": 4, "guidance_scale": 1.0}
    drawn = pipelines.sample_decoder(decoder, embeds(), seeds=[7], sampler="ddim", **settings)
    found = editing.invert_decoder(decoder, drawn, embeds(), **settings)
    assert found.noise.shape == (1, 3, SIDE, SIDE) and found.error.shape == (1,)
    again = pipelines.sample_decoder(
        decoder, embeds(), seeds=[0], sampler="ddim", start=found.noise, start_error=found.error, **settings
    )
    other = pipelines.sample_decoder(decoder, embeds(), seeds=[0], sampler="ddim", **settings)
    assert float(psnr(drawn, again)) > float(psnr(drawn, other)) + 1


def test_inversion_works_on_any_kind_of_net(any_decoder):
    found = editing.invert_decoder(any_decoder, random_images(2), embeds(2), **DRAW)
    assert found.noise.shape == (2, 3, SIDE, SIDE) and torch.isfinite(found.noise).all()
    alone = editing.invert_decoder(any_decoder, random_images(2)[1:], embeds(2)[1:], **DRAW)
    torch.testing.assert_close(found.noise[1:], alone.noise, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.error[1:], alone.error)


def test_more_steps_bring_any_image_back_whatever_the_net_makes_of_it(decoder):
    """Of an untrained net that predicts x0: its word is worth nothing, and the error that is measured says so."""
    found = []
    for steps in (4, 16, 64):
        settings = {"steps": steps, "guidance_scale": 1.0}
        inverted = editing.invert_decoder(decoder, random_images(), embeds(), **settings)
        again = pipelines.sample_decoder(
            decoder, embeds(), seeds=[0], sampler="ddim", start=inverted.noise, start_error=inverted.error, **settings
        )
        found.append(float(psnr(random_images(), again)))
    assert found == sorted(found) and found[-1] > found[0] + 10


def test_what_the_net_misses_is_let_go_with_the_noise_that_it_lies_in(decoder):
    """Where a sampler draws all noise anew, nothing of the start's is left, and its error changes nothing."""
    start = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    settings = {"seeds": [1], "start": start, **DRAW, "steps": 10}

    def change(**more):
        with_error = pipelines.sample_decoder(decoder, embeds(), start_error=torch.tensor([0.2]), **more, **settings)
        return float((with_error - pipelines.sample_decoder(decoder, embeds(), **more, **settings)).abs().mean())

    by_eta = [change(sampler="ddim", eta=eta) for eta in (0.0, 0.5, 1.0)]
    assert by_eta[0] > 1.5 * by_eta[1] > 10 * by_eta[2]
    assert change(sampler="ddpm") == change(sampler="dpmpp_sde") == 0


def test_a_given_start_replaces_the_drawn_one_and_nothing_else(decoder):
    """Drawn by hand as the stage does, the same image comes, with fresh noise in each step too."""
    start = NoiseSource([7], "decoder").normal((3, SIDE, SIDE))
    for sampler in ("ddim", "ddpm"):
        own = pipelines.sample_decoder(decoder, embeds(), seeds=[7], sampler=sampler, **DRAW)
        given = pipelines.sample_decoder(decoder, embeds(), seeds=[7], sampler=sampler, start=start, **DRAW)
        assert torch.equal(own, given)
    other = pipelines.sample_decoder(decoder, embeds(), seeds=[8], start=start, **DRAW)
    assert torch.equal(other, pipelines.sample_decoder(decoder, embeds(), seeds=[7], **DRAW))


def test_one_start_serves_all_and_a_wrong_one_is_refused(decoder):
    start = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    both = pipelines.sample_decoder(decoder, embeds(2), seeds=[1, 2], start=start, **DRAW)
    one = pipelines.sample_decoder(decoder, embeds(2)[:1], seeds=[1], start=start, **DRAW)
    torch.testing.assert_close(both[:1], one, rtol=0, atol=1e-5)
    for wrong in (torch.randn(3, 3, SIDE, SIDE), torch.randn(1, 3, 8, 8)):
        with pytest.raises(ValueError, match="cannot start"):
            pipelines.sample_decoder(decoder, embeds(2), seeds=[1, 2], start=wrong, **DRAW)


@pytest.mark.parametrize(
    ("images", "settings", "message"),
    [
        (random_images(2), {}, "2 images"),
        (random_images(1, 8, 16), {}, "16 × 8"),
        (random_images(), {"steps": 0}, "0"),
        (random_images() * math.nan, {}, "NaN"),
        (random_images(), {"iterations": 0}, "iteration"),
    ],
)
def test_what_cannot_be_inverted_is_refused(decoder, images, settings, message):
    with pytest.raises(ValueError, match=message):
        editing.invert_decoder(decoder, images, embeds(), **(DRAW | settings))


# ---- inpainting ----


def half_mask(height, width):
    mask = torch.zeros(1, height, width)
    mask[:, :, width // 2 :] = 1
    return mask


@pytest.mark.parametrize("size", [(SIDE, SIDE), (SIDE, 37), (29, 40)])
def test_known_pixels_come_back_to_the_bit_on_canvases_of_any_size(any_decoder, size):
    images, mask = random_images(2, *size), half_mask(*size)
    filled = editing.inpaint_decoder(any_decoder, images, mask, embeds(2), seeds=[1, 2], resamples=2, **DRAW)
    assert filled.shape == images.shape and 0 <= filled.min() and filled.max() <= 1
    kept = (mask == 0).expand(2, *size)
    assert torch.equal(filled[kept], images[kept])
    assert (filled[~kept] - images[~kept]).abs().mean() > 0.01
    alone = editing.inpaint_decoder(any_decoder, images[1:], mask, embeds(2)[1:], seeds=[2], resamples=2, **DRAW)
    torch.testing.assert_close(filled[1:], alone, rtol=0, atol=1e-3)


def test_an_empty_mask_changes_nothing_and_a_full_one_keeps_nothing(decoder):
    images = random_images()
    same = editing.inpaint_decoder(decoder, images, torch.zeros(1, SIDE, SIDE), embeds(), seeds=[1], **DRAW)
    assert torch.equal(same, images)
    full = torch.ones(1, SIDE, SIDE)
    new = editing.inpaint_decoder(decoder, images, full, embeds(), seeds=[1], **DRAW)
    other = editing.inpaint_decoder(decoder, 1 - images, full, embeds(), seeds=[1], **DRAW)
    assert torch.equal(new, other)


@pytest.mark.parametrize(
    ("mask", "settings", "message"),
    [
        (torch.zeros(1, 8, 8), {}, "mask"),
        (torch.zeros(3, SIDE, SIDE), {}, "mask"),
        (torch.full((1, SIDE, SIDE), math.nan), {}, "NaN"),
        (torch.zeros(1, SIDE, SIDE), {"steps": 0}, "0"),
        (torch.zeros(1, SIDE, SIDE), {"resamples": 0}, "resamples"),
    ],
)
def test_what_cannot_be_inpainted_is_refused(decoder, mask, settings, message):
    with pytest.raises(ValueError, match=message):
        editing.inpaint_decoder(decoder, random_images(), mask, embeds(), seeds=[1], **(DRAW | settings))


@pytest.mark.parametrize("rows", [torch.ones(WIDTH), torch.ones(1, WIDTH + 1), embeds() * math.nan])
def test_embeddings_that_do_not_fit_are_refused_in_edits_too(decoder, rows):
    with pytest.raises(ValueError, match="image embeddings (have|are|holds)"):
        editing.invert_decoder(decoder, random_images(), rows, **DRAW)
    with pytest.raises(ValueError, match="image embeddings (have|are|holds)"):
        editing.inpaint_decoder(decoder, random_images(), half_mask(SIDE, SIDE), rows, seeds=[1], **DRAW)


def test_the_upsampler_keeps_known_pixels_at_full_size():
    upsampler = Upsampler(
        "test", randomised(UpsamplerNet(unet_params(6, (0, 0)))), DiffusionSpec(prediction="sample"), 4
    )
    small, known = random_images(2, 7, 9), random_images(1, 28, 36)
    mask = half_mask(28, 36)
    free = pipelines.upscale(upsampler, small, steps=2, seeds=[1, 2])
    large = pipelines.upscale(upsampler, small, steps=2, seeds=[1, 2], known=known, mask=mask)
    kept = (mask == 0)[0]
    assert torch.equal(large[0][kept], known[0][kept]) and torch.equal(large[1][kept], known[0][kept])
    assert (large - free)[:, ~kept].abs().max() > 1e-3  # what is known is seen by what is drawn
    for wrong in ({"known": known}, {"known": known[:, :20], "mask": mask}, {"known": known, "mask": mask[:, :20]}):
        with pytest.raises(ValueError, match="mask|known"):
            pipelines.upscale(upsampler, small, steps=2, seeds=[1, 2], **wrong)


def test_fitting_keeps_what_fits_and_lets_no_part_of_a_mask_slip_through():
    images, mask = random_images(1, 16, 24), torch.zeros(1, 16, 24)
    same, kept = editing.fit_image(images, mask, 16)
    assert same is images and kept is mask
    mask = torch.zeros(1, 60, 90)
    mask[:, 30, 45] = 1
    small, few = editing.fit_image(random_images(1, 40, 60), mask, 16)
    assert small.shape == (1, 16, 24, 3) and few.shape == (1, 16, 24)
    assert few.max() == 1 and 1 <= few.sum() <= 4


# ---- CLIP's gradient ----


@pytest.mark.parametrize("sampler_steps", [40])
def test_guidance_toward_a_linear_likelihood_is_bayes_rule_on_gaussian_data(sampler_steps):
    """N(0, v) tilted by exp(s * c * x) is N(s * c * v, v): the samples move by s * c * v and spread as before."""
    variance, slope, strength = 0.5, 0.8, 1.5

    def denoise(x, t):
        ab = TABLE[t].reshape(-1, 1, 1, 1).to(x)
        return Prediction(ab.sqrt() * variance / (ab * variance + 1 - ab) * x)

    guided = ClipGuided(denoise, lambda x0: slope * x0.flatten(1).sum(1), strength, TABLE)
    noise = NoiseSource([4])
    start = noise.normal((1, 60, 60), dtype=torch.float64)
    plain_end = ddim(denoise, start, make_steps(sampler_steps, TABLE, "trailing"), noise)
    end = ddim(guided, start, make_steps(sampler_steps, TABLE, "trailing"), noise)
    assert float((end - plain_end).mean()) == pytest.approx(strength * slope * variance, rel=0.05)
    assert float(end.std()) == pytest.approx(float(plain_end.std()), rel=0.02)


def test_the_shift_is_held_to_its_limit():
    guided = ClipGuided(lambda x, t: Prediction(x * 1.0), lambda x0: 1e6 * x0.flatten(1).sum(1), 1.0, TABLE, limit=0.5)
    x = torch.zeros(2, 3, 4, 4)
    shift = guided(x, torch.full((2,), 999)).x0
    torch.testing.assert_close(shift.square().mean().sqrt(), torch.tensor(0.5))


def test_the_score_is_the_cosine_by_clips_temperature(clip):
    wanted, images = embeds(2), random_images(2)
    score = clip_logits(clip, wanted)(images.movedim(-1, 1) * 2 - 1)
    seen = clip.adapter.encode_pixels(images.movedim(-1, 1))
    expected = math.exp(float(clip.adapter.model.logit_scale)) * (normalize(seen) * normalize(wanted)).sum(1)
    torch.testing.assert_close(score, expected)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (SIDE, 24), (9, 20)])
def test_of_an_image_that_is_not_square_clip_scores_the_middle(clip, size):
    """By torchvision's resize and crop, and near to what the encoder makes of it as an image."""
    from torchvision.transforms import functional as vision

    images = random_images(2, *size).movedim(-1, 1)
    resize = vision.resize(images, SIDE, vision.InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
    seen = clip.adapter.encode_pixels(vision.center_crop(resize, SIDE))
    given = (images * 2 - 1).requires_grad_(True)
    score = clip_logits(clip, embeds(2))(given)
    cosines = (normalize(seen) * normalize(embeds(2))).sum(1)
    torch.testing.assert_close(score, clip.adapter.temperature * cosines, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(score.sum(), given)
    assert torch.isfinite(gradient).all() and gradient.abs().amax(dim=(1, 2, 3)).min() > 0
    whole = normalize(clip.adapter.encode_image(images.movedim(1, -1)))
    torch.testing.assert_close(normalize(seen), whole, rtol=0, atol=0.02)


@pytest.mark.parametrize("side", [SIDE, 24, 9])
def test_of_a_square_image_clip_scores_all(clip, side):
    images = random_images(2, side, side).movedim(-1, 1)
    pixels = images * 2 * 0.5
    if side != SIDE:
        pixels = torch.nn.functional.interpolate(
            pixels, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 1)
    seen = normalize(clip.adapter.encode_pixels(pixels)) * normalize(embeds(2))
    score = clip_logits(clip, embeds(2))(images * 2 - 1)
    torch.testing.assert_close(score, clip.adapter.temperature * seen.sum(1))


@pytest.mark.parametrize(("rules", "most"), [({"threshold": (0.995, 1.0)}, 1.0), ({"clip_range": 0.5}, 0.5)])
@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_the_shifted_x0_is_clipped_as_the_process_says(clip, rules, most, prediction):
    spec = DiffusionSpec(prediction=prediction, **rules)
    decoder, seen = dataclasses.replace(make_decoder(prediction), diffusion=spec), []
    settings = {"seeds": [3], "steps": 4, "guidance_scale": 1.0, "sampler": "ddim", "on_step": seen.append}
    editing.guided_decoder(decoder, clip, embeds(1), 1e6, embeds(1), **settings)
    sizes = [float(info.x0.abs().max()) for info in seen]
    assert len(sizes) == 4 and max(sizes) <= most and sizes[0] > 0.9 * most


def test_pixels_are_encoded_as_images_are(clip):
    levels = (random_images(2) * 255).round() / 255  # what an image file holds
    torch.testing.assert_close(
        clip.adapter.encode_pixels(levels.movedim(-1, 1)), clip.adapter.encode_image(levels), rtol=0, atol=1e-4
    )


def similarity(clip, images, wanted):
    return float((normalize(clip.adapter.encode_image(images)) * normalize(wanted)).sum(1).mean())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_guidance_raises_clips_similarity_inside_inference_mode_too(mode):
    with mode():
        decoder, clip = make_decoder(), make_clip()  # weights as a loader node makes them
        wanted, seen = embeds(1) * 1.0, embeds(1) + 0.0
        settings = {"seeds": [3], "steps": 6, "guidance_scale": 1.0, "sampler": "ddim"}
        free = pipelines.sample_decoder(decoder, seen, **settings)
        none = editing.guided_decoder(decoder, clip, wanted, 0.0, seen, **settings)
        toward, away = (editing.guided_decoder(decoder, clip, wanted, s, seen, **settings) for s in (1e4, -1e4))
        again = pipelines.sample_decoder(decoder, seen, **settings)
        torch.testing.assert_close(none, free, rtol=0, atol=1e-5)
        ranks = [similarity(clip, images, wanted) for images in (away, free, toward)]
        assert ranks[0] + 5e-4 < ranks[1] < ranks[2] - 5e-4
        assert torch.equal(free, again)
    assert not any(parameter.requires_grad for parameter in decoder.net.parameters())


def test_guidance_works_on_any_kind_of_net_sampler_and_start(any_decoder, clip):
    start = torch.randn(1, 3, SIDE, SIDE)
    for sampler in ("dpmpp_2m", "ddpm"):
        with torch.inference_mode():
            drawn = editing.guided_decoder(
                any_decoder, clip, embeds(1), 5.0, embeds(2), seeds=[1, 2], start=start + 0, sampler=sampler, **DRAW
            )
        assert drawn.shape == (2, SIDE, SIDE, 3) and torch.isfinite(drawn).all()
    with pytest.raises(ValueError, match="texts to guide toward are 13 numbers wide"):
        editing.guided_decoder(any_decoder, clip, torch.ones(1, 13), 5.0, embeds(2), seeds=[1, 2], **DRAW)
    with pytest.raises(ValueError, match="3 texts"):
        editing.guided_decoder(any_decoder, clip, embeds(3), 5.0, embeds(2), seeds=[1, 2], **DRAW)


def test_weights_of_inference_mode_are_put_back():
    with torch.inference_mode():
        layer = torch.nn.Linear(3, 3)
        x = torch.ones(2, 3)
        with enable_gradients(layer):
            inside = layer.weight
            assert not inside.is_inference() and not inside.requires_grad
            layer(to_normal_tensors(x).requires_grad_(True)).sum().backward()
        assert layer.weight is not inside and layer.weight.is_inference()
        assert to_normal_tensors(x) is x


# ---- ascent ----


@pytest.mark.parametrize("start", [None, random_images(2, 20, 28)])
def test_the_ascent_raises_the_similarity(clip, start):
    wanted = embeds(2)
    with torch.inference_mode():
        seen, ascent = [], Ascent(steps=12, cutouts=4, learning_rate=0.1)
        found = editing.optimise_images(
            clip, wanted + 0, ascent, seeds=[1, 2], images=start, size=(20, 28), on_step=seen.append
        )
    assert found.shape == (2, 20, 28, 3) and 0 <= found.min() and found.max() <= 1
    assert [info.index for info in seen] == list(range(12)) and seen[0].x0.shape == (2, 3, 20, 28)
    before = (
        start
        if start is not None
        else editing.optimise_images(
            clip, wanted, Ascent(steps=1, cutouts=1, learning_rate=1e-9), seeds=[1, 2], size=(20, 28)
        )
    )
    assert similarity(clip, found, wanted) > similarity(clip, before, wanted) + 0.01


def test_an_image_climbs_alone_as_in_a_batch(clip):
    both = editing.optimise_images(clip, embeds(2), Ascent(steps=2, cutouts=2), seeds=[1, 2], size=(16, 16))
    one = editing.optimise_images(clip, embeds(2)[1:], Ascent(steps=2, cutouts=2), seeds=[2], size=(16, 16))
    torch.testing.assert_close(both[1:], one, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (16, 16)])
def test_cutouts_are_squares_of_the_image_at_clips_size(size):
    ascent = Ascent(cutouts=5, jitter=0.0, smallest_cut=0.3)
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    cuts = cutouts(x, 8, ascent, NoiseSource([1, 2]))
    assert cuts.shape == (10, 3, 8, 8)
    for row, cut in enumerate(cuts):
        own = x[row // 5]
        assert own.min() - 1e-5 <= cut.min() and cut.max() <= own.max() + 1e-5


def test_flat_images_have_flat_cutouts_of_all_places():
    """An image of which each half has a colour: some cutouts see one, some the other, some both."""
    x = torch.zeros(1, 3, 32, 32)
    x[..., 16:] = 1
    means = cutouts(x, 8, Ascent(cutouts=64, jitter=0.0, smallest_cut=0.3), NoiseSource([1])).mean(dim=(1, 2, 3))
    assert means.min() < 0.05 and means.max() > 0.95 and ((means > 0.3) & (means < 0.7)).any()


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"cutouts": 0},
        {"learning_rate": math.nan},
        {"learning_rate": 0.0},
        {"smoothness": -1.0},
        {"smoothness": math.nan},
        {"smallest_cut": 0.0},
    ],
)
def test_bad_numbers_of_an_ascent_are_refused(bad):
    with pytest.raises(ValueError, match="ascent|rate|smoothness|cutout"):
        Ascent(**bad)


def test_an_ascent_wants_a_seed_and_an_image_for_each_text(clip):
    with pytest.raises(ValueError, match="seeds"):
        editing.optimise_images(clip, embeds(2), Ascent(), seeds=[1])
    with pytest.raises(ValueError, match="images"):
        editing.optimise_images(clip, embeds(2), Ascent(), seeds=[1, 2], images=random_images(1))
