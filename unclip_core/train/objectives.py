"""The losses of the four nets on a batch, as modules that an engine can wrap."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..clip.open_clip_adapter import OpenClipAdapter, text_states
from ..diffusion.spec import DiffusionSpec
from ..nets.decoder import DecoderNet
from ..nets.layers import AddedKVAttention, ResBlock
from ..nets.prior import PriorBlock, PriorTransformer
from ..nets.upsampler import UpsamplerNet
from .losses import contrast, diffusion_loss, noised

Batch = dict[str, Tensor]
Values = dict[str, Tensor]
RECOMPUTED = (PriorBlock, ResBlock, AddedKVAttention)
"""The blocks whose activations are computed again on the way back, where that is asked for."""


class ClipStage(nn.Module):
    """Contrast of images and captions (Radford et al. 2021, figure 3)."""

    def __init__(self, clip: OpenClipAdapter) -> None:
        super().__init__()
        self.net = clip.model
        mean, std = (torch.tensor(value)[:, None, None] for value in (clip.image_input.mean, clip.image_input.std))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, batch: Batch) -> Values:
        """Of "pixels" `[b, 3, S, S]` in 0..1 and "ids" `[b, T]`: "loss" and the share found again, "accuracy"."""
        images = self.net.encode_image((batch["pixels"] - self.mean) / self.std)
        return contrast(images, text_states(self.net, batch["ids"])[1], self.net.logit_scale)


class DiffusionStage(nn.Module):
    """A net that undoes noise, and the process that the noise is of."""

    def __init__(self, net: nn.Module, spec: DiffusionSpec) -> None:
        super().__init__()
        self.net, self.spec = net, spec


class PriorStage(DiffusionStage):
    """The image embedding from a noisy one and the text (Ramesh et al. 2022, section 2.2, eq. 2)."""

    net: PriorTransformer

    def forward(self, batch: Batch) -> Values:
        """Of a batch of PriorItems: "loss" and "mse" in the net's normalised space."""
        x0 = self.net.normalize_embeds(batch["image_embeds"])
        noisy = noised(x0, batch["noise"], batch["alpha_bar"])
        raw = self.net(noisy, batch["times"], batch["text_embeds"], batch["text_states"], batch["text_mask"])
        return diffusion_loss(raw, x0, batch, self.spec)


class DecoderStage(DiffusionStage):
    """The image from a noisy one, the image embedding and the text (Ramesh et al. 2022, section 2.1)."""

    net: DecoderNet

    def forward(self, batch: Batch) -> Values:
        """Of a batch of DecoderItems: "loss" and "mse"."""
        noisy = noised(batch["images"], batch["noise"], batch["alpha_bar"])
        condition = self.net.condition(
            batch["image_embeds"],
            batch["text_embeds"],
            batch["text_states"],
            batch["text_mask"],
            drop_image=batch["drop_image"],
            drop_text=None if self.net.needs_text else batch["drop_text"],
        )
        return diffusion_loss(self.net(noisy, batch["times"], condition), batch["images"], batch, self.spec)


class UpsamplerStage(DiffusionStage):
    """The large image from a noisy one and the enlarged small one."""

    net: UpsamplerNet

    def forward(self, batch: Batch) -> Values:
        """Of a batch of UpsamplerItems: "loss" and "mse"."""
        noisy = noised(batch["images"], batch["noise"], batch["alpha_bar"])
        raw = self.net(noisy, batch["times"], batch["low"])
        return diffusion_loss(raw, batch["images"], batch, self.spec)


def recompute_activations(net: nn.Module) -> int:
    """Let a net's blocks forget their activations and compute them again on the way back; returns how many do.

    Weights and their names stay as they are. open_clip's nets have a switch of their own.
    """
    if hasattr(net, "set_grad_checkpointing"):
        net.set_grad_checkpointing(True)
        return 1
    blocks = [module for module in net.modules() if isinstance(module, RECOMPUTED)]
    for block in blocks:
        block.forward = _Recomputed(block.forward)
    return len(blocks)


class _Recomputed:
    """Calls a block so that only its inputs are kept for the way back."""

    def __init__(self, forward: object) -> None:
        self.forward = forward

    def __call__(self, *inputs: object, **named: object) -> Tensor:
        if not torch.is_grad_enabled():
            return self.forward(*inputs, **named)
        return checkpoint(self.forward, *inputs, use_reentrant=False, **named)
