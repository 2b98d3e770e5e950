"""The processes that train together: Hugging Face accelerate's, or this one alone."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..weights.computing import computing_dtype
from .config import Training

PATIENCE = timedelta(hours=6)
"""How long processes wait for one that reads, writes or draws."""


def make_accelerator(training: Training, cpu: bool = False) -> Any:
    """accelerate's Accelerator, in the process group that its launcher set up, if any.

    In the precision of the training, but in float32 on a CPU that only emulates bfloat16.

    Raises:
        ValueError: a package is not installed, or the precision needs a GPU and there is none.
    """
    try:
        from accelerate import Accelerator, InitProcessGroupKwargs, PartialState
    except ImportError as error:
        raise ValueError(
            "Training on own images needs the package 'accelerate', and 'peft' for LoRAs: pip install "
            '"accelerate>=1.0" "peft>=0.15"'
        ) from error
    if training.tensorboard and find_spec("tensorboard") is None:
        raise ValueError("training.tensorboard needs the package 'tensorboard': pip install \"tensorboard>=2.14\"")
    # Parts of a step are counted here and not by accelerate, so that a step is the same however it is parted.
    group = InitProcessGroupKwargs(timeout=PATIENCE)
    precision = training.precision
    if precision == "bf16":
        # accelerate's own way to the device, which it has to know before the precision.
        device = PartialState(cpu, **group.to_kwargs()).device
        precision = "bf16" if computing_dtype(torch.bfloat16, device) == torch.bfloat16 else "no"
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[group])
    if training.precision == "fp16" and accelerator.device.type == "cpu":
        # accelerate would train in float32 and not say so.
        raise ValueError('training.precision "fp16" needs a GPU: on a CPU take "bf16" or "no".')
    return accelerator


def part(accelerator: Any) -> None:
    """End the group of processes, once all have come so far.

    Without it the group's threads may still run when the interpreter ends, and a process that is done dies of them.
    """
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        accelerator.end_training()


class OneProcess:
    """What the engine asks of an Accelerator, for this process alone and weights that stay in their own dtype.

    So a recipe needs no accelerate.
    """

    is_main_process, process_index, num_processes, scaler = True, 0, 1, None

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def prepare(self, *things: Any) -> tuple[Any, ...]:
        """The things as they are."""
        return things

    def no_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """Nothing to leave out."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""
        loss.backward()

    def clip_grad_norm_(self, parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        """Scale the gradients to `max_norm` where they are longer; returns their norm."""
        return nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        """The tensor: there is no other process."""
        return tensor

    def wait_for_everyone(self) -> None:
        """Wait for nobody."""
