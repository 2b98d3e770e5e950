"""The shapes of Karlo v1-alpha's networks."""

from ...nets.decoder import DecoderParams
from ...nets.prior import PriorParams
from ...nets.token_conditioner import TokenConditionerParams
from ...nets.unet_params import UNetParams


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
