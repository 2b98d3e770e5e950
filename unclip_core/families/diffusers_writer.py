"""Write a folder in diffusers' layout, whole or not at all: safetensors, one tensor at a time, the index last."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..weights.files import Entry, stream_weights, write_whole
from ..weights.folders import whole_folder
from .registry import INDEX
from .statistics import STATISTICS

Make = Callable[[str, Tensor], Tensor]
"""(key, the net's tensor) -> what is written in its place."""

Own = TypeVar("Own", bound="DiffusersWriter")
VERSION = "0.11.0"
DIFFUSERS, TRANSFORMERS = "diffusers", "transformers"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def as_it_is(key: str, tensor: Tensor) -> Tensor:
    """Return the net's own tensor."""
    return tensor


class DiffusersWriter(ABC):
    """Writes one component after the other into a folder aside, which takes its name where `with` ends without error.

    Before that the index is written, and the reader of such folders checks what was written; whatever fails, nothing is
    left behind.

    folder: must not hold anything yet. dtype: of the weights; the statistics of CLIP's embeddings stay float32.
    make: (key, the net's tensor) -> what is written in its place; by default the tensor itself.
    Raises CheckpointError where the folder is not empty, or its own reader refuses what was written.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, make: Make = as_it_is) -> None:
        self.dtype, self.make = dtype, make
        self.index: dict[str, Any] = {}
        self._whole, self._aside = ExitStack(), whole_folder(folder, INDEX)

    @property
    @abstractmethod
    def pipeline(self) -> str:
        """diffusers' class that the index names."""

    @abstractmethod
    def check(self) -> None:
        """Have the reader of such folders check what was written; raises CheckpointError."""

    def __enter__(self: Own) -> Own:
        self.folder = self._whole.enter_context(self._aside)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:
            self._whole.__exit__(kind, error, trace)
            return
        with self._whole:
            self._finish()

    def net(
        self,
        name: str,
        net: nn.Module,
        key_of: Callable[[str], str],
        config: dict[str, Any],
        owner: tuple[str, str],
        file: str = WEIGHTS,
    ) -> None:
        """Write a net's weights and configuration.

        Args:
            name: of the component.
            net: whose tensors `make` is given.
            key_of: the key in the file of a key of the net.
            config: what is written beside the weights.
            owner: library and class that the index names.
            file: of the weights.
        """
        entries = [
            Entry(
                key_of(key),
                torch.float32 if key in STATISTICS else self.dtype,
                tuple(value.shape),
                partial(self.make, key, value),
            )
            for key, value in net.state_dict().items()
        ]
        stream_weights(self.folder / name / file, entries)
        self.json(name, "config.json", {"_diffusers_version": VERSION, **config}, owner)

    def json(self, name: str, file: str, config: dict[str, Any], owner: tuple[str, str]) -> None:
        """Write a component's configuration, and name the component in the index."""
        write_whole(self.folder / name / file, json.dumps(config, indent=2).encode())
        self.index[name] = list(owner)

    def _finish(self) -> None:
        """Write the index, and have the reader check the folder."""
        index = {"_class_name": self.pipeline, "_diffusers_version": VERSION, **dict(sorted(self.index.items()))}
        write_whole(self.folder / INDEX, json.dumps(index, indent=2).encode())
        self.check()
