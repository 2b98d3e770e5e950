"""The CLIP nodes: text and images to CLIP's embeddings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..unclip_core import pipelines
from ..unclip_core.clip.adapter import TextCondition
from ..unclip_core.models import Clip
from . import defaults, host, inputs, sockets
from .images import to_rgb
from .inputs import InputError
from .sockets import EmbeddingValue, PartValue, TextValue


class UnclipTextEncode:
    """Node: a prompt to CLIP's text embedding and token states."""

    ID = "UnclipTextEncode"
    DISPLAY_NAME = "CLIP Text Encode (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Reads a prompt with the model's CLIP, for Prior Sample. "
        "Words that the model has never seen, and a prompt too long for it, are reported on the node."
    )
    SEARCH_ALIASES = ["unclip", "prompt", "text encode", "clip text", "unclip prompt", "dalle2", "karlo"]
    RETURN_TYPES = (sockets.TEXT,)
    RETURN_NAMES = ("text",)
    OUTPUT_TOOLTIPS = ("The prompt as CLIP reads it: its embedding and its token states.",)
    HAS_INTERMEDIATE_OUTPUT = True
    """ComfyUI resends the warnings when it takes the node from its cache."""

    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        tooltip = (
            "What the image shows. The bundled model draws things, one at a time: 'a red apple', 'a fox', 'a panda'."
        )
        return {
            "required": {
                "clip": (sockets.CLIP, {"tooltip": "The CLIP of Load unCLIP Model."}),
                "text": (
                    "STRING",
                    {"default": "", "multiline": True, "dynamicPrompts": True, "tooltip": tooltip},
                ),
            }
        }

    def run(self, clip: PartValue[Clip], text: str = "") -> dict[str, Any]:
        """Encode `text`, with a warning of what the model ignores in it."""
        warnings = prompt_warnings(clip.part, inputs.check_text("text", text))
        with host.loaded(clip) as part:
            condition = pipelines.encode_text(part, [text]).to(host.intermediate_device())
        return host.with_warnings(
            (TextValue(condition, clip.family, (text,)),), warnings, all_well="The model reads the whole prompt."
        )


def prompt_warnings(clip: Clip, text: str) -> list[str]:
    """List what the model ignores in `text`, a sentence each: unknown words, tokens beyond its context length."""
    warnings = []
    if not text.strip():
        warnings.append("The prompt is empty: the image will show anything.")
    if unknown := clip.adapter.unknown_words(text):
        words = ", ".join(f"'{word}'" for word in unknown)
        warnings.append(f"Words or signs that the '{clip.family}' model has never seen, and cannot draw: {words}.")
    if clip.adapter.is_truncated(text):
        length = clip.adapter.context_length
        warnings.append(f"The prompt is too long: the model reads its first {length} tokens only.")
    return warnings


class UnclipTextEncodeLines:
    """Node: every line of a text to an embedding of its own."""

    ID = "UnclipTextEncodeLines"
    DISPLAY_NAME = "CLIP Text Encode Lines (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = "Reads every line of a text as a prompt of its own, with the model's CLIP: many prompts in one batch."
    SEARCH_ALIASES = ["prompts from text", "batch prompts", "list of prompts", "clip text"]
    RETURN_TYPES = (sockets.TEXT,)
    RETURN_NAMES = ("text",)
    OUTPUT_TOOLTIPS = ("The prompts as CLIP reads them, one a line; empty lines are left out.",)
    FUNCTION = "run"
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "clip": (sockets.CLIP, {"tooltip": "The CLIP of Load unCLIP Model."}),
                "lines": (
                    "STRING",
                    {"default": "", "multiline": True, "tooltip": "The prompts, one a line."},
                ),
            }
        }

    def run(self, clip: PartValue[Clip], lines: str = "") -> dict[str, Any]:
        """Encode the lines that are not empty, with warnings of what the model ignores in them."""
        prompts = [line.strip() for line in inputs.check_text("lines", lines).splitlines() if line.strip()]
        if not prompts:
            raise InputError("'lines' holds no prompt: write at least one line.")
        if len(prompts) > defaults.PROMPTS_MAX:
            raise InputError(
                f"'lines' holds {len(prompts):,} prompts; at most {defaults.PROMPTS_MAX:,} are read in one node. "
                "Spread them over several nodes, or queue them row by row (unclip queue --csv)."
            )
        warnings = list(dict.fromkeys(warning for prompt in prompts for warning in prompt_warnings(clip.part, prompt)))
        with host.loaded(clip) as part:
            condition = encode_in_chunks(part, prompts)
        well = f"The model reads all of the {len(prompts)} prompts."
        return host.with_warnings((TextValue(condition, clip.family, tuple(prompts)),), warnings, all_well=well)


def encode_in_chunks(clip: Clip, prompts: Sequence[str]) -> TextCondition:
    """Encode `B` prompts, `PROMPTS_AT_ONCE` at a time, to one condition on the intermediate device."""

    def encode(chunks: Sequence[slice]) -> list[TextCondition]:
        parts = []
        with host.progress(len(chunks), "CLIP") as bar:
            for rows in chunks:
                parts.append(pipelines.encode_text(clip, prompts[rows]).to(host.intermediate_device()))
                bar.advance()
        return parts

    parts = host.halving(encode, len(prompts), defaults.PROMPTS_AT_ONCE, "CLIP")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("embeds", "states", "mask")}
    return replace(parts[0], **joined)


class UnclipImageEncode:
    """Node: images to CLIP image embeddings."""

    ID = "UnclipImageEncode"
    DISPLAY_NAME = "CLIP Image Encode (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Reads images with the model's CLIP. Their embeddings go where a prior's go: "
        "into Decoder Sample for variations, into Embedding Interpolate for blends."
    )
    SEARCH_ALIASES = [
        "clip vision",
        "image encode",
        "img2img",
        "image to image",
        "variation",
        "image variations",
        "unclip image",
        "dalle2",
        "karlo",
    ]
    RETURN_TYPES = (sockets.EMBEDDING,)
    RETURN_NAMES = ("embedding",)
    OUTPUT_TOOLTIPS = ("An image embedding for each image of the batch.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        tooltip = "The images. Each is resized by its shorter edge and cropped to a square at its centre."
        return {
            "required": {
                "clip": (sockets.CLIP, {"tooltip": "The CLIP of Load unCLIP Model."}),
                "image": ("IMAGE", {"tooltip": tooltip}),
            }
        }

    def run(self, clip: PartValue[Clip], image: Tensor) -> tuple[EmbeddingValue]:
        """Encode `image` `[B, H, W, C]` to `B` embeddings."""
        images = to_rgb(image)

        def encode(rows: slice, on_step: host.OnStep) -> Tensor:
            return pipelines.encode_image(clip.part, images[rows])

        with host.loaded(host.seeing(clip)):
            embeds = host.run_in_chunks(encode, len(images), defaults.IMAGES_AT_ONCE, 1, "CLIP")
        return (EmbeddingValue(embeds, clip.family, "image"),)
