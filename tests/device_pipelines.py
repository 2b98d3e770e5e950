"""Every pipeline as a function of the parts and of what puts a tensor on their device: the same for every device."""

import dataclasses

import torch
from factories import SIDE, WIDTH, draw

from unclip.unclip_core import pipelines
from unclip.unclip_core.diffusion.film import Film
from unclip.unclip_core.diffusion.forward import diffuse
from unclip.unclip_core.diffusion.inversion import psnr
from unclip.unclip_core.diffusion.noise import NoiseSource
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.embedding import arithmetic, pca, ranking
from unclip.unclip_core.pipelines import editing
from unclip.unclip_core.pipelines.clip_ascent import Ascent

SEEDS = [3, 4]
PROMPTS = ["a red circle", "a blue square"]


def images(count=2, height=SIDE, width=SIDE):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(3))


def embeds(count=2, seed=2):
    return draw(count, WIDTH, seed=seed)


def holes(height, width):
    mask = torch.zeros(1, height, width)
    mask[:, :, width // 2 :] = 1
    return mask


def text_to_image(put, clip, prior, decoder, upsampler, sampler="ddpm"):
    text = pipelines.encode_text(clip, PROMPTS)
    found = pipelines.sample_prior(
        prior, text, seeds=SEEDS, steps=3, guidance_scale=2.0, sampler=sampler, candidates=2, keep=1
    )
    settings = {"seeds": SEEDS, "steps": 3, "sampler": sampler, "eta": 0.5}
    small = pipelines.sample_decoder(decoder, found, text=text, guidance_scale=2.0, **settings)
    return pipelines.upscale(upsampler, small, **settings)


def learned_variance(put, clip, prior, decoder, upsampler):
    eps = dataclasses.replace(decoder, diffusion=DiffusionSpec(prediction="epsilon", clip_range=1.0))
    v = dataclasses.replace(decoder, diffusion=DiffusionSpec(prediction="v_prediction", clip_range=1.0))
    drawn = [
        pipelines.sample_decoder(each, put(embeds()), seeds=SEEDS, steps=3, guidance_scale=1.0, sampler=sampler)
        for each, sampler in ((eps, "ddpm"), (v, "dpmpp_2m"))
    ]
    return torch.cat(drawn)


def tiles(put, clip, prior, decoder, upsampler):
    return pipelines.upscale(upsampler, put(images(1, 8, 24)), seeds=SEEDS[:1], steps=2, tile=32)


def known_pixels(put, clip, prior, decoder, upsampler):
    known = {"known": put(images(2, 4 * SIDE, 4 * SIDE)), "mask": put(holes(4 * SIDE, 4 * SIDE))}
    return pipelines.upscale(upsampler, put(images()), seeds=SEEDS, steps=2, **known)


def inpaint(put, clip, prior, decoder, upsampler):
    here = (put(images(2, SIDE, 28)), put(holes(SIDE, 28)), put(embeds()))
    return editing.inpaint_decoder(decoder, *here, seeds=SEEDS, steps=3, resamples=2)


def inversion(put, clip, prior, decoder, upsampler):
    found = editing.invert_decoder(decoder, put(images()), put(embeds()), steps=4, iterations=2)
    settings = {"seeds": SEEDS, "steps": 4, "guidance_scale": 1.0, "sampler": "ddim"}
    again = pipelines.sample_decoder(decoder, put(embeds()), start=found.noise, start_error=found.error, **settings)
    return psnr(again, put(images()))


def guided(put, clip, prior, decoder, upsampler):
    return editing.guided_decoder(
        decoder, clip, put(embeds(1)), 2.0, put(embeds()), seeds=SEEDS, steps=3, guidance_scale=1.0, sampler="ddim"
    )


def ascent(put, clip, prior, decoder, upsampler):
    how = Ascent(steps=2, cutouts=2)
    return editing.optimise_images(clip, put(embeds()), how, seeds=SEEDS, images=put(images()))


def reading(put, clip, prior, decoder, upsampler):
    text = pipelines.encode_text(clip, PROMPTS)
    ranked = pipelines.rerank(clip, text, put(images(4, 40, 30)), keep=1)
    return pipelines.encode_image(clip, ranked)


def embedding_space(put, clip, prior, decoder, upsampler):
    a, b, t = put(embeds(3)), put(embeds(3, seed=5)), torch.linspace(0, 1, 3)
    basis = pca.fit_basis(put(embeds(6)))
    found = [
        arithmetic.slerp(a, b, put(t)),
        arithmetic.nlerp(a, b, 0.3),
        arithmetic.lerp(a, b, 0.3),
        arithmetic.blend([a, b], [1, -0.5]),
        arithmetic.text_diff(a, b, put(embeds(3, seed=7)), 0.3),
        arithmetic.normalize(a),
        pca.reconstruct(basis, a, 3),
        arithmetic.similarity(a, b),
        ranking.rank(a, b[:1], 2).scores,
    ]
    return torch.cat([each.cpu().flatten() for each in found])


def film(put, clip, prior, decoder, upsampler):
    steps = diffuse(put(images()).movedim(-1, 1), [0.9, 0.5, 0.1], NoiseSource(SEEDS))
    shown = Film(steps[-1])
    pipelines.sample_decoder(decoder, put(embeds()), seeds=SEEDS, steps=3, on_step=shown)
    return torch.stack([*shown.states, *shown.predictions])


PIPELINES = [
    text_to_image, learned_variance, tiles, known_pixels, inpaint, inversion, guided, ascent, reading, embedding_space,
    film,
]  # fmt: skip
