"""What the ordinary objectives cannot say: CLIP's attribute heads and hard negatives, and the decoder's canvases."""

from typing import Any

import torch
from torch import Tensor, nn

from ...clip.open_clip_adapter import ClipConfig, text_states
from ...diffusion.spec import DiffusionSpec
from ...nets.conditioning import Condition
from ...nets.decoder import DecoderNet
from ...nets.map_conditioner import move_frames
from ...train.losses import contrast
from ...train.objectives import Batch, DiffusionObjective, Values, register_objective
from .attributes import AttributeHeads, PatchHeads, attribute_loss
from .boxes import CanvasReader, foreground_weight, layout_loss
from .phases import ClipPhase


@register_objective("shapes-clip")
class ShapesClipObjective(nn.Module):
    """Contrast with hard negatives, and attribute heads on both embeddings, which are dropped at export."""

    def __init__(self, net: nn.Module, config: ClipConfig, phase: ClipPhase) -> None:
        """Train the open_clip model `net` of that configuration."""
        super().__init__()
        width = int(config.model["embed_dim"])
        self.net, self.heads = net, AttributeHeads(width)
        self.text_heads = self.heads if phase.shared_heads else AttributeHeads(width)
        if phase.patch_weight:
            self.patch_heads = PatchHeads(int(config.model["vision_cfg"]["width"]))
        net.visual.output_tokens = True
        self.phase = phase

    def forward(self, batch: Batch) -> Values:
        """Of a batch of a `ClipSource`: "loss" and its parts "contrast", "image", "text" and perhaps "patches"."""
        phase = self.phase
        images, tokens = self.net.visual(batch["pixels"].to(self.net.positional_embedding.dtype))
        # Captions, and as many hard negatives.
        texts, wrong = text_states(self.net, batch["ids"])[1].chunk(2)
        losses = {
            "contrast": contrast(images, texts, self.net.logit_scale, wrong)["loss"],
            "image": attribute_loss(self.heads, images, batch, phase.shape_weight, layout=True),
            "text": attribute_loss(self.text_heads, texts, batch, phase.shape_weight, layout=not phase.shared_heads),
        }
        loss = losses["contrast"] + losses["image"] + phase.text_weight * losses["text"]
        if phase.patch_weight:
            losses["patches"] = self.patch_heads.loss(tokens, batch["patch_labels"])
            loss = loss + phase.patch_weight * losses["patches"]
        return {"loss": loss, **losses}


@register_objective("shapes-decoder")
class ShapesDecoderObjective(DiffusionObjective):
    """x0 with the foreground weighted up, and what the conditioner's canvases show.

    `reader` reads the things' pixels off the canvases, laid where the things really are. So what a canvas shows is
    learned directly and crisply; through the UNet it would be learned from blurs, since an embedding knows a place to
    2 px only. It is dropped at export. For the same reason the UNet is shown a share of the canvases (the batch's
    "placed") where the things really are: it then learns to draw what a canvas holds where the canvas lies, in place
    of the mean over all the places where the thing may be.
    """

    net: DecoderNet

    def __init__(self, net: DecoderNet, spec: DiffusionSpec, freeze_boxes: bool = False) -> None:
        """Train `net`; with `freeze_boxes` all of it but the layer that finds the boxes."""
        super().__init__(net, spec)
        conditioner: Any = net.params.conditioner
        self.frames = getattr(conditioner, "frames", 0)
        if self.frames:
            net.conditioner.frames.boxes.requires_grad_(not freeze_boxes)
            self.reader = CanvasReader(conditioner.canvas_channels, net.params.unet.patch_size)

    def forward(self, batch: Batch) -> Values:
        """Of a batch of a `DecoderSource`: "loss", "mse", "x0", and of a net with canvases "boxes" and "shown"."""
        condition = self._condition(batch)
        x0 = self.net(self.noisy(batch["images"], batch), batch["times"], self._placed(condition, batch)).float()
        squared = (x0 - batch["images"]).square()
        x0_loss = (squared * foreground_weight(batch["images"])).mean()
        losses = {"loss": x0_loss, "mse": squared.detach().mean(), "x0": x0_loss.detach()}
        if not self.frames:
            return losses
        canvases = self._canvas_losses(batch, condition)
        return losses | canvases | {"loss": x0_loss + canvases["loss"]}

    def _condition(self, batch: Batch) -> Condition:
        return self.net.condition(
            batch["image_embeds"],
            batch["text_embeds"],
            drop_image=batch["drop_image"],
            drop_text=batch["drop_text"],
        )

    def _placed(self, condition: Condition, batch: Batch) -> Condition:
        """The Condition with the boxes of the "placed" samples moved to where their things are."""
        if "placed" not in batch or not self.frames:
            return condition
        chosen = batch["placed"] & ~batch["drop_image"]
        moved = (chosen[:, None] & batch["box_mask"][:, : self.frames])[..., None]
        boxes, wanted = condition["boxes"], batch["boxes"][:, : self.frames]
        return move_frames(condition, torch.where(moved, wanted.to(boxes), boxes.detach()))

    def _canvas_losses(self, batch: Batch, condition: Condition) -> Values:
        wanted, present = batch["boxes"][:, : self.frames], batch["box_mask"][:, : self.frames]
        boxes = layout_loss(condition["boxes"], wanted, present, batch["drop_image"])
        shown = self._shown_loss(batch, condition["canvases"], wanted, present)
        return {"loss": boxes + shown, "boxes": boxes.detach(), "shown": shown.detach()}

    def _shown_loss(self, batch: Batch, canvases: Tensor, wanted: Tensor, present: Tensor) -> Tensor:
        """Squared distance of what the canvases show, laid over the true boxes, from what lies on the background."""
        images, there = batch["images"], present.to(canvases)[:, :, None, None, None]
        shown = self.reader(wanted, canvases * there, images.shape[-1])
        squared = (shown - (images - images[:, :, :1, :1])).square() * foreground_weight(images)
        return (squared * ~batch["drop_image"][:, None, None, None]).mean()


@register_objective("shapes-canvases")
class CanvasObjective(ShapesDecoderObjective):
    """The canvases and their boxes alone, of a net that has them, without diffusion."""

    def forward(self, batch: Batch) -> Values:
        """Of a batch of a `DecoderSource`: "loss", "boxes" and "shown"."""
        return self._canvas_losses(batch, self._condition(batch))
