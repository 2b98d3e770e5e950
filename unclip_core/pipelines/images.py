"""Images as the pipelines take them: checked, enlarged, and out of a sampler."""

from torch import Tensor
from torch.nn import functional as F

from .arguments import check_finite


def check_images(images: Tensor, name: str = "images") -> None:
    """Raise ValueError unless `images` is `[B, H, W, 3]` of finite numbers, with at least one pixel."""
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(f"Expected images of shape [B, H, W, 3] with at least one pixel, got {list(images.shape)}.")
    check_finite(images, name)


def to_images(images: Tensor) -> Tensor:
    """Images `[B, 3, H, W]` in -1..1 as `[B, H, W, 3]` in 0..1."""
    return (images.float() * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).contiguous()


def enlarge(images: Tensor, scale: int, clamp: bool = True) -> Tensor:
    """Bicubic enlargement of `[B, 3, H, W]`, float32, antialiased as Karlo's is, kept within -1..1 if `clamp`."""
    size = (images.shape[-2] * scale, images.shape[-1] * scale)
    large = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True)
    return large.clamp(-1, 1) if clamp else large
