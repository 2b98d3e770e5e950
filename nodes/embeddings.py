"""The embedding nodes: arithmetic in the space of CLIP's image embeddings."""

from collections.abc import Sequence
from typing import Any

import torch

from ..unclip_core.embedding.arithmetic import blend, nlerp, slerp
from . import defaults, inputs, sockets
from .batches import check_count, common_count
from .inputs import InputError, Number
from .sockets import EmbeddingValue
from .transitions import T_END, T, check_transition, sample_major, transition_inputs

METHODS = {"slerp": slerp, "lerp": nlerp}

WEIGHTS = [
    Number(f"weight_{i}", defaults.WEIGHT_MIN, defaults.WEIGHT_MAX, 0.05) for i in range(1, defaults.BLENDED_MAX + 1)
]


class UnclipEmbeddingInterpolate:
    """Node: the embeddings between two others."""

    ID = "UnclipEmbeddingInterpolate"
    DISPLAY_NAME = "Embedding Interpolate (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = "Blends two image embeddings along the arc between them (slerp): one blend, or a transition of many."
    SEARCH_ALIASES = [
        "slerp", "blend", "mix", "interpolation", "morph", "transition", "interpolate images", "blend images", "merge",
    ]  # fmt: skip
    RETURN_TYPES = (sockets.EMBEDDING,)
    RETURN_NAMES = ("embedding",)
    OUTPUT_TOOLTIPS = ("The blends in order. For batches: all frames of the first pair, then of the second.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "embedding_a": (sockets.EMBEDDING, {"tooltip": "What t = 0 shows."}),
                "embedding_b": (sockets.EMBEDDING, {"tooltip": "What t = 1 shows."}),
                **transition_inputs("blend"),
                "method": (
                    list(defaults.METHODS),
                    {
                        "default": defaults.METHOD,
                        "advanced": True,
                        "tooltip": "slerp turns evenly from a to b; lerp takes the straight line, put back to length.",
                    },
                ),
            }
        }

    VALIDATE_INPUTS = inputs.checking(t=T.check, t_end=T_END.check)

    def run(
        self,
        embedding_a: EmbeddingValue,
        embedding_b: EmbeddingValue,
        t: float = defaults.BLEND,
        frames: int = defaults.FRAMES,
        t_end: float = defaults.BLEND_END,
        method: str = defaults.METHOD,
    ) -> tuple[EmbeddingValue]:
        """Blend `embedding_a` and `embedding_b`, both `[B, D]` or one `[1, D]`, to `[B * frames, D]`."""
        sockets.require_embedding(embedding_a, "embedding_a")
        sockets.require_family(embedding_b, "embedding_b", embedding_a.family, "embedding_a")
        way = check_transition(t, frames, t_end)
        check_count(len(way) * common_count(embedding_a=len(embedding_a.embeds), embedding_b=len(embedding_b.embeds)))
        blends = METHODS[inputs.check_choice("method", method, defaults.METHODS)](
            embedding_a.embeds, embedding_b.embeds, way
        )
        return (EmbeddingValue(sample_major(blends), embedding_a.family, "interpolation"),)


class UnclipEmbeddingBlend:
    """Node: a weighted mean of up to eight embeddings."""

    ID = "UnclipEmbeddingBlend"
    DISPLAY_NAME = "Embedding Blend (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Mixes up to eight image embeddings by weights. A negative weight leads away from what its embedding shows."
    )
    SEARCH_ALIASES = ["mix", "average", "weighted", "combine embeddings", "merge", "merge images", "blend images"]
    RETURN_TYPES = (sockets.EMBEDDING,)
    RETURN_NAMES = ("embedding",)
    OUTPUT_TOOLTIPS = ("The blend. For batches: of the first of each, then of the second, and so on.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        numbers = range(1, defaults.BLENDED_MAX + 1)
        return {
            "required": {
                weight.name: weight.widget(
                    defaults.WEIGHT, f"How much of embedding_{i}, in relation to the other weights."
                )
                for i, weight in zip(numbers, WEIGHTS, strict=True)
            },
            "optional": {
                f"embedding_{i}": (sockets.EMBEDDING, {"tooltip": f"What weight_{i} counts for. May be left open."})
                for i in numbers
            },
        }

    VALIDATE_INPUTS = inputs.checking(**{weight.name: weight.check for weight in WEIGHTS})

    def run(
        self,
        weight_1: float = defaults.WEIGHT,
        weight_2: float = defaults.WEIGHT,
        weight_3: float = defaults.WEIGHT,
        weight_4: float = defaults.WEIGHT,
        weight_5: float = defaults.WEIGHT,
        weight_6: float = defaults.WEIGHT,
        weight_7: float = defaults.WEIGHT,
        weight_8: float = defaults.WEIGHT,
        embedding_1: EmbeddingValue | None = None,
        embedding_2: EmbeddingValue | None = None,
        embedding_3: EmbeddingValue | None = None,
        embedding_4: EmbeddingValue | None = None,
        embedding_5: EmbeddingValue | None = None,
        embedding_6: EmbeddingValue | None = None,
        embedding_7: EmbeddingValue | None = None,
        embedding_8: EmbeddingValue | None = None,
    ) -> tuple[EmbeddingValue]:
        """Blend the embeddings that are there, each `[B, D]` or one `[1, D]`, to `[B, D]`."""
        weights = (weight_1, weight_2, weight_3, weight_4, weight_5, weight_6, weight_7, weight_8)
        values = (embedding_1, embedding_2, embedding_3, embedding_4,
                  embedding_5, embedding_6, embedding_7, embedding_8)  # fmt: skip
        linked = linked_embeddings(values, "blend")
        shares = [WEIGHTS[i - 1].check(weights[i - 1]) for i in linked]
        common_count(**{f"embedding_{i}": len(value.embeds) for i, value in linked.items()})
        mixed = blend([value.embeds for value in linked.values()], shares)
        return (EmbeddingValue(mixed, next(iter(linked.values())).family, "blend"),)


class UnclipEmbeddingBatch:
    """Node: up to eight embeddings to one batch."""

    ID = "UnclipEmbeddingBatch"
    DISPLAY_NAME = "Embedding Batch (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = "Puts up to eight image embeddings behind one another, as one batch."
    SEARCH_ALIASES = ["join embeddings", "concatenate", "embedding list", "collect"]
    RETURN_TYPES = (sockets.EMBEDDING,)
    RETURN_NAMES = ("embedding",)
    OUTPUT_TOOLTIPS = ("All of embedding_1, then all of embedding_2, and so on.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        tooltip = "One embedding, or a batch. May be left open."
        numbers = range(1, defaults.BLENDED_MAX + 1)
        return {
            "required": {},
            "optional": {f"embedding_{i}": (sockets.EMBEDDING, {"tooltip": tooltip}) for i in numbers},
        }

    def run(
        self,
        embedding_1: EmbeddingValue | None = None,
        embedding_2: EmbeddingValue | None = None,
        embedding_3: EmbeddingValue | None = None,
        embedding_4: EmbeddingValue | None = None,
        embedding_5: EmbeddingValue | None = None,
        embedding_6: EmbeddingValue | None = None,
        embedding_7: EmbeddingValue | None = None,
        embedding_8: EmbeddingValue | None = None,
    ) -> tuple[EmbeddingValue]:
        """Join the embeddings that are there, each `[B_i, D]`, to `[sum of B_i, D]`."""
        values = (embedding_1, embedding_2, embedding_3, embedding_4,
                  embedding_5, embedding_6, embedding_7, embedding_8)  # fmt: skip
        linked = list(linked_embeddings(values, "join").values())
        check_count(sum(len(value.embeds) for value in linked))
        sources = dict.fromkeys(value.source for value in linked)
        prompts = tuple(prompt for value in linked for prompt in value.prompts)
        rows = torch.cat([value.embeds for value in linked])
        return (EmbeddingValue(rows, linked[0].family, ", ".join(sources), prompts),)


def linked_embeddings(values: Sequence[EmbeddingValue | None], verb: str) -> dict[int, EmbeddingValue]:
    """Return those of the inputs embedding_1, embedding_2 … that are linked, by their numbers.

    Raises:
        InputError: none is linked.
        FamilyError: they are of several families.
    """
    linked = {i: value for i, value in enumerate(values, start=1) if value is not None}
    if not linked:
        raise InputError(f"There is nothing to {verb}: link at least one of embedding_1 to embedding_{len(values)}.")
    first = min(linked)
    for i, value in linked.items():
        sockets.require_family(value, f"embedding_{i}", linked[first].family, f"embedding_{first}")
    return linked
