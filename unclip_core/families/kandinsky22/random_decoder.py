"""Write decoder folders of Kandinsky 2.2 with random weights, of any size, for tests without the real weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...models import Decoder
from ...nets.decoder import DecoderNet, DecoderParams
from ...nets.image_conditioner import HINT_LATENT_CHANNELS, ImageConditionerParams
from ...nets.movq import MoVQ
from ...nets.movq_codec import MoVQCodec
from ...nets.movq_params import MoVQParams
from ...nets.unet_params import UNetParams
from ...weights.files import DTYPES
from ...weights.meta_init import meta_init
from ..karlo.random_weights import RandomNumbers
from .decoder_config import Beside, published_scheduler
from .decoder_reader import decoder_settings, family_name
from .decoder_writer import write_decoder


@dataclass(frozen=True)
class DecoderSizes:
    """Shapes of both nets."""

    decoder: DecoderParams
    movq: MoVQParams


def full_size(beside: Beside = None) -> DecoderSizes:
    """As published: a UNet of 1,253,057,288 numbers for text to image, and a MoVQ of 67,832,495."""
    channels = (384, 768, 1152, 1536)
    shape = {"channels": channels, "blocks": (3,) * 4, "attention": (False, True, True, True)}
    return DecoderSizes(decoder_params(beside, 1280, 768, 64, **shape), MoVQParams())


def small_size(width: int = 16, beside: Beside = None) -> DecoderSizes:
    """Nets for embeddings of `width` numbers and images of 64 px."""
    shape = {"channels": (32, 64), "blocks": (1, 1), "attention": (False, True), "head_dim": 16, "groups": 8}
    movq = MoVQParams((32, 32, 32, 64), blocks=1, groups=8, codes=32)
    return DecoderSizes(decoder_params(beside, width, 24, 8, **shape), movq)


def write_random_decoder(
    folder: Path, sizes: DecoderSizes, dtype: str = "fp32", seed: int = 0, prior: str | None = None
) -> Path:
    """Write a folder in diffusers' layout whose every tensor is random, output layers too.

    prior: the repository "owner/name" of its prior, for the card. Raises CheckpointError where the folder is not
    empty, OSError where the disk is full.
    """
    with meta_init():
        net, movq = DecoderNet(sizes.decoder), MoVQ(sizes.movq)
    channels = sizes.movq.latent_channels
    conditioner: Any = sizes.decoder.conditioner
    beside: Beside = "hint" if conditioner.hint else "masked" if sizes.decoder.unet.in_channels > channels else None
    scheduler = published_scheduler(clips=beside is None)
    decoder = Decoder(
        family_name(conditioner.embed_dim),
        net,
        scheduler.diffusion(predicts_variance=True),
        sizes.decoder.image_size * sizes.movq.factor,
        codec=MoVQCodec(movq),
        settings=decoder_settings(scheduler),
        any_size=True,
        reads_beside=beside,
    )
    return write_decoder(folder, decoder, DTYPES[dtype], _Numbers(seed), prior)


class _Numbers:
    """As Karlo's random numbers; what modulates MoVQ's norms stays near 1, as it does in a trained one."""

    def __init__(self, seed: int) -> None:
        self._draw = RandomNumbers(seed)

    def __call__(self, key: str, tensor: Tensor) -> Tensor:
        drawn = self._draw(key, tensor)
        is_norms = "norm" in key and (".scale." in key or ".shift." in key)
        return drawn * 0.2 + (1.0 if is_norms and key.endswith("scale.bias") else 0.0) if is_norms else drawn


def decoder_params(beside: Beside, width: int, context: int, side: int, **shape: Any) -> DecoderParams:
    """The shape of a decoder that sees `beside` besides its latents.

    Args:
        beside: what it sees there.
        width: of the image embeddings.
        context: of the context tokens.
        side: of its latents.
        shape: channels, blocks and so on of its UNet.
    """
    channels, levels = shape["channels"], len(shape["channels"])
    unet = UNetParams(
        in_channels={None: 4, "masked": 9, "hint": 4 + HINT_LATENT_CHANNELS}[beside],
        out_channels=8,
        map_channels=(0,) * levels,
        time_channels=channels[0],
        time_embed_dim=4 * channels[0],
        mid_attention=True,
        context_dim=context,
        **shape,
    )
    conditioner = ImageConditionerParams(width, 4 * channels[0], context, hint=beside == "hint")
    return DecoderParams(conditioner, unet, image_size=side)
