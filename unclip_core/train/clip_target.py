"""The CLIP to be trained: the base's own, or a new one of open_clip's architectures."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..clip.open_clip_adapter import ClipConfig, OpenClipAdapter, build_open_clip
from ..clip.tokenizer import END, START, byte_vocabulary
from ..families.native.presets import tiny_clip
from ..families.native.small_presets import small_clip
from ..models import UnclipModel
from .config import Config
from .net_shapes import merged
from .vocabulary import Vocabulary

SIGNS = ", . - '"
"""What parts words, and is on no list of them."""
OPENAI_SIZE = 49408
"""Tokens of OpenAI's byte-pair vocabulary."""
PRESETS: dict[str, Callable[[], dict[str, Any]]] = {"tiny": tiny_clip, "small": small_clip}
"""Shapes by name; open_clip's architectures go beside them."""


def make_clip(
    config: Config, base: UnclipModel | None, vocabulary: Vocabulary | None = None
) -> tuple[OpenClipAdapter, dict[str, Any]]:
    """Make the CLIP and the configuration that its file carries.

    Args:
        config: of the training.
        base: whose CLIP is trained on.
        vocabulary: of a new one, or a new one for the base's; None for OpenAI's, or the base's own.

    Raises:
        ValueError: the base's CLIP is not one of open_clip's, or the shape of the new one is wrong.
    """
    if config.start == "base":
        adapter = None if base is None else base.clip.adapter
        if not isinstance(adapter, OpenClipAdapter):
            raise ValueError("Training goes on from a CLIP of open_clip's architectures alone, and the base has none.")
        if vocabulary is not None:
            adapter = with_vocabulary(adapter, vocabulary)
        return adapter, asdict(adapter.config)
    header = _header(_shape(config.net), vocabulary)
    built = ClipConfig.from_dict(header)
    return OpenClipAdapter(build_open_clip(built), built), header


def with_vocabulary(clip: OpenClipAdapter, vocabulary: Vocabulary) -> OpenClipAdapter:
    """The same CLIP with another vocabulary: tokens that both have keep their embedding, new ones get random ones."""
    text = {**clip.config.model["text_cfg"], "vocab_size": vocabulary.size}
    config = replace(
        clip.config,
        model={**clip.config.model, "text_cfg": text},
        merges=vocabulary.merges,
        words=vocabulary.words,
    )
    tensors = dict(clip.model.state_dict())
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    old, known = tensors[name], clip.tokenizer.vocabulary
    table = old.std() * torch.randn(vocabulary.size, old.shape[1])
    for token, number in byte_vocabulary(list(vocabulary.pairs)).items():
        if token in known:
            table[number] = old[known[token]]
    return OpenClipAdapter.from_weights(tensors | {name: table}, config, "the base's CLIP with another vocabulary")


def token_table(model: nn.Module) -> nn.Embedding:
    """The embeddings of a text tower's tokens."""
    return getattr(model, "text", model).token_embedding


def known_tokens(old: OpenClipAdapter, new: OpenClipAdapter) -> Tensor:
    """Which tokens `[V]` of the new CLIP the old one has learned: of those it has, all that its words are made of."""
    seen = {number for word in old.words for number in old.tokenizer.encode(word)}
    seen |= {old.tokenizer.vocabulary[name] for name in (START, END)} | set(old.tokenizer.encode(SIGNS))
    mask = torch.zeros(len(new.tokenizer.vocabulary), dtype=torch.bool)
    for token, number in old.tokenizer.vocabulary.items():
        mask[new.tokenizer.vocabulary[token]] = not old.words or number in seen
    return mask


def _shape(net: Mapping[str, Any]) -> dict[str, Any]:
    """The shape as given, over that of the preset: the bundled CLIP's, or an architecture of open_clip's."""
    given = dict(net)
    name = given.pop("preset", None)
    if name is None:
        return given
    if name in PRESETS:
        return merged(PRESETS[name](), given)
    from open_clip import get_model_config

    below = get_model_config(name)
    if below is None:
        raise ValueError(
            f"net.preset must be one of {sorted(PRESETS)} or the name of an architecture of open_clip, such as "
            f"ViT-B-32, got {name!r}."
        )
    return merged(below, given)


def _header(net: Mapping[str, Any], vocabulary: Vocabulary | None) -> dict[str, Any]:
    """open_clip's arguments, with the images' mean and std of OpenAI's models unless given; unit embeddings."""
    model = {name: value for name, value in net.items() if name not in ("mean", "std")}
    rest: dict[str, Any] = {name: tuple(net[name]) for name in ("mean", "std") if name in net}
    size = OPENAI_SIZE
    if vocabulary is not None:
        size, rest = vocabulary.size, rest | {"merges": vocabulary.merges, "words": vocabulary.words}
    try:
        stated = model["text_cfg"].get("vocab_size", size)
        model["text_cfg"] = {**model["text_cfg"], "vocab_size": size}
        config = ClipConfig(model=model, normalize=True, **rest)
        with torch.device("meta"):
            build_open_clip(config)
        _ = model["vision_cfg"]["image_size"], model["text_cfg"]["context_length"], model["embed_dim"]
    except Exception as error:  # open_clip raises what it meets in a wrong shape
        raise ValueError(
            f"[net] makes no CLIP of open_clip's ({type(error).__name__}: {error}): it needs a preset, or "
            "embed_dim, [net.vision_cfg] with image_size, patch_size, layers, width, head_width and "
            "[net.text_cfg] with context_length, layers, width, heads."
        ) from error
    if stated != size:
        raise ValueError(
            f"net.text_cfg.vocab_size is {stated}, and the tokenizer knows {size} tokens: leave it out. "
            "`vocabulary` gives a new CLIP tokens of its own."
        )
    return asdict(config)
