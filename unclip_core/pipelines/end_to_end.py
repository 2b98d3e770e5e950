"""From prompts to pictures, through all four stages."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models import UnclipModel
from .arguments import candidates_noise
from .clip import encode_text, rerank
from .decoder import sample_decoder
from .prior import sample_prior
from .settings import Settings
from .upsampler import upscale


@dataclass(frozen=True)
class Drawing:
    """What each stage made of `B` prompts.

    Attributes:
        small: the decoder's pictures `[B, S, S, 3]` in 0..1.
        large: the upsampler's pictures `[B, 4S, 4S, 3]` in 0..1.
    """

    small: Tensor
    large: Tensor


def text_to_image(model: UnclipModel, prompts: Sequence[str], seeds: Sequence[int], settings: Settings) -> Drawing:
    """Draw a picture for each prompt, through all four stages; one seed a prompt.

    Of each prompt's candidates the one that CLIP finds nearest to it goes to the upsampler.

    Raises:
        ValueError: a setting is out of range, or there is not one seed a prompt.
    """
    text = encode_text(model.clip, prompts)
    count = settings.candidates
    embeds = sample_prior(
        model.prior,
        text,
        steps=settings.prior_steps,
        guidance_scale=settings.prior_guidance,
        seeds=seeds,
        sampler=settings.prior_sampler,
        candidates=count,
        keep=count,
    )
    rows = torch.arange(len(prompts)).repeat_interleave(count)
    small = sample_decoder(
        model.decoder,
        embeds,
        text=text.select(rows),
        steps=settings.decoder_steps,
        guidance_scale=settings.decoder_guidance,
        seeds=[seeds[row] for row in rows],
        sampler=settings.decoder_sampler,
        noise=candidates_noise(seeds, count, "decoder"),
    )
    if count > 1:
        small = rerank(model.clip, text, small, keep=1)
    large = upscale(
        model.upsampler, small, steps=settings.upscaler_steps, seeds=seeds, sampler=settings.upscaler_sampler
    )
    return Drawing(small, large)
