"""A CLIP's image tower alone, whose embeddings are computed once while its text tower is trained."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..clip.adapter import TextCondition
from ..clip.open_clip_adapter import OpenClipAdapter


class ImageTower:
    """What `embed_collection` needs of a CLIP, without texts: they count as one empty token each."""

    context_length = 1

    def __init__(self, clip: OpenClipAdapter) -> None:
        """Take the tower of `clip`."""
        self._clip, self.model, self.image_size = clip, clip.model.visual, clip.image_size

    def read_vision(self) -> None:
        """It is there."""

    def encode_image(self, images: Tensor) -> Tensor:
        """Images `[B, S, S, 3]` in 0..1 to embeddings `[B, D]`."""
        return self._clip.encode_image(images)

    def encode_text(self, prompts: Sequence[str]) -> TextCondition:
        """Nothing but the shapes."""
        return self.encode_texts(prompts)

    def encode_texts(self, prompts: Sequence[str]) -> TextCondition:
        """Nothing but the shapes."""
        count = len(prompts)
        return TextCondition(torch.zeros(count, 1), torch.zeros(count, 1, 1), torch.ones(count, 1, dtype=torch.bool))
