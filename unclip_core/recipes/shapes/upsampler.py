"""Training the upsamplers: an image four times as large, from noise and the enlarged small one."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...diffusion.spec import DiffusionSpec
from ...nets.upsampler import UpsamplerNet
from ...pipelines import enlarge
from ...train.degradations import CLEAN, bsr, degrade
from ...world.crops import draw_windows, window_on_outline
from ...world.render import render
from ...world.scenes import Scene, sample_scenes, with_unnamed_colors
from .batches import diffuse, logit_normal_times, noise_like, step_generator

DIFFUSION = DiffusionSpec(schedule="cosine", prediction="sample", clip_range=1.0, spacing="trailing")
SCALE = 4
FLAT = 1e-4
"""Added to a crop's error before it is divided by: in crops with faint edges it is mostly rounding."""


@dataclass(frozen=True)
class UpsamplerTask:
    """What an upsampler is trained for.

    Attributes:
        size: side of the large images, px.
        crop: side of the crops it sees of them, px.
        pairs: share of scenes with two things.
        unnamed: share of things in colours without a name; of an upsampler, no more than the outlines are asked.
        start: share of crops at the last timestep, pure noise, where sampling decides most.
        bsr: whether the small images are corrupted by BSR degradation rather than by blur.
    """

    size: int = 256
    crop: int = 96
    pairs: float = 0.5
    unnamed: float = 0.3
    start: float = 0.3
    bsr: bool = False

    @property
    def cells(self) -> int:
        """Side of the small images, px."""
        return self.size // SCALE


FIRST = UpsamplerTask()
SECOND = UpsamplerTask(size=1024, bsr=True)


class UpsamplerTraining(nn.Module):
    """An upsampler and its loss on crops; fully convolutional, it then serves images of any size.

    The images are flat but for their outlines, so the crops lie on these, and nothing else of an image is drawn.
    """

    def __init__(self, net: UpsamplerNet, batch: int, seed: int, task: UpsamplerTask = FIRST) -> None:
        """Train `net` on `batch` crops a step."""
        super().__init__()
        self.net, self.task, self._batch, self._seed = net, task, batch, seed
        self._table = DIFFUSION.table

    def loss(self, step: int) -> dict[str, Tensor]:
        """The loss of one step: the error as a part of what bicubic enlargement leaves, crop by crop.

        So crops with faint outlines count as much as others, as they do in decibels.
        """
        generator = step_generator(self._seed, step)
        weight = self.net.unet.stem.weight
        full, small = self.crops(step, weight.device)
        low = enlarge(small, SCALE)
        times = self._times(len(full), generator)
        noisy = diffuse(full, times, self._table, noise_like(full, generator))
        noisy = noisy.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        error, bicubic = _error(self.net(noisy, times.to(noisy.device), low), full), _error(low, full)
        return {"loss": (error / (bicubic + FLAT)).mean(), "mse": error.mean(), "bicubic": bicubic.mean()}

    def crops(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """A step's large crops and the small ones that the net sees, [B, 3, S, S] in -1..1.

        Half of the small ones are drawn at their size, half are means of large pixels: an outline differs a little.
        """
        rng = self._rng(step)
        scenes = self._scenes(rng)
        across = self.task.crop // SCALE
        windows = [window_on_outline(scene, rng, self.task.cells, across) for scene in scenes]
        full = draw_windows(scenes, windows, self.task.crop, device) * 2 - 1
        small = F.avg_pool2d(full, SCALE)
        drawn = len(scenes) // 2
        if drawn:
            small[:drawn] = draw_windows(scenes[:drawn], windows[:drawn], across, device) * 2 - 1
        return full, self._corrupted(full, small, rng)

    def images(self, step: int, device: torch.device) -> Tensor:
        """The whole large images `[B, 3, S, S]` in -1..1 of a step."""
        return render(self._scenes(self._rng(step)), self.task.size, device) * 2 - 1

    def _corrupted(self, full: Tensor, small: Tensor, rng: random.Random) -> Tensor:
        if not self.task.bsr:
            return degrade(small, torch.Generator().manual_seed(rng.getrandbits(32)))
        return torch.cat(
            [small[row, None] if rng.random() < CLEAN else bsr(full[row, None], SCALE, rng) for row in range(len(full))]
        )

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        times = logit_normal_times(count, DIFFUSION.train_steps, 0.5, 1.2, generator)
        at_start = torch.rand(count, generator=generator) < self.task.start
        return times.where(~at_start, DIFFUSION.train_steps - 1)

    def _rng(self, step: int) -> random.Random:
        return random.Random(f"upsampler {self.task.size} {self._seed} {step}")

    def _scenes(self, rng: random.Random) -> list[Scene]:
        scenes = sample_scenes(rng, self._batch, "trained", self.task.pairs)
        return with_unnamed_colors(scenes, rng, self.task.unnamed)


def _error(images: Tensor, true: Tensor) -> Tensor:
    """Mean squared error by image, `[B]`."""
    return (images.float() - true).square().mean(dim=(1, 2, 3))
