"""How an image is made ready for a vision tower: resized, cropped, normalised."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageInput:
    """How an image is brought into the shape that a vision tower sees.

    Attributes:
        crop: side of the square that is cut from the middle, in px: the tower's own size.
        shortest_edge: the image's shorter edge is resized to this first; None resizes both edges to `crop`,
            which squashes what is not square (kakaobrain's own code does that).
        resample: PIL's number of the filter, 3 is bicubic.
        mean: per-channel mean subtracted from images in 0..1.
        std: per-channel standard deviation that divides them.
        half_even: where an odd number of pixels is cut off, the half that goes first is rounded to the even number
            (torchvision, and with it open_clip) and not down (transformers).
    """

    crop: int
    shortest_edge: int | None = None
    resample: int = 3
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    half_even: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Images `[B, H, W, 3]` in 0..1 to normalised ones `[B, 3, crop, crop]`, float32 on the CPU."""
        levels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        rows = [self._cut(Image.fromarray(image.numpy())) for image in levels]
        return self.normalized(torch.stack(rows).permute(0, 3, 1, 2).float() / 255)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Images `[B, 3, S, S]` in 0..1 with mean and standard deviation taken out; gradients pass."""
        mean, std = (torch.tensor(value).to(pixels)[:, None, None] for value in (self.mean, self.std))
        return (pixels - mean) / std

    def cut_first(self, spare: int) -> int:
        """How many of `spare` pixels to be cut off are cut off left of, or above, what is kept."""
        return round(spare / 2) if self.half_even else spare // 2

    def _cut(self, image: Image.Image) -> Tensor:
        """One image resized and cropped, uint8 `[crop, crop, 3]`."""
        resized = image.resize(self._size(*image.size), self.resample)
        spare = [edge - self.crop for edge in resized.size]
        left, top = (self.cut_first(rest) for rest in spare)
        cut = resized.crop((left, top, left + self.crop, top + self.crop))
        return torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8).view(self.crop, self.crop, 3)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if self.shortest_edge is None:
            return self.crop, self.crop
        short = min(width, height)
        return self.shortest_edge * width // short, self.shortest_edge * height // short
