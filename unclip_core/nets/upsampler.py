"""The upsampler: a UNet that sees the noisy large image beside the enlarged small one."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import TimeTable
from .unet import UNet
from .unet_params import UNetParams

FAINT_CONTRAST = 0.02
"""Contrasts well below this, in an image of -1..1, are not seen as outlines."""


@dataclass(frozen=True)
class UpsamplerParams(UNetParams):
    """A UNet's shape, and what of the large image it makes.

    residual: whether the enlarged small image is added to the UNet's output, which is then what that one lacks.
    reach: with a residual, how many pixels of the small image far each of its pixels (one of the net's patches)
        looks for the colour that differs most from its own; 0 for no such look. The UNet is shown how far along the
        line between the two colours the pixels around lie, and says how far along it each large pixel lies. So where
        an outline runs is learned once, and not for every pair of colours.
    """

    residual: bool = False
    reach: int = 0

    def __post_init__(self) -> None:
        """Check that the numbers agree; raises ValueError stating those that do not."""
        super().__post_init__()
        if self.residual and self.in_channels != 2 * self.out_channels:
            raise ValueError(
                f"UpsamplerParams: a residual needs twice as many channels in as out, "
                f"got in_channels {self.in_channels} and out_channels {self.out_channels}"
            )
        if isinstance(self.reach, bool) or not isinstance(self.reach, int) or self.reach < 0:
            raise ValueError(f"UpsamplerParams: reach must be 0 or a positive whole number, got {self.reach!r}")
        if self.reach and (not self.residual or self.map_channels[0]):
            raise ValueError(f"UpsamplerParams: reach {self.reach} needs a residual and no map at the first level")

    @property
    def inner(self) -> UNetParams:
        """Those of the UNet itself."""
        own = {field.name: getattr(self, field.name) for field in fields(UNetParams)}
        if self.reach:
            around = (2 * self.reach + 1) ** 2
            own |= {"out_channels": self.out_channels + 1, "map_channels": (around, *self.map_channels[1:])}
        return UNetParams(**own)


class UpsamplerNet(nn.Module):
    """(noisy image, time, enlarged small image) -> raw output (Ho et al. 2021, cascaded diffusion)."""

    def __init__(self, params: UNetParams) -> None:
        """Build the UNet; its input channels are those of both images together.

        Plain UNetParams stand for those of an upsampler without a residual.
        """
        super().__init__()
        self.params = params
        self.residual, self.reach = params.residual, params.reach
        self.unet = UNet(params.inner)

    def forward(self, x: Tensor, t: Tensor, low_res: Tensor, times: TimeTable | None = None) -> Tensor:
        """x [B, C, H, W], t [B], low_res [B, C', H, W] already enlarged to H x W -> [B, out_channels, H, W].

        low_res may be more precise than x and the weights: a residual is then added, and returned, as it is.
        times: the embeddings of the run's steps, if they were computed beforehand.
        Raises ValueError where the two images differ in size or do not fill the UNet's input channels.
        """
        if x.shape[-2:] != low_res.shape[-2:]:
            raise ValueError(
                f"UpsamplerNet: image is {tuple(x.shape[-2:])}, low_res "
                f"{tuple(low_res.shape[-2:])}; enlarge low_res first"
            )
        if x.shape[1] + low_res.shape[1] != self.params.in_channels:
            raise ValueError(
                f"UpsamplerNet: {x.shape[1]} + {low_res.shape[1]} channels given, "
                f"the net takes {self.params.in_channels}"
            )
        seen = torch.cat([x, low_res.to(x.dtype)], dim=1)
        if not self.reach:
            out = self.unet(seen, t, times=times)
            return out + low_res if self.residual else out
        along, way = neighbour_contrast(low_res, self.params.patch_size, self.reach)
        out = self.unet(seen, t, maps={0: along}, times=times)
        rest, amount = out[:, :-1], out[:, -1:]
        return low_res + rest + amount * F.interpolate(way, scale_factor=self.params.patch_size, mode="nearest")


def neighbour_contrast(low_res: Tensor, cell: int, reach: int) -> tuple[Tensor, Tensor]:
    """What each `cell` x `cell` pixels of low_res [B, C, H, W] see of those around, up to `reach` cells away.

    Returns how far each of these lies, -1..1, on the way from the cell's own colour to the one that differs most
    [B, (2 * reach + 1)², H', W'], and that way [B, C, H', W']. Beyond the frame lies what is at the frame.
    """
    small = _middles(low_res.float(), cell)
    side = 2 * reach + 1
    around = F.unfold(F.pad(small, (reach,) * 4, mode="replicate"), side).unflatten(1, (-1, side**2))
    steps = around - small.flatten(2)[:, :, None]  # [B, C, N, H' * W']
    furthest = steps.square().sum(dim=1, keepdim=True).argmax(dim=2, keepdim=True)
    way = steps.gather(2, furthest.expand(-1, steps.shape[1], -1, -1))
    along = (steps * way).sum(dim=1) / (way.square().sum(dim=1) + FAINT_CONTRAST**2)
    return along.unflatten(2, small.shape[2:]), way[:, :, 0].unflatten(2, small.shape[2:]).to(low_res.dtype)


def _middles(low_res: Tensor, cell: int) -> Tensor:
    """The colour in the middle of each cell, [B, C, H', W']: nearly that of the small image's pixel."""
    inner = slice((cell - 1) // 2, cell // 2 + 1)
    cells = low_res.unflatten(-1, (-1, cell)).unflatten(-3, (-1, cell))  # [B, C, H', cell, W', cell]
    return cells[:, :, :, inner][..., inner].mean(dim=(3, 5))
