"""diffusers' `config.json` of Karlo's nets of images, to our params and back.

Old files lack keys: those take the libraries' own defaults. A setting that our networks cannot follow is refused.
"""

from typing import Any

from ...nets.decoder import DecoderParams
from ...nets.token_conditioner import TokenConditionerParams
from ...nets.unet_params import UNetParams
from ...weights.config_checks import Config, needs, require
from .. import config_types as types
from ..config_types import typed

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


def conditioner_params(config: Config) -> TokenConditionerParams:
    """Read a UnCLIPTextProjModel's configuration."""
    needs(config, "time_embed_dim", "cross_attention_dim")
    told = typed(types.UnCLIPTextProjModel, config)
    return TokenConditionerParams(
        embed_dim=told.clip_embeddings_dim,
        text_width=told.clip_embeddings_dim,
        time_embed_dim=told.time_embed_dim,
        context_dim=told.cross_attention_dim,
        extra_tokens=told.clip_extra_context_tokens,
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
    size = typed(types.UNet2DConditionModel, unet).sample_size
    return DecoderParams(conditioner_params(text_projection), decoder_unet_params(unet), image_size=size)


def decoder_unet_params(unet: Config) -> UNetParams:
    """Read a UNet2DConditionModel's configuration. Raises ValueError for settings that our UNet does not have."""
    require(unet, _CONDITIONED_FIXED)
    if unet.get("class_embed_type") != "identity":
        raise ValueError(f"'class_embed_type' is {unet.get('class_embed_type')!r}; a decoder of unCLIP has 'identity'")
    if unet.get("mid_block_type") != "UNetMidBlock2DSimpleCrossAttn":
        raise ValueError(
            f"'mid_block_type' is {unet.get('mid_block_type')!r}; supported is 'UNetMidBlock2DSimpleCrossAttn'"
        )
    _check_unet(unet)
    told = typed(types.UNet2DConditionModel, unet)
    return _unet_params(
        told,
        in_channels=told.in_channels,
        out_channels=told.out_channels,
        mid_attention=True,
        context_dim=told.cross_attention_dim,
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
    _check_unet(config)
    told = typed(types.UNet2DModel, config)
    return _unet_params(
        told, in_channels=told.in_channels, out_channels=told.out_channels, mid_attention=told.add_attention
    )


def super_res_size(config: Config) -> int:
    """Read the side of a super-resolution's images, px."""
    return typed(types.UNet2DModel, config).sample_size


def super_res_config(params: UNetParams, image_size: int) -> dict[str, Any]:
    """Write the configuration that `super_res_params` reads."""
    return {
        **_unet_config(params),
        "_class_name": "UNet2DModel",
        "sample_size": image_size,
        "add_attention": params.mid_attention,
    }


def _check_unet(config: Config) -> None:
    require(config, _UNET_FIXED)
    needs(config, "block_out_channels", "down_block_types", "up_block_types", "sample_size")


def _unet_params(told: types.Unet, **others: Any) -> UNetParams:
    channels, down, up = told.block_out_channels, told.down_block_types, told.up_block_types
    unknown = [name for name in (*down, *up) if name not in _ATTENTION_OF]
    if unknown:
        raise ValueError(f"blocks of type {unknown[0]!r} are not supported; known are {sorted(_ATTENTION_OF)}")
    attention = tuple(_ATTENTION_OF[name] for name in down)
    if tuple(_ATTENTION_OF[name] for name in reversed(up)) != attention:
        raise ValueError(f"the way up {list(up)} does not mirror the way down {list(down)}")
    if told.resnet_time_scale_shift not in _SHIFTS:
        raise ValueError(
            f"'resnet_time_scale_shift' is {told.resnet_time_scale_shift!r}; supported are {sorted(_SHIFTS)}"
        )
    if not channels:
        raise ValueError("'block_out_channels' is empty")
    return UNetParams(
        channels=channels,
        blocks=_per_level(told.layers_per_block, len(channels)),
        attention=attention,
        map_channels=(0,) * len(channels),
        time_channels=channels[0],
        time_embed_dim=4 * channels[0],
        head_dim=_one(told.attention_head_dim),
        groups=told.norm_num_groups,
        eps=told.norm_eps,
        time_shift=_SHIFTS[told.resnet_time_scale_shift],
        **others,
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


def _per_level(value: int | tuple[int, ...], levels: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * levels


def _one(value: int | tuple[int, ...]) -> int:
    """Return the number that all levels share. Raises ValueError where they differ."""
    values = set(value) if isinstance(value, tuple) else {value}
    if len(values) != 1:
        raise ValueError(f"'attention_head_dim' differs from level to level ({value}), which is not supported")
    return values.pop()
