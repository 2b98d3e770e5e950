"""transformers' configurations of CLIP's towers and of what prepares their images, to ours and back.

Old files lack keys: those take the library's own defaults. A setting that our networks cannot follow is refused.
"""

import math
from collections.abc import Mapping
from typing import Any

from ..clip.image_input import ImageInput
from ..nets.clip_towers import TextTowerParams, VisionTowerParams
from ..nets.params import require_positive
from ..weights.config_checks import Config, require
from . import config_types as types
from .config_types import typed

_FILTERS = 6


def text_tower_params(config: Config) -> TextTowerParams:
    """Read the configuration of a CLIPTextModelWithProjection. Raises ValueError where our net cannot follow it."""
    told = typed(types.CLIPTextConfig, _own(config, "text_config"))
    return TextTowerParams(**_tower(told), vocabulary=told.vocab_size, context=told.max_position_embeddings)


def text_tower_config(params: TextTowerParams) -> dict[str, Any]:
    """Write the configuration that `text_tower_params` reads."""
    return {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        **_tower_config(params),
        "vocab_size": params.vocabulary,
        "max_position_embeddings": params.context,
        "bos_token_id": params.vocabulary - 2,
        "eos_token_id": params.vocabulary - 1,
        "pad_token_id": 0,
    }


def vision_tower_params(config: Config) -> VisionTowerParams:
    """Read the configuration of a CLIPVisionModelWithProjection. Raises ValueError where our net cannot follow it."""
    told = typed(types.CLIPVisionConfig, _own(config, "vision_config"))
    return VisionTowerParams(
        **_tower(told), image_size=told.image_size, patch_size=told.patch_size, channels=told.num_channels
    )


def vision_tower_config(params: VisionTowerParams) -> dict[str, Any]:
    """Write the configuration that `vision_tower_params` reads."""
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        **_tower_config(params),
        "image_size": params.image_size,
        "patch_size": params.patch_size,
        "num_channels": params.channels,
    }


def image_input(config: Config, image_size: int, squash: bool) -> ImageInput:
    """Read the configuration of a CLIPImageProcessor, for a tower of `image_size` px.

    squash: resize both edges, as kakaobrain's own code does, in place of a resized shorter edge and a crop.
    Raises ValueError for settings that ours cannot follow.
    """
    require(config, {"do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True})
    told = typed(types.CLIPImageProcessor, config)
    edge, crop = _edge(told.size, "size"), _edge(told.crop_size, "crop_size")
    if crop != image_size or edge < crop:
        raise ValueError(f"images are resized to {edge} px and cropped to {crop}, but the tower sees {image_size}")
    if not 0 <= told.resample < _FILTERS:
        raise ValueError(f"'resample' is {told.resample}; PIL's filters are 0 to {_FILTERS - 1}")
    if not all(0 < value < math.inf for value in told.image_std) or not all(map(math.isfinite, told.image_mean)):
        raise ValueError(f"'image_mean' {told.image_mean} and 'image_std' {told.image_std} must be finite, std above 0")
    return ImageInput(crop, None if squash else edge, told.resample, told.image_mean, told.image_std)


def image_input_config(images: ImageInput) -> dict[str, Any]:
    """Write the configuration that `image_input` reads."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_resize": True,
        "size": {"shortest_edge": images.shortest_edge or images.crop},
        "resample": images.resample,
        "do_center_crop": True,
        "crop_size": {"height": images.crop, "width": images.crop},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(images.mean),
        "image_std": list(images.std),
        "do_convert_rgb": True,
    }


def _own(config: Config, name: str) -> Config:
    """A tower's own configuration, or that part of a whole CLIP's which describes it, as transformers takes it."""
    own = config.get(name) if config.get("model_type") == "clip" else config
    if not isinstance(own, Mapping):
        raise ValueError(f"it is a whole CLIP's without a table '{name}'")
    return own


def _tower(told: types.CLIPTextConfig | types.CLIPVisionConfig) -> dict[str, Any]:
    return {
        "width": told.hidden_size,
        "mlp_width": told.intermediate_size,
        "layers": told.num_hidden_layers,
        "heads": told.num_attention_heads,
        "embed_dim": told.projection_dim,
        "activation": told.hidden_act,
        "eps": told.layer_norm_eps,
    }


def _tower_config(params: TextTowerParams | VisionTowerParams) -> dict[str, Any]:
    return {
        "hidden_size": params.width,
        "intermediate_size": params.mlp_width,
        "num_hidden_layers": params.layers,
        "num_attention_heads": params.heads,
        "projection_dim": params.embed_dim,
        "hidden_act": params.activation,
        "layer_norm_eps": params.eps,
        "attention_dropout": 0.0,
    }


def _edge(size: int | Config, name: str) -> int:
    """One edge of a size given as a number, {"shortest_edge"} or {"height", "width"} that agree."""
    values = [size] if isinstance(size, int) else [size[k] for k in ("shortest_edge", "height", "width") if k in size]
    if not values or any(value != values[0] for value in values):
        raise ValueError(f"'{name}' is {str(size)[:60]}; supported is one edge, or a square")
    require_positive(f"'{name}'", image_size=values[0])
    return values[0]
