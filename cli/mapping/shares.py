"""`unclip embed --ray` and `unclip evaluate --ray`: the shares that workers do, equal to those of one process."""

from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...unclip_core.data.opening import open_images
from ...unclip_core.data.samples import BadSample, Collection
from ...unclip_core.diffusion.noise import sample_seeds
from ...unclip_core.evaluate.gathering import SHOWN, Gathered
from ...unclip_core.evaluate.measurer import Measurer, Plan
from ...unclip_core.output import progress_bar
from .engine import Handler, Pool, connected, spread

CHECKED = 64
"""Samples that are read at once to see whether they are good."""


def write_shards(pool: Pool, data: str, model: str | None, batch: int, folder: Path, numbers: Sequence[int]) -> None:
    """Have workers write shards of embeddings (`train.embeds`) into a folder that all of them reach.

    Raises:
        ValueError, OSError: as of `spread`.
    """
    make = partial(_shard_writer, data, model, pool.device, batch, folder.absolute())
    done = spread(pool, numbers, make)
    for _ in progress_bar(done, desc="embed", unit="shard", total=len(numbers), disable=None):
        pass


def _shard_writer(data: str, model: str | None, device: str, batch: int, folder: Path) -> Handler:
    from ...unclip_core.families.loading import load_model
    from ...unclip_core.train.embeds import Workers, write_shards

    _one_thread(device)
    collection, clip = open_images(data), load_model(model).clip
    clip.module.to(device)
    return lambda number: write_shards(collection, clip.adapter, folder, [number], Workers(rank=1, batch=batch))


def evaluate(pool: Pool, plan: Plan, collection: Collection, count: int, bad: MutableMapping[str, str]) -> Gathered:
    """Have workers draw and measure the first `count` good samples, in the batches and with the seeds of one process.

    Raises:
        ValueError, OSError: as of `spread`.
    """
    plan = replace(plan, device=pool.device)
    with connected(pool):
        good = _good(replace(pool, gpus=0.0), plan, len(collection), count, bad)
        seeds, size = sample_seeds(plan.how.seed, count), plan.how.batch
        firsts = range(0, len(good), size)
        shares = [(good[first : first + size], seeds[first : first + size], first < SHOWN) for first in firsts]
        done = spread(pool, shares, partial(_measurer, plan))
        found = dict(progress_bar(done, desc="evaluate", unit="batch", total=len(shares), disable=None))
    return Gathered.joined([found[number] for number in range(len(shares))])


def _measurer(plan: Plan) -> Handler:
    _one_thread(plan.device)
    measurer = Measurer(plan)
    return lambda share: measurer.measure(*share)


def _good(pool: Pool, plan: Plan, total: int, count: int, bad: MutableMapping[str, str]) -> list[int]:
    """The numbers of the first `count` good samples; reads no further than one process would."""
    good: list[int] = []
    start = 0
    while start < total and len(good) < count:
        stop = min(total, start + count - len(good))
        ranges = [range(first, min(stop, first + CHECKED)) for first in range(start, stop, CHECKED)]
        found = dict(spread(pool, ranges, partial(_checker, plan.data, plan.how.source == "text")))
        for number in range(len(ranges)):
            indices, reasons = found[number]
            good += indices
            bad.update(reasons)
        start = stop
    return good


def _checker(data: str, captions: bool) -> Handler:
    collection = open_images(data)

    def check(indices: range) -> tuple[list[int], dict[str, str]]:
        good, bad = [], {}
        for index in indices:
            try:
                collection.read(index, captions)
            except BadSample as error:
                bad[error.name] = error.reason
            else:
                good.append(index)
        return good, bad

    return check


def _one_thread(device: str) -> None:
    """A worker has one CPU: more threads would get into each other's way."""
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
