"""The nodes that convert between the pack's image embeddings and ComfyUI's CLIP_VISION_OUTPUT."""

from typing import Any

import torch
from torch import Tensor

from ..unclip_core.embedding.arithmetic import normalize
from ..unclip_core.models import Clip
from . import host, sockets
from .inputs import InputError
from .sockets import EmbeddingValue, PartValue

STOCK_WIDTHS = {
    768: "SD 2.1 unCLIP (l) and Stable Cascade, if made by OpenAI's ViT-L",
    1024: "SD 2.1 unCLIP (h) and the IP-Adapters of SD 1.5, if made by LAION's ViT-H",
    1280: "SDXL (ReVision) and its IP-Adapters of ViT-bigG, if made by LAION's ViT-bigG",
}
"""Width of an image embedding -> the stock models that take one of it, and the CLIP that they were trained with."""


class ClipVisionOutput:
    """A CLIP_VISION_OUTPUT of image embeddings alone; ComfyUI's nodes look for its attributes, not for its class.

    Attributes:
        image_embeds: `[B, D]` float32.
    """

    def __init__(self, image_embeds: Tensor) -> None:
        self.image_embeds = image_embeds

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def __getattr__(self, name: str) -> Any:
        # A note for nodes that want the hidden states; those with underscores are asked for by copying and pickling.
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"This CLIP_VISION_OUTPUT was made of an image embedding alone: it has no '{name}'.")


class UnclipToClipVision:
    """Node: embeddings to CLIP_VISION_OUTPUT, and to what packs of IP-Adapter pass."""

    ID = "UnclipToClipVision"
    DISPLAY_NAME = "To CLIP Vision Output (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Hands image embeddings to ComfyUI's own nodes, such as unCLIPConditioning, and to those of IP-Adapter. The "
        "model there must have been trained with the same CLIP."
    )
    SEARCH_ALIASES = [
        "clip vision output", "unclip conditioning", "convert embedding", "stable unclip", "revision", "cascade",
        "ip-adapter", "ipadapter embeds",
    ]  # fmt: skip
    RETURN_TYPES = (sockets.CLIP_VISION, sockets.CLIP_VISION, sockets.STOCK_EMBEDS)
    RETURN_NAMES = ("clip_vision_output", "one_each", "embeds")
    OUTPUT_IS_LIST = (False, True, False)
    OUTPUT_TOOLTIPS = (
        "All embeddings in one, which unCLIPConditioning mixes; there are no hidden states with it.",
        "The embeddings one by one: what follows runs once for each, and draws an image of each.",
        "All embeddings, as the pos_embed or neg_embed of IPAdapter Embeds, for an IP-Adapter that is not a plus.",
    )
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {"required": {"embedding": (sockets.EMBEDDING, {"tooltip": "What to hand on, one or a batch."})}}

    HAS_INTERMEDIATE_OUTPUT = True

    def run(self, embedding: EmbeddingValue) -> dict[str, Any]:
        """Wrap the embeddings `[B, D]`, and say which stock models take their width."""
        sockets.require_embedding(embedding, "embedding")
        embeds = embedding.embeds.float()
        count, width = embeds.shape
        warnings = width_warnings(embedding.family, width)
        text = "\n".join(warnings) or f"{width} numbers an embedding: for {STOCK_WIDTHS.get(width)}."
        if count > 1:
            text += f"\n{count} embeddings: unCLIPConditioning mixes them, but for those of 'one_each'."
        each = [ClipVisionOutput(row) for row in embeds.split(1)]
        return host.with_text((ClipVisionOutput(embeds), each, embeds), text, warnings)


def width_warnings(family: str, width: int) -> list[str]:
    """Return a warning of embeddings that no stock model takes, whose samplers fail of it without it."""
    if width in STOCK_WIDTHS:
        return []
    known = "; ".join(f"{wide}: {models}" for wide, models in STOCK_WIDTHS.items())
    return [
        f"Embeddings of the '{family}' family have {width} numbers. None of ComfyUI's own models takes them. Those "
        f"take {known}. Use a model of such a width here: Karlo (768), Kandinsky 2.2 (1280), or a stock CLIP Vision."
    ]


class UnclipFromClipVision:
    """Node: CLIP_VISION_OUTPUT to embeddings."""

    ID = "UnclipFromClipVision"
    DISPLAY_NAME = "From CLIP Vision Output (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Takes the output of ComfyUI's CLIP Vision Encode as image embeddings of a model that was trained with that "
        "very CLIP."
    )
    SEARCH_ALIASES = ["clip vision encode", "clip vision output", "convert embedding", "image prompt"]
    RETURN_TYPES = (sockets.EMBEDDING,)
    RETURN_NAMES = ("embedding",)
    OUTPUT_TOOLTIPS = ("The embeddings, of the family of the CLIP that is given.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "clip": (
                    sockets.CLIP,
                    {"tooltip": "The CLIP of Load unCLIP Model, of which the other is a copy: it names the family."},
                ),
                "clip_vision_output": (sockets.CLIP_VISION, {"tooltip": "Of CLIP Vision Encode."}),
            }
        }

    def run(self, clip: PartValue[Clip], clip_vision_output: Any) -> tuple[EmbeddingValue]:
        """Unwrap the embeddings `[B, D]`; scale them to length 1 where the family does."""
        embeds = checked_embeds(clip_vision_output, clip.part.adapter.embed_dim)
        if clip.part.adapter.normalize:
            embeds = normalize(embeds)
        return (EmbeddingValue(embeds.to(host.intermediate_device()), clip.family, "image"),)


def checked_embeds(output: Any, width: int) -> Tensor:
    """Return the image embeddings `[B, D]` float32 of a CLIP_VISION_OUTPUT, if they have the family's width.

    Raises:
        InputError: there are none, they are of another width, or hold NaN or infinity.
    """
    embeds = getattr(output, "image_embeds", None)
    if not isinstance(embeds, Tensor) or embeds.ndim != 2 or not len(embeds):
        found = list(embeds.shape) if isinstance(embeds, Tensor) else type(embeds).__name__
        raise InputError(f"The CLIP_VISION_OUTPUT holds no image embeddings [B, D], but {found}: use a CLIP model.")
    if embeds.shape[1] != width:
        raise InputError(
            f"The CLIP_VISION_OUTPUT has embeddings of {embeds.shape[1]} numbers, this model's CLIP of {width}: "
            "they are of two different CLIPs."
        )
    if not bool(torch.isfinite(embeds).all()):
        raise InputError("The CLIP_VISION_OUTPUT holds NaN or infinity.")
    return embeds.float()
