"""The shapes of the networks of the bundled model of coloured shapes."""

from typing import Any

from ...diffusion.spec import DiffusionSpec
from ...nets.decoder import DecoderParams
from ...nets.map_conditioner import MapConditionerParams
from ...nets.prior import PriorParams
from ...nets.unet_params import UNetParams
from ...nets.upsampler import UpsamplerParams

TINY_SCALE = 4
"""How many times as wide and high the bundled model's upsamplers make an image."""

TINY_DIFFUSION = {
    "prior": DiffusionSpec(schedule="cosine", prediction="sample", clip_range=5.0, spacing="trailing"),
    "decoder": DiffusionSpec(schedule="cosine", prediction="sample", clip_range=1.0, spacing="trailing"),
    "upsampler": DiffusionSpec(schedule="cosine", prediction="sample", clip_range=1.0, spacing="trailing"),
}
"""The bundled model's diffusion processes by stage."""


def tiny_clip() -> dict[str, Any]:
    """open_clip's arguments for the bundled CLIP, without the size of its vocabulary.

    A ViT of 5 layers (64 px in 8 px patches) and a text transformer of 3, both 192 wide.
    """
    return clip_config(192, vision_layers=5, text_layers=3)


def clip_config(width: int, vision_layers: int, text_layers: int) -> dict[str, Any]:
    """open_clip's arguments for towers of one width and four heads, on 64 px in 8 px patches and 32 text tokens."""
    vision = {"image_size": 64, "patch_size": 8, "layers": vision_layers, "width": width, "head_width": width // 4}
    text = {"context_length": 32, "layers": text_layers, "width": width, "heads": 4}
    return {"embed_dim": width, "vision_cfg": vision, "text_cfg": text}


def tiny_prior() -> PriorParams:
    """The bundled model's prior: four layers, for a CLIP of width 192 with 32 text tokens."""
    return PriorParams(
        width=256,
        layers=4,
        heads=4,
        head_dim=64,
        embed_dim=192,
        text_width=192,
        text_tokens=32,
    )


def tiny_decoder() -> DecoderParams:
    """The bundled model's 64 px decoder: 32², 16², 8², convolutions only."""
    unet = UNetParams(
        in_channels=3,
        out_channels=3,
        channels=(64, 128, 192),
        blocks=(1, 1, 1),
        attention=(False,) * 3,
        map_channels=(48, 64, 64),
        time_channels=128,
        time_embed_dim=256,
        mid_blocks=2,
        groups=8,
        patch_size=2,
        layout="light",
    )
    conditioner = MapConditionerParams(
        embed_dim=192,
        hidden=512,
        depth=3,
        time_embed_dim=256,
        map_channels=(48, 64, 64),
        map_sizes=(32, 16, 8),
        factors=(12, 12, 12),
        frames=2,
        canvas=8,
        canvas_channels=32,
    )
    return DecoderParams(conditioner=conditioner, unet=unet, image_size=64)


def tiny_upsampler() -> UpsamplerParams:
    """Either of the bundled model's upsamplers: 4 px patches, convolutions only, any H, W in eights, no norms."""
    return UpsamplerParams(
        in_channels=6,
        out_channels=3,
        channels=(48, 64),
        blocks=(1, 1),
        attention=(False,) * 2,
        map_channels=(0, 0),
        time_channels=64,
        time_embed_dim=128,
        mid_blocks=1,
        groups=8,
        patch_size=4,
        layout="light",
        norm="none",
        residual=True,
        reach=2,
    )
