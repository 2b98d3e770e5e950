"""What each stage is trained on, sample by sample: data and all that is random, ready to be stacked to a batch.

A sample depends on the seed, its step and its place in the batch alone, so that it is the same in any process.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..clip.adapter import ClipAdapter
from ..data.center_crop import middle_square
from ..data.samples import BadSample, Collection, Sample
from ..diffusion.spec import DiffusionSpec
from ..pipelines import enlarge
from .batch_sampler import Key, generator_of
from .config import DecoderLoss, DiffusionLoss, PriorLoss, UpsamplerLoss
from .degradations import degrade
from .embeds import EmbeddingStore
from .losses import min_snr_weight
from .pixels import random_crop, to_net

Item = dict[str, Any]


class Items(Protocol):
    """The samples of a stage."""

    count: int
    """How many there are."""

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Sample number `index` with its randomness. Raises BadSample."""
        ...


class KeyedItems(torch.utils.data.Dataset):
    """Items by step, place and number. In place of a bad sample stands the next good one, and "bad" names it."""

    def __init__(self, items: Items, seed: int) -> None:
        self.items, self.seed = items, seed
        self._bad: dict[int, tuple[str, str]] = {}

    def __getitem__(self, key: Key) -> Item:
        step, place, first = key
        generator = generator_of("sample", self.seed, step, place)
        state, met = generator.get_state(), []
        for ahead in range(self.items.count):
            index = (first + ahead) % self.items.count
            if index in self._bad:
                continue
            try:
                generator.set_state(state)
                return {"bad": met, **self.items.make(index, generator)}
            except BadSample as error:
                self._bad[index] = (error.name, error.reason)
                met.append(self._bad[index])
        raise ValueError(
            f"None of the {self.items.count:,} samples can be used; the last, "
            f"'{self._bad[first][0]}': {self._bad[first][1]}."
        )


def stacked(items: Sequence[Item]) -> Item:
    """A batch: tensors stacked, the bad samples joined."""
    bad = [pair for item in items for pair in item["bad"]]
    return {"bad": bad} | {name: torch.stack([item[name] for item in items]) for name in items[0] if name != "bad"}


class Process:
    """Times, noise levels and weights of a diffusion."""

    def __init__(self, spec: DiffusionSpec, loss: DiffusionLoss) -> None:
        self.spec, self.loss, self._table = spec, loss, spec.table

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        """A time with its "alpha_bar", "alpha_bar_before" and "weight" (scalars), and "noise" of that shape."""
        time = self._time(generator)
        ab = self._table[time]
        weight = torch.ones((), dtype=torch.float64)
        if self.loss.weighting == "min_snr":
            weight = min_snr_weight(self.spec.prediction, ab, self.loss.min_snr_gamma)
        before = self._table[time - 1] if time else torch.ones((), dtype=torch.float64)
        return {
            "times": torch.tensor(time),
            "alpha_bar": ab.float(),
            "alpha_bar_before": before.float(),
            "weight": weight.float(),
            "noise": torch.randn(tuple(shape), generator=generator),
        }

    def _time(self, generator: torch.Generator) -> int:
        count = self.spec.train_steps
        if self.loss.times == "uniform":
            return int(torch.randint(count, (), generator=generator))
        logit = torch.randn((), generator=generator) * self.loss.times_std + self.loss.times_mean
        return min(count - 1, int(torch.sigmoid(logit) * count))


class ClipItems:
    """Images as CLIP sees them and captions as its tokens."""

    def __init__(self, collection: Collection, clip: ClipAdapter) -> None:
        self.collection, self.clip, self.count = collection, clip, len(collection)

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """ "pixels" `[3, S, S]` in 0..1 and "ids" `[T]`."""
        sample = self.collection.read(index)
        pixels = middle_square(sample.image, self.clip.image_size).permute(2, 0, 1).float() / 255
        return {"pixels": pixels, "ids": self.clip.tokenize([sample.caption])[0]}


class PriorItems:
    """Rows of embeddings, some without their text."""

    def __init__(self, store: EmbeddingStore, spec: DiffusionSpec, loss: PriorLoss) -> None:
        self.store, self.count, self.loss = store, store.rows, loss
        self._process, self._null = Process(spec, loss), store.null()

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """A row of the store, and the process; a dropped text gives way to the empty prompt's."""
        row = self.store.row(index)
        if float(torch.rand((), generator=generator)) < self.loss.drop_text:
            row |= self._null
        return row | self._process.draw(row["image_embeds"].shape, generator)


class DecoderItems:
    """Images with their embeddings, some without the image's and some without their text."""

    def __init__(
        self, collection: Collection, store: EmbeddingStore, spec: DiffusionSpec, loss: DecoderLoss, size: int
    ) -> None:
        self.collection, self.store, self.count, self.size, self.loss = collection, store, store.rows, size, loss
        self._process, self._null = Process(spec, loss), store.null()

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """ "images" `[3, S, S]` in -1..1, a row of the store, "drop_image", "drop_text" (bool), and the process.

        A dropped text is the empty prompt's too, for nets without a learned "no text".
        """
        sample = self.sample(index)
        images = to_net(middle_square(sample.image, self.size))
        row = self.store.row(index)
        chances = torch.rand(2, generator=generator)
        drop_image, drop_text = chances[0] < self.loss.drop_image, chances[1] < self.loss.drop_text
        if drop_text:
            row |= self._null
        drops = {"drop_image": drop_image, "drop_text": drop_text}
        return {"images": images} | row | drops | self._process.draw(images.shape, generator)

    def sample(self, index: int) -> Sample:
        """The sample of a row."""
        return self.collection.read(self.store.source(index), captions=False)


class UpsamplerItems:
    """Crops of large images, and what is left of them at a fraction of their size."""

    def __init__(
        self, collection: Collection, spec: DiffusionSpec, loss: UpsamplerLoss, scale: int, clamp: bool
    ) -> None:
        self.collection, self.count, self.loss = collection, len(collection), loss
        self.scale, self.clamp, self._process = scale, clamp, Process(spec, loss)

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """ "images" and "low" (small, damaged and enlarged again), `[3, C, C]` in -1..1, and the process."""
        sample = self.collection.read(index, captions=False)
        images = to_net(random_crop(sample.image, self.loss.size, self.loss.crop, generator))
        small = F.avg_pool2d(images[None], self.scale)
        if self.loss.degrade:
            small = degrade(small, generator)
        low = enlarge(small, self.scale, self.clamp)[0]
        return {"images": images, "low": low} | self._process.draw(images.shape, generator)
