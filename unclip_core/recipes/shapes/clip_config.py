"""The bundled CLIP's configuration: its nets' shape, and a vocabulary of the world's words."""

from ...clip.open_clip_adapter import ClipConfig
from ...families.native.presets import tiny_clip
from ...world.captions import words
from .vocabulary import bpe_merges


def tiny_clip_config() -> ClipConfig:
    """The bundled CLIP: `presets.tiny_clip` with one token for each word that captions of the world use."""
    vocabulary = tuple(sorted(words()))
    merges = bpe_merges(vocabulary)
    model = tiny_clip()
    # 256 bytes, each also as the end of a word; the merges; start and end of text.
    model["text_cfg"]["vocab_size"] = 512 + merges.count("\n") + 1 + 2
    half = (0.5, 0.5, 0.5)
    return ClipConfig(model=model, merges=merges, words=vocabulary, mean=half, std=half, normalize=True)
