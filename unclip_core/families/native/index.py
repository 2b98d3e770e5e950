"""The index of this project's own model folders, `model_index.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...models import PARTS, StageSettings
from ...parsing import checked
from ...weights.config_checks import is_file_name, read_table, refused
from ...weights.files import CheckpointError, write_whole
from ..registry import INDEX

FORMAT = "unclip-v1"


@dataclass(frozen=True)
class ModelIndex:
    """What an index states.

    Attributes:
        family: whose embeddings the parts exchange.
        components: file names by component ("clip", "prior", "decoder", "upsampler", "second_upsampler").
        settings: how stages are sampled by default, by stage.
    """

    family: str
    components: dict[str, str]
    settings: dict[str, StageSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names and stages; raises ValueError."""
        if outside := [name for name in self.components.values() if not is_file_name(name)]:
            raise ValueError(f'its "components" name files outside of its folder ({outside[:3]}), which are not read')
        if unknown := sorted(set(self.settings) - set(PARTS[1:])):
            raise ValueError(f"its settings are for the stages {unknown[:3]}; known are {list(PARTS[1:])}")


def read_index(folder: Path) -> ModelIndex:
    """Read the index of a model folder.

    Raises:
        CheckpointError: there is no index, it is no JSON object, not of this format, or what it states is unusable.
    """
    path = folder / INDEX
    if not path.is_file():
        raise CheckpointError(f"'{folder}' is no model folder: there is no '{path}'.")
    table = read_table(path)
    if table.get("format") != FORMAT or "family" not in table:
        raise CheckpointError(f"'{path}' is not of the format '{FORMAT}' with a 'family': this model is not supported.")
    with refused():
        index: ModelIndex = checked(ModelIndex, table, f"'{path}'")
    if not index.components:
        raise CheckpointError(f"'{path}' names no files under \"components\".")
    return index


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
