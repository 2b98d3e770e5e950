"""The node that makes a hint of a picture of the depth."""

from typing import Any

from torch import Tensor

from ..unclip_core.pipelines.depth import depth_hint, is_coloured, is_flat
from . import host
from .images import to_rgb

COLOURED = (
    "The picture is coloured: a depth hint is grey, so its colours were averaged. Take the depth without colours."
)
FLAT = "The picture is of one brightness: it says nothing of the depth."


class UnclipDepthHint:
    """Node: a picture of the depth to a hint for Decoder Sample."""

    ID = "UnclipDepthHint"
    DISPLAY_NAME = "Depth Hint (unCLIP)"
    CATEGORY = "unCLIP/image"
    DESCRIPTION = (
        "Makes a hint of a picture of the depth, of any depth estimator: grey, from black (far) to white (near). "
        "A decoder that was trained with depth (Kandinsky's controlnet-depth) draws by it."
    )
    SEARCH_ALIASES = ["depth", "controlnet", "hint", "depth map", "kandinsky"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("hint",)
    OUTPUT_TOOLTIPS = ("The hint, for Decoder Sample.",)
    HAS_INTERMEDIATE_OUTPUT = True
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        stretch = "Spread the depth over all of black to white, each picture on its own."
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "A picture of the depth, near things bright."}),
                "invert": ("BOOLEAN", {"default": False, "tooltip": "For a picture in which near things are dark."}),
                "stretch": ("BOOLEAN", {"default": True, "tooltip": stretch}),
            }
        }

    def run(self, image: Tensor, invert: bool = False, stretch: bool = True) -> dict[str, Any]:
        """Make a hint `[B, H, W, 3]` in 0..1, of its three channels alike, of each picture `[B, H, W, C]`."""
        pictures = to_rgb(image)
        warnings = [text for text, found in ((COLOURED, is_coloured(pictures)), (FLAT, is_flat(pictures))) if found]
        hint = depth_hint(pictures, invert=bool(invert), stretch=bool(stretch))
        return host.with_warnings((hint,), warnings, all_well="The hint is ready.")
