"""Read our own model folders: `model_index.json` and a safetensors file a component, with its configuration."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ...clip.open_clip_adapter import ClipConfig, OpenClipAdapter
from ...diffusion.spec import DiffusionSpec
from ...models import PARTS, Clip, Decoder, Prior, StageSettings, Upsampler
from ...nets.decoder import DecoderNet, DecoderParams
from ...nets.params import params_from_dict
from ...nets.prior import PriorParams, PriorTransformer
from ...nets.upsampler import UpsamplerNet, UpsamplerParams
from ...weights.files import CheckpointError, load_strictly, load_weights
from ...weights.meta_init import meta_init
from ..registry import INDEX
from ..statistics import check_statistics

FORMAT = "unclip-v1"
P = TypeVar("P", Prior, Decoder, Upsampler)
_CONFIG_KEYS = {
    "clip": ("model",),
    "prior": ("net", "diffusion", "unit_norm"),
    "decoder": ("net", "diffusion"),
    "upsampler": ("net", "diffusion", "scale"),
    "second_upsampler": ("net", "diffusion", "scale", "from_size"),
}


def read_index(folder: Path) -> dict[str, Any]:
    """Read the index of a model folder: `format`, `family`, `components` (name → file), `settings`.

    Raises:
        CheckpointError: there is no index, it is not JSON, or not of this format.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"'{folder}' is no model folder: '{path}' cannot be read ({error}).") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT or "family" not in index:
        raise CheckpointError(f"'{path}' is not of the format '{FORMAT}' with a 'family': this model is not supported.")
    return index


class NativeFolder:
    """A folder of this format; its parts are read one by one."""

    small = True

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        """Read the index. Raises CheckpointError where it is unusable."""
        self.folder, self.dtype = folder, dtype
        index = read_index(folder)
        self.family: str = index["family"]
        if not _components(folder):
            raise CheckpointError(f"'{folder / INDEX}' names no files under \"components\".")
        self.parts = frozenset(PARTS) & frozenset(_components(folder))
        self.settings = _settings(folder / INDEX, index.get("settings", {}))

    def check(self) -> None:
        """Do nothing: these folders are small, and checked as they are read."""

    def clip(self) -> Clip:
        """Read text and image encoders."""
        return read_clip(self.folder, self.family)

    def prior(self) -> Prior:
        """Read the prior."""
        return self._sampled("prior", read_prior(self.folder, self.family, self.dtype))

    def decoder(self) -> Decoder:
        """Read the decoder."""
        return self._sampled("decoder", read_decoder(self.folder, self.family, self.dtype))

    def upsampler(self) -> Upsampler:
        """Read the upsampler."""
        part = self._sampled("upsampler", read_upsampler(self.folder, self.family, self.dtype))
        return part if part.second is None else replace(part, second=self._sampled("upsampler", part.second))

    def _sampled(self, stage: str, part: P) -> P:
        """Return the part with the settings that the index states for its stage, if any."""
        return replace(part, settings=self.settings[stage]) if stage in self.settings else part


def _settings(path: Path, stated: Any) -> dict[str, StageSettings]:
    """Read the index's "settings": by stage, each with "steps" and perhaps "guidance_scale" and "sampler".

    Raises:
        CheckpointError: a stage or setting is not known, or a number is out of range.
    """
    try:
        found = {stage: StageSettings(**values) for stage, values in dict(stated).items()}
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The settings in '{path}' are not usable: {error}") from error
    if unknown := sorted(set(found) - set(PARTS[1:])):
        raise CheckpointError(f"The settings in '{path}' are for the stages {unknown}; known are {list(PARTS[1:])}.")
    return found


def read_clip(folder: Path, family: str) -> Clip:
    """Read the folder's CLIP (always in fp32: it is small and runs once)."""
    tensors, config, path = _read(folder, "clip", torch.float32)
    return Clip(family, OpenClipAdapter.from_weights(tensors, _configured(path, ClipConfig.from_dict, config), path))


def read_prior(folder: Path, family: str, dtype: torch.dtype) -> Prior:
    """Read the folder's prior."""
    tensors, config, path = _read(folder, "prior", dtype)
    params = _configured(path, partial(params_from_dict, PriorParams), config["net"])
    diffusion = _configured(path, DiffusionSpec.from_dict, config["diffusion"])
    net = _ready(lambda: PriorTransformer(params), tensors, path)
    check_statistics(net, Path(path))
    return Prior(family, net, diffusion, bool(config["unit_norm"]))


def read_decoder(folder: Path, family: str, dtype: torch.dtype) -> Decoder:
    """Read the folder's decoder."""
    tensors, config, path = _read(folder, "decoder", dtype)
    params = _configured(path, DecoderParams.from_dict, config["net"])
    diffusion = _configured(path, DiffusionSpec.from_dict, config["diffusion"])
    return Decoder(family, _ready(lambda: DecoderNet(params), tensors, path), diffusion, params.image_size)


def read_upsampler(folder: Path, family: str, dtype: torch.dtype) -> Upsampler:
    """Read the folder's upsampler, and the second one where the index names it."""
    second = None
    if "second_upsampler" in _components(folder):
        second = _upsampler(folder, "second_upsampler", family, dtype)
    return replace(_upsampler(folder, "upsampler", family, dtype), second=second)


def _upsampler(folder: Path, component: str, family: str, dtype: torch.dtype) -> Upsampler:
    tensors, config, path = _read(folder, component, dtype)
    params = _configured(path, partial(params_from_dict, UpsamplerParams), config["net"])
    diffusion = _configured(path, DiffusionSpec.from_dict, config["diffusion"])
    net = _ready(lambda: UpsamplerNet(params), tensors, path)
    scale, from_size = (_configured(path, int, config.get(name, 1)) for name in ("scale", "from_size"))
    return Upsampler(family, net, diffusion, scale, from_size=from_size)


def _read(folder: Path, component: str, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, Any], str]:
    path = folder / _file_name(folder, component)
    tensors, config = load_weights(path, dtype)
    needed = _CONFIG_KEYS[component]
    if not isinstance(config, dict) or (missing := [key for key in needed if key not in config]):
        said = f"lacks {missing}" if isinstance(config, dict) else f"is {config!r}"
        raise CheckpointError(f"The configuration in the header of '{path}' {said}; it needs {list(needed)}.")
    return tensors, config, str(path)


def _components(folder: Path) -> dict[str, str]:
    components = read_index(folder).get("components", {})
    if not isinstance(components, dict) or not all(isinstance(name, str) for name in components.values()):
        raise CheckpointError(f"'{folder / INDEX}' names no files under \"components\": it holds {components!r}.")
    outside = [name for name in components.values() if not _is_inside(name)]
    if outside:
        raise CheckpointError(f"'{folder / INDEX}' names files outside of its folder ({outside}): they are not read.")
    return components


def _is_inside(name: str) -> bool:
    """Tell whether a name in an index is that of a file in the same folder, on any system."""
    return bool(name.strip(". ")) and not set(name) & {"/", "\\", ":", "\0"}


def _file_name(folder: Path, component: str) -> str:
    if component not in (components := _components(folder)):
        raise CheckpointError(f"'{folder / INDEX}' names no file for the '{component}' under \"components\".")
    return components[component]


def _configured(path: str, build: Any, config: Any) -> Any:
    try:
        return build(config)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The configuration in the header of '{path}' is not usable: {error}") from error


def _ready(build: Callable[[], nn.Module], tensors: dict[str, torch.Tensor], path: str) -> nn.Module:
    with meta_init():  # no random weights that would only be replaced
        net = build()
    load_strictly(net, tensors, path)
    return net.eval().requires_grad_(False)
