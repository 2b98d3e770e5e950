"""ComfyUI's own CLIP and CLIP_VISION: one tower of theirs at a time, whatever model it came with.

Towers are found by their names, not by their classes, which every new model brings anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .. import defaults
from ..inputs import InputError

TOWERS = defaults.STOCK_TOWERS[1:]
"""The text encoders that share a space with an image encoder, in the order in which "auto" looks for them."""

_ZEROS: "WeakKeyDictionary[Any, Tensor]" = WeakKeyDictionary()
"""CLIP_VISION -> its embedding of the zero picture, which needs to be made once."""


def choose_tower(clip: Any, choice: str) -> str:
    """Return the name of the text encoder of a CLIP that `choice` ("auto" or a name) means.

    Raises:
        InputError: this CLIP has no such one.
    """
    model = getattr(clip, "cond_stage_model", None)
    there = [name for name in TOWERS if hasattr(getattr(model, name, None), "transformer")]
    if choice == defaults.STOCK_TOWER and there:
        return there[0]
    if choice in there:
        return choice
    if not there:
        raise InputError(
            "This CLIP has none of the text encoders that share a space with images (clip_l, clip_h, clip_g), but "
            f"{type(model).__name__}. Take the CLIP of SDXL, of SD 2.x or of a CLIP file."
        )
    raise InputError(f"This CLIP has no {choice}; it has {', '.join(there)}. Choose one of these, or auto.")


def text_projection(clip: Any, tower: str) -> Tensor:
    """Return the text projection `[D, W]` of a tower.

    Raises:
        InputError: the file that the CLIP was loaded from lacked it: ComfyUI then leaves it empty, without a word.
    """
    layer = getattr(getattr(clip.cond_stage_model, tower).transformer, "text_projection", None)
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or not _is_trained(weight):
        raise InputError(
            f"The {tower} of this CLIP has no text projection: its file does not hold one, and without it texts do "
            "not lie in the space of image embeddings. SD 1.x and SDXL checkpoints lack clip_l's. Load a CLIP file "
            "that has a 'text_projection' with Load CLIP, take another tower, or CLIP Text Encode (unCLIP)."
        )
    return weight


def _is_trained(weight: Tensor) -> bool:
    """Whether a projection is neither memory as it was found, nor zeros, nor the identity (older ComfyUIs' default)."""
    known = weight.detach().float()
    if not bool(torch.isfinite(known).all()) or not bool(known.any()):
        return False
    return known.shape[0] != known.shape[1] or not torch.equal(known, torch.eye(len(known)).to(known))


@dataclass(frozen=True)
class StockTexts:
    """What a tower says of `B` prompts.

    Attributes:
        embeds: projected `[B, D]`, float32, raw.
        states: token states after the final LayerNorm `[B, T, W]`, float32.
        mask: `[B, T]` bool, True up to and with the first end of text.
    """

    embeds: Tensor
    states: Tensor
    mask: Tensor


def token_rows(clip: Any, tower: str, prompt: str) -> list[list[Any]]:
    """Return the tokens of a prompt in rows of the tower's length, padded; a token is an id or a learnt embedding."""
    return [[token for token, *_ in row] for row in clip.tokenize(prompt)[tower.removeprefix("clip_")]]


def read_texts(clip: Any, tower: str, prompts: Sequence[str]) -> StockTexts:
    """Encode `B` prompts with one tower; of a longer one its first row of tokens. Weights of words are not read."""
    rows = [token_rows(clip, tower, prompt)[0] for prompt in prompts]
    net = getattr(clip.cond_stage_model, tower)
    clip.load_model()
    net.reset_clip_options()
    try:
        net.set_clip_options({"layer": None, "projected_pooled": True, "execution_device": clip.patcher.load_device})
        states, embeds = net.encode(rows)[:2]
    finally:
        net.reset_clip_options()
    end = net.special_tokens["end"]
    lengths = torch.tensor([_first(row, end) + 1 for row in rows])
    mask = torch.arange(states.shape[1])[None] < lengths[:, None]
    return StockTexts(embeds.float(), states.float(), mask.to(states.device))


def _first(row: Sequence[Any], end: int) -> int:
    return next(index for index, token in enumerate(row) if isinstance(token, Integral) and token == end)


def vision_projection(clip_vision: Any) -> Tensor:
    """Return the projection `[D, W]` of a CLIP_VISION into the space that images share with texts.

    Raises:
        InputError: it has none: a SigLIP, a DINO, or a file without its last layer.
    """
    model = getattr(clip_vision, "model", None)
    weight = getattr(getattr(model, "visual_projection", None), "weight", None)
    if not isinstance(weight, Tensor):
        raise InputError(
            "This CLIP_VISION makes no image embeddings: it has no visual projection, as of SigLIP, DINO, LLaVA and "
            "files without their last layer. Take a CLIP of ViT-L, ViT-H or ViT-bigG with Load CLIP Vision."
        )
    return weight


def read_images(clip_vision: Any, images: Tensor, crop: bool) -> Tensor:
    """Return the embeddings `[B, D]` float32 of images `[B, H, W, 3]`, as ComfyUI's CLIP Vision Encode makes them."""
    return clip_vision.encode_image(images, crop=crop).image_embeds.float()


def read_zero_picture(clip_vision: Any) -> Tensor:
    """Return the embedding `[1, D]` float32 of a picture that is 0 once it is normalised, which stands for no image.

    ComfyUI's own preparation rounds to 8 bits: no IMAGE is exactly that.
    """
    if clip_vision not in _ZEROS:
        from comfy import model_management

        model_management.load_model_gpu(clip_vision.patcher)
        pixels = torch.zeros(1, 3, clip_vision.image_size, clip_vision.image_size, device=clip_vision.load_device)
        embeds = clip_vision.model(pixel_values=pixels, intermediate_output=-2)[2]
        _ZEROS[clip_vision] = embeds.detach().float().cpu()
    return _ZEROS[clip_vision]
