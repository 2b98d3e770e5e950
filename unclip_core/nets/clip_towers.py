"""CLIP's two towers (Radford et al. 2021, section 2.4) as transformers names and shapes them; each stands alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .buffers import shared_buffers
from .layers import attend, merge_heads, small_numbers, split_heads
from .linear import Linear
from .params import require_divisible, require_positive, require_small
from .widening import Conv2d, Embedding, LayerNorm


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's approximation of GELU: `x * sigmoid(1.702 x)` (Hendrycks & Gimpel 2016, section 2)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}
"""Activations by the names that configurations use."""


@dataclass(frozen=True)
class TowerParams:
    """What both towers share: `mlp_width` is that of the hidden layer, `embed_dim` that of the joint space."""

    width: int
    mlp_width: int
    layers: int
    heads: int
    embed_dim: int
    activation: str = "quick_gelu"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        """Check the numbers; raises ValueError stating those that disagree."""
        owner = type(self).__name__
        require_positive(owner, **{k: v for k, v in vars(self).items() if k not in ("activation", "eps")})
        require_small(owner, eps=self.eps)
        require_divisible(owner, "width", self.width, "heads", self.heads)
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"{owner}: activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}")


@dataclass(frozen=True)
class TextTowerParams(TowerParams):
    """Shape of a text tower of `vocabulary` tokens that reads `context` of them."""

    vocabulary: int = 49408
    context: int = 77


@dataclass(frozen=True)
class VisionTowerParams(TowerParams):
    """Shape of a vision tower for square images of `image_size` px, cut into patches of `patch_size` px."""

    image_size: int = 224
    patch_size: int = 14
    channels: int = 3

    def __post_init__(self) -> None:
        """Check the numbers; raises ValueError stating those that disagree."""
        super().__post_init__()
        require_divisible("VisionTowerParams", "image_size", self.image_size, "patch_size", self.patch_size)


class TowerBlock(nn.Module):
    """Pre-LN transformer block."""

    def __init__(self, params: TowerParams) -> None:
        """Make the layers."""
        super().__init__()
        width = params.width
        self.head_dim, self.activation = width // params.heads, ACTIVATIONS[params.activation]
        self.norm1 = LayerNorm(width, params.eps)
        self.to_q = Linear(width, width)
        self.to_k = Linear(width, width)
        self.to_v = Linear(width, width)
        self.to_out = Linear(width, width)
        self.norm2 = LayerNorm(width, params.eps)
        self.mlp_in = Linear(width, params.mlp_width)
        self.mlp_out = Linear(params.mlp_width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x `[B, N, width]`, bias `[N, N]` on the attention's scores -> `[B, N, width]`."""
        h = self.norm1(x)
        q, k, v = (split_heads(layer(h), self.head_dim) for layer in (self.to_q, self.to_k, self.to_v))
        x = x + self.to_out(merge_heads(attend(q, k, v, bias)))
        return x + self.mlp_out(self.activation(self.mlp_in(self.norm2(x))))


class TextTower(nn.Module):
    """Token ids to token states; causal, so that what follows the end of a text has no effect on it."""

    def __init__(self, params: TextTowerParams) -> None:
        """Build the tower that `params` describes."""
        super().__init__()
        self.params = params
        self.tokens = Embedding(params.vocabulary, params.width)
        self.positions = small_numbers(params.context, params.width)
        self.blocks = nn.ModuleList(TowerBlock(params) for _ in range(params.layers))
        self.norm_out = LayerNorm(params.width, params.eps)
        self.project = Linear(params.width, params.embed_dim, bias=False)

    @shared_buffers()
    def forward(self, ids: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Encode token ids.

        Args:
            ids: `[B, T]` int64.
            ends: `[B]`, where each text ends.

        Returns:
            States after the final LayerNorm `[B, T, width]`, and the projected states of the ends, not normalised,
            `[B, embed_dim]`.

        Raises:
            ValueError: more tokens than the tower's context.
        """
        length = ids.shape[1]
        if length > self.params.context:
            raise ValueError(f"TextTower: {length} tokens given, the tower reads {self.params.context}")
        x = self.tokens(ids) + self.positions[:length]
        bias = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)
        for block in self.blocks:
            x = block(x, bias)
        states = self.norm_out(x)
        return states, self.project(states[torch.arange(len(ids), device=ids.device), ends])


class VisionTower(nn.Module):
    """Images to embeddings: a vision transformer that reads its answer off the class token."""

    def __init__(self, params: VisionTowerParams) -> None:
        """Build the tower that `params` describes."""
        super().__init__()
        self.params = params
        count = (params.image_size // params.patch_size) ** 2 + 1
        self.patches = Conv2d(params.channels, params.width, params.patch_size, params.patch_size, bias=False)
        self.class_token = small_numbers(params.width)
        self.positions = small_numbers(count, params.width)
        self.norm_in = LayerNorm(params.width, params.eps)
        self.blocks = nn.ModuleList(TowerBlock(params) for _ in range(params.layers))
        self.norm_out = LayerNorm(params.width, params.eps)
        self.project = Linear(params.width, params.embed_dim, bias=False)

    @shared_buffers()
    def forward(self, pixels: Tensor) -> Tensor:
        """Encode images.

        Args:
            pixels: `[B, channels, image_size, image_size]`, normalised.

        Returns:
            Embeddings `[B, embed_dim]`, not normalised.

        Raises:
            ValueError: images of another size.
        """
        side = self.params.image_size
        if tuple(pixels.shape[1:]) != (self.params.channels, side, side):
            raise ValueError(
                f"VisionTower: images of {tuple(pixels.shape[1:])} given, the tower sees "
                f"{(self.params.channels, side, side)}"
            )
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(pixels), 1, -1), patches], dim=1) + self.positions
        x = self.norm_in(x)
        for block in self.blocks:
            x = block(x)
        return self.project(self.norm_out(x[:, 0]))
