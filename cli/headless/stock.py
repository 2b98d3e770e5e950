"""Stand-ins for ComfyUI's own nodes: the same ids, inputs and results, files in the folders of a run.

Their classes carry what ComfyUI asks of a node class (`INPUT_TYPES`, `RETURN_TYPES`, `FUNCTION` …). Images are
`[B, H, W, C]` and masks `[B, H, W]`, float32 in 0..1.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...nodes.image_files import expand_prefix, next_number, png_bytes, target, write_numbered
from .load_image import read_image
from .problems import cut

FOLDERS = "UNCLIP_FOLDERS"
"""The type of the hidden input by which a stand-in gets the run's folders."""


@dataclass(frozen=True)
class Folders:
    """Where a run writes images, and where it looks for those it loads, in this order."""

    output: Path
    inputs: tuple[Path, ...]

    def find(self, name: str) -> Path | None:
        """Return the first file of that name or path; None if there is none.

        As in ComfyUI "[input]", "[output]" or "[temp]" at a name's end says where it lies. A run has no folder for
        what is temporary: its previews are in the output.
        """
        name, folders = _where(name, self)
        return next((folder / name for folder in folders if _is_file(folder / name)), None)


def _where(name: str, folders: Folders) -> tuple[str, tuple[Path, ...]]:
    """A name without its mark, and the folders that the mark says."""
    for mark, marked in (("[output]", (folders.output,)), ("[temp]", (folders.output,)), ("[input]", folders.inputs)):
        if name.endswith(mark):
            return name.removesuffix(mark).removesuffix(" "), marked
    return name, folders.inputs


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or of characters that no name can have
        return False


class LoadImage:
    """Loads an image by its path, absolute or below the current folder or the workflow's."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The stock node's inputs."""
        return {"required": {"image": ([], {"image_upload": True})}, "hidden": {"folders": FOLDERS}}

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load_image"
    CATEGORY = "image"

    @classmethod
    def VALIDATE_INPUTS(cls, image: str = "", folders: Folders | None = None) -> bool | str:
        """Say which file is not there; True where it is, or where its name comes over a link."""
        if folders is None or image is None or folders.find(str(image)):
            return True
        looked = ", ".join(str(folder) for folder in _where(str(image), folders)[1])
        return f"there is no image {cut(str(image))} in {looked}."

    def load_image(self, image: str, folders: Folders) -> tuple[Tensor, Tensor]:
        """Read images `[B, H, W, 3]` and their mask `[B, H, W]`, 1 where transparent.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it cannot be read as an image.
        """
        path = folders.find(image)
        if path is None:
            raise FileNotFoundError(f"there is no image {cut(image)}.")
        return read_image(path)


class SaveImage:
    """Saves images as PNG below the output folder, with the workflow in them, as the stock node does."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The stock node's inputs."""
        return {
            "required": {"images": ("IMAGE",), "filename_prefix": ("STRING", {"default": "ComfyUI"})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO", "folders": FOLDERS},
        }

    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    FUNCTION = "save_images"
    CATEGORY = "image"
    OUTPUT_NODE = True

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: str = "", folders: Folders | None = None) -> bool | str:
        """Say what is wrong with the prefix; True where files can be called so, inside the output folder."""
        if folders is None or filename_prefix is None:
            return True
        try:
            target(folders.output, filename_prefix)
        except ValueError as error:
            return str(error)
        return True

    def save_images(
        self,
        images: Tensor,
        filename_prefix: str = "ComfyUI",
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
        *,
        folders: Folders,
    ) -> dict[str, Any]:
        """Write `<prefix>_00001_.png` and onward for images `[B, H, W, C]`, C 1, 3 or 4.

        Args:
            images: values outside 0..1 are clipped.
            filename_prefix: a place below the output folder; `%width%`, `%batch_num%` and the like are filled in.
            prompt: the API workflow, put into each image.
            extra_pnginfo: further texts by name, put into each image as JSON.
            folders: those of the run.

        Raises:
            ValueError: there are no images, or no file can be called so.
            SaveError: the disk is full or the folder cannot be written.
        """
        if len(images) == 0:
            raise ValueError("got no images to save.")
        text = ({} if prompt is None else {"prompt": prompt}) | (extra_pnginfo or {})
        height, width = images.shape[1:3]
        folder, stem = target(folders.output, expand_prefix(filename_prefix, width, height, time.localtime()))
        folder.mkdir(parents=True, exist_ok=True)
        number, saved = next_number(folder, stem), []
        for index, image in enumerate(images):
            name = stem.replace("%batch_num%", str(index))
            path, number = write_numbered(png_bytes(image, text), folder, name, number)
            number += 1
            subfolder = path.parent.relative_to(folders.output.resolve()).as_posix()
            place = "" if subfolder == "." else subfolder
            saved.append({"filename": path.name, "subfolder": place, "type": "output"})
        return {"ui": {"images": saved}, "result": (images,)}


class PreviewImage(SaveImage):
    """Saves images named `preview_…`: without a canvas to show them on, a file is the preview."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The stock node's inputs."""
        return {
            "required": {"images": ("IMAGE",)},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO", "folders": FOLDERS},
        }

    FUNCTION = "preview_images"

    @classmethod
    def VALIDATE_INPUTS(cls) -> bool:  # type: ignore[override]  # ComfyUI asks for the inputs that are named
        """Nothing to check: the prefix is fixed."""
        return True

    def preview_images(
        self,
        images: Tensor,
        prompt: dict[str, Any] | None = None,
        extra_pnginfo: dict[str, Any] | None = None,
        *,
        folders: Folders,
    ) -> dict[str, Any]:
        """Write `preview_00001_.png` and onward; as `save_images`."""
        return self.save_images(images, "preview", prompt, extra_pnginfo, folders=folders)


class PreviewAny:
    """Shows any value as text: without a canvas, in the report of the run."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The stock node's inputs."""
        return {"required": {"source": ("*", {})}}

    RETURN_TYPES = ("STRING",)
    FUNCTION = "main"
    CATEGORY = "utilities"
    OUTPUT_NODE = True

    def main(self, source: Any = None) -> dict[str, Any]:
        """Show a text as it is, other values as JSON or, where that cannot be, as Python writes them."""
        text = source if isinstance(source, str) else _as_text(source)
        return {"ui": {"text": (text,)}, "result": (text,)}


class ImageCompare:
    """Two images under a slider on the canvas; here there is none to look at, and nothing is written."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The stock node's inputs; the last is what its slider shows."""
        return {
            "required": {"compare_view": ("IMAGECOMPARE",)},
            "optional": {"image_a": ("IMAGE",), "image_b": ("IMAGE",)},
        }

    RETURN_TYPES = ()
    FUNCTION = "execute"
    CATEGORY = "image"
    OUTPUT_NODE = True

    def execute(
        self, compare_view: Any = None, image_a: Tensor | None = None, image_b: Tensor | None = None
    ) -> dict[str, Any]:
        """Take both, and show nothing."""
        return {"ui": {}, "result": ()}


def _as_text(value: Any) -> str:
    try:
        return json.dumps(value, indent=4, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


class SolidMask:
    """A mask of one value."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The stock node's inputs."""
        edge = {"default": 512, "min": 1, "max": 16384, "step": 1}
        return {
            "required": {
                "value": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
                "width": ("INT", edge),
                "height": ("INT", edge),
            }
        }

    RETURN_TYPES = ("MASK",)
    FUNCTION = "execute"
    CATEGORY = "image/mask"

    def execute(self, value: float, width: int, height: int) -> tuple[Tensor]:
        """Make a mask `[1, height, width]`."""
        return (torch.full((1, 1, 1), value).expand(1, height, width),)  # of any size without memory for it


class MaskComposite:
    """One mask laid on another, its top left corner at x, y."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The stock node's inputs."""
        place = {"default": 0, "min": 0, "max": 16384, "step": 1}
        return {
            "required": {
                "destination": ("MASK",),
                "source": ("MASK",),
                "x": ("INT", place),
                "y": ("INT", place),
                "operation": (list(_OPERATIONS), {"default": "multiply"}),
            }
        }

    RETURN_TYPES = ("MASK",)
    FUNCTION = "execute"
    CATEGORY = "image/mask"

    def execute(self, destination: Tensor, source: Tensor, x: int, y: int, operation: str) -> tuple[Tensor]:
        """Lay `source` `[B, h, w]` (or of one) on a copy of `destination` `[B, H, W]`; what lies outside is cut off."""
        result = destination.clone()
        height, width = max(0, result.shape[1] - y), max(0, result.shape[2] - x)
        laid, combine = source[:, :height, :width], _OPERATIONS[operation]
        for top in range(0, laid.shape[1], _ROWS):
            rows = laid[:, top : top + _ROWS]
            below = result[:, y + top : y + top + rows.shape[1], x : x + rows.shape[2]]
            below.copy_(combine(below, rows))
        return (result.clamp_(0, 1),)


_ROWS = 256  # of a mask that are combined in one go: some operations need several copies

_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "multiply": torch.mul,
    "add": torch.add,
    "subtract": torch.sub,
    "and": lambda a, b: (a.round().bool() & b.round().bool()).float(),
    "or": lambda a, b: (a.round().bool() | b.round().bool()).float(),
    "xor": lambda a, b: (a.round().bool() ^ b.round().bool()).float(),
}


STOCK_NODES: dict[str, type] = {
    "LoadImage": LoadImage,
    "SaveImage": SaveImage,
    "PreviewImage": PreviewImage,
    "PreviewAny": PreviewAny,
    "ImageCompare": ImageCompare,
    "SolidMask": SolidMask,
    "MaskComposite": MaskComposite,
}
"""The stand-ins by the stock ids."""
