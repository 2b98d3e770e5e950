"""An evaluation's model, data and CLIP, and what one process does with a share of the samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.opening import open_images
from ..data.samples import Collection
from ..families.loading import load_model
from ..lora.files import adapted_model, read_lora
from ..models import MissingPart, UnclipModel
from ..weights.choices import AUTO
from ..weights.devices import choose_device, own_dtype
from .encoders import Encoder, OpenClipEncoder, OwnEncoder
from .gathering import Gathered
from .generation import Draw, pairs_of


@dataclass(frozen=True)
class Plan:
    """What is measured; it is small and can be sent to other processes.

    Attributes:
        model: a model folder, or the name of a bundled model, such as "bundled (shapes)".
        data: images with captions.
        how: how to draw.
        loras: files and strengths of LoRAs to draw with.
        clip: an architecture of open_clip to compare with; None for the model's own CLIP.
        clip_weights: the file of its weights.
        device: what the nets run on.
    """

    model: str
    data: str
    how: Draw
    loras: tuple[tuple[str, float], ...] = ()
    clip: str | None = None
    clip_weights: str | None = None
    device: str = AUTO

    def open(self) -> tuple[UnclipModel, Encoder]:
        """Read what is needed of the model, and the CLIP that compares, onto the device.

        What draws computes there in the device's own dtype, see `own_dtype`; CLIP, which compares, in float32.

        Raises:
            CheckpointError: one of them cannot be read, does not fit or lacks a part.
        """
        device = choose_device(self.device)
        model = load_model(self.model, own_dtype(device))
        model = adapted_model(model, [(read_lora(path), strength) for path, strength in self.loras])
        encoder = _encoder(model, self.clip, self.clip_weights, device)
        _place(model, self.how, device)
        return model, encoder


class Measurer:
    """One process of several that share an evaluation."""

    def __init__(self, plan: Plan, collection: Collection | None = None) -> None:
        """Read model and data, `collection` where that is open already; raises as `Plan.open` does."""
        self._plan, self._collection = plan, open_images(plan.data) if collection is None else collection
        self._model, self._encoder = plan.open()

    def measure(self, indices: Sequence[int], seeds: Sequence[int], shown: bool) -> Gathered:
        """Draw and measure a batch.

        Args:
            indices: numbers of good samples.
            seeds: of their noise.
            shown: whether their images may be on the page.

        Raises:
            BadSample: one of them is not good (any more).
        """
        captions = self._plan.how.source == "text"
        rows = [self._collection.read(index, captions) for index in indices]
        kept = Gathered()
        kept.add(pairs_of(self._model, rows, seeds, self._plan.how), self._encoder)
        if not shown:
            kept.shown.clear()
        return kept


def _encoder(model: UnclipModel, clip: str | None, weights: str | Path | None, device: torch.device) -> Encoder:
    if clip is None and weights is None:
        return OwnEncoder(model.clip)
    if clip is None or weights is None:
        raise ValueError("An architecture of open_clip and the file of its weights go together: give both or neither.")
    return OpenClipEncoder(clip, weights, device)


def _place(model: UnclipModel, how: Draw, device: torch.device) -> None:
    """Read the parts that are needed and move them to the device, so that a lack is said before anything is drawn.

    Raises:
        MissingPart: the model has no prior to draw from text with, or no CLIP or decoder.
    """
    if how.source == "text" and not model.has("prior"):
        raise MissingPart(
            f"The model '{model.name}' has no prior, so it cannot draw from captions: measure its images drawn from "
            "the true images' own embeddings (--from pictures)."
        )
    parts: list[Any] = [model.clip, model.decoder]
    parts += [model.prior] if how.source == "text" else []
    parts += [model.upsampler] if how.upsamples(model) else []
    for part in parts:
        part.module.to(device)
