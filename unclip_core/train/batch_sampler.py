"""Which samples make up each step's batch, from the seed and the step's number alone; and generators by key."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Key = tuple[int, int, int]
"""Step, position in the step's batch, and number of the sample."""


@dataclass(frozen=True)
class Shuffle:
    """The samples of each step, the same however many processes share them.

    Attributes:
        count: samples there are; each epoch has a permutation of its own.
        batch: samples a step, over all processes.
        accumulation: parts that a batch is computed in.
        seed: of the permutations.
        rank: number of this process.
        world: number of processes.
    """

    count: int
    batch: int
    accumulation: int = 1
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("There is no sample to train on.")
        check_share(self.batch, self.accumulation, self.world)

    @property
    def share(self) -> int:
        """Samples that one process computes at once."""
        return self.batch // (self.accumulation * self.world)

    def parts(self, step: int) -> list[list[Key]]:
        """The keys that this process computes in a step, one list for each accumulated part."""
        keys = [(step, place, self._sample(step * self.batch + place)) for place in range(self.batch)]
        blocks = [keys[first : first + self.share] for first in range(0, self.batch, self.share)]
        return blocks[self.rank :: self.world]

    def _sample(self, position: int) -> int:
        epoch, place = divmod(position, self.count)
        return _permutation(self.seed, epoch, self.count)[place]


def check_share(batch: int, accumulation: int, world: int) -> None:
    """Raise ValueError unless a batch can be shared by `world` processes, each in `accumulation` parts."""
    if batch % (accumulation * world):
        raise ValueError(
            f"training.batch {batch} cannot be shared by {world} processes in {accumulation} parts: make it a multiple "
            f"of {world * accumulation}."
        )


class BatchSampler:
    """A batch sampler of torch's DataLoader: the parts of all steps from `first` to `last` (excluded)."""

    def __init__(self, shuffle: Shuffle, first: int, last: int) -> None:
        self.shuffle, self.first, self.last = shuffle, first, last

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.first, self.last):
            yield from self.shuffle.parts(step)

    def __len__(self) -> int:
        return (self.last - self.first) * self.shuffle.accumulation


def generator_of(*what: object) -> torch.Generator:
    """A CPU generator seeded by a hash of all that is given."""
    data = "\0".join(map(str, what)).encode()
    number = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    return torch.Generator().manual_seed(number)


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> list[int]:
    order: Tensor = torch.randperm(count, generator=generator_of("order", seed, epoch))
    return order.tolist()
