"""Training CLIP on the world: contrast with hard negatives, and attribute heads that are dropped at export."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...clip.open_clip_adapter import ClipConfig, build_tokenizer, text_states
from ...world.captions import caption, negatives, words
from ...world.render import render
from ...world.scenes import Scene, Thing, sample_scenes, with_unnamed_colors
from ...world.vocabulary import BACKGROUNDS, COLORS, PLACES, SHAPES, SIZES, UNNAMED
from .loop import LoopConfig
from .vocabulary import bpe_merges

EMBED_DIM = 192
CONTEXT = 32
IGNORE = -100
LAYOUT_RADIUS = 3.0
"""Layouts give a radius so many times, so that it weighs as much as a place."""
PARTS = ("shape", "color", "size")


def tiny_clip_config() -> ClipConfig:
    """The bundled CLIP: a ViT of 5 layers (64 px in 8 px patches) and a text transformer of 3, both 192 wide."""
    vocabulary = tuple(sorted(words()))
    merges = bpe_merges(vocabulary)
    vision = {"image_size": 64, "patch_size": 8, "layers": 5, "width": EMBED_DIM, "head_width": 48}
    text = {
        "context_length": CONTEXT,
        "vocab_size": 512 + merges.count("\n") + 1 + 2,
        "layers": 3,
        "width": EMBED_DIM,
        "heads": 4,
    }
    model = {"embed_dim": EMBED_DIM, "vision_cfg": vision, "text_cfg": text}
    half = (0.5, 0.5, 0.5)
    return ClipConfig(model=model, merges=merges, words=vocabulary, mean=half, std=half, normalize=True)


class AttributeHeads(nn.Module):
    """Linear read-outs of an embedding `[B, D]`: what is in the image, and where.

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
    names = ["background", "place", "arrangement"]
    names += [f"{thing}_{part}" for thing in ("first", "second") for part in PARTS]
    labels: dict[str, list[int]] = {name: [] for name in names}
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


def attribute_loss(
    heads: AttributeHeads, embeds: Tensor, scenes: Sequence[Scene], shape_weight: float, layout: bool
) -> Tensor:
    """Mean cross-entropy of the heads on the embeddings' directions, and with `layout` its squared error (times 4)."""
    labels, positions, present = attribute_targets(scenes)
    logits, found = heads(F.normalize(embeds.float(), dim=-1).to(embeds.dtype))
    loss = _weighted_cross_entropy(logits, labels, shape_weight)
    if layout:
        squared = (found - positions.to(embeds.device)).square()
        loss = loss + 4.0 * squared[present.to(embeds.device)].mean()
    return loss


def _weighted_cross_entropy(logits: dict[str, Tensor], labels: dict[str, Tensor], shape_weight: float) -> Tensor:
    losses, weights = [], []
    for name, values in labels.items():
        if (values != IGNORE).any():
            target = values.to(logits[name].device)
            losses.append(F.cross_entropy(logits[name], target, ignore_index=IGNORE))
            weights.append(shape_weight if name.endswith("shape") else 1.0)
    return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum() / len(losses)


def contrastive_loss(images: Tensor, texts: Tensor, wrong: Tensor, log_scale: Tensor) -> Tensor:
    """InfoNCE both ways (Radford et al. 2021, figure 3); `wrong` captions `[M, D]` are among each image's choices."""
    scale = log_scale.float().exp().clamp(max=100)
    images, texts, wrong = (F.normalize(x.float(), dim=-1) for x in (images, texts, wrong))
    logits = scale * images @ torch.cat([texts, wrong]).T
    target = torch.arange(len(images), device=images.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, : len(images)].T, target))


class PatchHeads(nn.Module):
    """What each patch's token `[B, N, W]` says of the thing that the patch lies on: its shape, colour and size.

    Shape is learned from patches long before it is learned from one embedding of the whole image, where it must be
    told of which of two things it is.
    """

    def __init__(self, width: int) -> None:
        """One linear layer for the three attributes."""
        super().__init__()
        self.sizes = {"shape": len(SHAPES), "color": len(COLORS), "size": len(SIZES)}
        self.classes = nn.Linear(width, sum(self.sizes.values()))

    def loss(self, tokens: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Mean cross-entropy over the patches that lie on things, shape counting double."""
        labels = patch_labels(scenes, round(tokens.shape[1] ** 0.5)).to(tokens.device)
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


@dataclass(frozen=True)
class ClipPhase:
    """What a part of CLIP's training minimises.

    Attributes:
        loop: steps and learning rate.
        batch: images a step, and as many hard-negative captions.
        shape_weight: of the shape heads' losses, in relation to the other heads'.
        said_weight: of the attribute loss of the text embedding, in relation to the image embedding's.
        shared_heads: whether the same heads read both embeddings, so that both must code attributes alike.
        patch_weight: of the loss of what each patch's token says of the thing that it lies on.
        unnamed: share of the things that are drawn in colours without a name.
    """

    loop: LoopConfig
    batch: int = 128
    shape_weight: float = 1.0
    said_weight: float = 0.3
    shared_heads: bool = False
    patch_weight: float = 0.0
    unnamed: float = 0.0


class ClipTraining(nn.Module):
    """An open_clip model with attribute heads on both embeddings; `loss(step)` draws its own images."""

    def __init__(self, model: nn.Module, config: ClipConfig, phase: ClipPhase, seed: int) -> None:
        """The data depend on `seed` and the step alone."""
        super().__init__()
        width = int(config.model["embed_dim"])
        self.model, self.heads = model, AttributeHeads(width)
        self.text_heads = self.heads if phase.shared_heads else AttributeHeads(width)
        if phase.patch_weight:
            self.patch_heads = PatchHeads(int(config.model["vision_cfg"]["width"]))
        model.visual.output_tokens = True
        self.phase, self.seed, self.size = phase, seed, int(config.model["vision_cfg"]["image_size"])
        self._tokenizer = build_tokenizer(config)

    def loss(self, step: int) -> dict[str, Tensor]:
        """The loss of one step and its parts."""
        rng = random.Random(f"clip {self.seed} {step}")
        scenes = with_unnamed_colors(sample_scenes(rng, self.phase.batch, "trained"), rng, self.phase.unnamed)
        wrong = [text for scene in scenes for _, text in negatives(scene, rng, 1)]
        device, dtype = self.model.positional_embedding.device, self.model.positional_embedding.dtype
        pixels = (augment(render(scenes, self.size, device), step + self.seed) * 2 - 1).to(dtype)
        images, tokens = self.model.visual(pixels)
        texts, false = self._texts([caption(scene, rng) for scene in scenes] + wrong).chunk(2)
        contrast = contrastive_loss(images, texts, false, self.model.logit_scale)
        seen = attribute_loss(self.heads, images, scenes, self.phase.shape_weight, layout=True)
        said = attribute_loss(self.text_heads, texts, scenes, self.phase.shape_weight, not self.phase.shared_heads)
        losses = {"contrast": contrast, "seen": seen, "said": said}
        loss = contrast + seen + self.phase.said_weight * said
        if self.phase.patch_weight:
            losses["patches"] = self.patch_heads.loss(tokens, scenes)
            loss = loss + self.phase.patch_weight * losses["patches"]
        return {"loss": loss, **losses}

    def _texts(self, prompts: list[str]) -> Tensor:
        ids = self._tokenizer(prompts).to(self.model.positional_embedding.device)
        longest = int((ids.argmax(dim=-1)).max()) + 1
        return text_states(self.model, ids[:, :longest])[1]


def augment(images: Tensor, seed: int) -> Tensor:
    """Slight noise on half of the images `[B, 3, H, W]`: what a decoder draws is never as clean as a rendering."""
    generator = torch.Generator().manual_seed(seed)
    strength = torch.rand(len(images), generator=generator).sub(0.5).clamp(min=0) * 0.16
    noise = torch.randn(images.shape, generator=generator) * strength[:, None, None, None]
    return (images + noise.to(images.device)).clamp(0, 1)
