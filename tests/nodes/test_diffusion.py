"""Inversion, inpainting, outpainting, film, chain, CLIP's gradient: what the nodes make, keep and refuse."""

import math

import pytest
import torch
from torch.nn import functional

from unclip import NODE_CLASS_MAPPINGS
from unclip.cli.headless.stock import STOCK_NODES
from unclip.nodes import host, teaching
from unclip.nodes.inputs import InputError
from unclip.nodes.sockets import EmbeddingValue, FamilyError, NoiseValue
from unclip.unclip_core import pipelines
from unclip.unclip_core.diffusion.noise import NoiseSource
from unclip.unclip_core.models import DECODER_SETTINGS
from unclip.unclip_core.pipelines import editing

SIDE, WIDTH = 16, 16


def said(node_id, *values, **widgets):
    """What a node returns, under inference mode as in ComfyUI."""
    node = {**STOCK_NODES, **NODE_CLASS_MAPPINGS}[node_id]
    with torch.inference_mode():
        return getattr(node(), node.FUNCTION)(*values, **widgets)


def run(node_id, *values, **widgets):
    """All outputs of a node."""
    returned = said(node_id, *values, **widgets)
    return returned["result"] if isinstance(returned, dict) else returned


def core(pipeline, *values):
    """What `pipeline(*parts)` of the core gives with the parts where a node has them: in its dtype, on its device."""
    with host.loaded_together(*values) as parts:
        return pipeline(*parts).cpu()


def there(value):
    """A tensor on the device that nodes run on."""
    return value.to(host.device())


def images(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def embedding(count=1, family="test"):
    return EmbeddingValue(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(2)), family, "prior")


@pytest.fixture(scope="module")
def text(mine):
    return run("UnclipTextEncode", mine.clip, "a red circle")[0]


def resized(image, height, width):
    """Bicubic, antialiased, kept within 0..1."""
    size = (height, width)
    if image.shape[1:3] == size:
        return image
    planes = functional.interpolate(image.movedim(-1, 1), size, mode="bicubic", align_corners=False, antialias=True)
    return planes.clamp(0, 1).movedim(1, -1)


def half(height, width):
    mask = torch.zeros(1, height, width)
    mask[:, :, width // 2 :] = 1
    return mask


# ---- inversion and its socket ----


def test_inversion_hands_its_widgets_to_the_core_and_the_noise_to_the_decoder(mine):
    image, settings = images(2, SIDE, SIDE, 3), {"steps": 3, "guidance_scale": 1.5}
    noise, seen = run("UnclipDdimInversion", mine.decoder, embedding(), image, iterations=2, **settings)
    expected = editing.invert_decoder(
        mine.decoder.part, image, embedding().embeds.expand(2, -1), iterations=2, **settings
    )
    torch.testing.assert_close(noise.noise, expected.noise, rtol=0, atol=1e-5)
    torch.testing.assert_close(noise.error, expected.error)
    assert noise.family == "test" and torch.equal(seen, image)
    drawn = run("UnclipDecoderSample", mine.decoder, embedding(2), noise=noise, sampler="ddim", **settings)[0]
    own = pipelines.sample_decoder(
        mine.decoder.part,
        embedding(2).embeds,
        seeds=[0, 0],
        start=noise.noise,
        start_error=noise.error,
        sampler="ddim",
        **settings,
    )
    torch.testing.assert_close(drawn, own, rtol=0, atol=1e-5)


def test_the_error_of_a_noise_goes_with_each_of_its_images(mine):
    noise = run("UnclipDdimInversion", mine.decoder, embedding(2), images(2, SIDE, SIDE, 3), steps=3)[0]
    settings = {"sampler": "ddim", "steps": 3, "guidance_scale": 1.0}
    drawn = run("UnclipDecoderSample", mine.decoder, embedding(2), noise=noise, batch_size=2, **settings)[0]
    for i in (0, 1):
        row = NoiseValue(noise.noise[[i]], "test", noise.error[[i]])
        one = EmbeddingValue(embedding(2).embeds[[i]], "test", "image")
        alone = run("UnclipDecoderSample", mine.decoder, one, noise=row, **settings)[0]
        torch.testing.assert_close(drawn[2 * i : 2 * i + 2], alone.expand(2, -1, -1, -1), rtol=0, atol=1e-4)


def test_an_image_of_another_size_is_made_the_decoders_square(mine):
    """The shorter edge to SIDE px, and the middle of the longer one; what is transparent is white."""
    rgba = images(1, 40, 25, 4)
    noise, seen = run("UnclipDdimInversion", mine.decoder, embedding(), rgba, steps=2, iterations=1)
    white = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    square = resized(white, 26, SIDE)[:, 5 : 5 + SIDE]
    torch.testing.assert_close(seen, square, rtol=0, atol=1e-6)
    expected = editing.invert_decoder(mine.decoder.part, square, embedding().embeds, steps=2)
    torch.testing.assert_close(noise.noise, expected.noise, rtol=0, atol=1e-4)


def test_auto_draws_an_image_again_as_its_noise_was_found(mine):
    """Steps and guidance of the inversion, and ddim; between two noises of different settings, the model's own."""
    found = [
        run("UnclipDdimInversion", mine.decoder, embedding(), images(1, SIDE, SIDE, 3), steps=steps, guidance_scale=2.0)
        for steps in (3, 4)
    ]
    noise = found[0][0]
    drawn = said("UnclipDecoderSample", mine.decoder, embedding(), noise=noise)
    assert drawn["ui"]["text"] == ["3 steps, guidance 2, ddim: as the noise was found"]
    explicit = {"steps": 3, "guidance_scale": 2.0, "sampler": "ddim"}
    same = run("UnclipDecoderSample", mine.decoder, embedding(), noise=noise, **explicit)[0]
    assert torch.equal(drawn["result"][0], same)
    between = run("UnclipNoiseInterpolate", noise, noise, frames=2)[0]
    assert between.found_with == noise.found_with
    mixed = run("UnclipNoiseInterpolate", noise, found[1][0], frames=2)[0]
    assert mixed.found_with is None


def test_one_noise_serves_every_embedding_and_image(mine):
    noise = NoiseValue(images(1, 3, SIDE, SIDE), "test")
    drawn = run("UnclipDecoderSample", mine.decoder, embedding(2), steps=2, batch_size=2, noise=noise)[0]
    assert torch.equal(drawn[0], drawn[1]) and (drawn[0] - drawn[2]).abs().max() > 1e-3
    varied = run(
        "UnclipDecoderSample", mine.decoder, embedding(1), steps=2, batch_size=2, noise=noise, sampler="ddim", eta=1.0
    )[0]
    assert (varied[0] - varied[1]).abs().max() > 1e-3


def test_noise_that_does_not_fit_is_refused(mine):
    with pytest.raises(FamilyError, match="'another'"):
        run("UnclipDecoderSample", mine.decoder, embedding(), noise=NoiseValue(images(1, 3, SIDE, SIDE), "another"))
    with pytest.raises(InputError, match="3 noises do not fit 2 embeddings"):
        run("UnclipDecoderSample", mine.decoder, embedding(2), noise=NoiseValue(images(3, 3, SIDE, SIDE), "test"))


def test_embeddings_may_have_noise_of_their_own(mine):
    """The first has the shared one; the second's depends on its place, not on the batch before it."""
    twice = EmbeddingValue(embedding().embeds.expand(2, -1), "test", "prior")
    shared = run("UnclipDecoderSample", mine.decoder, twice, seed=5, steps=2)[0]
    own = run("UnclipDecoderSample", mine.decoder, twice, seed=5, steps=2, embedding_noise="own")[0]
    assert torch.equal(shared[0], shared[1]) and (own[0] - own[1]).abs().max() > 1e-3
    torch.testing.assert_close(own[0], shared[0], rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="'embedding_noise' must be one of shared, own"):
        run("UnclipDecoderSample", mine.decoder, twice, embedding_noise="odd")


@pytest.mark.parametrize(
    ("widgets", "words"),
    [
        ({"steps": -1}, "'steps' is -1"),
        ({"iterations": 0}, "'iterations' is 0"),
        ({"guidance_scale": math.nan}, "guid"),
    ],
)
def test_inversion_refuses(mine, widgets, words):
    with pytest.raises(InputError, match=words):
        run("UnclipDdimInversion", mine.decoder, embedding(), images(1, SIDE, SIDE, 3), **widgets)
    with pytest.raises(InputError, match="3 of 'image', 2 of 'embedding'"):
        run("UnclipDdimInversion", mine.decoder, embedding(2), images(3, SIDE, SIDE, 3))


# ---- inpainting and outpainting ----


FILL = {"steps": 2, "resamples": 1}


def test_inpaint_keeps_the_rest_to_the_bit(mine):
    image, mask = images(2, SIDE, SIDE, 3), half(SIDE, SIDE)
    filled = run("UnclipInpaint", mine.decoder, embedding(), image, mask, seed=4, **FILL)[0]
    assert torch.equal(filled[:, :, : SIDE // 2], image[:, :, : SIDE // 2])
    assert (filled - image)[:, :, SIDE // 2 :].abs().mean() > 0.01
    expected = editing.inpaint_decoder(
        mine.decoder.part,
        image,
        mask,
        embedding().embeds.expand(2, -1),
        seeds=[4, 5],
        guidance_scale=DECODER_SETTINGS.guidance_scale,
        **FILL,
    )
    torch.testing.assert_close(filled, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "result"), [((40, 24), (27, 16)), ((16, 50), (16, 50)), ((5, 5), (16, 16))])
def test_inpaint_gives_images_of_any_size_back_in_that_size(mine, size, result):
    """It draws where the shorter edge has SIDE px; of that image all is kept that no masked pixel has a part in."""
    image = images(1, *size, 3)
    whole, filled = run("UnclipInpaint", mine.decoder, embedding(), image, half(*size), seed=4, **FILL)
    assert whole.shape == image.shape
    assert torch.equal(whole[:, :, : size[1] // 2], image[:, :, : size[1] // 2])
    drawn_part = resized(filled, *size)[:, :, size[1] // 2 :]
    torch.testing.assert_close(whole[:, :, size[1] // 2 :], drawn_part, rtol=0, atol=1e-6)
    assert filled.shape == (1, *result, 3)
    expected, first = resized(image, *result), size[1] // 2 * result[1] // size[1]
    assert torch.equal(filled[:, :, :first], expected[:, :, :first])
    assert (filled - expected)[:, :, first + 1 :].abs().mean() > 0.01


def test_a_mask_in_other_pixels_but_of_the_same_shape_fits(mine):
    image = images(1, SIDE, SIDE, 3)
    for mask in (half(64, 64), half(8, 8), half(SIDE, SIDE)[0], half(SIDE, SIDE)[None]):
        filled = run("UnclipInpaint", mine.decoder, embedding(), image, mask, **FILL)[0]
        assert torch.equal(filled[:, :, : SIDE // 2], image[:, :, : SIDE // 2])


def test_an_empty_mask_is_said_and_a_full_one_draws_all(mine, caplog):
    """ComfyUI gives a 64 x 64 mask of zeros where an image has none, whatever the image's size."""
    image = images(1, SIDE, 2 * SIDE, 3)
    assert torch.equal(run("UnclipInpaint", mine.decoder, embedding(), image, torch.zeros(1, 64, 64), **FILL)[0], image)
    assert "The mask is empty: the image stays as it is." in caplog.messages
    full = run("UnclipInpaint", mine.decoder, embedding(), image, torch.ones(1, SIDE, 2 * SIDE), **FILL)[0]
    assert (full - image).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("mask", "widgets", "words"),
    [
        (half(SIDE, 2 * SIDE), {}, "32 × 16 pixels, the image 16 × 16"),
        (torch.full((1, SIDE, SIDE), math.nan), {}, "mask holds NaN"),
        (torch.zeros(0, SIDE, SIDE), {}, "mask is empty: its shape"),
        (torch.ones(1, 2, SIDE, SIDE), {}, "mask must be a batch"),
        (None, {}, "mask must be a batch"),
        (half(SIDE, SIDE), {"steps": -1}, "'steps' is -1"),
        (half(SIDE, SIDE), {"resamples": 0}, "'resamples' is 0"),
        (half(SIDE, SIDE), {"guidance_scale": math.nan}, "'guidance_scale'"),
        (half(SIDE, SIDE).expand(2, -1, -1), {}, "3 of 'image', 2 of 'mask'"),
    ],
)
def test_inpaint_refuses(mine, mask, widgets, words):
    count = 3 if "3 of" in words else 1
    with pytest.raises(InputError, match=words):
        run("UnclipInpaint", mine.decoder, embedding(), images(count, SIDE, SIDE, 3), mask, **widgets)


def test_outpaint_adds_its_margins_and_keeps_the_image(mine):
    image = images(1, 2 * SIDE, 2 * SIDE, 3)  # twice the decoder's scale
    margins = {"left": 9, "top": 0, "right": 20, "bottom": 3}
    whole, known, mask, drawn = run("UnclipOutpaint", mine.decoder, embedding(), image, **margins, **FILL)
    assert whole.shape == known.shape
    assert torch.equal(whole[:, : 2 * SIDE, 18 : 18 + 2 * SIDE], image)
    assert (whole - known)[:, 2 * SIDE :].abs().mean() > 0.01
    assert drawn.shape == (1, SIDE + 3, SIDE + 29, 3)
    small, _ = editing.fit_image(image, None, SIDE)
    assert torch.equal(drawn[:, :SIDE, 9 : 9 + SIDE], small)
    assert known.shape == (1, 2 * SIDE + 6, 2 * SIDE + 58, 3) and mask.shape == (1, 2 * SIDE + 6, 2 * SIDE + 58)
    assert torch.equal(known[:, : 2 * SIDE, 18 : 18 + 2 * SIDE], image)
    inside = torch.zeros_like(mask, dtype=torch.bool)
    inside[:, : 2 * SIDE, 18 : 18 + 2 * SIDE] = True
    assert bool((mask[inside] == 0).all()) and bool((mask[~inside] == 1).all())


@pytest.mark.parametrize(
    ("margins", "words"),
    [
        ({"left": 0, "top": 0, "right": 0, "bottom": 0}, "All margins are 0"),
        ({"left": -1}, "'left' is -1"),
        ({"top": 5000}, "'top' is 5,000"),
        ({"left": 2000, "top": 2000}, "squares of 16 × 16 are the most"),
        ({"steps": -1}, "'steps' is -1"),
    ],
)
def test_outpaint_refuses(mine, margins, words):
    with pytest.raises(InputError, match=words):
        run("UnclipOutpaint", mine.decoder, embedding(), images(1, SIDE, SIDE, 3), **margins)


@pytest.mark.gpu
def test_two_upscales_in_a_row_take_the_two_nets_of_one_loader(mine, with_second):
    """The second node goes through the second net, whatever the images' shape; a model without one uses its first."""
    upscaler = with_second.upsampler
    small = images(1, SIDE, SIDE + 4, 3)
    middle = run("UnclipUpscale", upscaler, small, seed=3, steps=2)[0]
    large = run("UnclipUpscale", upscaler, middle, seed=3, steps=2)[0]
    assert large.shape == (1, 16 * SIDE, 16 * (SIDE + 4), 3)
    settings = {"seeds": [3], "steps": 2, "sampler": "ddim"}
    first, second = upscaler.part, upscaler.part.second

    def upscaled(image, value=upscaler, net=lambda part: part):
        return core(lambda part: pipelines.upscale(net(part), there(image), **settings), value)

    torch.testing.assert_close(middle, upscaled(small), rtol=0, atol=1e-6)
    torch.testing.assert_close(large, upscaled(middle, net=lambda part: part.second), rtol=0, atol=1e-6)
    assert (large - upscaled(middle)).abs().max() > 0.1
    assert {id(p) for p in second.net.parameters()} < {id(p) for p in first.module.parameters()}
    plain = run("UnclipUpscale", mine.upsampler, middle, seed=3, steps=2)[0]
    torch.testing.assert_close(plain, upscaled(middle, mine.upsampler), rtol=0, atol=1e-6)


def test_upscale_keeps_known_pixels_at_full_size(mine):
    small, known, mask = images(2, 8, 10, 3), images(1, 32, 40, 3), half(32, 40)
    large = run("UnclipUpscale", mine.upsampler, small, steps=1, known=known, mask=mask)[0]
    assert torch.equal(large[:, :, :20], known[:, :, :20].expand(2, -1, -1, -1))
    assert (large[:, :, 20:] - known[:, :, 20:]).abs().mean() > 0.01
    resized = run("UnclipUpscale", mine.upsampler, small, steps=1, known=images(1, 16, 20, 3), mask=half(64, 80))[0]
    assert resized.shape == (2, 32, 40, 3)


def test_known_pixels_without_a_mask_are_let_go_and_that_is_said(mine, caplog):
    """As behind a bypassed Outpaint, which hands on the image and has no mask."""
    small, known = images(1, 8, 8, 3), images(1, 32, 32, 3)
    plain = run("UnclipUpscale", mine.upsampler, small, steps=1)[0]
    assert torch.equal(run("UnclipUpscale", mine.upsampler, small, steps=1, known=known)[0], plain)
    assert caplog.messages == ["'known' came without 'mask', which says where to keep it: nothing of it is kept."]


def bypassed(node_id, slot):
    """Which input ComfyUI's canvas hands on from a bypassed node: that of the slot, else the first of its type."""
    node = NODE_CLASS_MAPPINGS[node_id]
    kinds = node.INPUT_TYPES()
    inputs = [(name, spec[0]) for group in ("required", "optional") for name, spec in kinds.get(group, {}).items()]
    own = [inputs[slot]] if slot < len(inputs) else []
    return next((name for name, kind in [*own, *inputs] if kind == node.RETURN_TYPES[slot]), None)


@pytest.mark.parametrize(
    ("node_id", "handed_on"),
    [
        ("UnclipInpaint", ["image", "image"]),
        ("UnclipOutpaint", ["image", "image", None, "image"]),
        ("UnclipRerank", ["image", None]),
        ("UnclipUpscale", ["image"]),
    ],
)
def test_a_bypassed_node_hands_on_its_image(node_id, handed_on):
    assert [bypassed(node_id, slot) for slot in range(len(handed_on))] == handed_on


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"mask": half(32, 32)}, "go together"),
        ({"known": images(1, 32, 64, 3), "mask": half(32, 64)}, "differ in shape"),
        ({"known": images(1, 32, 32, 3), "mask": half(32, 64)}, "64 × 32 pixels, the image 32 × 32"),
        ({"known": images(2, 32, 32, 3), "mask": half(32, 32)}, "more known images"),
        ({"known": images(1, 32, 32, 3) * math.nan, "mask": half(32, 32)}, "NaN"),
    ],
)
def test_upscale_refuses_known_pixels_that_do_not_fit(mine, more, words):
    with pytest.raises(InputError, match=words):
        run("UnclipUpscale", mine.upsampler, images(1, 8, 8, 3), steps=1, **more)


def test_the_stock_masks_do_as_comfyuis(mine):
    nothing, some = run("SolidMask", 0.0, 6, 4)[0], run("SolidMask", 1.0, 3, 9)[0]
    laid = run("MaskComposite", nothing, some, 4, 1, "add")[0]
    assert laid.shape == (1, 4, 6) and torch.equal(laid[0, 1:, 4:], torch.ones(3, 2)) and laid.sum() == 6
    assert run("MaskComposite", laid, some, 0, 0, "multiply")[0].sum() == 6 and laid.sum() == 6
    assert run("MaskComposite", laid, run("SolidMask", 1.0, 6, 4)[0], 0, 0, "xor")[0].sum() == 18


# ---- the chain and the film ----


def test_forward_diffusion_shows_its_timesteps(mine):
    image = images(2, SIDE, SIDE, 3)
    strip, frames, plot = run("UnclipForwardDiffusion", mine.decoder, image, timesteps="0, 500;999 0")
    assert frames.shape == (6, SIDE, SIDE, 3) and strip.shape == (1, 18 + 2 * SIDE, 3 * SIDE, 3)
    torch.testing.assert_close(frames[0], image[0], rtol=0, atol=0.1)  # hardly any noise at t = 0
    assert (frames[2] - image[0]).abs().mean() > 0.2
    torch.testing.assert_close(strip[0, 18 : 18 + SIDE, :SIDE], frames[0])
    assert plot.shape[0] == 1 and plot.std() > 0.05


@pytest.mark.parametrize("timesteps", ["", "x", "-1", "1000", "1.5", "5,, five", None, "²", "9" * 5000])
def test_forward_diffusion_refuses(mine, timesteps):
    with pytest.raises(InputError, match="'timesteps'"):
        run("UnclipForwardDiffusion", mine.decoder, images(1, SIDE, SIDE, 3), timesteps=timesteps)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddpm"])
def test_the_film_is_that_of_decoder_samples_own_run(mine, sampler):
    settings = {"seed": 6, "steps": 5, "sampler": sampler}
    strip, states, guesses, image = run("UnclipDenoisingFilm", mine.decoder, embedding(2), every=2, **settings)
    drawn = run("UnclipDecoderSample", mine.decoder, embedding(2), **settings)[0]
    torch.testing.assert_close(image, drawn, rtol=0, atol=1e-5)
    frames = 4  # steps 0, 2, 4, and the end
    assert states.shape == guesses.shape == (2 * frames, SIDE, SIDE, 3)
    assert strip.shape == (1, 18 + 4 * SIDE, frames * SIDE, 3)
    start = pipelines.to_images(NoiseSource([6], "decoder").normal((3, SIDE, SIDE)))[0]
    torch.testing.assert_close(states[0], start)
    torch.testing.assert_close(states[frames - 1], image[0])
    torch.testing.assert_close(strip[0, 18 : 18 + SIDE, :SIDE], states[0])
    torch.testing.assert_close(strip[0, 18 + SIDE : 18 + 2 * SIDE, :SIDE], guesses[0])


@pytest.mark.parametrize(
    ("widgets", "words"), [({"every": 0}, "'every' is 0"), ({"steps": -1}, "'steps'"), ({"eta": math.nan}, "'eta'")]
)
def test_the_film_refuses(mine, widgets, words):
    with pytest.raises(InputError, match=words):
        run("UnclipDenoisingFilm", mine.decoder, embedding(), **widgets)


class Full:
    """A function in a memory that so many rows fill: those of its argument number `place`."""

    def __init__(self, call, rows, place=0):
        self.call, self.rows, self.place, self.seen = call, rows, place, []

    def __call__(self, *values, **named):
        asked = len(values[self.place])
        self.seen.append(asked)
        if asked > self.rows:
            raise torch.OutOfMemoryError(f"{asked} rows do not fit")
        return self.call(*values, **named)


@pytest.mark.parametrize("where", ["net", "frames"])
def test_a_film_that_does_not_fit_is_halved_and_the_same(mine, where, monkeypatch, caplog):
    settings = {"seed": 6, "steps": 3, "guidance_scale": 1.0, "every": 2}
    whole = run("UnclipDenoisingFilm", mine.decoder, embedding(5), **settings)
    of = (mine.decoder.part.net, "forward") if where == "net" else (teaching, "to_images")
    full = Full(getattr(*of), 2)
    monkeypatch.setattr(*of, full)
    halved = run("UnclipDenoisingFilm", mine.decoder, embedding(5), **settings)
    assert {5, 3, 2, 1} == set(full.seen)
    for ours, expected in zip(halved, whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert [message for message in caplog.messages if "out of memory" in message] == [
        f"Film: out of memory, trying again with {size} at a time." for size in (3, 2)
    ]


def test_chains_that_do_not_fit_are_halved_and_the_same(mine, monkeypatch, caplog):
    image = images(5, SIDE, SIDE, 3)
    whole = run("UnclipForwardDiffusion", mine.decoder, image, timesteps="0, 500, 999")
    full = Full(teaching.to_images, 2)
    monkeypatch.setattr(teaching, "to_images", full)
    halved = run("UnclipForwardDiffusion", mine.decoder, image, timesteps="0, 500, 999")
    assert {5, 3, 2, 1} == set(full.seen)
    assert all(torch.equal(ours, expected) for ours, expected in zip(halved, whole, strict=True))
    assert "Chain: out of memory, trying again with 2 at a time." in caplog.messages


def test_prompts_that_do_not_fit_are_halved_and_the_same(mine, monkeypatch, caplog):
    lines = "\n".join(["a red circle", "a blue square", "a red square", "a circle", "a square"])
    whole = run("UnclipTextEncodeLines", mine.clip, lines)[0]
    full = Full(pipelines.encode_text, 2, place=1)
    monkeypatch.setattr(pipelines, "encode_text", full)
    halved = run("UnclipTextEncodeLines", mine.clip, lines)[0]
    assert full.seen == [5, 3, 2, 2, 1] and halved.prompts == whole.prompts
    for name in ("embeds", "states", "mask"):
        torch.testing.assert_close(getattr(halved.condition, name), getattr(whole.condition, name), rtol=0, atol=1e-5)
    assert "CLIP: out of memory, trying again with 2 at a time." in caplog.messages


# ---- CLIP's gradient ----


@pytest.mark.gpu
def test_clip_guides_the_decoder_inside_inference_mode(mine, text):
    settings = {"steps": 3, "seed": 2}
    free = run("UnclipDecoderSample", mine.decoder, embedding(2), **settings)[0]
    guided = run(
        "UnclipDecoderSample",
        mine.decoder,
        embedding(2),
        clip=mine.clip,
        clip_text=text,
        clip_strength=50.0,
        **settings,
    )[0]
    how = {"seeds": [2, 2], "steps": 3, "guidance_scale": DECODER_SETTINGS.guidance_scale}
    wanted, given = there(text.condition.embeds), there(embedding(2).embeds)
    expected = core(
        lambda decoder, clip: editing.guided_decoder(decoder, clip, wanted, 50.0, given, **how), mine.decoder, mine.clip
    )
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-4)
    assert (guided - free).abs().max() > 1e-4
    off = run("UnclipDecoderSample", mine.decoder, embedding(2), clip=mine.clip, clip_text=text, **settings)[0]
    assert torch.equal(off, free)


def test_clip_guidance_refuses(mine, other, text):
    foreign = run("UnclipTextEncode", other.clip, "a red circle")[0]
    for more, words in (
        ({}, "'clip' is not connected"),
        ({"clip": mine.clip}, "'text' or 'clip_text' is not connected"),
    ):
        with pytest.raises(InputError, match=words):
            run("UnclipDecoderSample", mine.decoder, embedding(), clip_strength=1.0, **more)
    for strength in (math.nan, -1.0, 1e9):
        with pytest.raises(InputError, match="'clip_strength'"):
            run("UnclipDecoderSample", mine.decoder, embedding(), clip=mine.clip, text=text, clip_strength=strength)
    with pytest.raises(FamilyError, match="'another'"):
        run("UnclipDecoderSample", mine.decoder, embedding(), clip=mine.clip, clip_text=foreign, clip_strength=1.0)
    # A CLIP of another family may guide, with a text of its own.
    guide = {"clip": other.clip, "clip_text": foreign, "clip_strength": 1.0}
    run("UnclipDecoderSample", mine.decoder, embedding(), steps=1, **guide)


@pytest.mark.gpu
def test_clip_optimise_climbs_with_progress_and_preview(mine, text, monkeypatch):
    shown = []
    monkeypatch.setattr(host.Progress, "show_step", lambda self, x0: shown.append((self.total, tuple(x0.shape))))
    widgets = {"steps": 3, "cutouts": 2, "width": 20, "height": 16}
    image = run("UnclipClipOptimise", mine.clip, text, **widgets)[0]
    assert image.shape == (1, 16, 20, 3) and 0 <= image.min() and image.max() <= 1
    assert shown == [(3, (1, 3, 16, 20))] * 3
    again = run("UnclipClipOptimise", mine.clip, text, **widgets)[0]
    other = run("UnclipClipOptimise", mine.clip, text, seed=1, **widgets)[0]
    # A device sums gradients in no fixed order, and the ascent's steps are as long for a small one as for a large.
    assert (image - again).abs().mean() <= (0 if host.device().type == "cpu" else 0.01)
    assert (image - other).abs().mean() > 0.02
    start = images(2, 24, 18, 3)
    changed = run("UnclipClipOptimise", mine.clip, text, image=start, steps=2, cutouts=2)[0]
    assert changed.shape == start.shape and (changed - start).abs().mean() < 0.2


@pytest.mark.parametrize(
    ("widgets", "words"),
    [
        ({"steps": 0}, "'steps' is 0"),
        ({"cutouts": 0}, "'cutouts' is 0"),
        ({"width": 1}, "'width' is 1"),
        ({"learning_rate": math.nan}, "'learning_rate'"),
        ({"smoothness": math.nan}, "'smoothness'"),
        ({"image": torch.zeros(1, 8, 2000, 3)}, "2000 × 8 pixels"),
        ({"image": torch.zeros(0, 8, 8, 3)}, "empty"),
    ],
)
def test_clip_optimise_refuses(mine, text, widgets, words):
    with pytest.raises(InputError, match=words):
        run("UnclipClipOptimise", mine.clip, text, **widgets)


@pytest.mark.parametrize("node_id", ["UnclipDdimInversion", "UnclipInpaint", "UnclipOutpaint", "UnclipDenoisingFilm"])
def test_embeddings_and_texts_of_another_family_are_refused(mine, other, node_id):
    foreign = run("UnclipTextEncode", other.clip, "a red circle")[0]
    more = {"UnclipDenoisingFilm": [], "UnclipInpaint": [images(1, SIDE, SIDE, 3), half(SIDE, SIDE)]}
    values = more.get(node_id, [images(1, SIDE, SIDE, 3)])
    with pytest.raises(FamilyError, match="'another'"):
        run(node_id, mine.decoder, embedding(family="another"), *values)
    with pytest.raises(FamilyError, match="'another'"):
        run(node_id, mine.decoder, embedding(), *values, text=foreign)
