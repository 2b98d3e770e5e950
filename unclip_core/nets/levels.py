"""The levels of a UNet: way down, middle, way up, in the "full" and the "light" layout (see UNetParams)."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import AddedKVAttention, KeysValues, ResBlock
from .linear import Conv1x1
from .unet_params import UNetParams


class LevelConditioning(NamedTuple):
    """Conditioning of each level.

    Attributes:
        embed: time and conditioning embedding after SiLU, `[B, E]`.
        context: tokens that attention reads, `[B, S, W]`.
        context_bias: added to attention scores, `[B, S]`, 0 or -inf.
        context_read: keys and values of the context by the attention's slot, where they were computed beforehand.
    """

    embed: Tensor
    context: Tensor | None
    context_bias: Tensor | None
    context_read: Mapping[int, KeysValues] | None = None

    def context_of(self, attention: AddedKVAttention) -> Tensor | KeysValues | None:
        """What that attention is given."""
        return self.context if self.context_read is None else self.context_read[attention.slot]


class BlockFactory:
    """Makes the blocks of one UNet of its params."""

    def __init__(self, params: UNetParams) -> None:
        """Keep the params."""
        self.params = params

    def block(self, in_channels: int, out_channels: int, resample: str | None = None) -> ResBlock:
        """Return a residual block."""
        p = self.params
        return ResBlock(
            in_channels,
            out_channels,
            p.time_embed_dim,
            groups=p.groups,
            eps=p.eps,
            time_shift=p.time_shift,
            resample=resample,
            norm=p.norm,
        )

    def attentions(self, channels: int, count: int) -> nn.ModuleList:
        """Return `count` attentions of that width."""
        p = self.params
        return nn.ModuleList(
            AddedKVAttention(channels, p.head_dim, p.context_dim, groups=p.groups, eps=p.eps) for _ in range(count)
        )

    def lift(self, level: int, channels: int) -> nn.Module | None:
        """Return the 1x1 convolution that brings a level's map to the width it is added to, if it has one."""
        thin = self.params.map_channels[level]
        return Conv1x1(thin, channels, 1) if thin else None


def _run(block: ResBlock, attentions: nn.ModuleList, index: int, h: Tensor, signals: LevelConditioning) -> Tensor:
    """One residual block and, where there is one, the attention behind it (the middle ends without)."""
    h = block(h, signals.embed)
    if index < len(attentions):
        h = attentions[index](h, signals.context_of(attentions[index]), signals.context_bias)
    return h


def _add_map(h: Tensor, lift: nn.Module | None, feature_map: Tensor | None) -> Tensor:
    """Add the lifted feature map, where the level has one."""
    return h if lift is None or feature_map is None else h + lift(feature_map)


class DownLevel(nn.Module):
    """Blocks of one level on the way down, then the step to the next level (the last has none)."""

    def __init__(self, make: BlockFactory, index: int) -> None:
        """Build level `index`."""
        super().__init__()
        p = make.params
        width, count = p.channels[index], p.blocks[index]
        enters = p.channels[max(index - 1, 0)]
        self.light, self.last = p.layout == "light", index == len(p.channels) - 1
        self.lift = make.lift(index, enters)
        self.blocks = nn.ModuleList(make.block(width if i else enters, width) for i in range(count))
        self.attentions = make.attentions(width, count if p.attention[index] else 0)
        steps = not self.last and not self.light
        self.resample = make.block(width, width, "down") if steps else None
        self.kept_widths = [width] * (count + steps)

    def forward(self, h: Tensor, signals: LevelConditioning, kept: list[Tensor], feature_map: Tensor | None) -> Tensor:
        """Run the level; appends to `kept` the states that the way up will read."""
        h = _add_map(h, self.lift, feature_map)
        for i, block in enumerate(self.blocks):
            h = _run(block, self.attentions, i, h, signals)
            if not self.light:
                kept.append(h)
        if self.last:
            return h
        if self.resample is None:
            kept.append(h)
            return F.avg_pool2d(h, 2)
        h = self.resample(h, signals.embed)
        kept.append(h)
        return h


class Middle(nn.Module):
    """Blocks at the smallest level, with attention between them where the params ask for it."""

    def __init__(self, make: BlockFactory) -> None:
        """Build the middle."""
        super().__init__()
        p = make.params
        width = p.channels[-1]
        self.blocks = nn.ModuleList(make.block(width, width) for _ in range(p.mid_blocks))
        self.attentions = make.attentions(width, p.mid_blocks - 1 if p.mid_attention else 0)

    def forward(self, h: Tensor, signals: LevelConditioning) -> Tensor:
        """Run the middle."""
        for i, block in enumerate(self.blocks):
            h = _run(block, self.attentions, i, h, signals)
        return h


class UpLevel(nn.Module):
    """Full layout: one block more than on the way down, each reading a kept state, then the step up."""

    def __init__(self, make: BlockFactory, index: int, widths: list[int]) -> None:
        """Build level `index`; takes the widths of the kept states it will read off the end of `widths`."""
        super().__init__()
        p = make.params
        self.index = index
        width, count = p.channels[index], p.blocks[index] + 1
        enters = p.channels[min(index + 1, len(p.channels) - 1)]
        self.lift = make.lift(index, enters)
        self.blocks = nn.ModuleList(make.block((width if i else enters) + widths.pop(), width) for i in range(count))
        self.attentions = make.attentions(width, count if p.attention[index] else 0)
        self.resample = make.block(width, width, "up") if index else None

    def forward(self, h: Tensor, signals: LevelConditioning, kept: list[Tensor], feature_map: Tensor | None) -> Tensor:
        """Run the level; takes the states it reads off the end of `kept`."""
        h = _add_map(h, self.lift, feature_map)
        for i, block in enumerate(self.blocks):
            h = _run(block, self.attentions, i, torch.cat([h, kept.pop()], dim=1), signals)
        return h if self.resample is None else self.resample(h, signals.embed)


class LightUpLevel(nn.Module):
    """Light layout: the step up, the kept state and the map are summed through 1x1 convolutions, then blocks.

    The convolution stands before the enlargement, which it commutes with, at a quarter of the cost.
    """

    def __init__(self, make: BlockFactory, index: int) -> None:
        """Build level `index`, which is entered from level `index` + 1."""
        super().__init__()
        p = make.params
        self.index = index
        width, count = p.channels[index], p.blocks[index]
        self.enter = Conv1x1(p.channels[index + 1], width, 1)
        self.keep = Conv1x1(width, width, 1)
        self.lift = make.lift(index, width)
        self.blocks = nn.ModuleList(make.block(width, width) for _ in range(count))
        self.attentions = make.attentions(width, count if p.attention[index] else 0)

    def forward(self, h: Tensor, signals: LevelConditioning, kept: list[Tensor], feature_map: Tensor | None) -> Tensor:
        """Run the level; takes the state it reads off the end of `kept`."""
        h = F.interpolate(self.enter(h), scale_factor=2, mode="nearest") + self.keep(kept.pop())
        h = _add_map(h, self.lift, feature_map)
        for i, block in enumerate(self.blocks):
            h = _run(block, self.attentions, i, h, signals)
        return h
