"""The configurations in use: Karlo v1-alpha's networks, and those of the bundled model."""

from ..nets.conditioning import MapConditionerParams, TokenConditionerParams
from ..nets.decoder import DecoderParams
from ..nets.prior import PriorParams
from ..nets.unet import UNetParams
from ..nets.upsampler import UpsamplerParams


def karlo_prior(soft_mask: bool = False) -> PriorParams:
    """Karlo's prior on ViT-L/14: 1,022,030,080 numbers with the CLIP statistics."""
    return PriorParams(
        width=2048,
        layers=20,
        heads=32,
        head_dim=64,
        embed_dim=768,
        text_width=768,
        text_tokens=77,
        soft_mask=soft_mask,
    )


def karlo_decoder() -> DecoderParams:
    """Karlo's 64 px decoder with its text projection: 885,439,686 + 7,878,400 parameters."""
    unet = UNetParams(
        in_channels=3,
        out_channels=6,
        channels=(320, 640, 960, 1280),
        blocks=(3, 3, 3, 3),
        attention=(False, True, True, True),
        map_channels=(0, 0, 0, 0),
        time_channels=320,
        time_embed_dim=1280,
        mid_blocks=2,
        mid_attention=True,
        context_dim=1536,
        head_dim=64,
    )
    conditioner = TokenConditionerParams(embed_dim=768, text_width=768, time_embed_dim=1280, context_dim=1536)
    return DecoderParams(conditioner=conditioner, unet=unet, image_size=64)


def karlo_super_res() -> UNetParams:
    """One of Karlo's two 64 → 256 px upsamplers: 691,579,523 parameters."""
    return UNetParams(
        in_channels=6,
        out_channels=3,
        channels=(320, 640, 960, 1280),
        blocks=(3, 3, 3, 3),
        attention=(False,) * 4,
        map_channels=(0, 0, 0, 0),
        time_channels=320,
        time_embed_dim=1280,
        mid_blocks=2,
        time_shift="add",
    )


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
