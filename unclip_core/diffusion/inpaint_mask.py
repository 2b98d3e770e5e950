"""An image and its mask, as ComfyUI gives them: how they enter a sampling run, and how kept pixels are restored."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .denoiser import Denoiser
from .forward import add_noise
from .inpainting import InpaintDenoiser, blend_by_mask

__all__ = ["Encode", "MaskedImage"]

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MaskedImage:
    """Images to be drawn in part, and the mask of that part.

    Attributes:
        images: `[B or 1, H, W, 3]` in 0..1.
        mask: `[B or 1, H, W]` in 0..1: 0 is known, 1 is to be drawn.
        shape: `[B, 3, H, W]`, of the images that are drawn.

    Raises:
        ValueError: counts and sizes that do not fit, NaN or infinity, or a mask out of 0..1.
    """

    images: Tensor
    mask: Tensor | None
    shape: torch.Size

    def __post_init__(self) -> None:
        """Check that the parts fit."""
        count, _, height, width = self.shape
        if self.mask is None:
            raise ValueError("Known pixels need a mask that says where they are.")
        for name, found, wanted in (
            ("known image", self.images.shape, (height, width, 3)),
            ("mask", self.mask.shape, (height, width)),
        ):
            if tuple(found[1:]) != wanted or found[0] not in (1, count):
                raise ValueError(
                    f"A {name} of shape {list(found)} does not fit {count} images of {height} × {width} "
                    "pixels: give one for all, or one each, of that size."
                )
        if not bool(torch.isfinite(self.images).all()):
            raise ValueError("The known image holds NaN or infinity: give finite numbers from 0 to 1.")
        if not bool(((self.mask >= 0) & (self.mask <= 1)).all()):  # NaN is neither
            raise ValueError("The mask must hold numbers from 0 (kept) to 1 (drawn), without NaN: clamp it to 0..1.")

    def padded(self, shape: torch.Size) -> "MaskedImage":
        """The same at the top left of larger images, of which nothing else is known.

        What is added is to be drawn. A codec sees it beside the known pixels though, so it repeats their edge: anything
        else (0 is black) would show in the latents next to it.
        """
        extra = (0, shape[-1] - self.shape[-1], 0, shape[-2] - self.shape[-2])
        images = F.pad(self.images.movedim(-1, 1), extra, mode="replicate").movedim(1, -1)
        return MaskedImage(images, F.pad(self.mask, extra, value=1.0), torch.Size(shape))

    def start_from(
        self, denoiser: Denoiser, start: Tensor, ab: float, encode: Encode | None = None, factor: int = 1
    ) -> tuple[Denoiser, Tensor]:
        """Set a sampling run up to keep the image's known pixels.

        Args:
            denoiser: of the net.
            start: the noise `[B, C, h, w]` that the run starts from.
            ab: alpha-bar at the run's start.
            encode: images `[B, 3, H, W]` in -1..1 to the denoiser's latents, `factor` times as small; None for pixels.
                A latent is drawn as far as any of the pixels that it covers is to be.
            factor: pixels a latent, along a side.

        Returns:
            The denoiser that keeps the known pixels, and the start, in which they are the noisy image.
        """
        known = self.images.movedim(-1, 1).to(start) * 2 - 1
        mask = self.mask[:, None].to(start)  # type: ignore[index]  # None is refused when it is made
        if encode is not None:
            known, mask = encode(known).to(start), F.max_pool2d(mask, factor)
        return InpaintDenoiser(denoiser, known, mask), blend_by_mask(start, add_noise(known, start, ab), mask)

    def restore_kept(self, drawn: Tensor) -> Tensor:
        """Drawn images `[B, H, W, 3]` in 0..1 with the known pixels put back, to the bit."""
        return blend_by_mask(drawn, self.images.to(drawn), self.mask[..., None].to(drawn))  # type: ignore[index]  # as above
