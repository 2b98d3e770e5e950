"""The nodes that save embeddings to files and load them."""

from typing import Any

from ..unclip_core.embedding.files import EmbeddingInfo, load_embeddings, save_embeddings
from . import files, host, inputs, sockets
from .sockets import EmbeddingValue


class UnclipSaveEmbedding(files.Saver):
    """Node: embeddings to a file."""

    ID = "UnclipSaveEmbedding"
    DISPLAY_NAME = "Save Embedding (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Saves image embeddings as a safetensors file in the output folder, with their family, prompts and seed in its "
        "header."
    )
    SEARCH_ALIASES = ["export embedding", "write embedding", "safetensors", "store"]
    OUTPUT_TOOLTIPS = ("The file's name, as Load Embedding takes it under 'saved'.",)
    LOADER = "Load Embedding"
    PREFIX = "unclip/embedding"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "embedding": (sockets.EMBEDDING, {"tooltip": "What to save, one or a batch."}),
                "filename_prefix": cls.prefix_input(),
            }
        }

    def run(self, embedding: EmbeddingValue, filename_prefix: str = PREFIX) -> dict[str, Any]:
        """Write the embeddings under the next free number."""
        sockets.require_embedding(embedding, "embedding")
        info = EmbeddingInfo(embedding.family, embedding.source, embedding.prompts, embedding.seed)
        with files.new_file(inputs.check_text("filename_prefix", filename_prefix)) as (path, name):
            save_embeddings(path, embedding.embeds, info)
        return files.saved(path, name)


class UnclipLoadEmbedding(files.Loader):
    """Node: embeddings from a file."""

    ID = "UnclipLoadEmbedding"
    DISPLAY_NAME = "Load Embedding (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = "Loads image embeddings that Save Embedding has written, and shows what their header says of them."
    SEARCH_ALIASES = ["import embedding", "read embedding", "safetensors", "restore"]
    RETURN_TYPES = (sockets.EMBEDDING, "STRING")
    RETURN_NAMES = ("embedding", "info")
    OUTPUT_TOOLTIPS = (
        "The embeddings, of the model family that they were saved for.",
        "How many there are, their family, source, prompts and seed.",
    )
    HAS_INTERMEDIATE_OUTPUT = True
    SAVER = "Save Embedding"

    def run(self, file: str = files.SAVED, saved: str | None = None) -> dict[str, Any]:
        """Read the embeddings `[B, D]`.

        Raises:
            InputError: there is no such file.
            CheckpointError: it is damaged, or holds no embeddings.
        """
        embeds, info = load_embeddings(files.find(file, saved))
        embeds = embeds.to(host.intermediate_device())
        text = info_text(len(embeds), info)
        return host.with_text((EmbeddingValue(embeds, info.family, info.source, info.prompts, info.seed), text), text)


def info_text(count: int, info: EmbeddingInfo) -> str:
    """Write out what a file's header says of its `count` embeddings, a line each."""
    lines = [f"embeddings: {count}", f"family: {info.family}", f"source: {info.source}"]
    lines += [f"prompt: {prompt}" for prompt in info.prompts]
    return "\n".join(lines if info.seed is None else [*lines, f"seed: {info.seed}"])
