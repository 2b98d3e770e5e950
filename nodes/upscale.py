"""The upscale node: small images to images four times as wide and high."""

from typing import Any

from torch import Tensor

from ..unclip_core import pipelines
from ..unclip_core.models import Upsampler
from ..unclip_core.noise import sample_seeds
from . import defaults, host, inputs, sockets
from .images import to_rgb
from .inputs import InputError
from .sockets import PartValue


class UnclipUpscale:
    """Node: enlarges images with the model's diffusion upsampler."""

    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = "Enlarges the decoder's images four times, with the diffusion upsampler of the model."
    SEARCH_ALIASES = ["unclip upscale", "super resolution", "upsampler", "enlarge", "x4"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The images, four times as wide and high.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "upscaler": (sockets.UPSCALER, {"tooltip": "The upscaler of Load unCLIP Model."}),
                "image": ("IMAGE", {"tooltip": "The images of Decoder Sample, or any small ones."}),
                "seed": inputs.seed_widget(),
                "steps": inputs.steps_widget(
                    defaults.UPSCALER_STEPS, "Sampling steps. Few are enough: only the edges are missing."
                ),
            }
        }

    def run(
        self,
        upscaler: PartValue[Upsampler],
        image: Tensor,
        seed: int = defaults.SEED,
        steps: int = defaults.UPSCALER_STEPS,
    ) -> tuple[Tensor]:
        """Enlarge `image` `[B, H, W, C]` to `[B, 4H, 4W, 3]`; all get the same noise."""
        pictures = to_rgb(image)
        at_once = check_area(pictures)
        steps = inputs.check_steps(steps)
        seeds = sample_seeds(inputs.check_seed(seed), 1) * len(pictures)
        sampler = upscaler.part.sampler

        def enlarge(rows: slice, on_step: host.OnStep) -> Tensor:
            small = pictures[rows].to(host.device())
            return pipelines.upscale(
                upscaler.part, small, seeds=seeds[rows], steps=steps, sampler=sampler, on_step=on_step
            )

        with host.loaded(upscaler):
            return (host.in_turns(enlarge, len(pictures), at_once, steps, "Upscale"),)


def check_area(pictures: Tensor) -> int:
    """How many of `pictures` `[B, H, W, 3]` to enlarge in one go.

    Raises:
        InputError: one of them is too large for any memory.
    """
    height, width = pictures.shape[1:3]
    if height * width > defaults.UPSCALED_PIXELS_MAX:
        raise InputError(
            f"The image is {width} × {height} pixels; Upscale takes at most {defaults.UPSCALED_PIXELS_MAX:,} "
            "pixels, as it enlarges an image as a whole. Scale the image down first."
        )
    return max(1, defaults.UPSCALED_PIXELS_AT_ONCE // (height * width))
