"""The UNet of decoder and upsamplers; Karlo's exact networks and the bundled model are configurations."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.computing import dtype_for
from .buffers import shared_buffers
from .group_norm import norm_silu
from .layers import AddedKVAttention, KeysValues, TimeEmbedding, Times, make_norm
from .levels import BlockFactory, DownLevel, LevelConditioning, LightUpLevel, Middle, UpLevel
from .memory_formats import Conv2d, laid_out
from .unet_params import UNetParams


class UNet(nn.Module):
    """Noisy image and time -> raw output of the diffusion (noise, or x0, with or without a variance)."""

    def __init__(self, params: UNetParams) -> None:
        """Build the net that `params` describes; its output starts at zero."""
        super().__init__()
        self.params = params
        self._fitting: tuple[object, ...] = ()  # the shapes that were checked last
        make = BlockFactory(params)
        cells = params.patch_size**2
        self.time_embed = TimeEmbedding(params.time_channels, params.time_embed_dim)
        self.stem = Conv2d(params.in_channels * cells, params.channels[0], 3, padding=1)
        self.down = nn.ModuleList(DownLevel(make, i) for i in range(len(params.channels)))
        self.middle = Middle(make)
        self.up = nn.ModuleList(_up_levels(make, self.down))
        self.out_norm = make_norm(params.norm, params.groups, params.channels[0], params.eps)
        self.out_conv = Conv2d(params.channels[0], params.out_channels * cells, 3, padding=1)
        nn.init.zeros_(self.out_conv.weight)
        nn.init.zeros_(self.out_conv.bias)
        for slot, attention in enumerate(self._attentions()):
            attention.slot = slot

    @shared_buffers()
    def forward(
        self,
        x: Tensor,
        t: Tensor,
        *,
        embed: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        maps: Mapping[int, Tensor] | None = None,
        context_read: Mapping[int, KeysValues] | None = None,
        context_bias: Tensor | None = None,
        times: Times | None = None,
    ) -> Tensor:
        """Run the net in the dtype of its weights, or in float32 where a CPU would emulate that.

        Args:
            x: `[B, C, H, W]`, H and W multiples of `self.stride`.
            t: `[B]`, whole or fractional timesteps.
            embed: `[B, time_embed_dim]`, added to the time embedding.
            context: `[B, S, context_dim]`, attended.
            context_mask: `[B, S]` bool, True where the context is read.
            maps: `[B, map_channels, h, w]` by level, added to the features that enter it.
            context_read: each attention's keys and values of the context, as `read_context` computes them once a run;
                with `context_bias` in place of `context` and `context_mask`.
            context_bias: `[B, S]`, added to the attention scores.
            times: the embeddings of the run's timesteps, where they were computed beforehand.

        Returns:
            `[B, out_channels, H, W]`.

        Raises:
            ValueError: a size, width or map does not fit the net.
        """
        maps = maps or {}
        self._check_once(x, maps)
        if context_read is None:
            self._check_context(context, context_mask)
            context_bias = self._bias(context_mask)
        signals = self._signals(t, embed, context, context_bias, times)._replace(context_read=context_read)
        maps = {index: laid_out(given.to(signals.embed.dtype), self.stem.weight) for index, given in maps.items()}
        seen = F.pixel_unshuffle(x.to(signals.embed.dtype), self.params.patch_size)
        h = self.stem(laid_out(seen, self.stem.weight))
        kept = [h] if self.params.layout == "full" else []
        for index, level in enumerate(self.down):
            h = level(h, signals, kept, maps.get(index))
        h = self.middle(h, signals)
        for level in self.up:
            h = level(h, signals, kept, maps.get(level.index))
        return F.pixel_shuffle(self.out_conv(norm_silu(self.out_norm, h)), self.params.patch_size)

    @property
    def stride(self) -> int:
        """Height and width of the input must be multiples of this."""
        return self.params.patch_size * 2 ** (len(self.params.channels) - 1)

    def read_context(self, context: Tensor, mask: Tensor | None = None) -> tuple[dict[int, KeysValues], Tensor | None]:
        """Compute once what all steps of a run share: each attention's keys and values of the context.

        Args:
            context: `[B, S, context_dim]`.
            mask: `[B, S]` bool, True where the context is read.

        Returns:
            `forward`'s `context_read` and `context_bias`.

        Raises:
            ValueError: the context's width or the mask's shape does not fit.
        """
        self._check_context(context, mask)
        context = context.to(dtype_for(self.stem.weight))
        read = {attention.slot: attention.read_context(context) for attention in self._attentions()}
        return read, self._bias(mask)

    def _attentions(self) -> list[AddedKVAttention]:
        return [module for module in self.modules() if isinstance(module, AddedKVAttention)]

    def _bias(self, mask: Tensor | None) -> Tensor | None:
        return None if mask is None else _mask_bias(mask, dtype_for(self.stem.weight))

    def _signals(
        self, t: Tensor, embed: Tensor | None, context: Tensor | None, bias: Tensor | None, times: Times | None
    ) -> LevelConditioning:
        time = (times or self.time_embed)(t)
        if embed is not None:
            time = time + embed.to(time.dtype)
        context = None if context is None else context.to(time.dtype)
        return LevelConditioning(F.silu(time), context, bias)

    def _check_context(self, context: Tensor | None, mask: Tensor | None) -> None:
        dim = self.params.context_dim
        got = None if context is None else context.shape[-1]
        if got != dim:
            raise ValueError(f"UNet: context of width {got} given, the net takes {dim}")
        if mask is None:
            return
        if context is None or mask.shape != context.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"UNet: context_mask must be bool [B, S] like the context, got {mask.dtype} {tuple(mask.shape)}"
            )

    def _check_once(self, x: Tensor, maps: Mapping[int, Tensor]) -> None:
        """Check the shapes of a run's first step; those after it have the same."""
        shapes = (x.shape[-2:], *((level, given.shape[1:]) for level, given in maps.items()))
        if shapes != self._fitting:
            self._check_maps(x, maps)
            self._fitting = shapes

    def _check_maps(self, x: Tensor, maps: Mapping[int, Tensor]) -> None:
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(f"UNet: image of {height} x {width}: both must be multiples of {self.stride}")
        for level, channels in enumerate(self.params.map_channels):
            if channels == 0 and level in maps:
                raise ValueError(f"UNet: a map was given for level {level}, which takes none")
            side = self.params.patch_size * 2**level
            wanted = (channels, height // side, width // side)
            if channels and (level not in maps or tuple(maps[level].shape[1:]) != wanted):
                got = tuple(maps[level].shape[1:]) if level in maps else "none"
                raise ValueError(f"UNet: level {level} needs a map of shape {wanted} for this image, got {got}")


def _mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where the bool `mask` says read, -inf elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -torch.inf)


def _up_levels(make: BlockFactory, down: nn.ModuleList) -> list[nn.Module]:
    """The way up, from the smallest level; each level takes the states that the way down kept."""
    count = len(down)
    if make.params.layout == "light":
        return [LightUpLevel(make, index) for index in reversed(range(count - 1))]
    widths = [make.params.channels[0]] + [width for level in down for width in level.kept_widths]
    return [UpLevel(make, index, widths) for index in reversed(range(count))]
