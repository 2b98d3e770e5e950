"""The noise node: interpolation of the noise that a decoder starts from."""

from typing import Any

import torch
from torch import Tensor

from ..unclip_core.embedding.arithmetic import slerp
from . import defaults, inputs, sockets
from .batches import check_count, common_count
from .inputs import InputError
from .sockets import NoiseValue
from .transitions import T_END, T, check_transition, sample_major, transition_inputs


class UnclipNoiseInterpolate:
    """Node: the noises between two others."""

    ID = "UnclipNoiseInterpolate"
    DISPLAY_NAME = "Noise Interpolate (unCLIP)"
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
        return {
            "required": {
                "noise_a": (sockets.NOISE, {"tooltip": "The noise at t = 0, of DDIM Inversion."}),
                "noise_b": (sockets.NOISE, {"tooltip": "The noise at t = 1."}),
                **transition_inputs("noise"),
            }
        }

    VALIDATE_INPUTS = inputs.checking(t=T.check, t_end=T_END.check)

    def run(
        self,
        noise_a: NoiseValue,
        noise_b: NoiseValue,
        t: float = defaults.BLEND,
        frames: int = defaults.FRAMES,
        t_end: float = defaults.BLEND_END,
    ) -> tuple[NoiseValue]:
        """Interpolate `noise_a` and `noise_b`, both `[B, C, s, s]` or one of them a single one, to `B * frames`."""
        sockets.require_family(noise_b, "noise_b", noise_a.family, "noise_a")
        way = check_transition(t, frames, t_end)
        shape = noise_a.noise.shape[1:]
        if noise_b.noise.shape[1:] != shape:
            raise InputError(f"Noises of sizes {list(shape)} and {list(noise_b.noise.shape[1:])} do not go together.")
        check_count(len(way) * common_count(noise_a=len(noise_a.noise), noise_b=len(noise_b.noise)), "noises")
        blends = slerp(noise_a.noise.flatten(1), noise_b.noise.flatten(1), way)
        errors = torch.lerp(errors_of(noise_a), errors_of(noise_b), way.float()[:, None])
        found_with = noise_a.found_with if noise_a.found_with == noise_b.found_with else None
        return (NoiseValue(sample_major(blends).unflatten(1, shape), noise_a.family, sample_major(errors), found_with),)


def errors_of(noise: NoiseValue) -> Tensor:
    """Return the decoder's error about each of the images that the noise was found of, `[B]`; 0 where it is unknown."""
    return torch.zeros(len(noise.noise)) if noise.error is None else noise.error.cpu()
