"""From prompts to images, through all stages that the model has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models import UnclipModel
from .arguments import candidates_noise
from .clip import encode_text, rerank
from .decoder import sample_decoder
from .prior import sample_prior
from .settings import Settings, arguments, upsampler_arguments
from .upsampler import upscale

OnStage = Callable[[str], None]
"""Called after each stage with its name: "clip", "prior", "decoder", "rerank", "upsampler"."""


@dataclass(frozen=True)
class Drawing:
    """What the stages made of `B` prompts.

    Attributes:
        small: the decoder's images `[B, S, S, 3]` in 0..1.
        large: the upsampler's images `[B, scale * S, scale * S, 3]` in 0..1; the decoder's where there is none.
    """

    small: Tensor
    large: Tensor


def text_to_image(
    model: UnclipModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: Settings | None = None,
    on_stage: OnStage | None = None,
) -> Drawing:
    """Draw an image for each prompt, through all stages of the model; one seed a prompt.

    Of each prompt's candidates the one that CLIP finds nearest to it goes to the upsampler, if there is one.

    Raises:
        ValueError: a setting is out of range, or there is not one seed a prompt.
        MissingPart: the model has no CLIP, prior or decoder.
    """
    settings, done = settings or Settings(), on_stage or _nothing
    text = encode_text(model.clip, prompts)
    done("clip")
    count = settings.candidates
    embeds = sample_prior(model.prior, text, seeds=seeds, candidates=count, keep=count, **arguments(settings.prior))
    done("prior")
    rows = torch.arange(len(prompts)).repeat_interleave(count)
    small = sample_decoder(
        model.decoder,
        embeds,
        text=text.select(rows),
        seeds=[seeds[row] for row in rows],
        noise=candidates_noise(seeds, count, "decoder"),
        **arguments(settings.decoder),
    )
    done("decoder")
    if count > 1:
        small = rerank(model.clip, text, small, keep=1)
        done("rerank")
    if not model.has("upsampler"):
        return Drawing(small, small)
    large = upscale(model.upsampler, small, seeds=seeds, **upsampler_arguments(settings.upsampler))
    done("upsampler")
    return Drawing(small, large)


def _nothing(stage: str) -> None:
    pass
