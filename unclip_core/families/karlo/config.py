"""diffusers' `config.json` of each component, to our params and back; CLIP's are in `clip_config`.

Old files lack keys: those take the libraries' own defaults. A setting that our networks cannot follow is refused.
"""

from typing import Any

from ...diffusion.spec import DiffusionSpec
from ...nets.decoder import DecoderParams
from ...nets.prior import EXTRA_TOKENS, PriorParams
from ...nets.token_conditioner import TokenConditionerParams
from ...nets.unet_params import UNetParams
from ...weights.config_checks import Config, needs, require

_PRIOR_FIXED = {
    "additional_embeddings": EXTRA_TOKENS,
    "time_embed_act_fn": "silu",
    "norm_in_type": None,
    "added_emb_type": "prd",
    "embedding_proj_norm_type": None,
    "encoder_hid_proj_type": "linear",
    "time_embed_dim": None,
}
_UNET_FIXED = {
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "act_fn": "silu",
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "time_embedding_type": "positional",
    "num_class_embeds": None,
}
_CONDITIONED_FIXED = {
    "only_cross_attention": False,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "addition_embed_type": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "num_attention_heads": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "time_embedding_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "mid_block_only_cross_attention": None,
    "reverse_transformer_layers_per_block": None,
    "class_embeddings_concat": False,
    "attention_type": "default",
}
_ATTENTION_OF = {
    "ResnetDownsampleBlock2D": False,
    "SimpleCrossAttnDownBlock2D": True,
    "ResnetUpsampleBlock2D": False,
    "SimpleCrossAttnUpBlock2D": True,
}
_SHIFTS = {"scale_shift": "scale_shift", "default": "add"}


def prior_params(config: Config, soft_mask: bool) -> PriorParams:
    """Read a PriorTransformer's configuration. Raises ValueError for settings that our net does not have."""
    require(config, _PRIOR_FIXED)
    heads, head_dim = config.get("num_attention_heads", 32), config.get("attention_head_dim", 64)
    embed_dim = config.get("embedding_dim", 768)
    require(config, {"embedding_proj_dim": embed_dim, "clip_embed_dim": embed_dim}, or_none=True)
    return PriorParams(
        width=heads * head_dim,
        layers=config.get("num_layers", 20),
        heads=heads,
        head_dim=head_dim,
        embed_dim=embed_dim,
        text_width=embed_dim,
        text_tokens=config.get("num_embeddings", 77),
        soft_mask=soft_mask,
    )


def prior_config(params: PriorParams) -> dict[str, Any]:
    """Write the configuration that `prior_params` reads. Raises ValueError where diffusers has no such prior."""
    if params.text_width != params.embed_dim or params.mlp_ratio != 4:
        raise ValueError(
            f"diffusers has no prior with text width {params.text_width}, embedding width "
            f"{params.embed_dim} and MLP ratio {params.mlp_ratio}"
        )
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


def conditioner_params(config: Config) -> TokenConditionerParams:
    """Read a UnCLIPTextProjModel's configuration."""
    needs(config, "time_embed_dim", "cross_attention_dim")
    embed_dim = config.get("clip_embeddings_dim", 768)
    return TokenConditionerParams(
        embed_dim=embed_dim,
        text_width=embed_dim,
        time_embed_dim=config["time_embed_dim"],
        context_dim=config["cross_attention_dim"],
        extra_tokens=config.get("clip_extra_context_tokens", 4),
    )


def conditioner_config(params: TokenConditionerParams) -> dict[str, Any]:
    """Write the configuration that `conditioner_params` reads."""
    return {
        "_class_name": "UnCLIPTextProjModel",
        "clip_embeddings_dim": params.embed_dim,
        "clip_extra_context_tokens": params.extra_tokens,
        "cross_attention_dim": params.context_dim,
        "time_embed_dim": params.time_embed_dim,
    }


def decoder_params(unet: Config, text_projection: Config) -> DecoderParams:
    """Read the configurations of a UNet2DConditionModel and its UnCLIPTextProjModel.

    Raises ValueError for settings that ours cannot follow.
    """
    needs(unet, "sample_size")
    return DecoderParams(conditioner_params(text_projection), decoder_unet_params(unet), image_size=unet["sample_size"])


def decoder_unet_params(unet: Config) -> UNetParams:
    """Read a UNet2DConditionModel's configuration. Raises ValueError for settings that our UNet does not have."""
    require(unet, _CONDITIONED_FIXED)
    if unet.get("class_embed_type") != "identity":
        raise ValueError(f"'class_embed_type' is {unet.get('class_embed_type')!r}; a decoder of unCLIP has 'identity'")
    if unet.get("mid_block_type") != "UNetMidBlock2DSimpleCrossAttn":
        raise ValueError(
            f"'mid_block_type' is {unet.get('mid_block_type')!r}; supported is 'UNetMidBlock2DSimpleCrossAttn'"
        )
    return _unet_params(
        unet,
        unet.get("in_channels", 4),
        unet.get("out_channels", 4),
        mid_attention=True,
        context_dim=unet.get("cross_attention_dim", 1280),
    )


def decoder_config(params: DecoderParams) -> dict[str, Any]:
    """Write the UNet's configuration that `decoder_params` reads."""
    return {
        **_unet_config(params.unet),
        "_class_name": "UNet2DConditionModel",
        "sample_size": params.image_size,
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "cross_attention_dim": params.unet.context_dim,
        "class_embed_type": "identity",
        "only_cross_attention": False,
    }


def super_res_params(config: Config) -> UNetParams:
    """Read a UNet2DModel's configuration. Raises ValueError for settings that our UNet does not have."""
    require(
        config,
        {
            "class_embed_type": None,
            "attn_norm_num_groups": None,
            "downsample_type": "conv",
            "upsample_type": "conv",
            "dropout": 0.0,
        },
    )
    needs(config, "sample_size")
    return _unet_params(
        config,
        config.get("in_channels", 3),
        config.get("out_channels", 3),
        mid_attention=config.get("add_attention", True),
        context_dim=None,
    )


def super_res_config(params: UNetParams, image_size: int) -> dict[str, Any]:
    """Write the configuration that `super_res_params` reads."""
    return {
        **_unet_config(params),
        "_class_name": "UNet2DModel",
        "sample_size": image_size,
        "add_attention": params.mid_attention,
    }


def diffusion_spec(config: Config, compatible: bool, native_clip: float | None = None) -> DiffusionSpec:
    """Read an UnCLIPScheduler's configuration.

    compatible: with diffusers' tables and spacing; else with those of kakaobrain's code, which also clips at
    `native_clip` where diffusers clips at half of it. Raises ValueError for settings that ours cannot follow.
    """
    require(config, {"beta_schedule": "squaredcos_cap_v2"})
    limit = float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample", True) else None
    if native_clip is not None and not compatible and limit == native_clip / 2:
        limit = native_clip
    return DiffusionSpec(
        schedule="cosine",
        train_steps=config.get("num_train_timesteps", 1000),
        prediction=config.get("prediction_type", "epsilon"),
        variance=config.get("variance_type", "fixed_small_log"),
        clip_range=limit,
        spacing="karlo" if compatible else "karlo_native",
        compatible=compatible,
        solver_spacing="trailing",
    )


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


def _unet_params(
    config: Config, in_channels: int, out_channels: int, mid_attention: bool, context_dim: int | None
) -> UNetParams:
    require(config, _UNET_FIXED)
    needs(config, "block_out_channels", "down_block_types", "up_block_types")
    channels, down, up = (tuple(config[k]) for k in ("block_out_channels", "down_block_types", "up_block_types"))
    unknown = [name for name in (*down, *up) if name not in _ATTENTION_OF]
    if unknown:
        raise ValueError(f"blocks of type {unknown[0]!r} are not supported; known are {sorted(_ATTENTION_OF)}")
    attention = tuple(_ATTENTION_OF[name] for name in down)
    if tuple(_ATTENTION_OF[name] for name in reversed(up)) != attention:
        raise ValueError(f"the way up {list(up)} does not mirror the way down {list(down)}")
    shift = config.get("resnet_time_scale_shift", "default")
    if shift not in _SHIFTS:
        raise ValueError(f"'resnet_time_scale_shift' is {shift!r}; supported are {sorted(_SHIFTS)}")
    return UNetParams(
        in_channels=in_channels,
        out_channels=out_channels,
        channels=channels,
        blocks=_per_level(config.get("layers_per_block", 2), len(channels)),
        attention=attention,
        map_channels=(0,) * len(channels),
        time_channels=channels[0],
        time_embed_dim=4 * channels[0],
        mid_attention=mid_attention,
        context_dim=context_dim,
        head_dim=_one(config.get("attention_head_dim", 8)),
        groups=config.get("norm_num_groups", 32),
        eps=config.get("norm_eps", 1e-5),
        time_shift=_SHIFTS[shift],
    )


def _unet_config(params: UNetParams) -> dict[str, Any]:
    names = {on: name for name, on in _ATTENTION_OF.items() if "Down" in name}
    ups = {on: name for name, on in _ATTENTION_OF.items() if "Up" in name}
    blocks = set(params.blocks)
    return {
        "in_channels": params.in_channels,
        "out_channels": params.out_channels,
        "block_out_channels": list(params.channels),
        "layers_per_block": params.blocks[0] if len(blocks) == 1 else list(params.blocks),
        "down_block_types": [names[on] for on in params.attention],
        "up_block_types": [ups[on] for on in reversed(params.attention)],
        "attention_head_dim": params.head_dim,
        "norm_num_groups": params.groups,
        "norm_eps": params.eps,
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "resnet_time_scale_shift": {ours: name for name, ours in _SHIFTS.items()}[params.time_shift],
    }


def _per_level(value: int | list[int], levels: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,) * levels


def _one(value: int | list[int]) -> int:
    """Return the number that all levels share. Raises ValueError where they differ."""
    values = set(value) if isinstance(value, list | tuple) else {value}
    if len(values) != 1:
        raise ValueError(f"'attention_head_dim' differs from level to level ({value}), which is not supported")
    return values.pop()
