"""The UNet of decoder and upsamplers; Karlo's exact networks and the bundled model are configurations."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import NORMS, TIME_SHIFTS, AddedKVAttention, KeysValues, TimeEmbedding, TimeTable, make_norm
from .levels import BlockMaker, DownLevel, LightUpLevel, Middle, Signals, UpLevel
from .params import require_divisible, require_positive
from .winograd import shared_buffers

LAYOUTS = ("full", "light")


@dataclass(frozen=True)
class UNetParams:
    """Shape of a UNet; tuples have one entry a level, from the widest image to the smallest.

    layout "full" (Dhariwal & Nichol 2021; Karlo): resampling by residual blocks, every state of the way
    down concatenated on the way up, which has one block a level more. layout "light" (bundled model):
    resampling without weights, one state a level handed over through 1x1 convolutions, and no blocks on
    the way up at the smallest level (the middle blocks stand there).
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    attention: tuple[bool, ...]
    map_channels: tuple[int, ...]  # width of the feature map added at each level, 0 = none
    time_channels: int  # number of sinusoids
    time_embed_dim: int
    mid_blocks: int = 2
    mid_attention: bool = False
    context_dim: int | None = None
    head_dim: int = 64
    groups: int = 32
    eps: float = 1e-5
    time_shift: str = "scale_shift"
    patch_size: int = 1  # pixel-unshuffle at the input, pixel-shuffle at the output
    layout: str = "full"
    norm: str = "group"  # or "none": no pixel then depends on the size of what is around it, as with crops and tiles

    def __post_init__(self) -> None:
        """Check that the numbers agree; raises ValueError stating those that do not."""
        self._check_levels()
        self._check_choices()
        for width in self.channels:
            require_divisible("UNetParams", "channels", width, "groups", self.groups)
        if self.time_channels % 2:
            raise ValueError(f"UNetParams: time_channels must be even, got {self.time_channels}")
        attended = [c for c, on in zip(self.channels, self.attention, strict=True) if on]
        for width in attended + [self.channels[-1]] * self.mid_attention:
            require_divisible("UNetParams", "attended channels", width, "head_dim", self.head_dim)

    def _check_levels(self) -> None:
        for name in (
            "in_channels",
            "out_channels",
            "time_channels",
            "time_embed_dim",
            "mid_blocks",
            "head_dim",
            "groups",
            "patch_size",
        ):
            require_positive("UNetParams", **{name: getattr(self, name)})
        for name in ("blocks", "attention", "map_channels"):
            if len(getattr(self, name)) != len(self.channels):
                raise ValueError(
                    f"UNetParams: {name} has {len(getattr(self, name))} levels, channels has {len(self.channels)}"
                )
        for width, count in zip(self.channels, self.blocks, strict=True):
            require_positive("UNetParams", channels=width, blocks=count)

    def _check_choices(self) -> None:
        if self.time_shift not in TIME_SHIFTS:
            raise ValueError(f"UNetParams: time_shift must be one of {TIME_SHIFTS}, got {self.time_shift!r}")
        if self.layout not in LAYOUTS:
            raise ValueError(f"UNetParams: layout must be one of {LAYOUTS}, got {self.layout!r}")
        if self.norm not in NORMS:
            raise ValueError(f"UNetParams: norm must be one of {NORMS}, got {self.norm!r}")


class UNet(nn.Module):
    """Noisy image and time -> raw output of the diffusion (noise, or x0, with or without a variance)."""

    def __init__(self, params: UNetParams) -> None:
        """Build the net that `params` describes; its output starts at zero."""
        super().__init__()
        self.params = params
        make = BlockMaker(params)
        cells = params.patch_size**2
        self.time_embed = TimeEmbedding(params.time_channels, params.time_embed_dim)
        self.stem = nn.Conv2d(params.in_channels * cells, params.channels[0], 3, padding=1)
        self.down = nn.ModuleList(DownLevel(make, i) for i in range(len(params.channels)))
        self.middle = Middle(make)
        self.up = nn.ModuleList(_up_levels(make, self.down))
        self.out_norm = make_norm(params.norm, params.groups, params.channels[0], params.eps)
        self.out_conv = nn.Conv2d(params.channels[0], params.out_channels * cells, 3, padding=1)
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
        times: TimeTable | None = None,
    ) -> Tensor:
        """Run the net in the dtype of its weights.

        x [B, C, H, W] with H and W multiples of `self.stride`; t [B] whole or fractional steps; embed
        [B, time_embed_dim] is added to the time embedding; context [B, S, context_dim] with context_mask
        [B, S] bool (True = read) is attended; maps {level: [B, map_channels, h, w]} are added to what
        enters that level. In place of context and context_mask, what read_context made of them (context_read and
        context_bias) saves that work; so do times, the embeddings of a run's steps. Returns [B, out_channels, H, W].
        Raises ValueError for what does not fit.
        """
        maps = maps or {}
        self._check_maps(x, maps)
        if context_read is None:
            self._check_context(context, context_mask)
            context_bias = self._bias(context_mask)
        signals = self._signals(t, embed, context, context_bias, times)._replace(context_read=context_read)
        h = self.stem(_laid_out(F.pixel_unshuffle(x.to(signals.embed.dtype), self.params.patch_size)))
        kept = [h] if self.params.layout == "full" else []
        for index, level in enumerate(self.down):
            h = level(h, signals, kept, maps.get(index))
        h = self.middle(h, signals)
        for level in self.up:
            h = level(h, signals, kept, maps.get(level.index))
        return F.pixel_shuffle(self.out_conv(F.silu(self.out_norm(h))), self.params.patch_size)

    @property
    def stride(self) -> int:
        """Height and width of the input must be multiples of this."""
        return self.params.patch_size * 2 ** (len(self.params.channels) - 1)

    def read_context(self, context: Tensor, mask: Tensor | None = None) -> tuple[dict[int, KeysValues], Tensor | None]:
        """What the steps of a run share: each attention's keys and values of the context, and the scores' bias.

        context [B, S, context_dim], mask [B, S] bool. Returns forward's context_read and context_bias. Raises
        ValueError for what does not fit.
        """
        self._check_context(context, mask)
        context = context.to(self.stem.weight.dtype)
        read = {attention.slot: attention.read_context(context) for attention in self._attentions()}
        return read, self._bias(mask)

    def _attentions(self) -> list[AddedKVAttention]:
        return [module for module in self.modules() if isinstance(module, AddedKVAttention)]

    def _bias(self, mask: Tensor | None) -> Tensor | None:
        return None if mask is None else _mask_bias(mask, self.stem.weight.dtype)

    def _signals(
        self, t: Tensor, embed: Tensor | None, context: Tensor | None, bias: Tensor | None, times: TimeTable | None
    ) -> Signals:
        time = (times or self.time_embed)(t)
        if embed is not None:
            time = time + embed.to(time.dtype)
        context = None if context is None else context.to(time.dtype)
        return Signals(F.silu(time), context, bias)

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


def _laid_out(x: Tensor) -> Tensor:
    """x [B, C, H, W], channels last on a CPU that only infers: all layers keep to it, and weights may stay as they are.

    Training keeps the plain layout, in which the backward pass is faster.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return x
    return x.contiguous(memory_format=torch.channels_last)


def _mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where the bool `mask` says read, -inf elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -torch.inf)


def _up_levels(make: BlockMaker, down: nn.ModuleList) -> list[nn.Module]:
    """The way up, from the smallest level; each level takes the states that the way down kept."""
    count = len(down)
    if make.params.layout == "light":
        return [LightUpLevel(make, index) for index in reversed(range(count - 1))]
    widths = [make.params.channels[0]] + [width for level in down for width in level.kept_widths]
    return [UpLevel(make, index, widths) for index in reversed(range(count))]
