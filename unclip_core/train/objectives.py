"""What trainings minimise: modules that take a batch and give named losses, of which "loss" is minimised.

The four nets' ordinary objectives stand here; a recipe registers what these cannot say. An objective is a
`torch.nn.Module` whose parameters that require gradients are trained; where it has a `net`, that is what is saved.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..clip.open_clip_adapter import OpenClipAdapter, text_states
from ..diffusion.denoiser import clean_sample, per_sample
from ..diffusion.forward import add_noise
from ..diffusion.spec import DiffusionSpec
from ..models import PIXELS, ImageCodec
from ..nets.decoder import DecoderNet
from ..nets.prior import PriorTransformer
from ..nets.upsampler import UpsamplerNet
from ..weights.computing import dtype_for
from .losses import contrast, diffusion_loss
from .perceptual import PerceptualLoss

Batch = dict[str, Tensor]
Values = dict[str, Tensor]
O = TypeVar("O", bound=type[nn.Module])  # noqa: E741
_objectives: dict[str, type[nn.Module]] = {}


def register_objective(name: str) -> Callable[[O], O]:
    """Make a class known under a name, for `objective_class`. Raises ValueError where the name is taken."""

    def register(cls: O) -> O:
        if _objectives.setdefault(name, cls) is not cls:
            raise ValueError(f"there is an objective {name!r} already: {_objectives[name].__qualname__}")
        return cls

    return register


def objective_class(name: str) -> type[nn.Module]:
    """The class that is registered under a name. Raises ValueError for an unknown one."""
    if name not in _objectives:
        raise ValueError(f"there is no objective {name!r}; there are {sorted(_objectives)}")
    return _objectives[name]


@register_objective("clip")
class ClipObjective(nn.Module):
    """Contrast of images and captions (Radford et al. 2021, figure 3)."""

    def __init__(self, clip: OpenClipAdapter) -> None:
        super().__init__()
        self.net = clip.model
        mean, std = (torch.tensor(value)[:, None, None] for value in (clip.image_input.mean, clip.image_input.std))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, batch: Batch) -> Values:
        """Of "pixels" `[b, 3, S, S]` in 0..1 and "ids" `[b, T]`: "loss" and the share of right matches, "accuracy".

        "image_embeds" `[b, D]` may stand in place of the pixels: those of an image tower that is not trained.
        """
        texts = text_states(self.net, _trimmed(batch["ids"]))[1]
        return contrast(self.image_embeds(batch), texts, self.net.logit_scale)

    def image_embeds(self, batch: Batch) -> Tensor:
        """The images' embeddings `[b, D]`, computed where the batch has none."""
        if "image_embeds" in batch:
            return batch["image_embeds"]
        return self.net.encode_image((batch["pixels"] - self.mean) / self.std)


def _trimmed(ids: Tensor) -> Tensor:
    """Tokens `[b, T]` up to the end of the longest text; on a GPU, which would be waited for, all of them."""
    if ids.device.type != "cpu":
        return ids
    return ids[:, : int(ids.argmax(dim=1).max()) + 1]


class DiffusionObjective(nn.Module):
    """A net that undoes noise, and the process that the noise is of."""

    def __init__(self, net: nn.Module, spec: DiffusionSpec) -> None:
        super().__init__()
        self.net, self.spec = net, spec

    def noisy(self, x0: Tensor, batch: Batch) -> Tensor:
        """The state that x0 and the batch's "noise" make at its "alpha_bar", in what the net computes in."""
        return add_noise(x0, batch["noise"], batch["alpha_bar"]).to(dtype_for(next(self.net.parameters())))


@register_objective("prior")
class PriorObjective(DiffusionObjective):
    """The image embedding from a noisy one and the text (Ramesh et al. 2022, section 2.2, eq. 2)."""

    net: PriorTransformer

    def forward(self, batch: Batch) -> Values:
        """Of a batch of a `PriorDataset`: "loss" and "mse" in the net's normalised space."""
        x0 = self.net.normalize_embeds(batch["image_embeds"]).float()
        noisy = self.noisy(x0, batch)
        embeds, states = (batch[name].to(noisy.dtype) for name in ("text_embeds", "text_states"))
        raw = self.net(noisy, batch["times"], embeds, states, batch["text_mask"])
        return diffusion_loss(raw, x0, batch, self.spec)


@register_objective("decoder")
class DecoderObjective(DiffusionObjective):
    """The image from a noisy one, the image embedding and the text (Ramesh et al. 2022, section 2.1).

    The diffusion is one of the codec's latents, which the batch may bring along; the codec itself is not trained.
    """

    net: DecoderNet

    def __init__(
        self,
        net: nn.Module,
        spec: DiffusionSpec,
        codec: ImageCodec = PIXELS,
        perceptual: PerceptualLoss | None = None,
        weight: float = 0.0,
    ) -> None:
        """Prepare; `perceptual` counts `weight` times beside the squared error.

        Raises:
            ValueError: there is a perceptual loss, and what is drawn are latents.
        """
        super().__init__(net, spec)
        if perceptual is not None and codec.module is not None:
            raise ValueError("loss.perceptual looks at pixels, and this decoder draws latents: leave it at 0.")
        self._codec, self._weight = codec, weight
        self.perceptual = perceptual
        # Registered, so that it moves to the device with the net.
        self.codec_module = None if codec.module is None else codec.module.requires_grad_(False)

    def forward(self, batch: Batch) -> Values:
        """Of a batch of a `DecoderDataset`: "loss" and "mse"; with a perceptual loss that too, "perceptual"."""
        with torch.no_grad():
            x0 = batch["latents"] if "latents" in batch else self._codec.encode(batch["images"])
        condition = self.net.condition(
            batch["image_embeds"],
            batch["text_embeds"],
            batch["text_states"],
            batch["text_mask"],
            drop_image=batch["drop_image"],
            drop_text=None if self.net.needs_text else batch["drop_text"],
        )
        noisy = self.noisy(x0, batch)
        raw = self.net(noisy, batch["times"], condition)
        values = diffusion_loss(raw, x0, batch, self.spec)
        if self.perceptual is None:
            return values
        mean, level = raw[:, : x0.shape[1]].float(), per_sample(batch["alpha_bar"], x0)
        predicted = clean_sample(self.spec.prediction, mean, noisy.float(), level.sqrt(), (1 - level).sqrt())
        distance = self.perceptual(predicted, x0).mean()
        return values | {"loss": values["loss"] + self._weight * distance, "perceptual": distance.detach()}


@register_objective("upsampler")
class UpsamplerObjective(DiffusionObjective):
    """The large image from a noisy one and the enlarged small one."""

    net: UpsamplerNet

    def forward(self, batch: Batch) -> Values:
        """Of a batch of an `UpsamplerDataset`: "loss" and "mse"."""
        raw = self.net(self.noisy(batch["images"], batch), batch["times"], batch["low"])
        return diffusion_loss(raw, batch["images"], batch, self.spec)
