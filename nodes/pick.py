"""The pick node: of several candidates, those to go on with."""

import re
from typing import Any

from torch import Tensor

from . import defaults, host, inputs, sockets
from .inputs import InputError
from .sockets import EmbeddingValue

NUMBERS = re.compile(r"\s*\d{1,6}\s*(,\s*\d{1,6}\s*)*", re.ASCII)


def read_indices(text: Any) -> list[int]:
    """Return the numbers of a text such as "0, 2".

    Raises:
        InputError: it is something else.
    """
    if not isinstance(text, str) or not NUMBERS.fullmatch(text):
        raise InputError(f"'indices' must be numbers from 0, with commas between them, such as 0, 2; not {text!r}.")
    return [int(number) for number in text.split(",")]


class UnclipPick:
    """Node: hands on the candidates that are picked."""

    ID = "UnclipPick"
    DISPLAY_NAME = "Pick (unCLIP)"
    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = (
        "Hands on those of several candidates that you click: images of Decoder Sample or Rerank, embeddings of Prior "
        "Sample, or both side by side."
    )
    SEARCH_ALIASES = ["choose", "select image", "select from batch", "candidates", "image from batch"]
    RETURN_TYPES = ("IMAGE", sockets.EMBEDDING)
    RETURN_NAMES = ("image", "embedding")
    OUTPUT_TOOLTIPS = (
        "The images that were picked, in the order of 'indices'.",
        "The embeddings that were picked, in the order of 'indices'.",
    )
    FUNCTION = "run"
    OUTPUT_NODE = True
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "indices": (
                    "STRING",
                    {
                        "default": defaults.PICKED,
                        "tooltip": "Which of the candidates to hand on, counted from 0: for example 0, 2. A click on a "
                        "candidate writes its number here, Ctrl + click adds it or takes it out.",
                    },
                ),
            },
            "optional": {
                "image": ("IMAGE", {"tooltip": "The candidates as images. May be left open."}),
                "embedding": (
                    sockets.EMBEDDING,
                    {"tooltip": "The candidates' embeddings, as many as images if both are linked. May be left open."},
                ),
            },
        }

    VALIDATE_INPUTS = inputs.checking(indices=read_indices)

    def run(
        self, indices: str = defaults.PICKED, image: Tensor | None = None, embedding: EmbeddingValue | None = None
    ) -> dict[str, Any]:
        """Take rows of `image` `[B, H, W, C]` and of the `B` embeddings; an output whose input is open is None."""
        chosen = read_indices(indices)
        count = count_candidates(image, embedding)
        if max(chosen) >= count:
            raise InputError(f"'indices' asks for candidate {max(chosen)}; there are {count}, from 0 to {count - 1}.")
        images = None if image is None else image[chosen]
        embeddings = None if embedding is None else rows_of(embedding, chosen)
        shown = {"candidates": candidates(count, image, embedding)} if host.in_comfyui() else {}
        return {"ui": shown, "result": (images, embeddings)}


def count_candidates(image: Tensor | None, embedding: EmbeddingValue | None) -> int:
    """Return how many candidates there are.

    Raises:
        InputError: nothing is linked, or the counts differ.
    """
    counts = {
        name: len(rows)
        for name, rows in (("image", image), ("embedding", None if embedding is None else embedding.embeds))
        if rows is not None
    }
    if not counts:
        raise InputError("There is nothing to pick from: link 'image', 'embedding', or both.")
    if len(set(counts.values())) > 1:
        raise InputError(
            f"'image' holds {counts['image']} candidates and 'embedding' {counts['embedding']}: "
            "both must hold the same ones. Link one of them only, or set 'batch_size' of Decoder Sample to 1."
        )
    return next(iter(counts.values()))


def rows_of(value: EmbeddingValue, chosen: list[int]) -> EmbeddingValue:
    """Return the chosen rows of `value`, with their prompts where each row has one."""
    each = len(value.prompts) == len(value.embeds)
    prompts = tuple(value.prompts[i] for i in chosen) if each else value.prompts
    return EmbeddingValue(value.embeds[chosen], value.family, value.source, prompts, value.seed)


def candidates(count: int, image: Tensor | None, embedding: EmbeddingValue | None) -> list[dict[str, str]]:
    """Return what the canvas shows of each candidate: a small picture, a label, or neither."""
    from .thumbnails import data_url

    prompts = () if embedding is None else embedding.prompts
    labels = prompts if len(prompts) == count else [""] * count
    pictures = [""] * count if image is None else [data_url(each) for each in image]
    return [{"picture": picture, "label": label} for picture, label in zip(pictures, labels, strict=True)]
