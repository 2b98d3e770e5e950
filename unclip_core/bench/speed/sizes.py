"""Models to measure with: Karlo's shape with random weights, at its real size or at one that a minute is enough for."""

from pathlib import Path
from typing import Any

from ...families.karlo.random_weights import KarloSizes, full_size
from ...nets.clip_towers import TextTowerParams, VisionTowerParams
from ...nets.decoder import DecoderParams
from ...nets.prior import PriorParams
from ...nets.token_conditioner import TokenConditionerParams
from ...nets.unet_params import UNetParams
from ..random_karlo import random_karlo


def half_size() -> KarloSizes:
    """Karlo at half its widths, one block a level, images of 32 px enlarged to 128: 0.4 billion parameters."""
    unet: dict[str, Any] = {
        "channels": (160, 320, 480, 640),
        "blocks": (1,) * 4,
        "map_channels": (0,) * 4,
        "time_channels": 160,
        "time_embed_dim": 640,
    }
    conditioner = TokenConditionerParams(embed_dim=384, text_width=384, time_embed_dim=640, context_dim=768)
    decoder = UNetParams(
        in_channels=3,
        out_channels=6,
        attention=(False, True, True, True),
        mid_attention=True,
        context_dim=768,
        head_dim=32,
        **unet,
    )
    tower: dict[str, Any] = {"width": 384, "mlp_width": 1536, "layers": 6, "heads": 6, "embed_dim": 384}
    return KarloSizes(
        text=TextTowerParams(vocabulary=514, **tower),
        vision=VisionTowerParams(image_size=32, patch_size=8, **tower),
        prior=PriorParams(width=1024, layers=10, heads=16, head_dim=64, embed_dim=384, text_width=384, text_tokens=77),
        decoder=DecoderParams(conditioner, decoder, image_size=32),
        super_res=UNetParams(in_channels=6, out_channels=3, attention=(False,) * 4, time_shift="add", **unet),
    )


SPEED_SIZES = {"small": half_size, "full": full_size}
"""What `--size` of `unclip bench speed` names. Its small one is not `small_size` of `bench karlo`, half a million
parameters, in which overheads would hide what the nets take."""


def model_folder(folder: Path, size: str, dtype: str) -> Path:
    """Return the folder of the random model of that size and dtype below `folder`; written if it is not there yet.

    Raises:
        CheckpointError: something else is there.
        OSError: the disk is full.
    """
    return random_karlo(folder / f"{size}-{dtype}", SPEED_SIZES[size](), dtype)
