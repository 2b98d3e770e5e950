"""Write Karlo folders with random weights, of any size, for tests and benchmarks without the real weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...clip.image_input import ImageInput
from ...clip.tokenizer import ClipTokenizer, byte_vocabulary, openai_tokenizer
from ...diffusion.spec import DiffusionSpec
from ...nets.clip_towers import TextTower, TextTowerParams, VisionTower, VisionTowerParams
from ...nets.decoder import DecoderNet, DecoderParams
from ...nets.prior import PriorParams, PriorTransformer
from ...nets.token_conditioner import TokenConditionerParams
from ...nets.unet_params import UNetParams
from ...nets.upsampler import UpsamplerNet
from ...weights.files import DTYPES
from ...weights.meta_init import meta_init
from . import presets
from .writer import FolderWriter

PRIOR = DiffusionSpec(prediction="sample", variance="fixed_small_log", clip_range=5.0)
DECODER = DiffusionSpec(prediction="epsilon", variance="learned_range", clip_range=1.0)
SUPER_RES = DiffusionSpec(prediction="epsilon", variance="fixed_small_log", clip_range=1.0)


@dataclass(frozen=True)
class KarloSizes:
    """Shapes of all nets; `scale` is the super-resolution's. `vision` is what image variations need."""

    text: TextTowerParams
    vision: VisionTowerParams
    prior: PriorParams
    decoder: DecoderParams
    super_res: UNetParams
    scale: int = 4


def full_size() -> KarloSizes:
    """Karlo v1-alpha as published: 3.4 billion parameters without the vision tower."""
    vit_l: dict[str, Any] = {"activation": "quick_gelu", "embed_dim": 768}
    return KarloSizes(
        text=TextTowerParams(width=768, mlp_width=3072, layers=12, heads=12, **vit_l),
        vision=VisionTowerParams(width=1024, mlp_width=4096, layers=24, heads=16, **vit_l),
        prior=presets.karlo_prior(),
        decoder=presets.karlo_decoder(),
        super_res=presets.karlo_super_res(),
    )


def small_size() -> KarloSizes:
    """A Karlo of half a million parameters with images of 16 px, enlarged to 64."""
    unet: dict[str, Any] = {
        "channels": (32, 64),
        "blocks": (1, 1),
        "map_channels": (0, 0),
        "time_channels": 32,
        "head_dim": 16,
        "time_embed_dim": 128,
        "groups": 8,
    }
    conditioner = TokenConditionerParams(embed_dim=16, text_width=16, time_embed_dim=128, context_dim=24)
    decoder = UNetParams(
        in_channels=3, out_channels=6, attention=(False, True), mid_attention=True, context_dim=24, **unet
    )
    return KarloSizes(
        text=TextTowerParams(width=16, mlp_width=32, layers=2, heads=2, embed_dim=16, vocabulary=514),
        vision=VisionTowerParams(width=16, mlp_width=32, layers=2, heads=2, embed_dim=16, image_size=32, patch_size=8),
        prior=PriorParams(width=32, layers=2, heads=2, head_dim=16, embed_dim=16, text_width=16, text_tokens=77),
        decoder=DecoderParams(conditioner, decoder, image_size=16),
        super_res=UNetParams(in_channels=6, out_channels=3, attention=(False, False), time_shift="add", **unet),
    )


SIZES = {"small": small_size, "full": full_size}


def write_random_karlo(
    folder: Path, sizes: KarloSizes, dtype: str = "fp32", seed: int = 0, *, prior: bool = True, vision: bool = True
) -> Path:
    """Write a folder in diffusers' layout whose every tensor is random, output layers too.

    prior, vision: whether it can start from text, and from images (the two published folders have one each).
    Raises CheckpointError where the folder is not empty, OSError where the disk is full.
    """
    with FolderWriter(folder, DTYPES[dtype], RandomNumbers(seed, DTYPES[dtype])) as writer, meta_init():
        writer.text(TextTower(sizes.text), made_tokenizer(sizes.text))
        if vision:
            side = sizes.vision.image_size
            writer.vision(VisionTower(sizes.vision), ImageInput(side, side))
        if prior:
            writer.prior(PriorTransformer(sizes.prior), PRIOR)
        writer.decoder(DecoderNet(sizes.decoder), DECODER)
        first, last = UpsamplerNet(sizes.super_res), UpsamplerNet(sizes.super_res)
        writer.upsampler(first, last, sizes.decoder.image_size * sizes.scale, SUPER_RES)
    return folder


POOL = 1_048_573
"""Numbers drawn for one tensor at most, a prime; a larger tensor repeats them, so that no two of its rows agree."""


class RandomNumbers:
    """Draw a tensor of a key's shape: matrices preserve the variance of their input, norm weights lie around 1.

    Matrices are of `dtype`, what has fewer dimensions float32.
    """

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        self._generator, self._dtype = torch.Generator().manual_seed(seed), dtype

    def __call__(self, key: str, tensor: Tensor) -> Tensor:
        """Return numbers of the tensor's shape."""
        count = tensor.numel()
        drawn = torch.randn(min(count, POOL), generator=self._generator, device="cpu")
        if key == "clip_std":
            return drawn.view(tensor.shape).mul_(0.1).add_(1).abs_()
        if tensor.ndim < 2:
            return drawn.mul_(0.1).add_(1.0 if "norm" in key and key.endswith("weight") else 0.0)
        drawn = drawn.mul_(tensor[0].numel() ** -0.5).to(self._dtype)  # before it is repeated: a third of the time
        return drawn.repeat(-(-count // POOL))[:count].view(tensor.shape)


def made_tokenizer(params: TextTowerParams, pad: str = "!") -> ClipTokenizer:
    """Return OpenAI's tokenizer for its vocabulary; for any other size one of bytes and as many merges as fit."""
    if params.vocabulary == 49408:
        return openai_tokenizer(params.context, pad=pad)
    letters = [token for token in byte_vocabulary([]) if token.isalpha() and token.isascii() and token.islower()]
    pairs = [(a, b + "</w>") for a in letters for b in letters][: params.vocabulary - 514]
    return ClipTokenizer(byte_vocabulary(pairs), pairs, params.context, pad)
