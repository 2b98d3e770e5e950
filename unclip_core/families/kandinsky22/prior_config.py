"""The configurations of a prior's folder as diffusers and transformers write them, to our params.

Old files lack keys: those take the libraries' own defaults. A setting that our networks cannot follow is refused by
name.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from ...diffusion.spec import DiffusionSpec
from ...nets.clip_towers import TextTowerParams, VisionTowerParams
from ...nets.prior import PriorParams
from ...parsing import checked
from ...weights.config_checks import require
from ..karlo import clip_config
from ..karlo import config as configs

MAX_NUMBER = 2**20
"""Above any width, vocabulary or image of a CLIP; a greater number is a damaged file."""
MAX_LAYERS = 1024

T = TypeVar("T")


@dataclass(frozen=True)
class PriorConfig:
    """A PriorTransformer's configuration."""

    num_attention_heads: int = 32
    attention_head_dim: int = 64
    num_layers: int = 20
    embedding_dim: int = 768
    num_embeddings: int = 77
    additional_embeddings: int = 4
    time_embed_act_fn: str = "silu"
    norm_in_type: str | None = None
    embedding_proj_norm_type: str | None = None
    encoder_hid_proj_type: str | None = "linear"
    added_emb_type: str | None = "prd"
    time_embed_dim: int | None = None
    embedding_proj_dim: int | None = None
    clip_embed_dim: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a number that no net has."""
        check_numbers(vars(self))

    def params(self, soft_mask: bool) -> PriorParams:
        """Our params of a prior by diffusion. Raises ValueError for settings that our net does not have."""
        return configs.prior_params(vars(self), soft_mask)


@dataclass(frozen=True)
class TextTowerConfig:
    """A CLIPTextModelWithProjection's configuration."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Raise ValueError for a number that no net has."""
        check_numbers(vars(self))


@dataclass(frozen=True)
class VisionTowerConfig:
    """A CLIPVisionModelWithProjection's configuration."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Raise ValueError for a number that no net has."""
        check_numbers(vars(self))


@dataclass(frozen=True)
class SchedulerConfig:
    """The configuration of a prior's UnCLIPScheduler."""

    _class_name: str = "UnCLIPScheduler"
    num_train_timesteps: int = 1000
    variance_type: str = "fixed_small_log"
    clip_sample: bool = True
    clip_sample_range: float | None = 1.0
    prediction_type: str = "epsilon"
    beta_schedule: str = "squaredcos_cap_v2"

    def diffusion(self, compatible: bool) -> DiffusionSpec:
        """The process, with diffusers' float32 tables or with exact ones.

        Raises:
            ValueError: it is another scheduler, or has settings that ours does not follow.
        """
        require(vars(self), {"_class_name": "UnCLIPScheduler", "beta_schedule": "squaredcos_cap_v2"})
        require(vars(self), {"variance_type": "fixed_small_log", "prediction_type": "sample"})
        if not 2 <= self.num_train_timesteps <= MAX_NUMBER:
            raise ValueError(f"'num_train_timesteps' is {self.num_train_timesteps}; it must be 2 to {MAX_NUMBER}")
        limit = self.clip_sample_range if self.clip_sample else None
        if limit is not None and not limit > 0:
            raise ValueError(f"'clip_sample_range' is {limit}; it must be above 0")
        return DiffusionSpec(
            schedule="cosine",
            train_steps=self.num_train_timesteps,
            prediction="sample",
            variance="fixed_small_log",
            clip_range=limit,
            spacing="karlo",
            compatible=compatible,
            solver_spacing="trailing",
        )


def text_tower_params(config: Mapping[str, Any]) -> TextTowerParams:
    """Read the configuration of a text encoder. Raises ValueError where it is none of ours."""
    return clip_config.text_tower_params(asdict(_of_tower(config, "text_config", TextTowerConfig)))


def vision_tower_params(config: Mapping[str, Any]) -> VisionTowerParams:
    """Read the configuration of an image encoder. Raises ValueError where it is none of ours."""
    return clip_config.vision_tower_params(asdict(_of_tower(config, "vision_config", VisionTowerConfig)))


def check_numbers(config: Mapping[str, Any]) -> None:
    """Raise ValueError for a whole number that is not positive, or greater than any net's."""
    for key, value in config.items():
        limit = MAX_LAYERS if key.endswith("layers") else MAX_NUMBER
        if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= limit:
            raise ValueError(f"'{key}' is {value}; it must be from 1 to {limit}")


def _of_tower(config: Mapping[str, Any], name: str, as_type: type[T]) -> T:
    """A tower's own configuration, or that part of a whole CLIP's which describes it, as transformers takes it."""
    own = config.get(name) if config.get("model_type") == "clip" else config
    return checked(as_type, own, f"'{name}'" if own is not config else "it")
