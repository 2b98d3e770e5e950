"""How the judge is trained: on the drawings in their boxes, moved, turned, recoloured, blurred and noised."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ...train.batch_sources import Part
from ...train.config import Training
from ...train.engine import Engine, Hooks
from ...train.processes import OneProcess
from ...train.state import RunFiles
from .crops import CROP, MARGIN
from .judge import JUDGE_FILE, Judge, JudgeNet, JudgeParams, load_judge, save_judge
from .sprites import Sprites, shape_image
from .vocabulary import COLORS, GROUNDS, SHAPE_COLORS, SHAPES, concepts

STEPS, BATCH = 4_000, 128
"""About ten minutes on two cores."""
HELD_SEED = 10**6
"""Batches from this number on are for measuring; no step trains on them."""
SHAPE_SHARE = 1 / 16
CROPS_FILE = "crops.npy"
NO_STYLE = -100


def boxed_sprites(sprites: Sprites, folder: Path) -> np.ndarray:
    """Every drawing in its own box, then every plain shape, uint8 RGBA `[N, 48, 48, 4]`; kept in `folder`."""
    path = folder / CROPS_FILE
    if not path.is_file():
        boxed = [_boxed(Image.fromarray(image)) for image in sprites.stored]
        boxed += [_boxed(shape_image(shape, 0, 128)) for shape in range(len(SHAPES))]
        part = path.with_suffix(".part.npy")
        np.save(part, np.stack(boxed))
        part.replace(path)
    return np.load(path)


def _boxed(image: Image.Image) -> np.ndarray:
    left, top, right, bottom = image.getchannel("A").point(lambda a: 255 * (a > 24)).getbbox() or (0, 0, *image.size)
    half = max(right - left, bottom - top) * (0.5 + MARGIN)
    x, y = (left + right) / 2, (top + bottom) / 2
    square = (round(x - half), round(y - half), round(x + half), round(y + half))
    return np.asarray(image.crop(square).resize((CROP, CROP), Image.Resampling.BICUBIC))


class JudgeBatches:
    """Augmented drawings with their labels, each batch from its number alone."""

    def __init__(self, boxed: np.ndarray, sprites: Sprites, batch: int, seed: int) -> None:
        """Draw from `boxed` as `boxed_sprites` gives it."""
        self._boxed, self._batch, self._seed = boxed, batch, seed
        shapes = range(len(concepts()), len(concepts()) + len(SHAPES))
        self._things = torch.tensor([concept for _, concept in sprites.keys] + list(shapes))
        self._styles = torch.tensor([style for style, _ in sprites.keys] + [NO_STYLE] * len(SHAPES))

    def steps(self, first: int, last: int) -> Iterator[list[Part]]:
        """See `train.batch_sources.BatchSource`."""
        for step in range(first, last):
            yield [self.batch(step)]

    def batch(self, number: int) -> Part:
        """ "crops" `[B, 3, 48, 48]`, "things" `[B]`, "styles" `[B]` (NO_STYLE for shapes)."""
        chance = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        count = len(self._boxed) - len(SHAPES)
        rows = torch.randint(count, (self._batch,), generator=chance)
        shapes = torch.rand(self._batch, generator=chance) < SHAPE_SHARE
        rows[shapes] = count + torch.randint(len(SHAPES), (int(shapes.sum()),), generator=chance)
        pictures = torch.from_numpy(self._boxed[rows.numpy()]).permute(0, 3, 1, 2) / 255
        pictures[shapes, :3] = _colors(int(shapes.sum()), chance)
        return {"crops": augmented(pictures, chance), "things": self._things[rows], "styles": self._styles[rows]}


def _colors(count: int, chance: torch.Generator) -> Tensor:
    palette = torch.tensor(list(COLORS.values())[:SHAPE_COLORS]) / 255
    return palette[torch.randint(SHAPE_COLORS, (count,), generator=chance)][:, :, None, None]


def augmented(pictures: Tensor, chance: torch.Generator) -> Tensor:
    """RGBA `[B, 4, H, W]` moved and turned before random grounds, recoloured, blurred and noised: `[B, 3, H, W]`."""
    moved = _moved(torch.cat([pictures[:, :3] * pictures[:, 3:], pictures[:, 3:]], dim=1), chance)
    count = len(pictures)
    tone = 1 + 0.1 * torch.randn(count, 3, 1, 1, generator=chance)
    shift = 0.04 * torch.randn(count, 3, 1, 1, generator=chance) * moved[:, 3:]
    palette = torch.tensor(list(GROUNDS.values())) / 255
    ground = palette[torch.randint(len(palette), (count,), generator=chance)][:, :, None, None]
    ground = ground + 0.02 * torch.randn(count, 3, 1, 1, generator=chance)
    images = moved[:, :3] * tone + shift + ground * (1 - moved[:, 3:])
    blur = torch.rand(count, 1, 1, 1, generator=chance).square()
    images = images + blur * (F.avg_pool2d(images, 3, 1, 1, count_include_pad=False) - images)
    noise = 0.06 * torch.rand(count, 1, 1, 1, generator=chance).square()
    return (images + noise * torch.randn(images.shape, generator=chance)).clamp(0, 1)


def _moved(pictures: Tensor, chance: torch.Generator) -> Tensor:
    count = len(pictures)
    angle = math.radians(7) * torch.randn(count, generator=chance).clamp(-2, 2)
    size = 1 + 0.09 * (2 * torch.rand(count, 2, generator=chance) - 1)
    move = 0.07 * torch.randn(count, 2, generator=chance).clamp(-2, 2)
    shear = 0.06 * torch.randn(count, generator=chance)
    top = torch.stack([angle.cos() * size[:, 0], -angle.sin() * size[:, 0] + shear, move[:, 0]], dim=1)
    bottom = torch.stack([angle.sin() * size[:, 1], angle.cos() * size[:, 1], move[:, 1]], dim=1)
    grid = F.affine_grid(torch.stack([top, bottom], dim=1), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


class JudgeObjective(nn.Module):
    """Cross-entropy of things, and of styles."""

    def __init__(self, net: JudgeNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Part) -> dict[str, Tensor]:
        """Of a batch of JudgeBatches: "loss", and the share of things named rightly, "accuracy"."""
        things, styles = self.net(batch["crops"])
        named = F.cross_entropy(things, batch["things"], label_smoothing=0.05)
        styled = F.cross_entropy(styles, batch["styles"], ignore_index=NO_STYLE)
        accuracy = (things.argmax(dim=1) == batch["things"]).float().mean()
        return {"loss": named + styled, "accuracy": accuracy}


def train_judge(
    sprites: Sprites, folder: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu", minutes: float = 0.0
) -> Judge:
    """Train the judge into `folder/judge.safetensors` for so many steps, or minutes; a run that was stopped goes on.

    Raises:
        KeyboardInterrupt: interrupted; the checkpoint is written.
    """
    (folder / "judge").mkdir(parents=True, exist_ok=True)
    source = JudgeBatches(boxed_sprites(sprites, folder / "judge"), sprites, BATCH, seed)
    torch.manual_seed(seed)
    objective = JudgeObjective(JudgeNet(JudgeParams()))
    training = Training(
        steps=steps, minutes=minutes, batch=BATCH, optimizer="adamw", lr=2e-3, warmup=50, ema=0.995, weight_decay=0.05
    )
    files = RunFiles(folder / "judge", "judge")
    engine = Engine(objective, source, training, files, OneProcess(torch.device(device)), Hooks(lambda averages: None))
    if not engine.run():
        raise KeyboardInterrupt
    net = JudgeNet(JudgeParams())
    prefix = "net."
    net.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in engine.averaged_state().items()})
    save_judge(net, folder / JUDGE_FILE)
    return load_judge(folder / JUDGE_FILE)


def train_and_measure(sprites: Sprites, folder: Path, steps: int, seed: int, device: str, minutes: float = 0.0) -> str:
    """Train the judge, and say how well it names augmented drawings that no step saw."""
    judge = train_judge(sprites, folder, steps, seed, device, minutes)
    source = JudgeBatches(boxed_sprites(sprites, folder / "judge"), sprites, BATCH, seed)
    found = measure_judge(judge, source, 40)
    return "The judge, on unseen augmentations: " + ", ".join(f"{name} {100 * v:.1f} %" for name, v in found.items())


@torch.inference_mode()
def measure_judge(judge: Judge, source: JudgeBatches, batches: int) -> dict[str, float]:
    """How much of augmented drawings that no step saw the judge names rightly: top-1, top-5, styles."""
    hits: dict[str, list[Tensor]] = {"top1": [], "top5": [], "style": []}
    for number in range(batches):
        batch = source.batch(HELD_SEED + number)
        things, styles = judge.net(batch["crops"])
        five = things.topk(5).indices == batch["things"][:, None]
        styled = batch["styles"] != NO_STYLE
        hits["top1"].append(five[:, 0])
        hits["top5"].append(five.any(dim=1))
        hits["style"].append((styles.argmax(dim=1) == batch["styles"])[styled])
    return {name: torch.cat(found).float().mean().item() for name, found in hits.items()}
