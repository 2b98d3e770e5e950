"""The nodes: each resolves its inputs, calls the core, wraps the result. Ids and input order never change."""

from . import host
from .clip import UnclipImageEncode, UnclipTextEncode, UnclipTextEncodeLines
from .clip_vision import UnclipFromClipVision, UnclipToClipVision
from .decoder import UnclipDecoderSample
from .depth import UnclipDepthHint
from .describe import UnclipDescribe
from .embeddings import UnclipEmbeddingBatch, UnclipEmbeddingBlend, UnclipEmbeddingInterpolate
from .images import UnclipImageGrid
from .inpaint import UnclipInpaint, UnclipOutpaint
from .inversion import UnclipDdimInversion
from .loaders import UnclipLoadModel
from .lora import UnclipApplyLora
from .noise import UnclipNoiseInterpolate
from .optimise import UnclipClipOptimise
from .pad import UnclipEmbeddingPad
from .pca import UnclipLoadPca, UnclipPcaFit, UnclipPcaReconstruct, UnclipSavePca
from .pick import UnclipPick
from .prior import UnclipPriorSample
from .rerank import UnclipRerank
from .similarity import UnclipEmbeddingSimilarity
from .stock import UnclipStockClip, UnclipStockImageEncode, UnclipStockTextEncode
from .storage import UnclipLoadEmbedding, UnclipSaveEmbedding
from .teaching import UnclipDenoisingFilm, UnclipForwardDiffusion
from .text_diff import UnclipTextDiff
from .upscale import UnclipUpscale

NODES: tuple[type, ...] = (
    UnclipLoadModel,
    UnclipTextEncode,
    UnclipImageEncode,
    UnclipPriorSample,
    UnclipDecoderSample,
    UnclipUpscale,
    UnclipEmbeddingInterpolate,
    UnclipEmbeddingBlend,
    UnclipEmbeddingPad,
    UnclipTextDiff,
    UnclipDescribe,
    UnclipInpaint,
    UnclipOutpaint,
    UnclipDepthHint,
    UnclipImageGrid,
    UnclipRerank,
    UnclipPick,
    UnclipEmbeddingBatch,
    UnclipTextEncodeLines,
    UnclipEmbeddingSimilarity,
    UnclipSaveEmbedding,
    UnclipLoadEmbedding,
    UnclipToClipVision,
    UnclipFromClipVision,
    UnclipStockTextEncode,
    UnclipStockImageEncode,
    UnclipStockClip,
    UnclipPcaFit,
    UnclipPcaReconstruct,
    UnclipSavePca,
    UnclipLoadPca,
    UnclipNoiseInterpolate,
    UnclipDdimInversion,
    UnclipForwardDiffusion,
    UnclipDenoisingFilm,
    UnclipClipOptimise,
    UnclipApplyLora,
)
"""Every node, in the order in which searches list them, the usual first.

Each states its id, which never changes, and its name on the canvas.
"""

NODE_CLASS_MAPPINGS = {node.ID: node for node in NODES}
NODE_DISPLAY_NAME_MAPPINGS = {node.ID: node.DISPLAY_NAME for node in NODES}

host.register_model_folder()
host.announce()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
