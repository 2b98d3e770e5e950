"""Write a folder in diffusers' layout, whole or not at all: safetensors, one tensor at a time, the index last."""

import contextlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..weights.files import CheckpointError, Entry, stream_weights, write_whole
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
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CheckpointError(f"'{folder}' is there already and not empty: name a new folder.")
        self.target, self.dtype, self.make = folder, dtype, make
        self.folder = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        self.index: dict[str, Any] = {}

    @property
    @abstractmethod
    def pipeline(self) -> str:
        """diffusers' class that the index names."""

    @abstractmethod
    def check(self) -> None:
        """Have the reader of such folders check what was written; raises CheckpointError."""

    def __enter__(self: Own) -> Own:
        self._new_parents = [path for path in self.folder.parents if not path.exists()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        done = False
        try:
            if kind is None:
                self._finish()
                done = True
        finally:
            if not done:
                self._clean_up()

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
        """Write the index, have the reader check the folder, and give it its name."""
        index = {"_class_name": self.pipeline, "_diffusers_version": VERSION, **dict(sorted(self.index.items()))}
        write_whole(self.folder / INDEX, json.dumps(index, indent=2).encode())
        self.check()
        if self.target.is_dir():
            self.target.rmdir()  # it is empty; some systems rename no folder over another
        self.folder.rename(self.target)

    def _clean_up(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self._new_parents:
            with contextlib.suppress(OSError):  # something else lies in it by now
                path.rmdir()
