"""Write a decoder's folder of Kandinsky 2.2 in diffusers' layout."""

from pathlib import Path
from typing import Any

import torch

from ...models import Decoder
from ...weights.files import write_whole
from ..detect import read_any_index
from ..diffusers_writer import DIFFUSERS, DiffusersWriter, Make, as_it_is
from . import decoder_config
from .decoder_reader import MOVQ, SCHEDULER, UNET, DecoderFolder, decoder_key_map, movq_key_map

PIPELINES: dict[decoder_config.Beside, str] = {
    None: "KandinskyV22Pipeline",
    "masked": "KandinskyV22InpaintPipeline",
    "hint": "KandinskyV22ControlnetPipeline",
}


class DecoderFolderWriter(DiffusersWriter):
    """Writes a decoder's folder."""

    pipeline = ""
    """Known once the decoder is written."""

    def decoder(self, decoder: Decoder) -> None:
        """Write UNet, MoVQ and scheduler."""
        movq: Any = decoder.codec.module
        unet, codes = decoder_config.unet_config(decoder.net.params), decoder_config.movq_config(movq.params)
        self.net(UNET, decoder.net, lambda key: decoder_key_map(key).key, unet, (DIFFUSERS, "UNet2DConditionModel"))
        self.net(MOVQ, movq, lambda key: movq_key_map(key).key, codes, (DIFFUSERS, "VQModel"))
        scheduler = decoder_config.scheduler_config(decoder.diffusion, decoder.settings.sampler)
        self.json(SCHEDULER, "scheduler_config.json", scheduler, (DIFFUSERS, scheduler["_class_name"]))
        self.pipeline = PIPELINES[decoder.reads_beside]

    def card(self, prior: str) -> None:
        """Write the card, which names the repository "owner/name" of the prior."""
        write_whole(self.folder / "README.md", f"---\nprior:\n- {prior}\n---\n".encode())

    def check(self) -> None:
        """Have the reader of a decoder's folder check what was written; raises CheckpointError."""
        DecoderFolder(self.folder, read_any_index(self.folder), self.dtype).check()


def write_decoder(
    folder: Path, decoder: Decoder, dtype: torch.dtype, make: Make = as_it_is, prior: str | None = None
) -> Path:
    """Write UNet, MoVQ and scheduler of the decoder to the new folder; returns the folder.

    Args:
        folder: must not hold anything yet.
        decoder: of this family.
        dtype: of the weights.
        make: gives other tensors in place of the net's own.
        prior: the repository "owner/name" of its prior, for the card.

    Raises:
        CheckpointError: the folder is not empty, or its own reader refuses what was written.
        OSError: the disk is full. Nothing is left behind.
    """
    with DecoderFolderWriter(folder, dtype, make) as writer:
        writer.decoder(decoder)
        if prior is not None:
            writer.card(prior)
    return folder
