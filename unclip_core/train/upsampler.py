"""Training the upsampler: a picture four times as large, from noise and the enlarged small one."""

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import DiffusionSpec
from ..nets.upsampler import UpsamplerNet
from ..pipelines import enlarge
from ..world.render import render
from ..world.scenes import sample_scenes
from .batches import diffuse, logit_normal_times, noise_like, step_generator

DIFFUSION = DiffusionSpec(schedule="cosine", prediction="sample", clip_range=1.0, spacing="trailing")
SCALE = 4


class UpsamplerTraining(nn.Module):
    """An upsampler and its loss on crops; fully convolutional, it then serves pictures of any size."""

    def __init__(self, net: UpsamplerNet, batch: int, seed: int, crop: int = 128, size: int = 256) -> None:
        """Crops of `crop` px from pictures drawn at `size` px."""
        super().__init__()
        self.net, self._batch, self._seed, self._crop, self._size = net, batch, seed, crop, size
        self._table = DIFFUSION.table

    def loss(self, step: int) -> dict[str, Tensor]:
        """The loss of one step."""
        generator = step_generator(self._seed, step)
        weight = self.net.unet.stem.weight
        full = self.pictures(step, weight.device)
        small = degrade(F.avg_pool2d(full, SCALE), generator)
        full, low = self._cropped(full, enlarge(small, SCALE), generator)
        times = logit_normal_times(len(full), DIFFUSION.train_steps, 0.0, 1.2, generator)
        noisy = diffuse(full, times, self._table, noise_like(full, generator))
        noisy = noisy.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        x0 = self.net(noisy, times.to(noisy.device), low.to(weight.dtype)).float()
        return {"loss": (x0 - full).square().mean(), "bicubic": (low - full).square().mean()}

    def pictures(self, step: int, device: torch.device) -> Tensor:
        """The large pictures `[B, 3, S, S]` in -1..1 of a step."""
        scenes = sample_scenes(random.Random(f"upsampler {self._seed} {step}"), self._batch, "trained", 0.6)
        return render(scenes, self._size, device) * 2 - 1

    def _cropped(self, full: Tensor, low: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        top, left = (int(torch.randint(self._size - self._crop + 1, (), generator=generator)) for _ in range(2))
        window = (..., slice(top, top + self._crop), slice(left, left + self._crop))
        return full[window], low[window]


def degrade(small: Tensor, generator: torch.Generator) -> Tensor:
    """Blur and noise of random strength on the small pictures `[B, 3, H, W]`, half of them left as they are.

    "we use gaussian blur" (Ramesh et al. 2022, section 2.1, for the first upsampler); the noise stands for what the
    decoder leaves unfinished.
    """
    strength = torch.rand(len(small), 1, 1, 1, generator=generator).sub(0.5).clamp(min=0).to(small.device) * 2
    kernel = torch.tensor([0.25, 0.5, 0.25], device=small.device)
    window = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    blurry = F.conv2d(F.pad(small, (1, 1, 1, 1), mode="replicate"), window, groups=3)
    noise = torch.randn(small.shape, generator=generator).to(small.device) * 0.06
    return (torch.lerp(small, blurry, strength) + noise * strength).clamp(-1, 1)
