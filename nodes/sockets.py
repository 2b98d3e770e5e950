"""What travels on the pack's sockets: their type names, and frozen values, which know their family."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from ..unclip_core.clip import TextCondition
from ..unclip_core.models import Clip, Decoder, Prior, Upsampler

CLIP = "UNCLIP_CLIP"
PRIOR = "UNCLIP_PRIOR"
DECODER = "UNCLIP_DECODER"
UPSCALER = "UNCLIP_UPSCALER"
TEXT = "UNCLIP_TEXT"
EMBEDDING = "UNCLIP_EMBEDDING"

Part = TypeVar("Part", Clip, Prior, Decoder, Upsampler)


class FamilyError(ValueError):
    """Values of two model families were wired together; the message names both."""


@dataclass(frozen=True, eq=False)
class PartValue(Generic[Part]):
    """One part of a model, as the loader hands it out.

    Attributes:
        part: the core's part.
        patcher: ComfyUI's handle on its weights, which its memory management looks for under this name;
            None outside ComfyUI.
    """

    part: Part
    patcher: Any = None

    @property
    def family(self) -> str:
        """The model family that the part belongs to."""
        return self.part.family


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
        source: where they came from: "image", "prior" or "interpolation".
    """

    embeds: Tensor
    family: str
    source: str


def require_family(value: PartValue | TextValue | EmbeddingValue, kind: str, family: str, taker: str) -> None:
    """Refuse a `value` (called `kind` in the message) that is not of the `family` of its `taker`.

    Raises:
        FamilyError: the families differ.
    """
    if value.family != family:
        raise FamilyError(
            f"The {kind} belongs to the model family '{value.family}', the {taker} to '{family}'. "
            "Their embedding spaces differ: take both from the same Load unCLIP Model node."
        )
