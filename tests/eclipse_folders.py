"""Folders with a small random prior of ECLIPSE, as published."""

import json

import torch
from safetensors.torch import save_file

LAYERS, HEADS, HEAD, TOKENS = 2, 3, 8, 77


def random_prior(folder, width=16, statistics=True, **changes):
    """A folder as published, with diffusers' names; every tensor random. Returns the folder."""
    generator = torch.Generator().manual_seed(width)
    inner = HEADS * HEAD
    shapes = {"positional_embedding": (1, TOKENS + 3, inner), "prd_embedding": (1, 1, inner)}
    for name, (out, into) in {
        "proj_in": (inner, width),
        "embedding_proj": (inner, width),
        "encoder_hidden_states_proj": (inner, width),
        "proj_to_clip_embeddings": (width, inner),
    }.items():
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    for block in (f"transformer_blocks.{i}" for i in range(LAYERS)):
        for name in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"):
            shapes |= {f"{block}.{name}.weight": (inner, inner), f"{block}.{name}.bias": (inner,)}
        shapes |= {f"{block}.ff.net.0.proj.weight": (4 * inner, inner), f"{block}.ff.net.0.proj.bias": (4 * inner,)}
        shapes |= {f"{block}.ff.net.2.weight": (inner, 4 * inner), f"{block}.ff.net.2.bias": (inner,)}
    norms = [f"transformer_blocks.{i}.{name}" for i in range(LAYERS) for name in ("norm1", "norm3")]
    for name in (*norms, "norm_out"):
        shapes |= {f"{name}.weight": (inner,), f"{name}.bias": (inner,)}
    state = {key: torch.randn(shape, generator=generator) * 0.2 for key, shape in shapes.items()}
    for name in (*norms, "norm_out"):
        state[f"{name}.weight"] += 1
    if statistics:
        state |= {"clip_mean": torch.zeros(1, width), "clip_std": torch.zeros(1, width)}
    config = {
        "_class_name": "PriorTransformer", "num_attention_heads": HEADS, "attention_head_dim": HEAD,
        "num_layers": LAYERS, "embedding_dim": width, "num_embeddings": TOKENS, "additional_embeddings": 3,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config | changes))
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    return folder
