"""The upsamplers' data: crops of large images along outlines, and the same made small and degraded."""

import random

import torch
from torch import Tensor
from torch.nn import functional as F

from ...diffusion.spec import DiffusionSpec
from ...families.native.presets import TINY_SCALE
from ...pipelines import enlarge
from ...train.batch_sources import Part
from ...train.degradations import CLEAN, bsr, degrade
from ...train.noise_levels import at_times, logit_normal_times
from ...world.crops import draw_windows, window_on_outline
from ...world.render import render
from ...world.scenes import Scene, sample_scenes, with_unnamed_colors
from .phases import UpsamplerPhase
from .sources import StepSource, step_generator

FLAT = 1e-4
"""Added to a crop's bicubic error before dividing by it: in crops with faint edges that is mostly rounding."""
TIMES = (0.5, 1.2)
"""Mean and deviation of the times' logits."""


class UpsamplerSource(StepSource):
    """Crops for a fully convolutional upsampler, which then serves images of any size.

    The images are flat but for their outlines, so the crops lie on these, and nothing else of an image is drawn.
    """

    def __init__(
        self, phase: UpsamplerPhase, spec: DiffusionSpec, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self._phase, self._spec, self._table = phase, spec, spec.table
        self._seed, self._device = seed, device

    def batch(self, step: int) -> Part:
        """A batch of the objective "upsampler".

        "weight" makes the loss the error as a part of what bicubic enlargement leaves, crop by crop: so crops with
        faint outlines count as much as others, as they do in decibels.
        """
        generator = step_generator(self._seed, step)
        full, small = self.crops(step)
        low = enlarge(small, TINY_SCALE)
        times = self._times(len(full), generator)
        noise = torch.randn(full.shape, generator=generator)
        weight = 1 / ((low - full).square().mean(dim=(1, 2, 3)) + FLAT)
        images, noise = (x.contiguous(memory_format=torch.channels_last) for x in (full, noise))
        level = {"times": times, **at_times(self._table, times), "noise": noise}
        return {"images": images, "low": low, "weight": weight} | level

    def crops(self, step: int) -> tuple[Tensor, Tensor]:
        """A step's large crops and the small ones that the net sees, [B, 3, S, S] in -1..1.

        Half of the small ones are drawn at their size, half are means of large pixels: an outline differs a little.
        """
        rng, phase = self._rng(step), self._phase
        scenes = self._scenes(rng)
        across = phase.crop // TINY_SCALE
        windows = [window_on_outline(scene, rng, phase.size // TINY_SCALE, across) for scene in scenes]
        full = draw_windows(scenes, windows, phase.crop, self._device) * 2 - 1
        small = F.avg_pool2d(full, TINY_SCALE)
        drawn = len(scenes) // 2
        if drawn:
            small[:drawn] = draw_windows(scenes[:drawn], windows[:drawn], across, self._device) * 2 - 1
        return full, self._degraded(full, small, rng)

    def images(self, step: int) -> Tensor:
        """The whole large images `[B, 3, S, S]` in -1..1 of a step."""
        return render(self._scenes(self._rng(step)), self._phase.size, self._device) * 2 - 1

    def _degraded(self, full: Tensor, small: Tensor, rng: random.Random) -> Tensor:
        if not self._phase.bsr:
            return degrade(small, torch.Generator().manual_seed(rng.getrandbits(32)))
        rows = range(len(full))
        return torch.cat(
            [small[row, None] if rng.random() < CLEAN else bsr(full[row, None], TINY_SCALE, rng) for row in rows]
        )

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        times = logit_normal_times((count,), self._spec.train_steps, *TIMES, generator)
        at_last = torch.rand(count, generator=generator) < self._phase.last_step
        return times.where(~at_last, self._spec.train_steps - 1)

    def _rng(self, step: int) -> random.Random:
        return random.Random(f"upsampler {self._phase.size} {self._seed} {step}")

    def _scenes(self, rng: random.Random) -> list[Scene]:
        scenes = sample_scenes(rng, self._phase.training.batch, "trained", self._phase.pairs)
        return with_unnamed_colors(scenes, rng, self._phase.unnamed)
