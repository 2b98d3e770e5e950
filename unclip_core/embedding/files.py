"""Embeddings in files: safetensors, with the family, the prompts and the seed in the header."""

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from ..weights.files import CheckpointError, load_weights, save_weights

__all__ = ["EmbeddingInfo", "load_embeddings", "save_embeddings"]

KIND = "unclip-embedding"


@dataclass(frozen=True)
class EmbeddingInfo:
    """What is known of a batch of image embeddings.

    Attributes:
        family: the model family whose space they lie in.
        source: where they came from: "image", "prior", "interpolation" …
        prompts: the texts that they were drawn for, if any.
        seed: the seed that they were drawn with, if any.
    """

    family: str
    source: str
    prompts: tuple[str, ...] = ()
    seed: int | None = None


def save_embeddings(path: str | Path, embeds: Tensor, info: EmbeddingInfo) -> None:
    """Save embeddings `[B, D]`.

    Raises:
        OSError: the file could not be written; nothing is left behind.
    """
    save_weights(path, {"embeds": embeds}, {"kind": KIND, **asdict(info)})


def load_embeddings(path: str | Path) -> tuple[Tensor, EmbeddingInfo]:
    """Embeddings `[B, D]` float32 saved by `save_embeddings`, and what is known of them.

    Raises:
        CheckpointError: the file is missing, damaged, or holds no embeddings.
    """
    tensors, header = load_weights(path)
    if not isinstance(header, dict) or header.get("kind") != KIND:
        raise CheckpointError(f"'{path}' holds no embeddings: choose a file written by Save Embedding (unCLIP).")
    embeds = tensors.get("embeds")
    if embeds is None or embeds.ndim != 2 or 0 in embeds.shape or not embeds.is_floating_point():
        found = {name: list(tensor.shape) for name, tensor in tensors.items()}
        raise CheckpointError(f"'{path}' should hold numbers 'embeds' [B, D], but holds {found}: save it again.")
    try:
        seed = header["seed"]
        info = EmbeddingInfo(
            str(header["family"]),
            str(header["source"]),
            tuple(map(str, header["prompts"])),
            None if seed is None else int(seed),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{path}' has no whole header ({error!r}): save it again.") from error
    return embeds.float(), info
