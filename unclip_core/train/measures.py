"""What the prior and the upsampler add over doing nothing: over the text embedding, and over bicubic enlargement."""

import random

import torch
from torch import Tensor
from torch.nn import functional as F

from ..embeddings import cosine
from ..models import Clip, Prior, Upsampler
from ..noise import sample_seeds
from ..pipelines import encode_image, encode_text, enlarge, sample_prior, upscale
from ..settings import Settings
from ..world.captions import caption
from ..world.render import render
from ..world.scenes import sample_scenes


@torch.no_grad()
def measure_prior(clip: Clip, prior: Prior, count: int, seed: int) -> dict[str, dict[str, float]]:
    """Mean cosine to the true image embedding, of the prior's embedding and of the text's, on fresh scenes."""
    settings, found = Settings(), {}
    for split in ("trained", "held_out"):
        rng = random.Random(f"prior {seed} {split}")
        scenes = sample_scenes(rng, count, split)
        true = encode_image(clip, render(scenes, clip.adapter.image_size).permute(0, 2, 3, 1))
        text = encode_text(clip, [caption(scene, rng, full=True) for scene in scenes])
        drawn = sample_prior(prior, text, steps=settings.prior_steps, guidance_scale=settings.prior_guidance,
                             seeds=sample_seeds(seed, count), sampler=settings.prior_sampler)
        found[split] = {"prior": float(cosine(drawn, true).mean()), "text": float(cosine(text.embeds, true).mean())}
    return found


@torch.no_grad()
def measure_upsampler(upsampler: Upsampler, count: int, seed: int, size: int = 256) -> dict[str, float]:
    """Mean PSNR in dB against true pictures of `size` px, from their true smaller ones: ours and bicubic."""
    scenes = sample_scenes(random.Random(f"upsampler {seed}"), count, "trained")
    true = render(scenes, size)
    small = F.avg_pool2d(true, upsampler.scale)
    drawn = upscale(upsampler, small.permute(0, 2, 3, 1), steps=Settings().upscaler_steps,
                    seeds=sample_seeds(seed, count), sampler=Settings().upscaler_sampler).permute(0, 3, 1, 2)
    bicubic = enlarge(small * 2 - 1, upsampler.scale) * 0.5 + 0.5
    return {"upsampler": float(_psnr(drawn, true)), "bicubic": float(_psnr(bicubic, true))}


def _psnr(pictures: Tensor, true: Tensor) -> Tensor:
    """Mean over pictures of 10 log10(1 / mean squared error)."""
    return (-10 * torch.log10((pictures - true).square().mean(dim=(1, 2, 3)))).mean()
