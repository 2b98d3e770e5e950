"""Infer shapes and settings of kakaobrain's Karlo: from its YAML files if present, else from tensor shapes."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...diffusion.spec import DiffusionSpec
from ...listing import visible
from ...nets.clip_towers import TextTowerParams, VisionTowerParams
from ...nets.decoder import DecoderParams
from ...nets.prior import EXTRA_TOKENS, PriorParams
from ...nets.token_conditioner import TokenConditionerParams
from ...nets.unet_params import UNetParams
from ...parsing import checked, read_text
from ...weights.config_checks import refused
from ...weights.files import CheckpointError
from ...weights.tensors import Tensors

HEAD_WIDTH = 64
DECODER_SIZE = 64
MAX_YAML_BYTES = 1 << 20
_TYPES = {"prior": "prior", "t2i-decoder": "decoder", "improved_sr_64_256": "super_res"}
_PREDICTS_X0 = {"prior": True}
_LEARNS_SIGMA = {"decoder": True}
_NUMBER = "([0-9]{1,6})"


@dataclass(frozen=True)
class KakaoSettings:
    """What is read of a YAML file's "hparams" and "diffusion"; None stands for the published model's own."""

    xf_heads: int | None = None
    image_size: int = DECODER_SIZE
    num_head_channels: int = HEAD_WIDTH
    steps: int = 1000
    predict_xstart: bool | None = None
    learn_sigma: bool | None = None
    noise_schedule: str = "squaredcos_cap_v2"


def read_settings(folder: Path) -> dict[str, KakaoSettings]:
    """Read the YAML files in `folder` and its `configs`: hyper-parameters and diffusion by net.

    Raises:
        CheckpointError: a file is no YAML, or a setting of another type.
    """
    found: dict[str, KakaoSettings] = {}
    for path in sorted([*visible(folder, "*.y*ml"), *visible(folder, "configs/*.y*ml")]):
        config = _read_yaml(path)
        if not isinstance(config, dict) or not isinstance(model := config.get("model"), dict):
            continue
        kind = model.get("type")
        if isinstance(kind, str) and kind in _TYPES:
            found[_TYPES[kind]] = _settings(path, model.get("hparams"), config.get("diffusion"))
    return found


def _settings(path: Path, *tables: Any) -> KakaoSettings:
    known = {item.name for item in fields(KakaoSettings)}
    told: dict[str, Any] = {}
    for table in tables:
        if not isinstance(table, dict | None):
            raise CheckpointError(f'\'{path}\': "hparams" and "diffusion" must be tables, got {str(table)[:60]!r}.')
        told |= {key: value for key, value in (table or {}).items() if key in known}
    with refused():
        return checked(KakaoSettings, told, f"'{path}'")


def _read_yaml(path: Path) -> Any:
    try:
        import yaml  # comes with huggingface_hub, which open_clip brings
    except ImportError as error:
        raise CheckpointError(f"'{path}' needs PyYAML to be read: pip install pyyaml.") from error
    with refused(f"'{path}'"):
        text = read_text(path, MAX_YAML_BYTES)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it repeats parts of itself by aliases, by which a small file becomes an endless one")
        return yaml.safe_load(text)
    except Exception as error:  # whatever a damaged file makes of the parser
        raise CheckpointError(f"'{path}' cannot be read as YAML ({error or 'it is nested too deep'}).") from error


def prior(source: Tensors, settings: KakaoSettings, soft_mask: bool) -> PriorParams:
    """Infer the shape of the prior."""
    _, tokens, width = _shape(source, "model.positional_embedding", 3)
    heads = settings.xf_heads or max(1, width // HEAD_WIDTH)
    return PriorParams(
        width=width,
        layers=_count(source, r"model\.transformer\.resblocks\."),
        heads=heads,
        head_dim=width // heads,
        embed_dim=_shape(source, "model.clip_img_proj.weight", 2)[1],
        text_width=_shape(source, "model.text_enc_proj.weight", 2)[1],
        text_tokens=tokens - EXTRA_TOKENS,
        mlp_ratio=_shape(source, "model.transformer.resblocks.0.mlp.c_fc.weight", 2)[0] // width,
        soft_mask=soft_mask,
    )


def decoder(source: Tensors, settings: KakaoSettings) -> DecoderParams:
    """Infer the shape of the decoder and its conditioner."""
    shape = unet(source, "model.", settings)
    context_dim, text_width = _shape(source, "model.text_seq_proj.0.weight", 2)
    conditioner = TokenConditionerParams(
        embed_dim=_shape(source, "model.cf_param", 1)[0],
        text_width=text_width,
        time_embed_dim=shape.time_embed_dim,
        context_dim=context_dim,
        extra_tokens=_shape(source, "model.clip_tok_proj.weight", 2)[0] // context_dim,
    )
    return DecoderParams(conditioner, shape, settings.image_size)


def unet(source: Tensors, prefix: str, settings: KakaoSettings) -> UNetParams:
    """Infer the shape of the UNet under `prefix`: upsampling on the way up ends a level."""
    levels = _levels(source, prefix)
    last = levels[0][-1]
    channels = [_shape(source, f"{prefix}output_blocks.{level[-1]}.0.out_layers.3.weight", 4)[0] for level in levels]
    attention = [f"{prefix}output_blocks.{level[-1]}.1.qkv.weight" in source.shapes for level in levels]
    shift = _shape(source, f"{prefix}output_blocks.{last}.0.emb_layers.1.weight", 2)[0]
    time_embed, time_channels = _shape(source, f"{prefix}time_embed.0.weight", 2)
    context = source.shapes.get(f"{prefix}middle_block.1.encoder_kv.weight")
    return UNetParams(
        in_channels=_shape(source, f"{prefix}input_blocks.0.0.weight", 4)[1],
        out_channels=_shape(source, f"{prefix}out.2.weight", 4)[0],
        channels=tuple(reversed(channels)),
        blocks=tuple(len(level) - 1 for level in reversed(levels)),
        attention=tuple(reversed(attention)),
        map_channels=(0,) * len(levels),
        time_channels=time_channels,
        time_embed_dim=time_embed,
        mid_attention=f"{prefix}middle_block.1.qkv.weight" in source.shapes,
        context_dim=context[1] if context else None,
        head_dim=settings.num_head_channels,
        time_shift="scale_shift" if shift == 2 * channels[0] else "add",
    )


def towers(source: Tensors) -> tuple[TextTowerParams, VisionTowerParams]:
    """Infer the shapes of OpenAI's text and vision towers; their heads are 64 wide."""
    context, text_width = _shape(source, "positional_embedding", 2)
    width, channels, patch, _ = _shape(source, "visual.conv1.weight", 4)
    side = round((_shape(source, "visual.positional_embedding", 2)[0] - 1) ** 0.5)
    embed_dim = _shape(source, "text_projection", 2)[1]
    text = TextTowerParams(
        width=text_width,
        mlp_width=_shape(source, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        layers=_count(source, r"transformer\.resblocks\."),
        heads=max(1, text_width // HEAD_WIDTH),
        embed_dim=embed_dim,
        vocabulary=_shape(source, "token_embedding.weight", 2)[0],
        context=context,
    )
    vision = VisionTowerParams(
        width=width,
        mlp_width=_shape(source, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        layers=_count(source, r"visual\.transformer\.resblocks\."),
        heads=max(1, width // HEAD_WIDTH),
        embed_dim=embed_dim,
        image_size=side * patch,
        patch_size=patch,
        channels=channels,
    )
    return text, vision


def diffusion(name: str, settings: KakaoSettings, compatible: bool, native_clip: float) -> DiffusionSpec:
    """Return the diffusion of "prior", "decoder" or "super_res". Raises CheckpointError for another schedule."""
    if settings.noise_schedule != "squaredcos_cap_v2":
        raise CheckpointError(
            f"Karlo's {name} has the noise schedule {settings.noise_schedule!r}; supported is 'squaredcos_cap_v2'."
        )
    limit = 1.0 if name != "prior" else native_clip / 2 if compatible else native_clip
    predicts_x0 = _PREDICTS_X0.get(name, False) if settings.predict_xstart is None else settings.predict_xstart
    learns_sigma = _LEARNS_SIGMA.get(name, False) if settings.learn_sigma is None else settings.learn_sigma
    return DiffusionSpec(
        schedule="cosine",
        train_steps=settings.steps,
        prediction="sample" if predicts_x0 else "epsilon",
        variance="learned_range" if learns_sigma else "fixed_small_log",
        clip_range=limit,
        spacing="karlo" if compatible else "karlo_native",
        compatible=compatible,
        solver_spacing="trailing",
    )


def _levels(source: Tensors, prefix: str) -> list[list[int]]:
    """Numbers of the output blocks of each level, the smallest level first."""
    levels: list[list[int]] = [[]]
    count = _count(source, rf"{re.escape(prefix)}output_blocks\.")
    for number in range(count):
        levels[-1].append(number)
        ends = (f"{prefix}output_blocks.{number}.{slot}.in_layers.0.weight" for slot in (1, 2))
        if any(key in source.shapes for key in ends):
            levels.append([])
    if not levels[-1]:
        raise CheckpointError(f"'{source.source}' has no output blocks under '{prefix}'.")
    return levels


def _count(source: Tensors, prefix: str) -> int:
    """How many blocks there are under `prefix`, a pattern: their numbers have to run from 0 on without a gap.

    Raises:
        CheckpointError: one is missing, so that a number says more than the file holds.
    """
    pattern = re.compile(prefix + _NUMBER + r"\.")
    numbers = {int(found[1]) for key in source.shapes if (found := pattern.match(key))}
    if numbers and max(numbers) >= len(numbers):
        raise CheckpointError(
            f"'{source.source}' holds the block {max(numbers)} under '{prefix.replace(chr(92), '')}', but only "
            f"{len(numbers)} blocks: it is not whole."
        )
    return len(numbers)


def _shape(source: Tensors, key: str, rank: int) -> tuple[int, ...]:
    shape = source.shapes.get(key)
    if shape is None or len(shape) != rank or 0 in shape:
        said = "is missing" if shape is None else f"has shape {list(shape)}"
        raise CheckpointError(f"'{source.source}': '{key}' {said}; a tensor of {rank} dimensions is needed there.")
    return shape
