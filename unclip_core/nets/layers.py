"""Layers that the prior and the UNets share: time embedding, attention, residual block."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.computing import dtype_for
from .convolutions import Conv3x3
from .group_norm import fused, norm_silu
from .linear import Conv1x1, Linear
from .widening import GroupNorm

KeysValues = tuple[Tensor, Tensor]
Times = Callable[[Tensor], Tensor]
"""Times `[B]` to their embeddings: a `TimeEmbedding`, or a `TimeTable`."""

MAX_PERIOD = 10000.0
TIME_SHIFTS = ("scale_shift", "add")
NORMS = ("group", "none")
RESAMPLERS: dict[str | None, Callable[[], nn.Module]] = {
    None: nn.Identity,
    "down": lambda: nn.AvgPool2d(2),
    "up": lambda: nn.Upsample(scale_factor=2, mode="nearest"),
}


def timestep_embedding(t: Tensor, dim: int, order: str = "cos_sin") -> Tensor:
    """Embed timesteps as sinusoids, in float32: in half precision neighbouring ones would fall together.

    Frequencies fall geometrically from 1 to nearly 1/10000 (Ho et al. 2020, after Vaswani et al. 2017, section 3.5).

    Args:
        t: `[B]`, whole or fractional timesteps.
        dim: even number of sinusoids.
        order: "cos_sin" (Karlo, GLIDE) or "sin_cos".

    Returns:
        `[B, dim]` float32.

    Raises:
        ValueError: an odd `dim`, or an unknown order.
    """
    if dim % 2:
        raise ValueError(f"timestep_embedding: dim must be even, got {dim}")
    if order not in ("cos_sin", "sin_cos"):
        raise ValueError(f"timestep_embedding: order must be 'cos_sin' or 'sin_cos', got {order!r}")
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * index / half)
    parts = (angles.cos(), angles.sin()) if order == "cos_sin" else (angles.sin(), angles.cos())
    return torch.cat(parts, dim=-1)


class TimeEmbedding(nn.Module):
    """Times `[B]` -> `[B, out_dim]`: sinusoids of `dim`, then Linear, SiLU, Linear."""

    def __init__(self, dim: int, out_dim: int) -> None:
        """Keep `dim`, the number of sinusoids, and make the two Linears."""
        super().__init__()
        self.dim = dim
        self.linear1 = Linear(dim, out_dim)
        self.linear2 = Linear(out_dim, out_dim)

    def forward(self, t: Tensor) -> Tensor:
        """Embed the times `t` `[B]`."""
        waves = timestep_embedding(t, self.dim).to(dtype_for(self.linear1.weight))
        return self.linear2(F.silu(self.linear1(waves)))


class TimeTable:
    """The embeddings of a run's times, all computed at once: (t `[B]` int64) -> `[B, out_dim]`.

    There is no embedding of other times: up to the largest they give NaN, which shows without waiting for the device as
    an error would.
    """

    def __init__(self, embed: TimeEmbedding, times: Tensor) -> None:
        """times: `[N]` int64, on the CPU, 0 or more; no others can be looked up."""
        device = embed.linear1.weight.device
        rows = torch.full((int(times.max()) + 1,), len(times))
        rows[times] = torch.arange(len(times))
        self._rows, self._embeds = rows.to(device), F.pad(embed(times.to(device)), (0, 0, 0, 1), value=torch.nan)

    def __call__(self, t: Tensor) -> Tensor:
        """Look up the times `t` `[B]`, 0 to the largest there is (beyond it: IndexError, on a GPU an assertion)."""
        return self._embeds[self._rows[t]]


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention on `[B, heads, tokens, head_dim]`; `bias` is added to the scores.

    `bias` broadcasts to `[B, heads, queries, keys]`. With gradients on a CPU the product is written out, because
    the fused kernel's backward is several times slower there; else the fused kernel runs.
    """
    # Measured on one CPU thread at Karlo's shapes, fused against written out, ms in float32: decoder at 32² 98 : 336,
    # at 16² 12 : 15, at 8² 2.3 : 2.8, a step of the prior 0.3 : 1.6, its text 1.6 : 1.6, a vision tower 4.6 : 6.9.
    # In bfloat16 the product wins up to 16² (11 : 14), and rounds the scores to 8 bits: not worth it.
    if not torch.is_grad_enabled() or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1) @ v


def make_norm(norm: str, groups: int, channels: int, eps: float) -> nn.Module:
    """The normalisation of that name in NORMS: over groups of channels and the whole image, or none at all."""
    return GroupNorm(groups, channels, eps) if norm == "group" else nn.Identity()


def small_numbers(*shape: int) -> nn.Parameter:
    """A parameter that starts with normal numbers of standard deviation 0.01."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=0.01))


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """`[B, tokens, heads * head_dim]` -> `[B, heads, tokens, head_dim]`."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """`[B, heads, tokens, head_dim]` -> `[B, tokens, heads * head_dim]`."""
    return x.transpose(1, 2).flatten(2)


class AddedKVAttention(nn.Module):
    """Self-attention of an image with a context's keys and values in front of its own (GLIDE, section 3).

    The image is group-normalised; the context (if any) has key and value projections of its own. Heads are `head_dim`
    wide. The result is added to the input.
    """

    def __init__(self, channels: int, head_dim: int, context_dim: int | None, *, groups: int, eps: float) -> None:
        """Make the projections; `context_dim` None leaves plain self-attention."""
        super().__init__()
        self.head_dim = head_dim
        self.slot = 0  # its index in the UNet, the key of its cached keys and values
        self.norm = GroupNorm(groups, channels, eps)
        self.to_q = Linear(channels, channels)
        self.to_k = Linear(channels, channels)
        self.to_v = Linear(channels, channels)
        if context_dim is not None:
            self.context_k = Linear(context_dim, channels)
            self.context_v = Linear(context_dim, channels)
        self.to_out = Linear(channels, channels)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def read_context(self, context: Tensor) -> KeysValues:
        """Keys and values `[B, S, C]` of the context `[B, S, W]`; they are the same in every step of a run."""
        return self.context_k(context), self.context_v(context)

    def forward(
        self, x: Tensor, context: Tensor | KeysValues | None = None, context_bias: Tensor | None = None
    ) -> Tensor:
        """Attend, and add the result to the input.

        Args:
            x: `[B, C, H, W]`.
            context: `[B, S, W]`, or what `read_context` made of it.
            context_bias: `[B, S]`, added to the context's scores.

        Returns:
            `[B, C, H, W]`.
        """
        normed = fused(self.norm, x, silu=False)
        tokens = (self.norm(x) if normed is None else normed).flatten(2).transpose(1, 2)
        # One matrix for all three is no faster (33 ms, 34 fused, at Karlo's 16²), and mapped weights would be copied.
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        if context is not None:
            read = self.read_context(context) if isinstance(context, Tensor) else context
            k, v = torch.cat([read[0], k], dim=1), torch.cat([read[1], v], dim=1)
        bias = None
        if context_bias is not None:  # the image's own keys are never masked
            bias = F.pad(context_bias, (0, tokens.shape[1]))[:, None, None, :]
        q, k, v = (split_heads(part, self.head_dim) for part in (q, k, v))
        out = self.to_out(merge_heads(attend(q, k, v, bias)))
        return x + out.transpose(1, 2).reshape(x.shape)


class ResBlock(nn.Module):
    """Residual block of Dhariwal & Nichol 2021 (appendix A), conditioned on the time embedding.

    norm1 → SiLU → [resample] → conv1 → norm2 · (1 + scale) + shift → SiLU → conv2, plus the input
    (resampled likewise, through a 1x1 convolution where the width changes). With time_shift "add" the
    embedding is added before norm2 instead. `resample` is None, "down" (2x2 average) or "up" (nearest). `norm` is a
    name in NORMS; without norms a pixel depends on its neighbourhood alone.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embed_dim: int,
        *,
        groups: int,
        eps: float,
        time_shift: str = "scale_shift",
        resample: str | None = None,
        norm: str = "group",
    ) -> None:
        """Make the layers; the last convolution starts at zero, so that the block starts as identity."""
        super().__init__()
        self.resample = RESAMPLERS[resample]()
        self.scale_shift = time_shift == "scale_shift"
        self.norm1 = make_norm(norm, groups, in_channels, eps)
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.time_proj = Linear(embed_dim, out_channels * (2 if self.scale_shift else 1))
        self.norm2 = make_norm(norm, groups, out_channels, eps)
        self.conv2 = Conv3x3(out_channels, out_channels)
        self.skip = nn.Identity() if in_channels == out_channels else Conv1x1(in_channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, embed: Tensor) -> Tensor:
        """x `[B, C, H, W]`, embed `[B, E]` = SiLU of the time embedding -> `[B, C_out, H', W']`."""
        anew = torch.is_grad_enabled()  # else add in place: allocating costs as much as the operation itself
        h = self.conv1(self.resample(norm_silu(self.norm1, x)))
        signal = self.time_proj(embed)
        if self.scale_shift:
            h = norm_silu(self.norm2, h, signal)
        else:
            signal = signal[:, :, None, None]
            h = norm_silu(self.norm2, h + signal if anew else h.add_(signal))
        h = self.conv2(h)
        skipped = self.skip(self.resample(x))
        return h + skipped if anew else h.add_(skipped)
