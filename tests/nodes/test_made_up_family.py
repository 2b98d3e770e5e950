"""A family that no node knows of, from the loader through every node that draws: only contracts carry it."""

from types import SimpleNamespace

import made_up_family
import pytest
import torch
from made_up_family import CHANNELS, FACTOR, SIDE, WIDTH, PatchCodec

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes import host
from unclip.unclip_core.models import MissingPart

SIDES = SIDE // FACTOR


@pytest.fixture(scope="module", autouse=True)
def known():
    with made_up_family.registered():
        yield


def run(node_id, *values, **widgets):
    """All outputs of a node, under inference mode as in ComfyUI."""
    node = NODE_CLASS_MAPPINGS[node_id]
    with torch.inference_mode():
        returned = getattr(node(), node.FUNCTION)(*values, **widgets)
    return returned["result"] if isinstance(returned, dict) else returned


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The four outputs of the loader, of which the last is no upsampler."""
    root = tmp_path_factory.mktemp("models")
    made_up_family.write_folder(root / "strange")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(host.FOLDER_VARIABLE, str(root))
        parts = run("UnclipLoadModel", "strange")
    return SimpleNamespace(**dict(zip(("clip", "prior", "decoder", "upscaler"), parts, strict=True)))


@pytest.fixture(scope="module")
def text(model):
    return run("UnclipTextEncode", model.clip, "a red cat")[0]


@pytest.fixture(scope="module")
def embedding(model, text):
    return run("UnclipPriorSample", model.prior, text, seed=3)[0]


@pytest.fixture(scope="module")
def image(model, embedding):
    return run("UnclipDecoderSample", model.decoder, embedding, seed=1)[0]


def test_the_loader_lists_it_and_says_what_it_lacks(model):
    assert model.clip.family == model.upscaler.family == "made-up"
    with pytest.raises(MissingPart, match="'strange' has no 'upsampler'"):
        run("UnclipUpscale", model.upscaler, torch.rand(1, 8, 8, 3))


def test_a_one_pass_prior_needs_no_steps(model, text, embedding):
    again = run("UnclipPriorSample", model.prior, text, seed=3, steps=7, guidance_scale=5.0, sampler="ddpm")[0]
    assert torch.equal(embedding.embeds, again.embeds) and embedding.embeds.shape == (1, WIDTH)
    best, scores = run("UnclipPriorSample", model.prior, text, seed=3, candidates=4, keep=2)
    assert len(best.embeds) == 2 and scores.count("\n") >= 3


def test_an_image_is_what_its_codec_can_say(image):
    assert image.shape == (1, SIDE, SIDE, 3)
    patches = image[0].unflatten(0, (SIDES, FACTOR)).unflatten(2, (SIDES, FACTOR))
    # all rows of a patch are alike, as far as nothing was cut off at black and white
    torch.testing.assert_close(patches, patches[:, :1].expand_as(patches))


def test_variations_and_interpolations_are_drawn(model, image):
    seen = run("UnclipImageEncode", model.clip, image)[0]
    assert seen.family == "made-up"
    variations = run("UnclipDecoderSample", model.decoder, seen, seed=1, batch_size=2)[0]
    assert variations.shape == (2, SIDE, SIDE, 3) and not torch.equal(variations[0], variations[1])
    other = run("UnclipImageEncode", model.clip, 1 - image)[0]
    frames = run("UnclipEmbeddingInterpolate", seen, other, t=0.0, frames=3, t_end=1.0)[0]
    drawn = run("UnclipDecoderSample", model.decoder, frames, seed=1)[0]
    torch.testing.assert_close(drawn[:1], variations[:1], rtol=1e-4, atol=1e-4)


def test_inpaint_and_outpaint_keep_the_known_part(model, embedding, image):
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, :, : SIDE // 2] = 1
    drawn = run("UnclipInpaint", model.decoder, embedding, image, mask, seed=2, steps=3, resamples=1)[0]
    assert torch.equal(drawn[:, :, SIDE // 2 :], image[:, :, SIDE // 2 :])
    assert (drawn - image)[:, :, : SIDE // 2].abs().max() > 1e-2
    wide = run(
        "UnclipOutpaint",
        model.decoder,
        embedding,
        image,
        left=16,
        right=8,
        top=0,
        bottom=0,
        seed=2,
        steps=3,
        resamples=1,
    )[0]
    assert wide.shape[1:3] == (SIDE, SIDE + 24)
    torch.testing.assert_close(wide[:, :, 16 : 16 + SIDE], image, rtol=0, atol=0)


def test_inversion_finds_noise_in_latents(model, embedding, image):
    noise = run("UnclipDdimInversion", model.decoder, embedding, image, steps=40)[0]
    assert noise.noise.shape == (1, CHANNELS, SIDES, SIDES)
    again = run(
        "UnclipDecoderSample", model.decoder, embedding, steps=40, guidance_scale=1.0, sampler="ddim", noise=noise
    )[0]
    other = run("UnclipDecoderSample", model.decoder, embedding, steps=40, guidance_scale=1.0, sampler="ddim")[0]
    assert (again - image).abs().mean() < 0.5 * (other - image).abs().mean()


def test_the_chain_and_the_film_show_images(model, embedding, image):
    strip, frames, _ = run("UnclipForwardDiffusion", model.decoder, image, seed=1, timesteps="0, 500, 999")
    assert frames.shape == (3, SIDE, SIDE, 3) and strip.shape[2] >= 3 * SIDE
    codec = PatchCodec()
    kept = codec.decode(codec.encode(image.movedim(-1, 1) * 2 - 1)).movedim(1, -1) * 0.5 + 0.5
    assert (frames[:1] - kept).abs().mean() < 0.05 < (frames[2:] - kept).abs().mean()
    film = run("UnclipDenoisingFilm", model.decoder, embedding, seed=1, every=1)
    torch.testing.assert_close(film[3], image)
    torch.testing.assert_close(film[1][-1:], image, rtol=0, atol=1e-5)


def test_previews_are_images_of_latents(model, text, embedding, monkeypatch):
    shown = []

    class Seen(host.Progress):
        def open_bar(self):
            pass

        def show_step(self, x0):
            shown.append(None if x0 is None else tuple((x0 if self.images is None else self.images(x0)).shape))

        def close_bar(self):
            pass

    for place in (host, host.oom_retry):
        monkeypatch.setattr(place, "progress", Seen)
    monkeypatch.setattr(host, "wants_preview", lambda: True)
    run("UnclipDecoderSample", model.decoder, embedding, seed=1)
    assert shown == [(1, 3, SIDES, SIDES)] * 3  # the made-up decoder's own steps


def test_its_parts_do_not_go_into_other_families(model, embedding):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(host.FOLDER_VARIABLE, raising=False)
        bundled = run("UnclipLoadModel", "bundled (shapes)")
    with pytest.raises(ValueError, match="made-up"):
        run("UnclipDecoderSample", bundled[2], embedding)
