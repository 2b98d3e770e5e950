"""Infer shapes and settings of kakaobrain's Karlo: from its YAML files if present, else from tensor shapes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...diffusion.spec import DiffusionSpec
from ...nets.clip_towers import TextTowerParams, VisionTowerParams
from ...nets.decoder import DecoderParams
from ...nets.prior import EXTRA_TOKENS, PriorParams
from ...nets.token_conditioner import TokenConditionerParams
from ...nets.unet_params import UNetParams
from ...weights.files import CheckpointError
from ...weights.tensors import Tensors

Settings = Mapping[str, Any]

HEAD_WIDTH = 64
DECODER_SIZE = 64
_TYPES = {"prior": "prior", "t2i-decoder": "decoder", "improved_sr_64_256": "super_res"}
_PREDICTS_X0 = {"prior": True}
_LEARNS_SIGMA = {"decoder": True}


def read_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the YAML files in `folder` and its `configs`: hyper-parameters and diffusion by net, flattened.

    Raises:
        CheckpointError: a file is no YAML.
    """
    found = {}
    for path in sorted([*folder.glob("*.y*ml"), *folder.glob("configs/*.y*ml")]):
        config = _read_yaml(path)
        model = config.get("model") if isinstance(config, dict) else None
        kind = _TYPES.get(model.get("type", "")) if isinstance(model, dict) else None
        if kind and model:
            found[kind] = {**(model.get("hparams") or {}), **(config.get("diffusion") or {})}
    return found


def _read_yaml(path: Path) -> Any:
    try:
        import yaml  # comes with huggingface_hub, which open_clip brings
    except ImportError as error:
        raise CheckpointError(f"'{path}' needs PyYAML to be read: pip install pyyaml.") from error
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"'{path}' cannot be read as YAML ({error}).") from error


def prior(source: Tensors, settings: Settings, soft_mask: bool) -> PriorParams:
    """Infer the shape of the prior."""
    _, tokens, width = _shape(source, "model.positional_embedding", 3)
    heads = settings.get("xf_heads") or max(1, width // HEAD_WIDTH)
    return PriorParams(
        width=width,
        layers=_count(source, r"model\.transformer\.resblocks\.(\d+)\."),
        heads=heads,
        head_dim=width // heads,
        embed_dim=_shape(source, "model.clip_img_proj.weight", 2)[1],
        text_width=_shape(source, "model.text_enc_proj.weight", 2)[1],
        text_tokens=tokens - EXTRA_TOKENS,
        mlp_ratio=_shape(source, "model.transformer.resblocks.0.mlp.c_fc.weight", 2)[0] // width,
        soft_mask=soft_mask,
    )


def decoder(source: Tensors, settings: Settings) -> DecoderParams:
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
    return DecoderParams(conditioner, shape, settings.get("image_size", DECODER_SIZE))


def unet(source: Tensors, prefix: str, settings: Settings) -> UNetParams:
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
        head_dim=settings.get("num_head_channels", HEAD_WIDTH),
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
        layers=_count(source, r"transformer\.resblocks\.(\d+)\."),
        heads=max(1, text_width // HEAD_WIDTH),
        embed_dim=embed_dim,
        vocabulary=_shape(source, "token_embedding.weight", 2)[0],
        context=context,
    )
    vision = VisionTowerParams(
        width=width,
        mlp_width=_shape(source, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        layers=_count(source, r"visual\.transformer\.resblocks\.(\d+)\."),
        heads=max(1, width // HEAD_WIDTH),
        embed_dim=embed_dim,
        image_size=side * patch,
        patch_size=patch,
        channels=channels,
    )
    return text, vision


def diffusion(name: str, settings: Settings, compatible: bool, native_clip: float) -> DiffusionSpec:
    """Return the diffusion of "prior", "decoder" or "super_res". Raises CheckpointError for another schedule."""
    schedule = settings.get("noise_schedule", "squaredcos_cap_v2")
    if schedule != "squaredcos_cap_v2":
        raise CheckpointError(f"Karlo's {name} has the noise schedule {schedule!r}; supported is 'squaredcos_cap_v2'.")
    limit = 1.0 if name != "prior" else native_clip / 2 if compatible else native_clip
    return DiffusionSpec(
        schedule="cosine",
        train_steps=settings.get("steps", 1000),
        prediction="sample" if settings.get("predict_xstart", _PREDICTS_X0.get(name, False)) else "epsilon",
        variance="learned_range" if settings.get("learn_sigma", _LEARNS_SIGMA.get(name, False)) else "fixed_small_log",
        clip_range=limit,
        spacing="karlo" if compatible else "karlo_native",
        compatible=compatible,
        solver_spacing="trailing",
    )


def _levels(source: Tensors, prefix: str) -> list[list[int]]:
    """Numbers of the output blocks of each level, the smallest level first."""
    levels: list[list[int]] = [[]]
    count = _count(source, rf"{re.escape(prefix)}output_blocks\.(\d+)\.")
    for number in range(count):
        levels[-1].append(number)
        ends = (f"{prefix}output_blocks.{number}.{slot}.in_layers.0.weight" for slot in (1, 2))
        if any(key in source.shapes for key in ends):
            levels.append([])
    if not levels[-1]:
        raise CheckpointError(f"'{source.source}' has no output blocks under '{prefix}'.")
    return levels


def _count(source: Tensors, pattern: str) -> int:
    """One more than the highest number that `pattern` finds at the start of a key; 0 where it finds none."""
    return max((int(found[1]) + 1 for key in source.shapes if (found := re.match(pattern, key))), default=0)


def _shape(source: Tensors, key: str, rank: int) -> tuple[int, ...]:
    shape = source.shapes.get(key)
    if shape is None or len(shape) != rank:
        said = "is missing" if shape is None else f"has shape {list(shape)}"
        raise CheckpointError(f"'{source.source}': '{key}' {said}; a tensor of {rank} dimensions is needed there.")
    return shape
