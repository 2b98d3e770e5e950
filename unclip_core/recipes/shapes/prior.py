"""Training the prior: the image embedding itself from a noisy one and the text."""

import torch
from torch import Tensor, nn

from ...diffusion.spec import DiffusionSpec
from ...nets.prior import PriorTransformer
from .batches import WorldBatches, diffuse, noise_like, step_generator

DIFFUSION = DiffusionSpec(schedule="cosine", prediction="sample", clip_range=5.0, spacing="trailing")


class PriorTraining(nn.Module):
    """A prior and its loss, "a mean-squared error loss on this prediction" (Ramesh et al. 2022, eq. 2)."""

    def __init__(self, net: PriorTransformer, batches: WorldBatches, seed: int) -> None:
        """The batches have their share of empty captions, which train the unconditional half of guidance."""
        super().__init__()
        self.net = net
        self._batches, self._seed = batches, seed
        self._table = DIFFUSION.table

    def loss(self, step: int) -> dict[str, Tensor]:
        """The loss of one step, in the normalised space of the embeddings."""
        batch, generator = self._batches.draw(step), step_generator(self._seed, step)
        target = self.net.normalize_embeds(batch.image_embeds).float()
        times = torch.randint(DIFFUSION.train_steps, (len(target),), generator=generator)
        noisy = diffuse(target, times, self._table, noise_like(target, generator))
        dtype = self.net.clip_mean.dtype
        x0 = self.net(
            noisy.to(dtype),
            times.to(noisy.device),
            text_embeds=batch.text.embeds.to(dtype),
            text_states=batch.text.states.to(dtype),
            text_mask=batch.text.mask,
        )
        return {"loss": (x0.float() - target).square().mean()}


def embedding_statistics(batches: WorldBatches, count: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[1, D]` of the image embeddings of `count` batches that no step trains on."""
    embeds = torch.cat([batches.draw(-1 - index).image_embeds for index in range(count)])
    return embeds.mean(dim=0, keepdim=True), embeds.std(dim=0, keepdim=True)
