"""How all stages of a model are sampled together."""

from dataclasses import dataclass
from typing import Any

from ..models import StageSettings

INVERSION_STEPS = 50
"""Steps of the way from an image to its noise, and of that back, unless somebody says otherwise."""


@dataclass(frozen=True)
class Settings:
    """Settings of a whole generation; a stage left at None takes those that its model states.

    Attributes:
        prior: of the prior.
        decoder: of the decoder.
        upsampler: of the upsampler.
        candidates: embeddings drawn a prompt.
        decoded: how many of them, at most, the decoder draws: those nearest to the text ("we generate two samples of
            z_i … and select the one with a higher dot product with z_t", Ramesh et al. 2022, section 2.2). CLIP picks
            the image that is upscaled.
        inversion_steps: 1..1000, of DDIM inversion, and of the way back.
    """

    prior: StageSettings | None = None
    decoder: StageSettings | None = None
    upsampler: StageSettings | None = None
    candidates: int = 4
    decoded: int = 2
    inversion_steps: int = INVERSION_STEPS


def arguments(settings: StageSettings | None) -> dict[str, Any]:
    """The pipelines' arguments `steps`, `guidance_scale` and `sampler` of these settings; none of None."""
    return {} if settings is None else dict(vars(settings))


def upsampler_arguments(settings: StageSettings | None) -> dict[str, Any]:
    """The same of `upscale`, which knows no guidance."""
    return {name: value for name, value in arguments(settings).items() if name != "guidance_scale"}
