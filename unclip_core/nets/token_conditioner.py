"""Karlo's conditioner: context tokens, and an embedding added to that of the time."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..weights.computing import dtype_for
from .conditioning import Condition, check_text_widths, context_layers, join_context, replace_dropped
from .linear import Linear
from .params import require_positive


@dataclass(frozen=True)
class TokenConditionerParams:
    """Karlo's text projection: widths of embeddings, token states, time embedding and context."""

    embed_dim: int
    text_width: int
    time_embed_dim: int
    context_dim: int
    extra_tokens: int = 4
    kind: ClassVar[str] = "token"
    maps: ClassVar[tuple[tuple[int, int], ...]] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a field that is not positive."""
        require_positive("TokenConditionerParams", **vars(self))

    @property
    def context_width(self) -> int:
        """Width of its context tokens."""
        return self.context_dim

    def build(self) -> "TokenConditioner":
        """Make the conditioner."""
        return TokenConditioner(self)


class TokenConditioner(nn.Module):
    """DALL·E 2's conditioning (Ramesh et al. 2022, section 2.1) as Karlo trained it.

    "projecting and adding CLIP embeddings to the existing timestep embedding", and "projecting CLIP
    embeddings into four extra tokens of context that are concatenated to the sequence of outputs from
    the GLIDE text encoder" (here in front of CLIP's own token states).
    """

    needs_text = reads_text = True

    def __init__(self, params: TokenConditionerParams) -> None:
        """Make the projections and the learned embedding of "no image given"."""
        super().__init__()
        self.params = params
        self.null_image = nn.Parameter(torch.zeros(params.embed_dim))
        self.text_embed = Linear(params.embed_dim, params.time_embed_dim)
        self.image_embed = Linear(params.embed_dim, params.time_embed_dim)
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
        """Compute embedding, context and its mask; arguments as of `Conditioner`.

        Raises:
            ValueError: no text or one of other widths, or `drop_text`: this net has learned no "no text", which is the
                encoding of the empty prompt.
        """
        if text_embeds is None or text_states is None or text_mask is None or drop_text is not None:
            raise ValueError(
                "TokenConditioner: needs the text's embedding, states and mask; for 'no text' "
                'give those of the empty prompt ""'
            )
        check_text_widths(self.params.embed_dim, self.params.text_width, text_embeds, text_states)
        dtype = dtype_for(self.null_image)
        image = replace_dropped(image_embeds.to(dtype), self.null_image, drop_image)
        # Karlo's layout: the projection is channels first, (B, context_dim, extra_tokens).
        extra = self.image_tokens(image).unflatten(1, (-1, self.params.extra_tokens)).transpose(1, 2)
        states = self.text_norm(self.text_tokens(text_states.to(dtype)))
        embed = self.image_embed(image) + self.text_embed(text_embeds.to(dtype))
        return {"embed": embed} | join_context(extra, states, text_mask)
