"""A Karlo with random weights to measure with, written once: the real weights are not needed for time and memory."""

from pathlib import Path

from ..families.karlo.random_weights import KarloSizes, write_random_karlo
from ..families.registry import INDEX


def random_karlo(folder: Path, sizes: KarloSizes, dtype: str = "fp32") -> Path:
    """Write a random Karlo into `folder`, unless a model is there already; returns the folder.

    Args:
        folder: made if missing.
        sizes: of its nets; for text to image, so without the vision tower.
        dtype: of its files, a name in `weights.files.DTYPES`.

    Raises:
        CheckpointError: the folder holds something other than a model.
        OSError: the disk is full.
    """
    return folder if (folder / INDEX).is_file() else write_random_karlo(folder, sizes, dtype, vision=False)
