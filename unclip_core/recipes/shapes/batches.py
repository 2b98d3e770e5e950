"""What the stages after CLIP train on: images of the world with the embeddings that the trained CLIP gives them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.adapter import TextCondition
from ...clip.open_clip_adapter import OpenClipAdapter, text_states
from ...world.captions import caption
from ...world.render import render
from ...world.scenes import Scene, sample_scenes, with_unnamed_colors


@dataclass(frozen=True)
class WorldBatch:
    """`B` samples: scenes, images `[B, 3, S, S]` in -1..1, image embeddings `[B, D]`, captions' condition."""

    scenes: list[Scene]
    images: Tensor
    image_embeds: Tensor
    text: TextCondition


class WorldBatches:
    """Draws the batch of a step; the same step of the same seed gives the same batch."""

    def __init__(
        self,
        clip: OpenClipAdapter,
        batch: int,
        seed: int,
        pair_fraction: float,
        empty_captions: float,
        unnamed: float = 0.0,
    ) -> None:
        """`clip` computes in bf16 from here on.

        Shares: `pair_fraction` of scenes with two things, `empty_captions` of captions replaced by the empty one,
        `unnamed` of things in colours without a name.
        """
        self._clip, self._model = clip, clip.model.to(torch.bfloat16)
        self._batch, self._seed = batch, seed
        self._pair_fraction, self._empty, self._unnamed = pair_fraction, empty_captions, unnamed
        self.device = next(self._model.parameters()).device

    @torch.no_grad()
    def draw(self, step: int, size: int | None = None) -> WorldBatch:
        """The batch of `step`, its images `size` px wide (by default as CLIP sees them)."""
        rng = random.Random(f"world {self._seed} {step}")
        scenes = sample_scenes(rng, self._batch, "trained", self._pair_fraction)
        scenes = with_unnamed_colors(scenes, rng, self._unnamed)
        captions = ["" if rng.random() < self._empty else caption(scene, rng) for scene in scenes]
        images = render(scenes, size or self._clip.image_size, self.device) * 2 - 1
        return WorldBatch(scenes, images, self.image_embeds(images), self.text(captions))

    @torch.no_grad()
    def image_embeds(self, images: Tensor) -> Tensor:
        """Unit embeddings `[B, D]`, fp32, of images in -1..1 at CLIP's own size (its mean and std are 0.5)."""
        return F.normalize(self._model.encode_image(images.to(torch.bfloat16)).float(), dim=-1)

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> TextCondition:
        """CLIP's word for the captions."""
        ids = self._clip.tokenize(captions).to(self.device)
        states, pooled = text_states(self._model, ids)
        mask = torch.arange(ids.shape[1], device=self.device)[None] <= ids.argmax(dim=-1)[:, None]
        return TextCondition(F.normalize(pooled.float(), dim=-1), states.float(), mask)


def logit_normal_times(count: int, train_steps: int, mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Timesteps `[count]` int64 whose logit of t/T is normal (Esser et al. 2024, section 3.1); mean > 0 is noisier."""
    position = torch.sigmoid(torch.randn(count, generator=generator) * std + mean)
    return (position * train_steps).long().clamp(0, train_steps - 1)


def diffuse(x0: Tensor, times: Tensor, table: Tensor, noise: Tensor) -> Tensor:
    """x_t = sqrt(alpha-bar) x0 + sqrt(1 - alpha-bar) noise (Ho et al. 2020, eq. 4)."""
    alpha_bar = table[times.cpu()].to(x0.device, torch.float32).view(-1, *[1] * (x0.ndim - 1))
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of x's shape, drawn on the CPU so that it is the same on every device."""
    return torch.randn(x.shape, generator=generator).to(x.device)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of a step, from its number alone."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)
