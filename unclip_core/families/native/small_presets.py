"""Shapes between the bundled model's and Karlo's: for a few thousand kinds of things, at 64 px, on a CPU."""

from dataclasses import replace
from typing import Any

from ...nets.decoder import DecoderParams
from ...nets.map_token_conditioner import MapTokenConditionerParams
from ...nets.prior import PriorParams
from ...nets.unet_params import UNetParams
from ...nets.upsampler import UpsamplerParams
from .presets import TINY_DIFFUSION

SMALL_DIFFUSION = TINY_DIFFUSION | {"decoder": replace(TINY_DIFFUSION["decoder"], prediction="v_prediction")}
"""The diffusion processes of small nets by stage."""


def small_clip() -> dict[str, Any]:
    """open_clip's arguments for a CLIP of 9 M parameters and its words, without the size of its vocabulary.

    A ViT of 6 layers (64 px in 8 px patches) and a text transformer of 4, both 256 wide.
    """
    vision = {"image_size": 64, "patch_size": 8, "layers": 6, "width": 256, "head_width": 64}
    text = {"context_length": 32, "layers": 4, "width": 256, "heads": 4}
    return {"embed_dim": 256, "vision_cfg": vision, "text_cfg": text}


def small_prior() -> PriorParams:
    """A prior of 8 M parameters: six layers, 320 wide."""
    return PriorParams(width=320, layers=6, heads=5, head_dim=64, embed_dim=256, text_width=256, text_tokens=32)


def small_decoder() -> DecoderParams:
    """A 64 px decoder of 30 M parameters: 32², 16², 8²; maps, and attention to the text at 16² and 8²."""
    unet = UNetParams(
        in_channels=3,
        out_channels=3,
        channels=(128, 256, 384),
        blocks=(2, 2, 2),
        attention=(False, True, True),
        map_channels=(16, 32, 64),
        time_channels=128,
        time_embed_dim=512,
        mid_blocks=2,
        mid_attention=True,
        context_dim=256,
        patch_size=2,
        layout="light",
    )
    conditioner = MapTokenConditionerParams(
        embed_dim=256,
        hidden=768,
        depth=3,
        time_embed_dim=512,
        map_channels=(16, 32, 64),
        map_sizes=(32, 16, 8),
        factors=(16, 16, 0),
        text_width=256,
        text_tokens=32,
        context_dim=256,
    )
    return DecoderParams(conditioner=conditioner, unet=unet, image_size=64)


def small_upsampler() -> UpsamplerParams:
    """An upsampler of 1 M parameters: 4 px patches, convolutions only, no norms."""
    return UpsamplerParams(
        in_channels=6,
        out_channels=3,
        channels=(64, 96),
        blocks=(2, 2),
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
