"""The nodes that read text and images with CLIPs of ComfyUI's own loaders."""

from typing import Any

from torch import Tensor

from ..unclip_core import pipelines
from . import defaults, host, inputs, sockets
from .clip import prompt_warnings
from .images import to_rgb
from .sockets import EmbeddingValue, TextValue
from .stock_adapter import stock_clip


def check_tower(tower: Any) -> str:
    """Return the choice of a text encoder. Raises InputError if it is none."""
    return inputs.check_choice("tower", tower, defaults.STOCK_TOWERS)


def check_crop(crop: Any) -> str:
    """Return the choice of how images are made square. Raises InputError if it is none."""
    return inputs.check_choice("crop", crop, defaults.STOCK_CROPS)


TOWER_WIDGET = (
    list(defaults.STOCK_TOWERS),
    {
        "default": defaults.STOCK_TOWER,
        "advanced": True,
        "tooltip": "Which of the CLIP's text encoders reads. auto: clip_g before clip_h before clip_l.",
    },
)


class UnclipStockTextEncode:
    """Node: a prompt to the text embedding of a stock CLIP."""

    ID = "UnclipStockTextEncode"
    DISPLAY_NAME = "Stock CLIP Text Encode (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Reads a prompt with a CLIP of ComfyUI's own loaders, such as SDXL's: for Text Diff and Embedding Similarity, "
        "and for priors that were trained with the same CLIP."
    )
    SEARCH_ALIASES = ["clip text", "sdxl", "clip_g", "text encode", "revision", "text embedding"]
    RETURN_TYPES = (sockets.TEXT,)
    RETURN_NAMES = ("text",)
    OUTPUT_TOOLTIPS = ("The prompt as that CLIP reads it: its projected embedding and its token states.",)
    FUNCTION = "run"
    HAS_INTERMEDIATE_OUTPUT = True
    VALIDATE_INPUTS = inputs.checking(tower=check_tower)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        tooltip = "What the image shows. Weights of words, as in (red:1.5), are not read."
        return {
            "required": {
                "clip": (sockets.STOCK_CLIP, {"tooltip": "Of Load Checkpoint (SDXL, SD 2.x) or Load CLIP."}),
                "text": ("STRING", {"default": "", "multiline": True, "dynamicPrompts": True, "tooltip": tooltip}),
                "tower": TOWER_WIDGET,
            }
        }

    def run(self, clip: Any, text: str = "", tower: str = defaults.STOCK_TOWER) -> dict[str, Any]:
        """Encode `text`, with a warning of what is cut off, and of weights that were not trained."""
        value = stock_clip(clip, tower=check_tower(tower))
        warnings = prompt_warnings(value.part, inputs.check_text("text", text))
        condition = pipelines.encode_text(value.part, [text])
        warnings += value.part.adapter.doubts()
        said = f"{value.part.adapter.tower}, family '{value.family}'."
        return host.with_warnings((TextValue(condition, value.family, (text,)),), warnings, said)


class UnclipStockImageEncode:
    """Node: images to the image embeddings of a stock CLIP_VISION."""

    ID = "UnclipStockImageEncode"
    DISPLAY_NAME = "Stock CLIP Vision Encode (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Reads images with a CLIP_VISION of ComfyUI's own loaders. Their embeddings can be blended, edited and "
        "compared, and go back to SDXL, Stable Cascade or SD 2.1 unCLIP by To CLIP Vision Output."
    )
    SEARCH_ALIASES = ["clip vision", "image encode", "revision", "sdxl", "cascade", "image embedding", "bigg"]
    RETURN_TYPES = (sockets.EMBEDDING, sockets.EMBEDDING)
    RETURN_NAMES = ("embedding", "zero")
    OUTPUT_TOOLTIPS = (
        "An image embedding for each image of the batch, the very numbers of CLIP Vision Encode.",
        "The embedding of the zero picture, which stands for no image: a negative for Kandinsky and SDXL.",
    )
    FUNCTION = "run"
    VALIDATE_INPUTS = inputs.checking(crop=check_crop)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "clip_vision": (
                    sockets.STOCK_VISION,
                    {"tooltip": "Of Load CLIP Vision: ViT-L (768), ViT-H (1024) or ViT-bigG (1280)."},
                ),
                "image": ("IMAGE", {"tooltip": "The images. Each is resized and made square for the encoder."}),
                "crop": (
                    list(defaults.STOCK_CROPS),
                    {
                        "default": defaults.STOCK_CROP,
                        "advanced": True,
                        "tooltip": "center: cut to a square. none: squashed into one.",
                    },
                ),
            }
        }

    def run(
        self, clip_vision: Any, image: Tensor, crop: str = defaults.STOCK_CROP
    ) -> tuple[EmbeddingValue, EmbeddingValue]:
        """Encode `image` `[B, H, W, C]` to `B` embeddings, and the zero picture to one."""
        images, value = to_rgb(image), stock_clip(clip_vision=clip_vision)
        adapter, cut = value.part.adapter, check_crop(crop) == defaults.STOCK_CROP

        def encode(rows: slice, on_step: host.OnStep) -> Tensor:
            return adapter.encode_image(images[rows], cut)

        embeds = host.run_in_chunks(encode, len(images), defaults.IMAGES_AT_ONCE, 1, "CLIP")
        zero = EmbeddingValue(adapter.encode_zero_picture(), value.family, "zero picture")
        return EmbeddingValue(embeds, value.family, "image"), zero


class UnclipStockClip:
    """Node: a stock CLIP as the pack's other nodes take one."""

    ID = "UnclipStockClip"
    DISPLAY_NAME = "Stock CLIP (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Makes a CLIP of ComfyUI's own loaders one for this pack's nodes: CLIP Describe, CLIP Text Encode Lines, "
        "Rerank, From CLIP Vision Output."
    )
    SEARCH_ALIASES = ["convert clip", "clip adapter", "sdxl clip", "clip vision", "describe"]
    RETURN_TYPES = (sockets.CLIP,)
    RETURN_NAMES = ("clip",)
    OUTPUT_TOOLTIPS = ("Reads what is connected: text, images, or both. It passes no gradients.",)
    FUNCTION = "run"
    HAS_INTERMEDIATE_OUTPUT = True
    VALIDATE_INPUTS = inputs.checking(tower=check_tower)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        vision = "Of Load CLIP Vision, the same CLIP's image encoder. May be left open."
        return {
            "required": {"tower": TOWER_WIDGET},
            "optional": {
                "clip": (sockets.STOCK_CLIP, {"tooltip": "Of Load Checkpoint or Load CLIP. May be left open."}),
                "clip_vision": (sockets.STOCK_VISION, {"tooltip": vision}),
            },
        }

    def run(self, tower: str = defaults.STOCK_TOWER, clip: Any = None, clip_vision: Any = None) -> dict[str, Any]:
        """Wrap what is connected; its weights stay with ComfyUI."""
        value = stock_clip(clip, clip_vision, check_tower(tower))
        warnings = value.part.adapter.doubts() if clip is not None else []
        return host.with_warnings((value,), warnings, f"Family '{value.family}'.")
