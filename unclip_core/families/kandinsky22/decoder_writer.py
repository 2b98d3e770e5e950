"""Write a decoder's folder of Kandinsky 2.2 in diffusers' layout: safetensors, the index last."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models import Decoder
from ...nets.decoder import DecoderNet
from ...nets.movq import MoVQ
from ...weights.files import CheckpointError, Entry, stream_weights, write_whole
from ...weights.key_map import CheckpointKey
from ..registry import INDEX
from . import decoder_config
from .decoder_reader import MOVQ, SCHEDULER, UNET, decoder_key_map, movq_key_map

PIPELINES: dict[decoder_config.Beside, str] = {
    None: "KandinskyV22Pipeline",
    "masked": "KandinskyV22InpaintPipeline",
    "hint": "KandinskyV22ControlnetPipeline",
}
WEIGHTS = "diffusion_pytorch_model.safetensors"

Make = Callable[[str, Tensor], Tensor]
"""(key, the net's tensor) -> what is written in its place."""


def write_decoder(
    folder: Path, decoder: Decoder, dtype: torch.dtype, make: Make | None = None, prior: str | None = None
) -> Path:
    """Write UNet, MoVQ and scheduler of the decoder to the new folder; returns the folder.

    Args:
        folder: must not hold anything yet.
        decoder: of this family.
        dtype: of the weights.
        make: gives other tensors in place of the net's own.
        prior: the repository "owner/name" of its prior, for the card.

    Raises:
        CheckpointError: the folder is not empty.
        OSError: the disk is full; the folder is then no model, as it has no index.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"'{folder}' is there already and not empty: name a new folder.")
    net: DecoderNet = decoder.net
    movq: Any = decoder.codec.module
    _write_net(folder / UNET, net, decoder_key_map, dtype, make, decoder_config.unet_config(net.params))
    _write_net(folder / MOVQ, movq, movq_key_map, dtype, make, decoder_config.movq_config(movq.params))
    scheduler = decoder_config.scheduler_config(decoder.diffusion, decoder.settings.sampler)
    _write_json(folder / SCHEDULER / "scheduler_config.json", scheduler)
    if prior is not None:
        write_whole(folder / "README.md", f"---\nprior:\n- {prior}\n---\n".encode())
    classes = {MOVQ: "VQModel", SCHEDULER: scheduler["_class_name"], UNET: "UNet2DConditionModel"}
    index = {"_class_name": PIPELINES[decoder.reads_beside]}
    _write_json(folder / INDEX, index | {name: ["diffusers", kind] for name, kind in classes.items()})
    return folder


def _write_net(
    folder: Path,
    net: DecoderNet | MoVQ | nn.Module,
    key_map: Callable[[str], CheckpointKey],
    dtype: torch.dtype,
    make: Make | None,
    config: dict[str, Any],
) -> None:
    entries = [
        Entry(key_map(key).key, dtype, tuple(value.shape), partial(make or _as_it_is, key, value))
        for key, value in net.state_dict().items()
    ]
    stream_weights(folder / WEIGHTS, entries)
    _write_json(folder / "config.json", config)


def _as_it_is(key: str, tensor: Tensor) -> Tensor:
    return tensor


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2).encode())
