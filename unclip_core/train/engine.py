"""The engine of every training: one loop, checkpoints, log and samples, whatever is trained on whatever data."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..weights.files import CheckpointError
from .activation_checkpointing import enable_activation_checkpointing
from .batch_sources import BatchSource, Part
from .config import Training
from .interrupts import Interrupts
from .optimizer import MuonAdamW, WeightAverage, cosine_lr
from .state import RunFiles, append_log, cut_log, read_state, write_state


@dataclass(frozen=True)
class Hooks:
    """What is done beside training, by the first process alone.

    Attributes:
        save: after each checkpoint, with the averaged weights by the objective's names, float32.
        sample: every `sample_every` steps while the objective has its averaged weights, with the step's number;
            returns an image uint8 `[H, W, 3]` or None.
    """

    save: Callable[[Mapping[str, Tensor]], None]
    sample: Callable[[int], Tensor | None] | None = None


class Engine:
    """Trains an objective to `training.last`, resuming from the checkpoint where there is one."""

    def __init__(
        self,
        objective: nn.Module,
        source: BatchSource,
        training: Training,
        files: RunFiles,
        processes: Any,
        hooks: Hooks,
    ) -> None:
        """Prepare.

        Args:
            objective: takes a batch, gives named losses; see `objectives`.
            source: of the batches.
            training: how long, how fast and how precisely.
            files: for checkpoint and log.
            processes: accelerate's Accelerator, or `OneProcess`.
            hooks: what is done beside training.

        Raises:
            CheckpointError: the checkpoint is damaged, or of another objective.
        """
        self.training, self.files, self.processes, self.hooks = training, files, processes, hooks
        self.main = processes.is_main_process
        self._source = source
        if training.checkpointing:
            enable_activation_checkpointing(objective.net)
        self.objective = objective.to(processes.device)
        self._parameters = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        self.optimizer = MuonAdamW(
            objective,
            training.lr,
            training.weight_decay,
            betas=(0.9, training.beta2),
            muon=training.optimizer == "muon",
            max_side=training.muon_max_side,
        )
        self._wrapped, self._stepper = processes.prepare(self.objective, self.optimizer)
        # On the first process alone; the others never ask for it.
        self.average: Any = WeightAverage(self.optimizer.masters, training.ema) if self.main else None
        self.step = 0
        self.bad: dict[str, str] = {}
        self._sums: dict[str, float] = {}
        self._interrupts = Interrupts()
        self._writer: Any = None
        self._resume()

    def run(self) -> bool:
        """Train; whether all steps are done. An interrupt (Ctrl-C, SIGTERM) ends it after a checkpoint.

        torch's global generator is left as it was.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; the last checkpoint stays as it was.
            OSError: the last checkpoint or the result cannot be written.
        """
        with torch.random.fork_rng(devices=[]):
            finished = self._loop()
        self.save()
        self.processes.wait_for_everyone()
        self._gather_bad()
        return finished

    def _loop(self) -> bool:
        saved, finished = time.monotonic(), self.step >= self.training.last
        with self._interrupts, self._progress() as bar:
            for parts in self._batches():
                stop = self._one_step(parts)
                bar.update()
                bar.set_postfix(loss=f"{self._last['loss']:.4g}", refresh=False)
                if self.step % self.training.log_every == 0:
                    self._log()
                every = self.training.sample_every
                if every and self.step % every == 0:
                    self._unless_disk_is_full("the samples", self._sample)
                finished = self.step >= self.training.last
                if finished or stop:
                    break
                if time.monotonic() - saved > 60 * self.training.save_minutes:
                    self._unless_disk_is_full("the checkpoint", self.save)
                    saved = time.monotonic()
        return finished

    def save(self) -> None:
        """Write the checkpoint and the result, by the first process. Raises OSError where the disk is full."""
        if not self.main:
            return
        scaler = self.processes.scaler
        write_state(
            self.files,
            {
                "step": self.step,
                "parameters": self.optimizer.masters,
                "buffers": dict(self.objective.named_buffers()),
                "average": self.average.tensors,
                "optimizer": self._stepper.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "sums": self._sums,
                "bad": self.bad,
            },
        )
        self.hooks.save(self.average.tensors)

    def trained_state(self) -> dict[str, Tensor]:
        """The objective's state dict with the float32 masters of its parameters, all in float32."""
        return self._full_state(self.optimizer.masters)

    def averaged_state(self) -> dict[str, Tensor]:
        """The objective's state dict with the averaged parameters, all in float32 (first process only)."""
        return self._full_state(self.average.tensors)

    def _full_state(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state = {name: tensor.detach().float().clone() for name, tensor in self.objective.state_dict().items()}
        return state | {name: tensor.clone() for name, tensor in values.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the objective its averaged weights, for the length of a block (first process only)."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._fill(self.average.tensors)
        try:
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])

    def _resume(self) -> None:
        state = read_state(self.files)
        if state is None:
            return
        if set(self._parameters) != set(state["parameters"]):
            raise CheckpointError(
                f"The checkpoint in '{self.files.folder}' is of another net: name another output folder."
            )
        self._load_weights(state)
        try:
            self._stepper.load_state_dict(state["optimizer"])
        except KeyError as error:
            raise CheckpointError(
                f"The checkpoint in '{self.files.folder}' is of another optimizer (it lacks {error})."
            ) from error
        if state["scaler"] is not None and self.processes.scaler is not None:
            self.processes.scaler.load_state_dict(state["scaler"])
        self.step, self._sums, self.bad = int(state["step"]), dict(state["sums"]), dict(state["bad"])
        if self.main:
            cut_log(self.files, self.step)

    @torch.no_grad()
    def _load_weights(self, state: Mapping[str, Any]) -> None:
        for name, master in self.optimizer.masters.items():
            master.copy_(state["parameters"][name])
        self.optimizer.copy_back()
        for name, buffer in self.objective.named_buffers():
            if name in state["buffers"]:
                buffer.copy_(state["buffers"][name])
        if self.main:
            for name, tensor in self.average.tensors.items():
                tensor.copy_(state["average"][name])

    def _batches(self) -> Iterator[list[Part]]:
        """The parts of each step that is left, on the device."""
        for parts in self._source.steps(self.step, self.training.last):
            for part in parts:
                self.bad |= dict(part.pop("bad", ()))
            device = self.processes.device
            yield [{name: tensor.to(device, non_blocking=True) for name, tensor in part.items()} for part in parts]

    def _one_step(self, parts: list[Part]) -> bool:
        """One optimizer step; whether any process was told to stop."""
        rate = cosine_lr(self.step, self.training.steps, self.training.lr, self.training.warmup)
        self.optimizer.set_lr(rate)
        torch.manual_seed(self.training.seed * 1_000_003 + self.step * 1_009 + self.processes.process_index)
        values = self._gradients(parts)
        self.optimizer.gather_gradients()
        norm = self.processes.clip_grad_norm_(list(self.optimizer.param_groups[0]["params"]), self.training.clip_norm)
        self._stepper.step()
        self._stepper.zero_grad()
        self.step += 1
        if self.main:
            self.average.update(self.optimizer.masters, self.step)
        return self._note(values, norm, rate)

    def _gradients(self, parts: list[Part]) -> dict[str, Tensor]:
        """Add up the gradients of a step's parts; returns the parts' mean losses by name."""
        values: dict[str, Tensor] = {}
        for number, part in enumerate(parts, start=1):
            last = number == len(parts)
            with nullcontext() if last else self.processes.no_sync(self._wrapped):
                found = self._wrapped(part)
                self.processes.backward(found["loss"] / len(parts))
            for name, value in found.items():
                values[name] = values.get(name, 0) + value.detach() / len(parts)
        return values

    def _note(self, values: Mapping[str, Tensor], norm: Tensor, rate: float) -> bool:
        names = list(values)
        flags = torch.tensor([float(self._interrupts.asked)], device=self.processes.device)
        means = torch.cat([torch.stack([values[name].float() for name in names]), flags])
        *numbers, stop = self.processes.reduce(means, "mean").tolist()
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
        if self.processes.scaler is None:
            return {"grad_norm": float(norm)}
        skipped = self._stepper.step_was_skipped
        return {"grad_norm": 0.0 if skipped else float(norm), "skipped": float(skipped)}

    def _log(self) -> None:
        count = self._sums.pop("steps")
        line = {"step": self.step, "lr": self._rate, **{name: total / count for name, total in self._sums.items()}}
        self._sums, timed = {}, {**line, "time": round(time.time(), 1)}
        if self.main:
            self._unless_disk_is_full("the log", lambda: append_log(self.files, timed))
            for name, number in line.items():
                if name != "step" and (writer := self._tensorboard()) is not None:
                    writer.add_scalar(name, number, self.step)

    def _sample(self) -> None:
        if not self.main or self.hooks.sample is None:
            return
        with self.averaged(), torch.no_grad():
            image = self.hooks.sample(self.step)
        if image is not None and (writer := self._tensorboard()) is not None:
            writer.add_image("samples", image, self.step, dataformats="HWC")

    def _tensorboard(self) -> Any:
        """TensorBoard's writer, where it is asked for."""
        if self._writer is None and self.training.tensorboard and self.main:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.files.folder / "tensorboard", purge_step=self.step)
        return self._writer

    def _unless_disk_is_full(self, what: str, call: Callable[[], None]) -> None:
        """Write while training; a full disk does not end it, and the next writing tries again."""
        try:
            call()
        except OSError as error:
            tqdm.write(f"unclip: {what} of step {self.step} could not be written ({error}); training goes on.")

    def _gather_bad(self) -> None:
        if self.processes.num_processes > 1:
            from accelerate.utils import gather_object

            self.bad = dict(gather_object(list(self.bad.items())))
        if self._writer is not None:
            self._writer.close()

    def _progress(self) -> tqdm:
        return tqdm(
            total=self.training.last,
            initial=self.step,
            desc=f"train {self.files.name}" if self.files.name else None,
            unit="step",
            disable=None if self.main else True,
        )
