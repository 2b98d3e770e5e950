"""The shape of a UNet."""

from dataclasses import dataclass
from typing import ClassVar

from .layers import NORMS, TIME_SHIFTS
from .params import require_count, require_divisible, require_positive, require_small

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

    residual: ClassVar[bool] = False
    reach: ClassVar[int] = 0
    """As an upsampler's, see `UpsamplerParams`: a plain UNet's output is the result, and it sees no colours around."""

    @property
    def inner(self) -> "UNetParams":
        """Those of the UNet inside of an upsampler."""
        return self

    def __post_init__(self) -> None:
        """Check that the numbers agree; raises ValueError stating those that do not."""
        require_positive("UNetParams", levels=len(self.channels))
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
        for channels in self.map_channels:
            require_count("UNetParams", map_channels=channels)
        if self.context_dim is not None:
            require_positive("UNetParams", context_dim=self.context_dim)
        require_small("UNetParams", eps=self.eps)

    def _check_choices(self) -> None:
        if self.time_shift not in TIME_SHIFTS:
            raise ValueError(f"UNetParams: time_shift must be one of {TIME_SHIFTS}, got {self.time_shift!r}")
        if self.layout not in LAYOUTS:
            raise ValueError(f"UNetParams: layout must be one of {LAYOUTS}, got {self.layout!r}")
        if self.norm not in NORMS:
            raise ValueError(f"UNetParams: norm must be one of {NORMS}, got {self.norm!r}")
