"""How the upsamplers' small images are corrupted in training, so that they take what another net has drawn.

"To improve the robustness of our upsamplers, we slightly corrupt the conditioning images during training. For the
first upsampling stage, we use gaussian blur, and for the second, we use a more diverse BSR degradation" (Ramesh et al.
2022, section 2.1).
"""

import io
import random
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

CLEAN = 0.5
"""Share of the small images that are left as they are."""
UNFINISHED = 0.1
"""The largest standard deviation of each kind of the decoder's noise."""


def degrade(small: Tensor, generator: torch.Generator) -> Tensor:
    """Blur and noise of random strength on the small images `[B, 3, H, W]`, half of them left as they are.

    The blur is the paper's; the noise is like what the decoder leaves unfinished.
    """
    strength = torch.rand(len(small), 1, 1, 1, generator=generator).sub(CLEAN).clamp(min=0).to(small.device) * 2
    kernel = torch.tensor([0.25, 0.5, 0.25], device=small.device)
    window = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    blurry = F.conv2d(F.pad(small, (1, 1, 1, 1), mode="replicate"), window, groups=3)
    return (torch.lerp(small, blurry, strength) + _unfinished(small, generator) * strength).clamp(-1, 1)


def _unfinished(like: Tensor, generator: torch.Generator) -> Tensor:
    """Noise like a decoder's: from pixel to pixel, in smooth clouds, and in the grid of its patches of 2 px.

    Measured on the plain parts of an earlier bundled decoder's images: standard deviation 0.01 to 0.08; two pixels
    apart it correlates more (0.2 to 0.6) than one pixel apart.
    """
    batch, channels, height, width = like.shape
    coarse = (batch, channels, -(-height // 4), -(-width // 4))
    fine, clouds, where = (torch.randn(shape, generator=generator) for shape in (like.shape, coarse, coarse))
    tile = torch.randn(batch, channels, 2, 2, generator=generator)
    grid = tile.repeat(1, 1, -(-height // 2), -(-width // 2))[..., :height, :width]
    clouds, where = (F.interpolate(field, (height, width), mode="bicubic") for field in (clouds, where))
    amounts = torch.rand(3, batch, 1, 1, 1, generator=generator) * UNFINISHED
    return (amounts[0] * fine + amounts[1] * clouds + amounts[2] * grid * where).to(like.device)


def bsr(full: Tensor, scale: int, rng: random.Random) -> Tensor:
    """A large image `[1, 3, H, W]` in -1..1 made `scale` times smaller as images come in the wild.

    Blind super-resolution's degradation (Zhang et al. 2021, BSRGAN, section 3) in its light form: blur of one width or
    of two, reduction by a random filter, Gaussian noise and JPEG, in random order; without the camera's sensor noise.
    """
    size = (full.shape[-2] // scale, full.shape[-1] // scale)
    steps: list[Callable[[Tensor], Tensor]] = [
        lambda x: _blurred(x, rng, scale if x.shape[-1] > size[1] else 1),
        lambda x: _reduced(x, size, rng),
        lambda x: _noisy(x, rng),
        lambda x: _jpeg(x, rng),
    ]
    rng.shuffle(steps)
    for step in steps:
        full = step(full)
    return full


def _blurred(x: Tensor, rng: random.Random, pixel: int) -> Tensor:
    """By a Gaussian whose widths, along two turned axes, are up to 0.8 of a small image's `pixel`."""
    widths = torch.tensor([rng.uniform(0.1, 0.8) * pixel for _ in range(2)])
    if rng.random() < 0.5:
        widths[1] = widths[0]
    reach = 2 * pixel
    place = torch.arange(-reach, reach + 1.0)
    turn = torch.tensor(rng.uniform(0, torch.pi))
    along, across = (
        place * torch.cos(turn) + place[:, None] * torch.sin(turn),
        place[:, None] * torch.cos(turn) - place * torch.sin(turn),
    )
    kernel = torch.exp(-0.5 * ((along / widths[0]) ** 2 + (across / widths[1]) ** 2))
    kernel = (kernel / kernel.sum()).to(x.device).expand(3, 1, -1, -1)
    return F.conv2d(F.pad(x, (reach,) * 4, mode="replicate"), kernel, groups=3)


def _reduced(x: Tensor, size: tuple[int, int], rng: random.Random) -> Tensor:
    """To `size`, by one of four filters, none of which moves the image."""
    mode, antialias = rng.choice([("area", False), ("bilinear", False), ("bicubic", False), ("bicubic", True)])
    if mode == "area":
        return F.interpolate(x, size, mode=mode)
    return F.interpolate(x, size, mode=mode, antialias=antialias, align_corners=False).clamp(-1, 1)


def _noisy(x: Tensor, rng: random.Random) -> Tensor:
    """With Gaussian noise of a standard deviation up to 0.06, of each colour or the same for all."""
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    channels = rng.choice([1, 3])
    noise = torch.randn(1, channels, *x.shape[-2:], generator=generator).to(x.device)
    return (x + noise * rng.uniform(0.0, 0.06)).clamp(-1, 1)


def _jpeg(x: Tensor, rng: random.Random) -> Tensor:
    """Through a JPEG file of quality 60..95."""
    file = io.BytesIO()
    pixels = ((x[0] * 0.5 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=rng.randint(60, 95))
    back = torch.frombuffer(bytearray(Image.open(file).convert("RGB").tobytes()), dtype=torch.uint8)
    return back.view(1, *pixels.shape).permute(0, 3, 1, 2).to(x) / 127.5 - 1
