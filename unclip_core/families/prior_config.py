"""diffusers' configurations of a PriorTransformer and of an UnCLIPScheduler, to ours and back.

Old files lack keys: those take the library's own defaults. A setting that our networks cannot follow is refused.
"""

from typing import Any

from ..diffusion.spec import DiffusionSpec
from ..nets.prior import EXTRA_TOKENS, PriorParams
from ..weights.config_checks import Config, require
from . import config_types as types
from .config_types import typed

_PRIOR_FIXED = {
    "additional_embeddings": EXTRA_TOKENS,
    "time_embed_act_fn": "silu",
    "norm_in_type": None,
    "added_emb_type": "prd",
    "embedding_proj_norm_type": None,
    "encoder_hid_proj_type": "linear",
    "time_embed_dim": None,
}


def prior_params(config: Config, soft_mask: bool) -> PriorParams:
    """Read a PriorTransformer's configuration. Raises ValueError for settings that our net does not have."""
    require(config, _PRIOR_FIXED)
    told = typed(types.PriorTransformer, config)
    require(config, dict.fromkeys(("embedding_proj_dim", "clip_embed_dim"), told.embedding_dim), or_none=True)
    return PriorParams(
        width=told.num_attention_heads * told.attention_head_dim,
        layers=told.num_layers,
        heads=told.num_attention_heads,
        head_dim=told.attention_head_dim,
        embed_dim=told.embedding_dim,
        text_width=told.embedding_dim,
        text_tokens=told.num_embeddings,
        soft_mask=soft_mask,
    )


def prior_config(params: PriorParams) -> dict[str, Any]:
    """Write the configuration that `prior_params` reads."""
    return {
        "_class_name": "PriorTransformer",
        "num_attention_heads": params.heads,
        "attention_head_dim": params.head_dim,
        "num_layers": params.layers,
        "embedding_dim": params.embed_dim,
        "num_embeddings": params.text_tokens,
        "additional_embeddings": EXTRA_TOKENS,
        "dropout": 0.0,
    }


def diffusion_spec(
    config: Config, compatible: bool, native_clip: float | None = None, native_spacing: str = "karlo_native"
) -> DiffusionSpec:
    """Read an UnCLIPScheduler's configuration.

    Args:
        config: as diffusers writes it.
        compatible: with diffusers' float32 tables and spacing; else with exact tables and `native_spacing`.
        native_clip: the range of x0 in kakaobrain's code, where diffusers clips at half of it.
        native_spacing: the spacing of timesteps in the authors' own code.

    Raises:
        ValueError: it is another scheduler, or has settings that ours does not follow.
    """
    require(config, {"_class_name": "UnCLIPScheduler", "beta_schedule": "squaredcos_cap_v2"})
    told = typed(types.UnCLIPScheduler, config)
    limit = told.clip_sample_range if told.clip_sample else None
    if native_clip is not None and not compatible and limit == native_clip / 2:
        limit = native_clip
    read = {
        "schedule": "cosine",
        "train_steps": told.num_train_timesteps,
        "prediction": told.prediction_type,
        "variance": told.variance_type,
        "clip_range": limit,
        "spacing": "karlo" if compatible else native_spacing,
        "compatible": compatible,
        "solver_spacing": "trailing",
    }
    return DiffusionSpec.from_dict(read)


def scheduler_config(spec: DiffusionSpec) -> dict[str, Any]:
    """Write the configuration that `diffusion_spec` reads."""
    return {
        "_class_name": "UnCLIPScheduler",
        "num_train_timesteps": spec.train_steps,
        "variance_type": spec.variance,
        "clip_sample": spec.clip_range is not None,
        "clip_sample_range": spec.clip_range or 1.0,
        "prediction_type": spec.prediction,
        "beta_schedule": "squaredcos_cap_v2",
    }
