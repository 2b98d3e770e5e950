"""The similarity node: every embedding against every other, as numbers and as a heat map."""

from typing import Any

from torch import Tensor

from ..unclip_core.embedding.arithmetic import similarity
from ..unclip_core.plotting.heatmap import heatmap, matrix_text
from . import host, sockets
from .inputs import InputError
from .sockets import EmbeddingValue, TextValue

EITHER = f"{sockets.EMBEDDING},{sockets.TEXT}"
SIDE_MAX = 64


class UnclipEmbeddingSimilarity:
    """Node: how near embeddings and texts are to one another."""

    ID = "UnclipEmbeddingSimilarity"
    DISPLAY_NAME = "Embedding Similarity (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Measures how near images and texts are to one another as CLIP sees them (cosine), all of a against all of b: "
        "as text, and as a heat map."
    )
    SEARCH_ALIASES = ["cosine similarity", "clip score", "compare embeddings", "heat map", "matrix"]
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "matrix")
    OUTPUT_TOOLTIPS = (
        "The heat map: a row for each of a, a column for each of b; red is near, white has nothing in common.",
        "The same numbers as a table.",
    )
    FUNCTION = "run"
    OUTPUT_NODE = True
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {"a": (EITHER, {"tooltip": "Image embeddings or texts: the rows."})},
            "optional": {"b": (EITHER, {"tooltip": "Image embeddings or texts: the columns. Left open: a again."})},
        }

    def run(self, a: EmbeddingValue | TextValue, b: EmbeddingValue | TextValue | None = None) -> dict[str, Any]:
        """Compare `A` with `B` embeddings, or `A` with themselves."""
        sockets.require_embedding(a, "input 'a'")
        other = a if b is None else b
        sockets.require_family(other, "input 'b'", a.family, "input 'a'")
        rows, columns = labels(a, "a"), labels(other, "b")
        matrix = similarity(embeds(a), embeds(other))
        text = matrix_text(matrix, rows, columns)
        return host.with_text((heatmap(matrix, rows, columns)[None], text), text)


def embeds(value: EmbeddingValue | TextValue) -> Tensor:
    """Return the embeddings `[B, D]` of images or texts."""
    return value.condition.embeds if isinstance(value, TextValue) else value.embeds


def labels(value: EmbeddingValue | TextValue, name: str) -> list[str]:
    """Return a label for each: a text's words, or an image's number and, where there is one for each, its prompt.

    Raises:
        InputError: there are too many to draw.
    """
    count = len(embeds(value))
    if count > SIDE_MAX:
        raise InputError(f"'{name}' holds {count} embeddings; at most {SIDE_MAX} can be shown on a side.")
    if isinstance(value, TextValue):
        return [prompt or "(empty)" for prompt in value.prompts]
    told = [f": {prompt}" for prompt in value.prompts] if len(value.prompts) == count else [""] * count
    return [f"image {index + 1}{prompt}" for index, prompt in enumerate(told)]
