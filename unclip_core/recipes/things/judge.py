"""The judge: a small convolutional net that names what stands in a picture, and in which style it is drawn."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...parsing import MalformedInput
from ...weights.files import load_strictly, load_weights, save_weights
from .crops import CROP, Box, cut, find_box, ground_color, nearest_ground
from .sprites import nearest_color
from .vocabulary import COLORS, PLACES, SHAPE_COLORS, SHAPES, STYLES, concepts

JUDGE_FILE = "judge.safetensors"


@dataclass(frozen=True)
class JudgeParams:
    """The judge's size: channels at 12² and 6² px, width of the features, things and styles that it tells apart."""

    fine: int = 64
    coarse: int = 128
    features: int = 256
    things: int = len(concepts()) + len(SHAPES)
    styles: int = len(STYLES)


class JudgeNet(nn.Module):
    """Crops `[B, 3, 48, 48]` in 0..1 to logits of things (then shapes) `[B, T]` and of styles `[B, S]`."""

    def __init__(self, params: JudgeParams) -> None:
        """Patches of 4 px, one convolution at 12² and one at 6², one layer over all places: made for CPUs."""
        super().__init__()
        self.params = params
        fine, coarse, last = params.fine, params.coarse, 32
        self.trunk = nn.Sequential(
            nn.Conv2d(3, fine, 4, 4),
            nn.GELU(),
            nn.Conv2d(fine, fine, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(fine, coarse, 2, 2),
            nn.GELU(),
            nn.Conv2d(coarse, coarse, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(coarse, last, 1),
            nn.Flatten(),
            nn.Linear(last * (CROP // 8) ** 2, params.features),
            nn.LayerNorm(params.features),
            nn.GELU(),
        )
        self.things = nn.Linear(params.features, params.things)
        self.styles = nn.Linear(params.features, params.styles)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        features = self.trunk((crops - 0.5) * 4)
        return self.things(features), self.styles(features)


@dataclass(frozen=True)
class Verdict:
    """What the judge reads off one thing: things by likelihood (the first five), style, box; no box: nothing there."""

    things: tuple[int, ...]
    shape: int
    style: int
    color: int
    box: Box | None

    @property
    def place(self) -> int:
        """The cell of a 3 × 3 grid that the box's centre lies in."""
        x, y = (0.5, 0.5) if self.box is None else self.box.center
        return PLACES.index(PLACES[3 * min(2, int(3 * y)) + min(2, int(3 * x))])


NOTHING = Verdict((), -1, -1, -1, None)


class Judge:
    """Reads pictures `[3, H, W]` in 0..1."""

    def __init__(self, net: JudgeNet) -> None:
        self.net = net.eval()

    def ground(self, image: Tensor) -> int:
        """The index of the nearest ground."""
        return nearest_ground(ground_color(image))

    @torch.inference_mode()
    def one(self, image: Tensor, most: int = 5) -> Verdict:
        """What stands in a picture, or in a part of it; `most` things are named."""
        image = image.float().cpu()
        ground = ground_color(image)
        box = find_box(image, ground)
        if box is None:
            return NOTHING
        crop = cut(image, box, ground)
        things, styles = self.net(crop[None])
        count = len(concepts())
        named = things[0, :count].topk(most).indices.tolist()
        color = _foreground_color(crop, ground)
        return Verdict(tuple(named), int(things[0, count:].argmax()), int(styles[0].argmax()), color, box)

    def halves(self, image: Tensor, beside: bool, most: int = 5) -> tuple[Verdict, Verdict]:
        """What stands in the left and the right half, or in the upper and the lower one."""
        _, height, width = image.shape
        if beside:
            return self.one(image[:, :, : width // 2], most), self.one(image[:, :, width // 2 :], most)
        return self.one(image[:, : height // 2], most), self.one(image[:, height // 2 :], most)


def _foreground_color(crop: Tensor, ground: Tensor) -> int:
    """The shapes' colour that most pixels far from the ground are nearest to."""
    far = (crop - ground[:, None, None]).square().sum(dim=0).sqrt() > 0.2
    pixels = (crop[:, far] * 255).T.numpy()
    if not len(pixels):
        return -1
    nearest = nearest_color(pixels, list(COLORS.values())[:SHAPE_COLORS])
    return int(torch.from_numpy(nearest).bincount().argmax())


def save_judge(net: JudgeNet, path: Path) -> None:
    """Write a judge in half precision, with its size and the things that it knows."""
    tensors = {name: tensor.half() for name, tensor in net.state_dict().items()}
    save_weights(path, tensors, {**asdict(net.params), "concepts": list(concepts())})


def load_judge(path: Path) -> Judge:
    """Read a judge.

    Raises:
        MalformedInput: it knows other things than this recipe, or there is none.
        CheckpointError: the file is damaged.
    """
    if not path.is_file():
        raise MalformedInput(f"There is no judge '{path}': train one by `unclip data judge`.")
    tensors, config = load_weights(path)
    expected = {**asdict(JudgeParams()), "concepts": list(concepts())}
    if config != expected:
        raise MalformedInput(f"'{path}' is a judge of other things or of another size: train it anew.")
    net = JudgeNet(JudgeParams())
    load_strictly(net, {name: tensor.float() for name, tensor in tensors.items()}, str(path))
    return Judge(net)
