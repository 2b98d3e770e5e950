"""Writes this project's own model folder: one safetensors file per component, and last the index that names them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...models import PARTS, UnclipModel
from ...weights.files import save_weights, write_whole
from ..placing import copy_or_link
from ..registry import INDEX, TrainedPart
from .reader import FORMAT, read_index

UPSAMPLERS = ("upsampler", "second_upsampler")


def write_index(folder: Path, family: str, components: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Write the index of a model folder.

    Args:
        folder: the model folder.
        family: whose embeddings its parts exchange.
        components: file names by component.
        settings: by stage, as `StageSettings` takes them; those of stages that the folder lacks are left out.
    """
    index: dict[str, Any] = {"format": FORMAT, "family": family, "components": dict(components)}
    if stated := {stage: dict(settings[stage]) for stage in PARTS[1:] if stage in settings and stage in components}:
        index["settings"] = stated
    write_whole(folder / INDEX, (json.dumps(index, indent=2) + "\n").encode())


def write_trained(base: UnclipModel | None, output: Path, part: TrainedPart) -> None:
    """Write the part into `output`, with the base's other components and settings; see `Family.write_trained`."""
    cast = {name: t.to(part.dtype) if t.is_floating_point() else t for name, t in part.tensors.items()}
    save_weights(output / f"{part.stage}.safetensors", cast, part.config)
    components = _take_over(part.stage, base, output) | {part.stage: f"{part.stage}.safetensors"}
    settings = _settings(None if base is None else base.folder) | _settings(output)
    if part.settings is not None:
        settings[part.stage] = asdict(part.settings)
    write_index(output, part.family, components, settings)


def _take_over(stage: str, base: UnclipModel | None, output: Path) -> dict[str, str]:
    """Copy the base's other components into `output` where it has none yet; returns all but the trained one.

    Prior and decoder of another CLIP are left behind: a new CLIP's embeddings mean nothing to them.
    """
    fitting = set(UPSAMPLERS if stage == "clip" else ("clip", "prior", "decoder", *UPSAMPLERS)) - {stage}
    kept = {name: file for name, file in _components(output).items() if name in fitting}
    if base is None:
        return kept
    for name, file in _components(base.folder).items():
        if name in fitting and name not in kept:
            kept[name] = f"{name}.safetensors"
            copy_or_link(base.folder / file, output / kept[name])
    return kept


def _components(folder: Path) -> dict[str, str]:
    return read_index(folder)["components"] if (folder / INDEX).is_file() else {}


def _settings(folder: Path | None) -> dict[str, Any]:
    if folder is None or not (folder / INDEX).is_file():
        return {}
    return dict(read_index(folder).get("settings", {}))
