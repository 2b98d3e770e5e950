"""ECLIPSE's prior: text → CLIP image embedding in one pass (Patel et al. 2023, section 4)."""

import torch
from torch import Tensor, nn

from ..weights.computing import dtype_for
from .buffers import shared_buffers
from .layers import small_numbers
from .linear import Linear
from .prior import PriorBlock, PriorParams, attention_bias
from .widening import LayerNorm

EXTRA_TOKENS = 3
"""Text embedding, noise, learned query: a diffusion prior's without the time."""


class OnePassPrior(nn.Module):
    """Maps a text to a CLIP image embedding, not normalised by any statistics.

    Tokens: text states | text embedding | noise | learned query. Attention is causal, and the output is read off the
    query, as in a `PriorTransformer`.
    """

    def __init__(self, params: PriorParams) -> None:
        """Build the net that `params` describes."""
        super().__init__()
        self.params = params
        width = params.width
        self.image_in = Linear(params.embed_dim, width)
        self.text_embed_in = Linear(params.embed_dim, width)
        self.text_states_in = Linear(params.text_width, width)
        self.positions = small_numbers(1, params.text_tokens + EXTRA_TOKENS, width)
        self.query = small_numbers(1, 1, width)
        self.blocks = nn.ModuleList(PriorBlock(params) for _ in range(params.layers))
        self.norm_out = LayerNorm(width)
        self.image_out = Linear(width, params.embed_dim)

    @shared_buffers()
    def forward(self, noise: Tensor, text_embeds: Tensor, text_states: Tensor, text_mask: Tensor) -> Tensor:
        """Map texts to image embeddings.

        Args:
            noise: `[B, D]`, standard normal as in training, or zeros.
            text_embeds: `[B, D]`.
            text_states: `[B, T, W]`.
            text_mask: `[B, T]` bool, True at the tokens to read.

        Returns:
            `[B, D]`, in what the net computes in.

        Raises:
            ValueError: T is not `params.text_tokens`, or a width is not the net's.
        """
        self._check(text_embeds, text_states)
        dtype = dtype_for(self.image_in.weight)
        parts = [
            self.text_states_in(text_states.to(dtype)),
            self.text_embed_in(text_embeds.to(dtype))[:, None],
            self.image_in(noise.to(dtype))[:, None],
            self.query.expand(len(noise), -1, -1),
        ]
        tokens = torch.cat(parts, dim=1) + self.positions
        bias = attention_bias(text_mask, EXTRA_TOKENS, self.params.soft_mask, tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens, bias)
        return self.image_out(self.norm_out(tokens[:, -1]))

    def _check(self, text_embeds: Tensor, text_states: Tensor) -> None:
        wanted = (self.params.text_tokens, self.params.text_width, self.params.embed_dim)
        given = (*text_states.shape[1:], text_embeds.shape[1])
        if given != wanted:
            raise ValueError(
                f"This prior reads texts of {wanted[0]} tokens of {wanted[1]} numbers and embeddings of {wanted[2]}; "
                f"given are {given[0]}, {given[1]} and {given[2]}: take the text encoder that it was trained with."
            )
