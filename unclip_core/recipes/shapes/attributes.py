"""What CLIP is asked about scenes while it is trained: attributes of the things, read off embeddings and patches."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...world.scenes import Scene, Thing
from ...world.vocabulary import BACKGROUNDS, COLORS, PLACES, SHAPES, SIZES, UNNAMED

EMBED_DIM = 192
IGNORE = -100
LAYOUT_RADIUS = 3.0
"""Layouts give a radius multiplied by this, so that it weighs as much as a place."""
PARTS = ("shape", "color", "size")
HEADS = ("background", "place", "arrangement", *(f"{thing}_{part}" for thing in ("first", "second") for part in PARTS))
"""The heads in the order in which batches hold their labels."""


class AttributeHeads(nn.Module):
    """Linear heads on an embedding `[B, D]`: what is in the image, and where.

    The first thing of a pair is the one further left or, where they stand one above the other, further up.
    """

    def __init__(self, width: int = EMBED_DIM) -> None:
        """Heads for the number of things, their arrangement, and each thing's attributes and layout."""
        super().__init__()
        self.sizes = {"background": len(BACKGROUNDS), "place": len(PLACES), "arrangement": 3}
        for thing in ("first", "second"):
            self.sizes |= {f"{thing}_shape": len(SHAPES), f"{thing}_color": len(COLORS), f"{thing}_size": len(SIZES)}
        self.classes = nn.Linear(width, sum(self.sizes.values()))
        self.layout = nn.Linear(width, 6)
        self.scale = width**0.5

    def forward(self, embeds: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits by name `[B, classes]`, and the layout `[B, 6]` (x, y, radius of both things)."""
        scaled = embeds * self.scale
        logits = self.classes(scaled).float().split(list(self.sizes.values()), dim=-1)
        return dict(zip(self.sizes, logits, strict=True)), self.layout(scaled).float()


def attribute_targets(scenes: Sequence[Scene]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Class labels by head `[B]` (-100 where a head does not apply), the layout `[B, 6]` and its mask."""
    labels: dict[str, list[int]] = {name: [] for name in HEADS}
    layout = torch.zeros(len(scenes), 6)
    present = torch.zeros(len(scenes), 6, dtype=torch.bool)
    for row, scene in enumerate(scenes):
        things, arrangement = _in_reading_order(scene)
        labels["background"].append(scene.background)
        labels["place"].append(IGNORE if scene.place is None else scene.place)
        labels["arrangement"].append(arrangement)
        for index, name in enumerate(("first", "second")):
            thing = things[index] if index < len(things) else None
            for part in PARTS:
                labels[f"{name}_{part}"].append(IGNORE if thing is None else _label(thing, part))
            if thing is not None:
                layout[row, 3 * index : 3 * index + 3] = torch.tensor([thing.x, thing.y, thing.radius * LAYOUT_RADIUS])
                present[row, 3 * index : 3 * index + 3] = True
    return {name: torch.tensor(values) for name, values in labels.items()}, layout, present


def _label(thing: Thing, part: str) -> int:
    return IGNORE if part == "color" and thing.color == UNNAMED else getattr(thing, part)


def _in_reading_order(scene: Scene) -> tuple[list, int]:
    if len(scene.things) == 1:
        return list(scene.things), 0
    first, second = scene.things
    across = abs(first.x - second.x) > abs(first.y - second.y)
    return sorted(scene.things, key=lambda thing: thing.x if across else thing.y), 1 if across else 2


def stacked_targets(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """`attribute_targets` as tensors of a batch: "labels" `[B, heads]`, "layout" `[B, 6]`, "layout_mask" `[B, 6]`."""
    labels, layout, present = attribute_targets(scenes)
    return {
        "labels": torch.stack([labels[name] for name in HEADS], dim=1),
        "layout": layout,
        "layout_mask": present,
    }


def attribute_loss(
    heads: AttributeHeads, embeds: Tensor, targets: Mapping[str, Tensor], shape_weight: float, layout: bool
) -> Tensor:
    """Mean cross-entropy of the heads on the embeddings' directions, and with `layout` its squared error (times 4).

    targets: as `stacked_targets` gives them.
    """
    logits, found = heads(F.normalize(embeds.float(), dim=-1).to(embeds.dtype))
    loss = _weighted_cross_entropy(logits, targets["labels"], shape_weight)
    if layout:
        squared = (found - targets["layout"]).square()
        loss = loss + 4.0 * squared[targets["layout_mask"]].mean()
    return loss


def _weighted_cross_entropy(logits: Mapping[str, Tensor], labels: Tensor, shape_weight: float) -> Tensor:
    losses, weights = [], []
    for name, values in zip(HEADS, labels.unbind(dim=1), strict=True):
        if (values != IGNORE).any():
            losses.append(F.cross_entropy(logits[name], values, ignore_index=IGNORE))
            weights.append(shape_weight if name.endswith("shape") else 1.0)
    return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum() / len(losses)


class PatchHeads(nn.Module):
    """Linear heads on patch tokens `[B, N, W]`: shape, colour and size of the thing that the patch lies on.

    Shape is learned from patches long before it is learned from one embedding of the whole image, which must also
    hold which of two things has it.
    """

    def __init__(self, width: int) -> None:
        """One linear layer for the three attributes."""
        super().__init__()
        self.sizes = {"shape": len(SHAPES), "color": len(COLORS), "size": len(SIZES)}
        self.classes = nn.Linear(width, sum(self.sizes.values()))

    def loss(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the patches that lie on things, shape counting double; `labels` as `patch_labels`."""
        logits = self.classes(tokens).float().split(list(self.sizes.values()), dim=-1)
        losses = [
            F.cross_entropy(logit.flatten(0, 1), labels[..., index].flatten(), ignore_index=IGNORE)
            for index, logit in enumerate(logits)
        ]
        return (2 * losses[0] + losses[1] + losses[2]) / 4


def patch_labels(scenes: Sequence[Scene], grid: int) -> Tensor:
    """Shape, colour and size `[B, grid * grid, 3]` of the thing whose box holds the patch's centre, else -100."""
    labels = torch.full((len(scenes), grid, grid, 3), IGNORE)
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            left, right = _cells(thing.x, thing.radius, grid)
            top, bottom = _cells(thing.y, thing.radius, grid)
            labels[row, top:bottom, left:right] = torch.tensor([_label(thing, part) for part in PARTS])
    return labels.flatten(1, 2)


def _cells(middle: float, radius: float, grid: int) -> tuple[int, int]:
    return max(0, round((middle - radius) * grid)), min(grid, round((middle + radius) * grid))
