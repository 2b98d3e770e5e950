"""Batches of samples that all lie on the device: read once, then put together there, without waiting for anything."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.samples import BadSample
from .batch_sampler import Key, Shuffle, generator_of
from .batch_sources import Part
from .config import Training
from .datasets import HeldDataset
from .progress import Progress

READ = 256
"""Samples that a process reads before it hands them on."""


class DeviceBatches:
    """Batches of a stage's samples, as of `SampledBatches`, from tables on the device.

    A sample's randomness depends on the seed, its step and its position in the batch alone, here too; but the numbers
    are others than those of `SampledBatches`, because those of a step are drawn together.
    """

    def __init__(self, samples: HeldDataset, rows: Sequence[int], training: Training, processes: Any) -> None:
        """Read the samples of these rows to the device.

        Raises:
            ValueError: none can be used, or the batch cannot be shared.
            torch.OutOfMemoryError: they are too many for the device.
        """
        self._samples, self._training, self._device = samples, training, processes.device
        self._world = processes.num_processes * training.accumulation
        self._tables, self._bad = read_tables(samples, rows, training.workers, processes.device)
        self._shuffle = Shuffle(
            len(next(iter(self._tables.values()))),
            training.batch,
            training.accumulation,
            training.seed,
            processes.process_index,
            processes.num_processes,
        )
        self._noise_of = lru_cache(maxsize=1)(self._drawn_noise)
        self._chances_of = lru_cache(maxsize=1)(self._drawn_chances)

    def steps(self, first: int, last: int) -> Iterator[list[Part]]:
        """See `BatchSource.steps`."""
        for step in range(first, last):
            parts = [self._part(step, keys) for keys in self._shuffle.parts(step)]
            if step == first:
                parts[0]["bad"] = list(self._bad.items())
            yield parts

    def _part(self, step: int, keys: list[Key]) -> Part:
        wanted = torch.tensor([row for _, _, row in keys]).to(self._device, non_blocking=True)
        own = slice(keys[0][1], keys[-1][1] + 1)
        chances = {
            name: values[own].to(self._device, non_blocking=True) for name, values in self._chances_of(step).items()
        }
        part = self._samples.joined({name: table[wanted] for name, table in self._tables.items()}, chances)
        return part if self._samples.noise_shape is None else part | {"noise": self._noise_of(step)[own]}

    def _drawn_chances(self, step: int) -> dict[str, Tensor]:
        generator = generator_of("chances", self._training.seed, step)
        return self._samples.chances(self._training.batch, generator)

    def _drawn_noise(self, step: int) -> Tensor:
        """The noise of the whole batch, whoever computes which part of it: one launch in place of one a sample."""
        seed = generator_of("noise", self._training.seed, step).initial_seed()
        generator = torch.Generator(self._device).manual_seed(seed)
        shape = self._samples.noise_shape or ()
        return torch.randn(self._training.batch, *shape, generator=generator, device=self._device)


def read_tables(
    samples: HeldDataset, rows: Sequence[int], workers: int, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tables `[N, …]` of the good samples among `rows`, on the device; and name → reason of the bad ones.

    What differs in length, as the captions of an image do, is filled up with zeros; "lengths" `[N]` then tell how long
    it was.

    Raises:
        ValueError: no sample is good.
    """
    found: list[dict[str, Tensor]] = []
    good: list[int] = []
    bad: dict[str, str] = {}
    groups = [list(rows[at : at + READ]) for at in range(0, len(rows), READ)]
    reading: Any = _Fixed(samples)
    loader = torch.utils.data.DataLoader(reading, batch_sampler=groups, num_workers=workers, collate_fn=_grouped)
    with Progress("read", "sample", len(rows)) as progress:
        for indices, tables, problems in loader:
            good += indices
            bad |= problems
            if indices:
                found.append(tables)
            progress.update(len(good) + len(bad))
    if not good:
        name, reason = next(iter(bad.items()), ("", "there are none"))
        raise ValueError(f"None of the {len(rows):,} samples can be used; the first, '{name}': {reason}.")
    chosen = torch.tensor(good)
    tables = {name: _same_length([part.pop(name) for part in found]).to(device) for name in list(found[0])}
    return tables | {name: column[chosen].to(device) for name, column in samples.columns().items()}, bad


class _Fixed:
    """What has to be read of samples, in the form that a DataLoader takes."""

    def __init__(self, samples: HeldDataset) -> None:
        self._samples = samples

    def __getitem__(self, index: int) -> tuple[int, dict[str, Tensor] | BadSample]:
        try:
            return index, self._samples.fixed(index)
        except BadSample as error:
            return index, error


def _grouped(
    rows: list[tuple[int, dict[str, Tensor] | BadSample]],
) -> tuple[list[int], dict[str, Tensor], dict[str, str]]:
    """The good ones' numbers and tables, and the bad ones."""
    bad = {row.name: row.reason for _, row in rows if isinstance(row, BadSample)}
    good = [(index, row) for index, row in rows if not isinstance(row, BadSample)]
    if not good:
        return [], {}, bad
    tables = {}
    for name in good[0][1]:
        values = [row[name] for _, row in good]
        if name.startswith("every_"):
            tables["lengths"] = torch.tensor([len(value) for value in values])
            values = list(torch.nn.utils.rnn.pad_sequence(values, batch_first=True))
        tables[name] = torch.stack(values)
    return [index for index, _ in good], tables, bad


def _same_length(parts: list[Tensor]) -> Tensor:
    """Join tables `[n, …]`; those whose second side differs are filled up with zeros."""
    if parts[0].ndim < 2:
        return torch.cat(parts)
    longest = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(p, (0, 0) * (p.ndim - 2) + (0, longest - p.shape[1])) for p in parts])
