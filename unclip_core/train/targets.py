"""What is trained: a net from the base model or a new one, with what a reader of the result has to know of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..clip.adapter import ClipAdapter
from ..clip.open_clip_adapter import ClipConfig, OpenClipAdapter, build_open_clip
from ..clip.tower_adapter import TowerAdapter
from ..diffusion.denoiser import ModelDenoiser
from ..diffusion.spec import DiffusionSpec
from ..families.karlo import presets as karlo_presets
from ..families.karlo.reader import KarloFolder
from ..families.loading import load_model
from ..families.native import presets as native_presets
from ..families.native.reader import INDEX, NativeFolder
from ..models import UnclipModel, Upsampler
from ..nets.decoder import DecoderNet, DecoderParams
from ..nets.params import params_from_dict, params_to_dict
from ..nets.prior import PriorParams, PriorTransformer
from ..nets.unet_params import UNetParams
from ..nets.upsampler import UpsamplerNet, UpsamplerParams
from ..recipes.shapes import decoder, prior, upsampler
from ..recipes.shapes.clip import tiny_clip_config
from .config import Config
from .lora import add_lora

PRESETS = {
    "prior": {"tiny": native_presets.tiny_prior, "karlo": karlo_presets.karlo_prior},
    "decoder": {"tiny": native_presets.tiny_decoder, "karlo": karlo_presets.karlo_decoder},
    "upsampler": {"tiny": native_presets.tiny_upsampler, "karlo": karlo_presets.karlo_super_res},
}
PROCESSES = {"prior": prior.DIFFUSION, "decoder": decoder.DIFFUSION, "upsampler": upsampler.DIFFUSION}


@dataclass
class Subject:
    """A net to be trained.

    Attributes:
        net: float32, its parameters ready for gradients.
        header: the configuration that the model's file carries.
        family: whose embeddings it goes with.
        spec: its diffusion; None for CLIP.
        clip: the CLIP whose embeddings it reads, or that is trained itself; None for the upsampler.
        clamp: whether the upsampler's enlarged images are kept within -1..1.
        template: the base's upsampler, for what goes with its net.
    """

    net: nn.Module
    header: dict[str, Any]
    family: str
    spec: DiffusionSpec | None = None
    clip: ClipAdapter | None = None
    clamp: bool = True
    template: Upsampler | None = None


def open_base(config: Config, output: Path) -> UnclipModel | None:
    """The model that the result is built on; None where the output folder is meant and holds none yet.

    Raises:
        CheckpointError: the folder holds no model of a known format.
        ValueError: the format cannot be trained, or the result would overwrite it.
    """
    if config.base == "bundled":
        return load_model()
    folder = output if config.base == "output" else Path(config.base)
    if config.base == "output" and not (folder / INDEX).is_file():
        return None
    model = load_model(folder)
    if not isinstance(model.reader, NativeFolder | KarloFolder):
        raise ValueError(
            f"'{folder}' holds kakaobrain's own files: make a folder of safetensors of them first, "
            f"unclip convert '{folder}' NEW_FOLDER, and name that as base."
        )
    if isinstance(model.reader, KarloFolder) and folder.resolve() == output.resolve():
        raise ValueError(f"'{folder}' is base and output: name another folder as --output, so that the weights stay.")
    return model


def make_subject(stage: str, config: Config, base: UnclipModel | None, output: Path) -> Subject:
    """The net of a stage, from the base or new; the same seed makes the same new net.

    Raises:
        ValueError: there is no base where one is needed, or the shape or process of the new net is wrong.
    """
    if base is None and (stage in ("prior", "decoder") or config.start == "base"):
        raise ValueError(
            f"There is no model to build on: '{output}' holds none yet. Name one as base in the "
            'configuration ("bundled" or a folder), or train CLIP into this folder first.'
        )
    if base is not None and isinstance(base.reader, KarloFolder) and (stage == "clip" or config.start == "scratch"):
        raise ValueError(
            f"'{base.folder}' is a Karlo: its prior, decoder and upsampler can be trained on (start = "
            '"base"), but neither its CLIP, which all of them rest on, nor new nets in their place.'
        )
    torch.manual_seed(config.training.seed)
    subject = _BUILDERS[stage](config, base, output)
    subject.net.train().requires_grad_(True)
    if config.lora:
        settings = config.lora
        add_lora(subject.net, settings.rank, settings.alpha or None, settings.targets or None)
    return subject


def _clip(config: Config, base: UnclipModel | None, output: Path) -> Subject:
    family = config.family or output.resolve().name
    if config.start == "base":
        adapter = base.clip.adapter
        header = asdict(adapter.config)
    else:
        header = _clip_header(_clip_shape(config.net))
        adapter = OpenClipAdapter(build_open_clip(ClipConfig.from_dict(header)), ClipConfig.from_dict(header))
    return Subject(adapter.model, header, family, clip=adapter)


def _clip_shape(net: Mapping[str, Any]) -> dict[str, Any]:
    """The shape as given, over that of the preset: the bundled CLIP's, or an architecture of open_clip's."""
    given = dict(net)
    name = given.pop("preset", None)
    if name is None:
        return given
    if name == "tiny":
        below = tiny_clip_config().model
        # For the words of the world alone there: here for all that people write.
        below["text_cfg"].pop("vocab_size")
    else:
        from open_clip import get_model_config

        below = get_model_config(name)
    if below is None:
        raise ValueError(
            f"net.preset must be 'tiny' or the name of an architecture of open_clip, such as ViT-B-32, got {name!r}."
        )
    return _over(below, given)


def _clip_header(net: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's arguments, with the images' mean and std of OpenAI's models unless given; unit embeddings."""
    model = {name: value for name, value in net.items() if name not in ("mean", "std")}
    rest = {name: tuple(net[name]) for name in ("mean", "std") if name in net}
    config = ClipConfig(model=model, normalize=True, **rest)
    try:
        with torch.device("meta"):
            build_open_clip(config)
        size, width = model["text_cfg"].get("vocab_size", 49408), model["embed_dim"]
        _ = model["vision_cfg"]["image_size"], model["text_cfg"]["context_length"], width
    except (TypeError, KeyError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
        raise ValueError(
            f"[net] makes no CLIP of open_clip's ({type(error).__name__}: {error}): it needs a preset, or "
            "embed_dim, [net.vision_cfg] with image_size, patch_size, layers, width, head_width and "
            "[net.text_cfg] with context_length, layers, width, heads."
        ) from error
    if size != 49408:
        raise ValueError(f"net.text_cfg.vocab_size is {size}, and the tokenizer knows 49408 tokens: leave it out.")
    return asdict(config)


def _clip_of(config: Config, base: UnclipModel) -> ClipAdapter:
    """The base's CLIP; where that is blind, with the image encoder of another folder."""
    clip = base.clip.adapter
    if not isinstance(clip, TowerAdapter):
        if config.image_encoder:
            raise ValueError(
                f"image_encoder is for a Karlo that has none, and '{base.folder}' sees by itself: leave it out."
            )
        return clip
    if not config.image_encoder:
        if clip.model.vision is None:
            raise ValueError(
                f"'{base.folder}' has no image encoder, and what CLIP says of your images is needed: "
                "name a folder that has it as image_encoder in the configuration, such as "
                "karlo-v1-alpha-image-variations (unclip download karlo-variations)."
            )
        return clip
    seeing = load_model(config.image_encoder).clip.adapter
    vision = seeing.model.vision if isinstance(seeing, TowerAdapter) else None
    if vision is None or vision.params.embed_dim != clip.embed_dim:
        raise ValueError(
            f"image_encoder: '{config.image_encoder}' has no image encoder that gives embeddings of "
            f"{clip.embed_dim} numbers, as '{base.folder}' reads them."
        )
    return TowerAdapter(clip.model.text, vision, clip.tokenizer, seeing.image_input, config.image_encoder)


def _prior(config: Config, base: UnclipModel, output: Path) -> Subject:
    clip = _clip_of(config, base)
    if config.start == "base":
        part = base.prior
        header = {
            "net": params_to_dict(part.net.params),
            "diffusion": asdict(part.diffusion),
            "unit_norm": part.unit_norm,
        }
        return Subject(part.net, header, part.family, part.diffusion, clip)
    width = len(clip.encode_text([""]).states[0, 0])
    fitting = {"embed_dim": clip.embed_dim, "text_width": width, "text_tokens": clip.context_length}
    params = params_from_dict(PriorParams, _shape("prior", config.net) | fitting)
    spec = _process("prior", config.diffusion)
    unit = clip.normalize
    header = {"net": params_to_dict(params), "diffusion": asdict(spec), "unit_norm": unit}
    return Subject(PriorTransformer(params), header, base.family, spec, clip)


def _decoder(config: Config, base: UnclipModel, output: Path) -> Subject:
    clip = _clip_of(config, base)
    if config.start == "base":
        part = base.decoder
        header = {"net": part.net.params.to_dict(), "diffusion": asdict(part.diffusion)}
        return Subject(part.net, header, part.family, part.diffusion, clip)
    shape = _shape("decoder", config.net)
    conditioner = dict(shape.get("conditioner", {})) | {"embed_dim": clip.embed_dim}
    if conditioner.get("kind") == "token":
        conditioner["text_width"] = len(clip.encode_text([""]).states[0, 0])
    params = DecoderParams.from_dict(shape | {"conditioner": conditioner})
    spec = _process("decoder", config.diffusion)
    _check_channels(params.unet, 3, spec)
    return Subject(DecoderNet(params), {"net": params.to_dict(), "diffusion": asdict(spec)}, base.family, spec, clip)


def _upsampler(config: Config, base: UnclipModel | None, output: Path) -> Subject:
    if config.start == "base":
        part = base.upsampler
        header = {"net": params_to_dict(part.net.params), "diffusion": asdict(part.diffusion), "scale": part.scale}
        subject = Subject(part.net, header, part.family, part.diffusion, clamp=part.clamp, template=part)
    else:
        family = base.family if base else config.family or output.resolve().name
        shape = _shape("upsampler", config.net)
        scale = shape.pop("scale", upsampler.SCALE)
        params = params_from_dict(UpsamplerParams, shape)
        spec = _process("upsampler", config.diffusion)
        _check_channels(params, 6, spec)
        header = {"net": params_to_dict(params), "diffusion": asdict(spec), "scale": scale}
        subject = Subject(UpsamplerNet(params), header, family, spec)
    _check_crop(config.loss.crop, subject)
    return subject


_BUILDERS = {"clip": _clip, "prior": _prior, "decoder": _decoder, "upsampler": _upsampler}


def _shape(stage: str, net: Mapping[str, Any]) -> dict[str, Any]:
    """The shape as given, over that of the preset, table by table."""
    given = dict(net)
    name = given.pop("preset", None)
    if name is None:
        return given
    if name not in PRESETS[stage]:
        raise ValueError(f"net.preset must be one of {sorted(PRESETS[stage])}, got {name!r}.")
    params = PRESETS[stage][name]()
    return _over(params.to_dict() if isinstance(params, DecoderParams) else params_to_dict(params), given)


def _over(below: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _over(below[name], value)
        for name, value in given.items()
        if isinstance(value, Mapping) and isinstance(below.get(name), dict)
    }
    return below | dict(given) | both


def _process(stage: str, given: Mapping[str, Any]) -> DiffusionSpec:
    known = {item.name for item in fields(DiffusionSpec)}
    if unknown := sorted(set(given) - known):
        raise ValueError(f"unknown settings {['diffusion.' + name for name in unknown]}; known are {sorted(known)}.")
    spec = replace(PROCESSES[stage], **given)
    try:
        ModelDenoiser(nn.Identity(), spec.table, spec.prediction, spec.variance)
        spec.steps(min(2, spec.train_steps))
    except KeyError as error:
        raise ValueError(f"diffusion: there is no schedule {error}.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"diffusion: {error}") from error
    return spec


def _check_channels(params: UNetParams, inner: int, spec: DiffusionSpec) -> None:
    wanted = 6 if spec.variance == "learned_range" else 3
    if params.in_channels != inner or params.out_channels != wanted:
        raise ValueError(
            f"net: a UNet of {params.in_channels} channels in and {params.out_channels} out does not do: "
            f"here it takes {inner}, and with the variance '{spec.variance}' it gives {wanted}."
        )


def _check_crop(crop: int, subject: Subject) -> None:
    scale, stride = subject.header["scale"], subject.net.unet.stride
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 2:
        raise ValueError(f"net.scale must be a whole number of 2 or more, got {scale!r}.")
    if crop % scale or crop % stride:
        raise ValueError(f"loss.crop {crop} must be a multiple of the scale {scale} and of the net's stride {stride}.")
