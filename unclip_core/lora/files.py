"""LoRA files: safetensors in the key format of Hugging Face's peft, with family, stage, rank and alpha in the header.

A file that peft's own `save_pretrained` wrote is read too; what its header does not say stands in the
`adapter_config.json` beside it.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..models import Clip, Decoder, PartReader, Prior, UnclipModel, Upsampler
from ..weights.files import CONFIG_KEY, CheckpointError, save_weights
from ..weights.tensors import Tensors, open_file
from .delta import STAGES, Adaptable, Change, Lora, apply_lora

FORMAT = "unclip-lora-v1"
PREFIX = "base_model.model."
"""What peft puts before the names of the modules of the model that it wraps."""

PEFT_CONFIG = "adapter_config.json"
_KEY = re.compile(rf"(?:{re.escape(PREFIX)})?(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight")
_BEYOND = {
    "use_dora": False,
    "bias": "none",
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "alpha_pattern": {},
    "lora_bias": False,
    "use_qalora": False,
    "use_bdlora": None,
    "kasa_config": None,
    "trainable_token_indices": None,
    "layer_replication": None,
}
"""Settings of peft's under which a LoRA is more than B A; they have to be as they are here, or unset."""


def write_lora(
    path: str | Path, factors: Mapping[str, tuple[Tensor, Tensor]], *, family: str, stage: str, rank: int, alpha: float
) -> None:
    """Save A and B of every module, float32, whole or not at all.

    Raises:
        OSError: the file could not be written; nothing is left behind.
    """
    tensors = {
        f"{PREFIX}{name}.lora_{letter}.weight": factor.float()
        for name, pair in factors.items()
        for letter, factor in zip("AB", pair, strict=True)
    }
    save_weights(
        path,
        tensors,
        {"format": FORMAT, "family": family, "stage": stage, "rank": rank, "alpha": alpha, "modules": sorted(factors)},
    )


def read_lora(path: str | Path) -> Lora:
    """Read a LoRA; whether it fits a net is for `check_fits` to say.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or says neither alpha nor rank.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"'{path}' is no .safetensors file: LoRAs are read from those only.")
    tensors = open_file(path)
    factors = _factors(tensors)
    config = read_config(path)
    if config.get("format") != FORMAT:
        return Lora(path, _stage_by_names(path, factors), None, factors, _peft_scales(path, config, factors))
    _check_own(path, config, factors)
    return Lora(
        path, config["stage"], config["family"], factors, dict.fromkeys(factors, config["alpha"] / config["rank"])
    )


@dataclass(frozen=True)
class AdaptedReader:
    """A reader of a model folder's parts that adds LoRAs to them as they are read."""

    reader: PartReader
    changes: tuple[Change, ...]

    @property
    def family(self) -> str:
        """The model's."""
        return self.reader.family

    @property
    def small(self) -> bool:
        """Whether it is quick to read all of it at once."""
        return self.reader.small

    @property
    def parts(self) -> frozenset[str]:
        """Which parts the model has."""
        return self.reader.parts

    def check(self) -> None:
        """Check the model's own files."""
        self.reader.check()

    def clip(self) -> Clip:
        """Text and image encoders."""
        return self.reader.clip()

    def prior(self) -> Prior:
        """The prior, with the LoRAs for priors."""
        return self._adapted("prior", self.reader.prior())

    def decoder(self) -> Decoder:
        """The decoder, with the LoRAs for decoders."""
        return self._adapted("decoder", self.reader.decoder())

    def upsampler(self) -> Upsampler:
        """The upsampler."""
        return self.reader.upsampler()

    def _adapted(self, stage: str, part: Adaptable) -> Adaptable:
        for lora, strength in self.changes:
            if lora.stage == stage:
                part = apply_lora(part, lora, strength)
        return part


def adapted_model(model: UnclipModel, changes: Sequence[Change]) -> UnclipModel:
    """The model with LoRAs, each added to the part that it is for when that is read."""
    return replace(model, reader=AdaptedReader(model.reader, tuple(changes))) if changes else model


def read_config(path: Path) -> dict[str, Any]:
    """What the file's header says of the LoRA, or else peft's `adapter_config.json` beside it.

    Raises:
        CheckpointError: neither is there, or it is no JSON object.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(CONFIG_KEY)
        beside = path.with_name(PEFT_CONFIG)
        if text is None and not beside.is_file():
            raise CheckpointError(
                f"'{path}' does not say its alpha: its header holds no '{CONFIG_KEY}', and no "
                f"'{PEFT_CONFIG}' lies beside it."
            )
        config = json.loads(beside.read_text(encoding="utf-8") if text is None else text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, SafetensorError) as error:
        raise CheckpointError(f"The configuration of '{path}' cannot be read ({error}).") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"The configuration of '{path}' is no JSON object.")
    return config


def _factors(tensors: Tensors) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B by module, in the file's order.

    Raises:
        CheckpointError: a key is not in peft's form, one of a pair is missing, or the two do not go together.
    """
    keys: dict[str, dict[str, str]] = {}
    for key in tensors.shapes:
        match = _KEY.fullmatch(key)
        if match is None:
            raise CheckpointError(
                f"'{tensors.source}' is no LoRA in peft's format: the key '{key}' is not of the form "
                "'<layer>.lora_A.weight'. LoRAs made for other models than unCLIP do not fit."
            )
        keys.setdefault(match["module"], {})[match["factor"]] = key
    if not keys:
        raise CheckpointError(f"'{tensors.source}' holds no tensors.")
    return {module: _pair(tensors, module, pair) for module, pair in sorted(keys.items())}


def _pair(tensors: Tensors, module: str, keys: dict[str, str]) -> tuple[Tensor, Tensor]:
    if lacking := {"A", "B"} - set(keys):
        raise CheckpointError(
            f"'{tensors.source}' lacks the '{module}.lora_{lacking.pop()}.weight' that goes with "
            f"'{next(iter(keys.values()))}': it is not whole."
        )
    a, b = (tensors.read(keys[letter]) for letter in "AB")
    linear, convolution = (a.ndim, b.ndim) == (2, 2), (a.ndim, b.ndim) == (4, 4) and b.shape[2:] == (1, 1)
    if not (linear or convolution) or b.shape[1] != a.shape[0]:
        raise CheckpointError(
            f"'{tensors.source}': '{keys['A']}' {list(a.shape)} and '{keys['B']}' {list(b.shape)} do "
            "not go together: B's second number must be A's first, the rank."
        )
    return a, b


def _check_own(path: Path, config: dict[str, Any], factors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    stage, family, rank, alpha = (config.get(key) for key in ("stage", "family", "rank", "alpha"))
    if stage not in STAGES or not isinstance(family, str) or not _positive(rank) or not _finite(alpha):
        raise CheckpointError(
            f"The header of '{path}' says stage {stage!r}, family {family!r}, rank {rank!r} and "
            f"alpha {alpha!r}; it needs a stage of {list(STAGES)}, a family, a rank above 0 and an "
            "alpha."
        )
    named = config.get("modules")
    if named != sorted(factors):
        lacking = sorted(set(named or ()) - set(factors)) or sorted(set(factors) - set(named or ()))
        raise CheckpointError(
            f"The header of '{path}' names other layers than the file holds (such as {lacking[:3]}): it is not whole."
        )
    for name, (a, _) in factors.items():
        if len(a) != rank:
            raise CheckpointError(f"'{path}': the header says rank {rank}, but A of '{name}' is {list(a.shape)}.")


def _peft_scales(path: Path, config: dict[str, Any], factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """alpha / r of every module, or alpha / √r where peft's configuration says `use_rslora`."""
    if str(config.get("peft_type", "LORA")) != "LORA":
        raise CheckpointError(f"'{path}' is an adapter of peft's type {config['peft_type']!r}; only LORA is supported.")
    if odd := {key: config[key] for key, plain in _BEYOND.items() if config.get(key) and config[key] != plain}:
        raise CheckpointError(f"'{path}' was trained with {odd}, which is more than a plain LoRA and not supported.")
    alpha = config.get("lora_alpha")
    if alpha is None or not _finite(alpha):
        raise CheckpointError(f"The configuration of '{path}' says lora_alpha {alpha!r}; it must be a number.")
    root = math.sqrt if config.get("use_rslora") else float
    return {name: alpha / root(len(a)) for name, (a, _) in factors.items()}


def _stage_by_names(path: Path, factors: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """Which stage the layers belong to: a decoder's lie in its UNet and conditioner, all others are a prior's."""
    decoder = {name.split(".")[0] in ("unet", "conditioner") for name in factors}
    if len(decoder) > 1:
        raise CheckpointError(
            f"'{path}' holds layers of a decoder and others (such as {list(factors)[:3]}); a LoRA is for one stage."
        )
    return "decoder" if decoder.pop() else "prior"


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
