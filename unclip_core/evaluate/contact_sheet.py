"""Contact sheets of an evaluation: the first images of each split, and the first that are not all right."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..plotting.sheets import levels, tiled
from ..world.evaluation import Prompt
from ..world.scenes import SPLITS

COLUMNS, MOST = 8, 64
"""Images in a row of a sheet, and images on a sheet at most."""


class ContactSheets:
    """Collects images while they are judged: the first `MOST` of each split, and of the failures."""

    def __init__(self) -> None:
        """Start with empty sheets: one a split, and `failures`."""
        self._sheets: dict[str, list[Tensor]] = {name: [] for name in (*SPLITS, "failures")}
        self.failed: list[str] = []

    def add(self, prompts: Sequence[Prompt], images: Tensor, scores: Sequence[Mapping[str, bool]]) -> None:
        """Take images `[B, H, W, 3]` in 0..1 with their prompts and scores; the prompts of failures go to `failed`."""
        for (split, _, _, prompt), image, right in zip(prompts, images, scores, strict=True):
            self._keep(split, image)
            if not right["all"] and self._keep("failures", image):
                wrong = ", ".join(name for name in right if not right[name] and name != "all") or "crispness"
                self.failed.append(f"{prompt} ({wrong})")

    def save(self, folder: Path) -> None:
        """Write `<sheet>.png` for each sheet with an image, over an earlier one, and `failures.txt` in its order."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, images in self._sheets.items():
            (folder / f"{name}.png").unlink(missing_ok=True)
            if images:
                Image.fromarray(tiled(images, COLUMNS).numpy()).save(folder / f"{name}.png")
        (folder / "failures.txt").write_text("".join(f"{line}\n" for line in self.failed), encoding="utf-8")

    def _keep(self, name: str, image: Tensor) -> bool:
        """Keep an image if its sheet has room; returns whether it had."""
        room = len(self._sheets[name]) < MOST
        if room:
            self._sheets[name].append(levels(image))
        return room
