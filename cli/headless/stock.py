"""Stand-ins for ComfyUI's own nodes: the same ids, inputs and results, files in the folders of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...nodes.image_files import expand_prefix, next_number, png_bytes, read_image, target, write_numbered

FOLDERS = "UNCLIP_FOLDERS"
"""The type of the hidden input by which a stand-in gets the run's folders."""


@dataclass(frozen=True)
class Folders:
    """Where a run writes images, and where it looks for those it loads, in this order."""

    output: Path
    inputs: tuple[Path, ...]

    def find(self, name: str) -> Path | None:
        """The first file of that name or path; None if there is none."""
        return next((folder / name for folder in self.inputs if (folder / name).is_file()), None)


class LoadImage:
    """Loads an image: a path, absolute or below the current folder or the workflow's."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The stock node's inputs."""
        return {"required": {"image": ([], {"image_upload": True})}, "hidden": {"folders": FOLDERS}}

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load_image"
    CATEGORY = "image"

    @classmethod
    def VALIDATE_INPUTS(cls, image: str = "", folders: Folders | None = None) -> bool | str:
        """Whether the file is there."""
        if folders is None or image is None or folders.find(str(image)):
            return True
        looked = ", ".join(str(folder) for folder in folders.inputs)
        return f"there is no image {image} in {looked}."

    def load_image(self, image: str, folders: Folders) -> tuple[Tensor, Tensor]:
        """image [B, H, W, 3] float32 0..1 and mask [B, H, W]. Raises FileNotFoundError, ValueError."""
        path = folders.find(image)
        if path is None:
            raise FileNotFoundError(f"there is no image {image}.")
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
        """Whether the prefix stays inside the output folder."""
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
        """Write `<prefix>_00001_.png` and onward for images [B, H, W, C] float 0..1. Raises SaveError."""
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
        """Write `preview_00001_.png` and onward."""
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
        """A text as it is, other values as JSON or, where that cannot be, as Python writes them."""
        text = source if isinstance(source, str) else _as_text(source)
        return {"ui": {"text": (text,)}, "result": (text,)}


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
        """mask [1, H, W]."""
        return (torch.full((1, height, width), value),)


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
        """mask of the size of `destination` [B, H, W]."""
        result = destination.clone()
        height, width = max(0, result.shape[1] - y), max(0, result.shape[2] - x)
        laid = source[:, :height, :width]
        here = (slice(None), slice(y, y + laid.shape[1]), slice(x, x + laid.shape[2]))
        result[here] = _OPERATIONS[operation](result[here], laid)
        return (result.clamp(0, 1),)


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
    "SolidMask": SolidMask,
    "MaskComposite": MaskComposite,
}
"""The stand-ins by the stock ids."""
