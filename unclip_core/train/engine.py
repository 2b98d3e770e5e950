"""The engine under every stage: Hugging Face accelerate for processes and precision, one loop, checkpoints, logs."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..weights.files import CheckpointError
from .batch_sampler import Order, OrderedBatches
from .config import Training
from .datasets import Items, KeyedItems, stacked
from .interrupts import Interrupts
from .objectives import recompute_activations
from .optimizer import cosine_lr
from .state import append_log, cut_log, read_state, write_state

PATIENCE = timedelta(hours=6)
"""How long processes wait for one that reads, writes or draws."""


def make_accelerator(training: Training, cpu: bool = False) -> Any:
    """accelerate's Accelerator, in the process group that its launcher set up, if any.

    Raises:
        ValueError: a package is not installed, or the precision needs a GPU and there is none.
    """
    try:
        from accelerate import Accelerator, InitProcessGroupKwargs
    except ImportError as error:
        raise ValueError(
            "Training on own images needs the package 'accelerate': pip install 'unclip[train]'."
        ) from error
    if training.tensorboard and find_spec("tensorboard") is None:
        raise ValueError("training.tensorboard needs the package 'tensorboard': pip install 'unclip[train]'.")
    # Parts of a step are counted here and not by accelerate, so that a step is the same however it is parted.
    accelerator = Accelerator(
        mixed_precision=training.precision, cpu=cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]
    )
    if training.precision == "fp16" and accelerator.device.type == "cpu":
        # accelerate would train in float32 and not say so.
        raise ValueError('training.precision "fp16" needs a GPU: on a CPU take "bf16" or "no".')
    return accelerator


@dataclass(frozen=True)
class Hooks:
    """What is done beside training, by the first process alone, with the averaged weights by name.

    Attributes:
        save: after each checkpoint.
        sample: every `sample_every` steps, with the step's number; returns an image uint8 `[H, W, 3]` or None.
    """

    save: Callable[[Mapping[str, Tensor]], None]
    sample: Callable[[int], Tensor | None] | None = None


class Engine:
    """Trains the `net` of a stage module to `training.steps`, going on from the folder's checkpoint."""

    def __init__(
        self, stage: nn.Module, items: Items, training: Training, folder: Path, accelerator: Any, hooks: Hooks
    ) -> None:
        """Prepare; `folder` is for checkpoint, log and samples.

        Raises:
            CheckpointError: the checkpoint is damaged.
            ValueError: the batch cannot be shared among the processes.
        """
        self.training, self.folder, self.accelerator, self.hooks = training, folder, accelerator, hooks
        self.main = accelerator.is_main_process
        self._items = items
        self._order = Order(
            items.count,
            training.batch,
            training.accumulation,
            training.seed,
            accelerator.process_index,
            accelerator.num_processes,
        )
        if training.checkpointing:
            recompute_activations(stage.net)
        self.net = stage.net
        self._trained = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(
            _groups(stage, training.weight_decay), lr=training.lr, betas=(0.9, training.beta2)
        )
        self._stage, self._optimizer = accelerator.prepare(stage, optimizer)
        self.average = {name: p.detach().clone() for name, p in self._trained.items()} if self.main else {}
        self.step = 0
        self.bad: dict[str, str] = {}
        self._sums: dict[str, float] = {}
        self._interrupts = Interrupts()
        self._board: Any = None
        self._resume()

    def run(self) -> bool:
        """Train; whether all steps are done. An interrupt (Ctrl-C, SIGTERM) ends it after a checkpoint.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; the last checkpoint stays as it was.
            OSError: the last checkpoint or the result cannot be written.
        """
        saved, finished = time.monotonic(), self.step >= self.training.steps
        with self._interrupts, self._progress() as bar:
            for parts in self._batches():
                stop = self._one_step(parts)
                bar.update()
                bar.set_postfix(loss=f"{self._last['loss']:.4g}", refresh=False)
                if self.step % self.training.log_every == 0:
                    self._log()
                every = self.training.sample_every
                if every and self.step % every == 0:
                    self._spared("the samples", self._sample)
                finished = self.step >= self.training.steps
                if finished or stop:
                    break
                if time.monotonic() - saved > 60 * self.training.save_minutes:
                    self._spared("the checkpoint", self.save)
                    saved = time.monotonic()
        self.save()
        self.accelerator.wait_for_everyone()
        self._gather_bad()
        return finished

    def save(self) -> None:
        """Write the checkpoint and the result, by the first process. Raises OSError where the disk is full."""
        if not self.main:
            return
        scaler = self.accelerator.scaler
        write_state(
            self.folder,
            {
                "step": self.step,
                "net": {name: t.detach() for name, t in self._kept().items()},
                "average": self.average,
                "optimizer": self._optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "sums": self._sums,
                "bad": self.bad,
            },
        )
        self.hooks.save(self.average)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The net with its averaged weights, for the length of a block (first process only)."""
        own = {name: p.detach().clone() for name, p in self._trained.items()}
        self._fill(self.average)
        try:
            yield
        finally:
            self._fill(own)

    def _fill(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(values[name])

    def _kept(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the net: what is trained, and statistics."""
        return self._trained | dict(self.net.named_buffers())

    def _resume(self) -> None:
        state = read_state(self.folder)
        if state is None:
            return
        kept = self._kept()
        if set(kept) != set(state["net"]):
            raise CheckpointError(f"The checkpoint in '{self.folder}' is of another net: name another output folder.")
        with torch.no_grad():
            for name, tensor in kept.items():
                tensor.copy_(state["net"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.average = (
            {name: tensor.to(self.accelerator.device) for name, tensor in state["average"].items()} if self.main else {}
        )
        self.step, self._sums, self.bad = int(state["step"]), dict(state["sums"]), dict(state["bad"])
        if self.main:
            cut_log(self.folder, self.step)

    def _batches(self) -> Iterator[list[Any]]:
        """The parts of each step that is left, on the device."""
        batches = OrderedBatches(self._order, self.step, self.training.steps)
        loader = torch.utils.data.DataLoader(
            KeyedItems(self._items, self.training.seed),
            batch_sampler=batches,
            collate_fn=stacked,
            num_workers=self.training.workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        parts: list[Any] = []
        for part in loader:
            self.bad |= dict(part.pop("bad"))
            parts.append({name: tensor.to(self.accelerator.device, non_blocking=True) for name, tensor in part.items()})
            if len(parts) == self.training.accumulation:
                yield parts
                parts = []

    def _one_step(self, parts: list[Any]) -> bool:
        """One optimizer step; whether any process was told to stop."""
        rate = cosine_lr(self.step, self.training.steps, self.training.lr, self.training.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(self.training.seed * 1_000_003 + self.step * 1_009 + self.accelerator.process_index)
        values: dict[str, Tensor] = {}
        for number, part in enumerate(parts, start=1):
            last = number == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(self._stage):
                found = self._stage(part)
                self.accelerator.backward(found["loss"] / len(parts))
            for name, value in found.items():
                values[name] = values.get(name, 0) + value.detach() / len(parts)
        norm = self.accelerator.clip_grad_norm_(self._stage.parameters(), self.training.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        self._follow()
        return self._note(values, norm, rate)

    def _follow(self) -> None:
        """Move the average. A young one forgets faster, so that it is not made of the first weights."""
        if self.main:
            decay = min(self.training.ema, self.step / (9 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(
                    [self.average[name] for name in self._trained],
                    [p.detach() for p in self._trained.values()],
                    1 - decay,
                )

    def _note(self, values: Mapping[str, Tensor], norm: Tensor, rate: float) -> bool:
        names = list(values)
        flags = torch.tensor([float(self._interrupts.asked)], device=self.accelerator.device)
        means = torch.cat([torch.stack([values[name].float() for name in names]), flags])
        *numbers, stop = self.accelerator.reduce(means, "mean").tolist()
        self._last = dict(zip(names, numbers, strict=True)) | self._norm(norm)
        if not (math.isfinite(self._last["loss"]) and math.isfinite(self._last["grad_norm"])):
            raise FloatingPointError(
                f"the loss of step {self.step} or its gradient is not finite ({self._last}): "
                "lower training.lr, or train with another precision. The last checkpoint stands."
            )
        for name, number in self._last.items():
            self._sums[name] = self._sums.get(name, 0.0) + number
        self._sums["steps"] = self._sums.get("steps", 0.0) + 1
        self._rate = rate
        return stop > 0

    def _norm(self, norm: Tensor) -> dict[str, float]:
        """The gradients' norm; in fp16 also whether they overflowed, and the step was skipped for a smaller scale."""
        if self.accelerator.scaler is None:
            return {"grad_norm": float(norm)}
        skipped = self._optimizer.step_was_skipped
        return {"grad_norm": 0.0 if skipped else float(norm), "skipped": float(skipped)}

    def _log(self) -> None:
        count = self._sums.pop("steps")
        line = {"step": self.step, "lr": self._rate, **{name: total / count for name, total in self._sums.items()}}
        self._sums = {}
        if self.main:
            self._spared("the log", lambda: append_log(self.folder, {**line, "time": round(time.time(), 1)}))
            for name, number in line.items():
                if name != "step" and self._writer() is not None:
                    self._writer().add_scalar(name, number, self.step)

    def _sample(self) -> None:
        if not self.main or self.hooks.sample is None:
            return
        with self.averaged(), torch.no_grad():
            image = self.hooks.sample(self.step)
        if image is not None and self._writer() is not None:
            self._writer().add_image("samples", image, self.step, dataformats="HWC")

    def _writer(self) -> Any:
        """TensorBoard's, where it is asked for."""
        if self._board is None and self.training.tensorboard and self.main:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(self.folder / "tensorboard", purge_step=self.step)
        return self._board

    def _spared(self, what: str, call: Callable[[], None]) -> None:
        """Write on the way; a full disk does not end the training, and the next writing tries again."""
        try:
            call()
        except OSError as error:
            tqdm.write(f"unclip: {what} of step {self.step} could not be written ({error}); training goes on.")

    def _gather_bad(self) -> None:
        if self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            self.bad = dict(gather_object(list(self.bad.items())))
        if self._board is not None:
            self._board.close()

    def _progress(self) -> tqdm:
        return tqdm(total=self.training.steps, initial=self.step, unit="step", disable=None if self.main else True)


def _groups(stage: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in stage.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
