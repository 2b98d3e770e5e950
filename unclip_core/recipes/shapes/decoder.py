"""Training the decoder: x0 from a noisy image, CLIP's image embedding and, half of the time, the text's."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...diffusion.spec import DiffusionSpec
from ...nets.conditioning import Condition
from ...nets.decoder import DecoderNet
from ...nets.frames import RADIUS, paste
from ...nets.map_conditioner import move_frames
from ...world.scenes import Scene
from .batches import WorldBatch, WorldBatches, diffuse, logit_normal_times, noise_like, step_generator
from .clip import LAYOUT_RADIUS, attribute_targets
from .loop import LoopConfig

DIFFUSION = DiffusionSpec(schedule="cosine", prediction="sample", clip_range=1.0, spacing="trailing")
DROP_IMAGE, DROP_TEXT = 0.1, 0.5
"""Shares of samples without image embedding and without text (Ramesh et al. 2022, section 2.1)."""
TIMES = (1.5, 1.4)
"""Mean and deviation of the times' logits. Only where noise hides the image is it learned what an embedding means."""


@dataclass(frozen=True)
class DecoderPhase:
    """What a part of the decoder's training minimises.

    Attributes:
        loop: steps and learning rate.
        batch: images a step.
        canvases: whether only the conditioner's canvases and boxes are trained, without diffusion.
        true_boxes: share of samples whose canvases the UNet sees where the things really are.
        still: whether the boxes' layer stays as it is.
        unnamed: share of things in colours without a name.
        noise: up to which length image embeddings are moved: a prior's are never quite right.
    """

    loop: LoopConfig
    batch: int = 48
    canvases: bool = False
    true_boxes: float = 0.0
    still: bool = False
    unnamed: float = 0.25
    noise: float = 0.1


class DecoderTraining(nn.Module):
    """A decoder and its losses on images of the world.

    `show` reads the things' pixels off the canvases, where the things really are. So what a canvas shows is learned
    directly and crisply; through the UNet it would be learned from blurs, since an embedding knows a place to 2 px
    only. It is dropped at export. For the same reason the UNet is shown most canvases (`true_boxes` of them) where the
    things really are: it then learns to draw what a canvas holds where the canvas lies, in place of the mean over all
    the places where the thing may be. A box of the embedding is such a place.
    """

    def __init__(
        self,
        net: DecoderNet,
        batches: WorldBatches,
        seed: int,
        true_boxes: float = 0.0,
        still: bool = False,
        noise: float = 0.1,
    ) -> None:
        """The data and all randomness depend on `seed` and the step alone; the other settings are a DecoderPhase's."""
        super().__init__()
        self.net, self._true_boxes, self._noise = net, true_boxes, noise
        frames = getattr(net.params.conditioner, "frames", 0)
        if frames:
            net.conditioner.frames.boxes.requires_grad_(not still)
        self.show = _Show(net.params.conditioner.canvas_channels, net.params.unet.patch_size) if frames else None
        self._batches, self._seed = batches, seed
        self._table = DIFFUSION.table

    def loss(self, step: int) -> dict[str, Tensor]:
        """The losses of one step of diffusion: of x0, and of the canvases."""
        batch, generator = self._batches.draw(step), step_generator(self._seed, step)
        count, dtype = len(batch.images), self.net.unet.stem.weight.dtype
        times = logit_normal_times(count, DIFFUSION.train_steps, *TIMES, generator)
        noisy = diffuse(batch.images, times, self._table, noise_like(batch.images, generator))
        condition, dropped = self._condition(batch, generator)
        noisy = noisy.to(dtype).contiguous(memory_format=torch.channels_last)
        x0 = self.net(noisy, times.to(noisy.device), self._placed(condition, batch, dropped, generator)).float()
        squared = (x0 - batch.images).square()
        x0_loss = (squared * foreground_weight(batch.images)).mean()
        losses = {"loss": x0_loss, "mse": squared.detach().mean(), "x0": x0_loss.detach()}
        if self.show is None:
            return losses
        canvases = self._canvas_losses(batch, condition, dropped)
        return losses | canvases | {"loss": x0_loss + canvases["loss"]}

    def canvas_loss(self, step: int) -> dict[str, Tensor]:
        """The losses of the canvases and their boxes alone, of a net that has them."""
        batch, generator = self._batches.draw(step), step_generator(self._seed, step)
        return self._canvas_losses(batch, *self._condition(batch, generator))

    def _condition(self, batch: WorldBatch, generator: torch.Generator) -> tuple[Condition, Tensor]:
        """What the net hears, and which samples' image embeddings were dropped."""
        count = len(batch.images)
        dropped = self._drop(count, DROP_IMAGE, generator)
        condition = self.net.condition(
            blurred(batch.image_embeds, generator, self._noise),
            batch.text.embeds,
            drop_image=dropped,
            drop_text=self._drop(count, DROP_TEXT, generator),
        )
        return condition, dropped

    def _placed(
        self, condition: Condition, batch: WorldBatch, dropped: Tensor, generator: torch.Generator
    ) -> Condition:
        """The Condition with the boxes of a share of samples moved to where their things are."""
        if self._true_boxes == 0 or self.show is None:
            return condition
        chosen = self._drop(len(dropped), self._true_boxes, generator) & ~dropped
        boxes = condition["boxes"]
        wanted, present = true_boxes(batch.scenes, boxes.shape[1])
        moved = (chosen[:, None] & present.to(boxes.device))[..., None]
        return move_frames(condition, torch.where(moved, wanted.to(boxes), boxes.detach()))

    def _canvas_losses(self, batch: WorldBatch, condition: Condition, dropped: Tensor) -> dict[str, Tensor]:
        boxes = layout_loss(condition["boxes"], batch.scenes, dropped)
        shown = self._shown_loss(batch, condition["canvases"], dropped)
        return {"loss": boxes + shown, "boxes": boxes.detach(), "shown": shown.detach()}

    def _shown_loss(self, batch: WorldBatch, canvases: Tensor, dropped: Tensor) -> Tensor:
        """Squared distance of what the canvases show, laid over the true boxes, from what lies on the background."""
        wanted, present = true_boxes(batch.scenes, canvases.shape[1])
        present, images = present.to(canvases), batch.images
        shown = self.show(wanted.to(canvases.device), canvases * present[:, :, None, None, None], images.shape[-1])
        squared = (shown - (images - images[:, :, :1, :1])).square() * foreground_weight(images)
        return (squared * ~dropped[:, None, None, None]).mean()

    def _drop(self, count: int, share: float, generator: torch.Generator) -> Tensor:
        return (torch.rand(count, generator=generator) < share).to(self._batches.device)


class _Show(nn.Module):
    """Reads pixels off canvases `[B, K, C, n, n]` laid over boxes `[B, K, 3]`: `[B, 3, size, size]`, float32."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.pixels = nn.Conv2d(channels, 3 * patch**2, 1, bias=False)

    def forward(self, boxes: Tensor, canvases: Tensor, size: int) -> Tensor:
        return F.pixel_shuffle(self.pixels(paste(boxes, canvases, size // self.patch)), self.patch).float()


def true_boxes(scenes: Sequence[Scene], count: int) -> tuple[Tensor, Tensor]:
    """Boxes `[B, count, 3]` (x, y, radius, as fractions of the width) of the things in reading order, and [B, count]
    which there are; a box without a thing lies in the middle.
    """
    _, layout, present = attribute_targets(scenes)
    boxes = layout.view(len(scenes), -1, 3) / torch.tensor([1.0, 1.0, LAYOUT_RADIUS])
    there = present.view_as(boxes)[..., 0].bool()
    boxes = torch.where(there[..., None], boxes, torch.tensor([0.5, 0.5, RADIUS]))
    return boxes[:, :count], there[:, :count]


def layout_loss(boxes: Tensor, scenes: Sequence[Scene], dropped: Tensor) -> Tensor:
    """Mean squared distance of boxes `[B, K, 3]`, in tenths of the width, from the things' in reading order.

    Boxes without a thing, and those of samples whose embedding is `dropped` [B], go where they please.
    """
    wanted, present = true_boxes(scenes, boxes.shape[1])
    counted = (present & ~dropped.cpu()[:, None]).to(boxes.device)[..., None].expand_as(boxes)
    squared = (10 * (boxes - wanted.to(boxes.device))).square()
    return (squared * counted).sum() / counted.sum().clamp(min=1)


def blurred(embeds: Tensor, generator: torch.Generator, most: float) -> Tensor:
    """Unit embeddings moved by noise of a length of up to `most`."""
    strength = torch.rand(len(embeds), 1, generator=generator) * most
    noise = torch.randn(embeds.shape, generator=generator) * strength / embeds.shape[1] ** 0.5
    return F.normalize(embeds + noise.to(embeds.device), dim=-1)


def foreground_weight(images: Tensor, gain: float = 4.0) -> Tensor:
    """Weights `[B, 1, H, W]` of mean 1 that raise what differs from the corner, and 3 px round it, by 1 + `gain`.

    A small thing covers 3 % of the image; unweighted, its shape hardly counts.
    """
    differs = (images - images[:, :, :1, :1]).abs().amax(dim=1, keepdim=True) > 0.1
    near = F.max_pool2d(differs.float(), 7, stride=1, padding=3)
    weight = 1 + gain * near
    return weight / weight.mean(dim=(1, 2, 3), keepdim=True)
