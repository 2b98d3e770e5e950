"""The CLIP by which images and texts are compared: the model's own, or one of open_clip's with weights from a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..models import Clip
from ..pipelines import embed_text, encode_image
from ..weights.files import CheckpointError


class Encoder(Protocol):
    """Images and texts to vectors of length 1, float64, on the CPU."""

    name: str
    """Its name in reports."""

    def images(self, images: Tensor) -> Tensor:
        """`[B, H, W, 3]` in 0..1 to `[B, D]`."""
        ...

    def texts(self, texts: Sequence[str]) -> Tensor:
        """`B` texts to `[B, D]`."""
        ...


class OwnEncoder:
    """The CLIP of the model that is measured."""

    name = "the model's own CLIP"

    def __init__(self, clip: Clip) -> None:
        self._clip = clip

    def images(self, images: Tensor) -> Tensor:
        """`[B, H, W, 3]` in 0..1 to `[B, D]`."""
        return unit(encode_image(self._clip, images))

    def texts(self, texts: Sequence[str]) -> Tensor:
        """`B` texts to `[B, D]`."""
        return unit(embed_text(self._clip, texts))


class OpenClipEncoder:
    """A CLIP of open_clip's architectures, its weights from a file on this disk."""

    def __init__(self, architecture: str, weights: str | Path, device: torch.device | str = "cpu") -> None:
        """Build it and read its weights.

        Raises:
            CheckpointError: the file is missing or does not fit.
            ValueError: open_clip knows no such architecture.
        """
        import open_clip

        if architecture not in open_clip.list_models():
            raise ValueError(
                f"open_clip knows no architecture {architecture!r}; open_clip.list_models() names all, "
                "such as ViT-B-32."
            )
        self.name, self._device = f"{architecture} ({Path(weights).name})", device
        self._model, self._prepare = _open(architecture, Path(weights))
        self._model.to(device).eval().requires_grad_(False)
        self._tokenize = open_clip.get_tokenizer(architecture)

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """`[B, H, W, 3]` in 0..1 to `[B, D]`, prepared as open_clip does."""
        levels = (images.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        prepared = torch.stack([self._prepare(Image.fromarray(image.numpy())) for image in levels])
        return unit(self._model.encode_image(prepared.to(self._device)))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """`B` texts to `[B, D]`."""
        return unit(self._model.encode_text(self._tokenize(list(texts)).to(self._device)))


def _open(architecture: str, weights: Path) -> tuple[Any, Any]:
    """open_clip's model and its preparation of images; nothing is fetched, and no pickle runs code."""
    from open_clip import create_model_and_transforms

    if not weights.is_file():
        raise CheckpointError(f"Weights are missing: there is no file '{weights}'.")
    try:
        model, _, prepare = create_model_and_transforms(architecture, pretrained=str(weights), weights_only=True)
    except Exception as error:  # open_clip, torch and safetensors raise many kinds here, pickles theirs
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"'{weights}' does not hold weights of open_clip's {architecture} ({reason}).") from error
    return model, prepare


def unit(embeds: Tensor) -> Tensor:
    """Each row of `[B, D]` at length 1, float64, on the CPU."""
    return F.normalize(embeds.detach().cpu().double(), dim=-1)
