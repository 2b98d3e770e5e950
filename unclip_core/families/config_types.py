"""The settings of diffusers' and transformers' `config.json` that are read here: types, and those libraries' defaults.

Bounds are those of the params that are made of them. Other settings are either required to be one value (where params
are made of them: `prior_config`, `clip_config`, a family's own) or of no effect.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

from ..clip.image_input import OPENAI_MEAN, OPENAI_STD
from ..parsing import checked
from ..weights.config_checks import Config

T = TypeVar("T")
Channels = tuple[float, float, float]


def typed(kind: type[T], config: Config) -> T:
    """Read the settings of `kind` out of a configuration, no others. Raises ValueError for one of another type."""
    return checked(kind, dict(config), f"the {kind.__name__}")


@dataclass(frozen=True)
class PriorTransformer:
    """Of diffusers' PriorTransformer."""

    num_attention_heads: int = 32
    attention_head_dim: int = 64
    num_layers: int = 20
    embedding_dim: int = 768
    num_embeddings: int = 77


@dataclass(frozen=True)
class UnCLIPTextProjModel:
    """Of diffusers' UnCLIPTextProjModel."""

    time_embed_dim: int
    cross_attention_dim: int
    clip_embeddings_dim: int = 768
    clip_extra_context_tokens: int = 4


@dataclass(frozen=True)
class Unet:
    """What UNet2DConditionModel and UNet2DModel share."""

    block_out_channels: tuple[int, ...]
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    sample_size: int
    layers_per_block: int | tuple[int, ...] = 2
    attention_head_dim: int | tuple[int, ...] = 8
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"


@dataclass(frozen=True)
class UNet2DConditionModel(Unet):
    """Of diffusers' UNet2DConditionModel."""

    in_channels: int = 4
    out_channels: int = 4
    cross_attention_dim: int = 1280


@dataclass(frozen=True)
class UNet2DModel(Unet):
    """Of diffusers' UNet2DModel."""

    in_channels: int = 3
    out_channels: int = 3
    add_attention: bool = True


@dataclass(frozen=True)
class UnCLIPScheduler:
    """Of diffusers' UnCLIPScheduler."""

    num_train_timesteps: int = 1000
    prediction_type: str = "epsilon"
    variance_type: str = "fixed_small_log"
    clip_sample: bool = True
    clip_sample_range: float | None = 1.0


@dataclass(frozen=True)
class Tower:
    """What transformers' configurations of both towers share."""

    projection_dim: int = 512
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    num_hidden_layers: int = 12


@dataclass(frozen=True)
class CLIPTextConfig(Tower):
    """Of transformers' CLIPTextModelWithProjection."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77


@dataclass(frozen=True)
class CLIPVisionConfig(Tower):
    """Of transformers' CLIPVisionModelWithProjection."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3


@dataclass(frozen=True)
class CLIPImageProcessor:
    """Of transformers' CLIPImageProcessor."""

    size: int | dict[str, Any] = 224
    crop_size: int | dict[str, Any] = 224
    resample: int = 3
    image_mean: Channels = OPENAI_MEAN
    image_std: Channels = OPENAI_STD
