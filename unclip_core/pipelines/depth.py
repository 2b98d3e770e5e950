"""Pictures of the depth as a decoder reads them."""

from torch import Tensor

from .images import check_images

COLOURED = 0.1
"""How far the channels of a grey picture may be apart, out of 1: what JPEG makes of grey."""

FLAT = 1 / 255
"""How far the brightness of a picture that says nothing of the depth varies."""


def depth_hint(images: Tensor, *, invert: bool = False, stretch: bool = True) -> Tensor:
    """A hint of pictures `[B, H, W, 3]` of the depth: the same in 0..1 with three channels alike, near things bright.

    Args:
        invert: near things are dark in the pictures.
        stretch: spread each picture's depth over all of 0..1; one that is flat stays as it is.
    """
    check_images(images)
    depth = images.float().clamp(0, 1).mean(dim=-1)
    if stretch:
        low, high = depth.amin((1, 2), keepdim=True), depth.amax((1, 2), keepdim=True)
        flat = high - low < FLAT
        depth = depth.where(flat, (depth - low) / (high - low).clamp_min(FLAT))
    if invert:
        depth = 1 - depth
    return depth[..., None].expand(*depth.shape, 3).contiguous()


def is_coloured(images: Tensor) -> bool:
    """Whether pictures `[B, H, W, 3]` in 0..1 have colours."""
    return bool((images.amax(dim=-1) - images.amin(dim=-1)).max() > COLOURED)


def is_flat(images: Tensor) -> bool:
    """Whether one of the pictures `[B, H, W, 3]` in 0..1 is of one brightness."""
    grey = images.mean(dim=-1).flatten(1)
    return bool((grey.amax(dim=1) - grey.amin(dim=1) < FLAT).any())
