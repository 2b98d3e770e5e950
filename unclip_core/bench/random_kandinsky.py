"""A Kandinsky 2.2 with random weights to measure with: a decoder's folder and a prior's beside it, written once."""

from pathlib import Path

from ..families.kandinsky22.random_decoder import DecoderSizes, write_random_decoder
from ..families.kandinsky22.random_prior import PriorSizes, write_random_prior
from ..families.registry import INDEX

DECODER, PRIOR = "kandinsky-2-2-decoder", "kandinsky-2-2-prior"


def random_kandinsky(folder: Path, prior: PriorSizes, decoder: DecoderSizes, dtype: str = "fp32") -> Path:
    """Write a random Kandinsky into two folders below `folder`, unless they are there; returns the decoder's.

    The decoder's card names the prior, so that loading the decoder joins them.

    Raises:
        CheckpointError: one of the folders holds something other than a model.
        OSError: the disk is full.
    """
    if not (folder / PRIOR / INDEX).is_file():
        write_random_prior(folder / PRIOR, prior, dtype)
    if not (folder / DECODER / INDEX).is_file():
        write_random_decoder(folder / DECODER, decoder, dtype, prior=f"kandinsky-community/{PRIOR}")
    return folder / DECODER
