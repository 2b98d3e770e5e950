"""The nodes: each resolves its inputs, calls the core, wraps the result. Ids and input order never change."""

from . import host
from .clip import UnclipImageEncode, UnclipTextEncode, UnclipTextEncodeLines
from .clip_vision import UnclipFromClipVision, UnclipToClipVision
from .decoder import UnclipDecoderSample
from .describe import UnclipDescribe
from .embeddings import UnclipEmbeddingBatch, UnclipEmbeddingBlend, UnclipEmbeddingInterpolate
from .images import UnclipImageGrid
from .inpaint import UnclipInpaint, UnclipOutpaint
from .inversion import UnclipDdimInversion
from .loaders import UnclipLoadModel
from .lora import UnclipApplyLora
from .noise import UnclipNoiseInterpolate
from .optimise import UnclipClipOptimise
from .pca import UnclipLoadPca, UnclipPcaFit, UnclipPcaReconstruct, UnclipSavePca
from .prior import UnclipPriorSample
from .rerank import UnclipRerank
from .similarity import UnclipEmbeddingSimilarity
from .storage import UnclipLoadEmbedding, UnclipSaveEmbedding
from .teaching import UnclipDenoisingFilm, UnclipForwardDiffusion
from .text_diff import UnclipTextDiff
from .upscale import UnclipUpscale

NODES: tuple[tuple[type, str], ...] = (
    (UnclipLoadModel, "Load unCLIP Model"),
    (UnclipTextEncode, "CLIP Text Encode (unCLIP)"),
    (UnclipImageEncode, "CLIP Image Encode (unCLIP)"),
    (UnclipPriorSample, "Prior Sample (unCLIP)"),
    (UnclipDecoderSample, "Decoder Sample (unCLIP)"),
    (UnclipUpscale, "Upscale (unCLIP)"),
    (UnclipEmbeddingInterpolate, "Embedding Interpolate (unCLIP)"),
    (UnclipImageGrid, "Image Grid (unCLIP)"),
    (UnclipRerank, "Rerank (unCLIP)"),
    (UnclipEmbeddingBlend, "Embedding Blend (unCLIP)"),
    (UnclipEmbeddingBatch, "Embedding Batch (unCLIP)"),
    (UnclipTextDiff, "Text Diff (unCLIP)"),
    (UnclipTextEncodeLines, "CLIP Text Encode Lines (unCLIP)"),
    (UnclipPcaFit, "PCA Fit (unCLIP)"),
    (UnclipPcaReconstruct, "PCA Reconstruct (unCLIP)"),
    (UnclipSavePca, "Save PCA Basis (unCLIP)"),
    (UnclipLoadPca, "Load PCA Basis (unCLIP)"),
    (UnclipSaveEmbedding, "Save Embedding (unCLIP)"),
    (UnclipLoadEmbedding, "Load Embedding (unCLIP)"),
    (UnclipToClipVision, "To CLIP Vision Output (unCLIP)"),
    (UnclipFromClipVision, "From CLIP Vision Output (unCLIP)"),
    (UnclipEmbeddingSimilarity, "Embedding Similarity (unCLIP)"),
    (UnclipDescribe, "CLIP Describe (unCLIP)"),
    (UnclipNoiseInterpolate, "Noise Interpolate (unCLIP)"),
    (UnclipDdimInversion, "DDIM Inversion (unCLIP)"),
    (UnclipInpaint, "Inpaint (unCLIP)"),
    (UnclipOutpaint, "Outpaint (unCLIP)"),
    (UnclipForwardDiffusion, "Forward Diffusion (unCLIP)"),
    (UnclipDenoisingFilm, "Denoising Film (unCLIP)"),
    (UnclipClipOptimise, "CLIP Optimise (unCLIP)"),
    (UnclipApplyLora, "Apply LoRA (unCLIP)"),
)
"""Every node and what the canvas calls it; its id is its class's name."""

NODE_CLASS_MAPPINGS = {node.__name__: node for node, _ in NODES}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: name for node, name in NODES}

host.register_model_folder()
host.announce()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
