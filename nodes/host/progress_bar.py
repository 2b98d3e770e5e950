"""Progress bars, live previews and the interrupt."""

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ...unclip_core.diffusion.loop import StepInfo
from ...unclip_core.output import progress_bar
from ..images import tile
from .abilities import has, in_comfyui

PREVIEWED = 16
PREVIEW_SIDE = 512

OnStep = Callable[[StepInfo], None]
ToImages = Callable[[Tensor], Tensor | None]
"""Makes what a sampler has so far images `[B, 3, H, W]` in -1..1: a codec's `preview`, or the prior's own.

None where this step is to be without a preview.
"""


def check_interrupt() -> None:
    """Raise ComfyUI's InterruptProcessingException, a BaseException, if the user has asked it to stop."""
    if in_comfyui():
        from comfy import model_management

        model_management.throw_exception_if_processing_interrupted()


class Progress:
    """A bar that counts steps, shows a preview of images, and stops when the user interrupts.

    Used as a context, and called with a `StepInfo` after each step: it is the `on_step` of the core.

    Attributes:
        total: steps until it is full.
        title: its name on the terminal.
        images: makes the images to preview, see `progress`.
        done: steps so far.
    """

    def __init__(self, total: int, title: str, images: ToImages | None = None) -> None:
        self.total = total
        self.title = title
        self.images = images
        self.done = 0

    def __enter__(self) -> "Progress":
        check_interrupt()
        self.open_bar()
        return self

    def __call__(self, info: StepInfo) -> None:
        """Count a step; preview `info.x0` if it is a batch of images, or `images` makes it one."""
        check_interrupt()
        self.done += 1
        self.show_step(info.x0)

    def advance(self) -> None:
        """Count a step that has nothing to preview."""
        check_interrupt()
        self.done += 1
        self.show_step(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_bar()

    def open_bar(self) -> None:
        """Show the bar, empty."""
        self._bar = progress_bar(total=self.total, desc=self.title, disable=None, leave=False)

    def show_step(self, x0: Tensor | None) -> None:
        """Move the bar by a step, whose x0 may be previewed."""
        self._bar.update(1)

    def close_bar(self) -> None:
        """Take the bar away."""
        self._bar.close()


class ComfyProgress(Progress):
    """The same on the canvas: the node's own bar and, unless previews are off, its preview."""

    def open_bar(self) -> None:
        """Show the node's bar, empty."""
        from comfy.utils import ProgressBar

        self._bar = ProgressBar(self.total)

    def show_step(self, x0: Tensor | None) -> None:
        """Move the bar to the step, with a preview of x0 if one is wanted."""
        self._bar.update_absolute(self.done, self.total, self._preview(x0))

    def _preview(self, x0: Tensor | None) -> Any:
        if x0 is None or not wants_preview() or (x0.ndim != 4 and self.images is None):
            return None  # embeddings have no image of their own
        images = x0 if self.images is None else self.images(x0)
        return None if images is None else ("JPEG", preview_image(images), PREVIEW_SIDE)

    def close_bar(self) -> None:
        """ComfyUI ends the bar with the node."""


def progress(total: int, title: str, images: ToImages | None = None) -> Progress:
    """Make a bar of `total` steps called `title`, on the canvas or the terminal.

    Args:
        images: makes the images to preview of the sampler's x0; None where x0 is a batch of images in -1..1, or
            where there is nothing to show.
    """
    return ComfyProgress(total, title, images) if in_comfyui() else Progress(total, title, images)


def wants_preview() -> bool:
    """Tell whether ComfyUI's preview method is other than none; it can change from one prompt to the next."""
    if not has("live previews"):
        return False
    import latent_preview

    return latent_preview.args.preview_method != latent_preview.LatentPreviewMethod.NoPreviews


def preview_image(x0: Tensor) -> Any:
    """Lay the first images of `x0` `[B, 3, H, W]` in -1..1 out in a grid, as a PIL image."""
    from PIL import Image

    shown = x0[:PREVIEWED].detach()
    # Pixels that the preview has no room for are left out before anything is computed of them.
    across = math.ceil(math.sqrt(len(shown))) * max(shown.shape[-2:])
    shown = shown[..., :: max(1, across // PREVIEW_SIDE), :: max(1, across // PREVIEW_SIDE)]
    images = (shown.float().cpu().movedim(1, -1) + 1) / 2
    levels = (tile(images.clamp(0, 1))[0] * 255).round().to(torch.uint8)
    return Image.fromarray(levels.numpy())
