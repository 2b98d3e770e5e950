"""Every tool on a small random Karlo, whose sizes, nets and noises are others than the bundled model's."""

from types import SimpleNamespace

import pytest
import torch

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes import host
from unclip.nodes.loaders import UnclipLoadModel

FAST = {"steps": 2, "seed": 3}
PHRASES = "template: a {color} {thing}\n\ncolor:\n  red\n  blue\nthing:\n  frog\n  house\n"


def run(node_id, *values, **widgets):
    """All outputs of a node, under inference mode as in ComfyUI."""
    node = NODE_CLASS_MAPPINGS[node_id]
    with torch.inference_mode():
        returned = getattr(node(), node.FUNCTION)(*values, **widgets)
    return returned["result"] if isinstance(returned, dict) else returned


@pytest.fixture(scope="module")
def karlo(karlo_models):
    """The parts of a Karlo with prior and vision tower, two texts of it, and two embeddings of its prior."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(host.FOLDER_VARIABLE, str(karlo_models))
        parts = UnclipLoadModel().run("karlo-v1-alpha")
    found = SimpleNamespace(**dict(zip(("clip", "prior", "decoder", "upscaler"), parts, strict=True)))
    found.text = run("UnclipTextEncodeLines", found.clip, "a red frog\na blue house")[0]
    found.red = run("UnclipTextEncode", found.clip, "a red frog")[0]
    found.blue = run("UnclipTextEncode", found.clip, "a blue frog")[0]
    found.embedding = run("UnclipPriorSample", found.prior, found.text, **FAST)[0]
    return found


@pytest.fixture(scope="module")
def image():
    """Two images larger than the decoder's square."""
    return torch.rand(2, 24, 24, 3, generator=torch.Generator().manual_seed(1))


def check_images(images, *shape):
    assert images.shape == shape and bool(torch.isfinite(images).all())
    assert 0 <= float(images.min()) and float(images.max()) <= 1
    return images


def drawn(karlo, embedding, **more):
    return run("UnclipDecoderSample", karlo.decoder, embedding, **{**FAST, **more})[0]


def test_arithmetic_of_its_embeddings_keeps_their_length_and_is_drawn(karlo):
    """Karlo's embeddings are of no unit length: what is made of them must have theirs."""
    first, second = karlo.embedding.embeds
    lengths = sorted((float(first.norm()), float(second.norm())))
    one, two = (type(karlo.embedding)(row[None], karlo.embedding.family, "prior") for row in (first, second))
    frames = run("UnclipEmbeddingInterpolate", one, two, t=0.0, frames=3, t_end=1.0)[0]
    torch.testing.assert_close(frames.embeds[[0, 2]], karlo.embedding.embeds)
    blend = run("UnclipEmbeddingBlend", embedding_1=one, embedding_2=two)[0]
    edited = run("UnclipTextDiff", one, karlo.red, karlo.blue, theta=0.4)[0]
    assert float(edited.embeds.norm()) == pytest.approx(float(first.norm()), rel=1e-4)
    for made in (frames, blend):
        assert all(lengths[0] * 0.999 <= float(row.norm()) <= lengths[1] * 1.001 for row in made.embeds)
    batch = run("UnclipEmbeddingBatch", embedding_1=frames, embedding_2=blend, embedding_3=edited)[0]
    check_images(drawn(karlo, batch), 5, 16, 16, 3)


def test_candidates_are_ranked_and_images_reranked(karlo):
    embedding, scores = run("UnclipPriorSample", karlo.prior, karlo.text, candidates=3, keep=2, **FAST)
    assert len(embedding.embeds) == 4 and scores.count("kept") == 4
    best, said = run("UnclipRerank", karlo.clip, karlo.text, drawn(karlo, embedding), keep=1)
    check_images(best, 2, 16, 16, 3)
    assert said.count("kept") == 2


def test_an_image_is_inverted_interpolated_and_varied(karlo, image):
    own = run("UnclipImageEncode", karlo.clip, image)[0]
    noise, seen = run("UnclipDdimInversion", karlo.decoder, own, image, steps=2)
    check_images(seen, 2, 16, 16, 3)
    assert noise.noise.shape == (2, 3, 16, 16) and bool(torch.isfinite(noise.noise).all())
    one, two = (type(noise)(row[None], noise.family) for row in noise.noise)
    between = run("UnclipNoiseInterpolate", one, two, t=0.0, frames=2, t_end=1.0)[0]
    torch.testing.assert_close(between.noise, noise.noise, rtol=1e-4, atol=1e-4)
    again = [drawn(karlo, own, noise=between, sampler="ddim", guidance_scale=1.0, eta=eta) for eta in (0.0, 1.0)]
    assert (check_images(again[0], 2, 16, 16, 3) - check_images(again[1], 2, 16, 16, 3)).abs().max() > 1e-3


def test_the_known_part_of_an_image_stays_through_the_upsampler(karlo, image):
    own, mask = run("UnclipImageEncode", karlo.clip, image)[0], torch.zeros(1, 24, 24)
    mask[:, :, 12:] = 1
    whole, filled = run("UnclipInpaint", karlo.decoder, own, image, mask, resamples=2, text=karlo.text, **FAST)
    check_images(filled, 2, 16, 16, 3)
    assert whole.shape == image.shape
    _, known, where, wide = run(
        "UnclipOutpaint", karlo.decoder, own, image, left=0, right=8, top=0, bottom=0, resamples=1, **FAST
    )
    check_images(wide, 2, 16, 24, 3)
    large = check_images(run("UnclipUpscale", karlo.upscaler, wide, known=known, mask=where, **FAST)[0], 2, 64, 96, 3)
    narrow = torch.nn.functional.interpolate(image.movedim(-1, 1), (64, 64), mode="bicubic", antialias=True)
    torch.testing.assert_close(large[:, :, :60], narrow.clamp(0, 1).movedim(1, -1)[:, :, :60], rtol=0, atol=0.02)


def test_its_embeddings_are_described_compared_and_rebuilt(karlo, image):
    own = run("UnclipImageEncode", karlo.clip, image)[0]
    captions, _ = run("UnclipDescribe", karlo.clip, own, custom=PHRASES, top_k=2)
    assert all(line.startswith("a ") and line.split()[1] in ("red", "blue") for line in captions.splitlines())
    heat, matrix = run("UnclipEmbeddingSimilarity", own, karlo.text)
    assert heat.shape[-1] == 3 and "a red frog" in matrix
    basis = run("UnclipPcaFit", run("UnclipEmbeddingBatch", embedding_1=own, embedding_2=karlo.embedding)[0])[0]
    rebuilt = run("UnclipPcaReconstruct", basis, own, dimensions="1, 3")[0]
    torch.testing.assert_close(rebuilt.embeds[1::2], own.embeds, rtol=1e-3, atol=1e-3)
    there = run("UnclipToClipVision", own)[0]
    torch.testing.assert_close(run("UnclipFromClipVision", karlo.clip, there)[0].embeds, own.embeds)


def test_its_embeddings_and_bases_come_back_from_files(karlo, tmp_path):
    basis = run("UnclipPcaFit", karlo.embedding)[0]
    with host.working_in(tmp_path, ()):
        names = [run("UnclipSaveEmbedding", karlo.embedding)[0], run("UnclipSavePca", basis)[0]]
        embedding, info = run("UnclipLoadEmbedding", saved=names[0])
        again = run("UnclipLoadPca", saved=names[1])[0]
    assert torch.equal(embedding.embeds, karlo.embedding.embeds) and embedding.family == karlo.decoder.family
    assert "a blue house" in info and again.family == karlo.decoder.family
    assert torch.equal(again.basis.components, basis.basis.components)


def test_its_chain_and_its_film_are_shown(karlo, image):
    strip, frames, plot = run("UnclipForwardDiffusion", karlo.decoder, image, timesteps="0, 500, 999")
    check_images(frames, 6, 16, 16, 3)
    assert strip.shape[0] == plot.shape[0] == 1
    _, states, guesses, film = run(
        "UnclipDenoisingFilm", karlo.decoder, karlo.embedding, every=1, text=karlo.text, **FAST
    )
    assert states.shape == guesses.shape == (6, 16, 16, 3)
    torch.testing.assert_close(film, drawn(karlo, karlo.embedding, text=karlo.text), rtol=0, atol=1e-5)


def test_clip_guides_it_and_climbs_alone(karlo):
    free = drawn(karlo, karlo.embedding)
    guided = drawn(karlo, karlo.embedding, clip=karlo.clip, clip_text=karlo.text, clip_strength=20.0)
    assert (check_images(guided, 2, 16, 16, 3) - free).abs().max() > 1e-4
    climbed = run("UnclipClipOptimise", karlo.clip, karlo.text, width=32, height=32, cutouts=2, **FAST)[0]
    check_images(climbed, 2, 32, 32, 3)
