"""Timesteps, noise levels and loss weights that a diffusion net is trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..diffusion.spec import DiffusionSpec
from .loss_config import DiffusionLoss
from .losses import min_snr_weight


class NoiseLevels:
    """Draws the noise level of a sample from a process, as the loss's settings say."""

    def __init__(self, spec: DiffusionSpec, loss: DiffusionLoss) -> None:
        self.spec, self.loss, self._table = spec, loss, spec.table

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        """As `draw_level`, with the "noise" `shape` itself."""
        level = self.draw_level(generator)
        seed = level.pop("noise_seed")
        return level | {"noise": noise_of(seed[None], shape, "cpu")[0]}

    def draw_level(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A timestep "times" with its "alpha_bar" and "weight", and a "noise_seed" (scalars)."""
        time = self._times((), generator)
        seed = torch.randint(2**62, (), generator=generator)
        return {"times": time, **at_times(self._table, time), "weight": self._weights(time), "noise_seed": seed}

    def draw_levels(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """As `draw_level`, of `count` samples together `[count]`, without seeds of noise."""
        times = self._times((count,), generator)
        return {"times": times, **at_times(self._table, times), "weight": self._weights(times)}

    def _times(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        count = self.spec.train_steps
        if self.loss.times == "uniform":
            return torch.randint(count, tuple(shape), generator=generator)
        return logit_normal_times(shape, count, self.loss.times_mean, self.loss.times_std, generator)

    def _weights(self, times: Tensor) -> Tensor:
        if self.loss.weighting == "min_snr":
            return min_snr_weight(self.spec.prediction, self._table[times], self.loss.min_snr_gamma).float()
        return torch.ones(times.shape)


def noise_of(seeds: Tensor, shape: Sequence[int], device: torch.device | str) -> Tensor:
    """Draw Gaussian noise `[B, *shape]` float32 on a device, each sample from its own seed of `seeds` `[B]`.

    So a sample's noise depends neither on its batch nor on the processes that share it, and is not carried to the GPU.
    """
    generator = torch.Generator(device)
    noise = torch.empty(len(seeds), *shape, device=device)
    for row, seed in zip(noise, seeds.tolist(), strict=True):
        row.normal_(generator=generator.manual_seed(seed))
    return noise


def logit_normal_times(
    shape: Sequence[int], train_steps: int, mean: float, std: float, generator: torch.Generator
) -> Tensor:
    """Timesteps int64 whose logit of t/T is normal (Esser et al. 2024, section 3.1); mean > 0 is noisier."""
    position = torch.sigmoid(torch.randn(tuple(shape), generator=generator) * std + mean)
    return (position * train_steps).long().clamp(0, train_steps - 1)


def at_times(table: Tensor, times: Tensor) -> dict[str, Tensor]:
    """ "alpha_bar" at these timesteps, float32."""
    return {"alpha_bar": table[times].float()}
