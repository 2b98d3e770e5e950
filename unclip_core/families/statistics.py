"""The statistics of CLIP's embeddings that a prior's weights bring along."""

from pathlib import Path
from typing import Any

from ..weights.files import CheckpointError

STATISTICS = ("clip_mean", "clip_std")
"""Keys of a prior's net that stay float32 whatever its dtype."""


def check_statistics(net: Any, source: Path) -> None:
    """Refuse a prior's net whose `clip_std` is 0 anywhere.

    diffusers starts both statistics at zero: a conversion that missed them makes embeddings that are all the same.

    Raises:
        CheckpointError: it is; the message names the `source`, a file or folder.
    """
    std = net.clip_std
    if broken := int((std == 0).sum()):
        raise CheckpointError(
            f"'{source}' has a 'clip_std' of which {broken} of {std.numel()} numbers are 0: there "
            "all its embeddings would be the same. A conversion missed them: get the published file."
        )
