"""The widgets' defaults and limits, in one place, so that nodes, validation and help pages agree.

What decides how a picture is drawn comes from the core's settings, which the evaluation shares.
"""

from ..unclip_core.settings import Settings

_SETTINGS = Settings()

MODEL = "bundled (tiny)"
"""How the model that ships with the pack is called in the loader's list."""

DTYPE = "auto"
DTYPES = ("auto", "fp32", "fp16", "bf16")

PREVIEW_STEPS = 4
"""Decoder steps of the picture that shows what the prior has so far."""

SEED = 0
SEED_MAX = 2**64 - 1

STEPS_MIN, STEPS_MAX = 1, 1000
PRIOR_STEPS = _SETTINGS.prior_steps
DECODER_STEPS = _SETTINGS.decoder_steps
UPSCALER_STEPS = _SETTINGS.upscaler_steps

GUIDANCE_MIN, GUIDANCE_MAX = 0.0, 20.0
PRIOR_GUIDANCE = _SETTINGS.prior_guidance
DECODER_GUIDANCE = _SETTINGS.decoder_guidance

PRIOR_SAMPLER = _SETTINGS.prior_sampler
DECODER_SAMPLER = _SETTINGS.decoder_sampler
UPSCALER_SAMPLER = _SETTINGS.upscaler_sampler
"""The Upscale node has no sampler widget: this one is used."""

ETA = 0.0
ETA_MIN, ETA_MAX = 0.0, 1.0

CANDIDATES = 1
KEEP = 1
CANDIDATES_MAX = 64

BATCH_SIZE = 1
BATCH_MAX = 64

BLEND = 0.5
BLEND_END = 1.0
BLEND_MIN, BLEND_MAX = 0.0, 1.0
FRAMES = 1
FRAMES_MAX = 256

COLUMNS = 0
COLUMNS_MAX = 64

IMAGES_AT_ONCE = 64
"""Images decoded, or encoded, in one go; larger batches run in turns, with the same result."""

UPSCALED_PIXELS_AT_ONCE = 8 * 64 * 64
"""Pixels, before they are enlarged, that are upscaled in one go; one image is never split."""

UPSCALED_PIXELS_MAX = 1024 * 1024
"""Pixels of the largest image that the Upscale node takes."""
