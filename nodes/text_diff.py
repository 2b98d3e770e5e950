"""The text diff node: an image embedding rotated by the difference of two text embeddings."""

from collections.abc import Sequence
from typing import Any

from ..unclip_core.embedding.arithmetic import SameDirection, text_diff
from . import defaults, inputs, sockets
from .batches import check_count
from .inputs import InputError, Number
from .sockets import EmbeddingValue, TextValue
from .transitions import check_frames, places, sample_major

THETA = Number("theta", defaults.THETA_MIN, defaults.THETA_MAX, 0.01)


class UnclipTextDiff:
    """Node: edits what an embedding shows by two texts."""

    ID = "UnclipTextDiff"
    DISPLAY_NAME = "Text Diff (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Turns an image embedding from what one text says toward what another says: 'a red circle' to 'a blue circle' "
        "changes the colour and keeps the rest."
    )
    SEARCH_ALIASES = ["edit", "edit image", "edit by text", "language-guided", "text diff", "prompt edit", "manipulate"]
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
                "theta": THETA.widget(
                    defaults.THETA,
                    "How far: 0 leaves it alone, 1 leaves nothing but the difference. 0.25 to 0.5 are usual.",
                ),
                "frames": inputs.int_widget(
                    defaults.FRAMES, 1, defaults.FRAMES_MAX, "1: one edit, at theta. More: from 0 to theta."
                ),
            }
        }

    VALIDATE_INPUTS = inputs.checking(theta=THETA.check)

    def run(
        self,
        embedding: EmbeddingValue,
        text_before: TextValue,
        text_after: TextValue,
        theta: float = defaults.THETA,
        frames: int = defaults.FRAMES,
    ) -> tuple[EmbeddingValue]:
        """Edit `B` embeddings by one pair of texts, or one each (or one embedding by `B`), to `[B * frames, D]`."""
        sockets.require_embedding(embedding, "embedding")
        for name, text in (("text_before", text_before), ("text_after", text_after)):
            sockets.require_family(text, name, embedding.family, "embedding")
        theta, frames = THETA.check(theta), check_frames(frames)
        counts = {len(embedding.embeds), len(text_before.prompts), len(text_after.prompts)} - {1}
        if len(counts) > 1:
            raise InputError(
                f"{len(embedding.embeds)} embeddings, {len(text_before.prompts)} texts before and "
                f"{len(text_after.prompts)} after do not pair up: give one of a kind, or as many of each."
            )
        check_count(frames * max(counts, default=1))
        ways = places(theta, theta, 1) if frames == 1 else places(0.0, theta, frames)
        try:
            edited = text_diff(embedding.embeds, text_before.condition.embeds, text_after.condition.embeds, ways)
        except SameDirection as same:
            raise InputError(same_texts(same.row, text_before.prompts, text_after.prompts)) from same
        return (EmbeddingValue(sample_major(edited), embedding.family, "text diff", text_after.prompts),)


def same_texts(row: int, before: Sequence[str], after: Sequence[str]) -> str:
    """Return what is wrong with pair `row`, from 0, of texts that pair up, or are one for all."""
    old, new = (prompts[row % len(prompts)] for prompts in (before, after))
    which = f"Pair {row + 1} of the texts: " if max(len(before), len(after)) > 1 else ""
    return f"{which}'{old}' and '{new}' mean the same to CLIP: there is no direction from one to the other."
