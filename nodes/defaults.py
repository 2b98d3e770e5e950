"""The widgets' defaults and limits, in one place, so that nodes, validation and help pages agree.

What decides how an image is drawn comes from the model itself, where an input is left at auto.
"""

from ..unclip_core.models import DECODER_SETTINGS, StageSettings
from ..unclip_core.pipelines import settings

MODEL = "bundled (things)"
MODELS = (MODEL, "bundled (shapes)")
EARLIER_MODEL = "bundled (tiny)"
"""How the models that ship with the pack are called in the loader's list, and, as its last entry, how that of shapes
was called when it was the only one: workflows that were saved then still draw what they drew."""

DTYPE = "auto"
DTYPES = ("auto", "fp32", "fp16", "bf16")

PRIOR = "auto"
"""The loader: the prior that belongs to the model."""

PREVIEW = StageSettings(4, 1.0, DECODER_SETTINGS.sampler)
"""How the decoder draws the image that shows what the prior has so far, with any model."""

SEED = 0
SEED_MAX = 2**64 - 1

AUTO_STEPS, AUTO_GUIDANCE, AUTO_SAMPLER = 0, -1.0, "auto"
"""Defaults of the sampling inputs: what the model states for the stage, or what the node needs instead."""

STEPS_MAX = 1000

GUIDANCE_MIN, GUIDANCE_MAX = 0.0, 20.0
GUIDANCE_START, GUIDANCE_END = 0.0, 1.0

PRIOR_STRENGTH = 0.3
"""Prior Sample: how far an embedding that it starts from is changed; as in diffusers' pipeline."""

ONE_PASS_NOISE = "drawn"
ONE_PASS_NOISES = ("drawn", "zeros")
"""Prior Sample: what a prior of one pass starts from."""

ETA = 0.0
ETA_MIN, ETA_MAX = 0.0, 1.0

CANDIDATES = 1
KEEP = 1
CANDIDATES_MAX = 64

OWN_SIZE = 0
SIZE_MIN, SIZE_MAX = 64, 2048
"""Sides in px of what a decoder that draws any size is asked for; 0 is its own, or the picture's."""

IMAGE_STRENGTH = 0.3
"""Decoder Sample: how far an image that it starts from is changed; as in diffusers' pipeline."""

BATCH_SIZE = 1
BATCH_MAX = 64

BLEND = 0.5
BLEND_END = 1.0
BLEND_MIN, BLEND_MAX = 0.0, 1.0
FRAMES = 1
FRAMES_MAX = 256

METHOD = "slerp"
METHODS = ("slerp", "lerp")
"""Ways between two embeddings; lerp is renormalised."""

WEIGHT = 1.0
WEIGHT_MIN, WEIGHT_MAX = -10.0, 10.0
BLENDED_MAX = 8
"""Embeddings that one node blends, or joins."""

PAD = 0.5
"""Embedding Pad: the point in the middle."""

PICKED = "0"
"""Pick: the first of the candidates."""

THETA = 0.3
THETA_MIN, THETA_MAX = 0.0, 1.0

DIMENSIONS = "1, 2, 4, 8, 16, 32"
DIMENSIONS_MAX = 4096

TOP_K = 5
TOP_K_MAX = 50

COLUMNS = 0
COLUMNS_MAX = 64

PROMPTS_MAX = 4096
"""Prompts that one node reads: their token states take 1 GB with the largest of CLIPs here."""

PROMPTS_AT_ONCE = 64
"""Prompts that CLIP reads in one go."""

EMBEDDINGS_MAX = BATCH_MAX * FRAMES_MAX
"""Embeddings, or noises, of one batch that a node makes of others."""

IMAGES_AT_ONCE = 64
"""Images drawn, or encoded, in one go; larger batches run in chunks, with the same result."""

EMBEDDINGS_AT_ONCE = 256
"""Embeddings, candidates included, that the prior draws in one go; whole prompts, so that one prompt may have more."""

UPSCALED_PIXELS_AT_ONCE = 8 * 64 * 64
"""Pixels, before they are enlarged, that are upscaled in one go; a larger image goes alone."""

UPSCALED_PIXELS_MAX = 1024 * 1024
"""Pixels of the largest image that the Upscale node takes."""

EMBEDDING_NOISE = "shared"
EMBEDDING_NOISES = ("shared", "own")
"""Decoder Sample: whether all embeddings start from the same noise, or each from its own."""

CLIP_STRENGTH = 0.0
CLIP_STRENGTH_MAX = 100.0

INVERSION = StageSettings(settings.INVERSION_STEPS, 1.0, "ddim")
"""What auto takes in DDIM Inversion, with any model: without guidance an image comes back best."""

INVERSION_ITERATIONS = 1
INVERSION_ITERATIONS_MAX = 20

INPAINT_STEPS = 25
"""What auto takes in Inpaint and Outpaint, with any model: more than elsewhere, to fit the new to the known."""

RESAMPLES = 4
RESAMPLES_MAX = 100
MARGIN = 32
MARGIN_MAX = 2048
CANVAS_SIDES_MAX = 64
"""Inpaint and Outpaint: how many decoder squares a canvas may have in area."""

TIMESTEPS = "0, 100, 250, 400, 550, 700, 850, 999"
FILM_EVERY = 2

ASCENT_STEPS = 100
ASCENT_SIZE = 128
ASCENT_SIZE_MAX = 1024
ASCENT_RATE = 0.05
ASCENT_CUTOUTS = 16
ASCENT_CUTOUTS_MAX = 256
ASCENT_SMOOTHNESS = 0.5
ASCENTS_AT_ONCE = 4

STOCK_TOWER = "auto"
STOCK_TOWERS = ("auto", "clip_g", "clip_h", "clip_l")
"""The text encoders of ComfyUI's own CLIPs, in the order in which auto looks for them."""

STOCK_CROP = "center"
STOCK_CROPS = ("center", "none")
"""How a stock CLIP_VISION makes images square."""
