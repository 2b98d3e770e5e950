"""The node that needs CLIP alone, or CLIP and an image codec: images by gradient ascent."""

from typing import Any

from torch import Tensor

from ..unclip_core.diffusion.noise import sample_seeds
from ..unclip_core.models import PIXELS, Clip, CodecPart, Decoder, ImageCodec
from ..unclip_core.pipelines import editing
from ..unclip_core.pipelines.clip_ascent import Ascent
from . import defaults, host, inputs, sockets
from .batches import common_count, expand_batch
from .images import to_rgb
from .inputs import InputError, Number
from .sockets import PartValue, TextValue

RATE = Number("learning_rate", 0.001, 1.0, 0.001)
NO_CODEC = "This decoder draws pixels, without an image codec: pixels were changed."
SMOOTHNESS = Number("smoothness", 0.0, 10.0, 0.05)


class UnclipClipOptimise:
    """Node: gradient ascent of CLIP's similarity with a text over an image's pixels, or a codec's latents."""

    ID = "UnclipClipOptimise"
    DISPLAY_NAME = "CLIP Optimise (unCLIP)"
    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = (
        "Changes an image, or noise, step by step until CLIP finds it like the text: VQGAN+CLIP's way, from before "
        "there was diffusion. It needs a CLIP alone, and it is surreal."
    )
    SEARCH_ALIASES = ["vqgan+clip", "clip guided", "deep dream", "gradient ascent", "surreal"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The images that CLIP now finds like the texts.",)
    HAS_INTERMEDIATE_OUTPUT = True
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "clip": (sockets.CLIP, {"tooltip": "The CLIP of Load unCLIP Model."}),
                "text": (sockets.TEXT, {"tooltip": "What CLIP should see, of CLIP Text Encode (unCLIP)."}),
                "seed": inputs.seed_widget(),
                "steps": inputs.int_widget(
                    defaults.ASCENT_STEPS, 1, defaults.STEPS_MAX, "Steps of the ascent. More is clearer and slower."
                ),
                "width": inputs.int_widget(
                    defaults.ASCENT_SIZE, 16, defaults.ASCENT_SIZE_MAX, "Of the image, if none is connected."
                ),
                "height": inputs.int_widget(
                    defaults.ASCENT_SIZE, 16, defaults.ASCENT_SIZE_MAX, "Of the image, if none is connected."
                ),
                "learning_rate": RATE.widget(defaults.ASCENT_RATE, "How far each step goes."),
                "cutouts": inputs.int_widget(
                    defaults.ASCENT_CUTOUTS,
                    1,
                    defaults.ASCENT_CUTOUTS_MAX,
                    "Random parts of the image that CLIP looks at in each step. More is steadier and slower.",
                    advanced=True,
                ),
                "smoothness": SMOOTHNESS.widget(
                    defaults.ASCENT_SMOOTHNESS,
                    "How much to keep neighbouring pixels alike. 0 leaves CLIP its grain.",
                    advanced=True,
                ),
            },
            "optional": {
                "image": ("IMAGE", {"tooltip": "Where to begin. Leave open to begin with noise."}),
                "decoder": (
                    sockets.DECODER,
                    {
                        "tooltip": "A decoder whose image codec's codes are changed in place of pixels, as VQGAN+CLIP "
                        "does: Kandinsky's. Leave open for pixels."
                    },
                ),
            },
        }

    VALIDATE_INPUTS = inputs.checking(learning_rate=RATE.check, smoothness=SMOOTHNESS.check)

    def run(
        self,
        clip: PartValue[Clip],
        text: TextValue,
        seed: int = defaults.SEED,
        steps: int = defaults.ASCENT_STEPS,
        width: int = defaults.ASCENT_SIZE,
        height: int = defaults.ASCENT_SIZE,
        learning_rate: float = defaults.ASCENT_RATE,
        cutouts: int = defaults.ASCENT_CUTOUTS,
        smoothness: float = defaults.ASCENT_SMOOTHNESS,
        image: Tensor | None = None,
        decoder: PartValue[Decoder] | None = None,
    ) -> dict[str, Any]:
        """Optimise an image for each prompt, from its start `[B, H, W, C]` or the one for all; image i by seed + i."""
        sockets.require_family(text, "text", clip.family, "CLIP")
        ascent = Ascent(
            steps=inputs.check_int("steps", steps, 1, defaults.STEPS_MAX),
            learning_rate=RATE.check(learning_rate),
            cutouts=inputs.check_int("cutouts", cutouts, 1, defaults.ASCENT_CUTOUTS_MAX),
            smoothness=SMOOTHNESS.check(smoothness),
        )
        size = tuple(
            inputs.check_int(name, value, 16, defaults.ASCENT_SIZE_MAX)
            for name, value in (("height", height), ("width", width))
        )
        start = None if image is None else check_start(to_rgb(image))
        wanted = text.condition.embeds
        count = common_count(text=len(wanted), image=1 if start is None else len(start))
        wanted, start = expand_batch(wanted, count), None if start is None else expand_batch(start, count)
        seeds = sample_seeds(inputs.check_seed(seed), count)

        codec = PIXELS if decoder is None else decoder.codec

        def climb(rows: slice, on_step: host.OnStep) -> Tensor:
            here = None if start is None else start[rows].to(host.device())
            return editing.optimise_images(
                clip.part,
                wanted[rows].to(host.device()),
                ascent,
                seeds=seeds[rows],
                images=here,
                size=size,
                codec=codec,
                on_step=on_step,
            )

        drawing = PartValue(CodecPart(clip.family, codec))  # a small part of the decoder, moved by hand
        with host.loaded_together(host.seeing(clip), drawing):
            climbed = host.run_in_chunks(climb, count, defaults.ASCENTS_AT_ONCE, steps, "CLIP")
        return host.with_text((climbed,), what_climbs(decoder is not None, codec))


def what_climbs(connected: bool, codec: ImageCodec) -> str:
    """Return what the node says of what was changed; connected: whether there is a decoder."""
    if not connected:
        return "Pixels were changed."
    return NO_CODEC if codec is PIXELS else "The latents of the decoder's image codec were changed."


def check_start(images: Tensor) -> Tensor:
    """Return `images` `[B, H, W, 3]` if they are not too large to optimise.

    Raises:
        InputError: they are too large.
    """
    height, width = images.shape[1:3]
    if max(height, width) > defaults.ASCENT_SIZE_MAX:
        raise InputError(
            f"The image is {width} × {height} pixels; CLIP Optimise takes at most {defaults.ASCENT_SIZE_MAX} on a "
            "side. Scale it down first."
        )
    return images
