"""From prompts or image embeddings to images, through all stages that the model has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..clip.adapter import TextCondition
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
    """What the stages made of `B` prompts, or of `B` image embeddings.

    Attributes:
        small: the decoder's images `[B, S, S, 3]` in 0..1.
        large: the upsampler's images `[B, scale * S, scale * S, 3]` in 0..1; the decoder's where none was used.
        embeds: the image embeddings `[B * decoded, D]` that were decoded.
        text: the condition of the prompts; None where there were none.
    """

    small: Tensor
    large: Tensor
    embeds: Tensor
    text: TextCondition | None = None


def text_to_image(
    model: UnclipModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: Settings | None = None,
    on_stage: OnStage | None = None,
    upsampled: bool = True,
) -> Drawing:
    """Draw an image for each prompt, through all stages of the model; one seed a prompt.

    Of each prompt's candidates the nearest to it are decoded, see `Settings`; the image that CLIP finds nearest goes to
    the upsampler, if there is one and `upsampled` asks for it.

    Raises:
        ValueError: a setting is out of range, or there is not one seed a prompt.
        MissingPart: the model has no CLIP, prior or decoder.
    """
    settings, done = settings or Settings(), on_stage or _nothing
    text = encode_text(model.clip, prompts)
    done("clip")
    drawn, count = settings.candidates, min(settings.candidates, settings.decoded)
    embeds = sample_prior(model.prior, text, seeds=seeds, candidates=drawn, keep=count, **arguments(settings.prior))
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
    return Drawing(small, _enlarged(model, small, seeds, settings, done, upsampled), embeds, text)


def variations(
    model: UnclipModel,
    embeds: Tensor,
    seeds: Sequence[int],
    settings: Settings | None = None,
    on_stage: OnStage | None = None,
    upsampled: bool = True,
) -> Drawing:
    """Draw an image for each image embedding `[B, D]`, without a text; candidates play no part.

    Raises:
        ValueError: a setting is out of range, or there is not one seed an embedding.
        MissingPart: the model has no decoder.
    """
    settings, done = settings or Settings(), on_stage or _nothing
    small = sample_decoder(model.decoder, embeds, seeds=seeds, **arguments(settings.decoder))
    done("decoder")
    return Drawing(small, _enlarged(model, small, seeds, settings, done, upsampled), embeds)


def _enlarged(
    model: UnclipModel, small: Tensor, seeds: Sequence[int], settings: Settings, done: OnStage, upsampled: bool
) -> Tensor:
    """The upsampler's images of the decoder's, or these where it is not there or not asked for."""
    if not upsampled or not model.has("upsampler"):
        return small
    large = upscale(model.upsampler, small, seeds=seeds, **upsampler_arguments(settings.upsampler))
    done("upsampler")
    return large


def _nothing(stage: str) -> None:
    pass
