"""The contract of a family of models, and the registry of families.

A family is one package below this one: it recognises its folders, reads their parts, and, as far as it can, writes
them, trains on them and knows where they are published. Everything else reaches it through this contract alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..models import PartReader, StageSettings, UnclipModel
from ..weights.files import CheckpointError
from .other_prior import OtherPrior, check_prior

INDEX = "model_index.json"
"""The file that makes a folder a model, in our own format and in diffusers'."""

CONFIG = "config.json"
"""The file that describes a single component in diffusers' layout."""


@dataclass(frozen=True)
class Source:
    """Public weights that `unclip download` fetches.

    Attributes:
        repository: "owner/name" on the Hugging Face hub.
        licence: of the weights, with the address of its text.
        needs: names of other sources that it is used together with, which are fetched too.
    """

    repository: str
    licence: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainedPart:
    """A part that a training has made, to be written into a model folder.

    Attributes:
        stage: one of `PARTS`.
        family: whose embeddings it reads or makes.
        config: what a reader has to know of it: "net", "diffusion" and what else the stage has.
        tensors: the net's state by key.
        dtype: of the weights in the file.
        settings: how the part is to be sampled by default, where the training says so; None leaves what is stated.
        locked: of a CLIP whether its image tower is the base's, so that what reads embeddings goes on with it.
    """

    stage: str
    family: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    dtype: torch.dtype
    settings: StageSettings | None = None
    locked: bool = False


class Family:
    """A family of models. Subclasses detect and read their folders; all other methods are optional.

    Methods that a family does not give refuse with a sentence, so that callers need not ask what it can.
    """

    name: str
    """As users name it."""

    formats: tuple[str, ...] = ()
    """What it reads, as a refusal of an unknown folder lists it."""

    states_settings = False
    """Whether a trained part's own sampling settings (`TrainedPart.settings`) can be written into its folders."""

    sources: Mapping[str, Source] = {}
    """Its public weights, by the name that `unclip download` takes."""

    def detect(self, folder: Path, index: Mapping[str, Any] | None) -> bool:
        """Tell whether the folder is of this family, by its index or, where it has none (None), by its weights' keys.

        Nothing that a file holds is run, and no weights are read. Raises CheckpointError for weights that are its own
        and damaged.
        """
        raise NotImplementedError

    def read(self, folder: Path, dtype: torch.dtype, conventions: str) -> PartReader:
        """Return what reads the folder's parts; nothing but its index is read yet.

        dtype is that of prior, decoder and upsampler (CLIP stays float32), whose layers have to take float32 features
        beside it, as those of `nets` do, on a CPU that would emulate it (`weights.computing`). conventions: one of
        `tokenizer.CONVENTIONS`.
        Raises CheckpointError where the index is unusable.
        """
        raise NotImplementedError

    def beside(self, folder: Path) -> list[Path]:
        """Return the other folders that a model's folder is joined with by itself, as far as they are there."""
        return []

    def with_prior(self, reader: PartReader, chosen: PartReader, folder: Path) -> PartReader:
        """Return what reads `reader`'s model with the prior of another `folder`, which `chosen` reads.

        Raises CheckpointError where there is none in it, or it does not fit.
        """
        check_prior(reader, chosen, folder)
        return OtherPrior(reader, chosen)

    def convert(self, model: UnclipModel, target: Path, dtype: torch.dtype) -> Path:
        """Write the model into the new folder `target` as safetensors; returns the folder.

        Raises CheckpointError where there is nothing to convert, or the target is not empty.
        """
        raise CheckpointError(
            f"'{model.folder}' is a model of the family '{model.family}' in the format that it is read in already: "
            "there is nothing to convert."
        )

    def code(self, folder: Path, target: Path, dtype: torch.dtype, parts: Collection[str]) -> Path:
        """Write the model in `folder` into the new folder `target`, matrices of `parts` in eight bits, else as `dtype`.

        Returns the folder. Raises CheckpointError as `convert`.
        """
        raise CheckpointError(f"'{folder}' is a model of the family '{self.name}', which is not stored in eight bits.")

    def check_trainable(self, model: UnclipModel, stage: str, new: bool, output: Path) -> None:
        """Refuse a training of one of `PARTS` on the base `model` that could not be written into `output` afterwards.

        new: whether a new net takes the place of the base's. Raises ValueError.
        """
        raise ValueError(f"'{model.folder}' is a model of the family '{self.name}', which cannot be trained.")

    def write_trained(self, base: UnclipModel | None, output: Path, part: TrainedPart) -> None:
        """Write the part into the folder `output`, with what else of the base is not there yet, the index last.

        Raises OSError where the disk is full: the folder is then what it was, or lacks only its index.
        """
        raise ValueError(f"The family '{self.name}' cannot be trained.")


_PACKAGES = ("native", "karlo", "kandinsky22", "eclipse")
_registered: list[Family] = []


def register(family: Family) -> None:
    """Register a family from elsewhere; it is asked before the built-in ones."""
    _registered.insert(0, family)


def unregister(family: Family) -> None:
    """Remove a registered family."""
    _registered.remove(family)


def own_format() -> Family:
    """The family that a model without a base is written as."""
    return import_module(".native.family", __package__).FAMILY


def families() -> list[Family]:
    """Return all families, in the order in which they are asked whether a folder is theirs."""
    own = [import_module(f".{package}.family", __package__).FAMILY for package in _PACKAGES]
    return [*_registered, *own]
