"""The loader: a model folder, or the bundled model, as its four parts."""

from pathlib import Path
from typing import Any

from ..unclip_core.models import BUNDLED, load_model
from . import defaults, host, sockets


class UnclipLoadModel:
    """Node: a model by name to CLIP, prior, decoder and upscaler."""

    CATEGORY = "unCLIP/model"
    DESCRIPTION = (
        "Loads an unCLIP model and hands out its four parts. The bundled model needs no download; "
        "others are folders in models/unclip."
    )
    SEARCH_ALIASES = ["unclip", "dall-e 2", "karlo", "load model", "checkpoint", "prior"]
    RETURN_TYPES = (sockets.CLIP, sockets.PRIOR, sockets.DECODER, sockets.UPSCALER)
    RETURN_NAMES = ("clip", "prior", "decoder", "upscaler")
    OUTPUT_TOOLTIPS = (
        "Reads text and images: for CLIP Text Encode and CLIP Image Encode.",
        "Makes an image embedding of a text: for Prior Sample.",
        "Makes a small image of an image embedding: for Decoder Sample.",
        "Enlarges the decoder's image: for Upscale.",
    )
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order; the list is read anew at every refresh."""
        tooltip = "The bundled model, or a folder with a model_index.json in models/unclip."
        return {"required": {"model": (host.model_names(), {"default": defaults.MODEL, "tooltip": tooltip})}}

    @classmethod
    def IS_CHANGED(cls, model: str = defaults.MODEL) -> str:
        """Sizes and times of the model's files: a model trained further under the same name is read again."""
        folder = Path(host.model_path(model) or BUNDLED)
        stats = [(path.name, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
        return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])

    def run(
        self, model: str = defaults.MODEL
    ) -> tuple[sockets.PartValue, sockets.PartValue, sockets.PartValue, sockets.PartValue]:
        """Read the four parts of `model`.

        Raises:
            InputError: no model has that name.
            CheckpointError: its files are missing, damaged or do not fit.
        """
        found = load_model(host.model_path(model))
        parts = (found.clip, found.prior, found.decoder, found.upsampler)
        return tuple(host.manage(part) for part in parts)
