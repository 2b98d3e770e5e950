"""What a training keeps on the disk to go on from: checkpoints that are whole or absent, and the log."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..weights.files import CheckpointError, whole_file, write_whole

STATE, LOG, CONFIG = "state.pt", "log.jsonl", "config.json"
CHANGEABLE = (
    "steps",
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


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the checkpoint. Raises OSError where the disk is full: the one before is then still there."""
    with whole_file(folder / STATE) as file:
        torch.save(dict(state), file)


def clear_leftovers(*folders: Path) -> None:
    """Remove what a process that was killed while it wrote left aside in these folders."""
    for path in (path for folder in folders for path in folder.glob(".*.part")):
        path.unlink(missing_ok=True)


def read_state(folder: Path) -> dict[str, Any] | None:
    """The checkpoint; None where there is none yet.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise CheckpointError(f"The checkpoint '{path}' cannot be read ({error}): delete it to begin anew.") from error


def settle_config(folder: Path, config: dict[str, Any], data: str, write: bool) -> None:
    """Keep the configuration; where a training goes on, check that it is the same.

    Raises:
        ValueError: the folder holds a checkpoint of other settings, which are named.
    """
    new = {"data": data, **config}
    path = folder / CONFIG
    if path.is_file() and (folder / STATE).is_file():
        old = json.loads(path.read_text(encoding="utf-8"))
        before, now = _flat(old), _flat(json.loads(json.dumps(new)))
        free = {f"training.{name}" for name in CHANGEABLE}
        differing = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        if fixed := [name for name in differing if name not in free]:
            changes = ", ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in fixed)
            raise ValueError(
                f"'{folder}' holds a training with other settings ({changes}): set them back to go on, "
                "or name another folder as --output."
            )
    if write:
        write_whole(path, (json.dumps(new, indent=2) + "\n").encode())


def append_log(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the log."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log; one that a crash cut off is left out."""
    path = folder / LOG
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line for text in lines if (line := _line(text)) is not None]


def cut_log(folder: Path, step: int) -> None:
    """Drop what the log says of steps after `step`: they are trained again."""
    if (folder / LOG).is_file():
        kept = [line for line in read_log(folder) if line["step"] <= step]
        write_whole(folder / LOG, "".join(json.dumps(line) + "\n" for line in kept).encode())


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
