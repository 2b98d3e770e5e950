"""Noise of a sample, from that sample's own seed: the batch around it changes nothing."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["BatchNoise", "FixedNoise", "Noise", "NoiseSource", "sample_seeds"]

_SEED_RANGE = 2**64


def sample_seeds(seed: int, count: int) -> list[int]:
    """Return the seeds of a batch: ``(seed + i) mod 2**64`` for i < count.

    Any Python int is taken; negative and larger ones wrap around.

    Raises:
        ValueError: ``count`` is negative.
    """
    if count < 0:
        raise ValueError(f"count of seeds must be 0 or more, got {count}")
    return [(seed + i) % _SEED_RANGE for i in range(count)]


class Noise(Protocol):
    """What a sampler draws from."""

    def normal(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return the next standard normal draw `[B, *shape]`; ``shape`` is without the batch."""
        ...


class NoiseSource:
    """One generator a sample: its draws depend on its seed, its stream and the number of the call alone.

    Draws are made on the CPU in float32 and then moved and cast, so every device and precision sees the same noise.
    (torch's CPU generator keeps 32 bits of a seed. The hash spreads all 64 over them, so two given samples share their
    noise with a chance of 2**-32.)

    Args:
        seeds: one int a sample, any value, taken modulo 2**64.
        stream: the stage's name ("prior", "decoder" …), so that stages with equal seeds do not share noise; or one name
            a sample.
    """

    def __init__(self, seeds: Sequence[int], stream: str | Sequence[str] = "") -> None:
        """Seed the generators.

        Raises:
            ValueError: ``seeds`` is empty, or the streams are not as many.
        """
        if len(seeds) == 0:
            raise ValueError("noise needs at least one seed (one a sample)")
        streams = [stream] * len(seeds) if isinstance(stream, str) else stream
        if len(streams) != len(seeds):
            raise ValueError(f"noise of {len(seeds)} samples cannot have {len(streams)} streams: give one, or one each")
        hashes = [_hash(seed, name) for seed, name in zip(seeds, streams, strict=True)]
        self._generators = [torch.Generator("cpu").manual_seed(number) for number in hashes]

    def normal(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return the next standard normal draw `[B, *shape]`; ``shape`` is without the batch."""
        rows = [torch.randn(tuple(shape), generator=g, dtype=torch.float32) for g in self._generators]
        return _moved(torch.stack(rows), device, dtype)


class BatchNoise:
    """One generator for a whole batch of `batch` samples and, handed from stage to stage, for a whole run.

    This is the order in which diffusers draws; so a run with its seed repeats its noise.
    """

    def __init__(self, generator: torch.Generator, batch: int) -> None:
        """Draw from `generator` (on the CPU)."""
        self._generator, self._batch = generator, batch

    def normal(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return the next standard normal draw `[B, *shape]`; ``shape`` is without the batch."""
        return _moved(torch.randn((self._batch, *shape), generator=self._generator), device, dtype)


class FixedNoise:
    """Hands out given draws in order, each `[B, …]`: for parity tests and replays."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Keep the draws."""
        self._draws = list(tensors)
        self._next = 0

    def normal(
        self, shape: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return the next given draw.

        Raises:
            ValueError: none is left or its shape is not `[B, *shape]`.
        """
        if self._next >= len(self._draws):
            raise ValueError(f"all {len(self._draws)} fixed draws of noise are used up")
        draw = self._draws[self._next]
        self._next += 1
        if tuple(draw.shape[1:]) != tuple(shape):
            raise ValueError(f"draw {self._next} has shape {tuple(draw.shape[1:])}, asked for {tuple(shape)}")
        return _moved(draw, device, dtype)


def _moved(draw: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """The draw in that dtype on the device.

    To a CUDA device it goes from pinned memory, and nothing waits: a plain copy would first wait for all steps before
    it, and leave the device idle while the next step is prepared.
    """
    draw = draw.to(dtype)
    if draw.device.type == "cpu" and torch.device(device).type == "cuda":
        return draw.pin_memory().to(device, non_blocking=True)
    return draw.to(device)


def _hash(seed: int, stream: str) -> int:
    """Return 64 bits of BLAKE2b over (seed mod 2**64, stream)."""
    data = (seed % _SEED_RANGE).to_bytes(8, "little") + stream.encode("utf-8")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
