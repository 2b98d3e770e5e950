"""The pad: a mix of two to four embeddings, chosen by a point between them."""

from typing import Any

from ..unclip_core.embedding.arithmetic import blend
from ..unclip_core.embedding.pad import pad_weights
from . import defaults, host, inputs, sockets
from .batches import common_count
from .embeddings import linked_embeddings
from .inputs import Number
from .sockets import EmbeddingValue

X, Y = (Number(name, 0.0, 1.0, 0.01) for name in ("x", "y"))


class UnclipEmbeddingPad:
    """Node: the mix of embeddings that a point stands for."""

    ID = "UnclipEmbeddingPad"
    DISPLAY_NAME = "Embedding Pad (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Mixes two to four image embeddings by a point that is dragged between them: a line, a triangle, a square. "
        "What hangs on it is drawn while you drag."
    )
    SEARCH_ALIASES = ["xy pad", "mix", "blend images", "morph", "interpolate images", "2d slider"]
    RETURN_TYPES = (sockets.EMBEDDING,)
    RETURN_NAMES = ("embedding",)
    OUTPUT_TOOLTIPS = ("The mix. For batches: of the first of each, then of the second, and so on.",)
    FUNCTION = "run"
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "embedding_1": (sockets.EMBEDDING, {"tooltip": "What the left end shows, or the upper left corner."}),
                "embedding_2": (sockets.EMBEDDING, {"tooltip": "What the right end shows, or the upper right corner."}),
                "x": X.widget(defaults.PAD, "The point's place from left (0) to right (1)."),
                "y": Y.widget(defaults.PAD, "The point's place from top (0) to bottom (1); no effect on a line."),
            },
            "optional": {
                "embedding_3": (sockets.EMBEDDING, {"tooltip": "What the bottom shows, or its left corner if there are "
                                                    "four. May be left open."}),
                "embedding_4": (sockets.EMBEDDING, {"tooltip": "What the lower right corner shows. May be left open."}),
            },
        }  # fmt: skip

    VALIDATE_INPUTS = inputs.checking(x=X.check, y=Y.check)

    def run(
        self,
        embedding_1: EmbeddingValue,
        embedding_2: EmbeddingValue,
        x: float = defaults.PAD,
        y: float = defaults.PAD,
        embedding_3: EmbeddingValue | None = None,
        embedding_4: EmbeddingValue | None = None,
    ) -> dict[str, Any]:
        """Blend the embeddings that are there, each `[B, D]` or one `[1, D]`, to `[B, D]`."""
        for name, value in (("embedding_1", embedding_1), ("embedding_2", embedding_2)):
            sockets.require_embedding(value, name)
        linked = linked_embeddings((embedding_1, embedding_2, embedding_3, embedding_4), "mix")
        common_count(**{f"embedding_{i}": len(value.embeds) for i, value in linked.items()})
        weights = pad_weights(len(linked), X.check(x), Y.check(y))
        mixed = blend([value.embeds for value in linked.values()], weights)
        said = "  ".join(f"{i}: {weight:.2f}" for i, weight in zip(linked, weights, strict=True))
        return host.with_text((EmbeddingValue(mixed, embedding_1.family, "blend"),), said)
