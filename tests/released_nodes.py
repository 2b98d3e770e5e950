"""What is released of every node: neither an id, nor an input's or output's name, type or place may ever change.

Inputs and outputs are only appended. A new node adds its entry here.
"""

from typing import NamedTuple


class Released(NamedTuple):
    """A node on the canvas: its name, and the types of its inputs and outputs by their names, in their order."""

    name: str
    required: dict[str, str]
    optional: dict[str, str]
    outputs: dict[str, str]


NODES = {
    "UnclipLoadModel": Released(
        "Load unCLIP Model",
        {"model": "COMBO", "dtype": "COMBO"},
        {"prior": "COMBO"},
        {"clip": "UNCLIP_CLIP", "prior": "UNCLIP_PRIOR", "decoder": "UNCLIP_DECODER", "upscaler": "UNCLIP_UPSCALER"},
    ),
    "UnclipTextEncode": Released(
        "CLIP Text Encode (unCLIP)",
        {"clip": "UNCLIP_CLIP", "text": "STRING"},
        {},
        {"text": "UNCLIP_TEXT"},
    ),
    "UnclipImageEncode": Released(
        "CLIP Image Encode (unCLIP)",
        {"clip": "UNCLIP_CLIP", "image": "IMAGE"},
        {},
        {"embedding": "UNCLIP_EMBEDDING"},
    ),
    "UnclipPriorSample": Released(
        "Prior Sample (unCLIP)",
        {
            "prior": "UNCLIP_PRIOR",
            "text": "UNCLIP_TEXT",
            "seed": "INT",
            "steps": "INT",
            "guidance_scale": "FLOAT",
            "sampler": "COMBO",
            "candidates": "INT",
            "keep": "INT",
        },
        {
            "decoder": "UNCLIP_DECODER",
            "guidance_start": "FLOAT",
            "guidance_end": "FLOAT",
            "negative": "UNCLIP_TEXT",
            "embedding": "UNCLIP_EMBEDDING",
            "strength": "FLOAT",
            "one_pass_noise": "COMBO",
        },
        {"embedding": "UNCLIP_EMBEDDING", "scores": "STRING"},
    ),
    "UnclipDecoderSample": Released(
        "Decoder Sample (unCLIP)",
        {
            "decoder": "UNCLIP_DECODER",
            "embedding": "UNCLIP_EMBEDDING",
            "seed": "INT",
            "steps": "INT",
            "guidance_scale": "FLOAT",
            "sampler": "COMBO",
            "eta": "FLOAT",
            "batch_size": "INT",
        },
        {
            "text": "UNCLIP_TEXT",
            "noise": "UNCLIP_NOISE",
            "clip": "UNCLIP_CLIP",
            "clip_text": "UNCLIP_TEXT",
            "clip_strength": "FLOAT",
            "embedding_noise": "COMBO",
            "guidance_start": "FLOAT",
            "guidance_end": "FLOAT",
            "width": "INT",
            "height": "INT",
            "image": "IMAGE",
            "strength": "FLOAT",
            "hint": "IMAGE",
            "negative": "UNCLIP_EMBEDDING",
        },
        {"image": "IMAGE"},
    ),
    "UnclipUpscale": Released(
        "Upscale (unCLIP)",
        {"upscaler": "UNCLIP_UPSCALER", "image": "IMAGE", "seed": "INT", "steps": "INT"},
        {"known": "IMAGE", "mask": "MASK"},
        {"image": "IMAGE"},
    ),
    "UnclipEmbeddingInterpolate": Released(
        "Embedding Interpolate (unCLIP)",
        {
            "embedding_a": "UNCLIP_EMBEDDING",
            "embedding_b": "UNCLIP_EMBEDDING",
            "t": "FLOAT",
            "frames": "INT",
            "t_end": "FLOAT",
            "method": "COMBO",
        },
        {},
        {"embedding": "UNCLIP_EMBEDDING"},
    ),
    "UnclipImageGrid": Released(
        "Image Grid (unCLIP)",
        {"images": "IMAGE", "columns": "INT"},
        {"images_2": "IMAGE", "images_3": "IMAGE", "images_4": "IMAGE"},
        {"image": "IMAGE"},
    ),
    "UnclipDepthHint": Released(
        "Depth Hint (unCLIP)",
        {"image": "IMAGE", "invert": "BOOLEAN", "stretch": "BOOLEAN"},
        {},
        {"hint": "IMAGE"},
    ),
    "UnclipRerank": Released(
        "Rerank (unCLIP)",
        {"clip": "UNCLIP_CLIP", "text": "UNCLIP_TEXT", "image": "IMAGE", "keep": "INT"},
        {},
        {"image": "IMAGE", "scores": "STRING"},
    ),
    "UnclipEmbeddingBlend": Released(
        "Embedding Blend (unCLIP)",
        {f"weight_{i}": "FLOAT" for i in range(1, 9)},
        {f"embedding_{i}": "UNCLIP_EMBEDDING" for i in range(1, 9)},
        {"embedding": "UNCLIP_EMBEDDING"},
    ),
    "UnclipEmbeddingBatch": Released(
        "Embedding Batch (unCLIP)",
        {},
        {f"embedding_{i}": "UNCLIP_EMBEDDING" for i in range(1, 9)},
        {"embedding": "UNCLIP_EMBEDDING"},
    ),
    "UnclipTextDiff": Released(
        "Text Diff (unCLIP)",
        {
            "embedding": "UNCLIP_EMBEDDING",
            "text_before": "UNCLIP_TEXT",
            "text_after": "UNCLIP_TEXT",
            "theta": "FLOAT",
            "frames": "INT",
        },
        {},
        {"embedding": "UNCLIP_EMBEDDING"},
    ),
    "UnclipTextEncodeLines": Released(
        "CLIP Text Encode Lines (unCLIP)",
        {"clip": "UNCLIP_CLIP", "lines": "STRING"},
        {},
        {"text": "UNCLIP_TEXT"},
    ),
    "UnclipPcaFit": Released(
        "PCA Fit (unCLIP)",
        {"embedding": "UNCLIP_EMBEDDING", "dimensions": "INT"},
        {},
        {"basis": "UNCLIP_BASIS"},
    ),
    "UnclipPcaReconstruct": Released(
        "PCA Reconstruct (unCLIP)",
        {"basis": "UNCLIP_BASIS", "embedding": "UNCLIP_EMBEDDING", "dimensions": "STRING"},
        {},
        {"embedding": "UNCLIP_EMBEDDING"},
    ),
    "UnclipSavePca": Released(
        "Save PCA Basis (unCLIP)",
        {"basis": "UNCLIP_BASIS", "filename_prefix": "STRING"},
        {},
        {"file": "STRING"},
    ),
    "UnclipLoadPca": Released(
        "Load PCA Basis (unCLIP)",
        {"file": "COMBO"},
        {"saved": "STRING"},
        {"basis": "UNCLIP_BASIS"},
    ),
    "UnclipSaveEmbedding": Released(
        "Save Embedding (unCLIP)",
        {"embedding": "UNCLIP_EMBEDDING", "filename_prefix": "STRING"},
        {},
        {"file": "STRING"},
    ),
    "UnclipLoadEmbedding": Released(
        "Load Embedding (unCLIP)",
        {"file": "COMBO"},
        {"saved": "STRING"},
        {"embedding": "UNCLIP_EMBEDDING", "info": "STRING"},
    ),
    "UnclipToClipVision": Released(
        "To CLIP Vision Output (unCLIP)",
        {"embedding": "UNCLIP_EMBEDDING"},
        {},
        {"clip_vision_output": "CLIP_VISION_OUTPUT"},
    ),
    "UnclipFromClipVision": Released(
        "From CLIP Vision Output (unCLIP)",
        {"clip": "UNCLIP_CLIP", "clip_vision_output": "CLIP_VISION_OUTPUT"},
        {},
        {"embedding": "UNCLIP_EMBEDDING"},
    ),
    "UnclipEmbeddingSimilarity": Released(
        "Embedding Similarity (unCLIP)",
        {"a": "UNCLIP_EMBEDDING,UNCLIP_TEXT"},
        {"b": "UNCLIP_EMBEDDING,UNCLIP_TEXT"},
        {"image": "IMAGE", "matrix": "STRING"},
    ),
    "UnclipDescribe": Released(
        "CLIP Describe (unCLIP)",
        {
            "clip": "UNCLIP_CLIP",
            "embedding": "UNCLIP_EMBEDDING",
            "phrases": "COMBO",
            "top_k": "INT",
            "custom": "STRING",
        },
        {},
        {"caption": "STRING", "scores": "STRING"},
    ),
    "UnclipNoiseInterpolate": Released(
        "Noise Interpolate (unCLIP)",
        {"noise_a": "UNCLIP_NOISE", "noise_b": "UNCLIP_NOISE", "t": "FLOAT", "frames": "INT", "t_end": "FLOAT"},
        {},
        {"noise": "UNCLIP_NOISE"},
    ),
    "UnclipDdimInversion": Released(
        "DDIM Inversion (unCLIP)",
        {
            "decoder": "UNCLIP_DECODER",
            "embedding": "UNCLIP_EMBEDDING",
            "image": "IMAGE",
            "steps": "INT",
            "guidance_scale": "FLOAT",
            "iterations": "INT",
        },
        {"text": "UNCLIP_TEXT"},
        {"noise": "UNCLIP_NOISE", "image": "IMAGE"},
    ),
    "UnclipInpaint": Released(
        "Inpaint (unCLIP)",
        {
            "decoder": "UNCLIP_DECODER",
            "embedding": "UNCLIP_EMBEDDING",
            "image": "IMAGE",
            "mask": "MASK",
            "seed": "INT",
            "steps": "INT",
            "guidance_scale": "FLOAT",
            "resamples": "INT",
        },
        {"text": "UNCLIP_TEXT"},
        {"image": "IMAGE", "small": "IMAGE"},
    ),
    "UnclipOutpaint": Released(
        "Outpaint (unCLIP)",
        {
            "decoder": "UNCLIP_DECODER",
            "embedding": "UNCLIP_EMBEDDING",
            "image": "IMAGE",
            "left": "INT",
            "top": "INT",
            "right": "INT",
            "bottom": "INT",
            "seed": "INT",
            "steps": "INT",
            "guidance_scale": "FLOAT",
            "resamples": "INT",
        },
        {"text": "UNCLIP_TEXT"},
        {"image": "IMAGE", "known": "IMAGE", "mask": "MASK", "small": "IMAGE"},
    ),
    "UnclipForwardDiffusion": Released(
        "Forward Diffusion (unCLIP)",
        {"decoder": "UNCLIP_DECODER", "image": "IMAGE", "seed": "INT", "timesteps": "STRING"},
        {},
        {"strip": "IMAGE", "frames": "IMAGE", "snr_plot": "IMAGE"},
    ),
    "UnclipDenoisingFilm": Released(
        "Denoising Film (unCLIP)",
        {
            "decoder": "UNCLIP_DECODER",
            "embedding": "UNCLIP_EMBEDDING",
            "seed": "INT",
            "steps": "INT",
            "guidance_scale": "FLOAT",
            "sampler": "COMBO",
            "eta": "FLOAT",
            "every": "INT",
        },
        {"text": "UNCLIP_TEXT"},
        {"strip": "IMAGE", "states": "IMAGE", "guesses": "IMAGE", "image": "IMAGE"},
    ),
    "UnclipClipOptimise": Released(
        "CLIP Optimise (unCLIP)",
        {
            "clip": "UNCLIP_CLIP",
            "text": "UNCLIP_TEXT",
            "seed": "INT",
            "steps": "INT",
            "width": "INT",
            "height": "INT",
            "learning_rate": "FLOAT",
            "cutouts": "INT",
            "smoothness": "FLOAT",
        },
        {"image": "IMAGE"},
        {"image": "IMAGE"},
    ),
    "UnclipApplyLora": Released(
        "Apply LoRA (unCLIP)",
        {"lora_name": "COMBO", "strength_prior": "FLOAT", "strength_decoder": "FLOAT"},
        {"prior": "UNCLIP_PRIOR", "decoder": "UNCLIP_DECODER"},
        {"prior": "UNCLIP_PRIOR", "decoder": "UNCLIP_DECODER"},
    ),
}
