"""Maps and context tokens together: the layout in feature maps, and the text's token states to be attended."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..weights.computing import dtype_for
from .conditioning import Condition, check_text_widths, context_layers, join_context, replace_dropped
from .map_conditioner import MapConditioner, MapConditionerParams, whiten
from .params import require_positive


@dataclass(frozen=True, kw_only=True)
class MapTokenConditionerParams(MapConditionerParams):
    """A map conditioner's, and those of its context.

    Attributes:
        text_width: of CLIP's token states.
        text_tokens: of CLIP's context, start and end included.
        context_dim: width of the context tokens.
        extra_tokens: context tokens made of the image embedding.
    """

    text_width: int
    text_tokens: int
    context_dim: int
    extra_tokens: int = 4
    kind: ClassVar[str] = "map_token"

    def __post_init__(self) -> None:
        """Raise ValueError for fields that are not positive or disagree."""
        super().__post_init__()
        require_positive(
            "MapTokenConditionerParams",
            text_width=self.text_width,
            text_tokens=self.text_tokens,
            context_dim=self.context_dim,
            extra_tokens=self.extra_tokens,
        )

    @property
    def context_width(self) -> int:  # type: ignore[override]  # a map conditioner alone has none
        """Width of its context tokens."""
        return self.context_dim

    def build(self) -> "MapTokenConditioner":
        """Make the conditioner."""
        return MapTokenConditioner(self)


class MapTokenConditioner(MapConditioner):
    """A `MapConditioner` that also gives context: tokens of the image embedding, then the text's token states.

    As DALL·E 2's decoder (Ramesh et al. 2022, section 2.1), but for the maps. A text that is missing or dropped is a
    context whose text tokens are not attended, so "no text" needs no encoding of the empty prompt.
    """

    def __init__(self, params: MapTokenConditionerParams) -> None:
        """Make the map conditioner and the projections to context tokens."""
        super().__init__(params)
        self.context = params
        self.image_tokens, self.text_tokens, self.text_norm = context_layers(
            params.embed_dim, params.text_width, params.context_dim, params.extra_tokens
        )

    def forward(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor | None = None,
        text_states: Tensor | None = None,
        text_mask: Tensor | None = None,
        drop_image: Tensor | None = None,
        drop_text: Tensor | None = None,
    ) -> Condition:
        """Compute embedding, maps, context and its mask; arguments as of `Conditioner`.

        Raises:
            ValueError: the text has an embedding but no states or mask, or one of them has another width.
        """
        told = super().forward(image_embeds, text_embeds, text_states, text_mask, drop_image, drop_text)
        dtype = dtype_for(self.null_image)
        if text_embeds is None:
            shape = (len(image_embeds), self.context.text_tokens)
            text_states = image_embeds.new_zeros(*shape, self.context.text_width)
            text_mask = torch.zeros(shape, dtype=torch.bool, device=image_embeds.device)
        if text_states is None or text_mask is None:
            raise ValueError("MapTokenConditioner: a text needs its token states and mask beside its embedding")
        if text_embeds is not None:
            check_text_widths(self.context.embed_dim, self.context.text_width, text_embeds, text_states)
        if drop_text is not None:
            text_mask = text_mask & ~drop_text[:, None]
        image = replace_dropped(whiten(image_embeds).to(dtype), self.null_image, drop_image)
        extra = self.image_tokens(image).unflatten(1, (self.context.extra_tokens, -1))
        states = self.text_norm(self.text_tokens(text_states.to(dtype)))
        # As many tokens for every text: guidance computes those with and without one in a batch.
        missing = max(0, self.context.text_tokens - states.shape[1])
        return told | join_context(extra, F.pad(states, (0, 0, 0, missing)), F.pad(text_mask, (0, missing)))
