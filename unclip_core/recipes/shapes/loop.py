"""The training loop of every stage: schedule, log, checkpoints that are whole or absent, resume without a jump."""

import io
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...train.optimizer import MasterOptimizer, cosine_lr
from ...weights.files import write_whole

StepLoss = Callable[[int], dict[str, Tensor]]


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to train.

    Attributes:
        steps: optimizer steps of the learning rate's schedule.
        stop: step after which training ends; None for the schedule's end.
        muon: whether Muon updates the hidden matrices.
        lr: peak learning rate.
        warmup: steps of linear warm-up.
        weight_decay: AdamW's decay of matrices.
        ema: decay of the moving average per step.
        save_seconds: time between checkpoints.
        log_every: steps between lines of the log.
    """

    steps: int
    lr: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.01
    ema: float = 0.999
    save_seconds: float = 120.0
    log_every: int = 50
    stop: int | None = None
    muon: bool = False

    @property
    def last(self) -> int:
        """The step after which training ends."""
        return self.steps if self.stop is None else min(self.stop, self.steps)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        return cosine_lr(step, self.steps, self.lr, self.warmup)


class Loop:
    """Trains one module. The data of a step must depend on the step's number alone, so that a resume sees the same."""

    def __init__(self, name: str, module: nn.Module, config: LoopConfig, folder: Path) -> None:
        """Prepare, and go on from the checkpoint in `folder` where there is one."""
        self.name, self.module, self.config, self.folder = name, module, config, folder
        self.optimizer = MasterOptimizer(module, config.lr, config.weight_decay, config.ema, config.muon)
        self.step = 0
        self._checkpoint = folder / f"{name}.state.pt"
        self._resume()

    def run(self, loss_of_step: StepLoss, on_save: Callable[[], None] | None = None) -> None:
        """Train to the last step. `loss_of_step(step)` returns named scalars, of which `loss` is minimised.

        `on_save` is called after each checkpoint.

        Raises:
            FloatingPointError: the loss is not finite; the last checkpoint stays as it was.
        """
        saved = time.monotonic()
        with tqdm(total=self.config.last, initial=self.step, desc=f"train {self.name}", unit="step") as bar:
            while self.step < self.config.last:
                values = self._one_step(loss_of_step)
                bar.update()
                if self.step % self.config.log_every == 0:
                    self._log(values, bar)
                if time.monotonic() - saved > self.config.save_seconds or self.step == self.config.last:
                    self.save()
                    if on_save is not None:
                        on_save()
                    saved = time.monotonic()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        buffer = io.BytesIO()
        torch.save({"step": self.step, "config": asdict(self.config), "optimizer": self.optimizer.state_dict()}, buffer)
        write_whole(self._checkpoint, buffer.getvalue())

    def trained(self) -> dict[str, Tensor]:
        """The module's state dict with the fp32 masters of its parameters."""
        state = {name: tensor.detach().float().clone() for name, tensor in self.module.state_dict().items()}
        return state | {name: tensor.clone() for name, tensor in self.optimizer.masters().items()}

    def averaged(self) -> dict[str, Tensor]:
        """The module's state dict with the averaged parameters in place of the trained ones, fp32."""
        state = {name: tensor.detach().float().clone() for name, tensor in self.module.state_dict().items()}
        return state | {name: tensor.clone() for name, tensor in self.optimizer.averages().items()}

    def _one_step(self, loss_of_step: StepLoss) -> dict[str, Tensor]:
        values = loss_of_step(self.step)
        values["loss"].backward()
        values["grad_norm"] = self.optimizer.step(self.config.lr_at(self.step), self.step)
        self.step += 1
        return values

    def _log(self, values: dict[str, Tensor], bar: tqdm) -> None:
        numbers = {name: round(float(value.detach()), 5) for name, value in values.items()}
        if not all(torch.isfinite(torch.tensor(list(numbers.values())))):
            raise FloatingPointError(f"training {self.name}: step {self.step} is not finite: {numbers}")
        bar.set_postfix({"loss": numbers["loss"]}, refresh=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{self.name}.log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({"step": self.step, "time": round(time.time(), 1), **numbers}) + "\n")

    def _resume(self) -> None:
        if not self._checkpoint.is_file():
            return
        state = torch.load(self._checkpoint, weights_only=True, map_location="cpu")
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
