"""The upscale node: small images to images four times as wide and high."""

from typing import Any

from torch import Tensor

from ..unclip_core import pipelines
from ..unclip_core.diffusion.noise import sample_seeds
from ..unclip_core.models import Upsampler
from ..unclip_core.pipelines import editing
from . import defaults, host, inputs, sampling, sockets
from .batches import common_count, expand_batch
from .images import to_rgb
from .inputs import InputError
from .masks import SHAPE_TOLERANCE, fit_mask
from .sockets import PartValue

KEEPS_NOTHING = "'known' came without 'mask', which says where to keep it: nothing of it is kept."
"""Said and not refused: a bypassed Outpaint hands on its image, and has no mask."""


class UnclipUpscale:
    """Node: enlarges images with the model's diffusion upsampler."""

    ID = "UnclipUpscale"
    DISPLAY_NAME = "Upscale (unCLIP)"
    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = (
        "Enlarges images four times, with the diffusion upsampler of the model. Behind another Upscale it takes the "
        "model's second one, if there is one."
    )
    SEARCH_ALIASES = ["unclip", "unclip upscale", "super resolution", "upsampler", "enlarge", "x4", "dalle2", "karlo"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The images, four times as wide and high.",)
    HAS_INTERMEDIATE_OUTPUT = True
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        image = "The images of Decoder Sample, or of another Upscale, or any small ones."
        return {
            "required": {
                "upscaler": (sockets.UPSCALER, {"tooltip": "The upscaler of Load unCLIP Model."}),
                "image": ("IMAGE", {"tooltip": image}),
                "seed": inputs.seed_widget(),
                "steps": sampling.steps_widget(
                    "Sampling steps. Few are enough: only the edges are missing. 0: auto, the model's own."
                ),
            },
            "optional": {
                "known": ("IMAGE", {"tooltip": "After Inpaint or Outpaint: the original, to keep its pixels."}),
                "mask": ("MASK", {"tooltip": "Where 'known' is not to be kept: the same mask, or Outpaint's."}),
            },
        }

    def run(
        self,
        upscaler: PartValue[Upsampler],
        image: Tensor,
        seed: int = defaults.SEED,
        steps: int = defaults.AUTO_STEPS,
        known: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """Enlarge `image` `[B, H, W, C]` to `[B, 4H, 4W, 3]`; all get the same noise.

        A model with a second upsampler enlarges with it what is as large as the first one's results.

        Where `mask` is 0 the result is `known`, to the bit if that has the result's size; else it is resized to it.
        """
        images = to_rgb(image)
        at_once = check_area(images)
        seeds = sample_seeds(inputs.check_seed(seed), 1) * len(images)
        part = upscaler.part.fitting(*images.shape[1:3])
        chosen = sampling.choose({"steps": steps}, sampling.models_own(part))
        warnings = [KEEPS_NOTHING] if known is not None and mask is None else []
        kept = known_pixels(None if warnings else known, mask, images, part.scale)

        def enlarge(rows: slice, on_step: host.OnStep) -> Tensor:
            small = images[rows].to(host.device())
            here = {name: part[rows].to(host.device()) for name, part in kept.items()}
            return pipelines.upscale(part, small, seeds=seeds[rows], **chosen.settings, on_step=on_step, **here)

        with host.loaded(upscaler):
            large = host.run_in_chunks(enlarge, len(images), at_once, chosen.steps, "Upscale")
        return host.with_text((large,), "\n".join([*warnings, chosen.text]), warnings)


def known_pixels(known: Tensor | None, mask: Tensor | None, images: Tensor, scale: int) -> dict[str, Tensor]:
    """Return `upscale`'s `known` and `mask` for each of `images` `[B, H, W, 3]`, at `scale` times their size, if given.

    Raises:
        InputError: one comes without the other, or they do not fit the images.
    """
    if known is None and mask is None:
        return {}
    if known is None or mask is None:
        raise InputError("'known' and 'mask' go together: connect both, or neither.")
    count, height, width = len(images), images.shape[1] * scale, images.shape[2] * scale
    known = to_rgb(known)
    rows, columns = known.shape[1:3]
    if abs(rows * width / (columns * height) - 1) > SHAPE_TOLERANCE:
        raise InputError(f"'known' is {columns} × {rows} pixels, the result {width} × {height}: they differ in shape.")
    holes = fit_mask(mask, height, width)
    common_count(image=count, known=len(known), mask=len(holes))
    if max(len(known), len(holes)) > count:
        raise InputError(f"There are more known images or masks than the {count} to upscale.")
    known = editing.resize_image(known, (height, width))
    return {"known": expand_batch(known, count), "mask": expand_batch(holes, count)}


def check_area(images: Tensor) -> int:
    """Return how many of `images` `[B, H, W, 3]` to enlarge at once.

    Raises:
        InputError: one of them is too large.
    """
    height, width = images.shape[1:3]
    if height * width > defaults.UPSCALED_PIXELS_MAX:
        raise InputError(
            f"The image is {width} × {height} pixels; Upscale takes at most {defaults.UPSCALED_PIXELS_MAX:,} pixels, "
            "and draws sixteen for each. Scale the image down first."
        )
    return max(1, defaults.UPSCALED_PIXELS_AT_ONCE // (height * width))
