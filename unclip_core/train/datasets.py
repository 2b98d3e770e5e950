"""The data that each stage is trained on: samples with all their randomness, ready to be stacked to a batch.

A sample depends on the seed, its step and its position in the batch alone, so that it is the same in any process.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..clip.adapter import ClipAdapter
from ..data.center_crop import center_crop
from ..data.samples import BadSample, Collection, Sample
from ..diffusion.spec import DiffusionSpec
from ..models import Decoder, Upsampler
from ..pipelines import enlarge
from .batch_sampler import Key, generator_of
from .degradations import degrade
from .embedding_store import EmbeddingStore, chosen_texts, picked
from .latents import LatentStore
from .loss_config import DecoderLoss, PriorLoss, UpsamplerLoss
from .noise_levels import NoiseLevels
from .pixels import random_crop, to_net

Row = dict[str, Any]


class StageDataset(Protocol):
    """The samples of a stage."""

    count: int
    """How many there are."""

    @property
    def noise_shape(self) -> tuple[int, ...] | None:
        """Shape of the noise that is drawn on the device by each sample's "noise_seed"; None where none is needed."""
        ...

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Sample number `index` with its randomness. Raises BadSample."""
        ...

    def sources(self) -> Sequence[int]:
        """The number of each sample in the collection."""
        ...


class HeldDataset(StageDataset, Protocol):
    """Samples of a stage that can all lie on the device, and be put together there; see `DeviceBatches`."""

    def fixed(self, index: int) -> dict[str, Tensor]:
        """What has to be read of sample number `index`, and no chance changes. Raises BadSample."""
        ...

    def columns(self) -> dict[str, Tensor]:
        """What lies ready of all samples `[N, …]`, and no chance changes."""
        ...

    def chances(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The randomness of `count` samples `[count]`, but for the noise itself."""
        ...

    def joined(self, rows: dict[str, Tensor], chances: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch as `make` makes its samples, of rows of `fixed` and `columns` and their `chances`."""
        ...


class KeyedDataset(torch.utils.data.Dataset):
    """A stage's samples by `Key`. A bad sample is replaced by the next good one, and named under "bad"."""

    def __init__(self, samples: StageDataset, seed: int) -> None:
        self.samples, self.seed = samples, seed
        self._bad: dict[int, tuple[str, str]] = {}

    def __getitem__(self, key: Key) -> Row:
        step, position, first = key
        generator = generator_of("sample", self.seed, step, position)
        state = generator.get_state()
        met: list[tuple[str, str]] = []
        for ahead in range(self.samples.count):
            index = (first + ahead) % self.samples.count
            if index in self._bad:
                continue
            try:
                generator.set_state(state)
                return {"bad": met, **self.samples.make(index, generator)}
            except BadSample as error:
                self._bad[index] = (error.name, error.reason)
                met.append(self._bad[index])
        raise ValueError(
            f"None of the {self.samples.count:,} samples can be used; the last, "
            f"'{self._bad[first][0]}': {self._bad[first][1]}."
        )


def collate(rows: Sequence[Row]) -> Row:
    """A batch: tensors stacked, the bad samples joined."""
    bad = [pair for row in rows for pair in row["bad"]]
    return {"bad": bad} | {name: torch.stack([row[name] for row in rows]) for name in rows[0] if name != "bad"}


class ClipDataset:
    """Images as CLIP sees them, or their embeddings, and captions as its tokens: one of each image's, by chance."""

    noise_shape = None

    def __init__(self, collection: Collection, clip: ClipAdapter, store: EmbeddingStore | None = None) -> None:
        """Read `collection`; with a `store` its rows are the samples, and no image is read."""
        self.collection, self.clip, self.store = collection, clip, store
        self._sources = range(len(collection)) if store is None else store.sources()
        self.count = len(self._sources)

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """ "pixels" `[3, S, S]` in 0..1, or "image_embeds" `[D]`, and "ids" `[T]`."""
        source = self._sources[index]
        captions = self._captions(source)
        said = captions[int(torch.randint(len(captions), (), generator=generator))]
        return self._image(index, source) | {"ids": self.clip.tokenize([said])[0]}

    def fixed(self, index: int) -> dict[str, Tensor]:
        """ "levels" uint8 `[S, S, 3]` (none with a store), and "every_ids" int32 `[C, T]` of the captions."""
        source = self._sources[index]
        ids = {"every_ids": self.clip.tokenize(self._captions(source)).int()}
        if self.store is not None:
            return ids
        image = self.collection.read(source, captions=False).image
        return ids | {"levels": center_crop(image, self.clip.image_size)}

    def columns(self) -> dict[str, Tensor]:
        """The store's "image_embeds", where there is one."""
        return {} if self.store is None else self.store.columns(["image_embeds"])

    def chances(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """ "said" 0..1: which of the captions."""
        return {"said": torch.rand(count, generator=generator)}

    def joined(self, rows: dict[str, Tensor], chances: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `HeldDataset.joined`."""
        ids = picked(rows["every_ids"], rows["lengths"], chances["said"]).long()
        if "image_embeds" in rows:
            return {"image_embeds": rows["image_embeds"], "ids": ids}
        return {"pixels": rows["levels"].permute(0, 3, 1, 2).float() / 255, "ids": ids}

    def _captions(self, source: int) -> list[str]:
        if not (captions := self.collection.captions(source)):
            raise BadSample(self.collection.name(source), "it has no caption")
        return captions

    def _image(self, index: int, source: int) -> dict[str, Tensor]:
        if self.store is not None:
            return {"image_embeds": self.store.image_embed(index)}
        image = self.collection.read(source, captions=False).image
        return {"pixels": center_crop(image, self.clip.image_size).permute(2, 0, 1).float() / 255}

    def sources(self) -> Sequence[int]:
        """See `StageDataset.sources`."""
        return self._sources


class PriorDataset:
    """Rows of embeddings, some with the empty prompt in place of their text."""

    def __init__(self, store: EmbeddingStore, spec: DiffusionSpec, loss: PriorLoss) -> None:
        self.store, self.count, self.loss = store, store.rows, loss
        self._levels, self._null = NoiseLevels(spec, loss), store.null()
        self.noise_shape = tuple(store.mean.shape[1:])

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """A row of the store with one of its captions, and a noise level.

        A dropped text is replaced by the empty prompt's encoding.
        """
        row = self.store.row(index, generator)
        if float(torch.rand((), generator=generator)) < self.loss.drop_text:
            row |= self._null
        return row | self._levels.draw_level(generator)

    def fixed(self, index: int) -> dict[str, Tensor]:
        """Nothing: all lies ready."""
        return {}

    def columns(self) -> dict[str, Tensor]:
        """The store's."""
        return self.store.columns()

    def chances(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """ "drop_text" (bool), a noise level, and "said" 0..1: which of the captions."""
        drop = torch.rand(count, generator=generator) < self.loss.drop_text
        levels = self._levels.draw_levels(count, generator)
        return {"drop_text": drop, **levels, "said": torch.rand(count, generator=generator)}

    def joined(self, rows: dict[str, Tensor], chances: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `HeldDataset.joined`."""
        rows = chosen_texts(rows, chances.pop("said"))
        return _without_texts(rows, chances.pop("drop_text"), self._null) | chances

    def sources(self) -> Sequence[int]:
        """See `StageDataset.sources`."""
        return self.store.sources()


class DecoderDataset:
    """Images with their embeddings, some without the image's and some without their text."""

    def __init__(
        self,
        collection: Collection,
        store: EmbeddingStore,
        part: Decoder,
        loss: DecoderLoss,
        latents: LatentStore | None = None,
    ) -> None:
        """For the decoder `part`: images of its size in px, or their latents; noise in the shape of its latents."""
        self.collection, self.store, self.count, self.loss = collection, store, store.rows, loss
        self._latents = latents
        self.size, self.noise_shape = part.image_size, tuple(part.latent_shape)
        self._levels, self._null = NoiseLevels(part.diffusion, loss), store.null()

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """ "images" `[3, S, S]` in -1..1, a row of the store, "drop_image", "drop_text" (bool), and a noise level.

        Of several captions the row has one.

        Where latents are kept, "latents" `[C, s, s]` stand for the images.

        A dropped text is also replaced by the empty prompt's encoding, for nets without a learned "no text".
        """
        seen = self._seen(index)
        row = self.store.row(index, generator)
        chances = torch.rand(2, generator=generator)
        drop_image, drop_text = chances[0] < self.loss.drop_image, chances[1] < self.loss.drop_text
        if drop_text:
            row |= self._null
        drops = {"drop_image": drop_image, "drop_text": drop_text}
        return seen | row | drops | self._levels.draw_level(generator)

    def fixed(self, index: int) -> dict[str, Tensor]:
        """ "levels" uint8 `[S, S, 3]`, or "latents"."""
        if self._latents is not None:
            return self._seen(index)
        return {"levels": center_crop(self.sample(index).image, self.size)}

    def columns(self) -> dict[str, Tensor]:
        """The store's."""
        return self.store.columns()

    def chances(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """ "drop_image", "drop_text" (bool), a noise level, and "said" 0..1: which of the captions."""
        chances = torch.rand(2, count, generator=generator)
        drops = {"drop_image": chances[0] < self.loss.drop_image, "drop_text": chances[1] < self.loss.drop_text}
        levels = self._levels.draw_levels(count, generator)
        return {**drops, **levels, "said": torch.rand(count, generator=generator)}

    def joined(self, rows: dict[str, Tensor], chances: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `HeldDataset.joined`."""
        rows = _without_texts(chosen_texts(rows, chances.pop("said")), chances["drop_text"], self._null)
        if "levels" in rows:
            rows["images"] = rows.pop("levels").permute(0, 3, 1, 2).float() / 127.5 - 1
        return rows | chances

    def _seen(self, index: int) -> dict[str, Tensor]:
        if self._latents is not None:
            return {"latents": self._latents.row(self.store.source(index))}
        return {"images": to_net(center_crop(self.sample(index).image, self.size))}

    def sources(self) -> Sequence[int]:
        """See `StageDataset.sources`."""
        return self.store.sources()

    def sample(self, index: int) -> Sample:
        """The sample of a row."""
        return self.collection.read(self.store.source(index), captions=False)


def _without_texts(rows: dict[str, Tensor], dropped: Tensor, null: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows of a store `[B, …]` with the empty prompt's encoding where the text is dropped `[B]`."""
    filled = {}
    for name, empty in null.items():
        every = rows[name].float() if rows[name].is_floating_point() else rows[name]
        mask = dropped.reshape(-1, *[1] * empty.ndim)
        filled[name] = torch.where(mask, empty.to(every.device, non_blocking=True), every)
    return rows | filled


class UpsamplerDataset:
    """Crops of large images, and the same made small, degraded and enlarged again."""

    def __init__(self, collection: Collection, part: Upsampler, loss: UpsamplerLoss) -> None:
        """For the upsampler `part`: its scale, and whether enlarged images are clamped."""
        self.collection, self.count, self.loss = collection, len(collection), loss
        self.scale, self.clamp, self._levels = part.scale, part.clamp, NoiseLevels(part.diffusion, loss)
        self.noise_shape = (3, loss.crop, loss.crop)

    def sources(self) -> Sequence[int]:
        """See `StageDataset.sources`."""
        return range(self.count)

    def make(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """ "images" and "low" (small, degraded and enlarged again), `[3, C, C]` in -1..1, and a noise level."""
        sample = self.collection.read(index, captions=False)
        images = to_net(random_crop(sample.image, self.loss.size, self.loss.crop, generator))
        small = F.avg_pool2d(images[None], self.scale)
        if self.loss.degrade:
            small = degrade(small, generator)
        low = enlarge(small, self.scale, self.clamp)[0]
        return {"images": images, "low": low} | self._levels.draw_level(generator)
