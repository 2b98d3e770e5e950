"""The engine of every training: one loop, checkpoints, log and samples, whatever is trained on whatever data."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..output import say
from .activation_checkpointing import enable_activation_checkpointing
from .batch_sources import BatchSource, Part
from .budget import Budget
from .config import Training
from .gradients import accumulate_gradients, check_finite, norm_figures
from .interrupts import Interrupts
from .logbook import Logbook
from .optimizer import MuonAdamW, WeightAverage, cosine_lr
from .progress import Progress
from .restoring import restore, restore_moments
from .running_means import RunningMeans
from .state import Checkpoint, RunFiles, cut_log, read_state, write_state

AGREE_EVERY = 8
"""Steps between the times that several processes compare clocks and interrupts, for which they wait for each other."""


@dataclass(frozen=True)
class Hooks:
    """What is done beside training, by the first process alone.

    Attributes:
        save: after each checkpoint, with the averaged weights by the objective's names, float32.
        sample: every `sample_every` steps while the objective has its averaged weights, with the step's number;
            returns an image uint8 `[H, W, 3]` or None.
        measure: as `sample`, and at the end; returns figures by name, which go to the log of held-out samples.
    """

    save: Callable[[Mapping[str, Tensor]], None]
    sample: Callable[[int], Tensor | None] | None = None
    measure: Callable[[int], Mapping[str, float]] | None = None


class Engine:
    """Trains an objective for as long as `training` says, resuming from the checkpoint where there is one."""

    def __init__(
        self,
        objective: nn.Module,
        source: BatchSource,
        training: Training,
        files: RunFiles,
        processes: Any,
        hooks: Hooks,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            objective: takes a batch, gives named losses; see `objectives`.
            source: of the batches.
            training: how long, how fast and how precisely.
            files: for checkpoint and log.
            processes: accelerate's Accelerator, or `OneProcess`.
            hooks: what is done beside training.
            clock: seconds, of the time that is trained.

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
        self.budget = Budget(training, clock)
        self._means, self._saved = RunningMeans(processes), clock()
        self._clock = clock
        self._interrupts = Interrupts()
        self._logbook = Logbook(files, training.tensorboard, self.main)
        self._measured = -1
        self._resume()

    def run(self) -> bool:
        """Train; whether all is done. An interrupt (Ctrl-C, SIGTERM) ends it after a checkpoint.

        torch's global generator is left as it was.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; the last checkpoint stays as it was.
            OSError: the last checkpoint or the result cannot be written.
        """
        self._saved = self._clock()
        self.budget.start(self.budget.seconds)
        with torch.random.fork_rng(devices=[]):
            finished = self._loop()
            self._collect()
            self.save()  # before what is measured, which may be interrupted or fail
            if finished:
                self._measure()
        self.processes.wait_for_everyone()
        self._gather_bad()
        return finished

    def _loop(self) -> bool:
        finished = self.budget.is_over(self.step)
        with self._interrupts, self._progress() as progress:
            for parts in [] if finished else self._batches():
                self._train_step(parts)
                stop, save = self._agree()
                progress.update(self.step, self._figures, lambda: self.budget.seconds_left(self.step))
                if self.step % self.training.log_every == 0:
                    self._log()
                every = self.training.sample_every
                if every and self.step % every == 0:
                    self._unless_disk_is_full("the samples", self._sample)
                    self._measure()
                finished = self.budget.is_over(self.step)
                if finished or stop:
                    break
                if save:
                    self._collect()
                    self._unless_disk_is_full("the checkpoint", self.save)
                    self._saved = self._clock()
        return finished

    def save(self) -> None:
        """Write the checkpoint and the result, by the first process. Raises OSError where the disk is full."""
        if not self.main:
            return
        scaler = self.processes.scaler
        state: Checkpoint = {
            "step": self.step,
            "seconds": self.budget.seconds,
            "parameters": self.optimizer.masters,
            "buffers": dict(self.objective.named_buffers()),
            "average": self.average.tensors,
            "optimizer": self._stepper.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "sums": self._means.sums,
            "bad": self.bad,
        }
        write_state(self.files, state)
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
        average = self.average.tensors if self.main else {}
        restore(state, self.files, self.objective, self.optimizer, average)
        restore_moments(state, self.files, self._stepper, self.processes.scaler)
        self.step, self.budget.seconds = state["step"], state["seconds"]
        self._means.sums, self.bad = dict(state["sums"]), dict(state["bad"])
        if self.main:
            cut_log(self.files, self.step)

    def _batches(self) -> Iterator[list[Part]]:
        """The parts of each step that is left, on the device."""
        for parts in self._source.steps(self.step, self.training.last):
            for part in parts:
                self.bad |= dict(part.pop("bad", ()))
            device = self.processes.device
            yield [{name: tensor.to(device, non_blocking=True) for name, tensor in part.items()} for part in parts]

    def _train_step(self, parts: list[Part]) -> None:
        """Take one optimizer step; nothing in it waits for the device."""
        training = self.training
        rate = cosine_lr(self.step, training.steps, training.lr, training.warmup, self.budget.share_of_time)
        self.optimizer.set_lr(rate)
        torch.manual_seed((training.seed * 1_000_003 + self.step * 1_009 + self.processes.process_index) % 2**63)
        values = accumulate_gradients(self.processes, self._wrapped, parts)
        self.optimizer.gather_gradients()
        norm = self.processes.clip_grad_norm_(
            list(self.optimizer.param_groups[0]["params"]), training.clip_norm or math.inf
        )
        self._stepper.step()
        self._stepper.zero_grad()
        self.step += 1
        if self.main:
            self.average.update(self.optimizer.masters, self.step)
        self._means.add(values | norm_figures(self.processes, self._stepper, norm))
        self._rate = rate

    def _agree(self) -> tuple[bool, bool]:
        """Whether to stop, and to save; several processes follow the first one's clock, and stop if any is told to."""
        due = self._clock() - self._saved > 60 * self.training.save_minutes
        if self.processes.num_processes == 1:
            self.budget.tick()
            return self._interrupts.asked, due
        if self.step % AGREE_EVERY:
            return False, False
        seconds = self.budget.tick()
        mine = [float(self._interrupts.asked), float(due and self.main), seconds if self.main else 0.0]
        told = self.processes.reduce(torch.tensor(mine, device=self.processes.device), "sum").tolist()
        self.budget.seconds = told[2]
        return told[0] > 0, told[1] > 0

    def _collect(self) -> dict[str, float]:
        """Read the sums off the device. Raises FloatingPointError where the loss or its gradient was not finite."""
        sums = self._means.collect()
        check_finite(sums, self._means.means(), self.step)
        return sums

    def _figures(self) -> dict[str, float]:
        """What is shown beside the progress; several processes would have to wait for each other to sum it up."""
        if self.processes.num_processes == 1:
            self._collect()
        means = self._means.means()
        return {"loss": means["loss"]} if "loss" in means else {}

    def _log(self) -> None:
        self._collect()
        line = {"step": self.step, "lr": self._rate, **self._means.means()}
        self._means.sums = {}
        self._unless_disk_is_full("the log", lambda: self._logbook.write(line))

    def _sample(self) -> None:
        if not self.main or self.hooks.sample is None:
            return
        with self.averaged(), torch.no_grad():
            image = self.hooks.sample(self.step)
        if image is not None:
            self._logbook.show(self.step, image)

    def _measure(self) -> None:
        """Measure on held-out samples, once a step."""
        if not self.main or self.hooks.measure is None or self._measured == self.step:
            return
        self._measured = self.step
        with self.averaged(), torch.no_grad():
            figures = self.hooks.measure(self.step)
        line = {"step": self.step, **figures}
        self._unless_disk_is_full("the measures", lambda: self._logbook.write(line, held_out=True))

    def _unless_disk_is_full(self, what: str, call: Callable[[], None]) -> None:
        """Write while training; a full disk does not end it, and the next writing tries again."""
        try:
            call()
        except OSError as error:
            say(f"unclip: {what} of step {self.step} could not be written ({error}); training goes on.")

    def _gather_bad(self) -> None:
        if self.processes.num_processes > 1:
            from accelerate.utils import gather_object

            self.bad = dict(gather_object(list(self.bad.items())))
        self._logbook.close()

    def _progress(self) -> Progress:
        total = self.training.last if self.training.steps else None
        return Progress(f"train {self.files.name or self.files.folder.name}", "step", total, self.step, self.main)
