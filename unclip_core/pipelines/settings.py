"""How a picture is drawn unless somebody says otherwise; the nodes' widgets start from these."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Steps, guidance and samplers of the three diffusion stages, tuned on the bundled model.

    Attributes:
        prior_steps: 1..1000.
        prior_guidance: guidance scale of the prior, 1 is none.
        prior_sampler: a name in `SAMPLERS`.
        candidates: embeddings drawn and decoded a prompt; CLIP picks the picture that is upscaled.
        decoder_steps: 1..1000.
        decoder_guidance: guidance scale of the decoder, 1 is none.
        decoder_sampler: a name in `SAMPLERS`.
        inversion_steps: 1..1000, of the way from a picture to its noise, and of that back.
        upscaler_steps: 1..1000.
        upscaler_sampler: a name in `SAMPLERS`.
    """

    prior_steps: int = 10
    prior_guidance: float = 2.0
    prior_sampler: str = "ddim"
    candidates: int = 4
    decoder_steps: int = 8
    decoder_guidance: float = 1.5
    decoder_sampler: str = "dpmpp_2m"
    inversion_steps: int = 50
    upscaler_steps: int = 4
    upscaler_sampler: str = "ddim"
