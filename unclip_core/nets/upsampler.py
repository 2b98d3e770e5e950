"""The upsampler: a UNet that sees the noisy large image beside the enlarged small one."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Times
from .params import require_count
from .unet import UNet
from .unet_params import UNetParams

FAINT_CONTRAST = 0.02
"""Contrasts well below this, in an image of -1..1, do not count as edges."""


@dataclass(frozen=True)
class UpsamplerParams(UNetParams):
    """Shape of an upsampler's UNet, and how the large image is made of its output.

    Attributes:
        residual: whether the enlarged small image is added to the UNet's output.
        reach: with a residual, the radius, in pixels of the small image (the net's patches), in which each of them
            finds the colour that differs most from its own; 0 turns this off. The UNet gets the position of each
            neighbour between those two colours as a map, and predicts the position of each large pixel between them. So
            edges are learned once, and not for every pair of colours.
    """

    residual: bool = False  # type: ignore[misc]  # a constant of the plain UNet
    reach: int = 0  # type: ignore[misc]  # the same

    def __post_init__(self) -> None:
        """Check that the numbers agree; raises ValueError stating those that do not."""
        super().__post_init__()
        if self.residual and self.in_channels != 2 * self.out_channels:
            raise ValueError(
                f"UpsamplerParams: a residual needs twice as many channels in as out, "
                f"got in_channels {self.in_channels} and out_channels {self.out_channels}"
            )
        require_count("UpsamplerParams", reach=self.reach)
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

    def forward(self, x: Tensor, t: Tensor, low_res: Tensor, times: Times | None = None) -> Tensor:
        """Predict the large image's raw output.

        Args:
            x: `[B, C, H, W]`, the noisy large image.
            t: `[B]` timesteps.
            low_res: `[B, C', H, W]`, the small image enlarged. It may be more precise than x and the weights: a
                residual is then added, and returned, at that precision.
            times: the embeddings of the run's timesteps, where they were computed beforehand.

        Returns:
            `[B, out_channels, H, W]`.

        Raises:
            ValueError: the two images differ in size, or do not fill the UNet's input channels.
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
    """Describe each patch's neighbourhood on the line from its own colour to the one that differs most.

    Beyond the image its edge is repeated.

    Args:
        low_res: `[B, C, H, W]`, the enlarged small image.
        cell: side of a patch, px.
        reach: radius of the neighbourhood, in patches.

    Returns:
        The position of each neighbour on that line, -1..1, `[B, (2 reach + 1)^2, H', W']`, and the difference of the
        two colours, `[B, C, H', W']`.
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
    """The colour in the middle of each cell, `[B, C, H', W']`: nearly that of the small image's pixel."""
    inner = slice((cell - 1) // 2, cell // 2 + 1)
    cells = low_res.unflatten(-1, (-1, cell)).unflatten(-3, (-1, cell))  # [B, C, H', cell, W', cell]
    return cells[:, :, :, inner][..., inner].mean(dim=(3, 5))
