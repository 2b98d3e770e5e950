"""Kandinsky 2.2's four ways to draw, against diffusers' pipelines with the same random weights and noise."""

import factories
import kandinsky_oracle as oracle
import pytest
import torch

from unclip.unclip_core import pipelines
from unclip.unclip_core.diffusion.noise import FixedNoise
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.pipelines.canvas import Canvas
from unclip.unclip_core.pipelines.editing import inpaint_decoder
from unclip.unclip_core.pipelines.masked import grown, inpaint_masked, latent_hole

STEPS, SCALE = 6, 2.0
SCHEDULERS = {
    "published": {},
    "clipped": {"clip_sample": True},
    "learned variance": {"variance_type": "learned_range", "steps_offset": 0},
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """diffusers' pipeline and our model of the same folder, by what the UNet reads beside the latents."""
    place = tmp_path_factory.mktemp("kandinsky")
    pipes = {beside: oracle.pipeline(beside) for beside in oracle.PIPELINES}
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    return {key: (pipe, load_model(oracle.write(place / str(key), pipe)).decoder) for key, pipe in pipes.items()}


def with_scheduler(pipe, tmp_path, **changes):
    import diffusers

    pipe = type(pipe)(**pipe.components)
    pipe.scheduler = diffusers.DDPMScheduler(**oracle.DDPM | changes)
    pipe.set_progress_bar_config(disable=True)
    return pipe, load_model(oracle.write(tmp_path / "model", pipe)).decoder


def theirs(pipe, steps=STEPS, seed=21, **more):
    """Images of diffusers' pipeline as ours are: `[B, H, W, 3]` in 0..1."""
    embeds, negative = oracle.embeds()
    more = {"guidance_scale": SCALE, "output_type": "pt", "generator": torch.Generator().manual_seed(seed)} | more
    out = pipe(image_embeds=embeds, negative_image_embeds=negative, num_inference_steps=steps, **more).images
    return out.movedim(1, -1) if "strength" in more else pipelines.to_images(out)  # image to image gives 0..1 itself


def ours(decoder, noise, steps=STEPS, scale=SCALE, **more):
    embeds, negative = oracle.embeds()
    return pipelines.sample_decoder(
        decoder, embeds, seeds=[0, 0], steps=steps, guidance_scale=scale, noise=FixedNoise(noise),
        negative_embeds=negative, **more,
    )  # fmt: skip


def near(drawn, reference):
    """Random nets enlarge rounding a hundredfold in places; a mistake shows in the mean."""
    difference = (drawn - reference).abs()
    return float(difference.mean()) < 1e-5 and float(difference.max()) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULERS)
def test_text_to_image(pairs, tmp_path, name):
    pipe, decoder = with_scheduler(pairs[None][0], tmp_path, **SCHEDULERS[name])
    drawn = ours(decoder, oracle.draws(STEPS, 2, 8, 16), canvas=Canvas(size=(64, 128)))
    reference = theirs(pipe, height=64, width=128)
    assert drawn.shape == (2, 64, 128, 3)
    assert near(drawn, reference)
    assert (drawn - drawn.mean((1, 2), keepdim=True)).abs().max() > 0.1


def test_without_guidance(pairs):
    pipe, decoder = pairs[None]
    drawn = ours(decoder, oracle.draws(STEPS, 2), scale=1.0)
    assert near(drawn, theirs(pipe, height=64, width=64, guidance_scale=1.0))


def test_sizes_are_rounded_up_and_cropped_back(pairs):
    """diffusers gives the size that it rounds to."""
    _, decoder = pairs[None]
    drawn = ours(decoder, oracle.draws(STEPS, 2, 2, 8), canvas=Canvas(size=(9, 50)))
    assert drawn.shape == (2, 9, 50, 3)
    whole = ours(decoder, oracle.draws(STEPS, 2, 2, 8), canvas=Canvas(size=(16, 64)))
    assert torch.equal(drawn, whole[:, :9, :50])


def test_image_to_image(pairs):
    """diffusers hands width and height to what takes height and width: they are swapped here."""
    import diffusers

    pipe, decoder = pairs[None]
    redraw = diffusers.KandinskyV22Img2ImgPipeline(**pipe.components)
    redraw.set_progress_bar_config(disable=True)
    images = torch.rand(2, 64, 128, 3, generator=torch.Generator().manual_seed(4))
    steps, strength = 10, 0.5
    pictures = [image.movedim(-1, 0)[None] for image in images]
    reference = theirs(redraw, steps, image=pictures, strength=strength, height=128, width=64)
    drawn = ours(decoder, oracle.draws(5, 2, 8, 16), steps, canvas=Canvas(images=images, strength=strength))
    assert near(drawn, reference)


def test_controlnet(pairs):
    pipe, decoder = pairs["hint"]
    hint = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    drawn = ours(decoder, oracle.draws(STEPS, 2), canvas=Canvas(hint=hint))
    assert near(drawn, theirs(pipe, hint=hint.movedim(-1, 1), height=64, width=64))
    one = ours(decoder, oracle.draws(STEPS, 2), canvas=Canvas(hint=hint[:1]))
    assert near(one[0], drawn[0]) and (one[1] - drawn[1]).abs().mean() > 1e-3


def test_inpainting(pairs):
    """diffusers keeps the first picture of a batch in all of them: here are two of one."""
    pipe, decoder = pairs["masked"]
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(1, 64, 128, 3, generator=generator).expand(2, -1, -1, -1)
    mask = torch.zeros(1, 64, 128)
    mask[:, 20:47, 33:70] = 1
    mask = mask.expand(2, -1, -1)
    pictures, holes = images.movedim(-1, 1) * 2 - 1, mask[:, None].clone()
    reference = theirs(pipe, image=pictures, mask_image=holes, height=64, width=128)
    embeds, negative = oracle.embeds()
    settings = {"seeds": [0, 0], "steps": STEPS, "guidance_scale": SCALE, "negative_embeds": negative}
    drawn = inpaint_masked(
        decoder, images, mask, embeds, noise=FixedNoise(oracle.draws(STEPS, 2, 8, 16)), compatible=True, **settings
    )
    assert near(drawn, reference)
    kept = inpaint_decoder(decoder, images, mask, embeds, **settings)
    assert torch.equal(kept[:, :20], images[:, :20]) and not torch.equal(kept[:, 20:40, 40:60], images[:, 20:40, 40:60])


def test_each_picture_of_a_batch_is_kept_and_filled_by_its_own_mask(pairs):
    _, decoder = pairs["masked"]
    images = torch.rand(2, 64, 50, 3, generator=torch.Generator().manual_seed(4))
    mask = torch.zeros(2, 64, 50)
    mask[0, :30], mask[1, 40:] = 1, 1
    embeds, negative = oracle.embeds()
    settings = {"steps": 3, "guidance_scale": 2.0}
    both = inpaint_decoder(decoder, images, mask, embeds, seeds=[5, 6], negative_embeds=negative, **settings)
    assert both.shape == images.shape
    assert torch.equal(both[0, 30:], images[0, 30:]) and torch.equal(both[1, :40], images[1, :40])
    alone = inpaint_decoder(
        decoder, images[1:], mask[1:], embeds[1:], seeds=[6], negative_embeds=negative[1:], **settings
    )
    assert (alone[0] - both[1]).abs().max() < 1e-4


def test_the_hole_on_the_grid_is_diffusers(pairs):
    from diffusers.pipelines.kandinsky2_2.pipeline_kandinsky2_2_inpainting import prepare_mask

    for seed in range(10):
        keep = (torch.rand(1, 1, 9, 12, generator=torch.Generator().manual_seed(seed)) > 0.1).float()
        assert torch.equal(1 - grown(1 - keep), prepare_mask(keep.clone()))
    _, decoder = pairs["masked"]
    mask = torch.zeros(1, 64, 64)
    mask[0, 21, 30] = 1
    assert latent_hole(mask, decoder, compatible=True).sum() == 0
    assert latent_hole(mask, decoder).nonzero()[:, 2:].tolist() == [
        [1, 2], [1, 3], [2, 2], [2, 3], [2, 4], [3, 3], [3, 4],
    ]  # fmt: skip


def test_repaint_fills_a_hole_with_a_decoder_for_text_to_image(pairs):
    _, decoder = pairs[None]
    images = torch.rand(1, 70, 33, 3, generator=torch.Generator().manual_seed(4))
    mask = torch.zeros(1, 70, 33)
    mask[:, 30:40] = 1
    embeds, negative = oracle.embeds(1)
    drawn = inpaint_decoder(decoder, images, mask, embeds, seeds=[1], steps=3, negative_embeds=negative)
    assert torch.equal(drawn[:, :30], images[:, :30]) and not torch.equal(drawn[:, 30:40], images[:, 30:40])


def test_what_does_not_fit_is_refused_in_words(pairs):
    embeds, negative = oracle.embeds()
    draw = {"seeds": [0, 0], "steps": 2, "negative_embeds": negative}
    pictures = torch.zeros(2, 64, 64, 3)
    for beside, canvas, said in (
        ("masked", None, "trained for inpainting alone"),
        ("hint", None, "give it a hint"),
        (None, Canvas(hint=pictures), "reads no hint"),
        (None, Canvas(images=pictures, strength=0.1), "leaves none of 2 steps: take at least 0.5"),
        (None, Canvas(size=(8, 5000)), "1 to 4096 px"),
        (None, Canvas(images=torch.zeros(3, 64, 64, 3)), "3 images do not go with 2 image embeddings"),
    ):
        with pytest.raises(ValueError, match=said):
            pipelines.sample_decoder(pairs[beside][1], embeds, canvas=canvas, **draw)
    with pytest.raises(ValueError, match="1 × 2 and 64 × 64 px"):
        Canvas(size=(2, 1), images=pictures)
    with pytest.raises(ValueError, match="strength must be above 0"):
        Canvas(strength=0)
    with pytest.raises(ValueError, match="embedding of an empty picture"):
        pipelines.sample_decoder(pairs[None][1], embeds, seeds=[0, 0], steps=2)


def test_a_run_with_no_strength_lost_is_a_run_from_noise_alone(pairs):
    """Where int() of diffusers makes 28 of 0.29 of 100 steps, ours makes 29."""
    _, decoder = pairs[None]
    plan = decoder.diffusion.steps(100)
    images = factories.draw(1, 64, 64, 3).clamp(0, 1)
    assert len(Canvas(images=images, strength=0.29).plan(plan)) == 29
    assert len(Canvas(images=images, strength=1.0).plan(plan)) == 100 == len(Canvas(strength=0.1).plan(plan))
