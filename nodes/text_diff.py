"""The text diff node: an image embedding turned by the difference of two texts."""

from typing import Any

from ..unclip_core.embeddings import text_diff
from . import defaults, inputs, sockets
from .embeddings import in_turn, places
from .inputs import InputError
from .sockets import EmbeddingValue, TextValue


class UnclipTextDiff:
    """Node: edits what an embedding shows by two texts."""

    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Turns an image embedding from what one text says toward what another says: 'a red circle' to 'a blue circle' "
        "changes the colour and keeps the rest."
    )
    SEARCH_ALIASES = ["edit by text", "language-guided", "text diff", "prompt edit", "manipulate"]
    RETURN_TYPES = (sockets.EMBEDDING,)
    RETURN_NAMES = ("embedding",)
    OUTPUT_TOOLTIPS = ("The embedding, edited. For batches: all frames of the first, then of the second.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "embedding": (sockets.EMBEDDING, {"tooltip": "What to edit."}),
                "text_before": (sockets.TEXT, {"tooltip": "A text that says what it shows now."}),
                "text_after": (sockets.TEXT, {"tooltip": "The text changed into what it should show."}),
                "theta": inputs.float_widget(
                    defaults.THETA,
                    defaults.THETA_MIN,
                    defaults.THETA_MAX,
                    0.01,
                    "How far: 0 leaves it alone, 1 leaves nothing but the difference. 0.25 to 0.5 are usual.",
                ),
                "frames": inputs.int_widget(
                    defaults.FRAMES, 1, defaults.FRAMES_MAX, "1: one edit, at theta. More: from 0 to theta."
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, theta: float = defaults.THETA) -> bool | str:
        """ComfyUI's own check of the range lets NaN pass. It hands over None for what a link brings."""
        return inputs.validated(lambda: theta is None or check_theta(theta))

    def run(
        self,
        embedding: EmbeddingValue,
        text_before: TextValue,
        text_after: TextValue,
        theta: float = defaults.THETA,
        frames: int = defaults.FRAMES,
    ) -> tuple[EmbeddingValue]:
        """Edit `B` embeddings by one pair of texts, or one each (or one embedding by `B`), to `[B * frames, D]`."""
        for name, text in (("text_before", text_before), ("text_after", text_after)):
            sockets.require_family(text, name, embedding.family, "embedding")
        theta = check_theta(theta)
        frames = inputs.check_int("frames", frames, 1, defaults.FRAMES_MAX)
        counts = {len(embedding.embeds), len(text_before.prompts), len(text_after.prompts)} - {1}
        if len(counts) > 1:
            raise InputError(
                f"{len(embedding.embeds)} embeddings, {len(text_before.prompts)} texts before and "
                f"{len(text_after.prompts)} after do not pair up: give one of a kind, or as many of each."
            )
        ways = places(theta, theta, 1) if frames == 1 else places(0.0, theta, frames)
        edited = text_diff(embedding.embeds, text_before.condition.embeds, text_after.condition.embeds, ways)
        return (EmbeddingValue(in_turn(edited), embedding.family, "text diff", text_after.prompts),)


def check_theta(value: Any) -> float:
    """`value` as theta.

    Raises:
        InputError: it is not a finite number, or out of range.
    """
    return inputs.check_float("theta", value, defaults.THETA_MIN, defaults.THETA_MAX)
