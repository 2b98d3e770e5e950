"""MoVQ as a decoder's image codec."""

import torch
from torch import Tensor

from ..weights.computing import dtype_for
from .movq import WHOLE_ELEMENTS, MoVQ

COLOURS = 64  # flat latents whose colours the preview is fitted to


class MoVQCodec:
    """The `models.ImageCodec` of a MoVQ: images one after the other where they are large."""

    def __init__(self, net: MoVQ) -> None:
        """Keep the net, whose weights may be of any precision."""
        self.module = net
        self.channels, self.factor = net.params.latent_channels, net.params.factor
        self._preview: Tensor | None = None

    def encode(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in -1..1 to latents `[B, C, H / factor, W / factor]`, float32.

        Raises:
            ValueError: a side is no multiple of the factor.
        """
        height, width = images.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"MoVQ encodes images whose sides are multiples of {self.factor}, not {width} × {height}.")
        parts = images.to(self._dtype).split(self._at_once(height * width))
        return torch.cat([self.module.encode(part).float() for part in parts])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, C, h, w]` to images `[B, 3, h * factor, w * factor]`, in -1..1 but for overshoot, float32."""
        pixels = latents.shape[-2] * latents.shape[-1] * self.factor**2
        parts = latents.to(self._dtype).split(self._at_once(pixels))
        return torch.cat([self.module.decode(part).float() for part in parts])

    @property
    def limits(self) -> tuple[Tensor, Tensor]:
        """The least and the greatest number of the codebook in each channel, `[C]`."""
        least, greatest = self.module.codebook.codes.weight.detach().float().aminmax(dim=0)
        return least, greatest

    def quantised(self, latents: Tensor) -> Tensor:
        """The nearest code of each place, the gradient passed straight through."""
        return self.module.codebook(latents.float())

    def preview(self, latents: Tensor) -> Tensor:
        """Each place of the latents in the colour that flat latents of its kind decode to: `[B, 3, h, w]`."""
        if self._preview is None:
            self._preview = self._fitted()
        matrix = self._preview.to(latents.device)
        shown = torch.einsum("oc,bchw->bohw", matrix[:, :-1], latents.float()) + matrix[:, -1, None, None]
        return shown.clamp(-1, 1)

    @property
    def _dtype(self) -> torch.dtype:
        return dtype_for(self.module.to_code.weight)

    def _at_once(self, pixels: int) -> int:
        return max(1, WHOLE_ELEMENTS // (max(self.module.params.channels[:2]) * pixels))

    @torch.no_grad()
    def _fitted(self) -> Tensor:
        """Least squares from latents (and 1) to the colours that flat ones decode to, `[3, C + 1]`."""
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(COLOURS, self.channels, generator=generator)
        flat = drawn.to(self.module.to_code.weight.device)[:, :, None, None].expand(-1, -1, 2, 2)
        colours = self.decode(flat).mean((2, 3)).cpu()
        known = torch.cat([drawn, torch.ones(COLOURS, 1)], dim=1)
        return torch.linalg.lstsq(known, colours).solution.T
