"""The PCA nodes: principal components of image embeddings."""

from typing import Any

import torch

from ..unclip_core.embedding.pca import fit_basis, load_basis, reconstruct, save_basis
from . import defaults, files, host, inputs, sockets
from .inputs import InputError
from .sockets import BasisValue, EmbeddingValue


def check_dimensions(text: Any) -> list[int]:
    """Parse numbers of dimensions with commas between them; keep their order.

    Raises:
        InputError: there is none, or something else is among them.
    """
    words = inputs.check_text("dimensions", text).replace(",", " ").split()
    if not words or not all(len(word) <= 6 and word.isascii() and word.isdigit() and int(word) for word in words):
        raise InputError(f"'dimensions' takes whole numbers from 1 on, such as '{defaults.DIMENSIONS}', not {text!r}.")
    return [int(word) for word in words]


class UnclipPcaFit:
    """Node: principal components of a set of embeddings."""

    ID = "UnclipPcaFit"
    DISPLAY_NAME = "PCA Fit (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = "Finds the directions in which a set of image embeddings varies most (PCA), for PCA Reconstruct."
    SEARCH_ALIASES = ["pca", "principal components", "basis", "dimensions of clip"]
    RETURN_TYPES = (sockets.BASIS,)
    RETURN_NAMES = ("basis",)
    OUTPUT_TOOLTIPS = ("The mean of the embeddings and the directions, the one with most variance first.",)
    FUNCTION = "run"
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "embedding": (sockets.EMBEDDING, {"tooltip": "Many embeddings, as varied as may be."}),
                "dimensions": inputs.int_widget(
                    0, 0, defaults.DIMENSIONS_MAX, "How many to keep. 0: all, one less than there are embeddings."
                ),
            }
        }

    def run(self, embedding: EmbeddingValue, dimensions: int = 0) -> dict[str, Any]:
        """Fit a basis on the `B` embeddings."""
        dimensions = inputs.check_int("dimensions", dimensions, 0, defaults.DIMENSIONS_MAX)
        sockets.require_embedding(embedding, "embedding")
        basis = fit_basis(embedding.embeds, dimensions)
        kept = len(basis.components)
        shown = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k < kept] + [kept]
        shares = "\n".join(f"{k} dimensions: {100 * basis.explained[k - 1]:.1f} % of the variance" for k in shown)
        return host.with_text((BasisValue(basis, embedding.family),), f"{basis.count} embeddings\n{shares}")


class UnclipPcaReconstruct:
    """Node: embeddings from their first principal components."""

    ID = "UnclipPcaReconstruct"
    DISPLAY_NAME = "PCA Reconstruct (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Rebuilds embeddings from their first 1, 2, 4 … principal components. Decoded, they show what the embedding "
        "knows first."
    )
    SEARCH_ALIASES = ["pca", "truncate embedding", "principal components", "reconstruct"]
    RETURN_TYPES = (sockets.EMBEDDING,)
    RETURN_NAMES = ("embedding",)
    OUTPUT_TOOLTIPS = ("Of the first embedding one for each number of dimensions, in order, then of the second.",)
    FUNCTION = "run"
    VALIDATE_INPUTS = inputs.checking(dimensions=check_dimensions)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "basis": (sockets.BASIS, {"tooltip": "Of PCA Fit or Load PCA Basis."}),
                "embedding": (sockets.EMBEDDING, {"tooltip": "What to rebuild."}),
                "dimensions": (
                    "STRING",
                    {"default": defaults.DIMENSIONS, "tooltip": "Numbers of dimensions, with commas between them."},
                ),
            }
        }

    def run(
        self, basis: BasisValue, embedding: EmbeddingValue, dimensions: str = defaults.DIMENSIONS
    ) -> tuple[EmbeddingValue]:
        """Rebuild `B` embeddings from each of `K` numbers of dimensions, to `[B * K, D]`."""
        sockets.require_family(embedding, "embedding", basis.family, "basis")
        rebuilt = [reconstruct(basis.basis, embedding.embeds, count) for count in check_dimensions(dimensions)]
        return (EmbeddingValue(torch.stack(rebuilt, dim=1).flatten(0, 1), embedding.family, "pca", embedding.prompts),)


class UnclipSavePca(files.Saver):
    """Node: a PCA basis to a file."""

    ID = "UnclipSavePca"
    DISPLAY_NAME = "Save PCA Basis (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = "Saves a PCA basis as a safetensors file in the output folder, for Load PCA Basis."
    SEARCH_ALIASES = ["save basis", "export pca", "principal components"]
    OUTPUT_TOOLTIPS = ("The file's name, as Load PCA Basis takes it under 'saved'.",)
    LOADER = "Load PCA Basis"
    PREFIX = "unclip/pca"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "basis": (sockets.BASIS, {"tooltip": "Of PCA Fit."}),
                "filename_prefix": cls.prefix_input(),
            }
        }

    def run(self, basis: BasisValue, filename_prefix: str = PREFIX) -> dict[str, Any]:
        """Write the basis under the next free number."""
        with files.new_file(inputs.check_text("filename_prefix", filename_prefix)) as (path, name):
            save_basis(path, basis.basis, basis.family)
        return files.saved(path, name)


class UnclipLoadPca(files.Loader):
    """Node: a PCA basis from a file."""

    ID = "UnclipLoadPca"
    DISPLAY_NAME = "Load PCA Basis (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = "Loads a PCA basis that Save PCA Basis has written."
    SEARCH_ALIASES = ["load basis", "import pca", "principal components"]
    RETURN_TYPES = (sockets.BASIS,)
    RETURN_NAMES = ("basis",)
    OUTPUT_TOOLTIPS = ("The basis, of the model family that it was fitted for.",)
    SAVER = "Save PCA Basis"

    def run(self, file: str = files.SAVED, saved: str | None = None) -> tuple[BasisValue]:
        """Read the basis.

        Raises:
            InputError: there is no such file.
            CheckpointError: it is damaged, or holds no basis.
        """
        return (BasisValue(*load_basis(files.find(file, saved))),)
