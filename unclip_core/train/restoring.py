"""Puts a checkpoint back into what is trained; one that does not fit is refused by one sentence."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..weights.files import CheckpointError
from .optimizer import MuonAdamW
from .state import Checkpoint, RunFiles

OTHER_NET = "is of another net: name another output folder"


@torch.no_grad()
def restore(
    state: Checkpoint, files: RunFiles, objective: nn.Module, optimizer: MuonAdamW, average: Mapping[str, Tensor]
) -> None:
    """Put weights and buffers back.

    Args:
        state: the checkpoint.
        files: where it comes from, for errors.
        objective: what is trained.
        optimizer: of its parameters, which holds their float32 masters.
        average: the averaged weights; empty where this process keeps none.

    Raises:
        CheckpointError: names or shapes differ.
    """
    buffers = dict(objective.named_buffers())
    kept = {name: tensor for name, tensor in state["buffers"].items() if name in buffers}
    pairs = (
        (optimizer.masters, state["parameters"]),
        (optimizer.masters, state["average"]),
        ({name: buffers[name] for name in kept}, kept),
    )
    if any(_shapes(own) != _shapes(read) for own, read in pairs):
        raise wrong_checkpoint(files, OTHER_NET)
    for own, read in (pairs[0], pairs[2], (average, state["average"])):
        for name, tensor in own.items():
            tensor.copy_(read[name])
    optimizer.copy_back()


def restore_moments(state: Checkpoint, files: RunFiles, optimizer: Any, scaler: Any) -> None:
    """Put the optimizer's moments back, and fp16's scale where there is one. Raises CheckpointError."""
    try:
        optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and scaler is not None:
            scaler.load_state_dict(state["scaler"])
    except Exception as error:  # torch's optimizers raise what they meet
        raise wrong_checkpoint(files, f"is of another optimizer ({type(error).__name__}: {error})") from error


def wrong_checkpoint(files: RunFiles, said: str) -> CheckpointError:
    """Make the error of a checkpoint that does not fit; `said` begins with the verb."""
    return CheckpointError(f"The checkpoint in '{files.folder}' {said}.")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
