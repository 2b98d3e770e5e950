"""Where the engine gets its batches from: people's own data by samples, or whatever a recipe draws."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch

from .batch_sampler import BatchSampler, Shuffle
from .config import Training
from .datasets import KeyedDataset, StageDataset, collate
from .noise_levels import noise_of

Part = dict[str, Any]
"""Tensors by name; "bad", where it is there, lists (name, reason) of samples that could not be used."""


class BatchSource(Protocol):
    """The batches of a training."""

    def steps(self, first: int, last: int) -> Iterator[list[Part]]:
        """What this process computes in each of the steps first..last - 1: one `Part` for each accumulated part.

        A step's batch must depend on its number alone, so that a resumed training sees the same.
        """
        ...


class SampledBatches:
    """Batches of a stage's samples, shuffled anew each epoch and shared among the processes."""

    def __init__(self, samples: StageDataset, training: Training, processes: Any) -> None:
        """Share the samples. Raises ValueError where the batch cannot be shared, or there is no sample."""
        self._samples, self._training, self._device = samples, training, processes.device
        self._shuffle = Shuffle(
            samples.count,
            training.batch,
            training.accumulation,
            training.seed,
            processes.process_index,
            processes.num_processes,
        )

    def steps(self, first: int, last: int) -> Iterator[list[Part]]:
        """See `BatchSource.steps`."""
        loader = torch.utils.data.DataLoader(
            KeyedDataset(self._samples, self._training.seed),
            batch_sampler=BatchSampler(self._shuffle, first, last),
            collate_fn=collate,
            num_workers=self._training.workers,
            pin_memory=self._device.type == "cuda",
        )
        parts: list[Part] = []
        for part in loader:
            parts.append(with_noise(part, self._samples.noise_shape, self._device))
            if len(parts) == self._training.accumulation:
                yield parts
                parts = []


def with_noise(part: Part, shape: tuple[int, ...] | None, device: torch.device) -> Part:
    """Draw the "noise" of a batch on the device, by its "noise_seed"; without a shape nothing is drawn."""
    if shape is None:
        return part
    return {**part, "noise": noise_of(part.pop("noise_seed"), shape, device)}
