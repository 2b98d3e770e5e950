"""What is trained: a net from the base model or a new one, with what a reader of the result has to know of it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..clip.adapter import ClipAdapter
from ..families.detect import family_of
from ..families.loading import BUNDLED, load_model
from ..families.native.presets import TINY_SCALE
from ..families.registry import INDEX
from ..models import PIXELS, Decoder, UnclipModel, Upsampler
from ..nets.conditioners import CONDITIONERS
from ..nets.decoder import DecoderNet, DecoderParams
from ..nets.params import params_from_dict, params_to_dict
from ..nets.prior import PriorParams, PriorTransformer
from ..nets.upsampler import UpsamplerNet, UpsamplerParams
from .clip_target import known_tokens, make_clip, token_table
from .config import Config
from .lora import add_lora
from .net_shapes import check_channels, net_shape, new_process
from .vocabulary import Vocabulary


@dataclass
class Target:
    """A net to be trained; which of the fields are there depends on the stage.

    Attributes:
        net: the stage's `nn.Module`, float32, its parameters ready for gradients.
        header: the configuration that the model's file carries.
        family: whose embeddings it goes with.
        spec: its `DiffusionSpec`; None for CLIP.
        clip: the `ClipAdapter` whose embeddings it reads, or that is trained itself; None for the upsampler.
        freeze: what of the CLIP that is trained stays as it is, see `Config`.
        known: with `freeze` "towers" which tokens `[V]` stay as they are.
        part: the `Decoder` or `Upsampler` that the net is sampled as, with its codec, size and settings.
    """

    net: Any
    header: dict[str, Any]
    family: str
    spec: Any = None
    clip: Any = None
    part: Any = None
    freeze: str = ""
    known: Tensor | None = None


def open_base(stage: str, config: Config, output: Path) -> UnclipModel | None:
    """The model that the result is built on; None where the output folder is meant and holds none yet.

    Raises:
        CheckpointError: the folder holds no model of a known format.
        ValueError: its family cannot be trained so, or the result would overwrite it.
    """
    if config.base in BUNDLED:
        return load_model(config.base)
    folder = output if config.base == "output" else Path(config.base)
    if config.base == "output" and not (folder / INDEX).is_file():
        return None
    model = load_model(folder, prior=config.prior or None)
    family = family_of(folder)
    family.check_trainable(model, stage, config.start == "scratch", output)
    if config.settings is not None and not family.states_settings:
        raise ValueError(
            f"'{folder}' is of the family '{family.name}', whose folders state no sampling settings: "
            "leave out [settings]."
        )
    return model


def check_base_stays(config: Config, output: Path) -> None:
    """Refuse a training that has to know its base to the end, and writes its result over it.

    Raises:
        ValueError: `keep_base` or frozen towers, and the base lies in the folder `output`.
    """
    name = "keep_base" if config.keep_base else 'freeze = "towers"' if config.freeze == "towers" else ""
    if not name or config.lora or config.base in BUNDLED:
        return
    folder = output if config.base == "output" else Path(config.base)
    if folder.resolve() == output.resolve():
        raise ValueError(
            f"{name} needs the base as it was at the beginning, and the first checkpoint would be written over it: "
            f"name '{folder}' as base, and another folder as --output."
        )


def vocabulary_of(base: UnclipModel | None) -> Vocabulary | None:
    """The pairs of the base's CLIP, and its words where they are a closed list; None where it reads no text."""
    clip = None if base is None else base.clip.adapter
    if clip is None or clip.tokenizer is None:
        return None
    return Vocabulary(tuple(clip.tokenizer.merges), tuple(clip.words))


def make_target(
    stage: str, config: Config, base: UnclipModel | None, output: Path, vocabulary: Vocabulary | None = None
) -> Target:
    """Make the net of a stage, from the base or new; the same seed makes the same new net.

    Args:
        stage: "clip", "prior", "decoder" or "upsampler".
        config: of the training.
        base: the model that the result is built on.
        output: the folder of the result.
        vocabulary: of a new CLIP or text tower; None for OpenAI's, or the base's.

    Raises:
        ValueError: there is no base where one is needed, or the shape or process of the new net is wrong.
    """
    if base is None and (stage in ("prior", "decoder") or config.start == "base"):
        raise ValueError(
            f"There is no model to build on: '{output}' holds none yet. Name one as base in the "
            'configuration (a folder, or "bundled (shapes)"), or train CLIP into this folder first.'
        )
    torch.manual_seed(config.training.seed)
    target = _clip(config, base, output, vocabulary) if stage == "clip" else _BUILDERS[stage](config, base, output)
    target.net.train().requires_grad_(True)
    if target.freeze == "image":
        target.net.visual.requires_grad_(False)
    if target.known is not None:
        _train_new_tokens(target.net, ~target.known)
    if config.lora:
        settings = config.lora
        add_lora(target.net, settings.rank, settings.alpha or None, settings.targets or None)
    return target


def _clip(config: Config, base: UnclipModel | None, output: Path, vocabulary: Vocabulary | None) -> Target:
    adapter, header = make_clip(config, base, vocabulary)
    family = config.family or (base.family if base and config.freeze else output.resolve().name)
    towers: Any = base.clip.adapter if base and config.freeze == "towers" else None
    known = None if towers is None else known_tokens(towers, adapter)
    return Target(adapter.model, header, family, clip=adapter, freeze=config.freeze, known=known)


def _train_new_tokens(net: Any, new: Tensor) -> None:
    """Let gradients through to these tokens' embeddings alone."""
    net.requires_grad_(False)
    table = token_table(net).weight.requires_grad_(True)
    table.register_hook(lambda gradient: gradient * new[:, None].to(gradient))


def _clip_of(config: Config, base: UnclipModel) -> ClipAdapter:
    """The base's CLIP; where that has no image encoder, with the one of another folder."""
    if not base.has("clip"):
        raise ValueError(
            f"'{base.folder}' has no CLIP, and what it says of your images is needed: name the folder of its prior as "
            "prior in the configuration."
        )
    clip = base.clip.adapter
    if config.image_encoder:
        if clip.has_vision:
            raise ValueError(
                f"image_encoder is for a Karlo that has none, and '{base.folder}' sees by itself: leave it out."
            )
        other = load_model(config.image_encoder).clip.adapter
        try:
            return clip.with_image_encoder(other)
        except ValueError as error:
            raise ValueError(f"image_encoder: {error}") from error
    if not clip.has_vision:
        raise ValueError(
            f"'{base.folder}' has no image encoder, and what CLIP says of your images is needed: "
            "name a folder that has it as image_encoder in the configuration, such as "
            "karlo-v1-alpha-image-variations (unclip download karlo-variations)."
        )
    return clip


def _prior(config: Config, base: UnclipModel, output: Path) -> Target:
    clip = _clip_of(config, base)
    if config.start == "base":
        part = base.prior
        if part.one_pass:
            raise ValueError(f"The prior of '{base.folder}' maps in one pass; only one by diffusion can be trained.")
        return Target(part.net, _header(part) | {"unit_norm": part.unit_norm}, part.family, part.diffusion, clip)
    fitting = {"embed_dim": clip.embed_dim, "text_width": clip.text_width, "text_tokens": clip.context_length}
    params = params_from_dict(PriorParams, net_shape("prior", config.net) | fitting)
    spec = new_process("prior", config.diffusion, config.net.get("preset"))
    header = {"net": params_to_dict(params), "diffusion": asdict(spec), "unit_norm": clip.normalize}
    return Target(PriorTransformer(params), header, base.family, spec, clip)


def _decoder(config: Config, base: UnclipModel, output: Path) -> Target:
    clip = _clip_of(config, base)
    if config.start == "base":
        part = base.decoder
        return Target(part.net, _header(part), part.family, part.diffusion, clip, part)
    codec = base.decoder.codec if base.has("decoder") else PIXELS
    shape = net_shape("decoder", config.net)
    conditioner = shape.get("conditioner", {})
    if not isinstance(conditioner, Mapping):
        raise ValueError(f"net.conditioner must be a table, got {conditioner!r}.")
    fitting = {"embed_dim": clip.embed_dim, "text_width": clip.text_width, "text_tokens": clip.context_length}
    kind = CONDITIONERS.get(str(conditioner.get("kind")))
    known = {item.name for item in fields(kind)} if kind else set()
    conditioner = {**conditioner, **{name: value for name, value in fitting.items() if name in known}}
    params = DecoderParams.from_dict(shape | {"conditioner": conditioner})
    spec = new_process("decoder", config.diffusion, config.net.get("preset"))
    check_channels(params.unet, codec.channels, codec.channels, spec)
    part = Decoder(base.family, DecoderNet(params), spec, params.image_size * codec.factor, codec=codec)
    return Target(part.net, {"net": params.to_dict(), "diffusion": asdict(spec)}, base.family, spec, clip, part)


def _upsampler(config: Config, base: Any, output: Path) -> Target:
    if config.start == "base":
        part = base.upsampler
        target = Target(part.net, _header(part) | {"scale": part.scale}, part.family, part.diffusion, part=part)
    else:
        family = base.family if base else config.family or output.resolve().name
        target = _new_upsampler(config, family)
    loss: Any = config.loss
    _check_crop(loss.crop, target)
    return target


def _new_upsampler(config: Config, family: str) -> Target:
    shape = net_shape("upsampler", config.net)
    scale = shape.pop("scale", TINY_SCALE)
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 2:
        raise ValueError(f"net.scale must be a whole number of 2 or more, got {scale!r}.")
    params = params_from_dict(UpsamplerParams, shape)
    spec = new_process("upsampler", config.diffusion, config.net.get("preset"))
    check_channels(params, 6, 3, spec)
    header = {"net": params_to_dict(params), "diffusion": asdict(spec), "scale": scale}
    part = Upsampler(family, UpsamplerNet(params), spec, scale)
    return Target(part.net, header, family, spec, part=part)


_BUILDERS: dict[str, Callable[..., Target]] = {
    "prior": _prior,
    "decoder": _decoder,
    "upsampler": _upsampler,
}


def _header(part: Any) -> dict[str, Any]:
    """The shape, where the net states one, and the process of a part of the base."""
    params = getattr(part.net, "params", None)
    shape = {} if params is None else params.to_dict() if hasattr(params, "to_dict") else params_to_dict(params)
    return {"net": shape, "diffusion": asdict(part.diffusion)}


def _check_crop(crop: int, target: Target) -> None:
    scale, stride = target.part.scale, target.net.unet.stride
    if crop % scale or crop % stride:
        raise ValueError(f"loss.crop {crop} must be a multiple of the scale {scale} and of the net's stride {stride}.")
