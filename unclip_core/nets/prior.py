"""The diffusion prior: text → CLIP image embedding (Ramesh et al. 2022, section 2.2)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.computing import dtype_for
from .buffers import shared_buffers
from .conditioning import check_text_widths
from .layers import TimeEmbedding, Times, attend, merge_heads, small_numbers, split_heads
from .linear import Linear
from .params import require_positive
from .widening import LayerNorm

# text embedding, time, noised image embedding, learned query
EXTRA_TOKENS = 4
# time, noised image embedding, learned query: all that differs from step to step
STEP_TOKENS = 3
SOFT_MASK = -10000.0

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PriorParams:
    """Shape of a prior; embed_dim and text_width are those of CLIP's joint space and of its token states.

    Attributes:
        soft_mask: diffusers' way of masking, -10000 added for padding and again for causality, instead of -inf. They
            differ only where a token may read nothing at all, or in the last bits.
    """

    width: int
    layers: int
    heads: int
    head_dim: int
    embed_dim: int
    text_width: int
    text_tokens: int
    mlp_ratio: int = 4
    soft_mask: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that are not positive, or heads that do not fill the width."""
        numbers = {key: value for key, value in vars(self).items() if key != "soft_mask"}
        require_positive("PriorParams", **numbers)
        if self.heads * self.head_dim != self.width:
            raise ValueError(
                f"PriorParams: {self.heads} heads of {self.head_dim} make "
                f"{self.heads * self.head_dim}, not width {self.width}"
            )
        if self.width % 2:
            raise ValueError(f"PriorParams: width must be even, got {self.width}")


class PriorBlock(nn.Module):
    """Pre-LN transformer block: attention, then an MLP with the exact (erf) GELU; biases everywhere."""

    def __init__(self, params: PriorParams) -> None:
        """Make the layers."""
        super().__init__()
        width, hidden = params.width, params.width * params.mlp_ratio
        self.head_dim = params.head_dim
        self.norm1 = LayerNorm(width)
        self.to_q = Linear(width, width)
        self.to_k = Linear(width, width)
        self.to_v = Linear(width, width)
        self.to_out = Linear(width, width)
        self.norm2 = LayerNorm(width)
        self.mlp_in = Linear(width, hidden)
        self.mlp_out = Linear(hidden, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x `[B, N, width]`, bias `[B, 1, N, N]` on the attention's scores -> `[B, N, width]`."""
        return self.read(x, bias)[0]

    def read(self, x: Tensor, bias: Tensor, past: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """Run the block, and keep its keys and values for tokens that follow.

        Args:
            x: `[B, N, width]`.
            bias: `[B, 1, N, M + N]`, on the attention's scores.
            past: keys and values of M tokens before these.

        Returns:
            The new x, and x's own keys and values, `[B, heads, N, head_dim]` each.
        """
        h = self.norm1(x)
        q, k, v = (split_heads(layer(h), self.head_dim) for layer in (self.to_q, self.to_k, self.to_v))
        every = (k, v) if past is None else (torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2))
        x = x + self.to_out(merge_heads(attend(q, *every, bias)))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm2(x)))), (k, v)


class PriorTransformer(nn.Module):
    """Predicts the clean, normalised CLIP image embedding from a noisy one, the time and the text.

    Tokens: text states | text embedding | time | noisy image embedding | learned query. Attention is causal, and the
    output is read off the query. The net works on embeddings normalised with the buffers clip_mean and clip_std
    `[1, D]` (see `normalize_embeds`).
    """

    clip_mean: Tensor
    clip_std: Tensor

    def __init__(self, params: PriorParams) -> None:
        """Build the net that `params` describes; its statistics are mean 0, std 1 until loaded or set."""
        super().__init__()
        self.params = params
        width = params.width
        self.time_embed = TimeEmbedding(width, width)
        self.image_in = Linear(params.embed_dim, width)
        self.text_embed_in = Linear(params.embed_dim, width)
        self.text_states_in = Linear(params.text_width, width)
        tokens = params.text_tokens + EXTRA_TOKENS
        self.positions = small_numbers(1, tokens, width)
        self.query = small_numbers(1, 1, width)
        self.blocks = nn.ModuleList(PriorBlock(params) for _ in range(params.layers))
        self.norm_out = LayerNorm(width)
        self.image_out = Linear(width, params.embed_dim)
        self.register_buffer("clip_mean", torch.zeros(1, params.embed_dim))
        self.register_buffer("clip_std", torch.ones(1, params.embed_dim))

    @shared_buffers()
    def forward(self, x: Tensor, t: Tensor, text_embeds: Tensor, text_states: Tensor, text_mask: Tensor) -> Tensor:
        """Predict the clean embedding, normalised, in what the net computes in.

        Args:
            x: `[B, D]`, noisy and normalised.
            t: `[B]` timesteps.
            text_embeds: `[B, D]`.
            text_states: `[B, T, W]`.
            text_mask: `[B, T]` bool, True at the tokens to read.

        Returns:
            `[B, D]`.

        Raises:
            ValueError: T is not `params.text_tokens`, a width is not the net's, or the mask has another shape or is not
                bool.
        """
        self._check(text_embeds, text_states, text_mask)
        tokens = self._tokens(x, t, text_embeds, text_states)
        bias = attention_bias(text_mask, EXTRA_TOKENS, self.params.soft_mask, tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens, bias)
        return self.image_out(self.norm_out(tokens[:, -1]))

    @shared_buffers()
    def prefix(self, text_embeds: Tensor, text_states: Tensor, text_mask: Tensor) -> dict[str, Tensor]:
        """Compute once what all steps of a run share: the keys and values of the text's tokens, layer by layer.

        Attention is causal, so what the text's T + 1 tokens (states, embedding) become depends neither on the time nor
        on the noisy embedding: of the N = T + 4 tokens three are left to each `step`.

        Args:
            text_embeds: `[B, D]`.
            text_states: `[B, T, W]`.
            text_mask: `[B, T]` bool, True at the tokens to read.

        Returns:
            Tensors, batch first: "bias" `[B, 1, 3, N]`, and for each layer "keys.<i>" and "values.<i>"
            `[B, heads, T + 1, head_dim]`.

        Raises:
            ValueError: as `forward`, or with the soft mask a text has no first token (an empty text_mask), which would
                let it attend to later ones.
        """
        self._check(text_embeds, text_states, text_mask)
        if self.params.soft_mask and not bool(text_mask[:, 0].all()):
            raise ValueError(
                "PriorTransformer: with soft_mask a text without a first token reads ahead; "
                "its steps share nothing, use forward"
            )
        tokens = torch.cat(self._text_tokens(text_embeds, text_states), dim=1)
        count = tokens.shape[1]
        tokens = tokens + self.positions[:, :count]
        bias = attention_bias(text_mask, EXTRA_TOKENS, self.params.soft_mask, tokens.dtype)
        shared = {"bias": bias[:, :, count:]}
        for index, block in enumerate(self.blocks):
            tokens, own = block.read(tokens, bias[:, :, :count, :count])
            shared[f"keys.{index}"], shared[f"values.{index}"] = own
        return shared

    @shared_buffers()
    def step(self, x: Tensor, t: Tensor, prefix: Mapping[str, Tensor], times: Times | None = None) -> Tensor:
        """Predict the clean embedding as `forward` does, from what `prefix` returned.

        Args:
            x: `[B, D]`, noisy and normalised.
            t: `[B]` timesteps.
            prefix: what `prefix` returned for these rows.
            times: the embeddings of the run's timesteps, where they were computed beforehand.

        Returns:
            `[B, D]`.
        """
        tokens = torch.cat(self._step_tokens(x, t, times), dim=1) + self.positions[:, -STEP_TOKENS:]
        for index, block in enumerate(self.blocks):
            past = prefix[f"keys.{index}"], prefix[f"values.{index}"]
            tokens, _ = block.read(tokens, prefix["bias"], past)
        return self.image_out(self.norm_out(tokens[:, -1]))

    def normalize_embeds(self, embeds: Tensor) -> Tensor:
        """CLIP image embeddings `[B, D]` -> the space the prior works in, float32."""
        return (embeds.float() - self.clip_mean.float()) / self.clip_std.float()

    def denormalize_embeds(self, embeds: Tensor) -> Tensor:
        """The prior's embeddings `[B, D]` -> CLIP image embeddings, float32."""
        return embeds.float() * self.clip_std.float() + self.clip_mean.float()

    def _tokens(self, x: Tensor, t: Tensor, text_embeds: Tensor, text_states: Tensor) -> Tensor:
        parts = self._text_tokens(text_embeds, text_states) + self._step_tokens(x, t)
        return torch.cat(parts, dim=1) + self.positions

    def _text_tokens(self, text_embeds: Tensor, text_states: Tensor) -> list[Tensor]:
        dtype = dtype_for(self.image_in.weight)
        return [self.text_states_in(text_states.to(dtype)), self.text_embed_in(text_embeds.to(dtype))[:, None]]

    def _step_tokens(self, x: Tensor, t: Tensor, times: Times | None = None) -> list[Tensor]:
        noised = self.image_in(x.to(dtype_for(self.image_in.weight)))
        return [(times or self.time_embed)(t)[:, None], noised[:, None], self.query.expand(len(x), -1, -1)]

    def _check(self, text_embeds: Tensor, text_states: Tensor, text_mask: Tensor) -> None:
        check_text_widths(self.params.embed_dim, self.params.text_width, text_embeds, text_states)
        if text_states.shape[1] != self.params.text_tokens:
            raise ValueError(
                f"PriorTransformer: text of {text_states.shape[1]} tokens, the net takes {self.params.text_tokens}"
            )
        if text_mask.shape != text_states.shape[:2] or text_mask.dtype != torch.bool:
            raise ValueError(
                f"PriorTransformer: text_mask must be bool {tuple(text_states.shape[:2])} like "
                f"text_states, got {text_mask.dtype} {tuple(text_mask.shape)}"
            )


def attention_bias(text_mask: Tensor, extra: int, soft: bool, dtype: torch.dtype) -> Tensor:
    """Make the bias of the attention scores: causal, and text keys only where the mask is True.

    Without `soft`, a token may always attend to itself: for tokens that others attend to that changes nothing, and
    padding in front of the first word would otherwise average over nothing (NaN).

    Args:
        text_mask: `[B, T]` bool.
        extra: number of tokens after the text's, which are never masked.
        soft: add `SOFT_MASK` in place of -inf, as diffusers does.
        dtype: of the result.

    Returns:
        `[B, 1, N, N]`, N = T + extra.
    """
    keep = F.pad(text_mask, (0, extra), value=True)[:, None, None, :]
    causal = torch.ones(keep.shape[-1], keep.shape[-1], dtype=torch.bool, device=keep.device).tril()
    if soft:
        return SOFT_MASK * ((~keep).to(dtype) + (~causal).to(dtype))
    own = torch.eye(len(causal), dtype=torch.bool, device=keep.device)
    bias = torch.zeros((), dtype=dtype, device=keep.device)
    return torch.where((keep & causal) | own, bias, -torch.inf)
