"""The pack's sockets: the names of their types, and the frozen values that they carry. Each knows its family."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ..unclip_core.clip.adapter import TextCondition
from ..unclip_core.embedding.pca import PcaBasis
from ..unclip_core.lora.delta import Change
from ..unclip_core.models import Clip, CodecPart, Decoder, ImageCodec, Prior, StageSettings, Upsampler
from .inputs import check_arrived

CLIP = "UNCLIP_CLIP"
PRIOR = "UNCLIP_PRIOR"
DECODER = "UNCLIP_DECODER"
UPSCALER = "UNCLIP_UPSCALER"
TEXT = "UNCLIP_TEXT"
EMBEDDING = "UNCLIP_EMBEDDING"
NOISE = "UNCLIP_NOISE"
BASIS = "UNCLIP_BASIS"
CLIP_VISION = "CLIP_VISION_OUTPUT"
"""ComfyUI's own: what a CLIP vision model says of images."""

STOCK_CLIP, STOCK_VISION = "CLIP", "CLIP_VISION"
"""ComfyUI's own: text encoders, and an image encoder, of its loaders."""

STOCK_EMBEDS = "EMBEDS"
"""Image embeddings `[B, D]` as packs of IP-Adapter pass them."""

Part = TypeVar("Part", Clip, Prior, Decoder, Upsampler, CodecPart)


class FamilyError(ValueError):
    """Values of two model families were wired together; the message names both."""


class BrokenValue(ValueError):
    """A value holds NaN, infinity, or an embedding of length 0; the message names the row and the cause."""


@dataclass(frozen=True, eq=False)
class PartValue(Generic[Part]):
    """One part of a model, as the loader hands it out.

    Attributes:
        part: the core's part.
        patcher: ComfyUI's handle on its weights, which its memory management looks for under this name;
            None outside ComfyUI.
        changes: LoRAs with their strengths, which the host adds to the weights while a stage runs.
        base: with `changes`, the value that `part` borrows its weights from; it stays as it is.
    """

    part: Part
    patcher: Any = None
    changes: tuple[Change, ...] = ()
    base: "PartValue[Part] | None" = None

    @property
    def family(self) -> str:
        """The model family that the part belongs to."""
        return self.part.family

    @property
    def codec(self) -> ImageCodec:
        """Of a decoder, its image codec."""
        return self.part.codec  # type: ignore[union-attr]  # asked of decoders alone


class LateValue(Generic[Part]):
    """A part that is read lazily, when a stage first uses it: variations of an image need no prior.

    It stands in for a `PartValue`. Parts that cannot be had are such values too: reading them raises.
    """

    def __init__(
        self, family: str, read: Callable[[], PartValue[Part]], codec: Callable[[], ImageCodec] | None = None
    ) -> None:
        """codec: of a decoder, reads its image codec alone."""
        self.family = family
        self._read, self._codec = read, codec

    @cached_property
    def value(self) -> PartValue[Part]:
        """The part as a `PartValue`, read at the first access."""
        return self._read()

    @property
    def part(self) -> Part:
        """The core's part, read at the first access."""
        return self.value.part

    @property
    def codec(self) -> ImageCodec:
        """Of a decoder, its image codec; the decoder is not read for it."""
        return self.value.codec if "value" in self.__dict__ or self._codec is None else self._codec()

    @property
    def patcher(self) -> Any:
        """ComfyUI's handle on the weights; None while they are not read."""
        return self.value.patcher if "value" in self.__dict__ else None


@dataclass(frozen=True, eq=False)
class TextValue:
    """Prompts as CLIP reads them.

    Attributes:
        condition: text embeddings `[B, D]`, token states `[B, T, W]` and mask `[B, T]`.
        family: the model family of the CLIP that read them.
        prompts: the `B` prompts.
    """

    condition: TextCondition
    family: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class EmbeddingValue:
    """CLIP image embeddings.

    Attributes:
        embeds: `[B, D]`, in the family's norm.
        family: the model family whose space they lie in.
        source: where they came from: "image", "prior", "interpolation" …
        prompts: the texts that they were drawn for, where there are some.
        seed: the seed that they were drawn with, where there is one.

    Raises:
        BrokenValue: a row holds NaN or infinity, or nothing but zeros.
    """

    embeds: Tensor
    family: str
    source: str
    prompts: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse embeddings without a direction where they arise: what a decoder draws of them looks like any image."""
        check_finite(self.embeds, f"image embeddings ({self.source})")
        if silent := (self.embeds == 0).all(dim=1).nonzero().flatten().tolist():
            raise BrokenValue(
                f"Row {silent[0] + 1} of the image embeddings ({self.source}) has length 0: it points "
                "nowhere, so there is nothing to draw or to compare."
            )


@dataclass(frozen=True, eq=False)
class BasisValue:
    """Principal components of a family's image embeddings."""

    basis: PcaBasis
    family: str


@dataclass(frozen=True, eq=False)
class NoiseValue:
    """The noise that a decoder makes images from.

    Attributes:
        noise: `[B, C, s, s]`, in the latents of the decoder's codec, about standard normal.
        family: the model family whose decoder it is for.
        error: `[B]`, how far that decoder errs about the images that the noise was found of; None is 0.
        found_with: the settings that the noise was found with, which draw its images again; None where it is unknown.

    Raises:
        BrokenValue: a row holds NaN or infinity.
    """

    noise: Tensor
    family: str
    error: Tensor | None = None
    found_with: StageSettings | None = None

    def __post_init__(self) -> None:
        """Refuse NaN and infinity: the images would be black."""
        check_finite(self.noise, "noise")


def check_finite(rows: Tensor, what: str) -> None:
    """Refuse `rows` `[B, …]` that hold NaN or infinity.

    Raises:
        BrokenValue: they do.
    """
    broken = (~torch.isfinite(rows)).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if broken:
        raise BrokenValue(
            f"Row {broken[0] + 1} of the {what} holds NaN or infinity. In half precision numbers may "
            "overflow: set 'dtype' of Load unCLIP Model to fp32, or bf16."
        )


def require_embedding(value: EmbeddingValue | TextValue | None, name: str) -> None:
    """Refuse None where an embedding is needed, called `name` in the message.

    Raises:
        InputError: it is None.
    """
    check_arrived(value, name, "embedding")


def require_family(
    value: PartValue | TextValue | EmbeddingValue | BasisValue | NoiseValue | None, kind: str, family: str, taker: str
) -> None:
    """Refuse a `value` (called `kind` in the message) that is not of the `family` of its `taker`.

    Raises:
        InputError: there is no value.
        FamilyError: the families differ.
    """
    if check_arrived(value, kind, "embedding").family != family:
        raise FamilyError(
            f"The {kind} belongs to the model family '{value.family}', the {taker} to '{family}'. "
            "Their embedding spaces differ: take both from the same Load unCLIP Model node."
        )
