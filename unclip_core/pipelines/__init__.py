"""The stages of unCLIP as functions over the parts: encode, prior, decode, upscale; the only no_grad.

Every stage takes one seed a sample, so that a sample is the same whatever the batch it is drawn in.
"""

from .arguments import WHOLE_RUN, Interval, candidate_stream, candidates_noise, check_count
from .canvas import Canvas
from .clip import embed_text, encode_image, encode_text, rerank
from .decoder import decoder_denoiser, sample_decoder
from .end_to_end import Drawing, text_to_image, variations
from .images import check_images, enlarge, to_images
from .prior import count_of, joined_texts, prior_embeds, sample_prior, sample_prior_pair
from .upsampler import upscale

__all__ = [
    "WHOLE_RUN", "Canvas", "Drawing", "Interval", "candidate_stream", "candidates_noise", "check_count", "check_images",
    "count_of", "decoder_denoiser", "embed_text", "encode_image", "encode_text", "enlarge", "joined_texts",
    "prior_embeds", "rerank", "sample_decoder", "sample_prior", "sample_prior_pair", "text_to_image", "to_images",
    "upscale", "variations",
]  # fmt: skip
