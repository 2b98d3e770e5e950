"""Read our own model folders: `model_index.json` and a safetensors file a component, with its configuration."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from ...models import PARTS, Clip, Decoder, Prior, Upsampler
from ...weights.files import CheckpointError, load_weights
from ..registry import INDEX
from ..statistics import STATISTICS
from .index import read_index
from .parts import build_clip, build_decoder, build_prior, build_second_upsampler, build_upsampler

P = TypeVar("P", Prior, Decoder, Upsampler)
Read = tuple[str, dict[str, torch.Tensor], dict[str, Any], str]


class NativeFolder:
    """A folder of this format; its index is read once, its parts one by one."""

    small = True

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        """Read the index. Raises CheckpointError where it is unusable."""
        self.folder, self.dtype, self.index = folder, dtype, read_index(folder)
        self.family = self.index.family
        self.parts = frozenset(PARTS) & frozenset(self.index.components)

    def check(self) -> None:
        """Do nothing: these folders are small, and checked as they are read."""

    def clip(self) -> Clip:
        """Read text and image encoders, always in float32: they are small and run once."""
        return build_clip(*self._read("clip", torch.float32))

    def prior(self) -> Prior:
        """Read the prior."""
        return self._sampled("prior", build_prior(*self._read("prior", self.dtype, STATISTICS)))

    def decoder(self) -> Decoder:
        """Read the decoder."""
        return self._sampled("decoder", build_decoder(*self._read("decoder", self.dtype)))

    def upsampler(self) -> Upsampler:
        """Read the upsampler, and the second one where the index names it."""
        part = self._sampled("upsampler", build_upsampler(*self._read("upsampler", self.dtype)))
        if "second_upsampler" not in self.index.components:
            return part
        second = self._sampled("upsampler", build_second_upsampler(*self._read("second_upsampler", self.dtype)))
        return replace(part, second=second)

    def _sampled(self, stage: str, part: P) -> P:
        """Return the part with the settings that the index states for its stage, if any."""
        settings = self.index.settings.get(stage)
        return part if settings is None else replace(part, settings=settings)

    def _read(self, component: str, dtype: torch.dtype, keep: Collection[str] = ()) -> Read:
        """Return what the part is built of: family, tensors, configuration, and the file for errors.

        The tensors that `keep` names are float32 whatever the dtype.
        """
        if component not in self.index.components:
            raise CheckpointError(f"'{self.folder / INDEX}' names no file for the '{component}' under \"components\".")
        path = self.folder / self.index.components[component]
        return self.family, *load_weights(path, dtype, keep), str(path)
