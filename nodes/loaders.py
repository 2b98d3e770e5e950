"""The loader: a model folder, or the bundled model, to its parts."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..unclip_core.families.detect import family_of
from ..unclip_core.families.loading import load_model
from ..unclip_core.listing import files_below
from ..unclip_core.models import PARTS, UnclipModel
from ..unclip_core.weights.computing import computing_dtype
from ..unclip_core.weights.files import CheckpointError
from . import defaults, host, sockets
from .inputs import InputError


class UnclipLoadModel:
    """Node: a model by name to CLIP, prior, decoder and upscaler."""

    ID = "UnclipLoadModel"
    DISPLAY_NAME = "Load unCLIP Model"
    CATEGORY = "unCLIP/model"
    DESCRIPTION = (
        "Loads an unCLIP model and hands out its four parts. The bundled model needs no download; "
        "others are folders in models/unclip or models/diffusers (Karlo)."
    )
    SEARCH_ALIASES = [
        "unclip", "load unclip", "dall-e 2", "dalle2", "karlo", "kandinsky", "eclipse", "load model", "checkpoint",
        "prior",
    ]  # fmt: skip
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
        tooltip = (
            "The bundled model of things or of shapes (once called tiny), or a model folder in models/unclip or "
            "models/diffusers."
        )
        dtype = {
            "default": defaults.DTYPE,
            "advanced": True,
            "tooltip": "The numbers' precision. auto: as ComfyUI decides for this machine, fp32 on a CPU.",
        }
        prior = {
            "default": defaults.PRIOR,
            "advanced": True,
            "tooltip": "The folder of the prior, such as one of ECLIPSE. auto: the model's own, or for Kandinsky's "
            "decoders the one that their card names.",
        }
        names = host.model_names()
        return {
            "required": {
                "model": (names, {"default": defaults.MODEL, "tooltip": tooltip}),
                "dtype": (list(defaults.DTYPES), dtype),
            },
            "optional": {"prior": ([defaults.PRIOR, *(n for n in names if n not in host.BUNDLED)], prior)},
        }

    @classmethod
    def IS_CHANGED(
        cls,
        model: str | None = defaults.MODEL,
        dtype: str | None = defaults.DTYPE,
        prior: str | None = defaults.PRIOR,
    ) -> str:
        """Return a hash of the files' names, sizes and times: a model that is trained further is read again.

        A name that comes over a link is None here: it may be any that is listed, so the files of all of them count.
        """
        digest = hashlib.blake2b(digest_size=8)
        listed = host.model_names() if None in (model, prior) else []
        for path in weight_files(*filter(None, (model, prior)), *listed):
            stat = path.stat()
            digest.update(repr((path.name, stat.st_size, stat.st_mtime_ns)).encode())
        return digest.hexdigest()

    def run(
        self, model: str = defaults.MODEL, dtype: str = defaults.DTYPE, prior: str = defaults.PRIOR
    ) -> tuple[sockets.PartValue, sockets.PartValue, sockets.PartValue, sockets.PartValue]:
        """Read the four parts of `model`, with their weights in `dtype`, or the prior of the folder `prior`.

        Raises:
            InputError: no model or dtype has that name.
            CheckpointError: its files are missing, damaged or do not fit, or the prior does not fit the model.
        """
        if dtype not in defaults.DTYPES:
            raise InputError(f"There is no dtype {dtype!r}. There are: {', '.join(defaults.DTYPES)}.")
        host.tell_precision(dtype)
        # At two bytes a number, the size of the largest part at most: all that ComfyUI's rule asks for.
        parameters = max((path.stat().st_size for path in weight_files(model, prior)), default=0) // 2
        other = None if prior == defaults.PRIOR else host.model_path(prior)
        found = load_model(host.model_path(model), host.weight_dtype(dtype, parameters), prior=other)
        clip_dtype = host.weight_dtype(dtype, parameters, text_encoder=True)
        if not found.reader.small:
            found.reader.check()
        return tuple(hand_out(found, name, clip_dtype) for name in PARTS)


def hand_out(model: UnclipModel, name: str, clip_dtype: torch.dtype) -> sockets.PartValue | sockets.LateValue:
    """Return one of the `PARTS`, read now where that is quick; one that the model lacks raises once a stage uses it."""
    if model.reader.small and model.has(name):
        return read_part(model, name, clip_dtype)
    codec = (lambda: model.codec) if name == "decoder" else None
    return sockets.LateValue(model.family, partial(read_part, model, name, clip_dtype), codec)


def read_part(model: UnclipModel, name: str, clip_dtype: torch.dtype) -> sockets.PartValue:
    """Read one of the `PARTS` of `model`, and put it under the host's memory management.

    Raises:
        MissingPart: the model has no such part.
    """
    part = getattr(model, name)
    if name == "clip":
        widens = part.adapter.widens  # others, of open_clip's own layers, compute in what they are held in
        part.module.to(clip_dtype if widens else computing_dtype(clip_dtype, host.text_encoder_device()))
    return host.manage(part)


def weight_files(*names: str) -> list[Path]:
    """List every file of the models of these names, each's sorted; `defaults.PRIOR` names none.

    A folder that one is joined with by itself, as a decoder's card names its prior's, counts too.
    """
    named = [Path(host.model_path(name)) for name in names if name != defaults.PRIOR]
    folders = [each for folder in named for each in (folder, *_beside(folder))]
    return [path for folder in folders for path in files_below(folder) if path.is_file()]


def _beside(folder: Path) -> list[Path]:
    try:
        return family_of(folder).beside(folder)
    except (CheckpointError, OSError):
        return []  # the run says what is wrong with it
