"""The embedding nodes: arithmetic in the space of CLIP's image embeddings."""

from typing import Any

import torch

from ..unclip_core.embeddings import slerp
from . import defaults, inputs, sockets
from .sockets import EmbeddingValue


class UnclipEmbeddingInterpolate:
    """Node: the embeddings between two others."""

    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Blends two image embeddings along the arc between them (slerp): one blend, or a transition of many."
    )
    SEARCH_ALIASES = ["slerp", "blend", "mix", "interpolation", "morph", "transition"]
    RETURN_TYPES = (sockets.EMBEDDING,)
    RETURN_NAMES = ("embedding",)
    OUTPUT_TOOLTIPS = ("The blends in order. For batches: all frames of the first pair, then of the second.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        low, high = defaults.BLEND_MIN, defaults.BLEND_MAX
        return {
            "required": {
                "embedding_a": (sockets.EMBEDDING, {"tooltip": "What t = 0 shows."}),
                "embedding_b": (sockets.EMBEDDING, {"tooltip": "What t = 1 shows."}),
                "t": inputs.float_widget(
                    defaults.BLEND, low, high, 0.01, "The place from a (0) to b (1), or of the first frame."
                ),
                "frames": inputs.int_widget(
                    defaults.FRAMES, 1, defaults.FRAMES_MAX, "1: one blend, at t. More: from t to t_end."
                ),
                "t_end": inputs.float_widget(
                    defaults.BLEND_END, low, high, 0.01, "With several frames: the place of the last one."
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, t: float = defaults.BLEND, t_end: float = defaults.BLEND_END) -> bool | str:
        """ComfyUI's own check of the range lets NaN pass. It hands over None for what a link brings."""
        return inputs.validated(
            lambda: t is None or check_blend("t", t), lambda: t_end is None or check_blend("t_end", t_end)
        )

    def run(
        self,
        embedding_a: EmbeddingValue,
        embedding_b: EmbeddingValue,
        t: float = defaults.BLEND,
        frames: int = defaults.FRAMES,
        t_end: float = defaults.BLEND_END,
    ) -> tuple[EmbeddingValue]:
        """Blend `embedding_a` and `embedding_b`, both `[B, D]` or one `[1, D]`, to `[B * frames, D]`."""
        sockets.require_family(embedding_b, "embedding_b", embedding_a.family, "embedding_a")
        start, end = check_blend("t", t), check_blend("t_end", t_end)
        frames = inputs.check_int("frames", frames, 1, defaults.FRAMES_MAX)
        times = torch.linspace(start, start if frames == 1 else end, frames, dtype=torch.float64)
        blends = slerp(embedding_a.embeds, embedding_b.embeds, times)
        return (EmbeddingValue(blends.transpose(0, 1).flatten(0, 1), embedding_a.family, "interpolation"),)


def check_blend(name: str, value: Any) -> float:
    """`value` as a place between two embeddings.

    Raises:
        InputError: it is not a finite number, or out of range.
    """
    return inputs.check_float(name, value, defaults.BLEND_MIN, defaults.BLEND_MAX)
