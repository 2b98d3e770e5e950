"""transformers' configurations of CLIP's towers and of what prepares their images, to ours and back.

Old files lack keys: those take the library's own defaults. A setting that our networks cannot follow is refused.
"""

from collections.abc import Mapping
from typing import Any

from ...clip.image_input import OPENAI_MEAN, OPENAI_STD, ImageInput
from ...nets.clip_towers import TextTowerParams, VisionTowerParams
from ...weights.config_checks import Config, require


def text_tower_params(config: Config) -> TextTowerParams:
    """Read the configuration of a CLIPTextModelWithProjection."""
    return TextTowerParams(
        **_tower(config, width=512, mlp_width=2048, layers=12, heads=8),
        vocabulary=config.get("vocab_size", 49408),
        context=config.get("max_position_embeddings", 77),
    )


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
    """Read the configuration of a CLIPVisionModelWithProjection."""
    return VisionTowerParams(
        **_tower(config, width=768, mlp_width=3072, layers=12, heads=12),
        image_size=config.get("image_size", 224),
        patch_size=config.get("patch_size", 32),
        channels=config.get("num_channels", 3),
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
    edge, crop = _edge(config.get("size", 224), "size"), _edge(config.get("crop_size", 224), "crop_size")
    if crop != image_size or edge < crop:
        raise ValueError(f"images are resized to {edge} px and cropped to {crop}, but the tower sees {image_size}")
    return ImageInput(
        crop,
        None if squash else edge,
        config.get("resample", 3),
        tuple(config.get("image_mean", OPENAI_MEAN)),
        tuple(config.get("image_std", OPENAI_STD)),
    )


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


def _tower(config: Config, width: int, mlp_width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "width": config.get("hidden_size", width),
        "mlp_width": config.get("intermediate_size", mlp_width),
        "layers": config.get("num_hidden_layers", layers),
        "heads": config.get("num_attention_heads", heads),
        "embed_dim": config.get("projection_dim", 512),
        "activation": config.get("hidden_act", "quick_gelu"),
        "eps": config.get("layer_norm_eps", 1e-5),
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
    if isinstance(size, Mapping):
        values = {size[key] for key in ("shortest_edge", "height", "width") if key in size}
        if len(values) != 1:
            raise ValueError(f"'{name}' is {dict(size)}; supported is one edge, or a square")
        return int(values.pop())
    return int(size)
