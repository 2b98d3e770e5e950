"""The nodes on a small random model: what they make, what they say, and what they refuse."""

import math

import pytest
import torch
from torch.nn import functional

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes import decoder, defaults, host, prior, upscale
from unclip.nodes.host import oom_retry
from unclip.nodes.inputs import InputError
from unclip.nodes.sockets import BrokenValue, EmbeddingValue, FamilyError, NoiseValue
from unclip.unclip_core import pipelines
from unclip.unclip_core.diffusion.noise import NoiseSource
from unclip.unclip_core.diffusion.samplers import SAMPLERS

SIDE, WIDTH = 16, 16


def run(node_id, *values, **widgets):
    """The first output of a node."""
    node = NODE_CLASS_MAPPINGS[node_id]
    with torch.inference_mode():
        returned = getattr(node(), node.FUNCTION)(*values, **widgets)
    return (returned["result"] if isinstance(returned, dict) else returned)[0]


def noise(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def text(mine):
    return run("UnclipTextEncode", mine.clip, "a red circle")


@pytest.fixture(scope="module")
def embedding(mine, text):
    return run("UnclipPriorSample", mine.prior, text, seed=5, steps=2)


# ---- CLIP Text Encode ----


def encode(mine, prompt):
    """The node's value and its warnings."""
    node = NODE_CLASS_MAPPINGS["UnclipTextEncode"]()
    returned = node.run(mine.clip, prompt)
    return returned["result"][0], returned["ui"].get("warnings", [])


def test_a_prompt_of_known_words_is_encoded_without_a_word(mine, caplog):
    value, warnings = encode(mine, "A red, BLUE circle!")
    assert warnings == [] and not caplog.messages
    assert value.family == "test" and value.prompts == ("A red, BLUE circle!",)
    assert value.condition.embeds.shape == (1, WIDTH)
    expected = mine.clip.part.adapter.encode_text(["A red, BLUE circle!"])
    torch.testing.assert_close(value.condition.embeds, expected.embeds, rtol=0, atol=1e-6)


def test_unknown_words_are_named_each_once_and_logged(mine, caplog):
    _, warnings = encode(mine, "a dragon, a red dragon at sunset")
    [warning] = [warning for warning in warnings if "never seen" in warning]
    assert warning.endswith("'dragon', 'at', 'sunset'.")
    assert warning in caplog.messages


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("🔴 on ⬜", "'🔴', 'on', '⬜'."), ("♥", "'♥'."), ("a red circle!!!", "'!!!'."), ("❤️ a circle", "'❤️'."),
        ("a ★red★ circle", "'★'."), ("नमस्ते", "'नमस्ते'."), ("a red + blue circle??", "'+', '??'."),
    ],
)  # fmt: skip
def test_signs_that_the_vocabulary_does_not_know_are_named_too(mine, prompt, named):
    _, warnings = encode(mine, prompt)
    [warning] = [warning for warning in warnings if "never seen" in warning]
    assert warning.endswith(named)


def test_what_parts_words_is_no_word(mine):
    assert encode(mine, 'a (red) "a", a – a; a: a.')[1] == []


def test_a_prompt_that_is_too_long_is_said_to_be_cut(mine):
    _, warnings = encode(mine, "a " * 50)
    assert warnings == ["The prompt is too long: the model reads its first 32 tokens only."]


@pytest.mark.parametrize("prompt", ["", "  \n\t"])
def test_an_empty_prompt_is_the_unconditional_one_and_is_said(mine, prompt):
    value, warnings = encode(mine, prompt)
    assert warnings == ["The prompt is empty: the image will show anything."]
    expected = mine.clip.part.adapter.encode_text([""]).embeds
    torch.testing.assert_close(value.condition.embeds, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prompt", ["🟥 円 كرة", "x" * 100_000, "a\x00b\ud800", "\u202e<script>"])
def test_hostile_prompts_are_encoded_or_refused_in_words(mine, prompt):
    try:
        value, warnings = encode(mine, prompt)
    except ValueError as error:
        assert len(str(error)) > 20
    else:
        assert torch.isfinite(value.condition.embeds).all()
        assert warnings


def test_what_is_no_text_is_refused(mine):
    with pytest.raises(InputError, match="'text' must be a text"):
        run("UnclipTextEncode", mine.clip, None)


# ---- CLIP Image Encode ----


@pytest.mark.parametrize(
    "shape", [(1, SIDE, SIDE, 3), (3, 40, 24, 3), (1, 1, 1, 3), (1, 5000, 3, 3), (1, 3, 5000, 3), (1, 9, 9, 1)]
)
def test_images_of_any_size_get_one_embedding_each(mine, shape):
    value = run("UnclipImageEncode", mine.clip, noise(*shape))
    assert value.embeds.shape == (shape[0], WIDTH)
    torch.testing.assert_close(value.embeds.norm(dim=1), torch.ones(shape[0]), rtol=0, atol=1e-5)
    assert (value.family, value.source) == ("test", "image")


def test_a_batch_gives_what_its_images_give_alone(mine, monkeypatch):
    monkeypatch.setattr(defaults, "IMAGES_AT_ONCE", 2)
    images = noise(5, 20, 30, 3)
    together = run("UnclipImageEncode", mine.clip, images).embeds
    alone = torch.cat([run("UnclipImageEncode", mine.clip, image[None]).embeds for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 1e-3


def test_a_transparent_image_is_seen_over_white(mine):
    rgba = noise(1, 20, 20, 4)
    rgba[..., 3].round_()
    flat = torch.where(rgba[..., 3:] == 1, rgba[..., :3], 1.0)
    seen = run("UnclipImageEncode", mine.clip, rgba).embeds
    torch.testing.assert_close(seen, run("UnclipImageEncode", mine.clip, flat).embeds)


def test_an_empty_batch_is_refused(mine):
    with pytest.raises(InputError, match="empty"):
        run("UnclipImageEncode", mine.clip, torch.zeros(0, 8, 8, 3))


# ---- Prior Sample ----


def test_the_prior_draws_by_seed(mine, text):
    first, again, next_one = (run("UnclipPriorSample", mine.prior, text, seed=s, steps=2) for s in (5, 5, 6))
    assert first.embeds.shape == (1, WIDTH) and (first.family, first.source) == ("test", "prior")
    assert torch.equal(first.embeds, again.embeds)
    assert (first.embeds - next_one.embeds).abs().max() > 1e-3


def test_the_prior_hands_its_widgets_to_the_core(mine, text):
    widgets = {"steps": 3, "guidance_scale": 1.5, "sampler": "ddpm", "candidates": 4, "keep": 2}
    drawn = run("UnclipPriorSample", mine.prior, text, seed=9, **widgets)
    expected = pipelines.sample_prior(mine.prior.part, text.condition, seeds=[9], **widgets)
    assert drawn.embeds.shape == (2, WIDTH)
    torch.testing.assert_close(drawn.embeds, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("seed", "same"), [(2**64, 0), (-1, 2**64 - 1), (2**64 - 1, -1), (-(2**64), 0)])
def test_seeds_wrap_around(mine, text, seed, same):
    one, two = (run("UnclipPriorSample", mine.prior, text, seed=s, steps=1) for s in (seed, same))
    assert torch.equal(one.embeds, two.embeds)


def one_step_by_hand(part, condition, seed, scale):
    """What a single step from pure noise is, whatever the sampler: the net's guided guess, clipped, in CLIP's norm."""
    x, t = NoiseSource([seed], "prior").normal((WIDTH,)), torch.tensor([999])
    guess, blank = (part.net(x, t, each.embeds, each.states, each.mask) for each in (condition, condition.null))
    x0 = (blank + scale * (guess - blank)).clamp(-5, 5)
    embeds = x0 * part.net.clip_std + part.net.clip_mean
    return embeds / embeds.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2])
def test_every_sampler_takes_one_and_two_steps(mine, text, sampler, steps):
    drawn = run("UnclipPriorSample", mine.prior, text, seed=4, steps=steps, sampler=sampler)
    if steps == 1:
        expected = one_step_by_hand(mine.prior.part, text.condition, seed=4, scale=2.0)
    else:
        expected = pipelines.sample_prior(
            mine.prior.part, text.condition, seeds=[4], steps=2, guidance_scale=2.0, sampler=sampler
        )
    torch.testing.assert_close(drawn.embeds, expected, rtol=0, atol=2e-6)


BAD = [
    ({"steps": -1}, "'steps' is -1"),
    ({"steps": 10_000}, "'steps' is 10,000"),
    ({"guidance_scale": math.nan}, "'guidance_scale'"),
    ({"guidance_scale": -0.5}, "'guidance_scale'"),
    ({"sampler": "euler"}, "no sampler 'euler'"),
    ({"seed": 1.5}, "'seed'"),
]


@pytest.mark.parametrize(
    ("widgets", "words"),
    [*BAD, ({"candidates": 0}, "'candidates'"), ({"keep": 0}, "'keep'"), ({"keep": 2}, "only 1 'candidates'")],
)
def test_the_prior_refuses(mine, text, widgets, words):
    with pytest.raises(InputError, match=words):
        run("UnclipPriorSample", mine.prior, text, **widgets)


# ---- Decoder Sample ----


def test_the_decoder_draws_images(mine, embedding):
    images = run("UnclipDecoderSample", mine.decoder, embedding, steps=2)
    assert images.shape == (1, SIDE, SIDE, 3) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1 and images.std() > 0.01


def test_the_decoder_hands_its_widgets_and_the_text_to_the_core(mine, embedding, text):
    widgets = {"steps": 3, "guidance_scale": 1.5, "sampler": "ddim", "eta": 0.5}
    drawn = run("UnclipDecoderSample", mine.decoder, embedding, seed=9, text=text, **widgets)
    expected = pipelines.sample_decoder(mine.decoder.part, embedding.embeds, text=text.condition, seeds=[9], **widgets)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-6)
    without = run("UnclipDecoderSample", mine.decoder, embedding, seed=9, **widgets)
    assert (drawn - without).abs().max() > 1e-4


def test_image_j_of_an_embedding_is_that_of_seed_plus_j_whatever_the_batch(mine, monkeypatch):
    monkeypatch.setattr(decoder.defaults, "IMAGES_AT_ONCE", 4)
    pair = EmbeddingValue(noise(2, WIDTH), "test", "prior")
    together = run("UnclipDecoderSample", mine.decoder, pair, seed=7, steps=2, batch_size=3)
    assert together.shape == (6, SIDE, SIDE, 3)
    for i in range(2):
        one = EmbeddingValue(pair.embeds[i : i + 1], "test", "prior")
        for j in range(3):
            alone = run("UnclipDecoderSample", mine.decoder, one, seed=7 + j, steps=2)
            torch.testing.assert_close(together[3 * i + j], alone[0], rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_prompts_follow_their_embeddings(mine):
    """Two prompts for two embeddings, two images each: as each pair alone."""
    two = mine.clip.part.adapter.encode_text(["a red circle", "a blue square"])
    both = type(run("UnclipTextEncode", mine.clip, "a"))(two, "test", ("a red circle", "a blue square"))
    pair = EmbeddingValue(noise(2, WIDTH), "test", "prior")
    together = run("UnclipDecoderSample", mine.decoder, pair, steps=1, batch_size=2, text=both)
    for i, prompt in enumerate(both.prompts):
        one = EmbeddingValue(pair.embeds[i : i + 1], "test", "prior")
        said = run("UnclipTextEncode", mine.clip, prompt)
        alone = run("UnclipDecoderSample", mine.decoder, one, steps=1, batch_size=2, text=said)
        torch.testing.assert_close(together[2 * i : 2 * i + 2], alone, rtol=0, atol=1e-4)
    three = EmbeddingValue(noise(3, WIDTH), "test", "prior")
    with pytest.raises(InputError, match="2 prompts do not fit 3 embeddings"):
        run("UnclipDecoderSample", mine.decoder, three, steps=1, text=both)


@pytest.mark.parametrize(
    ("widgets", "words"),
    [
        *BAD,
        ({"eta": math.nan}, "'eta'"),
        ({"eta": 1.1}, "'eta'"),
        ({"batch_size": 0}, "'batch_size' is 0"),
        ({"batch_size": 65}, "'batch_size' is 65"),
    ],
)
def test_the_decoder_refuses(mine, embedding, widgets, words):
    with pytest.raises(InputError, match=words):
        run("UnclipDecoderSample", mine.decoder, embedding, **widgets)


# ---- Upscale ----


@pytest.mark.parametrize("shape", [(2, SIDE, SIDE, 3), (1, 1, 1, 3), (1, 500, 3, 3), (1, 5, 7, 1), (1, 6, 6, 4)])
def test_images_grow_fourfold(mine, shape):
    count, height, width, channels = shape
    small = noise(*shape)
    images = run("UnclipUpscale", mine.upsampler, small, seed=3, steps=1)
    assert images.shape == (count, 4 * height, 4 * width, 3)
    rgb = small.expand(-1, -1, -1, 3) if channels == 1 else small[..., :3]
    if channels == 4:
        rgb = rgb * small[..., 3:] + (1 - small[..., 3:])
    # The net alone, on an enlargement of its own making: a single step from pure noise is its guess.
    low = functional.interpolate(
        rgb.movedim(-1, 1) * 2 - 1, scale_factor=4, mode="bicubic", align_corners=False, antialias=True
    ).clamp(-1, 1)
    stride = mine.upsampler.part.net.unet.stride
    padded = functional.pad(low, (0, -4 * width % stride, 0, -4 * height % stride), mode="replicate")
    start = NoiseSource([3] * count, "upsampler").normal(padded.shape[1:])
    guess = mine.upsampler.part.net(start, torch.full((count,), 999), padded).clamp(-5, 5)
    expected = (guess[..., : 4 * height, : 4 * width].movedim(1, -1) * 0.5 + 0.5).clamp(0, 1)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)


def test_upscale_hands_its_widgets_to_the_core(mine):
    small = noise(2, 8, 8, 3)
    large = run("UnclipUpscale", mine.upsampler, small, seed=3, steps=2)
    expected = pipelines.upscale(mine.upsampler.part, small, seeds=[3, 3], steps=2)
    torch.testing.assert_close(large, expected, rtol=0, atol=1e-6)


def test_an_image_grows_alone_as_in_a_batch(mine, monkeypatch):
    monkeypatch.setattr(upscale.defaults, "UPSCALED_PIXELS_AT_ONCE", 2 * 64)
    small = noise(3, 8, 8, 3)
    together = run("UnclipUpscale", mine.upsampler, small, steps=1)
    alone = run("UnclipUpscale", mine.upsampler, small[2:], steps=1)
    torch.testing.assert_close(together[2:], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("image", "widgets", "words"),
    [
        (noise(1, 8, 8, 3), {"steps": -1}, "'steps' is -1"),
        (noise(1, 8, 8, 3), {"steps": 10_000}, "'steps' is 10,000"),
        (noise(1, 8, 8, 3), {"seed": None}, "'seed'"),
        (torch.zeros(0, 8, 8, 3), {}, "empty"),
        (torch.full((1, 8, 8, 3), math.nan), {}, "NaN"),
        (torch.zeros(1, 1, 1, 3).expand(1, 1025, 1024, 3), {}, "1024 × 1025 pixels.*1,048,576"),
    ],
)
def test_upscale_refuses(mine, image, widgets, words):
    with pytest.raises(InputError, match=words):
        run("UnclipUpscale", mine.upsampler, image, **widgets)


# ---- Embedding Interpolate ----


def units(*angles):
    """Unit vectors in a plane, by their angles in degrees."""
    turned = torch.deg2rad(torch.tensor(angles, dtype=torch.float32))
    return EmbeddingValue(torch.stack([turned.cos(), turned.sin()], dim=1), "test", "image")


def angles(value):
    return torch.rad2deg(torch.atan2(value.embeds[:, 1], value.embeds[:, 0])).tolist()


def test_one_blend_lies_on_the_arc_at_t():
    value = run("UnclipEmbeddingInterpolate", units(0), units(80), t=0.25)
    assert angles(value) == pytest.approx([20], abs=1e-3)
    assert (value.family, value.source) == ("test", "interpolation")


def test_frames_run_from_t_to_t_end_in_equal_steps_both_included():
    value = run("UnclipEmbeddingInterpolate", units(0), units(80), t=0.0, frames=5, t_end=1.0)
    assert angles(value) == pytest.approx([0, 20, 40, 60, 80], abs=1e-3)
    back = run("UnclipEmbeddingInterpolate", units(0), units(80), t=1.0, frames=3, t_end=0.5)
    assert angles(back) == pytest.approx([80, 60, 40], abs=1e-3)


def test_pairs_of_a_batch_follow_one_another():
    value = run("UnclipEmbeddingInterpolate", units(0, 90), units(40, 130), t=0.0, frames=3)
    assert angles(value) == pytest.approx([0, 20, 40, 90, 110, 130], abs=1e-3)
    spread = run("UnclipEmbeddingInterpolate", units(0), units(40, 80), t=0.5)
    assert angles(spread) == pytest.approx([20, 40], abs=1e-3)


@pytest.mark.parametrize(
    ("widgets", "words"),
    [({"t": math.nan}, "'t'"), ({"t": 1.5}, "'t'"), ({"t_end": -0.1}, "'t_end'"), ({"frames": 0}, "'frames'"),
     ({"frames": 257}, "'frames'")],
)  # fmt: skip
def test_interpolate_refuses(widgets, words):
    with pytest.raises(InputError, match=words):
        run("UnclipEmbeddingInterpolate", units(0), units(80), **widgets)


def test_batches_that_do_not_pair_and_zero_embeddings_are_refused_in_words():
    with pytest.raises(InputError, match="2 of 'embedding_a', 3 of 'embedding_b'"):
        run("UnclipEmbeddingInterpolate", units(0, 1), units(0, 1, 2))
    with pytest.raises(InputError, match="2 of 'embedding_1', 3 of 'embedding_4'"):
        run("UnclipEmbeddingBlend", embedding_1=units(0, 1), embedding_4=units(0, 1, 2))
    with pytest.raises(BrokenValue, match=r"Row 2 .*\(image\) has length 0"):
        EmbeddingValue(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "test", "image")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_numbers_that_say_nothing_go_into_no_socket(wrong):
    broken = torch.ones(3, 2)
    broken[2, 1] = wrong
    with pytest.raises(BrokenValue, match=r"Row 3 of the image embeddings \(prior\) holds NaN or infinity"):
        EmbeddingValue(broken, "test", "prior")
    with pytest.raises(BrokenValue, match="Row 3 of the noise holds NaN or infinity"):
        NoiseValue(broken.reshape(3, 1, 1, 2), "test")


# ---- families ----


def test_parts_of_two_families_are_refused_in_a_sentence(mine, other, text, embedding):
    foreign = run("UnclipTextEncode", other.clip, "a red circle")
    stranger = run("UnclipPriorSample", other.prior, foreign, steps=1)
    for call in (
        lambda: run("UnclipPriorSample", mine.prior, foreign),
        lambda: run("UnclipDecoderSample", mine.decoder, stranger),
        lambda: run("UnclipDecoderSample", mine.decoder, embedding, text=foreign),
        lambda: run("UnclipEmbeddingInterpolate", embedding, stranger),
    ):
        with pytest.raises(FamilyError, match="'another'.*'test'|'test'.*'another'") as caught:
            call()
        assert "Load unCLIP Model" in str(caught.value)


# ---- progress ----


def test_each_step_is_reported_to_the_host(mine, text, embedding, monkeypatch):
    bars = []

    class Recorded(host.Progress):
        def open_bar(self):
            bars.append((self.title, self.total, []))

        def show_step(self, x0):
            bars[-1][2].append(tuple(x0.shape))

        def close_bar(self):
            pass

    monkeypatch.setattr(host, "progress", Recorded)
    monkeypatch.setattr(host.oom_retry, "progress", Recorded)
    run("UnclipPriorSample", mine.prior, text, steps=3, candidates=2)
    run("UnclipDecoderSample", mine.decoder, embedding, steps=2, batch_size=2)
    run("UnclipUpscale", mine.upsampler, noise(1, 8, 8, 3), steps=1)
    assert bars == [
        ("Prior", 3, [(2, WIDTH)] * 3),
        ("Decoder", 2, [(2, 3, SIDE, SIDE)] * 2),
        ("Upscale", 1, [(1, 3, 32, 32)]),
    ]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_every_stage_runs_in_low_precision(model_folder, dtype):
    """And gives what fp32 gives, as nearly as the precision allows."""
    found = {}
    for choice in ("fp32", dtype):
        clip, its_prior, its_decoder, upscaler = NODE_CLASS_MAPPINGS["UnclipLoadModel"]().run("mine", choice)
        text = run("UnclipTextEncode", clip, "a red circle")
        embedding = run("UnclipPriorSample", its_prior, text, steps=2, sampler="ddim")
        small = run("UnclipDecoderSample", its_decoder, embedding, steps=2, sampler="ddim")
        found[choice] = (text.condition.embeds, embedding.embeds, small, run("UnclipUpscale", upscaler, small, steps=1))
    for exact, low in zip(found["fp32"], found[dtype], strict=True):
        assert low.dtype == torch.float32 and bool(torch.isfinite(low).all())
        assert (exact - low).abs().mean() < 0.1 * exact.abs().mean() + 0.05


# ---- the prior's preview ----


class Plenty(host.PreviewBudget):
    """Time without end."""

    def left(self):
        self.step_seconds = 1.0
        return 1e9


class Clock:
    """A clock that stands still unless it is set on."""

    now = 0.0

    def __call__(self):
        return self.now


def draws_of(mine, text):
    return prior.Draws(mine.prior.part, text.condition, [3], {}, {}, slice(0, 1))


@pytest.fixture
def timed(mine, text, monkeypatch):
    """The preview by a clock: (steps of the prior, seconds of one, of a decoder step) -> steps of each preview."""
    clock = Clock()

    def run_with(total, step, decoder_step):
        drawn = []

        def draw(decoder, embeds, **settings):
            clock.now += decoder_step * settings["steps"]
            drawn.append(settings["steps"])
            return torch.zeros(1, SIDE, SIDE, 3)

        monkeypatch.setattr(pipelines, "sample_decoder", draw)
        budget = host.PreviewBudget(total, clock)
        images = prior.previewer(draws_of(mine, text), mine.decoder.part, budget)
        shown = 0
        for _ in range(total):
            clock.now += step
            shown += images(torch.ones(1, WIDTH)) is not None
        assert shown == len(drawn) and budget.spent == pytest.approx(decoder_step * sum(drawn))
        return drawn

    monkeypatch.setattr(prior, "PREVIEW_SECONDS", {})
    return run_with


@pytest.mark.parametrize("total", [1, 2, 10, 25, 100, 1000])
@pytest.mark.parametrize("decoder_step", [0.01, 0.3, 1.0, 4.0])
def test_the_priors_previews_take_a_fifth_of_the_time_at_most(timed, total, decoder_step):
    steps = timed(total, 1.0, decoder_step)
    assert decoder_step * sum(steps) <= 0.2 * (total + decoder_step * sum(steps)) + 1e-9
    assert set(steps) <= {1, 2, 3, 4}


def test_previews_are_as_many_and_as_fine_as_the_time_allows(timed):
    assert timed(1000, 1.0, 0.01) == [4] * 999
    assert timed(25, 1.0, 0.5) == [4, 4, 4]
    assert timed(25, 1.0, 1.5) == [4]
    assert timed(25, 1.0, 10.0) == [4] and timed(25, 1.0, 10.0) == []  # the first shows what it costs


def test_no_preview_is_begun_that_the_time_is_too_short_for(timed):
    assert timed(10, 1.0, 10.0) == []


def test_the_priors_preview_is_an_image_of_its_first_embedding(mine, text):
    part = mine.prior.part
    images = prior.previewer(draws_of(mine, text), mine.decoder.part, Plenty(1))
    x0 = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))
    shown = images(x0)
    assert shown.shape == (1, 3, SIDE, SIDE) and -1 <= float(shown.min()) and float(shown.max()) <= 1
    embeds = pipelines.prior_embeds(part, x0[:1])
    drawn = pipelines.sample_decoder(
        mine.decoder.part, embeds, text=text.condition, steps=4, guidance_scale=1, sampler="dpmpp_2m", seeds=[3]
    )
    assert torch.allclose(shown.movedim(1, -1) * 0.5 + 0.5, drawn, atol=1e-6)


def test_a_decoder_for_the_preview_changes_nothing_of_the_result(mine, text, monkeypatch):
    shown = []

    class Shown(host.Progress):
        def show_step(self, x0):
            super().show_step(x0)
            shown.append(self.images(x0).shape)

    monkeypatch.setattr(host, "wants_preview", lambda: True)
    monkeypatch.setattr(host, "PreviewBudget", Plenty)
    plain = run("UnclipPriorSample", mine.prior, text, seed=1, steps=2)
    monkeypatch.setattr(oom_retry, "progress", Shown)
    seen = run("UnclipPriorSample", mine.prior, text, seed=1, steps=2, decoder=mine.decoder)
    assert torch.equal(plain.embeds, seen.embeds) and shown == [(1, 3, SIDE, SIDE)] * 2


def test_a_decoder_of_another_family_is_refused_for_the_preview(mine, other, text, monkeypatch):
    monkeypatch.setattr(host, "wants_preview", lambda: True)
    with pytest.raises(FamilyError):
        run("UnclipPriorSample", mine.prior, text, steps=1, decoder=other.decoder)
