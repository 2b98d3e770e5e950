"""What a training keeps on the disk to resume from: checkpoints that are whole or absent, and the log."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..weights.files import CheckpointError, whole_file, write_whole

CHANGEABLE = (
    "steps",
    "stop",
    "log_every",
    "save_minutes",
    "sample_every",
    "tensorboard",
    "workers",
    "save_dtype",
    "accumulation",
    "checkpointing",
)
"""Settings of [training] that may differ when a training goes on."""


BEFORE = {"training.optimizer": "adamw", "training.muon_max_side": 2048, "training.stop": 0}
"""What trainings did, whose kept configuration is older than the setting."""
FORMAT = 2
"""Of checkpoints; the first held AdamW's moments, and the net's weights without the objective's prefix."""


@dataclass(frozen=True)
class RunFiles:
    """The files of one training in `folder`; `name` goes before theirs where several trainings share it."""

    folder: Path
    name: str = ""

    @property
    def state(self) -> Path:
        """The checkpoint."""
        return self._path("state.pt")

    @property
    def log(self) -> Path:
        """One JSON object a line."""
        return self._path("log.jsonl")

    @property
    def config(self) -> Path:
        """The settings that the training was begun with."""
        return self._path("config.json")

    def _path(self, ending: str) -> Path:
        return self.folder / (f"{self.name}.{ending}" if self.name else ending)


def write_state(files: RunFiles, state: Mapping[str, Any]) -> None:
    """Write the checkpoint. Raises OSError where the disk is full: the one before is then still there."""
    with whole_file(files.state) as file:
        torch.save({"format": FORMAT, **state}, file)


def clear_leftovers(*folders: Path) -> None:
    """Remove the unfinished files that a process killed while writing has left in these folders."""
    for path in (path for folder in folders for path in folder.glob(".*.part")):
        path.unlink(missing_ok=True)


def read_state(files: RunFiles) -> dict[str, Any] | None:
    """The checkpoint; None where there is none yet.

    Raises:
        CheckpointError: it is damaged.
    """
    path = files.state
    if not path.is_file():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        return state if state.get("format") == FORMAT else _upgraded(state)
    except Exception as error:
        raise CheckpointError(f"The checkpoint '{path}' cannot be read ({error}): delete it to begin anew.") from error


def _upgraded(state: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint of the first format as one of this."""
    trained = {name: tensor for name, tensor in state["net"].items() if name in state["average"]}
    kept = {name: tensor for name, tensor in state["net"].items() if name not in trained}
    return {
        **state,
        "parameters": {f"net.{name}": tensor for name, tensor in trained.items()},
        "buffers": {f"net.{name}": tensor for name, tensor in kept.items()},
        "average": {f"net.{name}": tensor for name, tensor in state["average"].items()},
        "optimizer": {"adamw": state["optimizer"]},
    }


def settle_config(files: RunFiles, config: dict[str, Any], data: str, write: bool) -> None:
    """Keep the configuration; where a training is resumed, check that it is the same.

    Raises:
        ValueError: the folder holds a checkpoint of other settings, which are named.
    """
    new = {"data": data, **config}
    if files.config.is_file() and files.state.is_file():
        old = json.loads(files.config.read_text(encoding="utf-8"))
        before, now = BEFORE | _flat(old), _flat(json.loads(json.dumps(new)))
        differing = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        if fixed := [name for name in differing if not _is_changeable(name)]:
            changes = ", ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in fixed)
            raise ValueError(
                f"'{files.folder}' holds a training with other settings ({changes}): set them back to go on, "
                "or name another folder as --output."
            )
    if write:
        write_whole(files.config, (json.dumps(new, indent=2) + "\n").encode())


def _is_changeable(name: str) -> bool:
    return name.removeprefix("training.") in CHANGEABLE or name.startswith("settings")


def append_log(files: RunFiles, line: Mapping[str, Any]) -> None:
    """Add a line to the log."""
    files.folder.mkdir(parents=True, exist_ok=True)
    with open(files.log, "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def read_log(files: RunFiles) -> list[dict[str, Any]]:
    """The lines of the log; one that a crash cut off is left out."""
    lines = files.log.read_text(encoding="utf-8").splitlines() if files.log.is_file() else []
    return [line for text in lines if (line := _line(text)) is not None]


def cut_log(files: RunFiles, step: int) -> None:
    """Drop the log's lines of steps after `step`: they are trained again."""
    if files.log.is_file():
        kept = [line for line in read_log(files) if line["step"] <= step]
        write_whole(files.log, "".join(json.dumps(line) + "\n" for line in kept).encode())


def _line(text: str) -> dict[str, Any] | None:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
