"""The gain of prior and upsampler over their baselines: the text embedding, and bicubic enlargement."""

import random
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.noise import sample_seeds
from ..embedding.arithmetic import cosine
from ..models import Clip, Prior, Upsampler
from ..pipelines import encode_image, encode_text, enlarge, sample_prior, upscale
from ..world.captions import caption
from ..world.edges import edge_width
from ..world.render import render
from ..world.scenes import Scene, sample_scenes


@torch.no_grad()
def measure_prior(clip: Clip, prior: Prior, count: int, seed: int) -> dict[str, dict[str, float]]:
    """Return the mean cosine to the true image embedding, of the prior's embedding and of the text's, by split."""
    found = {}
    for split in ("trained", "held_out"):
        rng = random.Random(f"prior {seed} {split}")
        scenes = sample_scenes(rng, count, split)
        true = encode_image(clip, render(scenes, clip.adapter.image_size).permute(0, 2, 3, 1))
        text = encode_text(clip, [caption(scene, rng, full=True) for scene in scenes])
        drawn = sample_prior(
            prior,
            text,
            seeds=sample_seeds(seed, count),
        )
        found[split] = {"prior": float(cosine(drawn, true).mean()), "text": float(cosine(text.embeds, true).mean())}
    return found


@torch.no_grad()
def measure_upsampler(
    upsampler: Upsampler, count: int, seed: int, size: int = 256, reduced: bool = False
) -> dict[str, float]:
    """Compare the upsampler and bicubic enlargement with true images of `size` px.

    Args:
        count: scenes.
        seed: of scenes and noise.
        size: side of the large images, px.
        reduced: whether the small images are means of the large ones' pixels; otherwise they are rendered at their
            size, as those that the decoder learns from.

    Returns:
        "upsampler" and "bicubic": mean PSNR in dB; "upsampler_edge", "bicubic_edge" and "true_edge": the mean width of
        the outlines of single things, in px (`edge_width`).
    """
    scenes = sample_scenes(random.Random(f"upsampler {seed}"), count, "trained")
    found = [
        _compared(upsampler, scenes[row : row + 1], sample_seeds(seed + row, 1), size, reduced) for row in range(count)
    ]
    names = dict.fromkeys(name for row in found for name in row)
    return {name: fmean(row[name] for row in found if name in row) for name in names}


def _compared(upsampler: Upsampler, scene: list[Scene], seeds: list[int], size: int, reduced: bool) -> dict[str, float]:
    """Return the figures of one image; those of the outline only where it shows a single thing."""
    true = render(scene, size)
    small = F.avg_pool2d(true, upsampler.scale) if reduced else render(scene, size // upsampler.scale)
    drawn = upscale(
        upsampler,
        small.permute(0, 2, 3, 1),
        seeds=seeds,
    ).permute(0, 3, 1, 2)
    bicubic = enlarge(small * 2 - 1, upsampler.scale) * 0.5 + 0.5
    figures = {"upsampler": _psnr(drawn, true), "bicubic": _psnr(bicubic, true)}
    if len(scene[0].things) == 1:
        figures |= {
            name + "_edge": edge_width(images[0])
            for name, images in (("upsampler", drawn), ("bicubic", bicubic), ("true", true))
        }
    return figures


def _psnr(image: Tensor, true: Tensor) -> float:
    """10 log10(1 / mean squared error)."""
    return float(-10 * torch.log10((image - true).square().mean()))
