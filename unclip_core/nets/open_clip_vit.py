"""The plain vision-transformer CLIP of open_clip under open_clip's own names, for weights that are there already.

Importing open_clip itself brings torchvision, timm and more, several seconds of it. What this file does not know (other
towers, poolings, activations) is still open_clip's to build: see `plain_params`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .buffers import shared_buffers
from .clip_towers import ACTIVATIONS, TextTowerParams, TowerParams, VisionTowerParams
from .layers import attend, merge_heads, split_heads
from .linear import Linear, linear
from .params import LIMITS
from .widening import Conv2d, Embedding, LayerNorm, widened

MLP_RATIO = 4.0
_MODEL = {"embed_dim", "vision_cfg", "text_cfg"}
_VISION = {"image_size", "patch_size", "layers", "width", "head_width"}
_TEXT = {"context_length", "vocab_size", "layers", "width", "heads"}
_OPTIONAL = {"mlp_ratio"}


class OpenClipParams(NamedTuple):
    """Shapes of both towers."""

    text: TextTowerParams
    vision: VisionTowerParams


def plain_params(model: Mapping[str, Any]) -> OpenClipParams | None:
    """Shapes of the model that open_clip would build of these arguments (those of `open_clip.model.CLIP`).

    None where it would be more, or other, than `OpenClipVit` is.

    Raises:
        ValueError: numbers that do not fit.
    """
    if not _MODEL <= set(model) <= _MODEL | {"quick_gelu"}:
        return None
    vision, text = model["vision_cfg"], model["text_cfg"]
    if not (_known(vision, _VISION) and _known(text, _TEXT)) or vision["width"] % vision["head_width"]:
        return None
    shared = {"embed_dim": model["embed_dim"], "activation": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    return OpenClipParams(
        TextTowerParams(
            width=text["width"],
            mlp_width=_mlp_width(text),
            layers=text["layers"],
            heads=text["heads"],
            vocabulary=text["vocab_size"],
            context=text["context_length"],
            **shared,
        ),
        VisionTowerParams(
            width=vision["width"],
            mlp_width=_mlp_width(vision),
            layers=vision["layers"],
            heads=vision["width"] // vision["head_width"],
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            **shared,
        ),
    )


def _known(config: Any, needed: set[str]) -> bool:
    if not isinstance(config, Mapping) or not needed <= set(config) <= needed | _OPTIONAL:
        return False
    return all(isinstance(config[key], int) and config[key] > 0 for key in needed)


def _mlp_width(config: Mapping[str, Any]) -> int:
    ratio = config.get("mlp_ratio", MLP_RATIO)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= LIMITS["mlp_ratio"]:
        raise ValueError(f"mlp_ratio must be a number above 0, at most {LIMITS['mlp_ratio']}, got {ratio!r}")
    return int(config["width"] * ratio)


class OpenClipVit(nn.Module):
    """Both towers; parameters, and the methods that are used of it, are called as in `open_clip.model.CLIP`.

    Parameters hold no weights until some are loaded.
    """

    def __init__(self, params: OpenClipParams) -> None:
        """Make the towers."""
        super().__init__()
        text = params.text
        self.transformer = _Transformer(text)
        self.token_embedding = Embedding(text.vocabulary, text.width)
        self.positional_embedding = nn.Parameter(torch.empty(text.context, text.width))
        self.ln_final = LayerNorm(text.width, text.eps)
        self.text_projection = nn.Parameter(torch.empty(text.width, text.embed_dim))
        self.visual = _Vision(params.vision)
        self.logit_scale = nn.Parameter(torch.empty(()))

    @property
    def attn_mask(self) -> Tensor:
        """Score bias `[T, T]` of the text tower: 0 for a token and those before it, -inf for those after it."""
        length = len(self.positional_embedding)
        return torch.full((length, length), -torch.inf, device=self.positional_embedding.device).triu(1)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels `[B, 3, S, S]`, normalised -> embeddings `[B, embed_dim]`, not of unit length."""
        return self.visual(pixels)


class _Vision(nn.Module):
    def __init__(self, params: VisionTowerParams) -> None:
        super().__init__()
        width, patch = params.width, params.patch_size
        self.conv1 = Conv2d(params.channels, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty((params.image_size // patch) ** 2 + 1, width))
        self.ln_pre = LayerNorm(width, params.eps)
        self.transformer = _Transformer(params)
        self.ln_post = LayerNorm(width, params.eps)
        self.proj = nn.Parameter(torch.empty(width, params.embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(pixels), 1, -1), patches], dim=1) + self.positional_embedding
        seen = self.ln_post(self.transformer(self.ln_pre(x))[:, 0])
        return seen @ widened(self.proj, seen)


class _Transformer(nn.Module):
    def __init__(self, params: TowerParams) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(VitBlock(params) for _ in range(params.layers))

    @shared_buffers()
    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, attn_mask)
        return x


class VitBlock(nn.Module):
    """Pre-LN transformer block."""

    def __init__(self, params: TowerParams) -> None:
        super().__init__()
        width = params.width
        self.activation = ACTIVATIONS[params.activation]
        self.ln_1 = LayerNorm(width, params.eps)
        self.attn = _Attention(width, params.heads)
        self.ln_2 = LayerNorm(width, params.eps)
        self.mlp = nn.ModuleDict({"c_fc": Linear(width, params.mlp_width), "c_proj": Linear(params.mlp_width, width)})

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Tokens `[B, T, W]`; `bias` `[T, T]` is added to the attention scores."""
        x = x + self.attn(self.ln_1(x), bias)
        return x + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x))))


class _Attention(nn.Module):
    """Self-attention whose three projections are one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        projected = linear(x, widened(self.in_proj_weight, x), widened(self.in_proj_bias, x)).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.head_dim) for part in projected)
        return self.out_proj(merge_heads(attend(q, k, v, bias)))
