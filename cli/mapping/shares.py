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
from .paths import absolute, absolute_model

CHECKED = 64
"""Samples that are read at once to see whether they are good."""

CHANGED = (
    "{} is not what this run was begun with: it was changed meanwhile, or this machine has another one there. The same "
    "command begins anew."
)


def write_shards(pool: Pool, data: str, model: str | None, batch: int, folder: Path, numbers: Sequence[int]) -> None:
    """Have workers write shards of embeddings (`train.embeds`) into a folder that all of them reach.

    Raises:
        ValueError, OSError: as of `spread`.
    """
    make = partial(_shard_writer, absolute(data), absolute_model(model), pool.device, batch, folder.absolute())
    done = spread(pool, numbers, make)
    for _ in progress_bar(done, desc="embed", unit="shard", total=len(numbers), disable=None):
        pass


def _shard_writer(data: str, model: str | None, device: str, batch: int, folder: Path) -> Handler:
    from ...unclip_core.families.loading import load_model
    from ...unclip_core.train.embeds import Workers, store_name, write_shards

    _one_thread(device)
    collection, clip = open_images(data), load_model(model).clip
    clip.module.to(device)
    if store_name(collection, clip.adapter) != folder.name:
        raise ValueError(CHANGED.format(f"'{data}' or the model's CLIP"))
    return lambda number: write_shards(collection, clip.adapter, folder, [number], Workers(rank=1, batch=batch))


def evaluate(pool: Pool, plan: Plan, collection: Collection, count: int, bad: MutableMapping[str, str]) -> Gathered:
    """Have workers draw and measure the first `count` good samples, in the batches and with the seeds of one process.

    Raises:
        ValueError, OSError: as of `spread`.
    """
    plan, fingerprint = _anywhere(plan, pool.device), collection.fingerprint()
    with connected(pool):
        good = _good(replace(pool, gpus=0.0), plan, fingerprint, len(collection), count, bad)
        seeds, size = sample_seeds(plan.how.seed, count), plan.how.batch
        firsts = range(0, len(good), size)
        shares = [(good[first : first + size], seeds[first : first + size], first < SHOWN) for first in firsts]
        done = spread(pool, shares, partial(_measurer, plan, fingerprint))
        found = dict(progress_bar(done, desc="evaluate", unit="batch", total=len(shares), disable=None))
    return Gathered.joined([found[number] for number in range(len(shares))])


def _anywhere(plan: Plan, device: str) -> Plan:
    """The plan of workers: they have a device of their own, and another current folder."""
    return replace(
        plan,
        model=absolute_model(plan.model),
        data=absolute(plan.data),
        loras=tuple((absolute(path), strength) for path, strength in plan.loras),
        clip_weights=None if plan.clip_weights is None else absolute(plan.clip_weights),
        device=device,
    )


def _measurer(plan: Plan, fingerprint: str) -> Handler:
    _one_thread(plan.device)
    measurer = Measurer(plan, same_images(plan.data, fingerprint))
    return lambda share: measurer.measure(*share)


def same_images(data: str, fingerprint: str) -> Collection:
    """Open a collection whose images the work's driver has given numbers.

    Raises:
        ValueError: there is none, or it is not as it was: another image may have each number.
    """
    collection = open_images(data)
    if collection.fingerprint() != fingerprint:
        raise ValueError(CHANGED.format(f"'{data}'"))
    return collection


def _good(pool: Pool, plan: Plan, fingerprint: str, total: int, count: int, bad: MutableMapping[str, str]) -> list[int]:
    """The numbers of the first `count` good samples; reads no further than one process would."""
    good: list[int] = []
    start = 0
    while start < total and len(good) < count:
        stop = min(total, start + count - len(good))
        ranges = [range(first, min(stop, first + CHECKED)) for first in range(start, stop, CHECKED)]
        found = dict(spread(pool, ranges, partial(_checker, plan.data, fingerprint, plan.how.source == "text")))
        for number in range(len(ranges)):
            indices, reasons = found[number]
            good += indices
            bad.update(reasons)
        start = stop
    return good


def _checker(data: str, fingerprint: str, captions: bool) -> Handler:
    collection = same_images(data, fingerprint)

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
