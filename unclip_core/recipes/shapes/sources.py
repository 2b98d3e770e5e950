"""The recipe's data: scenes of the world, rendered while training, with all randomness from the seed and the step."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.adapter import TextCondition
from ...clip.open_clip_adapter import ClipConfig, OpenClipAdapter, build_tokenizer, text_states
from ...diffusion.spec import DiffusionSpec
from ...train.batch_sources import Part
from ...train.noise_levels import at_times, logit_normal_times
from ...weights.computing import computing_dtype
from ...world.captions import caption, negatives
from ...world.render import render
from ...world.scenes import Scene, sample_scenes, with_unnamed_colors
from .attributes import patch_labels, stacked_targets
from .boxes import true_boxes
from .phases import ClipPhase, DecoderPhase

DROP_IMAGE, DROP_TEXT = 0.1, 0.5
"""Shares of samples without image embedding and without text (Ramesh et al. 2022, section 2.1)."""
TIMES = (1.5, 1.4)
"""Mean and deviation of the times' logits. Only where noise hides the image is it learned what an embedding means."""
PAIRS = 0.6
"""Share of scenes with two things, of prior and decoder."""


class StepSource(ABC):
    """A `BatchSource` whose steps are whole batches, drawn from the step's number."""

    def steps(self, first: int, last: int) -> Iterator[list[Part]]:
        """See `BatchSource.steps`."""
        for step in range(first, last):
            yield [self.batch(step)]

    @abstractmethod
    def batch(self, step: int) -> Part:
        """The batch of a step."""


class ClipSource(StepSource):
    """Scenes as CLIP sees them, captions, hard negatives and attributes."""

    def __init__(self, config: ClipConfig, phase: ClipPhase, seed: int, device: torch.device | str = "cpu") -> None:
        """Draw for the CLIP of `config`, as `phase` says."""
        vision = config.model["vision_cfg"]
        self._size, self._grid = int(vision["image_size"]), int(vision["image_size"]) // int(vision["patch_size"])
        self._phase, self._seed, self._device = phase, seed, device
        self._tokenizer = build_tokenizer(config)

    def batch(self, step: int) -> Part:
        """ "pixels" `[B, 3, S, S]` in -1..1, "ids" `[2B, T]` of captions and then of hard negatives, and labels."""
        phase, rng = self._phase, random.Random(f"clip {self._seed} {step}")
        scenes = with_unnamed_colors(sample_scenes(rng, phase.training.batch, "trained"), rng, phase.unnamed)
        wrong = [text for scene in scenes for _, text in negatives(scene, rng, 1)]
        pixels = add_slight_noise(render(scenes, self._size, self._device), step + self._seed) * 2 - 1
        ids = self._tokenizer([caption(scene, rng) for scene in scenes] + wrong)
        longest = int(ids.argmax(dim=-1).max()) + 1
        labels = {"patch_labels": patch_labels(scenes, self._grid)} if phase.patch_weight else {}
        return {"pixels": pixels, "ids": ids[:, :longest]} | stacked_targets(scenes) | labels


@dataclass(frozen=True)
class WorldBatch:
    """`B` samples: scenes, images `[B, 3, S, S]` in -1..1, image embeddings `[B, D]`, captions' condition."""

    scenes: list[Scene]
    images: Tensor
    image_embeds: Tensor
    text: TextCondition


class WorldBatches:
    """Images of the world with the embeddings that the trained CLIP gives them, by step."""

    def __init__(
        self,
        clip: OpenClipAdapter,
        batch: int,
        seed: int,
        pair_fraction: float = PAIRS,
        empty_captions: float = 0.0,
        unnamed: float = 0.0,
    ) -> None:
        """`clip` computes in bf16 from here on, or in float32 where a CPU would emulate that.

        Shares: `pair_fraction` of scenes with two things, `empty_captions` of captions replaced by the empty one,
        `unnamed` of things in colours without a name.
        """
        self._dtype = computing_dtype(torch.bfloat16, clip.device)
        self._clip, self._model = clip, clip.model.to(self._dtype)
        self._batch, self._seed = batch, seed
        self._pair_fraction, self._empty, self._unnamed = pair_fraction, empty_captions, unnamed
        self.device = next(self._model.parameters()).device

    @torch.no_grad()
    def draw(self, step: int) -> WorldBatch:
        """The batch of `step`, its images as wide as CLIP sees them."""
        rng = random.Random(f"world {self._seed} {step}")
        scenes = sample_scenes(rng, self._batch, "trained", self._pair_fraction)
        scenes = with_unnamed_colors(scenes, rng, self._unnamed)
        captions = ["" if rng.random() < self._empty else caption(scene, rng) for scene in scenes]
        images = render(scenes, self._clip.image_size, self.device) * 2 - 1
        return WorldBatch(scenes, images, self.image_embeds(images), self.text(captions))

    @torch.no_grad()
    def image_embeds(self, images: Tensor) -> Tensor:
        """Unit embeddings `[B, D]`, fp32, of images in -1..1 at CLIP's own size (its mean and std are 0.5)."""
        return F.normalize(self._model.encode_image(images.to(self._dtype)).float(), dim=-1)

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> TextCondition:
        """CLIP's encoding of the captions."""
        ids = self._clip.tokenize(captions).to(self.device)
        states, pooled = text_states(self._model, ids)
        mask = torch.arange(ids.shape[1], device=self.device)[None] <= ids.argmax(dim=-1)[:, None]
        return TextCondition(F.normalize(pooled.float(), dim=-1), states.float(), mask)


class PriorSource(StepSource):
    """Embeddings of the world's images and captions, at uniform timesteps."""

    def __init__(self, batches: WorldBatches, spec: DiffusionSpec, seed: int) -> None:
        self._batches, self._spec, self._table, self._seed = batches, spec, spec.table, seed

    def batch(self, step: int) -> Part:
        """A batch of the objective "prior"."""
        drawn, generator = self._batches.draw(step), step_generator(self._seed, step)
        count = len(drawn.image_embeds)
        times = torch.randint(self._spec.train_steps, (count,), generator=generator)
        noise = torch.randn(drawn.image_embeds.shape, generator=generator)
        text = {"text_embeds": drawn.text.embeds, "text_states": drawn.text.states, "text_mask": drawn.text.mask}
        level = {"times": times, **at_times(self._table, times), "weight": torch.ones(count), "noise": noise}
        return {"image_embeds": drawn.image_embeds} | text | level


class DecoderSource(StepSource):
    """Images of the world with their embeddings, noised, and where their things are."""

    def __init__(self, batches: WorldBatches, spec: DiffusionSpec, phase: DecoderPhase, seed: int) -> None:
        self.batches, self._spec, self._table = batches, spec, spec.table
        self._phase, self._seed = phase, seed

    def batch(self, step: int) -> Part:
        """A batch of the objectives "shapes-decoder" and "shapes-canvases"."""
        drawn, generator = self.batches.draw(step), step_generator(self._seed, step)
        count, phase = len(drawn.images), self._phase
        part = {"images": drawn.images.contiguous(memory_format=torch.channels_last)}
        if phase.objective != "shapes-canvases":
            part |= self._noise_level(drawn.images.shape, generator)
        part["drop_image"] = _chosen(count, DROP_IMAGE, generator)
        part["image_embeds"] = blurred(drawn.image_embeds, generator, phase.embed_noise)
        part |= {"text_embeds": drawn.text.embeds, "drop_text": _chosen(count, DROP_TEXT, generator)}
        if phase.true_boxes:
            part["placed"] = _chosen(count, phase.true_boxes, generator)
        boxes, present = true_boxes(drawn.scenes, 2)
        return part | {"boxes": boxes, "box_mask": present}

    def _noise_level(self, shape: torch.Size, generator: torch.Generator) -> Part:
        times = logit_normal_times(shape[:1], self._spec.train_steps, *TIMES, generator)
        noise = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
        return {"times": times, **at_times(self._table, times), "noise": noise}


def blurred(embeds: Tensor, generator: torch.Generator, most: float) -> Tensor:
    """Unit embeddings moved by noise of a length of up to `most`."""
    strength = torch.rand(len(embeds), 1, generator=generator) * most
    noise = torch.randn(embeds.shape, generator=generator) * strength / embeds.shape[1] ** 0.5
    return F.normalize(embeds + noise.to(embeds.device), dim=-1)


def add_slight_noise(images: Tensor, seed: int) -> Tensor:
    """Noise on half of the images `[B, 3, H, W]`: what a decoder draws is never as clean as a rendering."""
    generator = torch.Generator().manual_seed(seed)
    strength = torch.rand(len(images), generator=generator).sub(0.5).clamp(min=0) * 0.16
    noise = torch.randn(images.shape, generator=generator) * strength[:, None, None, None]
    return (images + noise.to(images.device)).clamp(0, 1)


def embedding_statistics(batches: WorldBatches, count: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[1, D]` of the image embeddings of `count` batches that no step trains on."""
    embeds = torch.cat([batches.draw(-1 - index).image_embeds for index in range(count)])
    return embeds.mean(dim=0, keepdim=True), embeds.std(dim=0, keepdim=True)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of a step, from its number alone."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def _chosen(count: int, share: float, generator: torch.Generator) -> Tensor:
    """A random `share` of the samples, bool `[count]`."""
    return torch.rand(count, generator=generator) < share
