"""The noise node: what a decoder draws from, between two noises."""

from typing import Any

from ..unclip_core.embeddings import slerp
from . import defaults, inputs, sockets
from .embeddings import check_blend, in_turn, places
from .inputs import InputError
from .sockets import NoiseValue


class UnclipNoiseInterpolate:
    """Node: the noises between two others."""

    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = (
        "Goes from the noise of one image to that of another along the arc between them: beside Embedding Interpolate, "
        "a transition begins and ends with the very images."
    )
    SEARCH_ALIASES = ["slerp noise", "latent interpolation", "noise blend", "transition"]
    RETURN_TYPES = (sockets.NOISE,)
    RETURN_NAMES = ("noise",)
    OUTPUT_TOOLTIPS = ("The noises in order, as Embedding Interpolate orders its frames.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        low, high = defaults.BLEND_MIN, defaults.BLEND_MAX
        return {
            "required": {
                "noise_a": (sockets.NOISE, {"tooltip": "The noise at t = 0, of DDIM Inversion."}),
                "noise_b": (sockets.NOISE, {"tooltip": "The noise at t = 1."}),
                "t": inputs.float_widget(
                    defaults.BLEND, low, high, 0.01, "The place from a (0) to b (1), or of the first frame."
                ),
                "frames": inputs.int_widget(
                    defaults.FRAMES, 1, defaults.FRAMES_MAX, "1: one noise, at t. More: from t to t_end."
                ),
                "t_end": inputs.float_widget(
                    defaults.BLEND_END, low, high, 0.01, "With several frames: the place of the last one."
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, t: float = defaults.BLEND, t_end: float = defaults.BLEND_END) -> bool | str:
        """ComfyUI's own check of the range lets NaN pass. It hands over None for what a link brings."""
        return inputs.validated(
            lambda: t is None or check_blend("t", t), lambda: t_end is None or check_blend("t_end", t_end)
        )

    def run(
        self,
        noise_a: NoiseValue,
        noise_b: NoiseValue,
        t: float = defaults.BLEND,
        frames: int = defaults.FRAMES,
        t_end: float = defaults.BLEND_END,
    ) -> tuple[NoiseValue]:
        """Interpolate `noise_a` and `noise_b`, both `[B, 3, S, S]` or one of them a single one, to `B * frames`."""
        sockets.require_family(noise_b, "noise_b", noise_a.family, "noise_a")
        start, end = check_blend("t", t), check_blend("t_end", t_end)
        frames = inputs.check_int("frames", frames, 1, defaults.FRAMES_MAX)
        shape = noise_a.noise.shape[1:]
        if noise_b.noise.shape[1:] != shape:
            raise InputError(f"Noises of sizes {list(shape)} and {list(noise_b.noise.shape[1:])} do not go together.")
        blends = slerp(noise_a.noise.flatten(1), noise_b.noise.flatten(1), places(start, end, frames))
        return (NoiseValue(in_turn(blends).unflatten(1, shape), noise_a.family),)
