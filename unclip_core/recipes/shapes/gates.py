"""What a trained CLIP must show before anything is built on it: attributes by linear heads, and hard negatives."""

import random
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.open_clip_adapter import OpenClipAdapter
from ...embedding.arithmetic import cosine
from ...world.captions import NEGATIVE_KINDS, caption, negatives
from ...world.render import render
from ...world.scenes import Scene, sample_scenes
from .attributes import IGNORE, AttributeHeads, attribute_targets

GATE = 0.95


def fit_heads(clip: OpenClipAdapter, count: int = 12_000, seed: int = 0, steps: int = 600) -> AttributeHeads:
    """Linear heads fitted to the frozen image embeddings of `count` fresh scenes of trained pairs.

    The loss is the sum of the heads' cross-entropies, over all scenes at once, by Adam whose rate falls to zero.
    """
    scenes = sample_scenes(random.Random(f"heads {seed}"), count, "trained")
    embeds = scene_embeds(clip, scenes)
    labels, _, _ = attribute_targets(scenes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = AttributeHeads()
    optimizer = torch.optim.Adam(heads.classes.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        logits, _ = heads(embeds)
        loss = sum(F.cross_entropy(logits[name], values, ignore_index=IGNORE) for name, values in labels.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return heads.requires_grad_(False)


@torch.no_grad()
def clip_gate(clip: OpenClipAdapter, heads: AttributeHeads, count: int, seed: int) -> dict[str, dict[str, float]]:
    """Accuracies on `count` fresh scenes of trained and of held-out pairs: `retrieval`, `head …`, `negative …`.

    Retrieval is among 256 captions. Retrieval does not measure binding; the heads and the negatives do.
    """
    return {
        split: _gate_of_split(clip, heads, count, split, random.Random(f"gate {seed} {split}"))
        for split in ("trained", "held_out")
    }


def failures(results: Mapping[str, Mapping[str, float]], bar: float = GATE) -> list[str]:
    """The trained pairs' figures below the bar, each as a phrase."""
    return [f"{name} {value:.3f}" for name, value in results["trained"].items() if value < bar]


def _gate_of_split(
    clip: OpenClipAdapter, heads: AttributeHeads, count: int, split: str, rng: random.Random
) -> dict[str, float]:
    scenes = sample_scenes(rng, count, split)
    images = scene_embeds(clip, scenes)
    texts = clip.embed_text([caption(scene, rng, full=True) for scene in scenes])
    return (
        {"retrieval": _retrieval(images, texts)}
        | _heads(heads, images, scenes)
        | _negatives(clip, images, texts, scenes, rng)
    )


@torch.no_grad()
def scene_embeds(clip: OpenClipAdapter, scenes: list[Scene]) -> Tensor:
    """Image embeddings `[B, D]` of the scenes' renderings."""
    parts = (scenes[at : at + 128] for at in range(0, len(scenes), 128))
    return torch.cat([clip.encode_image(render(part, clip.image_size).permute(0, 2, 3, 1)) for part in parts])


def _retrieval(images: Tensor, texts: Tensor) -> float:
    groups = zip(images.split(256), texts.split(256), strict=True)
    right = [(image @ text.T).argmax(dim=1) == torch.arange(len(image)) for image, text in groups]
    return float(torch.cat(right).float().mean())


def _heads(heads: AttributeHeads, images: Tensor, scenes: list[Scene]) -> dict[str, float]:
    labels, _, _ = attribute_targets(scenes)
    logits, _ = heads(images)
    found = {}
    for name, values in labels.items():
        asked = values != IGNORE
        found[f"head {name}"] = float((logits[name].argmax(dim=1) == values)[asked].float().mean())
    return found


def _negatives(
    clip: OpenClipAdapter, images: Tensor, texts: Tensor, scenes: list[Scene], rng: random.Random
) -> dict[str, float]:
    true = cosine(images, texts)
    right: dict[str, list[bool]] = defaultdict(list)
    wrong = [negatives(scene, rng, 6, allow_held_out=True) for scene in scenes]
    scores = cosine(images.repeat_interleave(6, 0), clip.embed_text([text for row in wrong for _, text in row]))
    for index, (kind, _) in enumerate(pair for row in wrong for pair in row):
        right[kind].append(bool(true[index // 6] > scores[index]))
    return {f"negative {kind}": sum(right[kind]) / len(right[kind]) for kind in NEGATIVE_KINDS}
