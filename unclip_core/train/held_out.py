"""Samples that are kept aside: never trained on, and what a training's figures on them are.

The same images are kept aside for every stage that is trained on the same data, so that the whole model can be judged
on them.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..clip.adapter import ClipAdapter, TextCondition
from ..data.center_crop import center_crop
from ..data.samples import BadSample, Collection
from ..diffusion.noise import sample_seeds
from ..models import Prior
from ..pipelines import sample_prior
from ..plotting.sheets import tiled
from .batch_sampler import generator_of
from .batch_sources import with_noise
from .datasets import StageDataset, collate
from .embedding_store import EmbeddingStore
from .sample_sheets import COUNT, condition_of, save_sheet, sheet_path

BATCH = 64
"""Samples that are measured at once."""
PRIOR_STEPS = 10
"""Sampling steps of a measured prior."""


class Chosen:
    """Some samples of a stage."""

    def __init__(self, samples: StageDataset, rows: Sequence[int]) -> None:
        self.samples, self.rows, self.count = samples, rows, len(rows)
        self.noise_shape = samples.noise_shape

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """See `StageDataset.make`."""
        return self.samples.make(self.rows[index], generator)

    def sources(self) -> Sequence[int]:
        """See `StageDataset.sources`."""
        every = self.samples.sources()
        return [every[row] for row in self.rows]


def split(samples: StageDataset, collection: Collection, held_out: int) -> tuple[Chosen, Chosen]:
    """Part a stage's samples into those to train on and those that are kept aside.

    An image is kept aside by its name's hash, so that where images are added or taken away the others stay where they
    are, but for the few that make room.

    Args:
        samples: of the stage.
        collection: of all images.
        held_out: how many of these are kept aside; of them a stage has those that it can use.

    Raises:
        ValueError: nothing is left on one of the two sides.
    """
    aside = set(sorted(range(len(collection)), key=lambda index: _rank(collection.name(index), index))[:held_out])
    sources = samples.sources()
    kept = [row for row, source in enumerate(sources) if source in aside]
    rest = [row for row, source in enumerate(sources) if source not in aside]
    if not kept or not rest:
        raise ValueError(
            f"training.held_out {held_out} leaves {len(rest):,} samples to train on and {len(kept):,} to measure; "
            "there must be some of both."
        )
    return Chosen(samples, rest), Chosen(samples, kept)


def _rank(name: str, index: int) -> tuple[bytes, int]:
    return hashlib.blake2b(f"held out {name}".encode(errors="backslashreplace"), digest_size=16).digest(), index


def held_out_batches(held: Chosen, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Yield all held-out samples that can be used, so many at once, each with the same randomness every time."""
    rows = []
    for index in range(held.count):
        try:
            rows.append({"bad": [], **held.make(index, generator_of("measure", index))})
        except BadSample:
            continue  # found bad, it is named by whoever reads all of the data
        if len(rows) == BATCH:
            yield _on(device, rows, held)
            rows = []
    if rows:
        yield _on(device, rows, held)


def _on(device: torch.device, rows: list[dict[str, Any]], held: Chosen) -> dict[str, Tensor]:
    part = with_noise(collate(rows), held.noise_shape, device)
    return {name: value.to(device) for name, value in part.items() if name != "bad"}


def mean_losses(objective: nn.Module, held: Chosen, device: torch.device) -> dict[str, float]:
    """Return the mean of an objective's named values over the held-out samples."""
    totals: dict[str, float] = {}
    count = 0
    for batch in held_out_batches(held, device):
        size = len(next(iter(batch.values())))
        count += size
        for name, value in objective(batch).items():
            totals[name] = totals.get(name, 0.0) + float(value) * size
    return {name: total / max(1, count) for name, total in totals.items()}


def retrieval(images: Tensor, texts: Tensor, ids: Tensor) -> dict[str, float]:
    """Return the shares of images whose text is nearest among all, and of texts whose image is.

    Args:
        images: embeddings `[N, D]`.
        texts: embeddings `[N, D]`.
        ids: the texts' tokens `[N, T]`; equal texts count as the same one.
    """
    cosines = F.normalize(images.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
    same = (ids[:, None] == ids[None]).all(dim=-1)
    row = torch.arange(len(images), device=images.device)
    to_text = same[row, cosines.argmax(dim=1)].float().mean()
    to_image = same[row, cosines.argmax(dim=0)].float().mean()
    return {"image_to_text": float(to_text), "text_to_image": float(to_image)}


def measure_clip(clip: ClipAdapter, objective: Any, held: Chosen, device: torch.device) -> dict[str, float]:
    """Return `retrieval` among all held-out samples."""
    found: dict[str, list[Tensor]] = {"images": [], "texts": [], "ids": []}
    for batch in held_out_batches(held, device):
        found["images"].append(objective.image_embeds(batch))
        found["texts"].append(clip.read_tokens(batch["ids"])[1])
        found["ids"].append(batch["ids"])
    return retrieval(*(torch.cat(parts) for parts in found.values())) if found["ids"] else {}


def measure_prior(
    part: Prior, objective: nn.Module, store: EmbeddingStore, held: Chosen, device: torch.device
) -> dict[str, float]:
    """Return the loss, and the mean cosine to the true embedding of what is drawn and of the text's own embedding."""
    text, true = _rows(store, held.rows, device)
    drawn = draw_embeds(part, text, len(true))
    cosines = {"cosine": F.cosine_similarity(drawn, true), "text_cosine": F.cosine_similarity(text.embeds, true)}
    return mean_losses(objective, held, device) | {name: float(value.mean()) for name, value in cosines.items()}


def _rows(store: EmbeddingStore, rows: Sequence[int], device: torch.device) -> tuple[TextCondition, Tensor]:
    """The texts and the true image embeddings `[N, D]` of rows of a store."""
    found = [store.row(row) for row in rows]
    true = torch.stack([row["image_embeds"] for row in found]).to(device)
    return condition_of(found, condition_of([store.null()], None)).to(device), true


def draw_embeds(part: Prior, text: TextCondition, count: int) -> Tensor:
    """Draw an image embedding `[N, D]` for each text."""
    steps = min(PRIOR_STEPS, part.diffusion.train_steps) if part.diffusion else None
    parts = [
        sample_prior(part, text.select(range(first, min(count, first + BATCH))), steps=steps,
                     seeds=sample_seeds(first, min(count, first + BATCH) - first))
        for first in range(0, count, BATCH)
    ]  # fmt: skip
    return torch.cat(parts)


def retrieval_sheets(
    collection: Collection, sources: Sequence[int], size: int, find: Callable[[], Mapping[str, Tensor]], folder: Path
) -> Callable[[int], Tensor]:
    """Make a function of the step: a sheet of held-out images above those that were found for their captions.

    Args:
        collection: with the images.
        sources: the held-out ones' numbers.
        size: side of an image on the sheet, px.
        find: gives "images" and "wanted", embeddings `[N, D]` of all held-out images, and of what is looked for.
        folder: for the sheets.
    """

    def draw(step: int) -> Tensor:
        embeds = find()
        wanted = F.normalize(embeds["wanted"].float(), dim=-1)[:COUNT]
        found = (wanted @ F.normalize(embeds["images"].float(), dim=-1).T).argmax(dim=1).tolist()
        shown = [*range(len(wanted)), *found]
        squares = [center_crop(collection.read(sources[row], captions=False).image, size) for row in shown]
        return save_sheet(tiled(squares, columns=len(wanted)), sheet_path(folder, step))

    return draw


def clip_find(clip: ClipAdapter, collection: Collection, sources: Sequence[int]) -> dict[str, Tensor]:
    """Embed the held-out images, and their captions as what is looked for."""
    images, texts = [], []
    for first in range(0, len(sources), BATCH):
        samples = [collection.read(row) for row in sources[first : first + BATCH]]
        squares = torch.stack([center_crop(sample.image, clip.image_size) for sample in samples])
        images.append(clip.encode_image(squares.float() / 255))
        texts.append(clip.embed_text([sample.caption for sample in samples]))
    return {"images": torch.cat(images), "wanted": torch.cat(texts)}


def usable(collection: Collection, sources: Sequence[int]) -> list[int]:
    """Return the numbers of the samples that can be read and have a caption."""
    good = []
    for source in sources:
        try:
            collection.read(source)
        except BadSample:
            continue  # whoever trains on all of the data names it
        good.append(source)
    return good


def prior_find(part: Prior, store: EmbeddingStore, rows: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """Take the held-out images' embeddings, and what the prior draws of the first captions as what is looked for."""
    text, true = _rows(store, rows, device)
    return {
        "images": true,
        "wanted": draw_embeds(part, text.select(range(min(COUNT, len(rows)))), min(COUNT, len(rows))),
    }
