"""MoVQ (Zheng et al. 2022, "MoVQ: Modulating Quantized Vectors for High-Fidelity Image Generation").

An autoencoder whose decoder's normalisations are modulated by the latents. Kandinsky's diffusion draws its latents as
they are, neither quantised nor scaled; the codebook is there for what optimises codes.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from .buffers import shared_buffers
from .feature_rows import Rows
from .memory_formats import Conv2d, following
from .movq_layers import EPS, Attention, Block, Down, Head, MakeNorm, Norm, SpatialNorm, Stem, Up
from .movq_params import SPATIAL_GROUPS, MoVQParams
from .widening import Embedding

WHOLE_ELEMENTS = 2**25
"""Layers with features up to this size, 128 MB in float32, run on the whole image; larger ones in strips."""
ROWS_AT_ONCE = 1024  # of latents that are compared with the codebook


class Level(nn.Module):
    """Blocks of one size, each followed by attention where the level has it, then the step to the next level."""

    def __init__(self, widths: list[int], attention: bool, norm: MakeNorm, resample: nn.Module | None) -> None:
        """widths: what enters, and what each block makes."""
        super().__init__()
        self.blocks = nn.ModuleList(Block(a, b, norm) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.attentions = nn.ModuleList(Attention(width, norm) for width in widths[1:] if attention)
        self.resample = resample

    def stages(self) -> Iterator[nn.Module]:
        """All layers in their order."""
        for index, block in enumerate(self.blocks):
            yield block
            yield from self.attentions[index : index + 1]
        if self.resample is not None:
            yield self.resample


class Middle(nn.Module):
    """Block, attention, block at the smallest size."""

    def __init__(self, channels: int, norm: MakeNorm) -> None:
        """Make the layers."""
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, channels, norm) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(channels, norm)])

    def stages(self) -> Iterator[nn.Module]:
        """All layers in their order."""
        yield from (self.blocks[0], self.attentions[0], self.blocks[1])


class Encoder(nn.Module):
    """Images `[B, 3, H, W]` -> `[B, latent_channels, H / factor, W / factor]`."""

    def __init__(self, params: MoVQParams) -> None:
        """Build the layers."""
        super().__init__()
        norm = partial(Norm, params.groups, eps=EPS)
        widths, last = params.channels, len(params.channels) - 1
        self.stem = Stem(params.image_channels, widths[0])
        self.levels = nn.ModuleList(
            Level(
                [widths[max(0, i - 1)], *[width] * params.blocks],
                params.attention[i],
                norm,
                Down(width) if i < last else None,
            )
            for i, width in enumerate(widths)
        )
        self.middle = Middle(widths[-1], norm)
        self.head = Head(widths[-1], params.latent_channels, norm)

    def forward(self, images: Tensor) -> Tensor:
        """Encode."""
        stages = [self.stem, *(s for level in self.levels for s in level.stages()), *self.middle.stages(), self.head]
        return run(stages, following(images, self.stem.weight), None)


class Decoder(nn.Module):
    """Latents `[B, latent_channels, h, w]`, and the same before post_quant_conv as code, -> `[B, 3, H, W]`."""

    def __init__(self, params: MoVQParams) -> None:
        """Build the layers; the levels run from the latents' size to the image's."""
        super().__init__()

        def norm(channels: int) -> SpatialNorm:
            return SpatialNorm(SPATIAL_GROUPS, channels, params.latent_channels)

        widths, last = params.channels[::-1], len(params.channels) - 1
        self.stem = Stem(params.latent_channels, widths[0])
        self.middle = Middle(widths[0], norm)
        self.levels = nn.ModuleList(
            Level(
                [widths[max(0, i - 1)], *[width] * (params.blocks + 1)],
                params.attention[last - i],
                norm,
                Up(width) if i < last else None,
            )
            for i, width in enumerate(widths)
        )
        self.head = Head(widths[-1], params.image_channels, norm)

    def forward(self, latents: Tensor, code: Tensor) -> Tensor:
        """Decode."""
        stages = [self.stem, *self.middle.stages(), *(s for level in self.levels for s in level.stages()), self.head]
        latents, code = (following(given, self.stem.weight) for given in (latents, code))
        return run(stages, latents, code)


class Codebook(nn.Module):
    """Latents `[B, D, h, w]` -> the nearest code of each place, the gradient passed straight through."""

    def __init__(self, params: MoVQParams) -> None:
        """Make the table of codes."""
        super().__init__()
        self.codes = Embedding(params.codes, params.latent_channels)

    def forward(self, latents: Tensor) -> Tensor:
        """Quantise."""
        places = latents.movedim(1, -1)
        nearest = self.nearest(places.detach().flatten(0, -2))
        chosen = self.codes(nearest).view(places.shape).movedim(-1, 1)
        return latents + (chosen - latents).detach()

    def nearest(self, vectors: Tensor) -> Tensor:
        """Number of the nearest code of each vector `[N, D]`; in float32, as bfloat16 takes others."""
        codes = self.codes.weight.detach().float()
        parts = vectors.float().split(ROWS_AT_ONCE)
        return torch.cat([torch.cdist(part, codes).argmin(dim=1) for part in parts])


class MoVQ(nn.Module):
    """Images `[B, 3, H, W]` in -1..1 to latents `[B, latent_channels, H / factor, W / factor]`, and back."""

    def __init__(self, params: MoVQParams) -> None:
        """Build encoder, codebook and decoder."""
        super().__init__()
        self.params = params
        self.encoder = Encoder(params)
        self.to_code = Conv2d(params.latent_channels, params.latent_channels, 1)
        self.codebook = Codebook(params)
        self.from_code = Conv2d(params.latent_channels, params.latent_channels, 1)
        self.decoder = Decoder(params)

    @shared_buffers()
    def encode(self, images: Tensor) -> Tensor:
        """Encode images, sides multiples of the factor; the latents are not quantised."""
        return self.to_code(self.encoder(images))

    @shared_buffers()
    def decode(self, code: Tensor, quantise: bool = False) -> Tensor:
        """Decode latents, as they are or as their nearest codes."""
        code = self.codebook(code) if quantise else code
        return self.decoder(self.from_code(code), code)


def run(stages: Iterable[nn.Module], x: Tensor, code: Tensor | None) -> Tensor:
    """Run x `[B, C, H, W]` through layers, in strips where features are large and no gradient is asked for.

    What a `recomputed` layer makes is not stored, but computed anew whenever the next one reads it.
    """
    held: Tensor | None = x
    own = False  # whether `held` was made here, and may be written over
    source = Rows.of(x)
    for stage in stages:
        if _runs_whole(stage, source):
            held, own = stage(source.stored() if held is None else held, code), True
            source = Rows.of(held)
            continue
        layer: Any = stage
        rows = layer.rows(source, code)
        if layer.recomputed:
            held, source = None, rows
        else:
            held = rows.stored(held if own and held is not None and tuple(held.shape) == rows.shape else None)
            own, source = True, Rows.of(held)
        del rows
    return source.stored() if held is None else held


def _runs_whole(stage: nn.Module, source: Rows) -> bool:
    if torch.is_grad_enabled() or isinstance(stage, Attention):
        return True
    layer: Any = stage
    return max(prod(source.shape), prod(layer.shape(source.shape))) <= WHOLE_ELEMENTS
