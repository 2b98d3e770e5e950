"""What is measured: true images beside those that a model draws for the same captions, batch by batch."""

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..data.center_crop import center_crop
from ..data.samples import Collection, Sample, samples
from ..diffusion.noise import sample_seeds
from ..models import UnclipModel
from ..pipelines import encode_image, text_to_image, variations
from ..pipelines.settings import Settings

SOURCES = ("text", "pictures")
"""What an image is drawn from: its caption, through the prior, or the true image's own embedding."""


@dataclass(frozen=True)
class Pairs:
    """`B` true images and what was drawn for them.

    Attributes:
        captions: the `B` captions, "" where drawn from images alone.
        true: the middle squares of the true images at the size of the drawn ones, `[B, S, S, 3]` in 0..1.
        drawn: `[B, S, S, 3]` in 0..1.
        true_embeds: CLIP's embeddings `[B, D]` of the true images, of the model's own CLIP; None where that has no
            image encoder (Karlo's folder for text).
        text_embeds: those of the captions; None where drawn from images.
        prior_embeds: those that the prior drew; None where drawn from images.
    """

    captions: list[str]
    true: Tensor
    drawn: Tensor
    true_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    prior_embeds: Tensor | None = None


@dataclass(frozen=True)
class Draw:
    """How to draw.

    Attributes:
        source: one of `SOURCES`.
        small: whether the decoder's own images are measured, without the upsampler; always so of a model without one.
        seed: of the noise; image number i has the seed + i.
        batch: images drawn together; it does not change them.
        settings: steps, guidance and samplers. One candidate a caption is drawn: choosing would bias the set.
    """

    source: str = "text"
    small: bool = False
    seed: int = 0
    batch: int = 8
    settings: Settings = field(default_factory=lambda: Settings(candidates=1))

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown source, or a batch of nothing."""
        if self.source not in SOURCES:
            raise ValueError(f"Images are drawn from {' or '.join(SOURCES)}, not from {self.source!r}.")
        if self.batch < 1:
            raise ValueError(f"A batch must be of 1 image or more, not {self.batch}.")
        object.__setattr__(self, "settings", replace(self.settings, candidates=1))

    def upsamples(self, model: UnclipModel) -> bool:
        """Whether the images of this model that are measured are its upsampler's."""
        return not self.small and model.has("upsampler")


def draw_pairs(
    model: UnclipModel, collection: Collection, count: int, how: Draw, bad: MutableMapping[str, str]
) -> Iterator[Pairs]:
    """Draw an image for each of the first `count` good samples of a collection, and yield them in batches.

    Args:
        bad: takes the samples that are left out, as name → reason.

    Raises:
        ValueError: the model's CLIP lacks an encoder that is needed.
        CheckpointError: the model lacks a part that is needed.
    """
    good = islice(samples(collection, bad, captions=how.source == "text"), count)
    seeds = sample_seeds(how.seed, count)
    start = 0
    while rows := list(islice(good, how.batch)):
        yield pairs_of(model, rows, seeds[start : start + len(rows)], how)
        start += len(rows)


@torch.no_grad()
def pairs_of(model: UnclipModel, rows: Sequence[Sample], seeds: Sequence[int], how: Draw) -> Pairs:
    """Draw one batch, an image for each sample with its seed."""
    upsampled, captions = how.upsamples(model), [row.caption for row in rows]
    side = model.decoder.image_size * (model.upsampler.scale if upsampled else 1)
    true = torch.stack([center_crop(row.image, side) for row in rows]).float() / 255
    if how.source == "pictures":
        true_embeds = encode_image(model.clip, true)
        drawing = variations(model, true_embeds, seeds, how.settings, upsampled=upsampled)
        return Pairs(captions, true, drawing.large.cpu(), true_embeds.cpu())
    # Only the cosine of the prior's embeddings needs those of the true images.
    true_embeds = encode_image(model.clip, true).cpu() if model.clip.adapter.has_vision else None
    drawn: Any = text_to_image(model, captions, seeds, how.settings, upsampled=upsampled)
    return Pairs(captions, true, drawn.large.cpu(), true_embeds, drawn.text.embeds.cpu(), drawn.embeds.cpu())
