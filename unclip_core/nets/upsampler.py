"""The upsampler: a UNet that sees the noisy large picture beside the enlarged small one."""


import torch
from torch import Tensor, nn

from .layers import TimeTable
from .unet import UNet, UNetParams


class UpsamplerNet(nn.Module):
    """(noisy picture, time, enlarged small picture) -> raw output (Ho et al. 2021, cascaded diffusion)."""

    def __init__(self, params: UNetParams) -> None:
        """Build the UNet; its input channels are those of both pictures together."""
        super().__init__()
        self.params = params
        self.unet = UNet(params)

    def forward(self, x: Tensor, t: Tensor, low_res: Tensor, times: TimeTable | None = None) -> Tensor:
        """x [B, C, H, W], t [B], low_res [B, C', H, W] already enlarged to H x W -> [B, out_channels, H, W].

        times: the embeddings of the run's steps, if they were computed beforehand.
        Raises ValueError where the two pictures differ in size or do not fill the UNet's input channels.
        """
        if x.shape[-2:] != low_res.shape[-2:]:
            raise ValueError(f"UpsamplerNet: picture is {tuple(x.shape[-2:])}, low_res "
                             f"{tuple(low_res.shape[-2:])}; enlarge low_res first")
        if x.shape[1] + low_res.shape[1] != self.params.in_channels:
            raise ValueError(f"UpsamplerNet: {x.shape[1]} + {low_res.shape[1]} channels given, "
                             f"the net takes {self.params.in_channels}")
        return self.unet(torch.cat([x, low_res.to(x.dtype)], dim=1), t, times=times)
