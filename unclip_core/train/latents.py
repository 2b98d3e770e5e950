"""Latents of a collection's images, computed once by a frozen image codec and kept as safetensors shards."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ..data.center_crop import center_crop
from ..data.fingerprint import digest
from ..data.samples import BadSample, Collection
from ..models import Decoder
from ..weights.files import write_whole
from .embedding_store import Shard
from .embeds import Workers, weights_fingerprint
from .pixels import to_net
from .progress import Progress

SHARD = 256
"""Images of a shard, the bad ones included."""
BATCH = 4
"""Images that the codec encodes at once."""


class LatentStore:
    """Latents by the number of the image in its collection."""

    def __init__(self, collection: Collection, folder: Path) -> None:
        self._collection, self._folder = collection, folder

    def row(self, index: int) -> Tensor:
        """The latents `[C, s, s]` of image `index`, float32.

        Raises:
            BadSample: the image could not be read when latents were computed.
            CheckpointError: the shard is damaged.
        """
        shard = Shard(_path(self._folder, index // SHARD))
        if not bool(shard.row("good", index % SHARD)):
            raise BadSample(self._collection.name(index), "it could not be read when its latents were computed")
        return shard.row("latents", index % SHARD)


@torch.no_grad()
def encode_latents(
    collection: Collection, part: Decoder, folder: Path, device: torch.device, workers: Workers | None = None
) -> LatentStore:
    """Compute the latents of a collection into `folder`, or open them where they stand there already.

    They are kept in a subfolder named after data, codec and size. What an interrupted run finished is used.

    Args:
        collection: images.
        part: the decoder whose codec is used, and its image size, to whose square each image is cut.
        folder: for the subfolder.
        device: that computes.
        workers: who shares the work; None for this process alone.

    Raises:
        ValueError: the decoder's codec has no weights, so that there is nothing to keep.
        OSError: the disk is full; what is written so far is whole.
    """
    workers = workers or Workers()
    module = part.codec.module
    if module is None:
        raise ValueError("This decoder's images are encoded without a net: their latents need not be kept.")
    folder = folder / digest([collection.fingerprint(), weights_fingerprint(module), str(part.image_size), str(SHARD)])
    starts = range(0, len(collection), SHARD)
    missing = [start for start in starts if not _path(folder, start // SHARD).is_file()]
    workers.wait()
    mine = [start for start in missing if start // SHARD % workers.world == workers.rank]
    module.to(device)
    with Progress("encode", "shard", len(mine), shown=workers.rank == 0 and bool(mine)) as progress:
        for done, start in enumerate(mine, start=1):
            indices = range(start, min(len(collection), start + SHARD))
            write_whole(_path(folder, start // SHARD), _shard(collection, part, indices, device))
            progress.update(done)
    module.to("cpu")
    workers.wait()
    return LatentStore(collection, folder)


def _shard(collection: Collection, part: Decoder, indices: Sequence[int], device: torch.device) -> bytes:
    """The bytes of a shard: "latents" `[n, C, s, s]` float32, of unreadable images zero, and "good" `[n]` bool."""
    latents, good = torch.zeros(len(indices), *part.latent_shape), torch.zeros(len(indices), dtype=torch.bool)
    for places, images in _batches(collection, part.image_size, indices):
        latents[places] = part.codec.encode(images.to(device)).float().cpu()
        good[places] = True
    return save({"latents": latents, "good": good})


def _batches(collection: Collection, side: int, indices: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
    """Places in the shard and squares `[b, 3, side, side]` in -1..1 of the images that can be read."""
    places: list[int] = []
    images: list[Tensor] = []
    for place, index in enumerate(indices):
        try:
            images.append(to_net(center_crop(collection.read(index, captions=False).image, side)))
            places.append(place)
        except BadSample:
            pass  # its place stays marked as not good, and `LatentStore.row` names it
        if images and (len(images) == BATCH or index == indices[-1]):
            yield places, torch.stack(images)
            places, images = [], []


def _path(folder: Path, number: int) -> Path:
    return folder / f"latents-{number:06d}.safetensors"
