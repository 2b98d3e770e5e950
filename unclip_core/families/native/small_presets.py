"""Shapes between the bundled model's and Karlo's: for a few thousand kinds of things, at 64 px, on a CPU."""

from dataclasses import replace
from typing import Any

from ...nets.decoder import DecoderParams
from ...nets.map_token_conditioner import MapTokenConditionerParams
from ...nets.prior import PriorParams
from ...nets.unet_params import UNetParams
from ...nets.upsampler import UpsamplerParams
from .presets import TINY_DIFFUSION, clip_config, tiny_upsampler

SMALL_DIFFUSION = TINY_DIFFUSION | {"decoder": replace(TINY_DIFFUSION["decoder"], prediction="v_prediction")}
"""The diffusion processes of small nets by stage."""


def small_clip() -> dict[str, Any]:
    """open_clip's arguments for a CLIP of 9 M parameters and its words, without the size of its vocabulary.

    A ViT of 6 layers (64 px in 8 px patches) and a text transformer of 4, both 256 wide.
    """
    return clip_config(256, vision_layers=6, text_layers=4)


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
    return replace(tiny_upsampler(), channels=(64, 96), blocks=(2, 2))
