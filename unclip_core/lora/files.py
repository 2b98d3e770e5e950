"""LoRA files: safetensors in the key format of Hugging Face's peft, with family, stage, rank and alpha in the header.

A file that peft's own `save_pretrained` wrote is read too; what its header does not say stands in the
`adapter_config.json` beside it. So are those of diffusers' training scripts, see `lora.diffusers_names`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..models import Clip, Decoder, PartReader, Prior, UnclipModel, Upsampler
from ..parsing import checked
from ..weights.config_checks import parse_table, read_table, refused
from ..weights.dtypes import as_float
from ..weights.files import CONFIG_KEY, CheckpointError, save_weights
from ..weights.tensors import Tensors, open_file
from .delta import STAGES, Adaptable, Change, Lora, apply_lora
from .diffusers_names import factor_of, our_module

FORMAT = "unclip-lora-v1"
SUFFIXES = (".safetensors", ".bin")
PREFIX = "base_model.model."
"""What peft puts before the names of the modules of the model that it wraps."""

PEFT_CONFIG = "adapter_config.json"
_KEY = re.compile(rf"(?:{re.escape(PREFIX)})?(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight")
_ANY = (
    *("peft_type", "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode"),
    *("peft_version", "r", "lora_alpha", "use_rslora", "lora_dropout", "rank_pattern", "target_modules"),
    *("exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size"),
    "runtime_config",
)
"""Settings of peft's that are read, or under which a LoRA is B A whatever they say: A's shape tells its rank."""

_ONLY: dict[str, tuple[Any, ...]] = {"bias": ("none",), "init_lora_weights": (True, "gaussian", "orthogonal")}
"""Settings under which it is B A at these values, or unset: other initialisations change the base's weights."""


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
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"'{path}' is no {' or '.join(SUFFIXES)} file: LoRAs are read from those only.")
    tensors = open_file(path)
    factors = _factors(tensors)
    if all(factor_of(key) for key in tensors.shapes):
        return Lora(path, _stage_by_names(path, factors), None, factors, dict.fromkeys(factors, 1.0))
    config = read_config(path, tensors)
    if config.get("format") != FORMAT:
        return Lora(path, _stage_by_names(path, factors), None, factors, _peft_scales(path, config, factors))
    own = _own_header(path, config, factors)
    return Lora(path, own.stage, own.family, factors, dict.fromkeys(factors, own.alpha / own.rank))


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


def read_config(path: Path, tensors: Tensors) -> dict[str, Any]:
    """What the file's header says of the LoRA, or else peft's `adapter_config.json` beside it.

    Raises:
        CheckpointError: neither is there, or it is no JSON object.
    """
    if (text := tensors.metadata.get(CONFIG_KEY)) is not None:
        return parse_table(text, f"The configuration in the header of '{path}'")
    beside = path.with_name(PEFT_CONFIG)
    if not beside.is_file():
        raise CheckpointError(
            f"'{path}' does not say its alpha: its header holds no '{CONFIG_KEY}', and no "
            f"'{PEFT_CONFIG}' lies beside it."
        )
    return read_table(beside)


@dataclass(frozen=True)
class _OwnHeader:
    """What the header of a file of ours says."""

    stage: str
    family: str
    rank: int
    alpha: float
    modules: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.stage not in STAGES or self.rank < 1 or not math.isfinite(self.alpha):
            raise ValueError(
                f"it says stage {self.stage!r}, rank {self.rank} and alpha {self.alpha}; it needs a stage of "
                f"{list(STAGES)}, a rank above 0 and a finite alpha"
            )


@dataclass(frozen=True)
class _PeftConfig:
    """What is read of peft's configuration."""

    lora_alpha: float
    peft_type: str | None = "LORA"
    use_rslora: bool | None = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.lora_alpha):
            raise ValueError(f"lora_alpha must be finite, got {self.lora_alpha}")


def _factors(tensors: Tensors) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B by module, in the file's order.

    Raises:
        CheckpointError: a key is not in peft's form, one of a pair is missing, or the two do not go together.
    """
    keys: dict[str, dict[str, str]] = {}
    for key in tensors.shapes:
        match = _KEY.fullmatch(key)
        found = (our_module(match["module"]), match["factor"]) if match else factor_of(key)
        if found is None:
            raise CheckpointError(
                f"'{tensors.source}' is no LoRA in peft's format or diffusers': the key '{key}' is not of the form "
                "'<layer>.lora_A.weight'. LoRAs made for other models than unCLIP do not fit."
            )
        keys.setdefault(found[0], {})[found[1]] = key
    if not keys:
        raise CheckpointError(f"'{tensors.source}' holds no tensors.")
    return {module: _pair(tensors, module, pair) for module, pair in sorted(keys.items())}


def _pair(tensors: Tensors, module: str, keys: dict[str, str]) -> tuple[Tensor, Tensor]:
    if lacking := {"A", "B"} - set(keys):
        raise CheckpointError(
            f"'{tensors.source}' lacks the '{module}.lora_{lacking.pop()}.weight' that goes with "
            f"'{next(iter(keys.values()))}': it is not whole."
        )
    a, b = (as_float(tensors.read(keys[letter]), None) for letter in "AB")
    linear, convolution = (a.ndim, b.ndim) == (2, 2), (a.ndim, b.ndim) == (4, 4) and b.shape[2:] == (1, 1)
    if not (linear or convolution) or b.shape[1] != a.shape[0] or 0 in (*a.shape, *b.shape):
        raise CheckpointError(
            f"'{tensors.source}': '{keys['A']}' {list(a.shape)} and '{keys['B']}' {list(b.shape)} do "
            "not go together: B's second number must be A's first, the rank."
        )
    return a, b


def _own_header(path: Path, config: dict[str, Any], factors: Mapping[str, tuple[Tensor, Tensor]]) -> _OwnHeader:
    with refused():
        own: _OwnHeader = checked(_OwnHeader, config, f"The header of '{path}'")
    if own.modules != tuple(sorted(factors)):
        lacking = sorted(set(own.modules) - set(factors)) or sorted(set(factors) - set(own.modules))
        raise CheckpointError(
            f"The header of '{path}' names other layers than the file holds (such as {lacking[:3]}): it is not whole."
        )
    for name, (a, _) in factors.items():
        if len(a) != own.rank:
            raise CheckpointError(f"'{path}': the header says rank {own.rank}, but A of '{name}' is {list(a.shape)}.")
    return own


def _peft_scales(path: Path, config: dict[str, Any], factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """alpha / r of every module, or alpha / √r where peft's configuration says `use_rslora`."""
    with refused():
        told: _PeftConfig = checked(_PeftConfig, config, f"The configuration of '{path}'")
    if told.peft_type not in (None, "LORA"):
        raise CheckpointError(f"'{path}' is an adapter of peft's type {told.peft_type!r}; only LORA is supported.")
    if odd := {key: value for key, value in config.items() if not _is_harmless(key, value)}:
        said = str(odd) if len(str(odd)) < 200 else f"{str(odd)[:200]}…"
        raise CheckpointError(
            f"'{path}' was trained with {said}, which is more than a plain LoRA and not supported. If its "
            "initialisation changed the base (PiSSA, OLoRA, …), have peft save it as a plain LoRA "
            "(`path_initial_model_for_weight_conversion`)."
        )
    root = math.sqrt if told.use_rslora else float
    return {name: told.lora_alpha / root(len(a)) for name, (a, _) in factors.items()}


def _is_harmless(key: str, value: Any) -> bool:
    """Whether a setting of peft's leaves the change of a weight at B A: known to do so, or not set."""
    unset = value is None or value is False or value in ({}, [])
    return unset or key in _ANY or (key in _ONLY and value in _ONLY[key])


def _stage_by_names(path: Path, factors: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """Which stage the layers belong to: a decoder's lie in its UNet and conditioner, all others are a prior's."""
    decoder = {name.split(".")[0] in ("unet", "conditioner") for name in factors}
    if len(decoder) > 1:
        raise CheckpointError(
            f"'{path}' holds layers of a decoder and others (such as {list(factors)[:3]}); a LoRA is for one stage."
        )
    return "decoder" if decoder.pop() else "prior"
