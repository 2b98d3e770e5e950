"""The nodes: each resolves its inputs, calls the core, wraps the result. Ids and input order never change."""

from . import host
from .clip import UnclipImageEncode, UnclipTextEncode
from .decoder import UnclipDecoderSample
from .embeddings import UnclipEmbeddingInterpolate
from .images import UnclipImageGrid
from .loaders import UnclipLoadModel
from .prior import UnclipPriorSample
from .rerank import UnclipRerank
from .upscale import UnclipUpscale

NODE_CLASS_MAPPINGS = {
    "UnclipLoadModel": UnclipLoadModel,
    "UnclipTextEncode": UnclipTextEncode,
    "UnclipImageEncode": UnclipImageEncode,
    "UnclipPriorSample": UnclipPriorSample,
    "UnclipDecoderSample": UnclipDecoderSample,
    "UnclipUpscale": UnclipUpscale,
    "UnclipEmbeddingInterpolate": UnclipEmbeddingInterpolate,
    "UnclipImageGrid": UnclipImageGrid,
    "UnclipRerank": UnclipRerank,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "UnclipLoadModel": "Load unCLIP Model",
    "UnclipTextEncode": "CLIP Text Encode (unCLIP)",
    "UnclipImageEncode": "CLIP Image Encode (unCLIP)",
    "UnclipPriorSample": "Prior Sample (unCLIP)",
    "UnclipDecoderSample": "Decoder Sample (unCLIP)",
    "UnclipUpscale": "Upscale (unCLIP)",
    "UnclipEmbeddingInterpolate": "Embedding Interpolate (unCLIP)",
    "UnclipImageGrid": "Image Grid (unCLIP)",
    "UnclipRerank": "Rerank (unCLIP)",
}

host.register_model_folder()
host.announce()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
