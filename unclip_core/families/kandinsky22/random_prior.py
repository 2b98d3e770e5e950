"""Write prior folders of Kandinsky 2.2 with random weights, of any size, for tests without the real weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...clip.image_input import ImageInput
from ...clip.tokenizer import END
from ...diffusion.spec import DiffusionSpec
from ...nets.clip_towers import TextTower, TextTowerParams, VisionTower, VisionTowerParams
from ...nets.prior import PriorParams, PriorTransformer
from ...weights.files import DTYPES
from ...weights.meta_init import meta_init
from ..karlo.random_weights import RandomNumbers, made_tokenizer
from .prior_writer import PriorFolderWriter

DIFFUSION = DiffusionSpec(prediction="sample", variance="fixed_small_log", clip_range=10.0)


@dataclass(frozen=True)
class PriorSizes:
    """Shapes of the three nets."""

    text: TextTowerParams
    vision: VisionTowerParams
    prior: PriorParams


def full_size() -> PriorSizes:
    """As published: OpenCLIP's ViT-bigG-14 and a prior of 1,026,225,920 numbers with the statistics."""
    big: dict[str, Any] = {"activation": "gelu", "embed_dim": 1280}
    return PriorSizes(
        text=TextTowerParams(width=1280, mlp_width=5120, layers=32, heads=20, **big),
        vision=VisionTowerParams(width=1664, mlp_width=8192, layers=48, heads=16, **big),
        prior=PriorParams(
            width=2048, layers=20, heads=32, head_dim=64, embed_dim=1280, text_width=1280, text_tokens=77
        ),
    )


def small_size(width: int = 16) -> PriorSizes:
    """Nets of two layers for embeddings of `width` numbers."""
    small: dict[str, Any] = {"activation": "gelu", "embed_dim": width, "layers": 2, "heads": 2, "mlp_width": 32}
    return PriorSizes(
        text=TextTowerParams(width=width, vocabulary=514, **small),
        vision=VisionTowerParams(width=16, image_size=32, patch_size=8, **small),
        prior=PriorParams(width=32, layers=2, heads=2, head_dim=16, embed_dim=width, text_width=width, text_tokens=77),
    )


def write_random_prior(
    folder: Path, sizes: PriorSizes, dtype: str = "fp32", seed: int = 0, *, vision: bool = True
) -> Path:
    """Write a folder in diffusers' layout whose every tensor is random.

    vision: whether it has an image encoder. Raises CheckpointError where the folder is not empty, OSError where the
    disk is full.
    """
    with PriorFolderWriter(folder, DTYPES[dtype], RandomNumbers(seed, DTYPES[dtype])) as writer, meta_init():
        writer.text(TextTower(sizes.text), made_tokenizer(sizes.text, pad=END))
        if vision:
            side = sizes.vision.image_size
            writer.vision(VisionTower(sizes.vision), ImageInput(side, side))
        writer.prior(PriorTransformer(sizes.prior), DIFFUSION)
    return folder
