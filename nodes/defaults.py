"""The widgets' defaults and limits, in one place, so that nodes, validation and help pages agree."""

MODEL = "bundled (tiny)"
"""How the model that ships with the pack is called in the loader's list."""

SEED = 0
SEED_MAX = 2**64 - 1

STEPS_MIN, STEPS_MAX = 1, 1000
PRIOR_STEPS = 10
DECODER_STEPS = 16
UPSCALER_STEPS = 4

GUIDANCE_MIN, GUIDANCE_MAX = 0.0, 20.0
PRIOR_GUIDANCE = 2.0
DECODER_GUIDANCE = 2.0

PRIOR_SAMPLER = "ddim"
DECODER_SAMPLER = "dpmpp_2m"
UPSCALER_SAMPLER = "ddim"
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

UPSCALES_AT_ONCE = 8
"""Images upscaled in one go."""
