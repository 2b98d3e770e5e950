"""Training the decoder: x0 from a noisy picture, CLIP's image embedding and, half of the time, the text's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import DiffusionSpec
from ..nets.decoder import DecoderNet
from ..world.scenes import Scene
from .batches import WorldBatches, diffuse, logit_normal_times, noise_like, step_generator
from .clip import LAYOUT_RADIUS, attribute_targets

DIFFUSION = DiffusionSpec(schedule="cosine", prediction="sample", clip_range=1.0, spacing="trailing")
DROP_IMAGE, DROP_TEXT = 0.1, 0.5
"""Shares of samples without image embedding and without text (Ramesh et al. 2022, section 2.1)."""
TIMES = (1.5, 1.4)
"""Mean and deviation of the times' logits. Only where noise hides the picture is it learned what an embedding means."""


class DecoderTraining(nn.Module):
    """A decoder and its loss on pictures of the world."""

    def __init__(self, net: DecoderNet, batches: WorldBatches, seed: int) -> None:
        """The data and all randomness depend on `seed` and the step alone."""
        super().__init__()
        self.net = net
        self._batches, self._seed = batches, seed
        self._table = DIFFUSION.table

    def loss(self, step: int) -> dict[str, Tensor]:
        """The loss of one step."""
        batch, generator = self._batches.draw(step), step_generator(self._seed, step)
        count, dtype = len(batch.pictures), self.net.unet.stem.weight.dtype
        times = logit_normal_times(count, DIFFUSION.train_steps, *TIMES, generator)
        noisy = diffuse(batch.pictures, times, self._table, noise_like(batch.pictures, generator))
        drop = self._drop(count, DROP_IMAGE, generator)
        condition = self.net.condition(
            blurred(batch.image_embeds, generator), batch.text.embeds,
            drop_image=drop, drop_text=self._drop(count, DROP_TEXT, generator),
        )
        noisy = noisy.to(dtype).contiguous(memory_format=torch.channels_last)
        x0 = self.net(noisy, times.to(noisy.device), condition).float()
        weight = foreground_weight(batch.pictures)
        squared = (x0 - batch.pictures).square()
        losses = {"loss": (squared * weight).mean(), "mse": squared.detach().mean()}
        if "boxes" in condition:
            boxes = layout_loss(condition["boxes"], batch.scenes, drop)
            losses |= {"loss": losses["loss"] + boxes, "boxes": boxes.detach()}
        return losses

    def _drop(self, count: int, share: float, generator: torch.Generator) -> Tensor:
        return (torch.rand(count, generator=generator) < share).to(self._batches.device)


def layout_loss(boxes: Tensor, scenes: Sequence[Scene], dropped: Tensor) -> Tensor:
    """Mean squared distance of boxes `[B, K, 3]`, in tenths of the width, from the things' in reading order.

    Boxes without a thing, and those of samples whose embedding is `dropped` [B], go where they please.
    """
    _, layout, present = attribute_targets(scenes)
    wanted = layout.view(len(boxes), -1, 3) / torch.tensor([1.0, 1.0, LAYOUT_RADIUS])
    counted = (present.view_as(wanted) & ~dropped.cpu()[:, None, None]).to(boxes.device)
    squared = (10 * (boxes[:, : wanted.shape[1]] - wanted.to(boxes.device))).square()
    return (squared * counted).sum() / counted.sum().clamp(min=1)


def blurred(embeds: Tensor, generator: torch.Generator, most: float = 0.1) -> Tensor:
    """Unit embeddings moved by noise of a length of up to `most`: a prior's embeddings are never quite right."""
    strength = torch.rand(len(embeds), 1, generator=generator) * most
    noise = torch.randn(embeds.shape, generator=generator) * strength / embeds.shape[1] ** 0.5
    return F.normalize(embeds + noise.to(embeds.device), dim=-1)


def foreground_weight(pictures: Tensor, gain: float = 4.0) -> Tensor:
    """Weights `[B, 1, H, W]` of mean 1 that raise what differs from the corner, and 3 px round it, by 1 + `gain`.

    A small thing covers 3 % of the picture; unweighted, its shape hardly counts.
    """
    differs = (pictures - pictures[:, :, :1, :1]).abs().amax(dim=1, keepdim=True) > 0.1
    near = F.max_pool2d(differs.float(), 7, stride=1, padding=3)
    weight = 1 + gain * near
    return weight / weight.mean(dim=(1, 2, 3), keepdim=True)
