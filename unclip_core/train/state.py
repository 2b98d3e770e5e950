"""What a training keeps on the disk to resume from: checkpoints that are whole or absent, settings, and logs."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from ..output import say
from ..parsing import MalformedInput, checked, parse_json, read_json, read_text
from ..weights.files import CheckpointError, whole_file, write_whole

CHANGEABLE = (
    "steps",
    "minutes",
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

BEFORE = {
    "training.optimizer": "adamw",
    "training.muon_max_side": 2048,
    "training.stop": 0,
    "training.held_out": 0,
    "training.on_device": False,
    "vocabulary": "",
    "vocabulary_size": 8192,
    "prior": "",
    "freeze": "",
    "keep_base": 0.0,
    "loss.perceptual": 0.0,
}
"""What trainings did, whose kept configuration is older than the setting."""
PLACES = ("data", "base", "image_encoder", "prior")
"""Settings that name a file or folder, which can be written in several ways."""
FORMAT = 3
"""Of checkpoints; the first held AdamW's moments, and the net's weights without the objective's prefix; the second
did not count the time."""


class Checkpoint(TypedDict):
    """What a training resumes from: steps and seconds done, weights by name, and the optimizer's moments."""

    step: int
    seconds: float
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    sums: dict[str, float]
    bad: dict[str, str]


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
    def held_out(self) -> Path:
        """As `log`: the measures on held-out samples."""
        return self._path("held_out.jsonl")

    @property
    def config(self) -> Path:
        """The settings that the training was begun with."""
        return self._path("config.json")

    def _path(self, ending: str) -> Path:
        return self.folder / (f"{self.name}.{ending}" if self.name else ending)


def write_state(files: RunFiles, state: Checkpoint) -> None:
    """Write the checkpoint. Raises OSError where the disk is full: the one before is then still there."""
    with whole_file(files.state) as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # what torch makes of an OSError within its writer
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def clear_leftovers(*folders: Path) -> None:
    """Remove the unfinished files that a process killed while writing has left in these folders."""
    for path in (path for folder in folders for path in folder.glob(".*.part")):
        path.unlink(missing_ok=True)


def read_state(files: RunFiles) -> Checkpoint | None:
    """Read the checkpoint; None where there is none yet.

    Raises:
        CheckpointError: it is damaged.
    """
    path = files.state
    if not path.is_file():
        return None
    try:
        state = _upgraded(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # torch raises whatever damaged bytes make it meet
        raise CheckpointError(f"The checkpoint '{path}' cannot be read ({error}): delete it to begin anew.") from error
    if faults := [name for name, fits in _FITS.items() if not fits(state.get(name))]:
        raise CheckpointError(f"The checkpoint '{path}' is damaged: {faults} are not usable. Delete it to begin anew.")
    return state


def _upgraded(state: Any) -> Any:
    """Turn a checkpoint of an earlier format into one of this."""
    if state.get("format") == FORMAT:
        return state
    if state.get("format") == 2:
        return {**state, "seconds": 0.0}
    trained = {name: tensor for name, tensor in state["net"].items() if name in state["average"]}
    kept = {name: tensor for name, tensor in state["net"].items() if name not in trained}
    return {
        **state,
        "seconds": 0.0,
        "parameters": {f"net.{name}": tensor for name, tensor in trained.items()},
        "buffers": {f"net.{name}": tensor for name, tensor in kept.items()},
        "average": {f"net.{name}": tensor for name, tensor in state["average"].items()},
        "optimizer": {"adamw": state["optimizer"]},
    }


def _maps_to(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


_FITS = {
    "step": lambda value: type(value) is int and value >= 0,
    "seconds": _is_time,
    "parameters": lambda value: _maps_to(value, Tensor),
    "buffers": lambda value: _maps_to(value, Tensor),
    "average": lambda value: _maps_to(value, Tensor),
    "optimizer": lambda value: isinstance(value, dict),
    "scaler": lambda value: value is None or isinstance(value, dict),
    "sums": lambda value: _maps_to(value, (int, float)),
    "bad": lambda value: _maps_to(value, str),
}
"""What each entry of a checkpoint has to be."""


def settle_config(files: RunFiles, config: dict[str, Any], data: str, write: bool) -> None:
    """Keep the configuration; where a training is resumed, check that it is the same.

    Raises:
        ValueError: the folder holds a checkpoint of other settings, which are named.
    """
    new = {"data": data, **config}
    if files.config.is_file() and files.state.is_file():
        old = checked(dict[str, Any], read_json(files.config), f"'{files.config}'")
        now = _flat(json.loads(json.dumps(new)))
        before = {name: value for name, value in BEFORE.items() if name in now} | _flat(old)
        differing = [name for name in sorted({*before, *now}) if not _same(name, before.get(name), now.get(name))]
        if fixed := [name for name in differing if not _is_changeable(name)]:
            changes = ", ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in fixed)
            raise ValueError(
                f"'{files.folder}' holds a training with other settings ({changes}): set them back to go on, "
                "or name another folder as --output."
            )
    if write:
        write_whole(files.config, (json.dumps(new, indent=2) + "\n").encode())


def _same(name: str, old: Any, new: Any) -> bool:
    """Whether two values of a setting mean the same: "photos", "photos/" and "./photos" are one folder."""
    if name in PLACES and old and new and isinstance(old, str) and isinstance(new, str):
        return os.path.realpath(old) == os.path.realpath(new)
    return old == new


def _is_changeable(name: str) -> bool:
    return name.removeprefix("training.") in CHANGEABLE or name.startswith("settings")


def append_log(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def read_log(files: RunFiles) -> list[dict[str, Any]]:
    """Read the log's lines; one that a crash cut off, or that is damaged, is left out."""
    return _read_lines(files.log)[0]


def cut_log(files: RunFiles, step: int) -> None:
    """Drop the logs' lines of steps after `step`, which are trained again, and say how many are damaged."""
    for path in (files.log, files.held_out):
        lines, damaged = _read_lines(path)
        if damaged:
            say(f"unclip: {damaged} lines of '{path}' are damaged or cut off; they are dropped.")
        if path.is_file():
            kept = [line for line in lines if line["step"] <= step]
            write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines that are usable, and how many are not."""
    texts = read_text(path).splitlines() if path.is_file() else []
    lines = [line for text in texts if (line := _line(text)) is not None]
    return lines, len(texts) - len(lines)


def _line(text: str) -> dict[str, Any] | None:
    try:
        line = parse_json(text, "a line of the log")
    except MalformedInput:
        return None
    return line if isinstance(line, dict) and type(line.get("step")) is int else None


def _flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
