"""What each stage's loss can be told (table `[loss]` of a configuration)."""

import math
from dataclasses import dataclass
from typing import Literal

from .settings import require


@dataclass(frozen=True)
class ClipLoss:
    """CLIP's loss has no settings: contrast among the images that are computed together."""


@dataclass(frozen=True)
class DiffusionLoss:
    """What every diffusion loss can be told (table `[loss]`).

    Attributes:
        weighting: "constant", or "min_snr" (Hang et al. 2023): the weight of x0's error at a time is at most
            `min_snr_gamma`.
        min_snr_gamma: that bound.
        times: "uniform", or "logit_normal": the logit of t/T is normal (Esser et al. 2024, section 3.1).
        times_mean: of that normal; above 0 is noisier.
        times_std: of that normal.
    """

    weighting: Literal["constant", "min_snr"] = "constant"
    min_snr_gamma: float = 5.0
    times: Literal["uniform", "logit_normal"] = "uniform"
    times_mean: float = 0.0
    times_std: float = 1.0

    def __post_init__(self) -> None:
        require("loss", vars(self), 1e-6, math.inf, "min_snr_gamma", "times_std")
        drops = [name for name in ("drop_image", "drop_text") if name in vars(self)]
        require("loss", vars(self), 0, 1, *drops)


@dataclass(frozen=True)
class PriorLoss(DiffusionLoss):
    """`drop_text`: share of samples without text ("10% of the time", Ramesh et al. 2022, section 2.2)."""

    drop_text: float = 0.1


@dataclass(frozen=True)
class DecoderLoss(DiffusionLoss):
    """`drop_image`, `drop_text`: shares of samples without image embedding and without text.

    "randomly setting the CLIP embeddings to zero (or a learned embedding) 10% of the time, and randomly dropping the
    text caption 50% of the time" (Ramesh et al. 2022, section 2.1).

    `perceptual`: how much the distance of predicted and true image counts in the eyes of CLIP's image tower, beside the
    squared error; 0 for not at all, and then nothing is computed of it. See `perceptual`.
    """

    drop_image: float = 0.1
    drop_text: float = 0.5
    perceptual: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("loss", vars(self), 0, math.inf, "perceptual")


@dataclass(frozen=True)
class UpsamplerLoss(DiffusionLoss):
    """Images of `size` px (their shorter edge), crops of `crop` px of them; `degrade`: blur and noise on the small.

    "we slightly corrupt the conditioning images during training" (Ramesh et al. 2022, section 2.1).
    """

    size: int = 256
    crop: int = 128
    degrade: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require("loss", vars(self), 1, math.inf, "size", "crop")
        if self.crop > self.size:
            raise ValueError(f"loss.crop {self.crop} is larger than loss.size {self.size}.")


LOSSES = {"clip": ClipLoss, "prior": PriorLoss, "decoder": DecoderLoss, "upsampler": UpsamplerLoss}
"""The loss of each stage."""
